"""What metrics.csv says as TensorBoard events, in tensorboard/FOLD[/seed-S] of the run. Needs the extra `tensorboard`."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_invariant_ser.errors import SetupError
from speaker_invariant_ser.files import partial_of, write_errors
from speaker_invariant_ser.runs import FOLDS, Fit, Run
from speaker_invariant_ser.training.trainer import Row

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "tensorboard"
GROUPS = ("loss", "accuracy", "uar", "gradient", "seconds")  # curves of one unit stand together


def board(folder: Path | str) -> "Board":
    """A `Progress` that writes each epoch of the run in `folder` as events. Raises SetupError if TensorBoard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SetupError(f"TensorBoard is missing ({error}): pip install 'speaker-invariant-ser[tensorboard]'") from None
    return Board(Path(folder), SummaryWriter)


class Board:
    """Every epoch once, also if training was cut short and repeats some: what is there is written anew when a model goes on."""

    def __init__(self, folder: Path, writer: Callable[[str], "SummaryWriter"]) -> None:
        self.folder, self.writer = folder, writer
        self.open: dict[str, SummaryWriter] = {}
        self.written: dict[str, int] = {}  # the last epoch of each model

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """By name. The run is there as soon as there is anything to tell."""
        return {fit.name: fit for fit in Run.open(self.folder).fits}

    def __call__(self, name: str, row: Row) -> None:
        """Write one epoch of the model of that name, before the first one those that it had when it was cut short."""
        fit = self.fits[name]
        if name not in self.written and row["epoch"] > 1:
            before = replace(fit, folder=partial_of(fit.folder)).metrics()
            self.write(fit, [one for one in before if one["epoch"] < row["epoch"]])
        self.write(fit, [row])

    def finish(self) -> None:
        """Write what no one told: models that were trained before there was a board."""
        for fit in self.fits.values():
            if fit.done:
                self.write(fit, [row for row in fit.metrics() if row["epoch"] > self.written.get(fit.name, 0)])

    def close(self) -> None:
        for writer in self.open.values():
            writer.close()
        self.open.clear()

    def write(self, fit: Fit, rows: Sequence[Row]) -> None:
        if not rows:
            return
        place = self.folder / EVENTS / fit.folder.relative_to(self.folder / FOLDS)
        with write_errors(place):
            if fit.name not in self.written:
                shutil.rmtree(place, ignore_errors=True)  # of an earlier start
            if fit.name not in self.open:
                self.close_finished()
                self.open[fit.name] = self.writer(str(place))
            for row in rows:
                for column, value in row.items():
                    if column != "epoch":
                        self.open[fit.name].add_scalar(tag(column), value, int(row["epoch"]))
            self.open[fit.name].flush()
        self.written[fit.name] = int(rows[-1]["epoch"])

    def close_finished(self) -> None:
        """A run may have a thousand models, and a writer has a file and a thread."""
        for name in [name for name in self.open if self.fits[name].done]:
            self.open.pop(name).close()


def tag(column: str) -> str:
    """A column of metrics.csv as TensorBoard groups it.

    >>> tag("adversary_loss_uninformed"), tag("seconds"), tag("learning_rate")
    ('loss/adversary uninformed', 'seconds/all', 'learning_rate')
    """
    words = column.split("_")
    for group in set(GROUPS) & set(words):
        return f"{group}/{' '.join(word for word in words if word != group) or 'all'}"
    return column
