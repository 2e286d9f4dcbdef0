"""Is there a zero in this overlay of two digits? Another store and another encoder, the same training, in under a minute.

A clip is the pixelwise maximum of two of the 8 x 8 digits that come with scikit-learn. Its "emotion" is whether one of them is a
zero, its "speaker" the other digit, 1 to 9. Without a zero both are of one digit, so that the other has one identity in every
overlay, and a split by speakers tests on digits that nobody was trained on. A known weakness: two of a kind hide each other, and
the amount of ink alone tells a zero in 72 % (UAR).

A picture belongs to one digit, zeros dealt out evenly, and to one of ten groups, within which overlays are made: the group is
their "text". So none is on two sides of a split by speakers, nor among what is trained on and what is kept aside for attackers.
"""

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.axes import Axes
from sklearn.datasets import load_digits

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.leakage import Leakage, leakage
from speaker_invariant_ser.data.manifest import Utterance, write_manifest
from speaker_invariant_ser.data.prepared_corpus import AUDIO, FORMAT, MANIFEST, SETTINGS, PreparedCorpus
from speaker_invariant_ser.evaluation.evaluate import attacked_parts, embed
from speaker_invariant_ser.files import new_folder, real, sha256, write_json
from speaker_invariant_ser.models.model import choose_device, load_model
from speaker_invariant_ser.recipe import AdversarySection, Recipe
from speaker_invariant_ser.report.plots import COLOURS, GREY, Picture, explain, save
from speaker_invariant_ser.runs import Run, kept
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.trainer import Progress, Row

CORPUS = "digits"
SIDE = 8  # pixels, of a picture
STEP = 2000  # of int16, for one step of a pixel, which is 0 to 16
DIGITS = range(1, 10)  # the other one
GROUPS = 10
TWIN = "twin"  # in the run's folder: the same without an adversary
NOTE = (
    "The clips are overlays of two pictures of digits, the speaker is the other digit and the emotion whether there is a zero: "
    "these numbers show the software and the method at work and claim nothing about speech."
)
CURVES = {  # columns of metrics.csv
    "emotion_accuracy": "a zero: digits trained on",
    "dev_uar": "a zero: digits not trained on (dev)",
    "adversary_accuracy": "the other digit: by the adversary itself",
    "attacker_accuracy": "the other digit: by a fresh attacker",
}


@dataclass(frozen=True)
class Overlay:
    pictures: tuple[int, int]  # positions among scikit-learn's
    other: int  # the other digit
    zero: bool
    group: int


def overlays(digit: np.ndarray, seed: int = 0) -> list[Overlay]:
    """Which pictures make overlays; digit [N] is what each shows.

    In every group of every digit, each zero lies over each picture of the digit, and as many pairs of the digit over each other.
    """
    rng, made = np.random.default_rng(seed), []
    zeros = rng.permutation(np.flatnonzero(digit == 0))
    for place, other in enumerate(DIGITS):
        pictures, dealt = rng.permutation(np.flatnonzero(digit == other)), zeros[place :: len(DIGITS)]
        for group in range(GROUPS):
            own = pictures[group::GROUPS].tolist()
            over = list(itertools.product(dealt[group::GROUPS].tolist(), own))
            alike = list(itertools.combinations(own, 2))
            chosen = [alike[place] for place in rng.choice(len(alike), len(over), replace=False)]
            made += [Overlay(pair, other, zero, group) for pairs, zero in ((over, True), (chosen, False)) for pair in pairs]
    return made


def write_corpus(folder: Path) -> PreparedCorpus:
    """All overlays as a new prepared corpus. Raises WriteError."""
    pixels, digit = load_digits(return_X_y=True)
    made = overlays(digit)
    columns = pixels.reshape(-1, SIDE, SIDE).transpose(0, 2, 1).reshape(len(pixels), -1)  # one column after another
    over, under = np.array([one.pictures for one in made]).T
    samples = (STEP * np.maximum(columns[over], columns[under])).astype("<i2")
    with new_folder(folder) as partial_folder:
        (partial_folder / AUDIO).write_bytes(samples.tobytes())
        write_manifest(partial_folder / MANIFEST, [utterance(one, place) for place, one in enumerate(made)])
        write_json(partial_folder / SETTINGS, describe(partial_folder, len(made)))
    return PreparedCorpus.open(folder)


def utterance(overlay: Overlay, place: int) -> Utterance:
    """The `place`-th clip as the manifest has it; id and source name the two pictures."""
    name = "+".join(map(str, overlay.pictures))
    return Utterance(
        id=name,
        corpus=CORPUS,
        speaker=str(overlay.other),
        emotion="zero" if overlay.zero else "none",
        text=f"group {overlay.group}",
        source=name,
        offset=SIDE * SIDE * place,
        samples=SIDE * SIDE,
    )


