"""Figures of the report: each is drawn once, as SVG for the page and as PNG for Markdown.

Text and axes are drawn in INK, which becomes `currentColor` on the page, so that one drawing serves light and dark themes.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from speaker_invariant_ser.report.palette import INK

STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; the page uses the system font
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold a dollar sign
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
# Of a `matplotlibrc` in the current folder, or of the user, nothing applies.
STYLES: list[str | dict[Any, Any]] = ["default", STYLE]
WIDTH = 5.0  # inches; narrow, so that text stays readable on a phone


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        name: Stem of its file, and prefix of its ids on the page.
        caption: What it shows; also its text alternative.
        draw: Draws it into the axes.
        height: Height, inches.
    """

    name: str
    caption: str
    draw: Callable[[Axes], None]
    height: float = 3.4


def save(plot: Plot, folder: Path) -> str:
    """Write NAME.png into `folder` and return the same drawing as an SVG element for an HTML page."""
    buffer = io.StringIO()
    with style.context([*STYLES, {"svg.hashsalt": plot.name}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a label in a script that the font lacks is drawn as boxes
        figure = Figure((WIDTH, plot.height), layout="constrained")
        plot.draw(figure.subplots())
        figure.savefig(folder / f"{plot.name}.png")
        figure.set_layout_engine("none")  # it is laid out already
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return embeddable(buffer.getvalue(), plot)


def embeddable(svg: str, plot: Plot) -> str:
    """Return matplotlib's SVG file as an element of a page: unique ids, no fixed size, INK as the page's text colour."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]
        element.attrib = {key.split("}")[-1]: adapt(key, value, plot.name) for key, value in element.attrib.items()}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": plot.caption}
    title = ElementTree.Element("title")
    title.text = plot.caption
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")


def adapt(key: str, value: str, name: str) -> str:
    """Return an attribute's value for the page."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")


def label(text: object, max_length: int = 24) -> str:
    """Return text on one line of at most `max_length` characters; a leading space keeps matplotlib from dropping "_x"."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(text))
    short = plain if len(plain) <= max_length else plain[: max_length - 1] + "…"
    return f" {short}" if short.startswith("_") else short


def add_legend(axes: Axes, lines: Sequence[Line2D], texts: Sequence[str], columns: int = 2) -> None:
    """Put a legend below the plot."""
    axes.figure.legend(lines, [label(text, 40) for text in texts], loc="outside lower center", ncols=columns)
