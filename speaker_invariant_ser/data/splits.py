"""Who is trained on, who selects, who is tested: always whole speakers. A split that shares one cannot be constructed."""

import operator
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from speaker_invariant_ser.data.labels import domain_column
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import SplitError, shorten, unknown
from speaker_invariant_ser.recipe import SplitSection


@dataclass(frozen=True)
class Split:
    """One fold: the speakers of each part. Raises SplitError if a part is empty or a speaker is in two.

    With `texts`, it is disjoint in texts too: tested on these alone, trained and selected on all others. `held_out` are
    ids of training speakers' clips that are not trained on: the audit scores attackers on them. `unlabelled` speakers are
    trained on as well, and none of their labels is ever looked at. A clip without a label is in no other part.
    """

    name: str
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    texts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in ("train", "dev", "test"):
            if not getattr(self, part):
                raise SplitError(f"fold {self.name}: no {part} speakers; a fold needs train, dev and test speakers")
        counts = Counter([*set(self.train), *set(self.dev), *set(self.test), *set(self.unlabelled)])
        shared = sorted(speaker for speaker, parts in counts.items() if parts > 1)
        if shared:
            raise SplitError(
                f"fold {self.name}: speaker {shorten(shared)} is on both sides of the split; "
                f"every speaker belongs to one of train, dev and test{' and unlabelled' * bool(self.unlabelled)}"
            )
        if len(set(self.train)) < 2:
            raise SplitError(f"fold {self.name}: {len(set(self.train))} training speaker, at least 2 are needed")

    def indices(self, part: str, utterances: Sequence[Utterance]) -> list[int]:
        """Positions of the utterances of a part: "train" (less what is held out), "unlabelled", "held_out", "dev" or "test"."""
        held, texts = set(self.held_out), set(self.texts)
        if part == "held_out":
            return [index for index, one in enumerate(utterances) if one.id in held]
        speakers = set(getattr(self, part))
        return [
            index
            for index, one in enumerate(utterances)
            if one.speaker in speakers
            and one.id not in held
            and (one.emotion or part == "unlabelled")
            and (not texts or (one.text in texts) == (part == "test"))
        ]


Kind = tuple[str, str]  # (corpus, sex): what dev speakers and groups are balanced by


@dataclass(frozen=True)
class People:
    """What a scheme may know of the speakers, each by speaker, sorted."""

    kinds: Mapping[str, Kind]
    sessions: Mapping[str, tuple[str, ...]]
    corpora: Mapping[str, tuple[str, ...]]
    partitions: Mapping[str, tuple[str, ...]]
    domains: Mapping[str, tuple[str, ...]]  # values of split.column
    labelled: frozenset[str]  # speakers of whom a clip has an emotion


def make_splits(settings: SplitSection, utterances: Sequence[Utterance]) -> list[Split]:
    """The folds of a recipe's [split] section over these utterances. Raises SplitError.

    Dev speakers are taken from what would be the training speakers, balanced by sex where it is known, and by corpus.
    """
    columns = {name: values_of(name, utterances) for name in ("session", "corpus", "partition", domain_column(settings))}
    kinds = {speaker: (columns["corpus"][speaker][0], sex) for speaker, sex in speaker_sexes(utterances).items()}
    labelled = frozenset(one.speaker for one in utterances if one.emotion)
    parts = (columns[name] for name in ("session", "corpus", "partition", settings.column))
    people = People(kinds, *parts, labelled)
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
    emotions = {utterance.emotion for utterance in utterances} - {""}
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
    """Speakers dealt to `folds` groups, each of which is tested once."""
    groups = deal(settings, people.kinds)
    return [with_dev(str(fold), group, settings.dev_speakers, people.kinds) for fold, group in enumerate(groups, start=1)]


def deal(settings: SplitSection, kinds: Mapping[str, Kind]) -> list[tuple[str, ...]]:
    """Speakers in `folds` groups, each sex in turn, so that groups differ by at most one of each sex."""
    if settings.folds > len(kinds):
        raise SplitError(f"split.folds = {settings.folds}: more folds than speakers ({len(kinds)})")
    shuffled = random.Random(settings.seed).sample(sorted(kinds), len(kinds))
    dealt = sorted(shuffled, key=lambda speaker: kinds[speaker])
    return [tuple(sorted(dealt[fold :: settings.folds])) for fold in range(settings.folds)]


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


