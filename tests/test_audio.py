"""Decoding as physics: a tone keeps its pitch and level through any rate and format; what holds no sound is refused by name."""

import os

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser import audio
from speaker_invariant_ser.errors import AudioError


def tone(rate: int, hertz: float = 440.0, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24414, 44100, 96000])
@pytest.mark.parametrize(
    "ending, subtype", [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "ULAW"), ("flac", "PCM_16")]
)
def test_a_tone_keeps_pitch_length_and_level(tmp_path, rate, ending, subtype):
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, tone(rate), rate, subtype=subtype)
    samples = audio.read(path)
    assert samples.dtype == np.float32 and abs(len(samples) - 8000) <= 1
    middle = samples[1000:7000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * audio.SAMPLE_RATE / len(middle) == pytest.approx(440, abs=3)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(16000), -tone(16000) / 2], axis=1), 16000, subtype="FLOAT")
    assert np.allclose(audio.read(tmp_path / "stereo.wav"), tone(16000) / 4, atol=1e-6)


def test_int16_survives_the_way_to_float_and_back():
    every = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(audio.to_int16(audio.to_float32(every)), every)
    assert audio.to_int16(np.array([-2.0, 2.0])).tolist() == [-32768, 32767]


def bad_files(folder):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not audio, whatever its name says")
    (folder / "lfs.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    soundfile.write(folder / "header.wav", np.zeros(0), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "short.wav", tone(16000, seconds=0.05), 16000)
    soundfile.write(folder / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    (folder / "folder.wav").mkdir()
    soundfile.write(folder / "loud.wav", tone(16000) * 1e30, 16000, subtype="FLOAT")
    soundfile.write(folder / "faint.wav", tone(16000) * 1e-7, 16000, subtype="FLOAT")
    soundfile.write(folder / "slow.wav", tone(16000), 1)
    (folder / "link.wav").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.wav")


REASONS = {
    "empty.wav": "0 bytes",
    "text.wav": "not readable as audio",
    "lfs.wav": "git-LFS pointer",
    "header.wav": "no samples",
    "silent.wav": "silent",
    "short.wav": "too short",
    "nan.wav": "NaN",
    "folder.wav": "is a folder",
    "missing.wav": "no such file",
    "loud.wav": "expected within -1 and 1",
    "faint.wav": "silent",
    "slow.wav": "sample rate of 1 Hz",
    "link.wav": "link to nothing",
    "pipe.wav": "not a regular file",
    "x" * 300 + ".wav": "cannot be opened",
}


@pytest.mark.parametrize("name, reason", REASONS.items())
def test_what_holds_no_sound_is_refused_by_name(tmp_path, name, reason):
    bad_files(tmp_path)
    with pytest.raises(AudioError, match=rf"{name}.*{reason}"):
        audio.read(tmp_path / name)


def test_audio_is_found_by_ending_in_any_case_below_any_folder(tmp_path):
    for name in ("b/x.WAV", "a.flac", "notes.txt", "._a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    (tmp_path / "c.wav").symlink_to("nowhere")
    assert [path.name for path in audio.find_audio(tmp_path)] == ["a.flac", "x.WAV", "c.wav"]
