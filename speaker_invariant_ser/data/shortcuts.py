"""Check a corpus for shortcuts: properties other than vocal expression from which a model could predict the emotion.

Each check predicts the emotion from one number or label. Predictions from numbers are scored on unseen speakers and compared with
chance. In a corpus with a shortcut every model appears better than it is.

A warning needs more than a high score: it also has to be improbable where emotions are random, which permutations of the emotions
tell. Otherwise few speakers, or one emotion that is far more frequent than the others, would cause warnings by themselves.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.conditions.measures import bandwidth
from speaker_invariant_ser.data.formats.identify import existing
from speaker_invariant_ser.data.formats.opening import open_recording
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.tables.names import groups
from speaker_invariant_ser.errors import AudioError, shorten
from speaker_invariant_ser.indexing import to_indices

NEIGHBOURS = 15
FOLDS = 5  # of speakers, for the cross-validation
MAX_UTTERANCES = 20_000  # larger corpora are sampled; the result is the same
MARGIN = 0.05  # a warning needs a confidence interval this far above chance, in UAR
ALPHA = 0.01  # of each warning, where emotions are random
PERMUTATIONS = 500
DOMINANT_SHARE = 0.8  # share of one emotion in a speaker's utterances from which the speaker predicts the emotion
MIN_UTTERANCES = 2  # per speaker, for that share to be meaningful; whether so few can be chance, the permutations tell
MIN_EXCESS = 0.25  # of the share of such speakers over that with random emotions


def examine(
    utterances: Sequence[Utterance],
    seconds: np.ndarray,
    zeros: np.ndarray,
    levels: np.ndarray,
    removed: Collection[str] = (),
    further: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Check utterances for every shortcut; utterances without an emotion are ignored.

    Args:
        utterances: The kept utterances.
        seconds: Their durations in seconds [N].
        zeros: Duration of the digital zeros at both ends in seconds [N].
        levels: RMS levels in dB [N].
        removed: Shortcuts that the preparation has treated ("padding", "level"); no advice is given for these.
        further: Further numbers [N] by their names in PROPERTIES, such as "bandwidth".

    Returns:
        The `shortcuts` of prepare.json: one entry per check (None where it is impossible), and `warnings` as sentences.
    """
    labelled = [bool(utterance.emotion) for utterance in utterances]
    utterances = list(compress(utterances, labelled))
    chosen = np.unique(np.linspace(0, len(utterances) - 1, min(len(utterances), MAX_UTTERANCES)).astype(int))
    sample = [utterances[index] for index in chosen]
    numbers = {"length": seconds, "padding": zeros, "level": levels, **(further or {})}
    rows = np.flatnonzero(labelled)[chosen]
    checks: dict[str, Any] = {name: score_number(values[rows], sample) for name, values in numbers.items()}
    checks |= {
        "speaker": one_sided(utterances, "speaker"),
        "text": one_sided(utterances, "text"),
        "shared_texts": shared_texts(utterances),
    }
    return {**checks, "warnings": warnings(checks, removed) + similar_labels(utterances) + missing_emotions(utterances)}


def score_number(values: np.ndarray, utterances: Sequence[Utterance]) -> dict[str, float] | None:
    """Score nearest-neighbour predictions of the emotion from one number per utterance, on unseen speakers.

    Votes are weighted by inverse class frequency, so that chance is 1/C.

    Args:
        values: The number, such as the duration [N].
        utterances: The utterances [N].

    Returns:
        `uar`, the limits `low` and `high` of its interval by resampling speakers, `chance`, and `p_value`, the probability of
        such a UAR where emotions are random; None for too few speakers or emotions. `p_value` is 1 where `low` is no higher than
        MARGIN above chance.
    """
    speakers = to_indices([utterance.speaker for utterance in utterances])
    truth = to_indices([utterance.emotion for utterance in utterances])
    classes = len(set(truth.tolist()))
    folds = speakers % FOLDS
    if len(set(folds)) < 2 or classes < 2:
        return None
    predicted = np.empty_like(truth)
    for fold in set(folds.tolist()):
        test = folds == fold
        predicted[test] = nearest_neighbours(values[~test], truth[~test], values[test], classes)
    low, high = metrics.cluster_interval(truth, predicted, speakers, classes)
    uar = metrics.uar(truth, predicted, classes)
    p_value = permutation_p_value(uar, truth, predicted, speakers, classes) if low > 1 / classes + MARGIN else 1.0
    return {"uar": uar, "low": low, "high": high, "chance": 1 / classes, "p_value": p_value}


