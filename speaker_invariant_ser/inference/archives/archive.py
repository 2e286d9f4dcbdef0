"""Predict an archive: any number of recordings, into a table that survives interruptions."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from speaker_invariant_ser import __version__
from speaker_invariant_ser.inference.archives.tables import Results, Summary, open_results
from speaker_invariant_ser.inference.archives.workers import Loading, default_jobs, predict_chunks, start_workers
from speaker_invariant_ser.inference.inputs import Input, digest_of
from speaker_invariant_ser.inference.onnx.model import OnnxModel
from speaker_invariant_ser.inference.predict import Predictor, chunks_of
from speaker_invariant_ser.inference.rows import Row
from speaker_invariant_ser.inference.settings import Settings

Bars = Callable[[], AbstractContextManager[Callable[[str, int, int], None]]]


def no_bars() -> AbstractContextManager[Callable[[str, int, int], None]]:
    """Show no progress."""
    return nullcontext(lambda task, done, total: None)


@dataclass(frozen=True)
class Archive:
    """Recordings, and the models and settings to predict them with.

    Attributes:
        predictor: Models and settings.
        loading: How other processes load the models.
        inputs: The recordings.
        models: What tells the models from others, see `loading.fingerprint`.
        jobs: Number of processes; None for as many as pay.
        bars: Shows progress.
    """

    predictor: Predictor
    loading: Loading
    inputs: list[Input]
    models: list[str]
    jobs: int | None = None
    bars: Bars = no_bars

    @property
    def request(self) -> dict[str, object]:
        """What the rows answer; another request has other rows."""
        schema, settings, mean = self.predictor.schema, self.predictor.settings, self.predictor.mean
        return {
            "version": __version__,
            "models": self.models,
            "model": schema.model,
            "settings": str(settings),
            "segments": segments_digest(settings),
            "inputs": digest_of(self.inputs),
            "mean": "" if mean is None else hashlib.sha256(mean.tobytes()).hexdigest(),  # of a speaker, in all shards
        }

    def write(self, path: Path, overwrite: bool = False, embeddings: Path | None = None) -> Results:
        """Write a table, from where an interrupted call with the same request stopped.

        Args:
            path: The table.
            overwrite: Replace an earlier table.
            embeddings: File for embeddings (.npz).

        Returns:
            The table, with its summary.

        Raises:
            SerError: A path has another ending.
            WriteError: A file may not be replaced, or cannot be written.
        """
        with open_results(path, self.predictor.schema.columns, self.request, overwrite, embeddings) as results:
            jobs = self.jobs or default_jobs(len(self.inputs) - results.done.files, self.in_parallel)
            task = "predicting (continued)" if results.continued else "predicting"
            with start_workers(self.predictor, jobs, self.loading) as workers, self.bars() as progress:
                for chunk, rows in predict_chunks(self.predictor, chunks_of(self.inputs, results.done.files), workers):
                    results.add(len(chunk.items), rows)
                    progress(task, results.done.files, len(self.inputs))
        return results

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        jobs = self.jobs or default_jobs(len(self.inputs), self.in_parallel)
        with start_workers(self.predictor, jobs, self.loading) as workers, self.bars() as progress:
            for chunk, rows in predict_chunks(self.predictor, chunks_of(self.inputs), workers):
                yield from (result.row for result in rows)
                progress("predicting", chunk.first + len(chunk.items), len(self.inputs))

    @property
    def in_parallel(self) -> bool:
        """Whether several processes pay: on a CPU, which one process does not fill."""
        return all(
            isinstance(model, OnnxModel) or next(model.parameters()).device.type == "cpu" for model in self.predictor.models
        )


def segments_digest(settings: Settings) -> str:
    """Return a hash of the given segments; empty without any."""
    if settings.segments is None:
        return ""
    listed = [[str(path), [(each.start, each.end, each.speaker) for each in found]] for path, found in settings.segments.items()]
    return hashlib.sha256(json.dumps(sorted(listed)).encode()).hexdigest()


def summary_of(rows: "list[Row]") -> Summary:
    """Return the summary of rows."""
    summary = Summary()
    for row in rows:
        summary.add(row)
    return summary
