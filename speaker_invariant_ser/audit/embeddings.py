"""Embeddings with their labels: the input of an audit, whichever system computed them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from speaker_invariant_ser.data.tables.near_rows import copies
from speaker_invariant_ser.errors import AuditError, shorten
from speaker_invariant_ser.indexing import to_indices


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of N utterances by one encoder, with their labels. All columns have N entries.

    Attributes:
        embedding: Embeddings [N, D].
        id: Unique name of each utterance.
        speaker: Speaker of each utterance.
        emotion: Emotion of each utterance; the same value throughout where emotions are unknown.
        text: Spoken text or its code; "" where unknown.
        scored: Boolean mask of the utterances that attackers are scored on: those that the encoder was not trained on, or
            all where that is unknown. Attackers may be fitted on the others.
        frames: Frame-level features of the encoder before pooling, float16 [F, T] for each utterance, if available.
        group: Equal for utterances of which none may be scored by an attacker fitted on another, because they share audio or a
            recording; None if none do, as far as is known.
        code: Where the embedding is one of a few codes, its number or name; otherwise None.
        given: What chance "given emotion" is conditioned on [N] (see `evaluation.dimensions.rating_cells`); None: the emotion.
        copies: Rows that were left out because they are copies of one of these.
    """

    embedding: np.ndarray
    id: np.ndarray
    speaker: np.ndarray
    emotion: np.ndarray
    text: np.ndarray
    scored: np.ndarray
    frames: list[np.ndarray] | None = None
    group: np.ndarray | None = None
    code: np.ndarray | None = None
    given: np.ndarray | None = None
    copies: int = 0

    def select(self, rows: np.ndarray) -> "Embeddings":
        """Return the utterances given by a boolean mask or by positions."""
        positions = np.arange(len(self.id))[rows]
        columns = {name: getattr(self, name)[positions] for name in ("embedding", "id", "speaker", "emotion", "text", "scored")}
        frames = self.frames and [self.frames[position] for position in positions]
        known = {name: values[positions] for name in ("group", "code", "given") if (values := getattr(self, name)) is not None}
        return Embeddings(**columns, frames=frames, **known)

    @property
    def unit(self) -> np.ndarray:
        """What utterances are independent of each other by: their group, or themselves [N]."""
        return self.id if self.group is None else self.group

    @property
    def given_emotion(self) -> np.ndarray:
        """What chance "given emotion" is conditioned on [N]: the emotion, or cells of emotion and ratings."""
        return self.emotion if self.given is None else self.given

    @property
    def emotion_and_text(self) -> np.ndarray:
        """The combination of emotion and text [N]; the text alone where the combination is in no other unit.

        No attacker knows a combination that it is not fitted on, but may know the text.
        """
        both = np.char.add(np.char.add(self.given_emotion.astype(str), "\n"), self.text.astype(str))
        units = Counter(combination for combination, _ in set(zip(both.tolist(), self.unit.tolist(), strict=True)))
        several = np.array([units[combination] > 1 for combination in both.tolist()])
        return np.where(several, both, self.text)

    @property
    def speaker_and_emotion(self) -> np.ndarray:
        """One label [N] for each combination of speaker and emotion, by which folds are stratified."""
        return np.char.add(np.char.add(self.speaker.astype(str), "\n"), self.emotion.astype(str))


def taken_once(table: Embeddings, notes: list[str]) -> tuple[Embeddings, list[str]]:
    """Leave out rows that are copies of another row of the same speaker, of two copies one that is not scored; with a note."""
    order = np.argsort(~table.scored, kind="stable")
    repeated = np.zeros(len(order), dtype=bool)
    repeated[order] = copies(table.embedding[order], table.speaker[order])
    if not repeated.any():
        return table, notes
    left_out = f"{repeated.sum()} of {len(order)} rows are equal or nearly equal to another row of the same speaker: taken once"
    return replace(table.select(~repeated), copies=int(repeated.sum())), [*notes, left_out]


def speakers_with_one_utterance(table: Embeddings) -> list[str]:
    """Return the speakers with a single utterance or group, which cannot serve both to fit and to score an attacker.

    Where fewer than two speakers have several groups, groups do not count: the audit then says that near copies are scored.
    """
    single = singles(table, table.unit)
    return single if len(set(table.speaker)) - len(single) > 1 else singles(table, table.id)


def singles(table: Embeddings, units: np.ndarray) -> list[str]:
    """Return the speakers with a single unit."""
    counts = Counter(speaker for speaker, _ in set(zip(table.speaker.tolist(), units.tolist(), strict=True)))
    return [str(speaker) for speaker in dict.fromkeys(table.speaker.tolist()) if counts[speaker] < 2]


def nested_texts(tables: Sequence[Embeddings]) -> float:
    """Return the share of scored utterances whose text occurs several times, always by the same speaker.

    Where it is large, the text names the speaker: an embedding of what is said cannot be distinguished from one of the voice.
    """
    nested, scored = 0, 0
    for table in tables:
        speakers: dict[str, Counter] = {}
        for text, speaker in zip(table.text.tolist(), table.speaker.tolist(), strict=True):
            speakers.setdefault(text, Counter())[speaker] += 1
        alone = {text for text, counts in speakers.items() if text and len(counts) == 1 and counts.total() > 1}
        nested += int(np.isin(table.text[table.scored], list(alone)).sum())
        scored += int(table.scored.sum())
    return nested / max(scored, 1)


def without_single_utterances(table: Embeddings) -> Embeddings:
    """Return the table without the speakers who have a single utterance."""
    return table.select(~np.isin(table.speaker, speakers_with_one_utterance(table)))


def require_auditable(table: Embeddings) -> None:
    """Check that attackers can be fitted and scored on a table.

    Args:
        table: Embeddings in which every speaker has at least two utterances.

    Raises:
        AuditError: There are fewer than two speakers, no utterance is scored, or an embedding is not finite.
    """
    speakers = sorted(set(table.speaker))
    if len(speakers) < 2:
        found = f"there is 1 ({speakers[0]})" if speakers else "there are none"
        raise AuditError(f"an audit needs at least 2 speakers with 2 or more utterances each; {found}")
    if not table.scored.any():
        raise AuditError("no utterance is marked as scored; attackers need at least one to be scored on")
    not_finite = ~np.isfinite(table.embedding).all(axis=1)
    if not_finite.any():
        raise AuditError(f"the embedding of {shorten(table.id[not_finite])} contains NaN or infinity")


def to_common_indices(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Replace labels by the integers 0, 1, ... in sorted order, equal labels of different columns by the same integer.

    Args:
        columns: Arrays of labels, one for each encoder.

    Returns:
        Integer arrays of the same lengths.

    >>> [indices.tolist() for indices in to_common_indices([np.array(["b", "a"]), np.array(["c", "b"])])]
    [[1, 0], [2, 1]]
    """
    indices = to_indices(np.concatenate(columns))
    return np.split(indices, np.cumsum([len(column) for column in columns])[:-1])
