"""Checkpoints of pre-trained speech encoders: where they are, what they are, and whether they are what a model was trained with.

A checkpoint is a folder, or a repository of the Hugging Face Hub, with config.json, preprocessor_config.json and weights as
safetensors. Pickled weights are not loaded and code that comes with a checkpoint is not run. Nothing here needs transformers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import RecipeError, shorten, shown
from speaker_invariant_ser.features.pretrained.checkpoint_paths import ENCODER_FOLDERS, find_folder, portable
from speaker_invariant_ser.features.pretrained.hub import REPOSITORY, snapshot
from speaker_invariant_ser.files import MAX_SETTINGS, sha256
from speaker_invariant_ser.json_files import read_json
from speaker_invariant_ser.recipe_encoders import EncoderSettings, PretrainedSettings

CONFIG, EXTRACTOR = "config.json", "preprocessor_config.json"
WEIGHTS = "model*.safetensors"  # one file, or several with an index
INDEX = "model.safetensors.index.json"
FILES = (CONFIG, EXTRACTOR, WEIGHTS, INDEX)
ADAPTER = "adapter_config.json"  # of peft
README = "README.md"  # downloaded as well, for the model card
MAX_NUMBERS = {"layers": 1000, "labels": 100_000}  # of keys with this ending: more take all memory, whatever the weights are
MAX_BYTES = 20_000_000_000  # of an encoder; those of 2 billion parameters have 9 GB in single precision


@dataclass(frozen=True)
class Checkpoint:
    """A pre-trained encoder that was found, and what its configuration says.

    Attributes:
        folder: Where its files are.
        name: How the recipe names it.
        commit: Hash of the commit, of a repository; empty for a folder.
        sha256: SHA-256 of its files, see `digest_of`.
        architecture: Name of the architecture in transformers, such as "wavlm".
        depth: Number of transformer layers.
        width: Dimension H of a frame.
        convolutions: Kernel and stride of each convolution over the waveform; of an encoder with a fixed window none.
        window: Samples that an utterance is padded to, or cut into; 0 for an encoder that takes utterances as they are.
        positions: Frames of a window.
    """

    folder: Path
    name: str
    commit: str
    sha256: str
    architecture: str
    depth: int
    width: int
    convolutions: tuple[tuple[int, int], ...] = ()
    window: int = 0
    positions: int = 0

    def frames_of(self, samples: int) -> int:
        """Return the number of frames T of an utterance."""
        if self.window:
            return max(1, -(-samples * self.positions // self.window))
        frames = max(samples, self.shortest)
        for kernel, stride in self.convolutions:
            frames = (frames - kernel) // stride + 1
        return frames

    @property
    def shortest(self) -> int:
        """Samples that the convolutions need for one frame; a shorter utterance is padded to as many."""
        samples = 1
        for kernel, stride in reversed(self.convolutions):
            samples = (samples - 1) * stride + kernel
        return samples

    def layers(self, chosen: Sequence[int]) -> tuple[int, ...]:
        """Return the layers that `encoder.layers` chooses: 0 is the input of the first transformer layer; empty means all.

        Raises:
            RecipeError: A layer that the encoder does not have.
        """
        if beyond := [layer for layer in chosen if layer > self.depth]:
            raise RecipeError(
                f"encoder.layers: {self.name} has layers 0 to {self.depth}, and no layer {shorten(map(str, beyond))}"
            )
        return tuple(chosen) or tuple(range(self.depth + 1))


def open_checkpoint(settings: PretrainedSettings) -> Checkpoint:
    """Find the checkpoint that a recipe or a model names, download it if it is one of the hub, and check it.

    Args:
        settings: Section [encoder]; its files must have the hash `sha256`, if that is not empty.

    Raises:
        RecipeError: There is none, it cannot be used, or it has changed.
        RunError: It cannot be downloaded.
        SetupError: It is of the hub, and huggingface_hub is not installed.
    """
    folder, commit = located(settings.source, settings.revision)
    paths = files_of(folder, settings.source)
    checkpoint = read_checkpoint(folder, settings.source, commit, tuple((path, *signature(path)) for path in paths))
    if settings.sha256 not in ("", checkpoint.sha256):
        names = ", ".join(path.name for path in paths)
        raise RecipeError(
            f"encoder.source = {settings.source}: its files ({names}) are not those that the model was trained with (SHA-256 "
            f"{checkpoint.sha256[:12]}..., then {settings.sha256[:12]}...); restore them, or train again"
        )
    return checkpoint


def pinned(settings: PretrainedSettings, held: EncoderSettings | None = None) -> PretrainedSettings:
    """Return the settings with the commit and the hash of the checkpoint that is there: what a run is trained with.

    Args:
        settings: Section [encoder] of the recipe.
        held: That of a run which is continued. Its checkpoint is used again where the recipe names the same source and no
            revision: the main branch may have moved since.
    """
    source = portable(settings.source)
    if isinstance(held, PretrainedSettings) and portable(held.source) == source and not settings.revision:
        source = held.source
        settings = settings.model_copy(update={"revision": held.revision, "sha256": settings.sha256 or held.sha256})
    checkpoint = open_checkpoint(settings)
    return settings.model_copy(update={"source": source, "revision": checkpoint.commit, "sha256": checkpoint.sha256})


def located(source: str, revision: str) -> tuple[Path, str]:
    """Return the folder of a checkpoint, and its commit if it is one of the hub."""
    if folder := find_folder(source, revision):
        if revision:
            raise RecipeError(f"encoder.revision = {revision}: {source} is a folder, which has no revisions; leave it out")
        return folder, ""
    if not REPOSITORY.fullmatch(source):
        raise RecipeError(
            f"encoder.source = {source}: no such folder; expected one, here or in a folder that {ENCODER_FOLDERS} names, "
            "or OWNER/NAME of the Hugging Face Hub"
        )
    return downloaded(source, revision)


@cache
def downloaded(source: str, revision: str) -> tuple[Path, str]:
    """Return the folder with a repository of the hub, and the commit; asked once by each process."""
    folder = snapshot(
        f"encoder.source = {source}", source, revision or None, (*FILES, README), extra="pretrained", limit=MAX_BYTES
    )
    return folder, folder.name


def files_of(folder: Path, source: str) -> list[Path]:
    """Return the files of a checkpoint that are used; raise RecipeError where some are missing."""
    paths = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    names = {path.name for path in paths}
    if CONFIG not in names:
        raise RecipeError(f"encoder.source = {source}: no {CONFIG}; expected a checkpoint as transformers saves it")
    if not any(name.endswith(".safetensors") for name in names):
        raise RecipeError(
            f"encoder.source = {source}: no weights as safetensors (model.safetensors); pickled weights, such as "
            "pytorch_model.bin, can run code and are never loaded: see docs/pretrained.md for how to convert them"
        )
    if EXTRACTOR not in names:
        raise RecipeError(f"encoder.source = {source}: no {EXTRACTOR}, which says how audio is prepared; copy it there as well")
    if (folder / ADAPTER).exists():
        raise RecipeError(
            f"encoder.source = {source}: holds an adapter ({ADAPTER}), which is not applied; merge it into the weights "
            "(merge_and_unload in peft), or remove it"
        )
    if INDEX in names:
        shards = read_table(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict):
            raise RecipeError(f"encoder.source = {source}: {INDEX} is damaged: it has no weight_map")
        if elsewhere := sorted({str(shard) for shard in shards.values()} - names):
            raise RecipeError(f"encoder.source = {source}: {INDEX} names {shorten(elsewhere)}, which is none of its weights")
    return paths


def signature(path: Path) -> tuple[int, int]:
    """Return size and time of a file: while they are the same, its hash is not computed again."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def read_checkpoint(folder: Path, source: str, commit: str, files: tuple[tuple[Path, int, int], ...]) -> Checkpoint:
    """Read the configuration of a checkpoint and hash its files."""
    config, extractor = read_table(folder / CONFIG), read_table(folder / EXTRACTOR)
    rate = extractor.get("sampling_rate")
    if rate != SAMPLE_RATE:
        raise RecipeError(
            f"encoder.source = {source}: made for audio at {shown(rate)} Hz ({EXTRACTOR}); expected {SAMPLE_RATE} Hz, the rate "
            "of prepared corpora"
        )
    try:
        shape = shape_of(config, extractor)
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"encoder.source = {source}: model_type = {shown(config.get('model_type'))} is no speech encoder with frames that "
            f"can be used ({CONFIG} has no {str(error).strip(chr(39))}); expected one like wavlm, hubert, wav2vec2, "
            "data2vec-audio, unispeech-sat or whisper"
        ) from None
    sha = digest_of([path for path, *_ in files])
    return Checkpoint(folder, source, commit, sha, architecture=str(config.get("model_type")), **shape)