def permutation_p_value(uar: float, truth: np.ndarray, predicted: np.ndarray, speakers: np.ndarray, classes: int) -> float:
    """Return the share of permutations of the emotions within each speaker that reach a UAR; the given order counts as one."""
    rng, by_speaker = np.random.default_rng(0), np.argsort(speakers, kind="stable")
    truth, predicted, speakers = truth[by_speaker], predicted[by_speaker], speakers[by_speaker]
    reached = 1
    for _ in range(PERMUTATIONS):
        permuted = truth[np.argsort(speakers + rng.random(len(truth)))]
        reached += metrics.uar(permuted, predicted, classes) >= uar
    return reached / (PERMUTATIONS + 1)


def nearest_neighbours(values: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int) -> np.ndarray:
    """Classify numbers by the classes of their nearest neighbours, weighted by inverse class frequency.

    In one dimension the neighbours are adjacent in sorted order, which makes the search fast.

    Args:
        values: Training numbers [N].
        labels: Their classes as integers [N].
        queries: Numbers to classify [Q].
        classes: Number of classes.

    Returns:
        Predicted classes [Q].
    """
    shuffled = np.random.default_rng(0).permutation(len(values))  # otherwise the first listed of equal values would be nearest
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    values, labels = values[order], labels[order]
    counts = np.bincount(labels, minlength=classes)
    k = min(NEIGHBOURS, len(values))
    position = (np.searchsorted(values, queries, "left") + np.searchsorted(values, queries, "right")) // 2
    window = position[:, None] + np.arange(-k, k)
    candidates = np.clip(window, 0, len(values) - 1)
    distance = np.abs(values[candidates] - queries[:, None])
    distance[candidates != window] = np.inf  # beyond the first or last value
    nearest = np.take_along_axis(candidates, np.argsort(distance, axis=1, kind="stable")[:, :k], axis=1)
    votes = np.zeros((len(queries), classes))
    np.add.at(votes, (np.arange(len(queries))[:, None], labels[nearest]), 1 / counts[labels[nearest]])
    return votes.argmax(axis=1)


def one_sided(utterances: Sequence[Utterance], column: str) -> dict[str, Any] | None:
    """Return the speakers (or texts) with nearly all utterances in one emotion.

    Args:
        utterances: The utterances.
        column: "speaker" or "text".

    Returns:
        `one_sided`, such speakers; `share`, theirs of all speakers with several utterances; `expected`, that share where emotions
        are random, and `p_value`, the probability of such a share there. None for fewer than two speakers or emotions.
    """
    known = [utterance for utterance in utterances if getattr(utterance, column)]
    values, groups_of = np.unique([getattr(utterance, column) for utterance in known], return_inverse=True)
    emotions, classes = to_indices([u.emotion for u in known]), len({utterance.emotion for utterance in utterances})
    sizes = np.bincount(groups_of, minlength=len(values))
    frequent = sizes >= MIN_UTTERANCES
    if frequent.sum() < 2 or classes < 2:
        return None

    def dominated(labels: np.ndarray) -> np.ndarray:
        """Return which of the frequent values are dominated by one emotion."""
        counts = np.bincount(groups_of * classes + labels, minlength=len(values) * classes).reshape(-1, classes)
        return frequent & (counts.max(axis=1) >= DOMINANT_SHARE * sizes)

    found, rng = dominated(emotions), np.random.default_rng(0)
    counts_if_random = np.array([dominated(rng.permutation(emotions)).sum() for _ in range(PERMUTATIONS if found.any() else 1)])
    return {
        "one_sided": values[found].tolist()[:100],
        "share": float(found.sum() / frequent.sum()),
        "expected": float(counts_if_random.mean() / frequent.sum()),
        "p_value": float((1 + (counts_if_random >= found.sum()).sum()) / (1 + len(counts_if_random))),
    }


def shared_texts(utterances: Sequence[Utterance]) -> dict[str, float] | None:
    """Return the share of utterances whose text another speaker says, too; None if no text is known."""
    speakers = defaultdict(set)
    for utterance in utterances:
        speakers[utterance.text].add(utterance.speaker)
    known = [utterance.text for utterance in utterances if utterance.text]
    return {"share": sum(len(speakers[text]) > 1 for text in known) / len(known)} if known else None


