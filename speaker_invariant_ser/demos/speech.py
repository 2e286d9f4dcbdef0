"""The demo on synthesised speech: generate, prepare, train the textbook model twice, then the recipes default and private."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speaker_invariant_ser.config import DEFAULT_RECIPE, make_recipe, read_recipe
from speaker_invariant_ser.data.corpora import synthesis
from speaker_invariant_ser.data.corpora.base import list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.decoding import workers
from speaker_invariant_ser.data.prepare import prepare
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.demos.folder import clear_demo
from speaker_invariant_ser.evaluation.evaluate import Evaluation, evaluate
from speaker_invariant_ser.evaluation.summary import REPORT
from speaker_invariant_ser.inference.archives.tables import open_table
from speaker_invariant_ser.inference.defaults import DEFAULT_MODEL
from speaker_invariant_ser.inference.exported import Export, open_models
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.predict import predict
from speaker_invariant_ser.inference.rows import Row
from speaker_invariant_ser.processes import TaskProgress
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.report.write import write_comparison, write_run_report
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.launcher import train

STRENGTHS = {"baseline": 0.0, "adversarial": 1.0}  # adversary.strength of each run; 1 is the textbook's, and does not suffice
SHIPPED_EMOTIONS = ("angry", "neutral", "sad")  # of the utterances that the model of the package predicts
RECIPES = (DEFAULT_RECIPE, "private")  # of the runs of these names, which follow
EPOCHS = 20  # of every run, half of what the recipes have


@dataclass(frozen=True)
class Demo:
    """Results of the demo.

    Attributes:
        evaluations: One for each run of `demo_recipes`.
        predictions: Predictions of the default recipe for one sentence of an unseen speaker, in every emotion.
        shipped: Predictions of the model that comes with the package for three of these utterances.
        report: The page that compares the runs.
    """

    evaluations: list[Evaluation]
    predictions: list[Row]
    shipped: list[Row]
    report: Path


def run_demo(out: Path, seed: int = 0, device: str = "auto", jobs: int = 2, progress: TaskProgress | None = None) -> Demo:
    """Run the demo on synthesised speech.

    Args:
        out: Folder for all results; a former demo there is replaced.
        seed: Seed of the synthesis and of training.
        device: `auto`, `cpu` or `cuda`.
        jobs: Processes that decode audio, and attackers fitted, in parallel.
        progress: Called with task, steps done and steps in total.

    Returns:
        Evaluations, predictions and the path of the comparison.

    Raises:
        WriteError: `out` holds anything but a former demo.
    """
    progress = progress or (lambda task, done, total: None)
    recipes = demo_recipes(seed)
    clear_demo(out, ("corpus", "data", *recipes, REPORT, "predictions.csv"))
    synthesis.generate(out / "corpus", seed, lambda done, total: progress("synthesising", done, total))
    prepared = prepare_builtin(out, jobs, progress)
    evaluations: list[Evaluation] = []
    runs: dict[str, Run] = {}
    for name, recipe in recipes.items():
        run = train(recipe, prepared, out / name, device=device, progress=epoch_progress(name, progress))
        baseline = next(iter(runs.values()), None)
        evaluation = evaluate(run, prepared, device, prefixed(name, progress), against=baseline, jobs=jobs)
        write_run_report(evaluation, run.folder)
        evaluations.append(evaluation)
        runs[name] = run
    report = write_comparison([evaluation.report for evaluation in evaluations], out / REPORT)
    predictions = infer_unseen_speaker(runs[DEFAULT_RECIPE], out, device)
    clips = [out / "corpus" / f"{synthesis.UNSEEN_SPEAKERS[0]}_{emotion}_t00.wav" for emotion in SHIPPED_EMOTIONS]
    return Demo(evaluations, predictions, predict_clips(open_models(DEFAULT_MODEL), clips, device), report)


def prefixed(name: str, progress: TaskProgress) -> TaskProgress:
    """Return `progress` with the run's name before every task."""
    return lambda task, done, total: progress(f"{name}: {task}", done, total)


def epoch_progress(name: str, progress: TaskProgress) -> Callable[[str, dict[str, float]], None]:
    """Return a function for training's progress (model, row of metrics.csv) that reports the epoch of the run `name`."""
    return lambda model, row: progress(f"training {name}", int(row["epoch"]), EPOCHS)


def prepare_builtin(out: Path, jobs: int, progress: TaskProgress) -> PreparedCorpus:
    """Prepare the synthesised corpus in `out`/corpus into `out`/data."""
    listing = list_corpus(get_corpus("builtin"), out / "corpus")
    with workers(jobs) as pool:
        return prepare([listing], out / "data", pool=pool, progress=progress, f0=True)


def demo_recipes(seed: int = 0) -> dict[str, Recipe]:
    """Return the recipe of each run by the run's name: the textbook model at each strength, then RECIPES.

    These select nothing, and train on the built-in corpus's dev speakers, too.

    Args:
        seed: `train.seed`.
    """
    split = ["split.scheme=fixed", f"split.test={json.dumps(synthesis.UNSEEN_SPEAKERS)}"]
    shipped = {name: read_recipe(name, [*split, f"train.epochs={EPOCHS}", f"train.seed={seed}"]) for name in RECIPES}
    return {**{name: textbook_recipe(strength, seed) for name, strength in STRENGTHS.items()}, **shipped}


def textbook_recipe(strength: float, seed: int) -> Recipe:
    """Return the recipe of the textbook model on the built-in corpus's own split, at one `adversary.strength`."""
    return make_recipe(
        {
            "split": {"scheme": "fixed", "test": synthesis.UNSEEN_SPEAKERS, "dev": synthesis.DEV_SPEAKERS},
            "adversary": {"strength": strength},
            "train": {"epochs": EPOCHS, "seed": seed},
        }
    )


def infer_unseen_speaker(run: Run, out: Path, device: str) -> list[Row]:
    """Predict one sentence of one unseen speaker in every emotion, as `siser infer` does, and write predictions.csv."""
    rows = predict_clips(run, [out / "corpus" / f"{synthesis.UNSEEN_SPEAKERS[0]}_*_t00.wav"], device)
    with open_table(out / "predictions.csv", list(rows[0])) as write:
        for row in rows:
            write(row)
    return rows


def predict_clips(source: Run | Export, clips: Sequence[Path], device: str) -> list[Row]:
    """Predict utterances, as `siser infer` does."""
    return list(predict(load_models(source, device=device), find_inputs(clips), name=source.folder.name))
