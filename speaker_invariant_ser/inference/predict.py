"""Predict emotions for audio files. A file that cannot be used gives a row with its error, and the others are predicted.

Models of a run import torch when they are loaded; an ONNX file does without.

Shapes: S samples, M mel bands, C emotions, N utterances.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from speaker_invariant_ser.data.conditions.ranges import TrainedRange, join_ranges, outside
from speaker_invariant_ser.data.formats.channels import EACH, MIX
from speaker_invariant_ser.errors import AudioError, RunError
from speaker_invariant_ser.inference.inputs import Decoded, Input, clips_of, cut_windows, decode_blocks
from speaker_invariant_ser.inference.onnx_model import ENDING, OnnxModel
from speaker_invariant_ser.processes import memory_errors

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.models.model import SerModel
    from speaker_invariant_ser.recipe import FeaturesSection
    from speaker_invariant_ser.runs import Run

    Models = Sequence[SerModel] | Sequence[OnnxModel]

Row = dict[str, str | float | bool | None]  # keys as `predict` describes them


def load_models(
    source: "Run | Export | Path | str", fold: str | None = None, device: str = "auto", one_speaker: bool = False
) -> "Models":
    """Load the models of a run, or of an export: a folder or an ONNX file.

    Args:
        source: The run or export, its folder, or an ONNX file, which holds one model.
        fold: Load the models of this fold alone (one per seed); by default those of all folds. An export has no folds.
        device: `auto` (the first GPU, otherwise the CPU), `cpu` or `cuda`.
        one_speaker: Whether all files to predict are of one speaker; models with features.normalise = "speaker" need that.

    Returns:
        One model per fold and seed, all with the same labels.

    Raises:
        RunError: No model is trained, the fold is unknown, the models are for images, or `one_speaker` does not fit them.
    """
    if is_onnx(source):
        return [load_onnx(source, fold, device, one_speaker)]
    from speaker_invariant_ser.inference.exported import open_models
    from speaker_invariant_ser.models.model import choose_device, load_model

    source = open_models(source) if isinstance(source, Path | str) else source
    models = [load_model(folder, str(choose_device(device))) for folder in model_folders(source, fold)]
    if len({model.labels for model in models}) > 1:
        raise RunError(f"{source.folder} is damaged: its models have different labels")
    if models[0].settings.features.front != "log-mel":
        raise RunError(f"{source.folder} was trained on images, not on speech: expected a run whose features.front is log-mel")
    require_one_speaker(source.folder, models[0].settings.features, one_speaker)
    return models


def is_onnx(source: object) -> TypeGuard[Path | str]:
    """Return whether this is the path of an ONNX file, and not of a folder of such a name."""
    return isinstance(source, Path | str) and Path(source).suffix.lower() == ENDING and not Path(source).is_dir()


def load_onnx(path: Path | str, fold: str | None, device: str, one_speaker: bool) -> OnnxModel:
    """Load an ONNX file; raise RunError where it is none of ours, or an option of `load_models` does not fit it."""
    options = {"--fold": fold is not None, "--one-speaker": one_speaker, f"--device {device}": device not in ("auto", "cpu")}
    for option in (option for option, given in options.items() if given):
        raise RunError(f"{option}: {path} is one model that predicts every recording on its own, on the CPU; leave it out")
    return OnnxModel(path)


def model_folders(source: "Run | Export", fold: str | None) -> list[Path]:
    """Return the folders of the models, of one fold or of all."""
    from speaker_invariant_ser.runs import Run

    if isinstance(source, Run):
        return [spec.folder for spec in (source.trained_models() if fold is None else source.models_of_fold(fold))]
    if fold is not None:
        raise RunError(
            f"--fold {fold}: {source.folder} is an export, whose models do not say of which fold they are; leave it out"
        )
    return list(source.models)


def require_one_speaker(folder: Path, features: "FeaturesSection", one_speaker: bool) -> None:
    """Raise RunError unless `one_speaker` is set exactly for models that normalise by speaker."""
    if features.transductive and not one_speaker:
        raise RunError(
            f"{folder} subtracts the mean over all utterances of a speaker (features.normalise = speaker), and files do not "
            "name their speaker: call it once for each speaker, with all files of that speaker and --one-speaker"
        )
    if one_speaker and not features.transductive:
        raise RunError(
            f"--one-speaker: {folder} predicts every file on its own (features.normalise = {features.normalise}); leave it out"
        )


def predict(
    models: "Models",
    inputs: Sequence[Input],
    progress: Callable[[int, int], None] | None = None,
    channel: str = MIX,
) -> Iterator[Row]:
    """Predict the emotion of each file, averaged over models.

    A recording longer than 30 s is cut into equal windows, whose probabilities are averaged with their lengths as weights.
    Models that normalise by speaker take all files as one speaker's, and decode them once before for the speaker's mean.

    Args:
        models: Models with the same labels.
        inputs: Recordings.
        progress: Called with files done and files in total.
        channel: Of files with several channels: `mix` for their mean, `left`, `right`, or `each` for a row for each channel.

    Yields:
        A row for each file, in order: path, label, confidence (probability of the label), p_<label> for each emotion, notes about
        defects that leave it usable and about recording conditions that the models were not trained on, error, which is empty
        where label and probabilities are filled, and the other way round, and calibrated: whether probabilities are corrected by
        temperatures. With `each`, also channel: left and right, mono, or a number.
    """
    labels, trained_range = models[0].labels, join_ranges([model.settings.trained_range for model in models])
    mean = speaker_mean(models[0], inputs, channel)
    scaled = calibrated(models)
    for block in decode_blocks(inputs, channel):
        probabilities = iter(probabilities_or_none(models, clips_of(block), mean))
        for part in block:
            outcome = next(probabilities) if isinstance(part.clip, np.ndarray) else part.clip
            if isinstance(outcome, np.ndarray) and not np.isfinite(outcome).all():
                outcome = AudioError(f"{part.path}: the models' output is not finite, their weights overflow; train them again")
            if isinstance(outcome, AudioError | None):
                row = failure(part, outcome, labels)
            else:
                row = success(part, outcome, labels, trained_range)
            row["calibrated"] = scaled
            if channel != EACH:
                del row["channel"]
            yield row
            if progress:
                progress(part.number + 1, len(inputs))


def speaker_mean(model: "SerModel | OnnxModel", inputs: Sequence[Input], channel: str) -> np.ndarray | None:
    """Compute the mean log-mel [M] over all frames of all files that can be decoded, which are of one speaker.

    None for a model that predicts every file on its own, as ONNX files do.
    """
    if isinstance(model, OnnxModel) or not model.settings.features.transductive:
        return None
    from speaker_invariant_ser.features.speaker_means import mean_log_mel

    blocks = ([window for clip in clips_of(block) for window in cut_windows(clip)] for block in decode_blocks(inputs, channel))
    return mean_log_mel(model.logmel, blocks)


def probabilities_or_none(models: "Models", clips: Sequence[np.ndarray], mean: np.ndarray | None) -> list[np.ndarray | None]:
    """Return `mean_probabilities` of every clip; None for a clip that does not fit into memory with the models."""
    try:
        with memory_errors():
            return list(mean_probabilities(models, clips, mean))
    except MemoryError:
        if len(clips) == 1:
            return [None]
    middle = len(clips) // 2
    return [*probabilities_or_none(models, clips[:middle], mean), *probabilities_or_none(models, clips[middle:], mean)]


def mean_probabilities(models: "Models", clips: Sequence[np.ndarray], mean: np.ndarray | None = None) -> np.ndarray:
    """Compute emotion probabilities, averaged over models and windows, corrected by the models' temperatures if `calibrated`.

    Args:
        models: Models with the same labels.
        clips: N clips, float32 [S] at 16 kHz.
        mean: Mean log-mel [M] of the speaker, for models that normalise by speaker.

    Returns:
        Probabilities, [N, C]; every row sums to 1.
    """
    if not clips:
        return np.zeros((0, len(models[0].labels)))
    windows_by_clip = [cut_windows(clip) for clip in clips]
    windows = [window for parts in windows_by_clip for window in parts]
    means = None if mean is None else np.tile(mean, (len(windows), 1))
    by_window = np.mean([probability_of(model, windows, means, calibrated(models)) for model in models], axis=0)
    clip_index = np.repeat(np.arange(len(clips)), [len(parts) for parts in windows_by_clip])
    length = np.array([len(window) for window in windows], dtype=float)
    total = np.zeros((len(clips), by_window.shape[1]))
    np.add.at(total, clip_index, by_window * length[:, None])
    return total / total.sum(axis=1, keepdims=True)


def calibrated(models: "Models") -> bool:
    """Return whether every model has a temperature, fitted on speakers that it was not trained on."""
    return all(model.settings.temperature is not None for model in models)


def probability_of(
    model: "SerModel | OnnxModel", clips: Sequence[np.ndarray], means: np.ndarray | None, scaled: bool
) -> np.ndarray:
    """Return a model's probabilities [N, C], `scaled` by its temperature or as they are; an ONNX file has applied its own."""
    if isinstance(model, OnnxModel):
        return model.apply(clips).probability
    from speaker_invariant_ser.models.apply import apply_to_clips
    from speaker_invariant_ser.models.calibration import apply_temperature

    probability, temperature = apply_to_clips(model, clips, means).probability, model.settings.temperature
    return apply_temperature(probability, temperature) if scaled and temperature else probability


