"""The rows of metrics.csv as TensorBoard events, in tensorboard/FOLD[/seed-S] of the run; needs the extra `tensorboard`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_invariant_ser.errors import SetupError
from speaker_invariant_ser.files import partial_of, write_errors
from speaker_invariant_ser.runs import FOLDS, ModelSpec, Run
from speaker_invariant_ser.training.epoch_metrics import Row

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "tensorboard"
UNITS = ("loss", "accuracy", "uar", "gradient", "seconds")  # curves of one unit are shown together


def open_tensorboard(folder: Path | str) -> "TensorBoardLog":
    """Return a progress callback for `train` that writes each epoch of the run in `folder` as events.

    Raises:
        SetupError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SetupError(f"TensorBoard is missing ({error}): pip install 'speaker-invariant-ser[tensorboard]'") from None
    return TensorBoardLog(Path(folder), SummaryWriter)


class TensorBoardLog:
    """Writes every epoch once, also if an interrupted training repeats some: a model that resumes replaces its events.

    Args:
        folder: Folder of the run.
        writer: Makes a SummaryWriter from the path of an event folder.
    """

    def __init__(self, folder: Path, writer: Callable[[str], "SummaryWriter"]) -> None:
        self.folder, self.writer = folder, writer
        self.writers: dict[str, SummaryWriter] = {}
        self.last_epoch: dict[str, int] = {}  # that was written, of each model

    @cached_property
    def model_specs(self) -> dict[str, ModelSpec]:
        """All models of the run by name; the run exists by the time of the first epoch."""
        return {spec.name: spec for spec in Run.open(self.folder).model_specs}

    def __call__(self, name: str, row: Row) -> None:
        """Write one epoch of the model of that name; if it has resumed, its earlier epochs first. Inner folds have no events."""
        if "inner_fold" in row:
            return
        spec = self.model_specs[name]
        if name not in self.last_epoch and row["epoch"] > 1:
            earlier = replace(spec, folder=partial_of(spec.folder)).metrics()
            self.write(spec, [before for before in earlier if before["epoch"] < row["epoch"]])
        self.write(spec, [row])

    def finish(self) -> None:
        """Write the epochs of models that were trained before events were asked for."""
        for spec in self.model_specs.values():
            if spec.done:
                self.write(spec, [row for row in spec.metrics() if row["epoch"] > self.last_epoch.get(spec.name, 0)])

    def close(self) -> None:
        """Close all event files."""
        for writer in self.writers.values():
            writer.close()
        self.writers.clear()

    def write(self, spec: ModelSpec, rows: Sequence[Row]) -> None:
        """Write some epochs of a model."""
        if not rows:
            return
        events = self.folder / EVENTS / spec.folder.relative_to(self.folder / FOLDS)
        with write_errors(events):
            if spec.name not in self.last_epoch:
                for path in events.glob("events.out.tfevents.*"):  # of an earlier start
                    path.unlink()
            if spec.name not in self.writers:
                self.close_finished()
                self.writers[spec.name] = self.writer(str(events))
            for row in rows:
                for column, value in row.items():
                    if column != "epoch":
                        self.writers[spec.name].add_scalar(tag(column), value, int(row["epoch"]))
            self.writers[spec.name].flush()
        self.last_epoch[spec.name] = int(rows[-1]["epoch"])

    def close_finished(self) -> None:
        """Close the event files of finished models: a run may have a thousand models, each with a file and a thread."""
        for name in [name for name in self.writers if self.model_specs[name].done]:
            self.writers.pop(name).close()


def tag(column: str) -> str:
    """Return the tag of a column of metrics.csv, which groups curves of one unit.

    >>> tag("adversary_loss_uninformed"), tag("seconds"), tag("learning_rate")
    ('loss/adversary uninformed', 'seconds/all', 'learning_rate')
    """
    words = column.split("_")
    for unit in set(UNITS) & set(words):
        return f"{unit}/{' '.join(word for word in words if word != unit) or 'all'}"
    return column
