"""A model in an ONNX file that `siser export` wrote, run by onnxruntime: no torch is imported.

Shapes: S samples, C emotions, D embedding dimension, N recordings.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from speaker_invariant_ser.data.conditions.ranges import TrainedRange
from speaker_invariant_ser.data.labels import LabelNames
from speaker_invariant_ser.errors import RunError, shown
from speaker_invariant_ser.files import require_regular
from speaker_invariant_ser.inference.onnx.operators import require_plain_operators
from speaker_invariant_ser.json_files import parse_json
from speaker_invariant_ser.recipe_encoders import Dimension

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ENDING = ".onnx"
FORMAT = 1
INPUT, OUTPUTS = "waveform", ("probabilities", "embedding")
CODE, DIMENSIONS = "code", "dimensions"  # further outputs: of models that release codes, of models with targets
NUMBERS, WHOLE = "tensor(float)", "tensor(int64)"  # types of both, and of the code, as onnxruntime calls them
MAX_DIM = 100_000
NOT_TEXT = "it contains text that is not UTF-8"


class OnnxOutputs(NamedTuple):
    """Probabilities [N, C] and embeddings [N, D] of N recordings; codes [N], dimensions [N, R] where the model has them."""

    probability: np.ndarray
    embedding: np.ndarray
    code: np.ndarray | None = None
    dimensions: np.ndarray | None = None


class OnnxEmotion(BaseModel):
    """What predicting needs of section [emotion]."""

    targets: tuple[Dimension, ...] = ()


class OnnxSettings(BaseModel):
    """What predicting needs of the settings of the model that was exported."""

    emotion: OnnxEmotion = OnnxEmotion()
    trained_range: TrainedRange | None = None
    temperature: float | None = Field(None, gt=0, allow_inf_nan=False)


class OnnxMetadata(BaseModel):
    """What an ONNX file says of itself, all of it as text."""

    format: int
    labels: Annotated[LabelNames, BeforeValidator(parse_json)]
    embedding_size: int = Field(ge=1, le=MAX_DIM)
    settings: Annotated[OnnxSettings, BeforeValidator(parse_json)]


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
        releases_codes: Whether it releases codes.
        targets: The R dimensions that it predicts beside the emotion.
        metadata: What the file says of itself.

    Raises:
        RunError: The file is missing or damaged, or is no model of this package or of another format.
    """

    def __init__(self, source: Path | str | bytes, name: str = "") -> None:
        import onnxruntime

        self.name = name or str(source)
        require_plain_operators(content_of(source), self.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # it would print names from the file as they are
        options.add_session_config_entry("session.load_model_format", "ONNX")  # the one that was looked at
        with load_errors(self.name):
            model = source if isinstance(source, bytes) else str(source)
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        try:
            described = OnnxMetadata.model_validate(self.metadata)
        except ValidationError as error:
            reason = "lacks" if error.errors()[0]["type"] == "missing" else "has no valid"
            key = error.errors()[0]["loc"][0]
            raise RunError(f"{self.name} was not written by `siser export`: its metadata {reason} {key}") from None
        if described.format != FORMAT:
            raise RunError(f"{self.name}: written in format {shown(described.format)}, this version reads format {FORMAT}")
        self.labels, self.dim, self.settings = described.labels, described.embedding_size, described.settings
        self.targets = described.settings.emotion.targets
        with load_errors(self.name):
            self.further = require_interface(self.session, self.name, bool(self.targets))
        self.releases_codes = CODE in self.further

    def apply(self, clips: Sequence[np.ndarray]) -> OnnxOutputs:
        """Apply the model to N recordings, float32 [S] each, in [-1, 1] at 16 kHz.

        Raises:
            MemoryError: A recording is too long for the memory there is.
            RunError: The file computes something else than probabilities and an embedding.
        """
        code = np.zeros(len(clips), np.int64) if self.releases_codes else None
        probabilities = np.zeros((len(clips), len(self.labels)), np.float32)
        dimensions = np.zeros((len(clips), len(self.targets)), np.float32) if self.targets else None
        outputs = OnnxOutputs(probabilities, np.zeros((len(clips), self.dim), np.float32), code, dimensions)
        for index, clip in enumerate(clips):
            with run_errors(self.name):
                probability, embedding, *others = self.session.run(None, {INPUT: np.ascontiguousarray(clip, np.float32)})
            further = dict(zip(self.further, others, strict=True))
            shapes = {name: array.shape for name, array in further.items()}
            expected = {CODE: (), DIMENSIONS: (len(self.targets),)}
            if (probability.shape, embedding.shape) != ((len(self.labels),), (self.dim,)) or any(
                shape != expected[name] for name, shape in shapes.items()
            ):
                raise RunError(
                    f"{self.name} is damaged: it computes arrays of shape {probability.shape} and {embedding.shape}, expected "
                    f"{len(self.labels)} probabilities and {self.dim} dimensions"
                )
            if not ((probability >= 0).all() and abs(probability.sum() - 1) <= 0.01):  # also where some are NaN
                raise RunError(f"{self.name} is damaged: its probabilities do not add up to 1")
            if not np.isfinite(embedding).all():
                raise RunError(f"{self.name} is damaged: its embedding is not finite")
            outputs.probability[index] = probability
            outputs.embedding[index] = embedding + 0.0  # not -0.0, in which files of versions to 0.8.0 show what was rounded away
            if outputs.code is not None:
                outputs.code[index] = further[CODE]
            if outputs.dimensions is not None:
                if not ((further[DIMENSIONS] >= 0) & (further[DIMENSIONS] <= 1)).all():
                    raise RunError(f"{self.name} is damaged: its dimensions are not from 0 to 1")
                outputs.dimensions[index] = further[DIMENSIONS]
        return outputs


def content_of(source: Path | str | bytes) -> memoryview:
    """Return the content of a model, nothing of a file that is missing or empty; raise SerError for a pipe or a device."""
    if isinstance(source, bytes):
        return memoryview(source)
    path = require_regular(source)
    return np.memmap(path, mode="r").data if path.is_file() and path.stat().st_size else memoryview(b"")


def require_interface(session: "InferenceSession", name: str, with_dimensions: bool) -> tuple[str, ...]:
    """Raise RunError unless a model takes a waveform [S] and computes probabilities and an embedding.

    Args:
        session: The model.
        name: What the error message calls it.
        with_dimensions: Whether its metadata say that it computes dimensions as well.

    Returns:
        The names of its further outputs.
    """
    inputs = [(node.name, node.type, len(node.shape)) for node in session.get_inputs()]
    outputs = [(node.name, node.type) for node in session.get_outputs()]
    first, last = [(output, NUMBERS) for output in OUTPUTS], [(DIMENSIONS, NUMBERS)] if with_dimensions else []
    if inputs != [(INPUT, NUMBERS, 1)] or outputs not in ([*first, *last], [*first, (CODE, WHOLE), *last]):
        raise RunError(f"{name} was not written by `siser export`: it does not compute {' and '.join(OUTPUTS)} of a {INPUT}")
    return tuple(output for output, _ in outputs[len(first) :])


@contextmanager
def load_errors(name: str) -> Iterator[None]:
    """Raise RunError where onnxruntime finds no file of this name, no model in it, or text that is not UTF-8."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        yield
    except errors.NoSuchFile:
        raise RunError(f"{name} does not exist; make it with `siser export RUN --onnx {name}`") from None
    except UnicodeDecodeError:  # onnxruntime returns names, metadata and its errors as the bytes of the file
        raise RunError(f"{name} cannot be read as an ONNX model: {NOT_TEXT}") from None
    except library_errors() as error:
        reason = str(error).splitlines()[0].rpartition("failed:")[2]
        raise RunError(f"{name} cannot be read as an ONNX model: {reason}") from None


@contextmanager
def run_errors(name: str) -> Iterator[None]:
    """Raise MemoryError where onnxruntime could not allocate memory, and RunError where it cannot compute the model."""
    try:
        yield
    except UnicodeDecodeError:
        raise RunError(f"{name} is damaged: it cannot be computed ({NOT_TEXT})") from None
    except library_errors() as error:
        reason = str(error).splitlines()[0]
        if "allocate" in str(error):
            raise MemoryError(reason) from None
        raise RunError(f"{name} is damaged: it cannot be computed ({reason})") from None


def library_errors() -> tuple[type[Exception], ...]:
    """Return all types of errors that onnxruntime raises."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return tuple(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception))
