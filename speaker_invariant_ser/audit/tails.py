"""What an average over speakers and utterances hides: one recognised speaker or model, the surest utterances, rare speakers.

Accuracy within the margin of chance is compatible with one speaker of eleven whose utterances are all recognised, or with a
few utterances that are named with certainty. Where one speaker has half of the utterances, it is compatible with any leak of the
others: an attacker is right most often who always names the frequent one. So each attacker also predicts as if all speakers
were equally frequent, and its mean recall over speakers is tested. Of several models, all may be at chance but one.

Each of the four has a permutation test of its own here. Its statistic is the largest of all attackers (and speakers), so that
trying many is corrected for (Westfall and Young, Resampling-Based Multiple Testing, 1993).

Shapes: n scored utterances of one encoder, K its speakers, S speakers of all encoders, P permutations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Protocol

import numpy as np

from speaker_invariant_ser.audit.permutations import (
    CROSS_VALIDATION_INFLATION,
    IntegerLabels,
    design_effect,
    permuted_speakers,
    text_effect,
)
from speaker_invariant_ser.audit.statistics import Conclusion, Reason, Score, equivalence_test, margin_of

NESTED = 0.5  # share of utterances with a text of one speaker, above which texts and speakers cannot be distinguished
MIN_DEVIATION = 1e-6  # of a rate under permutations; below it, permuting changes nothing
TOLERANCE = 1e-7  # equal statistics may differ in the order of summation

Votes = Mapping[str, Sequence[np.ndarray]]  # for each attacker and encoder, votes [n, K]; see `count_votes`


@dataclass(frozen=True)
class Tail:
    """The most conspicuous speaker or model, or the surest utterances or mean recall of the most conspicuous attacker.

    Attributes:
        attacker: The attacker.
        accuracy: Recall of the speaker, accuracy on the model or on the surest utterances, or mean recall over speakers.
        expected: The same if speakers are permuted within emotion.
        utterances: Number of utterances; a fraction where several repeats are averaged.
        p_value: Permutation p value, corrected for the number of attackers (and speakers, or models).
        speaker: The speaker; "" for the others.
        model: The model, by its position from 1, since folds may have the names of speakers; "" for the others.
        p_value_texts: The p value if the text may explain the rate (see `conclude`); None where texts are unknown.
    """

    attacker: str
    accuracy: float
    expected: float
    utterances: float
    p_value: float
    speaker: str = ""
    model: str = ""
    p_value_texts: float | None = None

    @property
    def summary(self) -> dict:
        """Content of report.json."""
        return asdict(self)


@dataclass(frozen=True)
class Tails:
    """The tails; None without permutations.

    Attributes:
        speaker: The speaker whose recall exceeds what is expected by most deviations.
        surest: The surest utterances of the attacker whose accuracy on its own exceeds what is expected by most deviations.
        balanced: Mean recall over speakers, by the attacker whose predictions exceed what is expected by most deviations if it
            takes all speakers as equally frequent.
        model: The model of whose speakers most are recognised; None where there is one model.
    """

    speaker: Tail | None = None
    surest: Tail | None = None
    balanced: Tail | None = None
    model: Tail | None = None

    def with_p_values_over_texts(self, given_texts: "Tails") -> "Tails":
        """Return these tails with the p values of others, of speakers that were permuted within texts, as those over texts."""
        others = {part.name: getattr(given_texts, part.name) for part in fields(self)}
        known = {name: replace(getattr(self, name), p_value_texts=other.p_value) for name, other in others.items() if other}
        return replace(self, **known)

    def decisive(self, chance: Mapping[str, float]) -> dict[Reason, "Rate"]:
        """Return the tails that decide, by the reason that they give; see `decisive`."""
        return decisive(self.speaker, self.surest, self.balanced, self.model, chance)


class Rate(Protocol):
    """A rate with what is expected by chance and its p value; `Tail`, or a part of report.json."""

    @property
    def accuracy(self) -> float:
        """The rate."""

    @property
    def expected(self) -> float:
        """The rate that is expected by chance."""

    @property
    def p_value(self) -> float:
        """Its p value."""

    @property
    def p_value_texts(self) -> float | None:
        """Its p value over texts; None where these are unknown."""


def decisive(
    speaker: Rate | None, surest: Rate | None, balanced: Rate | None, model: Rate | None, chance: Mapping[str, float]
) -> dict[Reason, Rate]:
    """Return the rates that decide, by reason; those of a model and of the mean recall count above the margin alone.

    Args:
        speaker: The speaker that is recognised best.
        surest: The surest utterances.
        balanced: The mean recall over speakers.
        model: The model whose speakers are recognised best.
        chance: Chance levels with the keys "given_emotion" and "given_emotion_balanced".
    """
    model = above_margin(model, chance["given_emotion"])
    balanced = above_margin(balanced, chance["given_emotion_balanced"])
    by_reason: dict[Reason, Rate | None] = {"model": model, "speaker": speaker, "surest": surest, "balanced": balanced}
    return {reason: rate for reason, rate in by_reason.items() if rate}


def p_value_over_texts(rate: Rate) -> float:
    """Return the p value over texts where these are known, otherwise that over utterances."""
    return rate.p_value if rate.p_value_texts is None else rate.p_value_texts


def above_margin(rate: Rate | None, chance: float) -> Rate | None:
    """Return a rate if it exceeds what is expected, and chance, by more than the margin; otherwise None."""
    expected = max(rate.expected, chance) if rate else 0.0
    return rate if rate and rate.accuracy > expected + margin_of(expected) else None


def measure_tails(
    votes: Votes,
    surest: Votes,
    balanced: Votes,
    labels: Sequence[IntegerLabels],
    names: Sequence[np.ndarray],
    permutations: int,
    seed: int,
    cross_validated: bool,
) -> Tails:
    """Test the largest recall of one speaker, the surest utterances, the mean recall over speakers, and the best model.

    Predictions are kept and speakers permuted within encoder and emotion, as in `permutations.permuted_accuracies`.

    Args:
        votes: Votes of each attacker on the embedding.
        surest: The same on the utterances that it is surest about, others are 0.
        balanced: Votes of each attacker if it takes all speakers as equally frequent.
        labels: Labels of each encoder.
        names: Names of each encoder's speakers [K], sorted.
        permutations: Number of permutations P.
        seed: Seed of the permutations.
        cross_validated: Whether scored utterances are also trained on in other folds.
    """
    if not permutations:
        return Tails()
    everyone = np.unique(np.concatenate(names))
    common = [np.searchsorted(everyone, of_encoder) for of_encoder in names]
    scored = [encoder_labels.speaker[encoder_labels.scored] for encoder_labels in labels]
    sizes = np.sum(
        [np.bincount(to_common[rows], minlength=len(everyone)) for to_common, rows in zip(common, scored, strict=True)], axis=0
    )
    columns = 2 * len(everyone) + 1  # one for each speaker, one for the surest, and one for each speaker by balanced votes
    by_model: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {name: [] for name in votes}
    observed = {name: np.zeros((1, columns)) for name in votes}
    permuted = {name: np.zeros((permutations, columns)) for name in votes}
    rng = np.random.default_rng(seed)
    for encoder, (encoder_labels, to_common) in enumerate(zip(labels, common, strict=True)):
        given = {name: (votes[name][encoder], surest[name][encoder], balanced[name][encoder]) for name in votes}
        of_model = {name: np.zeros(permutations) for name in votes}
        for name in votes:
            observed[name] += sums(*given[name], scored[encoder][None], to_common, len(everyone))
        for block, speakers in permuted_speakers(encoder_labels, permutations, rng):
            for name in votes:
                added = sums(*given[name], speakers, to_common, len(everyone))
                permuted[name][block] += added
                of_model[name][block] = added[:, : len(everyone)].sum(axis=1)
        for name in votes:
            correct = votes[name][encoder][np.arange(len(scored[encoder])), scored[encoder]].sum()
            by_model[name].append((correct[None], of_model[name][:, None], np.array([len(scored[encoder])])))
    inflation = CROSS_VALIDATION_INFLATION if cross_validated else 1.0
    weight = {name: sum(of_encoder.sum() for of_encoder in surest[name]) for name in votes}
    divisor = {name: np.concatenate([np.maximum(sizes, 1), [weight[name]], np.maximum(sizes, 1)]) for name in votes}
    rates = {name: Rates(observed[name][0], permuted[name], divisor[name]) for name in votes}
    everybody = slice(len(everyone))
    of_speakers = {name: rates[name].part(everybody) for name in votes}
    of_surest = {name: rates[name].part(slice(len(everyone), len(everyone) + 1)) for name in votes}
    mean = {name: mean_recall(observed[name], permuted[name], sizes) for name in votes}
    parts = [to_common[rows] for to_common, rows in zip(common, scored, strict=True)]
    speaker, column = most_conspicuous(of_speakers, votes, labels, inflation, parts)
    speaker = replace(speaker, speaker=str(everyone[column]))
    sure, _ = most_conspicuous(of_surest, surest, labels, inflation)
    balanced_tail, _ = most_conspicuous(mean, balanced, labels, inflation)
    balanced_tail = replace(balanced_tail, utterances=float(sizes.sum()))
    if len(labels) == 1:
        return Tails(speaker, sure, balanced_tail)
    models = {name: Rates(*(np.concatenate(parts, axis=-1) for parts in zip(*by_model[name], strict=True))) for name in votes}
    parts = [np.full(len(rows), encoder) for encoder, rows in enumerate(scored)]
    model, column = most_conspicuous(models, votes, labels, inflation, parts, several=False)
    return Tails(speaker, sure, balanced_tail, replace(model, model=str(column + 1)))


def most_conspicuous(
    rates: Mapping[str, "Rates"],
    votes: Votes,
    labels: Sequence[IntegerLabels],
    inflation: float,
    parts: Sequence[np.ndarray] | None = None,
    several: bool = True,
) -> tuple[Tail, int]:
    """Return the rate that stands out most of all attackers and columns, with its p values, and its column.

    Args:
        rates: Rates of each attacker [C].
        votes: The votes that they are of.
        labels: Labels of each encoder.
        inflation: Factor by which deviations exceed those of permutations beside the effects of repeated utterances and of texts.
        parts: For each encoder, the part that each scored utterance belongs to [n], where each rate is of one part.
        several: Whether a rate is of several encoders, which may score the same utterance; otherwise parts are encoders.
    """
    statistics = {name: of_attacker.standardised() for name, of_attacker in rates.items()}
    repeated = {name: design_effect(votes[name], labels, apart=not several) for name in rates}
    texts = {name: np.maximum(repeated[name], text_effect(votes[name], labels, parts, not several)) for name in rates}
    name, column, p_value = largest(statistics, {name: inflation * np.sqrt(repeated[name]) for name in rates})
    tail = Tail(name, *rates[name].at(column), float(rates[name].sizes[column]), p_value)
    if np.isnan(texts[name]):
        return tail, column
    _, _, over_texts = largest(statistics, {name: inflation * np.sqrt(texts[name]) for name in rates})
    return replace(tail, p_value_texts=over_texts), column


def mean_recall(observed: np.ndarray, permuted: np.ndarray, sizes: np.ndarray) -> "Rates":
    """Return the mean recall over speakers by balanced votes, from sums of all columns [1, C] and [P, C]."""
    tested = sizes > 0
    first, others = ((rows[:, -len(sizes) :] / np.maximum(sizes, 1))[:, tested].mean(axis=1) for rows in (observed, permuted))
    return Rates(first, others[:, None], np.ones(1))


def sums(
    votes: np.ndarray, surest: np.ndarray, balanced: np.ndarray, speakers: np.ndarray, to_common: np.ndarray, everyone: int
) -> np.ndarray:
    """Sum the votes for the assigned speakers, by speaker and over the surest utterances.

    Args:
        votes: Votes [n, K].
        surest: Votes on the surest utterances [n, K].
        balanced: Votes of an attacker that takes all speakers as equally frequent [n, K].
        speakers: Speakers assigned to the utterances [P, n].
        to_common: Position of the encoder's speakers among those of all encoders [K].
        everyone: Number of speakers of all encoders S.

    Returns:
        Sums [P, 2 S + 1]: by speaker, over the surest utterances, and by speaker for balanced votes.
    """
    rows, sure = np.arange(len(votes)), np.flatnonzero(surest.any(axis=1))
    cells = to_common[speakers] + everyone * np.arange(len(speakers))[:, None]
    by_speaker, by_speaker_balanced = (
        np.bincount(cells.ravel(), each[rows, speakers].ravel(), everyone * len(speakers)).reshape(-1, everyone)
        for each in (votes, balanced)
    )
    return np.column_stack([by_speaker, surest[sure, speakers[:, sure]].sum(axis=1), by_speaker_balanced])


@dataclass(frozen=True)
class Rates:
    """Sums of an attacker's votes, observed [C] and permuted [P, C], and the sizes [C] that make them rates."""

    observed: np.ndarray
    permuted: np.ndarray
    sizes: np.ndarray

    def at(self, column: int) -> tuple[float, float]:
        """Return the observed and the expected rate of a column."""
        return float(self.observed[column] / self.sizes[column]), float(self.permuted[:, column].mean() / self.sizes[column])

    def part(self, columns: slice) -> "Rates":
        """Return the rates of some columns."""
        return Rates(self.observed[columns], self.permuted[:, columns], self.sizes[columns])

    def standardised(self) -> tuple[np.ndarray, np.ndarray]:
        """Return by how many deviations of the permutations the observed [C] and the permuted sums [P, C] exceed their mean."""
        centre, deviation = self.permuted.mean(axis=0), self.permuted.std(axis=0)
        scale = np.where(deviation > MIN_DEVIATION, deviation, np.inf)
        return (self.observed - centre) / scale, (self.permuted - centre) / scale


