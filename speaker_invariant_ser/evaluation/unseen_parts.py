"""The part `unseen` of report.json, typed: speakers that the encoder was not trained on."""

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


class Verification(Part):
    """Speaker verification; the first three numbers are those of the trained scorer."""

    eer: float | None
    low: float | None
    high: float | None
    cosine: Scorer
    trained: Scorer
    target_trials: int
    nontarget_trials: int
    same_text_left_out: bool


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
