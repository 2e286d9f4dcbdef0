"""Choose speakers, balanced by corpus and sex: the dev speakers of a fold, and groups that are tested or scored in turn."""

import operator
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from speaker_invariant_ser.data.labels import domain_column
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import SplitError, counted, shorten
from speaker_invariant_ser.recipe import SplitSection

Group = tuple[str, str]  # (corpus, sex) of a speaker, by which dev speakers and test groups are balanced


@dataclass(frozen=True)
class SpeakerTable:
    """What the schemes know about the speakers; every mapping is sorted by speaker, every tuple by value.

    `domains` are the values of split.column, `labelled` the speakers with at least one utterance that has an emotion.
    """

    groups: Mapping[str, Group]
    sessions: Mapping[str, tuple[str, ...]]
    corpora: Mapping[str, tuple[str, ...]]
    partitions: Mapping[str, tuple[str, ...]]
    domains: Mapping[str, tuple[str, ...]]
    labelled: frozenset[str]


def speaker_table(settings: SplitSection, utterances: Sequence[Utterance]) -> SpeakerTable:
    """Collect what the schemes need to know about the speakers."""
    domains = values_by_speaker(domain_column(settings), utterances)
    corpora = values_by_speaker("corpus", utterances)
    return SpeakerTable(
        groups={speaker: (corpora[speaker][0], sex) for speaker, sex in sex_by_speaker(utterances).items()},
        sessions=values_by_speaker("session", utterances),
        corpora=corpora,
        partitions=values_by_speaker("partition", utterances),
        domains=domains,
        labelled=frozenset(utterance.speaker for utterance in utterances if utterance.emotion),
    )


def values_by_speaker(column: str, utterances: Sequence[Utterance]) -> dict[str, tuple[str, ...]]:
    """Return the values that each speaker's utterances have in a column, sorted."""
    values = defaultdict(set)
    for utterance in utterances:
        values[utterance.speaker].add(getattr(utterance, column))
    return {speaker: tuple(sorted(values[speaker])) for speaker in sorted(values)}


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
        if not dev_count:
            raise SplitError(
                f"fold {name}: {counted(len(groups), 'speaker')} cannot give {len(test)} to test and at least 2 to train"
            )
        raise SplitError(
            f"fold {name}: {counted(len(groups), 'speaker')} cannot give {len(test)} to test, {dev_count} to dev "
            "and at least 2 to train; "
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


def distribute(groups: Mapping[str, Group], count: int, seed: int) -> list[tuple[str, ...]]:
    """Distribute speakers over `count` groups by corpus and sex, so that groups differ by at most one speaker of each.

    Args:
        groups: Corpus and sex of the speakers to distribute.
        count: Number of groups, at most that of speakers.
        seed: Seed of the order in which speakers of one corpus and sex are distributed.

    Returns:
        The groups, each sorted.
    """
    shuffled = random.Random(seed).sample(sorted(groups), len(groups))
    ordered = sorted(shuffled, key=lambda speaker: groups[speaker])
    return [tuple(sorted(ordered[number::count])) for number in range(count)]


def sex_by_speaker(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Return the sex of each speaker, empty if unknown, sorted by speaker; raise SplitError if a speaker has two."""
    pairs = sorted({(utterance.speaker, utterance.sex) for utterance in utterances})
    contradicting = [speaker for speaker, count in Counter(speaker for speaker, _ in pairs).items() if count > 1]
    if contradicting:
        raise SplitError(f"speaker {shorten(contradicting)} has more than one sex in the manifest")
    return dict(pairs)
