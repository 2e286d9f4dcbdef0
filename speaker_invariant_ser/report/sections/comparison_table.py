"""The table of several runs, and what their numbers do not share."""

from collections.abc import Iterable, Sequence

from speaker_invariant_ser.audit.words.verdict import revealed_otherwise
from speaker_invariant_ser.data.prepared_corpus import MANIFEST
from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.evaluation.summary import AnyRunReport, RunReport, UnauditedReport
from speaker_invariant_ser.report.formatting import decimal, decimal_interval, interval, percent, seed_deviation
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.tables import adversary_accuracy, baseline_name

MAX_DATA = 5  # groups of runs on the same data that a note names
DIFFERENT_DATA = "Not of the same data, but prepared in another way, or of another corpus with the same name"


def comparison_table(reports: Sequence[AnyRunReport], names: Sequence[str], front: Sequence[int]) -> Table:
    """Return one row for each run, then one for each different baseline of theirs.

    Args:
        reports: The runs' reports.
        names: What each run is called in the table.
        front: Positions of the runs on the Pareto front, which are emphasised.
    """
    head = [
        "run",
        "front",
        "emotion UAR, pooled",
        "95 % CI",
        "mean over speakers",
        "chance",
        "strongest attacker",
        "95 % CI",
        "chance",
    ]
    head += ["at chance", "adversary's accuracy (not evidence)"]
    rows = [
        comparison_row(name, report, position in front)
        for position, (name, report) in enumerate(zip(names, reports, strict=True))
    ]
    dimensions = dict.fromkeys(name for report in reports for name in report.emotion.dimensions or ())
    rows = [row + ccc_cells(report, dimensions) for row, report in zip(rows, reports, strict=True)]
    others = [[*row, *("" for _ in dimensions)] for row in baseline_rows(reports, names)]
    return Table([*head, *(f"{name} CCC, pooled" for name in dimensions)], [*rows, *others], strong=front)


def ccc_cells(report: AnyRunReport, dimensions: Iterable[str]) -> list[str]:
    """Return the CCC of a run on each dimension, with its interval; a dash for one that the run does not predict."""
    results = report.emotion.dimensions or {}
    return [
        f"{decimal(results[name].ccc.value)} ({decimal_interval(results[name].ccc)})" if name in results else "-"
        for name in dimensions
    ]


def baseline_rows(reports: Sequence[AnyRunReport], names: Sequence[str]) -> list[list[str]]:
    """Return a row for each different baseline of several runs; where there are several, each says which runs it is of."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for name, report in zip(names, reports, strict=True):
        baseline, first = report.baseline, report.baseline and report.baseline.first
        if not baseline or not first:
            continue
        score, leak = baseline.speaker, ["-", "-", "-"]
        if score and report.speaker:
            chance = report.speaker.chance.given_emotion
            leak = [f"{percent(score.accuracy)} ({score.attacker})", interval(score), percent(chance)]
        uars = [percent(first.uar.value), interval(first.uar), percent(first.uar_mean_over_speakers.value)]
        row = baseline_name(baseline), "", *uars, percent(baseline.chance), *leak, "-", "-"
        runs.setdefault(row, []).append(name)
    shared = len(runs) == 1
    return [[first if shared else f"{first}, beside {shorten(of)}", *cells] for (first, *cells), of in runs.items()]


def comparison_row(name: str, report: AnyRunReport, on_front: bool) -> list[str]:
    """Return one row of the comparison of several runs."""
    uar = report.emotion.uar
    emotion = [
        name,
        "yes" if on_front else "",
        percent(uar.value),
        interval(uar) + seed_deviation(uar),
        percent(report.emotion.mean_over_speakers.value),
        percent(report.emotion.chance),
    ]
    if isinstance(report, UnauditedReport):
        return [*emotion, "not measured", *["-"] * 4]
    strongest = report.speaker.strongest
    return [
        *emotion,
        f"{percent(strongest.accuracy)} ({strongest.name})",
        interval(strongest) + seed_deviation(strongest),
        percent(report.speaker.chance.given_emotion),
        at_chance_cell(report),
        adversary_accuracy(report.speaker, with_level=False),
    ]


def at_chance_cell(report: RunReport) -> str:
    """Return whether a run is at chance, and by what its speakers are revealed otherwise."""
    if report.at_chance is False:
        return "no"
    others = revealed_otherwise(report.speaker.to_json())
    return ("yes" if report.at_chance is True else "undecided") + (f", but {others}" if others else "")


def by_corpus(reports: Sequence[AnyRunReport]) -> dict[str, list[AnyRunReport]]:
    """Return the runs of each corpus, or of each combination of corpora: their numbers and chance levels are not comparable."""
    groups: dict[str, list[AnyRunReport]] = {}
    for report in reports:
        groups.setdefault(", ".join(sorted(report.settings.corpora)), []).append(report)
    return groups


def audited(reports: Sequence[AnyRunReport]) -> list[RunReport]:
    """Return the reports that have an audit."""
    return [report for report in reports if isinstance(report, RunReport)]


def not_compared(reports: Iterable[AnyRunReport]) -> list[str]:
    """Return for each run without an audit that its leakage is not compared, and why."""
    return [
        f"the leakage of {report.run} is not compared, because it was not measured: {report.unaudited}"
        for report in reports
        if isinstance(report, UnauditedReport)
    ]


def notes_of(reports: Sequence[AnyRunReport]) -> list[str]:
    """Return the notes of the runs of one corpus; one that not all of them have says which it is about."""
    notes = dict.fromkeys(report.note for report in reports if report.note)
    texts = []
    for note in notes:
        concerned = [report.run for report in reports if report.note == note]
        texts.append(note if len(concerned) == len(reports) else f"{shorten(concerned)}: {note}")
    data: dict[str, list[str]] = {}
    for report in reports:
        data.setdefault(report.settings.data_sha256.get(MANIFEST, ""), []).append(report.run)
    if len(data) > 1:
        names = "; ".join(list(map(shorten, data.values()))[:MAX_DATA])
        texts.append(f"{DIFFERENT_DATA}: {names}. Their numbers may not be comparable.")
    return [*texts, *([quick] if (quick := about_quick(reports)) else [])]


def about_quick(reports: Sequence[AnyRunReport]) -> str:
    """Say which runs were attacked by closed-form attackers alone, and that others are then not comparable; "" if none was."""
    measured = audited(reports)
    quick = [report.run for report in measured if report.settings.audit.quick]
    if not quick:
        return ""
    if len(quick) == len(measured):
        return "Only closed-form attackers were tried (--quick); all attackers may be stronger."
    return (
        f"{shorten(quick)}: only closed-form attackers were tried (--quick), on the other runs all: their strongest attackers "
        "are not comparable."
    )


def pareto_front(reports: Sequence[AnyRunReport]) -> list[int]:
    """Return the positions of the runs on the Pareto front of emotion UAR and speaker leakage.

    A run with an audit is on the front unless another one is at least as good in both and better in one.
    """
    scores = {
        position: (report.emotion.uar.value, -report.speaker.strongest.accuracy)
        for position, report in enumerate(reports)
        if isinstance(report, RunReport)
    }

    def dominated(score: tuple[float, float]) -> bool:
        return any(other != score and other[0] >= score[0] and other[1] >= score[1] for other in scores.values())

    return [position for position, score in scores.items() if not dominated(score)]
