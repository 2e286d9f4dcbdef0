"""What "at chance" must not hide: one speaker, certain utterances, no room above chance, texts of one speaker, last digits."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from embedding_tables import SpeakerCode, linear_code, make_table, occasional_code
from sklearn.preprocessing import StandardScaler

from speaker_invariant_ser.audit import audit as auditing
from speaker_invariant_ser.audit.attackers import standardised_lda
from speaker_invariant_ser.audit.cross_validation import EncoderPredictions, choose_strongest, surest_weight
from speaker_invariant_ser.audit.embeddings import Embeddings, nested_texts
from speaker_invariant_ser.audit.folds import plan_folds
from speaker_invariant_ser.audit.information import speaker_bits_given_emotion
from speaker_invariant_ser.audit.inputs import sample as sampling
from speaker_invariant_ser.audit.inputs.scaling import (
    attackable,
    compress_outliers,
    round_significant,
    significant_bits,
    to_one_scale,
)
from speaker_invariant_ser.audit.leakage import Leakage, measure_leakage
from speaker_invariant_ser.errors import AuditError
from speaker_invariant_ser.studies.sweep_folds import Scores

FAST = ("logistic", "knn")


def attacked(table: Embeddings, **options: Any) -> Leakage:
    """Attack a table with two attackers and one cross-validation."""
    return measure_leakage([table], FAST, repeats=1, **options)


def one_speaker_code(size: float) -> SpeakerCode:
    """Return a code that marks the utterances of the fourth speaker alone."""

    def code(embedding: np.ndarray, speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        embedding[speaker == 3, :4] += size
        return embedding

    return code


def last_digits(embedding: np.ndarray, speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Write the speaker into the last four of 24 significant binary digits."""
    mantissa, exponent = np.frexp(embedding.astype(np.float32))
    digits = (np.floor(np.abs(mantissa) * 2**20) * 16 + speaker[:, None]) * np.sign(mantissa)
    return np.ldexp(digits, exponent - 24).astype(np.float32)


# ---- one speaker, and the surest utterances


def test_one_speaker_of_many_is_a_leak_that_the_average_hides():
    leakage = attacked(make_table(2200, speakers=22, code=one_speaker_code(0.7)))
    tail = leakage.tails.speaker
    assert leakage.strongest.score.upper < 1 / 22 + 0.03, "on average the attackers are at chance"
    assert tail and (tail.speaker, tail.utterances) == ("s03", 100) and tail.accuracy > 0.5 > 0.2 > tail.expected
    assert tail.p_value < 0.002 and (leakage.at_chance, leakage.conclusion.reason) == (False, "speaker")


def test_a_few_utterances_named_with_certainty_are_a_leak_that_the_average_hides():
    leakage = attacked(make_table(dims=32, code=occasional_code(0.015)))
    tail = leakage.tails.surest
    assert leakage.strongest.score.upper < 1 / 11 + 0.03
    assert tail and tail.utterances == pytest.approx(15) and tail.accuracy > 0.5 > 0.15 > tail.expected
    assert (leakage.at_chance, leakage.conclusion.reason) == (False, "surest")


def test_on_noise_both_tests_reject_as_often_as_they_should():
    tails = [attacked(make_table(110, dims=4, seed=seed), permutations=200).tails for seed in range(16)]
    p_values = np.array([[tail.speaker.p_value, tail.surest.p_value] for tail in tails if tail.speaker and tail.surest])
    assert p_values.shape == (16, 2) and (p_values < 0.05).sum() <= 4 and (p_values < 0.01).sum() <= 1
    assert 0.2 < np.median(p_values) < 0.9


def test_permuted_recalls_of_several_encoders_are_pooled_by_the_speakers_name():
    first, second = (make_table(220, speakers=5, dims=4, seed=seed, code=one_speaker_code(2.0)) for seed in (0, 1))
    other = replace(second, speaker=np.where(second.speaker == "s00", "s99", second.speaker))
    together = measure_leakage([first, other], FAST, repeats=1).tails.speaker
    assert together and (together.speaker, together.utterances) == ("s03", 88.0)


