"""Several channels into one: which of them, and what their mean leaves out.

Channels are compared by their correlation and their power, which are summed block by block.
"""

import math
from collections.abc import Sequence
from itertools import compress

import numpy as np

from speaker_invariant_ser.errors import SerError, shorten, unknown

MIX = "mix"
NAMES = ("left", "right")
MONO, EACH = "mono", "each"
CHOICES = (MIX, *NAMES)  # what a user can choose for one utterance of a file
ADVICE = "--channel chooses"
MIN_LOSS = 6.0  # dB that the mean is below the loudest channel; half of one channel alone is 6.02
MAX_DIFFERENT = 0.5  # correlation below which two channels hold different sounds
SILENT = 1e-14  # power of a sample that is rounding alone, as of a constant offset
MAX_SILENT = 60.0  # dB below the loudest channel from which another one counts as silent
MIN_ACTIVE = 30.0  # dB below the loudest channel up to which another one counts as active


def require_choice(channel: str, choices: Sequence[str] = CHOICES) -> str:
    """Return `channel`; raise SerError unless it is one of the choices."""
    if channel not in choices:
        raise SerError(f"--channel {channel}: {unknown('channel', channel, choices)}")
    return channel


def names_of(channels: int) -> list[str]:
    """Return the names of a file's channels.

    >>> names_of(1), names_of(2), names_of(3)
    (['mono'], ['left', 'right'], ['1', '2', '3'])
    """
    if channels == 1:
        return [MONO]
    return list(NAMES) if channels == len(NAMES) else [str(number) for number in range(1, channels + 1)]


def index_of(channel: str, channels: int) -> int | None:
    """Return the position of a channel by its name, None for the mean of all; a file with one channel has only that."""
    if channel == MIX or channels == 1:
        return None
    return NAMES.index(channel) if channel in NAMES else int(channel) - 1


def quiet_channels(power: np.ndarray) -> str:
    """Return the beginning of a note on the mean: which channels are silent beside the loudest, or that levels differ."""
    silent = list(compress(names_of(len(power)), power <= power.max() * 10 ** (-MAX_SILENT / 10)))
    if not silent:
        return "its channels differ in level: their mean"
    if silent[0] in NAMES:
        return f"its {silent[0]} channel is silent: the mean of both"
    are = "channel {} is" if len(silent) == 1 else "channels {} are"
    return f"its {are.format(shorten(silent))} silent: the mean of all"


class Mixing:
    """Averages channels block by block, and compares them."""

    def __init__(self, channels: int) -> None:
        """Begin with no samples."""
        self.offset: np.ndarray | None = None  # constant offset of each channel in the first block: it is no sound
        self.count = 0
        self.sums = np.zeros(channels)  # over samples, without this offset
        self.products = np.zeros((channels, channels))  # sums of products of channels
        self.power = 0.0  # of their mean, as a sum over samples: a difference of products would be inexact where it is small

    def add(self, block: np.ndarray) -> np.ndarray:
        """Return the mean [S] over the channels of a block, float32 [S, channels]."""
        if self.offset is None and len(block):
            self.offset = block.mean(axis=0)
        sound = block - self.offset if self.offset is not None else block
        self.count += len(sound)
        self.sums += sound.sum(axis=0, dtype=np.float64)
        self.products += sound.T @ sound
        mean = sound.mean(axis=1)
        self.power += float(np.dot(mean, mean))
        return block.mean(axis=1)

    def compared(self) -> tuple[np.ndarray, float]:
        """Return the sums of products of channels, and that of the squares of their mean, all without constant offsets."""
        samples = max(self.count, 1)
        power = self.power - float(self.sums.mean()) ** 2 / samples
        return self.products - np.outer(self.sums, self.sums) / samples, max(power, 0.0)

    def notes(self) -> list[str]:
        """Return what a listener of single channels would hear and the mean does not hold, as notes."""
        products, mean_power = self.compared()
        power = np.diag(products)
        loudest = float(power.max(initial=0))
        if loudest <= SILENT * self.count:
            return []
        loss = 10 * math.log10(loudest / mean_power) if mean_power > 1e-10 * loudest else math.inf
        if loss > MIN_LOSS:
            amount = f"is {loss:.0f} dB below" if math.isfinite(loss) else "has nothing of"
            if mean_power < power.sum() / len(power) ** 2 / 2:
                return [f"its channels cancel each other (opposite signs?): their mean {amount} the loudest; {ADVICE}"]
            return [f"{quiet_channels(power)} {amount} the loudest; {ADVICE}"]
        return self.difference(products, loudest)

    def difference(self, products: np.ndarray, loudest: float) -> list[str]:
        """Return a note if two active channels hold different sounds."""
        power = np.diag(products)
        active = np.flatnonzero(power > loudest * 10 ** (-MIN_ACTIVE / 10))
        products = products[np.ix_(active, active)] / np.sqrt(np.outer(power[active], power[active]))
        lowest = float(products.min(initial=1))
        if lowest >= MAX_DIFFERENT:
            return []
        return [f"its channels hold different sounds (correlation {lowest:.2f}), perhaps two speakers, and are mixed; {ADVICE}"]
