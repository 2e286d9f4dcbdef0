"""Sections on emotion recognition for unseen speakers."""

from collections.abc import Mapping
from functools import partial

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.dimensions.parts import Ccc, DimensionResult
from speaker_invariant_ser.evaluation.summary_parts import (
    Calibration,
    Confusion,
    Domains,
    Emotion,
    GroupResult,
    Refit,
    ReliabilityBin,
)
from speaker_invariant_ser.evaluation.votes import VoteResults
from speaker_invariant_ser.metrics import MIN_CLUSTERS
from speaker_invariant_ser.report import plots
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.formatting import decimal, decimal_interval, interval, percent, points, seed_deviation
from speaker_invariant_ser.report.plots import rows_height
from speaker_invariant_ser.report.sections.blocks import Plots, Section, Text
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.tables import about_refit, fold_line
from speaker_invariant_ser.report.vote_tables import votes_table, votes_text


def emotion_sections(emotion: Emotion) -> list[Section]:
    """Return all sections on emotion."""
    seeds = len(emotion.uar.seeds)
    return [
        results_section(emotion),
        *([votes_section(emotion, emotion.votes)] if emotion.votes else []),
        *([domains_section(emotion.domains, emotion.refit)] if emotion.domains else []),
        *([dimensions_section(emotion.dimensions)] if emotion.dimensions else []),
        confusion_section(emotion.confusion, emotion.per_class, seeds),
        speakers_section(emotion),
        *([groups_section(emotion.groups)] if emotion.groups else []),
        calibration_section(emotion.calibration, emotion.refit),
    ]


def results_section(emotion: Emotion) -> Section:
    """Return the overall results, and on what they were measured."""
    folds = {selected.fold for selected in emotion.folds.values()}
    selected = about_refit(emotion.refit) if emotion.refit else "Epochs were selected on dev speakers only."
    share = emotion.near_copies
    copies = (
        "" if share is None else f" Of the test utterances, {percent(share)} share audio with one that the model learned from."
    )
    tested, known = sum(recall is not None for recall in emotion.per_class.values()), len(emotion.per_class)
    about = (
        f"Scored on {counted(emotion.utterances, 'utterance')} of {counted(len(emotion.per_speaker), 'speaker')} in "
        f"{counted(len(folds), 'fold')}. No speaker is in two parts of a fold. {selected} UAR is the mean recall of the "
        f"{counted(tested, 'emotion')}{'' if tested == known else f' that occur here, of {known}'}. Pooled, which is the "
        "headline, it is over the utterances of all speakers together; the mean over speakers averages each speaker's own UAR. "
        f"Publications use either, and the two differ. {about_intervals(len(emotion.per_speaker))}{copies}"
    )
    seeds = len(emotion.uar.seeds)
    text = [Text(about), *([Text(about_seeds(seeds))] if seeds > 1 else [])]
    return Section("Emotion on unseen speakers", [*text, emotion_table(emotion)])


def about_intervals(speakers: int) -> str:
    """Say what intervals are over, or why there are none."""
    if speakers >= MIN_CLUSTERS:
        return "Intervals resample whole speakers."
    return f"There are no confidence intervals: they resample whole speakers, of which there must be {MIN_CLUSTERS} or more."


def emotion_table(emotion: Emotion) -> Table:
    """Return the overall emotion results."""
    uar, mean, worst = emotion.uar, emotion.mean_over_speakers, emotion.worst_speaker
    heard = emotion.by_telephone
    by_telephone = f"{percent(heard.value)} ({interval(heard)}){seed_deviation(heard)}" if heard else ""
    rows = [
        ["UAR, pooled over utterances", f"{percent(uar.value)} ({interval(uar)}){seed_deviation(uar)}"],
        ["UAR, mean over speakers", f"{percent(mean.value)} ({interval(mean)})"],
        *([["UAR by telephone (300 to 3400 Hz, mu-law), pooled", by_telephone]] if heard else []),
        ["chance UAR", percent(emotion.chance)],
        ["accuracy", percent(emotion.accuracy)],
        ["macro F1", percent(emotion.macro_f1)],
        ["worst speaker", f"{worst.speaker}: UAR {percent(worst.uar)} on {counted(worst.utterances, 'utterance')}"],
        ["standard deviation of the speakers' UARs", points(emotion.spread).removeprefix("+")],
    ]
    return Table(["measure", "value"], rows, numbers=False)


