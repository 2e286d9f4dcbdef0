"""Corpora -> prepared corpus: decode in parallel, reject what is no use by name, measure, and put it all in one place.

A kill at any moment loses at most the few chunks being decoded; the next call goes on, and its result is the same to the byte.
"""

import csv
import hashlib
import math
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.decoding import Job, Result, Treatment
from speaker_invariant_ser.data.manifest import (
    Listing,
    Utterance,
    combine,
    contradiction,
    remove_duplicates,
    require_valid,
    write_manifest,
)
from speaker_invariant_ser.data.parallel_decoding import CHUNK, DECODED, Progress, ingest
from speaker_invariant_ser.data.prepared_corpus import AUDIO, FORMAT, MANIFEST, REJECTED, SETTINGS, WARNED, PreparedCorpus
from speaker_invariant_ser.data.shortcuts import examine
from speaker_invariant_ser.errors import AudioError, PreparedCorpusError, shorten
from speaker_invariant_ser.files import (
    partial_of,
    real,
    refuse_existing,
    require_space,
    sha256,
    sweep,
    unfinished_folder,
    write_json,
)

LIBRARIES = ("speaker-invariant-ser", "soundfile", "soxr", "librosa", "pyloudnorm")

Compare = Callable[[Sequence[Utterance]], list[str]]  # what is kept -> where it is not what was expected
Remark = tuple[str, str]  # file, reason

KEEP = (KeyboardInterrupt, BrokenProcessPool)  # what is decoded before these is taken up again


def prepare(
    listings: Sequence[Listing],
    out: Path | str,
    treatment: Treatment = Treatment(),  # noqa: B008, it is frozen
    pool: Executor | None = None,
    progress: Progress | None = None,
    compare: Compare = lambda kept: [],
) -> PreparedCorpus:
    """Decode the listings' utterances into a new prepared corpus at `out`, and open it.

    What cannot be used is listed in rejected.csv with the reason, what is odd in warned.csv; the rest is kept. The result
    does not depend on how many workers are in the `pool` (of `decoding.workers`), nor on how often it was killed and called
    again. What `compare` says of the kept utterances is stored as differences.
    Raises ManifestError for contradicting utterances, PreparedCorpusError if every file is rejected, WriteError.
    """
    out = real(out)
    sweep(out)
    refuse_existing(out, "prepare into a new folder, or remove this one first")
    listing, paths = combine([remove_duplicates(one) for one in listings])
    require_valid(listing.utterances, shorten(one.folder for one in listings), listing.rejected, listing.unlabelled)
    tasks = [(str(path), u.start, u.end) for path, u in zip(paths, listing.utterances, strict=True)]
    require_space(out, estimate_bytes(tasks) - size_of(partial_of(out) / DECODED))
    with told_of_dead_workers(out), unfinished_folder(out, fingerprint(listing, tasks, treatment), KEEP) as (work, result):
        results, digest = ingest(tasks, work, treatment, pool, progress)
        judged = judge(listing.utterances, results, work / DECODED)
        if not judged.kept:
            raise PreparedCorpusError(f"none of the {len(judged.rejected)} files can be used; the first: {judged.rejected[0][1]}")
        if judged.dropped:
            digest = copy_kept(judged, work / DECODED, result / AUDIO)
        else:
            link(work / DECODED, result / AUDIO)
        write_manifest(result / MANIFEST, judged.kept)
        write_remarks(result / REJECTED, [*listing.rejected, *judged.rejected])
        write_remarks(result / WARNED, judged.warned)
        write_json(result / SETTINGS, describe(result, listing, judged, treatment, digest, compare(judged.kept)))
    return PreparedCorpus.open(out)


