"""Identification from several utterances of one person: an attacker adds up what single utterances say of the speaker.

Nothing is fitted for it: log posteriors of the closed-form attackers, each for an utterance that the attacker was not fitted on,
are summed over utterances that one speaker spoke.

Shapes: N utterances, n scored utterances of one encoder, K its speakers, R repeats, G groups of utterances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from speaker_invariant_ser.audit.cross_validation import EncoderPredictions, choose_strongest
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.permutations import IntegerLabels
from speaker_invariant_ser.audit.statistics import ALPHA, uniform_chance
from speaker_invariant_ser.audit.verification.several_clips import CLIPS, PARTITIONS, group_clips
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.metrics import MIN_CLUSTERS

WITH_POSTERIORS = ("logistic", "lda", "qda")  # of the closed-form attackers; the similarities of k-NN do not add up to evidence
RARE = 1e-6  # share of a speaker's utterances that counts for an emotion without any, as in `predict_from_emotion`


@dataclass(frozen=True)
class Identification:
    """Closed-set identification from a number of utterances.

    Attributes:
        accuracy: Share of groups of utterances whose speaker is identified.
        low: Lower end of its 95 % confidence interval over speakers, see `interval_over_speakers`.
        high: Upper end of it.
        chance: The same from the true emotions of the utterances alone; 1 / K if that is higher.
        groups: Number of groups that have no utterance in common, over all encoders.
        speakers: Number of speakers who have that many utterances.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    groups: int
    speakers: int


def identify_from_several_clips(
    results: Sequence[EncoderPredictions], tables: Sequence[Embeddings], labels: Sequence[IntegerLabels], seed: int
) -> dict[int, Identification | None]:
    """Identify speakers from 1, 5 and 10 of their utterances by the strongest closed-form attacker that has posteriors.

    Args:
        results: Predictions for each encoder.
        tables: Embeddings of each encoder.
        labels: Labels of each encoder.
        seed: Seed of the groups.

    Returns:
        The result for each number of utterances; None where no two speakers have as many scored utterances. Empty without such an
        attacker.
    """
    names = [name for name in WITH_POSTERIORS if name in results[0].predicted]
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
    """Identify the speakers of groups of utterances from log posteriors [R, n, K] of each encoder, given embedding or emotion."""
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
    if len(set(name)) < 2:  # groups of one speaker do not show whether speakers are distinguished
        return None
    uniform = float(np.average([uniform_chance(encoder) for encoder in labels], weights=[len(table.id) for table in tables]))
    chance = max(uniform, float(np.concatenate(expected).mean()))
    groups = len(hit) // PARTITIONS
    return Identification(float(hit.mean()), *interval_over_speakers(hit, name, groups), chance, groups, len(np.unique(name)))


def interval_over_speakers(hit: np.ndarray, speaker: np.ndarray, groups: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the share of groups that are identified.

    It is Student's over speakers, with the cluster-robust standard error: of four speakers a bootstrap is too narrow. Of two
    speakers it would be endless; theirs is the binomial one of Clopper and Pearson over groups.

    Args:
        hit: Whether each group of each partition is identified, 0 or 1 [P G].
        speaker: Its speaker [P G].
        groups: Number of groups G that have no utterance in common.
    """
    member, share = to_indices(speaker), float(hit.mean())
    speakers = member.max() + 1
    if speakers < MIN_CLUSTERS:
        low, high = stats.binomtest(round(share * groups), groups).proportion_ci(1 - ALPHA)
        return float(low), float(high)
    squares = (np.bincount(member, weights=hit - share) ** 2).sum()
    width = stats.t.ppf(1 - ALPHA / 2, speakers - 1) * np.sqrt(speakers / (speakers - 1) * squares) / len(hit)
    return max(0.0, share - width), min(1.0, share + width)


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
