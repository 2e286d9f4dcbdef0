"""Segments from a diariser's file, and from voice activity."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE

from speaker_invariant_ser.errors import ManifestError, SerError, SetupError
from speaker_invariant_ser.inference.inputs import Input
from speaker_invariant_ser.inference.parts import vad
from speaker_invariant_ser.inference.parts.pieces import Region, Source
from speaker_invariant_ser.inference.parts.segments import Segment, match, read_segments
from speaker_invariant_ser.inference.rows import Schema, speaker_rows
from speaker_invariant_ser.inference.settings import Settings

EXPECTED = {"call": [Segment(0.5, 2.0, "ann"), Segment(2.0, 3.25, "bob")], "other": [Segment(0.0, 1.0)]}
RTTM = """;; a comment
SPKR-INFO call 1 <NA> <NA> <NA> unknown ann <NA> <NA>
SPEAKER call 1 2.0 1.25 <NA> <NA> bob <NA> <NA>
SPEAKER call 1 0.5 1.5 <NA> <NA> ann <NA>
SPEAKER other 1 0 1 <NA> <NA> <NA>
"""
TABLE = "speaker,file,start,end\nbob,call,2,3.25\nann,call,0.5,2.0\n,other,0,1\n"


@pytest.mark.parametrize("name, text", [("s.rttm", RTTM), ("s.csv", TABLE), ("s.tsv", TABLE.replace(",", "\t"))])
def test_rttm_and_tables_hold_the_same_segments(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_segments(tmp_path / name) == EXPECTED


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("s.rttm", "SPEAKER call 1 0.5 1.5\n", "line 1: 5 fields; expected SPEAKER file channel"),
        ("s.rttm", "SPEAKER call 1 x 1 <NA> <NA> ann\n", "line 1: 'x' is no time"),
        ("s.rttm", "SPEAKER call 1 1_0 1 <NA> <NA> ann\n", "line 1: '1_0' is no time"),
        ("s.rttm", "SPEAKER call 1 1 0 <NA> <NA> ann\n", "line 1: a segment from 1 to 1 s"),
        ("s.rttm", "nothing\n", "no segments"),
        ("s.csv", "file,start,end\na,3,1\n", "line 2: a segment from 3 to 1 s"),
        ("s.csv", "file,start,end\na,nan,1\n", "line 2: a segment from nan"),
        ("s.csv", "file,start\na,3\n", "no column end"),
    ],
)
def test_wrong_segments_are_named_by_their_line(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_segments(tmp_path / name)
    with pytest.raises(ManifestError, match="no such"):
        read_segments(tmp_path / f"missing-{name}")


def test_recordings_are_found_by_path_name_or_stem(tmp_path):
    recordings = [tmp_path / "a" / "call.wav", tmp_path / "other.flac", tmp_path / "third.wav"]
    names = {
        str(recordings[0]): [Segment(1, 2)],
        "other": [Segment(0, 1)],
        "other.flac": [Segment(2, 3)],
        "gone": [Segment(0, 1)],
    }
    found, missing = match(names, recordings)
    assert found == {recordings[0]: [Segment(1, 2)], recordings[1]: [Segment(0, 1), Segment(2, 3)]}
    assert missing == ["gone"]


def test_names_in_another_spelling_are_those_of_the_recordings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    recordings = [Path("gru\u0308n.wav"), Path("sub/call.wav")]
    for recording in recordings:
        recording.touch()
    rows = ("gr\u00fcn,0,1,J\u00f6rg", "gr\u00fcn.wav,1,2,Jo\u0308rg", "sub\\call.wav,0,1,NaN")
    (tmp_path / "s.csv").write_text("\n".join(("file,start,end,speaker", *rows)))
    listed, missing = match(read_segments("s.csv"), recordings)
    assert listed == {recordings[0]: [Segment(0, 1, "J\u00f6rg"), Segment(1, 2, "J\u00f6rg")], recordings[1]: [Segment(0, 1)]}
    assert not missing


def test_a_name_of_two_recordings_is_refused():
    with pytest.raises(SerError, match=r"segments of call: .*a/call.wav.* have this name"):
        match({"call": [Segment(0, 1)]}, [Path("a/call.wav"), Path("b/call.wav")])


def test_frames_hold_every_sample_whatever_the_blocks():
    samples = np.arange(3_000, dtype=np.float32)
    for block in (1, 511, 512, 513, 3_000):
        parts = list(vad.frames(samples[at : at + block] for at in range(0, 3_000, block)))
        assert np.array_equal(np.concatenate(parts), samples) and {len(part) for part in parts[:-1]} == {512}


def test_speech_without_its_package_says_how_to_install_it(monkeypatch):
    vad.model.cache_clear()
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(SetupError, match=r"pip install 'speaker-invariant-ser\[vad\]'"):
        list(vad.speech([np.zeros(RATE, np.float32)]))
    vad.model.cache_clear()


def test_noise_and_silence_are_no_speech():
    pytest.importorskip("silero_vad", reason="needs the extra vad")
    noise = 0.01 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    assert list(vad.speech([noise])) == list(vad.speech([np.zeros(3 * RATE, np.float32)])) == []


def test_stretches_are_those_that_the_detector_reports(monkeypatch):
    """Short ones are dropped, and speech that goes on at the end is a stretch."""
    silero = pytest.importorskip("silero_vad", reason="needs the extra vad")
    events = {10: {"start": 4_000}, 60: {"end": 25_000}, 70: {"start": 36_000}, 72: {"end": 37_000}, 80: {"start": 41_000}}

    class Detector:
        def __init__(self, *_, **__):
            self.frame = 0

        def __call__(self, frame):
            self.frame += 1
            return events.get(self.frame)

    monkeypatch.setattr(silero, "VADIterator", Detector)
    found = list(vad.speech([np.zeros(51_300, np.float32)]))
    assert found == [(0.25, 25_000 / RATE), (41_000 / RATE, 51_300 / RATE)]


def test_hostile_segments_end(tmp_path):
    """Times beyond all recordings, names that no path can have, and as many speakers as segments."""
    (tmp_path / "s.rttm").write_text("SPEAKER call 1 0 1e308 <NA> <NA> bob\n")
    with pytest.raises(ManifestError, match=r"line 1: a segment from 0 to 1e\+308 s; expected 0 <= start < end <= 1e\+08"):
        read_segments(tmp_path / "s.rttm")
    assert match({"a\0b": [Segment(0, 1)]}, [Path("a.wav")]) == ({}, ["a\0b"])
    many = [Segment(number / 100, number / 100 + 0.5) for number in range(10_000)]
    found, _ = match({"./" * number + "a.wav": many[number::100] for number in range(100)}, [Path("a.wav")])
    assert found == {Path("a.wav"): many}
    assert match({"./" * 10**6 + "a.wav": many[:1]}, [Path("a.wav")])[1]
    with pytest.raises(SerError, match=r"segments of a\.wav: 101 of them overlap at 0\.1 s; expected at most 100"):
        match({"a": [Segment(number / 1000, 30) for number in range(100_000)]}, [Path("a.wav")])
    regions = [Region("segment", 0, 1, f"speaker {number}") for number in range(20_000)]
    source = Source(Input(Path("a.wav")), "mix", Settings(), regions=regions)
    assert not list(speaker_rows(source, Schema((), "", False), {index: [] for index in range(len(regions))}))
