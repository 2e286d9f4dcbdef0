"""A report of another run, or one that contradicts its predictions or itself, is refused where it is compared or shown."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from helpers import section
from reports import put_report, run_report

from speaker_invariant_ser.audit.certificates.certificate import Certificate, certify
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.evaluation.certificate_parts import CertificatePart
from speaker_invariant_ser.evaluation.claims.certificate import contradictions
from speaker_invariant_ser.evaluation.claims.report import own_predictions, report_of
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS
from speaker_invariant_ser.features.pretrained.checkpoint_paths import recipe_without_path
from speaker_invariant_ser.files import write_json
from speaker_invariant_ser.runs import Run


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory) -> Run:
    run = Run.open(shutil.copytree(trained.folder, tmp_path_factory.mktemp("own") / "run"))
    put_report(run, run_report().to_json())
    return run


@pytest.fixture
def write(run):
    """Write the report of the run with another value of a key, which is a path with dots; afterwards the true one."""
    path, predictions = run.folder / "report" / "report.json", run.folder / PREDICTIONS
    true, predicted = json.loads(path.read_text()), predictions.read_text()

    def write(key, value):
        content = deepcopy(true)
        *parents, last = key.split(".")
        table = content
        for name in parents:
            table = table[name]
        table[last] = value(table.get(last)) if callable(value) else value
        write_json(path, content)

    yield write
    write_json(path, true)
    predictions.write_text(predicted)


def test_the_own_report_is_read_also_with_keys_of_other_versions(run, write):
    recipe = recipe_without_path(run.recipe)
    recipe["train"] = {**recipe["train"], "later": 1}
    recipe.pop("audit")
    write("settings.recipe", recipe)
    assert report_of(run).emotion.uar.value > 0


@pytest.mark.parametrize(
    "key, value",
    [
        ("emotion.uar.low", 0.0),  # an interval over two speakers
        ("emotion.per_speaker", lambda speakers: {name: {**result, "later": 1} for name, result in speakers.items()}),
        ("baseline.classifiers.rbf.per_speaker", lambda part: {name: {**result, "later": 1} for name, result in part.items()}),
    ],
)
def test_what_other_versions_write_is_read(key, value, run, write):
    write(key, value)
    assert report_of(run).emotion.uar.low is None


@pytest.mark.parametrize(
    "key, value, what",
    [
        ("data_sha256", {"audio.i16": "0", "manifest.csv": "0"}, "other data"),
        ("seeds", [1], "other seeds"),
        ("folds", [], "other folds"),
        ("corpora", ["ravdess"], "other corpora"),
        ("recipe", {"train": {"epochs": 10_000}}, "another recipe"),
    ],
)
def test_the_report_of_another_run_is_refused(key, value, what, run, write, capsys):
    write(f"settings.{key}", value)
    for command in ("compare", "card"):
        assert siser([command, str(run.folder)]) == 2
        assert f"report.json is of {what} than {run.folder}: evaluate" in " ".join(capsys.readouterr().err.split())


def without_worst(speakers):
    return {name: result for name, result in speakers.items() if result is not min(speakers.values(), key=lambda r: r["uar"])}


def closed_form_alone(speaker):
    of_svm = speaker["attackers"]["svm"]
    return {**speaker, "attackers": {"knn": of_svm}, "strongest": {**speaker["strongest"], "name": "knn", "chosen": {"knn": 1}}}


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("emotion.uar.value", 0.95, "emotion.uar.value is 0.95, expected 0."),
        ("emotion.uar.seeds", {"0": 0.95}, "emotion.uar.seeds.0 is 0.95, expected 0."),
        ("emotion.confusion.counts", lambda counts: counts[::-1], "emotion.confusion.counts.0.0 is"),
        ("emotion.per_speaker", without_worst, "emotion.uar.value is 0."),
        ("emotion.per_speaker", {"nobody": {"uar": 1.0, "accuracy": 1.0, "utterances": 9}}, "has no test speaker of"),
        ("emotion.utterances", 10_000, "emotion.utterances is 10000, expected 24"),
        ("emotion.chance", 0.0, "emotion.chance is 0, expected 0.25"),
        ("at_chance", True, "at_chance is True, expected False"),
        ("speaker.at_chance", "undecided", "speaker.at_chance is 'undecided', expected False"),
        ("speaker.reason", "of a later version", "speaker.reason is 'of a later version', expected 'leak'"),
        ("speaker.strongest.chosen", {"svm": 0.5, "oracle": 0.5}, "strongest attacker is oracle, of which there are no results"),
        ("speaker.strongest.chosen", {"knn": 1.0}, "the strongest attacker, 'svm', was never chosen"),
        ("speaker.strongest", lambda part: {**part, "chosen": {"svm": 1}, "accuracy": part["high"]}, "'svm', has two accuracies"),
        ("settings.transductive", True, "settings.transductive is True, expected False"),
        ("speaker.margin", 0.2, "speaker.margin is 0.2, expected 0.03"),
        ("speaker.scored", "trained", "speaker.scored is 'trained', expected 'held-out'"),
        ("speaker.learned", "held-out", "speaker.learned is 'held-out', expected 'all'"),
        ("speaker", closed_form_alone, "settings.audit.quick is False, and there are results of closed-form attackers alone"),
        ("speaker.utterances", 90_000, "90000 utterances and"),
        ("speaker.certificate", {"column": "code", "cells": 2, "delta": 0.05, "populations": []}, "the run releases no codes"),
        ("speaker.encoders", 10, "10 encoders were attacked, and the run has"),
        ("speaker.speakers", 2000, "2000 speakers and"),
        ("baseline.chance", 0.1, "baseline: chance is 0.1, expected 0.25"),
        ("baseline.classifiers.rbf.accuracy", 0.0, "baseline, rbf: accuracy is 0, expected 0."),
        ("baseline.classifiers.rbf.per_speaker", {}, "no speaker has an utterance"),
    ],
)
def test_a_report_that_contradicts_its_predictions_or_itself_is_refused(key, value, message, run, write, capsys):
    write(key, value)
    assert siser(["compare", str(run.folder)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error and "evaluate the run again with" in error


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace('"05"', '"03"'), "'03' of fold"),
        (lambda text: "".join(line for line in text.splitlines(keepends=True) if '"05"' not in line), "has no predictions"),
        (lambda text: text.replace(',0,"', ',7,"'), "is of the seeds [7], the run of [0]"),
        (None, "no predictions.csv in"),
    ],
)
def test_predictions_of_other_speakers_or_of_none_are_refused(change, message, run, write, capsys):
    path = run.folder / PREDICTIONS
    if change:
        path.write_text(change(path.read_text()))
    else:
        path.unlink()
    for command in ("compare", "card", "export"):
        assert siser([command, str(run.folder), *(["--out", f"{run.folder}-out"] if command != "card" else [])]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_some_speakers_of_a_fold_may_have_none_of_its_texts(run, write):
    path = run.folder / PREDICTIONS
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if '"05"' not in line))
    split = run.recipe.split.model_copy(update={"text_folds": 2})
    assert set(own_predictions(replace(run, recipe=run.recipe.model_copy(update={"split": split}))).speaker) == {"06"}


def test_the_verdict_is_that_of_the_numbers(run, write):
    write("verdict", ["Emotion UAR on 1000 unseen speakers: 99.9 %.", "Attackers are at chance."])
    emotion, speaker = report_of(run).verdict
    assert emotion.startswith("Emotion UAR on 2 unseen speakers") and "The embedding identifies speakers" in speaker


def certificate_of(run, predictions):
    """A certificate of random codes for the utterances of the run."""
    tables, rng = {"held-out": [], "unseen": []}, np.random.default_rng(0)
    for spec in run.model_specs:
        held_out = np.resize(spec.split.train, len(spec.split.held_out))
        for clips, speaker in (("held-out", held_out), ("unseen", predictions.speaker[predictions.fold == spec.split.name])):
            code, ids = rng.integers(3, size=len(speaker)), np.char.mod("%d", np.arange(len(speaker)))
            labels = {"speaker": speaker, "emotion": ids, "text": ids, "scored": np.ones(len(speaker), dtype=bool)}
            tables[clips].append(Embeddings(np.zeros((len(speaker), 1)), ids, **labels, code=code))
    names = [spec.name for spec in run.model_specs]
    populations = tuple(certify(own, names, clips) for clips, own in tables.items())
    return json.loads(json.dumps(Certificate("code", 4, populations).summary))


@pytest.mark.parametrize(
    "place, key, value, message",
    [
        ((), "delta", 0.5, "delta is 0.5, expected 0.05"),
        ((), "cells", 2, "cells is 2, expected 4"),
        ((), "column", "emotion", "the column is emotion"),
        (("populations", 0), "worst", 0.1, "held-out: worst is 0.1"),
        (("populations", 0, "models", 0), "name", "another", "held-out: it is not of the models of the run"),
        (("populations", 0, "models", 0), "utterances", 90_000, "has other utterances than the run"),
        (("populations", 0, "models", 0), "bound", 0.01, "a bound of 0.01 with plug_in ="),
        (("populations", 0, "models", 0), "plug_in", 0.01, "with plug_in = 0.01, expected"),
        (("populations", 0, "models", 0, "curve", 1), "bound", 0.01, "the bounds of several utterances do not follow"),
    ],
)
def test_a_certificate_that_contradicts_the_run_or_itself_is_named(place, key, value, message, run):
    codes = replace(run, recipe=run.recipe.model_copy(update={"release": section("release", name="decision")}))
    predictions = own_predictions(run)
    certificate = certificate_of(codes, predictions)
    assert not [*contradictions(codes, CertificatePart.model_validate(certificate), predictions)]
    part = certificate
    for step in place:
        part = part[step]
    part[key] = value
    assert message in " ".join(contradictions(codes, CertificatePart.model_validate(certificate), predictions))
