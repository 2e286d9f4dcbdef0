"""The part of report.json on the votes of annotators: a model's distance from them, and how far a single annotator gets.

N utterances, C emotions, K speakers. Divergences are in bits. No torch here.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from speaker_invariant_ser.data.tables.votes import annotators_of, counts_table
from speaker_invariant_ser.evaluation.part import Count, Part, Share, Size
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.metrics import MIN_CLUSTERS, central_interval, draw_clusters, mean_recall

FLOOR = 1e-12  # of a probability, whose logarithm would be infinite
RESAMPLES = 2000
MIN_VOTES = 20  # of an annotator whose own UAR counts as lowest or highest


class SingleAnnotator(Part):
    """UAR of a single annotator against the majority of the others, and its 95 % interval over speakers.

    Attributes:
        utterances: Test utterances with two votes or more.
        votes: Votes that are scored, each against the others of its utterance.
        annotators: Number of annotators; null where only numbers of votes are known.
        lowest: UAR of the annotator with the lowest one among those with MIN_VOTES votes or more.
        highest: The same for the highest one.
    """

    value: Share
    low: Share | None
    high: Share | None
    utterances: Count
    votes: Count
    annotators: Count | None
    lowest: Share | None
    highest: Share | None


class VoteResults(Part):
    """Probabilities before any temperature against the distribution of the annotators' votes, means over test utterances.

    Attributes:
        utterances: Test utterances with a vote for an emotion of the model.
        label_is_majority: Share of these whose label has the most votes, alone or tied.
        cross_entropy: Of votes and probabilities, with its 95 % interval over speakers.
        entropy: Of the votes: the lowest possible cross-entropy.
        uninformed: Cross-entropy of the same mean distribution for every utterance.
        kl: Kullback-Leibler divergence, cross-entropy less entropy.
        jensen_shannon: Jensen-Shannon divergence, 0 to 1.
        single_annotator: None where the votes are too few, for the reason in `too_few`.
    """

    utterances: Count
    label_is_majority: Share
    cross_entropy: Size
    cross_entropy_low: Size | None
    cross_entropy_high: Size | None
    entropy: Size
    uninformed: Size
    kl: Size
    jensen_shannon: Share
    single_annotator: SingleAnnotator | None
    too_few: str


def vote_results(
    texts: Sequence[str], truth: np.ndarray, speaker: np.ndarray, seed: np.ndarray, probability: np.ndarray, labels: Sequence[str]
) -> VoteResults | None:
    """Compare predictions and single annotators with the votes.

    Args:
        texts: Votes about each row's utterance, N rows: one for each utterance and seed.
        truth: Labels [N] as positions in `labels`.
        speaker: Speakers [N].
        seed: Seeds [N].
        probability: Emotion probabilities [N, C].
        labels: Names of the C emotions.

    Returns:
        The results, None if no utterance has a vote for any of the emotions.
    """
    table = counts_table(texts, labels)
    voted = table.sum(axis=1) > 0
    if not voted.any():
        return None
    shares = table[voted] / table[voted].sum(axis=1, keepdims=True)
    predicted = np.clip(probability[voted].astype(np.float64), FLOOR, 1)
    cross, entropy = -(shares * np.log2(predicted)).sum(axis=1), entropies(shares)
    divergence = entropies((shares + predicted) / 2) - (entropy + entropies(predicted)) / 2
    low, high = mean_interval_over(cross, speaker[voted])
    once = voted & (seed == seed[0])
    rows = np.flatnonzero(once)
    single, too_few = single_annotator([texts[row] for row in rows.tolist()], table[rows], speaker[rows], labels)
    return VoteResults(
        utterances=len(rows),
        label_is_majority=float(np.mean(table[rows, truth[rows]] == table[rows].max(axis=1))),
        cross_entropy=float(cross.mean()),
        cross_entropy_low=low,
        cross_entropy_high=high,
        entropy=float(entropy.mean()),
        uninformed=float(entropies(shares.mean(axis=0))),
        kl=float((cross - entropy).mean()),
        jensen_shannon=max(0.0, float(divergence.mean())),
        single_annotator=single,
        too_few=too_few,
    )


def entropies(shares: np.ndarray) -> np.ndarray:
    """Return the entropy [...] of distributions [..., C] in bits.

    >>> entropies(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1) + 0.0


