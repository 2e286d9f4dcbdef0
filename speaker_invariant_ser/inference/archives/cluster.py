"""Predict an archive on a Ray cluster: chunks of recordings are mapped over actors that hold the models (extra `ray`).

Recordings and the folder of the result must have the same paths on all machines. The folder has

part-NNNNNNNNN.parquet   the rows of a chunk, numbered by its first recording
request.json             what the rows answer; another request is refused

Each part is written by the actor that predicted it, under a temporary name first. A second start predicts the chunks whose parts
are missing.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from speaker_invariant_ser.errors import SetupError, WriteError
from speaker_invariant_ser.files import held, read_json, remove, write_errors, write_json, writing
from speaker_invariant_ser.inference.archives.archive import Archive
from speaker_invariant_ser.inference.archives.formats import parquet_writer
from speaker_invariant_ser.inference.archives.tables import Summary
from speaker_invariant_ser.inference.archives.workers import DIED, Loading, predict_chunk, use_one_thread
from speaker_invariant_ser.inference.inputs import Input
from speaker_invariant_ser.inference.predict import Chunk, Predictor, chunks_of
from speaker_invariant_ser.inference.rows import Result, columns
from speaker_invariant_ser.processes import cores

REQUEST, PART = "request.json", "part-{:09}.parquet"
RETRIES = 2  # of a chunk whose actor ended, before its recordings are predicted one by one


class ChunkPredictor:
    """An actor that predicts chunks and writes their parts.

    Args:
        predictor: Settings, without models.
        loading: How to load the models.
        out: Folder of the parts.
        folder: Current folder of the caller, for relative paths.
    """

    def __init__(self, predictor: Predictor, loading: Loading, out: Path, folder: Path) -> None:
        os.chdir(folder)
        use_one_thread()
        self.predictor, self.out = replace(predictor, models=loading.models()), out

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict the chunks of a batch; return the number of recordings of each."""
        for text in batch["chunk"]:
            first, items = json.loads(text)
            chunk = Chunk(first, [Input(Path(path), reason) for path, reason in items])
            write_part(self.out, first, self.predictor, predict_chunk(self.predictor, chunk))
        return {"recordings": np.array([len(json.loads(text)[1]) for text in batch["chunk"]])}


def write_part(out: Path, first: int, predictor: Predictor, results: Sequence[Result]) -> None:
    """Write the rows of a chunk."""
    names = columns(predictor.schema.labels)
    with writing(out / PART.format(first), "wb") as file, parquet_writer(file, names) as write:
        for result in results:
            write(result.row)


def predict_on_ray(archive: Archive, out: Path, overwrite: bool = False) -> Summary:
    """Predict an archive on the cluster that RAY_ADDRESS names, or on a local one.

    Args:
        archive: Recordings, models and settings; its `jobs` is the number of actors, by default one for each CPU of the cluster.
        out: Folder for the parts.
        overwrite: Replace parts of another request.

    Raises:
        SetupError: Ray is not installed.
        WriteError: The folder holds something else, or another process is writing it.
    """
    out = Path(os.path.abspath(out))
    with held(out), write_errors(out):
        prepare_folder(out, archive, overwrite)
        with ray_cluster(archive.jobs) as ray, archive.bars() as progress:
            map_chunks(ray, archive, missing(out, list(chunks_of(archive.inputs))), out, progress)
            alone = [
                Chunk(chunk.first + index, [item])
                for chunk in missing(out, list(chunks_of(archive.inputs)))
                for index, item in enumerate(chunk.items)
            ]
            map_chunks(ray, archive, missing(out, alone), out, progress)
        for chunk in missing(out, alone):
            unusable = Chunk(chunk.first, [Input(chunk.items[0].path, DIED)])
            write_part(out, chunk.first, archive.predictor, predict_chunk(archive.predictor, unusable))
    return summary_of_parts(out)


def prepare_folder(out: Path, archive: Archive, overwrite: bool) -> None:
    """Make the folder, or check that it holds parts of the same request."""
    request = archive.request
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in found if name != REQUEST and not (name.startswith("part-") and name.endswith(".parquet"))]
    foreign = [name for name in foreign if not name.startswith(".part-")]  # what a killed actor left
    if foreign or (found and REQUEST not in found):
        raise WriteError(f"{out} holds other files, such as {(foreign or found)[0]}: choose a new folder")
    if found and read_json(out / REQUEST) != json.loads(json.dumps(request)):
        if not overwrite:
            raise WriteError(
                f"{out} holds predictions of other recordings, models or settings: replace them with --overwrite, or choose "
                "another --out"
            )
        for name in found:
            remove(out / name)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / REQUEST, request)


def missing(out: Path, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return the chunks that have no part yet."""
    return [chunk for chunk in chunks if not (out / PART.format(chunk.first)).is_file()]


@contextmanager
def ray_cluster(jobs: int | None) -> Iterator[Any]:
    """Connect to the cluster that RAY_ADDRESS names, or start a local one; end the connection, and what was started.

    Raises:
        SetupError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise SetupError("--engine ray needs Ray: pip install 'speaker-invariant-ser[ray]'") from None
    local = not os.environ.get("RAY_ADDRESS")
    processors = jobs or cores() if local else None  # a cluster knows its own
    system = {"worker_niceness": 0} if local else None  # with Ray's 15, whatever else the machine does goes first
    if not ray.is_initialized():
        ray.init(
            num_cpus=processors, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, _system_config=system
        )
    try:
        yield ray
    finally:
        ray.shutdown()


def map_chunks(ray: Any, archive: Archive, chunks: Sequence[Chunk], out: Path, progress: Callable[[str, int, int], None]) -> None:
    """Predict chunks on actors; those whose actors end again and again stay without a part."""
    if not chunks:
        return
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    actors = min(archive.jobs or int(ray.cluster_resources().get("CPU", 1)), len(chunks))
    rows = [{"chunk": json.dumps([chunk.first, [(str(item.path), item.reason) for item in chunk.items]])} for chunk in chunks]
    loading = replace(archive.loading, source=Path(os.path.abspath(archive.loading.source)))
    predicted = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        ChunkPredictor,
        fn_constructor_args=(replace(archive.predictor, models=()), loading, out, Path.cwd()),
        batch_size=1,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=RETRIES,
    )
    done = len(archive.inputs) - sum(len(chunk.items) for chunk in chunks)
    for row in predicted.iter_rows():
        done += int(row["recordings"])
        progress("predicting", done, len(archive.inputs))


def summary_of_parts(out: Path) -> Summary:
    """Return the summary of all parts."""
    summary = Summary()
    for path in sorted(out.glob("part-*.parquet")):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            summary.add(row)
    return summary
