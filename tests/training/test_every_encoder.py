"""Every architecture from checkpoint to audit: trained, killed, resumed to the same bits, evaluated, used, embedded, audited.

`make test` runs a seeded sample, one architecture for each value of `encoder.train`; with SISER_ALL_ENCODERS set, all run.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from checkpoints import ARCHITECTURES
from conftest import TINY, prepare_table
from helpers import assert_same_bits, interrupt_training
from safetensors.torch import load_file

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, read_recipe, shipped_recipes, write_toml
from speaker_invariant_ser.evaluation.predictions import read_predictions
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.training.launcher import train

MODES = ("frozen", "top 1", "lora")
SAMPLE = [*zip(Random(0).sample(list(ARCHITECTURES), len(MODES)), MODES, strict=True)]
EVERY = pytest.mark.skipif("SISER_ALL_ENCODERS" not in os.environ, reason="takes minutes: set SISER_ALL_ENCODERS")
STEPS = 3  # of four, so that the second of two epochs is interrupted


def cases() -> list:
    """Return every architecture with every mode; those outside the sample are skipped unless all are asked for."""
    pairs = [(name, mode) for mode in MODES for name in ARCHITECTURES]
    return [pytest.param(*pair, marks=() if pair in SAMPLE else EVERY) for pair in pairs]


@pytest.fixture(scope="module")
def corpus(folder, tmp_path_factory):
    """The prepared tones of two texts."""
    path = tmp_path_factory.mktemp("texts") / "data"
    return prepare_table(folder / "corpus.csv", path, lambda rows: tuple(row for row in rows if row.text in ("a", "b")))


def small(source: Path, mode: str):
    """The shipped recipe with a very small head and two steps in each of two epochs."""
    tables = read_recipe(shipped_recipes()["pretrained"]).model_dump(exclude_unset=True)
    tables["encoder"] |= {"source": str(source), "dim": 4, "train": mode, "lora_rank": 1}
    train = {"epochs": 2, "batch_size": 6}
    return make_recipe(tables | {"split": TINY["split"], "emotion": {"hidden": 4}, "audit": {"folds": 2}, "train": train})


@pytest.mark.parametrize("name, mode", cases())
def test_an_encoder_is_trained_killed_resumed_and_used(name, mode, checkpoint, corpus, folder, tmp_path, monkeypatch, capsys):
    recipe = small(checkpoint(name), mode)
    whole = train(recipe, corpus, tmp_path / "whole", device="cpu")
    if (name, mode) == SAMPLE[-1]:
        kill_training(recipe, corpus, tmp_path / "run")
    else:
        interrupt_training(monkeypatch, STEPS, recipe, corpus, tmp_path / "run")
    assert_same_bits(whole, train(recipe, corpus, tmp_path / "run", resume=True, device="cpu"))
    names = load_file(whole.model_specs[0].folder / "model.safetensors")
    trained = {name.split(".")[2] for name in names if name.startswith("encoder.trained.")}
    assert {"frozen": not trained, "top 1": trained == {"0"}, "lora": trained and all("-lora_" in part for part in trained)}[mode]
    if mode == "frozen":
        require_agreement(checkpoint(name), corpus.folder, folder, tmp_path, capsys)


KILLED = """
import os, signal, sys
from speaker_invariant_ser.cli.app import run
from speaker_invariant_ser.training import trainer

step, done = trainer.Trainer.training_step, []

def killed(self, *batch):
    if len(done) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(step(self, *batch))

trainer.CHECKPOINT_SECONDS, trainer.Trainer.training_step = 0.0, killed
run(sys.argv[2:])
"""


def kill_training(recipe, corpus, out: Path) -> None:
    """Train in a process of its own that ends by `kill -9`, with a checkpoint after each step."""
    file = out.with_suffix(".toml")
    file.write_text(write_toml(recipe))
    words = [STEPS, "train", file, "--data", corpus.folder, "--out", out, "--device", "cpu", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], env=environment, capture_output=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr


def require_agreement(source: Path, data: Path, recordings: Path, folder: Path, capsys) -> None:
    """Evaluate, infer, embed and audit the run in a folder by the command line; what they say of one utterance is the same."""
    run = folder / "run"
    assert siser(f"evaluate {run} --data {data} --quick --no-baseline --jobs 1 --device cpu --quiet".split()) == 0
    report, predictions = json.loads((run / "report" / "report.json").read_text()), read_predictions(run / "predictions.csv")
    assert report["emotion"]["utterances"] == len(predictions.id) == 12 and report["speaker"]["speakers"] == 3
    temperatures = report["emotion"]["calibration"]["temperatures"]
    calibrated = apply_temperature(predictions.probability, temperatures["fixed"])
    expected = dict(zip(predictions.id, calibrated, strict=True))
    capsys.readouterr()
    assert siser(f"infer {run} {recordings}/05_*_a.wav --device cpu --quiet --out {folder}/p.jsonl".split()) == 0
    rows = [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        probability = [row[f"p_{label}"] for label in predictions.labels]
        assert probability == pytest.approx(expected[Path(row["file"]).name].tolist(), abs=1e-4)
    assert siser(f"embed {source} {data} --out {folder}/encoder.npz --layer all --quiet".split()) == 0
    with np.load(folder / "encoder.npz") as file:
        layers = [file[f"layer_{layer}"] for layer in range(3)]
        assert np.array_equal(layers[2], file["embedding"]) and all(values.shape == (36, 16) for values in layers)
        assert not np.allclose(layers[0], layers[2])
    assert siser(f"embed {run} {data} --out {folder}/run.npz --quiet".split()) == 0
    with np.load(folder / "run.npz") as file:
        predicted, scored = dict(zip(file["id"], file["predicted"], strict=True)), file["scored"].sum()
    choices = {clip: predictions.labels[row.argmax()] for clip, row in expected.items()}
    assert {clip: predicted[clip] for clip in choices} == choices
    capsys.readouterr()
    assert siser(f"audit {folder}/run.npz --quick --jobs 1 --json --quiet".split()) == 0
    audited = json.loads(capsys.readouterr().out)
    assert audited["speakers"] == 6 and 0 < audited["decisions"] <= scored == 21, "those equal to another are taken once"
    assert any("15 of 36 rows have scored = 0" in note for note in audited["notes"])
