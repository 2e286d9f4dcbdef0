"""What the publisher of a checkpoint says of its licence and of its training data, in the README that comes with it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from speaker_invariant_ser.errors import RecipeError, RunError, SetupError, shorten
from speaker_invariant_ser.features.pretrained.checkpoint import README, open_checkpoint
from speaker_invariant_ser.files import read_bytes
from speaker_invariant_ser.recipe_encoders import PretrainedSettings

NOT_STATED = "not stated"
MAX_BYTES = 1_000_000  # of a README
MAX_DEPTH = 50  # of brackets in it
MAX_NAME = 100  # characters of what is quoted


@dataclass(frozen=True)
class SourceCard:
    """Claims of a publisher, which are not checked.

    Attributes:
        licence: Licence of the checkpoint.
        data: What it was trained on.
    """

    licence: str = NOT_STATED
    data: str = NOT_STATED


def read_source_card(settings: PretrainedSettings) -> SourceCard:
    """Read what the README of a checkpoint states in its metadata; a checkpoint that is not there states nothing."""
    try:
        folder = open_checkpoint(settings).folder
    except (RecipeError, RunError, SetupError):
        return SourceCard()
    metadata = read_metadata(folder / README)
    licence = names_in(metadata.get("license"))
    if licence in (["other"], []):
        licence = names_in(metadata.get("license_name")) or licence
    datasets = names_in(metadata.get("datasets"))
    return SourceCard(shorten(licence) or NOT_STATED, shorten(datasets) or NOT_STATED)


def read_metadata(path: Path) -> Mapping[str, object]:
    """Return the metadata in YAML that a README begins with; nothing if it has none or is damaged."""
    try:
        import yaml  # a dependency of huggingface_hub
        from huggingface_hub import metadata_load
    except ImportError:
        return {}
    try:
        readable = path.is_file() and depth_of(read_bytes(path, MAX_BYTES).decode()) <= MAX_DEPTH
        metadata = metadata_load(path) if readable else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return metadata or {}


def depth_of(text: str) -> int:
    """Return how deep brackets are nested: deep ones take the parser seconds."""
    return max(accumulate((char in "[{") - (char in "]}") for char in text), default=0)


def names_in(value: object) -> list[str]:
    """Return the short texts in a value of the metadata, which may be one or a list."""
    values: Iterable[object] = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and 0 < len(text.strip()) <= MAX_NAME]
