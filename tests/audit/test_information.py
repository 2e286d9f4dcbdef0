"""Usable bits are log2 K for a plain speaker code and 0 for noise, and emotion does not count as speaker information."""

import numpy as np
import pytest

from speaker_invariant_ser.audit import information
from speaker_invariant_ser.audit.information import Task, codelength, tuning_task, usable_bits
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.indexing import spread_order, to_indices

FAMILIES = ("linear", "mlp")


def noise(seed=0, utterances=240, dims=16, speakers=5, emotions=3):
    """Embedding [N, D], speaker, emotion, and two of five folds; speakers and emotions are equally frequent."""
    rng = np.random.default_rng(seed)
    speaker, emotion = np.arange(utterances) % speakers, np.arange(utterances) // speakers % emotions
    fold = rng.permutation(utterances) % 5
    folds = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(2)]
    return rng.standard_normal((utterances, dims)), np.char.mod("p%d", speaker), np.char.mod("e%d", emotion), folds


def with_code(size, **options):
    """The same with a one-hot code of the speaker."""
    embedding, speaker, emotion, folds = noise(**options)
    return embedding + size * (speaker[:, None] == np.unique(speaker)).dot(np.eye(5, embedding.shape[1])), speaker, emotion, folds


# ---- usable bits


@pytest.mark.parametrize("family,tolerance", [("linear", 0.1), ("mlp", 0.5)])
def test_a_large_code_has_log2_speakers_bits(family, tolerance):
    bits = usable_bits(*with_code(8.0), family)
    assert np.nanmean(bits) == pytest.approx(np.log2(5), abs=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_has_no_bits(family):
    means = [np.nanmean(usable_bits(*noise(seed), family)) for seed in range(3)]
    assert np.abs(means).max() < 0.1
    assert max(means) < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_emotion_does_not_count_as_speaker_information(family):
    """Two speakers per emotion and an embedding of the emotion: 1.3 bits, none of them once the emotion is known."""
    embedding, speaker, _, folds = noise(speakers=5, utterances=250)
    emotion = np.char.mod("e%d", to_indices(speaker) // 2)
    embedding[:, :3] += 6 * (emotion[:, None] == np.unique(emotion))
    assert abs(np.nanmean(usable_bits(embedding, speaker, emotion, folds, family))) < 0.05
    assert np.nanmean(usable_bits(embedding, speaker, np.full(250, "unknown"), folds, family)) > 0.7


def test_only_the_mlp_uses_a_nonlinear_code():
    embedding, speaker, emotion, folds = noise(speakers=2, utterances=400)
    signs = np.random.default_rng(1).choice([-1, 1], 400)
    embedding[:, 0] = 2 * signs + 0.3 * embedding[:, 0]
    embedding[:, 1] = 2 * signs * np.where(speaker == "p1", 1, -1) + 0.3 * embedding[:, 1]
    assert abs(np.nanmean(usable_bits(embedding, speaker, emotion, folds, "linear"))) < 0.05
    assert np.nanmean(usable_bits(embedding, speaker, emotion, folds, "mlp")) > 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_bits_are_reproducible_and_do_not_depend_on_names_and_scale(family):
    embedding, speaker, emotion, folds = with_code(3.0, utterances=120)
    first = usable_bits(embedding, speaker, emotion, folds, family)
    assert np.array_equal(first, usable_bits(embedding, speaker, emotion, folds, family), equal_nan=True)
    changed = usable_bits(1000 * embedding - 7, np.char.add("x", speaker), emotion, folds, family)
    assert np.nanmean(first) > 0.3
    assert np.allclose(first, changed, atol=0.02, equal_nan=True)


def test_bits_are_undefined_outside_the_test_sets():
    embedding, speaker, emotion, folds = noise()
    bits = usable_bits(embedding, speaker, emotion, folds[:1])
    assert np.isnan(bits).sum() == len(bits) - len(folds[0][1])
    assert np.isfinite(bits[folds[0][1]]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_bits_of_a_speaker_without_training_utterances_are_finite(family):
    embedding, speaker, emotion, _ = with_code(8.0)
    untrained = speaker == "p0"
    bits = usable_bits(embedding, speaker, emotion, [(np.flatnonzero(~untrained), np.flatnonzero(untrained))], family)
    assert np.isfinite(bits[untrained]).all() and np.abs(bits[untrained]).max() < np.log2(5 / 0.01) + 1e-9


def test_an_unknown_family_is_refused():
    with pytest.raises(SerError, match="unknown family 'forest'. Expected one of: linear, mlp"):
        usable_bits(*noise(), family="forest")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("utterances", [4, 6, 10])
def test_a_handful_of_utterances_has_no_bits(family, utterances):
    embedding, speaker, emotion, _ = noise(utterances=utterances, speakers=2)
    folds = [(np.arange(utterances // 2), np.arange(utterances // 2, utterances))]
    assert not np.nan_to_num(usable_bits(embedding, speaker, emotion, folds, family)).any()
    assert codelength(embedding, speaker)[0] == pytest.approx(utterances, abs=1)


# ---- tuning


def test_texts_are_kept_together_in_tuning():
    """The embedding encodes texts, each spoken by one speaker: useful for trained texts, not for others."""
    rng = np.random.default_rng(0)
    text = np.arange(240) // 6
    speaker = text % 5
    embedding = rng.standard_normal((240, 60))
    embedding[np.arange(240), text] += 8
    task = Task(speaker, 5, np.arange(200), np.arange(200, 240))
    grouped, ungrouped = tuning_task(task, text, 0), tuning_task(task, None, 0)
    assert not set(text[grouped.train]) & set(text[grouped.test])
    assert set(text[ungrouped.train]) & set(text[ungrouped.test])
    folds = [(task.train, task.test)]
    labels = np.char.mod("p%d", speaker), np.full(240, "unknown")
    grouped_bits = np.nanmean(usable_bits(embedding, *labels, folds, groups=text))
    assert abs(grouped_bits) < 0.05
    assert np.nanmean(usable_bits(embedding, *labels, folds)) < grouped_bits - 0.1


def test_settings_are_chosen_on_a_sample_of_many_utterances(monkeypatch):
    monkeypatch.setattr(information, "MAX_TUNING_UTTERANCES", 40)
    task = tuning_task(Task(np.arange(100) % 5, 5, np.arange(80), np.arange(80, 100)), None, 0)
    assert len(task.train) == 30 and len(task.test) == 10
    assert not set(task.train) & set(task.test) and max(*task.train, *task.test) < 80


# ---- code length


def test_a_code_is_compressed_and_noise_is_not():
    bits, uniform = codelength(*with_code(8.0)[:2])
    assert uniform == pytest.approx(240 * np.log2(5))
    assert uniform / bits > 4
    compressions = [uniform / codelength(*noise(seed)[:2], seed)[0] for seed in range(6)]
    assert min(compressions) > 0.97 and max(compressions) < 1.03


def test_a_larger_code_gives_a_shorter_code_length():
    lengths = [codelength(*with_code(size, utterances=300)[:2])[0] for size in (0.0, 2.0, 8.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[2] < lengths[1] / 2 < lengths[0] / 2


def test_the_first_block_costs_uniform_bits():
    embedding, speaker, *_ = with_code(8.0, utterances=10)
    assert codelength(embedding, speaker) == (10 * np.log2(5), 10 * np.log2(5))


def test_the_code_length_is_reproducible():
    assert codelength(*with_code(1.0)[:2], seed=3) == codelength(*with_code(1.0)[:2], seed=3)


def test_every_stretch_of_the_order_holds_all_speakers_in_proportion():
    truth = np.repeat([0, 1, 2], [40, 20, 20])
    order = spread_order(truth, 0)
    assert sorted(order) == list(range(80))
    for start in range(0, 80, 20):
        assert np.abs(np.bincount(truth[order[start : start + 20]]) - [10, 5, 5]).max() <= 2
    assert not np.array_equal(order, spread_order(truth, 1))


def test_few_utterances_of_many_speakers_cause_no_warning():
    rng, speaker = np.random.default_rng(0), np.repeat(np.arange(20), 3)
    bits, uniform_bits = codelength(rng.standard_normal((60, 4)), speaker)
    assert bits <= 1.2 * uniform_bits
