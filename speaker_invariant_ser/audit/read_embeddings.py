"""Anyone's embeddings: a table of people's clips, from whatever tool, as `Embeddings`. N clips, D dimensions."""

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.data.custom import ALIASES, require_single_lines
from speaker_invariant_ser.data.manifest import COLUMNS, is_utf8, read_columns, require_unique_columns
from speaker_invariant_ser.errors import AuditError, ManifestError, shorten, unknown

FIELDS = ("speaker", "emotion", "text", "id", "scored")
LABELS = {*COLUMNS, *FIELDS, *ALIASES, *(name for names in ALIASES.values() for name in names)}
ROW_NUMBERS = {
    "",
    "index",
    "unnamed: 0",
    "__index_level_0__",
}  # as pandas writes them; in a sorted table they give away the speaker
LARGEST = 1e18  # its square is still a number in single precision
YES_NO = {"1": True, "0": False, "true": True, "false": False}
DAMAGED = (  # what numpy and zipfile were seen to raise for files that are no npz, or a broken one
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)

Content = tuple[np.ndarray, dict[str, list[str]], list[str]]  # embedding [N, D], field -> N texts, names that were left out


def read_embeddings(path: Path | str, columns: Mapping[str, str] | None = None) -> tuple[Embeddings, list[str]]:
    """A table of embeddings, and the names in it that were left out.

    .npz: arrays `embedding` [N, D] and `speaker` [N], where known `emotion`, `text` and `id` [N], text or whole numbers, and
    `scored` [N], 1 where the encoder did not train on the clip and 0 where it did. .csv, .tsv or .parquet: columns of these
    names, and every other column of numbers is a dimension. Columns of text are left out, and so are row numbers and
    the other columns of a manifest (start, sex ...), which no encoder made.

    `columns` maps our name to theirs, {"speaker": "spk_id"}. Speakers and the other labels are read as text, `01` stays `01`.
    Without `emotion` all are "", and nothing is given by the emotion; without `id` clips are "row 1" and so on; without
    `scored` all are scored. Raises AuditError.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise AuditError(f"{path}: {unknown('ending', path.suffix, READERS)}")
    if not path.is_file():
        raise AuditError(f"{path} is a folder, not a table of embeddings" if path.is_dir() else f"no such file: {path}")
    try:
        embedding, texts, ignored = READERS[path.suffix.lower()](path, columns or {})
        require_single_lines(texts, path)
    except ManifestError as error:
        raise AuditError(str(error)) from None
    return make_embeddings(embedding, texts, path), ignored


def make_embeddings(embedding: np.ndarray, texts: dict[str, list[str]], source: Path | str) -> Embeddings:
    """Return `Embeddings` after checking that every utterance has finite numbers, a speaker and an id of its own.

    Args:
        embedding: Real numbers, [N, D].
        texts: Labels by name (speaker, and where known emotion, text, id, scored), N each.
        source: Name of the table, for error messages.

    Raises:
        AuditError: The labels do not fit the embeddings, or either is incomplete.
    """
    embedding = to_floats(embedding, source)
    clips = len(embedding)
    for name, values in texts.items():
        if len(values) != clips:
            raise AuditError(f"{source}: embedding has {clips} rows, {name} has {len(values)}; expected one for each clip")
    rows = [f"row {row}" for row in range(1, clips + 1)]
    texts["id"] = [name or row for name, row in zip(texts.get("id", rows), rows, strict=True)]
    scored = read_scored(texts.pop("scored", ["1"] * clips), source)
    check_texts(texts, source)
    check_finite(embedding, texts["id"], source)
    empty = [""] * clips
    labels = {name: np.array(texts.get(name, empty), dtype=str) for name in ("id", "speaker", "emotion", "text")}
    return Embeddings(embedding, **labels, scored=scored)


def read_arrays(path: Path, columns: Mapping[str, str]) -> Content:
    """An .npz file; nothing in it is unpickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy tells of headers that it had to mend
        try:
            with open(path, "rb") as source:
                file = np.load(source, allow_pickle=False)
                names = list(getattr(file, "files", ()))  # a bare array, as in an .npy file, has none
                chosen = choose(names, columns, path, needed=("embedding", "speaker"))
                arrays = {ours: file[theirs] for ours, theirs in chosen.items()}
        except DAMAGED as error:
            hint = "; save labels as text, np.array(labels, dtype=str)" if "Object arrays" in str(error) else ""
            raise AuditError(f"{path} cannot be read as an npz file: {error or type(error).__name__}{hint}") from None
    embedding = np.asarray(arrays.pop("embedding"))
    texts = {ours: to_texts(np.asarray(array), f"{path}: {chosen[ours]}") for ours, array in arrays.items()}
    return embedding, texts, [name for name in names if name not in chosen.values()]


def to_texts(array: np.ndarray, where: str) -> list[str]:
    """Text, bytes in UTF-8, whole numbers or booleans [N] as text without blanks around it."""
    if array.ndim != 1 or array.dtype.kind not in "USiub":
        raise AuditError(f"{where} is {array.dtype} of shape {array.shape}; expected text or whole numbers of shape (N,)")
    try:
        texts = [(one.decode() if isinstance(one, bytes) else str(one)).strip() for one in array.tolist()]
    except ValueError:
        raise AuditError(f"{where} holds bytes that are not UTF-8 text") from None
    if not all(map(is_utf8, texts)):
        raise AuditError(f"{where} holds characters that UTF-8 cannot write")
    return texts


