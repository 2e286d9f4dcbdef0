"""Recipe sections [encoder], whose `name` chooses the network, [emotion], its classifier, and [augment]. No torch here."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from speaker_invariant_ser.recipe_methods import MethodSection, Section, named

Channels = Annotated[int, Field(ge=1, le=512)]
Stream = Literal["log-mel", "prosody", "waveform"]
Dimension = Literal["arousal", "valence", "dominance"]
Share = Annotated[float, Field(ge=0, le=1)]


class AugmentSection(Section):
    """Augmentation of training batches, in this order, none at evaluation; telephone on the waveform, all else on log-mels."""

    telephone: Share = Field(
        0.0,
        description=(
            "Share of utterances that are heard over a telephone (300 to 3400 Hz, 8 kHz, mu-law), 0 to 1; F0 stays that of the "
            "recording. Doubles the log-mels kept in memory."
        ),
    )
    virtual_speakers: int = Field(
        0,
        ge=0,
        le=20,
        description=(
            "Virtual speakers per training speaker, each a fixed spectral warp and equaliser curve; the speaker adversary treats "
            "them as further speakers."
        ),
    )
    concatenate: Share = Field(
        0.0,
        description=(
            "Share of utterances followed by another one of the same emotion, by another speaker where there is one, 0 to 1."
        ),
    )
    mixup_same_emotion: Share = Field(
        0.0, description="Share of utterances that are mixed with another one of the same emotion, 0 to 1."
    )
    mixup_any_emotion: Share = Field(
        0.0, description="Share of utterances that are mixed, labels included, with another one of any emotion, 0 to 1."
    )
    mixup_alpha: float = Field(
        0.4, gt=0, le=100, description="Parameter of Beta(alpha, alpha), which mixing weights are drawn from."
    )
    tempo: float = Field(0.1, ge=0, lt=0.5, description="Largest relative change of duration.")
    warp: float = Field(0.1, ge=0, lt=0.5, description="Largest relative frequency shift of the vocal-tract warp.")
    level_db: float = Field(
        0.0, ge=0, le=60, description="Largest change of level, dB; without effect where features are normalised per utterance."
    )
    equaliser_db: float = Field(3.0, ge=0, le=30, description="Standard deviation of a smooth random curve over the bands, dB.")
    noise: Share = Field(0.0, description="Share of utterances to which noise is added, 0 to 1.")
    noise_snr_db: tuple[float, float] = Field((5.0, 30.0), description="Lowest and highest signal-to-noise ratio, dB, -20 to 80.")
    frequency_masks: int = Field(2, ge=0, le=10, description="Number of masked bands of frequencies.")
    frequency_mask_bands: int = Field(8, ge=0, le=256, description="Widest frequency mask, mel bands.")
    time_masks: int = Field(2, ge=0, le=20, description="Number of masked time intervals.")
    time_mask_ms: float = Field(200.0, ge=0, le=10_000, description="Longest time mask, milliseconds.")

    @model_validator(mode="after")
    def shares_and_ratios_are_valid(self) -> Self:
        """Refuse a reversed range of signal-to-noise ratios, and shares that sum to more than 1."""
        low, high = self.noise_snr_db
        if not -20 <= low <= high <= 80:
            raise ValueError(f"augment.noise_snr_db = [{low}, {high}]: expected -20 <= lowest <= highest <= 80 dB")
        if self.concatenate + self.mixup_same_emotion + self.mixup_any_emotion > 1:
            raise ValueError(
                "augment.concatenate + augment.mixup_same_emotion + augment.mixup_any_emotion: expected a sum of at most 1"
            )
        return self


# Augmentations that are defined for sound and not for images.
SOUND_ONLY = (
    "telephone",
    "concatenate",
    "tempo",
    "warp",
    "level_db",
    "equaliser_db",
    "noise",
    "frequency_masks",
    "time_masks",
    "virtual_speakers",
)


class EmotionSection(Section):
    """The emotion classifier on the embedding, linear or with one hidden layer, and a regressor of dimensions like it."""

    hidden: int = Field(64, ge=0, le=4096, description="Units of the hidden layer; 0: a linear classifier.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate before the last layer.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing.")
    class_weights: bool = Field(True, description="Weight classes by their inverse frequency, as UAR does.")
    logit_adjustment: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Tau of logit adjustment: tau * log(class share) is added to the logits in training; 0 disables.",
    )
    labels: Literal["hard", "soft"] = Field(
        "hard",
        description=(
            "What is learned: the label of each utterance (hard), or the distribution of its annotators' votes (soft), which the "
            "corpus must have; an utterance without votes counts as its label. UAR is always of the labels."
        ),
    )
    targets: tuple[Dimension, ...] = Field(
        (),
        max_length=3,
        description=(
            "Dimensions that are predicted beside the emotion, by a network of its own on the embedding: arousal, valence, "
            "dominance. The prepared corpus needs ratings of them."
        ),
    )
    targets_weight: float = Field(1.0, gt=0, le=100, description="Weight of the loss of these predictions, 1 - CCC.")

    @model_validator(mode="after")
    def targets_are_different(self) -> Self:
        """Refuse a dimension that is named twice, and a weight of the loss without targets."""
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"emotion.targets = [{', '.join(self.targets)}]: expected each dimension once")
        if not self.targets and self.targets_weight != EmotionSection.model_fields["targets_weight"].default:
            raise ValueError(
                f"emotion.targets_weight = {self.targets_weight:g} with emotion.targets = []: there is no such loss; expected "
                "dimensions such as arousal"
            )
        return self


class EncoderSettings(MethodSection):
    """The network that turns features into an embedding."""

    streams: ClassVar[frozenset[Stream]] = frozenset({"log-mel"})  # what `features.streams` must be

    dim: int = Field(128, ge=2, le=1024, description="Dimension of the embedding.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate in the encoder.")

    @property
    def on_waveform(self) -> bool:
        """Whether the encoder gets the waveform, and neither log-mels nor prosody."""
        return "waveform" in self.streams


class CnnSettings(EncoderSettings):
    """Convolutional network over the log-mel spectrogram (and its deltas), then attentive statistics pooling."""

    name: Literal["cnn"] = "cnn"
    channels: tuple[Channels, ...] = Field(
        (24, 48, 96, 128), min_length=1, max_length=8, description="Output channels of each convolutional stage, 1 to 512."
    )


class ImageSettings(EncoderSettings):
    """The same for images of a few pixels (`features.front = "pixels"`)."""

    name: Literal["image"] = "image"
    channels: tuple[Channels, ...] = Field(
        (24, 48, 96, 128), min_length=1, max_length=8, description="Output channels of each convolutional stage, 1 to 512."
    )


class ProsodySettings(EncoderSettings):
    """Dilated convolutions and a bidirectional LSTM over the prosody stream, then attentive statistics pooling."""

    streams: ClassVar[frozenset[Stream]] = frozenset({"prosody"})

    name: Literal["prosody"] = "prosody"
    width: int = Field(64, ge=2, le=512, multiple_of=2, description="Channels of each convolution; units of the LSTM, both ways.")
    dim: int = Field(64, ge=2, le=1024, description="Dimension of the embedding.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in the encoder.")


class CrnnSettings(EncoderSettings):
    """Strided convolutions and a bidirectional LSTM over the log-mel spectrogram (and its deltas)."""

    name: Literal["crnn"] = "crnn"
    channels: tuple[Channels, ...] = Field(
        (24, 48, 64), min_length=1, max_length=8, description="Output channels of each convolutional stage, 1 to 512."
    )
    width: int = Field(64, ge=2, le=512, multiple_of=2, description="Channels of each convolution; units of the LSTM, both ways.")
    dim: int = Field(64, ge=2, le=1024, description="Dimension of the embedding.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in the encoder.")


class AcrnnSettings(EncoderSettings):
    """Convolutions, a bidirectional LSTM and attention over the log-mel spectrogram and its deltas (3-D ACRNN)."""

    name: Literal["acrnn"] = "acrnn"
    channels: tuple[Channels, ...] = Field(
        (64, 64), min_length=1, max_length=8, description="Output channels of each convolution, 1 to 512."
    )
    width: int = Field(256, ge=1, le=512, description="Units of the linear layer before the LSTM.")
    cells: int = Field(128, ge=1, le=256, description="Cells of the LSTM in each direction.")
    dim: int = Field(64, ge=2, le=1024, description="Dimension of the embedding.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in the encoder.")


class FusionSettings(EncoderSettings):
    """An encoder for each stream, each with its own emotion classifier; the embeddings are joined, the predictions averaged."""

    streams: ClassVar[frozenset[Stream]] = frozenset({"log-mel", "prosody"})

    name: Literal["fusion"] = "fusion"
    log_mel: Literal["crnn", "cnn", "acrnn"] = Field(
        "crnn", description="Encoder of the log-mel stream, with its default settings."
    )
    dim: int = Field(64, ge=2, le=512, description="Dimension of each stream's embedding; that of the model is twice as large.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in both encoders.")


class PretrainedSettings(EncoderSettings):
    """A pre-trained speech encoder: a learned weighted sum of its layers, then pooling over the frames."""

    streams: ClassVar[frozenset[Stream]] = frozenset({"waveform"})

    name: Literal["pretrained"] = "pretrained"
    source: str = Field(
        "microsoft/wavlm-base-plus",
        min_length=1,
        description="Checkpoint of transformers: a folder, or OWNER/NAME of the Hugging Face Hub (see docs/pretrained.md).",
    )
    revision: str = Field(
        "", description="Branch, tag or commit on the hub; empty: the main branch. A run holds the commit it was trained with."
    )
    sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 of the checkpoint's files, which must be these; empty: any. A run holds that of its own.",
    )
    layers: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = Field(
        (), description="Layers that are used; 0 is the input of the first transformer layer. Empty: all."
    )
    normalise_layers: bool = Field(
        True,
        description="Normalise every frame of every layer to mean 0 and variance 1; `siser export --transformers` needs false.",
    )
    pooling: Literal["attentive", "mean"] = Field(
        "attentive",
        description="Pooling over the frames: attentive statistics, or their mean, as `siser export --transformers` needs it.",
    )
    train: str = Field(
        "frozen",
        pattern=r"^(frozen|lora|all|top [1-9][0-9]?)$",
        description=(
            'What of the pre-trained encoder is trained: nothing (frozen), its last N transformer layers ("top 2"), low-rank '
            "updates of the feed-forward layers (lora), or all. Frozen, its layers are computed once into the prepared corpus."
        ),
    )
    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=10,
        description="Peak learning rate of what is trained of the pre-trained encoder; no effect if frozen.",
    )
    lora_rank: int = Field(8, ge=1, le=1024, description="Rank of the updates; no effect unless train is lora.")
    dim: int = Field(128, ge=2, le=1024, description="Dimension of the embedding.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate before the embedding.")

    @property
    def frozen(self) -> bool:
        """Whether nothing of the pre-trained encoder is trained."""
        return self.train == "frozen"

    @model_validator(mode="after")
    def layers_are_in_order(self) -> Self:
        """Refuse layers that are repeated or not in ascending order."""
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"encoder.layers = {list(self.layers)}: expected each layer once, in ascending order")
        return self


EncoderSection = Annotated[
    CnnSettings | ImageSettings | ProsodySettings | CrnnSettings | AcrnnSettings | FusionSettings | PretrainedSettings,
    *named("cnn"),
]
