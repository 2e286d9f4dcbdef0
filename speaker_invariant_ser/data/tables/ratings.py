"""Ratings of an utterance on the dimensions arousal, valence and dominance: from a corpus's own scale to 0 to 1.

A manifest has 0 for the lowest and 1 for the highest value of the scale that listeners rated on, whatever its steps were called,
so that corpora with scales of five and of seven steps can be trained on together.
"""

import math
from collections.abc import Container, Iterable, Mapping

from speaker_invariant_ser.data.manifest import DIMENSIONS
from speaker_invariant_ser.data.tables.names import is_missing, number_of
from speaker_invariant_ser.errors import ManifestError, counted, shown

Scale = tuple[float, float]  # lowest and highest value
UNIT: Scale = (0.0, 1.0)


def on_unit_scale(cell: str, scale: Scale) -> float | None:
    """Return a rating as a number from 0 to 1; None for a missing one, NaN for what is no number of the scale.

    >>> on_unit_scale("2", (1, 5)), on_unit_scale("", (1, 5)), on_unit_scale("5.5", (1, 5))
    (0.25, None, nan)
    """
    if not cell or is_missing(cell):
        return None
    low, high = scale
    try:
        value = number_of(cell)
    except ValueError:
        return math.nan
    return (value - low) / (high - low) if low <= value <= high else math.nan


def require_scale(scale: Scale) -> None:
    """Raise ManifestError unless a scale has a lowest and a higher highest value, both finite."""
    low, high = scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ManifestError(f"--scale {low:g} {high:g}: expected the lowest and the highest value of a rating, such as 1 5")


def without_ratings_of_another_scale(
    columns: Mapping[str, list[str]], scale: Scale, source: object, requested: Container[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the columns without those of ratings that are no numbers of the scale, and a note on each.

    Args:
        columns: Columns of the table; an empty cell is a missing rating.
        scale: Lowest and highest value.
        source: The table, for messages.
        requested: Fields whose columns the user has named, so that such a rating in one of them is an error.

    Raises:
        ManifestError: A rating is no number of a scale that was given, or is in a column that was named.
    """
    kept, notes = dict(columns), []
    for name in (name for name in DIMENSIONS if name in columns):
        invalid = [row for row, cell in enumerate(columns[name], start=1) if not is_rating(cell, scale)]
        if invalid:
            more = f" (and {counted(len(invalid) - 1, 'more row')})" if len(invalid) > 1 else ""
            (low, high), row = scale, invalid[0]
            found, expected = (
                f"{name} in row {row} is {shown(columns[name][row - 1])}{more}",
                f"a number from {low:g} to {high:g}",
            )
            advice = "--scale LOWEST HIGHEST names another scale"
            if scale != UNIT or name in requested:
                raise ManifestError(f"{source}: {found}: expected {expected}, or an empty cell; {advice}")
            del kept[name]
            notes.append(f"{found} and not {expected}: the column is not used; {advice}")
    return kept, notes


def is_rating(cell: str, scale: Scale) -> bool:
    """Return whether a cell is a number of the scale, or missing."""
    value = on_unit_scale(cell, scale)
    return value is None or not math.isnan(value)


def ratings_of(fields: Mapping[str, str], scale: Scale) -> dict[str, float | None]:
    """Return the ratings of an utterance from 0 to 1, by dimension; None for what is missing or no number of the scale."""
    values = {name: on_unit_scale(fields.get(name, ""), scale) for name in DIMENSIONS}
    return {name: None if value is None or math.isnan(value) else value for name, value in values.items()}


def outside_note(files: Iterable[Mapping[str, str]], scale: Scale) -> list[str]:
    """Return a note about ratings of a corpus that are no numbers of its scale and count as missing; none if all are."""
    outside = [
        (fields["source"], name, fields[name])
        for fields in files
        for name in DIMENSIONS
        if not is_rating(fields.get(name, ""), scale)
    ]
    if not outside:
        return []
    (file, name, cell), (low, high) = outside[0], scale
    count = counted(len(outside), "rating")
    return [f"{count} outside the scale of {low:g} to {high:g} taken as missing, the first: {name} '{cell}' of {file}"]