def read_text(path: Path, columns: Mapping[str, str]) -> Content:
    """A table with one column per dimension."""
    cells = read_columns(path, {})
    chosen = choose(cells, columns, path, needed=("speaker",))
    others = [name for name in cells if name not in chosen.values()]
    dimensions = {name: to_numbers(cells[name], f"{path}: {name}") for name in others if name.lower() not in LABELS | ROW_NUMBERS}
    found = [values for values in dimensions.values() if values is not None]
    texts = {ours: [cell.strip() for cell in cells[theirs]] for ours, theirs in chosen.items()}
    embedding = np.stack(found, axis=1) if found else np.zeros((len(texts["speaker"]), 0))
    return embedding, texts, [name for name in others if dimensions.get(name) is None]


def to_numbers(cells: Sequence[str], where: str) -> np.ndarray | None:
    """A column as float64 [N]; None if not one cell is a number. Raises AuditError if some are and others are not."""
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        odd = [row for row, cell in enumerate(cells) if not is_number(cell)]
    if len(odd) == len(cells):
        return None
    raise AuditError(
        f"{where} in row {odd[0] + 1} is '{cells[odd[0]]}', as a dimension it has to be a number in every row; "
        "take the column out if it is none"
    )


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def choose(names: Iterable[str], columns: Mapping[str, str], path: Path, needed: Sequence[str]) -> dict[str, str]:
    """Our name -> the file's, for all that it has. Raises AuditError for one that is missing, or asked for in vain."""
    names = list(names)
    require_unique_columns(names, path)
    fields = dict.fromkeys((*needed, *FIELDS))
    for ours, theirs in columns.items():
        if ours not in fields:
            raise AuditError(f"--column {ours}={theirs}: {unknown('column', ours, fields)}")
        if theirs not in names:
            raise AuditError(f"{path}: --column {ours}={theirs}: {unknown('column', theirs, names)}")
    chosen = {}
    for ours in fields:
        called = [columns[ours]] if ours in columns else [name for name in (ours, *ALIASES.get(ours, ())) if name in names]
        if called:
            chosen[ours] = called[0]
    if missing := [ours for ours in needed if ours not in chosen]:
        raise AuditError(
            f"{path}: no {' and no '.join(missing)}; found {shorten(names, 10) or 'no names'}. "
            f"One of another name is told by --column {missing[0]}=NAME"
        )
    return chosen


def to_floats(embedding: np.ndarray, path: Path | str) -> np.ndarray:
    """[N, D] in single precision if it was, else in double. Raises AuditError for what is no table of real numbers."""
    if embedding.ndim != 2 or embedding.dtype.kind not in "fiub":
        raise AuditError(
            f"{path}: embedding is {embedding.dtype} of shape {embedding.shape}; expected real numbers of shape (N, D)"
        )
    clips, dimensions = embedding.shape
    if not clips:
        raise AuditError(f"{path} holds no clips")
    if not dimensions:
        raise AuditError(f"{path}: the embedding has no dimensions; expected numbers, in a text table one column per dimension")
    with np.errstate(over="ignore"):  # wider numbers than double become infinite, and are told as such
        return embedding.astype(np.float32 if embedding.dtype == np.float32 else np.float64)


def check_finite(embedding: np.ndarray, ids: Sequence[str], path: Path | str) -> None:
    broken = np.flatnonzero(~(np.abs(embedding) < LARGEST).all(axis=1))
    if len(broken):
        raise AuditError(
            f"{path}: the embedding of {shorten(ids[row] for row in broken)} holds NaN, infinity or a number beyond {LARGEST:g}; "
            "take these clips out or mend them"
        )


def check_texts(texts: Mapping[str, list[str]], path: Path | str) -> None:
    """Every clip needs its speaker and a name of its own, and where emotions are told, its emotion."""
    for name in ("speaker", "emotion"):
        rows = [row for row, one in enumerate(texts.get(name, ()), start=1) if not one]
        if rows:
            raise AuditError(f"{path}: empty {name} in row {shorten(rows)}")
    if len(set(texts["id"])) < len(texts["id"]):
        seen, ids = set(), texts["id"]
        twice = dict.fromkeys(one for one in ids if one in seen or seen.add(one))
        raise AuditError(f"{path}: id {shorten(twice)} stands there more than once")


def read_scored(cells: Sequence[str], path: Path | str) -> np.ndarray:
    """[N] bool from 0 and 1."""
    odd = [(row, cell) for row, cell in enumerate(cells, start=1) if cell.lower() not in YES_NO]
    if odd:
        row, cell = odd[0]
        raise AuditError(f"{path}: scored in row {row} is '{cell}'; expected 1 (the encoder did not train on it) or 0")
    scored = np.array([YES_NO[cell.lower()] for cell in cells])
    if not scored.any():
        raise AuditError(f"{path}: scored is 0 for all clips; an attacker has to be scored on some")
    return scored


READERS: dict[str, Callable[[Path, Mapping[str, str]], Content]] = {
    ".npz": read_arrays,
    ".csv": read_text,
    ".tsv": read_text,
    ".parquet": read_text,
}
