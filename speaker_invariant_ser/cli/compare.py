"""`siser compare`: set several evaluated runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from speaker_invariant_ser.cli.console import say, show_comparison, warn
from speaker_invariant_ser.cli.options import require_former_report


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, evaluated.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; a former one there is replaced.")] = Path("siser-compare"),
) -> None:
    """Compare evaluated runs in one table and one plot.

    The plot shows emotion UAR on unseen speakers against the accuracy of the strongest speaker attacker.
    """
    from speaker_invariant_ser.evaluation.summary import read_report
    from speaker_invariant_ser.runs import Run

    require_former_report(out)
    reports = [read_report(Run.open(run).folder) for run in runs]
    if len({report.settings.audit.quick for report in reports}) > 1:
        warn("some of these runs were evaluated with --quick and some without: their strongest attackers are not comparable")
    from speaker_invariant_ser.report.write import write_comparison

    path = write_comparison(reports, out)
    show_comparison(reports)
    say(f"report: {path}")
