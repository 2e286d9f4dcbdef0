"""Read tables of embeddings that any system computed (.npz, .csv, .tsv, .parquet) as `Embeddings`.

Shapes: N utterances, D dimensions.
"""

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings, taken_once
from speaker_invariant_ser.data.formats.content import mistaken
from speaker_invariant_ser.data.manifest import COLUMNS
from speaker_invariant_ser.data.tables.cells import readable, require_no_rows_inside, require_single_lines
from speaker_invariant_ser.data.tables.columns import (
    read_columns,
    read_vectors,
    require_memory,
    require_unique_columns,
    separator_hint,
)
from speaker_invariant_ser.data.tables.custom import ALIASES
from speaker_invariant_ser.data.tables.dimensions import choose_dimensions, described, holds_numbers, speaker_numbers, to_numbers
from speaker_invariant_ser.data.tables.names import find, is_missing
from speaker_invariant_ser.data.tables.near_rows import repeated_embedding
from speaker_invariant_ser.data.tables.unify import doubtful_names, require_short, spellings
from speaker_invariant_ser.data.tables.vectors import (
    distinct_codes,
    load_arrays,
    require_different,
    require_finite,
    texts_of,
    to_floats,
    to_mask,
    usable_labels,
    usable_texts,
)
from speaker_invariant_ser.errors import AuditError, ManifestError, counted, shorten, shown, unknown
from speaker_invariant_ser.files import require_regular
from speaker_invariant_ser.indexing import one_hot
from speaker_invariant_ser.processes import memory_limited

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FIELDS = ("speaker", "emotion", "text", "id", "scored", "recording")
CODE, MAX_CODES = "code", 1000  # what is released, where it is one of a few codes; and how many there may be
LABELS = {*COLUMNS, *FIELDS, *ALIASES, *(name for names in ALIASES.values() for name in names)}  # never dimensions
ROW_NUMBERS = {"", "index", "unnamed: 0", "__index_level_0__"}  # as pandas writes them; in a sorted table they leak the speaker
NPZ = "an .npz file of arrays"
COPIES = 4  # of embeddings that an audit keeps in memory, about
INVALID_NPZ = (  # errors that numpy and zipfile raise for invalid or damaged files
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

# Embedding [N, D], labels [N] by field, names of the dimensions, notes
Content = tuple[np.ndarray, dict[str, list[str]], list[str], list[str]]


class ReadTable(NamedTuple):
    """A table of embeddings as it was read.

    Attributes:
        embeddings: The embeddings.
        dimensions: Names of the dimensions.
        notes: What was left out or unified, and what is suspicious, as sentences.
    """

    embeddings: Embeddings
    dimensions: list[str]
    notes: list[str]


def read_embeddings(
    path: Path | str,
    columns: Mapping[str, str] | None = None,
    dimensions: Sequence[str] = (),
    same_speaker: bool | None = None,
    discrete: str = "",
) -> ReadTable:
    """Read a table of embeddings, or of codes.

    An .npz file has the arrays `embedding` [N, D] and `speaker` [N], and optionally `emotion`, `text` and `id` [N] (text or
    integers) and `scored` [N]: 1 where the encoder was not trained on the utterance, 0 where it was. In .csv, .tsv and
    .parquet files these are columns, and the dimensions are those with a common stem and a number, such as dim_0, or those that
    `dimensions` names. In .parquet files a column of lists of numbers stands for as many columns, x_0, x_1 and so on for x.
    Labels are read as text, so that `01` stays `01`. The usual other names of columns (`speaker_id`, `label` ...) are recognised.

    Without `emotion`, chance given the emotion is chance. Without `id`, utterances are called "row 1" and so on. Without
    `scored`, all utterances are scored.

    Args:
        path: The table.
        columns: The table's name for a field, for example {"speaker": "spk_id"}.
        dimensions: Patterns (`fnmatch`) of the columns that are dimensions.
        same_speaker: Whether speaker names that are alike are one speaker, as in `unify`.
        discrete: Column or array of codes, one of a few values; the embedding is then its one-hot vector, and dimensions are not
            used. The column `scored` says which utterances the codes were not fitted on.

    Returns:
        The embeddings, the names of their dimensions, and notes on the table.

    Raises:
        AuditError: The file cannot be read, a field is missing or invalid, or an embedding is not finite.
    """
    path = Path(path)
    if discrete and dimensions:
        raise AuditError(f"{path}: --discrete audits one column of codes: leave out --dimensions or --discrete")
    columns = {**(columns or {}), **({CODE: discrete} if discrete else {})}
    needed = (CODE, "speaker") if discrete else ("speaker",)
    embedding, labels, names, notes = read_content(path, columns, dimensions, needed)
    table, further_notes = make_embeddings(embedding, labels, path, same_speaker)
    suspicious = [names[column] for column in speaker_numbers(table.embedding, table.speaker)]
    if suspicious:
        notes.append(
            f"{shorten(suspicious)}: every speaker has one value, or a range of whole numbers, of its own there, which alone "
            "names the speaker; leave it out if it is an index or a label"
        )
    return ReadTable(table, names, [*notes, *further_notes])


def read_content(
    path: Path, columns: Mapping[str, str], dimensions: Sequence[str], needed: Sequence[str] = ("speaker",)
) -> Content:
    """Read a table as it is; `needed` are the labels that it has to have. Raises AuditError as `read_embeddings` does."""
    if path.is_dir():
        verbs = "`siser evaluate` audits a run, and `siser embed` makes a table of a prepared corpus"
        raise AuditError(f"{path} is a folder, not a table of embeddings; {verbs}")
    if path.suffix.lower() not in READERS:
        raise AuditError(f"{path}: {unknown('ending', path.suffix, READERS)}")
    if not require_regular(path).exists():
        raise AuditError(f"no such file: {path}")
    try:
        content = READERS[path.suffix.lower()](path, columns, dimensions, needed)
        needed_labels = {name: cells for name, cells in content[1].items() if name in needed}
        require_short(needed_labels, path)
        require_single_lines(needed_labels, path)
        return content
    except ManifestError as error:
        raise AuditError(str(error)) from None


def make_embeddings(
    embedding: np.ndarray, labels: Mapping[str, list[str]], source: Path | str, same_speaker: bool | None = None
) -> tuple[Embeddings, list[str]]:
    """Check embeddings and labels, and combine them.

    Args:
        embedding: Real numbers [N, D].
        labels: `speaker` and optionally `emotion`, `text`, `id`, `recording` and `scored` ("1" or "0"), [N] each.
        source: Name of the table, for error messages.
        same_speaker: As in `read_embeddings`.

    Returns:
        The embeddings, in double precision unless they were given in single precision, and notes on labels.

    Raises:
        AuditError: Shapes or types are wrong, a label is missing, an id occurs twice, an embedding is not finite, or names of
            speakers are alike and `same_speaker` is None.
    """
    embedding = to_floats(embedding, source)
    count = len(embedding)
    for name, values in labels.items():
        if len(values) != count:
            raise AuditError(
                f"{source}: embedding has {counted(count, 'row')}, {name} has {len(values)}; expected one per utterance"
            )
    rows = [f"row {row}" for row in range(1, count + 1)]
    labels, notes = usable_labels(labels, source)
    ids = [name or row for name, row in zip(labels.get("id", rows), rows, strict=True)]
    scored = to_mask(labels.get("scored", ["1"] * count), source)
    code = np.array(labels[CODE]) if CODE in labels else None
    require_finite(embedding, ids, source)
    require_different(embedding, source)
    names = ("speaker", "emotion", "text", "recording")
    unified = [unify_labels(name, labels.get(name, [""] * count), source, same_speaker) for name in names]
    speaker, emotion, text, recording = (cells for cells, _ in unified)
    notes += [note for _, label_notes in unified for note in label_notes] + repeated_embedding(embedding, speaker)
    if not scored.all():
        notes.append(
            f"{(~scored).sum()} of {count} rows have scored = 0: attackers learn from them, nothing is concluded about them"
        )
    group = np.array([name or f"\n{row}" for row, name in enumerate(recording)]) if recording.any() else None
    table = Embeddings(embedding, np.array(ids, dtype=str), speaker, emotion, text, scored, group=group, code=code)
    return (table, notes) if code is not None else taken_once(table, notes)


def unify_labels(name: str, cells: Sequence[str], source: Path | str, same_speaker: bool | None) -> tuple[np.ndarray, list[str]]:
    """Return labels [N] in one spelling, "" where missing, and notes; raise AuditError as `unify.spellings` does."""
    try:
        spelling, notes = spellings(name, cells, source, same_speaker)
    except ManifestError as error:
        raise AuditError(str(error)) from None
    notes += doubtful_names(name, cells) if name != "emotion" else []
    return np.array(["" if is_missing(cell) else spelling[cell] for cell in cells], dtype=str), notes


def read_npz(path: Path, columns: Mapping[str, str], dimensions: Sequence[str], needed: Sequence[str]) -> Content:
    """Read an .npz file without unpickling anything."""
    if dimensions:
        raise AuditError(f"{path}: --dimensions names columns of a table; an .npz file has the array embedding")
    with warnings.catch_warnings(), memory_limited():
        warnings.simplefilter("ignore")  # numpy warns of headers that it corrected
        try:
            with open(path, "rb") as source:
                file = np.load(source, allow_pickle=False)
                names = list(getattr(file, "files", ()))  # a bare array, as in an .npy file, has none
                if not any(member.endswith(".npy") for member in (file.zip.namelist() if names else ())):
                    raise ValueError("it holds no arrays")
                needed = needed if CODE in columns else ("embedding", *needed)
                chosen = match_fields(names, columns, path, needed)
                require_memory(path, COPIES * sum(member.file_size for member in file.zip.infolist()), "its arrays")
                optional = {*FIELDS} - {*needed, *columns, "scored"}
                arrays, notes = load_arrays(file, chosen, optional)
        except INVALID_NPZ as error:
            if wrong := mistaken(path, NPZ, "a CSV table needs the ending .csv"):
                raise AuditError(wrong) from None
            hint = "; save labels as text, np.array(labels, dtype=str)" if "Object arrays" in str(error) else ""
            raise AuditError(f"{path} cannot be read as an npz file: {error or type(error).__name__}{hint}") from None
    embedding = np.asarray(arrays.pop("embedding", ()))
    labels, unusable = usable_texts(arrays, chosen, optional, path, CODE)
    notes += unusable
    left_out = [name for name in names if name not in chosen.values()]
    if CODE in columns:
        return codes_of(labels, columns[CODE], path, left_out, notes)
    notes += [f"arrays that are not used: {', '.join(left_out)}"] if left_out else []
    width = embedding.shape[-1] if embedding.ndim == 2 else 0
    return embedding, labels, [f"dimension {number}" for number in range(width)], notes


def embeddings_of(
    embedding: "ArrayLike", labels: Mapping[str, "ArrayLike"], same_speaker: bool | None = None
) -> tuple[Embeddings, list[str]]:
    """Make embeddings of arrays, lists, or columns of a data frame.

    Args:
        embedding: Real numbers [N, D].
        labels: As in `make_embeddings`; each text or integers, [N].
        same_speaker: As in `read_embeddings`.

    Returns:
        The embeddings, and notes on labels.

    Raises:
        AuditError: As `make_embeddings`; or something is not an array, or a label is missing, such as None or NaN.
    """
    try:
        numbers = np.asarray(embedding)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths; tensors on a GPU or with a gradient
        raise AuditError(f"embeddings: not an array of real numbers of shape (N, D) ({error})") from None
    texts = {name: label_texts(values, name) for name, values in labels.items()}
    return make_embeddings(numbers, texts, "embeddings", same_speaker)


def label_texts(values: "ArrayLike", name: str) -> list[str]:
    """Convert labels [N] to text; in data frames and lists, text and missing values may stand side by side."""
    try:
        cells = np.asarray(values, dtype=object)
    except (ValueError, TypeError, RuntimeError) as error:
        raise AuditError(f"{name}: not an array of shape (N,) ({error})") from None
    if cells.ndim != 1:
        raise AuditError(f"{name} has the shape {cells.shape}; expected text or integers of shape (N,)")
    for row, cell in enumerate(cells, start=1):
        if not isinstance(cell, str | bytes | int | np.integer | np.bool_):
            raise AuditError(f"{name} in row {row} is {shown(cell)}; expected text or integers")
    return texts_of(cells.tolist(), name)


def read_columnar(path: Path, columns: Mapping[str, str], dimensions: Sequence[str], needed: Sequence[str]) -> Content:
    """Read a .csv, .tsv or .parquet file with one column per dimension, or in .parquet a column of vectors."""
    cells = read_columns(path, {})
    chosen = match_fields(cells, columns, path, needed)
    labels, notes = readable({field: cells[name] for field, name in chosen.items() if field != CODE}, path, needed)
    if path.suffix.lower() == ".csv":
        require_no_rows_inside(labels, len(cells), path)
    vectors, nested, uneven = read_vectors(path)
    if CODE in columns:
        labels[CODE] = cells[chosen[CODE]]
        besides = [name for name in cells if name not in chosen.values() and name.lower() not in {*LABELS, *ROW_NUMBERS}]
        return codes_of(labels, columns[CODE], path, [*besides, *vectors], notes)
    others: dict[str, Sequence[str] | np.ndarray] = {name: cells[name] for name in cells if name not in chosen.values()}
    dimensions_of = {f"{name}_{index}": column for name, vector in vectors.items() for index, column in enumerate(vector.T)}
    require_unique_columns([*others, *dimensions_of], path)
    others |= dimensions_of
    stem_of = {f"{name}_{index}": name for name, vector in vectors.items() for index in range(vector.shape[1])}
    never = {
        name: stem for name in others if not dimensions and (stem := stem_of.get(name, name)).lower() in LABELS | ROW_NUMBERS
    }
    candidates = {name: others[name] for name in others if name not in never}
    if uneven and not dimensions and not any(holds_numbers(column, False) for column in candidates.values()):
        raise AuditError(next(iter(uneven.values())))
    names, further_notes = choose_dimensions(candidates, path, dimensions, [*nested, *uneven])
    notes += further_notes
    notes += [f"labels and row numbers that are not used: {shorten(dict.fromkeys(never.values()), 10)}"] if never else []
    values = [to_numbers(others[name], f"{path}: {name}") for name in names]
    embedding = np.stack(values, axis=1) if values else np.zeros((len(next(iter(cells.values()), ())), 0))
    return embedding, labels, names, notes


def codes_of(labels: dict[str, list[str]], column: str, path: Path, others: Sequence[str], notes: Sequence[str]) -> Content:
    """Return the codes of a table as one-hot vectors.

    Args:
        labels: Fields of the table, with its codes.
        column: The table's name of the codes.
        path: The table, for error messages.
        others: What else the table has beside labels.
        notes: Notes on the labels.

    Raises:
        AuditError: A code is missing, there are too many, some differ in blanks alone, or the table does not say which utterances
            they were fitted on.
    """
    codes = labels[CODE] = distinct_codes(labels[CODE], f"{path}: --discrete {column}")
    if "scored" not in labels:
        raise AuditError(
            f"{path}: --discrete {column} needs a column scored: 1 for utterances that the codes were not fitted on, and 0 for "
            "those that they were fitted on, which certify nothing"
        )
    if missing := [row for row, code in enumerate(codes, start=1) if is_missing(code)]:
        raise AuditError(f"{path}: empty {column} in row {shorten(missing)}; every row needs a code")
    values = sorted(set(codes))
    if len(values) > min(MAX_CODES, max(2, len(codes) // 2)):
        raise AuditError(
            f"{path}: --discrete {column}: {len(values)} different values in {counted(len(codes), 'row')}; expected a few codes, "
            f"at most {MAX_CODES}, that rows share"
        )
    alone = [f"audited and certified is {column} alone, as if nothing else were released: not {described(others)}"]
    return one_hot(codes), labels, [f"{column} = {value}" for value in values], [*notes, *(alone if others else [])]


def match_fields(names: Iterable[str], columns: Mapping[str, str], path: Path, needed: Sequence[str]) -> dict[str, str]:
    """Find the arrays or columns that hold the fields.

    Args:
        names: Names in the file.
        columns: The file's names of some fields, given by the user.
        path: The file, for error messages.
        needed: Fields that have to be there.

    Returns:
        The file's name of each field that it has.

    Raises:
        AuditError: A needed field is missing, or `columns` has an unknown field or name.
    """
    names = list(names)
    require_unique_columns(names, path)
    fields = dict.fromkeys((*needed, *FIELDS))
    for field, name in columns.items():
        option = f"--discrete {name}" if field == CODE else f"--column {field}={name}"
        if field not in fields:
            raise AuditError(f"{option}: {unknown('column', field, fields)}")
        if find(name, names) not in names:
            raise AuditError(f"{path}: {option}: {unknown('column', name, names)}")
    chosen = {}
    for field in fields:
        usual = [name for name in (field, *ALIASES.get(field, ())) if name in names]
        if field in columns or usual:
            chosen[field] = find(columns[field], names) if field in columns else usual[0]
    if missing := [field for field in needed if field not in chosen]:
        raise AuditError(
            f"{path}: no {' and no '.join(missing)}; found {shorten(names, 10) or 'no names'}{separator_hint(names)}. "
            f"If it has another name, give it with --column {missing[0]}=NAME"
        )
    return chosen


READERS: dict[str, Callable[[Path, Mapping[str, str], Sequence[str], Sequence[str]], Content]] = {
    ".npz": read_npz,
    ".csv": read_columnar,
    ".tsv": read_columnar,
    ".parquet": read_columnar,
}
