"""Section on baselines without a network."""

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary_parts import Baseline
from speaker_invariant_ser.report.formatting import interval, percent
from speaker_invariant_ser.report.sections.blocks import Block, Section, Text
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.tables import classifiers_table, fold_line


def baseline_section(baseline: Baseline) -> Section:
    """Return what classifiers reach on features that need no network, or why there are no results."""
    title = section_title(baseline)
    if not baseline.first:
        return Section(title, [Text(f"Not computed: {baseline.unavailable}.")])
    about = (
        f"Support vector machines on {counted(baseline.dimensions or 0, 'feature')} of each utterance, fitted on every speaker "
        "that a fold does not test, dev speakers and held-out utterances included. Nothing is selected: the hyperparameters were "
        f"fixed beforehand. Scored on {counted(baseline.utterances or 0, 'utterance')}; chance UAR {percent(baseline.chance)}."
    )
    blocks: list[Block] = [Text(about), classifiers_table(baseline), speakers_table(baseline)]
    if baseline.speaker:
        score = baseline.speaker
        leak = (
            f"Closed-form attackers identify the speaker from these features with an accuracy of {percent(score.accuracy)} "
            f'({interval(score)}, {score.attacker}): the control "{section_title(baseline).lower()}" on the utterances that the '
            "embedding was attacked on."
        )
        blocks.append(Text(leak))
    return Section(title, blocks)


def section_title(baseline: Baseline) -> str:
    """Return the heading of a baseline's section."""
    return f"{baseline.features.capitalize()} baseline"


def speakers_table(baseline: Baseline) -> Table:
    """Return each classifier's UAR on each unseen speaker."""
    classifiers = list(baseline.classifiers.values())
    rows = [
        [speaker, *(percent(classifier.per_speaker[speaker].uar) for classifier in classifiers), f"{result.utterances:,}"]
        for speaker, result in classifiers[0].per_speaker.items()
    ]
    head = ["unseen speaker", *(f"UAR, {'RBF' if kind == 'rbf' else kind} SVM" for kind in baseline.classifiers), "utterances"]
    return Table(head, rows, fold_line(rows, "speakers"))
