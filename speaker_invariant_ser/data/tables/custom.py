"""Your own data without code: tables, and folders whose file names follow a pattern.

Every format becomes columns of text named like the fields of `Utterance`; `listing_of` turns these into utterances.
`custom_formats.py` adds audformat databases and Hugging Face datasets, and lists all formats.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

from speaker_invariant_ser.data.formats.files import is_only_here, list_audio, list_unusable
from speaker_invariant_ser.data.manifest import (
    COLUMNS,
    DIMENSIONS,
    Listing,
    Utterance,
    reject_invalid_names,
    remove_duplicates,
    require_valid,
)
from speaker_invariant_ser.data.tables.columns import read_columns, separator_hint
from speaker_invariant_ser.data.tables.names import alike_key, is_missing, is_utf8, number_of, segment_id
from speaker_invariant_ser.data.tables.pattern import MAX_PARTS, Pattern, parse
from speaker_invariant_ser.data.tables.ratings import UNIT, Scale, ratings_of, require_ratings, require_scale
from speaker_invariant_ser.data.tables.unify import doubtful_names, require_text, unify, without_contradictions
from speaker_invariant_ser.errors import CorpusError, ManifestError, counted, shorten, unknown

Columns = dict[str, list[str]]

NEEDED = ("path", "speaker", "emotion")
OPTIONAL = (
    "id",
    "text",
    "sex",
    "language",
    "session",
    "style",
    "intensity",
    "repetition",
    "partition",
    "recording",
    "start",
    "end",
)
FIELDS = (*NEEDED, *OPTIONAL, *DIMENSIONS)
GROUPED = (*NEEDED[1:], "text", "session", "recording")  # columns in which equal cells keep utterances together
ALIASES = {  # other common names of these columns, used where ours is absent
    "path": ("file", "filename", "audio"),
    "speaker": ("speaker_id", "spk", "actor"),
    "emotion": ("label",),
    "sex": ("gender",),
    "text": ("transcription", "transcript", "sentence"),
}
SEXES = {"f": "female", "w": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}
NOT_IN_NAMES = ("id", "source", "corpus", "start", "end", "offset", "samples", "copies")  # fields that no path of a file has
MAX_SECONDS = 1e9  # no recording is as long
PARTITIONS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "devel": "dev",
    "development": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Request:
    """Where the data is and how to read it.

    Attributes:
        source: File or folder.
        name: Name of the corpus; empty: that of the file or folder.
        pattern: Pattern of the paths in a folder, such as "{speaker}/{emotion}/*_{text}.wav".
        columns: Name of a field -> name of its column in the table.
        scratch: Folder for audio that is stored inside tables.
        unlabelled: Whether utterances may have no emotion, and the table no such column.
        same_speaker: Whether speaker names that are alike are one speaker, as in `unify`.
        scale: Lowest and highest value of the ratings of arousal, valence and dominance.

    Raises:
        ManifestError: A key of `columns` is not a field, the corpus name is not valid UTF-8, or the scale is none.
    """

    source: Path
    name: str = ""
    pattern: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    scratch: Path = Path()
    unlabelled: bool = False
    same_speaker: bool | None = None
    scale: Scale = UNIT

    def __post_init__(self) -> None:
        if not is_utf8(self.corpus):
            raise ManifestError(f"--name {self.corpus!a}: not UTF-8; choose a name that can be written in a table")
        for name in self.columns:
            if name not in FIELDS:
                raise ManifestError(f"--column {name}={self.columns[name]}: {unknown('column', name, FIELDS)}")
        require_scale(self.scale)

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.name or Path(os.path.realpath(self.source)).stem

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that must be present."""
        return tuple(name for name in NEEDED if name != "emotion" or not self.unlabelled)


def read_table(request: Request) -> Listing:
    """List the utterances of a CSV, TSV or Parquet table.

    The columns path, speaker and emotion are needed; others in FIELDS are used where present, all others are ignored.
    Everything is text: speaker `03` stays `03`. `path` is absolute or relative to the table's folder, or to the current folder
    where the file is only there; `start` and `end` are seconds into the file.

    Raises:
        ManifestError: The table cannot be read or is invalid; the message lists every problem.
    """
    return with_files_of_here(listing_of(read_columns(request.source, {}), request, request.source.parent))


def with_files_of_here(listing: Listing) -> Listing:
    """Take paths that exist in the current folder, but not in that of the table, as relative to the current one."""
    sources = dict.fromkeys(utterance.source for utterance in listing.utterances)
    here = {source: os.path.relpath(source, listing.folder) for source in sources if is_only_here(source, listing.folder)}
    if not here:
        return listing
    utterances = [replace(utterance, source=here.get(utterance.source, utterance.source)) for utterance in listing.utterances]
    note = f"{len(here)} of {counted(len(sources), 'file')} taken from the current folder, since not beside the table"
    return replace(listing, utterances=utterances, notes=[*listing.notes, note])


