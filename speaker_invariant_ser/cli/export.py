"""`siser export`: the models of a run alone, to be passed on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import opened, say

if TYPE_CHECKING:
    from speaker_invariant_ser.runs import Run


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, fully trained.")],
    out: Annotated[Path | None, typer.Option(help="The export: a new folder for all models.")] = None,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="The export: a new ONNX file for one model, which needs no torch (extra onnx).")
    ] = None,
    fold: Annotated[str | None, typer.Option(help="With --onnx: the fold whose model is taken, where a run has several.")] = None,
    seed: Annotated[int | None, typer.Option(help="With --onnx: the seed whose model is taken, where a run has several.")] = None,
    evaluated: Annotated[
        Path | None,
        typer.Option(
            help="With --out: an evaluated run of the same recipe, whose results the card of a model trained with --final has."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the model card, such as cc0-1.0.")] = "other",
) -> None:
    """Write the models of a run into a folder, or one of them into an ONNX file, that can be passed on.

    The folder holds the models and a model card, and is all that `siser infer` needs. The ONNX file computes features, emotion
    probabilities and embedding from a waveform. A run itself names its speakers and held-out files; an export has no name of a
    speaker or file and no path.
    """
    if (out is None) == (onnx is None):
        raise typer.BadParameter("expected one of --out FOLDER and --onnx FILE.")
    source = opened(run)
    if onnx:
        write_onnx(source, onnx, fold, seed)
        return
    if fold is not None or seed is not None:
        raise typer.BadParameter("--fold and --seed choose the model of an ONNX file: expected --onnx FILE beside them.")
    from speaker_invariant_ser.report.export import export_run

    assert out
    number = export_run(source, out, licence, opened(evaluated) if evaluated else None)
    say(f"{number} {'model' if number == 1 else 'models'} -> {out}   next: siser infer {out} FILES --out predictions.csv")


def write_onnx(run: "Run", path: Path, fold: str | None, seed: int | None) -> None:
    """Write one model of a run as an ONNX file."""
    from speaker_invariant_ser.inference.onnx_export import export_onnx, one_model

    spec = one_model(run, fold, seed)
    difference = export_onnx(spec.folder, path)
    say(f"model {spec.name} -> {path}, equal to PyTorch within {difference:.0e}   next: siser infer {path} FILES --out table.csv")
