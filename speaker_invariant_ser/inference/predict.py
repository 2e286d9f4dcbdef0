"""Predict emotions for audio files. A file that cannot be used gives a row with its error, and the others are predicted.

Shapes: S samples, M mel bands, C emotions, N utterances.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from speaker_invariant_ser.data.conditions.ranges import TrainedRange, join_ranges
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.inference.inputs import WINDOW, Input, channels_of, clips_of, cut_windows, decode_blocks
from speaker_invariant_ser.inference.onnx.model import OnnxModel, OnnxOutputs
from speaker_invariant_ser.inference.parts.pieces import Piece, Source, Watch
from speaker_invariant_ser.inference.rows import Outcome, Pending, Row, Schema, is_silent, rows_of, silence, weighted_mean
from speaker_invariant_ser.inference.settings import Settings, chosen_columns
from speaker_invariant_ser.processes import memory_errors

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.loading import Models
    from speaker_invariant_ser.models.model import SerModel

BATCH = 64  # pieces predicted together, at most 30 s each: bounds memory
CHUNK_FILES, CHUNK_BYTES = 64, 2**26  # recordings predicted together: what an interruption can lose


def predict(
    models: "Models",
    inputs: Sequence[Input],
    progress: Callable[[int, int], None] | None = None,
    settings: Settings | None = None,
    name: str = "",
) -> Iterator[Row]:
    """Predict the emotion of each recording, averaged over models.

    A recording longer than 30 s is cut into equal windows, whose probabilities are averaged with their lengths as weights.
    Models that normalise by speaker take all files as one speaker's, and decode them once before for the speaker's mean.

    Args:
        models: Models with the same labels.
        inputs: Recordings.
        progress: Called with files done and files in total.
        settings: Parts of the recordings that get rows, and emotions they can have.
        name: What the column `model` says.

    Yields:
        Rows for each recording, in order, with the keys that `rows.columns` lists. `emotion`, `confidence` and probabilities are
        filled where `error` is empty, and the other way round; `warnings` names defects that leave a recording usable, and
        recording conditions that the models were not trained on; times are in seconds.
    """
    settings = settings or Settings()
    predictor = Predictor.of(models, settings, name, speaker_mean(models[0], inputs, settings.channel))
    done = 0
    for chunk in chunks_of(inputs):
        for pending in predictor.recordings(chunk):
            yield from (result.row for result in rows_of(pending, predictor.schema))
            if progress:
                progress(done := done + pending.ends_file, len(inputs))


def speaker_mean(model: "SerModel | OnnxModel", inputs: Sequence[Input], channel: str) -> np.ndarray | None:
    """Compute the mean log-mel [M] over all frames of all files that can be decoded, which are of one speaker.

    None for a model that predicts every file on its own, as ONNX files do.
    """
    if isinstance(model, OnnxModel) or not model.settings.features.transductive:
        return None
    from speaker_invariant_ser.features.speaker_means import mean_log_mel

    blocks = ([window for clip in clips_of(block) for window in cut_windows(clip)] for block in decode_blocks(inputs, channel))
    return mean_log_mel(model.logmel, blocks)


@dataclass(frozen=True)
class Predictor:
    """Models and settings: all that is needed to predict recordings, in this process or in another.

    Attributes:
        models: Models with the same labels.
        settings: What is wanted of recordings.
        schema: What all rows have in common.
        columns: Positions of the wanted emotions among those of the models.
        trained_range: Recording conditions that the models were trained on, if they know.
        mean: Mean log-mel [M] of the speaker, for models that normalise by speaker.
        plots: Draws the timeline of a recording, if wanted.
    """

    models: "Models"
    settings: Settings
    schema: Schema
    columns: list[int]
    trained_range: TrainedRange | None = None
    mean: np.ndarray | None = None
    plots: "Plots | None" = None

    @classmethod
    def of(
        cls, models: "Models", settings: Settings, name: str = "", mean: np.ndarray | None = None, plots: "Plots | None" = None
    ) -> "Predictor":
        """Combine models and settings.

        Raises:
            SerError: The models know none of the wanted emotions, or have no common embedding although it is wanted.
        """
        chosen = chosen_columns(models[0].labels, settings.labels)
        labels = tuple(models[0].labels[index] for index in chosen)
        if settings.embeddings and len(models) > 1:
            raise SerError(
                f"embeddings of several models ({len(models)}) have nothing in common: choose one with --fold, or an export"
            )
        codes = len(models) == 1 and models[0].releases_codes
        wanted = settings.min_confidence, settings.window > 0
        schema = Schema(labels, name, calibrated(models), *wanted, codes, targets_of(models))
        return cls(models, settings, schema, chosen, join_ranges([each.settings.trained_range for each in models]), mean, plots)

    def recordings(self, chunk: "Chunk") -> Iterator[Pending]:
        """Predict the recordings of a chunk together, and yield each when it is complete, in order."""
        queue: deque[Pending] = deque()
        batch: list[tuple[Pending, Piece]] = []
        samples = 0
        for pending, piece in self.pieces(chunk, queue):
            if piece:
                pending.waiting += 1
                batch.append((pending, piece))
                samples += len(piece.clip)
            if len(batch) >= BATCH or samples >= BATCH * WINDOW:
                self.apply(batch)
                batch, samples = [], 0
            while queue and queue[0].ended and not queue[0].waiting:
                yield queue.popleft()
        self.apply(batch)
        yield from queue

    def pieces(self, chunk: "Chunk", queue: deque[Pending]) -> Iterator[tuple[Pending, Piece | None]]:
        """Yield the pieces of all recordings of a chunk, after each recording None; add recordings to the queue as they begin."""
        for item in chunk.items:
            names = channels_of(item, self.settings.channel)
            for name in names:
                watch = self.plots.watch() if self.plots else None
                pending = Pending(Source(item, name, self.settings, self.trained_range, watch), ends_file=name == names[-1])
                queue.append(pending)
                for piece in pending.source:
                    yield pending, piece
                pending.ended = True
                yield pending, None

    def apply(self, batch: "Sequence[tuple[Pending, Piece]]") -> None:
        """Predict pieces, and note the outcomes with their recordings."""
        silent = [silence(piece) for _, piece in batch]
        clips = [piece.clip for (_, piece), outcome in zip(batch, silent, strict=True) if outcome is None]
        outputs = iter(outputs_or_none(self.models, clips, self.mean))
        for (pending, piece), outcome in zip(batch, silent, strict=True):
            pending.add(piece, outcome or self.outcome(pending, piece, next(outputs)))

    def outcome(self, pending: Pending, piece: Piece, output: "Output | None") -> Outcome:
        """Return what the models say of a piece; None stands for memory that ran out."""
        path = pending.source.item.path
        if output is None:
            return Outcome(None, error=f"{path}: does not fit into memory beside the models; cut it into parts")
        probability, embedding, code, dimensions = output
        if not np.isfinite(probability).all() or (dimensions is not None and not np.isfinite(dimensions).all()):
            return Outcome(None, error=f"{path}: the models' output is not finite, their weights overflow; train them again")
        chosen = probability[self.columns].astype(float)
        if self.settings.labels:
            total = chosen.sum()
            chosen = chosen / total if total > 0 else np.full(len(chosen), 1 / len(chosen))
        kept = embedding if self.settings.embeddings else None
        warnings = pending.source.conditions(piece.clip) if self.settings.in_parts else ()  # of a whole recording it is known
        return Outcome(chosen, kept, tuple(warnings), code=code, dimensions=dimensions)


class Output(NamedTuple):
    """What models compute for a recording: probabilities [C], embedding [D] and code of the first model, and dimensions [R]."""

    probability: np.ndarray
    embedding: np.ndarray
    code: int | None
    dimensions: np.ndarray | None = None


class Chunk(NamedTuple):
    """Consecutive recordings that are predicted together: the position of the first, and the recordings."""

    first: int
    items: Sequence[Input]


def chunks_of(inputs: Sequence[Input], first: int = 0) -> Iterator[Chunk]:
    """Divide recordings, from number `first` on, into chunks of a limited number and size on disk."""
    begin, size = first, 0
    for index in range(first, len(inputs)):
        bytes_here = size_of(inputs[index].path)
        if index > begin and (index - begin == CHUNK_FILES or size + bytes_here > CHUNK_BYTES):
            yield Chunk(begin, inputs[begin:index])
            begin, size = index, 0
        size += bytes_here
    if begin < len(inputs):
        yield Chunk(begin, inputs[begin:])


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it cannot be found out."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def outputs_or_none(models: "Models", clips: Sequence[np.ndarray], mean: np.ndarray | None) -> list[Output | None]:
    """Return the output for every recording; None for one that does not fit into memory with the models."""
    if not clips:
        return []
    try:
        with memory_errors():
            probability, embedding, code, dimensions = outputs(models, clips, mean)
            none = [None] * len(clips)
            codes = none if code is None else code.tolist()
            return list(map(Output, probability, embedding, codes, none if dimensions is None else dimensions))
    except MemoryError:
        if len(clips) == 1:
            return [None]
    middle = len(clips) // 2
    return [*outputs_or_none(models, clips[:middle], mean), *outputs_or_none(models, clips[middle:], mean)]


def outputs(models: "Models", clips: Sequence[np.ndarray], mean: np.ndarray | None = None) -> OnnxOutputs:
    """Apply models to recordings of at most 30 s.

    Args:
        models: Models with the same labels.
        clips: N recordings, float32 [S] at 16 kHz.
        mean: Mean log-mel [M] of the speaker, for models that normalise by speaker.

    Returns:
        Probabilities [N, C], averaged over models and corrected by their temperatures if `calibrated`; the embeddings [N, D] and
        codes [N] of the first model; and dimensions [N, R], averaged over models.
    """
    means = None if mean is None else np.tile(mean, (len(clips), 1))
    scaled = calibrated(models)
    by_model = [output_of(model, clips, means, scaled) for model in models]
    rated = [output.dimensions for output in by_model if output.dimensions is not None]
    dimensions = np.mean(rated, axis=0) if targets_of(models) else None
    return by_model[0]._replace(probability=np.mean([output.probability for output in by_model], axis=0), dimensions=dimensions)


def targets_of(models: "Models") -> tuple[str, ...]:
    """Return the dimensions that models predict beside the emotion; none if they predict different ones."""
    return models[0].targets if len({model.targets for model in models}) == 1 else ()


def mean_outputs(models: "Models", clips: Sequence[np.ndarray], mean: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute outputs for recordings of any length, averaged over windows weighted by their lengths.

    Args:
        models: Models with the same labels.
        clips: N recordings, float32 [S] at 16 kHz.
        mean: Mean log-mel [M] of the speaker, for models that normalise by speaker.

    Returns:
        Emotion probabilities [N, C], and dimensions [N, R], of which there may be none.
    """
    labels, targets = len(models[0].labels), len(targets_of(models))
    if not clips:
        return np.zeros((0, labels)), np.zeros((0, targets))
    windows_by_clip = [sounding_windows(clip) for clip in clips]
    windows = [window for parts in windows_by_clip for window in parts]
    computed = outputs(models, windows, mean)
    ends = np.cumsum([len(parts) for parts in windows_by_clip])[:-1]

    def averaged(by_window: np.ndarray) -> np.ndarray:
        """Return the mean of each recording's windows."""
        rows = zip(np.split(by_window, ends), windows_by_clip, strict=True)
        return np.stack([weighted_mean(values, [len(part) for part in parts]) for values, parts in rows])

    dimensions = np.zeros((len(clips), 0)) if computed.dimensions is None else averaged(computed.dimensions)
    return averaged(computed.probability), dimensions


