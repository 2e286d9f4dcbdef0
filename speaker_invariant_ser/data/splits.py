"""Divide a corpus into folds of train, dev and test speakers; a fold that shares a speaker between them cannot be constructed."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from speaker_invariant_ser.data.dev_speakers import Group, SpeakerTable, distribute, divide, speaker_table
from speaker_invariant_ser.data.labels import with_known_spelling
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.tables.names import describe_groups, groups, same_key
from speaker_invariant_ser.errors import SplitError, counted, shorten, unknown
from speaker_invariant_ser.recipe import SplitSection

ALL_SPEAKERS = "all"  # name of the scheme that tests nobody, and of its fold


@dataclass(frozen=True)
class Split:
    """One fold: which speakers are trained on, select the epoch, and are tested.

    An utterance without an emotion is in no part but `unlabelled`.

    Attributes:
        name: Name of the fold, such as the test speaker or a number.
        train: Speakers that the model is trained on.
        dev: Speakers on which the epoch is selected; empty where every speaker that is not tested is trained on.
        test: Speakers that the model is evaluated on; none in the scheme "all".
        texts: Texts of the test utterances, which no training or dev utterance has; empty: texts are not divided.
        held_out: Ids of utterances of training speakers that are not trained on, because attackers are scored on them.
        unlabelled: Speakers that are trained on without their labels.

    Raises:
        SplitError: `train` has fewer than two speakers, or a speaker is in more than one part.
    """

    name: str
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    texts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.train:
            raise SplitError(f"fold {self.name}: no train speakers")
        counts = Counter([*set(self.train), *set(self.dev), *set(self.test), *set(self.unlabelled)])
        shared = sorted(speaker for speaker, parts in counts.items() if parts > 1)
        if shared:
            raise SplitError(
                f"fold {self.name}: speaker {shorten(shared)} is on both sides of the split; "
                f"every speaker belongs to one of train, dev and test{' and unlabelled' * bool(self.unlabelled)}"
            )
        if len(set(self.train)) < 2:
            raise SplitError(f"fold {self.name}: {counted(len(set(self.train)), 'training speaker')}, at least 2 are needed")

    def indices(self, part: str, utterances: Sequence[Utterance]) -> list[int]:
        """Return the indices of the utterances of a part.

        Utterances that share audio with held-out, dev or test utterances are not trained on, and those that share it with test
        utterances are not dev.

        Args:
            part: "train" (without held-out utterances), "unlabelled", "held_out", "dev" or "test".
            utterances: All utterances of the prepared corpus.
        """
        chosen = self.candidates(part, utterances)
        others: dict[str, tuple[str, ...]] = {"dev": ("test",)}
        others |= dict.fromkeys(("train", "unlabelled"), ("held_out", "dev", "test"))
        scored = [index for other in others.get(part, ()) for index in self.candidates(other, utterances)]
        copied = {utterances[index].copies for index in scored} - {""}
        return [index for index in chosen if utterances[index].copies not in copied] if copied else chosen

    def candidates(self, part: str, utterances: Sequence[Utterance]) -> list[int]:
        """Return the indices of a part, including utterances that share audio with a part which is scored after it."""
        held_out, texts, speakers = set(self.held_out), set(self.texts), set(getattr(self, part))
        if part == "held_out":
            return [index for index, utterance in enumerate(utterances) if utterance.id in held_out]
        return [
            index
            for index, utterance in enumerate(utterances)
            if utterance.speaker in speakers
            and utterance.id not in held_out
            and (utterance.emotion or part == "unlabelled")
            and (not texts or (utterance.text in texts) == (part == "test"))
        ]


def make_splits(settings: SplitSection, utterances: Sequence[Utterance]) -> list[Split]:
    """Divide utterances into the folds of a recipe's [split] section.

    Dev speakers are taken from the training speakers, balanced by sex where it is known, and by corpus.

    Args:
        settings: The [split] section; `settings.scheme` is a key of SCHEMES.
        utterances: All utterances of the prepared corpus.

    Returns:
        The folds, without held-out utterances (see `holdout.hold_out`).

    Raises:
        SplitError: The utterances do not allow this scheme, for instance because there are too few speakers.
    """
    require_enough(utterances, settings)
    settings = with_known_spelling(settings, utterances)
    splits = SCHEMES[settings.scheme](settings, speaker_table(settings, utterances))
    if settings.text_folds:
        splits = split_by_text(splits, settings, utterances)
    for split in splits:
        if not split.test and settings.scheme != ALL_SPEAKERS:
            raise SplitError(f"fold {split.name}: no test speakers; a fold needs train and test speakers")
        require_emotions(split, utterances)
    return splits


def require_enough(utterances: Sequence[Utterance], settings: SplitSection) -> None:
    """Raise SplitError for fewer than two emotions, or too few speakers for training, dev and test."""
    speakers = {utterance.speaker for utterance in utterances}
    if same := groups(speakers, same_key):
        raise SplitError(f"speaker {describe_groups(same)}: one name in several spellings; prepare the corpus again")
    emotions = {utterance.emotion for utterance in utterances} - {""}
    if len(emotions) < 2:
        raise SplitError(f"{counted(len(emotions), 'emotion')} ({shorten(emotions)}) in the data, at least 2 are needed")
    tested = int(settings.scheme != ALL_SPEAKERS)
    needed = {"two to train on": 2, "one to select the epoch": int(settings.dev_speakers > 0), "one to test": tested}
    if len(speakers) < sum(needed.values()):
        raise SplitError(
            f"{counted(len(speakers), 'speaker')} ({shorten(sorted(speakers))}) in the data, "
            f"at least {sum(needed.values())} are needed: "
            f"{', '.join(purpose for purpose, number in needed.items() if number)}"
        )


def require_emotions(split: Split, utterances: Sequence[Utterance]) -> None:
    """Raise SplitError if a part has no utterance, or an emotion of dev or test has no training utterance."""
    emotions = {part: {utterances[i].emotion for i in split.indices(part, utterances)} for part in ("train", "dev", "test")}
    for part, present in emotions.items():
        if not present and getattr(split, part):
            reason = (
                "after dividing the texts; lower split.text_folds"
                if split.texts
                else "that has an emotion and shares no audio with the utterances that are scored; use other speakers"
            )
            raise SplitError(f"fold {split.name}: no {part} utterance is left {reason}")
    if untrained := (emotions["dev"] | emotions["test"]) - emotions["train"]:
        raise SplitError(
            f"fold {split.name}: emotion {shorten(sorted(untrained))} has no training utterance; "
            'keep only emotions that all speakers have, with labels.map = "five" or a map of your own'
        )


def require_test_speakers(splits: Sequence[Split], source: str) -> None:
    """Raise SplitError unless every fold tests someone; `source` is what the message calls the origin of the folds."""
    if not all(split.test for split in splits):
        raise SplitError(
            f'{source}: split.scheme = "{ALL_SPEAKERS}" trains on all speakers and tests none; expected a scheme that leaves '
            'speakers out, such as "loso"'
        )


def with_dev_speakers(name: str, test: tuple[str, ...], count: int, groups: Mapping[str, Group]) -> Split:
    """Return a fold whose other speakers are divided into `count` dev speakers and training speakers."""
    train, dev = divide(name, test, count, groups)
    return Split(name, train, dev, tuple(sorted(test)))


def loso(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Leave one speaker out: every speaker is tested once and is dev about equally often."""
    return [with_dev_speakers(speaker, (speaker,), settings.dev_speakers, speakers.groups) for speaker in speakers.groups]


