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

from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.labels import labels_of
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.errors import WriteError
from speaker_invariant_ser.features.augmentation import hertz_to_band
from speaker_invariant_ser.features.dataset import LogMelDataset, open_dataset
from speaker_invariant_ser.features.log_mel import Normalise
from speaker_invariant_ser.features.pairing import Pairs, draw_pairs
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.recipe import FeaturesSection, Recipe
from speaker_invariant_ser.report.plots import STYLE, label
from speaker_invariant_ser.training.batching import BatchLoader, BatchPlan
from speaker_invariant_ser.training.objective import build_model

ENDINGS = (".png", ".svg")
PANEL = (2.5, 1.5)  # inches
MARGIN = 0.9  # inches, of the letters around the panels
MAP = "magma"
SCALE = (1, 99.5)  # percentiles of all values at the two ends of the colours
TICKS = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz
NEAR = 0.08  # share of the height that two ticks keep apart
CLIPS, VERSIONS = 6, 3


@dataclass(frozen=True)
class Preview:
    """One clip. All log-mels are normalised, as the network gets them."""

    title: str  # such as "03, anger"
    plain: np.ndarray  # [M, T]
    seen: list[np.ndarray]  # augmented versions, each [M, T'] with its own T'
    partners: list[str]  # with whom each version is mixed or who follows in it, such as "then 08, anger"; "" with nobody


def sights(recipe: Recipe, prepared: PreparedCorpus) -> list[Preview]:
    """Clips of the first fold's training speakers, of many speakers and emotions, each as it is and in augmented versions.

    Raises SplitError or RecipeError.
    """
    prepared = prepared.labelled(recipe.labels.map, recipe.split)
    first = make_splits(recipe.split, prepared.utterances)[:1]
    (split,) = hold_out(first, prepared.utterances, recipe.audit.holdout, recipe.audit.seed)
    indices, labels = split.indices("train", prepared.utterances), labels_of(prepared.utterances, recipe.split)
    model, transductive = build_model(recipe, labels), recipe.features.transductive
    clips = open_dataset(
        prepared, indices, labels, (), model.logmel, cache_gb=0, subtract_speaker_means=transductive
    )  # few are read
    model.normalise.fit(clips.sample())
    loader = BatchLoader(clips, recipe, len(labels), (), recipe.train.seed, torch.device("cpu"))
    rng = np.random.default_rng(recipe.train.seed)
    torch.manual_seed(recipe.train.seed)  # of the noise
    chosen = spread(clips, CLIPS, rng)
    (read,) = clips.read([chosen])
    plain = parts_of(model.normalise(*read), read[1])
    seen = [draw_version(loader, chosen, rng, model.normalise) for _ in range(VERSIONS)]
    name = [f"{one.speaker}, {one.emotion}" for one in (prepared.utterances[index] for index in indices)]
    return [
        Preview(name[clip], plain[row], [mels[row] for mels, _ in seen], [told(pairs, row, name) for _, pairs in seen])
        for row, clip in enumerate(chosen)
    ]


def spread(clips: LogMelDataset, number: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of clips, each of the emotion and then of the speaker that there are fewest of so far, in random order."""
    chosen: list[int] = []
    left = rng.permutation(len(clips))
    for _ in range(min(number, len(clips))):
        used = [np.bincount(kind[chosen], minlength=kind.max() + 1)[kind[left]] for kind in (clips.speaker, clips.emotion)]
        place = np.lexsort(used)[0]
        chosen.append(left[place])
        left = np.delete(left, place)
    return np.array(chosen)


def draw_version(
    loader: BatchLoader, chosen: np.ndarray, rng: np.random.Generator, normalise: Normalise
) -> tuple[list[np.ndarray], Pairs]:
    """The chosen clips as they might stand in a training batch, each [M, T'], and what was done to them with others."""
    draws = rng.random((len(chosen), loader.augment.columns), dtype=np.float32)
    pairs = draw_pairs(chosen, loader.clips.emotion, loader.clips.speaker, loader.augment.settings, rng)
    plan = BatchPlan(chosen, pairs, draws, loader.draw_virtual(len(chosen), rng))
    (read,) = loader.clips.source.read([loader.needed(plan)])
    mels, frames = loader.features(plan, *read)
    return parts_of(normalise(mels, frames), frames), pairs


def parts_of(mels: torch.Tensor, frames: torch.Tensor) -> list[np.ndarray]:
    """A batch [B, M, T] without its padding."""
    return [one[:, :count].numpy() for one, count in zip(mels, frames.tolist(), strict=True)]


def told(pairs: Pairs, row: int, name: Sequence[str]) -> str:
    """What was done to a clip with another one, in words."""
    other = name[pairs.partner[row]]
    if pairs.follows[row]:
        return f"then {other}"
    return f"with {100 * (1 - pairs.weight[row]):.0f} % of {other}" if pairs.weight[row] < 1 else ""


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
        for partner, panel in zip(row.partners, axes[1:], strict=False):
            panel.set_title(label(partner or "augmented", 30), loc="left")
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
        place = hertz_to_band(torch.tensor(float(hertz)), features).item()
        apart = not places or places[-1] - place > NEAR * features.mels
        if -0.5 <= place <= features.mels and apart:
            places.append(place)
            names.append(f"{hertz // 1000}k" if hertz >= 1000 else str(hertz))
    return places, names
