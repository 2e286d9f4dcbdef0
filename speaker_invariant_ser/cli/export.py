"""`siser export` and `siser card`: the models of a run alone, to be passed on, and what is known of a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import opened, opened_models, say

if TYPE_CHECKING:
    from speaker_invariant_ser.runs import Run

Licence = Annotated[str, typer.Option(help="Licence of the weights, for the model card, such as cc0-1.0.")]


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
    licence: Licence = "other",
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
    from speaker_invariant_ser.inference.onnx.export import export_onnx, one_model

    spec = one_model(run, fold, seed)
    difference = export_onnx(spec.folder, path)
    say(f"model {spec.name} -> {path}, equal to PyTorch within {difference:.0e}   next: siser infer {path} FILES --out table.csv")


def card(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder; or a folder that `siser export` wrote, a model that `siser models` lists, or hf:OWNER/NAME."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="New file to write, such as README.md; without it, the card is printed.")
    ] = None,
    evaluated: Annotated[
        Path | None,
        typer.Option(help="Of a run trained with --final: an evaluated run of the same recipe, whose results the card has."),
    ] = None,
    licence: Licence = "other",
) -> None:
    """Print the model card of a run or model: what it was trained on, and what is known of it.

    The card has the form of the Hugging Face Hub: on which corpora the model was trained and who recorded these, how well it
    recognises emotions of unseen speakers, how much of a speaker its embedding reveals, and what it must not be used for. The
    card of a run that is not evaluated says so.
    """
    from speaker_invariant_ser.files import refuse_existing, writing

    text = text_of_card(model, evaluated, licence)
    if out is None:
        for line in text.splitlines():
            say(line)
        return
    with writing(refuse_existing(out, "choose another --out, or remove it"), "w") as file:
        file.write(text)
    say(f"card of {model} -> {out}")


def text_of_card(model: str, evaluated: Path | None, licence: str) -> str:
    """Return the card of a run, made of what is known of it, or that of an export, which comes with it."""
    from speaker_invariant_ser.errors import RunError
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.inference.loading import is_onnx
    from speaker_invariant_ser.report.export import card_of, read_card

    if is_onnx(model):
        raise RunError(f"{model}: an ONNX file has no card: expected the run that it was exported from")
    source = opened_models(Path(model))
    if not isinstance(source, Export):
        return card_of(source, licence, source.folder.resolve().name, opened(evaluated) if evaluated else None)
    if evaluated or licence != "other":
        raise typer.BadParameter(f"--evaluated and --licence are for the card of a run; that of {model} is written already.")
    return read_card(source)
