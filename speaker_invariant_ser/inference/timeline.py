"""Emotion over time: predictions for the windows of a recording of any length, from a file or while it is being recorded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import soxr

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.inference.onnx.model import OnnxModel
from speaker_invariant_ser.inference.parts.windows import Cut, Cutter, cut, to_samples
from speaker_invariant_ser.inference.predict import mean_outputs, targets_of
from speaker_invariant_ser.inference.rows import NO_SPEECH, is_silent

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.loading import Models
    from speaker_invariant_ser.models.model import SerModel

WINDOWS = 32  # predicted at a time


@dataclass(frozen=True)
class WindowPrediction:
    """The prediction for one window.

    Attributes:
        start: Beginning in seconds.
        end: End in seconds.
        emotion: The most probable emotion; `no speech` for digital silence.
        confidence: Its probability; 0 for digital silence.
        probabilities: Probability of each emotion; 0 for digital silence.
        dimensions: Values from 0 to 1 of arousal, valence and dominance, of a model that predicts them; otherwise empty.
    """

    start: float
    end: float
    emotion: str
    confidence: float
    probabilities: dict[str, float]
    dimensions: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, start: int, end: int, probability: np.ndarray, labels: Sequence[str], dimensions: Mapping[str, float] | None = None
    ) -> "WindowPrediction":
        """Return the prediction for a stretch of samples with these probabilities [C] and dimensions."""
        best = int(probability.argmax())
        return cls(
            start=start / audio.SAMPLE_RATE,
            end=end / audio.SAMPLE_RATE,
            emotion=labels[best],
            confidence=float(probability[best]),
            probabilities={label: float(value) for label, value in zip(labels, probability, strict=True)},
            dimensions=dict(dimensions or {}),
        )


def timeline(models: "Models", blocks: Iterable[np.ndarray], window: float = 4.0, hop: float = 2.0) -> Iterator[WindowPrediction]:
    """Predict the windows of a recording, in order; memory does not grow with its length.

    Args:
        models: Models with the same labels, whose probabilities are averaged.
        blocks: The recording in blocks, float32 [S] at 16 kHz: a `Recording`, or a list with all of it.
        window: Length of a window in seconds, 0.5 to 30.
        hop: Seconds from the beginning of a window to that of the next, at most `window`.

    Raises:
        SerError: Window or hop is out of range.
        AudioError: The recording cannot be decoded, is silent or too short.
    """
    yield from predict_cuts(models, cut(blocks, *to_samples(window, hop)))


def predict_cuts(models: "Models", cuts: Iterable[Cut]) -> Iterator[WindowPrediction]:
    """Predict windows, a bounded number at a time."""
    waiting, targets, labels = iter(cuts), targets_of(models), models[0].labels
    while some := list(islice(waiting, WINDOWS)):
        silent = [is_silent(each.clip) for each in some]
        clips = [each.clip for each, without in zip(some, silent, strict=True) if not without]
        outputs = zip(*mean_outputs(models, clips), strict=True)
        for each, without in zip(some, silent, strict=True):
            start, end = each.start, each.start + len(each.clip)
            if without:
                window = WindowPrediction.of(start, end, np.zeros(len(labels)), labels)
                yield replace(window, emotion=NO_SPEECH)
                continue
            row, values = next(outputs)
            yield WindowPrediction.of(start, end, row, labels, dict(zip(targets, values.tolist(), strict=True)))


class StreamingClassifier:
    """Predict emotion while audio arrives: each window as soon as its last sample is there.

    The windows and, to 1e-5, the numbers are those of `timeline` over the whole recording. No more than a window, a hop and what
    was pushed last is kept.

    Args:
        models: A model, or several whose probabilities are averaged.
        window: Length of a window in seconds, 0.5 to 30.
        hop: Seconds from the beginning of a window to that of the next, at most `window`.

    Raises:
        SerError: Window or hop is out of range, or the model needs to know all recordings of a speaker.

    Example:
        ```python
        classifier = siser.load_model("runs/final").stream(window=4, hop=2)
        for samples in microphone:
            for window in classifier.push(samples, 48_000):
                print(f"{window.start:.1f} to {window.end:.1f} s: {window.emotion}")
        last = classifier.finish()
        ```
    """

    def __init__(self, models: "SerModel | OnnxModel | Models", window: float = 4.0, hop: float = 2.0) -> None:
        self.models: Models = models if isinstance(models, Sequence) else [models]  # type: ignore[assignment]  # of one kind
        if not isinstance(first := self.models[0], OnnxModel) and first.settings.features.transductive:
            raise SerError("this model subtracts the mean over all recordings of a speaker, which a stream does not have")
        self.cutter = Cutter(*to_samples(window, hop))
        self.rate = 0
        self.stream: soxr.ResampleStream | None = None

    def push(self, samples: np.ndarray, rate: int) -> list[WindowPrediction]:
        """Add audio, and return the predictions of the windows that it completes.

        Args:
            samples: One channel [S], int16 or floats in [-1, 1]; any number of samples.
            rate: Sample rate in Hz, the same in every call.

        Raises:
            SerError: Another sample rate than before, more than one channel, another type, or NaN.
        """
        self.set_rate(rate)
        return list(predict_cuts(self.models, self.cutter.push(self.resampled(checked(samples), last=False))))

    def finish(self) -> list[WindowPrediction]:
        """Return the prediction of the last window, which ends with the audio; nothing may be pushed after it."""
        cuts = self.cutter.push(self.resampled(np.zeros(0, np.float32), last=True)) if self.rate else []
        cuts += self.cutter.finish()
        return list(predict_cuts(self.models, (each for each in cuts if len(each.clip) >= audio.MIN_SECONDS * audio.SAMPLE_RATE)))

    def set_rate(self, rate: int) -> None:
        """Remember the sample rate, and refuse another."""
        if self.rate and rate != self.rate:
            raise SerError(f"a sample rate of {rate} Hz after {self.rate} Hz; start a new StreamingClassifier")
        if not self.rate:
            self.rate = checked_rate(rate)
            self.stream = soxr.ResampleStream(rate, audio.SAMPLE_RATE, 1, dtype="float32") if rate != audio.SAMPLE_RATE else None

    def resampled(self, samples: np.ndarray, last: bool) -> np.ndarray:
        """Return samples at 16 kHz, rounded to 16 bits as a prepared corpus is."""
        return audio.at_16_bits(self.stream.resample_chunk(samples, last=last) if self.stream else samples)


def checked_rate(rate: object) -> int:
    """Return a sample rate in Hz; raise SerError if it is no whole number or too low."""
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise SerError(f"a sample rate of {rate!r}: expected a whole number of Hz, such as {audio.SAMPLE_RATE}")
    if rate < audio.MIN_RATE:
        raise SerError(f"a sample rate of {rate} Hz, expected at least {audio.MIN_RATE} Hz")
    return int(rate)


def checked(samples: np.ndarray, name: str = "samples") -> np.ndarray:
    """Return samples [S] as float32; raise SerError, which calls them `name`, if they are not one channel of audio."""
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise SerError(f"{name} of shape {samples.shape}: expected one channel, [S]; take or average the channels before")
    if samples.dtype == np.int16:
        return audio.to_float32(samples)
    if samples.dtype.kind != "f":
        raise SerError(f"{name} of type {samples.dtype}: expected int16, or floats in [-1, 1]")
    if not np.isfinite(peak := audio.peak_of(samples)) or peak > audio.MAX_PEAK:
        raise SerError(f"{name} up to {peak:.3g}: expected floats in [-1, 1]")
    return samples.astype(np.float32)
