"""What a training step costs with each method, as a ratio to the same step without any adversary, measured in one run.

    python benchmarks/methods.py PREPARED [--rounds 5] [--steps 12]

PREPARED is a prepared corpus, such as EMO-DB. Every recipe of a method takes so many steps in turn, the reference
(recipes/emodb.toml with no adversary at all) with them, and all of that so many rounds; the median round of each is compared
with the reference's. Augmentation and the reading of clips count: they are part of a step. What happens after training
(erasure, release) does not. The last line of the output is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import chain
from pathlib import Path

import torch

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


class Going:
    """A training of the first fold that is taken a few steps at a time."""

    def __init__(self, recipe: Recipe, data: Path, place: Path, fabric) -> None:
        prepared = PreparedCorpus.open(data).labelled(recipe.labels.map)
        splits = hold_out(make_splits(recipe.split, prepared.utterances)[:1], prepared.utterances, recipe.audit.holdout)
        run = Run.create(place, recipe, splits, prepared)
        place.joinpath("work").mkdir()
        self.training = Trainer(run, prepared, run.fits[0], fabric, place / "work")
        self.training.module.train()
        self.batches = chain.from_iterable(self.training.batches.epoch(number, 0, PhaseTimer()) for number in range(1, 10**6))
        self.seconds: list[float] = []

    def go(self, steps: int) -> None:
        begun, training, threads = time.perf_counter(), self.training, torch.get_num_threads()
        clips = 0
        for _ in range(steps):
            mels, frames, labels = next(self.batches)
            training.training_step(mels, frames, labels)
            training.state.step = (training.state.step + 1) % training.total_steps
            clips += len(mels)
        assert torch.get_num_threads() == threads
        self.seconds.append((time.perf_counter() - begun) / clips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a prepared corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as `siser train` has it on two cores
    recipes = {path.stem: read_recipe(path, ["train.schedule=constant"]) for path in sorted(RECIPES.glob("*/*.toml"))}
    reference = read_recipe(RECIPES / "emodb.toml", ["train.schedule=constant"])
    with tempfile.TemporaryDirectory() as folder, launched_fabric("auto", "cpu") as fabric:
        going = {}
        for name, recipe in {REFERENCE: reference, **recipes}.items():
            try:
                going[name] = Going(recipe, options.data, Path(folder) / name, fabric)
            except SerError as error:
                print(f"{name}: not measured, {error}")
        none = going[REFERENCE].training
        none.opponents.pulls = lambda *seen: ()
        for number in range(options.rounds + 1):
            for one in going.values():
                one.go(options.steps)
            print(f"round {number} of {options.rounds}", flush=True)
    cost = {name: statistics.median(one.seconds[1:]) for name, one in going.items()}  # the first round warms up
    base = cost.pop(REFERENCE)
    print(f"a clip without an adversary: {1000 * base:.2f} ms")
    for name, seconds in cost.items():
        print(f"{name:20} {seconds / base:.2f}")
    ratios = {name: round(seconds / base, 2) for name, seconds in cost.items()}
    print(json.dumps({"clip_ms": round(1000 * base, 2), "rounds": options.rounds, "steps": options.steps, **ratios}))


if __name__ == "__main__":
    main()
