"""What a worker process of `prepare` does: decode, treat and measure a chunk of utterances. Imports stay light, for a quick start.

A chunk is written as two files, NUMBER.i16 with its audio one clip after another and NUMBER.json with a line for each clip. The
second one appears last and under a temporary name first: where it stands, the chunk is done and never decoded again.
"""

import json
import os
import signal
import threading
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from speaker_invariant_ser import audio
from speaker_invariant_ser.errors import AudioError

Job = tuple[str, float, float]  # path, start and end in seconds (0: to the end)
QUIET_BLOCK = 0.4  # seconds, of BS.1770's loudness; shorter clips are one block


@dataclass(frozen=True)
class Treatment:
    """What is done to a clip beside resampling; by default nothing."""

    trim_db: float = 0.0  # cut what is more than this below the peak from both ends, digital zeros too; 0: keep all
    loudness: float | None = None  # LUFS that every clip is brought to (ITU-R BS.1770-4), as far as its peak allows


@dataclass(frozen=True)
class Result:
    """What became of one utterance: an `error`, or its length and what the checks of the corpus need."""

    error: str = ""
    samples: int = 0
    zeros: int = 0  # digital zeros at both ends together, samples
    level: float = 0.0  # RMS, dB below full scale
    key: int = 0  # equal for equal audio, and seldom otherwise
    notes: tuple[str, ...] = ()


def decode_chunk(jobs: Sequence[Job], treatment: Treatment, stem: str) -> None:
    """Decode `jobs` into `stem`.i16 and `stem`.json."""
    results = []
    with open(f"{stem}.i16", "wb") as file:
        for job in jobs:
            clip, result = decode_job(job, treatment)
            file.write(clip.astype("<i2", copy=False).data)
            results.append(result)
    with open(f"{stem}.new", "w", encoding="utf-8") as file:
        json.dump(to_rows(results), file)
    os.replace(f"{stem}.new", f"{stem}.json")


def decode_job(job: Job, treatment: Treatment) -> tuple[np.ndarray, Result]:
    """One utterance: int16 [S] at 16 kHz, empty if it cannot be used, and what became of it."""
    path, start, end = job
    try:
        decoded = audio.decode(path, start, end)
        samples = audio.resample(decoded, audio.SAMPLE_RATE, path)
        samples, notes = treat(samples, treatment, path)
    except AudioError as error:
        return np.zeros(0, np.int16), Result(error=str(error))
    clip = audio.to_int16(samples)
    level = float(np.sqrt(np.dot(samples, samples) / len(samples)))
    return clip, Result(
        samples=len(clip),
        zeros=edge_zeros(clip),
        level=round(20 * np.log10(level), 2),
        key=zlib.crc32(clip[len(clip) // 2 :][:4096].data),
        notes=(*decoded.notes, *notes),
    )


def treat(samples: np.ndarray, treatment: Treatment, path: str) -> tuple[np.ndarray, list[str]]:
    """Trim and level float32 [S] at 16 kHz as asked; notes say where that was not possible. Raises AudioError if little is left."""
    notes = []
    if treatment.trim_db:
        samples = audio.check(trim(samples, treatment.trim_db), audio.SAMPLE_RATE, f"{path}, trimmed")
    if treatment.loudness is not None:
        samples, reached = level_to(samples, treatment.loudness)
        notes = [] if reached else [f"{treatment.loudness} LUFS would clip: brought to full scale instead"]
    return samples, notes


def trim(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Without the frames at both ends that are `decibels` below the loudest one."""
    from librosa.effects import trim as trimmed  # slow to import, so only where it is asked for

    return trimmed(samples, top_db=decibels, frame_length=400, hop_length=160)[0]


def level_to(samples: np.ndarray, loudness: float) -> tuple[np.ndarray, bool]:
    """At `loudness` LUFS, or as loud as full scale allows, and which of the two. What has no loudness (all gated) stays."""
    import pyloudnorm

    block = min(QUIET_BLOCK, len(samples) / audio.SAMPLE_RATE)
    measured = pyloudnorm.Meter(audio.SAMPLE_RATE, block_size=block).integrated_loudness(samples.astype(np.float64))
    if not np.isfinite(measured):
        return samples, True
    gain, most = 10 ** ((loudness - measured) / 20), 1 / np.abs(samples).max()
    return (samples * min(gain, most)).astype(np.float32), gain <= most


def edge_zeros(clip: np.ndarray) -> int:
    """Digital zeros before the first and after the last other sample of int16 [S]."""
    sounding = clip != 0
    return int(sounding.argmax() + sounding[::-1].argmax())


def is_done(stem: Path) -> bool:
    """Whether the chunk is there as a whole."""
    row = stem.with_suffix(".json")
    return row.is_file() and row.stat().st_size > 0  # empty after a power cut


def read_results(stem: Path) -> list[Result]:
    """The results of a chunk that is done."""
    return from_rows(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8")))


def to_rows(results: Sequence[Result]) -> list[list]:
    return [list(astuple(result)) for result in results]


def from_rows(rows: Sequence[Sequence]) -> list[Result]:
    return [Result(*row[:-1], notes=tuple(row[-1])) for row in rows]


def serve() -> None:
    """Set up a worker: Ctrl-C is the main process's business, and without a main process there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    wait([parent_process().sentinel])
    os._exit(1)
