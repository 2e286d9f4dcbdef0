"""Predict chunks of recordings in worker processes, in order; a recording that ends its worker costs its own row only."""

import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.inference.inputs import Input
from speaker_invariant_ser.inference.loading import is_onnx, load_models
from speaker_invariant_ser.inference.predict import Chunk, Predictor
from speaker_invariant_ser.inference.rows import Result, rows_of
from speaker_invariant_ser.processes import cores, set_up_worker

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.loading import Models

AHEAD = 2  # chunks for each worker that may be done or in progress before the first of them is written: bounds memory
MIN_PARALLEL = 64  # recordings for each worker, for fewer it does not pay
DIED = "the process that predicted it ended without a result: its decoder failed, or memory ran out"


@dataclass(frozen=True)
class Loading:
    """How to load models: as the arguments of `load_models`."""

    source: Path
    fold: str | None = None
    device: str = "auto"
    one_speaker: bool = False

    def models(self) -> "Models":
        """Load them."""
        return load_models(self.source, self.fold, self.device, self.one_speaker)


def default_jobs(recordings: int, parallel: bool = True) -> int:
    """Return how many processes to use for so many recordings, if nobody says."""
    return max(1, min(cores(), recordings // MIN_PARALLEL)) if parallel else 1


def predict_chunk(predictor: Predictor, chunk: Chunk) -> list[Result]:
    """Return the rows of a chunk of recordings, and draw their timelines if wanted."""
    results: list[Result] = []
    for pending in predictor.recordings(chunk):
        results += rows_of(pending, predictor.schema)
        if predictor.plots:
            predictor.plots.draw(pending, predictor.schema.labels)
    return results


@contextmanager
def start_workers(predictor: Predictor, jobs: int, loading: Loading) -> "Iterator[Workers | None]":
    """Start processes that predict; yield None for one job, which needs no process. Call this before a second thread runs."""
    if jobs == 1:
        yield None
        return
    workers = Workers(predictor, jobs, loading)
    try:
        yield workers
    finally:
        workers.end()


def predict_chunks(
    predictor: Predictor, chunks: Iterator[Chunk], workers: "Workers | None" = None
) -> Iterator[tuple[Chunk, list[Result]]]:
    """Yield the rows of chunks of recordings, in order.

    Args:
        predictor: Models and settings.
        chunks: Recordings.
        workers: Processes of `start_workers`; without, chunks are predicted in this one.
    """
    if workers is None:
        yield from ((chunk, predict_chunk(predictor, chunk)) for chunk in chunks)
        return
    queue: deque[tuple[Chunk, Future[list[Result]]]] = deque()
    for chunk in chunks:
        queue.append((chunk, workers.submit(chunk)))
        if len(queue) == AHEAD * workers.jobs:
            yield workers.finish(queue)
    while queue:
        yield workers.finish(queue)


class Workers:
    """Processes that predict chunks, replaced when one of them ends.

    Args:
        predictor: Models and settings.
        jobs: Number of processes.
        loading: How they load the models.
    """

    def __init__(self, predictor: Predictor, jobs: int, loading: Loading) -> None:
        self.predictor, self.jobs, self.loading = predictor, jobs, loading
        # Forked processes have the models already. Where other threads may hold locks, processes are new and load their own.
        used = predictor.mean is not None or is_onnx(loading.source)
        self.fork = sys.platform == "linux" and threading.active_count() == 1 and not used
        self.pool = self.start()

    def start(self) -> ProcessPoolExecutor:
        """Start the processes."""
        if self.fork:
            pool = ProcessPoolExecutor(self.jobs, get_context("fork"), initializer=set_up_forked, initargs=(self.predictor,))
            with warnings.catch_warnings():  # threads of linear algebra libraries are safe to fork
                warnings.simplefilter("ignore", DeprecationWarning)
                pool.submit(os.getpid)
            return pool
        bare = replace(self.predictor, models=())
        return ProcessPoolExecutor(self.jobs, get_context("spawn"), initializer=set_up_loading, initargs=(bare, self.loading))

    def end(self) -> None:
        """End the processes; what waits is not begun."""
        self.pool.shutdown(cancel_futures=True)

    def submit(self, chunk: Chunk) -> Future[list[Result]]:
        """Let a process predict a chunk."""
        try:
            return self.pool.submit(predict_here, chunk)
        except BrokenProcessPool as error:
            failed: Future[list[Result]] = Future()
            failed.set_exception(error)
            return failed

    def finish(self, queue: "deque[tuple[Chunk, Future[list[Result]]]]") -> tuple[Chunk, list[Result]]:
        """Take the first chunk from the queue and return its rows."""
        chunk, future = queue.popleft()
        try:
            return chunk, future.result()
        except BrokenProcessPool:
            self.restart()
        results = [result for item in chunk.items for result in self.alone(item)]
        queue.extend([(other, self.submit(other)) for other, _ in [queue.popleft() for _ in range(len(queue))]])
        return chunk, results

    def restart(self) -> None:
        """Replace the processes."""
        self.end()
        self.fork = False
        self.pool = self.start()

    def alone(self, item: Input) -> Sequence[Result]:
        """Return the rows of one recording; where that ends its process again, a row with this error."""
        try:
            return self.submit(Chunk(0, [item])).result()
        except BrokenProcessPool:
            self.restart()
        return predict_chunk(self.predictor, Chunk(0, [Input(item.path, DIED)]))


PREDICTOR: list[Predictor] = []  # that of a worker process


def set_up_forked(predictor: Predictor) -> None:
    """Set up a worker process that has the models."""
    set_up_worker()
    use_one_thread()
    PREDICTOR[:] = [predictor]


def set_up_loading(predictor: Predictor, loading: Loading) -> None:
    """Set up a worker process that loads the models."""
    set_up_worker()
    if not is_onnx(loading.source):
        use_one_thread()
    PREDICTOR[:] = [replace(predictor, models=loading.models())]


def use_one_thread() -> None:
    """Let torch use one thread: the processes share the cores."""
    import torch

    torch.set_num_threads(1)


def predict_here(chunk: Chunk) -> list[Result]:
    """Return the rows of a chunk, in a worker process."""
    if not PREDICTOR:
        raise SerError("a worker process has no models")
    return predict_chunk(PREDICTOR[0], chunk)
