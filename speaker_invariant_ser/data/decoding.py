"""What a worker process of `prepare` does: decode, treat and measure a chunk of utterances.

What a chunk becomes goes back through a slot of a scratch file that is used again and again: no way between processes is
cheaper.
"""

import json
import math
import os
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.errors import AudioError
from speaker_invariant_ser.processes import serve

Job = tuple[str, float, float]  # path, start and end in seconds (0: to the end)
SLOT = 2**21  # samples, more than a chunk of ordinary utterances has
HELD = 2**21  # samples decoded before they are resampled
LONGEST = 300  # seconds, of one utterance; a recording of hours would be held in memory at once
QUIET_BLOCK = 0.4  # seconds, of BS.1770's loudness; shorter clips are one block


@dataclass(frozen=True)
class Treatment:
    """What is done to a clip beside resampling; by default nothing."""

    trim_db: float = 0.0  # cut what is more than this below the peak from both ends, digital zeros too; 0: keep all
    loudness: float | None = None  # LUFS that every clip is brought to (ITU-R BS.1770-4), as far as its peak allows


class Result(NamedTuple):
    """What became of one utterance: an `error`, or its length and what the checks of the corpus need."""

    error: str = ""
    samples: int = 0
    zeros: int = 0  # digital zeros at both ends together, samples
    level: float = 0.0  # RMS, dB below full scale
    key: int = 0  # equal for equal audio, and seldom otherwise
    notes: tuple[str, ...] = ()


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """`jobs` processes that decode, or None for one job, which needs none.

    Processes, since a clip takes a millisecond of many short calls, for which threads would fight over the interpreter's
    lock. They are forked where that is quick and safe: on Linux, before anything runs in a second thread. Call this early.
    """
    if jobs == 1:
        yield None
        return
    fork = sys.platform == "linux" and threading.active_count() == 1
    with ProcessPoolExecutor(jobs, get_context("fork" if fork else "spawn"), initializer=serve) as pool:
        try:
            with warnings.catch_warnings():  # the threads of a linear algebra library count, and take care of themselves
                warnings.simplefilter("ignore", DeprecationWarning)
                pool.submit(os.getpid)
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C nobody waits for the rest


def decode_chunk(jobs: Sequence[Job], treatment: Treatment, scratch: str, slot: int) -> tuple[list[Result], str]:
    """Decode `jobs` into the slot, clip after clip: (their results, and the file that holds them if the slot is too small)."""
    results, place, spilled = [], slot * SLOT, ""
    for clip, result in decode_all(jobs, treatment):
        results.append(result)
        if not spilled and place + len(clip) > (slot + 1) * SLOT:
            spilled = f"{scratch}.{slot}"
            append(spilled, slots(scratch)[slot * SLOT : place])
        if spilled:
            append(spilled, clip)
        else:
            slots(scratch)[place : place + len(clip)] = clip
            place += len(clip)
    return results, spilled


def append(path: str, clip: np.ndarray) -> None:
    with open(path, "ab") as file:  # not tofile, whose error does not say that the disk is full
        file.write(clip.data)


def decode_all(jobs: Sequence[Job], treatment: Treatment) -> Iterator[tuple[np.ndarray, Result]]:
    """Every utterance as int16 [S] at 16 kHz, empty if it cannot be used, and what became of it.

    Step by step over a group of clips, not clip by clip: the whole of prepare is then nearly a tenth faster.
    """
    for group in groups_of(jobs):
        for place, (path, decoded) in enumerate(group):
            group[place] = path, resample(decoded)
            del decoded  # the long one, before the next comes
        yield from [finish(path, decoded, treatment) for path, decoded in group]


def groups_of(jobs: Sequence[Job]) -> Iterator[list[tuple[str, audio.Decoded | AudioError]]]:
    """(path, decoded or why not) of some jobs at a time, so few that memory stays flat whatever the length of the clips."""
    group, held = [], 0
    for path, start, end in jobs:
        try:
            decoded = audio.decode(path, start, end, LONGEST)
            held += len(decoded.samples)
        except AudioError as error:
            decoded = error
        group.append((path, decoded))
        del decoded
        if held > HELD:
            yield group
            group, held = [], 0
    yield group


