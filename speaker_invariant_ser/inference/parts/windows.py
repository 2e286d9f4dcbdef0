"""Cut long audio into overlapping windows, all at once or as it arrives: the same windows, whatever the blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import SerError

MIN_WINDOW, MAX_WINDOW = 0.5, 30.0  # seconds; features need some frames, and the models saw no longer recordings


@dataclass(frozen=True)
class Cut:
    """A window of a recording: its first sample, and its samples [S] at 16 kHz."""

    start: int
    clip: np.ndarray


class Cutter:
    """Cut audio that arrives in blocks into windows that begin at multiples of the hop.

    The last window ends with the audio and is as long as the others, so that no end is lost and no window is a short remainder.
    Audio shorter than a window is a single one. No more than a window, a hop and a block are kept.

    Args:
        window: Length of a window in samples.
        hop: Distance of the beginnings of windows in samples, at most `window`.

    Example:
        >>> cutter = Cutter(window=4, hop=2)
        >>> [cut.start for cut in cutter.push(np.zeros(7, np.float32))], [cut.start for cut in cutter.finish()]
        ([0, 2], [3])
    """

    def __init__(self, window: int, hop: int) -> None:
        self.window, self.hop = window, hop
        self.blocks: list[np.ndarray] = []
        self.first = 0  # sample at which the kept blocks begin
        self.total = 0  # samples so far
        self.start = 0  # where the next window begins

    def push(self, samples: np.ndarray) -> list[Cut]:
        """Add samples [S], and return the windows that they complete."""
        self.blocks.append(samples)
        self.total += len(samples)
        if self.total < self.start + self.window:
            return []
        kept, cuts = self.joined(), []
        while self.total >= self.start + self.window:
            begin = self.start - self.first
            cuts.append(Cut(self.start, kept[begin : begin + self.window].copy()))
            self.start += self.hop
        self.blocks = [kept[len(kept) - self.window :].copy()]  # the last window may need all of it
        self.first = self.total - self.window
        return cuts

    def finish(self) -> list[Cut]:
        """Return the last window, unless the audio ends with one that was returned already; nothing may be pushed after it."""
        covered = self.start - self.hop + self.window if self.start else 0
        if covered >= self.total:
            return []
        start = max(0, self.total - self.window)
        return [Cut(start, self.joined()[start - self.first :])]

    def joined(self) -> np.ndarray:
        """Return the samples that are kept."""
        return self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks)


def cut(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[Cut]:
    """Yield the windows of a recording that comes in blocks [S]."""
    cutter = Cutter(window, hop)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


def to_samples(window: float, hop: float) -> tuple[int, int]:
    """Return window and hop in samples at 16 kHz.

    Args:
        window: Seconds, 0.5 to 30.
        hop: Seconds, above 0 and at most `window`.

    Raises:
        SerError: A value is out of range.
    """
    if not MIN_WINDOW <= window <= MAX_WINDOW:
        raise SerError(f"window of {window:g} s: expected {MIN_WINDOW:g} to {MAX_WINDOW:g} s")
    samples = round(window * SAMPLE_RATE), round(hop * SAMPLE_RATE) if hop > 0 else 0
    if not 0 < samples[1] <= samples[0]:
        raise SerError(f"hop of {hop:g} s: expected more than 0 and at most the window, {window:g} s")
    return samples
