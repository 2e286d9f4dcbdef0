"""Folds keep texts apart, only held-out utterances are scored, and decisions are pooled over encoders."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from embedding_tables import linear_code, make_table, occasional_code
from sklearn.neural_network import MLPClassifier

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.audit import AuditSettings, audit
from speaker_invariant_ser.audit.cross_validation import EncoderPredictions, choose_strongest
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.folds import make_folds, plan_folds
from speaker_invariant_ser.audit.leakage import measure_leakage
from speaker_invariant_ser.errors import AuditError
from speaker_invariant_ser.indexing import to_indices

FAST = ("logistic", "knn")


def small_table(texts: int = 8, **options) -> Embeddings:
    """200 utterances: 5 speakers x 5 emotions x 8 texts."""
    return make_table(200, speakers=5, texts=texts, **options)


# ---- folds


def test_folds_keep_texts_apart_and_score_every_utterance_once_per_repeat():
    table = small_table()
    plan = plan_folds(table, 4)
    assert plan.grouped_by_text and plan.repeats == 3
    for repeat in range(plan.repeats):
        folds = [fold for fold in plan.folds if fold.repeat == repeat]
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(200))
        for fold in folds:
            assert not set(table.text[fold.train]) & set(table.text[fold.test])
            assert set(table.speaker[fold.test]) == set(table.speaker[fold.train]) == set(table.speaker)
            fitted_on, validated_on = fold.tuning
            assert not set(table.text[fold.train][fitted_on]) & set(table.text[fold.train][validated_on])


def test_repeats_use_different_folds():
    plan = plan_folds(small_table(), 4)
    first_of_repeat = {fold.repeat: tuple(sorted(fold.test)) for fold in reversed(plan.folds)}
    assert len(set(first_of_repeat.values())) == 3


def test_without_texts_folds_are_stratified_by_speaker_and_emotion():
    table = small_table(texts=0)
    folds, grouped_by_text, _ = make_folds(table, 4, 0)
    assert not grouped_by_text
    for _, test in folds:
        assert set(Counter(table.speaker_and_emotion[test]).values()) == {2}


def test_unscored_utterances_are_trained_on_but_never_with_a_text_that_the_fold_scores():
    table = small_table()
    table = replace(table, scored=np.isin(table.text, ["t1", "t4"]))
    plan = plan_folds(table, 5)
    assert plan.repeats == 1  # two texts can be divided in one way only
    assert sorted(np.concatenate([fold.test for fold in plan.folds])) == list(np.flatnonzero(table.scored))
    for fold in plan.folds:
        assert len(fold.train) == 175 and not set(table.text[fold.train]) & set(table.text[fold.test])
    assert measure_leakage([table], FAST).decisions == 50


def test_a_single_scored_text_makes_one_fold():
    table = small_table()
    plan = plan_folds(replace(table, scored=table.text == "t3"), 5)
    assert [(len(fold.train), len(fold.test)) for fold in plan.folds] == [(175, 25)]


def test_a_rare_speaker_does_not_reduce_the_number_of_folds():
    table = small_table(texts=0)
    table.speaker[table.speaker == "s04"] = "s03"
    table.speaker[:2] = "s99"
    folds, grouped_by_text, _ = make_folds(table, 5, 0)
    assert len(folds) == 5 and not grouped_by_text


def test_folds_are_grouped_by_text_where_each_speaker_and_emotion_has_one_utterance():
    index = np.arange(80) // 10
    table = replace(
        make_table(80, speakers=10, texts=8), emotion=np.char.mod("e%d", index), text=np.char.mod("t%d", (index + 1) % 8)
    )
    assert plan_folds(table).grouped_by_text


def test_small_strata_and_few_texts_can_be_audited():
    """Every speaker says each text once, in one emotion: fewer utterances of a speaker and emotion than folds."""
    rng = np.random.default_rng(0)
    for trial in range(15):
        speaker, text = (column.ravel() for column in np.meshgrid(range(4), range(rng.integers(1, 7)), indexing="ij"))
        speaker = np.concatenate([speaker, [0, 1, 2, 3]])
        text = np.concatenate([text, rng.integers(0, text.max() + 1, 4)])
        columns = (speaker, rng.integers(0, 3, len(speaker)), text)
        labels = [np.char.mod(f"{letter}%d", values) for letter, values in zip("set", columns, strict=True)]
        count = len(speaker)
        table = Embeddings(rng.standard_normal((count, 5)), np.arange(count).astype(str), *labels, np.ones(count, bool))
        plan = plan_folds(table, 5, trial)
        first = [fold for fold in plan.folds if fold.repeat == 0]
        assert sorted(np.concatenate([fold.test for fold in first])) == list(range(count))
        assert all(set(table.speaker[fold.train]) == set(table.speaker) for fold in plan.folds)
        assert measure_leakage([table], QUICK_ATTACKERS).decisions == count


# ---- scoring


def test_attackers_are_scored_on_held_out_utterances_only():
    """The speaker code is in the trained utterances only, so scoring those would find it."""
    table = small_table(code=linear_code)
    held_out = np.isin(table.text, ["t1", "t4"])
    noise = np.random.default_rng(5).standard_normal(table.embedding.shape)
    memorised = replace(table, embedding=np.where(held_out[:, None], noise, table.embedding), scored=held_out)
    assert measure_leakage([memorised], FAST).attackers["logistic"].accuracy < 0.4
    assert measure_leakage([replace(memorised, scored=~held_out)], FAST).attackers["logistic"].accuracy > 0.9


def test_chance_levels():
    """s0 has 24 utterances of e0, s1 has 8 of e0 and 8 of e1: predicting s0 for e0 and s1 for e1 is correct in 24 + 8 of 40."""
    emotion = np.array(["e0"] * 24 + ["e0"] * 8 + ["e1"] * 8)
    speaker = np.array(["s0"] * 24 + ["s1"] * 16)
    ids = np.arange(40).astype(str)
    noise = np.random.default_rng(0).standard_normal((40, 4))
    table = Embeddings(noise, ids, speaker, emotion, np.full(40, ""), np.ones(40, bool))
    chance = measure_leakage([table], FAST).chance
    assert chance == pytest.approx({"uniform": 0.5, "majority": 0.6, "given_emotion": 0.8, "given_emotion_balanced": 0.75})


def test_decisions_of_several_encoders_are_pooled():
    leakage = measure_leakage([small_table(code=linear_code), small_table(seed=1)], FAST)
    assert leakage.decisions == 400 and leakage.speakers == 5 and leakage.encoders == 2
    assert 0.45 < leakage.attackers["logistic"].accuracy < 0.75
    assert leakage.clusters == 8


def test_the_strongest_attackers_accuracy_is_given_for_every_encoder():
    leakage = measure_leakage([small_table(code=linear_code), small_table(seed=1)], FAST)
    accuracy = leakage.strongest.accuracy
    assert accuracy([0]) > 0.9 > 0.5 > accuracy([1])
    assert accuracy([0, 1]) == pytest.approx(leakage.strongest.score.accuracy)


def test_encoders_with_identical_predictions_do_not_narrow_intervals():
    """Several seeds of one fold may be such encoders: intervals stay as wide, and p values as large."""
    table = make_table(200, speakers=5, seed=1, code=occasional_code(0.1))
    once, thrice = measure_leakage([table], FAST), measure_leakage([table] * 3, FAST)
    assert (once.encoders, thrice.encoders) == (1, 3) and once.utterances == thrice.utterances == 200
    for name in FAST:
        one_encoder, three_encoders = once.attackers[name], thrice.attackers[name]
        expected = (one_encoder.low, one_encoder.high, one_encoder.upper)
        assert (three_encoders.low, three_encoders.high, three_encoders.upper) == pytest.approx(expected, abs=0.01)
        assert three_encoders.p_value == pytest.approx(one_encoder.p_value, abs=0.015)
    assert once.attackers["knn"].p_value > 0.03, "a p value from three times the evidence would differ visibly"


def test_a_speaker_with_a_single_utterance_is_left_out_and_listed():
    table = small_table(code=linear_code)
    table.speaker[0] = "s99"
    leakage = measure_leakage([table], FAST)
    assert leakage.left_out == ("s99",) and leakage.decisions == 199 and leakage.speakers == 5


def test_results_do_not_depend_on_the_number_of_processes():
    assert measure_leakage([small_table(code=linear_code)], FAST, jobs=2) == measure_leakage(
        [small_table(code=linear_code)], FAST
    )


def test_results_do_not_depend_on_scale_and_offset():
    table = small_table(code=linear_code)
    rescaled = replace(table, embedding=table.embedding * 1e3 - 7)
    assert measure_leakage([rescaled], FAST).attackers["knn"] == measure_leakage([table], FAST).attackers["knn"]


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_constant_embeddings_are_at_chance(value):
    leakage = measure_leakage([replace(small_table(), embedding=np.full((200, 4), value))], repeats=1)
    assert leakage.strongest.score.accuracy == pytest.approx(0.2) and leakage.at_chance is True


def test_constant_embeddings_are_never_significant():
    """Observed and permuted accuracies that are mathematically equal count as equal."""
    score = measure_leakage([replace(small_table(), embedding=np.ones((200, 3)))], QUICK_ATTACKERS).strongest.score
    assert score.p_value == 1.0 and score.p_below == 1.0


def test_nothing_can_be_detected_where_the_emotion_determines_the_speaker():
    leakage = measure_leakage([replace(small_table(), emotion=small_table().speaker)], QUICK_ATTACKERS)
    assert leakage.chance["given_emotion"] == 1.0
    assert leakage.strongest.score.p_value == leakage.strongest.score.p_below == 1.0  # the identity is the only permutation
    assert leakage.summary["detection_limit"] is None


# ---- the choice of attackers


def test_an_attacker_that_needs_more_utterances_is_skipped_with_the_reason():
    leakage = measure_leakage([make_table(8, speakers=4, dims=3)])
    assert "qda" not in leakage.attackers and "logistic" in leakage.attackers
    assert leakage.not_tried["qda"] == "needs 2 utterances of two speakers for tuning (all but one have 1 or fewer)"
    assert leakage.not_tried["frames"] == "needs the encoder's frame-level features"


def test_the_strongest_attacker_is_chosen_without_the_scored_utterances():
    """One attacker is always correct on the fold's test utterances, the other on all others: the other is chosen."""
    table = small_table()
    plan = plan_folds(table, 4)
    ids = np.arange(200)
    for index, fold in enumerate(plan.folds):
        in_test = np.isin(ids, fold.test)
        correct = {"correct on test": in_test, "correct elsewhere": ~in_test}
        validation = {name: [values[other.train[other.tuning[1]]] for other in plan.folds] for name, values in correct.items()}
        speaker = to_indices(table.speaker)
        predicted = {
            name: [np.where(values, speaker, (speaker + 1) % 5)[other.test] for other in plan.folds]
            for name, values in correct.items()
        }
        predictions = EncoderPredictions(plan, ids, 5, predicted, validation)
        assert choose_strongest([predictions], [table], list(correct))[0][index] == "correct elsewhere"


