"""Channels into one: what their mean leaves out is noted, and a channel can be chosen."""

import numpy as np
import pytest
import soundfile
from conftest import prepare_table

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.decoding import Treatment
from speaker_invariant_ser.data.formats.channels import Mixing, names_of, require_choice
from speaker_invariant_ser.errors import AudioError, SerError
from speaker_invariant_ser.inference.parts.recording import Recording
from speaker_invariant_ser.inference.waves import clip_of

RATE = 16_000
NOISE = 0.1 * np.random.default_rng(0).standard_normal((4, RATE))
FIRST, SECOND = NOISE[:2]


def stereo(path, *channels, **options):
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype="FLOAT", **options)
    return audio.decode(path)


@pytest.mark.parametrize(
    "second, expected",
    [
        (FIRST, ""),
        (0.5 * FIRST, ""),
        (FIRST + 0.5 * SECOND, ""),
        (0.01 * FIRST, ""),  # the mean is 5.93 dB below
        (0 * FIRST, "its right channel is silent: the mean of both is 6 dB below the loudest; --channel chooses"),
        (0.0005 * FIRST, "its right channel is silent: the mean of both is 6 dB below"),
        (0.003 * SECOND, "its channels differ in level: their mean is 6 dB below"),
        (-0.98 * FIRST + 0.01 * SECOND, "its channels cancel each other (opposite signs?): their mean is 3"),
        (-0.5 * FIRST, "its channels cancel each other (opposite signs?): their mean is 12 dB below the loudest"),
        (SECOND, "its channels hold different sounds (correlation "),
        (0.3 * SECOND + 0.05 * FIRST, "its channels hold different sounds (correlation 0.1"),
    ],
)
def test_notes_say_what_the_mean_leaves_out(tmp_path, second, expected):
    notes = stereo(tmp_path / "a.wav", FIRST, second).notes
    assert [note[: len(expected)] for note in notes] == ([expected] if expected else []), notes


@pytest.mark.parametrize(
    "second, offsets, expected",
    [
        (-FIRST, (0.2, 0.2), "its channels cancel each other (opposite signs?): their mean"),
        (-0.98 * FIRST + 0.01 * SECOND, (0.3, -0.1), "its channels cancel each other (opposite signs?): their mean is 3"),
        (SECOND, (0.4, 0.4), "its channels hold different sounds (correlation "),
        (FIRST, (0.4, -0.4), ""),
        (0 * FIRST, (0, 0.1), "its right channel is silent: the mean of both is 6 dB below the loudest"),
    ],
)
def test_a_constant_offset_is_no_sound_that_channels_have_in_common(tmp_path, monkeypatch, second, offsets, expected):
    for block in (RATE * 10, 999):
        monkeypatch.setattr(audio, "BLOCK", block)
        notes = stereo(tmp_path / "a.wav", FIRST + offsets[0], second + offsets[1]).notes
        notes = [note for note in notes if "constant offset" not in note]
        assert [note[: len(expected)] for note in notes] == ([expected] if expected else []), notes


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize(
    "offsets, expected",
    [
        ((0.05,), ""),  # the sound has an RMS level of 0.1
        ((0.5,), "a constant offset of 0.5 of full scale, larger than the sound: remove it"),
        ((-0.25,), "a constant offset of -0.25 of full scale"),
        ((0.5, 0), "a constant offset of 0.25 of full scale"),
        ((0.5, -0.5), ""),
    ],
)
def test_a_constant_offset_is_noted_alike_in_files_streams_and_waves(tmp_path, subtype, offsets, expected):
    channels = np.stack([FIRST - FIRST.mean() + offset for offset in offsets]).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels.T, RATE, subtype=subtype)
    recording = Recording(tmp_path / "a.wav")
    assert sum(len(block) for block in recording) == RATE
    for notes in (audio.decode(tmp_path / "a.wav").notes, recording.notes, clip_of(channels, RATE)[1]):
        assert [note[: len(expected)] for note in notes] == ([expected] if expected else [])


def test_silent_channels_of_many_are_named(tmp_path):
    (note,) = stereo(tmp_path / "a.wav", *(0 * NOISE[:3]), FIRST, 0 * FIRST, 0 * FIRST).notes
    assert note == "its channels 1, 2, 3, 5, 6 are silent: the mean of all is 16 dB below the loudest; --channel chooses"


def test_notes_do_not_depend_on_blocks(monkeypatch, tmp_path):
    whole = stereo(tmp_path / "a.wav", FIRST, SECOND)
    monkeypatch.setattr(audio, "BLOCK", 999)
    parts = audio.decode(tmp_path / "a.wav")
    assert parts.notes == whole.notes and np.array_equal(parts.samples, whole.samples)


def test_channels_that_cancel_exactly_are_called_that_and_not_only_silent(tmp_path):
    stereo(tmp_path / "a.wav", FIRST, -FIRST)
    with pytest.raises(AudioError, match=r"is silent .*; its channels cancel each other .* mean has nothing of the loudest"):
        audio.read(tmp_path / "a.wav")


@pytest.mark.parametrize("channel, expected", [("left", FIRST), ("right", SECOND), ("mix", (FIRST + SECOND) / 2)])
def test_a_channel_can_be_chosen(tmp_path, channel, expected):
    stereo(tmp_path / "a.wav", FIRST, SECOND)
    chosen = audio.decode(tmp_path / "a.wav", channel=channel)
    assert np.allclose(chosen.samples, expected, atol=1e-6)
    assert bool(chosen.notes) == (channel == "mix")
    soundfile.write(tmp_path / "mono.wav", FIRST, RATE, subtype="FLOAT")
    assert np.allclose(audio.decode(tmp_path / "mono.wav", channel=channel).samples, FIRST)


def test_clipping_of_another_channel_is_no_note_of_the_chosen_one(tmp_path):
    stereo(tmp_path / "a.wav", FIRST, np.clip(100 * FIRST, -1, 1).repeat(4)[:RATE])
    assert not audio.decode(tmp_path / "a.wav", channel="left").notes
    assert "clipped" in audio.decode(tmp_path / "a.wav", channel="right").notes[0]


def test_prepare_takes_the_channel_and_notes_mixtures(tmp_path):
    for speaker in ("a", "b"):
        stereo(tmp_path / f"{speaker}.wav", FIRST[: RATE // 2 + ord(speaker)], SECOND[: RATE // 2 + ord(speaker)])
    (tmp_path / "t.csv").write_text("path,speaker,emotion\na.wav,a,x\nb.wav,b,y\n")
    mixed = prepare_table(tmp_path / "t.csv", tmp_path / "mixed")
    right = prepare_table(tmp_path / "t.csv", tmp_path / "right", treatment=Treatment(channel="right"))
    counts = [(folder / "warned.csv").read_text().count("hold different sounds") for folder in (mixed.folder, right.folder)]
    assert counts == [2, 0]
    assert (
        np.allclose(right.clip(0), SECOND[: len(right.clip(0))], atol=1e-4) and right.settings["treatment"]["channel"] == "right"
    )


def test_an_unknown_channel_is_refused():
    with pytest.raises(SerError, match="--channel middle: unknown channel 'middle'. Expected one of: mix, left, right"):
        require_choice("middle")


def test_channels_have_names():
    assert [names_of(count) for count in (1, 2, 3)] == [["mono"], ["left", "right"], ["1", "2", "3"]]


def test_silence_has_no_notes():
    mixing = Mixing(2)
    mixing.add(np.zeros((100, 2), np.float32))
    assert mixing.notes() == []
