"""prepare, train, evaluate, compare and infer in sequence through the command line, and the files that they write."""

import csv
import json
import os
import re
import shutil
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from conftest import EMOTIONS, TINY
from helpers import occurrences
from sklearn.metrics import balanced_accuracy_score

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.evaluation import evaluate as evaluation
from speaker_invariant_ser.evaluation import model_outputs
from speaker_invariant_ser.evaluation.predictions import read_predictions
from speaker_invariant_ser.inference.inputs import WINDOW, cut_windows
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.predict import mean_outputs
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.launcher import train


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    """The folder in which prepare, train and evaluate ran once."""
    path = tmp_path_factory.mktemp("pipeline")
    (path / "recipe.toml").write_text(write_toml(make_recipe(TINY)))
    data, run = str(path / "data"), str(path / "run")
    assert siser(["prepare", "csv", str(folder / "corpus.csv"), data, "--strict"]) == 0
    assert siser(["train", str(path / "recipe.toml"), "--data", data, "--out", run, "--device", "cpu", "--seed", "3"]) == 0
    assert siser(["evaluate", run, "--device", "cpu"]) == 0
    return path


def test_an_evaluated_run_holds_no_path_of_the_machine(workdir, folder):
    """Its recipe, split, models, tables and report are searched for the folders of run, corpus and recordings."""
    for path in (workdir, folder):
        assert occurrences(workdir / "run", re.escape(str(path))) == []
    assert json.loads((workdir / "run" / "split.json").read_text())["data"] == "../data"
    assert Run.open(workdir / "run").data == workdir / "data", "and is still found"


def test_the_seed_of_the_command_line_is_in_the_run(workdir):
    assert "seed = 3" in (workdir / "run" / "recipe.toml").read_text()


def test_predictions_are_of_test_speakers_only_and_give_the_reported_uar(workdir):
    rows = rows_of(workdir / "run" / "predictions.csv")
    report = json.loads((workdir / "run" / "report" / "report.json").read_text())
    assert {row["speaker"] for row in rows} == {"05", "06"} and len(rows) == 24
    uar = balanced_accuracy_score([row["emotion"] for row in rows], [row["predicted"] for row in rows])
    assert report["emotion"]["uar"]["value"] == pytest.approx(uar)
    assert report["emotion"]["uar"]["low"] is report["emotion"]["uar"]["high"] is None, "two speakers have no interval"
    for row in rows:
        assert sum(float(row[f"p_{label}"]) for label in EMOTIONS) == pytest.approx(1, abs=1e-5)


def test_the_report_has_its_stable_keys(workdir):
    report = json.loads((workdir / "run" / "report" / "report.json").read_text())
    emotion, speaker = report["emotion"], report["speaker"]
    assert {"uar", "accuracy", "chance", "per_speaker", "worst_speaker", "confusion", "ece"} <= set(emotion)
    assert {"uar_mean_over_speakers"} <= set(emotion) and set(report["baseline"]["classifiers"]) == {"linear", "rbf"}
    assert emotion["chance"] == pytest.approx(1 / 3) and emotion["worst_speaker"]["speaker"] in {"05", "06"}
    assert emotion["worst_speaker"]["uar"] == min(result["uar"] for result in emotion["per_speaker"].values())
    assert {"uniform", "majority", "given_emotion"} < set(speaker["chance"]) and speaker["chance"]["uniform"] == 1 / 3
    assert {"logistic", "lda", "knn", "svm", "mlp", "mlp_deep", "boosting", "frames"} <= set(speaker["attackers"])
    assert all({"accuracy", "low", "high", "p_value"} <= set(score) for score in speaker["attackers"].values())
    assert sum(speaker["strongest"]["chosen"].values()) == pytest.approx(1) and speaker["strongest"]["name"] != "frames"
    assert set(speaker["controls"]) == {"embedding", "posteriors", "random_encoder", "logmel", "prosody", "emotion", "shuffled"}
    assert {"accuracy", "eer"} <= set(speaker["unseen"]) and speaker["unseen"]["speakers"] == 3
    conclusion = {"within": True, "leak": False, "below": False}.get(speaker["reason"], "undecided")
    assert report["at_chance"] == speaker["at_chance"] == conclusion
    assert speaker["scored"] == "held-out" and len(report["verdict"]) == 2
    assert set(emotion["groups"]["sex"]) == {"female", "male"} and emotion["calibration"]["temperatures"]["fixed"] > 0
    assert speaker["adversary_head"]["evidence"] is False
    folds = json.loads((workdir / "run" / "split.json").read_text())["folds"]
    assert len(folds[0]["sha256"]) == 64 and report["settings"]["folds"][0]["test"] == ["05", "06"]


