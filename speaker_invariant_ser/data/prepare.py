"""Prepare corpora: decode them in parallel, reject unusable files with a reason, measure, and write one prepared corpus.

An interruption at any moment loses at most the chunks in progress. The next call resumes, and its result is byte-identical.
"""

import csv
import hashlib
import math
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.copies import copies_note, with_copies
from speaker_invariant_ser.data.decoding import Job, Result, Treatment
from speaker_invariant_ser.data.f0.frames import HOP
from speaker_invariant_ser.data.f0.stored import F0, file_bytes, write_f0
from speaker_invariant_ser.data.f0.tracker import TRACKER_VERSION
from speaker_invariant_ser.data.formats.identify import existing
from speaker_invariant_ser.data.manifest import (
    Listing,
    Utterance,
    combine,
    contradiction,
    remove_duplicates,
    require_valid,
    write_manifest,
)
from speaker_invariant_ser.data.parallel_decoding import CHUNK, DECODED, decode_to_file, scratch_bytes
from speaker_invariant_ser.data.prepared_corpus import AUDIO, FORMAT, MANIFEST, REJECTED, SETTINGS, WARNED, PreparedCorpus
from speaker_invariant_ser.data.shortcuts import channel_numbers, examine
from speaker_invariant_ser.data.tables.columns import cell_for_people
from speaker_invariant_ser.errors import AudioError, PreparedCorpusError, counted, shorten
from speaker_invariant_ser.files import (
    keep_own,
    locked,
    partial_of,
    refuse_existing,
    remove_leftovers,
    require_space,
    resolve_links,
    sha256,
    unfinished_folder,
    write_errors,
    write_json,
)
from speaker_invariant_ser.processes import TaskProgress, versions_of

LIBRARIES = ("soundfile", "soxr", "pyloudnorm")

Compare = Callable[[Sequence[Utterance]], list[str]]  # kept utterances -> differences from the expected counts
Remark = tuple[str, str]  # file, reason

RESUMABLE = (KeyboardInterrupt, BrokenProcessPool)  # after these, the next call resumes


def prepare(
    listings: Sequence[Listing],
    out: Path | str,
    treatment: Treatment = Treatment(),  # noqa: B008, it is frozen
    pool: Executor | None = None,
    progress: TaskProgress | None = None,
    compare: Compare = lambda kept: [],
    f0: bool = False,
) -> PreparedCorpus:
    """Decode the utterances of one or more listings into a new prepared corpus.

    Unusable files are listed in rejected.csv, suspicious but usable ones in warned.csv. The result depends neither on the number
    of workers nor on how often the preparation was interrupted and resumed.

    Args:
        listings: One listing per corpus.
        out: Folder of the prepared corpus; must be new or empty.
        treatment: Trimming and loudness normalisation; by default none.
        pool: Processes of `decoding.workers`, or None to decode in this process.
        progress: Called with the task, utterances done and utterances in total.
        compare: Compares the kept utterances with the expected counts; its sentences are stored as `differences`.
        f0: Whether to track F0 as well, which takes more than ten times as long as decoding.

    Returns:
        The opened prepared corpus.

    Raises:
        ManifestError: The utterances are invalid or contradict each other.
        PreparedCorpusError: Every file is rejected, or a worker process was killed.
        WriteError: `out` is not empty or cannot be written, or the disk has too little space.
    """
    out = resolve_links(out)
    remove_leftovers(out)
    refuse_existing(out, "prepare into a new folder, or remove this one first")
    folders = shorten(str(listing.folder) for listing in listings)
    listing, paths = combine([remove_duplicates(listing) for listing in listings])
    require_valid(listing.utterances, folders, listing.rejected, listing.unlabelled)
    tasks = [(str(existing(path)), u.start, u.end) for path, u in zip(paths, listing.utterances, strict=True)]
    held = size_of(partial_of(out) / DECODED)
    require_space(out, estimate_bytes(tasks) - held + scratch_bytes(len(tasks), pool))
    request = fingerprint(listing, tasks, treatment)
    with worker_death_reported(out), unfinished_folder(out, request, RESUMABLE) as (work, result):
        results, digest = decode_to_file(tasks, work, treatment, pool, progress)
        judged = judge(listing.utterances, results, work / DECODED)
        if not judged.kept:
            raise PreparedCorpusError(
                f"none of {counted(len(judged.rejected), 'file')} can be used; the first: {judged.rejected[0][1]}"
            )
        if judged.dropped:
            digest = copy_kept(judged, work / DECODED, result / AUDIO)
        else:
            link(work / DECODED, result / AUDIO)
        mark_copies(judged, result / AUDIO)
        write_manifest(result / MANIFEST, judged.kept)
        write_remarks(result / REJECTED, [*listing.rejected, *judged.rejected])
        write_remarks(result / WARNED, judged.warned)
        path_of = {utterance.id: path for utterance, path in zip(listing.utterances, paths, strict=True)}
        samples = np.memmap(result / AUDIO, dtype="<i2", mode="r")
        channel = channel_numbers(judged.kept, samples, [path_of[utterance.id] for utterance in judged.kept])
        description = describe(result, listing, judged, treatment, digest, compare(judged.kept), channel)
        if f0:
            with_f0(description, write_f0(work / F0, result / AUDIO, judged.kept, pool, progress))
            link(work / F0, result / F0)
        write_json(result / SETTINGS, description)
    return PreparedCorpus.open(out)


