"""Studies: arms x corpora x seeds are measured once, continued after an interruption, and never mixed with stale results."""

import json
import re
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY
from reports import without_audit

from speaker_invariant_ser import files
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import AuditError, StudyError
from speaker_invariant_ser.evaluation import baseline
from speaker_invariant_ser.evaluation.evaluate import UnauditedError
from speaker_invariant_ser.evaluation.summary import read_report
from speaker_invariant_ser.files import locked
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.processes import cores
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.studies import measure, runner
from speaker_invariant_ser.studies.machine import describe_machine
from speaker_invariant_ser.studies.results import read_result, recorded_recipe, table_sha256, write_result
from speaker_invariant_ser.studies.runner import Options, run_study
from speaker_invariant_ser.studies.study import flattened, read_study
from speaker_invariant_ser.training import launcher, trainer

FOLD = "runs/tones-cnn-s0/folds/fixed"

STUDY = """
seeds = [0, 1]
telephone = true

[corpora]
tones = "{data}"

[[arms]]
name = "cnn"
title = "small CNN"
recipe = "tiny.toml"
set = {{"adversary.strength" = 0}}

[[arms]]
name = "svm"
baseline = "functionals"
"""


@contextmanager
def in_thread(job):
    """Measure in this process, which has everything imported."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(measure.measure, job)


def write_study(folder, prepared) -> Path:
    """Write a small study and its recipe, and return the file of the study."""
    (folder / "tiny.toml").write_text(write_toml(make_recipe(TINY)))
    (folder / "study.toml").write_text(STUDY.format(data=prepared.folder))
    return folder / "study.toml"


@pytest.fixture
def path(tmp_path, prepared) -> Path:
    """The file of a small study."""
    return write_study(tmp_path, prepared)


def run(path, only=(), seeds=1, submit=in_thread, **options):
    """Measure a study and return the outcomes by the name of the cell."""
    study = read_study(path)
    chosen = Options(path.parent / "results", path.parent / "runs", **options)
    return {outcome.cell.name: outcome for outcome in run_study(study, study.cells(only, (), seeds), chosen, submit=submit)}


def test_a_recipe_is_a_file_beside_the_study_or_a_shipped_one(path):
    path.write_text(path.read_text().replace("tiny.toml", "methods/hsic"))
    assert read_study(path).arms[0].resolved(0).adversary.name == "hsic"
    (path.parent / "methods").mkdir()
    (path.parent / "tiny.toml").rename(path.parent / "methods/hsic")
    assert read_study(path).arms[0].resolved(0).adversary.name == "grl"


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """Both arms of the study, measured without an interruption: their folder, and the outcomes by cell."""
    path = write_study(tmp_path_factory.mktemp("study"), prepared)
    return path.parent, run(path)


@pytest.fixture
def pretend(whole):
    """Submit measurements that end at once with the numbers of `whole`, and note their jobs in `pretend.jobs`."""

    @contextmanager
    def submit(job):
        name = "tones-cnn-s0" if job.cell.arm.recipe else "tones-svm"
        prepared = PreparedCorpus.open(job.data)
        recipe = job.cell.arm.resolved(job.cell.seed, prepared)
        numbers = whole[1][name].result.numbers
        speaker = numbers.speaker.model_copy(update={"quick": job.quick})
        recorded = recorded_recipe(recipe, baseline=not job.cell.arm.recipe)
        changes = {"arm": job.cell.arm.name, "seed": job.cell.seed, "recipe": recorded, "recipe_sha256": table_sha256(recorded)}
        changes["numbers"] = numbers.model_copy(update={"speaker": speaker})
        write_result(job.result, whole[1][name].result.model_copy(update=changes))
        submit.jobs.append(job)
        future = Future()
        future.set_result(None)
        yield future

    submit.jobs = []
    return submit


def statuses(outcomes):
    """Return the status of each cell."""
    return {name: outcome.status for name, outcome in outcomes.items()}


def test_cells_without_an_audit_keep_their_emotion_results(whole, path, monkeypatch, capsys):
    folder, outcomes = whole
    shutil.copytree(folder / "runs", path.parent / "runs")
    report = without_audit(read_report(folder / "runs" / "tones-cnn-s0"))
    expected = {name: outcome.result.numbers.emotion for name, outcome in outcomes.items()}

    def refuse(*words, **names):
        raise AuditError("few")

    def refuse_run(*words, **names):
        raise UnauditedError(report, {})

    monkeypatch.setattr(baseline, "audit", refuse)
    monkeypatch.setattr(measure, "evaluate", refuse_run)
    for outcome in run(path).values():
        assert outcome.status == "measured" and outcome.result.numbers.emotion == expected[outcome.cell.name]
        assert outcome.result.numbers.speaker is None and outcome.result.numbers.unaudited == "few"
    assert statuses(run(path)) == dict.fromkeys(expected, "there")
    assert siser(["study", str(path), "--table", "--results", str(path.parent / "results")]) == 0
    assert "cnn: speaker information is not measured: few." in capsys.readouterr().out
    page = (path.parent / "results" / "study.md").read_text()
    assert page.count("| - | - | - |") == 2 and ".svg" not in page
    assert json.loads((path.parent / "runs/tones-cnn-s0/report/report.json").read_text())["unaudited"] == "few"


def test_a_result_holds_the_numbers_and_what_makes_them_again(whole, prepared):
    folder, outcomes = whole
    assert statuses(outcomes) == {"tones-cnn-s0": "measured", "tones-svm": "measured"}
    network, baseline = (outcome.result for outcome in outcomes.values())
    assert network.command == "siser study study.toml --only cnn --corpora tones"
    assert network.recipe["adversary"]["strength"] == 0 and network.recipe["train"]["seed"] == 0
    assert network.data_sha256 == prepared.settings["sha256"]
    assert network.numbers.emotion.utterances == 24 and set(network.numbers.emotion.per_speaker) == {"05", "06"}
    assert network.numbers.speaker.quick and network.numbers.speaker.speakers == 3
    assert network.numbers.speaker.controls["embedding"].accuracy == network.numbers.speaker.strongest.accuracy
    training = network.numbers.training
    assert training.parameters == sum(weights.numel() for weights in load_model(folder / FOLD).parameters())
    assert training.seconds > 0 and training.cpu_seconds > 0 and training.epoch["fixed"] in (1, 2, 3)
    assert baseline.seed is None and baseline.numbers.baseline.dimensions == 600 and baseline.numbers.speaker.speakers == 6
    assert set(baseline.numbers.baseline.classifiers) == {"linear", "rbf"}
    assert 0 < network.numbers.emotion.by_telephone.value < 1 and baseline.numbers.emotion.by_telephone is None
    assert read_report(folder / "runs" / "tones-cnn-s0").emotion.uar.value == network.numbers.emotion.uar.value


def test_a_later_start_measures_what_is_missing(path, pretend):
    assert statuses(run(path, submit=pretend)) == {"tones-cnn-s0": "measured", "tones-svm": "measured"}
    later = run(path, seeds=None, submit=pretend)
    assert statuses(later) == {"tones-cnn-s0": "there", "tones-svm": "there", "tones-cnn-s1": "measured"}
    assert [job.cell.name for job in pretend.jobs] == ["tones-cnn-s0", "tones-svm", "tones-cnn-s1"]


def test_stale_results_are_named_and_measured_again_only_on_request(path, pretend):
    run(path, ["cnn"], submit=pretend)
    path.write_text(path.read_text().replace('strength" = 0', 'strength" = 0.5'))
    (outcome,) = run(path, ["cnn"], submit=pretend).values()
    assert outcome.status == "stale" and outcome.reason == "measured with another recipe: adversary.strength was 0.0, now 0.5"
    assert outcome.result.recipe["adversary"]["strength"] == 0

    (outcome,) = run(path, ["cnn"], refresh=True, submit=pretend).values()
    assert outcome.status == "measured" and outcome.result.recipe["adversary"]["strength"] == 0.5
    assert pretend.jobs[-1].discard_run and len(pretend.jobs) == 2

    change_result(path, lambda content: content["data_sha256"].update({"manifest.csv": "0" * 64}))
    (outcome,) = run(path, ["cnn"], submit=pretend).values()
    assert outcome.status == "stale" and outcome.reason == "measured on other data (manifest.csv)"


def change_result(path, change):
    """Change the content of the network's result."""
    result = path.parent / "results" / "tones-cnn-s0.json"
    content = json.loads(result.read_text())
    change(content)
    content["recipe_sha256"] = table_sha256(content["recipe"])
    result.write_text(json.dumps(content))