def read_pattern(request: Request) -> Listing:
    """List the audio files of a folder whose relative paths match `request.pattern`.

    {field} and * match anything but a slash, ** matches slashes, too. Audio files that do not match are rejected.

    Raises:
        CorpusError: The folder does not exist, the pattern lacks {speaker} or {emotion}, or no file matches it.
    """
    folder, pattern = require_folder(request.source), compile_pattern(request.pattern, request.needed[1:])
    columns: Columns = {name: [] for name in ("path", *pattern.fields)}
    rejected = []
    for relative in list_audio(folder):
        if (values := pattern.match(relative)) is not None:
            for name, value in {"path": relative, **values}.items():
                columns[name].append(value)
        else:
            rejected.append((relative, f"its name does not match the pattern {request.pattern}"))
    rejected += list_unusable(folder)
    if not columns["path"] and not rejected:
        raise CorpusError(f"{folder}: no audio file in this folder or below it")
    if not columns["path"]:
        example = f", such as {rejected[0][0]}," if rejected else ""
        raise CorpusError(
            f"{folder}: none of {counted(len(rejected), 'audio file')}{example} matches the pattern {request.pattern}"
        )
    listing = listing_of(columns, request, folder)
    return replace(listing, rejected=[*rejected, *listing.rejected])


def compile_pattern(pattern: str, needed: Sequence[str] = NEEDED[1:]) -> Pattern:
    """Return a file-name pattern, checked; a field that occurs twice must have the same value both times.

    >>> compile_pattern("{speaker}/{emotion}_*.wav").match("s1/sad_3.wav")
    {'emotion': 'sad', 'speaker': 's1'}
    """
    if not pattern:
        raise CorpusError('a folder needs --pattern, such as --pattern "{speaker}/{emotion}/*_{text}.wav"')
    if adjacent := re.search(r"\}[{*]|\*\{", pattern):
        raise CorpusError(f"--pattern {pattern}: a separator is needed between the two fields at {adjacent[0]}")
    parsed = parse(pattern)
    if len(parsed.parts) > MAX_PARTS:
        parts = counted(len(parsed.parts), "part")
        raise CorpusError(f"--pattern {pattern[:100]}...: {parts} (texts and wildcards), expected at most {MAX_PARTS}")
    for name in parsed.fields:
        if name not in COLUMNS or name in (*NOT_IN_NAMES, *DIMENSIONS):
            raise CorpusError(f"--pattern {pattern}: {unknown('field', name, ('speaker', 'emotion', *OPTIONAL[1:-2]))}")
    if missing := [name for name in needed if name not in parsed.fields]:
        raise CorpusError(f"--pattern {pattern}: needs {' and '.join('{' + name + '}' for name in missing)}")
    return parsed


def listing_of(columns: Columns, request: Request, folder: Path) -> Listing:
    """Turn columns of text into utterances, each segment once.

    In folders and databases, rows without speaker or emotion are rejected one by one: files of another kind, or rows that were
    never labelled. In a table they are an error.

    Args:
        columns: Columns under their names in the source.
        request: Names of columns, and whether emotions are needed.
        folder: Folder that paths are relative to.

    Raises:
        ManifestError: A column is missing or a row is invalid; the message lists every problem.
    """
    columns, notes = readable(own_names(columns, request), request.source)
    columns |= {name: without_missing_words(cells) for name, cells in columns.items() if name not in NEEDED}
    columns.setdefault("emotion", [""] * len(columns["path"]))
    require_seconds(columns, request.source)
    require_ratings(columns, request.scale, request.source)
    needed = request.needed[1:]
    rejected: list[tuple[str, str]] = []
    if request.source.is_dir():
        columns, rejected = without_line_breaks(columns)
    else:
        require_single_lines({name: columns[name] for name in NEEDED}, request.source)
        require_no_swallowed_rows(columns, request.source)
    missing = {name: [is_missing(cell) for cell in columns[name]] for name in needed}
    if request.source.is_dir():
        columns, unlabelled = without_unlabelled(columns, missing)
        rejected += unlabelled
    else:
        require_no_missing_words(columns, missing, request)
    notes += [note for name in GROUPED for note in doubtful_names(name, columns.get(name, []))]
    columns |= {name: without_missing_words(columns[name]) for name in NEEDED[1:]}
    listing = Listing(make_utterances(columns, request.corpus, request.scale), rejected, folder, "", request.unlabelled, notes)
    listing = without_contradictions(unify(reject_invalid_names(listing), request.source, request.same_speaker))
    listing = remove_duplicates(listing)
    require_valid(listing.utterances, request.source, listing.rejected, listing.unlabelled)
    return listing


