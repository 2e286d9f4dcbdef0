"""Measure the speed of training: against a plain loop and the textbook recipe, from disk, and with many models on one GPU.

    python benchmarks/train.py EMODB [--data PREPARED] [--only speed step stream gpu pretrained] [--folds 10] [--epochs 40]

speed    EMO-DB, leave-one-speaker-out, recipes/cnn.toml, on the CPU: `train` with two jobs, then the loop of plain_loop.py,
         which has the same model, folds, batch size, epochs and epoch selection
step     the cost of a training step per utterance, and the memory of a process, recipe by recipe beside the textbook recipe
         (recipes/textbook.toml): training_step.py; with --data, EMODB is not needed
stream   one epoch of 300 hours of synthetic audio, which do not fit into memory, against 2.5 hours, which do
pretrained  a frozen pre-trained encoder with cached layers, against a loop that runs it in every epoch; EMODB is not needed
gpu      all folds x 5 seeds on one GPU, as many at the same time as there are cores, against one after another

EMODB is the folder of the original corpus; PREPARED is what `siser prepare emodb` made of it, or it is prepared first. Times are
wall-clock times of one call, opening the data included. The last line of the output is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import plain_loop
import torch
from rich.console import Console
from rich.progress import Progress
from training_step import DEFAULT, measure_steps, memory_mb

from speaker_invariant_ser import metrics
from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.corpora.base import list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.manifest import Utterance, write_manifest
from speaker_invariant_ser.data.prepare import prepare
from speaker_invariant_ser.data.prepared_corpus import AUDIO, FORMAT, MANIFEST, SETTINGS, PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits
from speaker_invariant_ser.files import sha256, write_json
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import SerModel, load_model
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training import launcher
from speaker_invariant_ser.training.optimisation import choose_precision

RECIPE = Path(__file__).parents[1] / "recipes" / "cnn.toml"
PARTS = ("speed", "step", "stream", "gpu", "pretrained")
NEED_EMODB = {"speed", "gpu"}
STEP_PHASES = ("data", "features", "network", "adversary", "update")  # columns seconds_PHASE of metrics.csv
GPU_SEEDS = 5

# The synthetic corpus. Every NOISY-th utterance is noise; the others are holes in a sparse file. With noise in all, deleting
# the file took minutes, since its blocks were scattered.
HOURS, SMALL_HOURS, SPEAKERS, TEXTS, EPOCH_CLIPS = 300, 2.5, 100, 20, 1600
CLIP, NOISY = 2**16, 32  # samples of an utterance; one utterance in NOISY has noise
EMOTIONS = ("angry", "fearful", "happy", "neutral", "sad")


@dataclass(frozen=True)
class Task:
    """A training on EMO-DB.

    Attributes:
        folder: The original corpus.
        data: The prepared corpus.
        recipe: What is trained.
        folds: Number of folds that are trained, the first ones.
        runs: Folder for the runs.
    """

    folder: Path
    data: Path
    recipe: Recipe
    folds: int
    runs: Path

    @property
    def prepared(self) -> PreparedCorpus:
        """The prepared corpus, opened, with the recipe's labels."""
        return PreparedCorpus.open(self.data).labelled(self.recipe.labels.map)

    def with_train(self, **changes: int) -> "Task":
        """Return the task with other settings of [train]."""
        return replace(self, recipe=with_train(self.recipe, **changes))

    def train(self, device: str, jobs: int, title: str, after_epoch: Callable[[], object] = lambda: None) -> tuple[Run, float]:
        """Train with the package; return the run and its seconds. `after_epoch` is called after each epoch."""
        out, models = Path(tempfile.mkdtemp(dir=self.runs)) / "run", self.folds * self.recipe.train.seeds
        first_folds = patch.object(launcher, "make_splits", lambda *arguments: make_splits(*arguments)[: self.folds])
        with first_folds, bar(title, models * self.recipe.train.epochs) as advance:
            started = time.perf_counter()
            prepared = PreparedCorpus.open(self.data)
            run = launcher.train(
                self.recipe, prepared, out, device=device, jobs=jobs, progress=lambda *_: (advance(), after_epoch())
            )
            return run, time.perf_counter() - started


