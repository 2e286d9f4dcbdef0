"""Your own data without code: tables, and folders whose file names follow a pattern.

Every format becomes columns of text named like the fields of `Utterance`; `listing_of` turns these into utterances.
`custom_formats.py` adds audformat databases and Hugging Face datasets, and lists all formats.
"""

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
from speaker_invariant_ser.data.tables.cells import (
    NEEDED,
    Columns,
    number,
    readable,
    require_no_swallowed_rows,
    require_seconds,
    require_single_lines,
    without_line_breaks,
    without_missing_words,
)
from speaker_invariant_ser.data.tables.columns import read_columns, separator_hint
from speaker_invariant_ser.data.tables.names import alike_key, find, is_missing, is_utf8, segment_id
from speaker_invariant_ser.data.tables.pattern import MAX_PARTS, Pattern, parse
from speaker_invariant_ser.data.tables.ratings import UNIT, Scale, ratings_of, require_scale, without_ratings_of_another_scale
from speaker_invariant_ser.data.tables.unify import doubtful_names, unify, without_contradictions, without_unusable_cells
from speaker_invariant_ser.data.tables.vote_columns import majority_labels, read_votes, vote_notes
from speaker_invariant_ser.errors import CorpusError, ManifestError, counted, shorten, unknown

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
NOT_IN_NAMES = ("id", "source", "corpus", "start", "end", "offset", "samples", "copies", "votes")  # fields that no path has
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
        votes: Beginning of the names of columns that hold the votes for an emotion, see `read_votes`.
        annotators: Names or patterns of columns that hold one annotator's labels each.

    Raises:
        ManifestError: A key of `columns` is not a field, the corpus name is not valid UTF-8, the scale is none, or votes are
            given in two ways.
    """

    source: Path
    name: str = ""
    pattern: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    scratch: Path = Path()
    unlabelled: bool = False
    same_speaker: bool | None = None
    scale: Scale = UNIT
    votes: str = ""
    annotators: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not is_utf8(self.corpus):
            raise ManifestError(f"--name {self.corpus!a}: not UTF-8; choose a name that can be written in a table")
        if self.votes and self.annotators:
            raise ManifestError(
                f"--votes {self.votes} and --annotators {self.annotators[0]} are two ways to give votes; expected one"
            )
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
    note = f"{len(here):,} of {counted(len(sources), 'file')} taken from the current folder, since not beside the table"
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
    for relative in list_audio(folder, unopened={}):  # `list_unusable` has them
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
            f"{pattern_hint(request.pattern)}"
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


def pattern_hint(pattern: str) -> str:
    """Return what is wrong in a pattern that no file matches, where that can be seen; otherwise nothing."""
    if "\\" in pattern:
        return "; \\ is no slash here: write / between folders"
    return "; paths are relative to the folder: write no / in front" if pattern.startswith(("/", "./")) else ""


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
    columns, from_votes, spelling_notes = with_votes(columns, request)
    columns, notes = readable(columns, request.source)
    columns |= {name: without_missing_words(cells) for name, cells in columns.items() if name not in NEEDED}
    columns.setdefault("emotion", [""] * len(columns["path"]))
    require_seconds(columns, request.source)
    columns, unused = without_ratings_of_another_scale(columns, request.scale, request.source, request.columns)
    notes = [*notes, *unused]
    needed = request.needed[1:]
    rejected: list[tuple[str, str]] = []
    if request.source.is_dir():
        columns, rejected = without_line_breaks(columns)
    else:
        require_single_lines({name: columns[name] for name in NEEDED}, request.source)
        require_no_swallowed_rows(columns, request.source)
    columns, emptied = without_unusable_cells(columns, {*NEEDED, "votes", "tie"})
    notes += emptied
    ties = columns["tie"]
    missing = {name: [is_missing(cell) for cell in columns[name]] for name in needed}
    if from_votes and "emotion" in missing:
        missing["emotion"] = [flag and not tie for flag, tie in zip(missing["emotion"], ties, strict=True)]
    if request.source.is_dir():
        columns, unlabelled = without_unlabelled(columns, missing)
        rejected += unlabelled
    else:
        require_no_missing_words(columns, missing, request)
    if not request.unlabelled:
        columns, tied = without_ties(columns)
        rejected += tied
    notes += [note for name in GROUPED for note in doubtful_names(name, columns.get(name, []))]
    columns |= {name: without_missing_words(columns[name]) for name in NEEDED[1:]}
    listing = Listing(make_utterances(columns, request.corpus, request.scale), rejected, folder, "", request.unlabelled, notes)
    listing = without_contradictions(unify(reject_invalid_names(listing), request.source, request.same_speaker))
    listing = remove_duplicates(listing)
    require_valid(listing.utterances, request.source, listing.rejected, listing.unlabelled)
    texts, emotions = ([getattr(utterance, name) for utterance in listing.utterances] for name in ("votes", "emotion"))
    return replace(listing, notes=[*listing.notes, *spelling_notes, *vote_notes(texts, emotions, from_votes)])


def with_votes(columns: Columns, request: Request) -> tuple[Columns, bool, list[str]]:
    """Return the columns that are fields of an utterance, with `votes`, and the reason of a `tie` where there is no majority.

    Returns:
        The columns, whether `emotion` is the majority of the votes, because the source has no such column, and notes.

    Raises:
        ManifestError: As `own_names` and `read_votes`, or a row of a table has neither a label nor votes.
    """
    emotion = present_name("emotion", columns, request)
    given = columns[emotion] if emotion else []
    fields = {present_name(name, columns, request) for name in FIELDS}
    others = {name: cells for name, cells in columns.items() if name not in fields}
    try:
        texts, notes = read_votes(others, request.source, request.votes, request.annotators, given)
    except ManifestError as error:
        if request.votes or request.annotators or not emotion:
            raise
        texts, notes = [], [f"no votes are taken: {str(error).removeprefix(f'{request.source}: ')}"]
    from_votes = bool(texts) and not emotion
    majority, ties = majority_labels(texts) if from_votes else ([], [])
    without = [row for row, text in enumerate(texts, start=1) if not text]
    if from_votes and without and not request.unlabelled and request.source.is_file():
        raise ManifestError(
            f"{request.source}: no votes in row {shorten(without)}, and no column emotion; fill in these cells, remove the rows, "
            "or accept utterances without emotion with --unlabelled"
        )
    own = own_names({**columns, "emotion": majority} if from_votes else columns, request)
    rows = len(own["path"])
    return {**own, "votes": texts or [""] * rows, "tie": ties or [""] * rows}, from_votes, notes


def without_ties(columns: Columns) -> tuple[Columns, list[tuple[str, str]]]:
    """Return the columns without rows whose votes have no majority, and these rows as rejected."""
    rejected = [(path, reason) for path, reason in zip(columns["path"], columns["tie"], strict=True) if reason]
    return {name: list(compress(cells, (not tie for tie in columns["tie"]))) for name, cells in columns.items()}, rejected


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


def own_names(columns: Columns, request: Request) -> Columns:
    """Return the columns that are fields of an utterance, under the fields' names; raise ManifestError for missing ones."""
    chosen = {}
    for name in FIELDS:
        given = find(request.columns[name], columns) if name in request.columns else None
        if given and given not in columns:
            raise ManifestError(f"{request.source}: --column {name}={given}: {unknown('column', given, columns)}")
        if present := present_name(name, columns, request):
            chosen[name] = columns[present]
    if missing := [name for name in request.needed if name not in chosen]:
        raise ManifestError(
            f"{request.source}: no column {', '.join(missing)}; found {shorten(columns, 10)}{separator_hint(columns)}, "
            f"needed {', '.join(request.needed)}; name a column with --column {missing[0]}=NAME"
        )
    return chosen


