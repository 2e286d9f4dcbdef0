"""Predict an archive on a Ray cluster: chunks of recordings are mapped over actors that hold the models (extra `ray`).

Recordings and the folder of the result must have the same paths on all machines. The folder has

part-NNNNNNNNN.parquet   the rows of a chunk, numbered by its first recording
_request.json            what the rows answer; another request is refused. Readers of Parquet skip such names

Each part is written by the actor that predicted it, under a temporary name first. A second start predicts the chunks whose parts
are missing. Where a chunk fails again and again, each recording gets a hidden part of its own until all of the chunk are there.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from speaker_invariant_ser.errors import SetupError, WriteError
from speaker_invariant_ser.files import held, remove, write_errors, write_json, writing
from speaker_invariant_ser.inference.archives.archive import Archive
from speaker_invariant_ser.inference.archives.formats import parquet_columns, parquet_writer
from speaker_invariant_ser.inference.archives.tables import Summary
from speaker_invariant_ser.inference.archives.workers import DIED, Loading, predict_chunk, use_one_thread
from speaker_invariant_ser.inference.inputs import Input
from speaker_invariant_ser.inference.predict import Chunk, Predictor, chunks_of
from speaker_invariant_ser.inference.rows import Row
from speaker_invariant_ser.json_files import read_json
from speaker_invariant_ser.processes import cores

REQUEST, PART = "_request.json", "part-{:09}.parquet"
SINGLE = ".part-{:09}.single.parquet"  # of one recording of a chunk that failed
Progress = Callable[[str, int, int], None]
PACKAGES = Path(__file__).parents[3]  # the folder that this package is in
ATTEMPTS = ".{}.attempts"  # of a part: a byte for each time that an actor began it


class ChunkPredictor:
    """An actor that predicts chunks and writes their parts.

    Args:
        predictor: Settings, without models.
        loading: How to load the models.
        out: Folder of the parts.
        folder: Current folder of the caller, for relative paths.
        name: Name of a part, `PART` or `SINGLE`.
    """

    retries = 2  # of a chunk that ended its actor, before its recordings are predicted one by one

    def __init__(self, predictor: Predictor, loading: Loading, out: Path, folder: Path, name: str = PART) -> None:
        os.chdir(folder)
        use_one_thread()
        self.predictor, self.out, self.name = replace(predictor, models=loading.models()), out, name

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict the chunks of a batch; return the number of recordings of each, 0 for one that was given up."""
        chunks = [json.loads(text) for text in batch["chunk"]]
        parsed = [Chunk(first, [Input(Path(path), reason) for path, reason in items]) for first, items in chunks]
        return {"recordings": np.array([len(chunk.items) if self.attempt(chunk) else 0 for chunk in parsed])}

    def attempt(self, chunk: Chunk) -> bool:
        """Predict a chunk and write its part, unless it ended an actor more than `retries` times; return whether it did.

        Ray starts an ended actor again and gives it the same chunk without end, so that attempts are counted here.
        """
        part = self.name.format(chunk.first)
        attempts = self.out / ATTEMPTS.format(part)
        if attempts.is_file() and attempts.stat().st_size > self.retries:
            return False
        with open(attempts, "ab") as file:
            file.write(b".")
        self.predict(chunk, self.out / part)
        remove(attempts)
        return True

    def predict(self, chunk: Chunk, path: Path) -> None:
        """Predict a chunk and write its part."""
        write_part(path, self.predictor, [result.row for result in predict_chunk(self.predictor, chunk)])


def write_part(path: Path, predictor: Predictor, rows: Sequence[Row]) -> None:
    """Write the rows of a chunk."""
    with writing(path, "wb") as file, parquet_writer(file, predictor.schema.columns) as write:
        for row in rows:
            write(row)


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
    import_ray()  # before the folder is made
    with held(out), write_errors(out):
        prepare_folder(out, archive, overwrite)
        chunks = list(chunks_of(archive.inputs))
        remove_damaged(out, chunks, archive.predictor.schema.columns)
        with ray_cluster(archive.jobs) as ray, archive.bars() as progress:
            map_chunks(ray, archive, missing(out, chunks), out, progress)
            failed = missing(out, chunks)
            alone = [single for chunk in failed for single in singles_of(chunk)]
            map_until_settled(ray, archive, alone, out, progress)
        for chunk in failed:
            rows = [row for single in singles_of(chunk) for row in rows_of_single(out, archive.predictor, single)]
            write_part(out / PART.format(chunk.first), archive.predictor, rows)
        for path in out.glob(SINGLE.replace("{:09}", "*")):
            remove(path)
    return summary_of_parts(out)


def map_until_settled(ray: Any, archive: Archive, singles: Sequence[Chunk], out: Path, progress: Progress) -> None:
    """Predict single recordings until a pass adds none: another may have ended the actor that one waited for."""
    waiting = missing(out, singles, SINGLE)
    while waiting:
        map_chunks(ray, archive, waiting, out, progress, SINGLE)
        before, waiting = len(waiting), missing(out, waiting, SINGLE)
        if len(waiting) == before:
            return


