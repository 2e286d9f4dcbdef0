"""A picture of what the network sees: clips as they are, and beside them what augmentation makes of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from speaker_invariant_ser.augmentation import band_of
from speaker_invariant_ser.config import FeaturesSection
from speaker_invariant_ser.errors import WriteError
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.pictures import STYLE, label

ENDINGS = (".png", ".svg")
PANEL = (2.5, 1.5)  # inches
MARGIN = 0.9  # inches, of the letters around the panels
MAP = "magma"
SCALE = (1, 99.5)  # percentiles of all values at the two ends of the colours
TICKS = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz
NEAR = 0.08  # share of the height that two ticks keep apart


@dataclass(frozen=True)
class Preview:
    """One clip. All log-mels are normalised, as the network gets them."""

    title: str  # such as "03, anger"
    plain: np.ndarray  # [M, T]
    seen: list[np.ndarray]  # augmented versions, each [M, T'] with its own T'


def write_preview(path: Path | str, rows: Sequence[Preview], features: FeaturesSection) -> None:
    """A line of panels for each clip, itself first, all with one scale of colours and of time.

    Raises WriteError unless the path ends in .png or .svg, or if it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise WriteError(f"cannot write {path}: expected a name that ends in {' or '.join(ENDINGS)}")
    with matplotlib.rc_context(STYLE), warnings.catch_warnings(), writing(path, "wb") as file:
        warnings.filterwarnings("ignore", message="Glyph")  # a label in a script that the font lacks is drawn as boxes
        paint(rows, features).savefig(file, format=path.suffix[1:].lower())


def paint(rows: Sequence[Preview], features: FeaturesSection) -> Figure:
    columns = 1 + max(len(row.seen) for row in rows)
    figure = Figure((MARGIN + columns * PANEL[0], MARGIN + len(rows) * PANEL[1]), layout="constrained")
    panels = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    pictures = [[row.plain, *row.seen] for row in rows]
    every = [picture for line in pictures for picture in line]
    low, high = np.percentile(np.concatenate([picture.ravel() for picture in every]), SCALE)
    for row, line, axes in zip(rows, pictures, panels, strict=True):
        for picture, panel in zip(line, axes, strict=False):
            image = show(panel, picture, features.hop_ms / 1000, low, high)
        for panel in axes[len(line) :]:
            panel.set_axis_off()
        axes[0].set_ylabel("Hz")
        axes[0].set_title(label(row.title), loc="left", fontweight="bold")
        for number, panel in enumerate(axes[1 : len(line)], start=1):
            panel.set_title(f"augmented, {number}", loc="left")
    panels[0, 0].set_yticks(*ticks(features))
    panels[0, 0].set_xlim(0, max(picture.shape[1] for picture in every) * features.hop_ms / 1000)
    for panel in panels[-1]:
        panel.set_xlabel("seconds")
    figure.colorbar(image, ax=panels, label="standard deviations from the mean", aspect=40, pad=0.01, extend="both")
    return figure


def show(axes: Axes, mels: np.ndarray, hop: float, low: float, high: float) -> AxesImage:
    """Draw a log-mel [M, T] whose frames are `hop` seconds apart; band m lies around m."""
    bands, frames = mels.shape
    box = (0, frames * hop, -0.5, bands - 0.5)
    return axes.imshow(mels, cmap=MAP, vmin=low, vmax=high, origin="lower", aspect="auto", interpolation="nearest", extent=box)


def ticks(features: FeaturesSection) -> tuple[list[float], list[str]]:
    """Where round frequencies lie among the bands, and their names; none that would touch the one above it."""
    places, names = [], []
    for hertz in reversed(TICKS):
        place = band_of(torch.tensor(float(hertz)), features).item()
        apart = not places or places[-1] - place > NEAR * features.mels
        if -0.5 <= place <= features.mels and apart:
            places.append(place)
            names.append(f"{hertz // 1000}k" if hertz >= 1000 else str(hertz))
    return places, names
