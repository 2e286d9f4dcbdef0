"""The comparison of several runs: one plot and one table."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from speaker_invariant_ser.errors import counted, shorten
from speaker_invariant_ser.evaluation.summary import AnyRunReport, RunReport
from speaker_invariant_ser.report import plots
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.palette import BLUE, COLOURS, RUST
from speaker_invariant_ser.report.plots import TradeoffChance
from speaker_invariant_ser.report.sections.blocks import ABOUT_TRANSDUCTIVE, Block, Plots, Section, Text, about_learned
from speaker_invariant_ser.report.sections.comparison_table import (
    audited,
    by_corpus,
    comparison_table,
    not_compared,
    notes_of,
    pareto_front,
)
from speaker_invariant_ser.report.sections.overview import tradeoff_chance, tradeoff_point
from speaker_invariant_ser.report.sections.speaker import WARNING
from speaker_invariant_ser.report.tables import headline_speakers, run_name

ABOUT_MEASURES = (
    "Emotion is scored on speakers that were neither trained nor selected on; attackers are trained from scratch on each run's "
    "frozen embeddings, and their chance level is given the true emotion. The adversary's own classifier can be at chance while "
    "a fresh attacker identifies almost every speaker: it is shown for comparison and is no evidence."
)

MAX_NAMED_RUNS = 2  # with more runs, points are numbered


def comparison_sections(reports: Sequence[AnyRunReport]) -> list[Section]:
    """Return the comparison of several runs, the first section without contents; runs of several corpora have a section each."""
    groups = by_corpus(reports)
    title = " and ".join(report.run for report in reports) if len(reports) < 4 else f"{len(reports)} runs compared"
    if len(groups) == 1:
        return [Section(title, comparison(reports), 1)]
    counts = ", ".join(f"{corpus} ({counted(len(runs), 'run')})" for corpus, runs in groups.items())
    about = f"Runs on different corpora have different chance levels and are compared apart: {counts}."
    sections = [
        Section(f"Corpus {corpus}", comparison(runs, f"-{number}"))
        for number, (corpus, runs) in enumerate(groups.items(), start=1)
    ]
    return [Section(title, [Text(about, "verdict")], 1), *sections]


def comparison(reports: Sequence[AnyRunReport], suffix: str = "") -> list[Block]:
    """Return the blocks of the comparison of runs on one corpus; `suffix` makes the names of its plots unique."""
    front = pareto_front(reports)
    named = len(reports) <= MAX_NAMED_RUNS
    names = [run_name(report) if named else f"{number}. {run_name(report)}" for number, report in enumerate(reports, start=1)]
    trained = [report.run for report in audited(reports) if report.speaker.scored == "trained"]
    warnings = [
        f"{WARNING} This concerns {shorten(trained)}." if trained else "",
        ABOUT_TRANSDUCTIVE if any(report.transductive for report in reports) else "",
        about_learned(reports),
        *(f"{text[0].upper()}{text[1:]}." for text in not_compared(reports)),
    ]
    drawn = [plot for plot in (tradeoff_plot(reports, front), adversary_plot(reports)) if plot]
    return [
        *(Text(f"{run_name(report)}: {' '.join(report.verdict)}", "verdict") for report in reports if named),
        *([Text(about_front(reports, front), "" if named else "verdict")] if front else []),
        *(Text(warning, "warning") for warning in warnings if warning),
        *(Text(note, "note") for note in notes_of(reports)),
        Plots([replace(plot, name=plot.name + suffix) for plot in drawn]),
        comparison_table(reports, names, front),
        Text(ABOUT_MEASURES),
    ]


def about_front(reports: Sequence[AnyRunReport], front: Sequence[int]) -> str:
    """Say which runs are on the Pareto front, and what their numbers do not share."""
    measured = audited(reports)
    runs = counted(len(measured), "run" if len(measured) == len(reports) else "audited run")
    text = (
        f"On the Pareto front: {len(front)} of {runs}. No other run is at least as good in both emotion "
        "UAR and leakage, and better in one."
    )
    if not same_emotions(reports):
        text += " The runs distinguish different emotions: their UAR is not comparable."
    if not same_test_speakers(reports):
        text += " The runs were not tested on the same utterances of the same speakers: compare with care."
    elif same_emotions(reports) and not same_chance(reports):
        text += " The chance levels differ, so the runs were not measured on the same utterances: compare with care."
    for report in reports:
        if report.emotion.domains:
            text += f" UAR of {report.run} is on {headline_speakers(report.emotion)}."
    return text


def same_emotions(reports: Sequence[AnyRunReport]) -> bool:
    """Return whether all runs were tested on the same emotions, which label maps may merge in other ways."""
    tested = [{name for name, recall in report.emotion.per_class.items() if recall is not None} for report in reports]
    return all(each == tested[0] for each in tested)


def same_chance(reports: Sequence[AnyRunReport]) -> bool:
    """Return whether all runs have the same chance levels, as far as they were measured."""
    emotion = [report.emotion.chance for report in reports]
    speaker = [report.speaker.chance.given_emotion for report in audited(reports)]
    return all(math.isclose(chance, chances[0]) for chances in (emotion, speaker) for chance in chances)


def same_test_speakers(reports: Sequence[AnyRunReport]) -> bool:
    """Return whether all runs were tested on the same speakers, and on as many utterances of each."""
    tested = [{name: result.utterances for name, result in report.emotion.per_speaker.items()} for report in reports]
    return all(each == tested[0] for each in tested)


def tradeoff_plot(reports: Sequence[AnyRunReport], front: Sequence[int]) -> Plot | None:
    """Return a plot of emotion UAR against the strongest attacker of each audited run; None where there is none."""
    measured = audited(reports)
    if not measured:
        return None
    named, same = len(reports) <= MAX_NAMED_RUNS, same_chance(reports)
    points = [
        tradeoff_point(report, run_name(report), COLOURS[position])
        if named
        else tradeoff_point(report, str(position + 1), RUST if position in front else BLUE)
        for position, report in enumerate(reports)
        if isinstance(report, RunReport)
    ]
    caption = (
        "Emotion UAR on unseen speakers against the accuracy of the strongest fresh attacker, with 95 % confidence "
        "intervals. The optimum is the top left."
    )
    caption += "" if named else " Runs on the Pareto front are red; the numbers are those of the table."
    caption += " Shaded: what counts as chance for the attacker." if same else ""
    chance = tradeoff_chance(measured[0].emotion.chance, measured[0].speaker) if same else TradeoffChance()
    return Plot("tradeoff", caption, partial(plots.plot_tradeoff, runs=points, chance=chance, front=front, named=named), 4.0)


def adversary_plot(reports: Sequence[AnyRunReport]) -> Plot | None:
    """Return a plot of each run's adversary loss; None where no report has it, or there are more runs than colours."""
    classifiers = {report.run: report.speaker.adversary_head for report in audited(reports)}
    curves = {name: classifier.curve for name, classifier in classifiers.items() if classifier and classifier.curve}
    if not curves or len(curves) > len(COLOURS):
        return None
    losses = {name: curve["adversary_loss"] for name, curve in curves.items()}
    levels = sorted({curve["adversary_loss_uninformed"][0] for curve in curves.values()})
    caption = (
        "Loss of each run's adversary in training, mean over the models; dashed: ln K, the loss at chance. A loss far above "
        "ln K is no success: the classifier is confident and wrong, which says nothing about the embedding."
    )
    draw = partial(plots.plot_adversary_losses, curves=losses, levels=levels)
    return Plot("adversary-losses", caption, draw, 3.7)
