"""Corpora -> prepared corpus: decode in parallel, reject what is no use by name, measure, and put it all in one place.

A kill at any moment loses at most the few chunks being decoded; the next call goes on, and its result is the same to the byte.
"""

import csv
import hashlib
import io
import os
import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import numpy as np

from speaker_invariant_ser import audio
from speaker_invariant_ser.decoding import SLOT, Job, Result, Treatment, decode_chunk, from_json, slots, to_json
from speaker_invariant_ser.errors import AudioError, StoreError, shorten
from speaker_invariant_ser.files import refuse_existing, require_space, sha256, unfinished_folder, write_json
from speaker_invariant_ser.manifest import Listing, Utterance, check, combine, contradiction, settle, write_manifest
from speaker_invariant_ser.shortcuts import examine
from speaker_invariant_ser.store import AUDIO, FORMAT, MANIFEST, REJECTED, SETTINGS, WARNED, Store

DECODED = "decoded.i16"
CHUNK = 32  # utterances decoded as one piece of work
AHEAD = 8  # chunks in work at once; keeps memory flat, and is what a kill may cost
FEW = 64  # utterances that are decoded here and now
LIBRARIES = ("speaker-invariant-ser", "soundfile", "soxr")

Progress = Callable[[str, int, int], None]  # what, done, total
Remark = tuple[str, str]  # file, reason


def prepare(
    listings: Sequence[Listing],
    out: Path | str,
    treatment: Treatment = Treatment(),  # noqa: B008, it is frozen
    pool: Executor | None = None,
    progress: Progress | None = None,
    differences: Sequence[str] = (),
) -> Store:
    """Decode the listings' utterances into a new prepared corpus at `out`, and open it.

    What cannot be used is listed in rejected.csv with the reason, what is odd in warned.csv; the rest is kept. The result
    does not depend on how many workers are in the `pool` (of `decoding.workers`), nor on how often it was killed and called
    again. `differences` from what was expected are stored.
    Raises ManifestError for contradicting utterances, StoreError if every file is rejected, WriteError.
    """
    out = Path(out).resolve()
    refuse_existing(out, "prepare into a new folder, or remove this one first")
    listing, paths = combine([settle(one) for one in listings])
    check(listing.utterances, shorten(one.folder for one in listings), listing.rejected)
    tasks = [(str(path), u.start, u.end) for path, u in zip(paths, listing.utterances, strict=True)]
    require_space(out, estimate_bytes(tasks))
    with unfinished_folder(out, fingerprint(listing, tasks, treatment)) as (work, result):
        results, digest = ingest(tasks, work, treatment, pool, progress)
        judged = judge(listing.utterances, results, work / DECODED)
        if not judged.kept:
            raise StoreError(f"none of the {len(judged.rejected)} files can be used; the first: {judged.rejected[0][1]}")
        if judged.dropped:
            digest = copy_kept(judged, work / DECODED, result / AUDIO)
        else:
            link(work / DECODED, result / AUDIO)
        write_manifest(result / MANIFEST, judged.kept)
        write_remarks(result / REJECTED, [*listing.rejected, *judged.rejected])
        write_remarks(result / WARNED, judged.warned)
        write_json(result / SETTINGS, describe(result, listing, judged, treatment, digest, differences))
    return Store.open(out)


