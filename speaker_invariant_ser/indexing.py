"""Conversion of labels (speakers, emotions, utterance ids) to integers and to one-hot vectors."""

from collections.abc import Sequence

import numpy as np


def to_indices(values: Sequence[str] | np.ndarray, classes: Sequence[str] | None = None) -> np.ndarray:
    """Return each value's index among the classes.

    Args:
        values: N labels, such as the speaker of each utterance.
        classes: All possible labels in the order that defines their indices; by default the distinct values, sorted.

    Returns:
        Integers [N] in 0 .. C-1.

    Raises:
        ValueError: A value is not among `classes`.

    >>> to_indices(["b", "a", "b"])
    array([1, 0, 1])
    >>> to_indices(["b", "a", "b"], classes=("c", "b", "a"))
    array([1, 2, 1])
    """
    if classes is None:
        return np.unique(values, return_inverse=True)[1]
    index = {label: number for number, label in enumerate(classes)}
    if unknown := sorted(set(values) - set(index)):
        raise ValueError(f"not among the classes {', '.join(map(str, classes))}: {', '.join(map(str, unknown))}")
    return np.array([index[value] for value in values], dtype=np.int64)


def one_hot(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return N labels as float32 [N, C] with one column for each distinct value, sorted, and a single 1 in each row.

    >>> one_hot(["b", "a"])
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    return (np.asarray(values)[:, None] == np.unique(values)).astype(np.float32)


def spread_order(truth: np.ndarray, seed: int) -> np.ndarray:
    """Return a random order [N] in which every stretch holds each speaker in about the overall proportion."""
    rng = np.random.default_rng(seed)
    rank = np.empty(len(truth))
    for speaker in np.unique(truth):
        rows = rng.permutation(np.flatnonzero(truth == speaker))
        rank[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(rank)
