"""The model that comes with the package answers without anything else, and with the numbers it was made with."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import RATE, tone

import speaker_invariant_ser as siser
from speaker_invariant_ser.cli.app import run as command
from speaker_invariant_ser.inference.defaults import DEFAULT_MODEL
from speaker_invariant_ser.inference.exported import shipped_models

FIVE = ["angry", "fearful", "happy", "neutral", "sad"]
EXPECTED = [[0.0125, 0.9178, 0.0183, 0.0125, 0.0389], [0.0048, 0.8009, 0.0034, 0.0854, 0.1054]]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two synthetic recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, (speaker, emotion) in enumerate((("01", "rising"), ("05", "falling"))):
        clip = np.concatenate([tone(speaker, emotion, text) for text in "abcd"])
        soundfile.write(folder / f"{number}.wav", clip, RATE)
    return folder


def test_the_model_has_the_numbers_it_was_made_with(recordings):
    rows = siser.predict(DEFAULT_MODEL, [recordings], device="cpu")
    found = [[row[f"p_{label}"] for label in FIVE] for row in rows]
    np.testing.assert_allclose(found, EXPECTED, atol=2e-3)
    assert all(row["calibrated"] for row in rows)


def test_infer_needs_no_model(recordings, capsys):
    assert command(["infer", str(recordings), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "0.wav" in shown and "2 of 2 files" in shown and f"model: {DEFAULT_MODEL}" in shown
    assert command(["infer", "--model", DEFAULT_MODEL, str(recordings / "1.wav"), "--device", "cpu"]) == 0
    assert "1 of 1 file" in capsys.readouterr().out


def test_models_are_listed(capsys):
    assert command(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(shipped_models()) and listed[DEFAULT_MODEL]["emotions"] == ", ".join(FIVE)
    assert command(["models"]) == 0 and capsys.readouterr().out.startswith(f"{DEFAULT_MODEL}\n")


def test_the_package_stays_small_and_the_card_says_what_the_model_is_good_for():
    folder = shipped_models()[DEFAULT_MODEL]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlicense: "cc0-1.0"\n')
    for part in ("UAR of the worst speaker", "strongest attacker", "EMO-DB", "Not to be used", "nobody is left to test it"):
        assert part in card


def test_one_recording_is_predicted_without_libraries_that_are_slow_to_import(recordings):
    slow = ["pyarrow", "onnxruntime", "scipy", "librosa", "sklearn", "matplotlib", "speaker_invariant_ser.evaluation.summary"]
    code = f"""import sys
from speaker_invariant_ser.cli.app import run
print(run(["infer", {str(recordings / "0.wav")!r}, "--device", "cpu"]), "torch" in sys.modules, {{*{slow}}} & {{*sys.modules}})"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 True set()"
