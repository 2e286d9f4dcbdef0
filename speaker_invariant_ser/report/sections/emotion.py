"""Emotion on unseen speakers, alone and beside another run."""

from collections.abc import Mapping
from functools import partial

from speaker_invariant_ser.report import plots as pictures
from speaker_invariant_ser.report.plots import Picture, rows_height
from speaker_invariant_ser.report.sections.blocks import (
    ABOUT_TRANSDUCTIVE,
    Chapter,
    Pictures,
    Table,
    Text,
    about_learned,
    count,
    decimal,
    deviation,
    folded,
    interval,
    is_transductive,
    p_value,
    percent,
    points,
    run_name,
)


def emotion_chapters(emotion: Mapping) -> list[Chapter]:
    speakers, labels = emotion["per_speaker"], emotion["confusion"]["labels"]
    worst = emotion["worst_speaker"]
    uar, seeds = emotion["uar"], len(emotion["uar"]["seeds"])
    folds = {one["fold"] for one in emotion["folds"].values()}
    about = (
        f"Scored on {count(emotion['utterances'], 'clip')} of {count(len(speakers), 'speaker')} in "
        f"{count(len(folds), 'fold')}. No speaker is in two parts of a fold, and epochs were selected on dev speakers "
        f"alone. UAR is the mean recall of the {len(labels)} emotions. Intervals resample whole speakers."
    )
    measures = [
        ["UAR", f"{percent(uar['value'])} ({interval(uar)}){deviation(uar)}"],
        ["UAR by chance", percent(emotion["chance"])],
        ["accuracy", percent(emotion["accuracy"])],
        ["macro F1", percent(emotion["macro_f1"])],
        ["worst speaker", f"{worst['speaker']}: UAR {percent(worst['uar'])} on {count(worst['utterances'], 'clip')}"],
        ["spread: standard deviation of the speakers' UARs", points(emotion["spread"]).removeprefix("+")],
    ]
    return [
        Chapter(
            "Emotion on unseen speakers",
            [
                Text(about),
                *([Text(about_seeds(seeds))] if seeds > 1 else []),
                Table(["measure", "value"], measures, numbers=False),
            ],
        ),
        *([domains_chapter(emotion["domains"])] if emotion.get("domains") else []),
        confusion_chapter(emotion["confusion"], emotion["per_class"], seeds),
        each_speaker_chapter(emotion),
        *([groups_chapter(emotion["groups"])] if emotion["groups"] else []),
        calibration_chapter(emotion["calibration"]),
    ]


def domains_chapter(domains: Mapping) -> Chapter:
    """Both domains side by side, which no other number of the report mixes."""
    source, target = (", ".join(domains[name]["values"]) for name in ("source", "target"))
    trained = (
        f"on {target} without any label" if domains["target_in_training"] else f"on nothing of {target}: a twin to compare with"
    )
    untested = [name for name in ("source", "target") if not domains[name]["tested"]]
    about = (
        f"Trained on {source} with labels, and {trained}. Epochs were selected on speakers of {source}. All else that this "
        f"report says of emotion is of the test speakers of {', '.join(domains[domains['headline']]['values'])}. UAR is over the "
        "emotions that a domain has."
    )
    about += "".join(f" No clip of the {name} has a label to be tested by." for name in untested)
    rows = [
        [
            f"{name}: {', '.join(domains[name]['values'])}",
            percent(one["uar"]["value"]),
            interval(one["uar"]) + deviation(one["uar"]),
            percent(one["chance"]),
            percent(one["accuracy"]),
            f"{one['utterances']:,}",
            f"{one['speakers']:,}",
        ]
        for name in ("source", "target")
        if (one := domains[name]["tested"])
    ]
    head = ["domain", "UAR", "95 % interval", "chance", "accuracy", "clips", "speakers"]
    return Chapter("Source and target", [Text(about), Table(head, rows)], 3)


def about_seeds(seeds: int) -> str:
    return (
        f"Each fold was trained from {seeds} seeds, and every seed was tested on the same clips. UAR, accuracy and recall are "
        "means over the seeds; macro F1 and calibration are of the decisions of all seeds together. Intervals say how far "
        "speakers differ, the deviation how far seeds do."
    )


def confusion_chapter(confusion: Mapping, recalls: Mapping, seeds: int) -> Chapter:
    labels, counts = confusion["labels"], confusion["counts"]
    words = "Clips by true and predicted emotion. The deeper the colour, the larger the share of the true emotion."
    words += "" if seeds == 1 else f" Every clip is counted {seeds} times, once for each seed."
    drawn = Picture("confusion", words, partial(pictures.paint_confusion, labels=labels, counts=counts), 4.0)
    rows = [[name, percent(recalls[name]), f"{sum(row) // seeds:,}"] for name, row in zip(labels, counts, strict=True)]
    return Chapter("Confusion", [Pictures([drawn], Table(["emotion", "recall", "clips"], rows, folded(rows, "emotions")))], 3)


