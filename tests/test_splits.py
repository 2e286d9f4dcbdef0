"""Speakers never cross a split, whatever the scheme."""

import itertools
from collections import Counter

import pytest

from speaker_invariant_ser.config import SplitSection
from speaker_invariant_ser.errors import SplitError
from speaker_invariant_ser.manifest import Utterance
from speaker_invariant_ser.splits import Split, make_splits

SEXES = {f"{number:02d}": "female" if number % 3 else "male" for number in range(1, 11)}


def utterances(sexes=SEXES, emotions=("happy", "sad")):
    return [
        Utterance(f"{s}{e}", "c", s, e, sex=sex, source=f"{s}{e}.wav")
        for (s, sex), e in itertools.product(sexes.items(), emotions)
    ]


SCHEMES = [
    {"scheme": "loso"},
    {"scheme": "loso", "dev_speakers": 1},
    {"scheme": "group-kfold", "folds": 3},
    {"scheme": "group-kfold", "folds": 5, "seed": 4},
    {"scheme": "fixed", "test": ("02", "03")},
    {"scheme": "fixed", "test": ("02",), "dev": ("03", "04")},
]


@pytest.mark.parametrize("settings", SCHEMES, ids=str)
def test_no_speaker_is_shared_and_none_is_lost(settings):
    for split in make_splits(SplitSection(**settings), utterances()):
        parts = [*split.train, *split.dev, *split.test]
        assert sorted(parts) == sorted(SEXES)


@pytest.mark.parametrize("settings", SCHEMES[:4], ids=str)
def test_every_speaker_is_tested_once(settings):
    splits = make_splits(SplitSection(**settings), utterances())
    assert sorted(speaker for split in splits for speaker in split.test) == sorted(SEXES)


def test_dev_speakers_are_one_of_each_sex():
    splits = make_splits(SplitSection(dev_speakers=2), utterances())
    assert all({SEXES[speaker] for speaker in split.dev} == {"female", "male"} for split in splits)


@pytest.mark.parametrize("count", [1, 2])
def test_with_as_many_women_as_men_everyone_is_dev_equally_often(count):
    sexes = {f"{letter}{number}": sex for letter, sex in (("f", "female"), ("m", "male")) for number in range(5)}
    splits = make_splits(SplitSection(dev_speakers=count), utterances(sexes))
    assert set(Counter(speaker for split in splits for speaker in split.dev).values()) == {count}


def test_groups_are_balanced_by_sex():
    sexes = {f"{number:02d}": "female" if number <= 6 else "male" for number in range(1, 13)}
    for split in make_splits(SplitSection(scheme="group-kfold", folds=3), utterances(sexes)):
        assert sorted(sexes[speaker] for speaker in split.test) == ["female"] * 2 + ["male"] * 2


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"train": ("1", "2", "3"), "dev": ("4",), "test": ("3",)}, "speaker 3 is on both sides"),
        ({"train": ("1", "2"), "dev": ("5",), "test": ("5",)}, "speaker 5 is on both sides"),
        ({"train": ("1", "2"), "dev": ("2",), "test": ("5",)}, "speaker 2 is on both sides"),
        ({"train": ("1", "2"), "dev": (), "test": ("5",)}, "no dev speakers"),
        ({"train": ("1",), "dev": ("2",), "test": ("5",)}, "at least 2 are needed"),
    ],
)
def test_a_split_that_shares_a_speaker_cannot_be_made(parts, message):
    with pytest.raises(SplitError, match=message):
        Split("x", **parts)


@pytest.mark.parametrize(
    "settings, data, message",
    [
        ({}, utterances({"1": "", "2": "", "3": ""}), "3 speakers .* at least 4 are needed"),
        ({}, utterances({"1": ""}), "1 speakers .* at least 4"),
        ({}, utterances(emotions=("happy",)), r"1 emotion \(happy\) in the data, at least 2"),
        ({"dev_speakers": 8}, utterances(), "cannot give 1 to test, 8 to dev"),
        ({"scheme": "fixed"}, utterances(), "needs split.test"),
        ({"scheme": "fixed", "test": ("2",)}, utterances(), "unknown speaker '2', did you mean '02'"),
        ({"scheme": "fixed", "test": ("02",), "dev": ("02",)}, utterances(), "speaker 02 is on both sides"),
        ({"scheme": "group-kfold", "folds": 11}, utterances(), "more folds than speakers"),
        ({}, [*utterances(), Utterance("x", "c", "01", "sad", sex="male", source="x")], "01 has more than one sex"),
        ({}, [*utterances(), Utterance("x", "c", "01", "bored", source="x", sex="female")], "bored has no training utterance"),
    ],
)
def test_what_cannot_be_split_is_told(settings, data, message):
    with pytest.raises(SplitError, match=message):
        make_splits(SplitSection(**settings), data)
