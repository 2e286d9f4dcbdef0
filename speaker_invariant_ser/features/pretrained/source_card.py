"""What the publisher of a checkpoint says of its licence and of its training data, in the README that comes with it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from speaker_invariant_ser.errors import RecipeError, RunError, SetupError, shorten
from speaker_invariant_ser.features.pretrained.checkpoint import README, open_checkpoint
from speaker_invariant_ser.recipe_encoders import PretrainedSettings

NOT_STATED = "not stated"
MAX_BYTES = 1_000_000  # of a README
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
        metadata = metadata_load(path) if path.is_file() and path.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return metadata or {}


def names_in(value: object) -> list[str]:
    """Return the short texts in a value of the metadata, which may be one or a list."""
    values: Iterable[object] = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and 0 < len(text.strip()) <= MAX_NAME]
