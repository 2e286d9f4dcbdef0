"""`siser train`: train the folds of a recipe."""

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import say, show_trained, warn
from speaker_invariant_ser.cli.options import Device, Devices, ModelJobs, Overrides, Quiet, recipe_names
from speaker_invariant_ser.cli.progress import duration, is_first_process, progress_bars, training_progress
from speaker_invariant_ser.errors import counted, quoted

if TYPE_CHECKING:
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.processes import EpochProgress
    from speaker_invariant_ser.recipe import Recipe
    from speaker_invariant_ser.runs import Run
    from speaker_invariant_ser.training.epoch_metrics import Row

MANY_MODELS = 60  # beyond which a training is confirmed: more folds than that are often a mistake
CLIPS_PER_SECOND = 300  # that a core of an AMD EPYC trains with the default recipe, measured on EMO-DB


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="Recipe in TOML, or the name of one that `siser recipes` lists.",
            show_default="default",
            autocompletion=recipe_names,
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The prepared corpus.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run: a new folder.")] = None,
    overrides: Overrides = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final",
            help="Train one model on all speakers, to be used by `siser infer`; no speaker is left to evaluate it on.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --out: keep trained models, resume those with a checkpoint."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help=f"Train more than {MANY_MODELS} models without a question.")] = False,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot augmented training inputs into this .png or .svg, and train nothing."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write every epoch as TensorBoard events as well, into tensorboard/ of the run.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of training; replaces train.seed of the recipe.")] = None,
    device: Device = "auto",
    devices: Devices = 1,
    jobs: ModelJobs = None,
    quiet: Quiet = False,
) -> None:
    """Train every fold and seed of a recipe.

    Each fold has test speakers, which training never uses, and speakers to train on. Dev speakers, or with train.refit inner
    folds over the training speakers, select the epoch; the default recipe selects nothing.
    """
    from speaker_invariant_ser.config import DEFAULT_RECIPE
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus

    if not (out or preview):
        raise typer.BadParameter("give --out RUN to train, or --preview FILE to preview without training.")
    if recipe is None and is_first_process():
        say(f"recipe: {DEFAULT_RECIPE}, since none is named; `siser recipes` lists others")
    seeded = [] if seed is None else [f"train.seed={seed}"]
    settings = read_with_warnings(recipe or Path(DEFAULT_RECIPE), [*final_values(final), *(overrides or []), *seeded])
    if not data:
        raise typer.BadParameter("expected --data FOLDER, a prepared corpus; make one with `siser prepare`.")
    prepared, shown = PreparedCorpus.open(data), is_first_process()
    labelled = prepared.labelled(settings.labels.map, settings.split)
    if labelled.mapped.summary and shown:
        say(f"labels ({labelled.mapped.name}): {labelled.mapped.summary}")
    if preview:
        draw_preview(preview, settings, prepared)
        return
    assert out
    if shown:
        show_folds(settings, labelled)
    if not (yes or resume):
        confirm_many(settings, prepared)
    if shown and settings.encoder.on_waveform:
        compute_layers(settings, labelled, device, quiet)
    with training_progress(quiet or not shown, out, settings.train) as progress:
        from speaker_invariant_ser.training import launcher

        start = partial(launcher.train, settings, prepared, out, resume, device, jobs, devices=devices, notify=warn)
        run = train_with_tensorboard(start, out, progress) if tensorboard and shown else start(progress)
    if shown:
        if run.unbound:
            warn(run.about_unbound)
        show_trained(run)
        evaluate = f"evaluate {quoted(out)}" if run.record["data"] else f"evaluate {quoted(out)} --data {quoted(data)}"
        command = f"infer {quoted(out)} FILES --out predictions.csv" if final else evaluate
        say(f"run: {out}   next: siser {command}")


def compute_layers(settings: "Recipe", prepared: "PreparedCorpus", device: str, quiet: bool) -> None:
    """Compute the layers of a frozen pre-trained encoder into the corpus, unless they are there; after the recipe was checked."""
    from speaker_invariant_ser.features.pretrained.front import layers_folder, use_cache
    from speaker_invariant_ser.models.model import choose_device
    from speaker_invariant_ser.training.checks import check_waveform

    check_waveform(settings)
    if (folder := layers_folder(settings.encoder, prepared)) and not folder.is_dir():
        say(f"layers of {counted(len(prepared.unmapped or prepared.utterances), 'utterance')}, computed once -> {folder}")
        with progress_bars(quiet) as progress:
            use_cache(settings.encoder, prepared, choose_device(device), progress)


