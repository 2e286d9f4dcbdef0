"""Predict emotions for audio files. A file that cannot be used gives a row with its error, and the others are predicted.

Shapes: S samples, M mel bands, C emotions, N utterances.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from speaker_invariant_ser.errors import AudioError, RunError
from speaker_invariant_ser.features.speaker_means import mean_log_mel
from speaker_invariant_ser.inference.inputs import clips_of, cut_windows, decode_blocks
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import SerModel, choose_device, load_model
from speaker_invariant_ser.runs import Run

Row = dict[str, str | float | None]  # path, label, confidence, p_<label> of each emotion, error


def load_models(run: Run, fold: str | None = None, device: str = "auto", one_speaker: bool = False) -> list[SerModel]:
    """Load the models of a run.

    Args:
        run: The run.
        fold: Load the models of this fold alone (one per seed); by default those of all folds.
        device: `auto` (the first GPU, otherwise the CPU), `cpu` or `cuda`.
        one_speaker: Whether all files to predict are of one speaker; a run with features.normalise = "speaker" needs that.

    Returns:
        One model per fold and seed, all with the same labels.

    Raises:
        RunError: No model is trained, the fold is unknown, the run is for images, or `one_speaker` does not fit the run.
    """
    require_one_speaker(run, one_speaker)
    model_specs = run.trained_models() if fold is None else run.models_of_fold(fold)
    models = [load_model(spec.folder, str(choose_device(device))) for spec in model_specs]
    if len({model.labels for model in models}) > 1:
        raise RunError(f"{run.folder} is damaged: its folds have different labels")
    if models[0].settings.features.front != "log-mel":
        raise RunError(f"{run.folder} was trained on images, not on speech: expected a run whose features.front is log-mel")
    return models


def require_one_speaker(run: Run, one_speaker: bool) -> None:
    """Raise RunError unless `one_speaker` is set exactly for runs that normalise by speaker."""
    if run.recipe.features.transductive and not one_speaker:
        raise RunError(
            f"{run.folder} subtracts the mean over all utterances of a speaker (features.normalise = speaker), and files do not "
            "name their speaker: call it once for each speaker, with all files of that speaker and --one-speaker"
        )
    if one_speaker and not run.recipe.features.transductive:
        raise RunError(
            f"--one-speaker: {run.folder} predicts every file on its own (features.normalise = {run.recipe.features.normalise}); "
            "leave it out"
        )


def predict(
    models: Sequence[SerModel], paths: Sequence[Path], progress: Callable[[int, int], None] | None = None
) -> Iterator[Row]:
    """Predict the emotion of each file, averaged over models.

    A recording longer than 30 s is cut into equal windows, whose probabilities are averaged with their lengths as weights.
    Models that normalise by speaker take all files as one speaker's, and decode them once before for the speaker's mean.

    Args:
        models: Models with the same labels.
        paths: Audio files.
        progress: Called with files done and files in total.

    Yields:
        A row for each file, in order: path, label, confidence (probability of the label), p_<label> for each emotion, and error,
        which is empty where the others are filled, and the other way round.
    """
    labels = models[0].labels
    mean = speaker_mean(models[0], paths) if models[0].settings.features.transductive else None
    done = 0
    for block in decode_blocks(paths):
        probabilities = iter(mean_probabilities(models, clips_of(block), mean))
        for path, clip in block:
            yield failure(path, clip, labels) if isinstance(clip, AudioError) else success(path, next(probabilities), labels)
            done += 1
            if progress:
                progress(done, len(paths))


def speaker_mean(model: SerModel, paths: Sequence[Path]) -> np.ndarray:
    """Compute the mean log-mel [M] over all frames of all files that can be decoded, which are of one speaker."""
    blocks = ([window for clip in clips_of(block) for window in cut_windows(clip)] for block in decode_blocks(paths))
    return mean_log_mel(model.logmel, blocks)


def mean_probabilities(models: Sequence[SerModel], clips: Sequence[np.ndarray], mean: np.ndarray | None = None) -> np.ndarray:
    """Compute emotion probabilities, averaged over models and windows.

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
    by_window = np.mean([apply_to_clips(model, windows, means).probability for model in models], axis=0)
    clip_index = np.repeat(np.arange(len(clips)), [len(parts) for parts in windows_by_clip])
    length = np.array([len(window) for window in windows], dtype=float)
    total = np.zeros((len(clips), by_window.shape[1]))
    np.add.at(total, clip_index, by_window * length[:, None])
    return total / total.sum(axis=1, keepdims=True)


def success(path: Path, probability: np.ndarray, labels: Sequence[str]) -> Row:
    """Return the row of a file with these probabilities [C]."""
    best = int(probability.argmax())
    by_label = {f"p_{label}": float(value) for label, value in zip(labels, probability, strict=True)}
    return {"path": printable(str(path)), "label": labels[best], "confidence": float(probability[best]), **by_label, "error": ""}


def failure(path: Path, error: AudioError, labels: Sequence[str]) -> Row:
    """Return the row of a file that could not be used."""
    empty: Row = {f"p_{label}": None for label in labels}
    return {"path": printable(str(path)), "label": "", "confidence": None, **empty, "error": printable(str(error))}


def printable(text: str) -> str:
    r"""Return the text with bytes that are not UTF-8, as file names may have, as \xNN: one such name must not spoil a table."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
