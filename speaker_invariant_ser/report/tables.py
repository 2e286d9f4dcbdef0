"""Tables that both the report pages and the console show: headers, rows and number formatting."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from speaker_invariant_ser.evaluation.summary import Report
from speaker_invariant_ser.evaluation.summary_parts import (
    AttackerScore,
    Baseline,
    Emotion,
    Refit,
    Speaker,
    StrongestAttacker,
    Uar,
)
from speaker_invariant_ser.report.formatting import (
    against_chance,
    decimal,
    decimal_interval,
    interval,
    interval_or_dash,
    p_value,
    percent,
)
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.vote_tables import single_annotator_rows

MAX_UNFOLDED_ROWS = 15
TRANSDUCTIVE = "transductive"
NETWORKS = ("mlp", "mlp_deep")  # attackers whose number of epochs is limited on purpose
NOT_CONVERGED = "not converged at the limit of iterations"
STOPPED = "stopped after 80 epochs as intended, with a training loss that still fell slowly"
CHANCE_LEVELS = {
    "uniform": "uniform (1/K)",
    "majority": "most frequent speaker",
    "given_emotion": "given the true emotion",
    "given_emotion_balanced": "given the true emotion, balanced accuracy",
}


class NamedRun(Protocol):
    """A run, or another one that it is compared with."""

    @property
    def run(self) -> str:
        """Name of the run."""

    @property
    def transductive(self) -> bool:
        """Whether features were normalised with the mean of all utterances of the speaker."""


def fold_line(rows: Sequence[object], noun: str) -> str:
    """Return the summary line that folds a long table away; "" for a short one."""
    return f"All {len(rows)} {noun}" if len(rows) > MAX_UNFOLDED_ROWS else ""


def mark_transductive(table: Table) -> Table:
    """Return the table with "transductive" in its first header."""
    first, *others = table.head
    return replace(table, head=[f"{first} ({TRANSDUCTIVE})" if first else TRANSDUCTIVE, *others])


def run_name(run: NamedRun) -> str:
    """Return the name of a run, marked if it is transductive."""
    return run.run + (f" ({TRANSDUCTIVE})" if run.transductive else "")


def headline_speakers(emotion: Emotion) -> str:
    """Return the speakers that the headline emotion results are computed on."""
    return f"unseen speakers of {', '.join(emotion.domains.first.values)}" if emotion.domains else "unseen speakers"


def about_refit(refit: Refit) -> str:
    """Say that models were trained on all training speakers, and how the number of epochs was chosen."""
    epochs = ", ".join(f"{name}: {epoch}" for name, epoch in refit.epochs.items())
    if refit.inner_folds:
        how = f"up to the epoch that {refit.inner_folds} inner folds over these speakers selected by their pooled UAR"
    else:
        how = "for a fixed number of epochs: nothing was selected"
    return f"No dev speakers: each model was refit on all training speakers of its fold, {how} (epochs by model: {epochs})."


KEY_COLUMNS = ["measure", "value", "95 % CI", "chance"]


def emotion_table(emotion: Emotion) -> Table:
    """Return the key numbers on emotion alone, for a run that cannot be audited."""
    return Table(KEY_COLUMNS, emotion_rows(emotion))


def emotion_rows(emotion: Emotion) -> list[list[str]]:
    """Return the key numbers on emotion, each with its chance level."""
    uar, worst, chance = emotion.uar, emotion.worst_speaker, percent(emotion.chance)
    mean, speakers = emotion.mean_over_speakers, headline_speakers(emotion)
    return [
        [f"emotion UAR, {speakers}, pooled", percent(uar.value), interval(uar), chance],
        *seed_rows(uar),
        [f"emotion UAR, {speakers}, mean over speakers", percent(mean.value), interval_or_dash(mean), chance],
        *source_rows(emotion),
        [f"emotion UAR, worst speaker ({worst.speaker})", percent(worst.uar), "", chance],
        *telephone_rows(emotion),
        *single_annotator_rows(emotion),
        *dimension_rows(emotion),
    ]


def dimension_rows(emotion: Emotion) -> list[list[str]]:
    """Return a row with the CCC of each dimension, whose chance level is that of a constant prediction."""
    return [
        [f"{name} CCC, {headline_speakers(emotion)}, pooled", decimal(result.ccc.value), decimal_interval(result.ccc), "0.00"]
        for name, result in (emotion.dimensions or {}).items()
    ]


def telephone_rows(emotion: Emotion) -> list[list[str]]:
    """Return the row of the UAR on the test utterances as a telephone transmits them, where that was measured."""
    if not emotion.by_telephone:
        return []
    uar = emotion.by_telephone
    return [["emotion UAR by telephone, pooled", percent(uar.value), interval(uar), percent(emotion.chance)]]


def key_table(report: Report) -> Table:
    """Return the numbers that the verdict rests on, each with its chance level, and those of the baseline."""
    speaker, strongest, rows = report.speaker, report.speaker.strongest, []
    if report.emotion:
        rows += emotion_rows(report.emotion)
    rows += baseline_emotion_rows(report.baseline)
    name = f"speaker accuracy, strongest attacker ({strongest.name})"
    rows.append([name, percent(strongest.accuracy), interval(strongest), percent(speaker.chance.given_emotion)])
    rows += [*seed_rows(strongest), *baseline_speaker_rows(report.baseline, speaker)]
    if speaker.unseen and speaker.unseen.verification:
        verification = speaker.unseen.verification
        rows.append(["verification, equal error rate", percent(verification.eer), interval_or_dash(verification), "50.0 %"])
    return Table(KEY_COLUMNS, rows)


def baseline_name(baseline: Baseline) -> str:
    """Return what a baseline is called in tables."""
    return f"{baseline.features} baseline (no network)"


def baseline_emotion_rows(baseline: Baseline | None) -> list[list[str]]:
    """Return the rows with the emotion results of a baseline, or one with the reason why there are none."""
    if not baseline:
        return []
    name, first, chance = baseline_name(baseline), baseline.first, percent(baseline.chance)
    if not first:
        return [[f"{name}: not computed, {baseline.unavailable}", "-", "-", "-"]]
    mean, worst = first.uar_mean_over_speakers, first.worst_speaker
    return [
        [f"{name}, emotion UAR, pooled", percent(first.uar.value), interval(first.uar), chance],
        [f"{name}, emotion UAR, mean over speakers", percent(mean.value), interval_or_dash(mean), chance],
        [f"{name}, emotion UAR, worst speaker ({worst.speaker})", percent(worst.uar), "", chance],
    ]


def baseline_speaker_rows(baseline: Baseline | None, speaker: Speaker) -> list[list[str]]:
    """Return a row with the accuracy of attackers on a baseline's features; none where it was not measured."""
    if not baseline or not baseline.speaker:
        return []
    score, chance = baseline.speaker, percent(speaker.chance.given_emotion)
    name = f"{baseline_name(baseline)}, speaker accuracy, closed-form attackers ({score.attacker})"
    return [[name, percent(score.accuracy), interval(score), chance]]


