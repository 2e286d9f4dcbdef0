"""Plots of the report. Scores are shares from 0 to 1, plotted in percent."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from speaker_invariant_ser.evaluation.certificate_parts import SeveralClips
from speaker_invariant_ser.evaluation.summary import SpeakerDifference
from speaker_invariant_ser.evaluation.summary_parts import ReliabilityBin, SpeakerResult
from speaker_invariant_ser.report.figure import add_legend, label
from speaker_invariant_ser.report.palette import BLUE, COLOURS, GREY, INK, MAX_CLASSES, RUST, class_style

MAX_ROWS = 30  # of a plot with one labelled row for each speaker or attacker
LABEL_HEIGHTS = [9, -9, 22, -22]  # of the labels of the trade-off plot over their points, points
LEFT_HALF = 60  # percent; labels of points to the left of it are on the right of them
# about how much of the trade-off plot text takes
CHARACTER, POINTS_PER_PERCENT = 1.7, 2.2  # width of a character, percent; points in the height of a percent


class Estimate(Protocol):
    """A value with its 95 % confidence interval, None where it is not defined."""

    @property
    def value(self) -> float:
        """The value, 0 to 1."""

    @property
    def low(self) -> float | None:
        """Lower end."""

    @property
    def high(self) -> float | None:
        """Upper end."""


@dataclass(frozen=True)
class Score:
    """An accuracy as a plot takes it."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TradeoffPoint:
    """A run in the trade-off plot: emotion UAR and accuracy of the strongest attacker."""

    label: str
    uar: Estimate
    attacker: Estimate
    colour: str


@dataclass(frozen=True)
class TradeoffChance:
    """Chance levels of the trade-off plot; `margin` is the highest upper bound that counts as chance. None is not drawn."""

    emotion: float | None = None
    speaker: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Points:
    """An embedding map: positions [P, 2], emotions [P] and speakers [P] of P utterances."""

    position: np.ndarray
    emotion: np.ndarray
    speaker: np.ndarray


def rows_height(rows: int) -> float:
    """Return the height of a plot with this number of rows, its axis and its legend, inches."""
    return 1.15 + 0.25 * rows if rows <= MAX_ROWS else 3.4


def plot_estimate(axes: Axes, along: str, estimate: Estimate, other: float, colour: str = BLUE, hollow: bool = False) -> None:
    """Draw a value in percent, with its interval along the x or y axis, at `other` on the other axis."""
    value = 100 * estimate.value
    if estimate.low is not None and estimate.high is not None:
        ends, fixed = [100 * estimate.low, 100 * estimate.high], [other] * 2
        x, y = (ends, fixed) if along == "x" else (fixed, ends)
        axes.plot(x, y, color=colour, linewidth=1.8, solid_capstyle="round")
    centre = (value, other) if along == "x" else (other, value)
    axes.plot(*centre, "o", color=colour, markersize=7, markerfacecolor="none" if hollow else colour, markeredgewidth=1.6)


def plot_tradeoff(
    axes: Axes, runs: Sequence[TradeoffPoint], chance: TradeoffChance, front: Sequence[int] = (), named: bool = True
) -> None:
    """Plot emotion UAR against the accuracy of the strongest attacker.

    Args:
        axes: Where to plot.
        runs: The points with their labels.
        chance: The chance levels.
        front: Positions of the runs on the Pareto front, which are joined by a line.
        named: Whether labels are names, written beside the points; otherwise they are numbers, written into them.
    """
    draw_tradeoff_chance(axes, chance)
    if named:
        axes.set(xlim=(0, 102), ylim=(0, 102))
    line = sorted((100 * runs[position].attacker.value, 100 * runs[position].uar.value) for position in front)
    if line:
        axes.plot(*zip(*line, strict=True), color=INK, linewidth=1, linestyle=":")
    for run in runs:
        plot_estimate(axes, "x", run.attacker, 100 * run.uar.value, run.colour)
        plot_estimate(axes, "y", run.uar, 100 * run.attacker.value, run.colour)
    heights = label_heights(runs) if named else []
    for position, run in enumerate(runs):
        x, y = 100 * run.attacker.value, 100 * run.uar.value
        if named:
            side, dx = ("left", 9) if x < LEFT_HALF else ("right", -9)
            axes.annotate(label(run.label), (x, y), (dx, heights[position]), textcoords="offset points", ha=side, va="center")
        else:
            axes.plot(x, y, "o", color=run.colour, markersize=13)
            axes.text(x, y, run.label, color="white", ha="center", va="center_baseline", fontsize=8.5, fontweight="bold")
    axes.set(ylabel="emotion UAR, %  (higher is better)", xlabel="strongest attacker's accuracy, %  (lower is better)")


