"""Verification from several utterances of one person: their embeddings are averaged on both sides of a trial.

Shapes: N utterances, D dimensions, G groups of utterances, P pairs of groups, K speakers.
"""

from collections.abc import Mapping

import numpy as np

from speaker_invariant_ser.audit.verification.scorers import Scorer
from speaker_invariant_ser.audit.verification.trials import MAX_PAIRS, Trials, draw_pairs, has_both_kinds
from speaker_invariant_ser.indexing import to_indices

CLIPS = (1, 5, 10)  # of one person
PARTITIONS = 10  # of each speaker's utterances into groups, since a single one has few groups


def group_clips(speaker: np.ndarray, clips: int, rng: np.random.Generator, recording: np.ndarray | None = None) -> np.ndarray:
    """Divide each speaker's utterances into groups at random; those that are left over are in none.

    Args:
        speaker: Speaker of each utterance [N], 0 to K - 1.
        clips: Utterances of a group.
        rng: Source of the assignment.
        recording: Recording of each utterance [N], 0 to R - 1, whose utterances are kept together as far as groups allow.

    Returns:
        Positions of the members of each group [G, clips], the groups in the order of their speakers.

    >>> group_clips(np.array([0, 0, 0, 1, 1]), 2, np.random.default_rng(0)).shape
    (2, 2)
    """
    shuffled = rng.permutation(len(speaker))
    if recording is not None:
        shuffled = shuffled[np.argsort(rng.permutation(recording.max() + 1)[recording[shuffled]], kind="stable")]
    groups = [np.zeros((0, clips), dtype=np.int64)]
    for rows in np.split(shuffled[np.argsort(speaker[shuffled], kind="stable")], np.cumsum(np.bincount(speaker))[:-1]):
        groups.append(rows[: len(rows) // clips * clips].reshape(-1, clips))
    return np.concatenate(groups)


def make_trials_of_groups(
    embedding: np.ndarray,
    speaker: np.ndarray,
    scorers: Mapping[str, Scorer],
    clips: int,
    seed: int = 0,
    recording: np.ndarray | None = None,
) -> Trials | None:
    """Score pairs of groups: an attacker has several utterances of one person, and as many of a person to compare with.

    Each pair is of groups of the same partition, so that no utterance is on both sides, nor is a recording or a near copy. Texts
    and emotions are mixed within groups.

    Args:
        embedding: Embeddings [N, D].
        speaker: Speaker of each utterance [N].
        scorers: Scorers by name, fitted on embeddings of other speakers.
        clips: Utterances of a group.
        seed: Seed of the groups and of the sample of pairs.
        recording: Recording of each utterance, or group of near copies [N]; None where each utterance is one of its own.

    Returns:
        The trials; None where there are no two groups of one speaker, or no groups of two speakers.
    """
    index, rng = to_indices(speaker), np.random.default_rng(seed)
    recording = None if recording is None else to_indices(recording)
    groups, pairs, total = [], [], 0
    for partition in range(PARTITIONS):
        members = group_clips(index, clips, rng, recording)
        pairs.append(total + draw_pairs(index[members[:, 0]], MAX_PAIRS // PARTITIONS, seed + partition))
        groups.append(members)
        total += len(members)
    members, (left, right) = np.concatenate(groups), np.concatenate(pairs).T
    if recording is not None:
        shared = (recording[members[left]][:, :, None] == recording[members[right]][:, None]).any(axis=(1, 2))
        left, right = left[~shared], right[~shared]
    of_group = index[members[:, 0]]
    target = of_group[left] == of_group[right]
    if not has_both_kinds(target):
        return None
    means = embedding[members].mean(axis=1)
    counts = np.full(len(means), clips)
    return Trials(
        score={name: scorer.compare(means, left, right, counts) for name, scorer in scorers.items()},
        target=target,
        same_emotion=np.zeros(len(target), dtype=bool),
        speaker_pair=np.column_stack([of_group[left], of_group[right]]),
        speakers=np.unique(speaker),
        utterances=len(speaker),
        same_text_left_out=False,
    )