def sounding_windows(clip: np.ndarray) -> list[np.ndarray]:
    """Cut a recording [S] into windows of at most 30 s, without those of digital silence unless all are."""
    windows = cut_windows(clip)
    return [window for window in windows if not is_silent(window)] or windows


def calibrated(models: "Models") -> bool:
    """Return whether every model has a temperature, fitted on speakers that it was not trained on."""
    return all(model.settings.temperature is not None for model in models)


def output_of(model: "SerModel | OnnxModel", clips: Sequence[np.ndarray], means: np.ndarray | None, scaled: bool) -> OnnxOutputs:
    """Return what a model computes for N recordings, its probabilities [N, C] `scaled` by its temperature or as they are.

    An ONNX file has applied its temperature.
    """
    if isinstance(model, OnnxModel):
        return model.apply(clips)
    from speaker_invariant_ser.models.apply import apply_to_clips
    from speaker_invariant_ser.models.calibration import apply_temperature

    applied, temperature = apply_to_clips(model, clips, means), model.settings.temperature
    probability = apply_temperature(applied.probability, temperature) if scaled and temperature else applied.probability
    return OnnxOutputs(probability, applied.embedding, applied.code, applied.dimensions)


class Plots(Protocol):
    """Draws timelines of recordings, as `report.timeline.TimelinePlots` does."""

    def watch(self) -> Watch:
        """Return what looks at the blocks of a recording as they pass."""

    def draw(self, pending: Pending, labels: Sequence[str]) -> None:
        """Draw the timeline of a recording."""