def success(part: Decoded, probability: np.ndarray, labels: Sequence[str], trained_range: TrainedRange | None) -> Row:
    """Return the row of a recording with these probabilities [C]; its notes name conditions outside the range."""
    assert isinstance(part.clip, np.ndarray)
    notes = [*part.notes, *(outside(trained_range, part.clip) if trained_range else ())]
    best = int(probability.argmax())
    by_label = {f"p_{label}": float(value) for label, value in zip(labels, probability, strict=True)}
    row: Row = {"path": printable(str(part.path)), "channel": part.channel, "label": labels[best]}
    return {**row, "confidence": float(probability[best]), **by_label, "notes": "; ".join(notes), "error": ""}


def failure(part: Decoded, error: AudioError | None, labels: Sequence[str]) -> Row:
    """Return the row of a recording that could not be used; without an error, memory ran out."""
    empty: Row = {f"p_{label}": None for label in labels}
    row: Row = {"path": printable(str(part.path)), "channel": part.channel, "label": "", "confidence": None}
    reason = str(error or f"{part.path}: does not fit into memory beside the models; cut it into parts")
    return {**row, **empty, "notes": "; ".join(part.notes), "error": printable(reason)}


def printable(text: str) -> str:
    r"""Return the text with bytes that are not UTF-8, as file names may have, as \xNN: one such name must not spoil a table."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
