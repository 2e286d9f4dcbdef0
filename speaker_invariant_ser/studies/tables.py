"""The table of a study's arms on one corpus, and the lines below it."""

from collections.abc import Sequence
from itertools import chain

from speaker_invariant_ser.audit.statistics import leaves_room
from speaker_invariant_ser.report.formatting import SMALL_P, p_value
from speaker_invariant_ser.report.table import Table, cell
from speaker_invariant_ser.studies.results import Machine, Measurement
from speaker_invariant_ser.studies.rows import Mean, Row
from speaker_invariant_ser.studies.study import Study

HEAD = (
    "arm",
    "parameters",
    "seeds",
    "UAR, pooled",
    "UAR, mean over speakers",
    "worst speaker",
    "difference to {first}",
    "strongest attacker",
    "chance",
    "excess",
    "training, CPU min",
)
CLOSED_FORM, TRAINED, STALE = "*", "‡", "†"  # marks
ABOUT = (
    "In %: mean ± standard deviation over seeds (95 % CI, the mean of the seeds' intervals: over speakers for UAR, over texts "
    "or utterances for attackers). Difference: UAR paired by speaker, every speaker with the same weight, mean over seeds, with "
    "95 % CI and p value of a sign-flip test. Chance: speaker accuracy given the true emotion. Excess: strongest attacker minus "
    "chance. Training: processor time of all folds. Pictures: error bars are 95 % CIs, the dotted line is the Pareto front. Of "
    "more than 12 arms, the first, those on the front and the extremes have names and error bars."
)


def table_of(rows: Sequence[Row]) -> Table:
    """Return the table of a corpus, one row for each arm that has results."""
    head = [title.format(first=rows[0].arm.name) for title in HEAD]
    table = [cells(row, rows[0]) for row in rows]
    heard = [row.by_telephone for row in rows]
    if any(heard):
        head.append("UAR by telephone")
        table = [[*line, score(by_telephone) if by_telephone else "-"] for line, by_telephone in zip(table, heard, strict=True)]
    return Table(head, table)


def cells(row: Row, first: Row) -> list[str]:
    """Return the cells of an arm."""
    speaker, worst = row.worst_speaker
    minutes = row.cpu_seconds
    return [
        f"{row.arm.name}{STALE if row.stale else ''}{f': {row.arm.title}' if row.arm.title != row.arm.name else ''}",
        "-" if row.parameters is None else f"{row.parameters:,}",
        "-" if row.baseline else ", ".join(str(result.seed) for result in row.results),
        score(row.uar),
        share(row.uar_mean_over_speakers),
        f"{share(worst)} ({speaker})",
        "" if row is first else difference(row, first),
        *(speaker_cells(row) if row.speaker else ["-"] * 3),
        "-" if minutes is None else f"{minutes / 60:.1f}",
    ]


def speaker_cells(row: Row) -> list[str]:
    """Return the cells about the speaker of an audited arm."""
    return [
        f"{score(row.attacker)} {row.attackers}{CLOSED_FORM if row.quick else ''}{TRAINED if row.scored_on_trained else ''}",
        f"{share(row.chance)} of {row.speakers}",
        share(row.attacker.value - row.chance) if leaves_room(row.chance) else "-",
    ]


def share(value: float) -> str:
    """Return a share as a percentage without its sign.

    >>> share(0.726)
    '72.6'
    """
    return f"{100 * value:.1f}"


def score(mean: Mean) -> str:
    """Return a score with its deviation and interval."""
    deviation = "" if mean.deviation is None else f" ± {share(mean.deviation)}"
    interval = "" if mean.low is None or mean.high is None else f" ({share(mean.low)} to {share(mean.high)})"
    return f"{share(mean.value)}{deviation}{interval}"


def difference(row: Row, first: Row) -> str:
    """Return the paired difference to the first arm in points; a dash where both were not tested on the same."""
    comparison = row.compared_with(first)
    if comparison is None:
        return "-"
    mean, p = comparison.mean_difference, comparison.p_value_or_none
    interval = "" if mean.low is None or mean.high is None else f" ({100 * mean.low:+.1f} to {100 * mean.high:+.1f})"
    return f"{100 * mean.value:+.1f}{interval}{'' if p is None else f', p {p_value(p)}'}"


def notes(study: Study, corpus: str, rows: Sequence[Row]) -> list[str]:
    """Return the lines below the table of a corpus: what its marks mean, what is missing, and where it was measured."""
    lines = []
    if any(row.quick for row in rows):
        lines.append(f"{CLOSED_FORM} the closed-form attackers only; all attackers may be stronger.")
    if any(row.scored_on_trained for row in rows):
        lines.append(f"{TRAINED} attackers were scored on utterances that the encoder was trained on.")
    lines += [f"{STALE} {row.arm.name}: {row.stale}." for row in rows if row.stale]
    lines += [f"{row.arm.name}: speaker information is not measured: {row.unaudited}." for row in rows if row.unaudited]
    there = {(result.arm, result.seed) for row in rows for result in row.results}
    missing: dict[str, list[str]] = {}
    for wanted in study.cells(corpora=[corpus]):
        if (wanted.arm.name, wanted.seed) not in there:
            missing.setdefault(wanted.arm.name, []).extend([] if wanted.seed is None else [str(wanted.seed)])
    if missing:
        arms = [f"{arm} (seed {', '.join(seeds)})" if seeds else arm for arm, seeds in missing.items()]
        lines.append(f"Not measured: {', '.join(arms)}.")
    results = list(chain.from_iterable(row.results for row in rows))
    return [*lines, *about_few_speakers(rows), about_measurement(results)]


def about_few_speakers(rows: Sequence[Row]) -> list[str]:
    """Say which p value a sign-flip test cannot go below, where few speakers were tested."""
    comparisons = [row.compared_with(rows[0]) for row in rows[1:]]
    numbers = sorted({len(comparison.speakers) for comparison in comparisons if comparison})
    return [
        f"With {speakers} speakers, p is at least {2 / 2**speakers:.3g}." for speakers in numbers if 2 / 2**speakers > SMALL_P
    ]


def about_measurement(results: Sequence[Measurement]) -> str:
    """Say when, where and with what results were measured."""
    dates = sorted({result.date for result in results})
    machines = dict.fromkeys(machine_text(result.machine) for result in results)
    versions = dict.fromkeys(result.versions["speaker-invariant-ser"] for result in results)
    period = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {period} with version {', '.join(versions)} on {'; '.join(machines)}."


def machine_text(machine: Machine) -> str:
    """Return a machine in words."""
    count = f"{machine.cores} core{'' if machine.cores == 1 else 's'}"
    return ", ".join([machine.processor, count, *machine.instructions])


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join(f"| {' | '.join(cell(text) for text in line)} |" for line in lines)
