"""The rows of a table of predictions: one schema for recordings, windows, segments and speakers.

Shapes: C emotions, D embedding dimension.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.inference.parts.pieces import FILE, Piece, Region, Source

Row = dict[str, str | float | bool | None]  # keys as `columns` lists them

WINDOW, SPEAKER = "window", "speaker"  # levels, beside those of regions
NO_SPEECH, UNCERTAIN = "no speech", "uncertain"
SILENT = 0.5 / 2**15  # peak of what is silent at 16 bits
CODE = "code"  # column of models that release codes
TIMES = ("start", "end", "duration")  # columns in seconds


def columns(labels: Sequence[str], codes: bool = False, dimensions: Sequence[str] = ()) -> list[str]:
    """Return the columns of a table of predictions of these emotions, with those of the codes and dimensions that a model has."""
    probabilities = [f"p_{label}" for label in labels]
    before = ["file", "channel", "level", "start", "end", "speaker", "emotion", "confidence"]
    after = ["duration", "warnings", "error", "model", "calibrated", *dimensions]
    return [*before, *probabilities, *([CODE] if codes else []), *after]


@dataclass(frozen=True)
class Schema:
    """What the rows of all recordings have in common.

    Attributes:
        labels: Emotions that rows name, C.
        model: What the column `model` says.
        calibrated: Whether probabilities are corrected by temperatures.
        min_confidence: Predictions below this confidence are "uncertain".
        windows: Whether windows get rows of their own.
        codes: Whether rows have the codes that the model releases.
        dimensions: Dimensions, such as arousal, that the models predict beside the emotion, R.
    """

    labels: tuple[str, ...]
    model: str
    calibrated: bool
    min_confidence: float = 0.0
    windows: bool = False
    codes: bool = False
    dimensions: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Columns of the table."""
        return columns(self.labels, self.codes, self.dimensions)


class Outcome(NamedTuple):
    """What the models say of a piece: probabilities [C], embedding [D], code and dimensions [R], None where silent or failed."""

    probability: np.ndarray | None
    embedding: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    error: str = ""
    code: int | None = None
    dimensions: np.ndarray | None = None


@dataclass(frozen=True)
class Predicted:
    """A piece without its samples, and what the models say of it; times are in samples."""

    region: int
    start: int
    end: int
    outcome: Outcome


class Result(NamedTuple):
    """A row, and the embedding [D] of what it describes; None where it has none."""

    row: Row
    embedding: np.ndarray | None


@dataclass
class Pending:
    """A recording whose pieces are being predicted.

    Attributes:
        source: The recording.
        predicted: Its pieces, in order.
        waiting: Number of pieces that are not predicted yet.
        ended: Whether all pieces were read.
        ends_file: Whether this is the last channel of its file.
    """

    source: Source
    predicted: list[Predicted] = field(default_factory=list)
    waiting: int = 0
    ended: bool = False
    ends_file: bool = True

    def add(self, piece: Piece, outcome: Outcome) -> None:
        """Note what the models say of the next piece."""
        self.waiting -= 1
        self.predicted.append(Predicted(piece.region, piece.start, piece.start + len(piece.clip), outcome))


def silence(piece: Piece) -> Outcome | None:
    """Return the outcome of a piece without any sound, which no model is asked about; None for all others."""
    return Outcome(None, warnings=("digital silence",)) if is_silent(piece.clip) else None


def is_silent(clip: np.ndarray) -> bool:
    """Return whether samples [S] are digital silence, or all of one value."""
    return float(clip.max()) - float(clip.min()) <= SILENT


def rows_of(pending: Pending, schema: Schema) -> Iterator[Result]:
    """Yield the rows of a recording: windows and segments in order, then speakers, then the recording itself."""
    source = pending.source
    by_region: dict[int, list[Predicted]] = {index: [] for index in range(len(source.regions))}
    for piece in pending.predicted:
        by_region[piece.region].append(piece)
    for index, region in enumerate(source.regions):
        if schema.windows:
            yield from (window_row(source, schema, region, piece) for piece in by_region[index])
        if region.level != FILE and (not source.error or by_region[index]):
            yield region_row(source, schema, region, by_region[index])
    if not source.error:
        yield from speaker_rows(source, schema, by_region)
    yield file_row(source, schema, pending.predicted)


def window_row(source: Source, schema: Schema, region: Region, piece: Predicted) -> Result:
    """Return the row of a window."""
    outcome = piece.outcome
    return make_row(source, schema, WINDOW, (piece.start, piece.end), region.speaker, [piece], outcome.warnings, outcome.error)


def region_row(source: Source, schema: Schema, region: Region, pieces: Sequence[Predicted]) -> Result:
    """Return the row of a segment."""
    error = f"{source.item.path}: {region.error}" if region.error else ""
    warnings = [*region.warnings, *common_warnings(pieces)]
    return make_row(source, schema, region.level, (region.start, region.end), region.speaker, pieces, warnings, error)


