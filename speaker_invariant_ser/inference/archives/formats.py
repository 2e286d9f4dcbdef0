"""The formats of tables of predictions: .csv, .jsonl and .parquet.

Modules that import pyarrow are imported where they are needed: a single prediction is made sooner than they are.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from speaker_invariant_ser.data.manifest import DIMENSIONS
from speaker_invariant_ser.inference.rows import TIMES, Row
from speaker_invariant_ser.json_files import parse_json

if TYPE_CHECKING:
    import pyarrow

NUMBERS = ("confidence", *TIMES, *DIMENSIONS)
NEEDED = (
    {"file", "emotion", "confidence", "error"},
    {"path", "label", "confidence", "error"},
)  # the latter until 0.4
MAX_HEAD = 2**16  # bytes of the first line
GROUP = 10_000  # rows of Parquet written together

Write = Callable[[Row], object]


def is_table(path: Path, ending: str) -> bool:
    """Return whether a file is a table of predictions, by the names of its columns."""
    try:
        if not path.is_file():
            return False
        if ending == ".parquet":
            names = set(parquet_columns(path))
        else:
            with open(path, encoding="utf-8") as file:
                head = file.readline(MAX_HEAD)
            names = set(parse_json(head) if ending == ".jsonl" else next(csv.reader([head]), ()))
        return any(names >= needed for needed in NEEDED)
    except (OSError, ValueError, TypeError, csv.Error):
        return False


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file; none if it is none."""
    import pyarrow.parquet  # here, because other tables do without

    try:
        return pyarrow.parquet.read_schema(path).names
    except (OSError, pyarrow.ArrowException):
        return []


@contextmanager
def csv_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write CSV, probabilities with six decimals, seconds with three."""
    from speaker_invariant_ser.data.tables.columns import cell_for_people

    writer = csv.writer(file)
    writer.writerow([cell_for_people(name) for name in columns])
    yield lambda row: writer.writerow([csv_cell(name, row[name]) for name in columns])


def csv_cell(name: str, cell: str | float | bool | None) -> str | None:
    """Return how CSV has a cell of a column."""
    if isinstance(cell, str):
        from speaker_invariant_ser.data.tables.columns import cell_for_people

        return cell_for_people(cell)
    if isinstance(cell, bool):
        return str(cell).lower()
    return None if cell is None else f"{cell:.3f}" if name in TIMES else f"{cell:.6f}"


@contextmanager
def jsonl_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write one JSON object a line."""
    yield lambda row: file.write(json.dumps({name: row[name] for name in columns}, ensure_ascii=False) + "\n")


@contextmanager
def parquet_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write Parquet, in groups of rows."""
    import pyarrow.parquet

    schema = pyarrow.schema([(name, type_of(name)) for name in columns])
    group: list[Row] = []
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            group.clear()

        def write(row: Row) -> None:
            group.append(row)
            if len(group) == GROUP:
                flush()

        yield write
        if group:
            flush()


def type_of(name: str) -> "pyarrow.DataType":
    """Return the type of a column of Parquet."""
    import pyarrow

    if name in NUMBERS or name.startswith("p_"):
        return pyarrow.float64()
    return pyarrow.bool_() if name == "calibrated" else pyarrow.string()


WRITERS: dict[str, Callable[[IO[Any], Sequence[str]], AbstractContextManager[Write]]] = {
    ".csv": csv_writer,
    ".jsonl": jsonl_writer,
    ".parquet": parquet_writer,
}
