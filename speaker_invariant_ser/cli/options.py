"""Options that several commands share: one name, one unit and one meaning on all of them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from speaker_invariant_ser.cli.console import warn
from speaker_invariant_ser.processes import cores

CORES = cores()


def recipe_names(incomplete: str) -> list[str]:
    """Return the shipped recipes whose names begin so, for shell completion."""
    from speaker_invariant_ser.config import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def corpus_names(incomplete: str) -> list[str]:
    """Return the known corpora, and the kinds of own data, whose names begin so, for shell completion."""
    from speaker_invariant_ser.data.corpora.registry import known_corpora
    from speaker_invariant_ser.data.tables.custom_formats import CUSTOM_FORMATS

    return [name for name in (*known_corpora(), *CUSTOM_FORMATS) if name.startswith(incomplete)]


class Channel(StrEnum):
    """What one utterance is made of, from a file with several channels."""

    MIX = "mix"
    LEFT = "left"
    RIGHT = "right"


class Channels(StrEnum):
    """What is predicted of a file with several channels."""

    MIX = "mix"
    LEFT = "left"
    RIGHT = "right"
    EACH = "each"


def warn_of_cores(jobs: int | None) -> int | None:
    """Warn if `--jobs` exceeds the number of cores, which bounds it."""
    if jobs and jobs > CORES:
        warn(f"--jobs {jobs}: this machine has {CORES} cores; at most {CORES} processes are used")
    return jobs


FileJobs = Annotated[
    int, typer.Option("--jobs", min=1, callback=warn_of_cores, help="Processes that decode or analyse audio files in parallel.")
]
ModelJobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, callback=warn_of_cores, help="Models trained in parallel; by default as many as cores and memory allow."
    ),
]
AttackerJobs = Annotated[int, typer.Option("--jobs", min=1, callback=warn_of_cores, help="Attackers fitted in parallel.")]
Devices = Annotated[
    int, typer.Option(min=1, help="Processes that share each batch; each takes a GPU of its own if there are any.")
]
Device = Annotated[str, typer.Option(help="auto (the first GPU, otherwise the CPU), cpu or cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="Closed-form attackers only (logistic regression, LDA, QDA, k-NN): fast, never claims chance."),
]
SplitRecipe = Annotated[
    Path | None,
    typer.Option(
        help="Recipe, or name of one, whose split and labels are used; default: leave one speaker out.",
        autocompletion=recipe_names,
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value, replaces a value of the recipe; may be repeated.")
]
JudgeTable = Annotated[
    Path | None,
    typer.Option(
        "--judge",
        metavar="TABLE",
        help="Embeddings of the same utterances by a speaker encoder, joined by id: what the recordings themselves reveal.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="OURS=THEIRS, the table's name of a column, such as speaker=spk_id; may be repeated."),
]
SameSpeaker = Annotated[
    bool | None,
    typer.Option(
        "--same-speaker/--distinct-speakers",
        help="Whether speaker names that differ only in case, accents, separators, similar letters, or how umlauts or numbers "
        "are written, are one speaker.",
        show_default="an error",
    ),
]


def pair(text: str, option: str, example: str) -> tuple[str, str]:
    """Split `a=b` into `("a", "b")`.

    Args:
        text: The option's value.
        option: Name of the option, for the error message.
        example: A correct value, for the error message.

    Returns:
        The words before and after the first equals sign.

    Raises:
        typer.BadParameter: There is no equals sign, or nothing on one side of it.
    """
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        raise typer.BadParameter(f"{option} {text}: expected two words with = between, such as {example}.")
    return left, right


def column_names(columns: list[str] | None) -> dict[str, str]:
    """Return the table's column name for each of ours, from the values of `--column`."""
    return dict(pair(text, "--column", "speaker=spk_id") for text in columns or ())


def require_former_report(out: Path, quick: bool = False) -> None:
    """Raise WriteError if `out` holds anything but a former report, which may be replaced, a full one not by a quick one."""
    from speaker_invariant_ser.errors import WriteError
    from speaker_invariant_ser.evaluation.summary import JSON, REPORT_FILES, holds_full_report, is_report, require_report_folder
    from speaker_invariant_ser.files import refuse_existing, require_only
    from speaker_invariant_ser.runs import RECIPE, SPLIT

    if quick and holds_full_report(out):
        raise WriteError(f"{out} holds a full report, which --quick does not replace; choose another --out")
    if all((out.resolve().parent / name).is_file() for name in (RECIPE, SPLIT)):
        raise WriteError(f"{out} is in a run, whose own report may be there; choose another --out")
    advice = "choose another --out; only a former report is replaced"
    if is_report(out / JSON):
        require_only(out, REPORT_FILES, advice)
        require_report_folder(out)
    else:
        refuse_existing(out, advice)
