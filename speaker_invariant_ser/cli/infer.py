"""`siser infer`: predict emotions for audio files."""

import glob
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import opened_models, say, show_table, warn
from speaker_invariant_ser.cli.options import Channels, Device, Quiet, warn_of_cores
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.inference.defaults import DEFAULT_MODEL, WINDOW

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.archives.archive import Archive
    from speaker_invariant_ser.inference.archives.tables import Summary
    from speaker_invariant_ser.inference.inputs import Input
    from speaker_invariant_ser.inference.rows import Row
    from speaker_invariant_ser.inference.settings import Settings

MODEL_FILES = ("export.json", "recipe.toml", "split.json", "model.json")  # of an export, a run, or one model of a run
SHOWN_FAILURES = 10  # the table has all of them
SHOWN_NOTES = 3
CALIBRATED = "calibrated, by temperatures fitted on speakers that the models were not trained on"
UNCALIBRATED = (
    "not calibrated: the models hold no temperatures, which training fits on dev speakers, and on inner folds "
    "(train.inner_folds, --final) unless something is fitted after it, such as an eraser or a release"
)


class Engine(StrEnum):
    """What runs the models."""

    LOCAL = "local"
    RAY = "ray"


def infer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Audio files, folders, globs, .txt lists with one path a line, or - for such a list on standard input; "
            "the first may be the model, as for --model.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Table to write: .csv, .jsonl or .parquet; with --engine ray a folder. Without it, a short table is printed."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder, or that of one of its models; the folder or ONNX file that `siser export` made of one; a model "
            "that `siser models` lists; or hf:OWNER/NAME.",
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
        typer.Option(help="Of files with several channels: their mean, the left (first), the right (second), or rows for each."),
    ] = Channels.MIX,
    window: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds, 0.5 to 30: a row for each window, too. {WINDOW:g} with --hop or --plot.", show_default="none"
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds from one window to the next, at most --window.", show_default="half the window"),
    ] = None,
    vad: Annotated[bool, typer.Option("--vad", help="Predict the stretches of speech alone; needs the extra [vad].")] = False,
    segments: Annotated[
        Path | None,
        typer.Option(help="Segments to predict, from a diariser: .rttm, or a table with the columns file, start, end, speaker."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for a picture of each recording's timeline.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="File for the embedding of each row (.npz); needs --out.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Emotions to choose from, separated by commas; their probabilities sum to 1 then.")
    ] = None,
    min_confidence: Annotated[float, typer.Option(help="Below this confidence, 0 to 1, the emotion is `uncertain`.")] = 0.0,
    shard: Annotated[
        str | None, typer.Option(help="K/N: every N-th recording from number K on, for job K of N; each needs its own --out.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, callback=warn_of_cores, help="Processes; by default as many as there are cores, fewer for few recordings."
        ),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="local, or ray: a Ray cluster; needs the extra [ray].")] = Engine.LOCAL,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier table of predictions in --out; no other file is replaced.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Predict the emotion of audio files, as a whole or over time.

    Without a model, that of the package is taken. Writes a row for each file, and for each window, segment and speaker that is
    asked for: emotion, confidence, the probability of each emotion, warnings about defects and about recording conditions outside
    those of the training, or an error for a file that cannot be used. Folders are searched for recordings; those of unknown
    formats are errors. After an interruption, the same command continues.
    """
    from speaker_invariant_ser.inference.inputs import find_inputs, shard_of
    from speaker_invariant_ser.inference.settings import Settings

    refuse_outputs(out, embeddings, engine, overwrite)
    if plot:
        require_folder(plot)
    chosen, inputs = model_and_inputs(model, inputs)
    everything = find_inputs(inputs, warn)
    found = shard_of(everything, shard) if shard else everything
    window, hop = window_and_hop(window, hop, plot is not None and not vad and segments is None)
    settings = Settings(
        channel=channel.value,
        window=window,
        hop=hop,
        vad=vad,
        segments=segments_for(segments, everything) if segments else None,
        labels=tuple(label.strip() for label in labels.split(",")) if labels is not None else (),
        min_confidence=min_confidence,
        embeddings=embeddings is not None,
    )
    archive = open_archive(chosen, everything, found, settings, fold, device, one_speaker, plot, jobs, quiet)
    unit = "row" if settings.in_parts or channel == Channels.EACH else "file"
    summary = predicted(archive, out, embeddings, engine, overwrite)
    target = f"{' of one speaker (transductive)' * one_speaker}{f' -> {out}' if out else ''}"
    say(f"{summary.rows - summary.failed:,} of {counted(summary.rows, unit)}{target}")
    say(f"model: {chosen}")
    say(f"confidence: {CALIBRATED if archive.predictor.schema.calibrated else UNCALIBRATED}")
    report_notes(summary, out)
    report_failures(summary, out, unit)


def refuse_outputs(out: Path | None, embeddings: Path | None, engine: Engine, overwrite: bool) -> None:
    """Raise an error for outputs that may not be written, before any work."""
    if embeddings and not out:
        raise typer.BadParameter("--embeddings needs --out: the table says what each embedding is of.")
    if engine == Engine.RAY:
        if not out or embeddings:
            raise typer.BadParameter("--engine ray writes a folder of tables: expected --out FOLDER, and no --embeddings.")
        return
    if out:
        from speaker_invariant_ser.inference.archives.tables import require_embeddings, require_table

        require_table(out, overwrite)
        if embeddings:
            require_embeddings(embeddings, overwrite, out)


def require_folder(plot: Path) -> None:
    """Raise an error unless pictures can be written into a folder, before any work."""
    from speaker_invariant_ser.inference.archives.tables import require_writable

    if plot.exists() and not plot.is_dir():
        raise typer.BadParameter(f"--plot {plot}: a file of that name exists, expected a folder.")
    require_writable(plot / "NAME.timeline.png")


def window_and_hop(window: float | None, hop: float | None, wanted: bool) -> tuple[float, float]:
    """Return window and hop in seconds, 0 for none: as they are given, or the usual ones if windows are wanted."""
    from speaker_invariant_ser.inference.parts.windows import to_samples

    if window is None and hop is None and not wanted:
        return 0.0, 0.0
    window = WINDOW if window is None else window
    hop = window / 2 if hop is None else hop
    to_samples(window, hop)  # raises an error where they are out of range
    return window, hop


def segments_for(path: Path, found: "list[Input]") -> dict:
    """Return the segments of each recording; warn of those of other recordings."""
    from speaker_invariant_ser.inference.parts.segments import match, read_segments

    matched, missing = match(read_segments(path), [item.path for item in found])
    if not matched:
        raise typer.BadParameter(f"{path}: none of its {counted(len(missing), 'recording')} is among the inputs.")
    if missing:
        warn(f"{path}: {counted(len(missing), 'recording')} not among the inputs, such as {missing[0]}")
    return matched


def open_archive(
    chosen: Path,
    everything: "list[Input]",
    found: "list[Input]",
    settings: "Settings",
    fold: str | None,
    device: str,
    one_speaker: bool,
    plot: Path | None,
    jobs: int | None,
    quiet: bool,
) -> "Archive":
    """Load the models, and combine them with the recordings of a shard; what depends on others is that of all shards."""
    from speaker_invariant_ser.inference.archives.archive import Archive
    from speaker_invariant_ser.inference.archives.workers import Loading
    from speaker_invariant_ser.inference.loading import fingerprint, is_onnx, load_models
    from speaker_invariant_ser.inference.predict import Predictor, speaker_mean

    source = chosen if is_onnx(chosen) else opened_models(chosen)
    models = load_models(source, fold, device, one_speaker)
    expected = len(models) if fold is not None or isinstance(source, Path) else source.number
    if len(models) < expected:
        warn(f"{chosen}: only {len(models)} of {counted(expected, 'model')} trained; predictions average these")
    plots = None
    if plot:
        from speaker_invariant_ser.report.timeline import TimelinePlots, picture_names

        names = picture_names([item.path for item in everything], channels=settings.channel != Channels.MIX)
        plots = TimelinePlots(plot, names, models[0].labels, settings.min_confidence)
    mean = speaker_mean(models[0], everything, settings.channel)
    predictor = Predictor.of(models, settings, f"{chosen}:{fold}" if fold else str(chosen), mean, plots)
    loading = Loading(chosen if isinstance(source, Path) else source.folder, fold, device, one_speaker)
    return Archive(predictor, loading, found, fingerprint(source, fold), jobs, lambda: progress_bars(quiet))


def predicted(archive: "Archive", out: Path | None, embeddings: Path | None, engine: Engine, overwrite: bool) -> "Summary":
    """Predict all recordings, into `out` or onto the terminal, and return the summary."""
    if engine == Engine.RAY and out:
        from speaker_invariant_ser.inference.archives.cluster import predict_on_ray

        return predict_on_ray(archive, out, overwrite)
    if out:
        results = archive.write(out, overwrite, embeddings)
        if results.continued:
            say(f"continued after {counted(results.continued, 'recording')} of an interrupted call")
        return results.summary
    from speaker_invariant_ser.inference.archives.archive import summary_of

    rows = list(archive.rows())
    show_predictions(rows)
    return summary_of(rows)


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
    """Return whether a word stands for a model and not for recordings.

    Of what does not exist, models of the hub and names without an ending do; the number of a version, as in `emo-1.0`, is none.
    """
    from speaker_invariant_ser.inference.hub import is_hub
    from speaker_invariant_ser.inference.inputs import STDIN

    path = Path(word)
    if path.is_dir():
        return any((path / name).is_file() for name in MODEL_FILES)
    if path.exists() or word == STDIN:
        return path.suffix.lower() == ".onnx"
    ending = path.suffix[1:].lower()
    return is_hub(word) or ending == "onnx" or not (glob.has_magic(word) or (ending and not ending.isdecimal()))


def show_predictions(rows: "list[Row]") -> None:
    """Print a table of predictions; columns that no row needs are left out."""
    from speaker_invariant_ser.report.table import Table

    parts, each = any(row["level"] != "file" for row in rows), any(row["channel"] not in ("mix", "mono") for row in rows)
    speakers = any(row["speaker"] for row in rows)
    header = ["file", *["channel"] * each, *["level", "seconds"] * parts, *["speaker"] * speakers, "emotion", "confidence"]
    cells = [
        [
            str(row["file"]),
            *[str(row["channel"])] * each,
            *[str(row["level"]), f"{row['start']:.1f}-{row['end']:.1f}" if row["end"] is not None else "-"] * parts,
            *[str(row["speaker"] or "-")] * speakers,
            str(row["emotion"] or "-"),
            percent(row["confidence"]),
        ]
        for row in rows
    ]
    show_table(Table(header, cells))


def percent(value: object) -> str:
    """Write a share as a percentage, and a dash for none."""
    return f"{100 * value:.0f} %" if isinstance(value, float) else "-"


def report_notes(summary: "Summary", out: Path | None) -> None:
    """Warn of recordings that were used although something is wrong with them."""
    for note in summary.notes[:SHOWN_NOTES] if out else summary.notes:
        warn(note)
    if out and summary.noted > SHOWN_NOTES:
        warn(f"{counted(summary.noted, 'file')} with warnings, in column `warnings` of {out}")


def report_failures(summary: "Summary", out: Path | None, unit: str) -> None:
    """Warn of what could not be used, and exit with 1 if there is anything."""
    for reason in summary.failures[:SHOWN_FAILURES] if out else summary.failures:
        warn(reason)
    if summary.failed:
        place = f"; the reasons are in column `error` of {out}" if out else ""
        warn(f"{counted(summary.failed, unit)} failed{place}")
        raise typer.Exit(1)
