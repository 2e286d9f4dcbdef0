"""Evaluation -> report.json, report.md and pictures. Says what was measured, on whom, against which chance."""

import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speaker_invariant_ser.evaluation import Evaluation
from speaker_invariant_ser.files import new_folder, write_json

JSON, MARKDOWN = "report.json", "report.md"
INK, ACCENT, PALE = "#22303c", "#b5482f", "#8fa3b3"
COLOURS = ("#2f6f8f", "#b5482f", "#5d8a3a", "#7a5195", "#b08d2c", "#444444")
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "figure.dpi": 110}
STYLE["text.parse_math"] = False  # a label may hold a dollar sign


def write_report(evaluation: Evaluation, folder: Path | str) -> Path:
    """Write report.json, report.md and four pictures into `folder`, replacing a former report. Returns report.md's path."""
    summary = evaluation.summary
    with new_folder(folder, replace=True) as partial:
        write_json(partial / JSON, summary)
        draw(partial / "confusion.png", (5.6, 4.8), draw_confusion, summary["emotion"])
        draw(partial / "speakers.png", (6.4, 3.4), draw_speakers, summary["emotion"])
        draw(partial / "attackers.png", (6.4, 2.6), draw_attackers, summary["speaker"])
        draw(partial / "training.png", (6.4, 5.6), draw_training, evaluation.curves, panels=2)
        render(partial / MARKDOWN, "report.md.j2", evaluation=summary)
    return Path(folder) / MARKDOWN


def write_comparison(evaluations: Sequence[Evaluation], folder: Path | str) -> Path:
    """Write one table and one picture over several runs of the same data into `folder`. Returns report.md's path."""
    summaries = [evaluation.summary for evaluation in evaluations]
    with new_folder(folder, replace=True) as partial:
        write_json(partial / JSON, {summary["run"]: summary for summary in summaries})
        draw(partial / "tradeoff.png", (6.4, 4.4), draw_tradeoff, summaries)
        render(partial / MARKDOWN, "comparison.md.j2", evaluations=summaries)
    return Path(folder) / MARKDOWN


def render(path: Path, template: str, **values: object) -> None:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update(percent=percent, interval=interval, cell=cell)
    source = (files("speaker_invariant_ser") / "templates" / template).read_text(encoding="utf-8")
    path.write_text(environment.from_string(source).render(values), encoding="utf-8")


def percent(value: float | None) -> str:
    """0.1234 -> "12.3 %"; None, for what is undefined, -> "-"."""
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(score: dict) -> str:
    """The 95 % interval of a score with `low` and `high`, in words where there is none."""
    if score["low"] is None:
        return "no interval: it needs at least two clusters"
    return f"{100 * score['low']:.1f} to {100 * score['high']:.1f} %"