def test_one_model_of_several_is_a_leak_that_the_average_hides():
    tables = [make_table(330, dims=6, seed=seed, code=partial(linear_code, size=0.32 if seed == 3 else 0.0)) for seed in range(8)]
    leakage = measure_leakage(tables, ["lda"], repeats=1)
    tail = leakage.tails.model
    assert leakage.strongest.score.upper < 1 / 11 + 0.03, "on average the attackers are at chance"
    assert tail and (tail.model, tail.utterances) == ("4", 330) and tail.accuracy > 0.16 > 0.11 > tail.expected
    assert tail.p_value < 0.002 and (leakage.at_chance, leakage.conclusion.reason) == (False, "model")
    assert attacked(tables[0]).tails.model is None, "one model is the average"


def test_the_surest_one_percent_are_chosen_without_regard_to_ties():
    weight = surest_weight(np.repeat([1.0, 2.0], 100))
    assert weight.sum() == pytest.approx(2) and weight[:100].sum() == 0
    assert surest_weight(np.zeros(5)).tolist() == [0.2] * 5, "none is chosen by its position, which goes with the speaker"


# ---- no room above chance


def code_of_the_last_four_dimensions(table: Embeddings) -> Embeddings:
    """Name the speaker in the embedding."""
    return replace(table, embedding=np.eye(5)[np.unique(table.speaker, return_inverse=True)[1]] + 0.01 * table.embedding[:, :5])


@pytest.mark.parametrize(
    "coded, swapped, conclusion",
    [
        pytest.param(False, 0, ("undecided", "no_room"), id="noise, emotion is speaker"),
        pytest.param(True, 0, ("undecided", "no_room"), id="all named, emotion is speaker"),
        pytest.param(False, 2, ("undecided", "no_room"), id="noise, nearly"),
        pytest.param(True, 2, (False, "leak"), id="all named, nearly"),
    ],
)
def test_nothing_is_at_chance_where_the_emotion_determines_the_speaker(coded, swapped, conclusion):
    table = make_table(200, speakers=5)
    emotion = table.speaker.copy()
    emotion[:swapped] = emotion[:swapped][::-1]
    table = replace(table, emotion=emotion)
    leakage = attacked(code_of_the_last_four_dimensions(table) if coded else table)
    assert leakage.chance["given_emotion"] + 0.03 >= 1
    assert (leakage.at_chance, leakage.conclusion.reason) == conclusion


@pytest.mark.parametrize("emotion, bits", [("speaker", 0.0), ("same", np.log2(5))])
def test_what_the_emotion_leaves_unknown_of_the_speaker(emotion, bits):
    table = make_table(200, speakers=5)
    named = replace(table, emotion=table.speaker if emotion == "speaker" else np.full(200, "same"))
    assert speaker_bits_given_emotion(named) == pytest.approx(bits)


def test_a_sweep_of_corpora_without_room_ends_with_the_reason():
    scores = Scores(dev_uar=0.5, attacker="lda", accuracy=1.0, chance=0.98)
    assert scores.objective(0.0) == 0.5
    with pytest.raises(AuditError, match="the emotion alone names 98 % of the speakers.* set sweep.leak_weight = 0"):
        scores.objective(1.0)


# ---- the choice of the strongest attacker