def each_speaker_chapter(emotion: Mapping) -> Chapter:
    speakers = emotion["per_speaker"]
    paint = partial(pictures.paint_speakers, speakers=speakers, pooled=emotion["uar"]["value"], chance=emotion["chance"])
    words = "Emotion UAR of each unseen speaker; the worst is red. A speaker with few clips is a rough figure."
    rows = [[name, percent(one["uar"]), percent(one["accuracy"]), f"{one['utterances']:,}"] for name, one in speakers.items()]
    drawn = Picture("speakers", words, paint, rows_height(len(speakers)))
    table = Table(["unseen speaker", "UAR", "accuracy", "clips"], rows, folded(rows, "speakers"))
    return Chapter("Each speaker", [Pictures([drawn], table)], 3)


def groups_chapter(groups: Mapping) -> Chapter:
    about = "UAR on the clips of each group alone. An interval needs two speakers or more."
    tables = []
    for column, values in groups.items():
        rows = [
            [
                value,
                percent(one["uar"]["value"]),
                interval(one["uar"]),
                percent(one["accuracy"]),
                f"{one['utterances']:,}",
                f"{one['speakers']:,}",
            ]
            for value, one in values.items()
        ]
        tables.append(Table([column, "UAR", "95 % interval", "accuracy", "clips", "speakers"], rows, folded(rows, column)))
    return Chapter("Groups", [Text(about), *tables], 3)


def calibration_chapter(calibration: Mapping) -> Chapter:
    before, after, temperatures = calibration["before"], calibration["after"], calibration["temperatures"]
    told = (
        "A model is calibrated if it is right as often as its confidence says. Its expected calibration error is "
        f"{percent(before['ece'])}; after temperature scaling, with temperatures fitted on each model's dev speakers, "
        f"{percent(after['ece'])}."
    )
    curves = {"as trained": before["bins"], "after temperature scaling": after["bins"]}
    words = "Accuracy against confidence; on the diagonal both agree. Larger dots hold more clips."
    drawn = Picture("calibration", words, partial(pictures.paint_reliability, curves=curves), 4.0)
    table = Table(
        ["model of fold", "temperature"],
        [[fold, decimal(one)] for fold, one in temperatures.items()],
        "Temperature of each model",
    )
    return Chapter("Calibration", [Text(told), Pictures([drawn], table)], 3)


def paired_domains(domains: Mapping, this: str, other: str) -> Table:
    rows = []
    for name, one in domains.items():
        mean = one["difference"]
        span = "-" if mean["low"] is None else f"{100 * mean['low']:+.1f} to {points(mean['high'])}"
        uars = percent(one["this"]["value"]), percent(one["other"]["value"])
        rows.append([name, *uars, points(mean["value"]), span, p_value(one["p_value"]), f"{one['speakers']}"])
    return Table(["domain", this, other, "mean difference of the speakers", "95 % interval", "p", "speakers"], rows)


NON_INFERIOR = {
    True: "no worse by more than the margin",
    False: "worse by more than the margin",
    "undecided": "undecided: too few speakers to say",
}


def both_sides(name: str, one: Mapping) -> list[str]:
    uar, strongest = one["emotion"]["uar"], one["speaker"]["strongest"]
    emotion, speaker = interval(uar) + deviation(uar), interval(strongest) + deviation(strongest)
    return [name, percent(uar["value"]), emotion, percent(strongest["accuracy"]), speaker]


def against_chapter(summary: Mapping) -> Chapter:
    """Both runs on the same clips, speaker by speaker."""
    against, this, speakers = summary["against"], run_name(summary), summary["against"]["per_speaker"]
    other, mean, margin = run_name(against), against["difference"], 100 * against["margin"]
    about = f"Both were tested on the same clips of {count(len(speakers), 'speaker')}. Differences are {this} minus {other}."
    about += f" {ABOUT_TRANSDUCTIVE}" if is_transductive(against) else ""
    runs = [both_sides(this, summary), both_sides(other, against)]
    span = "-" if mean["low"] is None else f"{100 * mean['low']:+.1f} to {points(mean['high'])}"
    measures = [
        ["mean difference of the speakers' UARs", points(mean["value"])],
        ["95 % interval", span],
        ["sign-flip permutation, p", p_value(against["p_value"])],
        ["effect size, Cohen's d_z", decimal(against["effect_size"])],
        ["one-sided 95 % lower bound", points(against["lower_bound"])],
        [f"non-inferior, margin {margin:.0f} point{'' if margin == 1 else 's'}", NON_INFERIOR[against["non_inferior"]]],
    ]
    words = f"Difference of each speaker's UAR, {this} minus {other}; red: the mean with its 95 % interval."
    paint = partial(pictures.paint_differences, speakers=speakers, mean=mean)
    rows = [[name, percent(one["this"]), percent(one["other"]), points(one["difference"])] for name, one in speakers.items()]
    drawn = Picture("differences", words, paint, rows_height(len(speakers) + 1))
    return Chapter(
        "Paired comparison",
        [
            Text(about),
            *([Text(about_learned([summary, against]), "warning")] if about_learned([summary, against]) else []),
            Table(["run", "emotion UAR", "95 % interval", "strongest attacker", "95 % interval"], runs),
            *([paired_domains(against["domains"], this, other)] if against.get("domains") else []),
            Pictures([drawn], Table(["measure", "value"], measures, numbers=False)),
            Table(["speaker", this, other, "difference"], rows, f"UAR of {count(len(rows), 'speaker')} under both"),
        ],
    )