def present_name(name: str, columns: Columns, request: Request) -> str:
    """Return the name of the column that holds a field, as the request or we call it; empty if there is none."""
    options = (find(request.columns.get(name, ""), columns), name, *ALIASES.get(name, ()))
    return next((option for option in options if option and option in columns), "")


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
    texts |= {
        "corpus": [corpus] * rows,
        "source": columns["path"],
        **{key: columns[key] for key in ("speaker", "emotion", "votes")},
    }
    names = [*texts, "start", "end"]
    cells = [*texts.values(), start, end]
    utterances = [Utterance(**dict(zip(names, row, strict=True))) for row in zip(*cells, strict=True)]
    rated = {name: columns[name] for name in DIMENSIONS if name in columns}
    if not rated:
        return utterances
    ratings = (dict(zip(rated, row, strict=True)) for row in zip(*rated.values(), strict=True))
    return [with_ratings(utterance, ratings_of(row, scale)) for utterance, row in zip(utterances, ratings, strict=True)]


def with_ratings(utterance: Utterance, ratings: Mapping[str, Any]) -> Utterance:
    """Return an utterance with ratings, by dimension."""
    return replace(utterance, **ratings)


def require_folder(path: Path) -> Path:
    """Return `path`; raise CorpusError unless it is a folder."""
    if not path.is_dir():
        raise CorpusError(f"{path} {'is a file, not a folder' if path.exists() else 'does not exist'}")
    return path
