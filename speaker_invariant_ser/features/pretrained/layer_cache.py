"""The layers of all utterances of a prepared corpus, computed once by a frozen encoder.

pretrained/NAME-KEY/layers.f16    float16, little-endian: of each utterance of the manifest its frames, [T, L * H]
pretrained/NAME-KEY/clips.npy     hash of each utterance's samples, uint8 [N, 16]
pretrained/NAME-KEY/cache.json    the checkpoint (source, revision, SHA-256), layers, hashes of the two files
pretrained/NAME-KEY/versions.json the versions that computed them

KEY is a hash of the checkpoint's, of the layers and of the audio: another checkpoint, revision or corpus has another folder. The
values are those of the layers after normalisation, which float16 holds whatever the scale of a layer is; or, in a folder of its
own, without (`encoder.normalise_layers`).

Shapes: S samples, T frames, L layers, H dimension of a frame, N utterances.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data.audio import to_float32
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import AUDIO, PreparedCorpus
from speaker_invariant_ser.errors import PreparedCorpusError
from speaker_invariant_ser.features.pretrained.checkpoint import Checkpoint
from speaker_invariant_ser.files import (
    MAX_SETTINGS,
    require_no_links,
    require_regular,
    require_space,
    resumable_folder,
    sha256,
    write_json,
    writing,
)
from speaker_invariant_ser.json_files import read_json
from speaker_invariant_ser.processes import TaskProgress

FOLDER, LAYERS, CLIPS, DESCRIPTION, VERSIONS = "pretrained", "layers.f16", "clips.npy", "cache.json", "versions.json"
FORMAT = 2  # those of format 1 may be of weights that did not fit the network, which was not refused then
VALUE = 2  # bytes
DIGEST = 16  # bytes of the hash of an utterance

Compute = Callable[[np.ndarray], np.ndarray]  # an utterance, float32 [S] -> its layers, float16 [T, L * H]


@dataclass(frozen=True)
class LayerCache:
    """An opened cache.

    Attributes:
        folder: Its folder.
        frames: Frames of each utterance, [N].
        width: Values of a frame, L * H.
        index: Position of each utterance, by the hash of its samples.
        start: Frame that each utterance begins with, [N].
    """

    folder: Path
    frames: np.ndarray
    width: int
    index: dict[bytes, int]
    start: np.ndarray

    def read(self, clip: bytes) -> np.ndarray | None:
        """Return the layers, float16 [T, L * H], of the utterance with this hash; None if the corpus has no such utterance.

        The file is read directly and not through a memory map, whose pages would accumulate in memory.
        """
        number = self.index.get(clip)
        if number is None:
            return None
        frames, path = int(self.frames[number]), self.folder / LAYERS
        values = np.fromfile(path, "<f2", frames * self.width, offset=VALUE * self.width * int(self.start[number]))
        if values.size != frames * self.width:
            raise PreparedCorpusError(f"{path} was truncated while in use; {remedy(self.folder)}")
        return values.reshape(frames, self.width)

    def require_unchanged(self) -> None:
        """Raise PreparedCorpusError, with the file's name, if a file of the cache was changed: all of it is read."""
        recorded = read_description(self.folder)["sha256"]
        for name in (LAYERS, CLIPS):
            if sha256(self.folder / name) != recorded.get(name):
                raise PreparedCorpusError(
                    f"{self.folder / name} is damaged or was changed since it was computed (its SHA-256 is not that of "
                    f"{DESCRIPTION}); {remedy(self.folder)}"
                )


def remedy(folder: Path) -> str:
    """Return how to repair a cache."""
    return f"remove {folder}, and it is computed again"


def digest_of_clip(clip: np.ndarray) -> bytes:
    """Return the hash of an utterance's samples, float32 [S]."""
    return hashlib.blake2b(np.ascontiguousarray(clip, dtype="<f4").data, digest_size=DIGEST).digest()


def cache_folder(prepared: PreparedCorpus, checkpoint: Checkpoint, layers: Sequence[int], normalised: bool = True) -> Path:
    """Return the folder of the cache of a checkpoint's layers, normalised or not, in a prepared corpus."""
    facts = [
        FORMAT,
        checkpoint.sha256,
        list(layers),
        prepared.settings["sha256"][AUDIO],
        *([] if normalised else ["as they are"]),
    ]
    name = Path(checkpoint.name).name
    return prepared.folder / FOLDER / f"{name}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


def every_utterance(prepared: PreparedCorpus) -> Sequence[Utterance]:
    """Return the utterances of the manifest, those that a label map leaves out included."""
    return prepared.unmapped or prepared.utterances


