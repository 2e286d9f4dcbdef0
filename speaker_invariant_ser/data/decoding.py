"""Decode, process and measure utterances: the work of one worker process of `prepare`.

A worker returns the samples of a chunk of utterances through a slot of a shared scratch file. Slots are reused, which costs less
than sending samples between processes.
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
from speaker_invariant_ser.data.formats.channels import MIX
from speaker_invariant_ser.data.formats.quiet import move_stderr
from speaker_invariant_ser.errors import AudioError
from speaker_invariant_ser.processes import bounded_jobs, set_up_worker

Job = tuple[str, float, float]  # path, start and end in seconds (end 0: end of the file)
Attempt = tuple[str, audio.Decoded | AudioError]  # path, and the decoded utterance or why it could not be decoded
SLOT = 2**21  # samples per slot, more than a chunk of ordinary utterances has
GROUP_SAMPLES = 2**21  # samples that are decoded before they are resampled
MAX_SECONDS = 300  # longest utterance; a recording of hours would have to fit into memory
TRIM_FRAME, TRIM_HOP = 400, 160  # samples of the frames whose level decides what is trimmed, and from one to the next
SILENCE = 1e-10  # power of such a frame that is no quieter than another
LOUDNESS_BLOCK = 0.4  # seconds, the block length of ITU-R BS.1770; a shorter utterance is one block


@dataclass(frozen=True)
class Treatment:
    """Processing of every utterance; by default channels are averaged, and nothing else is done.

    Attributes:
        trim_db: Trim both ends where they are more than this many dB below the peak, digital zeros included; 0 trims nothing.
        loudness: Loudness in LUFS (ITU-R BS.1770-4) that every utterance is normalised to, as far as its peak allows.
        channel: `mix` for the mean of all channels, `left` or `right`.
    """

    trim_db: float = 0.0
    loudness: float | None = None
    channel: str = MIX


class Result(NamedTuple):
    """The outcome of decoding one utterance: an `error`, or its length and the measurements for the checks of the corpus."""

    error: str = ""
    samples: int = 0
    zeros: int = 0  # number of digital zeros at both ends together
    level: float = 0.0  # RMS in dB relative to full scale
    key: int = 0  # checksum: equal for equal audio, and rarely otherwise
    notes: tuple[str, ...] = ()  # defects that leave the audio usable


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """Start `jobs` worker processes, at most one for each core; yield None for one job, which needs no process.

    Processes are used because an utterance takes a millisecond of many short calls, for which threads would compete for the
    interpreter lock. They are forked where that is fast and safe: on Linux, before a second thread runs. Call this early.
    """
    jobs = bounded_jobs(jobs)
    if jobs == 1:
        yield None
        return
    fork = sys.platform == "linux" and threading.active_count() == 1
    with ProcessPoolExecutor(jobs, get_context("fork" if fork else "spawn"), initializer=set_up_decoder) as pool:
        try:
            with warnings.catch_warnings():  # threads of linear algebra libraries are safe to fork
                warnings.simplefilter("ignore", DeprecationWarning)
                pool.submit(os.getpid)
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C the remaining work is not needed


def set_up_decoder() -> None:
    """Set up a worker process whose decoders print nothing."""
    set_up_worker()
    move_stderr()


def decode_chunk(jobs: Sequence[Job], treatment: Treatment, scratch: str, slot: int) -> tuple[list[Result], str]:
    """Decode a chunk of utterances into a slot of the scratch file.

    Args:
        jobs: Path, start and end of each utterance.
        treatment: Processing after resampling.
        scratch: Path of the scratch file.
        slot: Number of the slot.

    Returns:
        The results, and the path of a separate file with the samples if the slot is too small for them (otherwise empty).
    """
    results, position, overflow = [], slot * SLOT, ""
    for clip, result in decode_all(jobs, treatment):
        results.append(result)
        if not overflow and position + len(clip) > (slot + 1) * SLOT:
            overflow = f"{scratch}.{slot}"
            append(overflow, slots(scratch)[slot * SLOT : position])
        if overflow:
            append(overflow, clip)
        else:
            slots(scratch)[position : position + len(clip)] = clip
            position += len(clip)
    return results, overflow


def append(path: str, clip: np.ndarray) -> None:
    """Append samples to a file."""
    with open(path, "ab") as file:  # not ndarray.tofile, whose error does not say that the disk is full
        file.write(clip.data)


def decode_all(jobs: Sequence[Job], treatment: Treatment) -> Iterator[tuple[np.ndarray, Result]]:
    """Yield every utterance as int16 samples [S] at 16 kHz, empty if it cannot be used, and its result.

    Each step processes a group of utterances before the next step, which makes `prepare` nearly a tenth faster.
    """
    for group in groups_of(jobs, treatment.channel):
        for index, (path, decoded) in enumerate(group):
            group[index] = path, resample(path, decoded)
            del decoded  # free the original samples before the next utterance is resampled
        yield from [finish(path, decoded, treatment) for path, decoded in group]


def groups_of(jobs: Sequence[Job], channel: str = MIX) -> Iterator[list[Attempt]]:
    """Yield groups of (path, decoded utterance or error) that are small enough to bound memory."""
    group: list[Attempt] = []
    samples = 0
    for path, start, end in jobs:
        group.append((path, try_decode(path, start, end, channel)))
        if isinstance(group[-1][1], audio.Decoded):
            samples += len(group[-1][1].samples)
        if samples > GROUP_SAMPLES:
            yield group
            group, samples = [], 0
    yield group


def try_decode(path: str, start: float, end: float, channel: str) -> audio.Decoded | AudioError:
    """Decode one utterance; return the error if it cannot be decoded."""
    try:
        return audio.decode(path, start, end, MAX_SECONDS, channel)
    except AudioError as error:
        return error


def resample(path: str, decoded: audio.Decoded | AudioError) -> audio.Decoded | AudioError:
    """Resample an utterance to 16 kHz; return an error unchanged."""
    if isinstance(decoded, AudioError):
        return decoded
    try:
        return replace(decoded, samples=audio.resample(decoded, audio.SAMPLE_RATE), rate=audio.SAMPLE_RATE)
    except MemoryError:
        return AudioError(f"{path}: does not fit into memory; list its segments with the columns start and end")


def finish(path: str, decoded: audio.Decoded | AudioError, treatment: Treatment) -> tuple[np.ndarray, Result]:
    """Process, check, round to int16 and measure one utterance at 16 kHz."""
    notes: list[str] = []
    try:
        if isinstance(decoded, AudioError):
            raise decoded
        samples = decoded.samples
        if treatment.trim_db or treatment.loudness is not None:
            audio.check(samples, audio.SAMPLE_RATE, path, decoded.notes)
            samples, notes = apply_treatment(samples, treatment, path, decoded.notes)
        clip = audio.check(audio.to_int16(samples), audio.SAMPLE_RATE, path, decoded.notes)
    except AudioError as error:
        return np.zeros(0, np.int16), Result(error=str(error))
    return clip, Result(
        samples=len(clip),
        zeros=edge_zeros(clip),
        level=level_of(clip),
        key=zlib.crc32(clip[len(clip) // 2 :][:1024].data),
        notes=(*decoded.notes, *notes, *audio.silence_notes(clip, audio.SAMPLE_RATE)),
    )


@lru_cache(maxsize=1)
def slots(scratch: str) -> np.ndarray:
    """Return the scratch file as int16 in shared memory; cached, so that its pages stay mapped for every chunk."""
    return np.memmap(scratch, np.int16, mode="r+")


def to_json(results: Sequence[Result]) -> str:
    """Return results as one line of JSON."""
    return json.dumps(results)


def from_json(text: str) -> list[Result]:
    """Return the results that `to_json` wrote."""
    return [Result._make((*cells[:-1], tuple(cells[-1]))) for cells in json.loads(text)]


def apply_treatment(
    samples: np.ndarray, treatment: Treatment, path: str, known: Sequence[str] = ()
) -> tuple[np.ndarray, list[str]]:
    """Trim and normalise samples [S] at 16 kHz; return notes where that was impossible.

    Raises:
        AudioError: Too few are left; the reason ends with the notes that are `known`.
    """
    samples = audio.to_float32(samples)
    notes: list[str] = []
    if treatment.trim_db:
        samples = audio.check(trim(samples, treatment.trim_db), audio.SAMPLE_RATE, f"{path}, trimmed", known)
    if treatment.loudness is not None:
        samples, notes = normalise_loudness(samples, treatment.loudness)
    return samples, notes


def trim(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Remove the frames at both ends of samples [S] that are more than `decibels` below the loudest frame.

    Frames are centred on every `TRIM_HOP`-th sample; beyond the ends there is silence. What is cut is whole hops.
    """
    energy = np.concatenate([[0.0], np.square(samples, dtype=np.float64).cumsum()])
    centres = np.arange(0, len(samples) + 1, TRIM_HOP)
    first, last = ((centres + side * TRIM_FRAME // 2).clip(0, len(samples)) for side in (-1, 1))
    power = np.maximum((energy[last] - energy[first]) / TRIM_FRAME, SILENCE)
    loud = np.flatnonzero(power > power.max() * 10 ** (-decibels / 10))
    return samples[TRIM_HOP * loud[0] : TRIM_HOP * (loud[-1] + 1)]


def normalise_loudness(samples: np.ndarray, loudness: float) -> tuple[np.ndarray, list[str]]:
    """Scale samples [S] to `loudness` LUFS; add a note if full scale does not allow it, or if they are too quiet to measure."""
    import pyloudnorm

    block = min(LOUDNESS_BLOCK, (len(samples) - 1) / audio.SAMPLE_RATE)  # shorter than the audio also after rounding
    measured = pyloudnorm.Meter(audio.SAMPLE_RATE, block_size=block).integrated_loudness(samples.astype(np.float64))
    if not np.isfinite(measured):
        return samples, ["too quiet to measure its loudness (below -70 LUFS): not changed"]
    gain, max_gain = 10 ** ((loudness - measured) / 20), 1 / np.abs(samples).max()
    notes = [f"{loudness:g} LUFS would clip: scaled to full scale instead"] if gain > max_gain else []
    return (samples * min(gain, max_gain)).astype(np.float32), notes


def edge_zeros(clip: np.ndarray) -> int:
    """Return the number of digital zeros before the first and after the last non-zero sample of int16 [S]."""
    if clip[0] and clip[-1]:
        return 0
    nonzero = clip != 0
    return int(nonzero.argmax() + nonzero[::-1].argmax())


def level_of(clip: np.ndarray) -> float:
    """Return the RMS of int16 [S] in dB relative to full scale, estimated from every eighth sample."""
    samples = audio.to_float32(clip[::8])
    return round(10 * math.log10(max(float(np.dot(samples, samples)) / len(samples), 1e-10)), 2)