PROPERTIES = {
    "length": "the duration of an utterance",
    "padding": "digital silence at start and end",
    "level": "the level of an utterance",
    "bandwidth": "the bandwidth of the audio",
    "offset": "a constant offset of the samples",
    "file_kind": "the kind of file (container, codec, sampling rate, channels)",
}
ADVICE = {
    "length": "part of this is how emotions are expressed; a fixed-length crop hides the rest",
    "padding": "prepare with --trim-db to remove it",
    "level": "part of this is how emotions are expressed; prepare with --loudness to remove it",
    "bandwidth": "emotions were recorded or coded differently; a model may learn the channel instead of the voice",
    "offset": "emotions were recorded with different equipment; remove the offset from the recordings",
    "file_kind": "emotions were recorded or coded differently; bring all recordings through the same codec",
}


def similar_labels(utterances: Sequence[Utterance]) -> list[str]:
    """Warn of emotion labels that are alike (see `tables.names`), because they most likely mean the same."""
    alike = groups({utterance.emotion for utterance in utterances})
    return [f"{' and '.join(labels)} count as different emotions; labels.map in the recipe can merge them" for labels in alike]


def missing_emotions(utterances: Sequence[Utterance]) -> list[str]:
    """Warn of emotions that not all of several corpora have: for these, the corpus predicts the emotion."""
    corpora = defaultdict(set)
    for utterance in utterances:
        corpora[utterance.emotion].add(utterance.corpus)
    every_corpus = {corpus for names in corpora.values() for corpus in names}
    partial = [f"{label} ({', '.join(sorted(names))})" for label, names in sorted(corpora.items()) if names != every_corpus]
    advice = "labels.map = five keeps the emotions that nearly all corpora have"
    return [f"not every corpus has {shorten(partial, 20)}; {advice}"] if partial else []


def warnings(checks: dict[str, Any], removed: Collection[str]) -> list[str]:
    """Return a sentence for every shortcut that the checks found."""
    sentences = []
    for name, words in PROPERTIES.items():
        score = checks.get(name)
        if score and score["low"] > score["chance"] + MARGIN and score["p_value"] <= ALPHA:
            sentences.append(
                f"{words} alone predicts the emotion of unseen speakers with {score['uar']:.0%} UAR "
                f"({score['low']:.0%} to {score['high']:.0%}, chance {score['chance']:.0%})"
                + ("" if name in removed else f": {ADVICE[name]}")
            )
    for name in ("speaker", "text"):
        check = checks[name]
        if check and check["share"] > max(0.5, check["expected"] + MIN_EXCESS) and check["p_value"] <= ALPHA:
            sentences.append(
                f"{check['share']:.0%} of the {name}s have nearly all their utterances in one emotion: "
                f"the {name} predicts the emotion"
            )
    if checks["shared_texts"] and checks["shared_texts"]["share"] > 0.5:
        sentences.append(
            f"{checks['shared_texts']['share']:.0%} of the utterances have a text that other speakers say as well: a split by "
            "speaker tests on known sentences; split.text_folds tests on unknown ones"
        )
    return sentences


def channel_numbers(utterances: Sequence[Utterance], audio: np.ndarray, paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Measure what the recording channel leaves in utterances.

    Args:
        utterances: N utterances with their positions in the audio.
        audio: All audio, int16.
        paths: The file of each utterance.

    Returns:
        `bandwidth` in Hz, `offset` as a share of full scale, and `file_kind`, a number for each kind of file, [N] each.
    """
    clips = [audio[utterance.offset : utterance.offset + utterance.samples] for utterance in utterances]
    kinds = {path: file_kind(path) for path in dict.fromkeys(paths)}
    return {
        "bandwidth": np.array([bandwidth(clip) for clip in clips], dtype=np.float64),
        "offset": np.array([clip.mean(dtype=np.float64) / 2**15 for clip in clips]),
        "file_kind": to_indices([kinds[path] for path in paths]).astype(np.float64),
    }


def file_kind(path: Path) -> str:
    """Return container, codec, sampling rate and channels of a file; empty if it cannot be read any more."""
    try:
        with open_recording(existing(path)).file as file:
            return f"{file.format} {file.subtype} {file.samplerate} {file.channels}"
    except AudioError:
        return ""