def label_heights(runs: Sequence[TradeoffPoint]) -> list[int]:
    """Return how far above its point each label is to be, points: where it crosses the fewest labels and other runs."""
    heights = [0] * len(runs)
    labels: list[Bbox] = []
    for rank, position in enumerate(sorted(range(len(runs)), key=lambda position: -runs[position].uar.value)):
        taken = labels + [box for other, run in enumerate(runs) if other != position for box in interval_boxes(run)]
        candidates = LABEL_HEIGHTS if rank % 2 == 0 else [-height for height in LABEL_HEIGHTS]
        crossed = [label_box(runs[position], height).count_overlaps(taken) for height in candidates]
        heights[position] = candidates[int(np.argmin(crossed))]
        labels.append(label_box(runs[position], heights[position]))
    return heights


def label_box(run: TradeoffPoint, height: float) -> Bbox:
    """Return about where a label is that is `height` points above its point, in percent."""
    x, y = 100 * run.attacker.value, 100 * run.uar.value + height / POINTS_PER_PERCENT
    width = CHARACTER * len(label(run.label))
    left = x + 2 if x < LEFT_HALF else x - 2 - width
    return Bbox.from_extents(left, y - 2.5, left + width, y + 2.5)


def interval_boxes(run: TradeoffPoint) -> list[Bbox]:
    """Return about where the intervals of a run are, in percent."""
    (left, x, right), (low, y, high) = (
        [100 * (given.value if end is None else end) for end in (given.low, given.value, given.high)]
        for given in (run.attacker, run.uar)
    )
    return [Bbox.from_extents(left - 1, y - 1, right + 1, y + 1), Bbox.from_extents(x - 1, low - 1, x + 1, high + 1)]


def draw_tradeoff_chance(axes: Axes, chance: TradeoffChance) -> None:
    """Draw the chance levels of the trade-off plot."""
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5}
    if chance.speaker is not None:
        axes.axvline(100 * chance.speaker, color=RUST, linestyle="--", linewidth=1.2)
        axes.annotate("chance", (100 * chance.speaker, 1), (3, -2), xycoords=("data", "axes fraction"), va="top", **style)
    if chance.margin is not None:
        axes.axvspan(0, 100 * chance.margin, color=RUST, alpha=0.12, linewidth=0)
    if chance.emotion is not None:
        axes.axhline(100 * chance.emotion, color=GREY, linestyle="--", linewidth=1.2)
        axes.annotate("chance", (1, 100 * chance.emotion), (-2, 3), xycoords=("axes fraction", "data"), ha="right", **style)