def cell(text: object) -> str:
    """Text that cannot break a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def draw(path: Path, size: tuple[float, float], painter, content, panels: int = 1) -> None:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a label in a script that the font lacks is drawn as boxes
        figure = Figure(size, layout="constrained")
        painter(figure.subplots(panels), content)
        figure.savefig(path)


def draw_confusion(axes: Axes, emotion: dict) -> None:
    labels, counts = emotion["confusion"]["labels"], emotion["confusion"]["counts"]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            shade = "white" if shares[row][column] > 0.55 else INK
            axes.text(column, row, count, ha="center", va="center", color=shade)
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true", title="Utterances of unseen speakers\n(colour: share of the true emotion)")


def draw_speakers(axes: Axes, emotion: dict) -> None:
    ranked = sorted(emotion["per_speaker"].items(), key=lambda item: item[1]["uar"])
    names = [name for name, _ in ranked]
    values = [100 * result["uar"] for _, result in ranked]
    worst = emotion["worst_speaker"]["speaker"]
    axes.scatter(range(len(names)), values, s=50, color=[ACCENT if name == worst else COLOURS[0] for name in names], zorder=3)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 14 else 0)
    axes.axhline(100 * emotion["uar"]["value"], color=PALE, linewidth=1)
    axes.text(len(names) - 0.5, 100 * emotion["uar"]["value"], " pooled", va="center", color=INK, fontsize=8)
    axes.axhline(100 * emotion["chance"], color=ACCENT, linewidth=1, linestyle="--")
    axes.text(len(names) - 0.5, 100 * emotion["chance"], " chance", va="center", color=ACCENT, fontsize=8)
    axes.set(
        ylim=(0, 100),
        xlim=(-0.5, len(names) - 0.5),
        ylabel="UAR, %",
        xlabel="unseen speaker",
        title="Emotion UAR of each unseen speaker",
    )


def draw_attackers(axes: Axes, speaker: dict) -> None:
    for row, score in enumerate(speaker["attackers"].values()):
        whisker(axes, "x", score["accuracy"], row, score, COLOURS[0])
        axes.annotate(
            f"{100 * score['accuracy']:.0f} %", (100 * score["accuracy"], row), (0, 9), textcoords="offset points", ha="center"
        )
    for chance, style in (("uniform", "--"), ("majority", ":")):
        axes.axvline(100 * speaker["chance"][chance], color=ACCENT, linestyle=style, label=f"{chance} chance")
    axes.set_yticks(range(len(speaker["attackers"])), list(speaker["attackers"]))
    axes.set(xlim=(0, 102), ylim=(-0.6, len(speaker["attackers"]) - 0.3), xlabel="speakers named rightly, %")
    axes.set_title("What fresh attackers read of the training speakers")
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def whisker(axes: Axes, along: str, value: float, other: float, score: dict, colour: str) -> None:
    """A point in percent with its interval along one axis."""
    place = (100 * value, other) if along == "x" else (other, 100 * value)
    axes.plot(*place, "o", color=colour, markersize=8)
    if score["low"] is not None:
        ends = [100 * score["low"], 100 * score["high"]]
        axes.plot(*((ends, [other] * 2) if along == "x" else ([other] * 2, ends)), color=colour, linewidth=2)


def draw_training(panels: Sequence[Axes], curves: dict[str, list[dict[str, float]]]) -> None:
    """Every fold as a thin line: losses above, accuracies below; the adversary's loss beside its uninformed value, ln K."""
    above, below = panels
    for number, rows in enumerate(curves.values()):
        epochs = [row["epoch"] for row in rows]
        named = number == 0
        dots = "o-" if len(rows) < 3 else "-"  # one epoch is no line
        for axes, key, colour, label in (
            (above, "emotion_loss", COLOURS[0], "emotion loss (train)"),
            (above, "adversary_loss", COLOURS[1], "adversary's loss (train)"),
            (below, "dev_uar", COLOURS[0], "emotion UAR (dev speakers)"),
            (below, "adversary_accuracy", COLOURS[1], "adversary's accuracy: not evidence"),
        ):
            axes.plot(
                epochs, [row[key] for row in rows], dots, color=colour, linewidth=1, alpha=0.7, label=label if named else None
            )
        above.axhline(
            rows[0]["adversary_loss_uninformed"], color=PALE, linewidth=1, linestyle="--", label="ln K" if named else None
        )
    above.set(ylabel="loss, nats", title="Training, one line per fold")
    below.set(ylim=(0, 1), ylabel="share", xlabel="epoch")
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
    above.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def draw_tradeoff(axes: Axes, summaries: Sequence[dict]) -> None:
    """Emotion UAR (up is good) against the strongest attacker (left is good), both with intervals and chance."""
    for summary, colour in zip(summaries, COLOURS * len(summaries), strict=False):
        uar, attacker = summary["emotion"]["uar"], summary["speaker"]["strongest"]
        whisker(axes, "x", attacker["accuracy"], 100 * uar["value"], attacker, colour)
        whisker(axes, "y", uar["value"], 100 * attacker["accuracy"], uar, colour)
        axes.annotate(
            summary["run"], (100 * attacker["accuracy"], 100 * uar["value"]), (8, 8), textcoords="offset points", color=colour
        )
    first = summaries[0]
    axes.axhline(100 * first["emotion"]["chance"], color=PALE, linestyle="--", linewidth=1, label="emotion chance")
    axes.axvline(
        100 * first["speaker"]["chance"]["uniform"], color=ACCENT, linestyle="--", linewidth=1, label="speaker chance, 1/K"
    )
    axes.set(xlim=(0, 102), ylim=(0, 102), ylabel="emotion UAR on unseen speakers, %  (up is good)")
    axes.set_xlabel("strongest fresh attacker on the speaker, %  (left is good)")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
