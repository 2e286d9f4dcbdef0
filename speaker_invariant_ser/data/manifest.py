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
    """One clip: who says what, how, and where the audio is. What is not known is an empty string: without an emotion, a clip
    can be trained on as unlabelled.
    """

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
    unlabelled: bool = False  # whether clips may lack an emotion


COLUMNS = tuple(column.name for column in fields(Utterance))
NUMBERS = {"start": pyarrow.float64(), "end": pyarrow.float64(), "offset": pyarrow.int64(), "samples": pyarrow.int64()}
GROUPABLE = tuple(name for name in COLUMNS if name not in ("id", "speaker", "emotion", "source", *NUMBERS))  # tell kinds of clips
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
    quoting = Path(path).suffix.lower() != ".tsv"  # between tabs a quote is a quote
    delimiter = "," if quoting else "\t"
    if Path(path).exists() and not Path(path).is_file():
        raise ManifestError(f"{path} is not a regular file and cannot be read as a CSV table")
    try:
        names, lines = read_header(path, delimiter)
        refuse_repeated(names, path)
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: types.get(name, pyarrow.string()) for name in names},
            strings_can_be_null=False,
        )
        with open(path, "rb") as file:  # opened here: pyarrow has its own idea of what a path means
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
    """A column's cells, equal texts as one object: a million rows have few speakers."""
    if not pyarrow.types.is_string(column.type):
        return column.to_pylist()
    seen = {}
    return [seen.setdefault(cell, cell) for cell in column.to_pylist()]


def read_parquet(path: Path | str) -> dict[str, list[str]]:
    """A Parquet file's columns by name, whatever their types as text. Raises ManifestError."""
    try:
        with open(path, "rb") as file:
            table = pyarrow.parquet.read_table(file)
        plain = [field.name for field in table.schema if not pyarrow.types.is_nested(field.type)]
        texts = [pyarrow.compute.fill_null(table[name].cast(pyarrow.string()), "") for name in plain]
    except FileNotFoundError:
        raise ManifestError(f"no such table: {path}") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise ManifestError(
            f"{path} cannot be read as a Parquet table of plain cells ({error}); audio inside a Hugging Face dataset is read "
            "with `siser prepare datasets`, after save_to_disk"
        ) from None
    refuse_repeated([name.strip() for name in plain], path)
    return {name.strip(): text.to_pylist() for name, text in zip(plain, texts, strict=True)}