def speed(task: Task, seeds: int, jobs: int) -> dict:
    """Compare the package and the plain loop on EMO-DB; further seeds of the package are trained afterwards, for the spread."""
    recipe, prepared = task.recipe, task.prepared
    run, ours_s = task.train("cpu", jobs, "ours")
    uars, share = [test_uar(prepared, load_models(run))], network_share(run)
    print(f"ours: {ours_s:.1f} s, test UAR {uars[0]:.3f}; in the network {show(share)} of a step")
    workers = faster_workers(task, run.splits[0])
    with bar("plain loop", len(run.splits) * recipe.train.epochs) as advance:
        started = time.perf_counter()
        models = [plain_loop.train_fold(task.folder, prepared, split, recipe, workers, advance) for split in run.splits]
        plain_s = time.perf_counter() - started
    plain_uar = test_uar(prepared, zip(run.splits, models, strict=True))
    print(f"plain loop: {plain_s:.1f} s, test UAR {plain_uar:.3f}, DataLoader with {workers} workers")
    for seed in range(recipe.train.seed + 1, recipe.train.seed + seeds):
        other, _ = task.with_train(seed=seed).train("cpu", jobs, f"ours, seed {seed}")
        uars.append(test_uar(prepared, load_models(other)))
    spread = statistics.stdev(uars) if seeds > 1 else None
    if seeds > 1:
        print(f"ours over {seeds} seeds: test UAR {statistics.mean(uars):.3f}, deviation {spread:.3f}")
    return {
        "folds": len(run.splits),
        "epochs": recipe.train.epochs,
        "jobs": jobs,
        "bfloat16": choose_precision(recipe.train.precision, "cpu") == "bfloat16",
        "ours_s": round(ours_s, 1),
        "plain_s": round(plain_s, 1),
        "plain_workers": workers,
        "vs_plain_loop": round(plain_s / ours_s, 2),
        "uar": rounded(statistics.mean(uars)),
        "uar_deviation": rounded(spread),
        "plain_uar": rounded(plain_uar),
        "network_share": rounded(share),
    }


def load_models(run: Run) -> Iterator[tuple[Split, SerModel]]:
    """Yield each fold of a run with its model."""
    return ((spec.split, load_model(spec.folder)) for spec in run.model_specs)


def faster_workers(task: Task, split: Split) -> int:
    """Return 0 or 2 DataLoader workers, whichever takes less time for a second epoch; not part of the measured time."""
    seconds, recipe = {}, with_train(task.recipe, epochs=2)
    for workers in (0, 2):
        ends: list[float] = []
        plain_loop.train_fold(task.folder, task.prepared, split, recipe, workers, lambda: ends.append(time.perf_counter()))  # noqa: B023
        seconds[workers] = ends[1] - ends[0]
    print("plain loop, one epoch: " + ", ".join(f"{workers} workers {seconds[workers]:.1f} s" for workers in seconds))
    return min(seconds, key=seconds.get)


def test_uar(prepared: PreparedCorpus, models: Iterable[tuple[Split, SerModel]]) -> float:
    """Return the UAR over the test utterances of all folds together."""
    truth, predicted = [], []
    for split, model in models:
        chosen = split.indices("test", prepared.utterances)
        probability = apply_to_clips(model, [prepared.clip(index) for index in chosen]).probability
        predicted += probability.argmax(axis=1).tolist()
        truth += [model.labels.index(prepared.utterances[index].emotion) for index in chosen]
    return metrics.uar(np.array(truth), np.array(predicted), len(model.labels))


def network_share(run: Run) -> float | None:
    """Return the share of forward and backward passes in the time of training steps; first epochs are excluded."""
    rows = [row for spec in run.model_specs for row in spec.metrics()[1:]]
    total = sum(step_seconds(row) for row in rows)
    return sum(row["seconds_network"] + row["seconds_adversary"] for row in rows) / total if rows else None