def test_many_attackers_do_not_inflate_the_strongest_attackers_accuracy():
    """On noise the best by test accuracy is above chance, the one chosen by validation accuracy is at chance on average."""
    leakages = [
        measure_leakage([make_table(220, dims=8, seed=seed)], QUICK_ATTACKERS, permutations=0, repeats=1) for seed in range(12)
    ]
    best = np.mean([max(score.accuracy for score in leakage.attackers.values()) for leakage in leakages])
    chosen = np.mean([leakage.strongest.score.accuracy for leakage in leakages])
    assert best > 1 / 11 + 0.01 > chosen > 1 / 11 - 0.01


# ---- extreme and invalid inputs


def test_rare_speakers_can_be_audited():
    table = small_table(texts=0)
    table.speaker[:] = np.where(np.arange(200) < 195, "s00", "s01")
    assert audit([table], settings=AuditSettings(quick=True)).summary["decisions"] == 200


def test_more_dimensions_than_utterances_can_be_audited():
    wide = make_table(60, dims=900, speakers=3, code=linear_code)
    assert measure_leakage([wide], QUICK_ATTACKERS, repeats=1).attackers["qda"].accuracy > 0.9


@pytest.mark.parametrize("option", [{"jobs": 10_000}, {"seed": 2**31 - 1}], ids=["jobs", "seed"])
def test_large_options_are_accepted(option):
    assert measure_leakage([small_table()], ("logistic",), **option).decisions == 200


def with_nan() -> Embeddings:
    """A table with one value that is not finite."""
    table = small_table()
    table.embedding[3, 2] = np.nan
    return table


def one_speaker() -> Embeddings:
    """A table of a single speaker."""
    table = small_table()
    table.speaker[:] = "s0"
    return table


@pytest.mark.parametrize(
    "make, message",
    [
        (with_nan, "the embedding of clip3 contains NaN or infinity"),
        (one_speaker, r"needs at least 2 speakers .*; there is 1 \(s0\)"),
        (lambda: replace(small_table(), scored=np.zeros(200, bool)), "no utterance is marked as scored"),
    ],
)
def test_invalid_tables_are_refused(make, message):
    with pytest.raises(AuditError, match=message):
        measure_leakage([make()])


def test_ctrl_c_interrupts_the_training_of_a_network(monkeypatch):
    """scikit-learn's networks catch the interrupt and only warn."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MLPClassifier, "_backprop", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure_leakage([small_table()], ("mlp",))
