"""Mistakes of a first-time user: one `error:` line on standard error, exit code 2, no files left. Progress bars and help."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from conftest import TINY
from helpers import assert_same_bits, without_hashes
from rich.console import Console

from speaker_invariant_ser import files
from speaker_invariant_ser.cli import app as cli_app
from speaker_invariant_ser.cli.app import app
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.cli.progress import TrainingBars, progress_of_training
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.corpora import synthesis
from speaker_invariant_ser.data.corpora.synthesis import EMOTIONS, SPEAKERS
from speaker_invariant_ser.demos import speech as demo
from speaker_invariant_ser.demos.folder import MARK
from speaker_invariant_ser.evaluation.baseline import UnauditedBaselineError
from speaker_invariant_ser.recipe import TrainSection
from speaker_invariant_ser.runs import Run, best_epoch
from speaker_invariant_ser.training import launcher


@pytest.fixture
def paths(tmp_path, folder, prepared, trained):
    """Paths by name, for the command lines below."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "holiday.wav").touch()
    (tmp_path / "good.toml").write_text(write_toml(make_recipe(TINY)))
    (tmp_path / "typo.toml").write_text("[train]\nepocs = 3\n")
    (tmp_path / "shared.toml").write_text('[split]\nscheme = "fixed"\ntest = ["05"]\ndev = ["05"]\n')
    lines = (folder / "corpus.csv").read_text().splitlines()
    (tmp_path / "one_speaker.csv").write_text(
        "\n".join([lines[0], *(f"{folder}/{line}" for line in lines[1:] if line.startswith("01"))])
    )
    (tmp_path / "one_emotion.csv").write_text(
        "\n".join([lines[0], *(f"{folder}/{line}" for line in lines[1:] if "level" in line)])
    )
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "dir.csv").mkdir()
    (tmp_path / "twice.csv").write_text("id,path,speaker,emotion\nu1,a.wav,1,x\nu2,a.wav,2,y\n")
    (tmp_path / "judge.csv").write_text("id,x_0,x_1\nrow 1,0.5,1\n")
    (tmp_path / "no_ids.csv").write_text("x_0,x_1\n0.5,1\n")
    (tmp_path / "two_speakers.csv").write_text("speaker,emotion,d0\n" + "".join(f"{row % 2},x,{row}.5\n" for row in range(20)))
    (tmp_path / "embeddings_of_one_speaker.csv").write_text(
        "speaker,emotion,d0,d1\n" + "".join(f"1,x,{row}.5,{row % 3}.5\n" for row in range(20))
    )
    for name in ("pipe", "pipe.csv"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "link").symlink_to(trained.folder)
    return {"tmp": tmp_path, "folder": folder, "data": prepared.folder, "run": trained.folder, "link": tmp_path / "link"}


