"""Utterances as a typed table: what stands between a corpus and everything else."""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from speaker_invariant_ser.errors import ManifestError, shorten, unknown
from speaker_invariant_ser.files import writing

SEXES = ("female", "male", "")
PARTITIONS = ("train", "dev", "test", "")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip: who says what, how, and where the audio is. What is not known is an empty string."""

    id: str
    corpus: str
    speaker: str
    emotion: str
    text: str = ""  # which sentence, the same code for the same words
    sex: str = ""  # "female", "male" or ""
    language: str = ""  # ISO 639-1
    session: str = ""  # recording session, dialogue or place that speakers share
    style: str = ""  # way of speaking, where a corpus has several: speech, song, improvised, scripted
    intensity: str = ""  # in the corpus's words
    repetition: str = ""  # which time the speaker said it
    partition: str = ""  # "train", "dev" or "test" in the corpus's official lists
    source: str = ""  # the original file, relative to the corpus folder
    start: float = 0.0  # seconds into the source
    end: float = 0.0  # seconds into the source; 0: to its end
    offset: int = 0  # first sample in the prepared audio
    samples: int = 0  # length in the prepared audio; 0 before it is prepared


@dataclass(frozen=True)
class Listing:
    """What a folder or table was found to hold, before any audio is read: utterances, and (file, reason) for what is none."""

    utterances: list[Utterance]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    folder: Path = Path()  # what `source` is relative to
    note: str = ""  # printed in every report


COLUMNS = tuple(column.name for column in fields(Utterance))
NUMBERS = {"start": pyarrow.float64(), "end": pyarrow.float64(), "offset": pyarrow.int64(), "samples": pyarrow.int64()}
TYPES = {name: NUMBERS.get(name, pyarrow.string()) for name in COLUMNS}


def write_manifest(path: Path | str, utterances: Sequence[Utterance]) -> None:
    """Write utterances as CSV, whole or not at all."""
    columns = {name: [getattr(utterance, name) for utterance in utterances] for name in COLUMNS}
    arrays = [pyarrow.array(column, TYPES[name]) for name, column in columns.items()]
    with writing(path, "wb") as file:
        pyarrow.csv.write_csv(pyarrow.table(arrays, names=list(COLUMNS)), file)


def read_manifest(path: Path | str) -> list[Utterance]:
    """Read what `write_manifest` wrote. Raises ManifestError."""
    columns = read_columns(path, TYPES)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ManifestError(f"{path}: no column {shorten(missing)}; a manifest has {', '.join(COLUMNS)}")
    return [Utterance(*row) for row in zip(*(columns[name] for name in COLUMNS), strict=True)]


def read_rows(path: Path | str, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """A text table's rows by column name, cells without blanks around them. Raises ManifestError, also for a missing column."""
    columns = read_columns(path, {})
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ManifestError(f"{path}: no column {', '.join(missing)}; found {shorten(columns, 10)}")
    return [dict(zip(columns, map(str.strip, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def read_columns(path: Path | str, types: dict[str, pyarrow.DataType]) -> dict[str, list]:
    """A table's columns by name; those not in `types` are text, never type-inferred. Raises ManifestError.

    Parquet, text separated by tabs, or by commas: by the file's ending .parquet, .tsv or any other. Missing cells are empty text.
    """
    if Path(path).suffix.lower() == ".parquet":
        return read_parquet(path)
    delimiter = "\t" if Path(path).suffix.lower() == ".tsv" else ","
    if Path(path).exists() and not Path(path).is_file():
        raise ManifestError(f"{path} is not a regular file and cannot be read as a CSV table")
    try:
        names, lines = read_header(path, delimiter)
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ManifestError(f"{path}: column {shorten(twice)} stands there more than once")
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: types.get(name, pyarrow.string()) for name in names},
            strings_can_be_null=False,
        )
        with open(path, "rb") as file:  # opened here: pyarrow has its own idea of what a path means
            table = pyarrow.csv.read_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=lines),
                convert_options=convert,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
            )
    except FileNotFoundError:
        raise ManifestError(f"no such table: {path}") from None
    except (OSError, UnicodeDecodeError, pyarrow.ArrowInvalid) as error:
        raise ManifestError(f"{path} cannot be read as a CSV table in UTF-8: {error}") from None
    return {name: shared_texts(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def shared_texts(column: pyarrow.ChunkedArray) -> list:
    """A column's cells, equal texts as one object: a million rows have few speakers."""
    if not pyarrow.types.is_string(column.type):
        return column.to_pylist()
    seen = {}
    return [seen.setdefault(cell, cell) for cell in column.to_pylist()]


def read_parquet(path: Path | str) -> dict[str, list[str]]:
    """A Parquet file's columns by name, whatever their types as text. Raises ManifestError."""
    try:
        table = pyarrow.parquet.read_table(path)
        texts = [pyarrow.compute.fill_null(column.cast(pyarrow.string()), "") for column in table.columns]
    except FileNotFoundError:
        raise ManifestError(f"no such table: {path}") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise ManifestError(f"{path} cannot be read as a Parquet table of plain cells: {error}") from None
    return {name.strip(): text.to_pylist() for name, text in zip(table.column_names, texts, strict=True)}


def read_header(path: Path | str, delimiter: str) -> tuple[list[str], int]:
    """A CSV file's column names without blanks around them, and how many lines they end at; empty lines come before."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter)
        names = next((row for row in rows if row), [])
        return [name.strip() for name in names], rows.line_num


def check(utterances: Sequence[Utterance], source: Path | str, rejected: Sequence[tuple[str, str]] = ()) -> None:
    """Raise ManifestError with *all* problems: none at all, empty labels, unknown sexes, repeated ids, impossible segments."""
    problems = [
        *empty_cells(utterances),
        *odd_values(utterances, "sex", SEXES),
        *odd_values(utterances, "partition", PARTITIONS),
        *repeated_ids(utterances),
        *odd_segments(utterances),
    ]
    if not utterances:
        problems.append(
            f"none of {len(rejected)} rows can be used, the first: {': '.join(rejected[0])}"
            if rejected
            else "holds no utterances"
        )
    if problems:
        raise ManifestError(f"{source}: " + "; ".join(problems))


def empty_cells(utterances: Sequence[Utterance]) -> list[str]:
    found = []
    for name in ("id", "speaker", "emotion", "source"):
        rows = [row for row, utterance in enumerate(utterances, start=1) if not getattr(utterance, name)]
        if rows:
            found.append(f"empty {name if name != 'source' else 'path'} in row {shorten(rows)}")
    return found


def odd_values(utterances: Iterable[Utterance], name: str, allowed: Sequence[str]) -> list[str]:
    odd = sorted({getattr(utterance, name) for utterance in utterances} - set(allowed))
    return [unknown(name, value, [one or "(empty)" for one in allowed]) for value in odd]


def repeated_ids(utterances: Iterable[Utterance]) -> list[str]:
    twice = [value for value, times in Counter(utterance.id for utterance in utterances).items() if times > 1 and value]
    return [f"id {shorten(twice)} stands there more than once"] if twice else []


def odd_segments(utterances: Sequence[Utterance]) -> list[str]:
    odd = [f"{u.source} ({u.start:g} to {u.end:g} s)" for u in utterances if not 0 <= u.start < (u.end or math.inf)]
    return [f"no segment can have these times: {shorten(odd)}"] if odd else []


def select(listing: Listing, conditions: Sequence[tuple[str, str]]) -> Listing:
    """Only the utterances whose columns have these values; of several values for one column any will do. Raises ManifestError."""
    wanted = defaultdict(set)
    for column, value in conditions:
        if column not in COLUMNS:
            raise ManifestError(f"--only {column}={value}: {unknown('column', column, COLUMNS)}")
        wanted[column].add(value)
    kept = [one for one in listing.utterances if all(str(getattr(one, name)) in values for name, values in wanted.items())]
    if not kept:
        told = {name: sorted({str(getattr(one, name)) for one in listing.utterances}) for name in wanted}
        found = "; ".join(f"{name} is one of {shorten(map(repr, values), 10)}" for name, values in told.items())
        raise ManifestError(f"--only leaves no utterance: {found}")
    return replace(listing, utterances=kept)


def settle(listing: Listing) -> Listing:
    """Every clip once: of equal rows the first is kept; rows that contradict each other are all rejected, since one is wrong."""
    if len({(one.source, one.start, one.end) for one in listing.utterances}) == len(listing.utterances):
        return listing
    rows = defaultdict(list)
    for utterance in listing.utterances:
        rows[utterance.source, utterance.start, utterance.end].append(utterance)
    kept, rejected = [], list(listing.rejected)
    for (source, _, _), same in rows.items():
        reason = contradiction(same)
        rejected += [(source, reason or "listed more than once; the first is kept")] * (len(same) if reason else len(same) - 1)
        kept += [] if reason else same[:1]
    return Listing(kept, rejected, listing.folder, listing.note)


def contradiction(utterances: Iterable[Utterance]) -> str:
    """What utterances that share their audio disagree about, in words; empty if nothing."""
    told = {name: sorted({getattr(utterance, name) for utterance in utterances}) for name in ("emotion", "speaker")}
    words = [f"conflicting {name}s ({shorten(values)})" for name, values in told.items() if len(values) > 1]
    return " and ".join(words)


def combine(listings: Sequence[Listing]) -> tuple[Listing, list[Path]]:
    """Several corpora as one listing, and the path of each utterance's audio.

    Of several, speakers, texts, sessions and ids get their corpus's name in front: speaker 03 of one is nobody of another.
    Raises ManifestError if two listings have one corpus name.
    """
    paths = [listing.folder / utterance.source for listing in listings for utterance in listing.utterances]
    if len(listings) == 1:
        return listings[0], paths
    names = [{utterance.corpus for utterance in listing.utterances} for listing in listings]
    twice = [name for name, times in Counter(name for found in names for name in found).items() if times > 1]
    if twice:
        raise ManifestError(f"two corpora are named {shorten(twice)}; give one of them another name")
    apart = [
        replace(
            one,
            id=f"{one.corpus}/{one.id}",
            **{name: f"{one.corpus}-{value}" for name in ("speaker", "text", "session") if (value := getattr(one, name))},
        )
        for listing in listings
        for one in listing.utterances
    ]
    rejected = [(str(listing.folder / file), reason) for listing in listings for file, reason in listing.rejected]
    return Listing(apart, rejected, note=" ".join(filter(None, (listing.note for listing in listings)))), paths