def step_seconds(row: dict[str, float]) -> float:
    """Return the seconds of all training steps of an epoch."""
    return sum(row[f"seconds_{phase}"] for phase in STEP_PHASES)


def stream(scratch: Path | None) -> dict:
    """Train on 300 hours from disk and on 2.5 hours in memory, with as many utterances per epoch, each in its own process."""
    results = {}
    for name, hours in (("streamed", HOURS), ("resident", SMALL_HOURS)):
        with tempfile.TemporaryDirectory(dir=scratch) as temporary:
            clips = write_hours(Path(temporary) / "data", hours)
            completed = subprocess.run(
                [sys.executable, __file__, "--child", temporary], stdout=subprocess.PIPE, text=True, check=True
            )
            results[name] = json.loads(completed.stdout.splitlines()[-1])
        result = results[name]
        print(
            f"{name}, {hours} hours, {clips} utterances: {result['clips_per_s']:.0f} a second, at most {result['peak_mb']:.0f} MB"
        )
        print(f"    {result['imported_mb']:.0f} MB after the imports, {result['opened_mb']:.0f} MB once the corpus is open")
    return {
        **{f"streamed_{name}": round(value) for name, value in results["streamed"].items()},
        "resident_clips_per_s": round(results["resident"]["clips_per_s"]),
        "streamed_vs_resident": round(results["streamed"]["clips_per_s"] / results["resident"]["clips_per_s"], 2),
    }


