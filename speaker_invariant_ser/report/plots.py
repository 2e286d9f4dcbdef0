"""The report's pictures: each drawn once, kept as SVG for the page and as PNG for Markdown.

Everything dark is drawn in INK, which becomes `currentColor` in the page, so that one drawing serves light and dark;
all other colours keep a contrast of 3 or more to both backgrounds. Values are 0..1 in the summaries, percent in the pictures.
"""

import io
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

INK = "#22303c"
BLUE, RUST, GREY = "#3f80a8", "#c25b3f", "#7c8791"
COLOURS = (BLUE, RUST, "#64913f", "#8f6fb0", "#a9822b", "#2f9488", "#b9608a", GREY)
MARKERS = "os^D"
STYLE = {
    "font.size": 9.5,
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; the page shows its reader's own font
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold a dollar sign
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
WIDTH = 5.0  # inches; narrow, so that letters stay readable on a phone
MOST_ROWS = 30  # of a picture with one row for each speaker or attacker


@dataclass(frozen=True)
class Points:
    """A map of embeddings: where each of P clips lies, its emotion and its speaker."""

    place: np.ndarray  # [P, 2] float
    emotion: np.ndarray  # [P] str
    speaker: np.ndarray  # [P] str


@dataclass(frozen=True)
class Picture:
    """One drawing. `name` is its file's and begins its ids; `words` say what it shows, also to those who do not see it."""

    name: str
    words: str
    paint: Callable[[Axes], None]
    height: float = 3.4  # inches


def save(picture: Picture, folder: Path) -> str:
    """Write NAME.png into `folder`; return the same drawing as an SVG element that can stand in an HTML page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": picture.name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a label in a script that the font lacks is drawn as boxes
        figure = Figure((WIDTH, picture.height), layout="constrained")
        picture.paint(figure.subplots())
        figure.savefig(folder / f"{picture.name}.png")
        figure.set_layout_engine("none")  # it is laid out already
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return embeddable(buffer.getvalue(), picture)


def embeddable(svg: str, picture: Picture) -> str:
    """Matplotlib's SVG file as an element of a page: ids are its own, the page sets its size, INK is the page's text colour."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]
        element.attrib = {key.split("}")[-1]: adapt(key, value, picture.name) for key, value in element.attrib.items()}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": picture.words}
    title = ElementTree.Element("title")
    title.text = picture.words
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")


def adapt(key: str, value: str, name: str) -> str:
    """An attribute of matplotlib's as it stands in the page."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")


def label(text: object, most: int = 24) -> str:
    """Text as it can stand in a picture: one line, at most `most` characters; matplotlib would drop a leading underscore."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(text))
    short = plain if len(plain) <= most else plain[: most - 1] + "…"
    return f" {short}" if short.startswith("_") else short


def rows_height(rows: int) -> float:
    """Inches for a picture of so many rows with its axis and legend below."""
    return 1.15 + 0.25 * rows if rows <= MOST_ROWS else 3.4


def whisker(axes: Axes, along: str, score: Mapping, other: float, colour: str = BLUE, hollow: bool = False) -> None:
    """A point at `value`, in percent, with its interval along one axis where there is one."""
    at = (100 * score["value"], other) if along == "x" else (other, 100 * score["value"])
    if score["low"] is not None:
        ends, still = [100 * score["low"], 100 * score["high"]], [other] * 2
        axes.plot(*((ends, still) if along == "x" else (still, ends)), color=colour, linewidth=1.8, solid_capstyle="round")
    axes.plot(*at, "o", color=colour, markersize=7, markerfacecolor="none" if hollow else colour, markeredgewidth=1.6)


def paint_tradeoff(axes: Axes, runs: Sequence[Mapping], chance: Mapping[str, float | None], front: Sequence[int] = ()) -> None:
    """Emotion UAR (up is good) against the strongest attacker (left is good); runs on the front are joined by a line.

    A run has `label`, `uar` and `attacker` (each value, low, high). `chance` has `emotion`, `speaker` and `margin`, the
    highest upper bound that still counts as chance; None is not drawn.
    """
    if chance["speaker"] is not None:
        axes.axvline(100 * chance["speaker"], color=RUST, linestyle="--", linewidth=1.2)
        axes.annotate("chance", (100 * chance["speaker"], 1), (3, -2), xycoords=("data", "axes fraction"), **OFFSET, va="top")
    if chance["margin"] is not None:
        axes.axvspan(0, 100 * chance["margin"], color=RUST, alpha=0.12, linewidth=0)
    if chance["emotion"] is not None:
        axes.axhline(100 * chance["emotion"], color=GREY, linestyle="--", linewidth=1.2)
        axes.annotate("chance", (1, 100 * chance["emotion"]), (-2, 3), xycoords=("axes fraction", "data"), **OFFSET, ha="right")
    if len(runs) < 3:  # more are shown closer, to be told apart
        axes.set(xlim=(0, 102), ylim=(0, 102))
    line = sorted((100 * runs[one]["attacker"]["value"], 100 * runs[one]["uar"]["value"]) for one in front)
    axes.plot(*zip(*line, strict=True) if line else ([], []), color=INK, linewidth=1, linestyle=":")
    for run in runs:
        whisker(axes, "x", run["attacker"], 100 * run["uar"]["value"], run["colour"])
        whisker(axes, "y", run["uar"], 100 * run["attacker"]["value"], run["colour"])
    for place, run in enumerate(sorted(runs, key=lambda run: -run["uar"]["value"])):
        x, y = 100 * run["attacker"]["value"], 100 * run["uar"]["value"]
        if len(runs) < 3:
            side, shift = ("left", 9) if x < 60 else ("right", -9)
            axes.annotate(label(run["label"]), (x, y), (shift, 9 - 18 * place), textcoords="offset points", ha=side, va="center")
        else:
            axes.plot(x, y, "o", color=run["colour"], markersize=13)
            axes.text(x, y, run["label"], color="white", ha="center", va="center_baseline", fontsize=8.5, fontweight="bold")
    axes.set(ylabel="emotion UAR, %  (up is good)", xlabel="strongest attacker, speakers named, %  (left is good)")


OFFSET = {"textcoords": "offset points", "fontsize": 8.5}


def paint_confusion(axes: Axes, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Rows are true, columns predicted; the deeper the colour, the larger the share of the row."""
    places = list(itertools.product(range(len(labels)), repeat=2))
    shares = np.array(counts) / np.maximum(1, np.sum(counts, axis=1, keepdims=True))
    cells = [Rectangle((column - 0.48, row - 0.48), 0.96, 0.96) for row, column in places]
    colours = [(*matplotlib.colors.to_rgb(BLUE), 0.04 + 0.56 * shares[place]) for place in places]
    axes.add_collection(PatchCollection(cells, facecolor=colours, linewidth=0))
    size = 9.5 if len(labels) <= 10 else 6
    for row, column in places:
        axes.text(column, row, counts[row][column], ha="center", va="center", fontsize=size)
    names = [label(one, 14) for one in labels]
    axes.set_xticks(range(len(labels)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5))
    axes.tick_params(length=0, labelsize=size)
    axes.spines[:].set_visible(False)


def paint_speakers(axes: Axes, speakers: Mapping[str, Mapping], pooled: float, chance: float) -> None:
    """Each speaker's UAR, the best above. Many speakers are drawn without their names."""
    ranked = sorted(speakers, key=lambda name: speakers[name]["uar"])
    named = len(ranked) <= MOST_ROWS
    values = [100 * speakers[name]["uar"] for name in ranked]
    axes.plot(values, range(len(ranked)), "o", color=BLUE, markersize=6 if named else 3)
    axes.plot(values[:1], [0], "o", color=RUST, markersize=6 if named else 4)
    if named:
        number_rows(axes, [f"{value:.0f} %" for value in values])
    axes.set_yticks(range(len(ranked)) if named else [], [label(name, 16) for name in ranked] if named else [])
    axes.set(xlim=(0, 100), ylim=(-0.7, len(ranked) - 0.3), xlabel="emotion UAR, %")
    axes.set_ylabel("speaker" if named else f"{len(ranked)} speakers, the best above")
    lines(axes, {"all speakers": (pooled, INK, "-"), "chance": (chance, GREY, "--")})


def paint_scores(
    axes: Axes, scores: Mapping[str, Mapping], chances: Mapping[str, float], hollow: Sequence[str] = (), marked: str = ""
) -> None:
    """A row for each score (value, low, high), the first above, and lines of chance; rings are `hollow`, red is `marked`."""
    names = list(scores)[::-1]
    for row, name in enumerate(names):
        whisker(axes, "x", scores[name], row, RUST if name == marked else BLUE, name in hollow)
    number_rows(axes, [f"{100 * scores[name]['value']:.0f} %" for name in names])
    axes.set_yticks(range(len(names)), [label(name, 28) for name in names])
    axes.set(xlim=(0, 102), ylim=(-0.7, len(names) - 0.3), xlabel="speakers named rightly, %")
    styles = ((RUST, "-"), (RUST, "--"), (RUST, ":"), (GREY, "--"))
    lines(axes, {name: (value, *style) for (name, value), style in zip(chances.items(), styles, strict=False)})


def number_rows(axes: Axes, words: Sequence[str]) -> None:
    """A column of numbers at the right of a picture of rows."""
    for row, text in enumerate(words):
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center_baseline", fontsize=8.5)


def lines(axes: Axes, values: Mapping[str, tuple[float, str, str]]) -> None:
    """Vertical lines at shares (value, colour, style), explained below the picture."""
    drawn = [
        axes.axvline(100 * value, color=colour, linestyle=style, linewidth=1.2, zorder=1)
        for value, colour, style in values.values()
    ]
    explain(axes, drawn, list(values))


def explain(axes: Axes, drawn: Sequence, words: Sequence[str], columns: int = 2) -> None:
    axes.figure.legend(drawn, [label(word, 40) for word in words], loc="outside lower center", ncols=columns)


def paint_differences(axes: Axes, speakers: Mapping[str, Mapping], mean: Mapping) -> None:
    """Each speaker's difference of UAR in points, the largest above, and their mean with its interval below."""
    ranked = sorted(speakers, key=lambda name: speakers[name]["difference"])
    named = len(ranked) <= MOST_ROWS
    axes.axvline(0, color=GREY, linewidth=1.2)
    axes.plot(
        [100 * speakers[name]["difference"] for name in ranked],
        range(len(ranked)),
        "o",
        color=BLUE,
        markersize=6 if named else 3,
    )
    below = -max(1, len(ranked) / 10)
    whisker(axes, "x", mean, below, RUST)
    axes.set_yticks([below, *(range(len(ranked)) if named else [])], ["mean", *(label(name, 16) for name in ranked if named)])
    axes.set(ylim=(1.7 * below, len(ranked)), xlabel="difference of UAR, points  (right is better)")


def paint_reliability(axes: Axes, curves: Mapping[str, Sequence[Mapping]]) -> None:
    """Accuracy against confidence in bins; a larger dot is a bin of more clips."""
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle="--")
    drawn = []
    for (_, bins), colour in zip(curves.items(), COLOURS, strict=False):
        bins = [one for one in bins if one["clips"]]
        total = max(1, sum(one["clips"] for one in bins))
        at = [[100 * one[key] for one in bins] for key in ("confidence", "accuracy")]
        drawn += axes.plot(*at, color=colour, linewidth=1.2)
        axes.scatter(*at, s=[12 + 240 * one["clips"] / total for one in bins], color=colour, alpha=0.75, linewidth=0)
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence, %", ylabel="accuracy, %")
    explain(axes, drawn, list(curves))


def paint_curves(
    axes: Axes, curves: Mapping[str, Sequence[Mapping]], keys: Mapping[str, str], unit: str = "share", level: str = ""
) -> None:
    """Columns of metrics.csv over the epochs, one thin line for each model; the column `level` as a dashed line."""
    drawn, words = draw_columns(axes, curves, keys), list(keys.values())
    if level:
        for rows in curves.values():
            here = axes.axhline(rows[0][level], color=GREY, linewidth=1.2, linestyle="--")
        drawn, words = [*drawn, here], [*words, "ln K: an adversary that knows nothing"]
    axes.set(ylabel=unit, ylim=(0, 1 if unit == "share" else None))
    explain(axes, drawn, words, columns=1)


def paint_readers(axes: Axes, curves: Mapping[str, Sequence[float]], levels: Sequence[float]) -> None:
    """Losses over the epochs, a line for each name, and `levels` dashed; logarithmic where one runs far away."""
    drawn = []
    for curve, colour in zip(curves.values(), COLOURS, strict=False):
        drawn += axes.plot(range(1, len(curve) + 1), curve, "o-" if len(curve) < 3 else "-", color=colour, linewidth=1.6)
    for level in levels:
        dashed = axes.axhline(level, color=GREY, linewidth=1.2, linestyle="--")
    if max(map(max, curves.values())) > 4 * max(levels):
        axes.set_yscale("symlog", linthresh=max(levels))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="loss of the reader, nats", ylim=(0, None))
    explain(axes, [*drawn, dashed], [*(label(name, 20) for name in curves), "ln K"], columns=1)


