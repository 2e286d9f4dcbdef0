"""Bits come out at log2 K for a plain code and at 0 for noise, and emotion is not taken for the speaker."""

import numpy as np
import pytest

from speaker_invariant_ser.audit import information
from speaker_invariant_ser.audit.information import Task, codelength, hold_back, spread, usable_bits
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.indexing import to_indices

FAMILIES = ("linear", "mlp")


def noise(seed=0, clips=240, dims=16, speakers=5, emotions=3):
    """Embedding [N, D], speaker, emotion, and two of five parts; speakers and emotions are balanced."""
    rng = np.random.default_rng(seed)
    speaker, emotion = np.arange(clips) % speakers, np.arange(clips) // speakers % emotions
    fold = rng.permutation(clips) % 5
    parts = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(2)]
    return rng.standard_normal((clips, dims)), np.char.mod("p%d", speaker), np.char.mod("e%d", emotion), parts


def with_code(size, **options):
    embedding, speaker, emotion, parts = noise(**options)
    return embedding + size * (speaker[:, None] == np.unique(speaker)).dot(np.eye(5, embedding.shape[1])), speaker, emotion, parts


@pytest.mark.parametrize("family,short", [("linear", 0.1), ("mlp", 0.5)])
def test_a_plain_code_is_worth_log2_speakers(family, short):
    bits = usable_bits(*with_code(8.0), family)
    assert np.nanmean(bits) == pytest.approx(np.log2(5), abs=short)


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_worth_nothing(family):
    means = [np.nanmean(usable_bits(*noise(seed), family)) for seed in range(3)]
    assert np.abs(means).max() < 0.1
    assert max(means) < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_emotion_is_not_taken_for_the_speaker(family):
    """Two speakers to an emotion, and an embedding that says the emotion loudly: 1.3 bits, none of them given the emotion."""
    embedding, speaker, _, parts = noise(speakers=5, clips=250)
    emotion = np.char.mod("e%d", to_indices(speaker) // 2)
    embedding[:, :3] += 6 * (emotion[:, None] == np.unique(emotion))
    assert abs(np.nanmean(usable_bits(embedding, speaker, emotion, parts, family))) < 0.05
    assert np.nanmean(usable_bits(embedding, speaker, np.full(250, "any"), parts, family)) > 0.7


def test_a_code_that_no_line_shows_is_worth_something_to_the_mlp_alone():
    embedding, speaker, emotion, parts = noise(speakers=2, clips=400)
    signs = np.random.default_rng(1).choice([-1, 1], 400)
    embedding[:, 0] = 2 * signs + 0.3 * embedding[:, 0]
    embedding[:, 1] = 2 * signs * np.where(speaker == "p1", 1, -1) + 0.3 * embedding[:, 1]
    assert abs(np.nanmean(usable_bits(embedding, speaker, emotion, parts, "linear"))) < 0.05
    assert np.nanmean(usable_bits(embedding, speaker, emotion, parts, "mlp")) > 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_results_repeat_and_ignore_names_and_scale(family):
    embedding, speaker, emotion, parts = with_code(3.0, clips=120)
    first = usable_bits(embedding, speaker, emotion, parts, family)
    assert np.array_equal(first, usable_bits(embedding, speaker, emotion, parts, family), equal_nan=True)
    other = usable_bits(1000 * embedding - 7, np.char.add("x", speaker), emotion, parts, family)
    assert np.nanmean(first) > 0.3
    assert np.allclose(first, other, atol=0.02, equal_nan=True)


def test_clips_outside_the_test_parts_have_no_bits():
    embedding, speaker, emotion, parts = noise()
    bits = usable_bits(embedding, speaker, emotion, parts[:1])
    assert np.isnan(bits).sum() == len(bits) - len(parts[0][1])
    assert np.isfinite(bits[parts[0][1]]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_bits_stay_finite_for_a_speaker_nobody_has_met(family):
    embedding, speaker, emotion, _ = with_code(8.0)
    stranger = speaker == "p0"
    bits = usable_bits(embedding, speaker, emotion, [(np.flatnonzero(~stranger), np.flatnonzero(stranger))], family)
    assert np.isfinite(bits[stranger]).all() and np.abs(bits[stranger]).max() < np.log2(5 / 0.01) + 1e-9


def test_texts_stay_together_in_tuning():
    """An embedding that knows only texts, each said by one speaker: useful for texts met before, not for others."""
    rng = np.random.default_rng(0)
    text = np.arange(240) // 6
    speaker = text % 5
    embedding = rng.standard_normal((240, 60))
    embedding[np.arange(240), text] += 8
    task = Task(speaker, 5, np.arange(200), np.arange(200, 240))
    apart, mixed = hold_back(task, text, 0), hold_back(task, None, 0)
    assert not set(text[apart.train]) & set(text[apart.test])
    assert set(text[mixed.train]) & set(text[mixed.test])
    parts = [(task.train, task.test)]
    labels = np.char.mod("p%d", speaker), np.full(240, "any")
    careful = np.nanmean(usable_bits(embedding, *labels, parts, groups=text))
    assert abs(careful) < 0.05
    assert np.nanmean(usable_bits(embedding, *labels, parts)) < careful - 0.1


def test_an_unknown_family_is_named():
    with pytest.raises(SerError, match="unknown family 'forest'. Expected one of: linear, mlp"):
        usable_bits(*noise(), family="forest")


def test_a_code_is_compressed_and_noise_is_not():
    bits, uniform = codelength(*with_code(8.0)[:2])
    assert uniform == pytest.approx(240 * np.log2(5))
    assert uniform / bits > 4
    compressions = [uniform / codelength(*noise(seed)[:2], seed)[0] for seed in range(6)]
    assert min(compressions) > 0.97 and max(compressions) < 1.03


def test_a_code_that_is_easy_to_learn_is_shorter():
    lengths = [codelength(*with_code(size, clips=300)[:2])[0] for size in (0.0, 2.0, 8.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[2] < lengths[1] / 2 < lengths[0] / 2


def test_the_first_block_costs_what_guessing_does():
    embedding, speaker, *_ = with_code(8.0, clips=10)
    assert codelength(embedding, speaker) == (10 * np.log2(5), 10 * np.log2(5))
    assert codelength(*with_code(1.0)[:2], seed=3) == codelength(*with_code(1.0)[:2], seed=3)


def test_every_stretch_of_the_order_holds_all_speakers():
    truth = np.repeat([0, 1, 2], [40, 20, 20])
    order = spread(truth, 0)
    assert sorted(order) == list(range(80))
    for start in range(0, 80, 20):
        assert np.abs(np.bincount(truth[order[start : start + 20]]) - [10, 5, 5]).max() <= 2
    assert not np.array_equal(order, spread(truth, 1))


def test_tuning_takes_a_sample_of_many_clips(monkeypatch):
    monkeypatch.setattr(information, "TUNED_ON", 40)
    task = hold_back(Task(np.arange(100) % 5, 5, np.arange(80), np.arange(80, 100)), None, 0)
    assert len(task.train) == 30 and len(task.test) == 10
    assert not set(task.train) & set(task.test) and max(*task.train, *task.test) < 80


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("clips", [4, 6, 10])
def test_a_handful_of_clips_is_too_few_to_say_anything(family, clips):
    embedding, speaker, emotion, _ = noise(clips=clips, speakers=2)
    parts = [(np.arange(clips // 2), np.arange(clips // 2, clips))]
    assert not np.nan_to_num(usable_bits(embedding, speaker, emotion, parts, family)).any()
    assert codelength(embedding, speaker)[0] == pytest.approx(clips, abs=1)
