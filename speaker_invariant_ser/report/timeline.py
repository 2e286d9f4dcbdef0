"""Draw the timeline of a recording: waveform, probabilities of the emotions, and the emotion of each window or segment."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.formats.channels import MIX, MONO, NAMES
from speaker_invariant_ser.data.tables.names import file_key
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.inference.parts.pieces import Watch
from speaker_invariant_ser.inference.rows import NO_SPEECH, UNCERTAIN, Pending
from speaker_invariant_ser.inference.timeline import WindowPrediction
from speaker_invariant_ser.report.figure import STYLES, label
from speaker_invariant_ser.report.palette import COLOURS, GREY, INK

STEP = 320  # samples of a value of the envelope: 20 ms
COLUMNS = 2_000  # values of the envelope that are drawn
SIZE = (10.0, 4.2)  # inches
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)  # seconds between ticks, whole for the clock
MAX_TICKS = 10
MAX_STEM = 200  # bytes of a name; file systems allow 255, of which endings and temporary names need some
LETTER = 0.009  # share of the time axis that a letter of an emotion's name takes


class Envelope(Watch):
    """Peaks of a recording that goes by in blocks, one for every 20 ms."""

    def __init__(self) -> None:
        """Begin without samples."""
        self.peaks: list[np.ndarray] = []
        self.rest = np.zeros(0, np.float32)

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the blocks as they are, and note their peaks."""
        for block in blocks:
            joined = np.abs(np.concatenate([self.rest, block]))
            whole = len(joined) // STEP * STEP
            self.peaks.append(joined[:whole].reshape(-1, STEP).max(axis=1))
            self.rest = joined[whole:]
            yield block

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Return time in seconds and peak of what is drawn, at most about `COLUMNS` values."""
        last = [self.rest.max(keepdims=True)] if self.rest.size else []
        peaks = np.concatenate([*self.peaks, *last]) if self.peaks or last else np.zeros(1, np.float32)
        width = -(-len(peaks) // COLUMNS)
        columns = np.pad(peaks, (0, -len(peaks) % width)).reshape(-1, width).max(axis=1)
        return (np.arange(len(columns)) + 0.5) * width * STEP / SAMPLE_RATE, columns


@dataclass
class TimelinePlots:
    """Draw the timeline of each recording into a folder, as NAME.timeline.png.

    Attributes:
        folder: The folder.
        names: Names of the pictures by recording, see `picture_names`.
        emotions: All that the models know: an emotion has the same colour in every picture of them.
        min_confidence: Below it a window or segment is drawn as "uncertain".
    """

    folder: Path
    names: Mapping[Path, str] = field(repr=False)
    emotions: Sequence[str] = ()
    min_confidence: float = 0.0

    def watch(self) -> Envelope:
        """Return what looks at the blocks of a recording as they pass."""
        return Envelope()

    def draw(self, pending: Pending, labels: Sequence[str]) -> None:
        """Draw a recording, unless it could not be decoded."""
        source = pending.source
        if source.error or not isinstance(source.watch, Envelope):
            return
        windows = [
            WindowPrediction.of(piece.start, piece.end, piece.outcome.probability, labels)
            for piece in pending.predicted
            if piece.outcome.probability is not None
        ]
        windows = [
            replace(window, emotion=UNCERTAIN) if window.confidence < self.min_confidence else window for window in windows
        ]
        windows.sort(key=lambda window: (window.start, window.end))
        channel = "" if source.channel in (MIX, MONO) else f" ({source.channel})"
        ending = "" if source.channel in (MIX, MONO) else f"-{source.channel}"
        path = self.folder / f"{self.names[source.item.path]}{ending}.timeline.png"
        draw_timeline(path, f"{source.item.path.name}{channel}", source.watch, windows, self.emotions)


def picture_names(paths: Sequence[Path], channels: bool = False) -> dict[Path, str]:
    """Return a name for the picture of each recording: that of the file without its ending, numbered where several have it.

    Names that differ in case alone count as the same, as many file systems take them as one.

    Args:
        paths: The recordings.
        channels: Whether pictures of channels have the channel added to the name, as in `x-left`: a recording that is called so
            is numbered, too.

    >>> picture_names([Path("a/x.wav"), Path("b/x.wav"), Path("b/y.wav")])
    {PosixPath('a/x.wav'): 'x-1', PosixPath('b/x.wav'): 'x-2', PosixPath('b/y.wav'): 'y'}
    >>> picture_names([Path("x.wav"), Path("x-left.wav")], channels=True)
    {PosixPath('x.wav'): 'x', PosixPath('x-left.wav'): 'x-left-1'}
    """
    stems = {path: stem_of(path) for path in paths}
    keys = {path: file_key(stem) for path, stem in stems.items()}
    counts = Counter(keys.values())
    if channels:
        counts.update([key for key in counts if without_channel(key) in counts])
    used = {key for key, number in counts.items() if number == 1}
    numbers = {key: count(1) for key in counts}
    names = {}
    for path, stem in stems.items():
        numbered = (f"{stem}-{number}" for number in numbers[keys[path]])
        names[path] = stem if counts[keys[path]] == 1 else next(name for name in numbered if file_key(name) not in used)
        used.add(file_key(names[path]))
    return names


def without_channel(stem: str) -> str | None:
    """Return a name without the channel at its end; None if it has none."""
    name, _, channel = stem.rpartition("-")
    return name if channel in NAMES or channel.isdecimal() else None


def stem_of(path: Path) -> str:
    """Return the name of a file without its ending, cut where the names of its pictures would be too long."""
    name = os.fsencode(path.stem)
    return path.stem if len(name) <= MAX_STEM else name[:MAX_STEM].decode("utf-8", "ignore")


def draw_timeline(
    path: Path, title: str, envelope: Envelope, windows: Sequence[WindowPrediction], emotions: Sequence[str] = ()
) -> None:
    """Draw a timeline as PNG, or in the format of another ending that matplotlib knows.

    Args:
        path: The file to write.
        title: What the recording is called.
        envelope: Its peaks.
        windows: Predictions, in order; they may overlap, and there may be gaps between them. Digital silence is a gap.
        emotions: All that the model knows, in its order, which gives them their colours; by default those of the windows.

    Raises:
        WriteError: The file cannot be written.
    """
    times, peaks = envelope.drawn()
    windows = [window for window in windows if window.emotion != NO_SPEECH]
    end = max([times[-1], *(window.end for window in windows)])
    with style.context(STYLES):
        figure = Figure(SIZE, layout="constrained")
        wave, probability, emotion = figure.subplots(3, 1, sharex=True, height_ratios=(2, 4, 1))
        wave.fill_between(times, -peaks, peaks, color=GREY, linewidth=0)
        wave.set(ylim=(-1, 1), yticks=[], title=label(title, 90))
        labels = list(windows[0].probabilities) if windows else []
        colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(emotions or labels)}
        draw_probabilities(probability, windows, [colours[name] for name in labels])
        draw_emotions(emotion, windows, colours, end)
        emotion.set(xlim=(0, end), xlabel="time")
        emotion.xaxis.set_major_locator(MultipleLocator(tick_step(end)))
        emotion.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds, end)))
        patches = [Patch(color=colours[name]) for name in labels]
        figure.legend(patches[::-1], [label(name) for name in labels[::-1]], loc="outside right center")  # as they are stacked
        with writing(path, "wb") as file:
            figure.savefig(file, format=path.suffix.lstrip(".") or "png")


def stretches(windows: Sequence[WindowPrediction]) -> Iterator[tuple[float, float, WindowPrediction]]:
    """Yield (start, end, window) without overlaps: windows that overlap meet in the middle between their centres."""
    centres = [(window.start + window.end) / 2 for window in windows]
    for index, window in enumerate(windows):
        start, end = window.start, window.end
        if index and windows[index - 1].end > start:
            start = (centres[index - 1] + centres[index]) / 2
        if index + 1 < len(windows) and windows[index + 1].start < end:
            end = (centres[index] + centres[index + 1]) / 2
        if end > start:
            yield start, end, window


def draw_probabilities(axes: Axes, windows: Sequence[WindowPrediction], colours: Sequence[str]) -> None:
    """Draw the probabilities of each stretch on top of each other, each emotion in its colour."""
    edges, heights = [], []
    for start, end, window in stretches(windows):
        values = list(window.probabilities.values())
        edges += [start, start, end, end]
        heights += [[0.0] * len(values), values, values, [0.0] * len(values)]
    if edges:
        axes.stackplot(edges, np.transpose(heights), colors=colours, linewidth=0)
    axes.set(ylim=(0, 1), ylabel="probability", yticks=[0, 0.5, 1])


def draw_emotions(axes: Axes, windows: Sequence[WindowPrediction], colours: Mapping[str, str], end: float) -> None:
    """Draw the emotion of neighbouring stretches that agree as one bar with its name; what has no colour is grey."""
    for first, last, name in runs(windows):
        axes.barh(0, last - first, left=first, height=1, color=colours.get(name, GREY), linewidth=0)
        if last - first >= LETTER * len(name) * end:
            axes.text((first + last) / 2, 0, label(name), ha="center", va="center", color="white", fontsize=8.5, clip_on=True)
    axes.set(ylim=(-0.5, 0.5), yticks=[])
    axes.spines["left"].set_color(INK)


def runs(windows: Sequence[WindowPrediction]) -> list[tuple[float, float, str]]:
    """Return (start, end, emotion) of stretches, joined where they touch and agree."""
    joined: list[tuple[float, float, str]] = []
    for start, end, window in stretches(windows):
        if joined and joined[-1][2] == window.emotion and start - joined[-1][1] < 1e-6:
            joined[-1] = (joined[-1][0], end, window.emotion)
        else:
            joined.append((start, end, window.emotion))
    return joined


def tick_step(end: float) -> int:
    """Return the seconds between two ticks of an axis: a round number for a clock, for about ten ticks at most.

    >>> tick_step(0.5), tick_step(18.2), tick_step(400), tick_step(36_000)
    (1, 2, 60, 3600)
    """
    return next((step for step in TICKS if end / step <= MAX_TICKS), max(TICKS[-1], round(end / MAX_TICKS)))


def clock(seconds: float, end: float) -> str:
    """Write a time as a clock does.

    >>> clock(75, 100), clock(75, 7200), clock(7, 20)
    ('1:15', '0:01:15', '0:07')
    """
    minutes, rest = divmod(round(seconds), 60)
    if end < 3600:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