@pytest.mark.parametrize(("texts", "chosen"), [(1, "knn"), (2, "knn"), (8, "lda")])
def test_the_strongest_attacker_is_the_best_on_utterances_that_are_scored_where_these_suffice(texts, chosen):
    """k-NN recognises all utterances that the encoder was trained on, LDA those that are scored; one text is one fold."""
    number = np.arange(800)
    table = replace(make_table(800, speakers=5), text=np.char.mod("t%d", number // 10 % 16), scored=number // 10 % 16 < texts)
    plan, speaker = plan_folds(table, 4, max_repeats=1), number % 5
    right = {"qda": np.zeros(800, bool), "knn": ~table.scored, "lda": table.scored}
    validation = {name: [values[fold.train[fold.tuning[1]]] for fold in plan.folds] for name, values in right.items()}
    predicted = {name: [(speaker + 1)[fold.test] % 5 for fold in plan.folds] for name in right}
    predictions = EncoderPredictions(plan, np.flatnonzero(table.scored), 5, predicted, validation)
    assert set(choose_strongest([predictions], [table], list(right))[0]) == {chosen}


def test_an_attacker_that_needs_more_utterances_than_validation_has_is_chosen_by_the_other_folds():
    """QDA is ahead on validation utterances, the network far ahead on the scored ones of every fold."""
    table = make_table(200, speakers=5)
    plan, speaker = plan_folds(table, 4, max_repeats=1), np.arange(200) % 5
    rng = np.random.default_rng(0)
    right = {"qda": rng.random(200) < 0.6, "mlp_deep": rng.random(200) < 0.9, "lda": rng.random(200) < 0.65}
    validated = {"qda": 0.6, "mlp_deep": 0.3, "lda": 0.5}
    validation = {name: [rng.random(len(fold.tuning[1])) < share for fold in plan.folds] for name, share in validated.items()}
    predicted = {name: [np.where(right[name], speaker, (speaker + 1) % 5)[fold.test] for fold in plan.folds] for name in right}
    predictions = EncoderPredictions(plan, np.arange(200), 5, predicted, validation)
    assert set(choose_strongest([predictions], [table], ["qda", "mlp_deep"])[0]) == {"mlp_deep"}
    assert set(choose_strongest([predictions], [table], ["qda", "lda"])[0]) == {"qda"}, "5 points are no clear difference"


# ---- texts of one speaker


def nested_table(texts: int, seed: int) -> Embeddings:
    """Every speaker says texts of their own, and the embedding encodes the text, not the voice."""
    table = make_table(660, dims=8, seed=seed)
    text = np.char.add(table.speaker, np.char.mod("t%d", np.arange(660) // 11 % texts))
    _, number = np.unique(text, return_inverse=True)
    return replace(table, text=text, embedding=table.embedding + 4 * np.random.default_rng(seed).standard_normal((99, 8))[number])


@pytest.mark.parametrize("texts", [1, 2, 4])
def test_what_may_be_the_text_is_not_called_the_voice(texts):
    table = nested_table(texts, seed=texts)
    assert nested_texts([table]) == 1.0
    leakage = attacked(table)
    assert leakage.conclusion.reason in {"text", "text_leak", "few"}
    assert texts > 1 or leakage.conclusion.reason == "text_leak", "a text of one speaker is recognised in every fold"


def test_texts_that_all_speakers_say_and_texts_said_once_are_not_nested():
    assert nested_texts([make_table(220, texts=4)]) == 0
    table = make_table(220)
    assert nested_texts([replace(table, text=table.id)]) == nested_texts([table]) == 0


# ---- the precision of the audit


def test_last_digits_are_gone_at_the_stated_precision_and_there_without_rounding():
    table = make_table(440, dims=4, code=last_digits)
    read = np.ldexp(np.abs(np.frexp(table.embedding)[0].astype(float)), 24).astype(int) % 16
    speaker = np.arange(440) % 11
    assert (read == speaker[:, None]).all(), "the code can be read from the table"
    rounded = round_significant(table.embedding, 11)
    assert rounded.dtype == np.float32 and np.abs(rounded / table.embedding - 1).max() <= 2.0**-11
    assert np.array_equal(rounded, rounded.astype(np.float16).astype(np.float32)), "as float16 within its range"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_the_smallest_and_zeros_of_both_signs_are_rounded_without_a_warning(dtype):
    limits = np.finfo(dtype)
    values = np.array([limits.max, limits.tiny, limits.smallest_subnormal, 0.0], dtype=dtype)
    values = np.concatenate([values, -values])
    for bits in (1, 11, 24, 53):
        rounded = round_significant(values, bits)
        assert rounded.dtype == dtype and rounded.tobytes() == values.tobytes()
    assert np.isinf(round_significant(np.array([np.inf], dtype=dtype), 11)).all()


@pytest.mark.parametrize("bits", [11, 24])
def test_embeddings_are_rounded_before_they_are_attacked(bits, monkeypatch):
    given = []
    monkeypatch.setattr(auditing, "measure_leakage", lambda tables, *rest, **options: given.extend(tables) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        auditing.audit_table(make_table(44, dims=3), auditing.AuditSettings(significant_bits=bits))
    assert np.array_equal(given[0].embedding, round_significant(make_table(44, dims=3).embedding, bits))


def test_a_large_offset_is_audited_at_a_precision_that_keeps_differences():
    table = make_table(220, dims=4)
    assert significant_bits(table.embedding, 11) == 11
    shifted = replace(table, embedding=1000 + table.embedding / 100)
    bits = significant_bits(shifted.embedding, 11)
    step = 2.0 ** (10 - bits)
    assert bits == 22 and step <= 0.01 / 32
    assert np.corrcoef(round_significant(shifted.embedding, bits)[:, 0], table.embedding[:, 0])[0, 1] > 0.999
    assert significant_bits(np.ones((220, 4)), 11) == 11


def test_an_offset_that_standardising_takes_for_a_constant_hides_no_leak():
    """scikit-learn leaves the dimension as it is: all attackers but LDA saw 1e-11 beside noise of size 1."""
    table = make_table(220, dims=4)
    code = 1000 + 5e-12 * (table.embedding[:, :1] + np.unique(table.speaker, return_inverse=True)[1][:, None])
    (attacked,), _, _ = attackable([replace(table, embedding=np.hstack([table.embedding, code]))], None, 11)
    assert StandardScaler().fit_transform(attacked.embedding)[:, 4].std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("value", [1e4, 1e17, -1e300])
def test_an_extreme_utterance_hides_no_leak_from_attackers_that_standardise(value):
    speaker = np.arange(200) % 4
    embedding = np.random.default_rng(0).standard_normal((200, 3))
    embedding[np.arange(200), np.minimum(speaker, 2)] += 2
    assert compress_outliers(embedding) is embedding
    planted = np.vstack([np.full((1, 3), value), embedding])
    limited, speaker = compress_outliers(planted), np.append(0, speaker)
    assert standardised_lda().fit(limited, speaker).score(limited[1:], speaker[1:]) > 0.6
    assert np.array_equal(limited[1:], embedding)
    assert np.array_equal(np.argsort(limited, axis=0), np.argsort(planted, axis=0))


@pytest.mark.parametrize("hidden", ["in many cells", "in a row of a sparse table", "in a quick sample", "in the sign of zeros"])
def test_values_of_very_different_sizes_hide_no_leak(hidden, monkeypatch):
    """From linear attackers, which standardise: values of one size fell together, and -0.0 is 0.0."""
    rng, speaker = np.random.default_rng(0), np.arange(440) % 4
    embedding = rng.standard_normal((440, 12)) + 1.5 * np.eye(12)[speaker]
    if hidden == "in many cells":
        large = rng.random(embedding.shape) < 0.25
        embedding[large] *= 1e6
    elif hidden == "in a row of a sparse table":
        embedding = np.maximum(embedding - 1.2, 0)
        embedding[0] = 1e17
    elif hidden == "in the sign of zeros":
        zeros = np.where(embedding > 0.5, -0.0, 0.0)
        embedding = np.where(rng.random(embedding.shape) < 0.3, rng.standard_normal(embedding.shape), zeros)
    else:
        monkeypatch.setattr(sampling, "MAX_DIMENSIONS", 6)
        embedding[0] = 1e17
    table = replace(make_table(440, dims=12, speakers=4), embedding=embedding)
    table, _ = sampling.reduce_dimensions(table)
    (attacked,), _, _ = attackable([table], None, 11)
    leakage = measure_leakage([attacked], ["lda"], permutations=0, repeats=1)
    assert leakage.attackers["lda"].accuracy > 0.4


@pytest.mark.parametrize("distribution", ["standard_normal", "standard_exponential", "standard_t", "codes", "sparse"])
def test_dimensions_of_ordinary_distributions_are_attacked_as_they_are(distribution):
    rng = np.random.default_rng(0)
    if distribution == "codes":
        embedding = rng.integers(0, 32, 500)[:, None] == np.arange(32)
    elif distribution == "sparse":
        embedding = np.maximum(rng.standard_normal((500, 20)) - 1, 0)
    else:
        embedding = getattr(rng, distribution)(*[4] * (distribution == "standard_t"), size=(500, 20))
    embedding = embedding.astype(float)
    assert to_one_scale(embedding) is embedding


def test_tested_speakers_are_brought_to_the_scale_of_the_others():
    table = make_table(220, dims=3)
    other = replace(table, embedding=np.where(table.embedding > 1.5, 1e9, table.embedding))
    (given,), (unseen,), _ = attackable([table], [other], 53)
    assert given.embedding.shape == unseen.embedding.shape == (220, 3)
    same = table.embedding == other.embedding
    assert np.array_equal(given.embedding[same], unseen.embedding[same]) and 2 < unseen.embedding.max() < 100
