"""Many files -> one file of audio: decoded side by side, written in order, and taken up where a kill cut it short."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from uuid import uuid4

import numpy as np

from speaker_invariant_ser.data.decoding import SLOT, Job, Result, Treatment, decode_chunk, from_json, slots, to_json

DECODED = "decoded.i16"
CHUNK = 16  # utterances decoded as one piece of work
AHEAD = 6  # chunks in work at once; keeps memory flat, and is what a kill may cost
FEW = 64  # utterances that are decoded here and now

Progress = Callable[[str, int, int], None]  # what, done, total


def ingest(
    tasks: Sequence[Job], work: Path, treatment: Treatment, pool: Executor | None, progress: Progress | None
) -> tuple[list[Result], str]:
    """Decode in parallel, join in order into `work`. Returns a result for each task, and the SHA-256 of the audio.

    The journal has a line for each chunk that is joined: where its audio ends, and its results. After a kill, audio beyond
    the last whole line is cut off, and what the journal holds is not decoded again.
    """
    decoded = work / DECODED
    journal = Journal(work / "journal", decoded.stat().st_size if decoded.exists() else 0)
    results, done = journal.results, len(journal.results)
    with journal.file, open(decoded, "r+b" if decoded.exists() else "w+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > journal.end:
            file.truncate(journal.end)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256") if journal.end else hashlib.sha256()
        for clips, found in decode_all(tasks[done:], work, treatment, pool):
            write_whole(file, clips)
            digest.update(clips)
            results += journal.add(len(clips), found)
            if progress:
                progress("decoding (continued)" if done else "decoding", len(results), len(tasks))
    return results, digest.hexdigest()


def write_whole(file: io.FileIO, data: memoryview) -> None:
    """Write all of `data`; an unbuffered file may take a part of it, when the disk is nearly full."""
    written = file.write(data)
    while written < len(data):
        written += file.write(data[written:])


class Journal:
    """What is joined so far, a line of JSON for each chunk.

    A line that a kill cut short does not count, nor one that speaks of audio beyond the `held` bytes that a power cut left.
    """

    def __init__(self, path: Path, held: int) -> None:
        self.end, self.results, whole = 0, [], 0  # bytes of audio, what became of each utterance, bytes of the journal
        self.file = open(path, "a+b")  # noqa: SIM115, closed by who uses it
        self.file.seek(0)
        for line in self.file.read().splitlines(keepends=True):
            try:
                end, results = int(line.partition(b"\t")[0]), from_json(line.partition(b"\t")[2].decode())
            except (ValueError, TypeError, IndexError):
                break
            if not line.endswith(b"\n") or end > held or end != self.end + 2 * sum(result.samples for result in results):
                break
            self.end, whole = end, whole + len(line)
            self.results += results
        self.file.truncate(whole)

    def add(self, size: int, results: list[Result]) -> list[Result]:
        """Note that `size` more bytes are joined, of these results; returns them."""
        self.end += size
        self.file.write(f"{self.end}\t{to_json(results)}\n".encode())
        self.file.flush()
        return results


def decode_all(
    tasks: Sequence[Job], work: Path, treatment: Treatment, pool: Executor | None
) -> Iterator[tuple[memoryview, list[Result]]]:
    """The audio and results of all chunks in order, each as soon as it and all before it are decoded.

    A slot of the scratch file belongs to one chunk until that is taken; then to the chunk AHEAD places later.
    """
    waiting = deque()
    for former in work.glob("scratch-*"):
        former.unlink()
    scratch = work / f"scratch-{uuid4().hex}"  # a name of its own: a worker of a killed run may still write into that one's
    with open(scratch, "wb") as file:
        reserve(file, 2 * AHEAD * SLOT)
    for place, first in enumerate(range(0, len(tasks), CHUNK)):
        slot = place % AHEAD
        if len(waiting) == AHEAD:
            yield take(*waiting.popleft(), scratch)
        job = (decode_chunk, tasks[first : first + CHUNK], treatment, str(scratch), slot)
        waiting.append((slot, pool.submit(*job) if pool and len(tasks) > FEW else call(*job)))
    while waiting:
        yield take(*waiting.popleft(), scratch)


def reserve(file: io.BufferedWriter, size: int) -> None:
    """Give a file its size, and the room for it: shared memory on a full disk would end the process without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def call(work: Callable, *arguments: object) -> Future:
    """What a pool's `submit` does, here and now."""
    done = Future()
    done.set_result(work(*arguments))
    return done


def take(slot: int, begun: Future, scratch: Path) -> tuple[memoryview, list[Result]]:
    """The audio and results of a chunk, as soon as it is decoded."""
    results, spilled = begun.result()
    total = sum(result.samples for result in results)
    if not spilled:
        return slots(str(scratch))[slot * SLOT : slot * SLOT + total].data.cast("B"), results
    clips = np.memmap(spilled, np.int16, mode="r")
    os.unlink(spilled)  # what is mapped stays until it is let go
    return clips.data.cast("B"), results
