"""What the verbs show: progress bars on standard error, tables on standard output."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_invariant_ser.store import Store


@contextmanager
def bars(quiet: bool) -> Iterator[Callable[..., None]]:
    """progress(what, done, total, key=what): a bar per key on standard error when it is a terminal, nothing otherwise."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:32}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        tasks = {}

        def progress(what: str, done: int, total: int, key: str | None = None) -> None:
            task = tasks.setdefault(key or what, None)
            if task is None:
                task = tasks[key or what] = shown.add_task(what, total=total)
            shown.update(task, description=what, completed=done, total=total)

        yield progress


def show_prepared(made: "Store", out: Path) -> None:
    counts, settings = made.settings["counts"], made.settings
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{told}, {settings['seconds'] / 60:.1f} minutes -> {out}")
    for name, what in (("length", "clip length"), ("padding", "digital silence at the ends"), ("level", "level")):
        if guess := settings["shortcuts"][name]:
            print(f"emotion of unseen speakers from {what} alone: {guess['uar']:.1%} UAR, chance {guess['chance']:.1%}")


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def show_evaluation(summary: dict) -> None:
    from speaker_invariant_ser.report import deviation, interval, percent

    emotion, worst = summary["emotion"], summary["emotion"]["worst_speaker"]
    uar, chance = emotion["uar"], f"chance {percent(emotion['chance'])}"
    rows = [
        ("emotion UAR, unseen speakers", percent(uar["value"]), interval(uar) + deviation(uar), chance),
        ("emotion accuracy", percent(emotion["accuracy"]), "", ""),
        ("worst speaker, UAR", percent(worst["uar"]), "", f"speaker {worst['speaker']}"),
    ]
    show_table(["", "value", "95 % interval", ""], rows)
    show_speaker(summary["speaker"])
    for line in (*summary["verdict"], summary["note"]):
        if line:
            print(line)
    if summary["speaker"]["scored"] == "trained":
        warn("attackers are scored on clips that the encoder trained on: set audit.holdout and train again")


def show_speaker(speaker: dict) -> None:
    """Every attacker beside chance."""
    from speaker_invariant_ser.report import deviation, interval, percent

    chances = speaker["chance"]
    rows = [
        (f"speaker read by a fresh {name}", percent(one["accuracy"]), interval(one), f"{one['p_value']:.3f}")
        for name, one in speaker["attackers"].items()
    ]
    strongest = speaker["strongest"]
    within, p_value = interval(strongest) + deviation(strongest), f"{strongest['p_value']:.3f}"
    rows.append(("the strongest, chosen beforehand", percent(strongest["accuracy"]), within, p_value))
    named = (("uniform", "1/K"), ("majority", "majority"), ("given_emotion", "given emotion"))
    rows += [(f"chance, {name}", percent(chances[key]), "", "") for key, name in named]
    if own := speaker.get("adversary_head"):
        reads = "" if own["target"] == "speaker" else f", which reads the {own['target']}"
        rows.append((f"adversary's own head{reads}", percent(own["accuracy"]), "not evidence", ""))
    show_table(["", "value", "95 % interval", "p"], rows)
    for name, reason in speaker["not_tried"].items():
        print(f"not tried: {name}, which {reason}")


def show_comparison(summaries: Sequence[dict]) -> None:
    from speaker_invariant_ser.report import deviation, interval, percent

    rows = []
    for one in summaries:
        uar, attacker, own = one["emotion"]["uar"], one["speaker"]["strongest"], one["speaker"]["adversary_head"]
        emotion = f"{percent(uar['value'])}  ({interval(uar)}){deviation(uar)}"
        speaker = f"{percent(attacker['accuracy'])} {attacker['name']}  ({interval(attacker)}){deviation(attacker)}"
        rows.append((one["run"], emotion, speaker, percent(own["accuracy"])))
    first = summaries[0]
    levels = first["speaker"]["chance"]
    chance = f"{percent(levels['given_emotion'])} given emotion, {percent(levels['uniform'])} (1/{first['speaker']['speakers']})"
    rows.append(("chance", percent(first["emotion"]["chance"]), chance, ""))
    show_table(["run", "emotion UAR, unseen speakers", "strongest fresh attacker", "adversary's own head (not evidence)"], rows)
    if first["note"]:
        print(first["note"])


def show_predictions(predictions: Sequence[dict]) -> None:
    from speaker_invariant_ser.report import percent

    rows = [(Path(row["path"]).name, row["label"], percent(row["confidence"])) for row in predictions]
    show_table(["file", "label", "confidence"], rows)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output, as wide as its text where that is not a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(Text, row))  # as it is: square brackets in a name are no markup
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)
