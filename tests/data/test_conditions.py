"""The range of recording conditions: what is outside is named, held-out utterances of the same corpus seldom are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soxr
from scipy.signal import butter, sosfilt

from speaker_invariant_ser.data.audio import to_int16
from speaker_invariant_ser.data.conditions.measures import EXCERPT, MAX_EXCERPTS, bandwidth, measure
from speaker_invariant_ser.data.conditions.ranges import DIGITS, TrainedRange, join_ranges, outside, range_of
from speaker_invariant_ser.data.manifest import Utterance

RATE = 16_000


def speech(rng: np.random.Generator, level_db: float, seconds: float) -> np.ndarray:
    """Return syllables with pauses at a level, int16: noise with the spectrum and the rhythm of speech."""
    samples = int(seconds * RATE)
    sound = np.cumsum(rng.standard_normal(samples)) * 0.02 + 0.3 * rng.standard_normal(samples)
    sound = sosfilt(butter(2, 100, "highpass", fs=RATE, output="sos"), sound)
    syllables = np.arange(samples) % 4000 < rng.integers(2200, 3000)
    sound *= np.where(syllables, 1, 10 ** (-rng.uniform(35, 45) / 20))
    sound *= 10 ** (level_db / 20) / np.sqrt(np.mean(sound**2))
    return np.clip(np.round(32768 * sound), -32768, 32767).astype(np.int16)


def corpus(seed: int, speakers: int = 6, each: int = 40) -> tuple[list[Utterance], np.ndarray]:
    """Return utterances and audio of speakers who differ in level and tempo."""
    rng, utterances, clips = np.random.default_rng(seed), [], []
    for speaker in range(speakers):
        level, tempo = rng.normal(-26, 3), rng.normal(1, 0.15)
        for number in range(each):
            clips.append(speech(rng, level + rng.normal(0, 2), tempo * rng.uniform(0.8, 2.5)))
            offset = sum(map(len, clips[:-1]))
            row = Utterance(f"{speaker}-{number}", "c", f"s{speaker}", "e", offset=offset, samples=len(clips[-1]))
            utterances.append(row)
    return utterances, np.concatenate(clips)


def clip_of(utterance: Utterance, audio: np.ndarray) -> np.ndarray:
    return audio[utterance.offset : utterance.offset + utterance.samples]


@pytest.fixture(scope="module")
def world():
    return corpus(0)


def test_held_out_speakers_are_seldom_outside(world):
    """The promise: fewer than 5 % of the rows, with each speaker held out in turn."""
    warned = total = 0
    for utterances, audio in (world, corpus(1), corpus(2)):
        for speaker in {utterance.speaker for utterance in utterances}:
            trained = range_of([utterance for utterance in utterances if utterance.speaker != speaker], audio)
            tested = [clip_of(utterance, audio) for utterance in utterances if utterance.speaker == speaker]
            warned, total = warned + sum(bool(outside(trained, clip)) for clip in tested), total + len(tested)
    assert total == 720 and warned < 0.05 * total


def lowpass(clip):
    spectrum = np.fft.rfft(clip)
    spectrum[int(3300 / RATE * len(clip)) :] = 0
    return np.fft.irfft(spectrum, len(clip))


def with_noise(clip):
    return clip + np.random.default_rng(0).normal(size=len(clip)) * np.sqrt(np.mean(np.square(clip)) / 5)


CHANGES = {
    "band limited to 3.5 kHz (the model was trained on 8.0 kHz)": lowpass,
    "a level of -": lambda clip: clip * 0.02,
    "s long (the model was trained on ": lambda clip: np.tile(clip, 8),
    "of the samples at the peak, as in clipped audio (the model was trained on at most 0.": lambda clip: np.clip(
        clip, -0.2 * clip.max(), 0.2 * clip.max()
    ),
    "dB below the speech, as with noise (the model was trained on ": with_noise,
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_change_of_conditions_is_named(world, words):
    utterances, audio = world
    trained, change = range_of(utterances, audio), CHANGES[words]
    clips = [change(clip_of(utterance, audio) / 32768).astype(np.float32) for utterance in utterances[::12]]
    notes = [outside(trained, clip) for clip in clips]
    assert sum(any(words in note for note in of_clip) for of_clip in notes) >= 0.9 * len(clips), notes


def test_more_bandwidth_than_the_model_was_trained_on_is_named(world):
    utterances, audio = world
    start = clip_of(utterances[0], audio)
    narrow = range_of([replace(utterances[0], offset=0)], np.round(lowpass(start)).astype(np.int16))
    assert outside(narrow, start) == ["sound up to 8.0 kHz (the model was trained on 3.5 kHz)"]


def test_the_range_holds_rounded_numbers_only_and_covers_all_models(world):
    """Nothing that identifies a speaker or a file, and no model without a range is guessed about."""
    utterances, audio = world
    first, second = range_of(utterances[:80], audio), range_of(utterances[120:], audio)
    content = json.loads(first.model_dump_json())
    assert set(content) == set(DIGITS) and all(isinstance(end, float) for ends in content.values() for end in ends)
    assert all(round(end, DIGITS[name]) == end for name, ends in content.items() for end in ends)
    both = join_ranges([first, second])
    for name in DIGITS:
        ends = [getattr(part, name) for part in (first, second)]
        assert getattr(both, name) == (min(low for low, _ in ends), max(high for _, high in ends))
    assert join_ranges([first, None]) is None and join_ranges([]) is None


def test_short_silent_and_long_clips_can_be_measured(world):
    """A few samples have no pauses; of hours, parts are measured."""
    utterances, audio = world
    short = measure(clip_of(utterances[0], audio)[:1600:][:300])
    assert np.isnan(short["range"]) and short["seconds"] == 300 / RATE
    few = [Utterance("1", "c", "s", "e", offset=0, samples=300)]
    assert range_of(few, audio).range == (0, 0) and isinstance(outside(range_of(few, audio), audio[:300]), list)
    long = np.zeros(2 * EXCERPT * MAX_EXCERPTS, np.float32)
    long[EXCERPT:] = 0.1 * np.random.default_rng(0).standard_normal(len(long) - EXCERPT)
    measured = measure(long)
    assert measured["seconds"] == len(long) / RATE and measured["level"] == pytest.approx(-20.5, abs=0.5)
    assert measure(np.r_[np.zeros(len(long), np.float32), long[-1:]])["level"] <= -20


@pytest.mark.parametrize("cut", [1000, 2000, 4000, 8000])
def test_bandwidth_is_where_the_energy_ends(cut):
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(16_000))
    spectrum[cut + 1 :] = 0
    clip = np.round(3000 * np.fft.irfft(spectrum)).astype(np.int16)
    assert abs(bandwidth(clip) - cut) <= 250 and bandwidth(np.zeros(16_000, np.int16)) == 0 and bandwidth(clip[:100]) > 0


def test_loud_telephone_speech_keeps_its_bandwidth(world):
    """Resampling to 16 kHz overshoots; the clicks where that is cut off are no bandwidth."""
    utterances, audio = world
    for utterance in utterances[:20]:
        narrow = soxr.resample(clip_of(utterance, audio) / 32768, RATE, RATE // 2)
        loud = np.clip(narrow / np.abs(narrow).max() * 1.1, -1, 1)
        assert bandwidth(to_int16(soxr.resample(loud, RATE // 2, RATE).astype(np.float32))) <= 4500


def test_a_damaged_range_is_refused():
    with pytest.raises(ValueError, match="level"):
        TrainedRange.model_validate({"level": "loud"})
