"""From a recording to the pieces that models see: the whole of it, windows, or segments and their windows.

Shapes: S samples.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from speaker_invariant_ser.data.audio import MIN_SECONDS, SAMPLE_RATE
from speaker_invariant_ser.data.conditions.ranges import TrainedRange, outside
from speaker_invariant_ser.data.formats.channels import MIX, MONO
from speaker_invariant_ser.errors import AudioError
from speaker_invariant_ser.inference.inputs import WINDOW, Input, cut_windows, decode
from speaker_invariant_ser.inference.parts.recording import Recording
from speaker_invariant_ser.inference.parts.segments import Segment
from speaker_invariant_ser.inference.parts.windows import Cut, Cutter, cut, to_samples
from speaker_invariant_ser.inference.settings import Settings

MIN_PIECE = round(MIN_SECONDS * SAMPLE_RATE)
FILE, SEGMENT = "file", "segment"


class Piece(NamedTuple):
    """Samples [S] that a model takes at once: of which region, and the sample of the recording at which they begin."""

    region: int
    start: int
    clip: np.ndarray


@dataclass
class Region:
    """A part of a recording that gets a row: the whole, or a segment.

    Attributes:
        level: `file` or `segment`.
        start: First sample.
        end: Sample after the last one, corrected to the end of the recording once that is known.
        speaker: The speaker, empty where unknown.
        warnings: What is wrong with it, although it is used.
        error: Why it has no pieces.
    """

    level: str
    start: int = 0
    end: int = 0
    speaker: str = ""
    warnings: list[str] = field(default_factory=list)
    error: str = ""


@dataclass
class Source:
    """One channel of a recording, whose pieces are read once, in order; the other attributes are complete after the last one.

    Attributes:
        item: The recording.
        channel: Name of the channel.
        settings: How it is cut.
        trained_range: Recording conditions that the models were trained on, if they know.
        watch: Is given the blocks of samples as they pass, for a picture; only where recordings are decoded in parts.
        regions: The parts that get rows.
        samples: Samples at 16 kHz.
        notes: Defects that leave the recording usable.
        error: Why it cannot be used, or not to its end.
    """

    item: Input
    channel: str
    settings: Settings
    trained_range: TrainedRange | None = None
    watch: "Watch | None" = None
    regions: list[Region] = field(default_factory=list)
    samples: int = 0
    notes: list[str] = field(default_factory=list)
    error: str = ""

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces; a recording that cannot be decoded has none, or those before the fault."""
        try:
            yield from self.parts() if self.settings.in_parts else self.whole()
        except AudioError as error:
            self.error = str(error)
        except MemoryError:
            self.error = f"{self.item.path}: does not fit into memory; cut it into parts"

    def whole(self) -> Iterator[Piece]:
        """Yield the recording, cut into equal pieces if it is longer than 30 s."""
        decoded = decode(0, self.item, self.channel)
        self.notes += decoded.notes
        if not isinstance(decoded.clip, np.ndarray):
            raise decoded.clip
        self.samples = len(decoded.clip)
        self.notes += self.conditions(decoded.clip)
        self.regions.append(Region(FILE, 0, self.samples))
        start = 0
        for window in cut_windows(decoded.clip):
            yield Piece(0, start, window)
            start += len(window)

    def parts(self) -> Iterator[Piece]:
        """Yield windows of the recording, or of its segments."""
        if self.item.reason:
            raise AudioError(f"{self.item.path}: {self.item.reason}")
        recording = Recording(self.item.path, MIX if self.channel == MONO else self.channel, self.notes)
        blocks = self.watch.watch(recording) if self.watch else recording
        segments = self.segments()
        try:
            if segments is None:
                self.regions.append(Region(FILE))
                yield from (Piece(0, window.start, window.clip) for window in cut(blocks, *self.lengths()))
            else:
                self.regions += [region_of(segment) for segment in segments]
                yield from cut_regions(blocks, self.regions, self.settings)
        finally:
            self.samples = recording.samples
        for region in self.regions:
            limit_region(region, self.samples)

    def conditions(self, clip: np.ndarray) -> list[str]:
        """Say in which recording conditions a recording is outside the range that the models were trained on."""
        return outside(self.trained_range, clip) if self.trained_range else []

    def lengths(self) -> tuple[int, int]:
        """Return window and hop in samples."""
        return to_samples(self.settings.window, self.settings.hop)

    def segments(self) -> Sequence[Segment] | None:
        """Return the segments of the recording in order: those that were given, or stretches of speech; None for neither."""
        if self.settings.segments is not None:
            return self.settings.segments.get(self.item.path, ())
        if not self.settings.vad:
            return None
        from speaker_invariant_ser.inference.parts.vad import speech

        return [Segment(*times) for times in speech(Recording(self.item.path, MIX if self.channel == MONO else self.channel))]


class Watch(Protocol):
    """Something that looks at the blocks of a recording as they pass, such as `report.timeline.Envelope`."""

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the blocks as they are."""


def region_of(segment: Segment) -> Region:
    """Return the part of a recording that a segment is."""
    return Region(SEGMENT, round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE), segment.speaker)


def limit_region(region: Region, samples: int) -> None:
    """Limit a region to a recording of so many samples, and say so; one that begins after it, or is too short, has an error."""
    seconds = samples / SAMPLE_RATE
    if region.level == FILE:
        region.end = samples
    elif region.start >= samples:
        region.error = (
            f"the segment begins at {region.start / SAMPLE_RATE:.3f} s, after the end of the recording ({seconds:.3f} s)"
        )
    elif region.end > samples:
        if region.end > samples + MIN_PIECE:  # times in tables are rounded
            region.warnings.append(f"the segment ends after the recording ({seconds:.3f} s)")
        region.end = samples
    if not region.error and region.end - region.start < MIN_PIECE:
        length = (region.end - region.start) / SAMPLE_RATE
        region.error = f"the segment of {length:.3f} s is too short, expected at least {MIN_SECONDS} s"


def cut_regions(blocks: Iterable[np.ndarray], regions: Sequence[Region], settings: Settings) -> Iterator[Piece]:
    """Yield pieces of the regions of a recording that comes in blocks [S]; no more is kept than the regions in progress need.

    Args:
        blocks: The recording.
        regions: In the order of their beginnings; they may overlap.
        settings: With a window, each region is cut into windows; otherwise into equal pieces of at most 30 s.
    """
    waiting, active, position = list(enumerate(regions))[::-1], dict[int, Cutter](), 0
    for block in blocks:
        while waiting and waiting[-1][1].start < position + len(block):
            index, region = waiting.pop()
            active[index] = Cutter(*lengths_for(region, settings))
        for index, cutter in list(active.items()):
            region = regions[index]
            yield from pieces_of(index, region, cutter.push(block[max(0, region.start - position) : region.end - position]))
            if region.end <= position + len(block):
                yield from pieces_of(index, region, active.pop(index).finish())
        position += len(block)
    for index, cutter in active.items():
        yield from pieces_of(index, regions[index], cutter.finish())


def lengths_for(region: Region, settings: Settings) -> tuple[int, int]:
    """Return window and hop in samples for a region."""
    if settings.window:
        return to_samples(settings.window, settings.hop)
    samples = max(1, region.end - region.start)
    length = -(-samples // -(-samples // WINDOW))
    return length, length


def pieces_of(index: int, region: Region, cuts: Iterable[Cut]) -> Iterator[Piece]:
    """Yield the windows of a region as pieces of the recording, without those that are too short for the features."""
    for window in cuts:
        if len(window.clip) >= MIN_PIECE:
            yield Piece(index, region.start + window.start, window.clip)
