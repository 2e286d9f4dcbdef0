"""The recipe: everything that decides a run beside the data, as frozen pydantic models, one per section.

Reading, overriding and writing recipes is in `config.py`. No torch here, so that the command line can check a recipe at once.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitSection(Section):
    """Who is trained on, who selects, who is tested. Always whole speakers."""

    scheme: Literal[
        "loso",
        "group-kfold",
        "leave-one-session-out",
        "leave-one-corpus-out",
        "official",
        "ravdess-five",
        "fixed",
        "domain",
    ] = Field(
        "loso",
        description=(
            "leave one speaker, one session or one corpus out; k groups of speakers; the corpus's official lists; "
            "RAVDESS's five folds by actor; the lists given here; one domain with its labels and another without"
        ),
    )
    folds: int = Field(5, ge=2, description="number of groups (group-kfold, domain)")
    text_folds: int = Field(
        0, ge=0, description="test only on texts nobody was trained on, in so many groups of texts; 0: texts are shared"
    )
    test: tuple[str, ...] = Field((), description="test speakers (fixed; domain, in the place of folds)")
    dev: tuple[str, ...] = Field((), description="dev speakers (fixed, domain); empty: taken from the training speakers")
    dev_speakers: int = Field(2, ge=1, description="speakers taken from the training speakers to select the epoch")
    seed: int = Field(0, ge=0, lt=2**32, description="order in which speakers are dealt to groups (group-kfold, domain)")
    column: str = Field("corpus", description="column of the manifest that tells the domains apart (domain)")
    source: tuple[str, ...] = Field((), description="values of it that are trained on with their labels (domain)")
    unlabelled: tuple[str, ...] = Field(
        (),
        description="values of it that are trained on without any label: half of every batch; tested beside the source (domain)",
    )
    use_unlabelled: bool = Field(True, description="false: the twin that trains on the source alone, tested on the same clips")


class LabelsSection(Section):
    """Which emotions are told apart."""

    map: str | dict[Label, Label] = Field(
        "auto",
        description=(
            "full (all labels), five (neutral, happy, sad, angry, fearful), five-merged (excited, calm, ... as well), "
            "auto (five for several corpora, full for one), or your own such as "
            '{angry = "angry", bored = "calm"}; other labels are dropped'
        ),
    )


class FeaturesSection(Section):
    """What the network reads of a clip: its log-mel spectrogram."""

    front: Literal["log-mel", "pixels"] = Field(
        "log-mel", description="log-mel; or pixels: clips are pictures of `mels` rows, as those of recipes/digits.toml"
    )
    mels: int = Field(64, ge=8, le=256, description="mel bands")
    window_ms: float = Field(25.0, ge=5, le=200, description="window, milliseconds")
    hop_ms: float = Field(10.0, ge=1, le=100, description="hop, milliseconds")
    f_min: float = Field(20.0, ge=0, description="lowest frequency, Hz")
    f_max: float = Field(8000.0, gt=0, description="highest frequency, Hz")
    normalise: Literal["corpus", "utterance", "speaker"] = Field(
        "utterance",
        description=(
            "subtract each band's mean over the training speakers, over the utterance itself, or over all clips of its speaker: "
            "transductive, since test speakers' audio is needed beforehand"
        ),
    )

    @property
    def transductive(self) -> bool:
        """Whether a clip is read by what other clips of its speaker are like, of test speakers too."""
        return self.normalise == "speaker"


Share = Annotated[float, Field(ge=0, le=1)]


class AugmentSection(Section):
    """What training batches go through, on the log-mel spectrogram; nothing of it at evaluation. In this order."""

    virtual: int = Field(
        0,
        ge=0,
        le=20,
        description="further voices of each speaker, by a fixed warp and equaliser each: other people to the speaker adversary",
    )
    concatenate: Share = Field(
        0.0, description="share of clips that another clip of the same emotion follows, of another speaker where there is one"
    )
    mixup_within: Share = Field(0.0, description="share of clips mixed with another of the same emotion")
    mixup_across: Share = Field(0.0, description="share of clips mixed with another of any emotion; labels are mixed alike")
    mixup_alpha: float = Field(0.4, gt=0, le=100, description="weights are drawn from Beta(alpha, alpha)")
    tempo: float = Field(0.1, ge=0, lt=0.5, description="largest relative change of duration")
    warp: float = Field(0.1, ge=0, lt=0.5, description="vocal tract warp, largest relative shift of frequencies")
    level_db: float = Field(0.0, ge=0, le=60, description="largest change of level, dB; nothing where utterances are normalised")
    equaliser_db: float = Field(3.0, ge=0, le=30, description="random smooth curve over the bands, standard deviation, dB")
    noise: Share = Field(0.0, description="share of clips that noise is added to")
    noise_snr_db: tuple[float, float] = Field((5.0, 30.0), description="signal-to-noise ratio, lowest and highest, dB")
    frequency_masks: int = Field(2, ge=0, le=10, description="stretches of bands that are hidden")
    frequency_mask_bands: int = Field(8, ge=0, le=256, description="widest mask, mel bands")
    time_masks: int = Field(2, ge=0, le=20, description="stretches of time that are hidden")
    time_mask_ms: float = Field(200.0, ge=0, le=10_000, description="longest mask, milliseconds")

    @model_validator(mode="after")
    def in_order(self) -> Self:
        low, high = self.noise_snr_db
        if not -20 <= low <= high <= 80:
            raise ValueError(f"augment.noise_snr_db = [{low}, {high}]: expected -20 <= lowest <= highest <= 80 dB")
        if self.concatenate + self.mixup_within + self.mixup_across > 1:
            raise ValueError("augment.concatenate + augment.mixup_within + augment.mixup_across: expected a sum of at most 1")
        return self


# What makes no sense on pictures.
OF_SOUND = ("concatenate", "tempo", "warp", "level_db", "equaliser_db", "noise", "frequency_masks", "time_masks", "virtual")


class EncoderSection(Section):
    name: str = "cnn"
    channels: tuple[Annotated[int, Field(ge=1, le=2048)], ...] = Field(
        (24, 48, 96, 128), min_length=1, max_length=8, description="output channels, one stage each"
    )
    dim: int = Field(128, ge=2, le=8192, description="embedding dimension")
    dropout: float = Field(0.2, ge=0, lt=1)


class EmotionSection(Section):
    """The emotion classifier on the embedding: dim - hidden - classes."""

    hidden: int = Field(64, ge=1, le=65536)
    dropout: float = Field(0.3, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    class_weights: bool = Field(True, description="weigh classes by inverse frequency, as UAR does")
    logit_adjustment: float = Field(
        0.0, ge=0, le=10, description="tau: tau * log of the class's share is added to its logit in training; 0: nothing"
    )


class BottleneckSection(Section):
    """What the encoder's output passes through to become the embedding."""

    name: str = Field("none", description="none, vib (variational) or fsq (finite scalar quantisation)")
    weight: float = Field(1e-3, ge=0, le=1000, description="of the rate, per nat, in the loss (vib)")
    levels: int = Field(5, ge=2, le=1024, description="values that each dimension may take (fsq)")


