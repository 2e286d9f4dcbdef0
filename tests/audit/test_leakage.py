"""The audit's folds keep texts apart and score what the encoder did not train on; decisions are pooled and told."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from clips import linear, make_table, told_now_and_then
from sklearn.neural_network import MLPClassifier

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.audit import Settings, audit
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.folds import divide, make_plan
from speaker_invariant_ser.audit.leakage import Attacked, choose, leakage
from speaker_invariant_ser.errors import AuditError

FAST = ("logistic", "knn")


def small(texts=8, **options):
    """5 speakers x 5 emotions x 8 texts."""
    return make_table(200, speakers=5, texts=texts, **options)


def test_folds_keep_texts_apart_and_score_every_clip_once_a_repeat():
    data = small()
    plan = make_plan(data, 4)
    assert plan.grouped and plan.repeats == 3
    for repeat in range(plan.repeats):
        parts = [part for part in plan.parts if part.repeat == repeat]
        assert sorted(np.concatenate([part.test for part in parts])) == list(range(200))
        for part in parts:
            assert not set(data.text[part.train]) & set(data.text[part.test])
            assert set(data.speaker[part.test]) == set(data.speaker[part.train]) == set(data.speaker)
            on, off = part.tuning
            assert not set(data.text[part.train][on]) & set(data.text[part.train][off])


def test_repeats_are_other_divisions():
    plan = make_plan(small(), 4)
    first = {part.repeat: tuple(sorted(part.test)) for part in reversed(plan.parts)}
    assert len(set(first.values())) == 3


def test_without_texts_folds_are_stratified_by_speaker_and_emotion():
    data = small(texts=0)
    parts, grouped, _ = divide(data, 4, 0)
    assert not grouped
    for _, test in parts:
        assert set(Counter(data.cells[test]).values()) == {2}


def test_only_scored_clips_are_scored_and_their_texts_are_learned_from_nowhere():
    data = small()
    data = replace(data, scored=np.isin(data.text, ["t1", "t4"]))
    plan = make_plan(data, 5)
    assert plan.repeats == 1  # there is but one way to divide two texts
    assert sorted(np.concatenate([part.test for part in plan.parts])) == list(np.flatnonzero(data.scored))
    for part in plan.parts:
        assert len(part.train) == 175 and not set(data.text[part.train]) & set(data.text[part.test])
    assert leakage([data], FAST).decisions == 50


def test_a_single_scored_text_is_one_fold():
    data = small()
    plan = make_plan(replace(data, scored=data.text == "t3"), 5)
    assert [(len(part.train), len(part.test)) for part in plan.parts] == [(175, 25)]


def test_attackers_are_scored_on_held_out_clips_alone():
    """The code is in the trained clips only: whoever scored those would read it."""
    data = small(code=linear)
    held = np.isin(data.text, ["t1", "t4"])
    noise = np.random.default_rng(5).standard_normal(data.embedding.shape)
    forgotten = replace(data, embedding=np.where(held[:, None], noise, data.embedding), scored=held)
    assert leakage([forgotten], FAST).attackers["logistic"].accuracy < 0.4
    assert leakage([replace(forgotten, scored=~held)], FAST).attackers["logistic"].accuracy > 0.9


def test_chances():
    """s0 says e0 only, 24 clips, s1 8 of e0 and 8 of e1: who names s0 for e0 and s1 for e1 is right in 24 + 8 of 40."""
    emotion = np.array(["e0"] * 24 + ["e0"] * 8 + ["e1"] * 8)
    speaker = np.array(["s0"] * 24 + ["s1"] * 16)
    ids = np.arange(40).astype(str)
    data = Embeddings(
        np.random.default_rng(0).standard_normal((40, 4)), ids, speaker, emotion, np.full(40, ""), np.ones(40, bool)
    )
    chance = leakage([data], FAST).chance
    assert chance == pytest.approx({"uniform": 0.5, "majority": 0.6, "given_emotion": 0.8, "given_emotion_balanced": 0.75})


def test_a_rare_speaker_does_not_decide_the_number_of_folds():
    data = small(texts=0)
    data.speaker[data.speaker == "s04"] = "s03"
    data.speaker[:2] = "s99"
    parts, grouped, _ = divide(data, 5, 0)
    assert len(parts) == 5 and not grouped


def test_texts_are_kept_apart_where_every_cell_holds_one_clip():
    data = make_table(80, speakers=10, texts=8)
    data = replace(data, emotion=np.char.mod("e%d", np.arange(80) // 10), text=np.char.mod("t%d", (np.arange(80) // 10 + 1) % 8))
    assert make_plan(data).grouped


def test_decisions_of_several_encoders_are_pooled():
    result = leakage([small(code=linear), small(seed=1)], FAST)
    assert result.decisions == 400 and result.speakers == 5 and result.encoders == 2
    assert 0.45 < result.attackers["logistic"].accuracy < 0.75
    assert result.clusters == 8


def test_the_strongest_attackers_accuracy_is_known_for_every_encoder():
    result = leakage([small(code=linear), small(seed=1)], FAST)
    both, accuracy = result.strongest.score.accuracy, result.strongest.accuracy
    assert accuracy([0]) > 0.9 > 0.5 > accuracy([1]) and accuracy([0, 1]) == pytest.approx(both)


def test_encoders_that_read_the_same_of_the_same_clips_are_no_surer():
    """Several seeds of one fold are such encoders: intervals stay as wide, and p as large."""
    data = make_table(200, speakers=5, seed=1, code=told_now_and_then(0.1))
    once, thrice = leakage([data], FAST), leakage([data] * 3, FAST)
    assert (once.encoders, thrice.encoders) == (1, 3) and once.utterances == thrice.utterances == 200
    for name in FAST:
        one, same = once.attackers[name], thrice.attackers[name]
        assert (same.low, same.high, same.upper) == pytest.approx((one.low, one.high, one.upper), abs=0.01)
        assert same.p_value == pytest.approx(one.p_value, abs=0.015)
    assert once.attackers["knn"].p_value > 0.03, "being three times as sure would show"


def test_a_speaker_with_a_single_clip_is_left_out_and_named():
    data = small(code=linear)
    data.speaker[0] = "s99"
    result = leakage([data], FAST)
    assert result.left_out == ("s99",) and result.decisions == 199 and result.speakers == 5


def test_side_by_side_is_the_same():
    assert leakage([small(code=linear)], FAST, jobs=2) == leakage([small(code=linear)], FAST)


def test_shifted_and_stretched_embeddings_read_the_same():
    data = small(code=linear)
    moved = replace(data, embedding=data.embedding * 1e3 - 7)
    assert leakage([moved], FAST).attackers["knn"] == leakage([data], FAST).attackers["knn"]


def test_small_cells_and_few_texts_do_not_stop_the_audit():
    """Every speaker says each text in one emotion, once: cells smaller than the number of folds."""
    rng = np.random.default_rng(0)
    for trial in range(30):
        speaker, text = (part.ravel() for part in np.meshgrid(range(4), range(rng.integers(1, 7)), indexing="ij"))
        speaker = np.concatenate([speaker, [0, 1, 2, 3]])
        text = np.concatenate([text, rng.integers(0, text.max() + 1, 4)])
        columns = (speaker, rng.integers(0, 3, len(speaker)), text)
        names = [np.char.mod(f"{letter}%d", values) for letter, values in zip("set", columns, strict=True)]
        clips = len(speaker)
        data = Embeddings(rng.standard_normal((clips, 5)), np.arange(clips).astype(str), *names, np.ones(clips, bool))
        plan = make_plan(data, 5, trial)
        first = [part for part in plan.parts if part.repeat == 0]
        assert sorted(np.concatenate([part.test for part in first])) == list(range(clips))
        assert all(set(data.speaker[part.train]) == set(data.speaker) for part in plan.parts)
        assert 0 <= leakage([data], QUICK_ATTACKERS).attackers["logistic"].accuracy <= 1


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_embeddings_that_are_all_the_same_are_at_chance(value):
    data = small()
    result = leakage([replace(data, embedding=np.full((200, 4), value))])
    assert result.strongest.score.accuracy == pytest.approx(0.2) and result.at_chance is True


def test_an_attacker_that_needs_more_clips_is_left_out():
    data = make_table(8, speakers=4, dims=3)
    assert "qda" not in leakage([data]).attackers and "logistic" in leakage([data]).attackers


def broken():
    data = small()
    data.embedding[3, 2] = np.nan
    return data


def one_speaker():
    data = small()
    data.speaker[:] = "s0"
    return data


@pytest.mark.parametrize(
    "make, message",
    [
        (broken, "clip3 holds NaN"),
        (one_speaker, r"1 speakers with two clips or more \(s0\).*at least 2"),
        (lambda: replace(small(), scored=np.zeros(200, bool)), "no clip to score"),
    ],
)
def test_what_cannot_be_audited_is_told(make, message):
    with pytest.raises(AuditError, match=message):
        leakage([make()])


def test_the_choice_of_the_strongest_does_not_look_at_what_is_scored():
    """One attacker is always right on the clips that a part scores, the other on every other clip: the other is chosen."""
    data = small()
    plan = make_plan(data, 4)
    ids = np.arange(200)
    for chosen in range(len(plan.parts)):
        mine = np.isin(ids, plan.parts[chosen].test)
        said = {"a": mine, "b": ~mine}
        validation = {name: [right[part.train[part.tuning[1]]] for part in plan.parts] for name, right in said.items()}
        attacked = Attacked(plan, ids, 5, {}, validation)
        assert choose([attacked], [data], ["a", "b"])[0][chosen] == "b"


def test_many_attackers_do_not_inflate_the_headline():
    """On noise the best of many is above chance, the one chosen beforehand is not, and chance is met on average."""
    found = [leakage([make_table(220, dims=8, seed=seed)], QUICK_ATTACKERS, permutations=0) for seed in range(12)]
    best = np.mean([max(score.accuracy for score in one.attackers.values()) for one in found])
    chosen = np.mean([one.strongest.score.accuracy for one in found])
    assert best > 1 / 11 + 0.01 > chosen > 1 / 11 - 0.01


def test_the_same_everywhere_is_never_significant():
    """Ties between what is observed and what is permuted are ties, whatever the arithmetic."""
    score = leakage([replace(small(), embedding=np.ones((200, 3)))], QUICK_ATTACKERS).strongest.score
    assert score.p_value == 1.0 and score.p_below == 1.0
    known = replace(small(), emotion=small().speaker)  # the only permutation is none
    found = leakage([known], QUICK_ATTACKERS)
    assert found.chance["given_emotion"] == 1.0 and found.strongest.score.p_value == found.strongest.score.p_below == 1.0
    assert found.summary["detection_limit"] is None


def test_what_is_impossible_or_wide_does_not_stop_the_audit():
    rare = small(texts=0)
    rare.speaker[:] = np.where(np.arange(200) < 195, "s00", "s01")
    assert audit([rare], settings=Settings(quick=True)).summary["decisions"] == 200
    wide = make_table(60, dims=900, speakers=3, code=linear)
    assert leakage([wide], QUICK_ATTACKERS).attackers["qda"].accuracy > 0.9
    assert leakage([small()], ("logistic",), jobs=10_000).decisions == 200
    assert leakage([small()], ("logistic",), seed=2**31 - 1).decisions == 200


def test_ctrl_c_stops_a_network_too(monkeypatch):
    """scikit-learn's networks take the interrupt for an early stop, and warn."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MLPClassifier, "_backprop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leakage([small()], ("mlp",))
