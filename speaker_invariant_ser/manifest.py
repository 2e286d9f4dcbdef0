"""Utterances as a typed table: what stands between a corpus and everything else."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pyarrow
import pyarrow.csv

from speaker_invariant_ser.errors import ManifestError, shorten, unknown
from speaker_invariant_ser.files import writing

SEXES = ("female", "male", "")


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
    rejected: list[tuple[str, str]]


COLUMNS = tuple(field.name for field in fields(Utterance))
NUMBERS = {"start": pyarrow.float64(), "end": pyarrow.float64(), "offset": pyarrow.int64(), "samples": pyarrow.int64()}
TYPES = {name: NUMBERS.get(name, pyarrow.string()) for name in COLUMNS}


def write_manifest(path: Path | str, utterances: Sequence[Utterance]) -> None:
    """Write utterances as CSV, whole or not at all."""
    columns = zip(*map(astuple, utterances), strict=True) if utterances else [()] * len(COLUMNS)
    arrays = [pyarrow.array(list(column), TYPES[name]) for name, column in zip(COLUMNS, columns, strict=True)]
    with writing(path, "wb") as file:
        pyarrow.csv.write_csv(pyarrow.table(arrays, names=list(COLUMNS)), file)


def read_manifest(path: Path | str) -> list[Utterance]:
    """Read what `write_manifest` wrote. Raises ManifestError."""
    columns = read_columns(path, TYPES)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ManifestError(f"{path}: no column {shorten(missing)}; a manifest has {', '.join(COLUMNS)}")
    return [Utterance(*row) for row in zip(*(columns[name] for name in COLUMNS), strict=True)]


def read_table(path: Path | str) -> list[Utterance]:
    """A user's own CSV -> utterances not yet prepared.

    Columns `path`, `speaker` and `emotion` are needed; `id`, `text`, `sex` and `language` are optional; others are
    left alone. Everything is read as text, so speaker `03` stays `03`. `path`, kept as it is,
    is relative to the table's folder or absolute.
    Raises ManifestError with every problem found.
    """
    path = Path(path)
    columns = read_columns(path, {})
    missing = [name for name in ("path", "speaker", "emotion") if name not in columns]
    if missing:
        odd = any(sign in name for name in columns for sign in ";\t")
        hint = " (separated by semicolons or tabs? Commas are expected)" if odd else ""
        found = shorten(columns, 10)
        raise ManifestError(f"{path}: no column {', '.join(missing)}; found {found}{hint}, needed path, speaker, emotion")
    count = len(columns["path"])
    columns.setdefault("id", columns["path"])
    known = [name for name in ("id", "speaker", "emotion", "text", "sex", "language") if name in columns]
    rows = zip(*(columns[name] for name in known), strict=True) if count else ()
    utterances = [
        Utterance(**{name: cell.strip() for name, cell in zip(known, row, strict=True)}, corpus=path.stem, source=clip.strip())
        for row, clip in zip(rows, columns["path"], strict=True)
    ]
    check(utterances, path)
    return utterances


def read_rows(path: Path | str, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """A text table's rows by column name, cells without blanks around them. Raises ManifestError, also for a missing column."""
    columns = read_columns(path, {})
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ManifestError(f"{path}: no column {', '.join(missing)}; found {shorten(columns, 10)}")
    return [dict(zip(columns, map(str.strip, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def read_columns(path: Path | str, types: dict[str, pyarrow.DataType]) -> dict[str, list]:
    """A text table's columns by name; those not in `types` are text, never type-inferred. Raises ManifestError.

    Cells are separated by tabs where the file's name ends in .tsv, by commas otherwise.
    """
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
    return table.to_pydict()


def read_header(path: Path | str, delimiter: str) -> tuple[list[str], int]:
    """A CSV file's column names without blanks around them, and how many lines they end at; empty lines come before."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter)
        names = next((row for row in rows if row), [])
        return [name.strip() for name in names], rows.line_num


def check(utterances: Sequence[Utterance], source: Path | str) -> None:
    """Raise ManifestError with *all* problems: none at all, empty labels, unknown sexes, repeated ids or files."""
    problems = [*empty_cells(utterances), *odd_sexes(utterances), *repeated(utterances, "id"), *repeated(utterances, "source")]
    if not utterances:
        problems.append("holds no utterances")
    if problems:
        raise ManifestError(f"{source}: " + "; ".join(problems))


def empty_cells(utterances: Iterable[Utterance]) -> list[str]:
    found = []
    for name in ("id", "speaker", "emotion", "source"):
        rows = [row for row, utterance in enumerate(utterances, start=1) if not getattr(utterance, name)]
        if rows:
            found.append(f"empty {name if name != 'source' else 'path'} in row {shorten(rows)}")
    return found


def odd_sexes(utterances: Iterable[Utterance]) -> list[str]:
    odd = sorted({utterance.sex for utterance in utterances} - set(SEXES))
    return [unknown("sex", sex, [name or "(empty)" for name in SEXES]) for sex in odd]


def repeated(utterances: Iterable[Utterance], name: str) -> list[str]:
    """An id names one clip, and one file is one speaker's: as two it could be trained on and tested."""
    counts = Counter(getattr(utterance, name) for utterance in utterances)
    twice = [value for value, times in counts.items() if times > 1 and value]
    return [f"{name if name != 'source' else 'path'} {shorten(twice)} stands there more than once"] if twice else []
