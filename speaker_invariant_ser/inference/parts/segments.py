"""Segments of recordings: read what a diariser has written, and find the segments of each recording.

RTTM, the format of the NIST Rich Transcription evaluations, has lines such as

    SPEAKER meeting 1 12.34 2.10 <NA> <NA> alice <NA> <NA>

with the recording, the channel, the start and the duration in seconds, and the speaker. A table has columns file, start, end and,
if there are speakers, speaker.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

from speaker_invariant_ser.data.formats.content import mistaken
from speaker_invariant_ser.data.formats.files import lines_in
from speaker_invariant_ser.data.formats.identify import existing
from speaker_invariant_ser.data.tables import names
from speaker_invariant_ser.errors import ManifestError, SerError, counted, shorten, shown
from speaker_invariant_ser.files import read_bytes

RTTM = ".rttm"
MAX_SECONDS = 1e8  # three years
MAX_AT_ONCE = 100  # segments that overlap: each keeps up to 30 s of its recording in memory
MAX_PATH = 4096  # characters
FIELDS = 8  # of a line of RTTM that are needed; two more may follow


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording: start and end in seconds, and the speaker, empty where unknown."""

    start: float
    end: float
    speaker: str = ""


def read_segments(path: Path | str) -> dict[str, list[Segment]]:
    """Read segments.

    Args:
        path: RTTM (.rttm), or a table (.csv, .tsv, .parquet) with columns file, start, end and perhaps speaker.

    Returns:
        Segments by the name of the recording as the file has it, sorted by start.

    Raises:
        ManifestError: The file cannot be read, or a line has no start before its end.
    """
    path = Path(path)
    listed = read_rttm(path) if path.suffix.lower() == RTTM else read_table(path)
    segments: dict[str, list[Segment]] = defaultdict(list)
    for line, file, start, end, speaker in listed:
        if not 0 <= start < end <= MAX_SECONDS:
            raise ManifestError(
                f"{path}, line {line}: a segment from {start:g} to {end:g} s; expected 0 <= start < end <= {MAX_SECONDS:g}"
            )
        segments[file].append(Segment(start, end, "" if names.is_missing(speaker) else names.clean(speaker)))
    if not segments:
        raise ManifestError(f"{path}: no segments")
    return {file: in_order(found) for file, found in segments.items()}


Line = tuple[int, str, float, float, str]  # number of the line, recording, start, end, speaker


def read_rttm(path: Path) -> list[Line]:
    """Read the SPEAKER lines of an RTTM file; lines of other types and comments (;;) are skipped."""
    if wrong := mistaken(path, "RTTM in UTF-8"):
        raise ManifestError(wrong)
    try:
        lines = lines_in(read_bytes(path).decode("utf-8-sig"))
    except FileNotFoundError:
        raise ManifestError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read as RTTM ({error})") from None
    return [read_line(path, number, text.split()) for number, text in enumerate(lines, 1) if text.startswith("SPEAKER")]


def read_line(path: Path, number: int, fields: Sequence[str]) -> Line:
    """Return a SPEAKER line of RTTM."""
    if len(fields) < FIELDS:
        raise ManifestError(
            f"{path}, line {number}: {counted(len(fields), 'field')}; expected SPEAKER file channel start duration <NA> <NA> "
            "speaker"
        )
    start, duration = number_of(path, number, fields[3]), number_of(path, number, fields[4])
    return number, fields[1], start, start + duration, fields[7]


def read_table(path: Path) -> list[Line]:
    """Read a table of segments."""
    from speaker_invariant_ser.data.tables.columns import read_rows  # here, because others do without pyarrow

    rows = read_rows(path, ("file", "start", "end"))
    return [
        (line, row["file"], number_of(path, line, row["start"]), number_of(path, line, row["end"]), row.get("speaker", ""))
        for line, row in enumerate(rows, 2)
    ]


def number_of(path: Path, line: int, text: str) -> float:
    """Return a time in seconds; raise ManifestError if it is no number."""
    try:
        return names.number_of(text)
    except ValueError:
        raise ManifestError(f"{path}, line {line}: {shown(text)} is no time in seconds") from None


def match(segments: Mapping[str, list[Segment]], recordings: Sequence[Path]) -> tuple[dict[Path, list[Segment]], list[str]]:
    """Find the segments of each recording, which may be named by its path, its name, or its name without the ending.

    Names may be in another normal form of Unicode, and have backslashes.

    Args:
        segments: Segments by recording, as `read_segments` returns them.
        recordings: The recordings.

    Returns:
        The segments of each recording that has any, and the names in `segments` that are no recording.

    Raises:
        SerError: A name fits two recordings, or too many segments overlap.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for recording in recordings:
        for name in {str(recording), str(recording.resolve()), recording.name, recording.stem}:
            by_name[names.same_key(name)].append(recording)
    found: dict[Path, list[Segment]] = defaultdict(list)
    missing = []
    for name, listed in segments.items():
        is_path = "\0" not in name and len(name) <= MAX_PATH  # `realpath` takes the square of the length
        path = os.path.realpath(existing(name)) if is_path else ""
        candidates = by_name.get(names.same_key(name)) or by_name.get(names.same_key(path), [])
        if len(candidates) > 1:
            raise SerError(f"segments of {name}: {shorten(map(str, candidates))} have this name; give paths in the table")
        if candidates:
            found[candidates[0]] += listed
        else:
            missing.append(name)
    ordered = {recording: in_order(listed) for recording, listed in found.items()}
    for recording, listed in ordered.items():
        require_few_at_once(recording, listed)
    return ordered, missing


def in_order(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments sorted by start, then by end."""
    return sorted(segments, key=lambda segment: (segment.start, segment.end))


def require_few_at_once(recording: Path, segments: Sequence[Segment]) -> None:
    """Raise SerError for segments in order of which more are in progress at once than memory is meant for."""
    ends: list[float] = []
    for segment in segments:
        while ends and ends[0] <= segment.start:
            heappop(ends)
        heappush(ends, segment.end)
        if len(ends) > MAX_AT_ONCE:
            raise SerError(
                f"segments of {recording}: {len(ends)} of them overlap at {segment.start:g} s; expected at most {MAX_AT_ONCE}"
            )
