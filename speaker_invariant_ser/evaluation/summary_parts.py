"""The emotion and speaker parts of report.json, typed; `summary` has the whole and says what holds for its keys."""

from statistics import fmean
from typing import Literal

from pydantic import Field

from speaker_invariant_ser.evaluation.certificate_parts import CertificatePart
from speaker_invariant_ser.evaluation.dimensions.parts import DimensionResult, GivenEmotion
from speaker_invariant_ser.evaluation.part import Count, Part, Share, Signed, Size
from speaker_invariant_ser.evaluation.unseen_parts import Clips, PredictedEmotion, Unseen
from speaker_invariant_ser.evaluation.votes import VoteResults

AtChance = bool | Literal["undecided"]


# ---- emotion


class Uar(Part):
    """Unweighted average recall, its 95 % confidence interval over speakers, and, where measured, the values of the seeds."""

    value: Share
    low: Share | None
    high: Share | None
    seeds: dict[str, Share] = Field(default_factory=dict)
    deviation: Size | None = None


class MeanUar(Part):
    """Mean of the speakers' UARs, each with the same weight, and its 95 % interval over speakers; `Uar` is over utterances."""

    centre = "value"
    value: Share
    low: Share | None
    high: Share | None


class SpeakerResult(Part):
    """Emotion results on one test speaker."""

    uar: Share
    accuracy: Share
    utterances: Count


class WorstSpeaker(Part):
    """The test speaker with the lowest UAR."""

    speaker: str
    uar: Share
    accuracy: Share
    utterances: Count


class GroupResult(Part):
    """Emotion results on the utterances of one group, such as one sex, with chance over the emotions that occur in it."""

    uar: Uar
    accuracy: Share
    utterances: Count
    speakers: Count
    chance: Share | None = None  # reports of versions before 0.12.0 lack it


class DomainResult(GroupResult):
    """Emotion results on one domain."""

    chance: Share


class Domain(Part):
    """The values of the domain column, and the results, None where no tested utterance has a label."""

    values: list[str]
    tested: DomainResult | None


class Domains(Part):
    """Source and target domain of a run with `split.scheme = "domain"`; `headline` names the one that stands first."""

    column: str
    headline: Literal["source", "target"]
    target_in_training: bool
    source: Domain
    target: Domain

    @property
    def first(self) -> Domain:
        """The domain of the headline numbers."""
        return self.target if self.headline == "target" else self.source


class Confusion(Part):
    """Counts [C, C] of decisions, row the true emotion; an utterance counts once for each seed."""

    labels: list[str]
    counts: list[list[Count]]


class ReliabilityBin(Part):
    """Mean confidence and accuracy of the `clips` in one bin of a reliability diagram."""

    confidence: Share
    accuracy: Share
    clips: Count


class Reliability(Part):
    """Expected calibration error, and the bins that hold utterances."""

    ece: Share
    bins: list[ReliabilityBin]


class Calibration(Part):
    """Reliability before and after temperature scaling; temperatures by the name of the model."""

    temperatures: dict[str, Size]
    before: Reliability
    after: Reliability


class SelectedEpoch(Part):
    """The epoch whose weights a model kept; `adversary_accuracy` where the adversary has a classifier.

    With `Refit`, `dev_uar` is that of the inner folds, pooled; null where there are none.
    """

    fold: str
    seed: int
    epoch: Count
    dev_uar: Share | None
    adversary_accuracy: Share | None = None


class Refit(Part):
    """Present where models were trained on all training speakers, up to an epoch that inner folds selected.

    Attributes:
        inner_folds: Number of inner folds; 0: no epoch was selected.
        epochs: Number of epochs of each model.
        calibrated: Whether temperatures were fitted.
        calibrated_on: On whose predictions: "inner folds" (in older reports ""), "other folds", or "" without temperatures.
    """

    inner_folds: Count
    epochs: dict[str, Count]
    calibrated: bool
    calibrated_on: Literal["inner folds", "other folds", ""] = ""


