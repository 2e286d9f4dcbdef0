"""Front ends of pre-trained encoders: the layers of a frozen one, which may come from a cache, or the waveform.

Shapes: B batch, S samples, L layers, T frames, H dimension of a frame.
"""

from collections import OrderedDict
from functools import cache
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.log_mel import FRONTS, FrontEnd
from speaker_invariant_ser.features.pretrained.backbone import Backbone
from speaker_invariant_ser.features.pretrained.checkpoint import Checkpoint, open_checkpoint
from speaker_invariant_ser.features.pretrained.layer_cache import (
    LayerCache,
    cache_folder,
    digest_of_clip,
    open_cache,
    write_cache,
)
from speaker_invariant_ser.processes import TaskProgress
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import EncoderSettings, PretrainedSettings

REMEMBERED = 500_000_000  # bytes of layers of the latest utterances: all models of an ensemble ask for the same ones


class LayerSource:
    """The layers of utterances, from a cache where they are in one, computed otherwise; shared by all models of a process.

    The network is loaded when an utterance is not in a cache for the first time.

    Args:
        checkpoint: The checkpoint.
        layers: Its layers.
        normalised: Normalise every frame of every layer.
    """

    def __init__(self, checkpoint: Checkpoint, layers: tuple[int, ...], normalised: bool) -> None:
        self.checkpoint, self.layers, self.normalised = checkpoint, layers, normalised
        self.caches: dict[Path, LayerCache] = {}
        self.latest: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self.bytes, self.lock = 0, RLock()
        self.backbone: Backbone | None = None

    def use_cache(self, prepared: PreparedCorpus) -> bool:
        """Take layers from the cache of a prepared corpus; return whether there is one."""
        opened = self.cache_of(prepared)
        if opened is not None:
            self.caches[opened.folder] = opened
        return opened is not None

    def cache_of(self, prepared: PreparedCorpus) -> LayerCache | None:
        """Open the cache of a prepared corpus; None if it has none."""
        return open_cache(prepared, self.checkpoint, self.layers, self.normalised)

    def folder_in(self, prepared: PreparedCorpus) -> Path:
        """Return the folder of the cache in a prepared corpus, whether it is there or not."""
        return cache_folder(prepared, self.checkpoint, self.layers, self.normalised)

    def of(self, clip: np.ndarray, device: torch.device) -> np.ndarray:
        """Return the layers of an utterance, float32 [S]: float16 [T, L * H]."""
        digest = digest_of_clip(clip)
        for opened in self.caches.values():
            if (values := opened.read(digest)) is not None:
                return values
        with self.lock:
            if digest not in self.latest:
                self.remember(digest, self.compute(clip, device))
            self.latest.move_to_end(digest)
            return self.latest[digest]

    def remember(self, digest: bytes, values: np.ndarray) -> None:
        """Keep layers, and forget the oldest ones beyond a limit."""
        self.latest[digest] = values
        self.bytes += values.nbytes
        while self.bytes > REMEMBERED and len(self.latest) > 1:
            self.bytes -= self.latest.popitem(last=False)[1].nbytes

    @torch.no_grad()
    def compute(self, clip: np.ndarray, device: torch.device) -> np.ndarray:
        """Compute the layers of an utterance, float32 [S]: float16 [T, L * H]."""
        if self.backbone is None:
            self.backbone = Backbone(self.checkpoint)
        self.backbone.to(device)
        with torch.autocast(device.type, enabled=False):
            audio = torch.from_numpy(np.ascontiguousarray(clip))[None].to(device)
            (layers,) = self.backbone(audio, self.layers, self.normalised)
        values = layers.transpose(0, 1).flatten(1).half().cpu().numpy()
        if not np.isfinite(values).all():
            raise RecipeError(
                f"encoder.source = {self.checkpoint.name}: its layers have values above 65504, which float16 does not hold; "
                "set encoder.normalise_layers = true"
            )
        return values


@cache
def source_of(checkpoint: Checkpoint, layers: tuple[int, ...], normalised: bool) -> LayerSource:
    """Return the source of a checkpoint's layers in this process."""
    return LayerSource(checkpoint, layers, normalised)


def layer_source(encoder: EncoderSettings) -> LayerSource | None:
    """Return where the layers of a frozen pre-trained encoder come from; None for any other encoder."""
    if not isinstance(encoder, PretrainedSettings) or not encoder.frozen:
        return None
    checkpoint = open_checkpoint(encoder)
    return source_of(checkpoint, checkpoint.layers(encoder.layers), encoder.normalise_layers)