def paint_gradients(axes: Axes, curves: Mapping[str, Sequence[Mapping]], keys: Mapping[str, str]) -> None:
    """Columns of metrics.csv over the epochs on a logarithmic scale, on which a norm of 0 has no place."""
    drawn = draw_columns(axes, curves, keys)
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(ylabel="norm of the gradient")
    explain(axes, drawn, list(keys.values()))


def draw_columns(axes: Axes, curves: Mapping[str, Sequence[Mapping]], keys: Mapping[str, str]) -> list:
    """A thin line over the epochs for each model and column; one line of each column, for the legend."""
    drawn = []
    for key, colour in zip(keys, COLOURS, strict=False):
        for rows in curves.values():
            dots = "o-" if len(rows) < 3 else "-"  # one epoch is no line
            epochs, values = [row["epoch"] for row in rows], [row[key] for row in rows]
            here = axes.plot(epochs, values, dots, color=colour, linewidth=1, alpha=0.75)
        drawn += here
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch")
    return drawn


def paint_map(axes: Axes, place: np.ndarray, kinds: np.ndarray) -> None:
    """Points [P, 2] coloured, and from the ninth kind on also shaped, by their kind [P]. More than 32 kinds are not explained."""
    names = sorted(set(kinds.tolist()))
    looks = [(colour, marker) for marker in MARKERS for colour in COLOURS]
    drawn = []
    for name, (colour, marker) in zip(names, itertools.cycle(looks), strict=False):
        mine = kinds == name
        drawn += axes.plot(*place[mine].T, marker, color=colour, markersize=4.2, linestyle="none", alpha=0.85, markeredgewidth=0)
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axes.spines[:].set_visible(False)
    if len(names) <= len(looks):
        explain(axes, drawn, [label(name, 14) for name in names], columns=4)
