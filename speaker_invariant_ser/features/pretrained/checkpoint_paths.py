"""Where the folder of a checkpoint is: what a run keeps of its path, what a model keeps, and how it is found again.

A run keeps the path, without the name of the user's home. A model, which is passed on, keeps the name of the folder alone; the
SHA-256 of the checkpoint's files says whether a folder of that name is the right one.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speaker_invariant_ser.files import read_bytes
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_encoders import EncoderSettings, PretrainedSettings

ENCODER_FOLDERS = "SISER_ENCODERS"  # environment variable with folders that hold checkpoints, joined as in PATH
RECIPE = "recipe.toml"  # of a run


def find_folder(source: str, revision: str = "") -> Path | None:
    """Return the folder of a source, by its path or by its name in a folder of `SISER_ENCODERS`; None if none is there."""
    folder = Path(os.path.expanduser(source))
    folders = [] if revision else [Path(name) for name in os.environ.get(ENCODER_FOLDERS, "").split(os.pathsep) if name]
    return next((path for path in (folder, *(parent / folder.name for parent in folders)) if path.is_dir()), None)


def portable(source: str) -> str:
    """Return the path of a folder as a run stores it: below the user's home as `~/...`, otherwise unchanged."""
    path, home = Path(os.path.expanduser(source)), Path(os.path.expanduser("~"))
    return f"~/{path.relative_to(home).as_posix()}" if path.is_absolute() and path.is_relative_to(home) else source


def name_of(settings: PretrainedSettings) -> str:
    """Return what identifies a checkpoint beside its hash: the name of its folder without the path, or its repository."""
    path = os.path.expanduser(settings.source)
    if settings.revision or not (settings.sha256 or os.path.isabs(path)):  # without a hash it may be a repository
        return settings.source
    return Path(os.path.abspath(path)).name or settings.source


def without_path(settings: EncoderSettings) -> EncoderSettings:
    """Return settings as a model stores them, see `name_of`; those of other encoders are unchanged."""
    return settings.model_copy(update={"source": name_of(settings)}) if isinstance(settings, PretrainedSettings) else settings


def description_without_path(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of a model.json, which version 0.6.0 may have written, as they are passed on."""
    encoder = described.get("encoder")
    if not isinstance(encoder, dict) or encoder.get("name") != PretrainedSettings.model_fields["name"].default:
        return {**described}
    return {**described, "encoder": without_path(PretrainedSettings.model_validate(encoder)).model_dump(mode="json")}


def recipe_without_path(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as reports have it, which are published: JSON values, a checkpoint by its name."""
    return recipe.model_copy(update={"encoder": without_path(recipe.encoder)}).model_dump(mode="json")


def with_path(settings: EncoderSettings, folder: Path) -> EncoderSettings:
    """Return the settings of a model in a run with the path that the run's recipe has; unchanged for a model of no run.

    Args:
        settings: Section [encoder] of model.json.
        folder: The model's folder, `folds/FOLD` or `folds/FOLD/seed-S` in a run.
    """
    if not isinstance(settings, PretrainedSettings) or settings.revision:
        return settings
    for parent in folder.absolute().parents[1:3]:
        source = source_in(parent / RECIPE)
        if source and Path(os.path.abspath(os.path.expanduser(source))).name == settings.source:
            return settings.model_copy(update={"source": source})
    return settings


def source_in(recipe: Path) -> str:
    """Return `encoder.source` of a run's recipe; empty if there is none."""
    try:
        source = tomllib.loads(read_bytes(recipe, 10**6).decode())["encoder"]["source"] if recipe.is_file() else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # opening the run says what is wrong with it
        return ""
    return source if isinstance(source, str) else ""
