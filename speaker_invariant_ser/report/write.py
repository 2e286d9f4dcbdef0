"""Summaries -> report.html, report.md and report.json. One content, told by chapters.py, in two forms."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import jinja2

from speaker_invariant_ser.files import new_folder, write_json
from speaker_invariant_ser.report.plots import Picture, save
from speaker_invariant_ser.report.plots import Points as Points
from speaker_invariant_ser.report.sections import chapters
from speaker_invariant_ser.report.sections.blocks import Chapter, Pictures, marked
from speaker_invariant_ser.report.sections.blocks import deviation as deviation
from speaker_invariant_ser.report.sections.blocks import interval as interval
from speaker_invariant_ser.report.sections.blocks import is_transductive as is_transductive
from speaker_invariant_ser.report.sections.blocks import percent as percent
from speaker_invariant_ser.report.sections.blocks import run_name as run_name
from speaker_invariant_ser.report.sections.front import comparison, front, pareto
from speaker_invariant_ser.report.sections.front import source_row as source_row
from speaker_invariant_ser.report.sections.front import whose as whose
from speaker_invariant_ser.report.sections.making import SETTINGS

JSON, MARKDOWN, PAGE = "report.json", "report.md", "report.html"


def write_report(
    summary: Mapping,
    folder: Path | str,
    curves: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    points: Points | None = None,
) -> Path:
    """Write report.html, report.md with its pictures and report.json into `folder`, replacing a former report.

    `summary` is the content of report.json; its "emotion" is None for a table of embeddings. `curves` is metrics.csv, model
    by model; `points` is a map of one fold's embeddings. Returns report.html's path. Raises WriteError.
    """
    told = [Chapter(summary["run"], front(summary), 1), *chapters(summary, curves or {}, points)]
    if is_transductive(summary):
        told = [chapter if chapter.title == SETTINGS else marked(chapter) for chapter in told]  # which has a row for it
    return write(folder, told, summary)


def write_comparison(summaries: Sequence[Mapping], folder: Path | str) -> Path:
    """Write one table and one picture over several runs into `folder`, as write_report does; report.json marks the front."""
    best = pareto(summaries)
    title = " and ".join(one["run"] for one in summaries) if len(summaries) < 4 else f"{len(summaries)} runs compared"
    content = {"runs": [{"pareto": number in best, **one} for number, one in enumerate(summaries)]}
    return write(folder, [Chapter(title, comparison(summaries, best), 1)], content)


def write(folder: Path | str, told: Sequence[Chapter], content: object) -> Path:
    """The chapters as a page and as Markdown, the pictures that Markdown shows, and `content` as JSON."""
    with new_folder(folder, replace=True) as partial:
        write_json(partial / JSON, content)
        drawn = {picture.name: save(picture, partial) for picture in all_pictures(told)}
        for name in (PAGE, MARKDOWN):
            text = templates().get_template(f"{name}.j2").render(first=told[0], chapters=told[1:], drawn=drawn)
            (partial / name).write_text(text, encoding="utf-8")
    return Path(folder) / PAGE


def all_pictures(told: Sequence[Chapter]) -> list[Picture]:
    return [one for chapter in told for block in chapter.blocks if isinstance(block, Pictures) for one in block.drawn]


def cell(text: object) -> str:
    """Text as it stands in Markdown, in a table too: nothing of it is read as markup.

    >>> print(cell("<b> a|b *c* d_e"))
    &lt;b&gt; a\\|b \\*c\\* d_e
    """
    plain = escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"[\\`*|$\[\]~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain)


def templates() -> jinja2.Environment:
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