def show_folds(settings: "Recipe", labelled: "PreparedCorpus") -> None:
    """Print how many speakers the folds have, and warn where they are trained on few."""
    from speaker_invariant_ser.data.fold_sizes import about_few_speakers, describe_folds
    from speaker_invariant_ser.data.splits import make_splits

    splits = make_splits(settings.split, labelled.utterances)
    say(describe_folds(splits))
    if warning := about_few_speakers(settings.split, splits):
        warn(warning)


def final_values(final: bool) -> tuple[str, ...]:
    """Return the values of a recipe that --final replaces."""
    if not final:
        return ()
    from speaker_invariant_ser.training.refit import FINAL

    return FINAL


def confirm_many(settings: "Recipe", prepared: "PreparedCorpus") -> None:
    """Ask whether many models shall be trained; where nobody can be asked, refuse and name the option that confirms.

    Raises:
        SplitError: Nobody can be asked, or the answer is no; or the corpus cannot be split as the recipe says.
    """
    from speaker_invariant_ser.data.splits import make_splits
    from speaker_invariant_ser.errors import SplitError

    utterances = prepared.labelled(settings.labels.map, settings.split).utterances
    splits = make_splits(settings.split, utterances)
    models, epochs = len(splits) * settings.train.seeds, settings.train.epochs + settings.train.inner_epochs
    if models <= MANY_MODELS:
        return
    clips = sum(settings.train.epoch_clips or len(split.indices("train", utterances)) for split in splits) * settings.train.seeds
    every = " (each utterance is of another: is the column speaker right?)" if len(splits) == len(utterances) else ""
    size = (
        f"{models} models, {len(splits)} folds{every} with {settings.train.seeds} seed(s), {epochs} epochs each: about "
        f"{duration(clips * epochs / CLIPS_PER_SECOND)} of processor time with the default recipe"
    )
    fewer = "--set split.scheme=group-kfold --set split.folds=5 has five folds"
    if not sys.stdin.isatty() or "TORCHELASTIC_RUN_ID" in os.environ:
        raise SplitError(f"{size}; train them all with --yes, or fewer: {fewer}")
    if not typer.confirm(f"{size}. Train them all?", err=True):
        raise SplitError(f"nothing was trained; {fewer}")


def read_with_warnings(path: Path, overrides: list[str]) -> "Recipe":
    """Read a recipe, and print its warnings about renamed keys as `warning:` lines."""
    from speaker_invariant_ser.config import read_recipe

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FutureWarning)
        recipe = read_recipe(path, overrides)
    for warning in caught:
        if is_first_process():
            warn(str(warning.message))
    return recipe


def draw_preview(path: Path, settings: "Recipe", prepared: "PreparedCorpus") -> None:
    """Plot what the encoder gets for some training utterances, with and without augmentation."""
    if settings.features.front != "log-mel":
        raise typer.BadParameter(f"--preview plots log-mel features; features.front of this recipe is {settings.features.front}.")
    if settings.encoder.on_waveform:
        raise typer.BadParameter(f"--preview plots log-mel features, which encoder.name = {settings.encoder.name} does not get.")
    from speaker_invariant_ser.report.augmentation_preview import preview_clips, write_preview

    write_preview(path, preview_clips(settings, prepared), settings.features)
    say(f"training inputs: {path}")


def train_with_tensorboard(start: Callable[["EpochProgress"], "Run"], folder: Path, progress: "EpochProgress") -> "Run":
    """Train, and write every epoch as TensorBoard events as well.

    Args:
        start: Trains and returns the run, given a function that is called after every epoch.
        folder: The run's folder.
        progress: Called after every epoch as well.

    Returns:
        The trained run.
    """
    from speaker_invariant_ser.training.tensorboard import open_tensorboard

    with closing(open_tensorboard(folder)) as events:

        def report(name: str, row: "Row") -> None:
            progress(name, row)
            events(name, row)

        run = start(report)
        events.finish()
    return run
