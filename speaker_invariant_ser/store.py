"""The prepared corpus: a manifest beside one file of 16 kHz mono int16 audio, which is memory-mapped.

manifest.csv    who says what, and where each clip lies in the audio
audio.i16       all clips one after another, little-endian int16
prepare.json    settings, counts, hashes, versions
rejected.csv    file, reason
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from speaker_invariant_ser import audio
from speaker_invariant_ser.errors import AudioError, ManifestError, StoreError, shorten
from speaker_invariant_ser.files import new_folder, refuse_existing, require_space, sha256, write_json
from speaker_invariant_ser.manifest import Utterance, check, read_manifest, write_manifest

FORMAT = 1
AUDIO, MANIFEST, SETTINGS, REJECTED = "audio.i16", "manifest.csv", "prepare.json", "rejected.csv"
BLOCK = 64  # clips decoded ahead of the one being written: keeps memory flat

Progress = Callable[[int, int], None]  # done, total


def prepare(
    utterances: Sequence[Utterance],
    folder: Path | str,
    out: Path | str,
    note: str = "",
    jobs: int = 2,
    progress: Progress | None = None,
    rejected_before: Sequence[tuple[str, str]] = (),
) -> "Store":
    """Decode the utterances' sources (relative to `folder`) into a new prepared corpus at `out`, and open it.

    Files that cannot be used are listed in rejected.csv with the reason; the rest is kept. The result does not depend
    on `jobs`. Raises ManifestError for contradicting utterances, StoreError if every file is rejected, WriteError.
    """
    out = Path(out).resolve()
    refuse_existing(out, "prepare into a new folder, or remove this one first")
    check(utterances, folder)
    require_space(out, estimate_bytes(utterances, Path(folder)))
    with new_folder(out) as partial:
        kept, rejected = ingest(utterances, Path(folder), partial / AUDIO, jobs, progress)
        if not kept:
            raise StoreError(f"none of the {len(rejected)} files in {folder} can be used; the first: {rejected[0][1]}")
        write_manifest(partial / MANIFEST, kept)
        rejected = [*rejected_before, *rejected]
        write_rejected(partial / REJECTED, rejected)
        write_json(partial / SETTINGS, describe(partial, kept, rejected, note))
    return Store.open(out)


def estimate_bytes(utterances: Sequence[Utterance], folder: Path, sample: int = 50) -> int:
    """About how much the audio will take, from a few headers; the median, since a damaged one may claim anything."""
    seconds = []
    for utterance in utterances[:: max(1, len(utterances) // sample)]:
        try:
            frames, rate = audio.probe(folder / utterance.source)
        except AudioError:
            continue
        seconds.append(frames / rate)
    return int(np.median(seconds or [0]) * len(utterances) * audio.SAMPLE_RATE * 2)


def ingest(
    utterances: Sequence[Utterance], folder: Path, path: Path, jobs: int, progress: Progress | None
) -> tuple[list[Utterance], list[tuple[str, str]]]:
    """Decode in parallel, write in order. Returns the utterances kept, placed in the audio, and (file, reason) rejected."""
    kept, rejected, offset = [], [], 0
    with open(path, "wb") as file:
        decoded = decode_all([folder / utterance.source for utterance in utterances], jobs)
        for done, (utterance, clip) in enumerate(zip(utterances, decoded, strict=True), start=1):
            if isinstance(clip, AudioError):
                rejected.append((utterance.source, str(clip)))
            else:
                file.write(clip.astype("<i2").tobytes())
                kept.append(replace(utterance, offset=offset, samples=len(clip)))
                offset += len(clip)
            if progress:
                progress(done, len(utterances))
    return kept, rejected


def decode_all(paths: Sequence[Path], jobs: int) -> Iterator[np.ndarray | AudioError]:
    """int16 clips [S] in order, or the error in a clip's place. Threads suffice: decoder and resampler release the lock."""
    waiting = iter(paths)
    with ThreadPoolExecutor(jobs) as pool:
        while block := list(islice(waiting, BLOCK)):
            yield from pool.map(decode, block)


def decode(path: Path) -> np.ndarray | AudioError:
    try:
        return audio.to_int16(audio.read(path))
    except AudioError as error:
        return error


def write_rejected(path: Path, rejected: Sequence[tuple[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason"])
        writer.writerows(rejected)


def describe(folder: Path, kept: Sequence[Utterance], rejected: Sequence, note: str) -> dict:
    counts = {key: len({getattr(u, key) for u in kept} - {""}) for key in ("speaker", "emotion", "text")}
    return {
        "format": FORMAT,
        "sample_rate": audio.SAMPLE_RATE,
        "corpora": sorted({u.corpus for u in kept}),
        "note": note,
        "counts": {"utterances": len(kept), "rejected": len(rejected), **{f"{key}s": n for key, n in counts.items()}},
        "seconds": round(sum(u.samples for u in kept) / audio.SAMPLE_RATE, 3),
        "sha256": {name: sha256(folder / name) for name in (AUDIO, MANIFEST)},
        "versions": {name: version(name) for name in ("speaker-invariant-ser", "soundfile", "soxr")},
    }


@dataclass(frozen=True)
class Store:
    """An opened prepared corpus. Audio stays on disk until it is asked for."""

    folder: Path
    utterances: list[Utterance]
    audio: np.ndarray  # int16 [all samples], memory-mapped
    settings: dict

    @classmethod
    def open(cls, folder: Path | str) -> "Store":
        """Open a prepared corpus. Raises StoreError if the folder is not one, or its files do not fit together."""
        folder = Path(folder)
        missing = [name for name in (SETTINGS, MANIFEST, AUDIO) if not (folder / name).is_file()]
        if missing:
            reason = f"has no {shorten(missing)}" if folder.is_dir() else "does not exist"
            raise StoreError(f"{folder} is not a prepared corpus ({reason}); make one with `siser prepare`")
        settings = read_settings(folder / SETTINGS)
        if sha256(folder / MANIFEST) != settings["sha256"].get(MANIFEST):
            raise StoreError(
                f"{folder / MANIFEST} was changed since it was prepared (its hash differs); prepare the corpus again"
            )
        try:
            utterances = read_manifest(folder / MANIFEST)
        except ManifestError as error:
            raise StoreError(f"{folder} is damaged: {error}") from None
        needed = max((u.offset + u.samples for u in utterances), default=0)
        held = (folder / AUDIO).stat().st_size
        if held != 2 * needed or not needed:
            raise StoreError(
                f"{folder} is damaged: {AUDIO} has {held} bytes, the manifest speaks of {2 * needed}; prepare it again"
            )
        return cls(folder, utterances, np.memmap(folder / AUDIO, dtype="<i2", mode="r"), settings)

    def clip(self, index: int) -> np.ndarray:
        """One utterance: float32 [S] in [-1, 1) at 16 kHz."""
        utterance = self.utterances[index]
        return audio.to_float32(self.audio[utterance.offset : utterance.offset + utterance.samples])

    def indices(self, speakers: Sequence[str]) -> list[int]:
        """Positions of all utterances of these speakers."""
        wanted = set(speakers)
        return [index for index, utterance in enumerate(self.utterances) if utterance.speaker in wanted]


def read_settings(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is damaged: not valid JSON ({error}); prepare the corpus again") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise StoreError(f"{path}: written by another version; this one reads format {FORMAT}. Prepare the corpus again")
    if not isinstance(settings.get("sha256"), dict) or not isinstance(settings.get("corpora"), list):
        raise StoreError(f"{path} is damaged: no hashes or no corpora in it; prepare the corpus again")
    return settings
