"""The model that is saved and shipped: everything from audio to embedding and emotion, without any speaker classifier.

audio -> streams -> normalise -> encoder -> bottleneck -> eraser -> release -> embedding
                                                                 `-> head -> emotion, before or after the release
                                                                 `-> regressor -> arousal, valence, dominance, if targets

Shapes: B batch, S samples, M mel bands, T frames, T' frames of the frame-level features, F their dimension, D embedding
dimension, C emotions, R targets.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from speaker_invariant_ser.config import OLD_KEYS, explain, saved
from speaker_invariant_ser.data.conditions.ranges import TrainedRange
from speaker_invariant_ser.data.labels import LabelNames
from speaker_invariant_ser.errors import MAX_PROBLEMS, RecipeError, RunError, shorten, shown, unknown
from speaker_invariant_ser.features.log_mel import Normalise, subtract_mean
from speaker_invariant_ser.features.pretrained.checkpoint_paths import with_path, without_path
from speaker_invariant_ser.features.pretrained.front import open_front
from speaker_invariant_ser.features.prosody import prosody_rows, track_batch
from speaker_invariant_ser.features.streams import Layout, encoder_input
from speaker_invariant_ser.files import MAX_SETTINGS, require_regular, write_json, writing
from speaker_invariant_ser.json_files import read_json
from speaker_invariant_ser.models.binding import HASHES, hashes_of, require_unchanged
from speaker_invariant_ser.models.bottlenecks import BOTTLENECKS
from speaker_invariant_ser.models.calibration import TEMPERATURE_RANGE
from speaker_invariant_ser.models.emotion_heads import BranchHeads, build_head, build_regressor
from speaker_invariant_ser.models.encoder_registry import ENCODERS
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.release import RELEASES, content_noise, mel_noise
from speaker_invariant_ser.processes import versions_of
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import EmotionSection, EncoderSection, PretrainedSettings
from speaker_invariant_ser.recipe_methods import (
    BottleneckSection,
    EraseSection,
    NoBottleneck,
    NoErasure,
    NoRelease,
    ReleaseSection,
)

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
NEW_FEATURES = {
    "streams": ["log-mel"],
    "deltas": 0,
    "absolute_f0": False,
    "functionals": False,
}  # defaults of keys that 0.1.0 does not have
TARGETS = ("targets", "targets_weight")  # keys of [emotion] that models without targets do not have


class ModelSettings(BaseModel):
    """All that defines a `SerModel`, and the recordings that it is made for; model.json holds it.

    Sections that models of earlier versions lack are off; such models have no `trained_range` either. `temperature` corrects the
    confidence of predictions and is no part of the logits; None where none was fitted.
    """

    labels: LabelNames
    sample_rate: Literal[16_000]
    features: FeaturesSection
    encoder: EncoderSection
    emotion: EmotionSection
    bottleneck: BottleneckSection = NoBottleneck()
    erase: EraseSection = NoErasure()
    release: ReleaseSection = NoRelease()
    trained_range: TrainedRange | None = None
    temperature: float | None = Field(None, ge=TEMPERATURE_RANGE[0], le=TEMPERATURE_RANGE[1])


class Origin(BaseModel):
    """How a model was made, as model.json says."""

    trained: dict[str, str | int] = {}
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Output:
    """What a model computes for a batch.

    Attributes:
        embedding: What leaves the model, [B, D].
        code: Number of the code that the embedding is, from 0, [B]; None in training, and where the model releases no codes.
        logits: Emotion logits, [B, C].
        branch_logits: Of each of R classifiers whose predictions `logits` averages, [B, R, C]; None with one classifier.
        head_input: What the emotion head gets, [B, D]: the embedding, or what enters the release (`release.classify`).
        rate: Upper bound on what the embedding carries, in nats, [B]; 0 where nothing bounds it.
        bottleneck: What passes the bottleneck, before eraser and release, [B, D].
        frame_features: Frame-level features, the input of pooling, [B, F, T'].
        frame_counts: Number of unpadded frames among these T', [B].
        dimensions: Values of `emotion.targets`, [B, R], from 0 to 1 except in training; None without targets.
    """

    embedding: Tensor
    code: Tensor | None
    logits: Tensor
    branch_logits: Tensor | None
    head_input: Tensor
    rate: Tensor
    bottleneck: Tensor
    frame_features: Tensor
    frame_counts: Tensor
    dimensions: Tensor | None = None


class SerModel(nn.Module):
    """Speech emotion recognition model: audio to embedding and emotion logits.

    Args:
        settings: All that defines it; `settings.labels` names the C emotions.

    Raises:
        RecipeError: Impossible band limits.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.logmel = open_front(settings.features, settings.encoder, settings.sample_rate)
        self.normalise = Normalise(settings.features.normalise, 0 if settings.encoder.on_waveform else settings.features.mels)
        self.encoder = ENCODERS[settings.encoder.name](Layout.of(settings.features), settings.encoder)
        self.bottleneck = BOTTLENECKS[settings.bottleneck.name](self.encoder.dim, settings.bottleneck)
        self.eraser = ERASERS[settings.erase.name](self.dim, settings.erase)
        self.release = RELEASES[settings.release.name](self.dim, settings.release, len(settings.labels))
        self.head = build_head(self.encoder, self.dim, settings.emotion, len(settings.labels))
        self.regressor = build_regressor(self.dim, settings.emotion)

    @property
    def dim(self) -> int:
        """Dimension D of the embedding."""
        return self.bottleneck.dim

    @property
    def noisy(self) -> bool:
        """Whether bottleneck or release add noise."""
        return self.bottleneck.noisy or self.release.noisy

    @property
    def releases_codes(self) -> bool:
        """Whether the embedding is one of a few codes."""
        return self.settings.release.name in ("codes", "decision")

    @property
    def labels(self) -> tuple[str, ...]:
        """The C emotions, in the order of the logits."""
        return self.settings.labels

    @property
    def targets(self) -> tuple[str, ...]:
        """The R dimensions that are predicted beside the emotion."""
        return self.settings.emotion.targets

    def fine_tuned(self) -> list[dict[str, Any]]:
        """Return the optimizer's group of what is trained of a pre-trained encoder, with its learning rate, if there is any."""
        settings, trained = self.settings.encoder, getattr(self.encoder, "trained", None)
        if trained is None or not isinstance(settings, PretrainedSettings):
            return []
        return [{"params": list(trained.parameters()), "lr": settings.learning_rate}]

    def forward(self, audio: Tensor, samples: Tensor, speaker_mean: Tensor | None = None) -> Output:
        """Compute the output for audio; noise, if the model adds some, is a function of the audio.

        Args:
            audio: Zero-padded utterances in [-1, 1] at the model's sample rate, [B, S].
            samples: Their lengths, [B].
            speaker_mean: As for `mels`.
        """
        noise = content_noise(audio, samples, self.dim) if self.noisy else None
        return self.from_mels(*self.mels(audio, samples, speaker_mean), noise)

    def mels(self, audio: Tensor, samples: Tensor, speaker_mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute log-mels, and the prosody rows where features.streams has prosody.

        A model with features.normalise = "speaker" subtracts speaker means.

        Args:
            audio: Zero-padded utterances, [B, S].
            samples: Their lengths, [B].
            speaker_mean: Mean log-mel of each utterance's speaker, [B, M]; required with features.normalise = "speaker", refused
                otherwise.

        Returns:
            Log-mel [B, M, T], or with the prosody rows [B, M + 4, T], and frames [B]: the input of `from_mels`.

        Raises:
            RunError: Speaker means are missing, or given to a model that takes none.
        """
        if (speaker_mean is None) == self.settings.features.transductive:
            wanted = "needs the mean log-mel of each utterance's speaker" if speaker_mean is None else "takes no speaker means"
            raise RunError(f"a model with features.normalise = {self.settings.features.normalise} {wanted}")
        mels, frames = self.logmel(audio, samples)
        if self.logmel.needs_f0:
            mels = torch.cat((mels, prosody_rows(mels, track_batch(audio, samples), self.logmel.low_bands)), dim=1)
        return (mels if speaker_mean is None else subtract_mean(mels, speaker_mean[:, :, None])), frames

    def from_mels(self, mels: Tensor, frames: Tensor, noise: Tensor | None = None) -> Output:
        """Compute the output for log-mels; training, which augments log-mels, starts here.

        Args:
            mels: Log-mels as `mels` returns them, [B, M, T] or [B, M + 4, T].
            frames: Number of unpadded frames, [B].
            noise: For bottleneck and release, [2, B, D]; by default as `noise_for` has it.
        """
        of_bottleneck, of_release = self.noise_for(mels, frames) if noise is None else noise
        settings = self.settings
        raw = settings.encoder.on_waveform
        x = mels if raw else encoder_input(mels, self.normalise(mels, frames), frames, settings.features)
        features, counts = self.encoder.frame_features(x, frames)
        bottleneck, rate = self.bottleneck(self.encoder.embed(features, counts).float(), of_bottleneck)
        erased = self.eraser(bottleneck)
        embedding = self.release(erased, of_release, self.head)
        head_input = erased if self.settings.release.classifies_before else embedding
        head_input = head_input.view_as(head_input)  # a node of its own, so that each branch has its gradient
        if isinstance(self.head, BranchHeads):
            branch_logits = self.head.branches(head_input)
            logits = self.head.average(branch_logits)
        else:
            branch_logits, logits = None, self.head(head_input)
        dimensions = self.regressor(head_input).float() if self.regressor else None
        if dimensions is not None and not self.training:
            dimensions = dimensions.clamp(0, 1)
        code = None if self.training else self.release.code(erased, self.head)
        return Output(embedding, code, logits, branch_logits, head_input, rate, bottleneck, features, counts, dimensions)

    def noise_for(self, mels: Tensor, frames: Tensor) -> Tensor | tuple[None, None]:
        """Return noise for bottleneck and release where the audio is not at hand.

        In evaluation it is a function of the log-mels, so that it does not depend on what was drawn before. In training
        bottleneck and release draw their own.
        """
        return mel_noise(mels, frames, self.dim) if self.noisy and not self.training else (None, None)


def save_model(
    model: SerModel,
    folder: Path | str,
    trained: Mapping[str, str | int] | None = None,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write model.safetensors and model.json into an existing folder.

    Args:
        model: Trained or not.
        folder: A temporary folder, to be renamed when everything is in it; hashes of the tables in it are kept in model.json.
        trained: On what it was trained (device, precision, processes); kept in model.json.
        run: With what it was trained (fold, recipe, data), by name; its hashes are kept in model.json.
    """
    folder = Path(folder)
    weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    with writing(folder / WEIGHTS, "wb") as file:
        file.write(safetensors.torch.save(weights))
    versions = versions_of("torch", "torchaudio")
    settings = model.settings.model_copy(update={"encoder": without_path(model.settings.encoder)})
    described: dict[str, Any] = {"format": FORMAT, **format_1_keys(settings.model_dump(mode="json")), "versions": versions}
    described["trained"] = dict(trained or {})
    write_json(folder / DESCRIPTION, {**described, HASHES: hashes_of(folder, described, run or {})})


def format_1_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the keys of model.json in format 1, so that version 0.1.0 can read the models that it has."""
    names = {new: old for old, new in OLD_KEYS["release"].items()}
    features = {key: value for key, value in settings["features"].items() if NEW_FEATURES.get(key, ...) != value}
    emotion = {key: value for key, value in settings["emotion"].items() if settings["emotion"]["targets"] or key not in TARGETS}
    release = {names.get(key, key): value for key, value in settings["release"].items()}
    return {**settings, "features": features, "emotion": emotion, "release": release}


def load_model(folder: Path | str, device: str = "cpu") -> SerModel:
    """Load the model of a fold.

    Args:
        folder: The fold's folder, with model.safetensors and model.json.
        device: Where to, such as "cpu" or "cuda".

    Returns:
        The model in evaluation mode.

    Raises:
        RunError: The model is missing, damaged, changed since training, or of another format.
    """
    folder = Path(folder)
    described = read_description(folder / DESCRIPTION)
    require_unchanged(folder, described)
    settings = parse_description(folder / DESCRIPTION, described)
    settings = settings.model_copy(update={"encoder": with_path(settings.encoder, folder)})
    if not require_regular(folder / WEIGHTS).is_file():  # before the model is made, whose size it limits
        raise RunError(f"{folder} is not a trained fold: it has no {WEIGHTS}")
    try:
        with parameters_limited(folder, settings):
            model = SerModel(settings)
    except RecipeError as error:  # an encoder, bottleneck ... that this version does not have
        raise RunError(f"{folder / DESCRIPTION}: {error}") from None
    try:
        weights = load_file(folder / WEIGHTS, device="cpu")
        model.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[:2][-1].strip()  # torch's first line is a title
        raise RunError(f"{folder / WEIGHTS} is damaged or belongs to another model: {reason}") from None
    for name, value in model.state_dict().items():
        if weights[name].dtype != value.dtype:
            raise RunError(f"{folder / WEIGHTS} is damaged: {name} is {weights[name].dtype}, expected {value.dtype}")
    if damaged := [name for name, value in model.state_dict().items() if not value.isfinite().all()]:
        raise RunError(f"{folder / WEIGHTS} is damaged: {shorten(damaged, 3)} not finite")  # or every output would be NaN
    for part, ready in (("release", model.release.ready), ("erase", model.eraser.ready)):
        if not ready:
            raise RunError(
                f"{folder / WEIGHTS} is damaged: [{part}] was not fitted, so that embeddings would leave the model as they are, "
                f"without {part}.name = {getattr(settings, part).name}"
            )
    return model.eval().to(device)


@contextmanager
def parameters_limited(folder: Path, settings: ModelSettings) -> Iterator[None]:
    """Raise RunError as soon as a model under construction has more bytes of parameters than its file of weights.

    Otherwise a forged model.json could take any amount of memory. The network of a pre-trained encoder is not counted: its
    weights are in a file of its own.
    """
    if isinstance(settings.encoder, PretrainedSettings):
        yield
        return
    limit, thread, used = (folder / WEIGHTS).stat().st_size, threading.get_ident(), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal used
        if parameter is None or threading.get_ident() != thread:  # another thread may construct a model of its own
            return
        used += parameter.nbytes
        if used > limit:
            raise RunError(f"{folder / DESCRIPTION} describes a larger model than that of {WEIGHTS}, which has {limit} bytes")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def read_description(path: Path) -> dict[str, Any]:
    """Return the contents of model.json."""
    try:
        described = read_json(path, MAX_SETTINGS)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path.parent} is not a trained fold: it has no {DESCRIPTION}") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    if not isinstance(described, dict):
        raise RunError(f"{path} is damaged: expected a table of JSON")
    if described.get("format") != FORMAT:
        raise RunError(f"{path}: written in format {shown(described.get('format'))}, this version reads format {FORMAT}")
    with description_errors(path):
        Origin.model_validate(described)
    return described


def parse_description(path: Path, described: Mapping[str, Any]) -> ModelSettings:
    """Return the settings in the contents of model.json; `path` is for the error."""
    with description_errors(path):
        return ModelSettings.model_validate({name: saved(name, table) for name, table in described.items()})


@contextmanager
def description_errors(path: Path) -> Iterator[None]:
    """Turn errors about the contents of a model.json into RunError."""
    try:
        yield
    except ValidationError as error:
        raise RunError(f"{path} is damaged: {'; '.join(map(explain, error.errors()[:MAX_PROBLEMS]))}") from None
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def choose_device(name: str) -> torch.device:
    """Return the device of this name: "cpu", "cuda", or "auto" for the first GPU if there is one.

    Raises:
        RecipeError: An unknown name, or a GPU that is not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise RecipeError(unknown("device", name, ("auto", "cpu", "cuda")))
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda: this torch sees no CUDA device; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
