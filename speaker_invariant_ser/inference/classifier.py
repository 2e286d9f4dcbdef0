"""A model to be called from Python: waveforms or files in, emotions, embeddings and timelines out.

Shapes: S samples, C emotions, D embedding dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from speaker_invariant_ser.data.conditions.ranges import join_ranges, outside
from speaker_invariant_ser.data.formats.channels import MIX, require_choice
from speaker_invariant_ser.errors import RunError, SerError, counted
from speaker_invariant_ser.features.pretrained.hub import REPOSITORY
from speaker_invariant_ser.inference.defaults import DEFAULT_MODEL
from speaker_invariant_ser.inference.hub import PREFIX, is_hub
from speaker_invariant_ser.inference.loading import is_onnx, load_models
from speaker_invariant_ser.inference.onnx.model import OnnxModel
from speaker_invariant_ser.inference.parts.recording import Recording
from speaker_invariant_ser.inference.predict import calibrated, mean_outputs, sounding_windows, targets_of
from speaker_invariant_ser.inference.sharing import HubMethods
from speaker_invariant_ser.inference.timeline import (
    StreamingClassifier,
    WindowPrediction,
    timeline,
)
from speaker_invariant_ser.inference.waves import clip_of, clip_of_file
from speaker_invariant_ser.processes import memory_errors

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.inference.loading import Models
    from speaker_invariant_ser.models.model import SerModel
    from speaker_invariant_ser.runs import Run


@dataclass(frozen=True)
class Prediction:
    """The prediction for one recording.

    Attributes:
        emotion: The most probable emotion.
        confidence: Its probability.
        probabilities: Probability of each emotion; they sum to 1.
        warnings: Defects of the recording, and conditions that the model was not trained on.
        dimensions: Values from 0 to 1 of arousal, valence and dominance, of a model that predicts them; otherwise empty.
    """

    emotion: str
    confidence: float
    probabilities: dict[str, float]
    warnings: tuple[str, ...] = ()
    dimensions: dict[str, float] = field(default_factory=dict)


class Classifier(HubMethods):
    """A model, or several whose probabilities are averaged, as `siser.load_model` returns it.

    The numbers are those of `siser infer`. Calls from several threads at once are allowed and do not change them: a call keeps
    nothing for the next one. A `StreamingClassifier` belongs to one stream.

    Attributes:
        name: What it was loaded from.
        labels: The C emotions.
        models: The models: PyTorch modules, or one ONNX model.
        card: Path of the model card; None for a run, a single model of one, and an ONNX file.

    Raises:
        RunError: The models have different labels.

    Example:
        Half a second of a tone is no speech, and warnings say how it differs from what the model was trained on:

        >>> import numpy as np
        >>> import speaker_invariant_ser as siser
        >>> classifier = siser.load_model()
        >>> classifier.labels
        ('angry', 'fearful', 'happy', 'neutral', 'sad')
        >>> tone = np.sin(2 * np.pi * 200 * np.arange(4000) / 8000)
        >>> prediction = classifier.predict(tone, 8000)
        >>> prediction.emotion in classifier.labels, round(sum(prediction.probabilities.values()), 6)
        (True, 1.0)
        >>> prediction.warnings[0]
        'band limited to 0.5 kHz (the model was trained on 7.8 to 8.0 kHz)'
        >>> classifier.embed(tone, 8000).shape
        (32,)
    """

    def __init__(self, models: "Models", name: str, card: Path | None = None) -> None:
        if len({model.labels for model in models}) > 1:
            raise RunError(f"{name} is damaged: its models have different labels")
        self.models, self.name, self.card = models, name, card
        self.labels = models[0].labels

    def __repr__(self) -> str:
        """Return name and labels."""
        return f"Classifier({self.name!r}, {counted(len(self.models), 'model')}: {', '.join(self.labels)})"

    @property
    def calibrated(self) -> bool:
        """Whether probabilities are corrected by temperatures, fitted on speakers that the models were not trained on."""
        return calibrated(self.models)

    @property
    def module(self) -> "SerModel":
        """The PyTorch module, in evaluation mode, to be used in code of one's own.

        Raises:
            RunError: There are several, or the model is an ONNX file.
        """
        model = self.single()
        if isinstance(model, OnnxModel):
            raise RunError(f"{self.name} is an ONNX file, which has no PyTorch module; load the run that it was exported from")
        return model

    @overload
    def predict(self, wave: np.ndarray, rate: int) -> Prediction: ...

    @overload
    def predict(self, wave: Sequence[np.ndarray], rate: int | Sequence[int]) -> list[Prediction]: ...

    def predict(self, wave: np.ndarray | Sequence[np.ndarray], rate: int | Sequence[int]) -> Prediction | list[Prediction]:
        """Predict the emotion of a waveform, or of each in a list; in a list the numbers are, to 1e-5, those of each alone.

        Args:
            wave: One channel [S] or several [channels, S], which are averaged: int16, or floats in [-1, 1]. A list or tuple is
                several recordings.
            rate: Sample rate in Hz, at least 1000; for a list also one for each. Audio is resampled, and rounded to 16 bits, as
                `siser prepare` and `siser infer` do.

        Returns:
            A prediction; for a list, one for each.

        Raises:
            SerError: A waveform is of another type or shape, has NaN, is out of range, shorter than 0.1 s, silent or constant; or
                a rate is no whole number or too low.
            RunError: The model was trained on images or needs all recordings of a speaker, or its output is not finite.
        """
        self.require_single_recordings()
        if not isinstance(wave, list | tuple):
            return self.predictions([clip_of(wave, rate)])[0]
        rates = list(rate) if isinstance(rate, Sequence | np.ndarray) else [rate] * len(wave)
        if len(rates) != len(wave):
            raise SerError(
                f"{counted(len(wave), 'wave')} and {counted(len(rates), 'sample rate')}: expected one for each, or one"
            )
        return self.predictions([clip_of(*each, f"wave {n}") for n, each in enumerate(zip(wave, rates, strict=True), 1)])

    def predict_file(self, path: Path | str, channel: str = MIX) -> Prediction:
        """Predict the emotion of an audio file.

        Args:
            path: Any format of libsndfile, at any sample rate.
            channel: Of a file with several channels: `mix` for their mean, `left` or `right`.

        Raises:
            AudioError: The file cannot be used; `siser infer` gives the same reason.
            RunError: As for `predict`.
        """
        self.require_single_recordings()
        return self.predictions([clip_of_file(path, channel)])[0]

    def embed(self, source: np.ndarray | Path | str, rate: int | None = None) -> np.ndarray:
        """Compute the embedding of a recording, after bottleneck, erasure and release.

        Of a recording longer than 30 s, it is the mean of the embeddings of equal windows, without those of digital silence.

        Args:
            source: A waveform as for `predict`, or a file.
            rate: Sample rate of a waveform in Hz.

        Returns:
            The embedding, float32 [D].

        Raises:
            RunError: There are several models, whose embeddings have nothing in common; or as for `predict`.
            SerError: The recording cannot be used.
        """
        model = self.single()
        self.require_single_recordings()
        clip, _ = clip_of_file(source) if isinstance(source, Path | str) else clip_of(source, rate)
        windows = sounding_windows(clip)
        if isinstance(model, OnnxModel):
            embedding = model.apply(windows).embedding
        else:
            from speaker_invariant_ser.models.apply import apply_to_clips

            embedding = apply_to_clips(model, windows).embedding
        return np.average(embedding, axis=0, weights=[len(window) for window in windows]).astype(np.float32)

    def timeline(
        self,
        source: np.ndarray | Path | str,
        rate: int | None = None,
        window: float = 4.0,
        hop: float = 2.0,
        channel: str = MIX,
    ) -> list[WindowPrediction]:
        """Predict the windows of a recording; of a file, no more than some windows are in memory, whatever its length.

        Args:
            source: A waveform as for `predict`, or a file.
            rate: Sample rate of a waveform in Hz.
            window: Length of a window in seconds, 0.5 to 30.
            hop: Seconds from the beginning of a window to that of the next, at most `window`.
            channel: Of a file, as for `predict_file`.

        Returns:
            Predictions in order; the last window ends with the recording.

        Raises:
            SerError: The recording cannot be used, or window or hop is out of range.
            RunError: As for `predict`.
        """
        self.require_single_recordings()
        if isinstance(source, Path | str):
            return list(timeline(self.models, Recording(Path(source), require_choice(channel)), window, hop))
        return list(timeline(self.models, [clip_of(source, rate)[0]], window, hop))

    def stream(self, window: float = 4.0, hop: float = 2.0) -> StreamingClassifier:
        """Return a classifier of audio that arrives in blocks; each stream needs one of its own.

        Args:
            window: Length of a window in seconds, 0.5 to 30.
            hop: Seconds from the beginning of a window to that of the next, at most `window`.

        Raises:
            SerError: Window or hop is out of range.
            RunError: As for `predict`.

        Example:
            ```python
            stream = siser.load_model().stream(window=4, hop=2)
            for samples in microphone:
                for window in stream.push(samples, 48_000):
                    print(f"{window.start:.1f} to {window.end:.1f} s: {window.emotion}")
            last = stream.finish()
            ```
        """
        self.require_single_recordings()
        return StreamingClassifier(self.models, window, hop)

    def predictions(self, clips: Sequence[tuple[np.ndarray, Sequence[str]]]) -> list[Prediction]:
        """Predict recordings, float32 [S] at 16 kHz with notes about each."""
        with memory_errors():
            probabilities, dimensions = mean_outputs(self.models, [clip for clip, _ in clips])
        if not (np.isfinite(probabilities).all() and np.isfinite(dimensions).all()):
            raise RunError(f"{self.name}: its output is not finite, because its weights overflow; train it again")
        trained = join_ranges([model.settings.trained_range for model in self.models])
        return [
            Prediction(
                emotion=self.labels[int(row.argmax())],
                confidence=float(row.max()),
                probabilities={label: float(value) for label, value in zip(self.labels, row, strict=True)},
                warnings=(*notes, *(outside(trained, clip) if trained else ())),
                dimensions=dict(zip(targets_of(self.models), values.tolist(), strict=True)),
            )
            for row, values, (clip, notes) in zip(probabilities, dimensions, clips, strict=True)
        ]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str = "cpu",
        fold: str | None = None,
    ) -> "Classifier":
        """Load a model by the conventions of huggingface_hub: its names and arguments, beside those of `siser.load_model`.

        Args:
            pretrained_model_name_or_path: OWNER/NAME of the hub, or what `siser.load_model` takes; an existing folder first.
            force_download: Download files again that are in the cache.
            token: Token of the hub; by default that of the log-in.
            cache_dir: Folder of the cache.
            local_files_only: Use the cache alone.
            revision: Branch, tag or commit.
            device: As for `siser.load_model`.
            fold: As for `siser.load_model`.

        Raises:
            RunError: As for `siser.load_model`; or a revision of what is no repository.
            SetupError: huggingface_hub is not installed (extra `hub`).
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).exists() and REPOSITORY.fullmatch(name):
            name = f"{PREFIX}{name}"
        if revision is not None:
            if not is_hub(name) or "@" in name:
                raise RunError(f"revision {revision}: {name} is no repository without one; leave it out")
            name = f"{name}@{revision}"
        given = {"token": token, "cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        return load_classifier(name, fold, device, {key: value for key, value in given.items() if value not in (None, False)})

    def single(self) -> "SerModel | OnnxModel":
        """Return the only model; raise RunError where there are several."""
        if len(self.models) > 1:
            raise RunError(f"{self.name} has {counted(len(self.models), 'model')}: load one, by `fold` or by its folder")
        return self.models[0]

    def require_single_recordings(self) -> None:
        """Raise RunError for models of images, and for those that need to know all recordings of a speaker."""
        model = self.models[0]
        if isinstance(model, OnnxModel):
            return
        if model.settings.features.front != "log-mel":
            raise RunError(f"{self.name} was trained on images, not on speech; only `module` can be used")
        if model.settings.features.transductive:
            raise RunError(
                f"{self.name} subtracts the mean over all recordings of a speaker (features.normalise = speaker): call "
                "siser.predict with all recordings of one speaker and one_speaker=True, or use `module`"
            )


def load_classifier(
    source: "Run | Export | Path | str | None",
    fold: str | None = None,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
) -> Classifier:
    """Load what `siser.load_model` describes.

    Args:
        source: A run, a model folder of one, an export, an ONNX file, the name of a shipped model, or `hf:OWNER/NAME`; None for
            the default model.
        fold: Load the models of this fold of a run alone, one per seed; by default those of all folds.
        device: `cpu`, `cuda`, or `auto` for the first GPU if there is one.
        options: Of a download, as for `snapshot`.

    Raises:
        RunError: There is no such model, it is damaged or was changed, the fold is unknown, or the source has no folds.
        RecipeError: There is no such device.
    """
    if not is_hub(source) and is_onnx(source):
        return Classifier(load_models(source, fold, device), str(source))
    from speaker_invariant_ser.inference.exported import CARD, open_models
    from speaker_invariant_ser.models.model import choose_device, load_model
    from speaker_invariant_ser.runs import Run

    source = DEFAULT_MODEL if source is None else source
    opened = open_models(source, options) if isinstance(source, Path | str) else source
    name = str(source) if isinstance(source, Path | str) else str(opened.folder)
    if isinstance(opened, Run):
        specs = opened.trained_models() if fold is None else opened.models_of_fold(fold)
        folders, card = [spec.folder for spec in specs], None
    elif fold is None:
        folders, card = list(opened.models), opened.folder / CARD
    else:
        raise RunError(f"fold {fold!r}: {name} is not a run folder, and has no folds to choose from; leave it out")
    models = [load_model(folder, str(choose_device(device))) for folder in folders]
    return Classifier(models, name, card if card and card.is_file() else None)
