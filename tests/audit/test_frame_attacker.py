"""The frame-level attacker finds speaker information in single frames, and none on noise."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speaker_invariant_ser.audit import frame_attacker
from speaker_invariant_ser.audit.frame_attacker import FrameAttacker, cut_into_windows, split_for_early_stopping

FEATURES = 8

Data = tuple[list[np.ndarray], np.ndarray]  # features [F, T] of each utterance, speakers


def noise(utterances: int, rng: np.random.Generator, features: int = FEATURES) -> list[np.ndarray]:
    """Features without any structure, 30 to 49 frames for each utterance."""
    return [rng.normal(0, 0.5, (features, rng.integers(30, 50))).astype(np.float16) for _ in range(utterances)]


def coincident_pulses(utterances: int, seed: int) -> Data:
    """Two features have three pulses each, simultaneous for speaker "a", not for "b": equal means and deviations over time."""
    rng = np.random.default_rng(seed)
    features, speakers = noise(utterances, rng), rng.choice(["a", "b"], utterances)
    for utterance, speaker in zip(features, speakers, strict=True):
        frames = rng.permutation(utterance.shape[1])[:6]
        utterance[0, frames[:3]] += 4
        utterance[1, frames[:3] if speaker == "a" else frames[3:]] += 4
    return features, speakers


def rare_events(utterances: int, seed: int) -> Data:
    """The speaker's feature is high in two frames; offsets of each utterance hide that in the mean over time."""
    rng = np.random.default_rng(seed)
    features, speakers = noise(utterances, rng), rng.integers(0, 4, utterances)
    for utterance, speaker in zip(features, speakers, strict=True):
        utterance += rng.normal(0, 1, (FEATURES, 1)).astype(np.float16)
        utterance[speaker, rng.permutation(utterance.shape[1])[:2]] += 5
    return features, np.array(list("abcd"))[speakers]


def accuracy(attacker: BaseEstimator, train: Data, test: Data) -> float:
    """Accuracy on `test` after fitting to `train`."""
    return float((attacker.fit(*train).predict(test[0]) == test[1]).mean())


def accuracy_from_means(train: Data, test: Data) -> float:
    """Accuracy of logistic regression on means over time."""
    means = [
        (np.array([utterance.astype(float).mean(axis=1) for utterance in features]), speakers)
        for features, speakers in (train, test)
    ]
    return accuracy(make_pipeline(StandardScaler(), LogisticRegression()), *means)


def is_at_chance(rate: float, utterances: int, chance: float) -> bool:
    """Whether the rate is in the central 99.99 % of random guessing."""
    low, high = binom.interval(0.9999, utterances, chance)
    return low <= round(rate * utterances) <= high


@pytest.mark.parametrize("make, chance", [(coincident_pulses, 0.5), (rare_events, 0.25)])
def test_it_finds_what_the_mean_over_time_hides(make, chance):
    train, test = make(150, 0), make(200, 1)
    assert accuracy(FrameAttacker(), train, test) > 0.9
    assert accuracy_from_means(train, test) < chance + 0.2


def test_coincident_pulses_are_not_found_once_frames_are_permuted():
    rng = np.random.default_rng(0)
    train, test = coincident_pulses(100, 0), coincident_pulses(200, 1)
    permuted = [([rng.permuted(utterance, axis=1) for utterance in features], speakers) for features, speakers in (train, test)]
    assert is_at_chance(accuracy(FrameAttacker(), *permuted), 200, 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_at_chance(seed):
    rng = np.random.default_rng(seed)
    train, test = ((noise(100, rng, 32), rng.choice(list("abcde"), 100)) for _ in range(2))
    assert is_at_chance(accuracy(FrameAttacker(seed), train, test), 100, 0.2)


def test_it_finds_directions_of_little_variance():
    """An adversarially trained encoder may leave the speaker in the small difference of two highly correlated features."""

    def small_difference(utterances: int, seed: int) -> Data:
        rng = np.random.default_rng(seed)
        features, speakers = noise(utterances, rng, 64), rng.integers(0, 2, utterances)
        for utterance, speaker in zip(features, speakers, strict=True):
            utterance += rng.normal(0, 1, (64, 1)).astype(np.float16)
            utterance[1] = utterance[0] + 0.02 * speaker + rng.normal(0, 0.02, utterance.shape[1])
        return features, speakers

    train, test = small_difference(150, 0), small_difference(150, 1)
    assert accuracy(FrameAttacker(), train, test) > 0.9
    assert accuracy_from_means(train, test) < 0.8, "features that are not projected on principal axes hide the difference"


def test_the_seed_decides_the_result_and_torch_state_is_restored():
    features, speakers = rare_events(60, 0)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = FrameAttacker(3).fit(features, speakers).predict_proba(features)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    torch.manual_seed(99)
    torch.set_num_threads(2)
    second = FrameAttacker(3).fit(features, speakers).predict_proba(features)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, FrameAttacker(4).fit(features, speakers).predict_proba(features))