def resample(decoded: audio.Decoded | AudioError) -> audio.Decoded | AudioError:
    """At 16 kHz; an error stays one."""
    if isinstance(decoded, AudioError):
        return decoded
    return replace(decoded, samples=audio.resample(decoded, audio.SAMPLE_RATE), rate=audio.SAMPLE_RATE)


def finish(path: str, decoded: audio.Decoded | AudioError, treatment: Treatment) -> tuple[np.ndarray, Result]:
    """Treat, check, round and measure one utterance at 16 kHz."""
    notes = []
    try:
        if isinstance(decoded, AudioError):
            raise decoded
        samples = decoded.samples
        if treatment != Treatment():
            samples, notes = treat(audio.check(samples, audio.SAMPLE_RATE, path), treatment, path)
        clip = audio.check(audio.to_int16(samples), audio.SAMPLE_RATE, path)
    except AudioError as error:
        return np.zeros(0, np.int16), Result(error=str(error))
    return clip, Result(
        samples=len(clip),
        zeros=edge_zeros(clip),
        level=level_of(clip),
        key=zlib.crc32(clip[len(clip) // 2 :][:1024].data),
        notes=(*decoded.notes, *notes),
    )


@lru_cache(maxsize=1)
def slots(scratch: str) -> np.ndarray:
    """The scratch file as int16 in shared memory; kept, since its pages are then at hand for every chunk."""
    return np.memmap(scratch, np.int16, mode="r+")


def to_json(results: Sequence[Result]) -> str:
    return json.dumps(results)


def from_json(text: str) -> list[Result]:
    return [Result(*cells[:-1], tuple(cells[-1])) for cells in json.loads(text)]


def treat(samples: np.ndarray, treatment: Treatment, path: str) -> tuple[np.ndarray, list[str]]:
    """Trim and level [S] at 16 kHz as asked; notes say where that was not possible. Raises AudioError if little is left."""
    samples, notes = audio.to_float32(samples), []
    if treatment.trim_db:
        samples = audio.check(trim(samples, treatment.trim_db), audio.SAMPLE_RATE, f"{path}, trimmed")
    if treatment.loudness is not None:
        samples, notes = level_to(samples, treatment.loudness)
    return samples, notes


def trim(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Without the frames at both ends that are `decibels` below the loudest one."""
    from librosa.effects import trim as trimmed  # slow to import, so only where it is asked for

    return trimmed(samples, top_db=decibels, frame_length=400, hop_length=160)[0]


def level_to(samples: np.ndarray, loudness: float) -> tuple[np.ndarray, list[str]]:
    """[S] at `loudness` LUFS, or a note why not: full scale allows less, or it is below the -70 LUFS where the measure begins."""
    import pyloudnorm

    block = min(QUIET_BLOCK, (len(samples) - 1) / audio.SAMPLE_RATE)  # less than the clip, whatever its length rounds to
    measured = pyloudnorm.Meter(audio.SAMPLE_RATE, block_size=block).integrated_loudness(samples.astype(np.float64))
    if not np.isfinite(measured):
        return samples, ["too quiet for a loudness to be measured: left as it is"]
    gain, most = 10 ** ((loudness - measured) / 20), 1 / np.abs(samples).max()
    notes = [f"{loudness:g} LUFS would clip: brought to full scale instead"] if gain > most else []
    return (samples * min(gain, most)).astype(np.float32), notes


def edge_zeros(clip: np.ndarray) -> int:
    """Digital zeros before the first and after the last other sample of int16 [S]."""
    if clip[0] and clip[-1]:
        return 0
    sounding = clip != 0
    return int(sounding.argmax() + sounding[::-1].argmax())


def level_of(clip: np.ndarray) -> float:
    """RMS of int16 [S] in dB below full scale, from every eighth sample, which is as good for a mean."""
    some = audio.to_float32(clip[::8])
    return round(10 * math.log10(max(float(np.dot(some, some)) / len(some), 1e-10)), 2)
