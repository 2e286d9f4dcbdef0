"""Reasons in the user's words: what a file is by its first bytes, what is wrong in a path, and what to type."""

import os
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats.files import list_audio, list_unusable
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import AudioError, SerError
from speaker_invariant_ser.inference.inputs import find_inputs

RATE = 16_000
SOUND = 0.1 * np.random.default_rng(0).standard_normal(RATE)


def wav_with_tag(tag: int) -> bytes:
    body = (
        b"WAVE"
        + struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, 8000, 1000, 1, 4)
        + struct.pack("<4sI", b"data", 4000)
        + bytes(4000)
    )
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def ogg_with(codec: bytes) -> bytes:
    return b"OggS\0\2" + bytes(20) + b"\1" + bytes([len(codec)]) + codec + bytes(100)


FIRST_BYTES = {  # first bytes -> what the reason says
    b"\0\0\0\x20ftypM4A ": "is MP4 (as .m4a or .mp4)",
    b"\0\0\0\x14ftyp3gp4": "is 3GP",
    b"\0\0\0\x14ftypqt  ": "is a QuickTime film",
    b"\x1aE\xdf\xa3\x9f": "is Matroska or WebM",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "is Windows Media",
    b"#!AMR\n": "is AMR",
    b"\xff\xf1\x50\x80": "is AAC",
    b"\x0b\x77": "is AC-3",
    b"RIFF\x10\0\0\0AVI ": "is an AVI film",
    b"FLV\x01": "is a Flash film",
    b"wvpk": "is WavPack",
    b"MAC ": "is Monkey's Audio",
    b".RMF": "is RealAudio",
    wav_with_tag(0x2000): "is WAV with AC-3 (format tag 0x2000)",
    wav_with_tag(0x161): "is WAV with Windows Media Audio (format tag 0x161)",
    wav_with_tag(0xFF): "is WAV with AAC",
    ogg_with(b"\x7fFLAC\1\0"): "is Ogg with FLAC",
    ogg_with(b"Speex   "): "is Ogg with Speex",
    ogg_with(b"\x80theora"): "is Ogg with Theora video",
    b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\n": "is SPHERE compressed with Shorten",
}
NO_SOUND = {
    b"": "is empty (0 bytes)",
    bytes(5000): "is nothing but zeros, not audio; its copy or download was perhaps not finished",
    b"\0\5\x16\7": "is a Mac's notes on another file, not audio; it can be deleted",
    b"PK\3\4": "is a ZIP archive, not audio; unpack it",
    b"\x1f\x8b\x08": "is compressed (gzip), not audio; unpack it: gunzip < ",
    b"%PDF-1.7": "is a PDF document",
    b"\x89PNG\r\n": "is a picture",
    "path,speaker".encode("utf-16"): "is text in UTF-16, not audio",
    b"\n<!DOCTYPE html><title>404": "is a page of the web or XML",
    b'{"error": "not found"}': "is text, perhaps JSON",
    b"MThd\0\0\0\6": "is MIDI",
    b"version https://git-lfs.github.com/spec/v1": "is a git-LFS pointer",
}


@pytest.mark.parametrize("ending", ["wav", "mp3", "flac"])
def test_first_bytes_tell_what_a_file_is_and_how_to_convert_it(tmp_path, capfd, ending):
    path = tmp_path / f"my call.{ending}"
    for head, expected in {**FIRST_BYTES, **NO_SOUND}.items():
        path.write_bytes(head + bytes(range(1, 256)) * 20 * (head != b"" and any(head)))
        with pytest.raises(AudioError) as caught:
            audio.decode(path)
        assert f"{path}: {expected}" in str(caught.value)
        if head in FIRST_BYTES:
            new = "my call-pcm.wav" if ending == "wav" else "my call.wav"
            assert f"which is not supported; convert it: ffmpeg -i 'my call.{ending}' '{new}'" in str(caught.value)
    assert capfd.readouterr().err == "", "no library writes on standard error"


