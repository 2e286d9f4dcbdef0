"""Find rows of a table of embeddings that are copies of another row of the same speaker.

An attacker that is fitted on one of two copies recognises the other, whatever the embedding says of the speaker.
"""

from collections import Counter

import numpy as np
from scipy.spatial import cKDTree

NEIGHBOURS = 16  # whose distances show how far apart rows usually are
MAX_ROWS = 50_000  # among which neighbours are searched
PROJECTED = 12  # dimensions in which neighbours are searched
MIN_DIMENSIONS = 4  # in fewer, different rows are close to each other by chance
CLOSE = 0.05  # of a copy: its distance as a share of that of the 16th neighbour
COARSE = 2.5  # distances in the projection are up to so many times too large or too small
DISCRETE = 0.1  # share of different rows below which rows are codes, which repeat by themselves
MIN_REPEATED = 3  # utterances with one and the same row from which a note says so
ACROSS = 0.1  # share of the pairs of equal rows that may be of two speakers before equal rows are codes


def copies(embedding: np.ndarray, speaker: np.ndarray) -> np.ndarray:
    """Return a mask [N] of the rows that are equal or nearly equal to an earlier row of the same speaker.

    Rows are compared as they are and by their directions, so that scaled and mirrored rows are copies as well. Nearly equal is
    what is far closer than the neighbours of other rows. Beyond MAX_ROWS rows, and in fewer than MIN_DIMENSIONS dimensions, only
    equal rows are found. Where rows are codes out of a small set, as of a quantised release, equal rows are no copies.

    Args:
        embedding: Numbers [N, D].
        speaker: Speakers [N].
    """
    pairs = [equal_pairs(embedding)]
    if are_codes(embedding, pairs[0], speaker):
        return np.zeros(len(speaker), dtype=bool)
    distinct = np.setdiff1d(np.arange(len(speaker)), pairs[0][:, 1])
    scale = embedding.std(axis=0)
    rows = embedding[distinct][:, scale > 0].astype(np.float64) / scale[scale > 0]
    if NEIGHBOURS + 1 < len(distinct) <= MAX_ROWS and rows.shape[1] >= MIN_DIMENSIONS:
        pairs += [distinct[close_pairs(view)] for view in (rows - rows.mean(axis=0), *directions(rows))]
    earlier, later = np.concatenate(pairs).T
    same = speaker[earlier] == speaker[later]
    copied = np.zeros(len(speaker), dtype=bool)
    copied[later[same]] = True
    return copied


def equal_pairs(embedding: np.ndarray) -> np.ndarray:
    """Return pairs [P, 2] of equal rows: the first one with these numbers, and a later one."""
    rows = np.ascontiguousarray(embedding)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    pairs = np.stack([first[inverse.reshape(-1)], np.arange(len(rows))], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def are_codes(embedding: np.ndarray, equal: np.ndarray, speaker: np.ndarray) -> bool:
    """Return whether equal rows are to be expected: there are few different ones, or different speakers have the same."""
    if not len(equal):
        return False
    across = (speaker[equal[:, 0]] != speaker[equal[:, 1]]).mean()
    return len(embedding) - len(equal) < DISCRETE * len(embedding) or across > ACROSS


def directions(rows: np.ndarray) -> list[np.ndarray]:
    """Return the rows as vectors of length 1 whose sign does not matter; nothing where one is 0."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        return []
    units = rows / norms
    largest = np.take_along_axis(units, np.abs(units).argmax(axis=1)[:, None], axis=1)
    return [units * np.sign(largest)]


def close_pairs(rows: np.ndarray) -> np.ndarray:
    """Return pairs [P, 2] of rows [N, D], earlier and later, that are far closer to each other than rows usually are."""
    rng = np.random.default_rng(0)
    narrow = rows.shape[1] <= PROJECTED
    projected = rows if narrow else rows @ rng.normal(0, PROJECTED**-0.5, (rows.shape[1], PROJECTED))
    distance, neighbour = cKDTree(projected).query(projected, k=NEIGHBOURS + 1)
    near = (distance[:, :-1] <= COARSE * CLOSE * distance[:, -1:]) & (neighbour[:, :-1] != np.arange(len(rows))[:, None])
    row, rank = np.nonzero(near)
    other = neighbour[row, rank]
    exact = np.linalg.norm(rows[row] - rows[other], axis=1)
    usual = np.median(np.linalg.norm(rows - rows[neighbour[:, -1]], axis=1))
    pairs = np.stack([row, other], axis=1)[exact < CLOSE * usual]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def repeated_embedding(embedding: np.ndarray, speaker: np.ndarray) -> list[str]:
    """Return a note if several speakers have one and the same row among different ones, such as zeros where a step failed."""
    rows = [row.tobytes() for row in np.ascontiguousarray(embedding)]
    counts = Counter(rows)
    repeated, count = counts.most_common(1)[0]
    speakers = len({name for name, row in zip(speaker.tolist(), rows, strict=True) if row == repeated})
    if count < MIN_REPEATED or speakers < 2 or len(counts) - 1 < (len(rows) - count) / 2:  # few different ones are codes
        return []
    return [f"{count} of {len(rows)} embeddings, of {speakers} speakers, are one and the same: were they computed?"]
