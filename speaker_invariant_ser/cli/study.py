"""`siser study`: measure arms on corpora with several seeds, and make their tables and pictures.

`siser sweep`: search the hyperparameters of a recipe.
"""

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import one_line, say, show_table, warn
from speaker_invariant_ser.cli.options import CORES, Device, Overrides, Quiet, pair, recipe_names, warn_of_cores
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import SerError, StudyError, counted, quoted

if TYPE_CHECKING:
    from speaker_invariant_ser.studies.runner import Outcome
    from speaker_invariant_ser.studies.study import Study

SOME_FAILED = 1


def study(
    study: Annotated[Path, typer.Argument(help="The study in TOML, such as recipes/study-arms.toml.")],
    results: Annotated[
        Path | None, typer.Option(help="Folder of the result files; default: results, beside the study.", show_default=False)
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs, which an interrupted study continues.")] = Path("runs/study"),
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus", metavar="NAME=FOLDER", help="Folder of a prepared corpus, replaces the study's; may be repeated."
        ),
    ] = None,
    corpora: Annotated[list[str] | None, typer.Option(help="Measure on this corpus only; may be repeated.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure this arm only; may be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Measure the first N seeds of each arm only.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Audit with all attackers, also what has a result of the closed-form ones.")
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Measure results of another recipe or other data again, and remove such runs."),
    ] = False,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs/--remove-runs", help="Keep each run when its result is written; --full uses it again.")
    ] = True,
    table: Annotated[
        bool, typer.Option("--table", help="Make tables and pictures from the results, and measure nothing.")
    ] = False,
    device: Device = "auto",
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, callback=warn_of_cores, help="Models trained, then attackers fitted, in parallel.")
    ] = CORES,
    quiet: Quiet = False,
) -> None:
    """Measure arms, networks and baselines, on several corpora with several seeds.

    Each measurement is written into a small JSON file as soon as it is finished; the next start measures what is missing and
    continues what was interrupted. At the end, tables and pictures are made from these files.
    """
    from speaker_invariant_ser.studies.page import marks, page_of, require_marks
    from speaker_invariant_ser.studies.study import read_study

    folders = dict(pair(text, "--corpus", "emodb=data/emodb") for text in corpus or ())
    described = read_study(study, {name: Path(folder) for name, folder in folders.items()})
    folder = results or study.parent / "results"
    cells = described.cells(only or (), corpora or (), seeds)
    failed = False
    require_marks(page_of(described, folder), marks(described))
    if table:
        require_results(described, folder)
    else:
        from speaker_invariant_ser.studies.runner import Options, run_study

        options = Options(folder, runs, full, refresh, keep_runs, device, jobs)
        with progress_bars(quiet) as progress:
            for number, outcome in enumerate(run_study(described, cells, options, progress), start=1):
                show_outcome(outcome, f"{number}/{len(cells)}")
                failed = failed or outcome.status == "failed"
    show_tables(described, folder)
    say(f"page: {page_of(described, folder)}")
    if failed:
        raise typer.Exit(SOME_FAILED)


def require_results(described: "Study", folder: Path) -> None:
    """Raise StudyError if the folder holds no result of the study, so that a page is not emptied by a wrong --results."""
    from speaker_invariant_ser.studies.rows import gather

    if not gather(described, folder):
        raise StudyError(f"{folder} holds no result of this study, so its page is left as it is; measure without --table")


def show_outcome(outcome: "Outcome", number: str) -> None:
    """Print a line about a cell: its result on standard output, why there is none on standard error."""
    name = outcome.cell.name
    if outcome.error is not None:
        if not isinstance(outcome.error, SerError | MemoryError):
            for line in "".join(traceback.format_exception(outcome.error)).splitlines():
                say(line, error=True)
        say(f"error: {name}: {one_line(outcome.reason)}", error=True)
    elif outcome.status == "stale":
        warn(f"{name}: {outcome.reason}; --refresh measures it again")
    elif outcome.status == "skipped":
        say(f"{number} {name}: skipped, {outcome.reason}")
    elif outcome.result:
        emotion, speaker = outcome.result.numbers.emotion, outcome.result.numbers.speaker
        attacker = "speaker information not measured"
        if speaker:
            attacker = f"attacker {speaker.strongest.accuracy:.1%} {speaker.strongest.name} (chance {speaker.chance:.1%})"
        note = " (there already)" if outcome.status == "there" else ""
        say(f"{number} {name}: UAR {emotion.uar.value:.1%}, {attacker}{note}")


def show_tables(described: "Study", folder: Path) -> None:
    """Print the table of each corpus with its notes, and write the page with the pictures."""
    from speaker_invariant_ser.studies.page import write_page
    from speaker_invariant_ser.studies.rows import gather
    from speaker_invariant_ser.studies.tables import notes, table_of

    rows = gather(described, folder)
    for corpus in described.corpora:
        if corpus not in rows:
            say(f"{corpus}: no results yet")
            continue
        say()
        say(corpus)
        show_table(table_of(rows[corpus]))
        for line in notes(described, corpus, rows[corpus]):
            say(line)
    write_page(described, folder, rows)


def sweep(
    recipe: Annotated[
        Path,
        typer.Argument(help="Recipe in TOML, or its name, with a table [sweep], such as sweep.", autocompletion=recipe_names),
    ],
    data: Annotated[Path, typer.Option(help="The prepared corpus.")],
    out: Annotated[Path, typer.Option(help="Folder of the study: a new one, or with --resume one that was interrupted.")],
    overrides: Overrides = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of configurations to try; replaces sweep.trials of the recipe.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the study in --out; more --trials than before extend it."),
    ] = False,
    device: Device = "auto",
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            min=1,
            callback=warn_of_cores,
            show_default="1",
            help="Configurations trained in parallel; only 1 is repeatable.",
        ),
    ] = 1,
    quiet: Quiet = False,
) -> None:
    """Search the hyperparameters that the recipe's table [sweep] names.

    Every configuration is trained on a few folds and scored on their dev speakers: emotion UAR minus a weight times the speaker
    leak of the training speakers. Test speakers are never used. The chosen recipe is written to best.toml. Needs the extra sweep.
    """
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.studies.sweep_space import read_sweep

    searched = read_sweep(recipe, overrides or [])
    prepared = PreparedCorpus.open(data)
    with progress_bars(quiet) as progress:
        from speaker_invariant_ser.studies.sweep import run_sweep
        from speaker_invariant_ser.studies.sweep_results import BEST, best_table

        result = run_sweep(searched, prepared, out, resume, device, jobs, trials, progress)
    say(f"{result.counts} on {result.folds}")
    say(f"objective: {result.objective}")
    show_table(best_table(result))
    if result.tested_elsewhere:
        one, several = "speaker of the explored folds is a test speaker", "speakers of the explored folds are test speakers"
        speakers = counted(len(result.tested_elsewhere), one, several)
        say(f"{speakers} of other folds: results on them are optimistic")
    say(f"front: {out / 'front.png'}   trials: {out / 'trials.csv'}")
    say(f"chosen recipe: {out / BEST}   next: siser train {quoted(out / BEST)} --data {quoted(data)} --out RUN")