def test_a_codec_of_a_known_container_is_converted_too(tmp_path):
    soundfile.write(tmp_path / "a.caf", SOUND, RATE)
    data = bytearray((tmp_path / "a.caf").read_bytes())
    at = data.index(b"lpcm")
    data[at : at + 4] = b"aac "
    (tmp_path / "a.caf").write_bytes(data)
    with pytest.raises(AudioError, match=r"not readable as audio \(.*\); convert it: ffmpeg -i a.caf a.wav"):
        audio.decode(tmp_path / "a.caf")


PATHS = {
    "wav\\gone.wav": "is no slash here",
    "C:\\data\\a.wav": "a path of Windows with a drive",
    "D:/data/a.wav": "a path of Windows with a drive",
    "https://example.org/a.wav": "a web address is not opened: download the file",
    "s3://bucket/a.wav": "a web address is not opened",
    "file:///data/a.wav": "a file: address is not opened: write the path without file://",
    '"a.wav"': "the quotation marks are taken as part of its name",
    "'a.wav'": "the quotation marks",
    "~/a.wav": "~ is not replaced by your home folder",
    "A.WAV": "there is a.wav: upper and lower case",
    "a.flac": "there is a.wav",
    "a  .wav": "no such file",
    "SUB/a.wav": "there is sub: upper and lower case",
    "sub /x/a.wav": "there is sub: upper and lower case, blanks",
    "other/x/a.wav": "no such file; there is no folder ",
    "other.wav": "other.wav: no such file",
}


@pytest.mark.parametrize("name, expected", PATHS.items())
def test_a_path_that_leads_nowhere_says_why(tmp_path, name, expected):
    soundfile.write(tmp_path / "a.wav", SOUND, RATE)
    (tmp_path / "sub").mkdir()
    for path in (Path(tmp_path, name), f"{tmp_path}/{name}"):
        with pytest.raises(AudioError, match="no such file") as caught:
            audio.decode(path)
        assert expected in str(caught.value) and (":" not in name or name in str(caught.value))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_in_either_normal_form_and_with_backslashes(tmp_path, form):
    """Files of a Mac have decomposed names, tables composed ones; every part of a path may be in another form."""
    folder = tmp_path / unicodedata.normalize(form, "Gespräche") / unicodedata.normalize("NFD", "Jörg")
    folder.mkdir(parents=True)
    rows = []
    for number, (speaker, emotion) in enumerate((("a", "x"), ("b", "y"), ("a", "y"))):
        name = f"{number}-grün.wav"
        soundfile.write(folder / unicodedata.normalize(form, name), SOUND[number * 1000 :], RATE)
        separator = "\\" if number else "/"
        rows.append(separator.join(["Gespräche", "Jörg", name]) + f",{speaker},{emotion}")
    (tmp_path / "t.csv").write_text("\n".join(["path,speaker,emotion", *rows]), encoding="utf-8")
    assert siser(["prepare", "csv", str(tmp_path / "t.csv"), str(tmp_path / "data"), "--jobs", "1"]) == 0
    assert len(PreparedCorpus.open(tmp_path / "data").utterances) == 3


def test_a_file_is_found_where_its_folder_is_there_in_both_normal_forms(tmp_path):
    """As after copies from a Mac and from Windows: what is in either folder is found."""
    for number, form in enumerate(("NFC", "NFD")):
        folder = tmp_path / unicodedata.normalize(form, "Jörg") / unicodedata.normalize("NFC", "Ärger")
        folder.mkdir(parents=True)
        soundfile.write(folder / f"{number}.wav", SOUND[number * 1000 :], RATE)
    for number in range(2):
        found = audio.decode(f"{tmp_path}/../{tmp_path.name}/{unicodedata.normalize('NFC', f'Jörg/Ärger/{number}.wav')}")
        assert len(found.samples) == len(SOUND) - number * 1000