CASES = {
    "prepare emobd {folder} {tmp}/out": "unknown corpus 'emobd', did you mean 'emodb'? Expected one of: aesdd,",
    "prepare EMODB {folder} {tmp}/out": "unknown corpus 'EMODB', did you mean 'emodb'? Expected",
    "baseline {folder}/corpus.csv --out {tmp}/out": "corpus.csv is not a prepared corpus (is a file)",
    "prepare emodb {tmp}/wrong {tmp}/out": "does not hold EMO-DB: looked for files named like 03a01Fa.wav",
    "prepare emodb {tmp}/nothing {tmp}/out": "nothing does not exist: expected the unpacked EMO-DB folder (files named like",
    "prepare emodb {tmp}/empty {tmp}/out": "is empty: looked for EMO-DB",
    "prepare csv {tmp}/nothing.csv {tmp}/out": "no such table",
    "prepare csv {tmp}/typo.toml {tmp}/out": "no column path, speaker, emotion",
    "prepare csv {folder} {tmp}/out": "is a folder, expected a CSV table",
    "prepare csv {folder}/corpus.csv {tmp}": "exists already",
    "train {tmp}/typo.toml --data {data} --out {tmp}/out": "unknown key in [train] 'epocs', did you mean 'epochs'?",
    "train {tmp}/nothing.toml --data {data} --out {tmp}/out": "no recipe at",
    "train defualt --data {data} --out {tmp}/out": "no recipe at defualt: expected a TOML file such as "
    "recipes/emodb.toml, or a name that `siser recipes` lists, such as default",
    "train method/hsicc --data {data} --out {tmp}/out": "a name that `siser recipes` lists, such as methods/hsic",
    "train --data {data} --out {tmp}/out": 'which features.streams with "prosody" needs; add it: siser add-f0 /',
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set train.epochs=-1": "train.epochs = -1",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set trian.epochs=1": "unknown section 'trian', did you mean 'train'?",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set split.test=[]": 'scheme = "fixed" needs split.test',
    "train {tmp}/good.toml --data {data} --out {tmp}/out --device gpu": "unknown device 'gpu'",
    "train {tmp}/good.toml --data {tmp}/empty --out {tmp}/out": "is not a prepared corpus",
    "train {tmp}/good.toml --data {data} --out {run}": "exists already: resume it with --resume",
    "train {tmp}/good.toml --out {tmp}/out": "expected --data FOLDER, a prepared corpus",
    "train {tmp}/good.toml --data {data}": "give --out RUN to train, or --preview FILE to preview without training",
    "train {tmp}/good.toml --data {data} --preview {tmp}/preview.pdf": "expected a name that ends in .png or .svg",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --devices 0": "'--devices'",
    "train {tmp}/shared.toml --data {data} --out {tmp}/out": "speaker 05 is on both sides of the split",
    "evaluate {tmp}/empty": "is not a run folder (has no recipe.toml, split.json)",
    "evaluate {tmp}/nothing": "is not a run folder (does not exist)",
    "infer {data} --out {tmp}/p.csv": "no audio file in this folder",
    "infer {run} {tmp}/empty --out {tmp}/p.csv": "no audio file in this folder",
    "infer {run} {tmp}/empty/*.wav --out {tmp}/p.csv": "no file matches this pattern",
    "infer {run} {folder} --out {tmp}/p.xls": "unknown ending '.xls'",
    "infer {run} {folder} --out {tmp}/p.csv --fold 9": "unknown trained fold '9'. Expected one of: fixed",
    "infer {folder} --channel both": "Invalid value for '--channel': 'both' is not one of 'mix', 'left', 'right', 'each'.",
    "infer {run}": "is the model: expected audio files, folders, globs or .txt lists after it",
    "infer nobody {folder} --out {tmp}/p.csv": "nobody is not a run folder (does not exist) and no model of the package",
    "demo --out {tmp}": "choose another --out; only a former demo is replaced",
    "infer {run} {tmp}/gone.txt --out {tmp}/p.csv": "cannot be read as a list",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set encoder.name=cn": "unknown encoder.name 'cn'",
    "infer {run} {tmp}/empty.txt --out {tmp}/p.csv": "an empty list",
    "infer {run} {folder} --out {tmp}/empty": "unknown ending",
    "infer {run} {folder} --out {tmp}/dir.csv": "a folder of that name exists",
    "prepare csv {tmp}/twice.csv {tmp}/out": "conflicting emotions (x, y) and conflicting speakers (1, 2)",
    "prepare csv {tmp}/pipe {tmp}/out": "is not a regular file: a pipe, such as <(...), or a device is not read",
    "train {tmp}/pipe --data {data} --out {tmp}/out": "is not a regular file",
    "train {folder} --data {data} --out {tmp}/out": "is a folder: expected a TOML file",
    "prepare csv https://example.org/a.csv {tmp}/out": "no such table: https://example.org/a.csv; a web address is not opened",
    "evaluate file:///data/run": "file:///data/run is not a run folder (does not exist)",
    "infer {folder} --segments {tmp}/pipe": "write the content into a file, with the ending of its kind, and name that",
    "audit {tmp}/pipe.csv": "is not a regular file",
    "prepare csv {folder}/corpus.csv {tmp}/pipe": "exists already",
    "prepare folder {folder} {tmp}/out": "a folder needs --pattern",
    "prepare folder {folder} {tmp}/out --pattern {{speaker}}/*.wav": "needs {{emotion}}",
    "prepare csv {folder}/corpus.csv {tmp}/out --also nemo": "--also nemo: expected two words with = between",
    "prepare csv {folder}/corpus.csv {tmp}/out --also csv={folder}/corpus.csv": "two corpora are named corpus; give one of them",
    "prepare csv {folder}/corpus.csv {tmp}/out --only speaker": "--only speaker: expected two words with = between",
    "prepare csv {folder}/corpus.csv {tmp}/out --only speaker=99": "--only speaker=99: no utterance has it, speaker",
    "prepare csv {folder}/corpus.csv {tmp}/out --column speaker=spk": "--column speaker=spk: unknown column 'spk'",
    "prepare csv {folder}/corpus.csv {tmp}/out --column spaeker=speaker": "unknown column 'spaeker', did you mean 'speaker'",
    "prepare csv {folder}/corpus.csv {tmp}/out --trim-db=-1": "'--trim-db'",
    "prepare csv {folder}/corpus.csv {tmp}/out --loudness 3": "'--loudness'",
    "prepare csv {folder}/corpus.csv {tmp}/out --download": "unknown corpus 'csv'",
    "prepare audformat {tmp}/empty {tmp}/out": "holds no audformat database: expected db.yaml",
    "prepare datasets {tmp}/empty {tmp}/out": "holds no dataset written by save_to_disk",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set labels.map=fife": "unknown map 'fife', did you mean 'five'",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set labels.map=five": "no utterance has any of its labels",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set labels.map=3": "labels.map",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set split.scheme=official": "utterances without a partition",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set split.scheme=ravdess-five": "needs the corpus ravdess",
    "train {tmp}/good.toml --data {data} --out {tmp}/out --set adversary.target=corpus": "trains on one corpus only",
    "evaluate {run} --against {tmp}/nothing": "is not a run folder (does not exist)",
    "evaluate {run} --against {link}": "is the run that is evaluated: expected another one to compare with",
    "evaluate {run} --by txet": "unknown column 'txet', did you mean 'text'",
    "compare {run}": "evaluate it first with `siser evaluate",
    "compare {run} {tmp}/nothing {run}/.": "tones is given twice: give each run once",
    "compare {run} {link}": "link is the same run as /",
    "compare {run} --out {folder}": "only a former report is replaced",
    "compare {run} --out {run}/report": "is in a run, whose own report may be there; choose another --out",
    "compare": "Missing argument 'runs'",
    "audit {tmp}/nothing.npz": "no such file",
    "audit {tmp}/typo.toml": "unknown ending '.toml'",
    "audit {folder}/corpus.csv --out {tmp}/out": "the embedding has no dimensions; expected numbers",
    "audit {tmp}/two_speakers.csv --column speaker=spk --out {tmp}/out": "unknown column 'spk'",
    "audit {tmp}/two_speakers.csv --column speaker --out {tmp}/out": "expected two words with = between",
    "audit {tmp}/two_speakers.csv --out {folder}": "only a former report is replaced",
    "audit {tmp}/embeddings_of_one_speaker.csv --out {tmp}/out": "an audit needs at least 2",
    "audit {tmp}/two_speakers.csv --dimensions d0 --judge {tmp}/no_ids.csv --out {tmp}/out": "no id; the table of a judge needs",
    "audit {tmp}/two_speakers.csv --dimensions d0 --judge {tmp}/judge.csv --out {tmp}/out": "no row for 19 of 20 utterances",
    "evaluate {run} --judge {tmp}/judge.csv": "judge.csv: no row for",
    "baseline {tmp}/empty --out {tmp}/out": "is not a prepared corpus",
    "baseline {data} --features mfcc --out {tmp}/out": "'mfcc' is not one of 'prosody', 'functionals', 'egemaps', 'compare'",
    "baseline {data} --out {folder}": "only a former report is replaced",
    "baseline {data} --recipe {tmp}/nothing.toml --out {tmp}/out": "no recipe at",
    "baseline {data} --recipe nmeo --out {tmp}/out": "a name that `siser recipes` lists, such as nemo",
    "baseline {data} --set split.scheme=official --out {tmp}/out": "utterances without a partition: it has no official lists",
    "baseline {data} --set split.scheme=all --out {tmp}/out": "trains on all speakers and tests none",
    "baseline {data} --set split.shceme=loso --out {tmp}/out": "unknown key in [split] 'shceme', did you mean 'scheme'?",
    "baseline {data} --set labels.map=five --out {tmp}/out": "no utterance has any of its labels",
    "trian": "No such command 'trian'",
}