def singles_of(chunk: Chunk) -> list[Chunk]:
    """Return each recording of a chunk as a chunk of its own."""
    return [Chunk(chunk.first + index, [item]) for index, item in enumerate(chunk.items)]


def rows_of_single(out: Path, predictor: Predictor, single: Chunk) -> list[Row]:
    """Return the rows of a recording that was predicted alone; without a part, it has ended its actor each time."""
    path = out / SINGLE.format(single.first)
    if path.is_file():
        return pyarrow.parquet.read_table(path).to_pylist()
    return [result.row for result in predict_chunk(predictor, Chunk(single.first, [Input(single.items[0].path, DIED)]))]


def prepare_folder(out: Path, archive: Archive, overwrite: bool) -> None:
    """Make the folder, or check that it holds parts of the same request."""
    request = archive.request
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in found if name != REQUEST and not (name.startswith("part-") and name.endswith(".parquet"))]
    foreign = [name for name in foreign if not name.startswith((".part-", "..part-"))]  # not complete, or of single recordings
    if foreign or (found and REQUEST not in found):
        raise WriteError(f"{out} holds other files, such as {(foreign or found)[0]}: choose a new folder")
    if found and not is_request(out / REQUEST, request):
        if not overwrite:
            raise WriteError(
                f"{out} holds predictions of other recordings, models or settings: replace them with --overwrite, or choose "
                "another --out"
            )
        for name in found:
            remove(out / name)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / REQUEST, request)


def is_request(path: Path, request: dict[str, object]) -> bool:
    """Return whether a file holds this request."""
    try:
        return read_json(path) == json.loads(json.dumps(request))
    except (OSError, ValueError):
        return False


def remove_damaged(out: Path, chunks: Sequence[Chunk], names: Sequence[str]) -> None:
    """Remove parts that cannot be read or have other columns, so that they are predicted again.

    Raises:
        WriteError: There is a part of none of these chunks.
    """
    known = {PART.format(chunk.first) for chunk in chunks}
    for path in sorted(out.glob("part-*.parquet")):
        if path.name not in known:
            raise WriteError(f"{out} holds {path.name}, which is no part of these recordings: choose a new folder")
        if parquet_columns(path) != list(names):
            remove(path)


def missing(out: Path, chunks: Sequence[Chunk], name: str = PART) -> list[Chunk]:
    """Return the chunks that have no part of such a name yet."""
    return [chunk for chunk in chunks if not (out / name.format(chunk.first)).is_file()]


def import_ray() -> Any:
    """Import Ray; raise SetupError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise SetupError("--engine ray needs Ray: pip install 'speaker-invariant-ser[ray]'") from None
    return ray


@contextmanager
def ray_cluster(jobs: int | None) -> Iterator[Any]:
    """Connect to the cluster that RAY_ADDRESS names, or start a local one; end the connection, and what was started.

    Raises:
        SetupError: Ray is not installed.
    """
    ray = import_ray()
    local = not os.environ.get("RAY_ADDRESS")
    processors = jobs or cores() if local else None  # a cluster knows its own
    system = {"worker_niceness": 0} if local else None  # with Ray's 15, whatever else the machine does goes first
    if not ray.is_initialized():
        with chdir(PACKAGES):  # actors import from the current folder first, which may be a corpus from anybody with a `torch.py`
            ray.init(
                num_cpus=processors,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _system_config=system,
            )
    try:
        yield ray
    finally:
        ray.shutdown()


def map_chunks(
    ray: Any,
    archive: Archive,
    chunks: Sequence[Chunk],
    out: Path,
    progress: Progress,
    name: str = PART,
) -> None:
    """Predict chunks on actors, into parts of such a name; those whose actors end again and again stay without one."""
    if not chunks:
        return
    remove_attempts(out)
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # what Ray Data says of its work is not for users of `siser`
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    actors = min(archive.jobs or int(ray.cluster_resources().get("CPU", 1)), len(chunks))
    rows = [{"chunk": json.dumps([chunk.first, [(str(item.path), item.reason) for item in chunk.items]])} for chunk in chunks]
    loading = replace(archive.loading, source=Path(os.path.abspath(archive.loading.source)))
    predicted = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        ChunkPredictor,
        fn_constructor_args=(replace(archive.predictor, models=()), loading, out, Path.cwd(), name),
        batch_size=1,
        compute=ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),  # none waits behind one that ends the actor
        num_cpus=1,
    )
    done = len(archive.inputs) - sum(len(chunk.items) for chunk in chunks)
    for row in predicted.iter_rows():
        done += int(row["recordings"])
        progress("predicting", done, len(archive.inputs))
    remove_attempts(out)


def remove_attempts(out: Path) -> None:
    """Remove the counts of attempts of this or an interrupted call."""
    for path in out.glob(ATTEMPTS.format("*")):
        remove(path)


def summary_of_parts(out: Path) -> Summary:
    """Return the summary of all parts."""
    summary = Summary()
    for path in sorted(out.glob("part-*.parquet")):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            summary.add(row)
    return summary
