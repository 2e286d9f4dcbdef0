"""Choose the columns of a table that are the dimensions of an embedding.

Columns that are named and numbered alike, such as dim_0 to dim_767, are dimensions. Any other number may be a label: an age or a
row number among the dimensions would decide an audit.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from itertools import pairwise
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data.tables.names import is_missing, number_of
from speaker_invariant_ser.data.tables.whole_numbers import MAX_WHOLE, inexact
from speaker_invariant_ser.errors import AuditError, quoted, shorten, shown, unknown

MIN_ROWS = 3  # per speaker, from which it is no coincidence that each has whole numbers, or one value, of its own


def choose_dimensions(
    cells: Mapping[str, Sequence[str] | np.ndarray], path: Path, patterns: Sequence[str] = (), nested: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Choose dimensions among the columns that may be dimensions.

    Args:
        cells: The candidates: text, or an array of numbers.
        path: The table, for error messages.
        patterns: Patterns (`fnmatch`) of the dimensions' names; without, the columns with a common stem and a number are taken.
        nested: Columns of lists or structures that are no vectors of numbers.

    Returns:
        The names of the dimensions, and notes on what was left out.

    Raises:
        AuditError: No column holds numbers; no pattern is given and the names have no stem or several; or a pattern matches no
            number.
    """
    in_stems = {name for names in numbered(cells).values() for name in names}
    kind = {name: holds_numbers(column, name in in_stems) for name, column in cells.items()}
    numeric, words = ([name for name in cells if kind[name] is number] for number in (True, False))
    stems = numbered(numeric)
    if not (numeric or patterns) and (nested or any(map(len, cells.values()))):
        found = [*(with_first_cell(name, cells[name]) for name in words), *(f"{name} (nested)" for name in nested)]
        raise AuditError(
            f"{path}: the embedding has no dimensions; expected numbers, in a text table one column per dimension, "
            f"in .parquet also one column of lists of numbers; found {shorten(found, 10)}"
        )
    if patterns:
        chosen = matching(numeric, patterns, path)
    elif len(stems) == 1 or not numeric:
        chosen = [name for names in stems.values() for name in names]
    else:
        raise AuditError(
            f"{path}: which columns are the dimensions? {described(numeric) or 'none'} are numbers and "
            f"{'have several stems' if stems else 'have no common stem and number, such as dim_0'}; "
            f"name the dimensions, once for each name or pattern, such as {example(numeric)}{unread(words, cells, nested)}"
        )
    notes = [] if patterns else gaps(chosen)
    taken = set(chosen)
    if others := [name for name in numeric if name not in taken]:
        notes.append(f"numbers that are not used as dimensions: {described(others)}; --dimensions names others")
    if words:
        notes.append(f"not numeric, and not used as dimensions: {', '.join(words)}")
    if nested:
        notes.append(f"nested, and not used as dimensions: {', '.join(nested)}")
    return chosen, notes


def unread(words: Sequence[str], cells: Mapping[str, Sequence[str] | np.ndarray], nested: Sequence[str]) -> str:
    """Say which other columns may be the embedding that was meant, but cannot be read as numbers; "" if there are none."""
    number = re.compile(r"[\s\[(]*[-+]?[.,]?\d")
    texts = [with_first_cell(name, cells[name]) for name in words if number.match(str(next(iter(cells[name]), "")))]
    found = shorten([*texts, *(f"{name} (nested, or of unequal length)" for name in nested)], 10)
    return (
        f". If the embedding is among these, convert it to columns of numbers with a decimal point first: {found}"
        if found
        else ""
    )


def with_first_cell(name: str, cells: Sequence[str] | np.ndarray) -> str:
    """Return a column of text in words, with the beginning of its first cell.

    >>> with_first_cell("emb", ["[0.1, 0.2, 0.3, 0.4, 0.5]"]), with_first_cell("d0", ["0,5"])
    ("emb ('[0.1, 0.2, 0.3, 0.4,'...)", "d0 ('0,5')")
    """
    first = str(cells[0])
    return f"{name} ({first[:20]!a}{'...' if len(first) > 20 else ''})"


def example(numeric: Sequence[str]) -> str:
    """Return options that name dimensions: by the pattern that most names have in common, or else by the last two names.

    >>> example(["1", "f1", "f2"]), example(["x[0]", "x[1]"]), example(["age", "a b", "c"])
    ("--dimensions 'f[0-9]*'", "--dimensions 'x[[][0-9]*]'", "--dimensions 'a b' --dimensions c")
    """
    patterns = Counter(re.sub(r"\d+(?=\D*\Z)", "[0-9]*", escape(name)) for name in numeric)
    pattern, count = patterns.most_common(1)[0] if patterns else ("dim_*", 2)
    chosen = [pattern] if count > 1 else [escape(name) for name in numeric[-2:]]
    return " ".join(f"--dimensions {quoted(pattern)}" for pattern in chosen)


