"""Write predictions as a table: .csv, .jsonl or .parquet."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from speaker_invariant_ser.errors import SerError, unknown
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.inference.predict import Row

TEXT_COLUMNS = ("path", "channel", "label", "notes", "error")

Write = Callable[[Row], object]


@contextmanager
def open_table(path: Path | str, labels: Sequence[str], channels: bool = False) -> Iterator[Write]:
    """Open a table of predictions for writing; the file appears when all rows are written.

    Args:
        path: The file; its ending (.csv, .jsonl, .parquet) is the format.
        labels: Emotions, in the order of the models.
        channels: Whether rows name their channel.

    Yields:
        A function that writes one row.

    Raises:
        SerError: Another ending.
        WriteError: The file cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise SerError(f"{path}: {unknown('ending', path.suffix, WRITERS)}")
    columns = ["path", *["channel"] * channels, "label", "confidence", *(f"p_{label}" for label in labels), "notes", "error"]
    with writing(path, "wb" if ending == ".parquet" else "w") as file, WRITERS[ending](file, columns) as write:
        yield write


@contextmanager
def csv_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write CSV with six decimals."""
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    yield lambda row: writer.writerow({name: f"{cell:.6f}" if isinstance(cell, float) else cell for name, cell in row.items()})


@contextmanager
def jsonl_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write one JSON object a line."""
    yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def parquet_writer(file: IO[Any], columns: Sequence[str]) -> Iterator[Write]:
    """Write Parquet; rows wait in memory, since the format stores them in large groups."""
    types = [(name, pyarrow.string() if name in TEXT_COLUMNS else pyarrow.float64()) for name in columns]
    rows: list[Row] = []
    yield rows.append
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), file)


WRITERS: dict[str, Callable[[IO[Any], Sequence[str]], AbstractContextManager[Write]]] = {
    ".csv": csv_writer,
    ".jsonl": jsonl_writer,
    ".parquet": parquet_writer,
}
