"""The first screen of a report: the answers, the verdict, what must be known to read it, one plot, and its numbers."""

from functools import partial

from speaker_invariant_ser.audit.statistics import leaves_room
from speaker_invariant_ser.evaluation.summary import Against, Report, RunReport
from speaker_invariant_ser.evaluation.summary_parts import Speaker
from speaker_invariant_ser.report import plots
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.headline import answers, badge, provenance
from speaker_invariant_ser.report.palette import BLUE, GREY, RUST
from speaker_invariant_ser.report.plots import TradeoffChance, TradeoffPoint
from speaker_invariant_ser.report.sections.blocks import ABOUT_TRANSDUCTIVE, Answer, Block, Plots, Text
from speaker_invariant_ser.report.sections.speaker import WARNING, attackers_plot, score_of
from speaker_invariant_ser.report.tables import key_table, run_name


def overview(report: Report) -> list[Block]:
    """Return the blocks of the first screen."""
    plot = tradeoff_plot(report) if isinstance(report, RunReport) else attackers_plot(report.speaker, "verdict")
    speaker, *emotion = answers(report)
    return [
        Answer(badge(report), speaker),
        *(Text(text, "verdict") for text in emotion),
        Text(" ".join(report.verdict)),
        Text(provenance(report), "provenance"),
        *([Text(WARNING, "warning")] if report.speaker.scored == "trained" else []),
        *([Text(ABOUT_TRANSDUCTIVE, "warning")] if report.transductive else []),
        *([Text(report.note, "note")] if report.note else []),
        Plots([plot], key_table(report)),
    ]


def tradeoff_plot(report: RunReport) -> Plot:
    """Return a plot of emotion UAR against the strongest attacker, with the other run where there is one."""
    other = report.against if report.against and report.against.speaker else None
    runs = [tradeoff_point(report, "this run" if other else run_name(report), RUST)]
    if other:
        runs.append(tradeoff_point(other, run_name(other), GREY))
    caption = (
        "Emotion UAR on unseen speakers against the accuracy of the strongest fresh attacker, with 95 % confidence "
        "intervals. The optimum is the top left, on the dashed red line, chance given the emotion. Shaded: what counts as chance."
    )
    baseline = report.baseline
    if baseline and baseline.first and baseline.speaker:
        runs.append(TradeoffPoint(f"{baseline.features} baseline", baseline.first.uar, score_of(baseline.speaker), BLUE))
        caption += f" Blue: the {baseline.features} baseline under closed-form attackers."
    chance = tradeoff_chance(report.emotion.chance, report.speaker)
    return Plot("verdict", caption, partial(plots.plot_tradeoff, runs=runs, chance=chance), 3.6)


def tradeoff_point(run: RunReport | Against, label: str, colour: str) -> TradeoffPoint:
    """Return an audited run as the trade-off plot takes it."""
    assert run.speaker
    return TradeoffPoint(label, run.emotion.uar, score_of(run.speaker.strongest), colour)


def tradeoff_chance(emotion: float, speaker: Speaker) -> TradeoffChance:
    """Return the chance levels of the trade-off plot; nothing counts as chance where it leaves no room for a leak."""
    chance = speaker.chance.given_emotion
    return TradeoffChance(emotion, chance, chance + speaker.margin if leaves_room(chance) else None)
