"""No scheme shares a speaker between train, dev and test."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest

from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.splits import Split, make_splits
from speaker_invariant_ser.errors import SplitError
from speaker_invariant_ser.recipe import SplitSection

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
def test_every_speaker_is_in_exactly_one_part(settings):
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
def test_with_as_many_women_as_men_every_speaker_is_dev_equally_often(count):
    sexes = {f"{letter}{number}": sex for letter, sex in (("f", "female"), ("m", "male")) for number in range(5)}
    splits = make_splits(SplitSection(dev_speakers=count), utterances(sexes))
    assert set(Counter(speaker for split in splits for speaker in split.dev).values()) == {count}


def test_test_groups_are_balanced_by_sex():
    sexes = {f"{number:02d}": "female" if number <= 6 else "male" for number in range(1, 13)}
    for split in make_splits(SplitSection(scheme="group-kfold", folds=3), utterances(sexes)):
        assert sorted(sexes[speaker] for speaker in split.test) == ["female"] * 2 + ["male"] * 2


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"train": ("1", "2", "3"), "dev": ("4",), "test": ("3",)}, "speaker 3 is on both sides"),
        ({"train": ("1", "2"), "dev": ("5",), "test": ("5",)}, "speaker 5 is on both sides"),
        ({"train": ("1", "2"), "dev": ("2",), "test": ("5",)}, "speaker 2 is on both sides"),
        ({"train": (), "dev": (), "test": ("5",)}, "no train speakers"),
        ({"train": ("1",), "dev": ("2",), "test": ("5",)}, "at least 2 are needed"),
    ],
)
def test_a_split_that_shares_a_speaker_cannot_be_constructed(parts, message):
    with pytest.raises(SplitError, match=message):
        Split("x", **parts)


@pytest.mark.parametrize(
    "settings, data, message",
    [
        ({}, utterances({"1": "", "2": "", "3": ""}), "3 speakers .* at least 4 are needed"),
        ({}, utterances({"1": ""}), "1 speaker .* at least 4"),
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
def test_data_that_cannot_be_split_raises_an_error(settings, data, message):
    with pytest.raises(SplitError, match=message):
        make_splits(SplitSection(**settings), data)


def crossed_utterances(speakers=10, texts=6, session=lambda s: str(s // 2), corpus=lambda s: "ab"[s % 2], partition=lambda s: ""):
    """Return utterances in which every speaker says every text in both emotions."""
    return [
        Utterance(
            f"{s}{t}{e}", corpus(s), f"s{s}", e, f"t{t}", session=session(s), partition=partition(s), source=f"{s}{t}{e}.wav"
        )
        for s, t, e in itertools.product(range(speakers), range(texts), ("happy", "sad"))
    ]


def values_by_part(split, data, column):
    return {part: {getattr(data[i], column) for i in split.indices(part, data)} for part in ("train", "dev", "test")}


def disjoint(values):
    return all(values[first].isdisjoint(values[second]) for first, second in itertools.combinations(values, 2))


def test_sessions_stay_whole_and_each_is_tested_once():
    data = crossed_utterances()
    splits = make_splits(SplitSection(scheme="leave-one-session-out"), data)
    assert [split.name for split in splits] == list("01234")
    for split in splits:
        sessions = values_by_part(split, data, "session")
        assert disjoint(sessions) and sessions["test"] == {split.name} and len(sessions["dev"]) == 1


def test_leave_one_corpus_out_trains_on_all_other_corpora():
    data = crossed_utterances(12, corpus=lambda s: "abc"[s % 3])
    splits = make_splits(SplitSection(scheme="leave-one-corpus-out"), data)
    for split in splits:
        corpora, speakers = values_by_part(split, data, "corpus"), values_by_part(split, data, "speaker")
        assert corpora["test"] == {split.name} and corpora["train"] == corpora["dev"] == set("abc") - {split.name}
        assert disjoint(speakers) and len(speakers["dev"]) == 4, "two dev speakers from each other corpus"


def test_a_corpus_too_small_for_dev_speakers_is_only_trained_on():
    data = crossed_utterances(9, corpus=lambda s: "a" if s < 2 else "bc"[s % 2])
    splits = {split.name: split for split in make_splits(SplitSection(scheme="leave-one-corpus-out", dev_speakers=1), data)}
    assert {"s0", "s1"} <= set(splits["b"].train)


def test_small_corpora_provide_dev_speakers_jointly():
    data = crossed_utterances(9, corpus=lambda s: "abc"[s % 3])
    for split in make_splits(SplitSection(scheme="leave-one-corpus-out"), data):
        assert len(split.dev) == 2 and len(split.train) == 4


def test_dev_speakers_come_from_all_corpora():
    data = [
        replace(utterance, sex=("female", "male")[int(utterance.speaker[1:]) // 2 % 2]) for utterance in crossed_utterances(12)
    ]
    for scheme in ("loso", "group-kfold"):
        for split in make_splits(SplitSection(scheme=scheme, folds=3), data):
            assert values_by_part(split, data, "corpus")["dev"] == {"a", "b"} and values_by_part(split, data, "sex")["dev"] == {
                "female",
                "male",
            }


def test_official_lists_are_used():
    data = crossed_utterances(partition=lambda s: ("train", "train", "train", "dev", "test")[s % 5])
    (split,) = make_splits(SplitSection(scheme="official"), data)
    assert split.test == ("s4", "s9") and split.dev == ("s3", "s8") and len(split.train) == 6
    data = crossed_utterances(partition=lambda s: "test" if s > 7 else "train")
    (split,) = make_splits(SplitSection(scheme="official"), data)
    assert split.test == ("s8", "s9") and len(split.dev) == 2, "dev speakers are taken from the training speakers"


@pytest.mark.parametrize(
    "settings, partition",
    [
        ({"scheme": "loso"}, ""),
        ({"scheme": "group-kfold", "folds": 3}, ""),
        ({"scheme": "leave-one-session-out"}, ""),
        ({"scheme": "leave-one-corpus-out"}, ""),
        ({"scheme": "fixed", "test": ("s1", "s2")}, ""),
        ({"scheme": "official"}, "train dev test"),
        ({"scheme": "official"}, "train test"),
        ({"scheme": "domain", "source": ("a",), "unlabelled": ("b",), "folds": 2}, ""),
    ],
    ids=str,
)
def test_without_dev_speakers_all_speakers_that_are_not_tested_are_trained_on(settings, partition):
    lists = partition.split()
    data = crossed_utterances(partition=lambda s: lists[s % len(lists)] if lists else "")
    for split in make_splits(SplitSection(**settings, dev_speakers=0), data):
        assert split.dev == () and split.indices("dev", data) == []
        assert sorted({*split.train, *split.test, *split.unlabelled}) == sorted(f"s{s}" for s in range(10))
        assert set(split.train).isdisjoint(split.test)


def test_three_speakers_or_two_sessions_are_enough_without_dev_speakers():
    assert len(make_splits(SplitSection(dev_speakers=0), crossed_utterances(3))) == 3
    with pytest.raises(SplitError, match=r"2 speakers \(s0, s1\) in the data, at least 3 .*: two to train on, one to test$"):
        make_splits(SplitSection(dev_speakers=0), crossed_utterances(2))
    with pytest.raises(SplitError, match=r"fold fixed: 3 speakers cannot give 2 to test and at least 2 to train$"):
        make_splits(SplitSection(scheme="fixed", test=("s0", "s1"), dev_speakers=0), crossed_utterances(3))
    sessions = SplitSection(scheme="leave-one-session-out", dev_speakers=0)
    assert [split.name for split in make_splits(sessions, crossed_utterances(session=lambda s: str(s % 2)))] == ["0", "1"]
    with pytest.raises(SplitError, match=r"1 session \(0\): at least 2 are needed, for training and test"):
        make_splits(sessions, crossed_utterances(session=lambda s: "0"))


def test_the_published_ravdess_folds():
    actors = {f"{actor:02}": "male" if actor % 2 else "female" for actor in range(1, 25)}
    splits = make_splits(
        SplitSection(scheme="ravdess-five"), [replace(utterance, corpus="ravdess") for utterance in utterances(actors)]
    )
    tested = [sorted(map(int, split.test)) for split in splits]
    assert tested == [[2, 5, 14, 15, 16], [3, 6, 7, 13, 18], [10, 11, 12, 19, 20], [8, 17, 21, 23, 24], [1, 4, 9, 22]]
    assert sorted(actor for fold in tested for actor in fold) == list(range(1, 25))


@pytest.mark.parametrize(
    "scheme", [{"scheme": "loso"}, {"scheme": "group-kfold", "folds": 3}, {"scheme": "fixed", "test": ("s1",)}]
)
def test_text_folds_share_no_text_between_test_and_training(scheme):
    data = crossed_utterances()
    splits = make_splits(SplitSection(**scheme, text_folds=3), data)
    tested = Counter(index for split in splits for index in split.indices("test", data))
    for split in splits:
        speakers, texts = values_by_part(split, data, "speaker"), values_by_part(split, data, "text")
        assert disjoint(speakers) and texts["test"].isdisjoint(texts["train"] | texts["dev"]) and len(texts["test"]) == 2
    expected = {index for index, utterance in enumerate(data) if scheme["scheme"] != "fixed" or utterance.speaker == "s1"}
    assert set(tested) == expected and set(tested.values()) == {1}, "every utterance is tested once"


@pytest.mark.parametrize(
    "settings, data, message",
    [
        (
            {"scheme": "leave-one-session-out"},
            crossed_utterances(session=lambda s: ""),
            "speaker s0, .* has no session in the manifest",
        ),
        (
            {"scheme": "leave-one-session-out"},
            crossed_utterances(session=lambda s: str(s % 2)),
            r"2 sessions \(0, 1\): at least 3",
        ),
        ({"scheme": "leave-one-corpus-out"}, crossed_utterances(corpus=lambda s: "a"), "one corpus .* needs two or more"),
        (
            {"scheme": "leave-one-corpus-out", "dev_speakers": 4},
            crossed_utterances(),
            "fold a: 5 speakers cannot give 0 to test, 4 to dev",
        ),
        ({"scheme": "official"}, crossed_utterances(), "without a partition: it has no official lists"),
        ({"scheme": "official"}, crossed_utterances(partition=lambda s: "train"), "no dev speakers|no test speakers"),
        ({"scheme": "ravdess-five"}, crossed_utterances(), "needs the corpus ravdess with its 24 actors"),
        ({"text_folds": 2, "scheme": "leave-one-corpus-out"}, crossed_utterances(), "corpora have no texts in common"),
        ({"text_folds": 1}, crossed_utterances(), "expected 0, or 2 to 6"),
        ({"text_folds": 7}, crossed_utterances(), "expected 0, or 2 to 6"),
        ({"text_folds": 2}, utterances(), "20 utterances have no text"),
    ],
)
def test_a_scheme_without_the_data_it_needs_raises_an_error(settings, data, message):
    with pytest.raises(SplitError, match=message):
        make_splits(SplitSection(**settings), data)


def test_the_scheme_all_tests_nobody():
    """Dev speakers are apart as in any fold, and no other scheme may come without test speakers."""
    (split,) = make_splits(SplitSection(scheme="all", dev_speakers=2), utterances())
    assert (len(split.dev), split.test) == (2, ()) and sorted([*split.train, *split.dev]) == sorted(SEXES)
    two = utterances({"01": "female", "02": "male"})
    assert make_splits(SplitSection(scheme="all", dev_speakers=0), two) == [Split("all", ("01", "02"), (), ())]
    with pytest.raises(SplitError, match=r"at least 3 are needed: two to train on, one to test"):
        make_splits(SplitSection(dev_speakers=0), two)
    with pytest.raises(SplitError, match="tests nobody"):
        make_splits(SplitSection(scheme="all", text_folds=2), utterances())


def test_official_lists_and_sessions_that_share_a_speaker_raise_an_error():
    data = [
        replace(utterance, partition=("train", "dev", "test")[n % 3], session=str(n % 4))
        for n, utterance in enumerate(crossed_utterances())
    ]
    with pytest.raises(SplitError, match="is on both sides of the split"):
        make_splits(SplitSection(scheme="official"), data)
    with pytest.raises(SplitError, match="is in more than one session"):
        make_splits(SplitSection(scheme="leave-one-session-out"), data)


def test_the_error_for_an_emotion_of_one_corpus_only_suggests_a_label_map():
    data = [*crossed_utterances(), Utterance("x", "a", "s0", "bored", "t0", source="x")]
    with pytest.raises(
        SplitError, match='bored has no training utterance; keep only emotions that all speakers have, with labels.map = "five"'
    ):
        make_splits(SplitSection(scheme="leave-one-corpus-out"), data)