def read_table(path: Path) -> dict[str, Any]:
    """Read a JSON file with a table."""
    try:
        table = read_json(path, MAX_SETTINGS)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
    if not isinstance(table, dict):
        raise RecipeError(f"{path} is damaged: expected a table of JSON")
    return table


def shape_of(config: Mapping[str, Any], extractor: Mapping[str, Any]) -> dict[str, Any]:
    """Return depth, width and frames of an encoder; raise KeyError with the key that is missing, or what it should be."""
    for key, value in config.items():
        maximum = MAX_NUMBERS.get(key.rpartition("_")[2])
        if maximum and isinstance(value, int | float) and value > maximum:
            raise KeyError(f"{key} of at most {maximum:,}")
    if "conv_kernel" not in config and "max_source_positions" in config:  # Whisper's encoder, which takes windows of 30 s
        return {
            "depth": int(config["encoder_layers"]),
            "width": int(config["d_model"]),
            "window": int(extractor["chunk_length"]) * SAMPLE_RATE,
            "positions": int(config["max_source_positions"]),
        }
    kernels, strides = config["conv_kernel"], config["conv_stride"]
    return {
        "depth": int(config["num_hidden_layers"]),
        "width": int(config["hidden_size"]),
        "convolutions": tuple((int(kernel), int(stride)) for kernel, stride in zip(kernels, strides, strict=True)),
    }


def digest_of(paths: Sequence[Path]) -> str:
    """Return the SHA-256 over the names and the SHA-256 of some files."""
    return hashlib.sha256(json.dumps({path.name: sha256(path) for path in paths}, sort_keys=True).encode()).hexdigest()