def mean_interval_over(values: np.ndarray, speaker: np.ndarray) -> tuple[float | None, float | None]:
    """Return the 95 % interval of the mean of values [N], resampling whole speakers [N]; None for fewer than three."""
    members = to_indices(speaker)
    sums, sizes = np.bincount(members, values), np.bincount(members)
    if len(sizes) < MIN_CLUSTERS:
        return None, None
    drawn = draw_clusters(len(sizes), RESAMPLES, 0)
    return central_interval((drawn @ sums) / (drawn @ sizes))


def single_annotator(
    texts: Sequence[str], table: np.ndarray, speaker: np.ndarray, labels: Sequence[str]
) -> tuple[SingleAnnotator | None, str]:
    """Score every vote against the majority of the others for the same utterance, all votes together.

    Args:
        texts: Votes of N utterances.
        table: The same as numbers [N, C].
        speaker: Speakers [N].
        labels: Names of the C emotions.

    Returns:
        The result, or None and the reason why there is none.
    """
    whole = (table == np.round(table)).all(axis=1)
    several = whole & (table.sum(axis=1) >= 2)
    if not several.any():
        shares = not whole.all()
        return None, "votes are shares, which do not say how many annotators there were" if shares else "one vote per utterance"
    members = to_indices(speaker[several])
    by_speaker = agreement(table[several], members)
    low = high = None
    if len(by_speaker) >= MIN_CLUSTERS:
        drawn = draw_clusters(len(by_speaker), RESAMPLES, 0) @ by_speaker.reshape(len(by_speaker), -1)
        low, high = central_interval(mean_recall(drawn.reshape(RESAMPLES, *by_speaker.shape[1:])))
    names, uars = annotator_uars([texts[row] for row in np.flatnonzero(several).tolist()], labels)
    result = SingleAnnotator(
        value=float(mean_recall(by_speaker.sum(axis=0))),
        low=low,
        high=high,
        utterances=int(several.sum()),
        votes=int(table[several].sum()),
        annotators=names or None,
        lowest=min(uars, default=None),
        highest=max(uars, default=None),
    )
    return result, ""


def agreement(table: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Count votes by the emotion with the most other votes for the same utterance, for each speaker.

    Where the others are tied, a vote counts for each of the tied emotions in equal parts: what breaking ties at random gives.

    Args:
        table: Numbers of votes [N, C], two or more in each row.
        members: Index of the speaker of each row [N].

    Returns:
        Sums [K, C, C], rows majority of the others, columns votes.

    >>> agreement(np.array([[2, 1]]), np.array([0])).tolist()
    [[[1.0, 1.0], [1.0, 0.0]]]
    """
    classes = table.shape[1]
    sums = np.zeros((int(members.max()) + 1, classes, classes))
    for vote in range(classes):
        rows = np.flatnonzero(table[:, vote])
        others = table[rows] - np.eye(classes)[vote]
        tied = others == others.max(axis=1, keepdims=True)
        weight = table[rows, vote] / tied.sum(axis=1)
        np.add.at(sums[:, :, vote], members[rows], tied * weight[:, None])
    return sums


def annotator_uars(texts: Sequence[str], labels: Sequence[str]) -> tuple[int, list[float]]:
    """Return the number of annotators that are known by name, and the UAR of each with MIN_VOTES votes or more."""
    column = {label: index for index, label in enumerate(labels)}
    sums: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(labels), len(labels))))
    for text in texts:
        votes = {name: column[label] for name, label in annotators_of(text).items() if label in column}
        counts = np.bincount([*votes.values()], minlength=len(labels))
        for name, vote in votes.items():
            others = counts - np.eye(len(labels))[vote]
            tied = others == others.max()
            sums[name][:, vote] += tied / tied.sum()
    return len(sums), [float(mean_recall(matrix)) for matrix in sums.values() if round(matrix.sum()) >= MIN_VOTES]