class FrozenLayers(FrontEnd):
    """All chosen layers of a frozen encoder, in the place of the log-mel: [B, L * H, T], float16.

    The encoder is no part of the model: it is loaded from its checkpoint.

    Args:
        settings: Section [encoder] of the recipe.
    """

    device_marker: Tensor

    def __init__(self, settings: PretrainedSettings) -> None:
        super().__init__()
        source = layer_source(settings)
        assert source, "the encoder is frozen"
        self.source = source
        self.bands, self.value_bytes = len(source.layers) * source.checkpoint.width, 2
        self.register_buffer("device_marker", torch.empty(0), persistent=False)  # tells which device the module is on

    def __deepcopy__(self, memo: dict) -> "FrozenLayers":
        """Return a copy that shares the encoder."""
        copied = object.__new__(FrozenLayers)
        copied.__dict__ = {**self.__dict__, "_buffers": dict(self._buffers)}
        return copied

    def use_cache(self, prepared: PreparedCorpus) -> None:
        """Take layers from the cache of a prepared corpus, if it has one."""
        self.source.use_cache(prepared)

    def frames_of(self, samples: int) -> int:
        """Return the number of frames of an utterance."""
        return self.source.checkpoint.frames_of(samples)

    @torch.no_grad()
    def forward(self, audio: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return layers [B, L * H, T], zero in padding, and frames [B] of zero-padded utterances [B, S] and their lengths [B]."""
        device = self.device_marker.device
        clips = [clip[:count] for clip, count in zip(audio.cpu().numpy(), samples.tolist(), strict=True)]
        layers = [self.source.of(clip, device) for clip in clips]
        frames = [len(values) for values in layers]
        batch = np.zeros((len(layers), max(frames), self.bands), dtype=np.float16)
        for row, values in zip(batch, layers, strict=True):
            row[: len(values)] = values
        return torch.from_numpy(batch).to(device).transpose(1, 2), torch.tensor(frames, device=device)


class Waveform(FrontEnd):
    """The waveform as it is, in the place of the log-mel: [B, 1, S]; a frame is a sample."""

    device_marker: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bands = 1
        self.register_buffer("device_marker", torch.empty(0), persistent=False)  # tells which device the module is on

    def frames_of(self, samples: int) -> int:
        """Return the number of samples."""
        return samples

    def forward(self, audio: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return zero-padded utterances [B, 1, S] and their lengths [B]."""
        return audio[:, None], samples


def open_front(features: FeaturesSection, encoder: EncoderSettings, sample_rate: int) -> FrontEnd:
    """Return the front end of a recipe.

    Raises:
        RecipeError: Impossible band limits, or a checkpoint that cannot be used.
    """
    if isinstance(encoder, PretrainedSettings):
        return FrozenLayers(encoder) if encoder.frozen else Waveform()
    return FRONTS[features.front](features, sample_rate)


def use_cache(
    encoder: EncoderSettings, prepared: PreparedCorpus, device: torch.device | None = None, progress: TaskProgress | None = None
) -> None:
    """Let models of this process take a corpus's layers from its cache; nothing happens unless the encoder is a frozen one.

    Args:
        encoder: Section [encoder] of the recipe.
        prepared: The corpus.
        device: Where layers are computed, and written, if there is no cache; None if none is to be made.
        progress: Called with the task, utterances done and utterances in total.

    Raises:
        PreparedCorpusError: The cache is damaged.
        WriteError: The cache cannot be written.
    """
    if (source := layer_source(encoder)) and not source.use_cache(prepared) and device is not None:
        write_cache(
            prepared,
            source.checkpoint,
            source.layers,
            lambda clip: source.compute(clip, device),
            progress,
            source.normalised,
        )
        source.use_cache(prepared)


def layers_folder(encoder: EncoderSettings, prepared: PreparedCorpus) -> Path | None:
    """Return the folder of the cache of a frozen encoder's layers, whether it is there or not; None for other encoders."""
    source = layer_source(encoder)
    return source.folder_in(prepared) if source else None


def require_cache(encoder: EncoderSettings, prepared: PreparedCorpus) -> None:
    """Use a corpus's cache after its files were checked; raise PreparedCorpusError that names one that was changed."""
    use_cache(encoder, prepared)
    if (source := layer_source(encoder)) and (opened := source.cache_of(prepared)):
        opened.require_unchanged()
