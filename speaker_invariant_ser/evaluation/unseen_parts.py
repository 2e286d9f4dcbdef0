"""The parts `unseen` and `clips` of report.json, typed: speakers that the encoder was not trained on, and several clips."""

from pydantic import Field

from speaker_invariant_ser.evaluation.part import Part


class Scorer(Part):
    """Error rates of one verification scorer; `per_encoder` is the equal error rate of each encoder."""

    eer: float | None
    low: float | None
    high: float | None
    same_emotion: float | None
    cross_emotion: float | None
    linkability: float | None
    per_encoder: list[float | None] = Field(default_factory=list)
    cllr_min: float | None = None  # cost of the scores after the best monotonic calibration, bits: 0 best, 1 chance


class SpeakerMeans(Part):
    """A measure averaged over speakers, 95 % confidence interval over speakers, and the speaker with the lowest value."""

    mean: float
    low: float | None
    high: float | None
    worst: float
    speaker: str
    speakers: int


class Ranks(SpeakerMeans):
    """Rank of the true speaker among the enrolled ones: 0 first, 1 last, 0.5 at chance; `enrolled` speakers at most."""

    enrolled: int


class Linkage(Part):
    """How well embeddings match the voice prints of the same unseen speakers: area under the curve, and equal error rate."""

    auc: float
    low: float | None
    high: float | None
    eer: float | None
    eer_low: float | None
    eer_high: float | None
    speakers: int
    trials: int


class Verification(Part):
    """Speaker verification; the first three numbers are those of the trained scorer, the last two need a judge."""

    eer: float | None
    low: float | None
    high: float | None
    cosine: Scorer
    trained: Scorer
    target_trials: int
    nontarget_trials: int
    same_text_left_out: bool
    per_speaker: SpeakerMeans | None = None  # equal error rates, clipped at 0.5
    rank: Ranks | None = None
    judge: Scorer | None = None  # of the recordings themselves
    linkage: Linkage | None = None


class Unseen(Part):
    """Attackers and verification on speakers that the encoder was not trained on; either half may be null."""

    accuracy: float | None
    low: float | None
    high: float | None
    balanced_accuracy: float | None
    attacker: str | None
    chance: float | None
    speakers: int | None
    decisions: int | None
    eer: float | None
    linkability: float | None
    verification: Verification | None


class Identification(Part):
    """Closed-set identification from several clips; `groups` have no clip in common."""

    accuracy: float
    low: float | None
    high: float | None
    chance: float
    groups: int
    speakers: int


class VerifiedGroups(Part):
    """Verification with several clips on both sides of a trial."""

    eer: float | None
    low: float | None
    high: float | None
    target_trials: int
    nontarget_trials: int


class Clips(Part):
    """What several clips of one person reveal: of speakers that the encoder was trained on, and of those it was not."""

    clips: int
    identification: Identification | None
    verification: VerifiedGroups | None