def test_the_report_describes_the_evaluated_utterances(workdir):
    """The audit is of training speakers, emotion is scored on test speakers, and the selected epoch is the best."""
    run = Run.open(workdir / "run")
    prepared, split = run.open_data(), run.splits[0]
    report = json.loads((workdir / "run" / "report" / "report.json").read_text())
    table = model_outputs.embed(load_model(run.model_specs[0].folder), prepared, split, ("train", "held_out"))
    assert set(table.speaker) == set(split.train) and len(table.speaker) == 36
    assert set(table.id[table.scored]) == set(split.held_out) and report["speaker"]["decisions"] == len(split.held_out) == 6
    unseen = model_outputs.embed(load_model(run.model_specs[0].folder), prepared, split, ("dev", "test"))
    assert set(unseen.speaker) == {*split.dev, *split.test} and unseen.scored.all()
    rows = rows_of(workdir / "run" / "predictions.csv")
    assert {row["speaker"] for row in rows} == set(report["emotion"]["per_speaker"])
    history = run.model_specs[0].metrics()
    assert report["emotion"]["folds"]["fixed"]["dev_uar"] == max(row["dev_uar"] for row in history)
    two_improvements = [{**row, "best": best} for row, best in zip(history, (1, 1, 0), strict=True)]
    assert evaluation.selected_epoch(run.model_specs[0], two_improvements).epoch == 2


@pytest.fixture(scope="module")
def baseline(workdir):
    """A run at lambda = 0 without held-out utterances, evaluated with the closed-form attackers, also by text."""
    path, changes = workdir / "baseline", ["--set", "adversary.strength=0", "--set", "audit.holdout=0"]
    arguments = [str(workdir / "recipe.toml"), "--data", str(workdir / "data"), "--out", str(path), "--device", "cpu"]
    assert siser(["train", *arguments, *changes]) == 0
    with redirect_stderr(StringIO()) as printed:
        assert siser(["evaluate", str(path), "--device", "cpu", "--quick", "--by", "text"]) == 0
    (path / "warnings.txt").write_text(printed.getvalue())
    return path


def test_scoring_attackers_on_training_utterances_is_warned_of(baseline):
    warnings = (baseline / "warnings.txt").read_text()
    assert "warning: attackers are scored on utterances that the encoder was trained on" in warnings
    report = json.loads((baseline / "report" / "report.json").read_text())
    assert report["speaker"]["scored"] == "trained" and report["speaker"]["decisions"] == 36
    assert "trained on" in (baseline / "report" / "report.html").read_text()


def test_against_another_run_pairs_the_speakers_and_shows_its_leakage(workdir, baseline, capsys):
    """A quick report does not replace a full one, here or where --out names it."""
    full = (workdir / "run" / "report" / "report.json").read_bytes()
    assert siser(["evaluate", str(workdir / "run"), "--device", "cpu", "--quick", "--against", str(baseline)]) == 0
    kept = f"warning: {workdir / 'run'} has a full report, which is kept: that of this quick evaluation is in "
    assert kept + str(workdir / "run" / "report-quick") in capsys.readouterr().err
    assert (workdir / "run" / "report" / "report.json").read_bytes() == full
    for verb in ("audit", "baseline"):
        assert siser([verb, str(workdir / "data"), "--quick", "--out", str(workdir / "run" / "report")]) == 2
        assert "report holds a full report, which --quick does not replace; choose another --out" in capsys.readouterr().err
    report = json.loads((workdir / "run" / "report-quick" / "report.json").read_text())
    against, other = report["against"], json.loads((baseline / "report" / "report.json").read_text())
    assert against["run"] == "baseline" and set(against["per_speaker"]) == {"05", "06"}
    for name, pair in against["per_speaker"].items():
        assert pair["this"] == pytest.approx(report["emotion"]["per_speaker"][name]["uar"])
        assert pair["other"] == pytest.approx(other["emotion"]["per_speaker"][name]["uar"])
    assert report["speaker"]["controls"]["without_adversary"] == other["speaker"]["controls"]["embedding"]