def test_torch_state_is_restored_after_an_error():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError):
        FrameAttacker().fit([np.zeros((3, 9)), np.zeros((4, 9))], ["a", "b"])
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_probabilities_of_an_utterance_do_not_depend_on_the_others():
    features, speakers = rare_events(60, 0)
    features.append(np.concatenate(features[:12], axis=1))  # longer than a window
    attacker = FrameAttacker().fit(features[:60], speakers)
    batched = attacker.predict_proba(features)
    single = np.concatenate([attacker.predict_proba([utterance]) for utterance in features])
    assert batched.shape == (61, 4) and np.allclose(batched.sum(axis=1), 1) and np.allclose(batched, single, atol=1e-5)
    assert list(attacker.classes_) == list("abcd")
    assert np.array_equal(attacker.predict(features), attacker.classes_[batched.argmax(axis=1)])


def test_predictions_do_not_depend_on_scale_and_offset_of_features():
    features, speakers = rare_events(80, 0)
    test, _ = rare_events(80, 1)
    scale, offset = np.array([[1e-3], [1e3], *[[7.0]] * 6]), np.array([[5.0], [-300.0], *[[0.0]] * 6])
    plain = FrameAttacker().fit([utterance.astype(np.float32) for utterance in features], speakers)
    rescaled = FrameAttacker().fit([(utterance * scale + offset).astype(np.float32) for utterance in features], speakers)
    same = plain.predict(test) == rescaled.predict([(utterance * scale + offset).astype(np.float32) for utterance in test])
    assert same.mean() > 0.9


def test_at_most_one_batch_of_windows_is_in_memory(monkeypatch):
    shapes, pad = [], frame_attacker.pad
    monkeypatch.setattr(frame_attacker, "pad", lambda windows: shapes.append(pad(windows)[0].shape) or pad(windows))
    monkeypatch.setattr(frame_attacker, "EPOCHS", 2)
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(4, length)).astype(np.float16) for length in (2_000, 1, 300, 301, *[50] * 40)]
    FrameAttacker().fit(features, ["a", "b"] * 22).predict(features)
    assert max(shape[0] for shape in shapes) == 32 and max(shape[2] for shape in shapes) == 300


@pytest.mark.parametrize("length", [1, 299, 300, 301, 2_000])
def test_windows_cover_the_utterance_in_nearly_equal_parts(length):
    utterance = np.arange(length)[None]
    windows = cut_into_windows(utterance)
    lengths = [window.shape[1] for window in windows]
    assert np.array_equal(np.concatenate(windows, axis=1), utterance)
    assert max(lengths) <= 300 and max(lengths) - min(lengths) <= 1


def test_a_share_of_every_speakers_utterances_is_held_out_for_early_stopping():
    target = np.repeat([0, 1, 2, 3], [2, 20, 40, 1])
    train, validation = split_for_early_stopping(target, np.random.default_rng(0))
    assert np.array_equal(np.sort(np.concatenate((train, validation))), np.arange(63))
    assert np.bincount(target[validation], minlength=4).tolist() == [0, 3, 6, 0]
    train, validation = split_for_early_stopping(np.array([0, 0, 1]), np.random.default_rng(0))
    assert np.array_equal(train, validation) and len(train) == 3


def test_few_utterances_single_frames_and_constant_features():
    features = [np.full((3, 1), value, dtype=np.float16) for value in (0, 0, 1, 1)]
    for utterance in features:
        utterance[2] = 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacker = FrameAttacker().fit(features, ["a", "a", "b", "b"])
    assert list(attacker.predict(features)) == ["a", "a", "b", "b"]


def test_it_is_a_scikit_learn_estimator():
    attacker = clone(FrameAttacker(seed=2, weight_decay=0.1))
    assert attacker.get_params() == {"seed": 2, "weight_decay": 0.1, "learning_rate": 3e-3}
