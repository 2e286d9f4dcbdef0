"""Section on the paired comparison with another run."""

from functools import partial
from statistics import fmean

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary import Against, AnyRunReport, DomainDifference, UnauditedReport
from speaker_invariant_ser.report import plots
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.formatting import (
    decimal,
    interval,
    percent,
    points,
    points_interval,
    seed_deviation,
    sign_flip_p_value,
)
from speaker_invariant_ser.report.plots import rows_height
from speaker_invariant_ser.report.sections.blocks import ABOUT_TRANSDUCTIVE, Plots, Section, Text, about_learned
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.tables import run_name

NON_INFERIOR = {
    True: "yes: not worse by more than the margin",
    False: "no: worse by more than the margin",
    "undecided": "undecided: too few speakers to decide",
}


def paired_section(report: AnyRunReport, against: Against) -> Section:
    """Return the comparison of both runs on the same utterances, speaker by speaker."""
    this, other, speakers = run_name(report), run_name(against), against.per_speaker
    about = f"Both runs were tested on the same utterances of {counted(len(speakers), 'speaker')}. "
    about += f"Differences are {this} minus {other}."
    about += f" {ABOUT_TRANSDUCTIVE}" if against.transductive else ""
    warnings = [about_learned([report, against]), about_unaudited(report, against)]
    caption = f"Difference of each speaker's UAR, {this} minus {other}; red: the mean with its 95 % confidence interval."
    draw = partial(plots.plot_differences, speakers=speakers, mean=against.difference)
    rows = [
        [speaker, percent(result.this), percent(result.other), points(result.difference)] for speaker, result in speakers.items()
    ]
    return Section(
        "Paired comparison",
        [
            Text(about),
            *(Text(warning, "warning") for warning in warnings if warning),
            Table(
                [
                    "run",
                    "emotion UAR, pooled",
                    "95 % CI",
                    "mean over speakers",
                    "strongest attacker's accuracy",
                    "95 % CI",
                    "chance",
                ],
                [
                    run_row(this, report, fmean(result.this for result in speakers.values())),
                    run_row(other, against, fmean(result.other for result in speakers.values())),
                ],
            ),
            *([paired_domains(against.domains, this, other)] if against.domains else []),
            Plots([Plot("differences", caption, draw, rows_height(len(speakers) + 1))], difference_table(against)),
            Table(["speaker", this, other, "difference"], rows, f"UAR of {counted(len(rows), 'speaker')} under both"),
        ],
    )


def about_unaudited(report: AnyRunReport, against: Against) -> str:
    """Return a warning that leakage is not compared, and why; "" where both runs have an audit."""
    reasons = {report.run: report.unaudited} if isinstance(report, UnauditedReport) else {}
    reasons |= {against.run: against.unaudited} if not against.speaker else {}
    if not reasons:
        return ""
    words = "; ".join(f"that of {run} was not measured: {reason}" for run, reason in reasons.items())
    return f"Leakage is not compared: {words}."


def paired_sentence(report: AnyRunReport, against: Against) -> str:
    """Return the mean difference of the speakers' UARs in one sentence."""
    low_high, p_value = points_interval(against.difference), sign_flip_p_value(against.p_value, against.speakers)
    return (
        f"UAR of {counted(against.speakers, 'speaker')}, {run_name(report)} minus {run_name(against)}, mean: "
        f"{points(against.difference.value)}, 95 % CI {low_high}, p {p_value}."
    )


def run_row(name: str, run: AnyRunReport | Against, mean_over_speakers: float) -> list[str]:
    """Return one run's headline numbers."""
    uar = run.emotion.uar
    emotion = [name, percent(uar.value), interval(uar) + seed_deviation(uar), percent(mean_over_speakers)]
    if not run.speaker:
        return [*emotion, "not measured", "-", "-"]
    strongest, chance = run.speaker.strongest, run.speaker.chance.given_emotion
    return [*emotion, percent(strongest.accuracy), interval(strongest) + seed_deviation(strongest), percent(chance)]


def difference_table(against: Against) -> Table:
    """Return the mean difference of the speakers' UARs and its statistics."""
    margin = 100 * against.margin
    rows = [
        ["mean difference of the speakers' UARs", points(against.difference.value)],
        ["95 % CI", points_interval(against.difference)],
        ["p, sign-flip permutation test", sign_flip_p_value(against.p_value, against.speakers)],
        ["effect size, Cohen's d_z", decimal(against.effect_size)],
        ["one-sided 95 % lower bound", points(against.lower_bound)],
        [f"non-inferior, margin {margin:.0f} point{'' if margin == 1 else 's'}", NON_INFERIOR[against.non_inferior]],
    ]
    return Table(["measure", "value"], rows, numbers=False)


def paired_domains(domains: dict[str, DomainDifference], this: str, other: str) -> Table:
    """Return the comparison domain by domain."""
    rows = [
        [
            name,
            percent(result.this.value),
            percent(result.other.value),
            points(result.difference.value),
            points_interval(result.difference),
            sign_flip_p_value(result.p_value, result.speakers),
            f"{result.speakers}",
        ]
        for name, result in domains.items()
    ]
    return Table(["domain", this, other, "mean difference of the speakers", "95 % CI", "p", "speakers"], rows)
