"""What a header gets wrong: all that a file holds is read, or a note or a rejection says how much is not."""

import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats import chunks, flac, mpeg
from speaker_invariant_ser.data.formats.splice import Spliced
from speaker_invariant_ser.errors import AudioError

RATE, SECONDS = 16_000, 3.0
FRAME = 576 / RATE  # seconds of a frame of MP3 at this rate


def sound() -> np.ndarray:
    """Return a gliding tone with bursts of noise, so that every stretch differs from every other."""
    times = np.arange(int(SECONDS * RATE)) / RATE
    glide = 0.2 * np.sin(2 * np.pi * np.cumsum(200 + 100 * np.sin(2 * np.pi * 0.37 * times)) / RATE)
    return glide + 0.05 * np.random.default_rng(0).standard_normal(len(times)) * (np.sin(2 * np.pi * 2.1 * times) > 0)


# How a file is written, and the field of its length: what stands before it, bytes between, format, what it counts besides audio
CONTAINERS = {
    "pcm.wav": ({"subtype": "PCM_16"}, (b"data", 0, "<I", 0)),
    "ulaw.wav": ({"subtype": "ULAW"}, (b"data", 0, "<I", 0)),
    "wide.wav": ({"subtype": "PCM_24", "format": "WAVEX"}, (b"data", 0, "<I", 0)),
    "big.wav": ({"endian": "BIG", "subtype": "PCM_16"}, (b"data", 0, ">I", 0)),
    "long.rf64": ({"format": "RF64"}, (b"ds64", 12, "<Q", 0)),
    "a.w64": ({}, (b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", 0, "<Q", 24)),
    "a.aiff": ({}, (b"SSND", 0, ">I", 8)),
    "a.au": ({}, (b".snd", 4, ">I", 0)),
    "a.caf": ({}, (b"data", 0, ">q", 4)),
}


def written(folder: Path, name: str, **options) -> bytes:
    soundfile.write(folder / "base", sound(), RATE, **{"format": Path(name).suffix[1:].upper(), **options})
    return (folder / "base").read_bytes()


def with_length(data: bytes, field: tuple[bytes, int, str, int], change) -> bytes:
    """Return a file whose stated number of bytes of audio is changed."""
    mark, between, form, besides = field
    at = data.index(mark) + len(mark) + between
    (value,) = struct.unpack_from(form, data, at)
    changed = bytearray(data)
    struct.pack_into(form, changed, at, change(value - besides) + besides)
    return bytes(changed)


def decoded(folder: Path, name: str, data: bytes) -> tuple[float, str] | str:
    """Return the seconds that are read and the notes, or the reason of a rejection."""
    (folder / name).write_bytes(data)
    try:
        result = audio.decode(folder / name)
    except AudioError as error:
        return str(error)
    return len(result.samples) / result.rate, "; ".join(result.notes)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_wrong_length_in_a_header_loses_nothing_unsaid(tmp_path, name):
    options, field = CONTAINERS[name]
    data = written(tmp_path, name, **options)
    assert decoded(tmp_path, name, data) == (SECONDS, "")
    assert decoded(tmp_path, name, with_length(data, field, lambda value: 0)) == (SECONDS, "")
    seconds, note = decoded(tmp_path, name, with_length(data, field, lambda value: value // 3))
    assert seconds == pytest.approx(1, abs=0.001) and "its header states 1.00 s" in note and "2.00 s more (67%)" in note
    assert "is truncated, 67% of the audio" in decoded(tmp_path, name, with_length(data, field, lambda value: 3 * value))
    unknown = 2**31 - 1 if field[2].endswith("I") else 2**62
    assert decoded(tmp_path, name, with_length(data, field, lambda value: unknown - 100)) == (SECONDS, "")


@pytest.mark.parametrize("name", [*CONTAINERS, "a.nist", "a.voc"])
def test_a_file_that_was_cut_or_lengthened_is_noted_or_rejected(tmp_path, name):
    options, _ = CONTAINERS.get(name, ({}, None))
    data = written(tmp_path, name, **options)
    half = decoded(tmp_path, name, data[: len(data) // 2])
    assert "is truncated" in half and ("5" in half or name == "a.voc")
    seconds, note = decoded(tmp_path, name, data[: int(0.995 * len(data))])
    assert seconds == pytest.approx(0.995 * SECONDS, abs=0.03) and "0.5% of the audio" in note
    for behind in (data, bytes(len(data)), np.random.default_rng(1).bytes(len(data))):
        seconds, note = decoded(tmp_path, name, data + behind)
        assert seconds == pytest.approx(SECONDS, abs=0.01) and "which are not read" in note
    for tag in (b"TAG" + b"x" * 125, b"ID3\x04\0\0\0\0\x08\0" + bytes(1024)):
        seconds, note = decoded(tmp_path, name, data + tag)
        assert seconds == pytest.approx(SECONDS, abs=0.05) and not note


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_behind_an_extensible_header_are_of_the_kind_that_it_states(tmp_path, subtype, channels):
    """As ffmpeg writes W64; libsndfile takes each for whole numbers."""
    samples = np.stack([sound()] * channels, axis=1)
    soundfile.write(tmp_path / "a.w64", samples, RATE, subtype=subtype)
    data = (tmp_path / "a.w64").read_bytes()
    at = data.index(b"fmt ")
    (length,) = struct.unpack_from("<Q", data, at + 16)
    plain = data[at + 24 : at + 40]
    kind = plain[:2] + bytes.fromhex("000000001000800000aa00389b71")
    wide = b"\xfe\xff" + plain[2:] + struct.pack("<HHI", 22, struct.unpack_from("<H", plain, 14)[0], 0) + kind
    extensible = data[: at + 16] + struct.pack("<Q", 64) + wide + data[at + length + -length % 8 :]
    assert decoded(tmp_path, "wide.w64", extensible) == (SECONDS, "")
    assert np.array_equal(audio.read(tmp_path / "wide.w64", RATE), audio.read(tmp_path / "a.w64", RATE))


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"])
def test_sphere_of_any_width_is_whole(tmp_path, subtype):
    assert decoded(tmp_path, "a.nist", written(tmp_path, "a.nist", subtype=subtype)) == (SECONDS, "")


def test_a_caf_stream_of_unknown_length_is_read(tmp_path):
    data = with_length(written(tmp_path, "a.caf"), CONTAINERS["a.caf"][1], lambda value: -5)
    assert decoded(tmp_path, "a.caf", data) == (SECONDS, "")


def test_the_length_of_a_voc_block_is_modulo_16_mb(tmp_path):
    data = written(tmp_path, "a.voc")
    for samples in (2**23, 2**24 + 5):
        size = 12 + 2 * samples
        long = data[:27] + (size % 2**24).to_bytes(3, "little") + data[30:42] + bytes(2 * samples) + b"\0"
        layout = chunks.scan(io.BytesIO(long), long[: chunks.HEAD], len(long))
        assert (layout.begin, layout.stated, layout.missing, layout.unread) == (26, 4 + size, 0, 0)
    (tmp_path / "long.voc").write_bytes(long)
    assert audio.probe(tmp_path / "long.voc") == (samples, RATE)
    cut = long[:-100_000]  # how much is missing is not known, but much lies behind the length that is stated
    assert chunks.scan(io.BytesIO(cut), cut[: chunks.HEAD], len(cut)).unread


def test_a_voc_in_several_blocks_has_the_samples_of_one_in_a_single_block(tmp_path):
    data = written(tmp_path, "a.voc")
    head, sound = data[:26], data[42:-1]  # libsndfile takes the headers of further blocks for samples

    def block(kind, content):
        return bytes([kind]) + len(content).to_bytes(3, "little") + content

    parts = [sound[at : at + 2048] for at in range(0, len(sound), 2048)]  # as ffmpeg writes it
    blocks = head + block(9, data[30:42] + parts[0]) + block(5, b"hello\0") + b"".join(block(2, part) for part in parts[1:])
    expected = soundfile.read(io.BytesIO(data))[0]
    for name, content in (("blocks", blocks + b"\0"), ("open", blocks), ("text", data[:-1] + block(5, b"hello") + b"\0")):
        (tmp_path / f"{name}.voc").write_bytes(content)
        assert np.array_equal(audio.read(tmp_path / f"{name}.voc", RATE), expected.astype(np.float32)), name
    (tmp_path / "pause.voc").write_bytes(data[:-1] + block(3, b"\0\1\2") + b"\0")
    with pytest.raises(AudioError, match=r"pause.voc: holds several sounds, or pauses, .* convert it to WAV with ffmpeg"):
        audio.read(tmp_path / "pause.voc")


def test_an_empty_recording_with_further_chunks_stays_empty(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    data = (tmp_path / "a.wav").read_bytes() + struct.pack("<4sI", b"LIST", 4000) + bytes(4000)
    assert decoded(tmp_path, "a.wav", data) == (0, "")


def test_the_number_of_samples_in_flac_is_checked_against_its_last_frame(tmp_path):
    data = written(tmp_path, "a.flac")
    samples = int(SECONDS * RATE)
    assert flac.scan(data)[:2] == (samples, samples)
    stated = {count: flac.with_count(data, count) + data[42:] for count in (0, samples // 3, 3 * samples)}
    assert decoded(tmp_path, "a.flac", stated[0]) == (SECONDS, "")
    assert decoded(tmp_path, "a.flac", stated[samples // 3]) == (
        SECONDS,
        "its header states 16000 samples, it holds 48000: all are read",
    )
    assert "is truncated, 67% of the audio" in decoded(tmp_path, "a.flac", stated[3 * samples])
    seconds, note = decoded(tmp_path, "a.flac", data + data)
    assert seconds == SECONDS and f"another recording begins at byte {len(data)}" in note and "50% of the file" in note
    assert decoded(tmp_path, "a.flac", data + np.random.default_rng(2).bytes(len(data))) == (SECONDS, "")
    cut = decoded(tmp_path, "a.flac", data[: len(data) // 2])
    assert "is truncated" in cut or "is damaged or truncated" in cut


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_the_last_frame_of_any_flac_is_found(tmp_path, subtype):
    rng = np.random.default_rng(3)
    for channels, rate in ((1, 8000), (2, 44_100), (1, 24_414), (2, 96_000)):
        samples = int(rng.integers(1, 30_000))
        soundfile.write(tmp_path / "a.flac", rng.uniform(-0.1, 0.1, (samples, channels)), rate, subtype=subtype)
        assert flac.scan((tmp_path / "a.flac").read_bytes())[:2] == (samples, samples), (channels, rate, samples)


@pytest.mark.parametrize("samples", [127 * 4096 + 1, 128 * 4096, 128 * 4096 + 1, 2047 * 4096 + 1, 2048 * 4096 + 1])
def test_a_flac_of_any_number_of_frames_is_whole(tmp_path, samples):
    """The number of a frame takes two bytes from 128 on, and three from 2048 on."""
    sound = np.zeros(samples, np.int16)
    sound[::4096] = 1
    soundfile.write(tmp_path / "a.flac", sound, 16_000)
    assert flac.scan((tmp_path / "a.flac").read_bytes())[:2] == (samples, samples)


def test_the_number_of_a_frame_is_read_whatever_its_length():
    info = np.array([4096, 4096], ">u2").tobytes() + bytes(6) + (16_000 << 44 | 15 << 36).to_bytes(8, "big") + bytes(16)
    for number in [2**bits - 1 for bits in range(1, 32)] + [2**bits for bits in range(31)]:
        coded = [number]
        for further in range(1, 7):  # as in UTF-8, and beyond
            if number >= 128 and number < 2 ** (5 * further + 6):
                parts = [number >> 6 * part & 0x3F for part in range(further)][::-1]
                coded = [0xFF00 >> further + 1 & 0xFF | number >> 6 * further, *(0x80 | part for part in parts)]
                break
        head = bytes([0xFF, 0xF8, 0xC5, 0x08, *coded])
        assert flac.end_of_frame((head + bytes([flac.crc8(head)])).ljust(16, b"\0"), info) == 4096 * (number + 1), number


def test_files_of_any_size_are_examined_within_limits(tmp_path, monkeypatch):
    (tmp_path / "a.mp3").write_bytes(written(tmp_path, "a.mp3"))
    with open(tmp_path / "a.mp3", "ab") as file:
        file.truncate(2**32 + 1)  # zeros, which take no room on the disk
    with pytest.raises(AudioError, match="4 GB of MPEG audio, expected at most 4"):
        audio.decode(tmp_path / "a.mp3")
    data, samples = written(tmp_path, "a.flac"), int(SECONDS * RATE)
    assert flac.scan(data + b"\xff\xf8\x10\x00" * 1000)[:2] == (samples, samples)
    for limit in ("MAX_SEARCHED", "BLOCK", "MAX_TAIL", "MAX_CANDIDATES"):
        monkeypatch.setattr(flac, limit, 100)
    assert flac.scan(data + b"\xff\xf8\x10\x00" * 1000 + data) == (samples, 0, 2 * len(data) + 4000)  # not searched to the end


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_that_is_chained_or_cut_is_noted(tmp_path, subtype):
    data = written(tmp_path, "a.ogg", subtype=subtype)
    assert decoded(tmp_path, "a.ogg", data) == (SECONDS, "")
    seconds, note = decoded(tmp_path, "a.ogg", data + data)
    assert seconds == SECONDS and f"another recording begins at byte {len(data)}" in note
    seconds, note = decoded(tmp_path, "a.ogg", data + bytes(len(data)))
    assert seconds == SECONDS and "50% of its bytes, at the end, are no Ogg" in note
    seconds, note = decoded(tmp_path, "a.ogg", data[:-100])
    assert seconds < SECONDS and "perhaps truncated" in note


@pytest.fixture(scope="module")
def mp3(tmp_path_factory) -> dict[str, bytes]:
    """Return MP3 of constant, average and variable bit rate, without the frame that states the length, too."""
    folder, files = tmp_path_factory.mktemp("mp3"), {}
    for mode in ("CONSTANT", "AVERAGE", "VARIABLE"):
        files[mode] = written(folder, "a.mp3", bitrate_mode=mode, compression_level=0.5)
        files[f"{mode}, no length"] = files[mode][mpeg.scan(files[mode]).ranges[0][0] :]
    return files


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_mp3_without_a_stated_length_is_read_whole(tmp_path, mp3, mode):
    """libsndfile estimates the length from the first frames: of a variable bit rate it read a quarter."""
    seconds, note = decoded(tmp_path, "a.mp3", mp3[f"{mode}, no length"])
    assert SECONDS <= seconds <= SECONDS + 3 * FRAME and not note
    whole = audio.decode(tmp_path / "a.mp3").samples
    source = sound()
    shift = np.correlate(whole, source[:RATE])[: RATE // 4].argmax()
    for at in range(0, len(source) - RATE, RATE // 2):
        assert np.corrcoef(whole[shift + at : shift + at + RATE], source[at : at + RATE])[0, 1] > 0.98


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_mp3_with_a_wrong_length_or_more_behind_it(tmp_path, mp3, mode):
    data = mp3[mode]
    stream = mpeg.scan(data)
    assert decoded(tmp_path, "a.mp3", data) == (SECONDS, "") and stream.declared == stream.frames
    at = max(data.find(name) for name in (b"Xing", b"Info")) + 8
    stated = {count: data[:at] + struct.pack(">I", count) + data[at + 4 :] for count in (0, 20, 900)}
    assert decoded(tmp_path, "a.mp3", stated[0]) == (SECONDS, "")
    assert decoded(tmp_path, "a.mp3", stated[20]) == (
        SECONDS,
        f"its header states 20 frames, it holds {stream.frames}: all are read",
    )
    assert "is truncated, 9" in decoded(tmp_path, "a.mp3", stated[900])
    seconds, note = decoded(tmp_path, "a.mp3", data + b"TAG" + b"x" * 125 + data)
    assert seconds == pytest.approx(2 * SECONDS, abs=4 * FRAME) and "all are read" in note
    seconds, note = decoded(tmp_path, "a.mp3", data + np.random.default_rng(4).bytes(len(data)))
    assert seconds == SECONDS and "50% of its bytes are not MPEG audio" in note
    assert "is truncated" in decoded(tmp_path, "a.mp3", data[: len(data) // 2])
    tags = b"ID3\x04\0\0\0\0\x08\0" + bytes(1024)
    assert decoded(tmp_path, "a.mp3", tags + data + b"TAG" + b"x" * 125) == (SECONDS, "")


MUTED = """
import os, sys
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats.quiet import move_stderr
audio.decode("a.mp3")
move_stderr()
print("ours", file=sys.stderr)
audio.decode("a.mp3")
os.write(2, b"the end")
"""


def test_what_the_decoder_of_mp3_prints_stays_off_the_terminal(tmp_path, mp3):
    """In the command line, and nothing else with it."""
    data = bytearray(mp3["CONSTANT"])
    for position in np.random.default_rng(1).integers(len(data) // 2, len(data) * 3 // 4, 40):
        data[position] ^= 0x55
    (tmp_path / "a.mp3").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MUTED], cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = done.stderr.split("ours\n")
    assert "error" in before and after == "the end"


@pytest.mark.parametrize("ending", ["mp3", "wav", "w64", "rf64", "aiff", "au", "caf", "flac", "ogg", "sph", "voc"])
def test_a_file_that_is_cut_anywhere_in_its_head_is_an_error_of_ours(tmp_path, ending):
    name = f"a.{ending}"
    data = written(tmp_path, name, **({"format": "NIST"} if name == "a.sph" else {}))
    for length in range(1, 50):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(AudioError, match=re.escape(name)):
            audio.read(tmp_path / name)


@pytest.mark.parametrize("mode", ["CONSTANT, no length", "VARIABLE, no length", "VARIABLE"])
def test_mp3_inside_wav_is_read_as_mp3(tmp_path, mp3, mode):
    data = mp3[mode]
    head = struct.pack("<4sIHHIIHHHHIHHH", b"fmt ", 30, 0x55, 1, RATE, 8000, 1, 0, 12, 1, 2, 576, 1, 0)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data
    (tmp_path / "a.wav").write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    (tmp_path / "a.mp3").write_bytes(data)
    assert np.array_equal(audio.decode(tmp_path / "a.wav").samples, audio.decode(tmp_path / "a.mp3").samples)


@pytest.mark.parametrize("name", ["a.ogg", "a.caf", "a.flac", "pcm.wav"])
def test_tags_of_mp3_before_another_format_are_skipped(tmp_path, name):
    data = written(tmp_path, name)
    assert decoded(tmp_path, name, b"ID3\x04\0\0\0\0\x01\0" + bytes(128) + data) == (SECONDS, "")


def test_pieces_are_one_file():
    file = Spliced([b"abc", b"", memoryview(b"defgh"), b"i"])
    assert file.read() == b"abcdefghi" and file.read(1) == b""
    assert (file.seek(-3, 2), file.read(2), file.tell(), file.seek(1, 1), file.seek(99)) == (6, b"gh", 8, 9, 9)
    assert file.seek(2) == 2 and file.read(4) == b"cdef"


def test_a_damaged_header_has_no_layout():
    for magic in chunks.CONTAINERS:
        head = magic.ljust(64, b"\xff")
        assert chunks.scan(Spliced([head]), head, len(head)) is None or magic in (b".snd", b"dns.", b"Creative Voice File\x1a")


FIELDS = {
    "tag": (0, "<H"),
    "channels": (2, "<H"),
    "rate": (4, "<I"),
    "bytes a second": (8, "<I"),
    "frame": (12, "<H"),
    "bits": (14, "<H"),
}


@pytest.mark.parametrize("ending", [".wav", ".w64"])
@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("tag", 6, "1 channel of A-law with 16 bits take 1 bytes, it states 2"),
        ("tag", 7, "1 channel of mu-law with 16 bits take 1 bytes, it states 2"),
        ("channels", 2, "2 channels of PCM with 16 bits take 4 bytes, it states 2"),
        ("bits", 8, "1 channel of PCM with 8 bits take 1 bytes, it states 2"),
        ("bits", 24, "1 channel of PCM with 24 bits take 3 bytes, it states 2"),
        ("rate", 8000, ("8000 Hz take 16000 bytes a second, it states 32000; its speed may be wrong",)),
        ("bytes a second", 0, ("16000 Hz take 32000 bytes a second, it states 0; its speed may be wrong",)),
        ("frame", 4, ()),
        ("bits", 12, ()),
    ],
)
def test_a_header_that_contradicts_itself_is_noted_or_rejected(tmp_path, ending, field, value, expected):
    path = tmp_path / f"clip{ending}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, 16_000), 16_000, subtype="PCM_16")
    content, (position, form) = bytearray(path.read_bytes()), FIELDS[field]
    begin = content.index(b"fmt ") + (8 if ending == ".wav" else 24)
    struct.pack_into(form, content, begin + position, value)
    path.write_bytes(content)
    if isinstance(expected, str):
        with pytest.raises(AudioError, match=f"clip{ending}: its header contradicts itself: {expected}; export it again"):
            audio.decode(path)
    else:
        assert audio.decode(path).notes == tuple(f"its header contradicts itself: {text}" for text in expected)


SHORT = [*chunks.CONTAINERS, b"fLaC", b"OggS", b"ID3", b"\xff\xfb"]


@pytest.mark.parametrize("begin", SHORT)
def test_a_file_that_ends_in_its_header_is_rejected(tmp_path, begin):
    for size in (*range(len(begin), 13), 24, 64):
        for filling in (b"\0", b" ", b"\xff"):
            (tmp_path / "clip.wav").write_bytes(begin.ljust(size, filling))
            with pytest.raises(AudioError, match="clip.wav"):
                audio.decode(tmp_path / "clip.wav")


def test_a_number_beyond_the_limits_of_python_is_no_length(tmp_path):
    (tmp_path / "clip.sph").write_bytes(b"NIST_1A\n   1024\nsample_count -i " + b"9" * 5000)
    with pytest.raises(AudioError, match=r"clip\.sph"):
        audio.decode(tmp_path / "clip.sph")