def open_cache(
    prepared: PreparedCorpus, checkpoint: Checkpoint, layers: Sequence[int], normalised: bool = True
) -> LayerCache | None:
    """Open the cache of a checkpoint's layers, normalised or not; None if there is none.

    Raises:
        PreparedCorpusError: It is damaged.
    """
    folder = cache_folder(prepared, checkpoint, layers, normalised)
    if not folder.is_dir():
        return None
    description, facts = read_description(folder), facts_of(prepared, checkpoint, layers)
    if wrong := [name for name, value in facts.items() if description.get(name) != value]:
        raise PreparedCorpusError(f"{folder / DESCRIPTION} is of another cache ({', '.join(wrong)}); {remedy(folder)}")
    frames = np.array([checkpoint.frames_of(utterance.samples) for utterance in every_utterance(prepared)])
    width, path = len(layers) * checkpoint.width, folder / LAYERS
    size, expected = path.stat().st_size if path.is_file() else 0, VALUE * width * int(frames.sum())
    if size != expected:
        raise PreparedCorpusError(f"{path} is damaged: it has {size} bytes, expected {expected}; {remedy(folder)}")
    try:
        with open(require_regular(folder / CLIPS), "rb") as file:
            digests = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise PreparedCorpusError(f"{folder / CLIPS} is damaged ({error}); {remedy(folder)}") from None
    if digests.shape != (len(frames), DIGEST) or digests.dtype != np.uint8:
        raise PreparedCorpusError(f"{folder / CLIPS} is damaged: its hashes are not those of the utterances; {remedy(folder)}")
    index = {row.tobytes(): number for number, row in enumerate(digests)}
    return LayerCache(folder, frames, width, index, frames.cumsum() - frames)


def read_description(folder: Path) -> dict:
    """Return the contents of cache.json; raise PreparedCorpusError where it is damaged."""
    path = folder / DESCRIPTION
    try:
        description = read_json(path, MAX_SETTINGS)
        if not isinstance(description["sha256"], dict):
            raise ValueError("no hashes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreparedCorpusError(f"{path} is damaged ({error}); {remedy(folder)}") from None
    return description


def write_cache(
    prepared: PreparedCorpus,
    checkpoint: Checkpoint,
    layers: Sequence[int],
    compute: Compute,
    progress: TaskProgress | None = None,
    normalised: bool = True,
) -> None:
    """Compute the layers of all utterances and write the cache; a part that an interruption left is continued.

    Utterances are written in order and each is computed alone, so that the size of a part says which are complete, and the
    finished file is the same whatever interruptions there were.

    Args:
        prepared: The corpus.
        checkpoint: The checkpoint.
        layers: Its layers.
        compute: Computes the layers of an utterance.
        progress: Called with the task, utterances done and utterances in total.
        normalised: Whether `compute` normalises them.

    Raises:
        WriteError: The folder cannot be written, leads elsewhere, or another process is writing it.
    """
    folder, utterances = cache_folder(prepared, checkpoint, layers, normalised), every_utterance(prepared)
    frame_bytes = VALUE * len(layers) * checkpoint.width
    ends = [*accumulate((frame_bytes * checkpoint.frames_of(utterance.samples) for utterance in utterances), initial=0)]
    require_no_links([folder.parent, folder])
    with resumable_folder(folder) as work:
        require_space(work, ends[-1])
        require_same_versions(work)
        digests = np.zeros((len(utterances), DIGEST), dtype=np.uint8)
        with open(work / LAYERS, "r+b" if (work / LAYERS).exists() else "w+b") as file:
            held = file.seek(0, os.SEEK_END)
            done = max(number for number, end in enumerate(ends) if end <= held)
            file.truncate(ends[done])
            file.seek(ends[done])
            for number, utterance in enumerate(utterances):
                clip = samples_of(prepared, utterance)
                digests[number] = np.frombuffer(digest_of_clip(clip), dtype=np.uint8)
                if number >= done:
                    file.write(compute(clip).astype("<f2").data)
                    if progress:
                        progress(f"computing layers of {checkpoint.name}", number + 1, len(utterances))
        with writing(work / CLIPS, "wb") as file:
            np.save(file, digests, allow_pickle=False)
        write_json(work / DESCRIPTION, {**describe(work, prepared, checkpoint, layers), "normalised": normalised})


def samples_of(prepared: PreparedCorpus, utterance: Utterance) -> np.ndarray:
    """Return the samples of an utterance of the manifest, float32 [S]."""
    return to_float32(prepared.audio[utterance.offset : utterance.offset + utterance.samples])


def require_same_versions(work: Path) -> None:
    """Discard a part that other versions have computed, whose last bits may differ."""
    path, versions = work / VERSIONS, {name: version(name) for name in ("torch", "transformers")}
    try:
        same = path.is_file() and read_json(path, MAX_SETTINGS) == versions
    except ValueError:
        same = False
    if not same:
        (work / LAYERS).unlink(missing_ok=True)
        write_json(path, versions)


def describe(work: Path, prepared: PreparedCorpus, checkpoint: Checkpoint, layers: Sequence[int]) -> dict[str, object]:
    """Return the contents of cache.json."""
    return {
        **facts_of(prepared, checkpoint, layers),
        "source": checkpoint.name if checkpoint.commit else Path(checkpoint.name).name,
        "revision": checkpoint.commit,
        "architecture": checkpoint.architecture,
        "width": checkpoint.width,
        "sha256": {name: sha256(work / name) for name in (LAYERS, CLIPS)},
    }


def facts_of(prepared: PreparedCorpus, checkpoint: Checkpoint, layers: Sequence[int]) -> dict[str, object]:
    """Return what a cache is of, as cache.json states it."""
    return {
        "format": FORMAT,
        "checkpoint_sha256": checkpoint.sha256,
        "layers": list(layers),
        "audio_sha256": prepared.settings["sha256"][AUDIO],
    }
