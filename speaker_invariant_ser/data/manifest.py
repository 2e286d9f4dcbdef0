"""Utterances and the tables that list them: read, write, check, select and combine."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from speaker_invariant_ser.data.tables.names import describe_groups, find, groups, is_utf8
from speaker_invariant_ser.data.tables.votes import annotators_of, as_text, require_votes
from speaker_invariant_ser.errors import ManifestError, counted, shorten, unknown
from speaker_invariant_ser.files import writing

SEXES = ("female", "male", "")
PARTITIONS = ("train", "dev", "test", "")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of a manifest: the labels of an utterance and the position of its audio. Unknown labels are empty strings.

    An utterance without an emotion can only be trained on as unlabelled.
    """

    id: str
    corpus: str
    speaker: str
    emotion: str
    text: str = ""  # code of the sentence: equal codes have equal words
    sex: str = ""  # "female", "male" or ""
    language: str = ""  # ISO 639-1
    session: str = ""  # recording session, dialogue or location that speakers share
    style: str = ""  # way of speaking, where a corpus has several: speech, song, improvised, scripted
    intensity: str = ""  # as the corpus names it
    repetition: str = ""  # number of the take
    partition: str = ""  # "train", "dev" or "test" in the corpus's official lists
    source: str = ""  # original file, relative to the corpus folder
    recording: str = ""  # recording that utterances were cut from, where it is not `source`
    start: float = 0.0  # beginning of the utterance in the source, seconds
    end: float = 0.0  # end of the utterance in the source, seconds; 0: end of the file
    offset: int = 0  # first sample in the prepared audio
    samples: int = 0  # length in the prepared audio; 0 before the corpus is prepared
    copies: str = ""  # the same for utterances that share audio, see `copies`; empty for all others
    arousal: float | None = None  # 0 (calm) to 1 (excited), see `tables.ratings`; None where it was not rated
    valence: float | None = None  # 0 (negative) to 1 (positive)
    dominance: float | None = None  # 0 (weak) to 1 (strong)
    votes: str = ""  # of several annotators about the emotion, see `tables.votes`

    @property
    def recorded_in(self) -> str:
        """The recording that this utterance is a part of; empty if it is a recording of its own."""
        return self.recording or (self.source if self.start or self.end else "")


@dataclass(frozen=True)
class Listing:
    """The utterances of a folder or table before any audio is read, and (file, reason) for every rejected file.

    Attributes:
        utterances: Utterances with their labels.
        rejected: Files or rows that cannot be used, with the reason.
        folder: Folder that `source` is relative to.
        note: Limitation of the corpus that every report prints.
        unlabelled: Whether utterances may lack an emotion.
        notes: What was changed or is suspicious in the table's columns, as sentences.
    """

    utterances: list[Utterance]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    folder: Path = Path()
    note: str = ""
    unlabelled: bool = False
    notes: list[str] = field(default_factory=list)


COLUMNS = tuple(column.name for column in fields(Utterance))
DIMENSIONS = ("arousal", "valence", "dominance")  # columns that a manifest has where any utterance was rated
NUMBERS = {"start": "float64", "end": "float64", "offset": "int64", "samples": "int64"}
# Columns whose values divide utterances into groups, such as domains
NOT_GROUPABLE = ("id", "speaker", "emotion", "source", "copies", "votes", *NUMBERS, *DIMENSIONS)
GROUPABLE = tuple(name for name in COLUMNS if name not in NOT_GROUPABLE)
LATER = ("recording", "copies", *DIMENSIONS, "votes")  # columns that manifests of earlier versions do not have
WHERE_KNOWN = (*DIMENSIONS, "votes")  # columns that are written only if an utterance has a value


def write_manifest(path: Path | str, utterances: Sequence[Utterance]) -> None:
    """Write utterances as CSV; an interrupted write leaves no file."""
    import pyarrow.csv  # here and below, because many who need utterances do without pyarrow

    columns = {name: [getattr(utterance, name) for utterance in utterances] for name in COLUMNS}
    columns = {
        name: cells for name, cells in columns.items() if name not in WHERE_KNOWN or any(cell not in ("", None) for cell in cells)
    }
    types = NUMBERS | dict.fromkeys(DIMENSIONS, "float64")
    arrays = [pyarrow.array(column, types.get(name, "string")) for name, column in columns.items()]
    with writing(path, "wb") as file:
        pyarrow.csv.write_csv(pyarrow.table(arrays, names=list(columns)), file)