def votes_section(emotion: Emotion, votes: VoteResults) -> Section:
    """Return how far the model is from the votes of annotators, and how far they are from each other."""
    return Section("Votes of annotators", [Text(votes_text(emotion, votes)), votes_table(emotion, votes)], 3)


def about_seeds(seeds: int) -> str:
    """Say what is averaged over seeds and what is pooled."""
    return (
        f"Each fold was trained from {seeds} seeds, and every seed was tested on the same utterances. UAR, accuracy and recall "
        "are means over the seeds; macro F1 and calibration are computed on the decisions of all seeds together. Intervals cover "
        "the variation between speakers, the standard deviation (SD) that between seeds."
    )


def domains_section(domains: Domains, refit: Refit | None = None) -> Section:
    """Return both domains side by side."""
    source, target = ", ".join(domains.source.values), ", ".join(domains.target.values)
    trained = f"and on {target} without labels" if domains.target_in_training else f"without {target}, as a baseline"
    selected = "" if refit and not refit.inner_folds else f" Epochs were selected on speakers of {source}."
    about = (
        f"Trained on {source} with labels, {trained}.{selected} All other emotion results "
        f"in this report are on the test speakers of {', '.join(domains.first.values)}. UAR is over the emotions that occur in "
        "a domain."
    )
    rows = []
    for name, domain in (("source", domains.source), ("target", domains.target)):
        if not domain.tested:
            about += f" No utterance of the {name} domain has a label to test with."
            continue
        tested = domain.tested
        rows.append(
            [
                f"{name}: {', '.join(domain.values)}",
                percent(tested.uar.value),
                interval(tested.uar) + seed_deviation(tested.uar),
                percent(tested.chance),
                percent(tested.accuracy),
                f"{tested.utterances:,}",
                f"{tested.speakers:,}",
            ]
        )
    head = ["domain", "UAR", "95 % CI", "chance", "accuracy", "utterances", "speakers"]
    return Section("Source and target domain", [Text(about), Table(head, rows)], 3)


def dimensions_section(dimensions: Mapping[str, DimensionResult]) -> Section:
    """Return the agreement of predictions with ratings of each dimension."""
    about = (
        "Predictions on unseen speakers against ratings, 0 to 1. The concordance correlation coefficient (CCC) is Pearson's "
        "correlation, reduced where predictions have another mean or deviation than the ratings; a constant prediction has 0. "
        "Pooled, it is over the utterances of all speakers together; the mean over speakers averages the CCC of each speaker "
        "whose ratings differ. Intervals resample whole speakers."
    )
    rows = [
        [
            name,
            decimal(result.ccc.value),
            decimal_interval(result.ccc) + decimal_deviation(result.ccc),
            decimal(result.ccc_mean_over_speakers.value),
            decimal_interval(result.ccc_mean_over_speakers),
            decimal(result.pearson),
            decimal(result.rmse),
            f"{result.utterances:,}",
            f"{len(result.per_speaker):,}",
        ]
        for name, result in dimensions.items()
    ]
    head = ["dimension", "CCC, pooled", "95 % CI", "CCC, mean over speakers", "95 % CI", "Pearson", "RMSE"]
    return Section("Arousal, valence and dominance", [Text(about), Table([*head, "utterances", "speakers"], rows)], 3)


def decimal_deviation(ccc: Ccc) -> str:
    """Write the standard deviation over seeds as it follows an interval; nothing for a single seed."""
    return "" if ccc.deviation is None else f", SD over {len(ccc.seeds)} seeds {ccc.deviation:.3f}"


