"""Identification from several clips of one person: an attacker adds up what single clips say of the speaker.

Nothing is fitted for it: log posteriors of the closed-form attackers, each for a clip that the attacker was not fitted on, are
summed over clips that one speaker spoke.

Shapes: N utterances, n scored utterances of one encoder, K its speakers, R repeats, G groups of clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.cross_validation import EncoderPredictions, choose_strongest
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.statistics import IntegerLabels, cluster_bootstrap_interval, uniform_chance
from speaker_invariant_ser.audit.verification.several_clips import CLIPS, PARTITIONS, group_clips

RARE = 1e-6  # share of a speaker's utterances that counts for an emotion without any, as in `predict_from_emotion`


@dataclass(frozen=True)
class Identification:
    """Closed-set identification from a number of clips.

    Attributes:
        accuracy: Share of groups of clips whose speaker is identified.
        low: Lower end of its 95 % confidence interval over speakers; None with fewer than three.
        high: Upper end of it.
        chance: The same from the true emotions of the clips alone; 1 / K if that is higher.
        groups: Number of groups that have no clip in common, over all encoders.
        speakers: Number of speakers who have that many clips.
    """

    accuracy: float
    low: float | None
    high: float | None
    chance: float
    groups: int
    speakers: int


def identify_from_several_clips(
    results: Sequence[EncoderPredictions], tables: Sequence[Embeddings], labels: Sequence[IntegerLabels], seed: int
) -> dict[int, Identification | None]:
    """Identify speakers from 1, 5 and 10 of their clips by the strongest closed-form attacker.

    Args:
        results: Predictions for each encoder.
        tables: Embeddings of each encoder.
        labels: Labels of each encoder.
        seed: Seed of the groups.

    Returns:
        The result for each number of clips; None where no two speakers have as many scored utterances. Empty without a
        closed-form attacker.
    """
    names = [name for name in QUICK_ATTACKERS if name in results[0].predicted]
    if not names:
        return {}
    choices = choose_strongest(results, tables, names)
    embedding = [posteriors(result, chosen) for result, chosen in zip(results, choices, strict=True)]
    emotion = [posteriors_from_emotion(result, encoder) for result, encoder in zip(results, labels, strict=True)]
    return {count: identify(count, embedding, emotion, tables, labels, seed) for count in CLIPS}


def identify(
    clips: int,
    embedding: Sequence[np.ndarray],
    emotion: Sequence[np.ndarray],
    tables: Sequence[Embeddings],
    labels: Sequence[IntegerLabels],
    seed: int,
) -> Identification | None:
    """Identify the speakers of groups of clips from log posteriors [R, n, K] of each encoder, given embedding or emotion."""
    rng = np.random.default_rng(seed)
    correct: list[np.ndarray] = []
    expected: list[np.ndarray] = []
    speaker: list[np.ndarray] = []
    for encoder, table in enumerate(tables):
        truth, names = labels[encoder].speaker[table.scored], table.speaker[table.scored]
        for partition in range(PARTITIONS):
            members = group_clips(truth, clips, rng)
            true = truth[members[:, 0]]
            for log_posterior, hits in ((embedding[encoder], correct), (emotion[encoder], expected)):
                summed = log_posterior[partition % len(log_posterior)][members].sum(axis=1, dtype=np.float64)
                hits.append(summed.argmax(axis=1) == true)
            speaker.append(names[members[:, 0]])
    hit, name = np.concatenate(correct).astype(float), np.concatenate(speaker)
    if len(set(name)) < 2:  # one person's groups do not show whether persons are told apart
        return None
    low, high = (None if np.isnan(end) else end for end in cluster_bootstrap_interval(hit, name))
    uniform = float(np.average([uniform_chance(encoder) for encoder in labels], weights=[len(table.id) for table in tables]))
    chance = max(uniform, float(np.concatenate(expected).mean()))
    return Identification(float(hit.mean()), low, high, chance, len(hit) // PARTITIONS, len(np.unique(name)))


def posteriors(result: EncoderPredictions, chosen: Sequence[str]) -> np.ndarray:
    """Return the log posteriors of the attacker chosen for each fold [R, n, K]."""
    values = np.zeros((result.plan.repeats, len(result.scored), result.speakers), dtype=np.float16)
    for index, (fold, name) in enumerate(zip(result.plan.folds, chosen, strict=True)):
        values[fold.repeat, np.searchsorted(result.scored, fold.test)] = result.log_posterior[name][index]
    return values


def posteriors_from_emotion(result: EncoderPredictions, labels: IntegerLabels) -> np.ndarray:
    """Return log posteriors of the speaker given the true emotion alone [R, n, K], up to a constant for each utterance."""
    values = np.zeros((result.plan.repeats, len(result.scored), result.speakers), dtype=np.float32)
    for fold in result.plan.folds:
        counts = np.zeros((labels.emotion.max() + 1, result.speakers))
        np.add.at(counts, (labels.emotion[fold.train], labels.speaker[fold.train]), 1)
        likely = np.log(counts + RARE * counts.sum(axis=0))
        values[fold.repeat, np.searchsorted(result.scored, fold.test)] = likely[labels.emotion[fold.test]]
    return values
