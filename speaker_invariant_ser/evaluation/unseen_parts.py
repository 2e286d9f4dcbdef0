"""The parts `unseen` and `clips` of report.json, typed: speakers that the encoder was not trained on, and several utterances."""

from pydantic import Field

from speaker_invariant_ser.evaluation.part import Count, Part, Share, Signed, Size


class Scorer(Part):
    """Error rates of one verification scorer; `per_encoder` is the equal error rate of each encoder."""

    eer: Share | None
    low: Share | None
    high: Share | None
    same_emotion: Share | None
    cross_emotion: Share | None
    linkability: Signed | None  # unbiased, so below 0 at times
    per_encoder: list[Share | None] = Field(default_factory=list)
    cllr_min: Size | None = None  # cost of the scores after the best monotonic calibration, bits: 0 best, 1 chance


class SpeakerMeans(Part):
    """A measure averaged over speakers, 95 % confidence interval over speakers, and the speaker with the lowest value."""

    centre = "mean"
    mean: Share
    low: Share | None
    high: Share | None
    worst: Share
    speaker: str
    speakers: Count


class Ranks(SpeakerMeans):
    """Rank of the true speaker among the enrolled ones: 0 first, 1 last, 0.5 at chance; `enrolled` speakers at most."""

    enrolled: Count


class Linkage(Part):
    """How well embeddings match the voice prints of the same unseen speakers: area under the curve, and equal error rate."""

    auc: Share
    low: Share | None
    high: Share | None
    eer: Share | None
    eer_low: Share | None
    eer_high: Share | None
    speakers: Count
    trials: Count


class Verification(Part):
    """Speaker verification; the first three numbers are those of the trained scorer, the last two need a judge."""

    eer: Share | None
    low: Share | None
    high: Share | None
    cosine: Scorer
    trained: Scorer
    target_trials: Count
    nontarget_trials: Count
    same_text_left_out: bool
    per_speaker: SpeakerMeans | None = None  # equal error rates, clipped at 0.5
    rank: Ranks | None = None
    judge: Scorer | None = None  # of the recordings themselves
    linkage: Linkage | None = None


class Unseen(Part):
    """Attackers and verification on speakers that the encoder was not trained on; either half may be null."""

    accuracy: Share | None
    low: Share | None
    high: Share | None
    balanced_accuracy: Share | None
    attacker: str | None
    chance: Share | None
    speakers: Count | None
    decisions: Count | None
    eer: Share | None
    linkability: Signed | None  # unbiased, so below 0 at times
    verification: Verification | None


class PredictedEmotion(Part):
    """What predicted emotions alone say about the test speakers of all folds; no model predicts speakers it was trained on."""

    centre = "accuracy"
    accuracy: Share
    low: Share | None
    high: Share | None
    balanced_accuracy: Share
    attacker: str
    chance: Share
    speakers: Count
    utterances: Count
    decisions: Count


class Identification(Part):
    """Closed-set identification from several utterances; `groups` have no utterance in common."""

    accuracy: Share
    low: Share | None
    high: Share | None
    chance: Share
    groups: Count
    speakers: Count


class VerifiedGroups(Part):
    """Verification with several utterances on both sides of a trial."""

    eer: Share | None
    low: Share | None
    high: Share | None
    target_trials: Count
    nontarget_trials: Count


class Clips(Part):
    """What several utterances of one person reveal: of speakers that the encoder was trained on, and of those it was not."""

    clips: Count
    identification: Identification | None
    verification: VerifiedGroups | None
