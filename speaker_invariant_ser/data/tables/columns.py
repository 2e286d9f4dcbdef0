"""Tables as columns of text: CSV, TSV and Parquet are read without inferring types that the caller does not name."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from speaker_invariant_ser.data.formats.content import mistaken
from speaker_invariant_ser.data.tables.names import clean
from speaker_invariant_ser.data.tables.whole_numbers import require_exact
from speaker_invariant_ser.errors import ManifestError, shorten
from speaker_invariant_ser.files import require_regular
from speaker_invariant_ser.processes import available_memory, memory_limited

TABLE = "a CSV table in UTF-8"
MAX_HEADER, MAX_EMPTY_LINES = 50_000_000, 1000  # characters of a line of names, and lines before it
MAX_ROW = 16_000_000  # bytes of a row of a text table
CELL_BYTES = 64  # of a cell that is read as text, about
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # how cells begin that spreadsheets compute, also after blanks; or full-width
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
DECIMAL_COMMA, THOUSANDS = r"^\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*$", r"^\s*[+-]?[1-9]\d?\d?,\d{3}\s*$"


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
        path: Parquet (.parquet), text separated by tabs (.tsv), or text separated as `separator_of` says (any other suffix), in
            UTF-8.
        types: Types of numeric columns; all other columns are text, no type is inferred.

    Returns:
        The cells of each column; missing cells are empty strings. Bytes that are not UTF-8 are kept as surrogates, so that they
        matter only in columns that are used.

    Raises:
        ManifestError: The table does not exist or cannot be read, or a column name occurs twice.
    """
    with enough_memory(path):
        return read_parquet(path) if Path(path).suffix.lower() == ".parquet" else read_text_columns(path, types)


def read_text_columns(path: Path | str, types: dict[str, pyarrow.DataType]) -> dict[str, list]:
    """Read the columns of a CSV or TSV file, as `read_columns` does."""
    quoting = Path(path).suffix.lower() != ".tsv"  # a quotation mark in a .tsv is an ordinary character
    if Path(path).is_dir():
        raise ManifestError(f"{path} is a folder, expected a CSV table")
    require_regular(path)
    if wrong := mistaken(path, TABLE):
        raise ManifestError(wrong)
    try:
        delimiter = separator_of(path) if quoting else "\t"
        names, lines, ended = read_header(path, delimiter, quoting)
        require_unique_columns(names, path)
        if not names:
            raise ManifestError(f"{path} is empty, expected {TABLE}")
        if ended:
            return {name: [] for name in names}
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: types.get(name, pyarrow.string()) for name in names},
            strings_can_be_null=False,
            check_utf8=False,
        )
        with open(path, "rb") as file:  # opened here, because pyarrow interprets some paths itself
            table = pyarrow.csv.read_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=lines, use_threads=False, block_size=MAX_ROW),
                convert_options=convert,
                parse_options=pyarrow.csv.ParseOptions(
                    newlines_in_values=quoting, delimiter=delimiter, quote_char='"' if quoting else False
                ),
            )
    except FileNotFoundError:
        raise ManifestError(f"no such table: {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowInvalid) as error:
        if "straddl" in str(error):
            long = f"a row of more than {MAX_ROW / 1e6:.0f} MB; perhaps a quotation mark is not closed"
            raise ManifestError(f"{path} cannot be read as {TABLE}: {long}") from None
        hint = separator_hint(names) if isinstance(error, pyarrow.ArrowInvalid) else ""
        raise ManifestError(f"{path} cannot be read as {TABLE}: {error}{hint}") from None
    if quoting:
        require_closed_quotes(table, path, delimiter)
    texts = map(with_decimal_points, table.columns) if delimiter == ";" else table.columns
    return {name: shared_texts(column) for name, column in zip(table.column_names, texts, strict=True)}


def separator_of(path: Path | str) -> str:
    """Return what separates the columns of a CSV table: the most frequent of comma, semicolon and tab in the line of their names.

    Spreadsheets write semicolons where the comma is the decimal sign, as in most of Europe.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        names = next((line for line in first_lines(file, path) if line.strip("\r\n")), "")
    return max(",;\t", key=re.sub(r'"[^"]*"?', "", names).count)


def with_decimal_points(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Return a column of numbers with decimal commas with points instead; others, and what may be thousands (1,000), as they are.

    >>> cells = pyarrow.chunked_array([["0,5", "12", "-1,25e3", ""], ["2,000"]])
    >>> with_decimal_points(cells).to_pylist(), with_decimal_points(pyarrow.chunked_array([["a,1", "1,5"]])).to_pylist()
    (['0.5', '12', '-1.25e3', '', '2.000'], ['a,1', '1,5'])
    """
    if not pyarrow.types.is_string(column.type):
        return column
    commas = column.filter(pyarrow.compute.match_substring(column, ","))
    decimal, thousands = (pyarrow.compute.match_substring_regex(commas, pattern) for pattern in (DECIMAL_COMMA, THOUSANDS))
    if not pyarrow.compute.all(decimal).as_py() or pyarrow.compute.all(thousands).as_py():
        return column
    return pyarrow.compute.replace_substring(column, ",", ".")


def require_closed_quotes(table: pyarrow.Table, path: Path | str, delimiter: str) -> None:
    """Raise ManifestError where rows are part of a cell, because the quotation mark at its begin is not closed."""
    texts = [column for column in table.columns if pyarrow.types.is_string(column.type)]
    if not any(pyarrow.compute.any(pyarrow.compute.match_substring(column, "\n")).as_py() for column in texts):
        return
    start, limit = 1, csv.field_size_limit(MAX_ROW)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            for _ in rows:
                start = rows.line_num + 1
    except csv.Error:
        raise ManifestError(
            f"{path}: line {start}: a quotation mark that begins a cell is not closed, so that what follows is part of the cell; "
            'close it, or write """Hm" for "Hm'
        ) from None
    finally:
        csv.field_size_limit(limit)


def separator_hint(names: Collection[str]) -> str:
    """Return a remark on the separator of a table whose columns have these names, "" if they show no other one.

    >>> separator_hint(["path;speaker"]), separator_hint(["path", "speaker"])
    (' (separated otherwise? Tabs are expected in a .tsv; commas, semicolons or tabs in a .csv)', '')
    """
    if not any(sign in name for name in names for sign in (",;\t" if len(names) == 1 else ";\t")):
        return ""
    return " (separated otherwise? Tabs are expected in a .tsv; commas, semicolons or tabs in a .csv)"


def shared_texts(column: pyarrow.ChunkedArray) -> list:
    """Return the cells of a column, equal texts as one object to save memory."""
    if not pyarrow.types.is_string(column.type):
        return column.to_pylist()
    texts: dict[str, str] = {}
    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:
        cells = decoded(column.cast(pyarrow.binary()))
    return [texts.setdefault(cell, cell) for cell in cells]


def decoded(column: pyarrow.ChunkedArray) -> list[str]:
    """Return bytes as text, those that are not UTF-8 as surrogates, and missing cells as empty text."""
    return [(cell or b"").decode("utf-8", "surrogateescape") for cell in column.to_pylist()]


def read_parquet(path: Path | str) -> dict[str, list[str]]:
    """Read the columns of a Parquet file as text, whatever their types, but for nested ones; raise ManifestError."""
    with parquet_errors(path):
        table = open_parquet(path)
        plain = [field.name for field in table.schema if not pyarrow.types.is_nested(storage(field.type))]
        texts = [parquet_texts(table[name]) for name in plain]
    require_unique_columns([clean(name) for name in plain], path)
    return {clean(name): text for name, text in zip(plain, texts, strict=True)}


def parquet_texts(column: pyarrow.ChunkedArray) -> list[str]:
    """Return the cells of a column that is not nested as text."""
    types = pyarrow.types
    if any(test(column.type) for test in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)):
        return decoded(column)
    return pyarrow.compute.fill_null(column.cast(pyarrow.string()), "").to_pylist()


