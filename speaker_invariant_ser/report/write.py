"""Write report.html, report.md and report.json from a typed report: one content in two forms, and the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.summary import (
    JSON,
    MARKDOWN,
    MAX_CORPORA,
    PAGE,
    QUICK_REPORT,
    REPORT,
    REPORT_FILES,
    AnyRunReport,
    ComparisonReport,
    Report,
    RunReport,
    RunSettings,
    UnauditedReport,
    UnauditedTableReport,
    holds_full_report,
)
from speaker_invariant_ser.files import replaced_files, write_json
from speaker_invariant_ser.report.figure import Plot, save
from speaker_invariant_ser.report.plots import Curves, Points
from speaker_invariant_ser.report.sections.baseline import baseline_section, section_title
from speaker_invariant_ser.report.sections.blocks import Block, Plots, Section, Text, mark_section
from speaker_invariant_ser.report.sections.comparison import comparison_sections
from speaker_invariant_ser.report.sections.comparison_table import by_corpus, pareto_front
from speaker_invariant_ser.report.sections.emotion import emotion_sections
from speaker_invariant_ser.report.sections.overview import overview
from speaker_invariant_ser.report.sections.paired import paired_section
from speaker_invariant_ser.report.sections.settings import SETTINGS, settings_section
from speaker_invariant_ser.report.sections.speaker import speaker_sections
from speaker_invariant_ser.report.sections.training import map_section, training_section
from speaker_invariant_ser.report.table import cell
from speaker_invariant_ser.report.tables import emotion_table

if TYPE_CHECKING:
    from speaker_invariant_ser.evaluation.evaluate import Evaluation


def write_report(report: Report, folder: Path | str, curves: Curves | None = None, points: Points | None = None) -> Path:
    """Write report.html, report.md with its plots and report.json, replacing a former report.

    Args:
        report: The report of a run or of a table of embeddings.
        folder: Where to write.
        curves: Rows of metrics.csv by the name of the model.
        points: The embedding map of one model.

    Returns:
        The path of report.html.

    Raises:
        WriteError: The folder cannot be written.
    """
    sections = [Section(report.run, overview(report), 1), *report_sections(report, curves or {}, points)]
    if report.transductive:  # the settings have a row that says so, and a baseline uses no speaker means
        plain = (SETTINGS, *([section_title(report.baseline)] if report.baseline else []))
        sections = [section if section.title in plain else mark_section(section) for section in sections]
    return write(folder, sections, report.to_json())


def write_run_report(evaluation: "Evaluation", run_folder: Path | str) -> Path:
    """Write the report of an evaluated run, with an embedding map of its first model, into the run.

    The report of a quick evaluation is written into `report-quick` if the run has a full one.

    Args:
        evaluation: The evaluation of the run.
        run_folder: Folder of the run.

    Returns:
        The path of report.html.

    Raises:
        WriteError: The folder cannot be written.
    """
    from speaker_invariant_ser.report.embedding_map import map_points  # slow to import, and not needed by comparisons

    folder = Path(run_folder) / REPORT
    if evaluation.report.settings.audit.quick and holds_full_report(folder):
        folder = Path(run_folder) / QUICK_REPORT
    return write_report(evaluation.report, folder, evaluation.curves, map_points(evaluation.table))


def write_unaudited_report(report: UnauditedReport, curves: Curves, run_folder: Path | str) -> Path:
    """Write the report of a run that could not be audited into the run: emotion, and why there is nothing on the speaker.

    Args:
        report: The report.
        curves: Rows of metrics.csv by the name of the model.
        run_folder: Folder of the run.

    Returns:
        The path of report.html.

    Raises:
        WriteError: The folder cannot be written.
    """
    emotion, unaudited = report.verdict
    first: list[Block] = [Text(emotion, "verdict"), Text(unaudited, "warning"), emotion_table(report.emotion)]
    sections = [
        Section(report.run, [*first, *([Text(report.note, "note")] if report.note else [])], 1),
        *emotion_sections(report.emotion),
        *([baseline_section(report.baseline)] if report.baseline else []),
        *([paired_section(report, report.against)] if report.against else []),
        training_section(curves, None, report.emotion.refit is not None),
        settings_section(report.settings, report.emotion.folds),
    ]
    return write(Path(run_folder) / REPORT, sections, report.to_json())


def write_unaudited_baseline(report: UnauditedTableReport, folder: Path | str) -> Path:
    """Write the report of a baseline that could not be audited: emotion, and why there is nothing on the speaker.

    Returns:
        The path of report.html.

    Raises:
        WriteError: The folder cannot be written.
    """
    emotion, unaudited = report.verdict
    first: list[Block] = [Text(emotion, "verdict"), Text(unaudited, "warning")]
    sections = [
        Section(report.run, [*first, *([Text(report.note, "note")] if report.note else [])], 1),
        baseline_section(report.baseline),
        settings_section(report.settings, {}),
    ]
    return write(folder, sections, report.to_json())


def report_sections(report: Report, curves: Curves, points: Points | None) -> list[Section]:
    """Return all sections after the overview."""
    sections = emotion_sections(report.emotion) if report.emotion else []
    if report.baseline:
        sections.append(baseline_section(report.baseline))
    if isinstance(report, RunReport) and report.against:
        sections.append(paired_section(report, report.against))
    threat = report.settings.threat if isinstance(report.settings, RunSettings) else ""
    sections += speaker_sections(report.speaker, report.emotion is not None, threat)
    if points is not None:
        sections.append(map_section(points))
    if curves or report.speaker.adversary_head:
        refit = report.emotion is not None and report.emotion.refit is not None
        sections.append(training_section(curves, report.speaker, refit))
    return [*sections, settings_section(report.settings, report.emotion.folds if report.emotion else {})]


def write_comparison(reports: Sequence[AnyRunReport], folder: Path | str) -> Path:
    """Write one plot and one table over the runs of each corpus, in the same files as `write_report`.

    Args:
        reports: The runs' reports; report.json marks those on the Pareto front of their corpus.
        folder: Where to write; a former comparison is replaced.

    Returns:
        The path of report.html.

    Raises:
        RunError: The runs are on too many corpora.
        WriteError: The folder cannot be written.
    """
    groups = by_corpus(reports).values()
    if len(groups) > MAX_CORPORA:
        raise RunError(f"runs on {len(groups)} corpora: at most {MAX_CORPORA} are compared at once")
    on_front = {id(runs[position]) for runs in groups for position in pareto_front(runs)}
    front = [position for position, report in enumerate(reports) if id(report) in on_front]
    content = ComparisonReport.of(reports, front).to_json()
    return write(folder, comparison_sections(reports), content)


def write(folder: Path | str, sections: Sequence[Section], content: object) -> Path:
    """Write sections as a page and as Markdown with its plots, and `content` as JSON; other files in the folder stay."""
    with replaced_files(folder, REPORT_FILES) as partial:
        write_json(partial / JSON, content)
        drawn = {plot.name: save(plot, partial) for plot in all_plots(sections)}
        for name in (PAGE, MARKDOWN):
            text = templates().get_template(f"{name}.j2").render(first=sections[0], sections=sections[1:], drawn=drawn)
            (partial / name).write_text(text, encoding="utf-8")
    return Path(folder) / PAGE


def all_plots(sections: Sequence[Section]) -> list[Plot]:
    """Return the plots of all sections."""
    return [plot for section in sections for block in section.blocks if isinstance(block, Plots) for plot in block.plots]


def templates() -> jinja2.Environment:
    """Return the environment that the page and Markdown templates are rendered in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("speaker_invariant_ser.report"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = cell
    return environment
