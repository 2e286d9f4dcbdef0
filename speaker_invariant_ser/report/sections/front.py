"""The first screen of a report, and the comparison of several runs."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.report import plots as pictures
from speaker_invariant_ser.report.plots import BLUE, COLOURS, GREY, RUST, Picture
from speaker_invariant_ser.report.sections.blocks import (
    ABOUT_TRANSDUCTIVE,
    Pictures,
    Table,
    Text,
    about_learned,
    count,
    decimal,
    deviation,
    interval,
    is_transductive,
    percent,
    run_name,
    score,
)
from speaker_invariant_ser.report.sections.speaker import WARNING, attackers_picture, eer_interval


def front(summary: Mapping) -> list[Text | Table | Pictures]:
    """The first screen: the verdict, what must be known to read it, one picture, and its numbers."""
    return [
        Text(" ".join(summary["verdict"]), "verdict"),
        *([Text(WARNING, "warning")] if summary["speaker"]["scored"] == "trained" else []),
        *([Text(ABOUT_TRANSDUCTIVE, "warning")] if is_transductive(summary) else []),
        *([Text(summary["note"], "note")] if summary["note"] else []),
        Pictures(
            [tradeoff_picture(summary) if summary["emotion"] else attackers_picture(summary["speaker"], "verdict")],
            key_table(summary),
        ),
    ]


def tradeoff_picture(summary: Mapping) -> Picture:
    this, other = summary, summary.get("against")
    runs = [run_place(this, "this run" if other else run_name(this), RUST)]
    if other:
        runs.append(run_place(other, run_name(other), GREY))
    chance = {"emotion": this["emotion"]["chance"], **speaker_chance(this["speaker"])}
    words = (
        "Emotion UAR on unseen speakers against the strongest fresh attacker, with 95 % intervals. The best place is at the top, "
        "left of the dashed red line, chance given the emotion. Shaded: what still counts as chance."
    )
    return Picture("verdict", words, partial(pictures.paint_tradeoff, runs=runs, chance=chance), 3.6)


def run_place(summary: Mapping, label: str, colour: str) -> dict:
    attacker = score(summary["speaker"]["strongest"])
    return {"label": label, "uar": summary["emotion"]["uar"], "attacker": attacker, "colour": colour}


def speaker_chance(speaker: Mapping) -> dict[str, float]:
    chance = speaker["chance"]["given_emotion"]
    return {"speaker": chance, "margin": chance + speaker["margin"]}


def key_table(summary: Mapping) -> Table:
    """The few numbers that the verdict rests on."""
    emotion, speaker, rows = summary["emotion"], summary["speaker"], []
    if emotion:
        uar = emotion["uar"]
        rows.append([f"emotion UAR, {whose(emotion)}", percent(uar["value"]), interval(uar), percent(emotion["chance"])])
        rows += deviation_row(uar) + source_row(emotion)
    strongest = speaker["strongest"]
    name = f"speaker, strongest attacker ({strongest['name']})"
    rows.append([name, percent(strongest["accuracy"]), interval(strongest), percent(speaker["chance"]["given_emotion"])])
    rows += deviation_row(strongest)
    if speaker["unseen"]:
        trials = speaker["unseen"]["verification"]
        rows.append(["verification, equal error rate", percent(trials["eer"]), eer_interval(trials), "50.0 %"])
    return Table(["measure", "value", "95 % interval", "chance"], rows)


def whose(emotion: Mapping) -> str:
    """Of whom the headline is."""
    domains = emotion.get("domains")
    return f"unseen speakers of {', '.join(domains[domains['headline']]['values'])}" if domains else "unseen speakers"


def source_row(emotion: Mapping) -> list[list[str]]:
    """How the source is read, under a headline that is the target's."""
    domains = emotion.get("domains")
    if not domains or domains["headline"] == "source" or not domains["source"]["tested"]:
        return []
    one, values = domains["source"]["tested"], ", ".join(domains["source"]["values"])
    return [
        [f"emotion UAR, unseen speakers of {values}", percent(one["uar"]["value"]), interval(one["uar"]), percent(one["chance"])]
    ]


def deviation_row(score: Mapping) -> list[list[str]]:
    """A row of its own, for the key table is narrow; none for one seed."""
    if score.get("deviation") is None:
        return []
    return [[f"deviation over {len(score['seeds'])} seeds, points", decimal(100 * score["deviation"], 1), "", ""]]


def pareto(summaries: Sequence[Mapping]) -> list[int]:
    """Positions of the runs that no other beats: none has a UAR as high and leakage as low, and one of the two better."""
    places = [(one["emotion"]["uar"]["value"], -one["speaker"]["strongest"]["accuracy"]) for one in summaries]
    beaten = [any(o != me and o[0] >= me[0] and o[1] >= me[1] for o in places) for me in places]
    return [number for number, lost in enumerate(beaten) if not lost]


