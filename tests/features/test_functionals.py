"""Clip-level features of the baselines: defined for any utterance, unmoved by level and pitch, and what their names say."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from speaker_invariant_ser.cli.baseline import Features
from speaker_invariant_ser.data.f0.tracker import track_f0
from speaker_invariant_ser.errors import SetupError
from speaker_invariant_ser.features import functionals
from speaker_invariant_ser.features.functionals import FEATURE_SETS, compute_features, percentile_functionals
from speaker_invariant_ser.features.prosody_functionals import PROSODY, log_mel, prosody_functionals, rhythm_numbers, skewness

RATE = 16_000
SEMITONES_UP = 2 ** (3 / 12)


def voice(seconds=1.6, base=150.0, seed=0) -> np.ndarray:
    """Harmonics under a fixed spectral envelope: two words with a pause between them, F0 up and down by half an octave."""
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    f0 = base * 2 ** (0.5 * np.sin(2 * np.pi * time / seconds))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    tone = sum(envelope(n * f0) * np.sin(n * phase) for n in range(1, 40))
    words = ((time > 0.15) & (time < 0.7)) | ((time > 0.85) & (time < 1.4))
    return (0.1 * tone * words * (0.6 + 0.4 * np.sin(9 * time)) + 3e-4 * rng.standard_normal(len(time))).astype(np.float32)


def envelope(hz: np.ndarray) -> np.ndarray:
    formants = ((1.0, 500, 400), (0.4, 1500, 500), (0.1, 3000, 800))
    return sum(height * np.exp(-(((hz - centre) / width) ** 2)) for height, centre, width in formants) * (hz < 7500)


def numbers(clip: np.ndarray) -> dict[str, float]:
    return dict(zip(PROSODY, prosody_functionals(clip, track_f0(clip)), strict=True))


def test_there_are_22_numbers():
    assert len(PROSODY) == 22 == len(prosody_functionals(voice(), track_f0(voice())))


@pytest.mark.parametrize("decibels", [10, -10])
def test_ten_decibels_leave_every_number_as_it_is(decibels):
    clip = voice()
    before, after = numbers(clip), numbers((clip * 10 ** (decibels / 20)).astype(np.float32))
    assert list(after.values()) == pytest.approx(list(before.values()), abs=1e-4)


@pytest.mark.parametrize("decibels", [10, -10])
def test_ten_decibels_leave_the_percentiles_as_they_are(decibels):
    clip = voice()
    before, after = (percentile_functionals((clip * 10 ** (db / 20)).astype(np.float32)) for db in (0, decibels))
    assert after == pytest.approx(before, abs=1e-4)


def test_three_semitones_up_leave_the_numbers_as_they_are_to_the_stated_tolerance():
    before, after = numbers(voice()), numbers(voice(base=150 * SEMITONES_UP))
    tolerances = {"f0": 0.2, "level": 0.5, "tilt": 0.5, "confidence": 0.05, "voiced": 0.05, "pause": 0.05}
    for name, value in before.items():
        assert after[name] == pytest.approx(value, abs=tolerances[name.split("_")[0]]), name


@pytest.mark.parametrize(
    "clip",
    [np.zeros(8000), np.zeros(1), np.full(1, 0.3), np.full(40, 0.3), np.random.default_rng(0).uniform(-0.2, 0.2, 9000)],
    ids=["silence", "a silent sample", "one sample", "a tick", "noise"],
)
def test_silent_very_short_and_unvoiced_clips_are_defined(clip):
    clip = clip.astype(np.float32)
    result = numbers(clip)
    assert np.isfinite(list(result.values())).all()
    assert all(result[name] == 0 for name in PROSODY if name.startswith(("f0", "pause"))), "nothing voiced, no F0"
    assert result["voiced_share"] == 0 == result["voiced_rate"]
    assert np.isfinite(percentile_functionals(clip)).all()


def test_digital_silence_is_zero_throughout():
    silence = np.zeros(8000, dtype=np.float32)
    assert np.abs(list(numbers(silence).values())).max() < 1e-9
    assert np.abs(percentile_functionals(silence)).max() < 1e-9


def test_f0_below_six_voiced_frames_has_no_statistics():
    clip, f0 = voice(), np.zeros((2, 101), dtype=np.float32)
    f0[:, 10:15] = np.array([[100, 120, 140, 160, 180], [0.9] * 5])
    few = dict(zip(PROSODY, prosody_functionals(clip, f0), strict=True))
    assert few["f0_deviation"] == 0 == few["f0_range"] and few["voiced_share"] == pytest.approx(5 / 101)
    f0[:, 15] = 200, 0.9
    assert dict(zip(PROSODY, prosody_functionals(clip, f0), strict=True))["f0_deviation"] > 1


def test_the_f0_numbers_of_a_line_are_those_of_a_line():
    """One octave up within 61 frames, all voiced: 12 semitones, 0.2 a frame."""
    f0 = np.stack((100 * 2 ** np.linspace(0, 1, 61), np.ones(61))).astype(np.float32)
    result = dict(zip(PROSODY, prosody_functionals(voice(), f0), strict=True))
    assert result["f0_trend"] == pytest.approx(12, abs=1e-3) and result["f0_change"] == pytest.approx(0.2, abs=1e-4)
    assert result["f0_range"] == pytest.approx(0.9 * 12, abs=1e-3)
    assert result["f0_above_median"] == pytest.approx(0.4 * 12, abs=1e-3) == result["f0_below_median"]
    assert result["f0_skewness"] == pytest.approx(0, abs=1e-3) and result["f0_change_deviation"] == pytest.approx(0, abs=1e-4)


def test_stretches_and_pauses_are_counted_in_seconds():
    voiced = np.array([0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0], dtype=bool)
    share, duration, deviation, pause, rate = rhythm_numbers(voiced, seconds=2.0)
    assert (share, rate) == (pytest.approx(6 / 11), 1.0)
    assert (duration, deviation, pause) == pytest.approx((3 * 0.016, 0.016, 3 * 0.016))


def test_skewness_has_the_sign_of_the_longer_tail():
    assert skewness(np.array([0.0, 0, 0, 4])) > 1 > -1 > skewness(np.array([0.0, 0, 0, -4]))
    assert skewness(np.ones(5)) == 0


def test_percentiles_are_of_bands_centred_on_their_own_mean():
    """A filter that changes the whole spectrum by a constant for each band changes nothing but noise."""
    assert percentile_functionals(voice()).shape == (600,)
    middle = percentile_functionals(voice())[:200].reshape(5, 40)
    assert (np.diff(middle, axis=0) >= 0).all(), "percentiles ascend"
    assert (middle[0] < 0).all() and (middle[-1] > 0).all(), "around the mean"


@pytest.mark.parametrize("name", ["prosody", "functionals"])
def test_features_are_those_of_each_clip_alone(name, prepared):
    together = compute_features(name, prepared, [3, 0, 11])
    assert np.array_equal(together[1], compute_features(name, prepared, [0])[0]) and not np.array_equal(together[0], together[1])


def test_progress_counts_clips(prepared):
    counts = []
    compute_features("functionals", prepared, [0, 1], lambda done, total: counts.append((done, total)))
    assert counts == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    "name, package, extra",
    [
        ("egemaps", "opensmile", "opensmile"),
        ("compare", "opensmile", "opensmile"),
        ("resemblyzer", "resemblyzer", "judge"),
    ],
)
def test_without_its_package_the_message_says_how_to_install_it(name, package, extra, monkeypatch, prepared):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SetupError, match=rf'pip install "speaker-invariant-ser\[{extra}\]"'):
        compute_features(name, prepared, [0])


@pytest.mark.parametrize("name, expected", [("egemaps", "eGeMAPSv02"), ("compare", "ComParE_2016")])
def test_opensmile_is_given_audio_and_rate_and_asked_for_functionals(name, expected, monkeypatch, prepared):
    """A stub of its interface: a feature set, a level, and `process_signal`, which returns a table of one row."""
    made = []

    class Smile:
        def __init__(self, feature_set, feature_level):
            made.append((feature_set, feature_level))

        def process_signal(self, signal, sampling_rate):
            assert signal.dtype == np.float32 and signal.ndim == 1 and sampling_rate == RATE
            return np.array([[len(signal), np.nan, np.inf]])

    stub = ModuleType("opensmile")
    stub.Smile = Smile
    stub.FeatureSet = SimpleNamespace(eGeMAPSv02="eGeMAPSv02", ComParE_2016="ComParE_2016")
    stub.FeatureLevel = SimpleNamespace(Functionals="func")
    monkeypatch.setitem(sys.modules, "opensmile", stub)
    values = compute_features(name, prepared, [0, 1])
    assert made == [(expected, "func")]
    assert values.tolist() == [[prepared.utterances[index].samples, 0, 0] for index in (0, 1)]


def test_resemblyzer_is_given_speech_or_the_whole_clip_where_it_finds_none(monkeypatch, prepared):
    """A stub of its interface: what is left without silence, and the embedding of that."""
    stub = ModuleType("resemblyzer")
    stub.preprocess_wav = lambda clip, rate: clip[: rate // 10] if clip is not silent else clip[:0]
    stub.VoiceEncoder = lambda device, verbose: SimpleNamespace(
        embed_utterance=lambda speech: np.array([len(speech), np.nan], dtype=np.float32)
    )
    monkeypatch.setitem(sys.modules, "resemblyzer", stub)
    silent = prepared.clip(1)
    monkeypatch.setattr(type(prepared), "clip", lambda self, index: silent if index == 1 else np.ones(RATE, np.float32))
    assert compute_features("resemblyzer", prepared, [0, 1]).tolist() == [[RATE // 10, 0], [len(silent), 0]]


def test_log_mel_statistics_follow_the_spectrum_and_not_the_level(prepared):
    values = compute_features("log-mel", prepared, [0, 1])
    mels = log_mel(prepared.clip(0))
    assert values.shape == (2, 80) and np.allclose(values[0], [*mels.mean(axis=1), *mels.std(axis=1)])
    assert np.allclose(FEATURE_SETS["log-mel"].open()(prepared.clip(1) / 2, None), values[1], atol=1e-4)


def test_every_set_says_what_it_is_and_is_an_option_of_the_baseline():
    assert list(FEATURE_SETS) and set(FEATURE_SETS) == set(Features)
    assert FEATURE_SETS["prosody"].needs_f0 and "22" in FEATURE_SETS["prosody"].about


def test_stored_f0_gives_the_same_numbers_and_needs_no_tracker(prepared, prepared_f0, monkeypatch):
    tracked = compute_features("prosody", prepared, [0, 5])
    monkeypatch.setattr(functionals, "track_f0", None)
    assert np.array_equal(compute_features("prosody", prepared_f0, [0, 5]), tracked)
