"""What the verbs show: tables on standard output, warnings on standard error."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.demos.digits import Outcome
    from speaker_invariant_ser.runs import Run


def show_trained(run: "Run") -> None:
    """A line for each fold: the epoch that was kept and its dev UAR, or their mean over the seeds."""
    from speaker_invariant_ser.runs import kept

    mark = " (transductive)" if run.recipe.features.transductive else ""
    for split in run.splits:
        best = [kept(fit.metrics()) for fit in run.fits if fit.split == split]
        epochs, uars = ", ".join(f"{one['epoch']:.0f}" for one in best), [one["dev_uar"] for one in best]
        if len(best) == 1:
            print(f"fold {split.name}: epoch {epochs} kept, dev UAR {uars[0]:.3f}{mark}")
        else:
            seeds = f"deviation {stdev(uars):.3f} over {len(best)} seeds, epochs {epochs} kept"
            print(f"fold {split.name}: dev UAR {mean(uars):.3f}{mark}, {seeds}")


def show_prepared(made: "PreparedCorpus", out: Path) -> None:
    counts, settings = made.settings["counts"], made.settings
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{told}, {settings['seconds'] / 60:.1f} minutes -> {out}")
    if settings.get("unlabelled"):
        print(f"{settings['unlabelled']} clips have no emotion: they can be trained on where split.unlabelled names them")
    for name, what in (("length", "clip length"), ("padding", "digital silence at the ends"), ("level", "level")):
        if guess := settings["shortcuts"][name]:
            print(f"emotion of unseen speakers from {what} alone: {guess['uar']:.1%} UAR, chance {guess['chance']:.1%}")


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def show_evaluation(summary: dict) -> None:
    from speaker_invariant_ser.report.write import deviation, interval, is_transductive, percent, source_row, whose

    emotion, worst = summary["emotion"], summary["emotion"]["worst_speaker"]
    uar, chance = emotion["uar"], f"chance {percent(emotion['chance'])}"
    mark = "transductive" if is_transductive(summary) else ""
    rows = [
        (f"emotion UAR, {whose(emotion)}", percent(uar["value"]), interval(uar) + deviation(uar), chance),
        *((what, value, within, f"chance {one}") for what, value, within, one in source_row(emotion)),
        ("emotion accuracy", percent(emotion["accuracy"]), "", ""),
        ("worst speaker, UAR", percent(worst["uar"]), "", f"speaker {worst['speaker']}"),
    ]
    show_table([mark, "value", "95 % interval", ""], rows)
    show_speaker(summary["speaker"], mark)
    for line in (*summary["verdict"], summary["note"]):
        if line:
            print(line)
    if summary["speaker"]["scored"] == "trained":
        warn("attackers are scored on clips that the encoder trained on: set audit.holdout and train again")


def show_speaker(speaker: dict, mark: str = "") -> None:
    """Every attacker beside chance; `mark` stands over their names."""
    from speaker_invariant_ser.report.write import deviation, interval, percent

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
    show_table([mark, "value", "95 % interval", "p"], rows)
    for name, reason in speaker["not_tried"].items():
        print(f"not tried: {name}, which {reason}")


def show_comparison(summaries: Sequence[dict]) -> None:
    from speaker_invariant_ser.report.write import deviation, interval, percent, run_name, whose

    rows = []
    for one in summaries:
        uar, attacker, own = one["emotion"]["uar"], one["speaker"]["strongest"], one["speaker"]["adversary_head"]
        emotion = f"{percent(uar['value'])}  ({interval(uar)}){deviation(uar)}"
        emotion += f", {whose(one['emotion'])}" if one["emotion"].get("domains") else ""
        speaker = f"{percent(attacker['accuracy'])} {attacker['name']}  ({interval(attacker)}){deviation(attacker)}"
        rows.append((run_name(one), emotion, speaker, percent(own["accuracy"]) if own else "-"))
    first = summaries[0]
    levels = first["speaker"]["chance"]
    chance = f"{percent(levels['given_emotion'])} given emotion, {percent(levels['uniform'])} (1/{first['speaker']['speakers']})"
    rows.append(("chance", percent(first["emotion"]["chance"]), chance, ""))
    show_table(["run", "emotion UAR, unseen speakers", "strongest fresh attacker", "adversary's own head (not evidence)"], rows)
    if first["note"]:
        print(first["note"])


def show_outcomes(outcomes: Sequence["Outcome"], columns: Mapping[str, str]) -> None:
    """What is told rightly in the epoch that was kept: `columns` of metrics.csv, and the strongest of the fresh attackers."""
    from speaker_invariant_ser.report.write import percent

    numbers = [[percent(one.number(column)) for column in columns] for one in outcomes]
    attackers = [f"{percent(one.leakage.strongest.score.accuracy)} {one.leakage.strongest.name}" for one in outcomes]
    rows = [(words, *row) for words, row in zip(columns.values(), zip(*numbers, strict=True), strict=True)]
    rows.append(("the other digit: by the strongest of four", *attackers))
    level = outcomes[0].leakage.chance
    rows.append(("chance, a zero", *[percent(1 / 2)] * len(outcomes)))
    rows.append((f"chance, the other digit of {outcomes[0].leakage.speakers}", *[percent(level["uniform"])] * len(outcomes)))
    show_table(["told rightly", *(one.name for one in outcomes)], rows)


def show_predictions(predictions: Sequence[dict]) -> None:
    from speaker_invariant_ser.report.write import percent

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
