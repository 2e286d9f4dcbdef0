"""What a model was trained with, as SHA-256 in its model.json: a run is refused where any of it was changed since.

model.json has them under `sha256`, in three parts: `files` beside it, `model`, its own entries, and `run`, the fold, the data,
the labels and the recipe. They reveal changes and mix-ups. They are no signature: whoever changes a file can change its hash.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.files import sha256

HASHES, FILES, MODEL, RUN = "sha256", "files", "model", "run"
REMEDY = "restore it from a copy, or train again"
BESIDE = re.compile(r"(?!\.)[\w.-]+", re.ASCII)  # name of a file beside model.json: no path, and none of a hidden file
MAX_SHOWN = 80  # characters of a value in a message


def digest(value: object) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys, the same on every machine; tuples count as lists.

    >>> digest({"b": 1, "a": (0.1,)}) == digest({"a": [0.1], "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hashes_of(folder: Path, described: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the hashes that model.json gets.

    Args:
        folder: The model's folder, in which everything but model.json is written.
        described: Entries of model.json.
        run: What the model was trained with, by name.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".csv") and path.stem != "checkpoint")
    return {
        FILES: {path.name: sha256(path) for path in files},
        MODEL: {name: digest(value) for name, value in described.items()},
        RUN: {name: digest(value) for name, value in run.items()},
    }


def require_unchanged(folder: Path, described: Mapping[str, Any]) -> bool:
    """Check the files of a model, and its description, against the hashes in it.

    Args:
        folder: The model's folder.
        described: Contents of its model.json.

    Returns:
        Whether there are hashes: models of versions before 0.4.0 have none.

    Raises:
        RunError: Something was changed.
    """
    path = folder / "model.json"
    if HASHES not in described:
        return False
    recorded = recorded_hashes(path, described)
    if unrecorded := weights_of(folder) - recorded[FILES].keys():
        raise RunError(f"{path} is damaged: it has no hash of {sorted(unrecorded)[0]}; {REMEDY}")
    for name, expected in recorded[FILES].items():
        if not (folder / name).is_file():
            raise RunError(f"{folder / name} is missing; {REMEDY}")
        if (found := sha256(folder / name)) != expected:
            raise RunError(
                f"{folder / name} is damaged or was changed since training: its SHA-256 is {found[:12]}..., expected "
                f"{expected[:12]}... by {path.name}; {REMEDY}"
            )
    values = {name: value for name, value in described.items() if name != HASHES}
    require_same(recorded[MODEL], values, dict.fromkeys(values, path), path)
    return True


def weights_of(folder: Path) -> set[str]:
    """Return the names of a model's files of weights, all of which have hashes."""
    return {path.name for path in folder.iterdir() if path.suffix == ".safetensors" and path.stem != "checkpoint"}


def require_same_run(folder: Path, described: Mapping[str, Any], run: Mapping[str, Any], origin: Mapping[str, Path]) -> None:
    """Check what a model with hashes was trained with.

    Args:
        folder: The model's folder.
        described: Contents of its model.json.
        run: What the run's files say that it was trained with, by name; a part of a file as `section: key`.
        origin: The file that each of them is from.

    Raises:
        RunError: Something was changed, or the model is one of another fold or run.
    """
    path = folder / "model.json"
    require_same(recorded_hashes(path, described)[RUN], run, origin, path)


def recorded_hashes(path: Path, described: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the hashes in model.json."""
    recorded = described[HASHES]
    parts = [recorded.get(part) if isinstance(recorded, dict) else None for part in (FILES, MODEL, RUN)]
    if not all(isinstance(part, dict) and all(isinstance(value, str) for value in part.values()) for part in parts):
        raise RunError(
            f"{path} is damaged: {HASHES} = {short_json(recorded)}, expected hashes of {FILES}, {MODEL} and {RUN}; {REMEDY}"
        )
    if foreign := [name for name in recorded[FILES] if not BESIDE.fullmatch(name)]:
        raise RunError(
            f"{path} is damaged: {HASHES}.{FILES} has {short_json(foreign[0])}, expected names of files beside it; {REMEDY}"
        )
    return recorded


def require_same(recorded: Mapping[str, str], values: Mapping[str, Any], origin: Mapping[str, Path], path: Path) -> None:
    """Raise RunError that names the first value whose hash is not the recorded one, and its file."""
    for name, value in values.items():
        expected, found = recorded.get(name, "none"), digest(value)
        if found != expected:
            raise RunError(
                f"{origin[name]}: {name} = {short_json(value)} is not what {path} was trained with (SHA-256 {found[:12]}..., "
                f"then {expected[:12]}...); {REMEDY}"
            )
    if missing := recorded.keys() - values.keys():
        raise RunError(f"{path} was trained with {sorted(missing)[0]}, which was removed since; {REMEDY}")


def short_json(value: object) -> str:
    """Return a value as model.json has it, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
