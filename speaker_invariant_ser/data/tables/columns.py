"""Read tables as columns of text: CSV, TSV and Parquet. No type is inferred unless the caller names one."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from speaker_invariant_ser.errors import ManifestError, shorten


def read_rows(path: Path | str, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read the rows of a table as text, by column name and without surrounding blanks.

    Raises:
        ManifestError: The table cannot be read, or one of the `needed` columns is missing.
    """
    columns = read_columns(path, {})
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ManifestError(f"{path}: no column {', '.join(missing)}; found {shorten(columns, 10)}")
    return [dict(zip(columns, map(str.strip, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def read_columns(path: Path | str, types: dict[str, pyarrow.DataType]) -> dict[str, list]:
    """Read the columns of a table by name.

    Args:
        path: Parquet (.parquet), tab-separated text (.tsv) or comma-separated text (any other suffix), in UTF-8.
        types: Types of numeric columns; all other columns are text, no type is inferred.

    Returns:
        The cells of each column; missing cells are empty strings. Bytes that are not UTF-8 are kept as surrogates, so that they
        matter only in columns that are used.

    Raises:
        ManifestError: The table does not exist or cannot be read, or a column name occurs twice.
    """
    if Path(path).suffix.lower() == ".parquet":
        return read_parquet(path)
    quoting = Path(path).suffix.lower() != ".tsv"  # a quotation mark in a .tsv is an ordinary character
    delimiter = "," if quoting else "\t"
    if Path(path).exists() and not Path(path).is_file():
        raise ManifestError(f"{path} is not a regular file, expected a CSV table")
    try:
        names, lines = read_header(path, delimiter)
        require_unique_columns(names, path)
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: types.get(name, pyarrow.string()) for name in names},
            strings_can_be_null=False,
            check_utf8=False,
        )
        with open(path, "rb") as file:  # opened here, because pyarrow interprets some paths itself
            table = pyarrow.csv.read_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=lines, use_threads=False),
                convert_options=convert,
                parse_options=pyarrow.csv.ParseOptions(
                    newlines_in_values=quoting, delimiter=delimiter, quote_char='"' if quoting else False
                ),
            )
    except FileNotFoundError:
        raise ManifestError(f"no such table: {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowInvalid) as error:
        raise ManifestError(f"{path} cannot be read as a CSV table in UTF-8: {error}") from None
    return {name: shared_texts(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def shared_texts(column: pyarrow.ChunkedArray) -> list:
    """Return the cells of a column, equal texts as one object to save memory."""
    if not pyarrow.types.is_string(column.type):
        return column.to_pylist()
    texts: dict[str, str] = {}
    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:
        cells = [cell.decode("utf-8", "surrogateescape") for cell in column.cast(pyarrow.binary()).to_pylist()]
    return [texts.setdefault(cell, cell) for cell in cells]


def read_parquet(path: Path | str) -> dict[str, list[str]]:
    """Read the columns of a Parquet file as text, whatever their types; raise ManifestError."""
    try:
        with open(path, "rb") as file:
            table = pyarrow.parquet.read_table(file)
        plain = [field.name for field in table.schema if not pyarrow.types.is_nested(field.type)]
        texts = [pyarrow.compute.fill_null(table[name].cast(pyarrow.string()), "") for name in plain]
    except FileNotFoundError:
        raise ManifestError(f"no such table: {path}") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise ManifestError(
            f"{path} cannot be read as a Parquet table of text and numbers ({error}); for audio in a Hugging Face dataset use "
            "`siser prepare datasets`, after save_to_disk"
        ) from None
    require_unique_columns([name.strip() for name in plain], path)
    return {name.strip(): text.to_pylist() for name, text in zip(plain, texts, strict=True)}


def require_unique_columns(names: Sequence[str], path: Path | str) -> None:
    """Raise ManifestError if a column name occurs twice."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ManifestError(f"{path}: column {shorten(repeated)} occurs more than once")


def read_header(path: Path | str, delimiter: str) -> tuple[list[str], int]:
    """Return a CSV file's column names without surrounding blanks, and the number of their line; empty lines may precede it."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE)
        first = next((row for row in rows if row), [])
        names = [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in first]
        if any("\0" in name for name in names):
            raise ManifestError(
                f"{path} cannot be read as a CSV table in UTF-8: it is UTF-16 or not a text; save it as CSV in UTF-8"
            )
        return [name.strip() for name in names], rows.line_num