def largest(statistics: Mapping[str, tuple[np.ndarray, np.ndarray]], spread: Mapping[str, float]) -> tuple[str, int, float]:
    """Return the attacker and the column with the largest observed statistic, and its p value among the largest permuted ones.

    Args:
        statistics: Observed [C] and permuted statistics [P, C] of each attacker.
        spread: By how much more than permutations each attacker's rates vary.
    """
    scaled = {name: observed / spread[name] for name, (observed, _) in statistics.items()}
    name = max(scaled, key=lambda attacker: scaled[attacker].max())
    maxima = np.max([permuted.max(axis=1) for _, permuted in statistics.values()], axis=0)
    exceeding = (maxima >= scaled[name].max() - TOLERANCE).sum()
    return name, int(scaled[name].argmax()), float((1 + exceeding) / (1 + len(maxima)))


def conclude(
    strongest: Score,
    attackers: Mapping[str, Score],
    chance: Mapping[str, float],
    tails: Mapping[Reason, Rate],
    nested: float,
    known: bool,
) -> Conclusion:
    """Decide whether attackers are at chance.

    Where every speaker says each sentence, or has each emotion, equally often, an embedding of these alone puts an attacker below
    chance: what is scored is missing from what was learned of its speaker, and so looks like the others. Folds and permutations
    prevent that if emotions and texts are known. If not, accuracies below chance are no leak by themselves.

    Where some speakers say a text and others do not, an embedding of the text alone is no leak. So a leak must be significant
    over texts as well, where these are known. Where folds keep them apart, utterances of one text stand or fall together, and
    accuracies are spread by the `permutations.text_effect`; where they do not, attackers may know the text, and speakers are
    permuted within it.

    Args:
        strongest: As of `statistics.equivalence_test`, like the next three.
        attackers: See there.
        chance: See there.
        tails: See there.
        nested: `nested_texts` of `Leakage`.
        known: Whether emotions are known, and texts are kept apart.

    Returns:
        The conclusion.
    """
    p_values = {reason: rate.p_value for reason, rate in tails.items()}
    conclusion = equivalence_test(strongest, attackers, chance, p_values)
    if conclusion.reason == "below" and not known:
        above = {name: replace(score, p_below=1.0) for name, score in attackers.items()}
        otherwise = equivalence_test(strongest, above, chance, p_values)
        conclusion = otherwise if otherwise.at_chance is False else Conclusion("undecided", "uneven")
    if conclusion.at_chance is not False:
        return conclusion
    if nested > NESTED:  # an embedding of the text alone names the speaker
        return Conclusion(False, "text_leak") if strongest.low > chance["given_emotion"] else Conclusion("undecided", "text")
    of_texts = {name: score.over_texts if known else replace(score.over_texts, p_below=1.0) for name, score in attackers.items()}
    p_values = {reason: p_value_over_texts(rate) for reason, rate in tails.items()}
    again = equivalence_test(strongest.over_texts, of_texts, chance, p_values)
    return again if again.at_chance is False else Conclusion("undecided", "text")
