"""Verification trials: pairs of utterances, scored by how similar their embeddings are.

Shapes: N utterances, D dimensions, P pairs, K speakers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from speaker_invariant_ser.audit.verification.scorers import Scorer
from speaker_invariant_ser.indexing import to_indices

MAX_PAIRS = 200_000  # per encoder


@dataclass(frozen=True)
class Trials:
    """Scored pairs of utterances for one encoder.

    Attributes:
        score: Scores [P] of each scorer, higher for more similar pairs.
        target: Whether one speaker speaks both utterances [P].
        same_emotion: Whether both have the same emotion [P].
        speaker_pair: Positions of both speakers in `speakers` [P, 2].
        speakers: Names of the speakers [K].
        utterances: Number of utterances N.
        same_text_left_out: Whether pairs with the same text were left out.
    """

    score: dict[str, np.ndarray]
    target: np.ndarray
    same_emotion: np.ndarray
    speaker_pair: np.ndarray
    speakers: np.ndarray
    utterances: int
    same_text_left_out: bool

    def select(self, pairs: np.ndarray) -> "Trials":
        """Return the pairs given by a boolean mask or by positions."""
        return replace(
            self,
            score={name: values[pairs] for name, values in self.score.items()},
            target=self.target[pairs],
            same_emotion=self.same_emotion[pairs],
            speaker_pair=self.speaker_pair[pairs],
        )


def make_trials(
    embedding: np.ndarray,
    speaker: np.ndarray,
    emotion: np.ndarray,
    text: np.ndarray,
    scorers: Mapping[str, Scorer],
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
    recording: np.ndarray | None = None,
) -> Trials | None:
    """Score pairs of utterances of speakers that neither the encoder nor a scorer was trained on.

    Pairs of one recording, or of near copies, are left out: they resemble each other whoever speaks. So are pairs with the same
    text where texts are known, because a sentence resembles itself even across speakers; unless that would leave no target or no
    nontarget pair.

    Args:
        embedding: Embeddings [N, D].
        speaker: Speaker of each utterance [N].
        emotion: Emotion of each utterance [N].
        text: Text of each utterance [N], "" where unknown.
        scorers: Scorers by name, fitted on embeddings of other speakers.
        max_pairs: With more pairs, a sample of this size is drawn, half of it target pairs if there are as many.
        seed: Seed of the sample.
        recording: Recording of each utterance, or group of near copies [N]; None where each utterance is one of its own.

    Returns:
        The trials; None without both target and nontarget pairs (fewer than two speakers, or one utterance or recording of each).
    """
    speakers, index = np.unique(speaker), to_indices(speaker)
    left, right = draw_pairs(index, max_pairs, seed).T
    if recording is not None:
        apart = recording[left] != recording[right]
        left, right = left[apart], right[apart]
    target = index[left] == index[right]
    different_text = (text[left] != text[right]) | (text[left] == "")
    same_text_left_out = bool((text != "").any() and has_both_kinds(target[different_text]))
    if same_text_left_out:
        left, right, target = left[different_text], right[different_text], target[different_text]
    if not has_both_kinds(target):
        return None
    return Trials(
        score={name: scorer.compare(embedding, left, right) for name, scorer in scorers.items()},
        target=target,
        same_emotion=emotion[left] == emotion[right],
        speaker_pair=np.column_stack([index[left], index[right]]),
        speakers=speakers,
        utterances=len(speaker),
        same_text_left_out=same_text_left_out,
    )


def has_both_kinds(target: np.ndarray) -> bool:
    """Whether there are target and nontarget trials."""
    return bool(target.any() and not target.all())


def draw_pairs(speaker: np.ndarray, max_pairs: int, seed: int) -> np.ndarray:
    """Draw pairs of utterances without listing all pairs, of which there may be too many for the memory.

    Args:
        speaker: Speaker of each utterance [N], 0 to K - 1.
        max_pairs: With more pairs, a sample of this size is drawn, half of it target pairs if there are as many.
        seed: Seed of the sample.

    Returns:
        Positions [P, 2].
    """
    total = int(pair_count(len(speaker)))
    if total <= max_pairs:
        return pair_of_rank(np.arange(total))
    rng = np.random.default_rng(seed)
    sizes = np.bincount(speaker)
    last_rank = np.cumsum(pair_count(sizes))  # target pairs are ranked speaker by speaker
    rank = draw_ranks(last_rank[-1], max_pairs // 2, rng)
    drawn_speaker = np.searchsorted(last_rank, rank, side="right")
    within_speaker = pair_of_rank(rank - (last_rank - pair_count(sizes))[drawn_speaker])
    target = np.argsort(speaker, kind="stable")[(np.cumsum(sizes) - sizes)[drawn_speaker, None] + within_speaker]
    others = pair_of_rank(draw_ranks(total, 2 * max_pairs, rng))
    nontarget = others[speaker[others[:, 0]] != speaker[others[:, 1]]]
    return np.concatenate([target, nontarget[: max_pairs - len(target)]])


def draw_ranks(total: int, maximum: int, rng: np.random.Generator) -> np.ndarray:
    """Draw at most `maximum` of the integers below `total` without replacement, in random order."""
    return rng.choice(total, min(total, maximum), replace=False)


@overload
def pair_count(items: int) -> int: ...
@overload
def pair_count(items: np.ndarray) -> np.ndarray: ...
def pair_count(items: int | np.ndarray) -> int | np.ndarray:
    """Return the number of pairs of this many items."""
    return items * (items - 1) // 2


def pair_of_rank(rank: np.ndarray) -> np.ndarray:
    """Return pairs [P, 2] by their rank [P] in the order (1, 0), (2, 0), (2, 1), (3, 0), ...

    >>> pair_of_rank(np.arange(4)).tolist()
    [[1, 0], [2, 0], [2, 1], [3, 0]]
    """
    larger = ((1 + np.sqrt(1 + 8 * rank)) / 2).astype(np.int64)
    return np.column_stack([larger, rank - pair_count(larger)])
