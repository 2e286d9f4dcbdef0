"""Prepare reads any format, reports every problem, and gives identical bytes after an interruption at any moment."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import prepare_table

from speaker_invariant_ser.cli.app import INTERRUPTED
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data import audio, decoding, parallel_decoding
from speaker_invariant_ser.data.decoding import Treatment
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import PreparedCorpusError, WriteError
from speaker_invariant_ser.files import partial_of, scratch_folder, unfinished_folder

HALF = 0.5


def tone(rate: int = 16_000, hertz: float = 440.0, seconds: float = 0.5) -> np.ndarray:
    return HALF * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def noise(seed: int, seconds: float = 0.3, rate: int = 16_000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-HALF, HALF, int(seconds * rate))


def table(folder: Path, rows: list[str], head: str = "path,speaker,emotion") -> Path:
    path = folder / "t.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def remarks(data: Path, name: str = "rejected.csv") -> dict[str, str]:
    with open(data / name, encoding="utf-8", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


FORMATS = [
    ("u8.wav", "PCM_U8", None),
    ("16.wav", "PCM_16", None),
    ("24.wav", "PCM_24", None),
    ("32.wav", "PCM_32", None),
    ("float.wav", "FLOAT", None),
    ("double.wav", "DOUBLE", None),
    ("mulaw.wav", "ULAW", None),
    ("alaw.wav", "ALAW", None),
    ("adpcm.wav", "IMA_ADPCM", None),
    ("flac.flac", "PCM_16", None),
    ("ogg.ogg", "VORBIS", None),
    ("mp3.mp3", "MPEG_LAYER_III", None),
    ("aiff.aiff", "PCM_16", None),
    ("aiff_data.wav", "PCM_16", "AIFF"),
    ("flac_data.wav", "PCM_16", "FLAC"),
    ("w64.w64", "PCM_16", None),
]


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 16000, 24414, 44100, 96000])
def test_every_format_rate_and_channel_count_keeps_the_tone(tmp_path, rate, channels):
    rows = []
    for number, (name, subtype, form) in enumerate(FORMATS):
        if rate in (24414, 96000) and name.startswith(("mp3", "ogg")):
            continue  # these encoders do not support the rate
        if channels > 2 and name.startswith(("mp3", "adpcm")):
            continue
        hertz = 400 + 20 * number  # different tones, because copies would be rejected
        samples = np.tile(tone(rate, hertz)[:, None], (1, channels))
        samples[:, 1:] *= 0.5
        if channels == 1:
            samples = samples[:, 0]
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype, format=form)
        rows.append(f"{name},s{number % 4},e{number % 2}")
    prepared = prepare_table(table(tmp_path, rows), tmp_path / "data")
    assert not remarks(tmp_path / "data")
    gain = (1 + 0.5 * (channels - 1)) / channels
    for index, utterance in enumerate(prepared.utterances):
        clip = prepared.clip(index)
        number = [name for name, _, _ in FORMATS].index(utterance.source)
        middle = clip[1500:6500]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert spectrum.argmax() * 16000 / len(middle) == pytest.approx(400 + 20 * number, abs=4), utterance.source
        assert np.sqrt(np.mean(middle**2)) == pytest.approx(
            gain * HALF / np.sqrt(2), rel=0.2 if utterance.source.startswith(("ogg", "mp3")) else 0.08
        ), utterance.source
        assert len(clip) == pytest.approx(8000, abs=1200 if utterance.source.startswith(("mp3", "adpcm")) else 300)


def test_segments_of_one_recording_are_utterances(tmp_path):
    recording = noise(1, 3.0, 24_000)
    soundfile.write(tmp_path / "long.flac", recording, 24_000)
    rows = ["long.flac,a,happy,0,1", "long.flac,b,sad,1,2.5", "long.flac,a,sad,2.5,"]
    prepared = prepare_table(table(tmp_path, rows, "path,speaker,emotion,start,end"), tmp_path / "data")
    assert [u.samples for u in prepared.utterances] == [16000, 24000, 8000]
    assert [u.id for u in prepared.utterances] == ["long.flac@0-1", "long.flac@1-2.5", "long.flac@2.5-0"]
    assert [u.offset for u in prepared.utterances] == [0, 16000, 40000]


def test_overlapping_segments_of_different_speakers_are_warned_of(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1, 4.0), 16_000)
    rows = ["long.wav,a,x,0,3", "long.wav,a,y,0.5,1", "long.wav,b,x,2,2.5", "long.wav,c,x,2.75,", "long.wav,a,y,3,3.5"]
    prepare_table(table(tmp_path, rows, "path,speaker,emotion,start,end"), tmp_path / "data")
    with open(tmp_path / "data" / "warned.csv", encoding="utf-8", newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == [
            "2 to 2.5 s of speaker b overlaps with speaker a",
            "2.75 s to the end of speaker c overlaps with speaker a",
            "3 to 3.5 s of speaker a overlaps with speaker c",
        ]


def test_a_whole_file_overlaps_its_segments(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1, 4.0), 16_000)
    prepare_table(table(tmp_path, ["long.wav,a,x,,", "long.wav,b,y,1,2"], "path,speaker,emotion,start,end"), tmp_path / "data")
    assert remarks(tmp_path / "data", "warned.csv") == {"long.wav": "1 to 2 s of speaker b overlaps with speaker a"}


def test_the_same_audio_in_two_corpora_is_kept_once(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for seed in range(2):
            soundfile.write(tmp_path / name / f"{seed}.wav", noise(seed + (name == "two" and seed)), 16_000)
        table(tmp_path / name, ["0.wav,a,x", "1.wav,b,y"]).rename(tmp_path / name / f"{name}.csv")
    command = ["prepare", "csv", str(tmp_path / "one" / "one.csv"), str(tmp_path / "data")]
    assert siser([*command, "--also", f"csv={tmp_path / 'two' / 'two.csv'}"]) == 0
    assert [utterance.id for utterance in PreparedCorpus.open(tmp_path / "data").utterances] == [
        "one/0.wav",
        "one/1.wav",
        "two/1.wav",
    ]
    assert remarks(tmp_path / "data") == {"two/0.wav": "the same audio as one/0.wav"}


def test_complete_segments_of_a_truncated_recording_are_kept(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1, 4.0), 16_000)
    (tmp_path / "long.wav").write_bytes((tmp_path / "long.wav").read_bytes()[:100_000])
    rows = ["long.wav,a,x,0,1", "long.wav,a,y,1,2", "long.wav,b,x,2,3", "long.wav,b,x,3,4", "long.wav,b,y,0,"]
    prepare_table(table(tmp_path, rows, "path,speaker,emotion,start,end"), tmp_path / "data")
    with open(tmp_path / "data" / "rejected.csv", encoding="utf-8", newline="") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert "no segment from 3.0 to 4.0 s" in reasons[0] and "is truncated" in reasons[1] and len(reasons) == 2


def test_a_file_name_that_is_not_utf8_is_rejected(tmp_path):
    soundfile.write(tmp_path / "s1_happy.wav", noise(1), 16_000)
    not_utf8 = os.fsencode(tmp_path) + b"/s2_sad\xff.wav"
    shutil.copy(tmp_path / "s1_happy.wav", not_utf8)
    assert siser(["prepare", "folder", str(tmp_path), str(tmp_path / "data"), "--pattern", "{speaker}_{emotion}.wav"]) == 0
    (reason,) = remarks(tmp_path / "data").values()
    assert reason == "its name is not UTF-8; rename the file"


def test_strict_exits_with_1_for_suspicious_files(tmp_path):
    soundfile.write(tmp_path / "s1_happy.wav", np.clip(4 * noise(9), -1, 1).repeat(4), 16_000)
    soundfile.write(tmp_path / "s2_sad.wav", noise(2), 16_000)
    command = ["prepare", "folder", str(tmp_path), str(tmp_path / "data"), "--pattern", "{speaker}_{emotion}.wav"]
    assert siser([*command, "--strict"]) == 1 and not remarks(tmp_path / "data")


def test_impossible_segments_are_rejected(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1, 3.0), 16_000)
    rows = ["long.wav,a,happy,0,1.2", "long.wav,b,sad,1,2", "long.wav,a,sad,2.5,4", "long.wav,a,sad,2,2.05"]
    prepare_table(table(tmp_path, rows, "path,speaker,emotion,start,end"), tmp_path / "data")
    with open(tmp_path / "data" / "rejected.csv", encoding="utf-8", newline="") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert "no segment from 2.5 to 4.0 s in 3.000 s of audio" in reasons[0] and "too short" in reasons[1]
    assert remarks(tmp_path / "data", "warned.csv") == {"long.wav": "1 to 2 s of speaker b overlaps with speaker a"}


def write_unusable_files(folder: Path) -> dict[str, str]:
    """Write one file per kind of defect; return a part of the expected reason for each."""
    intact = folder / "intact.wav"
    soundfile.write(intact, noise(2), 16_000)
    soundfile.write(folder / "intact.flac", noise(3, 2.0), 16_000)
    soundfile.write(folder / "intact.aiff", noise(4), 16_000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "header.wav").write_bytes(intact.read_bytes()[:44])
    (folder / "cut.wav").write_bytes(intact.read_bytes()[:6000])
    (folder / "cut.flac").write_bytes((folder / "intact.flac").read_bytes()[:20000])
    (folder / "cut.aiff").write_bytes((folder / "intact.aiff").read_bytes()[:6000])
    (folder / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    (folder / "text.wav").write_text("<html>404 not found</html>")
    soundfile.write(folder / "nan.wav", np.where(np.arange(5000) == 9, np.nan, noise(5)[:1]), 16_000, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.where(np.arange(5000) == 9, np.inf, 0.1), 16_000, subtype="DOUBLE")
    soundfile.write(folder / "silent.wav", np.zeros(5000), 16_000)
    soundfile.write(folder / "short.wav", noise(6, 0.09), 16_000)
    (folder / "gone.wav").unlink(missing_ok=True)
    with open(folder / "long.wav", "wb") as file:  # a sparse file: minutes of zeros that use no disk space
        soundfile.write(file, noise(7), 8000, format="WAV")
    size = 8000 * 2 * 301
    head = bytearray((folder / "long.wav").read_bytes()[:44])
    head[4:8], head[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
    with open(folder / "long.wav", "wb") as file:
        file.write(head)
        file.truncate(44 + size)
    for name in ("intact.wav", "intact.flac", "intact.aiff"):
        (folder / name).unlink()
    return {
        "empty.wav": "is empty (0 bytes)",
        "header.wav": "contains no samples",
        "cut.wav": "is truncated, 38% of the audio",
        "cut.flac": "",  # the reason is worded by libsndfile
        "cut.aiff": "is truncated",
        "pointer.wav": "git-LFS pointer",
        "text.wav": "is a page of the web or XML, not audio",
        "nan.wav": "NaN or infinite",
        "inf.wav": "NaN or infinite",
        "silent.wav": "is silent",
        "short.wav": "too short",
        "gone.wav": "no such file",
        "long.wav": "301 s are too long for one utterance, expected at most 300 s",
    }


def test_unusable_files_are_rejected_and_usable_ones_kept(tmp_path, capsys):
    reasons = write_unusable_files(tmp_path)
    soundfile.write(tmp_path / "good.wav", noise(8), 16_000)
    soundfile.write(tmp_path / "clipped.wav", np.clip(4 * noise(9), -1, 1).repeat(4), 16_000)
    rows = [f"{name},s{number % 3},e{number % 2}" for number, name in enumerate([*reasons, "good.wav", "clipped.wav"])]
    command = ["prepare", "csv", str(table(tmp_path, rows)), str(tmp_path / "data")]
    assert siser([*command, "--strict"]) == 1
    rejected, warned = remarks(tmp_path / "data"), remarks(tmp_path / "data", "warned.csv")
    assert set(rejected) == set(reasons)
    for name, reason in reasons.items():
        assert reason in rejected[name]
    assert set(warned) == {"clipped.wav"} and "clipped" in warned["clipped.wav"]
    shown = capsys.readouterr()
    assert f"2 utterances, {len(reasons)} rejected, 1 warned" in shown.out
    assert f"{len(reasons)} files rejected" in shown.err and "1 suspicious file kept" in shown.err
    assert [u.source for u in PreparedCorpus.open(tmp_path / "data").utterances] == ["good.wav", "clipped.wav"]
    shutil.rmtree(tmp_path / "data")
    assert siser(command) == 0


def test_copies_are_rejected_whatever_their_names(tmp_path):
    for name, seed in {"a.wav": 1, "b.wav": 2, "c.wav": 3, "d.wav": 4}.items():
        soundfile.write(tmp_path / name, noise(seed), 16_000)
    (tmp_path / "a2.wav").write_bytes((tmp_path / "a.wav").read_bytes() + bytes(range(1, 251)) * 10)
    soundfile.write(tmp_path / "a3.flac", soundfile.read(tmp_path / "a.wav")[0], 16_000)  # other bytes, the same samples
    shutil.copy(tmp_path / "b.wav", tmp_path / "b2.wav")
    shutil.copy(tmp_path / "c.wav", tmp_path / "c2.wav")
    rows = ["a.wav,1,happy", "a2.wav,1,happy", "a3.flac,1,happy", "b.wav,1,sad", "b2.wav,1,happy", "c.wav,1,sad", "c2.wav,2,sad"]
    prepared = prepare_table(table(tmp_path, [*rows, "d.wav,2,sad"]), tmp_path / "data")
    assert [u.source for u in prepared.utterances] == ["a.wav", "d.wav"]
    reasons = remarks(tmp_path / "data")
    assert reasons["a3.flac"] == "the same audio as a.wav"
    assert reasons["a2.wav"].startswith("the same audio as a.wav; its header states"), "what else is wrong is said as well"
    assert reasons["b.wav"] == "the same audio as b2.wav, with conflicting emotions (happy, sad)"
    assert reasons["c2.wav"] == "the same audio as c.wav, with conflicting speakers (1, 2)"
    expected, _ = soundfile.read(tmp_path / "d.wav", dtype="float32")
    assert np.array_equal(prepared.clip(1), expected), "the audio of copies is removed, and offsets are corrected"
    assert (tmp_path / "data" / "audio.i16").stat().st_size == 2 * sum(u.samples for u in prepared.utterances)


def test_contradicting_rows_are_rejected_and_equal_rows_kept_once(tmp_path):
    for seed, name in enumerate(("a.wav", "b.wav", "c.wav")):
        soundfile.write(tmp_path / name, noise(seed), 16_000)
    rows = ["a.wav,1,happy", "a.wav,1,happy", "b.wav,1,happy", "b.wav,1,sad", "c.wav,2,sad"]
    prepared = prepare_table(table(tmp_path, rows), tmp_path / "data")
    assert [u.source for u in prepared.utterances] == ["a.wav", "c.wav"]
    assert remarks(tmp_path / "data") == {
        "a.wav": "listed more than once; the first is kept",
        "b.wav": "conflicting emotions (happy, sad)",
    }
    assert prepared.settings["counts"]["rejected"] == 3


def test_trimming_removes_silence_and_zeros_at_both_ends_only(tmp_path):
    quiet = np.zeros(8000)
    voice = np.concatenate([tone(seconds=0.4), np.zeros(1600), tone(seconds=0.4)])
    soundfile.write(tmp_path / "a.wav", np.concatenate([quiet, 1e-4 * noise(1), voice, quiet]), 16_000, subtype="PCM_24")
    rows = table(tmp_path, ["a.wav,1,happy"])
    whole = prepare_table(rows, tmp_path / "whole")
    short = prepare_table(rows, tmp_path / "short", treatment=Treatment(trim_db=40))
    assert whole.utterances[0].samples == 8000 + 4800 + len(voice) + 8000
    assert short.utterances[0].samples == pytest.approx(len(voice), abs=800)
    assert short.settings["treatment"]["trim_db"] == 40


def test_frames_are_trimmed_where_their_level_is_below_that_of_the_loudest():
    samples = np.repeat([0.0, 0.009, 0.011, 1.0, 0.5, 0.0099, 0.0], 1600).astype(np.float32)  # -40.9, -39.2, 0, -6, -40.1 dB
    assert np.array_equal(decoding.trim(samples, 40.0), samples[3200:8320]), "the frame at 8160 begins where it is louder"
    assert np.array_equal(decoding.trim(samples, 1.0), samples[4960:6400])
    assert not decoding.trim(np.zeros(1000, np.float32), 40.0).any()
    assert len(decoding.trim(samples[:1], 40.0)) == 1


def test_loudness_is_normalised_for_every_length():
    for samples in (*range(1600, 6600, 23), 2007, 2011, 2015):
        clip = noise(samples, 1).astype(np.float32)[:samples]
        normalised, notes = decoding.normalise_loudness(clip, -30.0)
        assert len(normalised) == samples and not notes and np.abs(normalised).max() < 0.2


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_the_target_loudness_is_reached_unless_it_would_clip(tmp_path, seconds):
    import pyloudnorm

    for name, gain in {"soft.wav": 0.02, "loud.wav": 0.8}.items():
        soundfile.write(tmp_path / name, gain * noise(len(name) + int(100 * gain), seconds), 16_000, subtype="PCM_24")
    soundfile.write(tmp_path / "faint.wav", 1e-4 * noise(6, seconds), 16_000, subtype="PCM_24")
    peaky = 0.01 * noise(5, seconds)
    peaky[100] = 0.9
    soundfile.write(tmp_path / "peaky.wav", peaky, 16_000, subtype="PCM_24")
    rows = table(tmp_path, ["soft.wav,1,a", "loud.wav,1,b", "peaky.wav,2,a", "faint.wav,2,b"])
    prepared = prepare_table(rows, tmp_path / "data", treatment=Treatment(loudness=-23.0))
    meter = pyloudnorm.Meter(16_000, block_size=min(0.4, seconds))
    for index in (0, 1):
        assert meter.integrated_loudness(prepared.clip(index).astype(float)) == pytest.approx(-23, abs=0.2)
    assert np.abs(prepared.clip(2)).max() == pytest.approx(1, abs=1e-3)
    warned = remarks(tmp_path / "data", "warned.csv")
    assert "would clip" in warned["peaky.wav"] and "too quiet" in warned["faint.wav"] and len(warned) == 2


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Write 300 short files with some copies and one damaged file, and their table."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(300):
        soundfile.write(folder / f"{number:03}.wav", noise(number % 290, 0.12, 22_050), 22_050)
    (folder / "077.wav").write_bytes(b"RIFF")
    table(folder, [f"{number:03}.wav,s{number % 5},e{(number % 290 + (number > 294)) % 3}" for number in range(300)])
    return folder


def same_files(first: Path, second: Path) -> bool:
    names = sorted(path.name for path in first.iterdir())
    return names == sorted(path.name for path in second.iterdir()) and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from speaker_invariant_ser.data.decoding import workers
from speaker_invariant_ser.data.tables.custom import Request, read_table
from speaker_invariant_ser.data.prepare import prepare

def progress(what, done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

with workers(2) as pool:
    prepare([read_table(Request(Path(sys.argv[1])))], Path(sys.argv[2]), pool=pool, progress=progress)
"""


