"""Damaged recordings: headers, lengths, rates, formats, truncation, bombs, samples that are no numbers, names."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from mutations.base import RATE, Fault, Mutation, drawn, tone

Rng = np.random.Generator
FORMATS = {  # name: suffix, format and codec of libsndfile
    "wav": (".wav", "WAV", "PCM_16"),
    "wav24": (".wav", "WAV", "PCM_24"),
    "float": (".wav", "WAV", "FLOAT"),
    "ulaw": (".wav", "WAV", "ULAW"),
    "w64": (".w64", "W64", "PCM_16"),
    "rf64": (".rf64", "RF64", "PCM_16"),
    "aiff": (".aiff", "AIFF", "PCM_16"),
    "au": (".au", "AU", "PCM_16"),
    "caf": (".caf", "CAF", "PCM_16"),
    "sphere": (".sph", "NIST", "PCM_16"),
    "voc": (".voc", "VOC", "PCM_16"),
    "flac": (".flac", "FLAC", "PCM_16"),
    "ogg": (".ogg", "OGG", "VORBIS"),
    "mp3": (".mp3", "MP3", "MPEG_LAYER_III"),
}
FIELDS = {
    "channels": (22, "H"),
    "rate": (24, "I"),
    "byte rate": (28, "I"),
    "align": (32, "H"),
    "bits": (34, "H"),
    "tag": (20, "H"),
}
TAGS = (1, 3, 6, 7)  # PCM, floating-point, A-law, mu-law
HEADER, LENGTH = 44, 40  # bytes of the WAV header that libsndfile writes, and where it states the length of the audio
MAX = {"H": 2**16 - 1, "I": 2**32 - 1}
FLAC_COUNT = 21  # position of the low half of the number of samples in a FLAC file
NAMES = (
    "line\nbreak",
    "escape\x1b[2J",
    "=1+1",
    "@cmd",
    "-minus",
    "a,b",
    'quo"te',
    "right\u202eleft",
    "tab\tname",
    "n" * 240,
    " blank ",
)
OTHER_FILES = (
    b"",
    b"RIFF",
    b"just text\n" * 300,
    b"<html>" * 200,
    b"PK\x03\x04" + bytes(900),
    b"ID3\x04\0\0\0\0\x7f\x7f" * 50,
    b"{" * 5000,
)


def encoded(samples: np.ndarray, name: str, rate: int = RATE) -> bytes:
    """Return samples [S] or [S, channels] as a file of one of `FORMATS`."""
    from io import BytesIO

    buffer, (_, kind, codec) = BytesIO(), FORMATS[name]
    soundfile.write(buffer, samples, rate, format=kind, subtype=codec)
    return buffer.getvalue()


# Every function returns the content of a file, and its suffix: from a generator, and samples [S].


def cut(name: str) -> Callable:
    """Return a mutation that keeps the first 15 to 85 % of a file."""

    def mutate(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
        data = encoded(samples, name)
        return data[: int(len(data) * rng.uniform(0.15, 0.85))], FORMATS[name][0]

    return mutate


def intact(name: str, suffix: str = "") -> Callable:
    """Return a mutation that changes nothing but the suffix."""
    return lambda rng, samples: (encoded(samples, name), suffix or FORMATS[name][0])


def header_field(field: str) -> Callable:
    """Return a mutation that writes an extreme or random number into a field of a WAV header."""

    def mutate(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
        data, (position, form) = bytearray(encoded(samples, "wav")), FIELDS[field]
        value = [0, 1, MAX[form], MAX[form] // 2 + 1, int(rng.integers(2, MAX[form]))][rng.integers(5)]
        struct.pack_into(f"<{form}", data, position, value)
        return bytes(data), ".wav"

    return mutate


def stated_length(share: float) -> Callable:
    """Return a mutation that states a share of the audio's length."""

    def mutate(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
        data = bytearray(encoded(samples, "wav"))
        struct.pack_into("<I", data, LENGTH, min(MAX["I"], int(share * (len(data) - HEADER)) & ~1))
        return bytes(data), ".wav"

    return mutate


def flip_header(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
    """Change up to six bytes of a WAV header."""
    data = bytearray(encoded(samples, ("wav", "wav24", "float", "ulaw")[rng.integers(4)]))
    for _ in range(rng.integers(1, 7)):
        data[rng.integers(0, HEADER)] = rng.integers(0, 256)
    return bytes(data), ".wav"


def flip_audio(name: str) -> Callable:
    """Return a mutation that changes bytes in the middle of a file."""

    def mutate(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
        data = bytearray(encoded(samples, name))
        for position in rng.integers(len(data) // 2, len(data) * 3 // 4, 40):
            data[position] ^= int(rng.integers(1, 256))
        return bytes(data), FORMATS[name][0]

    return mutate


def samples_of(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Return a mutation of samples before they are encoded."""
    return lambda rng, samples: (encoded(change(samples.copy()), name), FORMATS[name][0])


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a change of a tenth of the samples to one value."""

    def change(samples: np.ndarray) -> np.ndarray:
        samples[::10] = value
        return samples

    return change


def remove(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
    """Remove 5 to 50 % from the middle of the audio."""
    data = encoded(samples, "wav24")
    begin = int(rng.integers(HEADER, len(data) // 3))
    return data[:begin] + data[begin + int(len(data) * rng.uniform(0.05, 0.5)) :], ".wav"


def append(content: bytes | None) -> Callable:
    """Return a mutation that appends bytes, or a second recording."""
    return lambda rng, samples: (
        encoded(samples, "wav") + (encoded(samples[::-1], "wav") if content is None else content),
        ".wav",
    )


def flac_count(count: int) -> Callable:
    """Return a mutation that states another number of samples in a FLAC file."""

    def mutate(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
        data = bytearray(encoded(samples, "flac"))
        data[FLAC_COUNT] = (data[FLAC_COUNT] & 0xF0) | (count >> 32)
        struct.pack_into(">I", data, FLAC_COUNT + 1, count & MAX["I"])
        return bytes(data), ".flac"

    return mutate


def other_file(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
    """Return a file that is no audio, or noise."""
    content = OTHER_FILES[rng.integers(len(OTHER_FILES))] if rng.random() < 0.7 else rng.bytes(5000)
    return content, list(FORMATS.values())[rng.integers(len(FORMATS))][0]


def head_of(name: str) -> Callable:
    """Return a mutation that keeps a part of the header alone, of which some bytes are changed."""

    def mutate(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
        data = bytearray(encoded(samples, name)[: int(rng.integers(3, 40))])
        for position in rng.integers(0, len(data), 2):
            data[position] = max(data[position], int(rng.integers(0, 256)) * (position > 4))
        return bytes(data), FORMATS[name][0]

    return mutate


def as_alaw(rng: Rng, samples: np.ndarray) -> tuple[bytes, str]:
    """Call 16-bit PCM A-law."""
    data = bytearray(encoded(samples, "wav"))
    struct.pack_into("<H", data, FIELDS["tag"][0], 6)
    return bytes(data), ".wav"


MUTATIONS: list[Mutation] = [
    *((f"intact {name}", False, intact(name))
      for name in ("wav", "wav24", "float", "w64", "rf64", "aiff", "au", "caf", "sphere", "voc", "flac")),
    *((f"{name} called {suffix}", False, intact(name, suffix))
      for name, suffix in (("wav", ".flac"), ("flac", ".wav"), ("wav", ".mp3"))),
    *((f"truncated {name}", name != "mp3" or None, cut(name)) for name in FORMATS),
    *((f"header: {field}", None, header_field(field)) for field in FIELDS for _ in range(2)),
    *(("header: bytes", None, flip_header) for _ in range(4)),
    *((f"length x {share:g}", True, stated_length(share)) for share in (0.25, 0.5, 2, 1000)),
    *((f"length {label}", False, stated_length(share)) for label, share in (("0", 0), ("of a stream", 1e9))),
    *((f"bytes of {name}", True, flip_audio(name)) for name in ("flac", "ogg")),
    *((f"bytes of {name}", None, flip_audio(name)) for name in ("wav", "mp3")),
    *((f"samples: {value}", True, samples_of("float", with_value(value))) for value in (np.nan, np.inf, 1e30, -1e9)),
    *((f"samples: constant in {name}", True, samples_of(name, lambda x: np.full_like(x, 0.25)))
      for name in ("wav", "flac", "float")),
    *((f"samples: zero in {name}", True, samples_of(name, lambda x: 0 * x)) for name in ("wav", "flac", "ogg")),
    *((f"head of {name}", True, head_of(name)) for name in FORMATS),
    ("too short", True, samples_of("wav", lambda x: x[:900])),
    ("channels cancel", True, samples_of("wav", lambda x: np.stack([x, -x], 1))),
    ("removed bytes", True, remove),
    ("second recording", True, append(None)),
    ("bytes behind", True, append(b"\xa5" * 9000)),
    ("tags behind", False, append(b"TAG" + bytes(125))),
    *((f"FLAC of {count} samples", True, flac_count(count)) for count in (2**36 - 1, 2**31, 40_000)),
    ("FLAC of 100 samples", True, flac_count(100)),
    ("A-law over PCM", True, as_alaw),
    *(("no audio", True, other_file) for _ in range(4)),
]  # fmt: skip


def contradicts(data: bytes) -> bool:
    """Return whether the header of a WAV contradicts itself or the size of the file, as far as a reader of it can tell."""
    if data[:4] != b"RIFF" or data[8:16] != b"WAVEfmt ":
        return True
    size, tag, channels, rate, byte_rate, _, bits = struct.unpack_from("<IHHIIHH", data, 16)
    at = 20 + size + size % 2
    if size < 16 or not channels or not rate or tag not in TAGS or data.find(b"data") < at - 1:
        return True
    return byte_rate != rate * channels * -(-bits // 8) or bits == 0  # a wrong align alone is ignored


def recordings(folder: Path, number: int, seed: int) -> list[Fault]:
    """Write damaged recordings and special files into a folder."""
    faults = special_files(folder, number >= 100)
    for index, (kind, detectable, mutate) in enumerate(drawn(MUTATIONS, number - len(faults))):
        data, suffix = mutate(np.random.default_rng([seed, index]), tone(index))
        path = folder / f"{index:03}{suffix}"
        path.write_bytes(data)
        if kind.startswith("header") and contradicts(data):
            detectable = True
        faults.append(Fault(kind, detectable=detectable, path=os.fsencode(path)))
    return faults


def special_files(folder: Path, bombs: bool) -> list[Fault]:
    """Write recordings with unusual names, files of other types, and, if wanted, small files that are hours long."""
    faults, content = [], encoded(tone(0), "wav")
    for number, name in enumerate([*map(os.fsencode, NAMES), b"not-utf8-\xff\xfe"]):
        path = os.fsencode(folder) + b"/" + name + b"%d.wav" % number
        with open(path, "wb") as file:
            file.write(content)
        faults.append(Fault("name", detectable=False, path=path))
    os.mkfifo(folder / "pipe.wav")
    os.symlink(folder / "absent.wav", folder / "dangling.wav")
    os.symlink(folder / "loop.wav", folder / "loop.wav")
    os.symlink("/dev/zero", folder / "device.wav")
    faults += [Fault("special file", path=os.fsencode(folder / f"{name}.wav")) for name in ("pipe", "dangling", "loop", "device")]
    if bombs:
        for name, write in {"bomb.flac": write_long_flac, "bomb.wav": write_sparse_wav}.items():
            write(folder / name)
            faults.append(Fault("bomb", path=os.fsencode(folder / name)))
    return faults


def write_long_flac(path: Path, hours: int = 20) -> None:
    """Write hours of a square wave at 8 kHz, which FLAC stores in some megabytes; in single precision they would take 2.3 GB."""
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16", format="FLAC") as file:
        block = np.tile(np.array([900, -900], np.int16), 8000 * 60)
        for _ in range(hours * 30):
            file.write(block)


def write_sparse_wav(path: Path) -> None:
    """Write the header of a WAV of three gigabytes, and a hole."""
    length = 3 * 2**30
    with open(path, "wb") as file:
        head = (b"RIFF", length + 36, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", length)
        file.write(struct.pack("<4sI4s4sIHHIIHH4sI", *head))
        file.truncate(HEADER + length)
