"""A run is also scored on telephone copies of its test utterances."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.conditions.telephone import telephone
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.model_outputs import predict_by_telephone
from speaker_invariant_ser.metrics import uar
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.training.launcher import train


def test_the_uar_by_telephone_is_that_of_telephone_copies(trained, prepared, tmp_path, capsys):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    command = ["evaluate", str(run), "--device", "cpu", "--quick", "--no-baseline", "--quiet", "--jobs", "1"]
    assert siser([*command, "--telephone"]) == 0
    assert "emotion UAR by telephone, pooled" in capsys.readouterr().out
    emotion = json.loads((run / "report" / "report.json").read_text())["emotion"]
    model = load_model(trained.model_specs[0].folder)
    tested = trained.splits[0].indices("test", prepared.utterances)
    output = apply_to_clips(model, [telephone(prepared.clip(index)) for index in tested])
    truth = np.array([model.labels.index(prepared.utterances[index].emotion) for index in tested])
    assert emotion["by_telephone"]["value"] == pytest.approx(uar(truth, output.probability.argmax(axis=1), 3))
    assert "UAR by telephone (300 to 3400 Hz, mu-law), pooled" in (run / "report" / "report.md").read_text()
    assert siser(command) == 0 and "UAR by telephone" not in capsys.readouterr().out
    assert json.loads((run / "report" / "report.json").read_text())["emotion"].get("by_telephone") is None


def test_a_run_that_subtracts_speaker_means_is_not_scored_by_telephone(trained, prepared):
    recipe = make_recipe({**TINY, "features": {**TINY["features"], "normalise": "speaker"}})
    with pytest.raises(RunError, match="normalise = speaker: not measured by telephone; expected utterance or corpus"):
        predict_by_telephone(replace(trained, recipe=recipe), prepared, "cpu", lambda *_: None)


def test_a_training_hears_the_telephone(prepared, tmp_path):
    """The share alone decides: with 0 the weights are those of a recipe without the key, with 1 they are others."""
    first = {"train": {**TINY["train"], "epochs": 1}}
    weights = []
    for share in (0.0, 1.0):
        recipe = make_recipe({**TINY, **first, "augment": {**TINY["augment"], "telephone": share}})
        run = train(recipe, prepared, tmp_path / str(share), device="cpu")
        weights.append(load_model(run.model_specs[0].folder).state_dict())
    plain = train(make_recipe({**TINY, **first}), prepared, tmp_path / "plain", device="cpu")
    expected = load_model(plain.model_specs[0].folder).state_dict()
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in expected.items())
    assert not torch.equal(weights[1]["head.0.weight"], expected["head.0.weight"])
