"""The file of a prepared corpus that holds F0. Training reads what is stored, inference calls the tracker: both get the same.

f0.f32 holds, for each utterance in the order of the manifest, its frames of F0 in Hz (0: unvoiced) and then its frames of voicing
confidence (0 to 1), little-endian float32. Positions follow from the manifest, because an utterance of S samples has
1 + S // 256 frames.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import accumulate
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.f0.frames import frames_of
from speaker_invariant_ser.data.f0.tracker import compute_f0
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.processes import TaskProgress

F0 = "f0.f32"
VALUE = 4  # bytes of a value in the file
CHUNK = 16  # utterances that a worker tracks per task
MAX_PENDING = 8  # tasks in progress at once


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
