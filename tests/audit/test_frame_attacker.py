"""The probe of the map before pooling: it finds what only single frames show, and nothing where nothing is."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speaker_invariant_ser.audit import frame_attacker as frames
from speaker_invariant_ser.audit.frame_attacker import FrameAttacker, cut, spare

FEATURES = 8


def noise(clips: int, rng: np.random.Generator, features: int = FEATURES) -> list[np.ndarray]:
    return [rng.normal(0, 0.5, (features, rng.integers(30, 50))).astype(np.float16) for _ in range(clips)]


def coincidences(clips: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two features have three pulses each; speaker "a" has them together, "b" apart. No mean or deviation over time shows it."""
    rng = np.random.default_rng(seed)
    maps, speakers = noise(clips, rng), rng.choice(["a", "b"], clips)
    for one, speaker in zip(maps, speakers, strict=True):
        places = rng.permutation(one.shape[1])[:6]
        one[0, places[:3]] += 4
        one[1, places[:3] if speaker == "a" else places[3:]] += 4
    return maps, speakers


def events(clips: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two frames in which one of four features is high, upon an offset of each clip that drowns them in the mean."""
    rng = np.random.default_rng(seed)
    maps, speakers = noise(clips, rng), rng.integers(0, 4, clips)
    for one, speaker in zip(maps, speakers, strict=True):
        one += rng.normal(0, 1, (FEATURES, 1)).astype(np.float16)
        one[speaker, rng.permutation(one.shape[1])[:2]] += 5
    return maps, np.array(list("abcd"))[speakers]


def hit(attacker, train, test) -> float:
    return float((attacker.fit(*train).predict(test[0]) == test[1]).mean())


def hit_of_means(train, test) -> float:
    means = [(np.array([one.astype(float).mean(axis=1) for one in maps]), speakers) for maps, speakers in (train, test)]
    return hit(make_pipeline(StandardScaler(), LogisticRegression()), *means)


def at_chance(rate: float, clips: int, chance: float) -> bool:
    """Within the band of all but one in 10,000 blind guessers."""
    low, high = binom.interval(0.9999, clips, chance)
    return low <= round(rate * clips) <= high


@pytest.mark.parametrize("plant, clips, chance", [(coincidences, 150, 0.5), (events, 150, 0.25)])
def test_it_reads_what_the_mean_over_time_does_not_show(plant, clips, chance):
    train, test = plant(clips, 0), plant(200, 1)
    assert hit(FrameAttacker(), train, test) > 0.9
    assert hit_of_means(train, test) < chance + 0.2


def test_nothing_is_read_once_the_pulses_are_moved():
    rng = np.random.default_rng(0)
    train, test = coincidences(100, 0), coincidences(200, 1)
    apart = [([rng.permuted(one, axis=1) for one in maps], speakers) for maps, speakers in (train, test)]
    assert at_chance(hit(FrameAttacker(), *apart), 200, 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_at_chance(seed):
    rng = np.random.default_rng(seed)
    train, test = ((noise(100, rng, 32), rng.choice(list("abcde"), 100)) for _ in range(2))
    assert at_chance(hit(FrameAttacker(seed), train, test), 100, 0.2)


def test_it_reads_directions_of_little_variance():
    """Where an adversary leaves a speaker: in the small difference of two features that otherwise move together."""

    def hidden(clips: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
        rng = np.random.default_rng(seed)
        maps, speakers = noise(clips, rng, 64), rng.integers(0, 2, clips)
        for one, speaker in zip(maps, speakers, strict=True):
            one += rng.normal(0, 1, (64, 1)).astype(np.float16)
            one[1] = one[0] + 0.02 * speaker + rng.normal(0, 0.02, one.shape[1])
        return maps, speakers

    train, test = hidden(150, 0), hidden(150, 1)
    assert hit(FrameAttacker(), train, test) > 0.9
    assert hit_of_means(train, test) < 0.8, "the difference is hard to find among features as they are"


def test_the_same_seed_gives_the_same_probe_and_torch_is_not_disturbed():
    maps, speakers = events(60, 0)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = FrameAttacker(3).fit(maps, speakers).predict_proba(maps)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    torch.manual_seed(99)
    torch.set_num_threads(2)
    again = FrameAttacker(3).fit(maps, speakers).predict_proba(maps)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, FrameAttacker(4).fit(maps, speakers).predict_proba(maps))


def test_state_and_threads_come_back_after_an_error_too():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError):
        FrameAttacker().fit([np.zeros((3, 9)), np.zeros((4, 9))], ["a", "b"])
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_probabilities_do_not_depend_on_the_other_clips():
    maps, speakers = events(60, 0)
    maps.append(np.concatenate(maps[:12], axis=1))  # several windows
    probe = FrameAttacker().fit(maps[:60], speakers)
    together = probe.predict_proba(maps)
    alone = np.concatenate([probe.predict_proba([one]) for one in maps])
    assert together.shape == (61, 4) and np.allclose(together.sum(axis=1), 1) and np.allclose(together, alone, atol=1e-5)
    assert list(probe.classes_) == list("abcd") and np.array_equal(probe.predict(maps), probe.classes_[together.argmax(axis=1)])


def test_units_of_the_map_do_not_matter():
    maps, speakers = events(80, 0)
    test, _ = events(80, 1)
    scale, shift = np.array([[1e-3], [1e3], *[[7.0]] * 6]), np.array([[5.0], [-300.0], *[[0.0]] * 6])
    probe = FrameAttacker().fit([one.astype(np.float32) for one in maps], speakers)
    other = FrameAttacker().fit([(one * scale + shift).astype(np.float32) for one in maps], speakers)
    same = probe.predict(test) == other.predict([(one * scale + shift).astype(np.float32) for one in test])
    assert same.mean() > 0.9


def test_no_more_than_a_batch_of_windows_is_read_at_once(monkeypatch):
    shapes, real = [], frames.padded
    monkeypatch.setattr(frames, "padded", lambda parts: shapes.append(real(parts)[0].shape) or real(parts))
    monkeypatch.setattr(frames, "EPOCHS", 2)
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(4, frames_)).astype(np.float16) for frames_ in (2_000, 1, 300, 301, *[50] * 40)]
    FrameAttacker().fit(maps, ["a", "b"] * 22).predict(maps)
    assert max(shape[0] for shape in shapes) == 32 and max(shape[2] for shape in shapes) == 300


@pytest.mark.parametrize("length", [1, 299, 300, 301, 2_000])
def test_windows_are_all_of_the_clip(length):
    one = np.arange(length)[None]
    parts = cut(one)
    assert np.array_equal(np.concatenate(parts, axis=1), one) and max(part.shape[1] for part in parts) <= 300
    assert max(part.shape[1] for part in parts) - min(part.shape[1] for part in parts) <= 1


def test_a_share_of_every_speaker_is_watched_and_not_learned_from():
    target = np.repeat([0, 1, 2, 3], [2, 20, 40, 1])
    learned, watched = spare(target, np.random.default_rng(0))
    assert np.array_equal(np.sort(np.concatenate((learned, watched))), np.arange(63))
    assert np.bincount(target[watched], minlength=4).tolist() == [0, 3, 6, 0]
    learned, watched = spare(np.array([0, 0, 1]), np.random.default_rng(0))
    assert np.array_equal(learned, watched) and len(learned) == 3


def test_few_clips_single_frames_and_features_that_never_change():
    maps = [np.full((3, 1), at, dtype=np.float16) for at in (0, 0, 1, 1)]
    for one in maps:
        one[2] = 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = FrameAttacker().fit(maps, ["a", "a", "b", "b"])
    assert list(probe.predict(maps)) == ["a", "a", "b", "b"]


def test_it_is_an_estimator_of_scikit_learns_kind():
    probe = clone(FrameAttacker(seed=2, weight_decay=0.1))
    assert probe.get_params() == {"seed": 2, "weight_decay": 0.1, "learning_rate": 3e-3}