class AdversarySection(Section):
    """What pushes the speaker out of the embedding while it is learned."""

    name: str = "grl"
    target: Label = Field("speaker", description="the column of the manifest that the adversary reads and the encoder is to hide")
    strength: float = Field(
        0.1, ge=0, le=100, description="lambda at the end of its schedule; 0: the baseline without an adversary"
    )
    balance: bool = Field(
        False, description="strength is a ratio: how long the adversary's gradient at the embedding is beside the emotion's"
    )
    schedule: Literal["ganin", "constant", "warm-up"] = Field(
        "ganin",
        description="of lambda: Ganin's ramp, the same throughout, or nothing at first and then a straight line",
    )
    ramp: float = Field(10.0, gt=0, description="steepness of strength * (2 / (1 + exp(-ramp * progress)) - 1) (ganin)")
    warm_up: float = Field(
        0.2, ge=0, le=0.9, description="share of training without it; lambda then rises for as long again (warm-up)"
    )
    reads: Literal["embedding", "frames"] = Field(
        "embedding", description="the embedding, or the map before pooling, frame by frame"
    )
    conditional: bool = Field(False, description="is told the emotion, so that what emotion says of the speaker may stay")
    hidden: int = Field(64, ge=1, le=65536, description="units of a hidden layer")
    heads: int = Field(1, ge=1, le=64, description="readers of different form, in turn: one hidden layer, none, two, a wide one")
    learning_rate: float = Field(
        0.0, ge=0, le=10, description="of an optimizer of its own (Adam, beta1 0.5); 0: trained by the model's"
    )
    inner_steps: int = Field(
        1, ge=1, le=100, description="steps of its own for each of the encoder's; more than 1: own optimizer"
    )
    gradient_penalty: float = Field(
        0.0, ge=0, le=1000, description="weight of the squared gradient of a reader's loss by its input"
    )
    renew: int = Field(0, ge=0, description="steps after which a reader, each in turn, forgets all it learned; 0: never")
    widths: tuple[Annotated[float, Field(ge=0.01, le=1000)], ...] = Field(
        (0.5, 1.0, 2.0), min_length=1, max_length=16, description="of Gaussian kernels, in median distances (hsic, mmd)"
    )
    temperature: float = Field(0.2, ge=0.01, le=100, description="of the cosine similarities (contrastive)")

    @model_validator(mode="after")
    def has_something_to_balance(self) -> Self:
        if self.balance and self.reads == "frames":
            raise ValueError(
                'adversary.balance = true with adversary.reads = "frames": the emotion\'s gradient is measured at the embedding, '
                'the adversary\'s at the map before pooling; expected balance = false, or reads = "embedding"'
            )
        return self

    @model_validator(mode="after")
    def has_an_optimizer(self) -> Self:
        if self.inner_steps > 1 and not self.learning_rate:
            raise ValueError(
                f"adversary.inner_steps = {self.inner_steps}: more than one takes an optimizer of its own, "
                "set adversary.learning_rate above 0, such as 0.001"
            )
        return self


