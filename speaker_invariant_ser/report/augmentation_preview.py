"""A plot of what the network is trained on: log-mels of a few utterances, each next to augmented versions."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.labels import labels_of
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.errors import WriteError
from speaker_invariant_ser.features.dataset import LogMelDataset, open_dataset
from speaker_invariant_ser.features.log_mel import Normalise
from speaker_invariant_ser.features.mel_scale import hertz_to_band
from speaker_invariant_ser.features.pairing import Pairs, draw_pairs
from speaker_invariant_ser.files import refuse_existing, writing
from speaker_invariant_ser.recipe import FeaturesSection, Recipe
from speaker_invariant_ser.report.figure import STYLES, label
from speaker_invariant_ser.training.batching import BatchLoader, BatchPlan
from speaker_invariant_ser.training.objective import build_model

FORMATS = (".png", ".svg")
PANEL = (2.5, 1.5)  # inches
MARGIN = 0.9  # inches, for the labels around the panels
COLOURS = "magma"
COLOUR_RANGE = (1, 99.5)  # percentiles of all values at the two ends of the colour scale
TICKS = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz
MIN_TICK_DISTANCE = 0.08  # share of the height
CLIPS, VERSIONS = 6, 3


@dataclass(frozen=True)
class Preview:
    """Log-mels of one utterance, normalised as the network gets them.

    Attributes:
        title: Speaker and emotion, such as "03, anger".
        original: The utterance without augmentation [M, T].
        augmented: Augmented versions, each [M, T'] with its own T'.
        partners: How each version was combined with another utterance, such as "then 08, anger"; "" for none.
    """

    title: str
    original: np.ndarray
    augmented: list[np.ndarray]
    partners: list[str]


def preview_clips(recipe: Recipe, prepared: PreparedCorpus) -> list[Preview]:
    """Choose utterances of the first fold's training speakers and augment each as training would.

    Args:
        recipe: The recipe, whose seed decides the utterances and the versions.
        prepared: The prepared corpus.

    Returns:
        Up to six utterances with three augmented versions each, balanced over emotions and speakers.

    Raises:
        SplitError: The corpus cannot be split as the recipe says.
        RecipeError: The recipe does not fit the corpus.
    """
    prepared = prepared.labelled(recipe.labels.map, recipe.split)
    first = make_splits(recipe.split, prepared.utterances)[:1]
    (split,) = hold_out(first, prepared.utterances, recipe.audit.holdout, recipe.audit.seed)
    indices, labels = split.indices("train", prepared.utterances), labels_of(prepared.utterances, recipe.split)
    model, transductive = build_model(recipe, labels), recipe.features.transductive
    telephone = recipe.augment.telephone > 0
    dataset = open_dataset(prepared, indices, labels, (), model.logmel, 0.0, (), transductive, telephone)
    model.normalise.fit(dataset.sample())
    loader = BatchLoader(dataset, recipe, len(labels), (), recipe.train.seed, torch.device("cpu"))
    rng = np.random.default_rng(recipe.train.seed)
    torch.manual_seed(recipe.train.seed)  # of additive noise
    chosen = choose_clips(dataset, CLIPS, rng)
    (batch,) = dataset.read([chosen])
    originals = without_padding(model.normalise(*batch), batch[1])
    versions = [augment(loader, chosen, rng, model.normalise) for _ in range(VERSIONS)]
    names = [f"{utterance.speaker}, {utterance.emotion}" for utterance in (prepared.utterances[index] for index in indices)]
    return [
        Preview(
            title=names[clip],
            original=originals[row],
            augmented=[mels[row] for mels, _ in versions],
            partners=[describe_partner(pairs, row, names) for _, pairs in versions],
        )
        for row, clip in enumerate(chosen)
    ]


def choose_clips(dataset: LogMelDataset, number: int, rng: np.random.Generator) -> np.ndarray:
    """Choose utterances one by one, each of the emotion, then speaker, that was chosen least often so far; return positions."""
    chosen: list[int] = []
    remaining = rng.permutation(len(dataset))
    for _ in range(min(number, len(dataset))):
        times_chosen = [
            np.bincount(classes[chosen], minlength=classes.max() + 1)[classes[remaining]]
            for classes in (dataset.speaker, dataset.emotion)
        ]
        position = np.lexsort(times_chosen)[0]
        chosen.append(remaining[position])
        remaining = np.delete(remaining, position)
    return np.array(chosen)


def augment(
    loader: BatchLoader, chosen: np.ndarray, rng: np.random.Generator, normalise: Normalise
) -> tuple[list[np.ndarray], Pairs]:
    """Augment utterances as a training batch would; return their log-mels, each [M, T'], and how utterances were paired."""
    draws = rng.random((len(chosen), loader.augment.columns), dtype=np.float32)
    pairs = draw_pairs(chosen, loader.dataset.emotion, loader.dataset.speaker, loader.augment.settings, rng)
    plan = BatchPlan(chosen, pairs, draws, loader.draw_virtual(len(chosen), rng), loader.draw_telephone(len(chosen), rng))
    (batch,) = loader.dataset.source.read([loader.positions(plan)])
    mels, frames = loader.features(plan, *batch)
    return without_padding(normalise(mels, frames), frames), pairs


def without_padding(mels: torch.Tensor, frames: torch.Tensor) -> list[np.ndarray]:
    """Split a batch [B, M, T] into arrays [M, T'] without padding."""
    return [mel[:, :count].numpy() for mel, count in zip(mels, frames.tolist(), strict=True)]


def describe_partner(pairs: Pairs, row: int, names: Sequence[str]) -> str:
    """Say how an utterance was combined with another one; "" if it was not."""
    partner = names[pairs.partner[row]]
    if pairs.follows[row]:
        return f"then {partner}"
    return f"with {100 * (1 - pairs.weight[row]):.0f} % of {partner}" if pairs.weight[row] < 1 else ""


def write_preview(path: Path | str, previews: Sequence[Preview], features: FeaturesSection) -> None:
    """Plot one row of panels for each utterance, the original first, all with one colour scale and one time scale.

    Args:
        path: A new file; its ending, .png or .svg, is its format.
        previews: The utterances.
        features: The recipe's features section.

    Raises:
        WriteError: The path has another ending, exists already, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise WriteError(f"cannot write {path}: expected a name that ends in {' or '.join(FORMATS)}")
    refuse_existing(path, "remove it, or choose another --preview")
    with style.context(STYLES), warnings.catch_warnings(), writing(path, "wb") as file:
        warnings.filterwarnings("ignore", message="Glyph")  # a label in a script that the font lacks is drawn as boxes
        plot_previews(previews, features).savefig(file, format=path.suffix[1:].lower())


def plot_previews(previews: Sequence[Preview], features: FeaturesSection) -> Figure:
    """Return the figure with all utterances."""
    columns = 1 + max(len(preview.augmented) for preview in previews)
    figure = Figure((MARGIN + columns * PANEL[0], MARGIN + len(previews) * PANEL[1]), layout="constrained")
    panels = figure.subplots(len(previews), columns, sharex=True, sharey=True, squeeze=False)
    mels = [[preview.original, *preview.augmented] for preview in previews]
    every = [mel for row in mels for mel in row]
    low, high = np.percentile(np.concatenate([mel.ravel() for mel in every]), COLOUR_RANGE)
    for preview, row, axes in zip(previews, mels, panels, strict=True):
        for mel, panel in zip(row, axes, strict=False):
            image = plot_log_mel(panel, mel, features.hop_ms / 1000, low, high)
        for panel in axes[len(row) :]:
            panel.set_axis_off()
        axes[0].set_ylabel("Hz")
        axes[0].set_title(label(preview.title), loc="left", fontweight="bold")
        for partner, panel in zip(preview.partners, axes[1:], strict=False):
            panel.set_title(label(partner or "augmented", 30), loc="left")
    panels[0, 0].set_yticks(*frequency_ticks(features))
    panels[0, 0].set_xlim(0, max(mel.shape[1] for mel in every) * features.hop_ms / 1000)
    for panel in panels[-1]:
        panel.set_xlabel("seconds")
    figure.colorbar(image, ax=panels, label="standard deviations from the mean", aspect=40, pad=0.01, extend="both")
    return figure


def plot_log_mel(axes: Axes, mels: np.ndarray, hop: float, low: float, high: float) -> AxesImage:
    """Draw a log-mel [M, T] with frames `hop` seconds apart; band m is centred on m."""
    bands, frames = mels.shape
    extent = (0, frames * hop, -0.5, bands - 0.5)
    return axes.imshow(
        mels, cmap=COLOURS, vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto", interpolation="nearest"
    )


def frequency_ticks(features: FeaturesSection) -> tuple[list[float], list[str]]:
    """Return the bands of round frequencies, and their labels; none that would touch the tick above it."""
    bands: list[float] = []
    labels: list[str] = []
    for hertz in reversed(TICKS):
        band = hertz_to_band(torch.tensor(float(hertz)), features).item()
        separate = not bands or bands[-1] - band > MIN_TICK_DISTANCE * features.mels
        if -0.5 <= band <= features.mels and separate:
            bands.append(band)
            labels.append(f"{hertz // 1000}k" if hertz >= 1000 else str(hertz))
    return bands, labels
