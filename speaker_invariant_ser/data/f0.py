"""Fundamental frequency (F0) of utterances: the tracker, and the file of a prepared corpus that holds its results.

F0 is tracked with SwiftF0 (Nieradzik 2025), a small neural network whose weights come with the package `swift-f0`. Training reads
what was stored, inference calls the tracker: both get what `compute_f0` returns.

f0.f32 holds, for each utterance in the order of the manifest, its frames of F0 in Hz (0: unvoiced) and then its frames of voicing
confidence (0 to 1), little-endian float32. Positions follow from the manifest, because an utterance of S samples has
1 + S // 256 frames.
"""

import hashlib
import os
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.processes import TaskProgress

if TYPE_CHECKING:
    from swift_f0 import SwiftF0

F0 = "f0.f32"
HOP = 256  # samples between frames: 16 ms, the tracker's only hop
F0_RANGE = 60.0, 600.0  # Hz, of human speech; anything else counts as unvoiced
PEAK = 0.5  # peak amplitude that a clip is scaled to before tracking, because the tracker's silence threshold is absolute
VALUE = 4  # bytes of a value in the file
CHUNK = 16  # utterances that a worker tracks per task
MAX_PENDING = 8  # tasks in progress at once
REMEMBERED = 8192  # clips whose F0 a process keeps: each fold and each control of an evaluation asks for the same ones


@cache
def tracker() -> "SwiftF0":
    """Return the tracker of this process; it uses one thread, because results must not depend on the number of cores."""
    from swift_f0 import SwiftF0  # imports onnxruntime, which few commands need

    return SwiftF0(threads=1)


def tracker_version() -> str:
    """Return name and version of the tracker, on which its results depend."""
    return f"swift-f0 {version('swift-f0')}"


def frames_of(samples: int) -> int:
    """Return the number of F0 frames of a clip: frame t is centred on sample 256 t.

    >>> frames_of(255), frames_of(256)
    (1, 2)
    """
    return 1 + samples // HOP


def compute_f0(clip: np.ndarray) -> np.ndarray:
    """Track the fundamental frequency of a clip.

    Args:
        clip: Float32 [S] in [-1, 1] at 16 kHz, S at least 1.

    Returns:
        Float32 [2, 1 + S // 256]: F0 in Hz, and the confidence that the frame is voiced, 0 to 1. Frame t is centred on sample
        256 t, as log-mel frames with a hop of 16 ms are. F0 is 0 where none between 60 and 600 Hz was found. Digital silence
        is unvoiced.
    """
    peak = np.abs(clip).max()
    if peak == 0:
        return np.zeros((2, frames_of(len(clip))), dtype=np.float32)
    scaled = np.pad(clip.astype(np.float32) * np.float32(PEAK / peak), (0, HOP))  # for a last frame, as log-mels have it
    result = tracker().detect(scaled, audio.SAMPLE_RATE)
    low, high = F0_RANGE
    f0 = np.where((result.pitch_hz > low) & (result.pitch_hz < high), result.pitch_hz, 0)
    return np.stack((f0, result.confidence)).astype(np.float32)[:, : frames_of(len(clip))]


@cache
def remembered() -> OrderedDict[bytes, np.ndarray]:
    """Return the results that this process keeps, by the hash of the samples, the latest last."""
    return OrderedDict()


def track_f0(clip: np.ndarray) -> np.ndarray:
    """Return what `compute_f0` returns for a clip; the results for the latest clips are kept."""
    results, key = remembered(), hashlib.blake2b(np.ascontiguousarray(clip).data, digest_size=16).digest()
    if key not in results:
        results[key] = compute_f0(clip)
    results.move_to_end(key)
    if len(results) > REMEMBERED:
        results.popitem(last=False)
    return results[key].copy()


# The file


def first_values(utterances: Sequence[Utterance]) -> dict[int, int]:
    """Return the position in the file, in values, of the utterance whose audio begins at each offset."""
    sizes = (2 * frames_of(utterance.samples) for utterance in utterances)
    return dict(zip((utterance.offset for utterance in utterances), accumulate(sizes, initial=0), strict=False))


def file_bytes(utterances: Sequence[Utterance]) -> int:
    """Return the size of the file for a manifest."""
    return VALUE * sum(2 * frames_of(utterance.samples) for utterance in utterances)


def write_f0(
    path: Path, audio_path: Path, utterances: Sequence[Utterance], pool: Executor | None, progress: TaskProgress | None
) -> str:
    """Track F0 of all utterances, in parallel, and write it to a file; a part that exists is continued.

    Utterances are written in order, so that the size of a part says which are complete. What an interruption left of a further
    one is tracked again.

    Args:
        path: The file, under a temporary name.
        audio_path: The audio of the utterances, int16 one after another.
        utterances: Of the manifest, in its order.
        pool: Processes of `decoding.workers`, or None to track in this process.
        progress: Called with the task, utterances done and utterances in total.

    Returns:
        The SHA-256 of the file.
    """
    ends = [*accumulate((VALUE * 2 * frames_of(utterance.samples) for utterance in utterances), initial=0)]
    with open(path, "r+b" if path.exists() else "w+b") as file:
        held = file.seek(0, os.SEEK_END)
        done = max(number for number, end in enumerate(ends) if end <= held)
        file.truncate(ends[done])
        file.seek(ends[done])
        task = "tracking F0 (continued)" if done else "tracking F0"
        for tracked in track_all(audio_path, utterances[done:], pool):
            for values in tracked:
                file.write(values.astype("<f4").data)
            file.flush()
            done += len(tracked)
            if progress:
                progress(task, done, len(utterances))
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def track_all(audio_path: Path, utterances: Sequence[Utterance], pool: Executor | None) -> Iterator[list[np.ndarray]]:
    """Yield F0 [2, frames] of chunks of utterances, in order."""
    positions = [(utterance.offset, utterance.samples) for utterance in utterances]
    chunks = [positions[start : start + CHUNK] for start in range(0, len(positions), CHUNK)]
    if pool is None:
        yield from (track_chunk(audio_path, chunk) for chunk in chunks)
        return
    pending: deque[Future[list[np.ndarray]]] = deque()
    for chunk in chunks:
        if len(pending) == MAX_PENDING:
            yield pending.popleft().result()
        pending.append(pool.submit(track_chunk, audio_path, chunk))
    while pending:
        yield pending.popleft().result()


def track_chunk(audio_path: Path, positions: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Track some utterances of an audio file, given by offset and number of samples: the work of a worker process."""
    samples = np.memmap(audio_path, dtype="<i2", mode="r")
    return [compute_f0(audio.to_float32(samples[offset : offset + count])) for offset, count in positions]