def speaker_rows(source: Source, schema: Schema, by_region: dict[int, list[Predicted]]) -> Iterator[Result]:
    """Yield a row for each speaker of the segments, from the beginning of the first to the end of the last."""
    by_speaker: dict[str, list[Predicted]] = {}
    for index, region in enumerate(source.regions):
        if region.speaker and not region.error:
            by_speaker.setdefault(region.speaker, []).extend(by_region[index])
    for speaker, pieces in by_speaker.items():
        if pieces:
            times = min(piece.start for piece in pieces), max(piece.end for piece in pieces)
            yield make_row(source, schema, SPEAKER, times, speaker, pieces, common_warnings(pieces))


def file_row(source: Source, schema: Schema, pieces: Sequence[Predicted]) -> Result:
    """Return the row of a recording; its probabilities are the mean over its pieces, weighted by their lengths."""
    warnings = [*source.notes, *common_warnings(pieces)]
    if not source.regions and not source.error:
        given = source.settings.segments is not None
        warnings.append("no segment is listed for it" if given else "no speech was found")
    return make_row(source, schema, FILE, (0, source.samples), "", pieces, warnings, source.error)


def common_warnings(pieces: Sequence[Predicted]) -> list[str]:
    """Return the warnings of a single piece, or say how many of several pieces have some."""
    if len(pieces) == 1:
        return list(pieces[0].outcome.warnings)
    silent = sum(piece.outcome.probability is None and not piece.outcome.error for piece in pieces)
    warned = sum(bool(piece.outcome.warnings) for piece in pieces) - silent
    lines = [f"{counted(warned, 'window')} of {len(pieces)} outside the range of the training"] if warned else []
    return [*lines, *([f"{counted(silent, 'window')} of {len(pieces)} of digital silence"] if silent else [])]


def make_row(
    source: Source,
    schema: Schema,
    level: str,
    times: tuple[int, int],
    speaker: str,
    pieces: Sequence[Predicted],
    warnings: Sequence[str] = (),
    error: str = "",
) -> Result:
    """Return the row of some pieces together; where none could be predicted, it says "no speech", or the error."""
    usable = [piece for piece in pieces if piece.outcome.probability is not None]
    failed = [piece.outcome.error for piece in pieces if piece.outcome.error]
    error = error or (failed[0] if failed and not usable else "")
    probability = mean_of([piece.outcome.probability for piece in usable], usable) if usable and not error else None
    embeddings = [piece.outcome.embedding for piece in usable]
    embedding = mean_of(embeddings, usable) if probability is not None and embeddings[0] is not None else None
    dimensions = mean_of([piece.outcome.dimensions for piece in usable], usable) if schema.dimensions and usable else None
    best = int(probability.argmax()) if probability is not None else 0
    confidence = float(probability[best]) if probability is not None else None
    values = [None] * len(schema.labels) if probability is None else [float(value) for value in probability]
    emotion = "" if error else NO_SPEECH if confidence is None else schema.labels[best]
    start, end = (time / SAMPLE_RATE for time in times)
    has_times = source.samples > 0
    row: Row = {
        "file": printable(str(source.item.path)),
        "channel": source.channel,
        "level": level,
        "start": start if has_times else None,
        "end": end if has_times else None,
        "speaker": printable(speaker),
        "emotion": UNCERTAIN if confidence is not None and confidence < schema.min_confidence else emotion,
        "confidence": confidence,
        **{f"p_{label}": value for label, value in zip(schema.labels, values, strict=True)},
        **({CODE: " ".join(str(piece.outcome.code) for piece in usable if not error)} if schema.codes else {}),
        "duration": source.samples / SAMPLE_RATE if has_times else None,
        "warnings": "; ".join(dict.fromkeys(warnings)),
        "error": printable(error),
        "model": printable(schema.model),
        "calibrated": schema.calibrated,
        **dict.fromkeys(schema.dimensions),
    }
    if dimensions is not None and not error:
        row |= {name: float(value) for name, value in zip(schema.dimensions, dimensions, strict=True)}
    return Result(row, None if embedding is None else embedding.astype(np.float32))


def mean_of(values: Sequence[np.ndarray | None], pieces: Sequence[Predicted]) -> np.ndarray:
    """Return the mean of arrays, weighted by the lengths of their pieces."""
    return weighted_mean([value for value in values if value is not None], [piece.end - piece.start for piece in pieces])


def weighted_mean(values: Sequence[np.ndarray] | np.ndarray, weights: Sequence[int]) -> np.ndarray:
    """Return the weighted mean of arrays; a single one as it is, to the last bit."""
    return values[0] if len(values) == 1 else np.average(values, axis=0, weights=weights)


def printable(text: str) -> str:
    r"""Return the text with bytes that are not UTF-8, as file names may have, as \xNN: one such name must not spoil a table."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
