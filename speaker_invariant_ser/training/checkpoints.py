"""The state of a training in one safetensors file: nothing is pickled; a damaged file, or one of another run, is refused."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from speaker_invariant_ser.errors import RunError, first_line, shown
from speaker_invariant_ser.files import partial_of, writing
from speaker_invariant_ser.json_files import parse_json
from speaker_invariant_ser.runs import INNER, ModelSpec, Run, best_epoch

FORMAT = 2  # 1 was that of version 0.1.0, whose state has other parts
CHECKPOINT = "checkpoint.safetensors"

State = dict[str, Any]  # dicts, lists and tuples of tensors, numbers, text and None


@dataclass
class LoopState:
    """Where the loop is, and what it has kept so far."""

    epoch: int = 1  # the current one, from 1
    batch: int = 0  # the next one of the epoch
    step: int = 0  # updates so far, over all epochs
    learning_rate: float = 0.0  # of the latest update
    rows: list[dict[str, float]] = field(default_factory=list)  # of metrics.csv
    best_dev_uar: float = -1.0
    best_dev_loss: float = 0.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    attacker_accuracy: float = 0.0  # of the latest online probe

    def require_possible(self, steps: int) -> None:
        """Raise an error unless a training with so many steps an epoch can be here."""
        if not (0 <= self.batch <= steps and self.step == (self.epoch - 1) * steps + self.batch):
            raise ValueError(
                f"epoch {shown(self.epoch)}, batch {shown(self.batch)} and step {shown(self.step)} do not go together"
            )
        if [row["epoch"] for row in self.rows] != list(range(1, self.epoch)):
            raise ValueError("loop.rows are not one for each epoch")
        for row in self.rows:
            require_like(row, dict.fromkeys(row, 0.0) | dict.fromkeys(("best", "emotion_loss", "emotion_accuracy"), 0.0), "row")
        if self.rows:
            best_epoch(self.rows)


class Stateful(Protocol):
    """A part of a training whose state a checkpoint holds."""

    def state_dict(self) -> dict:
        """Return the state."""
        ...

    def load_state_dict(self, state: dict, /) -> object:
        """Continue from a state."""
        ...


def save_checkpoint(path: Path | str, state: State, fingerprint: str) -> None:
    """Write the state of a training, whole or not at all.

    Args:
        path: The file.
        state: The state; tuples come back as lists.
        fingerprint: Identifies the training; only with the same one can the checkpoint be loaded.

    Raises:
        WriteError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(pack(state, tensors))
    metadata = {"format": str(FORMAT), "owner": fingerprint, "state": skeleton}
    with writing(path, "wb") as file:
        file.write(safetensors.torch.save(tensors, {**metadata, "sha256": digest(tensors, metadata)}))


def load_checkpoint(path: Path | str, fingerprint: str) -> State:
    """Read the state of a training.

    Args:
        path: The file.
        fingerprint: Of the training that is to be continued.

    Returns:
        The state, tensors on the CPU.

    Raises:
        RunError: The file is damaged, of another version, or of another training.
    """
    remedy = f"remove {path} to train this fold from its beginning"
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a dict
        if metadata.get("format") != str(FORMAT):
            raise RunError(
                f"{path}: a checkpoint of format {shown(metadata.get('format'))}, this version reads {FORMAT}; {remedy}"
            )
        if metadata.pop("sha256", "") != digest(tensors, metadata):
            raise RunError(f"{path} is damaged: its content does not match its SHA-256; {remedy}")
        if metadata["owner"] != fingerprint:
            raise RunError(f"{path} belongs to another run, fold, seed or precision; {remedy}")
        return unpack(parse_json(metadata["state"]), tensors)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise RunError(f"{path} is damaged ({first_line(error)}); {remedy}") from None


def restore(part: Stateful, state: State, name: str) -> None:
    """Let a part of a training continue from what a checkpoint has under its name.

    Raises:
        ValueError, TypeError, LookupError, RuntimeError, AttributeError: It does not have the form of the part's own state.
    """
    require_like(state[name], part.state_dict(), name)
    part.load_state_dict(state[name])


def require_like(value: Any, example: Any, where: str) -> None:
    """Raise ValueError unless a value has the form of an example: keys, lengths, types, and the shapes of tensors.

    A list whose example is empty may have any length; so may a dict.

    Args:
        value: A part of a state, as `load_checkpoint` returns it.
        example: The same part of a training that has just begun.
        where: What the part is called.
    """
    match example:
        case Tensor():
            same = isinstance(value, Tensor) and (value.shape, value.dtype) == (example.shape, example.dtype)
        case Mapping():
            same = isinstance(value, dict) and (not example or value.keys() == example.keys())
        case list() | tuple():
            same = isinstance(value, list) and len(value) in (len(example), len(value) * (not example))
        case float():
            same = isinstance(value, float | int) and not isinstance(value, bool)
        case _:
            same = type(value) is type(example)
    if not same:
        raise ValueError(f"{where} has another form")
    if isinstance(example, Mapping | list | tuple) and example:
        keys = example if isinstance(example, Mapping) else range(len(example))
        for key in keys:
            require_like(value[key], example[key], f"{where}.{key}")


def fingerprint_of(run: Run, spec: ModelSpec, precision: str) -> str:
    """Return the SHA-256 of everything besides its state that determines a training: recipe, data, fold, seed, precision."""
    facts = [run.recipe.model_dump(mode="json"), run.hashes, asdict(spec.split), spec.seed, precision]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a trained model, what an interruption left of a half-written one, and its inner folds."""
    for path in (folder / CHECKPOINT, partial_of(folder / CHECKPOINT)):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / INNER, ignore_errors=True)


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of everything in a checkpoint but the hash itself."""
    sha256 = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        sha256.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        sha256.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value that JSON can hold, and put its tensors into `tensors`.

    A tensor becomes its name there. A dict becomes a list of pairs, because its keys may be numbers.
    """
    match value:
        case Tensor():
            name, channels_last = str(len(tensors)), value.dim() == 4 and not value.is_contiguous()
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name, "channels_last": channels_last}
        case Mapping():
            return {"pairs": [[key, pack(entry, tensors)] for key, entry in value.items()]}
        case list() | tuple():
            return [pack(entry, tensors) for entry in value]
        case _:
            return value


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Invert `pack`, except that tuples come back as lists and tensors on the CPU.

    The memory order of a tensor is kept: an optimizer's kernels read a weight and its moments side by side.
    """
    match value:
        case {"tensor": name, "channels_last": channels_last}:
            return tensors[name].contiguous(memory_format=torch.channels_last) if channels_last else tensors[name]
        case {"pairs": pairs}:
            return {key: unpack(entry, tensors) for key, entry in pairs}
        case list():
            return [unpack(entry, tensors) for entry in value]
        case _:
            return value