def fingerprint(listing: Listing, tasks: Sequence[Job], treatment: Treatment) -> str:
    """SHA-256 of all that decides the result: the request, the files' sizes and times, the libraries."""
    digest = hashlib.sha256()
    request = (listing.rejected, listing.note, asdict(treatment), CHUNK, FORMAT, [version(name) for name in LIBRARIES])
    digest.update(repr(request).encode())
    for utterance in listing.utterances:
        digest.update(repr(utterance).encode("utf-8", "surrogateescape"))
    for path in dict.fromkeys(path for path, _, _ in tasks):
        digest.update(repr((path, stamp(path))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def stamp(path: str) -> tuple[int, int]:
    """(bytes, time of change) of a file, by which another one would be noticed; zeros if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def estimate_bytes(tasks: Sequence[Job], sample: int = 50) -> int:
    """About how much the audio will take, from a few headers; the median, since a damaged one may claim anything."""
    seconds = []
    for path, start, end in tasks[:: max(1, len(tasks) // sample)]:
        try:
            frames, rate = (end - start, 1) if end else audio.probe(path)
        except AudioError:
            continue
        seconds.append(frames / rate)
    return int(np.median(seconds or [0]) * len(tasks) * audio.SAMPLE_RATE * 2)


def ingest(
    tasks: Sequence[Job], work: Path, treatment: Treatment, pool: Executor | None, progress: Progress | None
) -> tuple[list[Result], str]:
    """Decode in parallel, join in order into `work`. Returns a result for each task, and the SHA-256 of the audio.

    The journal has a line for each chunk that is joined: where its audio ends, and its results. After a kill, audio beyond
    the last whole line is cut off, and what the journal holds is not decoded again.
    """
    journal = Journal(work / "journal")
    results, done = journal.results, len(journal.results)
    with journal.file, open(work / DECODED, "r+b" if (work / DECODED).exists() else "w+b", buffering=0) as file:
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
    """What is joined so far, a line of JSON for each chunk; a line that a kill cut short does not count."""

    def __init__(self, path: Path) -> None:
        self.end, self.results, whole = 0, [], 0  # bytes of audio, what became of each utterance, bytes of the journal
        self.file = open(path, "a+b")  # noqa: SIM115, closed by who uses it
        self.file.seek(0)
        for line in self.file.read().splitlines(keepends=True):
            end, tab, results = line.decode().partition("\t")
            if not (tab and line.endswith(b"\n")):
                break
            self.end, whole = int(end), whole + len(line)
            self.results += from_json(results)
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
        file.truncate(2 * AHEAD * SLOT)
    for place, first in enumerate(range(0, len(tasks), CHUNK)):
        slot = place % AHEAD
        if len(waiting) == AHEAD:
            yield take(*waiting.popleft(), scratch)
        job = (decode_chunk, tasks[first : first + CHUNK], treatment, str(scratch), slot)
        waiting.append((slot, pool.submit(*job) if pool and len(tasks) > FEW else call(*job)))
    while waiting:
        yield take(*waiting.popleft(), scratch)


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


@dataclass(frozen=True)
class Judged:
    """What is kept, placed in the audio, with its results; what is rejected or warned of, with the reason."""

    kept: list[Utterance]
    results: list[Result]
    rejected: list[Remark]
    warned: list[Remark]
    dropped: bool  # whether audio that is not kept lies in the file


def judge(utterances: Sequence[Utterance], results: Sequence[Result], path: Path) -> Judged:
    """Place every decoded utterance in the audio at `path`; reject errors, and audio that is there twice."""
    offsets = np.cumsum([0, *(result.samples for result in results)])
    placed = [replace(u, offset=int(at), samples=r.samples) for u, r, at in zip(utterances, results, offsets, strict=False)]
    reasons = {index: result.error for index, result in enumerate(results) if result.error}
    twice = repeated_audio(placed, results, path)
    reasons |= twice
    kept = [index for index in range(len(placed)) if index not in reasons]
    warned = [(placed[index].source, note) for index in kept for note in results[index].notes]
    warned += overlaps([placed[index] for index in kept])
    return Judged(
        kept=[placed[index] for index in kept],
        results=[results[index] for index in kept],
        rejected=[(placed[index].source, reasons[index]) for index in sorted(reasons)],
        warned=warned,
        dropped=bool(twice),
    )


def repeated_audio(utterances: Sequence[Utterance], results: Sequence[Result], path: Path) -> dict[int, str]:
    """Index -> reason for all utterances whose audio, as prepared, is that of another one.

    Of copies that agree the first is kept; where speaker or emotion differ one label is wrong, and none can be trusted.
    """
    alike = defaultdict(list)
    for index, (utterance, result) in enumerate(zip(utterances, results, strict=True)):
        if not result.error:
            alike[utterance.samples, result.key].append(index)
    if all(len(group) == 1 for group in alike.values()):
        return {}
    samples, reasons = np.memmap(path, dtype="<i2", mode="r"), {}
    for group in (group for group in alike.values() if len(group) > 1):
        same = defaultdict(list)
        for index in group:
            one = utterances[index]
            same[samples[one.offset : one.offset + one.samples].tobytes()].append(index)
        for copies in (copies for copies in same.values() if len(copies) > 1):
            odd = contradiction([utterances[index] for index in copies])
            for place, index in enumerate(copies):
                other = utterances[copies[place == 0]].source
                if odd or place:
                    reasons[index] = f"the same audio as {other}" + (f", with {odd}" if odd else "")
    return reasons


def overlaps(utterances: Sequence[Utterance]) -> list[Remark]:
    """Segments of one file that share time under different speakers: one of them is heard in the other's clip."""
    by_time = sorted((u for u in utterances if u.end), key=lambda u: (u.source, u.start))
    return [
        (late.source, f"{late.start:g} to {late.end:g} s of speaker {late.speaker} overlaps speaker {early.speaker}'s")
        for early, late in pairwise(by_time)
        if early.source == late.source and late.start < early.end and early.speaker != late.speaker
    ]


def copy_kept(judged: Judged, decoded: Path, path: Path) -> str:
    """Write the audio of what is kept without the gaps between, and correct the offsets; returns the SHA-256."""
    samples, end, digest = np.memmap(decoded, dtype="<i2", mode="r"), 0, hashlib.sha256()
    with open(path, "wb") as file:
        for index, utterance in enumerate(judged.kept):
            clip = samples[utterance.offset : utterance.offset + utterance.samples].tobytes()
            file.write(clip)
            digest.update(clip)
            judged.kept[index] = replace(utterance, offset=end)
            end += utterance.samples
    return digest.hexdigest()


def link(source: Path, path: Path) -> None:
    """The file under a second name, or a copy of it where the file system knows no second names."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def write_remarks(path: Path, remarks: Sequence[Remark]) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason"])
        writer.writerows(remarks)


def describe(
    folder: Path, listing: Listing, judged: Judged, treatment: Treatment, digest: str, differences: Sequence[str]
) -> dict:
    """What prepare.json holds."""
    kept, rejected = judged.kept, len(listing.rejected) + len(judged.rejected)
    counts = {key: len({getattr(one, key) for one in kept} - {""}) for key in ("speaker", "emotion", "text")}
    samples = np.array([result.samples for result in judged.results])
    zeros = np.array([result.zeros for result in judged.results])
    levels = np.array([result.level for result in judged.results])
    return {
        "format": FORMAT,
        "sample_rate": audio.SAMPLE_RATE,
        "corpora": sorted({one.corpus for one in kept}),
        "note": listing.note,
        "treatment": asdict(treatment),
        "counts": {
            "utterances": len(kept),
            "rejected": rejected,
            "warned": len(judged.warned),
            **{f"{key}s": count for key, count in counts.items()},
        },
        "emotions": dict(sorted(Counter(one.emotion for one in kept).items())),
        "differences": list(differences),
        "shortcuts": examine(kept, samples / audio.SAMPLE_RATE, zeros / audio.SAMPLE_RATE, levels),
        "seconds": round(float(samples.sum()) / audio.SAMPLE_RATE, 3),
        "sha256": {AUDIO: digest, MANIFEST: sha256(folder / MANIFEST)},
        "versions": {name: version(name) for name in LIBRARIES},
    }