def read_manifest(path: Path | str) -> list[Utterance]:
    """Read the utterances that `write_manifest` wrote; raise ManifestError if the file is not a manifest."""
    import pyarrow

    from speaker_invariant_ser.data.tables.columns import read_columns

    types = NUMBERS | dict.fromkeys(DIMENSIONS, "float64")
    columns = read_columns(path, {name: pyarrow.type_for_alias(kind) for name, kind in types.items()})
    missing = [name for name in COLUMNS if name not in columns and name not in LATER]
    if missing:
        raise ManifestError(f"{path}: no column {shorten(missing)}; a manifest has {', '.join(COLUMNS)}")
    if unclear := [name for name in NUMBERS if None in columns[name]]:
        raise ManifestError(f"{path}: {shorten(unclear)} in row {columns[unclear[0]].index(None) + 1} is no number")
    for name in (name for name in DIMENSIONS if name in columns):
        for row, value in enumerate(columns[name], start=1):
            if value is not None and not 0 <= value <= 1:
                raise ManifestError(f"{path}: {name} in row {row} is {value:g}; expected 0 to 1, or an empty cell")
    require_votes(columns.get("votes", ()), path)
    cells = {name: [None if name in DIMENSIONS else ""] * len(columns["id"]) for name in LATER} | columns
    return [Utterance(*row) for row in zip(*(cells[name] for name in COLUMNS), strict=True)]


def require_valid(
    utterances: Sequence[Utterance], source: Path | str, rejected: Sequence[tuple[str, str]] = (), unlabelled: bool = False
) -> None:
    """Check utterances for every problem that a table can have.

    Args:
        utterances: Utterances of the table.
        source: Where they come from, for the error message.
        rejected: Files or rows that were rejected before, named if no utterance is left.
        unlabelled: Whether an emotion may be empty.

    Raises:
        ManifestError: There is no utterance, a needed cell is empty, a sex or partition is unknown, an id occurs twice, a speaker
            has two sexes, or a segment ends before it begins. The message lists all problems.
    """
    problems = [
        *empty_cells(utterances, ("speaker", *(() if unlabelled else ("emotion",)), "source")),
        *unknown_values(utterances, "sex", SEXES),
        *unknown_values(utterances, "partition", PARTITIONS),
        *repeated_ids(utterances),
        *contradicting_sexes(utterances),
        *impossible_segments(utterances),
    ]
    if not utterances:
        what = "file" if Path(source).is_dir() else "row"
        problems.append(
            f"none of {counted(len(rejected), what)} can be used, the first: {': '.join(rejected[0])}"
            if rejected
            else "contains no utterances"
        )
    if problems:
        raise ManifestError(f"{source}: " + "; ".join(problems))


def empty_cells(utterances: Sequence[Utterance], needed: Sequence[str]) -> list[str]:
    """Report rows in which a needed column is empty."""
    problems = []
    for name in needed:
        rows = [str(row) for row, utterance in enumerate(utterances, start=1) if not getattr(utterance, name)]
        if rows:
            problems.append(f"empty {name if name != 'source' else 'path'} in row {shorten(rows)}")
    return problems


def unknown_values(utterances: Iterable[Utterance], name: str, allowed: Sequence[str]) -> list[str]:
    """Report values of a column that are not allowed."""
    values = sorted({getattr(utterance, name) for utterance in utterances} - set(allowed))
    return [unknown(name, value, [option or "(empty)" for option in allowed]) for value in values]


def repeated_ids(utterances: Iterable[Utterance]) -> list[str]:
    """Report ids that occur more than once."""
    counts = Counter(utterance.id for utterance in utterances)
    repeated = [id_ for id_, count in counts.items() if count > 1 and id_]
    return [f"id {shorten(repeated)} occurs more than once"] if repeated else []


def contradicting_sexes(utterances: Iterable[Utterance]) -> list[str]:
    """Report speakers with more than one sex."""
    sexes = defaultdict(set)
    for utterance in utterances:
        sexes[utterance.speaker].add(utterance.sex)
    speakers = [speaker for speaker, values in sexes.items() if len(values) > 1]
    return [f"speaker {shorten(speakers)} has more than one sex"] if speakers else []


def impossible_segments(utterances: Sequence[Utterance]) -> list[str]:
    """Report segments that begin before 0 or do not end after their beginning."""
    segments = [f"{u.source} ({u.start:g} to {u.end:g} s)" for u in utterances if not 0 <= u.start < (u.end or math.inf)]
    return [f"impossible start and end: {shorten(segments)}"] if segments else []


def select(listings: Sequence[Listing], conditions: Sequence[tuple[str, str]]) -> list[Listing]:
    """Keep only utterances whose columns have the given values.

    A condition is not applied to one of several listings in which its column is empty throughout: `--only style=speech` keeps
    a corpus without styles.

    Args:
        listings: One listing per corpus.
        conditions: (column, value); of several values for one column, any will do.

    Raises:
        ManifestError: A column is unknown, no utterance has a value, or no utterance is left.
    """
    wanted = defaultdict(set)
    for column, value in conditions:
        if column not in COLUMNS or column in DIMENSIONS:
            possible = [name for name in COLUMNS if name not in DIMENSIONS]
            raise ManifestError(f"--only {column}={value}: {unknown('column', column, possible)}")
        wanted[column].add(value)
    for column, values in wanted.items():
        present = values_of(column, utterances_of(listings))
        wanted[column] = values = {find(value, present) for value in values}
        if absent := sorted(values - present):
            raise ManifestError(
                f"--only {column}={absent[0]}: no utterance has it, {column} is one of {shorten(sorted(present), 10)}"
            )
    selected = []
    for listing in listings:
        applied = {
            column: values
            for column, values in wanted.items()
            if len(listings) == 1 or values_of(column, listing.utterances) != {""}
        }
        kept = [u for u in listing.utterances if all(str(getattr(u, column)) in applied[column] for column in applied)]
        selected.append(replace(listing, utterances=kept))
    if not any(listing.utterances for listing in selected):
        options = {column: sorted(values_of(column, utterances_of(listings))) for column in wanted}
        text = "; ".join(f"{column} is one of {shorten(map(repr, values), 10)}" for column, values in options.items())
        raise ManifestError(f"--only leaves no utterance: {text}")
    return selected


