"""Progress on standard error: bars where that is a terminal, otherwise lines."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from speaker_invariant_ser.cli.console import printable, say
from speaker_invariant_ser.errors import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from speaker_invariant_ser.recipe import TrainSection
    from speaker_invariant_ser.runs import ModelSpec

DAY = 86_400.0  # seconds
FIRST_LINE = 5.0  # seconds of training before the first estimate
STEADY = 2  # epochs of a model after its first, which starts workers and fills caches, that an estimate is made from
LINES = 20  # about so many lines about a training, and at least one in MAX_PAUSE
MIN_PAUSE, MAX_PAUSE = 10.0, 600.0  # seconds between two of them
TASK_PAUSE = 30.0  # seconds before the first line about other tasks; each pause is twice the one before, up to MAX_PAUSE


def is_first_process() -> bool:
    """Return whether this process may print: of the processes that torchrun started, only the one of rank 0."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each task.

    Args:
        quiet: Show nothing. Otherwise, where standard error is not a terminal, lines are printed at growing intervals.

    Yields:
        A function `progress(task, done, total)` that updates the bar of that task.
    """
    if quiet or not sys.stderr.isatty():
        yield TaskLines() if not quiet and is_first_process() else lambda task, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:32}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        ids: dict[str, TaskID] = {}

        def progress(task: str, done: int, total: int) -> None:
            if task not in ids:
                ids[task] = bars.add_task(printable(task), total=total)
            bars.update(ids[task], completed=done, total=total)

        yield progress


class TaskLines:
    """Prints how far a task is after TASK_PAUSE seconds, then after twice as many, and so on."""

    def __init__(self) -> None:
        self.pause, self.last = TASK_PAUSE, time.monotonic()

    def __call__(self, task: str, done: int, total: int) -> None:
        """Print a line if it is time for one."""
        if time.monotonic() - self.last >= self.pause:
            self.pause, self.last = min(2 * self.pause, MAX_PAUSE), time.monotonic()
            say(f"{task}: {done:,} of {total:,}", error=True)


@contextmanager
def training_progress(
    quiet: bool, folder: Path, settings: "TrainSection"
) -> Iterator[Callable[[str, Mapping[str, float]], None]]:
    """Show the progress of a training run: bars, which disappear at the end, or lines where standard error is no terminal.

    Args:
        quiet: Show nothing.
        folder: The run's folder.
        settings: [train] of the recipe.

    Yields:
        A function `progress(name, row)` for a model's name and its latest row of metrics.csv, or that of an inner fold.
    """
    if quiet:
        yield lambda name, row: None
    elif not sys.stderr.isatty():
        yield TrainingLines(folder, settings)
    else:
        from rich.console import Console

        with progress_of_training(Console(stderr=True)) as bars:
            yield TrainingBars(bars, folder, settings)


def progress_of_training(console: "Console") -> "Progress":
    """Return rich's progress display with the columns of `TrainingBars`."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=34, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[count]}", justify="right"),
        TextColumn("{task.fields[uar]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, expand=True, transient=True, speed_estimate_period=DAY)  # epochs may take hours


class TrainingCounts:
    """How many epochs of which models are done. The epochs of inner folds count as those of their model."""

    def __init__(self, folder: Path, settings: "TrainSection") -> None:
        self.folder, self.settings = folder, settings
        self.epochs = settings.inner_epochs + settings.epochs  # of a model; a refit may end before
        self.epochs_done: dict[str, int] = {}  # by model
        self.dev_uar: dict[str, float | None] = {}  # by model, of those that are trained

    @cached_property
    def model_specs(self) -> "dict[str, ModelSpec]":
        """The run's models by name; loaded lazily, because the run's folder is created when training starts."""
        from speaker_invariant_ser.runs import Run

        return {spec.name: spec for spec in Run.open(self.folder).model_specs}

    @property
    def all_epochs(self) -> int:
        """Epochs of all models."""
        return self.epochs * len(self.model_specs)

    def count(self, name: str, row: Mapping[str, float]) -> bool:
        """Count an epoch, and return whether it is new.

        Args:
            name: The model's name.
            row: The epoch's row of metrics.csv.
        """
        if not self.epochs_done:  # epochs from before --resume took no time now, and must not count into the time remaining
            self.epochs_done = {name: epochs_begun(spec) for name, spec in self.model_specs.items()}
        before = (row["inner_fold"] - 1) * self.settings.epochs if "inner_fold" in row else self.settings.inner_epochs
        if before + row["epoch"] < self.epochs_done[name]:
            return False
        self.epochs_done[name] = int(before + row["epoch"])
        self.note_trained()
        return True

    def note_trained(self) -> None:
        """Look on disk for trained models: some stop before the last epoch, and some were trained before this start."""
        from speaker_invariant_ser.runs import best_epoch

        for name, spec in self.model_specs.items():
            if name not in self.dev_uar and spec.done:
                self.dev_uar[name], self.epochs_done[name] = best_epoch(spec.metrics()).get("dev_uar"), self.epochs

    @property
    def mean_uar(self) -> float | None:
        """Mean dev UAR of the trained models, None without one."""
        known = [uar for uar in self.dev_uar.values() if uar is not None]
        return mean(known) if known else None


class TrainingLines(TrainingCounts):
    """A line after the first seconds of training, with an estimate of how long it takes, and others at longer intervals."""

    def __init__(self, folder: Path, settings: "TrainSection", now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(folder, settings)
        self.now, self.next_line = now, now() + FIRST_LINE
        self.started, self.done_before = now(), 0  # epochs that an earlier start has done
        self.seen: dict[str, int] = {}  # epochs of this start, by model
        self.first: tuple[float, int] | None = None  # time and epochs done after the first epoch: workers start slowly

    def __call__(self, name: str, row: Mapping[str, float]) -> None:
        """Count an epoch, and print a line if one is due; see `count`."""
        if not self.count(name, row):
            return
        done, now = sum(self.epochs_done.values()), self.now()
        self.seen[name] = self.seen.get(name, 0) + 1
        if self.first is None:
            self.first, self.done_before = (now, done), done - 1
        if now < self.next_line or done == self.all_epochs:
            return
        steady = self.seen[name] > STEADY or now - self.first[0] >= MIN_PAUSE  # by model: some are trained at the same time
        if not steady and now - self.started < MAX_PAUSE:
            return
        since, before = self.first if done > self.first[1] else (self.started, self.done_before)
        elapsed, left = now - self.started, (now - since) / (done - before) * (self.all_epochs - done)
        self.next_line = now + min(MAX_PAUSE, max(MIN_PAUSE, (elapsed + left) / LINES))
        models = f"{len(self.dev_uar):,} of {counted(len(self.model_specs), 'model')} trained"
        uar = ", " + shown_uar(self.mean_uar) if self.mean_uar is not None else ""
        epochs = f"{done:,} of {self.all_epochs:,} epochs"
        say(f"{models}{uar}, {epochs}; {duration(elapsed)} so far, about {duration(left)} left", error=True)


class TrainingBars(TrainingCounts):
    """A bar for all models, with the mean dev UAR of the trained ones, and a bar for each model in training, with its dev UAR."""

    def __init__(self, bars: "Progress", folder: Path, settings: "TrainSection") -> None:
        super().__init__(folder, settings)
        self.bars, self.total = bars, bars.add_task("starting", total=None, count="", uar="")
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, row: Mapping[str, float]) -> None:
        """Update the bars after an epoch; see `count`."""
        if not self.count(name, row):
            return
        for trained in self.dev_uar.keys() & self.tasks.keys():
            self.bars.update(self.tasks[trained], visible=False)
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(printable(f"fold {name}"), total=self.epochs, count="", uar="")
        count, uar = f"{self.epochs_done[name]}/{self.epochs}", shown_uar(row.get("dev_uar"))
        finished = name in self.dev_uar or self.epochs_done[name] == self.epochs
        self.bars.update(self.tasks[name], completed=self.epochs_done[name], count=count, uar=uar, visible=not finished)
        self.show_total()

    def show_total(self) -> None:
        """Update the bar of all models."""
        self.bars.update(
            self.total,
            description="all folds"
            if all(spec.split.name == name for name, spec in self.model_specs.items())
            else "all folds and seeds",
            total=self.all_epochs,
            completed=sum(self.epochs_done.values()),
            count=f"{len(self.dev_uar)}/{len(self.model_specs)} trained",
            uar=shown_uar(self.mean_uar),
        )


def duration(seconds: float) -> str:
    """Return a time in words, rounded.

    >>> duration(42), duration(200), duration(5400), duration(300_000)
    ('42 s', '3 min', '1.5 h', '83 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:.0f} h"


def shown_uar(uar: float | None) -> str:
    """Return a dev UAR as a bar shows it; "" without one."""
    return "" if uar is None else f"dev UAR {uar:.3f}"


def epochs_begun(spec: "ModelSpec") -> int:
    """Return the number of epochs of a model in training, those of inner folds included, from its unfinished folder."""
    from speaker_invariant_ser.files import partial_of
    from speaker_invariant_ser.runs import rows_so_far

    return len(rows_so_far(partial_of(spec.folder)))
