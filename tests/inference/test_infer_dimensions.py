"""Arousal, valence and dominance of a model that predicts them, in tables and in Python; `test_onnx` has those of ONNX files."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch
from conftest import RATE, tone
from helpers import model_of

from speaker_invariant_ser.api.models import load_model as load_classifier
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.inference.predict import mean_outputs, outputs, targets_of
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import load_model, save_model
from speaker_invariant_ser.recipe_encoders import EmotionSection

TARGETS = ("arousal", "dominance")


def save_with_targets(folder, targets=TARGETS, gain=1.0):
    """Save an untrained model whose predictions of dimensions differ between recordings."""
    model = model_of(emotion=EmotionSection(targets=targets))
    if targets:
        with torch.no_grad():
            model.regressor[-1].weight.mul_(gain)
    folder.mkdir()
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_with_targets(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def clips():
    return [tone("01", "rising", "a").astype(np.float32)[:6400], tone("02", "falling", "b").astype(np.float32)[:6400]]


@pytest.fixture(scope="module")
def recordings(clips, tmp_path_factory):
    """Noise of one kind, then of two kinds one after the other, and a file without audio."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, clip in enumerate((clips[0], np.concatenate(clips))):
        soundfile.write(folder / f"{number}.wav", clip, RATE, subtype="FLOAT")
    (folder / "2.wav").write_bytes(b"no audio")
    return [str(folder / f"{number}.wav") for number in range(3)]


def test_tables_have_the_dimensions_after_all_other_columns(folder, recordings, tmp_path):
    tables = {}
    for ending in ("csv", "jsonl", "parquet"):
        table = tmp_path / f"table.{ending}"
        assert siser(["infer", str(folder), *recordings, "--window", "0.5", "--hop", "0.4", "--out", str(table)]) == 1
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        tables["csv"] = list(csv.DictReader(file))
    tables["jsonl"] = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    tables["parquet"] = pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pylist()
    model = load_classifier(folder)
    for rows in tables.values():
        assert list(rows[0])[-3:] == ["calibrated", *TARGETS]
        of_files = [row for row in rows if row["level"] == "file"]
        expected = model.predict_file(recordings[0])
        assert [float(of_files[0][name]) for name in TARGETS] == pytest.approx(
            [expected.dimensions[name] for name in TARGETS], abs=1e-5
        )
        assert of_files[2]["error"] and not any(of_files[2][name] for name in TARGETS)
        windows = [row for row in rows if row["file"] == recordings[1] and row["level"] == "window"]
        timeline = model.timeline(recordings[1], window=0.5, hop=0.4)
        assert len(windows) == len(timeline) == 2
        for row, window in zip(windows, timeline, strict=True):
            assert [float(row[name]) for name in TARGETS] == pytest.approx([*window.dimensions.values()], abs=1e-5)


def test_a_model_without_targets_has_no_such_columns(recordings, tmp_path):
    folder = save_with_targets(tmp_path / "plain", targets=())
    assert siser(["infer", str(folder), recordings[0], "--out", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_text().splitlines()[0].endswith(",model,calibrated")
    assert load_classifier(folder).predict_file(recordings[0]).dimensions == {}


def test_dimensions_are_averaged_over_models_and_windows(folder, clips, tmp_path):
    models = [load_model(folder), load_model(save_with_targets(tmp_path / "other", gain=-2.0))]
    each = [apply_to_clips(model, clips).dimensions for model in models]
    assert outputs(models, clips).dimensions == pytest.approx(np.mean(each, axis=0)) and not np.allclose(*each)
    long = np.tile(clips[0], 80)  # 32 s, two windows
    halves = np.split(long, 2)
    assert mean_outputs(models[:1], [long])[1][0] == pytest.approx(
        apply_to_clips(models[0], halves).dimensions.mean(axis=0), abs=1e-5
    )
    mixed = [models[0], load_model(save_with_targets(tmp_path / "third", targets=("valence",)))]
    assert targets_of(mixed) == () and outputs(mixed, clips).dimensions is None
