"""Checks of tables of vectors and their labels.

Shapes: N utterances, D dimensions.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data.tables.names import is_missing, is_utf8
from speaker_invariant_ser.data.tables.unify import without_unusable_cells
from speaker_invariant_ser.data.tables.whole_numbers import require_exact
from speaker_invariant_ser.errors import AuditError, counted, shorten, shown

MAX_VALUE = 1e18  # its square is finite in single precision
MIN_DIFFERENCE = 1e-100  # its square is not zero in double precision
YES_NO = {"1": True, "0": False, "true": True, "false": False}


def to_floats(embedding: np.ndarray, source: Path | str) -> np.ndarray:
    """Convert embeddings [N, D] to double precision, unless they are in single precision; raise AuditError if they cannot be."""
    if embedding.ndim != 2 or embedding.dtype.kind not in "fiub":
        raise AuditError(
            f"{source}: embedding is {embedding.dtype} of shape {embedding.shape}; expected real numbers of shape (N, D)"
        )
    require_exact(embedding, source)
    utterances, dimensions = embedding.shape
    if not utterances:
        raise AuditError(f"{source} has no utterances")
    if not dimensions:
        raise AuditError(f"{source}: the embedding has no dimensions; expected numbers, in a text table one column per dimension")
    with np.errstate(over="ignore"):  # numbers beyond double precision become infinite, which `require_finite` reports
        return embedding.astype(np.float32 if embedding.dtype == np.float32 else np.float64)


def require_finite(embedding: np.ndarray, ids: Sequence[str], source: Path | str) -> None:
    """Raise AuditError if an embedding has NaN, infinity or a value whose square overflows."""
    invalid = np.flatnonzero(~(np.abs(embedding) < MAX_VALUE).all(axis=1)).tolist()
    if invalid:
        raise AuditError(
            f"{source}: the embedding of {shorten(ids[row] for row in invalid)} contains NaN, infinity or a number beyond "
            f"{MAX_VALUE:g}; remove or correct these utterances"
        )


def require_different(embedding: np.ndarray, source: Path | str) -> None:
    """Raise AuditError if all embeddings are equal, or if a dimension differs by so little that its variance is computed as 0.

    Attackers are at chance then, whatever the differences say.
    """
    spread = embedding.max(axis=0) - embedding.min(axis=0) if len(embedding) > 1 else np.ones(1)
    if not spread.any():
        raise AuditError(
            f"{source}: all {len(embedding)} embeddings are equal; expected one of each utterance (was the right array saved?)"
        )
    small = np.flatnonzero((spread > 0) & (spread < MIN_DIFFERENCE)) + 1
    if small.size:
        raise AuditError(f"{source}: dimension {shorten(small)} differs by less than {MIN_DIFFERENCE:g}; scale or remove it")


def load_arrays(
    file: Mapping[str, np.ndarray], names: Mapping[str, str], optional: Collection[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Load arrays of an .npz file by field, and note optional ones of objects, which would have to be unpickled."""
    arrays, notes = {}, []
    for field, name in names.items():
        try:
            arrays[field] = np.asarray(file[name])
        except ValueError as error:
            if field not in optional or "Object arrays" not in str(error):
                raise
            notes.append(
                f"{name} is an array of objects, which is not read; not used. Save labels as np.array(labels, dtype=str)"
            )
    return arrays, notes


def to_texts(array: np.ndarray, source: str, strip: bool = True) -> list[str]:
    """Convert text, UTF-8 bytes, integers or booleans [N] to text, stripped by default."""
    if array.ndim != 1 or array.dtype.kind not in "USiub":
        raise AuditError(f"{source} is {array.dtype} of shape {array.shape}; expected text or integers of shape (N,)")
    return texts_of(array.tolist(), source, strip)


def texts_of(cells: Sequence[object], source: str, strip: bool = True) -> list[str]:
    """Return text, UTF-8 bytes, integers or booleans as text, stripped by default; raise AuditError if they are not UTF-8."""
    try:
        texts = [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in cells]
        texts = [text.strip() for text in texts] if strip else texts
    except ValueError:
        raise AuditError(f"{source} contains bytes that are not UTF-8 text") from None
    if not all(map(is_utf8, texts)):
        raise AuditError(f"{source} contains characters that cannot be encoded in UTF-8")
    return texts