def test_a_key_that_a_later_version_adds_makes_no_result_stale(path, pretend):
    run(path, ["cnn"], submit=pretend)
    change_result(path, lambda content: content["recipe"]["train"].pop("patience"))
    assert statuses(run(path, ["cnn"], submit=pretend)) == {"tones-cnn-s0": "there"}
    change_result(path, lambda content: content["recipe"]["train"].update({"gone": 1}))
    (outcome,) = run(path, ["cnn"], submit=pretend).values()
    assert outcome.status == "stale" and "is no longer valid (recipe: unknown key in [train] 'gone'" in outcome.reason


def test_a_run_of_another_recipe_without_a_result_is_not_overwritten_unasked(path, prepared, trained):
    folder = path.parent / "runs" / "tones-cnn-s0"
    shutil.copytree(trained.folder, folder)
    (outcome,) = run(path, ["cnn"]).values()
    assert outcome.status == "failed" and isinstance(outcome.error, StudyError)
    assert "was started with another recipe (adversary.strength); --refresh removes it" in outcome.reason
    (outcome,) = run(path, ["cnn"], refresh=True, keep_runs=False).values()
    assert outcome.status == "measured" and outcome.result.recipe["adversary"]["strength"] == 0 and not folder.exists()


def test_an_interrupted_training_is_continued(path, prepared, whole, monkeypatch):
    def stop(name, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        recipe = read_study(path).arms[0].resolved(0)
        launcher.train(recipe, prepared, path.parent / "runs" / "tones-cnn-s0", progress=stop, device="cpu")
    assert measure.epochs_of(path.parent / "runs" / "tones-cnn-s0") == (2, 3)
    epochs = []
    monkeypatch.setattr(
        measure,
        "train",
        lambda *words, **options: launcher.train(*words, **options, progress=lambda name, row: epochs.append(row["epoch"])),
    )
    (outcome,) = run(path, ["cnn"], keep_runs=False).values()
    assert epochs == [3]
    expected = whole[1]["tones-cnn-s0"].result.numbers
    assert outcome.result.numbers.emotion == expected.emotion and outcome.result.numbers.speaker == expected.speaker


def test_a_full_audit_is_asked_for_once_and_uses_the_kept_run(path, pretend, whole, monkeypatch):
    run(path, ["cnn"], submit=pretend)
    (full,) = run(path, ["cnn"], full=True, submit=pretend).values()
    assert full.status == "measured" and not full.result.numbers.speaker.quick and not pretend.jobs[-1].quick
    assert statuses(run(path, ["cnn"], submit=pretend)) == statuses(run(path, ["cnn"], full=True, submit=pretend))
    assert len(pretend.jobs) == 2

    shutil.copytree(whole[0] / "runs", path.parent / "runs", dirs_exist_ok=True)
    (path.parent / "results" / "tones-cnn-s0.json").unlink()
    monkeypatch.setattr(launcher, "train_model", None)  # a training would fail
    (again,) = run(path, ["cnn"], keep_runs=False).values()
    assert again.status == "measured" and again.result.numbers.training == whole[1]["tones-cnn-s0"].result.numbers.training


def test_a_failed_measurement_does_not_end_the_study(path, pretend, monkeypatch, capsys):
    wrong = '[[arms]]\nname = "speakers"\nrecipe = "tiny.toml"\nset = {"split.test" = ["99"]}\n\n[[arms]]'
    path.write_text(path.read_text().replace("[[arms]]", wrong, 1))
    monkeypatch.setattr(runner, "in_child", lambda job: (in_thread if job.cell.arm.name == "speakers" else pretend)(job))
    options = ["--runs", str(path.parent / "runs"), "--seeds", "1", "--jobs", "1", "--quiet"]
    assert siser(["study", str(path), *options]) == 1
    captured = capsys.readouterr()
    assert "error: tones-speakers-s0: " in captured.err and "99" in captured.err
    assert re.search(r"^2/3 tones-cnn-s0: UAR \d+\.\d%, attacker \d+\.\d% \w+ \(chance \d+\.\d%\)$", captured.out, re.MULTILINE)
    assert "tones-svm" in captured.out and "Not measured: speakers (seed 0, 1), cnn (seed 1)." in captured.out
    page = (path.parent / "results" / "study.md").read_text()
    assert "| cnn: small CNN |" in page and (path.parent / "results" / "study-tones.svg").is_file()
    assert siser(["study", str(path), *options, "--only", "cnn"]) == 0
    assert "(there already)" in capsys.readouterr().out
    path.write_text(path.read_text().replace('strength" = 0', 'strength" = 0.5'))
    assert siser(["study", str(path), *options, "--only", "cnn"]) == 0
    assert "warning: tones-cnn-s0: measured with another recipe: adversary.strength was 0.0" in capsys.readouterr().err


def test_a_measurement_that_runs_out_of_memory_is_one_error_line(path, monkeypatch, capsys):
    def run_out(*arguments):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(runner, "in_child", in_thread)
    monkeypatch.setattr("speaker_invariant_ser.studies.measure.measure_network", run_out)
    options = ["--runs", str(path.parent / "runs"), "--seeds", "1", "--jobs", "1", "--quiet"]
    assert siser(["study", str(path), *options, "--only", "cnn"]) == 1
    captured = capsys.readouterr().err
    assert re.search("^error: tones-cnn-s0: memory ran out: .*allocate memory", captured, re.MULTILINE)
    assert "Traceback" not in captured


def test_what_another_process_is_measuring_is_skipped(path):
    with locked(path.parent / "runs" / "tones-cnn-s0", "study-lock"):
        (outcome,) = run(path, ["cnn"]).values()
    assert outcome.status == "skipped" and outcome.reason == "another process is measuring it"


def test_a_missing_extra_skips_and_a_killed_process_fails(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    path.write_text(path.read_text().replace('"functionals"', '"egemaps"'))
    (outcome,) = run(path, ["svm"]).values()
    assert outcome.status == "skipped" and "openSMILE is not installed" in outcome.reason
    killed = runner.outcome_of(measure.Job(outcome.cell, path, path, path, ""), BrokenProcessPool())
    assert killed.status == "failed" and "the same command continues it" in killed.reason


def test_a_measurement_in_a_process_of_its_own_returns_its_error(path):
    job = measure.Job(read_study(path).cells()[0], path.parent / "gone", path.parent / "run", path.parent / "r.json", "")
    with runner.in_child(job) as future:
        assert "is not a prepared corpus" in str(future.exception())


WRONG = {
    'nmae = "x"': "unknown key in [[arms]] 'nmae', did you mean 'name'?",
    'name = "a b"': "arms.2.name = 'a b': expected letters, digits",
    'name = "x"': "arm x: expected either recipe or baseline",
    'name = "x"\nrecipe = "tiny.toml"\nbaseline = "prosody"': "arm x: expected either recipe or baseline",
    'name = "x"\nbaseline = "prosdy"': "arm x: unknown baseline 'prosdy', did you mean 'prosody'?",
    'name = "x"\nbaseline = "prosody"\nseeds = [1]': "arm x: seeds = [1]: a baseline has no seed",
    'name = "x"\nrecipe = "tiny.toml"\nseeds = [1, 1]': "arm x: seed 1 occurs more than once",
    'name = "x"\nrecipe = "tiny.toml"\nseeds = ["one"]': "arms.2.seeds.0 = 'one': should be a valid integer",
    'name = "x"\nrecipe = "tiny.toml"\nseeds = [true]': "arms.2.seeds.0 = True: should be a valid integer",
    'name = "x"\nrecipe = "tiny.toml"\ncorpora = ["tone"]': "arm x: unknown corpus 'tone', did you mean 'tones'?",
    'name = "x"\nrecipe = "gone.toml"': "arm x: no recipe at",
    'name = "x"\nrecipe = "tiny.toml"\nset = {"train.epohcs" = 3}': "unknown key in [train] 'epohcs', did you mean 'epochs'?",
    'name = "x"\nrecipe = "tiny.toml"\nset = {epochs = 3}': "expected section.key=value",
    'name = "x"\nrecipe = "tiny.toml"\nset = {"train.seed" = 3}': "arm x: set.train.seed: the seeds of the study are used",
    'name = "cnn"\nrecipe = "tiny.toml"': "arm cnn occurs more than once",
    'name = "cnn-s0"\nbaseline = "prosody"': "result file tones-cnn-s0 occurs more than once",
}


def test_a_corpus_may_have_a_split_of_its_own(path):
    alone = f'[corpora]\ntones = "{(folder := read_study(path).corpora["tones"])}"'
    split = f'{alone}\nother = {{folder = "{folder}", split = {{scheme = "group-kfold", folds = 3}}}}'
    path.write_text(path.read_text().replace(alone, split))
    prepared = PreparedCorpus.open(folder)
    cells = {cell.name: cell.arm.resolved(cell.seed, prepared).split for cell in read_study(path).cells(seeds=1)}
    assert [(name, split.scheme, split.folds) for name, split in cells.items() if name.startswith("other")] == [
        ("other-cnn-s0", "group-kfold", 3),
        ("other-svm", "group-kfold", 3),
    ]
    assert cells["tones-cnn-s0"] == read_study(path).arms[0].resolved(0).split


WRONG_CORPORA = {
    "other = 3": "corpora.other = 3: expected a folder, or a table with the keys folder and split",
    "other = {split = {}}": "corpora.other.folder is missing",
    'other = {folder = "x", spilt = {}}': "unknown key in [corpora.other] 'spilt', did you mean 'split'?",
    'other = {folder = "x", split = {scheme = "loto"}}': "arm cnn on other: ",
    'other = {folder = "x", split = {shceme = "loso"}}': "unknown key in [split] 'shceme', did you mean 'scheme'?",
}


@pytest.mark.parametrize(
    "before, added, message",
    [("", arm, message) for arm, message in WRONG.items()] + [("[corpora]\n", *case) for case in WRONG_CORPORA.items()],
)
def test_a_wrong_arm_or_corpus_is_one_line_and_exit_code_2(before, added, message, path, capsys):
    text = path.read_text()
    path.write_text(text.replace(before, f"{before}{added}\n") if before else f"{text}\n[[arms]]\n{added}\n")
    assert siser(["study", str(path), "--table"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line and str(path) in line


@pytest.mark.parametrize(
    "words, message",
    [
        (["--only", "cn"], "unknown arm 'cn', did you mean 'cnn'?"),
        (["--corpora", "tone"], "unknown corpus 'tone', did you mean 'tones'?"),
        (["--corpus", "tones"], "--corpus tones: expected two words with = between, such as emodb=data/emodb"),
        (["--corpus", "tones=/nowhere"], "corpus tones: /nowhere is not a prepared corpus (does not exist)"),
        (["--seeds", "0"], "'--seeds'"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(words, message, path, capsys):
    assert siser(["study", str(path), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (path.parent / "results").exists()


def test_an_interrupted_removal_of_a_run_leaves_what_the_next_call_can_remove(trained, tmp_path, monkeypatch):
    folder, remove = shutil.copytree(trained.folder, tmp_path / "run"), files.remove

    def interrupted(path):
        if path.exists():
            remove(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "remove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure.remove_run(folder)
    assert not any(spec.done for spec in Run.open(folder).model_specs)


def test_a_study_that_is_not_there_or_a_damaged_result_is_an_error(path, capsys):
    assert siser(["study", str(path.with_name("gone.toml"))]) == 2
    assert "no study at" in capsys.readouterr().err
    (path.parent / "results").mkdir()
    (path.parent / "results" / "tones-svm.json").write_text("{}")
    assert siser(["study", str(path), "--table"]) == 2
    assert "tones-svm.json is not a result of a study (command: Field required); choose another" in capsys.readouterr().err


def test_the_first_seed_of_every_arm_comes_before_the_second(path, prepared):
    study = read_study(path, {"more": prepared.folder})
    assert [cell.name for cell in study.cells()] == [
        "tones-cnn-s0", "tones-svm", "more-cnn-s0", "more-svm", "tones-cnn-s1", "more-cnn-s1",
    ]  # fmt: skip
    assert [cell.name for cell in study.cells(["svm"], ["more"])] == ["more-svm"]
    assert read_result(path.parent / "no.json") is None
    assert flattened({"labels.map": {"bored": "calm"}, "train": {"epochs": 2}}) == {
        "labels.map": {"bored": "calm"},
        "train.epochs": 2,
    }


def test_the_machine_is_described_from_the_platform(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor : 0\nmodel name  : Some  CPU @ 2 GHz\nflags : fpu avx2 avx512f amx_bf16\n\nprocessor : 1\nflags : fpu\n"
    )
    described = describe_machine(cpuinfo)
    assert described["processor"] == "Some CPU @ 2 GHz" and described["instructions"] == ["AVX2", "AVX-512", "AMX bfloat16"]
    assert described["cores"] == cores()
    assert describe_machine(tmp_path / "gone")["processor"]
