"""Embeddings of known people, whoever made them. N clips, D dimensions."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from speaker_invariant_ser.errors import AuditError, shorten


@dataclass(frozen=True)
class Embeddings:
    """One encoder's embeddings of known people; all have N entries."""

    embedding: np.ndarray  # [N, D]
    id: np.ndarray
    speaker: np.ndarray
    emotion: np.ndarray
    text: np.ndarray  # "" where it is not known
    scored: np.ndarray  # bool: attackers are scored on these; all True where it is not known what the encoder trained on
    frames: list[np.ndarray] | None = None  # the encoder's maps before pooling, [F, T_n] float16 each

    def rows(self, kept: np.ndarray) -> "Embeddings":
        """Only these clips: a mask or positions."""
        places = np.arange(len(self.id))[kept]
        columns = {name: getattr(self, name)[places] for name in ("embedding", "id", "speaker", "emotion", "text", "scored")}
        return Embeddings(**columns, frames=self.frames and [self.frames[place] for place in places])

    @property
    def cells(self) -> np.ndarray:
        """Speaker x emotion [N], what folds are stratified by."""
        return np.char.add(np.char.add(self.speaker.astype(str), "\n"), self.emotion.astype(str))


def singles(table: Embeddings) -> list[str]:
    return [str(speaker) for speaker, clips in Counter(table.speaker).items() if clips < 2]


def check(table: Embeddings) -> None:
    speakers = sorted(set(table.speaker))
    if len(speakers) < 2:
        raise AuditError(f"{len(speakers)} speakers with two clips or more ({shorten(speakers)}): an audit needs at least 2")
    if not table.scored.any():
        raise AuditError("no clip to score attackers on: at least one has to be marked as scored")
    broken = ~np.isfinite(table.embedding).all(axis=1)
    if broken.any():
        raise AuditError(f"embedding of {shorten(table.id[broken])} holds NaN or infinity")