def add_f0(folder: Path | str, pool: Executor | None = None, progress: TaskProgress | None = None) -> PreparedCorpus:
    """Add F0 to a corpus that was prepared without it; nothing is done where it is there already.

    Audio and manifest stay as they are. After an interruption the next call continues.

    Args:
        folder: Folder of the prepared corpus.
        pool: Processes of `decoding.workers`, or None to track in this process.
        progress: Called with the task, utterances done and utterances in total.

    Returns:
        The prepared corpus with F0.

    Raises:
        PreparedCorpusError: The folder is not a prepared corpus, or a worker process was killed.
        WriteError: The folder cannot be written, or another process is adding F0 to it.
    """
    folder = resolve_links(folder)
    prepared = PreparedCorpus.open(folder)
    path = folder / F0
    if prepared.f0_start and sha256(path) == prepared.settings["sha256"][F0]:
        return prepared
    partial = partial_of(path).with_suffix(
        f".{TRACKER_VERSION.replace(' ', '-')}.partial"
    )  # another version would continue its own part
    with worker_death_reported(folder), write_errors(path), locked(path, "lock"):
        require_space(path, file_bytes(prepared.utterances))
        digest = write_f0(keep_own(partial), folder / AUDIO, prepared.utterances, pool, progress)
        description = with_f0(prepared.settings, digest)
        os.replace(partial, path)
        write_json(folder / SETTINGS, description)
    return PreparedCorpus.open(folder)


def with_f0(description: dict, digest: str) -> dict:
    """Add the hash of the F0 file and the tracker's version to the contents of prepare.json; return them."""
    description["sha256"][F0] = digest
    description["f0"] = {"tracker": TRACKER_VERSION, "hop": HOP}
    return description


@contextmanager
def worker_death_reported(out: Path) -> Iterator[None]:
    """Turn the death of a worker process into a PreparedCorpusError that says how to resume."""
    try:
        yield
    except BrokenProcessPool:
        raise PreparedCorpusError(
            f"{out} is incomplete: a worker process was killed, perhaps because memory ran out, or crashed on a damaged file; "
            "what is decoded is kept, the same command resumes (try --jobs 1)"
        ) from None


