"""`siser infer`: predict emotions for audio files."""

import glob
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import opened_models, say, show_table, warn
from speaker_invariant_ser.cli.options import Channels, Device, Quiet
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import counted

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.predict import Row

DEFAULT_MODEL = "emodb-five"  # of those that come with the package
MODEL_FILES = ("export.json", "recipe.toml", "split.json")  # of an export, or of a run
SHOWN_FAILURES = 10  # the table has all of them
SHOWN_NOTES = 3
CALIBRATED = "calibrated, by temperatures fitted on speakers that the models were not trained on"
UNCALIBRATED = (
    "not calibrated: the models hold no temperatures; training fits them with dev speakers, train.inner_folds or --final"
)


def infer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Audio files, folders, globs, or .txt lists with one path a line; the first may be the model, as for --model.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Table to write: .csv, .jsonl or .parquet. Without it, a short table is printed."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder, the folder or ONNX file that `siser export` made of one, or a model that `siser models` lists.",
            show_default=DEFAULT_MODEL,
        ),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="Use the models of this fold alone; by default, average all folds.")] = None,
    one_speaker: Annotated[
        bool,
        typer.Option("--one-speaker", help="All inputs are of one speaker; required by runs that normalise by speaker."),
    ] = False,
    channel: Annotated[
        Channels,
        typer.Option(
            help="Of files with several channels: their mean, the left (first), the right (second), or a row for each channel."
        ),
    ] = Channels.MIX,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier table of predictions in --out; no other file is replaced.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Predict the emotion of audio files.

    Without a model, that of the package is taken. Writes a row for each file: label, confidence, the probability of each emotion,
    whether these are calibrated, notes about defects, about channels that differ and about recording conditions outside those of
    the training, or an error for a file that cannot be used. Folders are searched for recordings; those of unknown formats are
    errors.
    """
    from speaker_invariant_ser.inference.predict import calibrated, is_onnx, load_models, predict

    chosen, inputs = model_and_inputs(model, inputs)
    source = chosen if is_onnx(chosen) else opened_models(chosen)
    with progress_bars(quiet) as progress:
        from speaker_invariant_ser.inference.inputs import find_inputs
        from speaker_invariant_ser.inference.tables import open_table, require_table

        if out:
            require_table(out, overwrite)
        found = find_inputs(inputs, warn)
        models = load_models(source, fold, device, one_speaker)
        expected = len(models) if fold is not None or isinstance(source, Path) else source.number
        if len(models) < expected:
            warn(f"{chosen}: only {len(models)} of {counted(expected, 'model')} trained; predictions average these")
        failures, notes, rows = [], [], 0
        shown: list[Row] = []
        table = open_table(out, models[0].labels, channel == Channels.EACH, overwrite) if out else nullcontext(shown.append)
        with table as write:
            for row in predict(models, found, lambda done, total: progress("predicting", done, total), channel.value):
                write(row)
                rows += 1
                if row["error"]:
                    failures.append(str(row["error"]))
                elif row["notes"]:
                    notes.append(f"{row['path']}: {row['notes']}")
    if not out:
        show_predictions(shown)
    unit = "row" if channel == Channels.EACH else "file"
    target = f" -> {out}" if out else ""
    say(f"{rows - len(failures)} of {counted(rows, unit)}{' of one speaker (transductive)' * one_speaker}{target}")
    say(f"model: {chosen}")
    say(f"confidence: {CALIBRATED if calibrated(models) else UNCALIBRATED}")
    report_notes(notes, out)
    report_failures(failures, out)


def model_and_inputs(model: str | None, words: list[str]) -> tuple[Path, list[str]]:
    """Return the model and the inputs: without --model, the first word is the model if it is one."""
    if model is not None:
        return Path(model), words
    if not is_model(words[0]):
        return Path(DEFAULT_MODEL), words
    if len(words) == 1:
        raise typer.BadParameter(f"{words[0]} is the model: expected audio files, folders, globs or .txt lists after it.")
    return Path(words[0]), words[1:]


def is_model(word: str) -> bool:
    """Return whether a word stands for a model and not for recordings; of what does not exist, a name without an ending does."""
    path = Path(word)
    if path.is_dir():
        return any((path / name).is_file() for name in MODEL_FILES)
    return path.suffix.lower() == ".onnx" or not (path.exists() or path.suffix or glob.has_magic(word))


def show_predictions(rows: "list[Row]") -> None:
    """Print a table of predictions."""
    from speaker_invariant_ser.report.tables import Table

    channel = ["channel"] * any("channel" in row for row in rows)
    cells = [
        [str(row["path"]), *(str(row[name]) for name in channel), str(row["label"] or "-"), percent(row["confidence"])]
        for row in rows
    ]
    show_table(Table(["file", *channel, "emotion", "confidence"], cells))


def percent(value: object) -> str:
    """Write a share as a percentage, and a dash for none."""
    return f"{100 * value:.0f} %" if isinstance(value, float) else "-"


def report_notes(notes: list[str], out: Path | None) -> None:
    """Warn of files that were used although something is wrong with them."""
    for note in notes[:SHOWN_NOTES] if out else notes:
        warn(note)
    if out and len(notes) > SHOWN_NOTES:
        warn(f"{counted(len(notes), 'file')} with notes, in column `notes` of {out}")


def report_failures(failures: list[str], out: Path | None) -> None:
    """Warn of files that could not be used, and exit with 1 if there are any."""
    for reason in failures[:SHOWN_FAILURES] if out else failures:
        warn(reason)
    if failures:
        warn(f"{counted(len(failures), 'file')} failed{f'; the reasons are in column `error` of {out}' if out else ''}")
        raise typer.Exit(1)
