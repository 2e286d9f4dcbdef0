"""The demo on images: does an overlay of two digits show a zero, whatever the other digit is? In under a minute.

An "utterance" is the pixelwise maximum of two of the 8 x 8 digits that come with scikit-learn. Its "emotion" is whether one of
the two is a zero, its "speaker" is the other digit, 1 to 9. Without a zero both images show the same digit, so that every overlay
has one "speaker", and a split by speakers tests on digits that no model was trained on. Known weakness: two images of one digit
cover each other, and the sum of the pixel values alone predicts the zero with a UAR of 72 %.

Every image belongs to one digit, with the zeros distributed evenly, and to one of ten groups; overlays are made within a group
only, and the group is their "text". So no image is on two sides of a split by speakers, and none is both in overlays that
attackers learn from and in overlays that are held out to score them.

Training is that of speech, with another front end (`features.front = "pixels"`), another encoder, and this corpus.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_digits

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.leakage import Leakage, measure_leakage
from speaker_invariant_ser.config import read_recipe
from speaker_invariant_ser.data.manifest import Utterance, write_manifest
from speaker_invariant_ser.data.prepared_corpus import AUDIO, FORMAT, MANIFEST, SETTINGS, PreparedCorpus
from speaker_invariant_ser.demos.folder import clear_demo
from speaker_invariant_ser.evaluation.model_outputs import attacked_parts, embed
from speaker_invariant_ser.files import new_folder, sha256, write_json
from speaker_invariant_ser.models.model import choose_device, load_model
from speaker_invariant_ser.processes import TaskProgress
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import AdversarySection
from speaker_invariant_ser.report.figure import Plot, add_legend, save
from speaker_invariant_ser.report.palette import COLOURS, GREY
from speaker_invariant_ser.runs import Run, best_epoch
from speaker_invariant_ser.training.epoch_metrics import Row
from speaker_invariant_ser.training.launcher import train

CORPUS = "digits"
SIDE = 8  # pixels, height and width of an image
PIXEL_SCALE = 2000  # int16 value of one grey level; images have levels 0 to 16
OTHER_DIGITS = range(1, 10)
GROUPS = 10
ADVERSARIAL, BASELINE = "adversarial", "baseline"  # the runs
NOTE = (
    "The utterances are overlays of two images of digits, the speaker is the other digit, the emotion whether there is a zero: "
    "these numbers show the software and the method at work and claim nothing about speech."
)
CURVES = {  # columns of metrics.csv
    "emotion_accuracy": "zero: training digits",
    "dev_uar": "zero: unseen digits (dev)",
    "adversary_accuracy": "other digit: adversary's classifier",
    "attacker_accuracy": "other digit: fresh attacker",
}


@dataclass(frozen=True)
class Overlay:
    """Two images laid over each other; `images` are their row numbers in scikit-learn's data set."""

    images: tuple[int, int]
    other_digit: int
    zero: bool
    group: int


@dataclass(frozen=True)
class Outcome:
    """Results of one run.

    Attributes:
        name: Name of the run.
        curves: metrics.csv of each model.
        leakage: Accuracy of the closed-form attackers, scored on held-out overlays.
    """

    name: str
    curves: list[list[Row]]
    leakage: Leakage

    def number(self, column: str) -> float | None:
        """Return a column of metrics.csv in the selected epoch, averaged over the models; None if a model lacks it."""
        rows = [best_epoch(curve) for curve in self.curves]
        return mean(row[column] for row in rows) if all(column in row for row in rows) else None


@dataclass(frozen=True)
class DigitsDemo:
    """Results of the demo: the adversarial run and its lambda = 0 baseline, and the plot of their learning curves."""

    outcomes: list[Outcome]
    curves: Path


def run_demo(out: Path, seed: int = 0, device: str = "auto", jobs: int = 1, progress: TaskProgress | None = None) -> DigitsDemo:
    """Make the overlays, train recipes/digits.toml and its lambda = 0 baseline, and attack the embeddings of both.

    Args:
        out: Folder for all results; a former demo there is replaced.
        seed: Seed of training.
        device: `auto`, `cpu` or `cuda`.
        jobs: Attackers fitted in parallel.
        progress: Called with task, steps done and steps in total.

    Returns:
        The outcomes of both runs, and the path of the plotted learning curves.

    Raises:
        WriteError: `out` holds anything but a former demo.
    """
    clear_demo(out, ("data", ADVERSARIAL, BASELINE, "curves.png"))
    recipe = read_recipe("digits", [f"train.seed={seed}"])
    with one_thread():
        prepared = write_corpus(out / "data")
        outcomes = []
        for name, settings in ((ADVERSARIAL, recipe), (BASELINE, without_adversary(recipe))):
            run = train(settings, prepared, out / name, device=device, progress=epoch_progress(name, settings, progress))
            outcomes.append(attack(run, prepared, device, jobs))
    return DigitsDemo(outcomes, plot_curves(outcomes, out))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: with networks this small, handing work to a second one takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def epoch_progress(name: str, recipe: Recipe, progress: TaskProgress | None) -> Callable[[str, Row], None] | None:
    """Return a function for training's progress (model, row of metrics.csv) that reports the epoch of the run `name`."""
    return progress and (lambda model, row: progress(f"training {name}", int(row["epoch"]), recipe.train.epochs))


