"""Damaged wav files, 500 per kind of damage: nothing crashes or hangs, and only valid audio is kept."""

import csv
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import prepare_table

from speaker_invariant_ser.data import audio

MUTATIONS = 500
SECONDS = 0.25
FORMATS = [("PCM_16", 16_000, 1), ("PCM_24", 44_100, 2), ("FLOAT", 22_050, 1), ("ULAW", 8_000, 1), ("PCM_U8", 48_000, 2)]


def intact_file(folder: Path, number: int) -> bytes:
    """Return the bytes of an intact wav file with noise that depends on `number`."""
    subtype, rate, channels = FORMATS[number % len(FORMATS)]
    samples = np.random.default_rng(number).uniform(-0.3, 0.3, (int(SECONDS * rate), channels))
    path = folder / "intact.wav"
    soundfile.write(path, samples, rate, subtype=subtype)
    return path.read_bytes()


def flip_bytes(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Change up to eight bytes, most of them in the header."""
    for _ in range(rng.integers(1, 9)):
        limit = 64 if rng.random() < 0.7 else len(data)
        data[rng.integers(0, limit)] = rng.integers(0, 256)
    return data


def cut_and_paste(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Truncate the file, remove a part, repeat a part, or insert random bytes."""
    first, last = sorted(rng.integers(0, len(data), 2))
    inserted = rng.integers(0, 256, rng.integers(1, 400), dtype=np.uint8).tobytes()
    return [data[:first], data[:first] + data[last:], data[:last] + data[first:], data[:first] + inserted + data[first:]][
        rng.integers(4)
    ]


def falsify_header(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Write an extreme number into a header field that determines a size."""
    field, width = [(4, "I"), (16, "I"), (20, "H"), (22, "H"), (24, "I"), (28, "I"), (32, "H"), (34, "H")][rng.integers(8)]
    if rng.random() < 0.5:
        field, width = data.index(b"data") + 4, "I"
    maximum = 2 ** (8 * struct.calcsize(width)) - 1
    value = [0, 1, maximum, maximum // 2, maximum // 2 + 1, int(rng.integers(0, maximum))][rng.integers(6)]
    struct.pack_into(f"<{width}", data, field, value)
    return data


@pytest.mark.parametrize("mutate", [flip_bytes, cut_and_paste, falsify_header])
def test_damaged_files_are_rejected_or_decoded_to_valid_audio(tmp_path, mutate: Callable):
    rows, sizes = ["path,speaker,emotion"], {}
    for number in range(MUTATIONS):
        rng = np.random.default_rng([number, len(mutate.__name__)])
        data = bytes(mutate(bytearray(intact_file(tmp_path, number)), rng))
        (tmp_path / f"{number}.wav").write_bytes(data)
        sizes[f"{number}.wav"] = len(data)
        rows.append(f"{number}.wav,s{number % 4},e{number % 3}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    prepared = prepare_table(tmp_path / "t.csv", tmp_path / "data")
    with open(tmp_path / "data" / "rejected.csv", encoding="utf-8", newline="") as file:
        rejected = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    kept = {utterance.source for utterance in prepared.utterances}
    assert kept | set(rejected) == set(sizes) and not kept & set(rejected)
    assert rejected and kept, "some mutations should be rejected and some kept"
    assert all(reason for reason in rejected.values())
    for index, utterance in enumerate(prepared.utterances):
        clip = prepared.clip(index)
        decoded = audio.decode(tmp_path / utterance.source)
        assert np.isfinite(clip).all() and clip.any() and len(clip) == utterance.samples >= 1600
        assert len(clip) == pytest.approx(len(decoded.samples) * 16_000 / decoded.rate, abs=2)
        assert len(decoded.samples) <= sizes[utterance.source] * 2, "no more samples than the file has room for"