def refuse_repeated(names: Sequence[str], path: Path | str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ManifestError(f"{path}: column {shorten(twice)} stands there more than once")


def read_header(path: Path | str, delimiter: str) -> tuple[list[str], int]:
    """A CSV file's column names without blanks around them, and how many lines they end at; empty lines come before."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE)
        names = next((row for row in rows if row), [])
        return [name.strip() for name in names], rows.line_num


def check(
    utterances: Sequence[Utterance], source: Path | str, rejected: Sequence[tuple[str, str]] = (), unlabelled: bool = False
) -> None:
    """Raise ManifestError with *all* problems: none at all, empty labels, unknown sexes, repeated ids, impossible segments.

    With `unlabelled`, an emotion may be empty.
    """
    problems = [
        *empty_cells(utterances, ("speaker", *(() if unlabelled else ("emotion",)), "source")),  # an id is the path if not given
        *odd_values(utterances, "sex", SEXES),
        *odd_values(utterances, "partition", PARTITIONS),
        *repeated_ids(utterances),
        *two_sexes(utterances),
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


def empty_cells(utterances: Sequence[Utterance], needed: Sequence[str]) -> list[str]:
    found = []
    for name in needed:
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


def two_sexes(utterances: Iterable[Utterance]) -> list[str]:
    sexes = defaultdict(set)
    for utterance in utterances:
        sexes[utterance.speaker].add(utterance.sex)
    twice = [speaker for speaker, found in sexes.items() if len(found) > 1]
    return [f"speaker {shorten(twice)} has more than one sex"] if twice else []


def odd_segments(utterances: Sequence[Utterance]) -> list[str]:
    odd = [f"{u.source} ({u.start:g} to {u.end:g} s)" for u in utterances if not 0 <= u.start < (u.end or math.inf)]
    return [f"no segment can have these times: {shorten(odd)}"] if odd else []


def select(listings: Sequence[Listing], conditions: Sequence[tuple[str, str]]) -> list[Listing]:
    """Only the utterances whose columns have these values; of several values for one column any will do.

    Of several listings, one that tells nothing in a column is not asked about it: --only style=speech keeps a corpus without
    styles. Raises ManifestError if nothing is left, or for an unknown column.
    """
    wanted = defaultdict(set)
    for column, value in conditions:
        if column not in COLUMNS:
            raise ManifestError(f"--only {column}={value}: {unknown('column', column, COLUMNS)}")
        wanted[column].add(value)
    for column, values in wanted.items():
        told = {str(getattr(one, column)) for one in all_of(listings)}
        if absent := sorted(values - told):
            raise ManifestError(
                f"--only {column}={absent[0]}: no utterance has it, {column} is one of {shorten(sorted(told), 10)}"
            )
    kept = []
    for listing in listings:
        told = {name: {str(getattr(one, name)) for one in listing.utterances} for name in wanted}
        asked = {name: values for name, values in wanted.items() if len(listings) == 1 or told[name] != {""}}
        fits = [one for one in listing.utterances if all(str(getattr(one, name)) in asked[name] for name in asked)]
        kept.append(replace(listing, utterances=fits))
    if not any(listing.utterances for listing in kept):
        told = {name: sorted({str(getattr(one, name)) for one in all_of(listings)}) for name in wanted}
        found = "; ".join(f"{name} is one of {shorten(map(repr, values), 10)}" for name, values in told.items())
        raise ManifestError(f"--only leaves no utterance: {found}")
    return kept


def all_of(listings: Sequence[Listing]) -> list[Utterance]:
    return [utterance for listing in listings for utterance in listing.utterances]


def settle(listing: Listing) -> Listing:
    """Every clip once, and under a name that can be written down.

    Of equal rows the first is kept; rows that contradict each other are all rejected, since one of them is wrong.
    """
    listing = apart_if_unwritable(listing)
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
    return replace(listing, utterances=kept, rejected=rejected)


def apart_if_unwritable(listing: Listing) -> Listing:
    """File names that are no text in any encoding we write are rejected: no table could hold them."""
    odd = [one for one in listing.utterances if not writable(one.source)]
    if not odd:
        return listing
    names = {one.source for one in odd}
    reason = "its name is not UTF-8; rename the file"
    kept = [one for one in listing.utterances if one.source not in names]
    return replace(listing, utterances=kept, rejected=[*listing.rejected, *((name, reason) for name in sorted(names))])


def writable(text: str) -> bool:
    """Whether UTF-8 can hold it: the bytes of a file name in no encoding are in no text."""
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def contradiction(utterances: Iterable[Utterance], names: Sequence[str] = ("emotion", "speaker")) -> str:
    """What utterances that share their audio disagree about, in words; empty if nothing. What is unknown contradicts nothing."""
    told = {name: sorted({getattr(utterance, name) for utterance in utterances} - {""}) for name in names}
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
    names = [{utterance.corpus for utterance in listing.utterances} for listing in listings if listing.utterances]
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
    whose = defaultdict(set)
    for one in apart:
        whose[one.speaker].add(one.corpus)
    if mixed := [speaker for speaker, corpora in whose.items() if len(corpora) > 1]:
        raise ManifestError(f"speaker {shorten(mixed)} could be of two corpora; give one of the corpora another name")
    rejected = [
        (f"{listing.utterances[0].corpus if listing.utterances else listing.folder}/{file}", reason)
        for listing in listings
        for file, reason in listing.rejected
    ]
    note = " ".join(filter(None, (listing.note for listing in listings)))
    return Listing(apart, rejected, note=note, unlabelled=any(listing.unlabelled for listing in listings)), paths