def make_overlays(digits: np.ndarray, seed: int = 0) -> list[Overlay]:
    """Choose the pairs of images that are laid over each other.

    In every group of every digit, each zero is paired with each image of the digit, and as many pairs are drawn of two images of
    the digit.

    Args:
        digits: Digit that each image shows, 0 to 9, [N].
        seed: Seed of the groups and of the pairs without a zero.

    Returns:
        The overlays, half of them with a zero, in every digit and group.
    """
    rng, overlays = np.random.default_rng(seed), []
    zeros = rng.permutation(np.flatnonzero(digits == 0))
    for index, other in enumerate(OTHER_DIGITS):
        images, own_zeros = rng.permutation(np.flatnonzero(digits == other)), zeros[index :: len(OTHER_DIGITS)]
        for group in range(GROUPS):
            members = images[group::GROUPS].tolist()
            with_zero = list(itertools.product(own_zeros[group::GROUPS].tolist(), members))
            candidates = list(itertools.combinations(members, 2))
            drawn = rng.choice(len(candidates), len(with_zero), replace=False)
            overlays += [Overlay(pair, other, True, group) for pair in with_zero]
            overlays += [Overlay(candidates[number], other, False, group) for number in drawn]
    return overlays


def write_corpus(folder: Path) -> PreparedCorpus:
    """Write all overlays as a prepared corpus.

    Args:
        folder: The prepared corpus: a new folder.

    Returns:
        The prepared corpus, opened.

    Raises:
        WriteError: The folder holds anything, or cannot be written.
    """
    pixels, digits = load_digits(return_X_y=True)
    overlays = make_overlays(digits)
    columns = pixels.reshape(-1, SIDE, SIDE).transpose(0, 2, 1).reshape(len(pixels), -1)  # one pixel column after another
    over, under = np.array([overlay.images for overlay in overlays]).T
    samples = (PIXEL_SCALE * np.maximum(columns[over], columns[under])).astype("<i2")
    with new_folder(folder) as partial_folder:
        (partial_folder / AUDIO).write_bytes(samples.tobytes())
        write_manifest(partial_folder / MANIFEST, [utterance(overlay, row) for row, overlay in enumerate(overlays)])
        write_json(partial_folder / SETTINGS, describe(partial_folder, len(overlays)))
    return PreparedCorpus.open(folder)


def utterance(overlay: Overlay, row: int) -> Utterance:
    """Return the manifest's row of an overlay; id and source name the two images."""
    name = "+".join(map(str, overlay.images))
    return Utterance(
        id=name,
        corpus=CORPUS,
        speaker=str(overlay.other_digit),
        emotion="zero" if overlay.zero else "none",
        text=f"group {overlay.group}",
        source=name,
        offset=SIDE * SIDE * row,
        samples=SIDE * SIDE,
    )


def describe(folder: Path, overlays: int) -> dict[str, object]:
    """Return the content of prepare.json."""
    return {
        "format": FORMAT,
        "corpora": [CORPUS],
        "note": NOTE,
        "counts": {"utterances": overlays, "speakers": len(OTHER_DIGITS), "emotions": 2, "texts": GROUPS},
        "sha256": {name: sha256(folder / name) for name in (AUDIO, MANIFEST)},
        "versions": {"scikit-learn": version("scikit-learn")},
    }


def without_adversary(recipe: Recipe) -> Recipe:
    """Return the recipe with every adversary at strength 0: their classifiers learn, the encoder gets no gradient from them."""

    def at_strength_zero(adversary: AdversarySection) -> AdversarySection:
        return adversary.model_copy(update={"strength": 0.0})

    extra = tuple(at_strength_zero(adversary) for adversary in recipe.extra_adversaries)
    return recipe.model_copy(update={"adversary": at_strength_zero(recipe.adversary), "extra_adversaries": extra})


def attack(run: Run, prepared: PreparedCorpus, device: str, jobs: int) -> Outcome:
    """Train closed-form attackers on the embeddings of a trained run.

    Args:
        run: The trained run.
        prepared: The corpus it was trained on.
        device: `auto`, `cpu` or `cuda`.
        jobs: Attackers fitted in parallel.

    Returns:
        The run's learning curves and its leakage.
    """
    settings, models = run.recipe.audit, [load_model(spec.folder, str(choose_device(device))) for spec in run.model_specs]
    parts = attacked_parts(run.recipe)
    tables = [embed(model, prepared, spec.split, parts) for model, spec in zip(models, run.model_specs, strict=True)]
    attacked = measure_leakage(tables, QUICK_ATTACKERS, settings.folds, settings.seed, permutations=0, jobs=jobs)
    return Outcome(run.folder.name, [spec.metrics() for spec in run.model_specs], attacked)


def plot_curves(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Plot the learning curves of both runs into curves.png, and return its path."""
    caption = "Over the epochs: " + "; ".join(CURVES.values())
    save(Plot("curves", caption, partial(draw_curves, outcomes=outcomes), 4.6), out)
    return out / "curves.png"


def draw_curves(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Draw every column of CURVES in its colour: solid for the first outcome, dashed for the second; chance is dotted."""
    drawn: dict[str, Line2D] = {}
    for outcome, style in zip(outcomes, ("-", "--"), strict=False):
        for (column, words), colour in zip(CURVES.items(), COLOURS, strict=False):
            for curve in (curve for curve in outcome.curves if column in curve[0]):
                (line,) = axes.plot(*points(curve, column), style, color=colour, linewidth=1.4)
                drawn.setdefault(words, line)
    for level in (1 / 2, outcomes[0].leakage.chance["uniform"]):
        drawn["chance"] = axes.axhline(100 * level, color=GREY, linewidth=1.2, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    axes.set(xlabel=f"epoch  (solid: {ADVERSARIAL}, dashed: {BASELINE}, lambda = 0)", ylabel="accuracy or UAR, %", ylim=(0, 102))
    add_legend(axes, list(drawn.values()), list(drawn), columns=1)


def points(curve: Sequence[Mapping[str, float]], column: str) -> tuple[list[float], list[float]]:
    """Return epochs and percentages of a column."""
    return [row["epoch"] for row in curve], [100 * row[column] for row in curve]
