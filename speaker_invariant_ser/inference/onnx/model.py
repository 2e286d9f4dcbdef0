"""A model in an ONNX file that `siser export` wrote, run by onnxruntime: no torch is imported.

Shapes: S samples, C emotions, D embedding dimension, N clips.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from speaker_invariant_ser.data.conditions.ranges import TrainedRange
from speaker_invariant_ser.errors import RunError

ENDING = ".onnx"
FORMAT = 1
INPUT, OUTPUTS = "waveform", ("probabilities", "embedding")


class OnnxOutputs(NamedTuple):
    """Emotion probabilities [N, C] and embeddings [N, D] of N clips."""

    probability: np.ndarray
    embedding: np.ndarray


class OnnxSettings(BaseModel):
    """What predicting needs of the settings of the model that was exported."""

    trained_range: TrainedRange | None = None
    temperature: float | None = None


class OnnxModel:
    """A model in an ONNX file.

    It uses one thread, because results must not depend on the number of cores.

    Args:
        source: The file, or its content.
        name: What error messages call it; by default the path.

    Attributes:
        labels: The C emotions, in the order of the probabilities.
        dim: Dimension D of the embedding.
        settings: What predicting needs of the settings of the model that was exported.
        metadata: What the file says of itself.

    Raises:
        RunError: The file is missing or damaged, or is no model of this package or of another format.
    """

    def __init__(self, source: Path | str | bytes, name: str = "") -> None:
        import onnxruntime

        name = name or str(source)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        with load_errors(name):
            model = source if isinstance(source, bytes) else str(source)
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        try:
            stored = int(self.metadata["format"])
            self.labels: tuple[str, ...] = tuple(json.loads(self.metadata["labels"]))
            self.dim = int(self.metadata["embedding_size"])
            self.settings = OnnxSettings.model_validate_json(self.metadata["settings"])
        except (KeyError, ValueError, TypeError):
            raise RunError(
                f"{name} was not written by `siser export`: its metadata lacks format, labels or embedding size"
            ) from None
        if stored != FORMAT:
            raise RunError(f"{name}: written in format {stored}, this version reads format {FORMAT}")

    def apply(self, clips: Sequence[np.ndarray]) -> OnnxOutputs:
        """Apply the model to N clips, float32 [S] each, in [-1, 1] at 16 kHz.

        Raises:
            MemoryError: A clip is too long for the memory there is.
        """
        outputs = OnnxOutputs(np.zeros((len(clips), len(self.labels)), np.float32), np.zeros((len(clips), self.dim), np.float32))
        with memory_errors():
            for index, clip in enumerate(clips):
                results = self.session.run(OUTPUTS, {INPUT: np.ascontiguousarray(clip, np.float32)})
                outputs.probability[index], outputs.embedding[index] = results
        return outputs


@contextmanager
def load_errors(name: str) -> Iterator[None]:
    """Raise RunError where onnxruntime finds no file of this name, or no model in it."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        yield
    except errors.NoSuchFile:
        raise RunError(f"{name} does not exist; make it with `siser export RUN --onnx {name}`") from None
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented) as error:
        reason = str(error).splitlines()[0].rpartition("failed:")[2]
        raise RunError(f"{name} cannot be read as an ONNX model: {reason}") from None


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError where onnxruntime could not allocate memory."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        yield
    except (errors.RuntimeException, errors.Fail) as error:
        if "allocate" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from None
        raise