def fingerprint(listing: Listing, tasks: Sequence[Job], treatment: Treatment) -> str:
    """Return the SHA-256 of everything that determines the result: the request, file sizes and times, library versions."""
    digest = hashlib.sha256()
    versions = [*versions_of(*LIBRARIES).values(), TRACKER_VERSION]
    request = (listing.rejected, listing.note, asdict(treatment), CHUNK, FORMAT, versions)
    digest.update(repr(request).encode())
    for utterance in listing.utterances:
        digest.update(repr(utterance).encode("utf-8", "surrogateescape"))
    for path in dict.fromkeys(path for path, _, _ in tasks):
        digest.update(repr((path, stamp(path))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def stamp(path: str) -> tuple[int, int]:
    """Return size in bytes and modification time of a file, which reveal a change; zeros if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: an invalid path, which decoding reports
        return 0, 0
    return status.st_size, status.st_mtime_ns


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def estimate_bytes(tasks: Sequence[Job], sample: int = 50) -> int:
    """Estimate the bytes that the audio will need from some headers; by the median, because damaged headers may be far off."""
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
    """The utterances that are kept, with their position in the audio and their results, and the remarks about all others.

    `dropped` is True if the audio file contains utterances that are not kept.
    """

    kept: list[Utterance]
    results: list[Result]
    rejected: list[Remark]
    warned: list[Remark]
    dropped: bool


def judge(utterances: Sequence[Utterance], results: Sequence[Result], path: Path) -> Judged:
    """Set the position of every utterance in the audio at `path`; reject those with errors or with repeated audio."""
    offsets = np.cumsum([0, *(result.samples for result in results)])
    placed = [replace(u, offset=int(at), samples=r.samples) for u, r, at in zip(utterances, results, offsets, strict=False)]
    repeated = repeated_audio(placed, results, path)
    reasons = {index: result.error for index, result in enumerate(results) if result.error} | repeated
    kept = [index for index in range(len(placed)) if index not in reasons]
    names = file_names(placed)
    warned = [(names[index], note) for index in kept for note in results[index].notes]
    warned += overlaps([placed[index] for index in kept])
    return Judged(
        kept=[placed[index] for index in kept],
        results=[results[index] for index in kept],
        rejected=[(names[index], "; ".join((reasons[index], *results[index].notes))) for index in sorted(reasons)],
        warned=warned,
        dropped=bool(repeated),
    )


def file_names(utterances: Sequence[Utterance]) -> list[str]:
    """Return the names of files in rejected.csv and warned.csv: their path, after the corpus name if there are several."""
    if len({utterance.corpus for utterance in utterances}) == 1:
        return [utterance.source for utterance in utterances]
    return [f"{utterance.corpus}/{utterance.source}" for utterance in utterances]


def repeated_audio(utterances: Sequence[Utterance], results: Sequence[Result], path: Path) -> dict[int, str]:
    """Return the reason for every utterance to reject because another one has the same samples, by index.

    Of copies with the same labels the first is kept. Where speaker or emotion differ, one label is wrong and all copies are
    rejected. Across corpora only emotions are compared, because their speakers have different names in any case.
    """
    candidates = defaultdict(list)
    for index, (utterance, result) in enumerate(zip(utterances, results, strict=True)):
        if not result.error:
            candidates[utterance.samples, result.key].append(index)
    if all(len(group) == 1 for group in candidates.values()):
        return {}
    samples, names = np.memmap(path, dtype="<i2", mode="r"), file_names(utterances)
    reasons: dict[int, str] = {}
    for group in (group for group in candidates.values() if len(group) > 1):
        by_samples = defaultdict(list)
        for index in group:
            utterance = utterances[index]
            by_samples[samples[utterance.offset : utterance.offset + utterance.samples].tobytes()].append(index)
        for copies in (copies for copies in by_samples.values() if len(copies) > 1):
            reasons |= reasons_of_copies(copies, utterances, names)
    return reasons


def reasons_of_copies(copies: Sequence[int], utterances: Sequence[Utterance], names: Sequence[str]) -> dict[int, str]:
    """Return the reason for each of several utterances with the same samples that is rejected, by index."""
    same_corpus = len({utterances[index].corpus for index in copies}) == 1
    columns = ("emotion", "speaker") if same_corpus else ("emotion",)
    conflict = contradiction([utterances[index] for index in copies], columns)
    reasons = {}
    for number, index in enumerate(copies):
        other = names[copies[1] if number == 0 else copies[0]]
        if conflict or number:
            reasons[index] = f"the same audio as {other}" + (f", with {conflict}" if conflict else "")
    return reasons


def overlaps(utterances: Sequence[Utterance]) -> list[Remark]:
    """Report segments of one file that overlap in time but belong to different speakers."""
    files = defaultdict(list)
    for utterance, name in zip(utterances, file_names(utterances), strict=True):
        files[name].append(utterance)
    remarks = []
    for name, segments in ((name, segments) for name, segments in files.items() if len(segments) > 1):
        latest_end: dict[str, float] = {}  # by speaker
        for segment in sorted(segments, key=lambda segment: segment.start):
            others = [speaker for speaker, end in latest_end.items() if speaker != segment.speaker and end > segment.start]
            if others:
                remarks.append((name, f"{span(segment)} of speaker {segment.speaker} overlaps with speaker {shorten(others)}"))
            latest_end[segment.speaker] = max(latest_end.get(segment.speaker, 0.0), segment.end or math.inf)
    return remarks


def span(utterance: Utterance) -> str:
    """Return start and end of a segment as text."""
    return f"{utterance.start:g} to {utterance.end:g} s" if utterance.end else f"{utterance.start:g} s to the end"


def copy_kept(judged: Judged, decoded: Path, path: Path) -> str:
    """Write the audio of kept utterances without gaps, correct their offsets, and return the SHA-256 of the file."""
    samples, end, digest = np.memmap(decoded, dtype="<i2", mode="r"), 0, hashlib.sha256()
    with open(path, "wb") as file:
        for index, utterance in enumerate(judged.kept):
            clip = samples[utterance.offset : utterance.offset + utterance.samples].tobytes()
            file.write(clip)
            digest.update(clip)
            judged.kept[index] = replace(utterance, offset=end)
            end += utterance.samples
    return digest.hexdigest()


def mark_copies(judged: Judged, path: Path) -> None:
    """Find kept utterances that share audio; warn of near copies of other files whose speaker or emotion differ."""
    judged.kept[:] = with_copies(judged.kept, np.memmap(path, dtype="<i2", mode="r"))
    names = dict(zip((u.id for u in judged.kept), file_names(judged.kept), strict=True))
    first_of = {utterance.id: utterance for utterance in judged.kept}
    for utterance in judged.kept:
        first = first_of.get(utterance.copies, utterance)
        if first.source != utterance.source and (conflict := contradiction([first, utterance])):
            judged.warned.append((names[utterance.id], f"shares audio with {names[first.id]}, with {conflict}"))


def link(source: Path, path: Path) -> None:
    """Give a file a second name, or copy it where the file system does not support hard links."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def write_remarks(path: Path, remarks: Sequence[Remark]) -> None:
    """Write files and reasons as CSV, for people."""
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason"])
        writer.writerows(map(cell_for_people, remark) for remark in remarks)


def describe(
    folder: Path,
    listing: Listing,
    judged: Judged,
    treatment: Treatment,
    digest: str,
    differences: Sequence[str],
    channel: Mapping[str, np.ndarray],
) -> dict[str, object]:
    """Return the contents of prepare.json."""
    kept, rejected = judged.kept, len(listing.rejected) + len(judged.rejected)
    counts = {key: len({getattr(utterance, key) for utterance in kept} - {""}) for key in ("speaker", "emotion", "text")}
    samples = np.array([result.samples for result in judged.results])
    zeros = np.array([result.zeros for result in judged.results])
    levels = np.array([result.level for result in judged.results])
    removed = ["padding"] * bool(treatment.trim_db) + ["level"] * (treatment.loudness is not None)
    return {
        "format": FORMAT,
        "sample_rate": audio.SAMPLE_RATE,
        "corpora": sorted({utterance.corpus for utterance in kept}),
        "note": listing.note,
        "treatment": asdict(treatment),
        "counts": {
            "utterances": len(kept),
            "rejected": rejected,
            "warned": len(judged.warned),
            **{f"{key}s": count for key, count in counts.items()},
        },
        "emotions": dict(sorted(Counter(utterance.emotion for utterance in kept if utterance.emotion).items())),
        "unlabelled": sum(not utterance.emotion for utterance in kept),
        "notes": [*listing.notes, *copies_note(kept)],
        "differences": list(differences),
        "shortcuts": examine(kept, samples / audio.SAMPLE_RATE, zeros / audio.SAMPLE_RATE, levels, removed, channel),
        "seconds": round(float(samples.sum()) / audio.SAMPLE_RATE, 3),
        "sha256": {AUDIO: digest, MANIFEST: sha256(folder / MANIFEST)},
        "versions": versions_of(*LIBRARIES),
    }