def plot_confusion(axes: Axes, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Plot a confusion matrix, rows true, columns predicted, shaded by the share of the row."""
    cells = list(itertools.product(range(len(labels)), repeat=2))
    shares = np.array(counts) / np.maximum(1, np.sum(counts, axis=1, keepdims=True))
    boxes = [Rectangle((column - 0.48, row - 0.48), 0.96, 0.96) for row, column in cells]
    colours = [(*matplotlib.colors.to_rgb(BLUE), 0.04 + 0.56 * shares[cell]) for cell in cells]
    axes.add_collection(PatchCollection(boxes, facecolor=colours, linewidth=0))
    size = 9.5 if len(labels) <= 10 else 6
    for row, column in cells:
        axes.text(column, row, str(counts[row][column]), ha="center", va="center", fontsize=size)
    names = [label(emotion, 14) for emotion in labels]
    axes.set_xticks(range(len(labels)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5))
    axes.tick_params(length=0, labelsize=size)
    axes.spines[:].set_visible(False)


def plot_speakers(axes: Axes, speakers: Mapping[str, SpeakerResult], pooled: float, chance: float) -> None:
    """Plot each speaker's UAR, the highest at the top; more than 30 speakers are drawn without their names."""
    ranked = sorted(speakers, key=lambda speaker: speakers[speaker].uar)
    named = len(ranked) <= MAX_ROWS
    values = [100 * speakers[speaker].uar for speaker in ranked]
    axes.plot(values, range(len(ranked)), "o", color=BLUE, markersize=6 if named else 3)
    axes.plot(values[:1], [0], "o", color=RUST, markersize=6 if named else 4)
    if named:
        label_rows(axes, [f"{value:.0f} %" for value in values])
    axes.set_yticks(range(len(ranked)) if named else [], [label(speaker, 16) for speaker in ranked] if named else [])
    axes.set(xlim=(0, 100), ylim=(-0.7, len(ranked) - 0.3), xlabel="emotion UAR, %")
    axes.set_ylabel("speaker" if named else f"{len(ranked)} speakers, highest UAR at the top")
    draw_levels(axes, {"all speakers": (pooled, INK, "-"), "chance": (chance, GREY, "--")})


def plot_scores(
    axes: Axes, scores: Mapping[str, Estimate], chances: Mapping[str, float], hollow: Sequence[str] = (), marked: str = ""
) -> None:
    """Plot accuracies, one row each, the first at the top, with lines for chance levels.

    Args:
        axes: Where to draw.
        scores: Name of a row -> accuracy.
        chances: Name of a chance level -> accuracy.
        hollow: Rows drawn as open circles.
        marked: The row drawn in red.
    """
    names = list(scores)[::-1]
    for row, name in enumerate(names):
        plot_estimate(axes, "x", scores[name], row, RUST if name == marked else BLUE, name in hollow)
    label_rows(axes, [f"{100 * scores[name].value:.0f} %" for name in names])
    axes.set_yticks(range(len(names)), [label(name, 28) for name in names])
    axes.set(xlim=(0, 102), ylim=(-0.7, len(names) - 0.3), xlabel="speaker identification accuracy, %")
    styles = ((RUST, "-"), (RUST, "--"), (RUST, ":"), (GREY, "--"))
    draw_levels(axes, {name: (value, *style) for (name, value), style in zip(chances.items(), styles, strict=False)})


def label_rows(axes: Axes, texts: Sequence[str]) -> None:
    """Write one text at the right of each row."""
    for row, text in enumerate(texts):
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center_baseline", fontsize=8.5)


def draw_levels(axes: Axes, levels: Mapping[str, tuple[float, str, str]]) -> None:
    """Draw vertical lines at shares (value, colour, line style), with a legend."""
    lines = [
        axes.axvline(100 * value, color=colour, linestyle=style, linewidth=1.2, zorder=1)
        for value, colour, style in levels.values()
    ]
    add_legend(axes, lines, list(levels))


def plot_differences(axes: Axes, speakers: Mapping[str, SpeakerDifference], mean: Estimate) -> None:
    """Plot each speaker's UAR difference in points, the largest at the top, and the mean with its interval below."""
    ranked = sorted(speakers, key=lambda speaker: speakers[speaker].difference)
    named = len(ranked) <= MAX_ROWS
    values = [100 * speakers[speaker].difference for speaker in ranked]
    axes.axvline(0, color=GREY, linewidth=1.2)
    axes.plot(values, range(len(ranked)), "o", color=BLUE, markersize=6 if named else 3)
    below = -max(1, len(ranked) / 10)
    plot_estimate(axes, "x", mean, below, RUST)
    names = [label(speaker, 16) for speaker in ranked if named]
    axes.set_yticks([below, *range(len(names))], ["mean", *names])
    axes.set(ylim=(1.7 * below, len(ranked)), xlabel="UAR difference, points  (positive: this run is better)")


def plot_reliability(axes: Axes, curves: Mapping[str, Sequence[ReliabilityBin]]) -> None:
    """Plot accuracy against confidence in bins; the area of a dot grows with the number of utterances in the bin."""
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle="--")
    lines = []
    for bins, colour in zip(curves.values(), COLOURS, strict=False):
        filled = [part for part in bins if part.clips]
        total = max(1, sum(part.clips for part in filled))
        confidence, accuracy = [100 * part.confidence for part in filled], [100 * part.accuracy for part in filled]
        lines += axes.plot(confidence, accuracy, color=colour, linewidth=1.2)
        sizes = [12 + 240 * part.clips / total for part in filled]
        axes.scatter(confidence, accuracy, s=sizes, color=colour, alpha=0.75, linewidth=0)
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence, %", ylabel="accuracy, %")
    add_legend(axes, lines, list(curves))


Curves = Mapping[str, Sequence[Mapping[str, float]]]  # name of a model -> rows of its metrics.csv


def plot_curves(axes: Axes, curves: Curves, keys: Mapping[str, str], unit: str = "share", level: str = "") -> None:
    """Plot columns of metrics.csv over the epochs, one thin line for each model.

    Args:
        axes: Where to draw.
        curves: Rows of metrics.csv by model.
        keys: Column -> its name in the legend.
        unit: Label of the y axis; "share" fixes its range to 0 to 1.
        level: Column drawn as a dashed line, the adversary's loss at chance.
    """
    lines, texts = draw_columns(axes, curves, keys), list(keys.values())
    if level:
        for rows in curves.values():
            line = axes.axhline(rows[0][level], color=GREY, linewidth=1.2, linestyle="--")
        lines, texts = [*lines, line], [*texts, "ln K: adversary's loss at chance"]
    axes.set(ylabel=unit, ylim=(0, 1 if unit == "share" else None))
    add_legend(axes, lines, texts, columns=1)