def write_hours(folder: Path, hours: float) -> int:
    """Write a synthetic prepared corpus of 4.1 s utterances in a sparse file; return the number of utterances."""
    folder.mkdir()
    clips = int(hours * 3600 * SAMPLE_RATE / CLIP)
    noise = np.random.default_rng(0).integers(-3000, 3000, CLIP, dtype="<i2").tobytes()
    utterances = [
        Utterance(
            id=f"{number:06}",
            corpus="synthetic",
            speaker=f"{number % SPEAKERS:03}",
            emotion=EMOTIONS[number // SPEAKERS % len(EMOTIONS)],
            text=f"{number // SPEAKERS // len(EMOTIONS) % TEXTS:02}",
            source="none.wav",
            offset=number * CLIP,
            samples=CLIP,
        )
        for number in range(clips)
    ]
    write_manifest(folder / MANIFEST, utterances)
    with open(folder / AUDIO, "wb") as file:
        file.truncate(2 * clips * CLIP)
        for number in range(0, clips, NOISY):
            file.seek(2 * number * CLIP)
            file.write(noise)
    # The hash of the audio is checked when a run is evaluated; training only records it.
    write_json(
        folder / SETTINGS,
        {"format": FORMAT, "corpora": ["synthetic"], "sha256": {MANIFEST: sha256(folder / MANIFEST), AUDIO: "not computed"}},
    )
    return clips


def train_hours(folder: Path) -> dict[str, float]:
    """Train one epoch of the default network on a synthetic corpus in this process."""
    imported = memory_mb("VmHWM")
    prepared, speakers = PreparedCorpus.open(folder / "data"), [f"{number:03}" for number in range(4)]
    opened = memory_mb("VmHWM")
    recipe = make_recipe(
        {
            "split": {"scheme": "fixed", "dev": speakers[:2], "test": speakers[2:]},
            "train": {"epochs": 1, "epoch_clips": EPOCH_CLIPS},
        }
    )
    run = launcher.train(recipe, prepared, folder / "run", device="cpu")
    (row,) = run.model_specs[0].metrics()
    return {
        "clips_per_s": EPOCH_CLIPS / step_seconds(row),
        "imported_mb": imported,
        "opened_mb": opened,
        "peak_mb": memory_mb("VmHWM"),
    }


def gpu(task: Task) -> dict | None:
    """Train all folds and seeds on one GPU, with as many workers as cores and with one; measure the peak memory of a model."""
    if not torch.cuda.is_available():
        print("GPU: none here, this part is skipped")
        return None
    task, jobs, free = task.with_train(seeds=GPU_SEEDS), os.cpu_count() or 1, [torch.cuda.mem_get_info()[0]]
    run, together_s = task.train("cuda", jobs, "together", after_epoch=lambda: free.append(torch.cuda.mem_get_info()[0]))
    _, in_turn_s = task.train("cuda", 1, "in turn")
    utterances = task.prepared.utterances
    clips = task.recipe.train.epochs * sum(len(spec.split.indices("train", utterances)) for spec in run.model_specs)
    model_bytes = (free[0] - min(free)) / min(jobs, len(run.model_specs))
    result = {
        "device": torch.cuda.get_device_name(),
        "models": len(run.model_specs),
        "jobs": jobs,
        "together_s": round(together_s, 1),
        "in_turn_s": round(in_turn_s, 1),
        "vs_gpu_sequential": round(in_turn_s / together_s, 2),
        "clips_per_s": round(clips / together_s),
        "model_mb": round(model_bytes / 1e6),
        "models_fit": int(torch.cuda.mem_get_info()[1] / model_bytes),
    }
    print(f"GPU: {result}")
    return result


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar if standard error is a terminal; the function it yields is called after each epoch."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def with_train(recipe: Recipe, **changes: int) -> Recipe:
    """Return a recipe with other settings of [train]."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def rounded(value: float | None) -> float | None:
    """Round to three digits."""
    return value if value is None else round(value, 3)


def show(share: float | None) -> str:
    """Return a share as text."""
    return "(unknown from first epochs)" if share is None else f"{share:.1%}"


def whole_number(text: str) -> int:
    """Parse a number from 1."""
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1")
    return int(text)


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="the original EMO-DB, with its folder wav")
    parser.add_argument("--data", type=Path, help="what `siser prepare emodb` made of it; by default it is prepared first")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--folds", type=whole_number, default=10, help="number of folds, the first ones; the benchmark has all ten"
    )
    parser.add_argument("--epochs", type=whole_number, help="number of epochs; the benchmark has the recipe's")
    parser.add_argument(
        "--seeds", type=whole_number, default=1, help="seeds of the package's training, for the spread of the UAR"
    )
    parser.add_argument("--jobs", type=whole_number, default=2, help="models that the package trains at the same time on the CPU")
    parser.add_argument("--recipes", nargs="+", type=Path, default=DEFAULT, help="recipes that the part step measures")
    parser.add_argument(
        "--rounds", type=whole_number, help="epochs of each recipe in the part step (7), rounds of pretrained (3)"
    )
    parser.add_argument("--scratch", type=Path, help="folder for the 300 hours: 1.1 GB in a sparse file of 35 GB")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train_hours(options.child)))
        return
    needs_emodb = bool(NEED_EMODB & set(options.only) or ("step" in options.only and not options.data))
    if needs_emodb and not (options.folder and (options.folder / "wav").is_dir()):
        parser.error(f"{options.folder} is not EMO-DB: expected a folder with a folder wav in it")
    recipe = read_recipe(RECIPE)
    epochs = options.epochs or recipe.train.epochs
    result = {"full": (options.folds, epochs) == (10, recipe.train.epochs)}
    if not result["full"]:
        print(f"a short run, not the benchmark: {options.folds} folds, {epochs} epochs")
    with tempfile.TemporaryDirectory() as place:
        data = options.data or Path(place) / "data"
        task = Task(options.folder, data, with_train(recipe, epochs=epochs), options.folds, Path(place))
        if needs_emodb and not options.data:
            prepare([list_corpus(get_corpus("emodb"), options.folder)], data, f0=True)
        if "speed" in options.only:
            result |= speed(task, options.seeds, options.jobs)
        if "step" in options.only:
            result["step"] = measure_steps(data, options.recipes, options.rounds or 7)
        if "stream" in options.only:
            result |= stream(options.scratch)
        if "pretrained" in options.only:
            from pretrained_loop import measure_pretrained  # needs transformers

            result["pretrained"] = measure_pretrained(options.epochs, options.rounds)
        if "gpu" in options.only:
            result["gpu"] = gpu(task)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
