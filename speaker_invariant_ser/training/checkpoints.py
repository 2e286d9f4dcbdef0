"""A training's whole state in one safetensors file: nothing is pickled; a file that is damaged or another run's is refused."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.files import partial_of, writing

FORMAT = 1
CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(path: Path | str, state: object, owner: str) -> None:
    """Write `state` (dicts, lists and tuples of tensors, numbers, text, None) whole or not at all. Raises WriteError."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(pack(state, tensors))
    facts = {"format": str(FORMAT), "owner": owner, "state": skeleton}
    with writing(path, "wb") as file:
        file.write(safetensors.torch.save(tensors, {**facts, "sha256": digest(tensors, facts)}))


def load_checkpoint(path: Path | str, owner: str) -> object:
    """The state in a checkpoint. Raises RunError if it is damaged, of another version, or not of `owner`."""
    again = f"remove {path} to train this fold from its beginning"
    try:
        with safe_open(path, "pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        if facts.get("format") != str(FORMAT):
            raise RunError(f"{path}: a checkpoint of format {facts.get('format')}, this version reads {FORMAT}; {again}")
        if facts.pop("sha256", "") != digest(tensors, facts):
            raise RunError(f"{path} is damaged: its content does not fit its SHA-256; {again}")
        if facts["owner"] != owner:
            raise RunError(f"{path} belongs to another run, fold, seed or precision; {again}")
        return unpack(json.loads(facts["state"]), tensors)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({str(error).splitlines()[0]}); {again}") from None


def remove_checkpoint(folder: Path) -> None:
    """The model in the folder is trained; what a kill left of a checkpoint half written goes with it."""
    for path in (folder / CHECKPOINT, partial_of(folder / CHECKPOINT)):
        path.unlink(missing_ok=True)


def digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """SHA-256 over everything in the file but itself."""
    seen = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        seen.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        seen.update(tensors[name].flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


def pack(value: object, tensors: dict[str, Tensor]) -> object:
    """`value` as JSON: a tensor goes to `tensors` and leaves its name, a dict becomes pairs since its keys may be numbers."""
    match value:
        case Tensor():
            name, wide = str(len(tensors)), value.dim() == 4 and not value.is_contiguous()
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name, "channels_last": wide}
        case Mapping():
            return {"pairs": [[key, pack(one, tensors)] for key, one in value.items()]}
        case list() | tuple():
            return [pack(one, tensors) for one in value]
        case _:
            return value


def unpack(value: object, tensors: Mapping[str, Tensor]) -> object:
    """The inverse of `pack`, but that tuples come back as lists, and tensors on the CPU.

    The order of a tensor in memory is kept: an optimizer's kernels walk through a weight and its moments side by side.
    """
    match value:
        case {"tensor": name, "channels_last": wide}:
            return tensors[name].contiguous(memory_format=torch.channels_last) if wide else tensors[name]
        case {"pairs": pairs}:
            return {key: unpack(one, tensors) for key, one in pairs}
        case list():
            return [unpack(one, tensors) for one in value]
        case _:
            return value