def test_a_run_on_other_utterances_is_refused_before_any_model_is_applied(workdir, baseline, tmp_path, monkeypatch, capsys):
    other = shutil.copytree(baseline, tmp_path / "other")
    lines = (other / "predictions.csv").read_text().splitlines(keepends=True)
    (other / "predictions.csv").write_text("".join(lines[:-2]))
    monkeypatch.setattr(evaluation, "apply_models", lambda *_: pytest.fail("models were applied"))
    assert siser(["evaluate", str(workdir / "run"), "--device", "cpu", "--against", str(other)]) == 2
    assert "tested on different utterances: 2 of 24 only here, 0 of 22 only in the other" in capsys.readouterr().err


def test_results_by_any_column(baseline, capsys):
    groups = json.loads((baseline / "report" / "report.json").read_text())["emotion"]["groups"]
    assert set(groups["text"]) == {"a", "b", "c", "d"} and groups["text"]["a"]["utterances"] == 6
    assert siser(["evaluate", str(baseline), "--device", "cpu", "--quick", "--by", "txet"]) == 2
    assert "unknown column 'txet', did you mean 'text'" in capsys.readouterr().err


def test_several_seeds_in_every_command(workdir, folder, baseline, tmp_path, capsys):
    """Train, evaluate, compare and infer with two models of a fold; reports agree with predictions.csv."""
    run = tmp_path / "seeds"
    arguments = [str(workdir / "recipe.toml"), "--data", str(workdir / "data"), "--out", str(run), "--device", "cpu"]
    assert siser(["train", *arguments, "--set", "train.seeds=2", "--set", "train.seed=4"]) == 0
    assert siser(["evaluate", str(run), "--device", "cpu", "--quick", "--against", str(baseline)]) == 0
    assert capsys.readouterr().out.count("SD over 2 seeds") == 2, "of emotion and of the strongest attacker"
    rows, report = rows_of(run / "predictions.csv"), json.loads((run / "report" / "report.json").read_text())
    emotion, strongest = report["emotion"], report["speaker"]["strongest"]
    uars = [
        balanced_accuracy_score([row["emotion"] for row in of_seed], [row["predicted"] for row in of_seed])
        for seed in "45"
        if (of_seed := [row for row in rows if row["seed"] == seed])
    ]
    assert emotion["uar"]["seeds"] == pytest.approx(dict(zip("45", uars, strict=True)))
    assert emotion["uar"]["value"] == pytest.approx(np.mean(uars))
    assert emotion["uar"]["deviation"] == pytest.approx(np.std(uars, ddof=1))
    assert len(rows) == 48 and emotion["utterances"] == 24 and emotion["groups"]["sex"]["male"]["utterances"] == 12
    names = {"fixed, seed 4", "fixed, seed 5"}
    assert set(emotion["folds"]) == set(emotion["calibration"]["temperatures"]) == names
    assert report["settings"]["seeds"] == [4, 5] and len(report["settings"]["folds"]) == 1
    assert strongest["accuracy"] == pytest.approx(np.mean(list(strongest["seeds"].values())))
    assert (report["speaker"]["encoders"], report["speaker"]["utterances"], report["speaker"]["decisions"]) == (2, 6, 12)
    page = (run / "report" / "report.html").read_text()
    assert "SD over 2 seeds" in page and report["against"]["speakers"] == 2
    assert siser(["compare", str(run), str(baseline), "--out", str(tmp_path / "compared")]) == 0
    assert "SD over 2 seeds" in " ".join(capsys.readouterr().out.split())
    out = tmp_path / "p.csv"
    assert siser(["infer", str(run), str(folder), "--out", str(out), "--fold", "fixed", "--device", "cpu"]) == 0
    inferred = {row["file"].rsplit("/", 1)[-1]: float(row["p_level"]) for row in rows_of(out)}
    predictions = replace(read_predictions(run / "predictions.csv"), temperatures=emotion["calibration"]["temperatures"])
    level = predictions.calibrated[:, predictions.labels.index("level")]
    for name in predictions.id:
        assert inferred[name] == pytest.approx(level[predictions.id == name].mean(), abs=2e-5)


