"""`siser export`, `siser push` and `siser card`: the models of a run alone, to be passed on, and what is known of a model."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import opened, opened_models, say

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.runs import Run

Licence = Annotated[str, typer.Option(help="Licence of the weights, for the model card, such as cc0-1.0.")]
TrainingData = Annotated[
    str,
    typer.Option(
        help="For the model card, of data of your own: what was recorded, by whom, and under which licence.", metavar="TEXT"
    ),
]
Evaluated = Annotated[
    Path | None,
    typer.Option(help="Of a run trained with --final: an evaluated run of the same recipe, whose results the card has."),
]
UNSTATED = "other"  # the licence of weights for which none is given


def export(
    model: Annotated[
        str, typer.Argument(help="Run folder, fully trained; with --onnx also an export, or a model that `siser models` lists.")
    ],
    out: Annotated[Path | None, typer.Option(help="The export: a new folder for all models.")] = None,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="The export: a new ONNX file for one model, which needs no torch (extra onnx).")
    ] = None,
    transformers: Annotated[
        Path | None,
        typer.Option(
            "--transformers",
            help="The export: a new folder for one model on a pre-trained encoder, which transformers loads (extra pretrained).",
        ),
    ] = None,
    fold: Annotated[
        str | None, typer.Option(help="With --onnx or --transformers: the fold whose model is taken, where a run has several.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="With --onnx or --transformers: the seed whose model is taken, where a run has several.")
    ] = None,
    evaluated: Evaluated = None,
    licence: Licence = UNSTATED,
    training_data: TrainingData = "",
) -> None:
    """Write the models of a run into a folder, or one of them into an ONNX file or for transformers, to be passed on.

    The folder holds the models and a model card, and is all that `siser infer` needs. The ONNX file computes features, emotion
    probabilities and embedding from a waveform. What is written for transformers is a checkpoint with its encoder, for
    `transformers.pipeline("audio-classification")`. A run itself names its speakers and held-out files; an export has no name of
    a speaker or file and no path.
    """
    if sum(target is not None for target in (out, onnx, transformers)) != 1:
        raise typer.BadParameter("expected one of --out FOLDER, --onnx FILE and --transformers FOLDER.")
    if onnx:
        write_onnx(model, onnx, fold, seed)
        return
    source = opened(Path(model))
    from speaker_invariant_ser.report.export import export_run, write_for_transformers

    results = opened(evaluated) if evaluated else None
    if transformers:
        from speaker_invariant_ser.inference.onnx.export import one_model

        spec = one_model(source, fold, seed, "a checkpoint of transformers")
        difference = write_for_transformers(source, spec, transformers, licence, results, training_data)
        say(f"model {spec.name} -> {transformers}, equal to the model within {max(difference, 1e-7):.0e}")
        return
    if fold is not None or seed is not None:
        raise typer.BadParameter(
            "--fold and --seed choose the model of --onnx FILE or --transformers FOLDER: expected one of these beside them."
        )
    assert out
    number = export_run(source, out, licence, results, training_data)
    say(f"{number} {'model' if number == 1 else 'models'} -> {out}   next: siser infer {out} FILES --out predictions.csv")


def write_onnx(model: str, path: Path, fold: str | None, seed: int | None) -> None:
    """Write one model of a run, or that of an export, as an ONNX file."""
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.inference.onnx.export import export_onnx, one_model, only_model

    source = opened_models(Path(model))
    if isinstance(source, Export):
        name, folder = source.folder.name, only_model(source, fold, seed)
    else:
        spec = one_model(source, fold, seed)
        name, folder = spec.name, spec.folder
    difference = export_onnx(folder, path)
    say(f"model {name} -> {path}, equal to PyTorch within {difference:.0e}   next: siser infer {path} FILES --out table.csv")


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
    evaluated: Evaluated = None,
    licence: Licence = UNSTATED,
    training_data: TrainingData = "",
) -> None:
    """Print the model card of a run or model: what it was trained on, and what is known of it.

    The card has the form of the Hugging Face Hub: on which corpora the model was trained and who recorded these, how well it
    recognises emotions of unseen speakers, how much of a speaker its embedding reveals, and what it must not be used for. The
    card of a run that is not evaluated says so.
    """
    from speaker_invariant_ser.files import refuse_existing, writing

    text = text_of_card(opened_card_source(model), evaluated, licence, training_data)
    if out is None:
        for line in text.splitlines():
            say(line)
        return
    with writing(refuse_existing(out, "choose another --out, or remove it"), "w") as file:
        file.write(text)
    say(f"card of {model} -> {out}")


def opened_card_source(model: str) -> "Run | Export":
    """Open what has a card: a run, an export, a model of the package, or one of the hub."""
    from speaker_invariant_ser.errors import RunError
    from speaker_invariant_ser.inference.loading import is_onnx

    if is_onnx(model):
        raise RunError(f"{model}: an ONNX file has no card: expected the run that it was exported from")
    return opened_models(Path(model))


def text_of_card(source: "Run | Export", evaluated: Path | None, licence: str, training_data: str, name: str = "") -> str:
    """Return the card of a run, made of what is known of it, or that of an export, which comes with it."""
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.report.export import card_of, read_card

    if not isinstance(source, Export):
        name = name or source.folder.resolve().name
        return card_of(source, licence, name, opened(evaluated) if evaluated else None, training_data)
    if evaluated or licence != UNSTATED or training_data:
        raise typer.BadParameter(
            "--evaluated, --licence and --training-data are for the card of a run; "
            f"that of {source.folder.name} is written already."
        )
    return read_card(source)


def push(
    model: Annotated[str, typer.Argument(help="Run folder, fully trained; or a folder that `siser export` wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub.", metavar="OWNER/NAME")],
    licence: Licence = UNSTATED,
    training_data: TrainingData = "",
    evaluated: Evaluated = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; it is private otherwise.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the models of a repository that exists; its history keeps the former.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to upload to, made if it is missing; default: the main one.", show_default=False)
    ] = None,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Upload speech emotion recognition models",
    dry_run: Annotated[
        Path | None, typer.Option(help="New folder to write what would be uploaded into; nothing is uploaded.", metavar="FOLDER")
    ] = None,
    transformers: Annotated[
        bool,
        typer.Option(
            "--for-transformers",
            help="Upload one model on a pre-trained encoder, with its encoder, as transformers loads it (extra pretrained).",
        ),
    ] = False,
    fold: Annotated[
        str | None, typer.Option(help="With --for-transformers: the fold whose model is taken, where a run has several.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="With --for-transformers: the seed whose model is taken, where a run has several.")
    ] = None,
) -> None:
    """Upload the models of a run and their card to the Hugging Face Hub, where `hf:OWNER/NAME` names them.

    What is uploaded is what `siser export` writes: it has no name of a speaker or file and no path. Nothing is uploaded without
    the licence of the weights and a description of the training data in the card. Needs the extra hub, and `hf auth login`. With
    --for-transformers, `transformers.pipeline("audio-classification", model="OWNER/NAME")` loads it, and `siser infer` does not.
    """
    from tempfile import TemporaryDirectory

    from speaker_invariant_ser.errors import RunError, counted
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.inference.upload import require_repository, upload
    from speaker_invariant_ser.report.export import write_for_hub

    source = opened_card_source(model)
    if not isinstance(source, Export):
        source.all_models()
    name = require_repository(repository).partition("/")[2]
    named = f"siser infer --model hf:{repository}{f'@{revision}' if revision else ''} FILES --out predictions.csv"
    if transformers:
        if isinstance(source, Export):
            raise RunError(f"{model}: expected a run with --for-transformers, of which one model is written with its encoder")
        write = partial(write_checkpoint, source, repository, fold, seed, licence, evaluated, training_data)
        named = f'transformers.pipeline("audio-classification", model="{repository}")'
    elif fold is not None or seed is not None:
        raise typer.BadParameter("--fold and --seed choose the model of --for-transformers: expected it beside them.")
    else:
        write = partial(write_for_hub, source, name=model, card=text_of_card(source, evaluated, licence, training_data, name))
    if dry_run:
        say(f"{counted(write(folder=dry_run), 'model')} -> {dry_run}, as it would be uploaded; leave out --dry-run to upload it")
        return
    with TemporaryDirectory() as temporary:
        number = write(folder=(folder := Path(temporary) / "export"))
        address = upload(folder, repository, private=not public, revision=revision, message=message, exist_ok=overwrite)
    say(f"{counted(number, 'model')} -> {address}   next: {named}")


def write_checkpoint(
    run: "Run",
    repository: str,
    fold: str | None,
    seed: int | None,
    licence: str,
    evaluated: Path | None,
    training_data: str,
    folder: Path,
) -> int:
    """Write what is uploaded of a run for transformers into a new folder, and return the number of models, which is one."""
    from speaker_invariant_ser.inference.onnx.export import one_model
    from speaker_invariant_ser.report.export import write_for_transformers

    spec = one_model(run, fold, seed, "a checkpoint of transformers")
    results = opened(evaluated) if evaluated else None
    write_for_transformers(run, spec, folder, licence, results, training_data, repository)
    return 1
