"""Cells of a user's table: strip them, empty what stands for a missing value, and check them row by row."""

import math
import os
from collections.abc import Collection
from itertools import compress
from pathlib import Path

from speaker_invariant_ser.data.tables.names import is_missing, is_utf8, number_of
from speaker_invariant_ser.data.tables.unify import require_text
from speaker_invariant_ser.errors import ManifestError, counted, shown

Columns = dict[str, list[str]]

NEEDED = ("path", "speaker", "emotion")
MAX_SECONDS = 1e9  # no recording is as long


def readable(columns: Columns, source: Path, needed: Collection[str] = NEEDED) -> tuple[Columns, list[str]]:
    """Strip cells, and read optional columns of a table that are not UTF-8 as Windows-1252, with a note.

    Names of files in a folder may be anything; those that are not UTF-8 are rejected later, one by one.
    """
    stripped = {name: [cell.strip() for cell in cells] for name, cells in columns.items()}
    foreign = [name for name, cells in stripped.items() if source.is_file() and not all(map(is_utf8, cells))]
    for name in foreign:
        if name in needed:
            require_text(name, stripped[name], source)
        stripped[name] = [cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace") for cell in stripped[name]]
    return stripped, [f"{name} is not UTF-8: read as Windows-1252" for name in foreign]


def without_missing_words(cells: list[str]) -> list[str]:
    """Return the cells of a column with empty strings for missing values."""
    words = {cell for cell in set(cells) if is_missing(cell)}
    return ["" if cell in words else cell for cell in cells] if words else cells


def number(text: str) -> float:
    """Return a cell as a number: 0 for an empty cell, NaN for other text."""
    try:
        return number_of(text or "0")
    except ValueError:
        return math.nan


def require_no_swallowed_rows(columns: Columns, source: Path) -> None:
    """Raise ManifestError for a cell that holds further rows of the table: its quotation mark was never closed."""
    endings = {ending for path in columns["path"] if (ending := os.path.splitext(path)[1])}
    for name in (name for name in columns if name not in NEEDED):
        for row, cell in enumerate(columns[name], start=1):
            if "\n" in cell and any(ending in cell for ending in endings):
                raise ManifestError(f"{source}: {name} in row {row} contains further rows; check for an unclosed quotation mark")


def require_no_rows_inside(labels: Columns, width: int, source: Path) -> None:
    """Raise ManifestError for a cell of a CSV table that has as many separators as further rows of `width` columns have."""
    for name, cells in labels.items():
        for row, cell in enumerate(cells, start=1):
            if "\n" in cell and max(map(cell.count, ",;\t")) >= cell.count("\n") * (width - 1):
                raise ManifestError(f"{source}: {name} in row {row} contains further rows; check for an unclosed quotation mark")


def require_single_lines(columns: Columns, source: Path) -> None:
    """Raise ManifestError for a line break inside a cell: most likely an unclosed quotation mark that swallowed rows."""
    for name, values in columns.items():
        row = next((row for row, cell in enumerate(values, start=1) if "\n" in cell or "\r" in cell), 0)
        if row:
            raise ManifestError(f"{source}: {name} in row {row} contains a line break; check for an unclosed quotation mark")


def without_line_breaks(columns: Columns) -> tuple[Columns, list[tuple[str, str]]]:
    """Return the columns of a folder or database without rows that have a line break in a needed cell, and these as rejected."""
    broken = [any(len(cell.splitlines()) > 1 for cell in row) for row in zip(*(columns[name] for name in NEEDED), strict=True)]
    rejected = [(path, "its name or a label has a line break; rename it") for path in compress(columns["path"], broken)]
    return {name: list(compress(cells, (not flag for flag in broken))) for name, cells in columns.items()}, rejected


def require_seconds(columns: Columns, source: Path) -> None:
    """Raise ManifestError for a start or end that is not a number."""
    for name in ("start", "end"):
        cells = enumerate(columns.get(name, ()), start=1)
        invalid = [(row, cell) for row, cell in cells if not abs(number(cell)) < MAX_SECONDS]
        if invalid:
            row, cell = invalid[0]
            more = f" and in {counted(len(invalid) - 1, 'more row')}" if len(invalid) > 1 else ""
            raise ManifestError(f"{source}: {name} in row {row} is {shown(cell)}{more}: expected seconds, such as 12.5")