class Emotion(Part):
    """Emotion results on unseen speakers; `uar`, the headline, is pooled over test utterances."""

    uar: Uar
    accuracy: Share
    macro_f1: Share
    chance: Share
    utterances: Count
    per_class: dict[str, Share | None]
    per_speaker: dict[str, SpeakerResult]
    worst_speaker: WorstSpeaker
    spread: Size | None
    confusion: Confusion
    ece: Share
    calibration: Calibration
    groups: dict[str, dict[str, GroupResult]] = Field(default_factory=dict)
    domains: Domains | None = None
    folds: dict[str, SelectedEpoch] = Field(default_factory=dict)
    uar_mean_over_speakers: MeanUar | None = None
    refit: Refit | None = None
    near_copies: Share | None = None  # share of test utterances that share audio with one the model learned from
    known_by_copies: Count | None = None  # test speakers with a copy of a recording of a speaker the model learned from
    by_telephone: Uar | None = None  # on the test utterances as a telephone transmits them
    dimensions: dict[str, DimensionResult] | None = None  # of `emotion.targets`, where the recipe has them
    votes: VoteResults | None = None  # where the corpus has votes of annotators

    @property
    def mean_over_speakers(self) -> MeanUar:
        """The mean of the speakers' UARs, without an interval in reports of older versions."""
        mean = fmean(result.uar for result in self.per_speaker.values())
        return self.uar_mean_over_speakers or MeanUar(value=mean, low=None, high=None)


# ---- speaker


class ChanceLevels(Part):
    """Accuracies that are reached without any embedding."""

    uniform: Share
    majority: Share
    given_emotion: Share
    given_emotion_balanced: Share


class AttackerScore(Part):
    """Speaker identification accuracy of one attacker: 95 % confidence interval, one-sided upper bounds, permutation p values."""

    centre = "accuracy"
    accuracy: Share
    low: Share | None
    high: Share | None
    upper: Share | None
    balanced_accuracy: Share
    balanced_upper: Share | None
    p_value: Share | None
    p_below: Share | None
    p_value_texts: Share | None = None  # where utterances of one text may stand or fall together; null where texts are unknown
    p_below_texts: Share | None = None
    validation: Share | None
    reads: str  # "embedding" or "frames"
    converged: Share | None = None  # share of its fits that converged before the limit of their iterations


class StrongestAttacker(Part):
    """The score of the attackers chosen on validation utterances; `chosen` is each attacker's share of the folds."""

    centre = "accuracy"
    name: str
    chosen: dict[str, Share]
    accuracy: Share
    low: Share | None
    high: Share | None
    upper: Share | None
    balanced_accuracy: Share
    balanced_upper: Share | None
    p_value: Share | None
    p_below: Share | None
    p_value_texts: Share | None = None
    p_below_texts: Share | None = None
    seeds: dict[str, Share] = Field(default_factory=dict)
    deviation: Size | None = None


class Control(Part):
    """Accuracy of the strongest closed-form attacker on another input."""

    centre = "accuracy"
    accuracy: Share
    low: Share | None
    high: Share | None
    balanced_accuracy: Share
    attacker: str


class CodeLength(Part):
    """Length of the online code of the speaker labels, bits."""

    codelength_bits: Size
    uniform_bits: Size
    compression: Size


class Information(Part):
    """Usable bits by family of attackers, the online code, log2 of the speakers, and what the emotion leaves unknown of them."""

    v_bits: dict[str, float]
    mdl: CodeLength
    log2_speakers: Size
    given_emotion_bits: Size | None = None


class Outputs(Part):
    """Both outputs of a model whose posteriors are computed before the embedding is released."""

    attackers: str
    embedding: Control
    posteriors: Control


class AdversaryClassifier(Part):
    """Training accuracy of the first adversary's own classifier, which is no evidence of what the embedding holds."""

    accuracy: Share
    target: str
    evidence: bool
    curve: dict[str, list[float]] = Field(default_factory=dict)