def test_a_name_that_exists_is_not_another_one(tmp_path):
    """Where a file is named as written, backslash included, that file is read."""
    soundfile.write(tmp_path / "a\\b.wav", SOUND, RATE)
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "b.wav", SOUND[: RATE // 2], RATE)
    assert len(audio.decode(tmp_path / "a\\b.wav").samples) == RATE


def test_folders_list_each_recording_once_as_usable_or_not(tmp_path):
    names = {
        "a.wav": "",
        "b.M4A": "is MP4 (as .m4a or .mp4), which is not supported; convert it: ffmpeg -i b.M4A b.wav",
        "c.gsm": ".gsm is not supported",
        "c.g729": ".g729 is not supported; convert it: ffmpeg -i c.g729 c.wav",
        "d.pcm": ".pcm has no header; convert it with its own rate and format, such as ffmpeg -f s16le",
        "d.ULAW": ".ulaw has no header; convert it with its own rate and format, such as ffmpeg -f mulaw",
        "d.alaw": "such as ffmpeg -f alaw",
        "d.vox": "such as sox -t vox",
        ".e.wav": "is hidden",
        "._f.wav": "is hidden",
        "._o.wav": None,
        "._p.m4a": None,
        "g.txt": None,
        "h": "its ending (none) is none of its kind; rename it to end with .wav",
        "w.wav ": "its ending '.wav ' is none of its kind; rename it to end with .wav",
        "i.bak": "its ending .bak is none of its kind",
        "j.bin": None,
        ".git/k.wav": "is hidden",
        "l.m4a": "holds a recording, but its ending .m4a is none of its kind; rename it to end with .wav",
        "m.raw": "holds a recording, but its ending .raw is none of its kind; rename it to end with .wav",
        "n.mpga": "",
        "q.gsm": "is MP4 (as .m4a or .mp4), which is not supported; convert it: ffmpeg -i q.gsm q.wav",
        "r.bin": "is MP4 (as .m4a or .mp4), which is not supported",
        "s.m4a": "is a page of the web or XML, not audio",
        "t.m4a": ".m4a is not supported",
        "u.ogx": "holds a recording, but its ending .ogx is none of audio",
        "v.heic": None,
    }
    mp4, notes = b"\0\0\0\x20ftypM4A ", b"\0\x05\x16\x07\0\2\0\0Mac OS X"
    other = {"b.M4A": mp4, "q.gsm": mp4, "r.bin": mp4, "c.gsm": b"\xd0" * 33, "d.pcm": bytes(100), "j.bin": b"RIFFRAFF"}
    other |= dict.fromkeys(("c.g729", "d.ULAW", "d.alaw", "d.vox"), b"\xd0" * 33)
    other |= {"._o.wav": notes, "._p.m4a": notes, "s.m4a": b"<!doctype html>", "t.m4a": b"", "v.heic": b"\0\0\0\x20ftypheic"}
    other["u.ogx"] = b"OggS\0\2" + bytes(20) + b"\1\x1e\1vorbis"
    soundfile.write(tmp_path / "a.wav", SOUND, RATE)
    (tmp_path / ".git").mkdir()
    for name in list(names)[1:]:
        (tmp_path / name).write_bytes((tmp_path / "a.wav").read_bytes() if name not in other else other[name])
    (tmp_path / "pipe.old").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "pipe.old")
    os.mkfifo(tmp_path / "pipe.wav")
    assert list_audio(tmp_path) == ["a.wav", "n.mpga", "pipe.wav"], "what is called a recording is not left out"
    os.unlink(tmp_path / "pipe.wav")
    unusable = dict(list_unusable(tmp_path))
    assert set(unusable) == {name for name, reason in names.items() if reason}
    assert all(names[name] in reason for name, reason in unusable.items())
    reasons = {str(item.path.relative_to(tmp_path)): item.reason for item in find_inputs([tmp_path])}
    assert reasons == {"a.wav": "", "n.mpga": "", **unusable}


def test_a_list_in_utf16_is_read(tmp_path):
    soundfile.write(tmp_path / "grün.wav", SOUND, RATE)
    for encoding in ("utf-16", "utf-8", "utf-8-sig"):
        (tmp_path / "list.txt").write_text("grün.wav\n", encoding=encoding)
        assert [item.path.name for item in find_inputs([tmp_path / "list.txt"])] == ["grün.wav"]
    (tmp_path / "list.txt").write_bytes("grün.wav\n".encode("cp1252"))
    with pytest.raises(SerError, match="expected text in UTF-8 with one path a line"):
        find_inputs([tmp_path / "list.txt"])
