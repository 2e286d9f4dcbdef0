"""Votes of annotators about the emotion of an utterance: their text in a manifest, their majority, and their shares.

In a manifest, votes are a JSON object: {"angry": 3, "sad": 1} are numbers of votes (or shares) by emotion, {"ann1": "angry",
"ann2": "sad"} the label of each annotator. An utterance without votes has an empty text.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from speaker_invariant_ser.errors import ManifestError
from speaker_invariant_ser.json_files import parse_json

Ballot = dict[str, float] | dict[str, str]  # emotion -> votes, or annotator -> emotion


def as_text(ballot: Mapping[str, float] | Mapping[str, str]) -> str:
    """Return votes as the text of a manifest; whole numbers without a point.

    >>> as_text({"angry": 3.0, "sad": 0.5}), as_text({})
    ('{"angry": 3, "sad": 0.5}', '')
    """
    cells = {key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in ballot.items()}
    return json.dumps(cells, ensure_ascii=False) if cells else ""


def read_ballot(text: str) -> Ballot:
    """Return the votes of a text, empty for an empty one.

    Raises:
        ValueError: The text is no such object.
    """
    if not text:
        return {}
    ballot = parse_json(text)
    values = [*ballot.values()] if isinstance(ballot, dict) else []
    if values and all(isinstance(value, str) and value for value in values):
        return ballot
    if values and all(type(value) in (int, float) and 0 < value < 1e12 for value in values):
        return ballot
    raise ValueError("expected a JSON object of votes by emotion, or of labels by annotator")


def require_votes(texts: Sequence[str], source: object) -> None:
    """Raise ManifestError for a cell of a manifest that holds no votes."""
    for row, text in enumerate(texts, start=1):
        try:
            read_ballot(text)
        except ValueError as error:
            raise ManifestError(f"{source}: votes in row {row} cannot be read ({error})") from None


def annotators_of(text: str) -> dict[str, str]:
    """Return the label of each annotator; empty where only numbers of votes are known.

    >>> annotators_of('{"ann1": "sad"}'), annotators_of('{"sad": 1}')
    ({'ann1': 'sad'}, {})
    """
    return {name: label for name, label in read_ballot(text).items() if isinstance(label, str)}


def counts_of(text: str) -> dict[str, float]:
    """Return the number of votes for each emotion, or its share.

    >>> counts_of('{"ann1": "sad", "ann2": "sad", "ann3": "angry"}')
    {'sad': 2, 'angry': 1}
    """
    ballot = read_ballot(text)
    if labels := [label for label in ballot.values() if isinstance(label, str)]:
        return dict(Counter(labels))
    return {emotion: float(count) for emotion, count in ballot.items()}


def leaders(counts: Mapping[str, float]) -> list[str]:
    """Return the emotion with the most votes, or all of them where they are tied.

    >>> leaders({"angry": 2, "sad": 1}), leaders({"angry": 2, "sad": 2, "happy": 1}), leaders({})
    (['angry'], ['angry', 'sad'], [])
    """
    most = max(counts.values(), default=0)
    return sorted(emotion for emotion, count in counts.items() if math.isclose(count, most, rel_tol=1e-9))


def renamed(text: str, new: Callable[[str], str]) -> str:
    """Return votes with other names of emotions; votes for an emotion whose new name is empty are dropped.

    >>> renamed('{"angry": 2, "cross": 1, "bored": 4}', {"angry": "angry", "cross": "angry", "bored": ""}.get)
    '{"angry": 3}'
    >>> renamed('{"ann1": "cross", "ann2": "bored"}', {"cross": "angry", "bored": ""}.get)
    '{"ann1": "angry"}'
    """
    if labels := annotators_of(text):
        return as_text({name: label for name, old in labels.items() if (label := new(old))})
    counts: defaultdict[str, float] = defaultdict(float)
    for emotion, count in counts_of(text).items():
        if name := new(emotion):
            counts[name] += count
    return as_text(counts)


def emotions_of(texts: Iterable[str]) -> Counter[str]:
    """Return the emotions that have votes, with the number of utterances in which they have any."""
    return Counter(emotion for text, number in Counter(texts).items() for emotion in counts_of(text) for _ in range(number))


def counts_table(texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return votes [N, C] of utterances for the emotions of a model; votes for other emotions do not count."""
    column = {label: index for index, label in enumerate(labels)}
    table = np.zeros((len(texts), len(labels)))
    for row, text in enumerate(texts):
        for emotion, count in counts_of(text).items():
            if emotion in column:
                table[row, column[emotion]] = count
    return table


def label_shares(texts: Sequence[str], truth: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return the distribution of the annotators' votes over the emotions of a model.

    Args:
        texts: Votes of N utterances; without a vote for any of `labels`, the utterance counts as its label.
        truth: Labels [N] as positions in `labels`; -1 where they are unknown.
        labels: Names of the C emotions.

    Returns:
        Float32 [N, C], each row with sum 1; zeros for an utterance of unknown emotion, whatever its votes.
    """
    table = counts_table(texts, labels)
    total = table.sum(axis=1, keepdims=True)
    single = np.eye(len(labels) + 1)[truth][:, :-1]  # -1 is the last row, whose first C columns are zero
    shares = np.where(total > 0, table / np.where(total > 0, total, 1), single)
    return (shares * (truth >= 0)[:, None]).astype(np.float32)
