"""The folds in words, and the warning where they are trained on few speakers."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.cli.console import show_prepared
from speaker_invariant_ser.data.fold_sizes import about_few_speakers, describe_folds
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.recipe import SplitSection


def fold(train: int, dev: int, test: int = 1, name: str = "f") -> Split:
    names = iter(f"s{number}" for number in range(99))
    return Split(name, *(tuple(next(names) for _ in range(count)) for count in (train, dev, test)))


@pytest.mark.parametrize(
    "splits, said",
    [
        ([fold(4, 1)] * 6, "6 folds: 4 speakers to train on, 1 to select the epoch on, 1 to test on"),
        ([fold(9, 0), fold(8, 0, 2)], "2 folds: 8 to 9 speakers to train on, 1 to 2 to test on"),
        ([fold(7, 0, 0)], "1 fold: 7 speakers to train on"),
    ],
)
def test_the_folds_are_described(splits, said):
    assert describe_folds(splits) == said


def test_unlabelled_speakers_are_named_apart():
    split = Split("f", ("a", "b"), ("c",), ("d",), unlabelled=("e", "f"))
    assert describe_folds([split]) == "1 fold: 2 speakers to train on, 2 without labels, 1 to select the epoch on, 1 to test on"


@pytest.mark.parametrize(
    "dev, train, said",
    [
        (
            2,
            3,
            "only 3 speakers to train on in fold f: with fewer than 5, .*; `split.dev_speakers = 1` leaves 4, and `split.dev_sp",
        ),
        (
            1,
            4,
            "only 4 speakers .*; `split.dev_speakers = 0` with `train.refit = true` trains on every speaker that is",
        ),
        (
            0,
            3,
            "only 3 speakers .* every speaker that is not tested is trained on, so that only recordings of more spe",
        ),
        (2, 5, "^$"),
        (0, 2, "only 2 speakers to train on"),
    ],
)
def test_few_speakers_are_warned_of_with_what_would_leave_more(dev, train, said):
    settings = SplitSection(scheme="loso", dev_speakers=dev)
    text = about_few_speakers(settings, [fold(9, dev, name="other"), fold(train, dev)])
    assert re.search(said, text), text


def test_fewer_groups_than_speakers_are_named_where_few_are_trained_on():
    text = about_few_speakers(SplitSection(scheme="group-kfold", dev_speakers=0), [fold(3, 0, 3)] * 2)
    assert text.endswith('; `split.scheme = "loso"` tests one speaker at a time and leaves 5')


def test_train_says_how_many_speakers_it_trains_on_before_it_trains(prepared, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("speaker_invariant_ser.training.launcher.train", stop)
    changes = ["split.scheme=loso", "split.dev_speakers=2"]
    options = [part for change in changes for part in ("--set", change)]
    assert siser(["train", "cnn", "--data", str(prepared.folder), "--out", str(tmp_path / "run"), *options]) == 130
    printed = capsys.readouterr()
    assert "6 folds: 3 speakers to train on, 2 to select the epoch on, 1 to test on" in printed.out
    assert "warning: only 3 speakers to train on in fold 01" in printed.err and "`split.dev_speakers = 1` leaves 4" in printed.err


@pytest.mark.parametrize(
    "speakers, emotions, said",
    [
        (1, 3, "1 speaker, 3 emotions; 1 speaker: too few to train; at least 3 are needed: two to train on, one to test"),
        (2, 2, "2 speakers, 2 emotions; 2 speakers: too few to train; at least 3"),
        (4, 2, "4 speakers, 2 emotions; 4 speakers: few to train on where others are tested"),
        (9, 1, "9 speakers, 1 emotion; 1 emotion: too few to train; at least 2 are needed"),
    ],
)
def test_prepare_says_what_is_too_few_to_train(speakers, emotions, said, capsys):
    shortcuts = dict.fromkeys(["length", "padding", "level"])
    settings = {"counts": {"speakers": speakers, "emotions": emotions}, "seconds": 0.0, "shortcuts": shortcuts}
    utterances = [SimpleNamespace(speaker=f"s{number}") for number in range(speakers)]
    show_prepared(SimpleNamespace(settings=settings, utterances=utterances), Path("out"))
    lines = capsys.readouterr().out.splitlines()
    assert "; ".join([lines[0].removesuffix(", 0.0 minutes of audio -> out"), *lines[1:]]).startswith(said)
