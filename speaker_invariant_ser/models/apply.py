"""Apply a trained model: the one loop that embeds utterances, whether given as audio or as a dataset of log-mels.

Shapes: B batch, S samples, M mel bands, T frames, D embedding dimension, F frame-level feature dimension, C emotions,
N utterances.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.features.log_mel_sources import clip_batches, padded_width
from speaker_invariant_ser.models.model import Output, SerModel
from speaker_invariant_ser.models.release import content_noise

if TYPE_CHECKING:
    from speaker_invariant_ser.features.dataset import LogMelDataset

BATCH_SIZE = 32  # utterances embedded together


class ModelInput(NamedTuple):
    """One batch: which utterances, log-mel [B, M, T], frames [B], and noise [2, B, D] for a model that adds some."""

    indices: np.ndarray
    mels: Tensor
    frames: Tensor
    noise: Tensor | None


@dataclass(frozen=True)
class Outputs:
    """What a model computes for N utterances, in their order.

    Attributes:
        embedding: What leaves the model, after bottleneck, eraser and release, [N, D].
        logits: Emotion logits, [N, C].
        probability: Emotion probabilities, [N, C].
        rate: Upper bound on what the embedding carries, in nats, [N]; 0 where nothing bounds it.
        bottleneck: What passes the bottleneck, before eraser and release, [N, D].
        code: Number of the code that the embedding is, from 0, int64 [N]; None where the model releases no codes.
        dimensions: Values of `emotion.targets`, 0 to 1, [N, R]; None without targets.
        frame_features: Where asked for, the frame-level features of each utterance, float16 [F, T_n] without padding.
    """

    embedding: np.ndarray
    logits: np.ndarray
    probability: np.ndarray
    rate: np.ndarray
    bottleneck: np.ndarray
    code: np.ndarray | None = None
    dimensions: np.ndarray | None = None
    frame_features: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def empty(cls, model: SerModel, number: int) -> "Outputs":
        """Return zeros for this many utterances."""
        dim, classes = model.dim, len(model.labels)
        return cls(
            embedding=np.zeros((number, dim), dtype=np.float32),
            logits=np.zeros((number, classes), dtype=np.float32),
            probability=np.zeros((number, classes), dtype=np.float32),
            rate=np.zeros(number, dtype=np.float32),
            bottleneck=np.zeros((number, dim), dtype=np.float32),
            code=np.zeros(number, dtype=np.int64) if model.releases_codes else None,
            dimensions=np.zeros((number, len(targets)), dtype=np.float32) if (targets := model.targets) else None,
        )

    def put(self, indices: np.ndarray, output: Output) -> None:
        """Store what came out for a batch."""
        self.embedding[indices] = output.embedding.cpu().numpy()
        self.logits[indices] = output.logits.cpu().numpy()
        self.probability[indices] = output.logits.softmax(dim=1).cpu().numpy()
        self.rate[indices] = output.rate.cpu().numpy()
        self.bottleneck[indices] = output.bottleneck.cpu().numpy()
        if self.code is not None and output.code is not None:
            self.code[indices] = output.code.cpu().numpy()
        if self.dimensions is not None and output.dimensions is not None:
            self.dimensions[indices] = output.dimensions.cpu().numpy()


@torch.inference_mode()
def embed_batches(model: SerModel, batches: Iterator[ModelInput], number: int, frame_features: bool = False) -> Outputs:
    """Apply a model to batches of `number` utterances: the one loop."""
    outputs = Outputs.empty(model, number)
    features: dict[int, np.ndarray] = {}
    for indices, mels, frames, noise in batches:
        output = model.from_mels(F.pad(mels, (0, padded_width(mels.shape[2]) - mels.shape[2])), frames, noise)
        outputs.put(indices, output)
        if frame_features:
            features |= dict(zip(indices.tolist(), without_padding(output), strict=True))
    outputs.frame_features.extend(features[index] for index in range(len(features)))
    return outputs


def without_padding(output: Output) -> Iterator[np.ndarray]:
    """Yield each utterance's frame-level features, float16 [F, T_n], copied so that the padded batch can be freed."""
    for features, count in zip(output.frame_features.half().cpu().numpy(), output.frame_counts.tolist(), strict=True):
        yield features[:, :count].copy()


def apply_to_clips(
    model: SerModel,
    clips: Sequence[np.ndarray],
    speaker_means: np.ndarray | None = None,
    batch_size: int = BATCH_SIZE,
    frame_features: bool = False,
) -> Outputs:
    """Apply a model to audio.

    Args:
        model: In evaluation mode, as `load_model` returns it.
        clips: N utterances, float32 [S] each, in [-1, 1] at the model's sample rate.
        speaker_means: Mean log-mel of each utterance's speaker, [N, M]; for models with features.normalise = "speaker" only.
        batch_size: Utterances embedded together.
        frame_features: Whether frame-level features are wanted as well. They are large: with the default recipe 256 bytes
            a frame, 31 frames a second, even in half precision.

    Returns:
        All outputs, in the utterances' order.

    Raises:
        RunError: The model needs speaker means and has none, or takes none and is given some.
    """
    return embed_batches(model, clip_inputs(model, clips, speaker_means, batch_size), len(clips), frame_features)


def clip_inputs(
    model: SerModel, clips: Sequence[np.ndarray], speaker_means: np.ndarray | None, batch_size: int
) -> Iterator[ModelInput]:
    """Yield the model's input for utterances of similar length; noise comes from the utterances' own samples."""
    device = next(model.parameters()).device
    for indices, audio, samples in clip_batches(clips, batch_size, device):
        mean = None if speaker_means is None else torch.from_numpy(speaker_means[indices]).to(device)
        noise = content_noise(audio, samples, model.dim) if model.noisy else None
        yield ModelInput(indices, *model.mels(audio, samples, mean), noise)


def apply_to_dataset(model: SerModel, dataset: "LogMelDataset", batch_size: int | None = None) -> Outputs:
    """Apply a model to a dataset, without augmentation, and leave the model in evaluation mode.

    Args:
        model: Whose log-mels the dataset holds.
        dataset: N utterances.
        batch_size: Utterances embedded together; by default 8 on a CPU, whose cache holds no more, and 128 on a GPU.

    Returns:
        All outputs, in the dataset's order.
    """
    model.eval()
    if batch_size is None:
        batch_size = 8 if next(model.parameters()).device.type == "cpu" else 128
    batches = dataset.length_sorted_batches(batch_size)
    inputs = (ModelInput(batch, *given, None) for batch, given in zip(batches, dataset.read(batches), strict=True))
    return embed_batches(model, inputs, len(dataset))
