"""Decoding keeps a tone's pitch and level in every format and rate; unusable files raise an error that names them."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats import files
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


def test_int16_is_unchanged_by_conversion_to_float_and_back():
    all_values = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(audio.to_int16(audio.to_float32(all_values)), all_values)
    assert audio.to_int16(np.array([-2.0, 2.0])).tolist() == [-32768, 32767]


def write_unusable_files(folder):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not audio, whatever its name says")
    (folder / "lfs.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    soundfile.write(folder / "header.wav", np.zeros(0), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "constant.wav", np.full(16000, 0.25), 16000)
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
    "text.wav": "is text, not audio",
    "lfs.wav": "git-LFS pointer",
    "header.wav": "contains no samples",
    "silent.wav": "silent",
    "constant.wav": "is constant",
    "short.wav": "too short",
    "nan.wav": "NaN",
    "folder.wav": "is a folder",
    "missing.wav": "no such file",
    "loud.wav": "expected within -1 and 1",
    "faint.wav": "silent",
    "slow.wav": "sample rate of 1 Hz",
    "link.wav": "link to a missing file",
    "pipe.wav": "not a regular file",
    "x" * 300 + ".wav": "cannot be opened",
}


@pytest.mark.parametrize("name, reason", REASONS.items())
def test_unusable_files_raise_an_error_with_name_and_reason(tmp_path, name, reason):
    write_unusable_files(tmp_path)
    with pytest.raises(AudioError, match=rf"{name}.*{reason}"):
        audio.read(tmp_path / name)


def test_a_stream_without_a_length_is_read_whole(tmp_path):
    """Programs that write FLAC into a pipe cannot fill in the length afterwards."""
    soundfile.write(tmp_path / "whole.flac", tone(16000, seconds=3), 16000)
    data = bytearray((tmp_path / "whole.flac").read_bytes())
    data[21] &= 0xF0  # the 36 bits for the number of samples in the first metadata block
    data[22:26] = bytes(4)
    (tmp_path / "stream.flac").write_bytes(data)
    assert np.array_equal(audio.read(tmp_path / "stream.flac"), audio.read(tmp_path / "whole.flac"))


def test_a_truncated_ogg_file_is_noted(tmp_path):
    soundfile.write(tmp_path / "whole.ogg", np.random.default_rng(0).uniform(-0.3, 0.3, 160_000), 16000)
    data = (tmp_path / "whole.ogg").read_bytes()
    (tmp_path / "cut.ogg").write_bytes(data[: len(data) // 2])
    assert audio.decode(tmp_path / "whole.ogg").notes == ()
    assert "perhaps truncated" in audio.decode(tmp_path / "cut.ogg").notes[0]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("peak, expected", [(0.5, False), (0.99, False), (1.05, True), (3.0, True)])
def test_samples_beyond_full_scale_are_noted(tmp_path, channels, peak, expected):
    samples = np.stack([tone(16000) * peak / 0.5, tone(16000) / 10], axis=1)[:, :channels]
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert any(f"beyond full scale, up to {peak:.2f}" in note for note in audio.decode(tmp_path / "a.wav").notes) == expected


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW", "PCM_24", "FLOAT"])
def test_clipping_is_noted_in_every_format(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", np.clip(tone(16000) * 4, -1, 1), 16000, subtype=subtype)
    assert any(note.startswith("clipped") for note in audio.decode(tmp_path / "a.wav").notes)


def test_reading_in_blocks_gives_the_same_samples(tmp_path, monkeypatch):
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (44_100, 2))
    for channels in (1, 2):
        soundfile.write(tmp_path / f"{channels}.wav", samples[:, :channels], 44_100)
    whole = [audio.read(tmp_path / f"{channels}.wav") for channels in (1, 2)]
    monkeypatch.setattr(audio, "BLOCK", 1000)
    for channels in (1, 2):
        assert np.array_equal(audio.read(tmp_path / f"{channels}.wav"), whole[channels - 1])


def test_a_segment_of_a_stereo_file_has_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", 100)
    soundfile.write(tmp_path / "a.wav", np.stack([tone(8000, seconds=3)] * 2, axis=1), 8000)
    whole, part = audio.decode(tmp_path / "a.wav"), audio.decode(tmp_path / "a.wav", 1, 2)
    assert len(part.samples) == 8000 and np.array_equal(part.samples, whole.samples[8000:16000])


def test_circular_links_are_listed_and_cannot_be_read(tmp_path):
    (tmp_path / "x.wav").symlink_to("x.wav")
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    assert files.list_audio(tmp_path) == ["a.wav", "x.wav"]
    with pytest.raises(AudioError, match="x.wav"):
        audio.read(tmp_path / "x.wav")


@pytest.mark.parametrize("path", ["a.raw", "a\0b.wav"])
def test_invalid_paths_raise_an_audio_error(tmp_path, path):
    if "\0" not in path:
        (tmp_path / path).write_bytes(bytes(5000))
    for function in (audio.read, audio.probe):
        with pytest.raises(AudioError, match="nothing but zeros|not a valid path"):
            function(f"{tmp_path}/{path}")


def test_audio_is_found_by_suffix_in_any_case_below_any_folder(tmp_path):
    for name in ("b/x.WAV", "a.flac", "notes.txt", "._a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    (tmp_path / "c.wav").symlink_to("nowhere")
    assert [path.name for path in files.find_audio(tmp_path)] == ["a.flac", "x.WAV", "c.wav"]


def test_a_folder_with_a_second_path_is_listed_under_its_own_name(tmp_path):
    """A pattern such as {speaker}/*.wav would otherwise take the name of a link for a speaker."""
    for name in ("bo/a.wav", "x/y/b.wav", ".store/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for link, target in {"a": "bo", "z": "bo", "bo/y": "x/y", ".x": "x", "data": ".store"}.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    assert files.list_audio(tmp_path) == ["bo/a.wav", "data/c.wav", "x/y/b.wav"]
    assert files.list_unusable(tmp_path) == []


@pytest.mark.parametrize(
    "zeros, said",
    [
        ([(8000, 16000)], ["digital silence from 0.5 to 1.0 s of 1.0 s"]),
        ([(0, 5400), (12000, 15000)], ["digital silence from 0.0 to 0.3 s of 1.0 s"]),
        ([(2000, 7999)], ["digital silence from 0.1 to 0.5 s of 1.0 s"]),
        ([(0, 5300), (5301, 10600), (10601, 15900)], []),
        ([], []),
    ],
    ids=["second half", "start", "middle", "three parts", "none"],
)
def test_a_long_stretch_of_zeros_is_noted_however_it_is_cut(zeros, said):
    samples = np.ones(16_000, np.int16)
    for start, end in zeros:
        samples[start:end] = 0
    assert audio.silence_notes(samples, 16_000) == said
    for length in (37, 700, 8000, 15_999):
        silence = audio.LongestSilence()
        for start in range(0, 16_000, length):
            silence.add(audio.to_float32(samples[start : start + length]))
        assert silence.notes(16_000) == said


def test_prepare_and_infer_note_long_silence_alike(tmp_path, trained, capsys):
    """Whole, in windows, and prepared: the same words; a recording with pauses has none."""
    rng = np.random.default_rng(0)
    half, pauses = rng.normal(0, 0.1, 96_000), rng.normal(0, 0.1, 96_000)
    half[48_000:] = 0
    for start in range(0, 96_000, 24_000):
        pauses[start : start + 12_000] = 0
    for name, samples in (("half", half), ("pauses", pauses)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 48_000)
    (tmp_path / "t.csv").write_text("path,speaker,emotion\nhalf.wav,a,up\npauses.wav,b,down\n")
    assert siser(["prepare", "csv", str(tmp_path / "t.csv"), str(tmp_path / "data"), "--quiet"]) == 0
    (noted,) = csv.DictReader((tmp_path / "data/warned.csv").read_text().splitlines())
    note = "digital silence from 1.0 to 2.0 s of 2.0 s"
    assert list(noted.values()) == ["half.wav", note]
    for words in ([], ["--window", "1"]):
        out = tmp_path / f"rows{len(words)}.csv"
        command = ["infer", str(trained.folder), str(tmp_path / "half.wav"), str(tmp_path / "pauses.wav"), "--quiet"]
        assert siser([*command, *words, "--out", str(out)]) == 0
        rows = [row for row in csv.DictReader(out.read_text().splitlines()) if row.get("level", "file") == "file"]
        notes = {Path(row["file"]).name: row["warnings"] for row in rows}
        assert note in notes["half.wav"] and "silence" not in notes["pauses.wav"]
