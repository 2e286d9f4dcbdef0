"""Measure the time of a training step with each method, relative to the same step without an adversary.

    python benchmarks/methods.py PREPARED [--rounds 5] [--steps 12]

PREPARED is a prepared corpus with F0, such as EMO-DB. In every round, each method's recipe and the reference,
recipes/no-adversary.toml, take the given number of steps in turn; the ratio is that of the median rounds. Loading and
augmentation are part of a step; erasure and release, which follow training, are not. The last line of the output is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import chain
from pathlib import Path

import torch
from lightning_fabric import Fabric

from speaker_invariant_ser.config import read_recipe
from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.launcher import launched_fabric
from speaker_invariant_ser.training.timing import PhaseTimer
from speaker_invariant_ser.training.trainer import Trainer

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
REFERENCE = "no adversary"


class SteppedTraining:
    """A training of the first fold that takes a few steps at a time."""

    def __init__(self, recipe: Recipe, data: Path, folder: Path, fabric: Fabric) -> None:
        prepared = PreparedCorpus.open(data).labelled(recipe.labels.map)
        splits = hold_out(make_splits(recipe.split, prepared.utterances)[:1], prepared.utterances, recipe.audit.holdout)
        run = Run.create(folder, recipe, splits, prepared)
        work = folder / "work"
        work.mkdir()
        self.trainer = Trainer(run, prepared, run.model_specs[0], fabric, work)
        self.trainer.module.train()
        self.batches = chain.from_iterable(self.trainer.batches.epoch(number, 0, PhaseTimer()) for number in range(1, 10**6))
        self.seconds: list[float] = []

    def take_steps(self, steps: int) -> None:
        """Take training steps and note the seconds per utterance."""
        start, trainer, threads = time.perf_counter(), self.trainer, torch.get_num_threads()
        clips = 0
        for _ in range(steps):
            mels, frames, labels = next(self.batches)
            trainer.training_step(mels, frames, labels)
            trainer.state.step = (trainer.state.step + 1) % trainer.total_steps
            clips += len(mels)
        assert torch.get_num_threads() == threads
        self.seconds.append((time.perf_counter() - start) / clips)


def without_adversaries(trainer: Trainer) -> None:
    """Make a trainer skip its adversaries."""
    trainer.adversaries.inputs = lambda *arguments: []
    trainer.adversaries.train_classifiers = lambda *arguments: None
    trainer.adversaries.forward = lambda *arguments: []


def main() -> None:
    """Time all methods and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a prepared corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as `siser train` has it on two cores
    paths = [RECIPES / "default.toml", *sorted(RECIPES.glob("*/*.toml"))]
    recipes = {path.stem: read_recipe(path, ["train.schedule=constant"]) for path in paths}
    reference = read_recipe(RECIPES / "no-adversary.toml", ["train.schedule=constant"])
    with tempfile.TemporaryDirectory() as folder, launched_fabric("auto", "cpu") as fabric:
        trainings = {}
        for name, recipe in {REFERENCE: reference, **recipes}.items():
            try:
                trainings[name] = SteppedTraining(recipe, options.data, Path(folder) / name, fabric)
            except SerError as error:
                print(f"{name}: not measured, {error}")
        without_adversaries(trainings[REFERENCE].trainer)
        for number in range(options.rounds + 1):
            for training in trainings.values():
                training.take_steps(options.steps)
            print(f"round {number} of {options.rounds}", flush=True)
    # The first round warms up.
    medians = {name: statistics.median(training.seconds[1:]) for name, training in trainings.items()}
    reference_s = medians.pop(REFERENCE)
    print(f"an utterance without an adversary: {1000 * reference_s:.2f} ms")
    for name, seconds in medians.items():
        print(f"{name:20} {seconds / reference_s:.2f}")
    ratios = {name: round(seconds / reference_s, 2) for name, seconds in medians.items()}
    print(json.dumps({"clip_ms": round(1000 * reference_s, 2), "rounds": options.rounds, "steps": options.steps, **ratios}))


if __name__ == "__main__":
    main()