def plot_adversary_losses(axes: Axes, curves: Mapping[str, Sequence[float]], levels: Sequence[float]) -> None:
    """Plot the adversary's loss of several runs over the epochs, and `levels` dashed; logarithmic where a loss is large."""
    lines = []
    for index, curve in enumerate(curves.values()):
        colour, marker = class_style(index)
        epochs = range(1, len(curve) + 1)
        lines += axes.plot(epochs, curve, color=colour, linewidth=1.6, marker=marker, markersize=4.6, markevery=0.15)
    for level in levels:
        dashed = axes.axhline(level, color=GREY, linewidth=1.2, linestyle="--")
    if max(map(max, curves.values())) > 4 * max(levels):
        axes.set_yscale("symlog", linthresh=max(levels))
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.set(xlabel="epoch", ylabel="adversary's loss, nats", ylim=(0, None))
    add_legend(axes, [*lines, dashed], [*(label(name, 20) for name in curves), "ln K"], columns=1)


def plot_gradients(axes: Axes, curves: Curves, keys: Mapping[str, str]) -> None:
    """Plot columns of metrics.csv over the epochs on a logarithmic scale, which leaves out norms of 0."""
    lines = draw_columns(axes, curves, keys)
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(ylabel="gradient norm")
    add_legend(axes, lines, list(keys.values()))


def plot_layers(axes: Axes, layers: Sequence[int], weights: Mapping[str, Sequence[float]]) -> None:
    """Plot the weights of an encoder's layers, one thin line for each model, and 1 / L of equal weights dashed."""
    for row in weights.values():
        axes.plot(layers, row, "o-", color=BLUE, linewidth=1, markersize=3.5, alpha=0.75)
    axes.axhline(1 / len(layers), color=GREY, linewidth=1.2, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.set(xlabel="layer of the pre-trained encoder", ylabel="weight", ylim=(0, None))


def draw_columns(axes: Axes, curves: Curves, keys: Mapping[str, str]) -> list[Line2D]:
    """Draw a thin line over the epochs for each model and column; return one line of each column, for the legend."""
    lines = []
    for key, colour in zip(keys, COLOURS, strict=False):
        for rows in curves.values():
            style = "o-" if len(rows) < 3 else "-"  # a single epoch makes no line
            epochs, values = [row["epoch"] for row in rows], [row[key] for row in rows]
            line = axes.plot(epochs, values, style, color=colour, linewidth=1, alpha=0.75)
        lines += line
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.set(xlabel="epoch")
    return lines


def plot_certificate(axes: Axes, curve: Sequence[SeveralClips], chance: float) -> None:
    """Plot the bound for every attacker, and the estimate for one, against the number of utterances of one person."""
    clips = range(len(curve))
    lines = axes.plot(clips, [100 * several.bound for several in curve], "o-", color=RUST, linewidth=1.6)
    known = [(place, 100 * several.estimate) for place, several in enumerate(curve) if several.estimate is not None]
    texts = ["bound for every attacker", "estimate for one attacker"] if known else ["bound for every attacker"]
    lines += axes.plot(*zip(*known, strict=True), "o-", color=BLUE, linewidth=1.2, markerfacecolor="none") if known else []
    lines.append(axes.axhline(100 * chance, color=GREY, linewidth=1.2, linestyle="--"))
    axes.set_xticks(clips, [str(several.clips) for several in curve])
    axes.set(xlabel="utterances of one person", ylabel="balanced accuracy, %", ylim=(0, 102), xlim=(-0.3, len(curve) - 0.7))
    add_legend(axes, lines, [*texts, "chance"])


def plot_map(axes: Axes, position: np.ndarray, classes: np.ndarray) -> None:
    """Plot points [P, 2] by class [P], which differ in colour and marker; more than 32 classes have no legend."""
    names = sorted(set(classes.tolist()))
    lines = []
    for index, name in enumerate(names):
        colour, marker = class_style(index)
        x, y = position[classes == name].T
        lines += axes.plot(x, y, marker, color=colour, markersize=4.6, linestyle="none", alpha=0.85, markeredgewidth=0)
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axes.spines[:].set_visible(False)
    if len(names) <= MAX_CLASSES:
        add_legend(axes, lines, [label(name, 14) for name in names], columns=4)