def holds_numbers(cells: Sequence[str] | np.ndarray, words_allowed: bool) -> bool:
    """Return whether a column holds numbers: in every cell that is not missing, or in any if words are allowed."""
    if isinstance(cells, np.ndarray):
        return True
    return any(map(is_number, cells)) and (words_allowed or all(is_number(cell) or is_missing(cell) for cell in cells))


def numbered(names: Iterable[str]) -> dict[str, list[str]]:
    """Return groups of two or more names that are equal but for a number at the end, by what they have in common.

    >>> numbered(["age", "f_0", "f_1", "take1"])
    {'f_': ['f_0', 'f_1']}
    """
    groups = defaultdict(list)
    for name in names:
        if match := re.fullmatch(r"(.*?)\d+", name, re.DOTALL):
            groups[match[1]].append(name)
    return {stem: members for stem, members in groups.items() if len(members) > 1}


def gaps(dimensions: Sequence[str]) -> list[str]:
    """Return a note on numbers that are missing between those of dimensions, none if there are no such numbers.

    >>> gaps(["f_0", "f_1", "f_4"])
    ['no dimension is between f_1 and f_4: is a column missing?']
    """
    numbers = sorted((int(digits), name) for name in dimensions for digits in re.findall(r"\d{1,18}\Z", name))
    missing = [f"{name} and {following}" for (low, name), (high, following) in pairwise(numbers) if high > low + 1]
    return [f"no dimension is between {shorten(missing)}: is a column missing?"] if missing else []


def matching(names: Sequence[str], patterns: Sequence[str], path: Path) -> list[str]:
    """Return the names that match a pattern; raise AuditError for a pattern that none matches."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise AuditError(f"{path}: --dimensions {pattern}: {unknown('column of numbers', pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def described(names: Sequence[str]) -> str:
    """Return names in words, numbered ones by the first and the last.

    >>> described(["f_0", "f_1", "f_2", "age"])
    'f_0 to f_2 (3), age'
    """
    stems = numbered(names)
    ranges = [f"{members[0]} to {members[-1]} ({len(members)})" for members in stems.values()]
    in_ranges = {name for members in stems.values() for name in members}
    single = [name for name in names if name not in in_ranges]
    return shorten([*ranges, *single], 10)


def to_numbers(cells: Sequence[str] | np.ndarray, source: str) -> np.ndarray:
    """Convert a column to float64 [N], but an array stays as it is; raise AuditError if a cell is no number."""
    if isinstance(cells, np.ndarray):
        return cells
    try:
        if not any("_" in cell for cell in cells):  # which Python would skip
            numbers = np.array(cells, dtype=np.float64)
            for row in np.flatnonzero((np.abs(numbers) > MAX_WHOLE) & np.isfinite(numbers)).tolist():
                if (digits := cells[row].strip().lstrip("+-0")).isdecimal() and int(digits) != int(abs(numbers[row])):
                    raise inexact(source)
            return numbers
    except ValueError:
        pass
    first = next(row for row, cell in enumerate(cells) if not is_number(cell))
    raise AuditError(
        f"{source} in row {first + 1} is {shown(cells[first])}; a dimension needs a number in every row. Remove the column if it "
        "is not a dimension"
    )


def is_number(cell: str) -> bool:
    """Whether a cell can be read as a number."""
    try:
        number_of(cell)
    except ValueError:
        return False
    return True


def speaker_numbers(embedding: np.ndarray, speaker: np.ndarray) -> list[int]:
    """Return the dimensions that name the speaker alone, as an index of a sorted table or a label does.

    Args:
        embedding: Numbers [N, D].
        speaker: Speakers [N].

    Returns:
        Positions of dimensions in which every speaker has one value, or a range of whole numbers, of its own.
    """
    order = np.argsort(speaker, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], speaker[order][1:] != speaker[order][:-1]]))
    if len(starts) < 2 or len(speaker) < MIN_ROWS * len(starts):
        return []
    numbers = embedding[order]
    low, high = np.minimum.reduceat(numbers, starts), np.maximum.reduceat(numbers, starts)  # [K, D] of each speaker
    label = (embedding == np.round(embedding)).all(axis=0) | (low == high).all(axis=0)
    by_low = np.argsort(low, axis=0)
    low, high = np.take_along_axis(low, by_low, axis=0), np.take_along_axis(high, by_low, axis=0)
    return np.flatnonzero(label & (high[:-1] < low[1:]).all(axis=0)).tolist()
