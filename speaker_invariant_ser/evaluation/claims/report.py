"""Read the report of a run, and compare what it states with the run, with its predictions, and with itself.

A report is no signature: predictions.csv and the numbers of the attackers are taken as they are, because only the models and
the recordings could tell more. But what follows from these is computed again, and a report that states something else is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.statistics import margin_of
from speaker_invariant_ser.audit.words.conclusions import CONCLUSIONS
from speaker_invariant_ser.audit.words.verdict import emotion_verdict, unaudited_verdict, verdict
from speaker_invariant_ser.errors import RunError, quoted, shorten, shown
from speaker_invariant_ser.evaluation.claims.certificate import contradictions as certificate_contradictions
from speaker_invariant_ser.evaluation.claims.conclusion import concluded
from speaker_invariant_ser.evaluation.claims.numbers import contradictions, differing, same
from speaker_invariant_ser.evaluation.domains import SOURCE, TARGET, domain_result
from speaker_invariant_ser.evaluation.emotion import emotion_results
from speaker_invariant_ser.evaluation.model_outputs import learned_from, scored_on
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS, Predictions, read_predictions
from speaker_invariant_ser.evaluation.summary import JSON, REPORT, AnyRunReport, RunReport, UnauditedReport, read_report
from speaker_invariant_ser.evaluation.summary_parts import Emotion
from speaker_invariant_ser.features.pretrained.checkpoint_paths import recipe_without_path
from speaker_invariant_ser.runs import CORPORA, Run


def report_of(run: Run) -> AnyRunReport:
    """Read the report of a run, also one without an audit; what follows from its numbers is stated anew.

    Raises:
        RunError: As of `read_report`; the report is of another run, or contradicts the predictions beside it or itself.
    """
    report = read_report(run.folder)
    require_own(run, report)
    predictions = own_predictions(run)
    report = report.model_copy(update={"emotion": own_emotion(run, report, predictions)})
    if wrong := list(why_inconsistent(run, report, predictions)):
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
        "other corpora": CORPORA in run.record and report.settings.corpora != run.record[CORPORA],
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
    partial = run.recipe.split.scheme == "domain" or run.recipe.split.text_folds  # some speakers may have no labels, or no text
    missing = set() if partial else tested - predicted
    for fold, speaker in sorted(predicted - tested | missing):
        has = "no predictions" if (fold, speaker) in missing else "predictions, and is no test speaker of this fold"
        raise RunError(f"{path}: {shown(speaker)} of fold {shown(fold)} has {has}; {again(run)}")
    if predictions.seeds != list(run.seeds) and (predictions.seeds != [0] or len(run.seeds) > 1):  # 0: without the column
        raise RunError(f"{path} is of the seeds {predictions.seeds}, the run of {list(run.seeds)}; {again(run)}")
    return predictions


def own_emotion(run: Run, report: AnyRunReport, predictions: Predictions) -> Emotion:
    """Return the emotion results of a report as they follow from the run's predictions.

    What groups, votes and telephone speech need is in the prepared corpus, which may not be here: they are as stated.

    Raises:
        RunError: The report states something else.
    """
    emotion = report.emotion
    first = np.isin(predictions.speaker, list(emotion.per_speaker))
    if not first.any():
        raise RunError(f"{run.folder / REPORT / JSON} has no test speaker of {run.folder / PREDICTIONS}: {again(run)}")
    temperatures = emotion.calibration.temperatures
    tested, others = predictions.rows(first), predictions.rows(~first)
    own = emotion_results(replace(tested, temperatures=temperatures)).to_json()
    if emotion.domains:
        other = SOURCE if emotion.domains.headline == TARGET else TARGET
        domains = {emotion.domains.headline: tested, other: others}
        own["domains"] = {
            name: {"tested": domain_result(rows).to_json() if len(rows.truth) else None} for name, rows in domains.items()
        }
    without = [] if emotion.domains else np.unique(others.speaker).tolist()
    if changed := [*changes(emotion.to_json(), own), *(f"no result on {name}" for name in without)]:
        raise RunError(
            f"{run.folder / REPORT / JSON} does not agree with {run.folder / PREDICTIONS}: {shorten(changed, 3)}; {again(run)}"
        )
    return Emotion.model_validate(replaced(emotion.to_json(), own))


def changes(stated: object, own: object, where: str = "emotion") -> Iterator[str]:
    """Yield in words which values differ from those computed again, in tables those that both have.

    An interval where none is computed again is no difference: older versions gave one over two speakers.

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
    elif not same(stated, own) and not (own is None and where.endswith((".low", ".high"))):
        yield differing(where, stated, own)