def values_of(column: str, utterances: Iterable[Utterance]) -> set[str]:
    """Return the values of a column as text."""
    return {str(getattr(utterance, column)) for utterance in utterances}


def utterances_of(listings: Sequence[Listing]) -> list[Utterance]:
    """Return the utterances of all listings."""
    return [utterance for listing in listings for utterance in listing.utterances]


def remove_duplicates(listing: Listing) -> Listing:
    """Reject repeated rows, and files whose names cannot be written in UTF-8.

    Of equal rows the first is kept. Rows for the same segment with different labels are all rejected, because one label must be
    wrong.
    """
    listing = reject_invalid_names(listing)
    if len({(u.source, u.start, u.end) for u in listing.utterances}) == len(listing.utterances):
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


def reject_invalid_names(listing: Listing) -> Listing:
    """Reject files whose names are not UTF-8, because no table could contain them."""
    names = {utterance.source for utterance in listing.utterances if not is_utf8(utterance.source)}
    if not names:
        return listing
    reason = "its name is not UTF-8; rename the file"
    kept = [utterance for utterance in listing.utterances if utterance.source not in names]
    return replace(listing, utterances=kept, rejected=[*listing.rejected, *((name, reason) for name in sorted(names))])


def contradiction(utterances: Iterable[Utterance], columns: Sequence[str] = ("emotion", "speaker")) -> str:
    """Describe the columns in which utterances with the same audio differ; empty if none does. Unknown labels never differ."""
    values = {column: sorted({getattr(utterance, column) for utterance in utterances} - {""}) for column in columns}
    return " and ".join(f"conflicting {column}s ({shorten(given)})" for column, given in values.items() if len(given) > 1)


def combine(listings: Sequence[Listing]) -> tuple[Listing, list[Path]]:
    """Combine corpora into one listing.

    With several corpora, the corpus name is put before every id, speaker, text, session, recording and annotator, so that
    speaker 03 of one corpus and speaker 03 of another stay two speakers.

    Returns:
        The listing, and the path of each utterance's audio file.

    Raises:
        ManifestError: Two listings have the same corpus name, or two corpora would share a speaker name.
    """
    paths = [listing.folder / utterance.source for listing in listings for utterance in listing.utterances]
    if len(listings) == 1:
        return listings[0], paths
    names = Counter(name for listing in listings for name in values_of("corpus", listing.utterances))
    if repeated := [name for name, count in names.items() if count > 1]:
        raise ManifestError(f"two corpora are named {shorten(repeated)}; give one of them another name")
    if alike := groups(names):
        raise ManifestError(f"two corpora are named {describe_groups(alike)}; give one of them another name")
    utterances = [with_corpus_prefix(utterance) for utterance in utterances_of(listings)]
    corpora = defaultdict(set)
    for utterance in utterances:
        corpora[utterance.speaker].add(utterance.corpus)
    if ambiguous := [speaker for speaker, names_of_speaker in corpora.items() if len(names_of_speaker) > 1]:
        raise ManifestError(
            f"speaker name {shorten(ambiguous)} is ambiguous: it is in two corpora; give one of the corpora another name"
        )
    rejected = [
        (f"{listing.utterances[0].corpus if listing.utterances else listing.folder}/{file}", reason)
        for listing in listings
        for file, reason in listing.rejected
    ]
    note = " ".join(filter(None, (listing.note for listing in listings)))
    notes = [note for listing in listings for note in listing.notes]
    unlabelled = any(listing.unlabelled for listing in listings)
    return Listing(utterances, rejected, note=note, unlabelled=unlabelled, notes=notes), paths


def with_corpus_prefix(utterance: Utterance) -> Utterance:
    """Put the corpus name before id, speaker, text, session, recording and annotators; empty labels stay empty."""
    prefixed: dict[str, Any] = {
        name: f"{utterance.corpus}-{value}" if (value := getattr(utterance, name)) else ""
        for name in ("speaker", "text", "session", "recording")
    }
    if annotators := annotators_of(utterance.votes):
        prefixed["votes"] = as_text({f"{utterance.corpus}-{name}": label for name, label in annotators.items()})
    return replace(utterance, id=f"{utterance.corpus}/{utterance.id}", **prefixed)
