"""The whole road on the built-in corpus: generate, prepare, train without and with the adversary, evaluate both, infer."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data import synthesis
from speaker_invariant_ser.data.corpora.base import list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.decoding import workers
from speaker_invariant_ser.data.prepare import prepare
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import WriteError, shorten
from speaker_invariant_ser.evaluation.evaluate import REPORT, Evaluation, evaluate
from speaker_invariant_ser.files import translated
from speaker_invariant_ser.inference.predict import Row, find_inputs, load_models, open_table, predict
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.report.embedding_map import map_points
from speaker_invariant_ser.report.write import write_comparison, write_report
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.launcher import train

RUNS = {"baseline": 0.0, "adversarial": 1.0}  # run -> adversary.strength; 1 is the textbook's, and shows its failure
MARK = ".siser-demo"  # a folder that holds this file was made by a demo, and may be emptied by the next
EPOCHS = 20

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Demo:
    """Both runs' evaluations, the baseline's predictions for a few clips, and where the comparison is."""

    evaluations: list[Evaluation]
    predictions: list[Row]
    report: Path


def run_demo(out: Path, seed: int = 0, device: str = "auto", jobs: int = 2, progress: Progress | None = None) -> Demo:
    """Everything into `out`, replacing a former demo there. Raises WriteError if the folder holds anything else."""
    progress = progress or (lambda what, done, total: None)
    clear(out)
    synthesis.generate(out / "corpus", seed, lambda done, total: progress("speaking", done, total))
    prepared = prepare_builtin(out, jobs, progress)
    evaluations, runs = [], []
    for name, strength in RUNS.items():
        run = train(demo_recipe(strength, seed), prepared, out / name, device=device, progress=told(name, progress))
        against = runs[0] if runs else None
        shown = partial(tell, progress, name)
        evaluations.append(evaluate(run, prepared, device, shown, against=against, jobs=jobs))
        result = evaluations[-1]
        write_report(result.summary, run.folder / REPORT, result.curves, map_points(result.table))
        runs.append(run)
    report = write_comparison([evaluation.summary for evaluation in evaluations], out / REPORT)
    return Demo(evaluations, infer_some(runs[0], out, device), report)


def tell(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name}: {what}", done, total)


def told(name: str, progress: Progress) -> Callable[[str, dict], None]:
    """Training's progress, which names folds, as the demo's, which names runs."""
    return lambda fold, row: progress(f"training {name}", int(row["epoch"]), EPOCHS)


def clear(out: Path) -> None:
    """Empty a folder that a former demo made; refuse any other that holds something."""
    with translated(out):
        out.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in out.iterdir())
        if held and MARK not in held:
            raise WriteError(f"{out} holds files that are not of a demo ({shorten(held)}); choose another --out")
        (out / MARK).touch()
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()


def prepare_builtin(out: Path, jobs: int, progress: Progress) -> PreparedCorpus:
    listing = list_corpus(get_corpus("builtin"), out / "corpus")
    with workers(jobs) as pool:
        return prepare([listing], out / "data", pool=pool, progress=lambda _, done, total: progress("preparing", done, total))


def demo_recipe(strength: float, seed: int = 0) -> Recipe:
    """The default model on the built-in corpus's own split; everything but the adversary's strength is the same."""
    return make_recipe(
        {
            "split": {"scheme": "fixed", "test": synthesis.UNSEEN_SPEAKERS, "dev": synthesis.DEV_SPEAKERS},
            "adversary": {"strength": strength},
            "train": {"epochs": EPOCHS, "seed": seed},
        }
    )


def infer_some(run: Run, out: Path, device: str) -> list[Row]:
    """Predictions for one sentence of one unseen speaker in every emotion, as `siser infer` makes them."""
    models = load_models(run, device=device)
    paths = find_inputs([out / "corpus" / f"{synthesis.UNSEEN_SPEAKERS[0]}_*_t00.wav"])
    rows = list(predict(models, paths))
    with open_table(out / "predictions.csv", models[0].labels) as write:
        for row in rows:
            write(row)
    return rows
