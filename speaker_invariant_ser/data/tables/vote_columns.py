"""Read the votes of several annotators from the columns of a user's table: one column per emotion, or one per annotator."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from speaker_invariant_ser.data.tables.names import alike_among, describe_groups, groups, is_missing, number_of, one_spelling
from speaker_invariant_ser.data.tables.votes import as_text, counts_of, emotions_of, leaders
from speaker_invariant_ser.errors import ManifestError, counted, shorten, shown, unknown

PREFIX = "votes_"  # of columns that are taken as votes unless options name others
MAX_VOTES = 1e9  # for one emotion of an utterance: no corpus has as many annotators
PERCENT = 100


def read_votes(
    columns: Mapping[str, Sequence[str]], source: Path, prefix: str, annotators: Sequence[str], given: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Read the votes of every row.

    Args:
        columns: All columns of the table, under its own names.
        source: The table, for error messages.
        prefix: Beginning of the names of columns that hold votes or shares, such as `votes_angry`; empty: PREFIX, if any have it.
        annotators: Names or patterns (`fnmatch`) of columns that hold one annotator's labels each.
        given: The labels of the column `emotion`, empty if there is none; votes for names that are alike get their spelling.

    Returns:
        The text of each row's votes (see `votes`), or an empty list if the table has none; and notes.

    Raises:
        ManifestError: No column has the prefix or matches a pattern; a cell is no number or negative; or the votes of a row add
            up to 0.
    """
    if annotators:
        names = annotator_columns(columns, annotators, source)
        cells = {name: [without_missing(cell) for cell in columns[name]] for name in names}
        spelling, notes = vote_spellings([label for column in cells.values() for label in column if label], given)
        rows = zip(*cells.values(), strict=True)
        texts = [as_text({name: spelling[cell] for name, cell in zip(names, row, strict=True) if cell}) for row in rows]
        return texts, notes
    emotions = vote_columns(columns, prefix, source)
    if not emotions:
        return [], []
    numbers = {name: [vote_of(cell, name, row, source) for row, cell in enumerate(columns[name], 1)] for name in emotions}
    spelling, notes = vote_spellings(list(emotions.values()), given)
    sums = [math.fsum(row) for row in zip(*numbers.values(), strict=True)]
    empty = [all(is_missing(cell.strip()) for cell in row) for row in zip(*(columns[name] for name in emotions), strict=True)]
    if zero := [row for row, (total, blank) in enumerate(zip(sums, empty, strict=True), 1) if total == 0 and not blank]:
        raise ManifestError(
            f"{source}: the votes in row {shorten(zero)} add up to 0 ({', '.join(emotions)}); expected a vote for one of them, "
            "or empty cells where nobody voted"
        )
    notes = [f"votes are taken from {shorten(emotions, 10)}", *notes]
    scale = 1.0
    voted = [total for total in sums if total]
    if len(emotions) > 1 and voted and all(abs(total - PERCENT) <= 1 for total in voted):
        scale = PERCENT
        notes.append(f"the votes of every row add up to {PERCENT}: taken as percentages, not as numbers of annotators")
    texts = []
    for values in zip(*numbers.values(), strict=True):
        ballot: defaultdict[str, float] = defaultdict(float)
        for emotion, value in zip(emotions.values(), values, strict=True):
            ballot[spelling[emotion]] += value / scale
        texts.append(as_text({emotion: value for emotion, value in ballot.items() if value}))
    return texts, notes


def annotator_columns(columns: Mapping[str, Sequence[str]], patterns: Sequence[str], source: Path) -> list[str]:
    """Return the columns that match a pattern; raise ManifestError for a pattern that no column matches."""
    for pattern in patterns:
        if not any(name == pattern or fnmatchcase(name, pattern) for name in columns):
            raise ManifestError(f"{source}: --annotators {pattern}: {unknown('column', pattern, columns)}")
    return [name for name in columns if any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)]


def vote_columns(columns: Mapping[str, Sequence[str]], prefix: str, source: Path) -> dict[str, str]:
    """Return the emotion of each column of votes, by the column's name; raise ManifestError if `prefix` is that of none."""
    start = prefix or PREFIX
    emotions = {name: name.removeprefix(start).strip() for name in columns if name.startswith(start) and name.strip() != start}
    if prefix and not emotions:
        raise ManifestError(
            f"{source}: --votes {prefix}: no column begins with {prefix} and ends with an emotion, such as {prefix}angry; found "
            f"{shorten(columns, 10) or 'no column beside those of every table'}"
        )
    return emotions


def vote_of(cell: str, column: str, row: int, source: Path) -> float:
    """Return the votes in a cell, 0 for a missing value; raise ManifestError for what is no number from 0 on."""
    text = without_missing(cell)
    try:
        votes = number_of(text or "0")
    except ValueError:
        votes = math.nan
    if not 0 <= votes < MAX_VOTES:
        raise ManifestError(
            f"{source}: {column} in row {row} is {shown(text)}: expected votes or a share; rename the column if it holds none"
        )
    return votes


def without_missing(cell: str) -> str:
    """Return a stripped cell, empty for a word that stands for a missing value."""
    text = cell.strip()
    return "" if is_missing(text) else text


def vote_spellings(labels: Sequence[str], given: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the spelling of each label that has votes: that of the column `emotion`, or the most frequent among the votes.

    Names that are alike would split the votes of one emotion, so they are one, with a note.
    """
    spelled = one_spelling(given)
    by_frequency = Counter(spelled[name] for name in given if name).most_common()
    key = alike_among([*labels, *given])
    own = {key(name): name for name, _ in reversed(by_frequency)}
    among = one_spelling(labels, key)
    spelling = {label: own.get(key(label), name) for label, name in among.items()}
    differing = groups([label for label, name in spelling.items() if label != name] + list(spelling.values()))
    notes = [f"votes for {describe_groups(differing)} are votes for one emotion"] if differing else []
    return spelling, notes


def majority_labels(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the emotion with the most votes in each row, and why a row has none.

    Returns:
        Emotions, empty where there is no majority; and the reason where two or more emotions have the most votes, else empty.
    """
    labels, reasons = [], []
    for text in texts:
        counts = counts_of(text)
        first = leaders(counts)
        labels.append(first[0] if len(first) == 1 else "")
        tied = f"no majority: {' and '.join(first)} are tied" if len(first) > 1 else ""
        reasons.append(tied)
    return labels, reasons


def vote_notes(texts: Sequence[str], emotions: Sequence[str], from_votes: bool) -> list[str]:
    """Return notes on the votes of the utterances that are left: where labels come from, what is missing, unknown emotions.

    Args:
        texts: Votes of each utterance.
        emotions: Its label, empty if it has none.
        from_votes: Whether the labels are the majority of the votes.
    """
    if not any(texts):
        return []
    notes = ["emotion is the majority of the votes"] if from_votes else []
    without = texts.count("")
    if without:
        notes.append(f"{counted(without, 'utterance has', 'utterances have')} no votes: the label counts as the only one")
    present = set(emotions)
    if unused := {emotion: count for emotion, count in emotions_of(texts).items() if emotion not in present}:
        what = shorten(f"'{emotion}' (of {counted(count, 'utterance')})" for emotion, count in sorted(unused.items()))
        notes.append(f"votes for {what} do not count, because no utterance has this label; labels.map can merge it with one")
    return notes
