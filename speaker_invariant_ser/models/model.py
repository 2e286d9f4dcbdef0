"""What is saved and shipped: all from log-mel to embedding and emotion. No speaker head, no pickle.

audio -> log-mel -> normalised -> encoder -> bottleneck -> eraser -> release -> embedding
                                                                   `-> emotion, here or behind the release
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from speaker_invariant_ser.config import explain
from speaker_invariant_ser.data.audio import pad
from speaker_invariant_ser.errors import RecipeError, RunError, shorten, unknown
from speaker_invariant_ser.features.log_mel import FRONTS, Normalise, frame_sums
from speaker_invariant_ser.files import write_json, writing
from speaker_invariant_ser.models.bottlenecks import BOTTLENECKS
from speaker_invariant_ser.models.encoders import ENCODERS
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.release import RELEASES, content_noise, mel_noise
from speaker_invariant_ser.recipe import (
    BottleneckSection,
    EmotionSection,
    EncoderSection,
    EraseSection,
    FeaturesSection,
    ReleaseSection,
    Section,
)

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


class ModelSettings(BaseModel):
    """Everything `SerModel` is built from; model.json holds it. What models of earlier versions lack is off."""

    labels: tuple[str, ...]
    sample_rate: int
    features: FeaturesSection
    encoder: EncoderSection
    emotion: EmotionSection
    bottleneck: BottleneckSection = BottleneckSection()
    erase: EraseSection = EraseSection()
    release: ReleaseSection = ReleaseSection()


@dataclass(frozen=True)
class Output:
    embedding: Tensor  # [B, D], what leaves the model
    logits: Tensor  # [B, C]
    told: Tensor  # [B, D], what the emotion is told from
    rate: Tensor  # [B], nats that the embedding can carry at most; 0 where nothing bounds it
    map: Tensor  # [B, F, T'], what pooling reads
    map_frames: Tensor  # [B]


class SerModel(nn.Module):
    """Waveform -> embedding and emotion logits. `labels` [C] names the classes."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.logmel = FRONTS[settings.features.front](settings.features, settings.sample_rate)
        self.normalise = Normalise(settings.features.normalise, settings.features.mels)
        self.encoder = entry(ENCODERS, "encoder", settings.encoder)(settings.features.mels, settings.encoder)
        self.bottleneck = entry(BOTTLENECKS, "bottleneck", settings.bottleneck)(self.encoder.dim, settings.bottleneck)
        self.eraser = entry(ERASERS, "erase", settings.erase)(self.dim, settings.erase)
        self.release = entry(RELEASES, "release", settings.release)(self.dim, settings.release)
        self.head = nn.Sequential(
            nn.Linear(self.dim, settings.emotion.hidden),
            nn.ReLU(),
            nn.Dropout(settings.emotion.dropout),
            nn.Linear(settings.emotion.hidden, len(settings.labels)),
        )

    @property
    def dim(self) -> int:
        """D of what leaves the model."""
        return self.bottleneck.dim

    @property
    def noisy(self) -> bool:
        return self.bottleneck.noisy or self.release.noisy

    @property
    def labels(self) -> tuple[str, ...]:
        return self.settings.labels

    def forward(self, audio: Tensor, samples: Tensor, mean: Tensor | None = None) -> Output:
        """(audio [B, S] in [-1, 1] at the model's rate, samples [B]) -> Output, with the noise of the clips' own content.

        `mean` as for `mels`.
        """
        noise = content_noise(audio, samples, self.dim) if self.noisy else None
        return self.from_mels(*self.mels(audio, samples, mean), noise)

    def mels(self, audio: Tensor, samples: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(audio [B, S], samples [B]) -> what `from_mels` takes. Raises RunError.

        `mean` [B, M], the mean log-mel of each clip's speaker, is taken off; needed, and allowed, only where features.normalise
        is "speaker".
        """
        if (mean is None) == self.settings.features.transductive:
            wanted = "needs the mean log-mel of each clip's speaker" if mean is None else "takes no speaker's mean"
            raise RunError(f"a model with features.normalise = {self.settings.features.normalise} {wanted}")
        mels, frames = self.logmel(audio, samples)
        return (mels if mean is None else mels - mean[:, :, None]), frames

    def from_mels(self, mels: Tensor, frames: Tensor, noise: Tensor | None = None) -> Output:
        """(log-mel [B, M, T], frames [B]) -> Output: training enters here, between log-mel and the rest.

        `noise` [2, B, D] is for bottleneck and release, if they take any; without it, see `noise_for`.
        """
        of_bottleneck, of_release = self.noise_for(mels, frames) if noise is None else noise
        x, x_frames = self.encoder.frames(self.normalise(mels, frames), frames)
        z, rate = self.bottleneck(self.encoder.embed(x, x_frames).float(), of_bottleneck)
        z = self.eraser(z)
        embedding = self.release(z, of_release)
        told = z if self.settings.release.decision == "before" else embedding
        told = told.view_as(told)  # apart, for the gradient of each branch
        return Output(embedding, self.head(told), told, rate, x, x_frames)

    def noise_for(self, mels: Tensor, frames: Tensor) -> Tensor | tuple[None, None]:
        """Noise for bottleneck and release where the samples are not at hand: in evaluation out of the log-mels' content, so that
        it depends on nothing that was drawn before; in training they draw their own.
        """
        return mel_noise(mels, frames, self.dim) if self.noisy and not self.training else (None, None)


def entry(registry: Mapping[str, Callable], section: str, settings: Section) -> Callable:
    """What a section of the recipe names. Raises RecipeError with the names there are."""
    if settings.name not in registry:
        raise RecipeError(unknown(f"{section}.name", settings.name, registry))
    return registry[settings.name]


def save_model(model: SerModel, folder: Path | str, trained: Mapping[str, str | int] | None = None) -> None:
    """Write model.safetensors and model.json into an existing folder (write into a temporary one and rename it).

    `trained` is kept with it: on what it was trained.
    """
    folder = Path(folder)
    weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    with writing(folder / WEIGHTS, "wb") as file:
        file.write(safetensors.torch.save(weights))
    versions = {name: version(name) for name in ("speaker-invariant-ser", "torch", "torchaudio")}
    described = {"format": FORMAT, **model.settings.model_dump(mode="json"), "versions": versions}
    write_json(folder / DESCRIPTION, {**described, "trained": dict(trained or {})})


def load_model(folder: Path | str, device: str = "cpu") -> SerModel:
    """The model in a fold's folder, ready for evaluation. Raises RunError if it is missing, damaged or of another format."""
    folder = Path(folder)
    try:
        model = SerModel(read_description(folder / DESCRIPTION))
    except RecipeError as error:  # of a part that this version does not have
        raise RunError(f"{folder / DESCRIPTION}: {error}") from None
    try:
        model.load_state_dict(load_file(folder / WEIGHTS, device="cpu"))
    except FileNotFoundError:
        raise RunError(f"{folder} is not a trained fold: it has no {WEIGHTS}") from None
    except (SafetensorError, RuntimeError) as error:
        wrong = str(error).splitlines()[:2][-1].strip()  # torch's first line is a title
        raise RunError(f"{folder / WEIGHTS} is damaged or belongs to another model: {wrong}") from None
    if damaged := [name for name, value in model.state_dict().items() if not value.isfinite().all()]:
        raise RunError(f"{folder / WEIGHTS} is damaged: {shorten(damaged, 3)} not finite")  # or every answer would be NaN
    return model.eval().to(device)


class Spoken(list):
    """Clips, float32 [S] each, with the mean log-mel of who speaks in them, `means` [N, M]: what a transductive model takes."""

    def __init__(self, clips: Sequence[np.ndarray], means: np.ndarray) -> None:
        super().__init__(clips)
        self.means = means


@dataclass(frozen=True)
class Applied:
    """What a model makes of N clips, in their order."""

    embedding: np.ndarray  # [N, D], as it leaves the model
    probability: np.ndarray  # [N, C], of the emotions
    rate: np.ndarray  # [N], nats


@torch.inference_mode()
def outputs(model: SerModel, clips: Sequence[np.ndarray], batch_size: int = 32) -> Applied:
    """All that comes out for float32 clips [S] at the model's rate. The model must be in evaluation mode."""
    shapes = (model.dim,), (len(model.labels),), ()
    applied = Applied(*(np.zeros((len(clips), *shape), dtype=np.float32) for shape in shapes))
    for rows, *heard in batches(model, clips, batch_size):
        output = model(*heard)
        applied.embedding[rows] = output.embedding.cpu().numpy()
        applied.probability[rows] = output.logits.softmax(dim=1).cpu().numpy()
        applied.rate[rows] = output.rate.cpu().numpy()
    return applied


def apply(model: SerModel, clips: Sequence[np.ndarray], batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Float32 clips [S] at the model's rate -> (embeddings [N, D], emotion probabilities [N, C]), in the clips' order.

    The model must be in evaluation mode (as `load_model` leaves it). The embeddings are those that leave the model: after
    bottleneck, eraser and release.
    """
    applied = outputs(model, clips, batch_size)
    return applied.embedding, applied.probability


@torch.inference_mode()
def apply_frames(model: SerModel, clips: Sequence[np.ndarray], batch_size: int = 32) -> list[np.ndarray]:
    """Float32 clips [S] at the model's rate -> the encoder's map before pooling of each, float16 [F, T_n] without padding.

    In the clips' order; the model must be in evaluation mode. Half precision, since a corpus of maps is large: with the default
    recipe 1 kB a frame, 25 frames a second.
    """
    maps = {}
    for rows, *heard in batches(model, clips, batch_size):
        mels, frames = model.mels(*heard)
        x, frames = model.encoder.frames(model.normalise(mels, frames), frames)
        parts = zip(x.half().cpu().numpy(), frames.tolist(), strict=True)
        maps |= {row: part[:, :count].copy() for row, (part, count) in zip(rows, parts, strict=True)}  # not the padded batch
    return [maps[row] for row in range(len(clips))]


@torch.inference_mode()
def logmel_sum(model: SerModel, clips: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """(log-mel summed over all frames of all clips [M], float64; how many frames these are)."""
    total, count = np.zeros(model.settings.features.mels), 0
    for _, audio, samples, _ in batches(model, clips, 32):
        mels, frames = model.logmel(audio, samples)
        total += frame_sums(mels, frames).sum(dim=0).cpu().numpy()
        count += int(frames.sum())
    return total, count


def batches(
    model: SerModel, clips: Sequence[np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor, Tensor | None]]:
    """(positions, audio [B, S], samples [B], means [B, M] of `Spoken` clips) on the model's device; clips of similar length
    share a batch.
    """
    device, means = next(model.parameters()).device, getattr(clips, "means", None)
    order = np.argsort([len(clip) for clip in clips], kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        audio, samples = pad([clips[row] for row in rows])
        mean = None if means is None else torch.from_numpy(means[rows]).to(device)
        yield rows, torch.from_numpy(audio).to(device), torch.from_numpy(samples).to(device), mean


def read_description(path: Path) -> ModelSettings:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description.get("format") != FORMAT:
            raise RunError(f"{path}: written in format {description.get('format')}, this version reads format {FORMAT}")
        return ModelSettings.model_validate(description)
    except FileNotFoundError:
        raise RunError(f"{path.parent} is not a trained fold: it has no {DESCRIPTION}") from None
    except ValidationError as error:
        raise RunError(f"{path} is damaged: {'; '.join(map(explain, error.errors()))}") from None
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one. Raises RecipeError for a device that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise RecipeError(unknown("device", name, ("auto", "cpu", "cuda")))
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda: this torch sees no CUDA device; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
