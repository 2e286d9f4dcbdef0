"""At which rank an attacker has the true speaker among those enrolled.

Shapes: P probes, K speakers.
"""

from collections.abc import Sequence

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.verification.enrolment import Enrolment
from speaker_invariant_ser.audit.verification.per_speaker import SpeakerMeans
from speaker_invariant_ser.audit.verification.scorers import Scorer


def normalised_ranks(score: np.ndarray, speaker: np.ndarray) -> np.ndarray:
    """Return the rank of the true speaker for each probe: 0 first, 1 last, 0.5 on average if scores say nothing.

    Args:
        score: Scores of each enrolled speaker [P, K], higher for more similar ones; equal scores share their ranks.
        speaker: True speaker of each probe [P].

    Returns:
        Ranks [P], the number of other speakers that score higher, divided by K - 1.

    >>> normalised_ranks(np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 1.0]]), np.array([0, 2, 1])).tolist()
    [0.0, 0.5, 0.5]
    """
    true = score[np.arange(len(score)), speaker][:, None]
    above, equal = (score > true).sum(axis=1), (score == true).sum(axis=1) - 1
    return (above + equal / 2) / (score.shape[1] - 1)


def rank_speakers(table: Embeddings, enrolment: Enrolment, scorer: Scorer) -> tuple[np.ndarray, np.ndarray]:
    """Rank the enrolled speakers for each probe.

    Args:
        table: Embeddings of the speakers.
        enrolment: Probes and enrolled utterances of this table.
        scorer: A scorer that was fitted on embeddings of other speakers.

    Returns:
        The true speaker of each probe [P], and that speaker's normalised rank [P].
    """
    count, speakers = len(enrolment.probes), len(enrolment.speakers)
    vectors = np.concatenate([table.embedding[enrolment.probes], enrolment.vectors(table.embedding)])
    clips = np.concatenate([np.ones(count, dtype=np.int64), enrolment.clips])
    left, right = np.repeat(np.arange(count), speakers), count + enrolment.enrolled.ravel()
    score = scorer.compare(vectors, left, right, clips).reshape(count, speakers)
    return enrolment.speakers[enrolment.speaker], normalised_ranks(score, enrolment.speaker)


def pool_ranks(ranks: Sequence[tuple[np.ndarray, np.ndarray]]) -> SpeakerMeans | None:
    """Average the ranks of each speaker over probes and encoders, then over speakers; None without any."""
    if not ranks:
        return None
    names, rank = (np.concatenate(parts) for parts in zip(*ranks, strict=True))
    return SpeakerMeans.of({str(name): float(rank[names == name].mean()) for name in np.unique(names)})
