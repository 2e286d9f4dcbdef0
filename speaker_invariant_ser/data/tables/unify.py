"""Bring labels to one spelling, and empty the cells of optional columns that cannot be used; every change has a note."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from speaker_invariant_ser.data.manifest import PARTITIONS, SEXES, Listing, Utterance
from speaker_invariant_ser.data.tables import names
from speaker_invariant_ser.errors import ManifestError, counted, shorten, shown

SPELLED = ("speaker", "emotion", "text", "session", "language", "style", "intensity", "repetition", "recording")
MAX_LABEL = 10_000  # characters of a cell, which may be a transcript
Notes = list[str]


def unify(listing: Listing, source: object, same_speaker: bool | None = None) -> Listing:
    """Give every name one spelling.

    Spellings that no reader can tell apart become one, with a note. Speaker names that are alike (see `names`) are an error until
    `same_speaker` decides; other labels that are alike stay different, with a note.

    Args:
        listing: Utterances as they were read.
        source: Where they come from, for error messages.
        same_speaker: Whether speaker names that are alike are one speaker; None if that is undecided.

    Raises:
        ManifestError: Speaker names are alike, and `same_speaker` is None.
    """
    changes: dict[str, Mapping[str, str]] = {}
    notes: Notes = []
    for column in SPELLED:
        values = [getattr(utterance, column) for utterance in listing.utterances]
        spelling, column_notes = spellings(column, values, source, same_speaker)
        notes += column_notes
        if any(name != chosen for name, chosen in spelling.items()):
            changes[column] = spelling
    utterances = [with_spelling(utterance, changes) for utterance in listing.utterances] if changes else listing.utterances
    return replace(listing, utterances=utterances, notes=[*listing.notes, *notes])


def with_spelling(utterance: Utterance, changes: Mapping[str, Mapping[str, str]]) -> Utterance:
    """Return an utterance with the chosen spelling of its labels, by column."""
    labels: dict[str, Any] = {column: spelling[getattr(utterance, column)] for column, spelling in changes.items()}
    return replace(utterance, **labels)


def spellings(
    column: str, values: Sequence[str], source: object, same_speaker: bool | None = None
) -> tuple[dict[str, str], Notes]:
    """Return the spelling of each value of a column, and notes about values that are the same or alike.

    Args:
        column: Name of the column; names in `speaker` must not be alike unless `same_speaker` says what that means.
        values: Its cells.
        source: Where they come from, for error messages.
        same_speaker: As in `unify`.

    Raises:
        ManifestError: As in `unify`; also for bytes that are not UTF-8, and for the character NUL.
    """
    require_short({column: values}, source)
    require_text(column, values, source)
    spelling = names.one_spelling(values)
    notes = []
    if same := names.groups(spelling, names.same_key):
        notes.append(f"{column} {names.describe_groups(same)}: one name in several spellings that look the same, taken as one")
    alike = [group for similar in names.groups(values) if len(group := sorted({spelling[name] for name in similar})) > 1]
    if alike and column == "speaker":
        if same_speaker is None:
            raise ManifestError(f"{source}: {alike_speakers(alike)}")
        if same_speaker:
            spelling = names.one_spelling(values, names.alike_among(values))
        notes.append(
            f"speaker {names.describe_groups(alike)}: {'one speaker' if same_speaker else 'different speakers'}, as given"
        )
    elif alike and column != "emotion":  # for emotions, `shortcuts` knows those of all corpora
        notes.append(f"{column} {names.describe_groups(alike)} count as different; correct the table if they mean the same")
    return spelling, notes


def alike_speakers(alike: Sequence[Sequence[str]]) -> str:
    """Return the message about speaker names that may be of one person."""
    return (
        f"speaker {names.describe_groups(alike)} may be one person, because the names differ only in case, accents, separators, "
        "look-alike letters, or how umlauts or numbers are written; add --same-speaker if they are one person, "
        "--distinct-speakers if they are not"
    )


def doubtful_names(column: str, values: Sequence[str]) -> Notes:
    """Return a note on labels that say that the label is not known: they are kept, but most likely mean nothing in common."""
    known = names.doubtful(values)
    if not known:
        return []
    what, advice = {
        "speaker": ("one speaker, though more may be meant", "leave these rows out"),
        "emotion": ("an emotion like any other", "leave these rows out or drop it with labels.map in the recipe"),
    }.get(column, (f"one {column}", "leave these cells empty"))
    counts = Counter(value for value in values if value in known)
    rows = shorten(f"'{value}' ({counted(count, 'row')})" for value, count in counts.items())
    return [f"{column} {rows} counts as {what}; {advice} if that is wrong"]


def without_unusable_cells(columns: Mapping[str, list[str]], needed: Collection[str]) -> tuple[dict[str, list[str]], Notes]:
    """Empty cells of optional columns that are too long to be compared or hold NUL, with notes: they reject no table."""
    emptied, notes = dict(columns), []
    for name, cells in columns.items():
        bad = [name not in needed and (len(cell) > MAX_LABEL or "\0" in cell) for cell in cells]
        if any(bad):
            emptied[name] = ["" if flag else cell for flag, cell in zip(bad, cells, strict=True)]
            which = shorten(str(row) for row, flag in enumerate(bad, start=1) if flag)
            notes.append(f"{name} in row {which} has more than {MAX_LABEL:,} characters, or the character NUL; left empty")
    return emptied, notes


def require_short(columns: Mapping[str, Sequence[str]], source: object) -> None:
    """Raise ManifestError for a cell of more than MAX_LABEL characters: comparing such names takes hours."""
    for column, values in columns.items():
        for row, length in enumerate(map(len, values), start=1):
            if length > MAX_LABEL:
                raise ManifestError(f"{source}: {column} in row {row} has {length:,} characters, expected at most {MAX_LABEL:,}")


def require_text(column: str, values: Sequence[str], source: object) -> None:
    """Raise ManifestError for a cell that is not UTF-8 or holds NUL, which ends a name in one program and not in another."""
    row = next((row for row, value in enumerate(values, start=1) if not names.is_utf8(value)), 0)
    if row:
        raise ManifestError(
            f"{source}: {column} in row {row} is {values[row - 1]!a}, which is not UTF-8; save the table again as UTF-8 "
            '(Excel: "CSV UTF-8")'
        )
    if row := next((row for row, value in enumerate(values, start=1) if "\0" in value), 0):
        raise ManifestError(f"{source}: {column} in row {row} holds the character NUL, which no text has; remove it")


def without_contradictions(listing: Listing) -> Listing:
    """Empty cells of sex and partition that cannot be used, and ids that occur twice: optional columns reject no table."""
    notes: Notes = []
    utterances = listing.utterances
    for column, allowed in (("sex", SEXES), ("partition", PARTITIONS)):
        counts = Counter(getattr(u, column) for u in utterances if getattr(u, column) not in allowed)
        if counts:
            what = shorten(f"{shown(value)} ({counted(count, 'row')})" for value, count in counts.items())
            notes.append(f"{column} {what}: expected {' or '.join(allowed[:-1])}; left empty")
            emptied = {column: dict.fromkeys(counts, "") | {value: value for value in allowed}}
            utterances = [with_spelling(utterance, emptied) for utterance in utterances]
    utterances, sex_notes = with_one_sex(utterances)
    utterances, id_notes = with_unique_ids(utterances)
    return replace(listing, utterances=utterances, notes=[*listing.notes, *notes, *sex_notes, *id_notes])


def with_one_sex(utterances: Sequence[Utterance]) -> tuple[list[Utterance], Notes]:
    """Give every utterance of a speaker the same sex; none where a speaker has two."""
    given: defaultdict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        given[utterance.speaker] |= {utterance.sex} - {""}
    contradicting = [speaker for speaker, sexes in given.items() if len(sexes) > 1]
    notes = [f"speaker {shorten(contradicting)} has more than one sex: left empty"] if contradicting else []
    sex = {speaker: next(iter(sexes)) if len(sexes) == 1 else "" for speaker, sexes in given.items()}
    return [u if u.sex == sex[u.speaker] else replace(u, sex=sex[u.speaker]) for u in utterances], notes


def with_unique_ids(utterances: Sequence[Utterance]) -> tuple[list[Utterance], Notes]:
    """Name all utterances by path and segment if an id occurs more than once."""
    counts = Counter(utterance.id for utterance in utterances)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return list(utterances), []
    notes = [f"id {shorten(repeated)} occurs more than once: paths are used as ids"]
    return [replace(u, id=names.segment_id(u.source, u.start, u.end)) for u in utterances], notes