def replaced(stated: object, own: object) -> Any:
    """Return the values that were computed again in place of those that are stated; of tables the keys that are stated.

    >>> replaced({"uar": {"value": 0.7, "low": 0.6}, "old": 1}, {"uar": {"value": 0.7, "low": None}, "new": 1})
    {'uar': {'value': 0.7, 'low': None}, 'old': 1}
    """
    if isinstance(stated, dict) and isinstance(own, dict):
        return {key: replaced(value, own[key]) if key in own else value for key, value in stated.items()}
    return own


def why_inconsistent(run: Run, report: AnyRunReport, predictions: Predictions) -> Iterator[str]:
    """Yield what contradicts the run, or itself: what was attacked and concluded, normalisation, and the baseline."""
    baseline, emotion, transductive = report.baseline, report.emotion, run.recipe.features.transductive
    if report.transductive != transductive:
        yield differing("settings.transductive", report.transductive, transductive)
    if baseline and baseline.chance is not None and not same(baseline.chance, emotion.chance):
        yield differing("baseline: chance", baseline.chance, emotion.chance)
    for name, classifier in (baseline.classifiers if baseline else {}).items():
        yield from (f"baseline, {name}: {text}" for text in contradictions(classifier, emotion.utterances))
        if classifier.per_speaker.keys() != emotion.per_speaker.keys():
            yield f"baseline, {name}: it has other test speakers"
    if isinstance(report, RunReport):
        yield from about_the_speaker(run, report)
        if certificate := report.speaker.certificate:
            yield from (f"the certificate: {text}" for text in certificate_contradictions(run, certificate, predictions))


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
    held_out = [split.held_out for split in run.splits]
    utterances, decisions = len({*chain(*held_out)}), len(run.seeds) * sum(map(len, held_out))
    if all(held_out) and (speaker.utterances > utterances or speaker.decisions > decisions):
        yield (
            f"{speaker.utterances} utterances and {speaker.decisions} decisions were scored, and the run holds out {utterances} "
            f"utterances, {decisions} over its models"
        )
    on_embedding = {name for name, score in attackers.items() if score.reads == "embedding"}
    if on_embedding <= set(QUICK_ATTACKERS) and not report.settings.audit.quick:
        yield "settings.audit.quick is False, and there are results of closed-form attackers alone"
    at_chance, reason = concluded(speaker, report.settings.audit.quick)
    stated = {
        "speaker.margin": (speaker.margin, margin_of(speaker.chance.given_emotion)),
        "speaker.scored": (speaker.scored, scored_on(run.splits)),
        "speaker.learned": (speaker.learned, learned_from(run.recipe)),
        "at_chance": (report.at_chance, at_chance),
        "speaker.at_chance": (speaker.at_chance, at_chance),
        "speaker.reason": (speaker.reason, reason),
    }
    yield from (differing(key, *values) for key, values in stated.items() if not same(*values))


def stated_anew(report: AnyRunReport) -> list[str]:
    """Return the verdict that the numbers of a report give."""
    if isinstance(report, UnauditedReport):
        return [emotion_verdict(report.emotion.to_json(), report.transductive), unaudited_verdict(report.unaudited)]
    content: Mapping = report.to_json()
    assert report.speaker.reason in CONCLUSIONS  # it is the one that was concluded
    return verdict(content)