def test_after_several_kills_the_result_is_identical_to_the_byte(many, tmp_path, monkeypatch):
    whole = prepare_table(many / "t.csv", tmp_path / "whole")
    assert len(whole.utterances) == 284 and whole.settings["counts"]["rejected"] == 16
    out = tmp_path / "killed"
    for after in (32, 96, 160):
        done = subprocess.run([sys.executable, "-c", KILLED, str(many / "t.csv"), str(out), str(after)])
        assert done.returncode == -signal.SIGKILL and not out.exists()
    decoded, decode = [], audio.decode
    monkeypatch.setattr(audio, "decode", lambda path, *segment: decoded.append(path) or decode(path, *segment))
    calls = []
    prepare_table(many / "t.csv", out, progress=lambda *call: calls.append(call))
    assert same_files(out, tmp_path / "whole")
    assert len(decoded) <= 300 - 160 and {task for task, _, _ in calls} == {"decoding (continued)"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("seed", range(8))
def test_a_truncated_journal_or_excess_audio_does_not_change_the_result(many, tmp_path, seed):
    """The journal is cut anywhere, and audio may have been written after its last complete line."""
    rng = np.random.default_rng(seed)

    def stop(what, done, total):
        if done >= 32 * rng.integers(1, 8):
            raise KeyboardInterrupt

    out = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        prepare_table(many / "t.csv", out, progress=stop)
    work = partial_of(out)
    journal, joined = work / "journal", work / parallel_decoding.DECODED
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = rng.integers(0, len(lines))
    journal.write_bytes(b"".join(lines[:kept]) + lines[kept][: rng.integers(0, len(lines[kept]))])
    if seed % 2:
        with open(joined, "ab") as file:
            file.write(b"\1" * 999)
    prepare_table(many / "t.csv", tmp_path / "whole")
    prepare_table(many / "t.csv", out)
    assert same_files(out, tmp_path / "whole")


def test_audio_lost_in_a_power_failure_is_decoded_again(many, tmp_path):
    def stop(what, done, total):
        if done >= 128:
            raise KeyboardInterrupt

    out = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        prepare_table(many / "t.csv", out, progress=stop)
    os.truncate(partial_of(out) / parallel_decoding.DECODED, 100_000)
    with open(partial_of(out) / "journal", "ab") as file:
        file.write(b"not a result\n")
    prepare_table(many / "t.csv", tmp_path / "whole")
    prepare_table(many / "t.csv", out)
    assert same_files(out, tmp_path / "whole")


def test_a_file_that_changed_after_an_interruption_is_decoded_again(tmp_path):
    rows = [f"{n}.wav,s{n % 3},e{n % 2}" for n in range(70)]
    for n in range(70):
        soundfile.write(tmp_path / f"{n}.wav", noise(n), 16_000)

    def stop(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_table(table(tmp_path, rows), tmp_path / "data", progress=stop)
    soundfile.write(tmp_path / "0.wav", noise(1000), 16_000)
    os.utime(tmp_path / "0.wav", (1, 1))
    prepared = prepare_table(table(tmp_path, rows), tmp_path / "data")
    expected, _ = soundfile.read(tmp_path / "0.wav", dtype="float32")
    assert np.array_equal(prepared.clip(0), expected)


def test_work_for_another_request_is_not_resumed(many, tmp_path):
    def stop(what, done, total):
        raise KeyboardInterrupt

    for options in ({"treatment": Treatment(loudness=-20)}, {"change": lambda utterances: utterances[::-1]}):
        with pytest.raises(KeyboardInterrupt):
            prepare_table(many / "t.csv", tmp_path / "data", progress=stop, **options)
    prepare_table(many / "t.csv", tmp_path / "whole")
    prepare_table(many / "t.csv", tmp_path / "data")
    assert same_files(tmp_path / "data", tmp_path / "whole")


def test_leftovers_of_a_kill_at_the_last_moment_are_removed(many, tmp_path, capsys):
    prepare_table(many / "t.csv", tmp_path / "data")
    partial_of(tmp_path / "data").mkdir()
    (partial_of(tmp_path / "data") / parallel_decoding.DECODED).write_bytes(b"1234")
    partial_of(tmp_path / "data").with_suffix(".scratch").mkdir()
    assert siser(["prepare", "csv", str(many / "t.csv"), str(tmp_path / "data")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_scratch_folder_of_a_running_process_is_kept(tmp_path):
    with scratch_folder(tmp_path / "data") as scratch:
        scratch.mkdir()
        with pytest.raises(WriteError, match="another process"), scratch_folder(tmp_path / "data"):
            pytest.fail("the block must not begin")
        assert scratch.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_the_same_command_resumes(many, tmp_path, number):
    """SIGTERM also works where the shell has disabled Ctrl-C, as shells do for background processes."""
    command = ["prepare", "csv", str(many / "t.csv"), str(tmp_path / "data"), "--jobs", "1"]
    slow = (
        "import signal, sys, time\nfrom speaker_invariant_ser.cli.app import main\nfrom speaker_invariant_ser.data import audio\n"
        "real = audio.decode\n"
        "audio.decode = lambda *a: (time.sleep(0.01), real(*a))[1]\n"
        f"signal.signal(signal.SIGINT, {'signal.SIG_IGN' if number == signal.SIGTERM else 'signal.default_int_handler'})\n"
        "main(sys.argv[1:])"
    )
    running = subprocess.Popen([sys.executable, "-c", slow, *command], stderr=subprocess.PIPE, text=True)
    journal = partial_of(tmp_path / "data") / "journal"
    while running.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.05)
    running.send_signal(number)
    assert "stopped; decoded audio is kept, repeat the command to continue" in running.communicate(timeout=60)[1]
    assert running.returncode == INTERRUPTED and not (tmp_path / "data").exists()
    assert siser(command) == 0


def test_two_processes_cannot_prepare_the_same_folder(tmp_path):
    def begin():
        return unfinished_folder(tmp_path / "data", "request")

    with begin(), pytest.raises(WriteError, match="another process is writing it"), begin():
        pytest.fail("the block must not begin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_the_death_of_a_worker_is_reported_and_its_work_resumed(many, tmp_path, monkeypatch):
    with decoding.workers(2) as pool:
        pids = {pool.submit(os.getpid).result() for _ in range(20)}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(PreparedCorpusError, match="a worker process was killed.*the same command resumes"):
            prepare_table(many / "t.csv", tmp_path / "data", pool=pool)
    assert partial_of(tmp_path / "data").is_dir()
    prepare_table(many / "t.csv", tmp_path / "data")


def test_utterances_longer_than_their_slot_are_kept(many, tmp_path, monkeypatch):
    whole = prepare_table(many / "t.csv", tmp_path / "whole")
    for module in (decoding, parallel_decoding):
        monkeypatch.setattr(module, "SLOT", 7_000)
    prepare_table(many / "t.csv", tmp_path / "tight")
    assert same_files(tmp_path / "tight", whole.folder)


def test_utterances_longer_than_their_slot_are_kept_with_workers(many, tmp_path):
    imports = "from speaker_invariant_ser.data import decoding, parallel_decoding"
    small_slots = "decoding.SLOT = parallel_decoding.SLOT = 7000"
    code = KILLED.replace("def progress", f"{imports}\n{small_slots}\n\ndef progress")
    subprocess.run([sys.executable, "-c", code, str(many / "t.csv"), str(tmp_path / "forked"), "999"], check=True)
    prepare_table(many / "t.csv", tmp_path / "whole")
    assert same_files(tmp_path / "forked", tmp_path / "whole")


def test_groups_are_limited_by_their_number_of_samples(tmp_path, monkeypatch):
    for n in range(4):
        soundfile.write(tmp_path / f"{n}.wav", noise(n), 16_000)
    jobs = [(str(tmp_path / f"{n}.wav"), 0.0, 0.0) for n in range(4)]
    assert [len(group) for group in decoding.groups_of(jobs)] == [4]
    monkeypatch.setattr(decoding, "GROUP_SAMPLES", 9000)
    assert [len(group) for group in decoding.groups_of(jobs)] == [2, 2, 0]


def test_a_pool_can_prepare_several_corpora(many, tmp_path):
    """The folder has the same name each time; nothing of the previous scratch file is reused."""
    with decoding.workers(2) as pool:
        for number, change in enumerate((lambda utterances: utterances[100:], lambda utterances: utterances)):
            prepare_table(many / "t.csv", tmp_path / str(number), change)
            prepare_table(many / "t.csv", tmp_path / "data", change, pool=pool)
            assert same_files(tmp_path / "data", tmp_path / str(number))
            shutil.rmtree(tmp_path / "data")


def test_workers_end_with_their_parent_process(tmp_path):
    code = "import os,signal\nfrom speaker_invariant_ser.data.decoding import workers\nwith workers(2) as pool:\n"
    code += (
        "    print(*{pool.submit(os.getpid).result() for _ in range(9)}, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL and done.stdout.split()  # the pipe closes only when the last worker has ended


def test_several_corpora_in_one_manifest(many, tmp_path, capsys):
    for name, speakers in (("one", "ab"), ("two", "ac")):
        (tmp_path / name).mkdir()
        rows = []
        for number, speaker in enumerate(speakers * 3):
            soundfile.write(tmp_path / name / f"{number}.wav", noise(number + len(rows) + 100 * len(name) + ord(name[0])), 16_000)
            rows.append(f"{number}.wav,{speaker},{('happy', 'sad')[number // 2 % 2]},t{number}")
        table(tmp_path / name, rows, "path,speaker,emotion,text")
        (tmp_path / name / "t.csv").rename(tmp_path / name / f"{name}.csv")
    command = ["prepare", "csv", str(tmp_path / "one" / "one.csv"), str(tmp_path / "data")]
    assert siser([*command, "--also", f"csv={tmp_path}/two/two.csv"]) == 0
    prepared = PreparedCorpus.open(tmp_path / "data")
    assert {(u.corpus, u.speaker) for u in prepared.utterances} == {
        ("one", "one-a"),
        ("one", "one-b"),
        ("two", "two-a"),
        ("two", "two-c"),
    }
    assert prepared.settings["corpora"] == ["one", "two"] and prepared.utterances[0].id == "one/0.wav"
    assert {u.text for u in prepared.utterances if u.corpus == "two"} == {f"two-t{n}" for n in range(6)}
    note = "speaker 'a' of several of your tables or folders: taken as different people in each. If it is one person, put"
    assert note in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(tmp_path / "data")
    assert siser([*command, "--also", f"csv={tmp_path}/two/two.csv", "--distinct-speakers"]) == 0
    assert "taken as different people" not in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(tmp_path / "data")
    assert siser([*command, "--also", f"csv={tmp_path}/one/one.csv"]) == 2
    assert "two corpora are named one" in capsys.readouterr().err


def test_options_for_custom_data_next_to_a_known_corpus(tmp_path, capsys):
    (tmp_path / "e").mkdir()
    for seed, name in enumerate(("03a01Fa", "08a01Wa", "09a01Ta", "10a01Na")):
        soundfile.write(tmp_path / "e" / f"{name}.wav", noise(seed), 16_000)
    soundfile.write(tmp_path / "mine.wav", noise(9), 16_000)
    custom = table(tmp_path, ["mine.wav,1,happy"], "path,who,emotion")
    emodb = f"emodb={tmp_path / 'e'}"
    assert (
        siser(["prepare", "csv", str(custom), str(tmp_path / "a"), "--column", "speaker=who", "--name", "m", "--also", emodb])
        == 0
    )
    assert {(utterance.corpus, utterance.speaker) for utterance in PreparedCorpus.open(tmp_path / "a").utterances} >= {
        ("m", "m-1"),
        ("emodb", "emodb-03"),
    }
    assert len(PreparedCorpus.open(tmp_path / "a").settings["differences"]) == 9
    command = ["prepare", "emodb", str(tmp_path / "e"), str(tmp_path / "b"), "--also", f"csv={custom}"]
    assert siser([*command, "--column", "speaker=who", "--only", "emotion=happy"]) == 0
    assert (
        len(PreparedCorpus.open(tmp_path / "b").utterances) == 2
        and PreparedCorpus.open(tmp_path / "b").settings["differences"] == []
    )
    capsys.readouterr()
    assert siser([*command[:3], str(tmp_path / "c"), "--column", "speaker=who"]) == 2
    assert "--column: for your own data only, emodb is a known corpus; leave it out" in capsys.readouterr().err


def test_prepare_json_contains_emotions_differences_and_checks(many, tmp_path):
    prepare_table(many / "t.csv", tmp_path / "data", compare=lambda kept: [f"{len(kept)} found"])
    settings = json.loads((tmp_path / "data" / "prepare.json").read_text())
    assert settings["differences"] == ["284 found"]
    assert sum(settings["emotions"].values()) == settings["counts"]["utterances"]
    numbers = {"length", "padding", "level", "bandwidth", "offset", "file_kind"}
    assert set(settings["shortcuts"]) == {*numbers, "speaker", "text", "shared_texts", "warnings"}


def test_the_audio_file_is_in_order_and_without_gaps(many, tmp_path):
    prepared = prepare_table(many / "t.csv", tmp_path / "data")
    assert all(first.offset + first.samples == second.offset for first, second in pairwise(prepared.utterances))
