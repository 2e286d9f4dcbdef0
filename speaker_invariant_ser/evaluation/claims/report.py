"""Read the report of a run, and compare what it states with the run, with its predictions, and with itself.

A report is no signature: predictions.csv and the numbers of the attackers are taken as they are, because only the models and
the recordings could tell more. But what follows from these is computed again, and a report that states something else is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from speaker_invariant_ser.audit.verdict import CONCLUSIONS, emotion_verdict, verdict
from speaker_invariant_ser.errors import RunError, quoted, shorten, shown
from speaker_invariant_ser.evaluation.claims.conclusion import concluded
from speaker_invariant_ser.evaluation.claims.numbers import contradictions
from speaker_invariant_ser.evaluation.domains import SOURCE, TARGET, domain_result
from speaker_invariant_ser.evaluation.emotion import emotion_results
from speaker_invariant_ser.evaluation.part import ROUNDING
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS, Predictions, read_predictions
from speaker_invariant_ser.evaluation.summary import JSON, REPORT, AnyRunReport, RunReport, UnauditedReport, read_report
from speaker_invariant_ser.evaluation.summary_parts import Emotion
from speaker_invariant_ser.features.pretrained.checkpoint_paths import recipe_without_path
from speaker_invariant_ser.runs import Run


def report_of(run: Run) -> AnyRunReport:
    """Read the report of a run, also one without an audit; its verdict is stated anew from the numbers.

    Raises:
        RunError: As of `read_report`; the report is of another run, or contradicts the predictions beside it or itself.
    """
    report = read_report(run.folder)
    require_own(run, report)
    require_own_predictions(run, report)
    if wrong := list(why_inconsistent(run, report)):
        raise RunError(f"{run.folder / REPORT / JSON} contradicts itself: {shorten(wrong, 3)}; {again(run)}")
    return report.model_copy(update={"verdict": stated_anew(report)})


def again(run: Run) -> str:
    """Return how a report is made again."""
    return f"evaluate the run again with `siser evaluate {quoted(run.folder)}`"


def require_own(run: Run, report: AnyRunReport) -> None:
    """Raise RunError if a report is of another recipe, other data, folds or seeds than the run."""
    folds = {fold["name"]: fold.get("sha256", "-") for fold in run.record["folds"]}
    reported = {fold.name: fold.sha256 for fold in report.settings.folds}
    known = {name: digest for name, digest in reported.items() if digest != "-" and folds.get(name) != "-"}
    differs = {
        "other data": report.settings.data_sha256 != run.hashes,
        "other folds": reported.keys() != folds.keys() or any(folds[name] != digest for name, digest in known.items()),
        "other seeds": bool(report.settings.seeds) and report.settings.seeds != list(run.seeds),
        "another recipe": not agrees(report.settings.recipe, recipe_without_path(run.recipe)),
    }
    if of := [what for what, other in differs.items() if other]:
        raise RunError(f"{run.folder / REPORT / JSON} is of {' and '.join(of)} than {run.folder}: {again(run)}")


def agrees(reported: object, own: object) -> bool:
    """Return whether values are equal, in tables those that both have: versions of the program add keys.

    >>> agrees({"a": 1, "old": 2}, {"a": 1, "new": 3}), agrees([{"a": 1}], [{"a": 2}])
    (True, False)
    """
    if isinstance(reported, dict) and isinstance(own, dict):
        return all(agrees(reported[key], own[key]) for key in reported.keys() & own.keys())
    if isinstance(reported, list) and isinstance(own, list):
        return len(reported) == len(own) and all(map(agrees, reported, own))
    return isinstance(reported, dict | list) != isinstance(own, dict | list) or reported == own


def own_predictions(run: Run) -> Predictions:
    """Read predictions.csv of a run.

    Raises:
        RunError: It is missing or damaged, or not of the run's folds, test speakers and seeds.
    """
    predictions, path = read_predictions(run.folder / PREDICTIONS), run.folder / PREDICTIONS
    predicted = set(zip(predictions.fold.tolist(), predictions.speaker.tolist(), strict=True))
    tested = {(split.name, speaker) for split in run.splits for speaker in split.test}
    missing = set() if run.recipe.split.scheme == "domain" else tested - predicted  # where some speakers have no labels
    for fold, speaker in sorted(predicted - tested | missing):
        has = "no predictions" if (fold, speaker) in missing else "predictions, and is no test speaker of this fold"
        raise RunError(f"{path}: {shown(speaker)} of fold {shown(fold)} has {has}; {again(run)}")
    if predictions.seeds != list(run.seeds) and (predictions.seeds != [0] or len(run.seeds) > 1):  # 0: without the column
        raise RunError(f"{path} is of the seeds {predictions.seeds}, the run of {list(run.seeds)}; {again(run)}")
    return predictions


def require_own_predictions(run: Run, report: AnyRunReport) -> None:
    """Raise RunError if emotion results do not follow from predictions.csv.

    What groups, votes and telephone speech need is in the prepared corpus, which may not be here: they are not compared.
    """
    predictions, emotion = own_predictions(run), report.emotion
    first = np.isin(predictions.speaker, list(emotion.per_speaker))
    if not first.any():
        raise RunError(f"{run.folder / REPORT / JSON} has no test speaker of {run.folder / PREDICTIONS}: {again(run)}")
    temperatures = emotion.calibration.temperatures
    own = emotion_results(replace(predictions.rows(first), temperatures=temperatures)).to_json()
    others = predictions.rows(~first)
    if tested := other_domain(emotion):
        own["domains"] = {tested: {"tested": domain_result(others).to_json() if len(others.truth) else None}}
        others = predictions.rows(np.zeros(len(first), dtype=bool))
    changed = [*changes(emotion.to_json(), own), *(f"no result on {name}" for name in np.unique(others.speaker))]
    if changed:
        raise RunError(
            f"{run.folder / REPORT / JSON} does not agree with {run.folder / PREDICTIONS}: {shorten(changed, 3)}; {again(run)}"
        )


def other_domain(emotion: Emotion) -> str:
    """Return the domain whose results are not the headline; "" in runs without domains."""
    return "" if emotion.domains is None else SOURCE if emotion.domains.headline == TARGET else TARGET


def changes(stated: object, own: object, where: str = "emotion") -> Iterator[str]:
    """Yield in words which values differ from those computed again, in tables those that both have.

    >>> list(changes({"uar": {"value": 0.9}, "old": 1}, {"uar": {"value": 0.7}, "new": 1}))
    ['emotion.uar.value is 0.9, expected 0.7']
    """
    if isinstance(stated, dict) and isinstance(own, dict):
        if where.endswith(".per_speaker") and stated.keys() != own.keys():
            yield f"{where} has other speakers"
        for key in [key for key in own if key in stated]:
            yield from changes(stated[key], own[key], f"{where}.{key}")
    elif isinstance(stated, list) and isinstance(own, list) and len(stated) == len(own):
        for number, values in enumerate(zip(stated, own, strict=True)):
            yield from changes(*values, f"{where}.{number}")
    elif not same(stated, own):
        yield f"{where} is {brief(stated)}, expected {brief(own)}"


def same(stated: object, own: object) -> bool:
    """Return whether two values are equal but for rounding."""
    if isinstance(stated, int | float) and isinstance(own, int | float):
        return abs(stated - own) <= ROUNDING
    return stated == own


def brief(value: object) -> str:
    """Return a value in few characters."""
    return f"{value:.6g}" if isinstance(value, float) else shown(value)


def why_inconsistent(run: Run, report: AnyRunReport) -> Iterator[str]:
    """Yield what contradicts itself in a report: in what it concludes, how much was attacked, and the baseline."""
    baseline, emotion = report.baseline, report.emotion
    if baseline and baseline.chance is not None and not same(baseline.chance, emotion.chance):
        yield f"baseline: chance is {brief(baseline.chance)}, and {brief(emotion.chance)} of the network"
    for name, classifier in (baseline.classifiers if baseline else {}).items():
        yield from (f"baseline, {name}: {text}" for text in contradictions(classifier, emotion.utterances))
        if classifier.per_speaker.keys() != emotion.per_speaker.keys():
            yield f"baseline, {name}: it has other test speakers"
    if isinstance(report, RunReport):
        yield from about_the_speaker(run, report)


def about_the_speaker(run: Run, report: RunReport) -> Iterator[str]:
    """Yield what contradicts itself in the audit of a report."""
    speaker, models = report.speaker, len(run.model_specs)
    trained = max(len(split.train) for split in run.splits)
    strongest, attackers = speaker.strongest, speaker.attackers
    if unknown := sorted({*strongest.chosen, strongest.name} - attackers.keys()):
        yield f"the strongest attacker is {shorten(unknown)}, of which there are no results"
    elif strongest.name not in strongest.chosen:
        yield f"the strongest attacker, {shown(strongest.name)}, was never chosen"
    elif len(strongest.chosen) == 1 and not same(strongest.accuracy, attackers[strongest.name].accuracy):
        yield f"the strongest attacker, {shown(strongest.name)}, has two accuracies"
    if speaker.encoders != models or speaker.speakers > trained:
        yield (
            f"{speaker.speakers} speakers and {speaker.encoders} encoders were attacked, and the run has {trained} training "
            f"speakers and {models} models"
        )
    expected, stated = concluded(speaker, report.settings.audit.quick), (speaker.at_chance, speaker.reason)
    if stated != expected or report.at_chance != speaker.at_chance:
        yield f"at_chance is {report.at_chance} ({stated[1]}), and {expected[0]} ({expected[1]}) by the numbers of the attackers"


def stated_anew(report: AnyRunReport) -> list[str]:
    """Return the verdict that the numbers of a report give."""
    if isinstance(report, UnauditedReport):
        emotion = emotion_verdict(report.emotion.to_json(), report.transductive)
        return [emotion, f"Speaker information was not measured: {report.unaudited}."]
    content: Mapping = report.to_json()
    assert report.speaker.reason in CONCLUSIONS  # it is the one that was concluded
    return verdict(content)