class Tail(Part):
    """The speaker or model that stands out most, the surest utterances, or the mean recall; `expected` with permuted speakers."""

    attacker: str
    accuracy: Share
    expected: Share
    utterances: Size
    p_value: Share
    speaker: str = ""
    model: str = ""
    p_value_texts: Share | None = None


class Further(Part):
    """What closed-form attackers identify who know more, or learn from less; `expected` without the embedding."""

    attacker: str
    accuracy: Share
    expected: Share
    p_value: Share
    of: Literal["all", "speaker", "surest", "model"] = "all"


class Speaker(Part):
    """What fresh attackers identify from the embeddings; keys with a default are absent where they do not apply."""

    speakers: Count
    emotions: Count
    encoders: Count
    decisions: Count
    utterances: Count
    left_out: list[str]
    not_tried: dict[str, str]
    grouped_by_text: bool
    clusters: Count
    chance: ChanceLevels
    attackers: dict[str, AttackerScore]
    strongest: StrongestAttacker
    permutations: Count
    detection_limit: Share | None
    margin: Share
    at_chance: AtChance
    reason: str
    scored: Literal["held-out", "trained", "given"]
    controls: dict[str, Control]
    selectivity: Signed | None
    information: Information | None
    unseen: Unseen | None
    predicted_emotion: PredictedEmotion | None = None  # of a run; null where its test speakers are too few
    rate_bits: Size | None = None
    learned: Literal["all", "held-out"] = "all"
    outputs: Outputs | None = None
    adversary_head: AdversaryClassifier | None = None
    sample: dict[str, Size] | None = None  # what a quick audit used of a large table: how many of how many
    near_copies: Share | None = None  # share of scored utterances that share audio or a recording with one attackers learned from
    significant_bits: Count | None = None  # binary digits that embeddings were rounded to before they were attacked
    given: GivenEmotion | None = None  # ratings that "given emotion" is conditioned on, where a model predicts dimensions
    nested_texts: Share | None = None  # share of scored utterances whose text occurs several times, always by the same speaker
    best_recognised_speaker: Tail | None = None
    surest_utterances: Tail | None = None
    clips: list[Clips] = Field(default_factory=list)
    balanced: Tail | None = None  # mean recall over speakers, by attackers that take all of them as equally frequent
    best_recognised_model: Tail | None = None  # of several: that whose speakers are recognised best
    same_text: Further | None = None  # by attackers that know the sentences; null where folds do not keep texts apart
    scored_alone: Further | None = None  # by attackers that learn from scored utterances alone; null where all are scored
    copies: Share | None = None  # share of a table's rows that were left out, as copies of another row of the same speaker
    left_out_share: Share | None = None  # of the utterances, those of the speakers in left_out
    certificate: CertificatePart | None = None  # where what is released is one of a few codes


# ---- baselines without a network


class BaselineClassifier(Part):
    """Emotion results of one classifier on unseen speakers; `settings` are its hyperparameters, which were fixed beforehand."""

    settings: str
    uar: Uar
    uar_mean_over_speakers: MeanUar
    accuracy: Share
    per_speaker: dict[str, SpeakerResult]
    worst_speaker: WorstSpeaker


class Baseline(Part):
    """What classifiers reach on features that need no network, on the same folds.

    `classifiers` are named linear and rbf, `headline` names the one that stands first. `speaker` is the accuracy of closed-form
    attackers on the features of the utterances that the embedding was attacked on; null in a report of the features alone, whose
    part `speaker` is on them. `unavailable` is the reason why there are no results; the other values are null or empty then.
    """

    features: str
    dimensions: Count | None
    headline: Literal["linear", "rbf"] | None
    chance: Share | None
    utterances: Count | None
    classifiers: dict[str, BaselineClassifier]
    speaker: Control | None
    unavailable: str | None

    @property
    def first(self) -> BaselineClassifier | None:
        """The classifier that stands first, None without results."""
        return self.classifiers.get(self.headline or "")
