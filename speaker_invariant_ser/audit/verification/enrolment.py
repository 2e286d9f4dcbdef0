"""Enrolled speakers: what an attacker knows of each, without the utterance that is to be recognised.

Shapes: N utterances, D dimensions, P probes, K speakers, E enrolled vectors.
"""

from dataclasses import dataclass

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.indexing import spread_order, to_indices

MAX_ENROLLED, MAX_PROBES = 100, 2000  # speakers and probes of an encoder


@dataclass(frozen=True)
class Enrolment:
    """Probes, and for each probe the utterances that every speaker is enrolled with.

    A probe's own text (its recording, or the utterance alone, where texts are unknown or a speaker has a single one) is left out
    of what every speaker is enrolled with.

    Attributes:
        probes: Positions of the probes [P] in the table.
        speaker: Position of the true speaker of each probe [P] in `speakers`.
        speakers: Names of the enrolled speakers [K].
        members: For each enrolled vector [E], positions of the utterances that it is averaged from.
        enrolled: Position of the enrolled vector for each probe and speaker [P, K].
    """

    probes: np.ndarray
    speaker: np.ndarray
    speakers: np.ndarray
    members: list[np.ndarray]
    enrolled: np.ndarray

    @property
    def clips(self) -> np.ndarray:
        """Utterances behind each enrolled vector [E]."""
        return np.array([len(rows) for rows in self.members])

    def vectors(self, values: np.ndarray) -> np.ndarray:
        """Return the enrolled vectors [E, D], means over the values [N, D] of their utterances."""
        return np.stack([values[rows].mean(axis=0) for rows in self.members])


def enrol(table: Embeddings, seed: int = 0) -> Enrolment | None:
    """Choose probes, and what each speaker is enrolled with.

    Args:
        table: Utterances of the speakers.
        seed: Seed of the choice where there are more than `MAX_ENROLLED` speakers or `MAX_PROBES` utterances.

    Returns:
        The enrolment; None with fewer than two speakers who have two utterances each.
    """
    names, counts = np.unique(table.speaker, return_counts=True)
    names = names[counts > 1]
    if len(names) < 2:
        return None
    names = np.sort(np.random.default_rng(seed).permutation(names)[:MAX_ENROLLED])
    rows = np.flatnonzero(np.isin(table.speaker, names))
    index, part = np.searchsorted(names, table.speaker[rows]), parts(table, rows)
    order = spread_order(index, seed)[:MAX_PROBES]
    own = [np.flatnonzero(index == speaker) for speaker in range(len(names))]
    members: list[np.ndarray] = list(own)
    position: dict[tuple[int, int], int] = {}  # of the vector of a speaker without a part
    for speaker, member in enumerate(own):
        for left_out in np.intersect1d(part[member], part[order]).tolist():
            position[speaker, left_out] = len(members)
            members.append(member[part[member] != left_out])
    enrolled = np.array(
        [[position.get((speaker, left_out), speaker) for speaker in range(len(names))] for left_out in part[order].tolist()]
    )
    return Enrolment(rows[order], index[order], names, [rows[member] for member in members], enrolled)


def parts(table: Embeddings, rows: np.ndarray) -> np.ndarray:
    """Return what must not be both probe and enrolled [n], as integers: text, recording or utterance."""
    speaker = table.speaker[rows]
    for labels in (table.text, table.unit) if (table.text[rows] != "").all() else (table.unit,):
        part = to_indices(labels[rows])
        if all(len(np.unique(part[speaker == name])) > 1 for name in np.unique(speaker)):
            return part
    return np.arange(len(rows))