class PerturbSection(Section):
    """A second look at each clip, with its log-mel moved a little in the worst direction."""

    name: str = Field(
        "none", description="none, fgm (along the emotion's gradient), vat (virtual) or cross (along the first adversary's)"
    )
    epsilon: float = Field(
        5.0, ge=0, le=1000, description="length of the move: L2 norm over a clip's log-mel, natural logarithms"
    )
    weight: float = Field(0.5, ge=0, le=100, description="of the loss at the moved clip")


class EraseSection(Section):
    """What is taken out of the embedding after training, by a map that is fitted on the training speakers."""

    name: str = Field("none", description="none, leace (linear) or kernel (iterated, nonlinear)")
    rounds: int = Field(8, ge=1, le=100, description="at most (kernel)")


class ReleaseSection(Section):
    """What happens to an embedding before it leaves the model."""

    name: str = Field("none", description="none, noise or quantise")
    sigma: float = Field(1.0, ge=0, le=100, description="deviation of Gaussian noise on the embedding of unit variance (noise)")
    step: float = Field(1.0, gt=0, le=100, description="width of a step of the embedding of unit variance (quantise)")
    trained: bool = Field(False, description="training sees the released embedding as well")
    decision: Literal["before", "after"] = Field("before", description="whether emotion is told before or after it")