@contextmanager
def told_of_dead_workers(out: Path) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise PreparedCorpusError(
            f"{out} is not done: a worker process was killed, perhaps for want of memory, or crashed on a damaged file; "
            "what is decoded is kept, the same command goes on (try --jobs 1)"
        ) from None


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
    except (OSError, ValueError):  # ValueError: no path can be like this, which decoding will tell
        return 0, 0
    return found.st_size, found.st_mtime_ns


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
    names = names_of(placed)
    warned = [(names[index], note) for index in kept for note in results[index].notes]
    warned += overlaps([placed[index] for index in kept])
    return Judged(
        kept=[placed[index] for index in kept],
        results=[results[index] for index in kept],
        rejected=[(names[index], reasons[index]) for index in sorted(reasons)],
        warned=warned,
        dropped=bool(twice),
    )


def names_of(utterances: Sequence[Utterance]) -> list[str]:
    """What files are called in the tables: their path, and of several corpora which one's."""
    if len({one.corpus for one in utterances}) == 1:
        return [one.source for one in utterances]
    return [f"{one.corpus}/{one.source}" for one in utterances]


def repeated_audio(utterances: Sequence[Utterance], results: Sequence[Result], path: Path) -> dict[int, str]:
    """Index -> reason for all utterances whose audio, as prepared, is that of another one.

    Of copies that agree the first is kept; where speaker or emotion differ one label is wrong, and none can be trusted.
    Across corpora only emotions are compared: their speakers have different names whoever they are.
    """
    alike = defaultdict(list)
    for index, (utterance, result) in enumerate(zip(utterances, results, strict=True)):
        if not result.error:
            alike[utterance.samples, result.key].append(index)
    if all(len(group) == 1 for group in alike.values()):
        return {}
    samples, reasons, names = np.memmap(path, dtype="<i2", mode="r"), {}, names_of(utterances)
    for group in (group for group in alike.values() if len(group) > 1):
        same = defaultdict(list)
        for index in group:
            one = utterances[index]
            same[samples[one.offset : one.offset + one.samples].tobytes()].append(index)
        for copies in (copies for copies in same.values() if len(copies) > 1):
            labels = ("emotion", "speaker") if len({utterances[index].corpus for index in copies}) == 1 else ("emotion",)
            odd = contradiction([utterances[index] for index in copies], labels)
            for place, index in enumerate(copies):
                other = names[copies[place == 0]]
                if odd or place:
                    reasons[index] = f"the same audio as {other}" + (f", with {odd}" if odd else "")
    return reasons


def overlaps(utterances: Sequence[Utterance]) -> list[Remark]:
    """Segments of one file that share time under different speakers: one of them is heard in the other's clip."""
    files = defaultdict(list)
    for one, name in zip(utterances, names_of(utterances), strict=True):
        files[name].append(one)
    found = []
    for name, segments in ((name, rows) for name, rows in files.items() if len(rows) > 1):
        until = {}  # speaker -> the latest end so far
        for one in sorted(segments, key=lambda one: one.start):
            others = [speaker for speaker, end in until.items() if speaker != one.speaker and end > one.start]
            if others:
                found.append((name, f"{span(one)} of speaker {one.speaker} overlaps speaker {shorten(others)}'s"))
            until[one.speaker] = max(until.get(one.speaker, 0.0), one.end or math.inf)
    return found


def span(one: Utterance) -> str:
    return f"{one.start:g} to {one.end:g} s" if one.end else f"{one.start:g} s to the end"


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
    treated = ["padding"] * bool(treatment.trim_db) + ["level"] * (treatment.loudness is not None)
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
        "emotions": dict(sorted(Counter(one.emotion for one in kept if one.emotion).items())),
        "unlabelled": sum(not one.emotion for one in kept),
        "differences": list(differences),
        "shortcuts": examine(kept, samples / audio.SAMPLE_RATE, zeros / audio.SAMPLE_RATE, levels, treated),
        "seconds": round(float(samples.sum()) / audio.SAMPLE_RATE, 3),
        "sha256": {AUDIO: digest, MANIFEST: sha256(folder / MANIFEST)},
        "versions": {name: version(name) for name in LIBRARIES},
    }
