"""Who is trained on, who selects, who is tested: always whole speakers. A split that shares one cannot be constructed."""

import operator
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from speaker_invariant_ser.config import SplitSection
from speaker_invariant_ser.errors import SplitError, shorten, unknown
from speaker_invariant_ser.manifest import Utterance


@dataclass(frozen=True)
class Split:
    """One fold: the speakers of each part. Raises SplitError if a part is empty or a speaker is in two.

    With `texts`, it is disjoint in texts too: tested on these alone, trained and selected on all others. `held_out` are
    ids of training speakers' clips that are not trained on: the audit scores attackers on them.
    """

    name: str
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    texts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in ("train", "dev", "test"):
            if not getattr(self, part):
                raise SplitError(f"fold {self.name}: no {part} speakers; a fold needs train, dev and test speakers")
        counts = Counter([*set(self.train), *set(self.dev), *set(self.test)])
        shared = sorted(speaker for speaker, parts in counts.items() if parts > 1)
        if shared:
            raise SplitError(
                f"fold {self.name}: speaker {shorten(shared)} is on both sides of the split; "
                "every speaker belongs to one of train, dev and test"
            )
        if len(set(self.train)) < 2:
            raise SplitError(f"fold {self.name}: {len(set(self.train))} training speaker, at least 2 are needed")

    def indices(self, part: str, utterances: Sequence[Utterance]) -> list[int]:
        """Positions of the utterances of a part: "train" (without what is held out), "held_out", "dev" or "test"."""
        held, texts = set(self.held_out), set(self.texts)
        if part == "held_out":
            return [index for index, one in enumerate(utterances) if one.id in held]
        speakers = set(getattr(self, part))
        return [
            index
            for index, one in enumerate(utterances)
            if one.speaker in speakers and one.id not in held and (not texts or (one.text in texts) == (part == "test"))
        ]


Kind = tuple[str, str]  # (corpus, sex): what dev speakers and groups are balanced by


@dataclass(frozen=True)
class People:
    """What a scheme may know of the speakers, each by speaker, sorted."""

    kinds: Mapping[str, Kind]
    sessions: Mapping[str, tuple[str, ...]]
    corpora: Mapping[str, tuple[str, ...]]
    partitions: Mapping[str, tuple[str, ...]]


def make_splits(settings: SplitSection, utterances: Sequence[Utterance]) -> list[Split]:
    """The folds of a recipe's [split] section over these utterances. Raises SplitError.

    Dev speakers are taken from what would be the training speakers, balanced by sex where it is known, and by corpus.
    """
    columns = {name: values_of(name, utterances) for name in ("session", "corpus", "partition")}
    kinds = {speaker: (columns["corpus"][speaker][0], sex) for speaker, sex in speaker_sexes(utterances).items()}
    people = People(kinds, columns["session"], columns["corpus"], columns["partition"])
    require_enough(utterances)
    splits = SCHEMES[settings.scheme](settings, people)
    if settings.text_folds:
        splits = by_text(splits, settings, utterances)
    for split in splits:
        require_emotions(split, utterances)
    return splits


def values_of(column: str, utterances: Sequence[Utterance]) -> dict[str, tuple[str, ...]]:
    """Speaker -> the values of a column among the speaker's utterances, sorted."""
    found = defaultdict(set)
    for utterance in utterances:
        found[utterance.speaker].add(getattr(utterance, column))
    return {speaker: tuple(sorted(found[speaker])) for speaker in sorted(found)}


