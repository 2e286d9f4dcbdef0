"""Choose the dev speakers of a fold: balanced by corpus and sex, each speaker about equally often over all folds."""

import operator
from collections.abc import Mapping
from itertools import zip_longest

from speaker_invariant_ser.errors import SplitError

Group = tuple[str, str]  # (corpus, sex) of a speaker, by which dev speakers and test groups are balanced


def divide(
    name: str, test: tuple[str, ...], dev_count: int, groups: Mapping[str, Group]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide the speakers that are not tested into training and dev speakers.

    Args:
        name: Name of the fold, for the error message.
        test: Test speakers of the fold.
        dev_count: Number of dev speakers.
        groups: Corpus and sex of every speaker, sorted by speaker.

    Returns:
        (train, dev), both sorted.

    Raises:
        SplitError: Fewer than two speakers are left to train on.
    """
    order = dev_candidates(test, groups)
    if len(order) - dev_count < 2:
        raise SplitError(
            f"fold {name}: {len(groups)} speakers cannot give {len(test)} to test, {dev_count} to dev and at least 2 to train; "
            "lower split.dev_speakers or prepare more speakers"
        )
    return tuple(sorted(order[dev_count:])), tuple(sorted(order[:dev_count]))


def dev_candidates(test: tuple[str, ...], groups: Mapping[str, Group]) -> list[str]:
    """Return all speakers that are not tested, in the order in which they become dev speakers.

    Groups alternate. Within a group the order starts after the last test speaker and wraps around, so that over all folds every
    speaker is dev about equally often. The last test speaker's own group comes first, then the groups that share least with it
    (the other sex of another corpus, if there is one).

    >>> groups = {"f1": ("c", "female"), "f2": ("c", "female"), "m1": ("c", "male"), "m2": ("c", "male")}
    >>> dev_candidates(("f1",), groups)
    ['f2', 'm1', 'm2']
    >>> dev_candidates(("m1",), groups)
    ['m2', 'f1', 'f2']
    """
    last_tested = test[-1] if test else next(iter(groups))
    speakers = {group: [speaker for speaker in groups if groups[speaker] == group] for group in sorted(set(groups.values()))}
    own_group = groups[last_tested]
    position = speakers[own_group].index(last_tested)
    queues = []
    for group in sorted(speakers, key=lambda group: (group != own_group, sum(map(operator.eq, group, own_group)))):
        members = speakers[group]
        start = (position + (group == own_group)) % len(members)
        queues.append([speaker for speaker in members[start:] + members[:start] if speaker not in test])
    return [speaker for candidates in zip_longest(*queues) for speaker in candidates if speaker is not None]
