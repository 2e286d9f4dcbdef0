"""Recipe sections whose `name` chooses a method: bottleneck, adversary, perturb, erase and release.

Each method has a settings class with exactly the keys that it uses; a section is the discriminated union of these classes, so
that a key which the chosen method does not use is refused. No torch here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
KernelWidth = Annotated[float, Field(ge=0.01, le=1000)]


class Section(BaseModel):
    """A frozen table of a recipe; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def numbers_are_no_booleans(cls, table: object) -> object:
        """Turn true and false into text where a number is expected: pydantic refuses text, but takes booleans as 1 and 0."""
        if not isinstance(table, Mapping):
            return table
        numeric = {key for key, field in cls.model_fields.items() if is_numeric(field.annotation)}
        return {key: without_booleans(value) if key in numeric else value for key, value in table.items()}


def is_numeric(annotation: object) -> bool:
    """Return whether an annotation is of a number, or of a list of numbers."""
    return annotation in (int, float) or any(map(is_numeric, get_args(annotation)))


def without_booleans(value: object) -> object:
    """Return a value, or a list of values, with booleans as text."""
    if isinstance(value, list | tuple):
        return [without_booleans(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else value


class MethodSection(Section):
    """A table whose `name` says which method it configures."""

    name: str


def named(default: str) -> tuple[Any, ...]:
    """Return the annotations of a union that is discriminated by `name`, which is `default` where a table has none."""
    fill = BeforeValidator(lambda table: {"name": default, **table} if isinstance(table, Mapping) else table)
    return Field(discriminator="name"), fill


class BottleneckSettings(MethodSection):
    """What the encoder's output passes through to become the embedding."""

    @property
    def rate_weight(self) -> float:
        """Weight of the bottleneck's rate in the loss."""
        return 0.0


class NoBottleneck(BottleneckSettings):
    """The encoder's output is the embedding."""

    name: Literal["none"] = "none"


class VibSettings(BottleneckSettings):
    """Variational information bottleneck: the embedding is a Gaussian sample whose rate is penalised."""

    name: Literal["vib"] = "vib"
    weight: float = Field(1e-3, ge=0, le=1000, description="Weight of the rate in the loss, per nat.")

    @property
    def rate_weight(self) -> float:
        """Weight of the bottleneck's rate in the loss."""
        return self.weight


class FsqSettings(BottleneckSettings):
    """Finite scalar quantisation: each dimension of the embedding takes one of a few values."""

    name: Literal["fsq"] = "fsq"
    levels: int = Field(5, ge=2, le=1024, description="Number of values that each dimension may take.")


class AdversarySettings(MethodSection):
    """What all adversaries have: the target, the strength lambda, and its schedule."""

    target: Label = Field("speaker", description="Manifest column that the embedding should not reveal.")
    strength: float = Field(
        0.1, ge=0, le=100, description="Lambda at the end of its schedule; 0 is the baseline without an adversary."
    )
    balance_gradients: bool = Field(
        False,
        description=(
            "Scale the adversary's gradient so that strength is the ratio of its norm to that of the emotion loss's gradient, "
            "both at the embedding."
        ),
    )
    schedule: Literal["ganin", "constant", "warm-up"] = Field(
        "ganin",
        description=(
            "Course of lambda over training: Ganin's sigmoid ramp, constant, or 0 during a warm-up followed by a linear rise."
        ),
    )
    steepness: float = Field(
        10.0, gt=0, le=1000, description="Steepness g of Ganin's ramp, strength * (2 / (1 + exp(-g * progress)) - 1) (ganin)."
    )
    warm_up: float = Field(
        0.2,
        ge=0,
        le=0.9,
        description="Share of training during which lambda is 0; it then rises linearly over an equal share (warm-up).",
    )

    @property
    def on_frames(self) -> bool:
        """Whether the adversary's input is the frame-level features, not the embedding."""
        return False

    @property
    def own_learning_rate(self) -> float:
        """Learning rate of the adversary's own optimizer; 0: its parameters belong to the model's optimizer."""
        return 0.0


class ClassifierSettings(AdversarySettings):
    """What adversaries with a classifier of the target have."""

    input: Literal["embedding", "frames"] = Field(
        "embedding", description="Input of the classifier: the embedding, or the frame-level features before pooling."
    )
    conditional: bool = Field(
        False,
        description="Give the classifier the emotion label as well, so that what emotion reveals about the target may remain.",
    )
    hidden: int = Field(64, ge=1, le=65536, description="Units of a hidden layer of the classifier.")
    heads: int = Field(
        1,
        ge=1,
        le=64,
        description=(
            "Number of classifiers; their architectures alternate: one hidden layer, none, two, one of four times the width."
        ),
    )

    @property
    def on_frames(self) -> bool:
        """Whether the adversary's input is the frame-level features, not the embedding."""
        return self.input == "frames"

    @model_validator(mode="after")
    def balances_at_the_embedding(self) -> Self:
        """Refuse to balance gradients that are measured at different layers."""
        if self.balance_gradients and self.on_frames:
            raise ValueError(
                'adversary.balance_gradients = true with adversary.input = "frames": the emotion loss\'s gradient is measured at '
                "the embedding, the adversary's at the frame-level features; expected adversary.balance_gradients = false or "
                'adversary.input = "embedding"'
            )
        return self


class TrainedClassifierSettings(ClassifierSettings):
    """What adversaries have whose classifier minimises its own classification loss."""

    gradient_penalty: float = Field(
        0.0, ge=0, le=1000, description="Weight of the squared norm of the classification loss's gradient at the input (R1)."
    )
    reset_every: int = Field(0, ge=0, le=10**9, description="Re-initialise one speaker classifier every N steps; 0 disables.")
    learning_rate: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Learning rate of the classifier's own Adam optimizer; 0: the model's optimizer trains it.",
    )
    inner_steps: int = Field(
        1,
        ge=1,
        le=100,
        description="Steps of the classifier per step of the encoder; more than 1 needs learning_rate above 0.",
    )

    @property
    def own_learning_rate(self) -> float:
        """Learning rate of the adversary's own optimizer; 0: its parameters belong to the model's optimizer."""
        return self.learning_rate

    @model_validator(mode="after")
    def has_an_optimizer(self) -> Self:
        """Refuse inner steps without an optimizer that could take them."""
        if self.inner_steps > 1 and not self.learning_rate:
            raise ValueError(
                f"adversary.inner_steps = {self.inner_steps}: more than one step needs the classifier's own optimizer; "
                "expected adversary.learning_rate above 0, such as 0.001"
            )
        return self


class GradientReversalSettings(TrainedClassifierSettings):
    """Gradient reversal: the encoder receives -lambda times the gradient of the speaker classifier's loss."""

    name: Literal["grl"] = "grl"


class MinMaxSettings(TrainedClassifierSettings):
    """Alternating min-max training with two optimizers."""

    name: Literal["minmax"] = "minmax"
    learning_rate: float = Field(gt=0, le=10, description="Learning rate of the classifier's own Adam optimizer.")


class MaximumEntropySettings(TrainedClassifierSettings):
    """The encoder maximises the entropy of the speaker classifier's output."""

    name: Literal["entropy"] = "entropy"


class SignedSumSettings(ClassifierSettings):
    """Emotion loss minus lambda times speaker loss under one optimizer: a demonstration of a failure."""

    name: Literal["signed"] = "signed"


class VariationalClubSettings(TrainedClassifierSettings):
    """The encoder minimises vCLUB, an upper bound of the mutual information of embedding and speaker."""

    name: Literal["vclub"] = "vclub"
    learning_rate: float = Field(gt=0, le=10, description="Learning rate of the classifier's own Adam optimizer.")


class KernelSettings(AdversarySettings):
    """What adversaries with Gaussian kernels have."""

    kernel_widths: tuple[KernelWidth, ...] = Field(
        (0.5, 1.0, 2.0),
        min_length=1,
        max_length=16,
        description="Widths of the Gaussian kernels, in units of the median distance of embeddings, 0.01 to 1000 each.",
    )


class HsicSettings(KernelSettings):
    """Hilbert-Schmidt independence criterion of embedding and speaker within each emotion."""

    name: Literal["hsic"] = "hsic"


class MmdSettings(KernelSettings):
    """Maximum mean discrepancy between each speaker and all speakers within each emotion."""

    name: Literal["mmd"] = "mmd"


class CoralSettings(AdversarySettings):
    """Difference of means and second moments between each speaker and all speakers within each emotion."""

    name: Literal["coral"] = "coral"


class ContrastiveSettings(AdversarySettings):
    """Supervised contrastive loss whose positives are utterances of the same emotion by other speakers."""

    name: Literal["contrastive"] = "contrastive"
    temperature: float = Field(0.2, ge=0.01, le=100, description="Temperature that divides the cosine similarities.")


class NoPerturbation(MethodSection):
    """Training sees no perturbed input."""

    name: Literal["none"] = "none"


class PerturbationSettings(MethodSection):
    """What all adversarial perturbations of the input have."""

    epsilon: float = Field(
        5.0, ge=0, le=1000, description="L2 norm of the perturbation over an utterance's log-mel spectrogram (natural logarithm)."
    )
    weight: float = Field(0.5, ge=0, le=100, description="Weight of the loss on the perturbed input.")


class FgmSettings(PerturbationSettings):
    """Fast gradient method: along the gradient of the emotion loss."""

    name: Literal["fgm"] = "fgm"


class VatSettings(PerturbationSettings):
    """Virtual adversarial training: in the direction that changes the prediction most; labels are not used."""

    name: Literal["vat"] = "vat"


class CrossGradientSettings(PerturbationSettings):
    """Along the gradient of the first adversary's classification loss (CrossGrad)."""

    name: Literal["cross"] = "cross"


class NoErasure(MethodSection):
    """Nothing is erased from the embedding after training."""

    name: Literal["none"] = "none"


class LeaceSettings(MethodSection):
    """LEACE: least-squares linear concept erasure, fitted on the training speakers after training."""

    name: Literal["leace"] = "leace"


class ObliviatorSettings(MethodSection):
    """Obliviator: nonlinear erasure that keeps the emotion, fitted on the training speakers after training."""

    name: Literal["obliviator"] = "obliviator"
    rounds: int = Field(1, ge=1, le=8, description="Number of rounds.")
    embedding_weight: float = Field(0.3, ge=0, le=100, description="Weight of keeping the embedding, relative to the emotion.")


class NoRelease(MethodSection):
    """The embedding leaves the model unchanged."""

    fitted_later: ClassVar[bool] = False  # after training, by `training.post_training`
    classifies_before: ClassVar[bool] = True

    name: Literal["none"] = "none"


class ReleaseSettings(MethodSection):
    """What all methods have that change the embedding with statistics of the trained encoder."""

    fitted_later: ClassVar[bool] = True

    in_training: bool = Field(False, description="Apply the release during training as well.")
    classify: Literal["before", "after"] = Field(
        "before", description="Classify emotion from the embedding before or after the release."
    )

    @property
    def classifies_before(self) -> bool:
        """Whether emotion is classified before the embedding is changed."""
        return self.classify == "before"


class NoiseSettings(ReleaseSettings):
    """Gaussian noise on the embedding, standardised to unit variance."""

    name: Literal["noise"] = "noise"
    sigma: float = Field(
        1.0, ge=0, le=100, description="Standard deviation of the noise, relative to an embedding of unit variance."
    )


class QuantiseSettings(ReleaseSettings):
    """Rounding of each dimension of the embedding, standardised to unit variance."""

    name: Literal["quantise"] = "quantise"
    step: float = Field(1.0, gt=0, le=100, description="Step size, relative to an embedding of unit variance.")


class CodesSettings(MethodSection):
    """One of a few vectors, the codes, in place of the embedding; they are trained by the emotion loss."""

    fitted_later: ClassVar[bool] = False
    classifies_before: ClassVar[bool] = False

    name: Literal["codes"] = "codes"
    cells: int = Field(16, ge=2, le=64, description="Number of codes; what leaves the model is one of so many vectors.")


class DecisionSettings(MethodSection):
    """A vector for each emotion in place of the embedding, that of the predicted one: only the decision leaves the model."""

    fitted_later: ClassVar[bool] = True
    classifies_before: ClassVar[bool] = False

    name: Literal["decision"] = "decision"


BottleneckSection = Annotated[NoBottleneck | VibSettings | FsqSettings, *named("none")]
AdversarySection = Annotated[
    GradientReversalSettings
    | MinMaxSettings
    | MaximumEntropySettings
    | SignedSumSettings
    | VariationalClubSettings
    | HsicSettings
    | MmdSettings
    | CoralSettings
    | ContrastiveSettings,
    *named("grl"),
]
PerturbSection = Annotated[NoPerturbation | FgmSettings | VatSettings | CrossGradientSettings, *named("none")]
EraseSection = Annotated[NoErasure | LeaceSettings | ObliviatorSettings, *named("none")]
ReleaseSection = Annotated[NoRelease | NoiseSettings | QuantiseSettings | CodesSettings | DecisionSettings, *named("none")]
