"""What is held out is never trained on, is whole texts where that can be, and leaves training what it needs."""

from dataclasses import replace

import pytest
from conftest import TINY

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.launcher import train


def people(speakers=6, emotions=4, texts=10, unknown=False):
    return [
        Utterance(
            id=f"{s}-{e}-{t}", corpus="c", speaker=f"s{s}", emotion=f"e{e}", text="" if unknown else f"t{t}", source="x.wav"
        )
        for s in range(speakers)
        for e in range(emotions)
        for t in range(texts)
    ]


def folds(count=3):
    return [Split(str(n), ("s0", "s1", "s2", "s3"), ("s4",), ("s5",)) for n in range(count)]


def test_whole_texts_are_held_out_other_ones_in_each_fold():
    utterances = people()
    seen = []
    for split in hold_out(folds(), utterances, 0.1):
        held = [utterances[index] for index in split.indices("held_out", utterances)]
        train = [utterances[index] for index in split.indices("train", utterances)]
        assert len({one.text for one in held}) == 1 and len(held) == 16 and len(train) == 144
        assert not {one.text for one in held} & {one.text for one in train}
        assert {one.speaker for one in held} == set(split.train)
        seen += {one.text for one in held}
    assert len(set(seen)) == 3


def test_dev_and_test_are_untouched():
    utterances = people()
    for before, after in zip(folds(), hold_out(folds(), utterances, 0.3), strict=True):
        for part in ("dev", "test"):
            assert before.indices(part, utterances) == after.indices(part, utterances)


@pytest.mark.parametrize("utterances", [people(unknown=True), people(texts=2), people(texts=1)], ids=["unknown", "two", "one"])
def test_single_clips_where_texts_do_not_allow_it(utterances):
    split = hold_out(folds(1), utterances, 0.1)[0]
    held = [utterances[index] for index in split.indices("held_out", utterances)]
    train = [utterances[index] for index in split.indices("train", utterances)]
    each = len(utterances) // 6
    assert {sum(one.speaker == s for one in held) for s in split.train} == {-(-each // 10)}
    assert {one.emotion for one in train} == {one.emotion for one in utterances}
    assert len(held) + len(train) == 4 * each


def test_single_clips_are_other_ones_in_each_fold():
    """Ten folds of a tenth: nearly every training clip is scored by one encoder, none by two."""
    utterances = people(unknown=True)
    held = [one for split in hold_out(folds(10), utterances, 0.1) for one in split.held_out]
    assert len(held) == len(set(held)) == 160


def test_an_emotion_that_one_text_alone_has_is_kept_for_training():
    utterances = [replace(one, emotion="rare" if one.text == "t3" else one.emotion) for one in people()]
    for split in hold_out(folds(10), utterances, 0.1):
        assert "rare" in {utterances[index].emotion for index in split.indices("train", utterances)}


def test_a_speakers_only_clip_is_trained_on():
    utterances = [*people(speakers=3), *(one for one in people() if one.id in ("3-0-0", "4-0-0", "5-0-0"))]
    split = hold_out(folds(1), utterances, 0.1)[0]
    assert "3-0-0" not in split.held_out and split.held_out


def test_nothing_is_held_out_when_nothing_is_asked():
    assert hold_out(folds(), people(), 0.0) == folds()


def test_the_same_seed_holds_out_the_same_and_another_does_not():
    first, second, third = (hold_out(folds(), people(unknown=True), 0.2, seed) for seed in (0, 0, 1))
    assert first == second != third


def test_the_encoder_never_hears_what_is_held_out(prepared, tmp_path, monkeypatch):
    """Every clip that training loads is recorded; the held-out ones are not among them, and the run knows them by name."""
    heard = []
    read = PreparedCorpus.batch

    def recording(prepared, indices):
        heard.extend(prepared.utterances[index].id for index in indices)
        return read(prepared, indices)

    monkeypatch.setattr(PreparedCorpus, "batch", recording)
    run = train(make_recipe({**TINY, "train": {"epochs": 1, "batch_size": 8}}), prepared, tmp_path / "run", device="cpu")
    held = set(Run.open(run.folder).splits[0].held_out)
    assert held == set(run.splits[0].held_out) and len(held) == 6
    assert not held & set(heard) and len(heard) == 30 + 12