def describe(folder: Path, clips: int) -> dict:
    """What prepare.json holds."""
    return {
        "format": FORMAT,
        "corpora": [CORPUS],
        "note": NOTE,
        "counts": {"utterances": clips, "speakers": len(DIGITS), "emotions": 2, "texts": GROUPS},
        "sha256": {name: sha256(folder / name) for name in (AUDIO, MANIFEST)},
        "versions": {"scikit-learn": version("scikit-learn")},
    }


@contextmanager
def corpus_beside(run: Path) -> Iterator[PreparedCorpus]:
    """The prepared corpus RUN-data, made if it is not there; gone again if no run comes of it. Raises PreparedCorpusError, WriteError.

    Inside, torch has one thread: on networks this small two are slower, and where cores are busy by far.
    """
    run, threads = real(run), torch.get_num_threads()
    folder = run.with_name(f"{run.name}-data")
    made = not folder.is_dir()
    torch.set_num_threads(1)
    try:
        yield write_corpus(folder) if made else PreparedCorpus.open(folder)
    finally:
        torch.set_num_threads(threads)
        if made and not run.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Outcome:
    """A run after training."""

    name: str
    curves: list[list[Row]]  # metrics.csv of each model
    leak: Leakage  # under the quick attackers, scored on what was kept aside

    def number(self, column: str) -> float | None:
        """A column of metrics.csv in the epoch that was kept, mean over the models; None if it is not there."""
        rows = [kept(curve) for curve in self.curves]
        return mean(row[column] for row in rows) if all(column in row for row in rows) else None


def compare_with_twin(
    run: Run,
    prepared: PreparedCorpus,
    resume: bool = False,
    device: str = "auto",
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Outcome]:
    """The run and the same with lambda 0, which is trained here; their curves are drawn into curves.png of the run.

    A run whose lambda is 0 has no twin.
    """
    runs = {"the recipe": run}
    if without_adversary(run.recipe) != run.recipe:
        twin = train(without_adversary(run.recipe), prepared, run.folder / TWIN, resume, device, jobs, progress)
        runs["the same, lambda 0"] = twin
    found = [outcome(name, one, prepared, device, jobs) for name, one in runs.items()]
    save(Picture("curves", "Over the epochs: " + "; ".join(CURVES.values()), partial(paint, outcomes=found), 4.6), run.folder)
    return found


def without_adversary(recipe: Recipe) -> Recipe:
    """The recipe with every adversary at strength 0: they read, and nothing comes of it."""

    def silent(one: AdversarySection) -> AdversarySection:
        return one.model_copy(update={"strength": 0.0})

    further = tuple(silent(one) for one in recipe.further)
    return recipe.model_copy(update={"adversary": silent(recipe.adversary), "further": further})


def outcome(name: str, run: Run, prepared: PreparedCorpus, device: str, jobs: int) -> Outcome:
    """A trained run with what fresh attackers read of it."""
    settings, models = run.recipe.audit, [load_model(fit.folder, str(choose_device(device))) for fit in run.fits]
    parts = attacked_parts(run.recipe)
    tables = [embed(model, prepared, fit.split, parts) for model, fit in zip(models, run.fits, strict=True)]
    leak = leakage(tables, QUICK_ATTACKERS, settings.folds, settings.seed, permutations=0, jobs=jobs)
    return Outcome(name, [fit.metrics() for fit in run.fits], leak)


def paint(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Every column of CURVES in its colour, the first run's lines whole and its twin's dashed; dotted, both chances."""
    drawn: dict[str, object] = {}
    for one, style in zip(outcomes, ("-", "--"), strict=False):
        for (column, words), colour in zip(CURVES.items(), COLOURS, strict=False):
            for curve in (curve for curve in one.curves if column in curve[0]):
                (line,) = axes.plot(*points(curve, column), style, color=colour, linewidth=1.4)
                drawn.setdefault(words, line)
    for level in (1 / 2, outcomes[0].leak.chance["uniform"]):
        drawn["chance"] = axes.axhline(100 * level, color=GREY, linewidth=1.2, linestyle=":")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch  (whole lines: the recipe, dashed: the same, lambda 0)", ylabel="told rightly, %", ylim=(0, 102))
    explain(axes, list(drawn.values()), list(drawn), columns=1)


def points(curve: Sequence[Mapping[str, float]], column: str) -> tuple[list[float], list[float]]:
    """Epochs and percentages of a column."""
    return [row["epoch"] for row in curve], [100 * row[column] for row in curve]