def classifiers_table(baseline: Baseline) -> Table:
    """Return the emotion results of every classifier of a baseline, the one of the headline emphasised."""
    rows = [
        [
            classifier.settings,
            percent(classifier.uar.value),
            interval(classifier.uar),
            percent(classifier.uar_mean_over_speakers.value),
            interval_or_dash(classifier.uar_mean_over_speakers),
            f"{percent(classifier.worst_speaker.uar)} ({classifier.worst_speaker.speaker})",
            percent(classifier.accuracy),
        ]
        for classifier in baseline.classifiers.values()
    ]
    head = ["classifier", "UAR, pooled", "95 % CI", "UAR, mean over speakers", "95 % CI", "worst speaker", "accuracy"]
    return Table(head, rows, strong=[list(baseline.classifiers).index(baseline.headline or "")])


def seed_rows(score: Uar | StrongestAttacker) -> list[list[str]]:
    """Return a row with the standard deviation over seeds; none for one seed."""
    if score.deviation is None:
        return []
    return [[f"SD over {len(score.seeds)} seeds, points", decimal(100 * score.deviation, 1), "", ""]]


def source_rows(emotion: Emotion) -> list[list[str]]:
    """Return a row with the UAR on the source domain where the headline is the target's."""
    domains = emotion.domains
    if not domains or domains.headline == "source" or not domains.source.tested:
        return []
    tested, values = domains.source.tested, ", ".join(domains.source.values)
    return [
        [f"emotion UAR, unseen speakers of {values}", percent(tested.uar.value), interval(tested.uar), percent(tested.chance)]
    ]