def comparison(summaries: Sequence[Mapping], best: Sequence[int]) -> list[Text | Table | Pictures]:
    """One picture and one table over several runs; `best` are positions of those on the Pareto front."""
    few = len(summaries) <= FEW
    told = (
        f"On the Pareto front: {len(best)} of {count(len(summaries), 'run')}. No other run is as good in both emotion UAR and "
        "leakage, and better in one."
    )
    if not alike(summaries):
        told += " The chance levels differ, so the runs were not measured on the same clips: compare with care."
    names = [run_name(one) if few else f"{number}. {run_name(one)}" for number, one in enumerate(summaries, start=1)]
    told += "".join(
        f" UAR of {one['run']} is that of {whose(one['emotion'])}." for one in summaries if one["emotion"].get("domains")
    )
    trained = [one["run"] for one in summaries if one["speaker"]["scored"] == "trained"]
    return [
        *(Text(f"{run_name(one)}: {' '.join(one['verdict'])}", "verdict") for one in summaries if few),
        Text(told, "" if few else "verdict"),
        *([Text(f"{WARNING} This concerns {shorten(trained)}.", "warning")] if trained else []),
        *([Text(ABOUT_TRANSDUCTIVE, "warning")] if any(map(is_transductive, summaries)) else []),
        *([Text(about_learned(summaries), "warning")] if about_learned(summaries) else []),
        *(Text(note, "note") for note in dict.fromkeys(one["note"] for one in summaries) if note),
        Pictures([one for one in (comparison_picture(summaries, best), readers_picture(summaries)) if one]),
        Table(COMPARED, [compared(names[n], one, n in best) for n, one in enumerate(summaries)], strong=best),
        Text(
            "Emotion is scored on speakers that neither training nor selection has heard; attackers are fitted anew on each "
            "run's frozen embeddings, and their chance is given the true emotion. The adversary's own head can be at chance "
            "while a fresh attacker reads almost everything: it is no evidence, and is shown to be seen through."
        ),
    ]


FEW = 2  # runs that the picture can name; more are numbered


def alike(summaries: Sequence[Mapping]) -> bool:
    """Whether the runs share their chance levels, and so can share the lines of a picture."""
    chances = [(one["emotion"]["chance"], one["speaker"]["chance"]["given_emotion"]) for one in summaries]
    return all(math.isclose(a, b) for one in chances for a, b in zip(one, chances[0], strict=True))


def comparison_picture(summaries: Sequence[Mapping], best: Sequence[int]) -> Picture:
    few, same, first = len(summaries) <= FEW, alike(summaries), summaries[0]
    chance = {"emotion": first["emotion"]["chance"], **speaker_chance(first["speaker"])}
    runs = [
        run_place(one, run_name(one), COLOURS[n]) if few else run_place(one, str(n + 1), RUST if n in best else BLUE)
        for n, one in enumerate(summaries)
    ]
    words = (
        "Emotion UAR on unseen speakers against the strongest fresh attacker, with 95 % intervals. Up and left is better."
        f"{'' if few else ' The front is red, numbers are those of the table.'}"
        f"{' Shaded: what still counts as chance for the attacker.' if same else ''}"
    )
    paint = partial(pictures.paint_tradeoff, runs=runs, chance=chance if same else dict.fromkeys(chance), front=best)
    return Picture("tradeoff", words, paint, 4.0)


def readers_picture(summaries: Sequence[Mapping]) -> Picture | None:
    """How well each run's adversary read over the epochs; None where no run has kept it, or there are too many to tell apart."""
    heads = {one["run"]: one["speaker"].get("adversary_head") or {} for one in summaries}
    curves = {name: head["curve"] for name, head in heads.items() if head.get("curve")}
    if not curves or len(curves) > len(COLOURS):
        return None
    losses = {name: curve["adversary_loss"] for name, curve in curves.items()}
    levels = sorted({curve["adversary_loss_uninformed"][0] for curve in curves.values()})
    words = (
        "The loss of each run's own adversary in training, mean over the models; dashed ln K, that of one that knows nothing. "
        "Far above it is no success: such a reader is sure and wrong, which says nothing of what the embedding holds."
    )
    return Picture("readers", words, partial(pictures.paint_readers, curves=losses, levels=levels), 3.7)


COMPARED = ["run", "front", "emotion UAR", "95 % interval", "chance", "strongest attacker", "95 % interval"]
COMPARED += ["chance", "at chance", "adversary's own head: not evidence"]


def compared(name: str, one: Mapping, best: bool) -> list[str]:
    uar, strongest, head = one["emotion"]["uar"], one["speaker"]["strongest"], one["speaker"].get("adversary_head")
    at_chance = {True: "yes", False: "no"}.get(one["at_chance"], "undecided")
    return [
        name,
        "yes" if best else "",
        percent(uar["value"]),
        interval(uar) + deviation(uar),
        percent(one["emotion"]["chance"]),
        f"{percent(strongest['accuracy'])} ({strongest['name']})",
        interval(strongest) + deviation(strongest),
        percent(one["speaker"]["chance"]["given_emotion"]),
        at_chance,
        percent(head["accuracy"]) if head else "-",
    ]