def read_vectors(path: Path | str) -> tuple[dict[str, np.ndarray], list[str], dict[str, str]]:
    """Read the columns of a Parquet file whose cells are lists of numbers.

    Args:
        path: The file; one of another kind has no such columns.

    Returns:
        Numbers [N, D] of each such column, in single precision where they are stored so and otherwise in double precision,
        missing ones NaN; the names of other nested columns; and, by name, what is wrong with those whose lists are missing or of
        different lengths.

    Raises:
        ManifestError: The file cannot be read, or a whole number is not one that double precision holds.
    """
    if Path(path).suffix.lower() != ".parquet":
        return {}, [], {}
    with enough_memory(path), parquet_errors(path):
        table = open_parquet(path)
        nested = [field for field in table.schema if pyarrow.types.is_nested(storage(field.type))]
        numeric = [field.name for field in nested if is_vector(storage(field.type))]
        lengths = {name: lengths_of(table[name]) for name in numeric}
        uneven = {name: f"{path}: {name}{reason}" for name in numeric if (reason := unevenness(lengths[name]))}
        vectors = {clean(name): stack_lists(table[name], f"{path}: {name}") for name in numeric if name not in uneven}
    return vectors, [field.name for field in nested if field.name not in numeric], uneven


def is_vector(kind: pyarrow.DataType) -> bool:
    """Return whether a type is a list of numbers."""
    types = pyarrow.types
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    return any(test(kind.value_type) for test in (types.is_floating, types.is_integer, types.is_decimal, types.is_boolean))


def chunks_of(column: pyarrow.ChunkedArray) -> list[pyarrow.Array]:
    """Return the parts of a column of lists, as they are stored."""
    return [chunk.storage if isinstance(chunk, pyarrow.ExtensionArray) else chunk for chunk in column.chunks]