@pytest.mark.parametrize("command, message", CASES.items(), ids=CASES)
def test_a_wrong_request_is_one_line_and_exit_code_2(command, message, paths, capsys):
    before = sorted(paths["tmp"].rglob("*"))
    assert siser([word.format(**paths) for word in command.split()]) == 2
    (error,) = without_warnings(capsys.readouterr().err)
    assert message.replace("{{", "{").replace("}}", "}") in error and error.startswith("error: ")
    assert sorted(paths["tmp"].rglob("*")) == before


def without_warnings(text):
    """Return the lines of a text but for warnings: training speakers are few here."""
    return [line for line in text.splitlines() if not line.startswith("warning: ")]


def train(paths, *more) -> list[str]:
    """Return a command line that trains on the corpus of tones."""
    return ["train", f"{paths['tmp']}/good.toml", "--data", str(paths["data"]), "--device", "cpu", "--jobs", "1", *more]


def test_renamed_keys_of_a_recipe_are_one_warning_line(paths, capsys):
    old = ("--set", "adversary.renew=5", "--set", "augment.mixup_within=0.1")
    assert siser(train(paths, "--preview", str(paths["tmp"] / "old.png"), *old)) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "adversary.renew is now adversary.reset_every" in warning
    assert "augment.mixup_within is now augment.mixup_same_emotion" in warning


