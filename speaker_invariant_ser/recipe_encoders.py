"""Recipe section [encoder], whose `name` chooses the network that turns features into an embedding. No torch here."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from speaker_invariant_ser.recipe_methods import MethodSection, named

Channels = Annotated[int, Field(ge=1, le=2048)]
Stream = Literal["log-mel", "prosody"]


class EncoderSettings(MethodSection):
    """The network that turns features into an embedding."""

    streams: ClassVar[frozenset[Stream]] = frozenset({"log-mel"})  # what `features.streams` must be

    dim: int = Field(128, ge=2, le=8192, description="Dimension of the embedding.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate in the encoder.")


class CnnSettings(EncoderSettings):
    """Convolutional network over the log-mel spectrogram (and its deltas), then attentive statistics pooling."""

    name: Literal["cnn"] = "cnn"
    channels: tuple[Channels, ...] = Field(
        (24, 48, 96, 128), min_length=1, max_length=8, description="Output channels of each convolutional stage, 1 to 2048."
    )


class ImageSettings(EncoderSettings):
    """The same for images of a few pixels (`features.front = "pixels"`)."""

    name: Literal["image"] = "image"
    channels: tuple[Channels, ...] = Field(
        (24, 48, 96, 128), min_length=1, max_length=8, description="Output channels of each convolutional stage, 1 to 2048."
    )


class ProsodySettings(EncoderSettings):
    """Dilated convolutions and a bidirectional LSTM over the prosody stream, then attentive statistics pooling."""

    streams: ClassVar[frozenset[Stream]] = frozenset({"prosody"})

    name: Literal["prosody"] = "prosody"
    width: int = Field(
        64, ge=2, le=1024, multiple_of=2, description="Channels of each convolution; units of the LSTM, both ways."
    )
    dim: int = Field(64, ge=2, le=8192, description="Dimension of the embedding.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in the encoder.")


class CrnnSettings(EncoderSettings):
    """Strided convolutions and a bidirectional LSTM over the log-mel spectrogram (and its deltas)."""

    name: Literal["crnn"] = "crnn"
    channels: tuple[Channels, ...] = Field(
        (16, 32, 48), min_length=1, max_length=8, description="Output channels of each convolutional stage, 1 to 2048."
    )
    width: int = Field(
        64, ge=2, le=1024, multiple_of=2, description="Channels of each convolution; units of the LSTM, both ways."
    )
    dim: int = Field(64, ge=2, le=8192, description="Dimension of the embedding.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in the encoder.")


class AcrnnSettings(EncoderSettings):
    """Convolutions, a bidirectional LSTM and attention over the log-mel spectrogram and its deltas (3-D ACRNN)."""

    name: Literal["acrnn"] = "acrnn"
    channels: tuple[Channels, ...] = Field(
        (64, 64), min_length=1, max_length=8, description="Output channels of each convolution, 1 to 2048."
    )
    width: int = Field(256, ge=1, le=4096, description="Units of the linear layer before the LSTM.")
    cells: int = Field(128, ge=1, le=1024, description="Cells of the LSTM in each direction.")
    dim: int = Field(64, ge=2, le=8192, description="Dimension of the embedding.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in the encoder.")


class FusionSettings(EncoderSettings):
    """An encoder for each stream, each with its own emotion classifier; the embeddings are joined, the predictions averaged."""

    streams: ClassVar[frozenset[Stream]] = frozenset({"log-mel", "prosody"})

    name: Literal["fusion"] = "fusion"
    log_mel: Literal["crnn", "cnn", "acrnn"] = Field(
        "crnn", description="Encoder of the log-mel stream, with its default settings."
    )
    dim: int = Field(64, ge=2, le=4096, description="Dimension of each stream's embedding; that of the model is twice as large.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout rate in both encoders.")


EncoderSection = Annotated[
    CnnSettings | ImageSettings | ProsodySettings | CrnnSettings | AcrnnSettings | FusionSettings, *named("cnn")
]
