"""Decode many files in parallel into one audio file, in order, and resume after an interruption at any moment."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np

from speaker_invariant_ser.data.decoding import SLOT, Job, Result, Treatment, decode_chunk, from_json, slots, to_json
from speaker_invariant_ser.files import keep_own
from speaker_invariant_ser.processes import TaskProgress

DECODED = "decoded.i16"
CHUNK = 16  # utterances that a worker decodes per task
MAX_PENDING = 6  # chunks in progress at once; bounds memory, and the work that an interruption can lose
MIN_PARALLEL = 64  # up to this many utterances are decoded in the main process

ChunkResult = tuple[list[Result], str]  # what decode_chunk returns


def decode_to_file(
    tasks: Sequence[Job], work: Path, treatment: Treatment, pool: Executor | None, progress: TaskProgress | None
) -> tuple[list[Result], str]:
    """Decode utterances in parallel and write their samples in order to one file in `work`.

    A journal has one line for each chunk that is written: the end of its audio, and its results. After an interruption, audio
    beyond the last complete line is removed, and chunks in the journal are not decoded again.

    Args:
        tasks: Path, start and end of each utterance.
        work: Folder for the audio file, the journal and the scratch file; resumed if it holds an earlier journal.
        treatment: Processing after resampling.
        pool: Processes of `decoding.workers`, or None to decode in this process.
        progress: Called with the task, utterances done and utterances in total.

    Returns:
        A result for each task, and the SHA-256 of the audio file.
    """
    decoded = keep_own(work / DECODED)
    journal = Journal(keep_own(work / "journal"), decoded.stat().st_size if decoded.exists() else 0)
    results, done = journal.results, len(journal.results)
    with journal.file, open(decoded, "r+b" if decoded.exists() else "w+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > journal.end:
            file.truncate(journal.end)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256") if journal.end else hashlib.sha256()
        for samples, chunk_results in decode_all(tasks[done:], work, treatment, pool):
            write_all(file, samples)
            digest.update(samples)
            results += journal.add(len(samples), chunk_results)
            if progress:
                progress("decoding (continued)" if done else "decoding", len(results), len(tasks))
    return results, digest.hexdigest()


def write_all(file: io.FileIO, data: memoryview) -> None:
    """Write all of `data`; an unbuffered file may accept only a part at a time when the disk is nearly full."""
    written = file.write(data)
    while written < len(data):
        written += file.write(data[written:])


class Journal:
    """The chunks written so far, one line of JSON each.

    A line that an interruption truncated is ignored, and so is one for audio beyond the `held` bytes that are on the disk.

    Attributes:
        end: Number of bytes of audio that the lines describe.
        results: Results of the utterances that the lines describe.
        file: The journal, open for appending; to be closed by the caller.
    """

    def __init__(self, path: Path, held: int) -> None:
        self.end, complete = 0, 0  # bytes of audio and of the journal
        self.results: list[Result] = []
        self.file = open(path, "a+b")  # noqa: SIM115, closed by the caller
        self.file.seek(0)
        for line in self.file.read().splitlines(keepends=True):
            try:
                end, results = int(line.partition(b"\t")[0]), from_json(line.partition(b"\t")[2].decode())
            except (ValueError, TypeError, IndexError, RecursionError):
                break
            if not line.endswith(b"\n") or end > held or end != self.end + 2 * sum(result.samples for result in results):
                break
            self.end, complete = end, complete + len(line)
            self.results += results
        self.file.truncate(complete)

    def add(self, size: int, results: list[Result]) -> list[Result]:
        """Record a chunk with its number of bytes and its results; return the results."""
        self.end += size
        self.file.write(f"{self.end}\t{to_json(results)}\n".encode())
        self.file.flush()
        return results


def decode_all(
    tasks: Sequence[Job], work: Path, treatment: Treatment, pool: Executor | None
) -> Iterator[tuple[memoryview, list[Result]]]:
    """Yield the audio bytes and the results of all chunks in order.

    A slot of the scratch file is used by one chunk until its samples are yielded, then by a later one.
    """
    used = slots_used(len(tasks), pool)
    pending: deque[tuple[int, Future[ChunkResult]]] = deque()
    for leftover in work.glob("scratch-*"):
        leftover.unlink()
    scratch = work / f"scratch-{uuid4().hex}"  # unique, because a worker of a killed run may still write to the previous file
    with open(scratch, "wb") as file:
        allocate(file, scratch_bytes(len(tasks), pool))
    for number, first in enumerate(range(0, len(tasks), CHUNK)):
        slot = number % used
        if len(pending) == used:
            yield collect(*pending.popleft(), scratch)
        work_item = partial(decode_chunk, tasks[first : first + CHUNK], treatment, str(scratch), slot)
        pending.append((slot, pool.submit(work_item) if pool and used > 1 else run_now(work_item)))
    while pending:
        yield collect(*pending.popleft(), scratch)


def slots_used(utterances: int, pool: Executor | None) -> int:
    """Return how many chunks are in progress at once: one where they are decoded in this process."""
    return MAX_PENDING if pool and utterances > MIN_PARALLEL else 1


def scratch_bytes(utterances: int, pool: Executor | None) -> int:
    """Return the bytes of disk space that decoding some utterances needs besides its result."""
    return 2 * SLOT * slots_used(utterances, pool)


def allocate(file: io.BufferedWriter, size: int) -> None:
    """Allocate the disk space of a file: writing to shared memory on a full disk would kill the process without a message."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def run_now(work_item: Callable[[], ChunkResult]) -> Future[ChunkResult]:
    """Call a function in this process and return a completed future, like a pool's `submit`."""
    future: Future[ChunkResult] = Future()
    future.set_result(work_item())
    return future


def collect(slot: int, future: Future[ChunkResult], scratch: Path) -> tuple[memoryview, list[Result]]:
    """Wait for a chunk and return its audio bytes and results."""
    results, overflow = future.result()
    total = sum(result.samples for result in results)
    if not overflow:
        return slots(str(scratch))[slot * SLOT : slot * SLOT + total].data.cast("B"), results
    samples = np.memmap(overflow, np.int16, mode="r")
    os.unlink(overflow)  # the mapping stays valid after the file's name is removed
    return samples.data.cast("B"), results