def test_a_preview_is_drawn_and_nothing_is_trained(paths, capsys):
    preview = paths["tmp"] / "preview.png"
    before = sorted(paths["tmp"].rglob("*"))
    assert siser(train(paths, "--preview", str(preview), "--set", "augment.concatenate=1")) == 0
    assert str(preview) in capsys.readouterr().out and preview.read_bytes().startswith(b"\x89PNG")
    assert sorted(paths["tmp"].rglob("*")) == sorted([*before, preview])
    preview.write_bytes(b"a picture of somebody")
    assert siser(train(paths, "--preview", str(preview))) == 2 and preview.read_bytes() == b"a picture of somebody"
    assert "preview.png exists already: remove it, or choose another --preview" in capsys.readouterr().err


def test_only_the_first_process_of_torchrun_prints(paths, monkeypatch, capsys):
    """Fabric does not see the ranks here: each process trains alone."""
    original_train = launcher.train
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")

    def train_alone(*arguments, **options):
        monkeypatch.delenv("TORCHELASTIC_RUN_ID")
        run = original_train(*arguments, **options)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        return run

    monkeypatch.setattr(launcher, "train", train_alone)
    printed = {}
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        out = paths["tmp"] / rank
        assert siser(train(paths, "--out", str(out), "--set", "train.epochs=1", "--tensorboard")) == 0
        printed[rank] = capsys.readouterr()
        assert (out / "tensorboard").exists() == (rank == "0")
    assert "fold fixed: epoch 1 kept, dev UAR" in printed["0"].out and printed["1"].out == printed["1"].err == ""


