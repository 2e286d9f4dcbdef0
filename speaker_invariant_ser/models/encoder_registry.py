"""All encoders by name: what `encoder.name` of a recipe chooses."""

from collections.abc import Callable
from typing import Any

from speaker_invariant_ser.features.streams import Layout
from speaker_invariant_ser.models.encoders import Cnn, Encoder, ImageCnn
from speaker_invariant_ser.models.fusion import Fusion
from speaker_invariant_ser.models.pretrained_encoder import PretrainedEncoder
from speaker_invariant_ser.models.recurrent_encoders import Acrnn, Crnn, ProsodyEncoder

# The settings are those of the encoder's own class in recipe_encoders.
ENCODERS: dict[str, Callable[[Layout, Any], Encoder]] = {
    "cnn": Cnn,
    "image": ImageCnn,
    "prosody": ProsodyEncoder,
    "crnn": Crnn,
    "acrnn": Acrnn,
    "fusion": Fusion,
    "pretrained": PretrainedEncoder,
}
