"""`siser infer`: predict emotions for audio files."""

from pathlib import Path
from typing import Annotated

import typer

from speaker_invariant_ser.cli.console import opened_models, say, warn
from speaker_invariant_ser.cli.options import Channels, Device, Quiet
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import counted

SHOWN_FAILURES = 10  # the table has all of them
SHOWN_NOTES = 3
CALIBRATED = "calibrated, by temperatures fitted on speakers that the models were not trained on"
UNCALIBRATED = (
    "not calibrated: the models hold no temperatures; training fits them with dev speakers, train.inner_folds or --final"
)


def infer(
    run: Annotated[Path, typer.Argument(help="Run folder, or the folder or ONNX file that `siser export` made of one.")],
    inputs: Annotated[list[str], typer.Argument(help="Audio files, folders, globs, or .txt lists with one path a line.")],
    out: Annotated[Path, typer.Option(help="Table to write: .csv, .jsonl or .parquet.")],
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

    Writes a row for each file: label, confidence, the probability of each emotion, whether these are calibrated, notes about
    defects, about channels that differ and about recording conditions outside those of the training, or an error for a file that
    cannot be used. Folders are searched for recordings; those of unknown formats are errors.
    """
    from speaker_invariant_ser.inference.predict import calibrated, is_onnx, load_models, predict

    source = run if is_onnx(run) else opened_models(run)
    with progress_bars(quiet) as progress:
        from speaker_invariant_ser.inference.inputs import find_inputs
        from speaker_invariant_ser.inference.tables import open_table, require_table

        require_table(out, overwrite)
        found = find_inputs(inputs, warn)
        models = load_models(source, fold, device, one_speaker)
        expected = len(models) if fold is not None or isinstance(source, Path) else source.number
        if len(models) < expected:
            warn(f"{run}: only {len(models)} of {counted(expected, 'model')} trained; predictions average these")
        failures, notes, rows = [], [], 0
        with open_table(out, models[0].labels, channel == Channels.EACH, overwrite) as write:
            for row in predict(models, found, lambda done, total: progress("predicting", done, total), channel.value):
                write(row)
                rows += 1
                if row["error"]:
                    failures.append(str(row["error"]))
                elif row["notes"]:
                    notes.append(f"{row['path']}: {row['notes']}")
    unit = "row" if channel == Channels.EACH else "file"
    say(f"{rows - len(failures)} of {counted(rows, unit)}{' of one speaker (transductive)' * one_speaker} -> {out}")
    say(f"confidence: {CALIBRATED if calibrated(models) else UNCALIBRATED}")
    report_notes(notes, out)
    report_failures(failures, out)


def report_notes(notes: list[str], out: Path) -> None:
    """Warn of files that were used although something is wrong with them."""
    for note in notes[:SHOWN_NOTES]:
        warn(note)
    if len(notes) > SHOWN_NOTES:
        warn(f"{counted(len(notes), 'file')} with notes, in column `notes` of {out}")


def report_failures(failures: list[str], out: Path) -> None:
    """Warn of files that could not be used, and exit with 1 if there are any."""
    for reason in failures[:SHOWN_FAILURES]:
        warn(reason)
    if failures:
        warn(f"{counted(len(failures), 'file')} failed; the reasons are in column `error` of {out}")
        raise typer.Exit(1)