def readable(columns: Columns, source: Path) -> tuple[Columns, list[str]]:
    """Strip cells, and read optional columns of a table that are not UTF-8 as Windows-1252, with a note.

    Names of files in a folder may be anything; those that are not UTF-8 are rejected later, one by one.
    """
    stripped = {name: [cell.strip() for cell in cells] for name, cells in columns.items()}
    foreign = [name for name, cells in stripped.items() if source.is_file() and not all(map(is_utf8, cells))]
    for name in foreign:
        if name in NEEDED:
            require_text(name, stripped[name], source)
        stripped[name] = [cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace") for cell in stripped[name]]
    return stripped, [f"{name} is not UTF-8: read as Windows-1252" for name in foreign]


def without_unlabelled(columns: Columns, missing: Mapping[str, Sequence[bool]]) -> tuple[Columns, list[tuple[str, str]]]:
    """Return the columns without rows in which a needed label is missing, and these rows as rejected."""
    rejected = []
    for row, path in enumerate(columns["path"]):
        labels = {name: columns[name][row] for name, flags in missing.items() if flags[row]}
        if labels:
            words = (f"its {name} is '{word}', which stands for a missing value" for name, word in labels.items() if word)
            empty = [name for name, word in labels.items() if not word]
            rejected.append((path, "; ".join([*words, *([f"has no label for {' and '.join(empty)}"] if empty else [])])))
    labelled = [not any(flags) for flags in zip(*missing.values(), strict=True)]
    return {name: list(compress(cells, labelled)) for name, cells in columns.items()}, rejected


def require_no_missing_words(columns: Columns, missing: Mapping[str, Sequence[bool]], request: Request) -> None:
    """Raise ManifestError for a word such as nan in a needed column; `require_valid` reports cells that are empty."""
    problems = []
    for name, flags in missing.items():
        rows = [row for row, flag in enumerate(flags, start=1) if flag and columns[name][row - 1]]
        if rows and not (name == "emotion" and request.unlabelled):
            words = shorten(dict.fromkeys(f"'{columns[name][row - 1]}'" for row in rows))
            problems.append(f"{name} in row {shorten(rows)} is {words}, which stands for a missing value")
    if problems:
        accept = ", accept utterances without emotion with --unlabelled" if any(missing.get("emotion", ())) else ""
        raise ManifestError(
            f"{request.source}: {'; '.join(problems)}. Fill in these cells, remove the rows{accept}, or rename what is a name"
        )


def without_missing_words(cells: list[str]) -> list[str]:
    """Return the cells of a column with empty strings for missing values."""
    words = {cell for cell in set(cells) if is_missing(cell)}
    return ["" if cell in words else cell for cell in cells] if words else cells


def own_names(columns: Columns, request: Request) -> Columns:
    """Return the columns that are fields of an utterance, under the fields' names; raise ManifestError for missing ones."""
    chosen = {}
    for name in FIELDS:
        given = request.columns.get(name)
        if given and given not in columns:
            raise ManifestError(f"{request.source}: --column {name}={given}: {unknown('column', given, columns)}")
        present = [option for option in (given, name, *ALIASES.get(name, ())) if option in columns]
        if present:
            chosen[name] = columns[present[0] or ""]
    if missing := [name for name in request.needed if name not in chosen]:
        raise ManifestError(
            f"{request.source}: no column {', '.join(missing)}; found {shorten(columns, 10)}{separator_hint(columns)}, "
            f"needed {', '.join(request.needed)}; name a column with --column {missing[0]}=NAME"
        )
    return chosen


def make_utterances(columns: Columns, corpus: str, scale: Scale = UNIT) -> list[Utterance]:
    """Return one utterance per row of stripped cells."""
    rows = len(columns["path"])
    texts = {name: columns.get(name, [""] * rows) for name in OPTIONAL}
    start, end = ([number(cell) for cell in texts.pop(name)] for name in ("start", "end"))
    texts["sex"] = [SEXES.get(alike_key(sex), sex) for sex in texts["sex"]]
    texts["partition"] = [PARTITIONS.get(alike_key(part), part.lower()) for part in texts["partition"]]
    texts["id"] = [
        name or segment_id(path, first, last)
        for name, path, first, last in zip(texts["id"], columns["path"], start, end, strict=True)
    ]
    texts |= {"corpus": [corpus] * rows, "speaker": columns["speaker"], "emotion": columns["emotion"], "source": columns["path"]}
    names = [name for name in COLUMNS if name in texts or name in ("start", "end")]
    cells = [{**texts, "start": start, "end": end}[name] for name in names]
    utterances = [Utterance(*row) for row in zip(*cells, strict=True)]  # in the order of COLUMNS
    rated = {name: columns[name] for name in DIMENSIONS if name in columns}
    if not rated:
        return utterances
    ratings = (dict(zip(rated, row, strict=True)) for row in zip(*rated.values(), strict=True))
    return [with_ratings(utterance, ratings_of(row, scale)) for utterance, row in zip(utterances, ratings, strict=True)]


def with_ratings(utterance: Utterance, ratings: Mapping[str, Any]) -> Utterance:
    """Return an utterance with ratings, by dimension."""
    return replace(utterance, **ratings)


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
            raise ManifestError(f"{source}: {name} in row {row} is '{cell}'{more}: expected seconds, such as 12.5")


def require_folder(path: Path) -> Path:
    """Return `path`; raise CorpusError unless it is a folder."""
    if not path.is_dir():
        raise CorpusError(f"{path} {'is a file, not a folder' if path.exists() else 'does not exist'}")
    return path
