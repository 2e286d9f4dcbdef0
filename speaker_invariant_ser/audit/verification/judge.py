"""A judge: embeddings of the same utterances by another encoder, usually one that recognises speakers from the audio.

Shapes: N utterances, n of them, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speaker_invariant_ser.audit.inputs.read_embeddings import read_content
from speaker_invariant_ser.data.tables.vectors import require_finite, require_unique_ids, to_floats
from speaker_invariant_ser.errors import AuditError, counted, shorten
from speaker_invariant_ser.files import sha256


@dataclass(frozen=True)
class Judge:
    """The table of a judge.

    Attributes:
        path: Its file.
        row: Row of each utterance by id.
        embedding: Embeddings [N, D].
    """

    path: Path
    row: dict[str, int]
    embedding: np.ndarray

    def require(self, ids: Sequence[str] | np.ndarray) -> None:
        """Raise AuditError unless there is a row of every utterance."""
        missing = [str(name) for name in ids if str(name) not in self.row]
        if missing:
            raise AuditError(
                f"{self.path}: no row for {len(missing):,} of {counted(len(ids), 'utterance')}: {shorten(missing)}. Rows are "
                f"joined by id; ids of this table are such as {shorten(self.row, 2)}"
            )

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Return the embeddings of utterances [n, D]."""
        return self.embedding[[self.row[str(name)] for name in ids]]

    @property
    def described(self) -> dict:
        """What identifies the judge, for report.json."""
        return {"name": self.path.name, "sha256": sha256(self.path), "dimensions": self.embedding.shape[1]}


def read_judge(path: Path | str) -> Judge:
    """Read the table of a judge, of the kinds that `read_embeddings` reads.

    Args:
        path: A table with the column or array `id`, the utterances' ids; other labels are not used.

    Raises:
        AuditError: The file cannot be read, has no ids, an id occurs twice, or a number is not finite.
    """
    path = Path(path)
    embedding, labels, _, _ = read_content(path, {}, (), needed=())
    if "id" not in labels:
        raise AuditError(f"{path}: no id; the table of a judge needs the utterances' ids, by which rows are joined")
    embedding, ids = to_floats(embedding, path), labels["id"]
    if len(ids) != len(embedding):
        raise AuditError(f"{path}: embedding has {counted(len(embedding), 'row')}, id has {len(ids)}; expected one per utterance")
    require_unique_ids(ids, path)
    require_finite(embedding, ids, path)
    return Judge(path, {name: row for row, name in enumerate(ids)}, embedding)
