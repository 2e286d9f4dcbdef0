"""Who is trained on, who selects, who is tested: always whole speakers. A split that shares one cannot be constructed."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from speaker_invariant_ser.config import SplitSection
from speaker_invariant_ser.errors import SplitError, shorten, unknown
from speaker_invariant_ser.manifest import Utterance


@dataclass(frozen=True)
class Split:
    """One fold: the speakers of each part. Raises SplitError if a part is empty or a speaker is in two."""

    name: str
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

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


def make_splits(settings: SplitSection, utterances: Sequence[Utterance]) -> list[Split]:
    """The folds of a recipe's [split] section over these utterances. Raises SplitError.

    Dev speakers are taken from what would be the training speakers, balanced by sex where it is known.
    """
    sexes = speaker_sexes(utterances)
    require_enough(utterances)
    splits = SCHEMES[settings.scheme](settings, sexes)
    for split in splits:
        require_emotions(split, utterances)
    return splits


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
    """Raise SplitError if an emotion of the dev or test speakers has no training example."""
    heard = {u.emotion for u in utterances if u.speaker in split.train}
    asked = {u.emotion for u in utterances if u.speaker in split.dev + split.test}
    if asked - heard:
        raise SplitError(f"fold {split.name}: emotion {shorten(sorted(asked - heard))} has no training utterance")


def loso(settings: SplitSection, sexes: Mapping[str, str]) -> list[Split]:
    """Leave one speaker out: every speaker is tested once, and is dev about equally often."""
    return [with_dev(speaker, (speaker,), settings.dev_speakers, sexes) for speaker in sexes]


def group_kfold(settings: SplitSection, sexes: Mapping[str, str]) -> list[Split]:
    """Speakers dealt to `folds` groups, each sex in turn, so that groups differ by at most one of each sex."""
    if settings.folds > len(sexes):
        raise SplitError(f"split.folds = {settings.folds}: more folds than speakers ({len(sexes)})")
    shuffled = random.Random(settings.seed).sample(sorted(sexes), len(sexes))
    dealt = sorted(shuffled, key=lambda speaker: sexes[speaker])
    groups = [tuple(sorted(dealt[fold :: settings.folds])) for fold in range(settings.folds)]
    return [with_dev(str(fold), group, settings.dev_speakers, sexes) for fold, group in enumerate(groups, start=1)]


def fixed(settings: SplitSection, sexes: Mapping[str, str]) -> list[Split]:
    """The lists in the recipe; dev speakers are chosen if none are listed."""
    if not settings.test:
        raise SplitError('split.scheme = "fixed" needs split.test, a list of test speakers')
    for speaker in settings.test + settings.dev:
        if speaker not in sexes:
            raise SplitError(f"split: {unknown('speaker', speaker, sexes)}")
    if not settings.dev:
        return [with_dev("fixed", settings.test, settings.dev_speakers, sexes)]
    # A speaker in both lists is left in both: Split refuses it, by name.
    train = tuple(speaker for speaker in sexes if speaker not in settings.test + settings.dev)
    return [Split("fixed", train, settings.dev, settings.test)]


SCHEMES: dict[str, Callable[[SplitSection, Mapping[str, str]], list[Split]]] = {
    "loso": loso,
    "group-kfold": group_kfold,
    "fixed": fixed,
}


def with_dev(name: str, test: tuple[str, ...], count: int, sexes: Mapping[str, str]) -> Split:
    """A fold with `count` dev speakers, the sexes in turn, those after the test speaker first: all serve about equally often."""
    order = [speaker for speaker in candidates(test[-1], sexes) if speaker not in test]
    if len(order) - count < 2:
        raise SplitError(
            f"fold {name}: {len(sexes)} speakers cannot give {len(test)} to test, {count} to dev and at least 2 to train; "
            "lower split.dev_speakers or prepare more speakers"
        )
    return Split(name, tuple(sorted(order[count:])), tuple(sorted(order[:count])), tuple(sorted(test)))


def candidates(after: str, sexes: Mapping[str, str]) -> list[str]:
    """All speakers, sexes taking turns; within each sex beginning behind the place that `after` has in its own."""
    lines = {sex: [speaker for speaker in sexes if sexes[speaker] == sex] for sex in sorted(set(sexes.values()))}
    own = sexes[after]
    place = lines[own].index(after)
    turned = []
    for sex in sorted(lines, key=lambda sex: sex != own):
        start = (place + (sex == own)) % len(lines[sex])
        turned.append(lines[sex][start:] + lines[sex][:start])
    return [speaker for turn in zip_longest(*turned) for speaker in turn if speaker is not None]
