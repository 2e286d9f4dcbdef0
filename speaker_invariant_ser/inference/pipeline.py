"""A classifier for code that was written for `transformers.pipeline("audio-classification")`: called and answering as that is."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.inference.classifier import Classifier, Prediction

TASK = "audio-classification"
Scores = list[dict[str, Any]]  # of {"label": emotion, "score": probability}, the most probable first


class AudioClassificationPipeline:
    """Classify recordings, as `siser.pipeline` describes.

    Args:
        model: The classifier.
        top_k: Emotions in an answer, the most probable ones; None for all.

    Attributes:
        task: `audio-classification`.
        model: The classifier.
    """

    task = TASK

    def __init__(self, model: Classifier, top_k: int | None = None) -> None:
        self.model, self.top_k = model, checked_top(top_k)

    def __call__(self, inputs: Any, top_k: int | None = None) -> Scores | list[Scores] | Iterator[Scores]:
        """Classify one recording or several.

        Args:
            inputs: A path; the content of a file as bytes; samples [S] at 16 kHz; or a dictionary with `sampling_rate` and the
                samples as `raw` or `array`, as the package datasets has it. A list or tuple of these, or an iterator.
            top_k: As for the class, for this call.

        Returns:
            A list of {"label": emotion, "score": probability}, the most probable first. For a list or tuple, a list of these; for
            an iterator, an iterator that classifies as it is read.

        Raises:
            SerError: An input is none of these, or cannot be used.
        """
        top = self.top_k if top_k is None else checked_top(top_k)
        if isinstance(inputs, list | tuple):
            return [self.scores(each, top) for each in inputs]
        if isinstance(inputs, Iterator):
            return (self.scores(each, top) for each in inputs)
        return self.scores(inputs, top)

    def scores(self, recording: Any, top: int | None) -> Scores:
        """Return the scores of one recording."""
        probabilities = self.predict(recording).probabilities
        ordered = sorted(probabilities.items(), key=lambda each: -each[1])[:top]
        return [{"label": label, "score": score} for label, score in ordered]

    def predict(self, recording: Any) -> Prediction:
        """Return the prediction for one recording, in any of the forms that are accepted."""
        if isinstance(recording, str | Path):
            if str(recording).startswith(("http://", "https://")):
                raise SerError(f"{recording}: an address; download the recording, and pass its path")
            return self.model.predict_file(recording)
        if isinstance(recording, bytes):
            with NamedTemporaryFile() as file:
                file.write(recording)
                file.flush()
                return self.model.predict_file(file.name)
        if isinstance(recording, Mapping):
            return self.model.predict(*samples_of(recording))
        if isinstance(recording, np.ndarray):
            return self.model.predict(recording, SAMPLE_RATE)
        raise SerError(
            f"an input of type {type(recording).__name__}: expected a path, bytes, an array at {SAMPLE_RATE} Hz, or a dictionary "
            "with sampling_rate and raw or array"
        )


def samples_of(recording: Mapping[str, Any]) -> tuple[np.ndarray, int]:
    """Return samples and sample rate of a dictionary; other keys, such as the path that datasets adds, are not used."""
    samples = recording["raw"] if recording.get("raw") is not None else recording.get("array")
    if samples is None or "sampling_rate" not in recording:
        keys = ", ".join(map(repr, recording)) or "nothing"
        raise SerError(f"an input with {keys}: expected sampling_rate, and the samples as raw or array")
    return np.asarray(samples), recording["sampling_rate"]


def checked_top(top_k: int | None) -> int | None:
    """Return `top_k`; raise SerError unless it is None or a whole number above 0."""
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise SerError(f"top_k = {top_k!r}: expected a whole number, at least 1, or None for all emotions")
    return top_k
