"""What a training step costs, recipe by recipe, beside the textbook recipe's; part `step` of train.py.

A step is everything between two batches: reading, features and augmentation, forward and backward pass, the adversary, and the
update. Recipes take turns, an epoch of real batches each, so that whatever slows the machine down slows all of them; medians over
rounds. All recipes get the same labels, folds and held-out utterances.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch

from speaker_invariant_ser.config import find_recipe, read_recipe
from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training import launcher
from speaker_invariant_ser.training.trainer import Trainer

RECIPES = Path(__file__).parents[1] / "recipes"
TEXTBOOK = RECIPES / "textbook.toml"  # a CNN on log-mel with a hop of 10 ms
DEFAULT = tuple(RECIPES / f"{name}.toml" for name in ("emodb", "emodb-prosody", "emodb-fusion"))
MEMORY_EPOCHS = 8


@dataclass
class Candidate:
    """A recipe and the seconds that its epochs took."""

    trainer: Trainer
    cpu_s: list[float] = field(default_factory=list)  # processor time of an epoch
    wall_s: list[float] = field(default_factory=list)

    def train_epoch(self) -> None:
        """Train an epoch without scoring the dev speakers, and note what it took."""
        cpu, wall = time.process_time(), time.perf_counter()
        self.trainer.train_epoch()
        self.cpu_s.append(time.process_time() - cpu)
        self.wall_s.append(time.perf_counter() - wall)
        self.trainer.state.epoch, self.trainer.state.batch = self.trainer.state.epoch + 1, 0

    def per_clip(self) -> dict[str, float]:
        """Return milliseconds per utterance; the first epoch, in which kernels are built, does not count."""
        clips = len(self.trainer.train_data)
        medians = {"cpu_ms": statistics.median(self.cpu_s[1:]), "wall_ms": statistics.median(self.wall_s[1:])}
        return {name: 1000 * seconds / clips for name, seconds in medians.items()}


def measure_steps(data: Path, paths: Sequence[Path], rounds: int) -> dict[str, dict[str, float]]:
    """Measure a training step of each recipe and of the textbook recipe, with one thread.

    Args:
        data: A prepared corpus, with F0 if a recipe needs it.
        paths: The recipes.
        rounds: Epochs of each recipe that count.

    Returns:
        For each recipe milliseconds per utterance, its ratio to the textbook recipe's (processor time), and the peak memory in
        MB.
    """
    paths = [TEXTBOOK, *(path for path in map(find_recipe, paths) if path.resolve() != TEXTBOOK)]
    torch.set_num_threads(1)
    with candidates(data, paths, rounds + 1) as found:
        for _ in range(rounds + 1):
            for candidate in found.values():
                candidate.train_epoch()
        results = {name: candidate.per_clip() for name, candidate in found.items()}
    for path in paths:
        result = results[path.stem]
        result["vs_textbook"] = result["cpu_ms"] / results[TEXTBOOK.stem]["cpu_ms"]
        result |= peak_of_process(data, path)
        results[path.stem] = {name: round(value, 2) for name, value in result.items()}
        print(
            f"{path.stem}: {result['cpu_ms']:.2f} ms of processor time per utterance, {result['vs_textbook']:.2f} of the "
            f"textbook recipe's; {result['peak_mb']:.0f} MB at most, {result['imports_mb']:.0f} of them imports"
        )
    return results


@contextmanager
def candidates(data: Path, paths: Sequence[Path], epochs: int) -> Iterator[dict[str, Candidate]]:
    """Open a training of the first fold for each recipe."""
    with tempfile.TemporaryDirectory() as place, launcher.launched_fabric("auto", "cpu") as fabric:
        found = {}
        for path in paths:
            recipe = same_task(read_recipe(path, [f"train.epochs={epochs}"]))
            prepared = PreparedCorpus.open(data).labelled(recipe.labels.map, recipe.split)
            splits = make_splits(recipe.split, prepared.utterances)[:1]
            splits = hold_out(splits, prepared.utterances, recipe.audit.holdout, recipe.audit.seed)
            run, work = Run.create(Path(place) / path.stem, recipe, splits, prepared), Path(place) / f"{path.stem}-work"
            work.mkdir()
            found[path.stem] = Candidate(Trainer(run, prepared, run.model_specs[0], fabric, work))
        yield found


def same_task(recipe: Recipe) -> Recipe:
    """Return a recipe with the default's labels, folds and held-out utterances, so that every recipe gets the same utterances."""
    default = Recipe()
    return recipe.model_copy(update={"labels": default.labels, "split": default.split, "audit": default.audit})


def peak_of_process(data: Path, path: Path) -> dict[str, float]:
    """Train a few epochs in a process of its own, as `siser train --jobs 1` does; return what it held at most, in MB."""
    command = [sys.executable, __file__, str(data), str(path)]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(completed.stdout.splitlines()[-1])
    return result


def peak_of_this_process(data: Path, path: Path) -> dict[str, float]:
    """Train a few epochs of the first fold in this process; return its memory after the imports and at most, in MB."""
    imports = memory_mb("VmRSS")
    recipe = same_task(read_recipe(path, [f"train.epochs={MEMORY_EPOCHS}"]))
    torch.set_num_threads(1)
    first_fold = patch.object(launcher, "make_splits", lambda *arguments: make_splits(*arguments)[:1])
    with tempfile.TemporaryDirectory() as place, first_fold:
        launcher.train(recipe, PreparedCorpus.open(data), Path(place) / "run", device="cpu")
    return {"peak_mb": memory_mb("VmHWM"), "imports_mb": imports}


def memory_mb(name: str) -> float:
    """Return a memory figure of this process, such as VmHWM, its peak; `getrusage` would include the parent's at the fork."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(peak_of_this_process(Path(sys.argv[1]), Path(sys.argv[2]))))