def speaker_sexes(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Speaker -> sex ("" if unknown), sorted by speaker. Raises SplitError if a speaker has two."""
    pairs = sorted({(utterance.speaker, utterance.sex) for utterance in utterances})
    twice = [speaker for speaker, times in Counter(speaker for speaker, _ in pairs).items() if times > 1]
    if twice:
        raise SplitError(f"speaker {shorten(twice)} has more than one sex in the manifest")
    return dict(pairs)


def require_enough(utterances: Sequence[Utterance]) -> None:
    speakers = {utterance.speaker for utterance in utterances}
    emotions = {utterance.emotion for utterance in utterances}
    if len(emotions) < 2:
        raise SplitError(f"{len(emotions)} emotion ({shorten(emotions)}) in the data, at least 2 are needed")
    if len(speakers) < 4:
        raise SplitError(
            f"{len(speakers)} speakers ({shorten(sorted(speakers))}) in the data, at least 4 are needed: "
            "two to train on, one to select the epoch, one to test"
        )


def require_emotions(split: Split, utterances: Sequence[Utterance]) -> None:
    """Raise SplitError if a part has no utterance, or an emotion of dev or test has no training example."""
    heard = {part: {utterances[i].emotion for i in split.indices(part, utterances)} for part in ("train", "dev", "test")}
    for part, emotions in heard.items():
        if not emotions:
            raise SplitError(f"fold {split.name}: no {part} utterance is left when texts are kept apart; lower split.text_folds")
    if unheard := (heard["dev"] | heard["test"]) - heard["train"]:
        raise SplitError(
            f"fold {split.name}: emotion {shorten(sorted(unheard))} has no training utterance; "
            'keep the emotions that all have, with labels.map = "five" or a map of your own'
        )


def loso(settings: SplitSection, people: People) -> list[Split]:
    """Leave one speaker out: every speaker is tested once, and is dev about equally often."""
    return [with_dev(speaker, (speaker,), settings.dev_speakers, people.kinds) for speaker in people.kinds]


def group_kfold(settings: SplitSection, people: People) -> list[Split]:
    """Speakers dealt to `folds` groups, each sex in turn, so that groups differ by at most one of each sex."""
    kinds = people.kinds
    if settings.folds > len(kinds):
        raise SplitError(f"split.folds = {settings.folds}: more folds than speakers ({len(kinds)})")
    shuffled = random.Random(settings.seed).sample(sorted(kinds), len(kinds))
    dealt = sorted(shuffled, key=lambda speaker: kinds[speaker])
    groups = [tuple(sorted(dealt[fold :: settings.folds])) for fold in range(settings.folds)]
    return [with_dev(str(fold), group, settings.dev_speakers, kinds) for fold, group in enumerate(groups, start=1)]


def leave_one_session_out(settings: SplitSection, people: People) -> list[Split]:
    """Every session is tested once, with all its speakers; the next one is dev, so that no parts share a room or a dialogue."""
    sessions = groups_of(people.sessions, "session")
    if len(sessions) < 3:
        raise SplitError(f"{len(sessions)} sessions ({shorten(sessions)}): at least 3 are needed, for training, dev and test")
    names, splits = list(sessions), []
    for place, name in enumerate(names):
        following = names[(place + 1) % len(names)]
        train = tuple(one for other in names if other not in (name, following) for one in sessions[other])
        splits.append(Split(name, tuple(sorted(train)), sessions[following], sessions[name]))
    return splits


def leave_one_corpus_out(settings: SplitSection, people: People) -> list[Split]:
    """Every corpus is tested once, with all its speakers; dev speakers are taken from each of the others that can spare them."""
    corpora = groups_of(people.corpora, "corpus")
    if len(corpora) < 2:
        raise SplitError(f"one corpus ({shorten(corpora)}): leave-one-corpus-out needs two or more, see `siser prepare --also`")
    splits = []
    for name, test in corpora.items():
        others = [pick(people.kinds, corpora[one]) for one in corpora if one != name]
        together = {speaker: kind for kinds in others for speaker, kind in kinds.items()}
        enough = [kinds for kinds in others if len(kinds) >= settings.dev_speakers + 2] or [together]
        dev = [speaker for kinds in enough for speaker in divide(name, (), settings.dev_speakers, kinds)[1]]
        train = [speaker for kinds in others for speaker in kinds if speaker not in dev]
        splits.append(Split(name, tuple(sorted(train)), tuple(sorted(dev)), test))
    return splits


def groups_of(column: Mapping[str, tuple[str, ...]], name: str) -> dict[str, tuple[str, ...]]:
    """Group -> its speakers. Raises SplitError for a speaker in no group, or in two."""
    odd = [speaker for speaker, values in column.items() if values == ("",)]
    if odd:
        raise SplitError(f"speaker {shorten(odd)} has no {name} in the manifest; choose another split.scheme")
    twice = [speaker for speaker, values in column.items() if len(values) > 1]
    if twice:
        raise SplitError(f"speaker {shorten(twice)} is in more than one {name}, so that no split by {name} keeps speakers apart")
    groups = defaultdict(list)
    for speaker, (value,) in column.items():
        groups[value].append(speaker)
    return {value: tuple(groups[value]) for value in sorted(groups)}


def official(settings: SplitSection, people: People) -> list[Split]:
    """The corpus's own lists; dev speakers are taken from the training ones where it has none. Shared speakers are refused."""
    none = [speaker for speaker, values in people.partitions.items() if "" in values]
    if none:
        raise SplitError(
            f"speaker {shorten(none)} has utterances without a partition: the corpus has no official lists, or not for all"
        )
    parts = {part: tuple(s for s, values in people.partitions.items() if part in values) for part in ("train", "dev", "test")}
    if not parts["dev"] and parts["test"]:
        return [with_dev("official", parts["test"], settings.dev_speakers, people.kinds)]
    return [Split("official", **parts)]


def ravdess_five(settings: SplitSection, people: People) -> list[Split]:
    """The five folds by actor that published RAVDESS results use; dev speakers are taken from the training ones."""
    actors = {actor for fold in RAVDESS_FIVE for actor in fold}
    if set(people.kinds) != actors or set(people.corpora.values()) != {("ravdess",)}:
        raise SplitError("split.scheme = ravdess-five needs the corpus ravdess with its 24 actors, 01 to 24, and nobody else")
    return [with_dev(str(fold), test, settings.dev_speakers, people.kinds) for fold, test in enumerate(RAVDESS_FIVE, start=1)]


RAVDESS_FIVE = tuple(
    tuple(f"{actor:02}" for actor in fold)
    for fold in ((2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22))
)


def fixed(settings: SplitSection, people: People) -> list[Split]:
    """The lists in the recipe; dev speakers are chosen if none are listed."""
    if not settings.test:
        raise SplitError('split.scheme = "fixed" needs split.test, a list of test speakers')
    for speaker in settings.test + settings.dev:
        if speaker not in people.kinds:
            raise SplitError(f"split: {unknown('speaker', speaker, people.kinds)}")
    if not settings.dev:
        return [with_dev("fixed", settings.test, settings.dev_speakers, people.kinds)]
    # A speaker in both lists is left in both: Split refuses it, by name.
    train = tuple(speaker for speaker in people.kinds if speaker not in settings.test + settings.dev)
    return [Split("fixed", train, settings.dev, settings.test)]


SCHEMES: dict[str, Callable[[SplitSection, People], list[Split]]] = {
    "loso": loso,
    "group-kfold": group_kfold,
    "leave-one-session-out": leave_one_session_out,
    "leave-one-corpus-out": leave_one_corpus_out,
    "official": official,
    "ravdess-five": ravdess_five,
    "fixed": fixed,
}


def by_text(splits: Sequence[Split], settings: SplitSection, utterances: Sequence[Utterance]) -> list[Split]:
    """Each fold once for every group of texts, tested on that group alone: every utterance is still tested once.

    Raises SplitError if a text is unknown, there are fewer texts than groups, or whole corpora are tested, whose texts are
    their own.
    """
    if settings.scheme == "leave-one-corpus-out":
        raise SplitError("split.text_folds: texts of different corpora are apart already; leave it at 0 for leave-one-corpus-out")
    texts = sorted({utterance.text for utterance in utterances})
    if "" in texts:
        unknown_texts = sum(not utterance.text for utterance in utterances)
        raise SplitError(f"split.text_folds = {settings.text_folds}: {unknown_texts} utterances have no text in the manifest")
    if not 2 <= settings.text_folds <= len(texts):
        raise SplitError(f"split.text_folds = {settings.text_folds}: expected 0, or 2 to {len(texts)} (the number of texts)")
    shuffled = random.Random(settings.seed).sample(texts, len(texts))
    groups = [tuple(sorted(shuffled[fold :: settings.text_folds])) for fold in range(settings.text_folds)]
    return [
        replace(split, name=f"{split.name}, texts {fold}", texts=group)
        for split in splits
        for fold, group in enumerate(groups, start=1)
    ]


def pick(values: Mapping[str, Kind], keys: Sequence[str]) -> dict[str, Kind]:
    return {key: values[key] for key in keys}


def with_dev(name: str, test: tuple[str, ...], count: int, kinds: Mapping[str, Kind]) -> Split:
    """A fold with `count` dev speakers, the kinds in turn, those after the test speaker first: all serve about equally often."""
    train, dev = divide(name, test, count, kinds)
    return Split(name, train, dev, tuple(sorted(test)))


def divide(name: str, test: tuple[str, ...], count: int, kinds: Mapping[str, Kind]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those who are not tested -> (train, dev), `count` of them dev. Raises SplitError if too few are left to train on."""
    order = candidates(test, kinds)
    if len(order) - count < 2:
        raise SplitError(
            f"fold {name}: {len(kinds)} speakers cannot give {len(test)} to test, {count} to dev and at least 2 to train; "
            "lower split.dev_speakers or prepare more speakers"
        )
    return tuple(sorted(order[count:])), tuple(sorted(order[:count]))


def candidates(test: tuple[str, ...], kinds: Mapping[str, Kind]) -> list[str]:
    """All who are not tested, kinds taking turns; within each kind beginning behind the place of the last one tested.

    That one's own kind comes first, then those that share least with it: the other sex of another corpus, if there is one.
    """
    after = test[-1] if test else next(iter(kinds))
    lines = {kind: [speaker for speaker in kinds if kinds[speaker] == kind] for kind in sorted(set(kinds.values()))}
    own = kinds[after]
    place = lines[own].index(after)
    turned = []
    for kind in sorted(lines, key=lambda kind: (kind != own, sum(map(operator.eq, kind, own)))):
        start = (place + (kind == own)) % len(lines[kind])
        turned.append([speaker for speaker in lines[kind][start:] + lines[kind][:start] if speaker not in test])
    return [speaker for turn in zip_longest(*turned) for speaker in turn if speaker is not None]