def attackers_table(speaker: Speaker) -> Table:
    """Return every attacker's accuracy, the most accurate first, below the strongest as chosen on validation utterances."""
    ranked = by_accuracy(speaker.attackers)
    rows = [attacker_row("strongest (chosen per fold)", speaker.strongest)]
    for name in ranked:
        suffix = " (frame-level features)" if speaker.attackers[name].reads == "frames" else ""
        rows.append(attacker_row(name + suffix, speaker.attackers[name]))
    head = [
        "attacker",
        "accuracy",
        "95 % CI",
        "95 % upper bound",
        "balanced accuracy",
        "p, above chance",
        "p, below chance",
    ]
    return Table(head, rows, fold_line(ranked, "attackers"), strong=[0])


def by_accuracy(attackers: Mapping[str, AttackerScore]) -> list[str]:
    """Return the names of attackers, the most accurate first."""
    return sorted(attackers, key=lambda name: -attackers[name].accuracy)


def attacker_row(name: str, score: AttackerScore | StrongestAttacker) -> list[str]:
    """Return one row of the attackers' table."""
    return [
        name,
        percent(score.accuracy),
        interval(score),
        percent(score.upper),
        percent(score.balanced_accuracy),
        p_value(score.p_value),
        p_value(score.p_below),
    ]


def not_tried(speaker: Speaker) -> list[str]:
    """Say which attackers were not tried, one text for each reason."""
    names: dict[str, list[str]] = {}
    for name, reason in speaker.not_tried.items():
        names.setdefault(reason, []).append(name)
    return [f"not tried: {', '.join(attackers)} ({reason})" for reason, attackers in names.items()]


def not_converged(speaker: Speaker) -> list[str]:
    """Say which attackers ended at the limit of their iterations, those that are trained by epochs apart; all are counted."""
    texts: dict[str, list[str]] = {}
    for name, score in speaker.attackers.items():
        if score.converged is not None and score.converged < 1:
            share = f"{name} in {100 * (1 - score.converged):.0f} % of the fits"
            texts.setdefault(STOPPED if name in NETWORKS else NOT_CONVERGED, []).append(share)
    return [f"{text}: {', '.join(shares)}" for text, shares in texts.items()]


def chance_table(speaker: Speaker) -> Table:
    """Return the accuracies that are reached without any embedding."""
    rows = [[CHANCE_LEVELS[name], percent(value)] for name, value in speaker.chance if name in CHANCE_LEVELS]
    return Table(["chance level of speaker identification", "accuracy"], rows)


def adversary_table(speaker: Speaker) -> Table | None:
    """Return the training accuracy of the adversary's own classifier; None for an adversary that has none."""
    classifier = speaker.adversary_head
    if not classifier:
        return None
    return Table(
        ["not evidence: the adversary's own classifier", "accuracy"],
        [[f"{classifier.target}, in training", adversary_accuracy(speaker)]],
    )


def adversary_accuracy(speaker: Speaker, with_level: bool = True) -> str:
    """Return the accuracy of the adversary's own classifier, and whether it is at, above or below chance; a dash without one."""
    classifier = speaker.adversary_head
    if not classifier or classifier.target != "speaker":  # the chance level of another target is not known
        return percent(classifier.accuracy) if classifier else "-"
    return against_chance(classifier.accuracy, speaker.chance.uniform, with_level=with_level)
