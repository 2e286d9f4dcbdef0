"""Embed utterances in blocks that survive an interruption, and write them as a table that `siser audit` reads."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from speaker_invariant_ser.audit.inputs.read_embeddings import INVALID_NPZ
from speaker_invariant_ser.data.holdout import independent_units
from speaker_invariant_ser.data.prepared_corpus import AUDIO, PreparedCorpus
from speaker_invariant_ser.errors import AuditError, RunError, shorten, unknown
from speaker_invariant_ser.files import partial_of, private_folder, writing
from speaker_invariant_ser.studies.encoders.sources import CODE, LAYER, OUTPUT, PREDICTED, Encoder, Layers

BLOCK = 32  # utterances
ALL = "all"  # layers

Progress = Callable[[int, int], None]  # utterances done, utterances in total


def embed_utterances(
    encoder: Encoder, prepared: PreparedCorpus, indices: Sequence[int], work: Path, progress: Progress | None = None
) -> Layers:
    """Embed utterances block by block.

    Args:
        encoder: The encoder.
        prepared: The corpus that it was opened for.
        indices: Positions of N utterances.
        work: Folder for finished blocks, which the next call for the same utterances and encoder uses.
        progress: Called after each block.

    Returns:
        Each layer, float32 [N, D].

    Raises:
        RunError: An embedding is not finite.
        WriteError: The folder cannot be written.
    """
    ids = [prepared.utterances[index].id for index in indices]
    request = "\n".join([encoder.identity, prepared.settings["sha256"][AUDIO], *ids])
    folder, blocks = work / hashlib.sha256(request.encode()).hexdigest()[:16], []
    for start in range(0, len(indices), BLOCK):
        block, path = indices[start : start + BLOCK], folder / f"{start:08}.npz"
        layers = read_block(path, len(block)) or encoder.embed(block)
        require_finite_layers(layers, [prepared.utterances[index].id for index in block])
        if not path.is_file():
            write_arrays(path, layers)
        blocks.append(layers)
        if progress:
            progress(start + len(block), len(indices))
    return {name: np.concatenate([layers[name] for layers in blocks]) for name in blocks[0]}


def blocks_folder(result: Path) -> Path:
    """Return the folder of finished blocks beside a result that is not written yet."""
    return private_folder(partial_of(result).with_suffix(".blocks"))


def require_one(encoders: Sequence[Encoder], source: str) -> None:
    """Raise RunError if an encoder has several models, one for each fold."""
    if len(encoders) > 1:
        names = shorten(encoder.split.name for encoder in encoders if encoder.split)
        raise RunError(f"{source} has several models, whose embeddings have nothing in common: choose one with --fold ({names})")


def require_finite_layers(layers: Layers, ids: Sequence[str]) -> None:
    """Raise RunError that names the first utterance with NaN or infinity."""
    for name, values in layers.items():
        invalid = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        if invalid:
            raise RunError(f"{ids[invalid[0]]}: its embedding ({name}) contains NaN or infinity; expected finite numbers")


def read_block(path: Path, count: int) -> Layers | None:
    """Return the layers of a finished block; None, and no file, where there is none or it is damaged."""
    try:
        with open(path, "rb") as source:
            file = np.load(source, allow_pickle=False)
            layers = {name: file[name] for name in file.files}
        if layers and all(values.ndim == 2 and len(values) == count for values in layers.values()):
            return layers
    except INVALID_NPZ:
        pass
    path.unlink(missing_ok=True)
    return None


def write_arrays(path: Path, arrays: Layers) -> None:
    """Write arrays as an .npz file under a temporary name, then give it its name."""
    with writing(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def labelled_indices(prepared: PreparedCorpus) -> list[int]:
    """Return the positions of the utterances that have an emotion; of all where none has one."""
    labelled = [index for index, utterance in enumerate(prepared.utterances) if utterance.emotion]
    return labelled or list(range(len(prepared.utterances)))


def split_decisions(encoder: Encoder, outputs: Layers) -> tuple[Layers, dict[str, np.ndarray]]:
    """Separate layers from the columns `code` (integers) and `predicted` (emotions), [N] each, of models that have them."""
    decisions = {name: outputs[name][:, 0] for name in (CODE, PREDICTED) if name in outputs}
    if PREDICTED in decisions:
        decisions[PREDICTED] = np.array(encoder.labels)[decisions[PREDICTED]]
    return {name: values for name, values in outputs.items() if name not in decisions}, decisions


def table_of_layers(
    encoder: Encoder,
    prepared: PreparedCorpus,
    indices: Sequence[int],
    layers: Layers,
    layer: str | None,
    decisions: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the arrays of a table of embeddings.

    Args:
        encoder: The encoder.
        prepared: The corpus.
        indices: Positions of the N embedded utterances.
        layers: Their layers.
        layer: The layer that is `embedding`, by default the last; `all` adds each as an array of its own, `layer_...`.
        decisions: Codes and predicted emotions; with them the table says which utterances the encoder was trained on, if on any.

    Raises:
        AuditError: The encoder has no such layer.
    """
    if layer not in (None, ALL, *layers):
        raise AuditError(f"--layer: {unknown('layer', str(layer), [*layers, ALL])}")
    utterances = [prepared.utterances[index] for index in indices]
    chosen = list(layers)[-1] if layer in (None, ALL) else layer
    arrays = {OUTPUT: layers[chosen]}
    for name in ("id", "speaker", "emotion", "text"):
        values = np.array([getattr(utterance, name) for utterance in utterances], dtype=str)
        if any(values):
            arrays[name] = values
    units = independent_units(utterances)
    if units is not None:
        arrays["recording"] = units
    if encoder.trained or decisions:
        arrays["scored"] = np.array([utterance.id not in encoder.trained for utterance in utterances])
    if layer == ALL:
        arrays |= {f"{LAYER}{name}": values for name, values in layers.items()}
    return arrays | decisions
