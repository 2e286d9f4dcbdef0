"""Write predictions as a table: .csv, .jsonl or .parquet."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from speaker_invariant_ser.errors import SerError, WriteError, unknown
from speaker_invariant_ser.files import cell_for_people, held, writing
from speaker_invariant_ser.inference.predict import Row

TYPES = {name: pyarrow.string() for name in ("path", "channel", "label", "notes", "error")} | {"calibrated": pyarrow.bool_()}
NEEDED = {"path", "label", "confidence", "error"}  # columns of every table of predictions, those of 0.1.0 included
MAX_HEAD = 2**16  # bytes of the first line

Write = Callable[[Row], object]


@contextmanager
def open_table(path: Path | str, labels: Sequence[str], channels: bool = False, overwrite: bool = False) -> Iterator[Write]:
    """Open a table of predictions for writing; the file appears when all rows are written.

    Args:
        path: The file; its ending (.csv, .jsonl, .parquet) is the format.
        labels: Emotions, in the order of the models.
        channels: Whether rows name their channel.
        overwrite: As for `require_table`.

    Yields:
        A function that writes one row.

    Raises:
        SerError: Another ending.
        WriteError: The file may not be replaced, cannot be written, or another process is writing it.
    """
    path = Path(path)
    ending = require_table(path, overwrite)
    probabilities = [f"p_{label}" for label in labels]
    columns = ["path", *["channel"] * channels, "label", "confidence", *probabilities, "calibrated", "notes", "error"]
    mode = "wb" if ending == ".parquet" else "w"
    with held(path), writing(path, mode) as file, WRITERS[ending](file, columns) as write:
        yield write


def require_table(path: Path, overwrite: bool) -> str:
    """Return the ending of a table that may be written: of a new file, or of an earlier table of predictions.

    Args:
        path: The table.
        overwrite: Whether an earlier table may be replaced; any other file never is.

    Raises:
        SerError: Another ending.
        WriteError: The file may not be replaced.
    """
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise SerError(f"{path}: {unknown('ending', path.suffix, WRITERS)}")
    if path.exists() and not path.is_dir():  # a folder is refused where the file is written
        if not is_table(path, ending):
            raise WriteError(f"{path} exists already and is no table of predictions, so it is not replaced: choose another --out")
        if not overwrite:
            raise WriteError(f"{path} is a table of predictions already: replace it with --overwrite, or choose another --out")
    return ending


def is_table(path: Path, ending: str) -> bool:
    """Return whether a file is a table of predictions, by the names of its columns."""
    try:
        if not path.is_file():
            return False
        if ending == ".parquet":
            return set(pyarrow.parquet.read_schema(path).names) >= NEEDED
        with open(path, encoding="utf-8") as file:
            head = file.readline(MAX_HEAD)
        return set(json.loads(head) if ending == ".jsonl" else next(csv.reader([head]), ())) >= NEEDED
    except (OSError, ValueError, TypeError, RecursionError, csv.Error, pyarrow.ArrowException):
        return False


@contextmanager
def csv_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write CSV, numbers with six decimals."""
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    yield lambda row: writer.writerow({name: csv_cell(cell) for name, cell in row.items()})


def csv_cell(cell: str | float | bool | None) -> str | None:
    """Return how CSV has a cell."""
    if isinstance(cell, str):
        return cell_for_people(cell)
    return str(cell).lower() if isinstance(cell, bool) else f"{cell:.6f}" if isinstance(cell, float) else cell


@contextmanager
def jsonl_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write one JSON object a line."""
    yield lambda row: file.write(json.dumps({name: row[name] for name in columns}, ensure_ascii=False) + "\n")


@contextmanager
def parquet_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write Parquet; rows wait in memory, since the format stores them in large groups."""
    types = [(name, TYPES.get(name, pyarrow.float64())) for name in columns]
    rows: list[Row] = []
    yield rows.append
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), file)


WRITERS: dict[str, Callable[[IO[Any], Sequence[str]], AbstractContextManager[Write]]] = {
    ".csv": csv_writer,
    ".jsonl": jsonl_writer,
    ".parquet": parquet_writer,
}