class TrainSection(Section):
    epochs: int = Field(40, ge=1, description="at most")
    epoch_clips: int = Field(0, ge=0, description="clips in an epoch, drawn anew for each; 0: all")
    patience: int = Field(0, ge=0, description="stop after so many epochs none of which was the best; 0: never")
    batch_size: int = Field(16, ge=2, description="clips, of all processes together")
    batches: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="every clip once an epoch, or every speaker and emotion equally often"
    )
    learning_rate: float = Field(2e-3, gt=0, le=10, description="peak of the schedule")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field("one-cycle", description="of the learning rate, step by step")
    weight_decay: float = Field(0.02, ge=0, le=10, description="of AdamW")
    gradient_clip: float = Field(5.0, ge=0, description="largest norm of the gradient, model and adversary apart; 0: any")
    ema: float = Field(
        0.98, ge=0, lt=1, description="decay per step of the weights' moving average, which is what is kept; 0: none"
    )
    probe_every: int = Field(
        0, ge=0, description="epochs between fresh attackers of the embedding, for curves; 0: none. Takes audit.holdout above 0"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of forward and backward; auto: bfloat16 where the processor multiplies matrices of it, else float32"
    )
    resident_gb: float = Field(
        4.0,
        ge=0,
        description="gigabytes of log-mels that stay on the training device, for each model; more is read as needed",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of everything random in training")
    seeds: int = Field(1, ge=1, le=1000, description="models of each fold, trained from seed, seed + 1, ...")


class AuditSection(Section):
    """How much of the speaker is left."""

    holdout: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description=(
            "share of each training speaker's clips that is kept aside, whole texts where known, to score attackers on; "
            "0: they are scored on clips that the encoder trained on"
        ),
    )
    folds: int = Field(5, ge=2, description="folds of the attackers' cross-validation")
    seed: int = Field(0, ge=0, lt=2**31, description="of what is held out, folds, attackers and permutations")


class Recipe(Section):
    """Everything that decides a run beside the data. `Recipe()` is the default model."""

    split: SplitSection = SplitSection()
    labels: LabelsSection = LabelsSection()
    features: FeaturesSection = FeaturesSection()
    augment: AugmentSection = AugmentSection()
    encoder: EncoderSection = EncoderSection()
    emotion: EmotionSection = EmotionSection()
    bottleneck: BottleneckSection = BottleneckSection()
    adversary: AdversarySection = AdversarySection()
    further: tuple[AdversarySection, ...] = Field(
        (), max_length=8, description="further adversaries, each with the keys of [adversary]"
    )
    perturb: PerturbSection = PerturbSection()
    erase: EraseSection = EraseSection()
    release: ReleaseSection = ReleaseSection()
    train: TrainSection = TrainSection()
    audit: AuditSection = AuditSection()

    @property
    def adversaries(self) -> tuple[AdversarySection, ...]:
        """The settings of every adversary, the first one's first."""
        return self.adversary, *self.further

    @model_validator(mode="after")
    def has_clips_to_probe(self) -> Self:
        if self.train.probe_every and not self.audit.holdout:
            raise ValueError(f"train.probe_every = {self.train.probe_every}: expected audit.holdout above 0, to be scored on")
        return self

    @model_validator(mode="after")
    def voices_have_a_reader(self) -> Self:
        targets = [one.target for one in self.adversaries]
        if self.augment.virtual and "speaker" not in targets:
            raise ValueError(
                f"augment.virtual = {self.augment.virtual}: further voices are for an adversary of speakers, and "
                f"adversary.target is {targets[0]}; set it to speaker, or augment.virtual to 0"
            )
        return self

    @model_validator(mode="after")
    def pictures_are_no_sound(self) -> Self:
        made = {name: getattr(self.augment, name) for name in OF_SOUND if getattr(self.augment, name)}
        if self.features.front == "pixels" and made:
            told = ", ".join(f"augment.{name} = {value}" for name, value in made.items())
            raise ValueError(f'{told}: made for sound, expected 0 where features.front = "pixels"')
        return self
