"""`siser demo`: run everything on a corpus that needs no download."""

from pathlib import Path
from typing import Annotated

import typer

from speaker_invariant_ser.cli.console import say, show_comparison, show_outcomes, show_predictions
from speaker_invariant_ser.cli.options import CORES, Device, Quiet, warn_of_cores
from speaker_invariant_ser.cli.progress import progress_bars


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for all results; a former demo there is replaced.", show_default="siser-demo[-digits]"),
    ] = None,
    digits: Annotated[
        bool, typer.Option("--digits", help="Train on images of digits instead of speech: is there a zero? Under a minute.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of speech synthesis and of training.")] = 0,
    device: Device = "auto",
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, callback=warn_of_cores, help="Files decoded, or attackers fitted, in parallel.")
    ] = CORES,
    quiet: Quiet = False,
) -> None:
    """Run every step on synthesised speech, in minutes.

    Generates the built-in corpus, prepares it, trains the textbook model without and with an adversary and the recipes default
    and private, evaluates and compares them, and infers, last with the model that comes with the package. Every model is trained
    for 20 epochs, half of what the recipes have.
    """
    from speaker_invariant_ser.files import held

    run, out = demo_digits if digits else demo_speech, out or Path("siser-demo-digits" if digits else "siser-demo")
    with held(out):  # or a second demo would remove what this one computes
        run(out, seed, device, jobs, quiet)


def demo_speech(out: Path, seed: int, device: str, jobs: int, quiet: bool) -> None:
    """Run the demo on synthesised speech and print the results of all runs and some predictions."""
    with progress_bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.demos.speech import run_demo

        progress("loading", 1, 1)
        result = run_demo(out, seed, device, jobs, progress)
    show_comparison([evaluation.report for evaluation in result.evaluations])
    say()
    say("Predictions of the default recipe for an unseen speaker:")
    show_predictions(result.predictions)
    say("Predictions of the model that comes with the package; it knows human speech, so expect little for synthetic utterances:")
    show_predictions(result.shipped)
    say(f"report: {result.report}")


def demo_digits(out: Path, seed: int, device: str, jobs: int, quiet: bool) -> None:
    """Run the demo on images and print the accuracies of both runs."""
    with progress_bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.demos.digits import CURVES, run_demo

        progress("loading", 1, 1)
        result = run_demo(out, seed, device, jobs, progress)
    show_outcomes(result.outcomes, CURVES)
    say(f"curves: {result.curves}")
