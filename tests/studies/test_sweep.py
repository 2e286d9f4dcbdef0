"""A search on the tones: what it chooses and writes, how it fails, and that it continues after a kill."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from functools import partial

import optuna
import pytest
from conftest import TINY, prepare_table

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, read_recipe, write_toml
from speaker_invariant_ser.errors import AuditError, RunError
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.features.pretrained import front
from speaker_invariant_ser.studies import sweep_folds
from speaker_invariant_ser.studies.sweep import JOURNAL, run_sweep
from speaker_invariant_ser.studies.sweep_space import read_sweep
from speaker_invariant_ser.training.launcher import train

TRAIN = {"epochs": 3, "batch_size": 8, "ema": 0}
SEARCH = """
[sweep]
folds = ["05", "02"]
trials = 3
leak_weight = 0.5
seed = 5
"adversary.name" = ["grl", "coral"]
"train.learning_rate" = {low = 1e-3, high = 5e-2, log = true}
"""
WITHOUT_CACHES = shutil.ignore_patterns("pretrained")  # of other tests
ONE_FOLD = SEARCH.replace('["05", "02"]', '["05"]').replace("trials = 3", "trials = 2").replace(', "coral"', "")


def recipe_file(folder, search=SEARCH, **sections):
    path = folder / "recipe.toml"
    tables = {**TINY, "split": {"scheme": "loso"}, "train": TRAIN, **sections}
    path.write_text(write_toml(make_recipe(tables), only_set=True) + search)
    return path


def search(prepared, folder, out="study", search=SEARCH, sections=None, **options):
    return run_sweep(read_sweep(recipe_file(folder, search, **(sections or {}))), prepared, folder / out, device="cpu", **options)


def rows(study):
    """The rows of trials.csv without times."""
    with open(study / "trials.csv", encoding="utf-8", newline="") as file:
        return [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """A finished study, not to be changed by tests."""
    return search(prepared, tmp_path_factory.mktemp("sweep"))


def test_the_chosen_recipe_is_the_best_of_the_objective(whole):
    trials = [row for row in rows(whole.folder) if row["state"] == "complete"]
    objectives = [float(row["dev_uar"]) - 0.5 * max(0, float(row["attacker_accuracy"]) - float(row["chance"])) for row in trials]
    assert len(set(objectives)) == len(trials) == 2
    assert objectives == pytest.approx([float(row["objective"]) for row in trials])
    best = trials[objectives.index(max(objectives))]
    recipe = read_recipe(whole.folder / "best.toml")
    assert recipe.train.learning_rate == float(best["train.learning_rate"]) and recipe.adversary.name == best["adversary.name"]
    assert recipe == whole.sweep.recipe_with(whole.chosen.values)
    text = (whole.folder / "best.toml").read_text()
    assert f"from 3 trials of 3 configurations (2 complete, 1 failed) of recipe.toml: trial {best['trial']} of the study" in text
    assert str(whole.folder) not in text and "[sweep]" not in text


def one_each(utterances):
    return list({utterance.speaker: utterance for utterance in reversed(utterances)}.values())


def one_emotion_each(utterances):
    return [replace(utterance, emotion=f"e{int(utterance.speaker) % 2}") for utterance in utterances if utterance.speaker < "05"]


def varied(utterances):
    return [replace(utterance, emotion=f"e{number % 2}") for number, utterance in enumerate(one_each(utterances))]


@pytest.mark.parametrize(
    "change, weight, message",
    [
        (varied, 0, "recipe.toml: a sweep attacks the training speakers of its folds: an audit needs at least 2 speakers"),
        (one_emotion_each, 0.5, "the emotion alone names 100 % of the speakers, so that no leak can be measured above it"),
    ],
)
def test_a_corpus_on_which_no_leak_can_be_measured_is_refused_before_training(folder, tmp_path, change, weight, message):
    data = prepare_table(folder / "corpus.csv", tmp_path / "data", change=change)
    split = {"split": {"scheme": "fixed", "test": ["01"], "dev": ["02"]}}
    searched = ONE_FOLD.replace('["05"]', "1").replace("leak_weight = 0.5", f"leak_weight = {weight}")
    with pytest.raises(AuditError, match=message):
        search(data, tmp_path, search=searched, sections=split)
    assert not (tmp_path / "study").exists()


def test_values_that_do_not_go_together_are_a_failed_trial_with_a_reason(whole):
    (failed,) = [row for row in rows(whole.folder) if row["state"] == "failed"]
    assert failed["adversary.name"] == "coral" and failed["objective"] == failed["dev_uar"] == ""
    assert 'adversary.hidden = 8: does nothing with adversary.name = "coral"' in failed["reason"]


def test_the_study_is_small_and_says_everything(whole):
    names = {path.name for path in whole.folder.iterdir()}
    assert names == {JOURNAL, "best.toml", "front.png", "sweep.json", "trials.csv"}
    assert all(isinstance(json.loads(line), dict) for line in (whole.folder / JOURNAL).read_text().splitlines())
    summary = json.loads((whole.folder / "sweep.json").read_text())
    assert summary["configurations"] == 3 and summary["states"] == {"complete": 2, "failed": 1}
    assert summary["chosen"] == whole.chosen.number and summary["chosen"] in summary["front"]
    assert list(summary["folds"]) == ["05", "02"] and summary["folds_of_recipe"] == 6
    assert summary["tested_in_other_folds"] == ["01", "02", "03", "04", "05", "06"]  # each is trained on in one of the folds
    chosen = summary["trials"][whole.chosen.number]
    assert [row["fold"] for row in chosen["after_each_fold"]] == ["05", "02"]
    assert chosen["after_each_fold"][-1]["dev_uar"] == chosen["dev_uar"]


def test_the_front_leaves_out_what_is_worse_in_both(whole):
    front, others = whole.front, [trial for trial in whole.complete if trial not in whole.front]
    for trial in others:
        assert any(
            best.last.dev_uar >= trial.last.dev_uar and best.last.excess <= trial.last.excess and best.last != trial.last
            for best in front
        )
    better = replace(whole.complete[1].last, dev_uar=1.0, accuracy=0.0)
    winner = replace(whole.complete[1], number=9, scores=(better,), objective=1.0)
    assert [trial.number for trial in replace(whole, trials=[*whole.trials, winner]).front] == [9]


def test_scores_are_those_of_training_and_of_the_quick_evaluation(whole, prepared, tmp_path):
    """With one fold, the dev UAR is that of metrics.csv, and the leak that of `siser evaluate --quick`."""
    recipe = make_recipe({**TINY, "train": TRAIN})
    (tmp_path / "recipe.toml").write_text(write_toml(recipe) + '[sweep]\ntrials = 1\n"emotion.dropout" = [0.3]\n')
    result = run_sweep(read_sweep(tmp_path / "recipe.toml"), prepared, tmp_path / "study", device="cpu")
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    report = evaluate(run, prepared, device="cpu", quick=True, with_baseline=False).report
    scores = result.chosen.last
    assert scores.dev_uar == pytest.approx(report.emotion.folds["fixed"].dev_uar, abs=1e-6)  # metrics.csv is rounded
    assert scores.accuracy == report.speaker.strongest.accuracy and scores.attacker == report.speaker.strongest.name
    assert scores.chance == report.speaker.chance.given_emotion


def test_labels_of_test_speakers_do_not_matter(prepared, folder, tmp_path_factory):
    def shuffled(utterances):
        emotions = iter([utterance.emotion for utterance in utterances if utterance.speaker == "05"][5:] * 2)
        return [replace(each, emotion=next(emotions)) if each.speaker == "05" else each for each in utterances]

    changed = prepare_table(folder / "corpus.csv", tmp_path_factory.mktemp("shuffled") / "data", change=shuffled)
    pairs = list(zip(prepared.utterances, changed.utterances, strict=True))
    assert {one.speaker for one, other in pairs if one.emotion != other.emotion} == {"05"}
    studies = [search(data, tmp_path_factory.mktemp("study"), search=ONE_FOLD) for data in (prepared, changed)]
    assert rows(studies[0].folder) == rows(studies[1].folder)
    assert any(row["state"] == "complete" for row in rows(studies[0].folder))


def test_a_killed_study_continues_with_its_trained_folds(whole, prepared, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=search, args=(prepared, tmp_path))
    process.start()
    number = whole.chosen.number
    models = tmp_path / "study" / "trials" / f"{number:04d}" / "folds"
    while not (models / "05" / "model.safetensors").exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    trained = (models / "05" / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "study" / f"{JOURNAL}.lock").symlink_to(JOURNAL)  # as left behind by a process that was writing
    with open(tmp_path / "study" / JOURNAL, "a") as journal:
        journal.write('{"op_code":')
    seen = []

    def watch(name, done, total):
        if (models / "05" / "model.safetensors").exists():
            seen.append((models / "05" / "model.safetensors").stat().st_mtime_ns)

    search(prepared, tmp_path, resume=True, progress=watch)
    assert rows(tmp_path / "study") == rows(whole.folder)
    assert seen and set(seen) == {trained}
    assert not (tmp_path / "study" / "trials").exists()


def test_a_finished_study_is_extended_and_repeats_no_configuration(prepared, tmp_path):
    twice = ONE_FOLD.partition('"adversary.name"')[0] + '"adversary.hidden" = [4, 8]\n'
    first = search(prepared, tmp_path, search=twice.replace("trials = 2", "trials = 1"))
    more = search(prepared, tmp_path, search=twice, resume=True, trials=4)
    assert more.trials[0] == first.trials[0] and len(more.trials) == 4 and more.configurations == 2
    repeated = [trial for trial in more.trials if trial.same_as is not None]
    assert all(trial.last == more.trials[trial.same_as].last for trial in repeated)
    assert "4 trials of 2 configurations (4 complete)" in (tmp_path / "study" / "best.toml").read_text()


def test_a_bad_configuration_is_stopped_after_a_fold(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.pruners, "MedianPruner", partial(optuna.pruners.MedianPruner, n_startup_trials=1))
    text = SEARCH.partition('"adversary.name"')[0] + '"train.learning_rate" = [1e-2, 1e-9]\n'
    learning = {"train": {**TRAIN, "epochs": 12, "ema": 0.5}, "emotion": {"hidden": 0}}
    result = search(prepared, tmp_path, search=text, sections=learning)
    states = {trial.values["train.learning_rate"]: trial for trial in result.trials if trial.same_as is None}
    assert states[1e-2].state == "complete" and len(states[1e-2].folds) == 2
    assert states[1e-9].state == "pruned" and states[1e-9].folds == ("05",) and states[1e-9].objective is None
    assert result.chosen == states[1e-2]


def test_configurations_are_trained_in_parallel(prepared, tmp_path):
    result = search(prepared, tmp_path, search=ONE_FOLD, jobs=2)
    assert [trial.state for trial in result.trials] == ["complete", "complete"] and result.configurations == 2
    assert not (tmp_path / "study" / "trials").exists()


def test_layers_of_a_frozen_encoder_are_computed_once_before_the_workers_read_them(checkpoint, prepared, tmp_path, monkeypatch):
    corpus = replace(prepared, folder=shutil.copytree(prepared.folder, tmp_path / "data", ignore=WITHOUT_CACHES))
    tables = read_recipe("pretrained").model_dump(exclude_unset=True)
    encoder = {**tables["encoder"], "source": str(checkpoint("wavlm")), "dim": 8}
    sections = {**tables, "encoder": encoder, "split": {"scheme": "loso"}, "train": {**TRAIN, "epochs": 1}}
    clips, compute = [], front.LayerSource.compute
    monkeypatch.setattr(
        front.LayerSource, "compute", lambda self, clip, device: clips.append(clip) or compute(self, clip, device)
    )
    front.source_of.cache_clear()
    result = search(corpus, tmp_path, search=ONE_FOLD.replace('"adversary.name" = ["grl"]', ""), sections=sections)
    assert [trial.state for trial in result.trials] == ["complete", "complete"]
    assert len(clips) == len(prepared.utterances) and len(list((tmp_path / "data" / "pretrained").iterdir())) == 1


def test_a_study_whose_trials_all_fail_says_why(prepared, tmp_path, monkeypatch):
    def diverging(task, earlier):
        raise RunError("training diverged in epoch 1")

    monkeypatch.setattr(sweep_folds, "explore_fold", diverging)
    with pytest.raises(RunError, match="no trial is complete of 2 trials, see trials.csv; the first failed: training diverged"):
        search(prepared, tmp_path, search=ONE_FOLD)
    assert {row["reason"] for row in rows(tmp_path / "study")} == {"training diverged in epoch 1"}


# Mistakes


def command(path, data, out, *options):
    return ["sweep", str(path), "--data", str(data.folder), "--out", str(out), "--device", "cpu", *options]


def failure(capsys, words):
    """The error line of a command that is refused."""
    assert siser(words) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and not output.out
    return output.err


MISTAKES = {
    'folds = ["07"]': "sweep.folds: unknown fold '07'",
    'folds = ["05", "05"]': "expected names of different folds",
    "folds = 0": "sweep.folds = 0: expected 1 or more",
    '"features.streams" = [["prosody"]]': "siser add-f0",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_what_the_corpus_does_not_allow_is_refused_before_anything_is_written(text, prepared, tmp_path, capsys):
    path = recipe_file(tmp_path, f'[sweep]\n{text}\n"emotion.dropout" = [0.1, 0.2]\n')
    assert MISTAKES[text] in failure(capsys, command(path, prepared, tmp_path / "study"))
    assert not (tmp_path / "study").exists()


def test_a_recipe_that_holds_nothing_out_is_refused(prepared, tmp_path, capsys):
    path = recipe_file(tmp_path, audit={"holdout": 0})
    assert "expected audit.holdout above 0" in failure(capsys, command(path, prepared, tmp_path / "study"))


def test_a_refit_is_searched_with_dev_speakers(prepared, tmp_path, capsys):
    path = recipe_file(tmp_path)
    refit = ["--set", "train.refit=true", "--set", "split.dev_speakers=0"]
    assert "leaves no dev speakers to score" in failure(capsys, command(path, prepared, tmp_path / "study", *refit))


def test_without_optuna_the_extra_is_named(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    error = failure(capsys, command(recipe_file(tmp_path), prepared, tmp_path / "study"))
    assert 'pip install "speaker-invariant-ser[sweep]"' in error and not (tmp_path / "study").exists()


def test_a_study_is_only_continued_if_asked_and_with_the_same_request(whole, prepared, tmp_path, capsys):
    out = shutil.copytree(whole.folder, tmp_path / "study")
    path = recipe_file(tmp_path)
    assert "exists already: continue it with --resume" in failure(capsys, command(path, prepared, out))
    changed = failure(capsys, command(path, prepared, out, "--resume", "--set", "train.epochs=4"))
    assert "was started with another request: train.epochs was 3, now 4. Use the same" in changed
    path.write_text(path.read_text().replace("leak_weight = 0.5", "leak_weight = 0.7"))
    assert "sweep.leak_weight was 0.5, now 0.7" in failure(capsys, command(path, prepared, out, "--resume"))
    assert rows(out) == rows(whole.folder)


def test_resuming_what_is_no_study_or_a_damaged_one_is_refused(whole, prepared, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    path = recipe_file(tmp_path)
    assert f"is not a sweep (it has no {JOURNAL})" in failure(capsys, command(path, prepared, tmp_path / "other", "--resume"))
    out = shutil.copytree(whole.folder, tmp_path / "study")
    (out / "trials").symlink_to(tmp_path / "other")
    assert "trials is a link, to which this command would write" in failure(capsys, command(path, prepared, out, "--resume"))
    (out / "trials").unlink()
    (out / JOURNAL).write_text("no JSON\n" + (out / JOURNAL).read_text())
    assert f"{out / JOURNAL} is damaged" in failure(capsys, command(path, prepared, out, "--resume"))
    (out / JOURNAL).rename(out / "elsewhere")
    (out / JOURNAL).symlink_to(out / "elsewhere")
    assert "is a link, to which a resumed sweep would write" in failure(capsys, command(path, prepared, out, "--resume"))


def test_the_command_prints_the_best_and_where_the_recipe_is(whole, prepared, tmp_path, capsys):
    out = shutil.copytree(whole.folder, tmp_path / "study")
    (out / "trials" / "0001").mkdir(parents=True)
    (out / "trials" / "notes.txt").write_text("mine")
    assert siser(command(recipe_file(tmp_path), prepared, out, "--resume")) == 0
    assert [path.name for path in (out / "trials").iterdir()] == ["notes.txt"], "only folders of trials are removed"
    output = capsys.readouterr().out
    assert "3 trials of 3 configurations (2 complete, 1 failed) on 2 folds of 6 (05, 02)" in output
    table = [line.split() for line in output.splitlines() if line.split()[:1] in (["0"], ["1"], ["2"])]
    assert [int(line[0]) for line in table] == [trial.number for trial in whole.complete]
    assert f"chosen recipe: {out / 'best.toml'}" in output
    assert "6 speakers of the explored folds are test speakers of other folds" in output
