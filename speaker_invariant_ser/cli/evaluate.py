"""`siser evaluate` and `siser compare`: score a run on its test speakers and audit its embeddings; several runs side by side."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import (
    opened,
    say,
    show_comparison,
    show_evaluation,
    show_json,
    show_paired,
    show_unaudited,
    warn,
)
from speaker_invariant_ser.cli.options import CORES, AttackerJobs, Device, Json, JudgeTable, Quick, Quiet, require_former_report
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import RunError

if TYPE_CHECKING:
    from speaker_invariant_ser.evaluation.summary import AnyRunReport


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, fully trained.")],
    data: Annotated[Path | None, typer.Option(help="The run's prepared corpus, if it was moved since training.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Run folder, evaluated, to compare with: UAR paired by speaker, speaker accuracy side by side."),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Column of the manifest to break results down by; may be repeated.")
    ] = None,
    quick: Quick = False,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline/--no-baseline",
            help="Measure the prosody baseline on the same folds, which takes seconds: an SVM on 22 numbers per utterance.",
        ),
    ] = True,
    telephone: Annotated[
        bool,
        typer.Option("--telephone", help="Also score the test utterances by telephone (300 to 3400 Hz, mu-law)."),
    ] = False,
    judge: JudgeTable = None,
    device: Device = "auto",
    jobs: AttackerJobs = CORES,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score emotion and audit the speaker leakage of a run.

    Applies every model to its test speakers, trains fresh attackers that predict the speaker from the embeddings of the training
    speakers, and writes predictions.csv and a report into the run. The report shows beside the network what an SVM reaches on 22
    prosody numbers of each utterance. With --quick, a full report is kept, and the quick one is written into report-quick.
    """
    evaluated, other = opened(run), opened(against) if against else None
    prepared = evaluated.open_data(data)
    with progress_bars(quiet) as progress:
        from speaker_invariant_ser.evaluation import evaluate as evaluation
        from speaker_invariant_ser.evaluation.summary import QUICK_REPORT
        from speaker_invariant_ser.report.write import write_run_report, write_unaudited_report

        try:
            result = evaluation.evaluate(
                evaluated, prepared, device, progress, by or (), other, quick, jobs, baseline, telephone, judge
            )
        except evaluation.UnauditedError as error:
            show_unaudited(error.report, run, write_unaudited_report(error.report, error.curves, run), as_json)
            show_paired(error.report, as_json)
            raise typer.Exit(1) from None
    try:
        if as_json:
            show_json(result.report.to_json())
        else:
            show_evaluation(result.report)
        show_paired(result.report, as_json)
    finally:  # after the output, so that a full disk does not cost the results, and whether or not that is read (`| head`)
        path = write_run_report(result, run)
    if path.parent.name == QUICK_REPORT:
        warn(f"{run} has a full report, which is kept: that of this quick evaluation is in {path.parent}")
    if not as_json:
        say(f"report: {path}")
    if result.report.against and not result.report.against.speaker:
        raise typer.Exit(1)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, evaluated.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; a former one there is replaced.")] = Path("siser-compare"),
) -> None:
    """Compare evaluated runs in one table and one plot, those of each corpus apart.

    The plot shows emotion UAR on unseen speakers against the accuracy of the strongest speaker attacker. Of runs without an audit
    the emotion results are compared, and folders without a report are skipped, both with the reason and exit code 1.
    """
    require_former_report(out)
    reports, skipped = read_reports(runs)
    from speaker_invariant_ser.report.sections.comparison_table import not_compared
    from speaker_invariant_ser.report.write import write_comparison

    path = write_comparison(reports, out)
    show_comparison(reports)
    say(f"report: {path}")
    missing = [*not_compared(reports), *(f"skipped: {reason}" for reason in skipped)]
    for reason in missing:
        warn(reason)
    if missing:
        raise typer.Exit(1)


def require_different_folders(runs: Sequence[Path]) -> None:
    """Raise RunError for a run that is given twice, be it by links or another spelling of its path."""
    given: dict[Path, Path] = {}
    for run in runs:
        if (first := given.setdefault(run.resolve(), run)) is not run:
            other = "is given twice" if first == run else f"is the same run as {first}"
            raise RunError(f"{run} {other}: give each run once")


def read_reports(runs: Sequence[Path]) -> tuple[list["AnyRunReport"], list[str]]:
    """Read the reports of runs.

    Returns:
        The reports, those of one name named by their paths, and for each run without a usable one the reason.

    Raises:
        RunError: No run has a usable report, or one is given twice.
    """
    from speaker_invariant_ser.evaluation.claims.report import report_of

    require_different_folders(runs)
    reports, skipped = {}, []
    for run in runs:
        try:
            reports[run] = report_of(opened(run))
        except RunError as error:
            skipped.append(str(error))
    if not reports:
        first, more = skipped[0], len(skipped) - 1
        raise RunError(first + (f"; {more} more without a report" if more else ""))
    names = Counter(report.run for report in reports.values())
    named = [r if names[r.run] == 1 else r.model_copy(update={"run": str(run)}) for run, r in reports.items()]
    return named, skipped