def confusion_section(confusion: Confusion, recalls: dict[str, float | None], seeds: int) -> Section:
    """Return the confusion matrix and the recall of each emotion."""
    labels, counts = confusion.labels, confusion.counts
    caption = "Utterances by true and predicted emotion. The stronger the colour, the larger the share of the true emotion."
    caption += "" if seeds <= 1 else f" Every utterance is counted {seeds} times, once for each seed."
    plot = Plot("confusion", caption, partial(plots.plot_confusion, labels=labels, counts=counts), 4.0)
    rows = [[label, percent(recalls[label]), f"{sum(row) // max(1, seeds):,}"] for label, row in zip(labels, counts, strict=True)]
    return Section("Confusion", [Plots([plot], Table(["emotion", "recall", "utterances"], rows, fold_line(rows, "emotions")))], 3)


def speakers_section(emotion: Emotion) -> Section:
    """Return the results of each speaker."""
    speakers = emotion.per_speaker
    draw = partial(plots.plot_speakers, speakers=speakers, pooled=emotion.uar.value, chance=emotion.chance)
    caption = "Emotion UAR of each unseen speaker; the lowest is red. Results on few utterances are imprecise."
    plot = Plot("speakers", caption, draw, rows_height(len(speakers)))
    rows = [
        [speaker, percent(result.uar), percent(result.accuracy), f"{result.utterances:,}"] for speaker, result in speakers.items()
    ]
    table = Table(["unseen speaker", "UAR", "accuracy", "utterances"], rows, fold_line(rows, "speakers"))
    return Section("Results by speaker", [Plots([plot], table)], 3)


def groups_section(groups: dict[str, dict[str, GroupResult]]) -> Section:
    """Return one table of results for each column."""
    about = (
        "Results on the utterances of each group. UAR is over the emotions that occur in a group, so that groups of other chance "
        "levels cannot be compared. An interval needs at least three speakers."
    )
    tables = []
    for column, values in groups.items():
        rows = [
            [
                value,
                percent(result.uar.value),
                interval(result.uar),
                percent(result.chance),
                percent(result.accuracy),
                f"{result.utterances:,}",
                f"{result.speakers:,}",
            ]
            for value, result in values.items()
        ]
        head = [column, "UAR", "95 % CI", "chance", "accuracy", "utterances", "speakers"]
        tables.append(Table(head, rows, fold_line(rows, f"values of {column}")))
    return Section("Results by group", [Text(about), *tables], 3)


def calibration_section(calibration: Calibration, refit: Refit | None = None) -> Section:
    """Return reliability before and after temperature scaling."""
    before, after = calibration.before, calibration.after
    about = f"The confidence of a calibrated model equals its accuracy. Expected calibration error: {percent(before.ece)}"
    if refit and not refit.calibrated:
        text = f"{about}. No temperature was fitted: there are no dev speakers, no inner folds like the final model, and no "
        text += "other folds that test other speakers."
        return Section("Calibration", [Text(text), Plots([reliability_plot({"as trained": before.bins})])], 3)
    speakers = "the speakers that its inner folds predicted" if refit else "its dev speakers"
    if refit and refit.calibrated_on == "other folds":
        speakers = "the test speakers of the other folds, as predicted by the models that did not learn from them"
    about += f"; after temperature scaling, with the temperature of each model fitted on {speakers}: {percent(after.ece)}."
    plot = reliability_plot({"as trained": before.bins, "after temperature scaling": after.bins})
    rows = [[model, decimal(temperature)] for model, temperature in calibration.temperatures.items()]
    table = Table(["model (fold)", "temperature"], rows, "Temperature of each model")
    return Section("Calibration", [Text(about), Plots([plot], table)], 3)


def reliability_plot(curves: dict[str, list[ReliabilityBin]]) -> Plot:
    """Return the plot of accuracy against confidence."""
    caption = "Accuracy against confidence; a calibrated model lies on the diagonal. Larger dots hold more utterances."
    return Plot("calibration", caption, partial(plots.plot_reliability, curves=curves), 4.0)