def lengths_of(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Return the length of each list [N], -1 where it is missing."""
    lengths = [chunk.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False) for chunk in chunks_of(column)]
    return np.concatenate([np.zeros(0, np.int64), *lengths])


def unevenness(lengths: np.ndarray) -> str:
    """Return which list is missing or has another length than the first; nothing if none does."""
    differing = np.flatnonzero((lengths != lengths[:1]) | (lengths < 0))
    if not len(differing):
        return ""
    row = differing[0]
    held = "is missing" if lengths[row] < 0 else f"has {lengths[row]} numbers, row 1 has {lengths[0]}"
    return f" in row {row + 1} {held}; expected equally many numbers in every row"


def stack_lists(column: pyarrow.ChunkedArray, source: str) -> np.ndarray:
    """Return a column of lists of equally many numbers as an array [N, D]; raise ManifestError for whole numbers beyond 2^53."""
    chunks = chunks_of(column)
    if not any(map(len, chunks)):
        return np.zeros((0, 0))
    numbers = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks])
    require_exact(numbers, source)
    return numbers.astype(np.float32 if numbers.dtype in (np.float16, np.float32) else np.float64).reshape(len(column), -1)


def storage(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return how a type is stored: a tensor of fixed shape, for example, is a list."""
    return kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind


def open_parquet(path: Path | str) -> pyarrow.Table:
    """Return the table of a Parquet file, which is opened here because pyarrow interprets some paths itself."""
    with open(require_regular(path), "rb") as file:
        size = pyarrow.parquet.read_metadata(file)
        cells = f"{size.num_rows:,} rows of {size.num_columns:,} columns"
        require_memory(path, CELL_BYTES * size.num_rows * size.num_columns, cells)
        file.seek(0)
        # In this thread alone: a thread of pyarrow that finds no memory ends the process
        return pyarrow.parquet.ParquetFile(file, pre_buffer=False).read(use_threads=False)


def require_memory(path: Path | str, needed: int, content: str) -> None:
    """Raise ManifestError for a table that does not fit into memory: a small file may unpack to any size."""
    available = available_memory()
    if available is not None and needed > available:
        raise ManifestError(f"{path}: {content} take {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available")


@contextmanager
def enough_memory(path: Path | str) -> Iterator[None]:
    """Raise ManifestError where reading a table takes more memory than is available, whatever its header says."""
    try:
        with memory_limited():
            yield
    except MemoryError as error:
        raise ManifestError(f"{path}: its content does not fit into memory ({error})") from None


@contextmanager
def parquet_errors(path: Path | str) -> Iterator[None]:
    """Turn errors of reading a Parquet file into ManifestError."""
    try:
        yield
    except FileNotFoundError:
        raise ManifestError(f"no such table: {path}") from None
    except MemoryError:  # pyarrow's own is an ArrowException as well
        raise
    except (OSError, pyarrow.ArrowException) as error:
        wrong = mistaken(path, "a Parquet table", "a CSV table needs the ending .csv")
        raise ManifestError(
            wrong
            or f"{path} cannot be read as a Parquet table of text and numbers ({error}); for audio in a Hugging Face dataset use "
            "`siser prepare datasets`, after save_to_disk"
        ) from None


def require_unique_columns(names: Sequence[str], path: Path | str) -> None:
    """Raise ManifestError if a column name occurs twice."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ManifestError(f"{path}: column {shorten(repeated)} occurs more than once")


def read_header(path: Path | str, delimiter: str, quoting: bool) -> tuple[list[str], int, bool]:
    """Return a CSV file's column names as `clean` makes them, the number of their line, and whether the file ends with it.

    Empty lines may precede it.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(first_lines(file, path), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE)
        first = next((row for row in rows if row), [])
        names = [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in first]
        names = [name.strip() if "\t" in name else clean(name) for name in names]  # a tab tells of another separator
        return names, rows.line_num, not file.read(1)


def first_lines(file: TextIO, path: Path | str) -> Iterator[str]:
    """Yield lines up to the header; raise ManifestError for a file that has none where it should be."""
    for _ in range(MAX_EMPTY_LINES):
        line = file.readline(MAX_HEADER)
        if len(line) == MAX_HEADER:
            raise ManifestError(f"{path}: a line of more than {MAX_HEADER / 1e6:.0f} MB, expected the names of columns")
        if not line:
            return
        yield line
    raise ManifestError(f"{path}: {MAX_EMPTY_LINES} lines without the names of columns")


def cell_for_people(text: str) -> str:
    """Return a cell of a table that people open in a spreadsheet; an apostrophe precedes what could be a formula.

    >>> cell_for_people("=1+1"), cell_for_people(" =1+1"), cell_for_people("-1.5"), cell_for_people("a=b")
    ("'=1+1", "' =1+1", '-1.5', 'a=b')
    """
    could = text.startswith(("\t", "\r", "\n")) or text.lstrip().startswith(FORMULA)
    return f"'{text}" if could and not NUMBER.fullmatch(text) else text