def all_speakers(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Train on all speakers but the dev speakers, and test nobody: one model to be used, whose recipe other folds have tested."""
    return [with_dev_speakers(ALL_SPEAKERS, (), settings.dev_speakers, speakers.groups)]


def group_kfold(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Divide the speakers into `folds` groups, each of which is tested once."""
    test_groups = make_test_groups(settings, speakers.groups)
    return [
        with_dev_speakers(str(fold), test, settings.dev_speakers, speakers.groups)
        for fold, test in enumerate(test_groups, start=1)
    ]


def make_test_groups(settings: SplitSection, groups: Mapping[str, Group]) -> list[tuple[str, ...]]:
    """Distribute speakers over `folds` test groups; raise SplitError if there are fewer speakers."""
    if settings.folds > len(groups):
        raise SplitError(f"split.folds = {settings.folds}: more folds than speakers ({len(groups)})")
    return distribute(groups, settings.folds, settings.seed)


def leave_one_session_out(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Test every session once with all its speakers; the next session is dev, so that no parts share a room or a dialogue.

    With `split.dev_speakers = 0` no session is dev, and all others are trained on.
    """
    sessions, has_dev = speakers_by_value(speakers.sessions, "session"), settings.dev_speakers > 0
    if len(sessions) < 2 + has_dev:
        parts = "training, dev and test" if has_dev else "training and test"
        raise SplitError(
            f"{counted(len(sessions), 'session')} ({shorten(sessions)}): at least {2 + has_dev} are needed, for {parts}"
        )
    names, splits = list(sessions), []
    for index, name in enumerate(names):
        dev = names[(index + 1) % len(names)] if has_dev else ""
        train = [speaker for session in names if session not in (name, dev) for speaker in sessions[session]]
        splits.append(Split(name, tuple(sorted(train)), sessions.get(dev, ()), sessions[name]))
    return splits


def leave_one_corpus_out(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Test every corpus once with all its speakers; dev speakers come from each other corpus that has enough speakers."""
    corpora = speakers_by_value(speakers.corpora, "corpus")
    if len(corpora) < 2:
        raise SplitError(f"one corpus ({shorten(corpora)}): leave-one-corpus-out needs two or more, see `siser prepare --also`")
    splits = []
    for name, test in corpora.items():
        others = [{speaker: speakers.groups[speaker] for speaker in corpora[other]} for other in corpora if other != name]
        all_others = {speaker: group for groups in others for speaker, group in groups.items()}
        sources = [groups for groups in others if len(groups) >= settings.dev_speakers + 2] or [all_others]
        dev = [speaker for groups in sources for speaker in divide(name, (), settings.dev_speakers, groups)[1]]
        train = [speaker for speaker in all_others if speaker not in dev]
        splits.append(Split(name, tuple(sorted(train)), tuple(sorted(dev)), test))
    return splits


def speakers_by_value(column: Mapping[str, tuple[str, ...]], name: str) -> dict[str, tuple[str, ...]]:
    """Return the speakers of each session, corpus or domain; raise SplitError for a speaker in none or in more than one."""
    without = [speaker for speaker, values in column.items() if values == ("",)]
    if without:
        raise SplitError(f"speaker {shorten(without)} has no {name} in the manifest; choose another split.scheme")
    several = [speaker for speaker, values in column.items() if len(values) > 1]
    if several:
        raise SplitError(f"speaker {shorten(several)} is in more than one {name}: a split by {name} would share the speaker")
    groups = defaultdict(list)
    for speaker, (value,) in column.items():
        groups[value].append(speaker)
    return {value: tuple(groups[value]) for value in sorted(groups)}


def official(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Use the corpus's official lists; without a dev list, dev speakers are taken from the training speakers."""
    without = [speaker for speaker, values in speakers.partitions.items() if "" in values]
    if without:
        raise SplitError(
            f"speaker {shorten(without)} has utterances without a partition: it has no official lists, or incomplete ones"
        )
    parts = {part: tuple(s for s, values in speakers.partitions.items() if part in values) for part in ("train", "dev", "test")}
    if not settings.dev_speakers:
        return [Split("official", tuple(sorted({*parts["train"], *parts["dev"]})), (), parts["test"])]
    if not parts["dev"] and parts["test"]:
        return [with_dev_speakers("official", parts["test"], settings.dev_speakers, speakers.groups)]
    return [Split("official", **parts)]


def ravdess_five(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Use the five folds by actor of published RAVDESS results; dev speakers are taken from the training speakers."""
    actors = {actor for fold in RAVDESS_FIVE for actor in fold}
    if set(speakers.groups) != actors or set(speakers.corpora.values()) != {("ravdess",)}:
        raise SplitError(
            "split.scheme = ravdess-five needs the corpus ravdess with its 24 actors, 01 to 24, and no other speaker"
        )
    return [
        with_dev_speakers(str(fold), test, settings.dev_speakers, speakers.groups)
        for fold, test in enumerate(RAVDESS_FIVE, start=1)
    ]


RAVDESS_FIVE = tuple(
    tuple(f"{actor:02}" for actor in fold)
    for fold in ((2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22))
)


def fixed(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Use the lists in the recipe; dev speakers are chosen if none are listed."""
    if not settings.test:
        raise SplitError('split.scheme = "fixed" needs split.test, a list of test speakers')
    for speaker in settings.test + settings.dev:
        if speaker not in speakers.groups:
            raise SplitError(f"split: {unknown('speaker', speaker, speakers.groups)}")
    if not settings.dev:
        return [with_dev_speakers("fixed", settings.test, settings.dev_speakers, speakers.groups)]
    # A speaker in both lists stays in both, so that Split rejects it by name.
    train = tuple(speaker for speaker in speakers.groups if speaker not in settings.test + settings.dev)
    return [Split("fixed", train, settings.dev, settings.test)]


def domain(settings: SplitSection, speakers: SpeakerTable) -> list[Split]:
    """Train on a source domain with labels and on a target domain without (Ganin et al., JMLR 2016); test speakers of both.

    Every speaker is tested in one fold, or the speakers of split.test in a single fold. A tested speaker is never trained on, not
    even without labels. Dev speakers are of the source, because target labels must not influence training. Target speakers
    without any label cannot be tested and are trained on in every fold.
    """
    source, target = domain_speakers("source", settings, speakers), domain_speakers("unlabelled", settings, speakers)
    if settings.test:
        require_testable(settings, source, target, speakers)
        tests: dict[str, tuple[str, ...]] = {"domain": settings.test}
    else:
        pairs = zip(make_test_groups(settings, source), make_test_groups(settings, target), strict=True)
        tests = {str(fold): source_test + target_test for fold, (source_test, target_test) in enumerate(pairs, start=1)}
    return [domain_split(name, test, settings, source, target, speakers) for name, test in tests.items()]


def domain_split(
    name: str,
    test: Sequence[str],
    settings: SplitSection,
    source: Mapping[str, Group],
    target: Mapping[str, Group],
    speakers: SpeakerTable,
) -> Split:
    """Return the fold that tests these speakers of both domains."""
    source_test = tuple(speaker for speaker in test if speaker in source)
    target_test = [speaker for speaker in test if speaker in target and speaker in speakers.labelled]
    if settings.test and settings.dev:  # a speaker in both lists stays in both, so that Split rejects it by name
        train, dev = tuple(speaker for speaker in source if speaker not in (*test, *settings.dev)), settings.dev
    else:
        train, dev = divide(name, source_test, settings.dev_speakers, source)
    unlabelled = tuple(speaker for speaker in target if speaker not in target_test)
    if settings.use_unlabelled and not unlabelled:
        raise SplitError(f"fold {name}: no speaker of split.unlabelled is left to train on without labels; test fewer of them")
    return Split(
        name, train, dev, tuple(sorted((*source_test, *target_test))), unlabelled=unlabelled if settings.use_unlabelled else ()
    )


def domain_speakers(part: str, settings: SplitSection, speakers: SpeakerTable) -> dict[str, Group]:
    """Return the speakers of split.source or split.unlabelled; raise SplitError if the list is empty or has an unknown value."""
    by_value, wanted = speakers_by_value(speakers.domains, settings.column), getattr(settings, part)
    if not wanted:
        raise SplitError(
            f'split.scheme = "domain" needs split.source and split.unlabelled, lists of values of {settings.column}: '
            f"{shorten(by_value, 20)}"
        )
    for value in wanted:
        if value not in by_value:
            raise SplitError(f"split.{part}: {unknown(settings.column, value, by_value)}")
    if both := sorted(set(settings.source) & set(settings.unlabelled)):
        raise SplitError(
            f"split.source and split.unlabelled both contain {shorten(both)}; a domain either has labels or has none"
        )
    return {speaker: speakers.groups[speaker] for speaker in speakers.groups if speakers.domains[speaker][0] in wanted}


def require_testable(
    settings: SplitSection, source: Mapping[str, Group], target: Mapping[str, Group], speakers: SpeakerTable
) -> None:
    """Raise SplitError for test speakers of neither domain or without labels, or dev speakers outside the source domain."""
    for speaker in settings.test:
        if speaker not in source and speaker not in target:
            raise SplitError(f"split.test: {unknown('speaker', speaker, {**source, **target})}")
        if speaker not in speakers.labelled:
            raise SplitError(f"split.test: speaker {speaker} has no utterance with an emotion, so it cannot be tested")
    for speaker in settings.dev:
        if speaker not in source:
            raise SplitError(f"split.dev: {unknown('speaker', speaker, source)}; dev speakers must be of split.source")


SCHEMES: dict[str, Callable[[SplitSection, SpeakerTable], list[Split]]] = {
    "loso": loso,
    "group-kfold": group_kfold,
    "leave-one-session-out": leave_one_session_out,
    "leave-one-corpus-out": leave_one_corpus_out,
    "official": official,
    "ravdess-five": ravdess_five,
    "fixed": fixed,
    "domain": domain,
    ALL_SPEAKERS: all_speakers,
}


def split_by_text(splits: Sequence[Split], settings: SplitSection, utterances: Sequence[Utterance]) -> list[Split]:
    """Repeat each fold for every group of texts, testing that group only, so that every utterance is still tested once.

    Raises:
        SplitError: A text is unknown, there are fewer texts than groups, or whole corpora are tested (their texts differ anyway).
    """
    if settings.scheme == "leave-one-corpus-out":
        raise SplitError("split.text_folds: corpora have no texts in common; set it to 0 for leave-one-corpus-out")
    if settings.scheme == ALL_SPEAKERS:
        raise SplitError('split.text_folds: split.scheme = "all" tests nobody, so that no texts are tested; set it to 0')
    texts = sorted({utterance.text for utterance in utterances})
    if "" in texts:
        without = counted(sum(not utterance.text for utterance in utterances), "utterance has", "utterances have")
        raise SplitError(f"split.text_folds = {settings.text_folds}: {without} no text in the manifest")
    if not 2 <= settings.text_folds <= len(texts):
        raise SplitError(f"split.text_folds = {settings.text_folds}: expected 0, or 2 to {len(texts)} (the number of texts)")
    shuffled = random.Random(settings.seed).sample(texts, len(texts))
    groups = [tuple(sorted(shuffled[fold :: settings.text_folds])) for fold in range(settings.text_folds)]
    return [
        replace(split, name=f"{split.name}, texts {fold}", texts=group)
        for split in splits
        for fold, group in enumerate(groups, start=1)
    ]