def test_runs_are_compared(workdir, baseline, tmp_path, capsys):
    out = tmp_path / "compared"
    assert siser(["compare", str(workdir / "run"), str(baseline), "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert "baseline" in output and "not evidence" in output
    assert {"report.html", "report.md", "report.json", "tradeoff.png"} <= {path.name for path in out.iterdir()}
    assert siser(["compare", str(baseline), "--out", str(out)]) == 0  # a former report is replaced
    copied = shutil.copytree(baseline, tmp_path / "copied" / baseline.name)
    assert siser(["compare", str(copied), str(baseline), "--out", str(out)]) == 0
    runs = json.loads((out / "report.json").read_text())["runs"]
    assert [run["run"] for run in runs] == [str(copied), str(baseline)], "two of one name"
    (workdir / "empty").mkdir()
    capsys.readouterr()
    assert siser(["compare", str(workdir / "empty"), str(baseline), str(workdir / "recipe.toml"), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "baseline" in printed.out and f"report: {out}" in printed.out
    assert f"warning: skipped: {workdir / 'empty'} is not a run folder (has no recipe.toml, split.json)" in printed.err
    assert f"warning: skipped: {workdir / 'recipe.toml'} is not a run folder (is a file)" in printed.err
    assert siser(["compare", str(workdir / "empty"), str(workdir / "recipe.toml"), "--out", str(out)]) == 2
    assert "make one with `siser train`; 1 more without a report" in capsys.readouterr().err
    assert siser(["compare", str(baseline), "--out", str(workdir)]) == 2
    assert "only a former report is replaced" in capsys.readouterr().err


def test_inference_averages_the_folds(prepared, folder, tmp_path):
    recipe = make_recipe({**TINY, "split": {"scheme": "group-kfold", "folds": 3, "dev_speakers": 1}})
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    clips = [prepared.clip(index) for index in (0, 30, 60)]
    by_fold = [mean_outputs(load_models(run, split.name, "cpu"), clips)[0] for split in run.splits]
    averaged = mean_outputs(load_models(run, device="cpu"), clips)[0]
    assert np.allclose(averaged, np.mean(by_fold, axis=0), atol=1e-6) and not np.allclose(averaged, by_fold[0], atol=1e-5)


def test_a_file_name_that_is_not_utf8_does_not_spoil_the_table(workdir, folder, tmp_path):
    not_utf8 = tmp_path / "wavs" / os.fsdecode(b"f\xfcr [b]1.wav")
    not_utf8.parent.mkdir()
    shutil.copy(folder / "05_level_a.wav", not_utf8)
    for ending in (".csv", ".jsonl", ".parquet"):
        out = tmp_path / f"p{ending}"
        assert siser(["infer", str(workdir / "run"), str(tmp_path / "wavs"), "--out", str(out), "--device", "cpu"]) == 0
    assert rows_of(tmp_path / "p.csv")[0]["file"].endswith("f\\xfcr [b]1.wav")


def test_the_report_shows_plots_that_exist(workdir):
    report = workdir / "run" / "report"
    text = (report / "report.md").read_text()
    plots = sorted(path.name for path in report.glob("*.png"))
    assert {"attackers.png", "confusion.png", "speakers.png", "losses.png", "accuracies.png", "verdict.png"} <= set(plots)
    assert all(f"({name})" in text and (report / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    assert "Not evidence" in text and "chance" in text


def test_the_baseline_is_on_the_first_screen_and_can_be_left_out(workdir, baseline, capsys):
    first = (workdir / "run" / "report" / "report.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert "| prosody baseline (no network), emotion UAR, pooled |" in first
    capsys.readouterr()
    assert siser(["evaluate", str(baseline), "--device", "cpu", "--quick", "--by", "text", "--no-baseline"]) == 0
    assert "prosody baseline" not in capsys.readouterr().out
    report = json.loads((baseline / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["baseline"] is None and "prosody" not in report["speaker"]["controls"]


def test_evaluate_again_replaces_the_report_and_prints_json(workdir, capsys):
    before = (workdir / "run" / "report" / "report.json").read_text()
    assert siser(["evaluate", str(workdir / "run"), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(before)


def test_infer_gives_a_row_for_every_file_even_an_unusable_one(workdir, folder, tmp_path, capsys):
    (tmp_path / "bad.wav").write_text("no audio")
    out = tmp_path / "p.csv"
    good = [str(folder / f"05_{emotion}_a.wav") for emotion in EMOTIONS]
    inputs = [good[0], str(tmp_path / "bad.wav"), *good[1:], str(tmp_path / "missing.wav"), str(folder / "06_*_b.wav")]
    assert siser(["infer", str(workdir / "run"), *inputs, "--out", str(out), "--device", "cpu"]) == 1
    rows = rows_of(out)
    assert [bool(row["error"]) for row in rows] == [False, True, False, False, True, False, False, False]
    assert "is text, not audio" in rows[1]["error"] and "no such file" in rows[4]["error"]
    for row in rows:
        if row["error"]:
            assert row["emotion"] == row["confidence"] == ""
        else:
            probability = {label: float(row[f"p_{label}"]) for label in EMOTIONS}
            assert row["emotion"] == max(probability, key=probability.get)
            assert float(row["confidence"]) == max(probability.values())
    assert "2 files failed" in capsys.readouterr().err


def test_infer_agrees_with_evaluate(workdir, folder, tmp_path):
    out = tmp_path / "p.csv"
    assert siser(["infer", str(workdir / "run"), str(folder), "--out", str(out), "--fold", "fixed", "--device", "cpu"]) == 0
    inferred = {row["file"].rsplit("/", 1)[-1]: row for row in rows_of(out)}
    assert len(inferred) == 72
    (model,) = load_models(Run.open(workdir / "run"), "fixed", "cpu")
    for row in rows_of(workdir / "run" / "predictions.csv"):
        probability = np.array([[float(row[f"p_{label}"]) for label in EMOTIONS]])
        (expected,) = apply_temperature(probability, model.settings.temperature)
        assert [float(inferred[row["id"]][f"p_{label}"]) for label in EMOTIONS] == pytest.approx(expected, abs=2e-5)


def test_infer_writes_json_lines_and_parquet_too(workdir, folder, tmp_path):
    import pyarrow.parquet

    (tmp_path / "list.txt").write_text(f"{folder / '05_level_a.wav'}\n\n{folder / '06_level_a.wav'}\n")
    arguments = ["infer", str(workdir / "run"), str(tmp_path / "list.txt"), "--device", "cpu", "--out"]
    assert siser([*arguments, str(tmp_path / "p.jsonl")]) == siser([*arguments, str(tmp_path / "p.parquet")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist() == lines and len(lines) == 2


def test_long_recordings_are_cut_into_equal_windows(trained):
    model = load_models(trained, device="cpu")
    clip = np.random.default_rng(0).standard_normal(WINDOW * 2 + 1).astype(np.float32) * 0.1
    parts = cut_windows(clip)
    assert len(parts) == 3 and np.array_equal(np.concatenate(parts), clip) and np.ptp([len(part) for part in parts]) <= 1
    by_window = [mean_outputs(model, [part])[0][0] for part in parts]
    weight = [len(part) for part in parts]
    assert mean_outputs(model, [clip, clip[:9000]])[0][0] == pytest.approx(
        np.average(by_window, axis=0, weights=weight), abs=1e-5
    )


def test_a_moved_corpus_is_found_with_data(workdir, tmp_path, capsys):
    moved = tmp_path / "moved"
    (workdir / "data").rename(moved)
    try:
        assert siser(["evaluate", str(workdir / "run")]) == 2
        assert "is not a prepared corpus" in capsys.readouterr().err
        assert siser(["evaluate", str(workdir / "run"), "--data", str(moved), "--device", "cpu", "--quiet", "--quick"]) == 0
    finally:
        moved.rename(workdir / "data")


def test_resume_of_a_finished_run_trains_nothing(workdir):
    before = (workdir / "run" / "folds" / "fixed" / "metrics.csv").stat().st_mtime_ns
    arguments = ["--data", str(workdir / "data"), "--out", str(workdir / "run"), "--seed", "3", "--device", "cpu", "--resume"]
    assert siser(["train", str(workdir / "recipe.toml"), *arguments]) == 0
    assert (workdir / "run" / "folds" / "fixed" / "metrics.csv").stat().st_mtime_ns == before