def test_a_baseline_without_its_package_says_how_to_install_it(paths, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    out = paths["tmp"] / "out"
    assert siser(["baseline", str(paths["data"]), "--features", "egemaps", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not out.exists()
    assert 'pip install "speaker-invariant-ser[opensmile]"' in error


def test_a_split_that_the_corpus_does_not_allow_names_it_and_the_options(paths, capsys):
    overrides = ["--set", "split.scheme=leave-one-session-out"]
    assert siser(["baseline", str(paths["data"]), *overrides, "--out", str(paths["tmp"] / "out")]) == 2
    error = capsys.readouterr().err
    assert str(paths["data"]) in error and "choose another split with --recipe or --set split.scheme=..." in error


def test_several_seeds_are_printed_as_mean_and_standard_deviation(paths, capsys):
    out = paths["tmp"] / "out"
    assert siser(train(paths, "--out", str(out), "--set", "train.seeds=3", "--set", "train.epochs=2")) == 0
    best = [best_epoch(spec.metrics()) for spec in Run.open(out).model_specs]
    uars, epochs = [row["dev_uar"] for row in best], ", ".join(f"{row['epoch']:.0f}" for row in best)
    line = f"fold fixed: dev UAR {np.mean(uars):.3f}, SD {np.std(uars, ddof=1):.3f} over 3 seeds, epochs {epochs} kept"
    assert line in capsys.readouterr().out.splitlines()


@pytest.fixture
def seeds(paths):
    """A run of three seeds and three epochs, in which the model of the first seed is trained."""
    run = shutil.copytree(paths["run"], paths["tmp"] / "seeds")
    without_hashes(run)
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("seeds = 1", "seeds = 3"))
    shutil.move(run / "folds" / "fixed", run / "seed-0")
    (run / "folds" / "fixed").mkdir()
    shutil.move(run / "seed-0", run / "folds" / "fixed" / "seed-0")
    return run


def test_epochs_from_before_a_resume_do_not_count_into_the_time_remaining(seeds):
    """Workers report all earlier epochs at once; the bars start after them."""
    begun = seeds / "folds" / "fixed" / ".seed-1.partial"
    begun.mkdir()
    head, *_ = (seeds / "folds" / "fixed" / "seed-0" / "metrics.csv").read_text().splitlines()
    rows = [",".join("1" if column == "best" else str(epoch) for column in head.split(",")) for epoch in range(1, 18)]
    (begun / "metrics.csv").write_text("\n".join([head, *rows]))
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    display, now = progress_of_training(console), 0.0
    display.get_time = lambda: now
    bars = TrainingBars(display, seeds, TrainSection(epochs=30))
    for epoch in range(1, 18):
        bars("fixed, seed 1", {"epoch": epoch, "dev_uar": 0.5})
    assert display.tasks[0].completed == 30 + 17 and display.tasks[0].speed is None
    for epoch in range(18, 21):
        now = 10.0 * (epoch - 17)
        bars("fixed, seed 1", {"epoch": epoch, "dev_uar": 0.5})
    assert display.tasks[1].time_remaining == 10 * 10 and display.tasks[0].time_remaining == 10 * (10 + 30)


def test_training_bars_start_where_training_resumes_and_hide_trained_models(seeds):
    """In 80 columns, no line is wrapped."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with progress_of_training(console) as display:
        bars = TrainingBars(display, seeds, TrainSection(epochs=30))
        assert [(bar.description, bar.total) for bar in display.tasks] == [("starting", None)]
        bars("fixed, seed 1", {"epoch": 17, "dev_uar": 0.5})
        total, first = display.tasks
        trained = best_epoch(Run.open(seeds).model_specs[0].metrics())["dev_uar"]
        assert (total.description, total.total, total.completed) == ("all folds and seeds", 90, 30 + 17)
        assert total.fields == {"count": "1/3 trained", "uar": f"dev UAR {trained:.3f}"}
        assert (first.completed, first.fields["count"], first.fields["uar"]) == (17, "17/30", "dev UAR 0.500")
        shutil.copytree(seeds / "folds" / "fixed" / "seed-0", seeds / "folds" / "fixed" / "seed-1")  # it stops early
        bars("fixed, seed 2", {"epoch": 1, "dev_uar": 0.4})
        assert (total.completed, total.fields["count"], first.visible) == (30 + 30 + 1, "2/3 trained", False)
        second = display.tasks[-1]
        assert second.visible and second.description == "fold fixed, seed 2"
        console.file = io.StringIO()
        display.refresh()
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()).splitlines()
        assert len([line for line in lines if line.strip()]) == 2 and max(map(len, lines)) <= 80, lines
        bars("fixed, seed 2", {"epoch": 30, "dev_uar": 0.4})
        assert total.completed == total.total and not second.visible


def test_training_bars_count_inner_folds(seeds):
    """Two inner folds of 10 epochs, then the final training, which may stop before its tenth epoch."""
    display = progress_of_training(Console(file=io.StringIO(), width=80, force_terminal=True))
    bars = TrainingBars(display, seeds, TrainSection(epochs=10, refit=True, inner_folds=2))
    for row in ({"inner_fold": 1, "epoch": 7}, {"inner_fold": 2, "epoch": 3}, {"epoch": 5}):
        bars("fixed, seed 1", {**row, "dev_uar": 0.25})
        shown = display.tasks[1]
        done = 10 * (row.get("inner_fold", 3) - 1) + row["epoch"]
        assert (shown.completed, shown.total, shown.fields["count"]) == (done, 30, f"{done}/30")
        assert display.tasks[0].completed == 30 + done and display.tasks[0].total == 90
    bars("fixed, seed 2", {"epoch": 1})
    assert display.tasks[-1].fields["uar"] == "" and display.tasks[-1].completed == 21


@pytest.mark.parametrize(
    "table, message",
    [("one_speaker", "1 speaker (01) in the data, at least 4"), ("one_emotion", "1 emotion (level) in the data, at least 2")],
)
def test_too_few_speakers_or_emotions(table, message, paths, capsys):
    tmp = paths["tmp"]
    assert siser(["prepare", "csv", f"{tmp}/{table}.csv", f"{tmp}/few"]) == 0
    assert siser(["train", f"{tmp}/good.toml", "--data", f"{tmp}/few", "--out", f"{tmp}/out"]) == 2
    assert message in capsys.readouterr().err


def test_no_permission_to_write(folder, capsys):
    """Root may write anywhere, so the test becomes an ordinary user meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder_of_all, read_only = Path(name), Path(name) / "read-only"
        folder_of_all.chmod(0o755)
        shutil.copy(folder / "01_level_a.wav", folder_of_all)
        (folder_of_all / "t.csv").write_text("path,speaker,emotion\n01_level_a.wav,1,sad\n")
        read_only.mkdir(mode=0o555)
        arguments = ["prepare", "csv", str(folder_of_all / "t.csv")]
        assert siser([*arguments, str(folder_of_all / "first")]) == 0  # imports everything while it can be read
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            assert siser([*arguments, str(read_only / "data")]) == 2
        finally:
            if root:
                os.seteuid(0)
        assert "no permission to write here" in capsys.readouterr().err
        assert not list(read_only.iterdir())


def test_no_space_left(paths, folder, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    for jobs, least in ((1, 4), (2, 25)):  # MB of the scratch file: one slot in this process, six with workers
        assert siser(["prepare", "csv", f"{folder}/corpus.csv", f"{paths['tmp']}/out", "--jobs", str(jobs)]) == 2
        error = capsys.readouterr().err
        needed = re.search(r"([\d.]+) MB needed, 0.0 MB free; free some space", error)
        assert needed and least < float(needed[1]) < least + 4, error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_disk_that_fills_up_while_predictions_are_written(paths, folder, tmp_path, monkeypatch, capsys):
    """The temporary file is a device that is always full, so that the operating system raises the error."""

    def open_full(path, mode, **options):
        return open("/dev/full" if path == files.partial_of(tmp_path / "p.csv") else path, mode.replace("x", "w"), **options)

    monkeypatch.setattr(files, "open", open_full, raising=False)
    inputs = [f"{folder}/*.wav"]
    assert siser(["infer", str(paths["run"]), *inputs, "--out", str(tmp_path / "p.csv"), "--device", "cpu"]) == 2
    assert "no space left on the disk" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_a_report_is_written_though_nobody_reads_what_is_printed(monkeypatch):
    """As with `siser evaluate RUN | head`: what took hours is not lost with the reader."""
    module = "speaker_invariant_ser."
    read_embeddings, audit = import_module(f"{module}audit.inputs.read_embeddings"), import_module(f"{module}audit.audit")
    written = []

    def unread(*_):
        raise BrokenPipeError

    def write(report, out, **_):
        written.append((report, str(out)))

    monkeypatch.setattr(cli_app, "discard_output", lambda: None)
    for name in ("write_run_report", "write_report", "write_unaudited_baseline"):
        monkeypatch.setattr(f"{module}report.write.{name}", write)
    monkeypatch.setattr(f"{module}cli.evaluate.opened", lambda _: SimpleNamespace(open_data=lambda _: None))
    evaluated = SimpleNamespace(report="of a run")
    monkeypatch.setattr(f"{module}evaluation.evaluate.evaluate", lambda *_: evaluated)
    monkeypatch.setattr(f"{module}cli.evaluate.show_evaluation", unread)
    assert siser(["evaluate", "run"]) == 1 and written.pop() == (evaluated, "run")

    embeddings = SimpleNamespace(id=["a"], speaker=["s"])
    monkeypatch.setattr(read_embeddings, "read_embeddings", lambda *_: (embeddings, ["x"], []))
    monkeypatch.setattr(audit, "audit_table", lambda *_: SimpleNamespace(summary={}, sample=None))
    monkeypatch.setattr(audit, "table_summary", lambda *_: {})
    monkeypatch.setattr(f"{module}evaluation.summary.TableReport.model_validate", lambda _: "of a table")
    monkeypatch.setattr(f"{module}report.embedding_map.map_points", lambda _: None)
    monkeypatch.setattr(f"{module}cli.audit.show_answers", unread)
    assert siser(["audit", "t.npz", "--out", "audited"]) == 1 and written.pop() == ("of a table", "audited")

    monkeypatch.setattr(f"{module}data.prepared_corpus.PreparedCorpus.open", lambda _: None)
    sections = SimpleNamespace(audit=SimpleNamespace(folds=2, seed=0))
    monkeypatch.setattr(f"{module}cli.baseline.settings_of", lambda *_: sections)
    monkeypatch.setattr(f"{module}evaluation.baseline.measure_baseline", lambda *_: "of features")
    monkeypatch.setattr(f"{module}cli.baseline.show_baseline", unread)
    assert siser(["baseline", "data", "--out", "measured"]) == 1 and written.pop() == ("of features", "measured")

    def unaudited(*_):
        raise UnauditedBaselineError("of emotion")

    monkeypatch.setattr(f"{module}evaluation.baseline.measure_baseline", unaudited)
    monkeypatch.setattr(f"{module}cli.baseline.show_unaudited_baseline", unread)
    assert siser(["baseline", "data", "--out", "measured"]) == 1 and written.pop() == ("of emotion", "measured")


def test_a_cuda_torchaudio_with_a_cpu_torch(paths, tmp_path):
    broken = tmp_path / "site" / "torchaudio"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file')")
    command = ["train", f"{paths['tmp']}/good.toml", "--data", str(paths["data"]), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    completed = subprocess.run(
        [sys.executable, "-m", "speaker_invariant_ser.cli", *command], capture_output=True, text=True, env=environment
    )
    (error,) = without_warnings(completed.stderr)
    assert completed.returncode == 2
    assert error.startswith("error: torchaudio does not fit torch") and "libc10_cuda.so" in error


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from speaker_invariant_ser.cli.app import run; assert run(['--help']) == 0;"
        "heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'pyarrow', 'pydantic', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    assert all(verb in completed.stdout for verb in ("demo", "corpora", "prepare", "train", "evaluate", "infer"))


def options_by_command() -> dict[str, list]:
    """Return the arguments and options of each command."""
    return {name: command.params for name, command in typer.main.get_command(app).commands.items()}


def test_every_argument_and_option_is_documented():
    undocumented = [
        f"{name} {option.name}" for name, options in options_by_command().items() for option in options if not option.help
    ]
    assert not undocumented


def test_options_of_one_name_have_one_type_and_default_on_all_commands():
    """Except --out; --seed and --jobs of `train`, from the recipe and from memory; --channel, of which `infer` has one more.

    `audit` rounds to --significant-bits unless another number is given, and `embed` only where one is given.
    """
    meanings = {}
    for options in options_by_command().values():
        for option in options:
            meanings.setdefault(option.opts[0], set()).add((str(option.type_descriptor.annotation), str(option.default)))
    different = {name for name, variants in meanings.items() if len(variants) > 1}
    assert different == {"--channel", "--jobs", "--out", "--seed", "--significant-bits"}


def test_recipes_are_listed_with_the_first_sentence_of_their_comment(capsys):
    assert siser(["recipes"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert listed["methods/hsic"].startswith("HSIC: the Hilbert-Schmidt independence criterion of embedding and speaker")
    assert listed["default"].startswith("The default of `siser train`") and listed["digits"] and "study-arms" not in listed
    assert all(line.endswith((".", "?")) for line in listed.values())
    assert siser(["recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed


def test_train_without_a_recipe_says_which_one_it_takes(prepared_f0, paths, capsys):
    command = ["train", "--data", str(prepared_f0.folder), "--out", f"{paths['tmp']}/out", "--device", "cpu"]
    short = ["--set", "train.epochs=1", "--set", "split.scheme=fixed", "--set", 'split.test=["05", "06"]']
    assert siser([*command, *short]) == 0
    line, *_ = capsys.readouterr().out.splitlines()
    assert line == "recipe: default, since none is named; `siser recipes` lists others"
    run = Run.open(paths["tmp"] / "out")
    assert run.recipe.encoder.name == "fusion" and run.recipe.train.refit and run.splits[0].dev == ()
    assert siser(["train", "default", *command[1:4], f"{paths['tmp']}/again", *command[5:], *short]) == 0
    assert "since none is named" not in capsys.readouterr().out
    assert_same_bits(run, Run.open(paths["tmp"] / "again"))


def test_corpora_are_listed(capsys):
    assert siser(["corpora"]) == 0
    output = capsys.readouterr().out
    assert "emodb" in output and "licence" in output and "535" in output


def test_a_damaged_model_is_named(paths, tmp_path, capsys):
    shutil.copytree(paths["run"], tmp_path / "run")
    weights = tmp_path / "run" / "folds" / "fixed" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert siser(["evaluate", str(tmp_path / "run")]) == 2
    assert "model.safetensors is damaged" in capsys.readouterr().err


def test_the_demo_runs_and_replaces_a_former_demo(tmp_path, monkeypatch, capsys):
    """With fewer sentences, emotions, epochs and attackers than `make demo`."""
    monkeypatch.setattr(synthesis, "SENTENCES", synthesis.SENTENCES[:2])
    monkeypatch.setattr(synthesis, "EMOTIONS", {name: EMOTIONS[name] for name in ("sad", "angry")})
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "evaluate", partial(demo.evaluate, quick=True, with_baseline=False))
    (tmp_path / "demo" / "baseline" / "old").mkdir(parents=True)
    (tmp_path / "demo" / MARK).touch()
    assert siser(["demo", "--out", str(tmp_path / "demo"), "--device", "cpu", "--jobs", "1"]) == 0
    assert not (tmp_path / "demo" / "baseline" / "old").exists()
    output = capsys.readouterr().out
    assert "simulated" in output and "not evidence" in output and "s12_angry_t00.wav" in output
    assert "9.1 %" in output and "7.7 %" in output, "chance of 11 and of 13 training speakers"
    runs = [Run.open(tmp_path / "demo" / name) for name in ("baseline", "adversarial", "default", "private")]
    assert [run.recipe.encoder.name for run in runs] == ["cnn", "cnn", "fusion", "fusion"]
    assert [run.recipe.adversary.strength for run in runs] == [0, 1, 0.3, 0.3]
    assert [len(run.splits[0].train) for run in runs] == [11, 11, 13, 13]
    assert len({run.splits[0].test for run in runs}) == 1 and all(run.recipe.train.epochs == 1 for run in runs)
    assert len(list((tmp_path / "demo" / "corpus").glob("*.wav"))) == len(SPEAKERS) * 4
    report = (tmp_path / "demo" / "report" / "report.md").read_text()
    assert "claim nothing about human speech" in report and "tradeoff.png" in report