def domain(settings: SplitSection, people: People) -> list[Split]:
    """Trained on one domain with its labels and on another without: Ganin et al., JMLR 2016. Speakers of both are tested.

    Every speaker is tested once, in the fold of the group that they are dealt to, or those of split.test in a single fold; nobody
    who is tested is trained on, not even without labels. Dev speakers are of the source, since a label of the other domain may
    decide nothing. Who has no label at all cannot be tested, and is trained on in every fold.
    """
    source, other = domain_speakers("source", settings, people), domain_speakers("unlabelled", settings, people)
    if settings.test:
        require_testable(settings, source, other, people)
        groups = {"domain": settings.test}
    else:
        dealt = zip(deal(settings, source), deal(settings, other), strict=True)
        groups = {str(fold): (*ours, *theirs) for fold, (ours, theirs) in enumerate(dealt, start=1)}
    return [domain_split(name, group, settings, source, other, people) for name, group in groups.items()]


def domain_split(
    name: str,
    group: Sequence[str],
    settings: SplitSection,
    source: Mapping[str, Kind],
    other: Mapping[str, Kind],
    people: People,
) -> Split:
    """The fold that tests a group of both domains' speakers."""
    tested = tuple(speaker for speaker in group if speaker in source)
    theirs = [speaker for speaker in group if speaker in other and speaker in people.labelled]
    if settings.test and settings.dev:  # a speaker in both lists is left in both: Split refuses it, by name
        train, dev = tuple(speaker for speaker in source if speaker not in (*group, *settings.dev)), settings.dev
    else:
        train, dev = divide(name, tested, settings.dev_speakers, source)
    left = tuple(speaker for speaker in other if speaker not in theirs)
    if settings.use_unlabelled and not left:
        raise SplitError(f"fold {name}: nobody of split.unlabelled is left to train on without labels; test fewer of them")
    return Split(name, train, dev, tuple(sorted((*tested, *theirs))), unlabelled=left if settings.use_unlabelled else ())


def domain_speakers(part: str, settings: SplitSection, people: People) -> dict[str, Kind]:
    """The speakers of split.source or split.unlabelled. Raises SplitError where the list is empty, or names what there is not."""
    groups, wanted = groups_of(people.domains, settings.column), getattr(settings, part)
    if not wanted:
        raise SplitError(
            f'split.scheme = "domain" needs split.source and split.unlabelled, lists of values of {settings.column}: '
            f"{shorten(groups, 20)}"
        )
    for value in wanted:
        if value not in groups:
            raise SplitError(f"split.{part}: {unknown(settings.column, value, groups)}")
    if both := sorted(set(settings.source) & set(settings.unlabelled)):
        raise SplitError(f"split.source and split.unlabelled both hold {shorten(both)}; a domain has labels or has none")
    return {speaker: people.kinds[speaker] for speaker in people.kinds if people.domains[speaker][0] in wanted}


def require_testable(settings: SplitSection, source: Mapping[str, Kind], other: Mapping[str, Kind], people: People) -> None:
    """Raise SplitError for speakers in the recipe's lists who are of neither domain, or without a label to be tested by."""
    for speaker in settings.test:
        if speaker not in source and speaker not in other:
            raise SplitError(f"split.test: {unknown('speaker', speaker, {**source, **other})}")
        if speaker not in people.labelled:
            raise SplitError(f"split.test: no clip of speaker {speaker} has an emotion to be tested by")
    for speaker in settings.dev:
        if speaker not in source:
            raise SplitError(f"split.dev: {unknown('speaker', speaker, source)}; dev speakers are of split.source")


SCHEMES: dict[str, Callable[[SplitSection, People], list[Split]]] = {
    "loso": loso,
    "group-kfold": group_kfold,
    "leave-one-session-out": leave_one_session_out,
    "leave-one-corpus-out": leave_one_corpus_out,
    "official": official,
    "ravdess-five": ravdess_five,
    "fixed": fixed,
    "domain": domain,
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
