"""Held-out utterances are never trained on, are whole texts where possible, and leave every emotion in training."""

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


def make_utterances(speakers=6, emotions=4, texts=10, unknown=False):
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


def test_whole_texts_are_held_out_and_differ_between_folds():
    utterances = make_utterances()
    texts = []
    for split in hold_out(folds(), utterances, 0.1):
        held = [utterances[index] for index in split.indices("held_out", utterances)]
        train = [utterances[index] for index in split.indices("train", utterances)]
        assert len({utterance.text for utterance in held}) == 1 and len(held) == 16 and len(train) == 144
        assert not {utterance.text for utterance in held} & {utterance.text for utterance in train}
        assert {utterance.speaker for utterance in held} == set(split.train)
        texts += {utterance.text for utterance in held}
    assert len(set(texts)) == 3


def test_dev_and_test_are_unchanged():
    utterances = make_utterances()
    for before, after in zip(folds(), hold_out(folds(), utterances, 0.3), strict=True):
        for part in ("dev", "test"):
            assert before.indices(part, utterances) == after.indices(part, utterances)


@pytest.mark.parametrize(
    "utterances",
    [make_utterances(unknown=True), make_utterances(texts=2), make_utterances(texts=1)],
    ids=["unknown", "two", "one"],
)
def test_single_utterances_are_held_out_where_texts_do_not_allow_it(utterances):
    split = hold_out(folds(1), utterances, 0.1)[0]
    held = [utterances[index] for index in split.indices("held_out", utterances)]
    train = [utterances[index] for index in split.indices("train", utterances)]
    per_speaker = len(utterances) // 6
    assert {sum(utterance.speaker == s for utterance in held) for s in split.train} == {-(-per_speaker // 10)}
    assert {utterance.emotion for utterance in train} == {utterance.emotion for utterance in utterances}
    assert len(held) + len(train) == 4 * per_speaker


def test_single_utterances_differ_between_folds():
    """Over ten folds of a tenth, no utterance is held out twice."""
    utterances = make_utterances(unknown=True)
    held = [id_ for split in hold_out(folds(10), utterances, 0.1) for id_ in split.held_out]
    assert len(held) == len(set(held)) == 160


def test_an_emotion_of_a_single_text_stays_in_training():
    utterances = [
        replace(utterance, emotion="rare" if utterance.text == "t3" else utterance.emotion) for utterance in make_utterances()
    ]
    for split in hold_out(folds(10), utterances, 0.1):
        assert "rare" in {utterances[index].emotion for index in split.indices("train", utterances)}


def test_the_only_utterance_of_a_speaker_stays_in_training():
    utterances = [
        *make_utterances(speakers=3),
        *(utterance for utterance in make_utterances() if utterance.id in ("3-0-0", "4-0-0", "5-0-0")),
    ]
    split = hold_out(folds(1), utterances, 0.1)[0]
    assert "3-0-0" not in split.held_out and split.held_out


def test_a_share_of_zero_holds_out_nothing():
    assert hold_out(folds(), make_utterances(), 0.0) == folds()


def test_the_draw_depends_on_the_seed_only():
    first, second, third = (hold_out(folds(), make_utterances(unknown=True), 0.2, seed) for seed in (0, 0, 1))
    assert first == second != third


def test_training_never_loads_held_out_utterances(prepared, tmp_path, monkeypatch):
    """Record every utterance that training loads; the held-out ones are not among them, and the run lists them."""
    loaded = []
    read = PreparedCorpus.batch

    def recording(prepared, indices):
        loaded.extend(prepared.utterances[index].id for index in indices)
        return read(prepared, indices)

    monkeypatch.setattr(PreparedCorpus, "batch", recording)
    run = train(make_recipe({**TINY, "train": {"epochs": 1, "batch_size": 8}}), prepared, tmp_path / "run", device="cpu")
    held = set(Run.open(run.folder).splits[0].held_out)
    assert held == set(run.splits[0].held_out) and len(held) == 6
    assert not held & set(loaded) and len(loaded) == 30 + 12