def usable_texts(
    arrays: Mapping[str, np.ndarray], names: Mapping[str, str], optional: Collection[str], source: Path, verbatim: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Return arrays of labels as text, and notes on optional ones that are left out because they are no labels.

    Args:
        arrays: Arrays by field; all of the same length as `speaker`, where it has one.
        names: Their names in the file.
        optional: Fields that reject no table.
        source: The file, for error messages.
        verbatim: Field whose blanks stay.

    Raises:
        AuditError: An array that is not optional holds no labels.
    """
    texts, notes = {}, []
    count = len(np.atleast_1d(arrays["speaker"])) if "speaker" in arrays else None
    for field, array in arrays.items():
        try:
            texts[field] = to_texts(array, f"{source}: {names[field]}", field != verbatim)
            if field in optional and count not in (None, len(array)):
                raise AuditError(f"{source}: speaker has {counted(count or 0, 'row')}, {names[field]} has {len(array)}")
        except AuditError as error:
            if field not in optional:
                raise
            texts.pop(field, None)
            notes.append(f"{str(error).removeprefix(f'{source}: ')}; not used")
    return texts, notes


def usable_labels(labels: Mapping[str, list[str]], source: Path | str) -> tuple[dict[str, list[str]], list[str]]:
    """Return labels without what cannot be used of optional ones, which reject no table, and notes on that.

    Raises:
        AuditError: An utterance has no speaker.
    """
    usable, notes = without_unusable_cells(labels, ("speaker", "scored", "code"))
    for name in ("speaker", "emotion"):
        cells = usable.get(name, [])
        rows = [row for row, label in enumerate(cells, start=1) if is_missing(label)]
        words = {shown(cells[row - 1]) for row in rows} - {"''"}
        written = f" ({shorten(sorted(words))}, which stands for a missing value)" if words else ""
        if rows and name == "speaker":
            raise AuditError(f"{source}: empty speaker in row {shorten(rows)}{written}; every row needs one")
        if rows:
            del usable[name]
            notes.append(f"empty {name} in row {shorten(rows)}{written}: not used, as not every row has one")
    if repeated := repeated_ids(usable.get("id", ())):
        del usable["id"]
        notes.append(f"id {repeated} occurs more than once: not used, rows have numbers")
    return usable, notes


def distinct_codes(codes: Sequence[str], source: Path | str) -> list[str]:
    """Return codes [N] without blanks around them.

    Raises:
        AuditError: Two codes differ in what is not seen, which could name the speaker while one code seems to be released.
    """
    seen: dict[str, str] = {}
    for code in dict.fromkeys(codes):
        first = seen.setdefault(code.replace("\0", "").strip(), code)
        if first != code:
            raise AuditError(
                f"{source}: {shown(first)} and {shown(code)} differ in blanks or zero bytes alone; expected one spelling, or "
                "names that differ visibly where two codes are released"
            )
    return [code.strip() for code in codes]


def require_unique_ids(ids: Sequence[str], source: Path | str) -> None:
    """Raise AuditError if an id occurs more than once."""
    if repeated := repeated_ids(ids):
        raise AuditError(f"{source}: id {repeated} occurs more than once")


def repeated_ids(ids: Sequence[str]) -> str:
    """Return the ids that occur more than once, in words; empty cells are none."""
    return shorten(name for name, count in Counter(ids).items() if name and count > 1)


def to_mask(cells: Sequence[str], source: Path | str) -> np.ndarray:
    """Convert the column `scored` to booleans [N]; raise AuditError for other values than 0 and 1, or if none is 1."""
    for row, cell in enumerate(cells, start=1):
        if cell.lower() not in YES_NO:
            raise AuditError(f"{source}: scored in row {row} is {shown(cell)}; expected 1 (not trained on by the encoder) or 0")
    scored = np.array([YES_NO[cell.lower()] for cell in cells])
    if not scored.any():
        raise AuditError(f"{source}: scored is 0 for all utterances; attackers need at least one to be scored on")
    return scored
