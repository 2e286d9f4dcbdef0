"""`siser export`: the models of a run alone, to be passed on."""

from pathlib import Path
from typing import Annotated

import typer

from speaker_invariant_ser.cli.console import opened, say


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, fully trained.")],
    out: Annotated[Path, typer.Option(help="The export: a new folder.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the model card, such as cc0-1.0.")] = "other",
) -> None:
    """Write the models of a run into a folder that can be passed on.

    The folder holds the models and a model card, and is all that `siser infer` needs. A run itself names its speakers and
    held-out files; an export has no name of a speaker or file and no path.
    """
    source = opened(run)
    from speaker_invariant_ser.report.export import export_run

    number = export_run(source, out, licence)
    say(f"{number} {'model' if number == 1 else 'models'} -> {out}   next: siser infer {out} FILES --out predictions.csv")
