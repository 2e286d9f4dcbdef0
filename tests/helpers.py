"""Synthetic data, small models and comparisons that tests of several packages share."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.evaluation.predictions import Predictions
from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.models.model import ModelSettings, SerModel
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import CnnSettings, EmotionSection
from speaker_invariant_ser.runs import ModelSpec, Run
from speaker_invariant_ser.training import trainer
from speaker_invariant_ser.training.launcher import train


def section(table, /, **keys):
    """Settings of a section of a recipe, such as `section("release", name="noise")`."""
    return getattr(make_recipe({table: keys}), table)


LABELS = ("anger", "joy", "no, thanks")
SPEAKERS = ("01", "1", "NA", "x,y")


def unbalanced_dataset(number=300, seed=0):
    """Return a dataset of 5 speakers and 4 emotions without log-mels: cells of very different size, one of them empty."""
    rng = np.random.default_rng(seed)
    speaker, emotion = rng.choice(5, number, p=[0.6, 0.2, 0.1, 0.05, 0.05]), rng.choice(4, number, p=[0.7, 0.1, 0.1, 0.1])
    keep = ~((speaker == 0) & (emotion == 3))
    frames = rng.integers(50, 600, number)
    return LogMelDataset(None, frames[keep], emotion[keep], (speaker[keep],), speaker[keep])


def synthetic_predictions(seed=0, clips=80, fold="a", temperature=1.0, trained_from=0) -> Predictions:
    """Return predictions whose probabilities are calibrated at temperature 1 and overconfident below."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.ones(3), clips)
    return Predictions(
        labels=LABELS,
        id=np.array([f"{fold}{clip:05}" for clip in range(clips)]),
        speaker=np.array(SPEAKERS)[np.arange(clips) % len(SPEAKERS)],
        fold=np.full(clips, fold),
        seed=np.full(clips, trained_from),
        truth=(rng.random((clips, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=2),
        probability=apply_temperature(true, temperature).astype(np.float32),
    )


def assert_same_bits(first: Run, second: Run) -> None:
    """Assert that two runs have the same weights and the same metrics.csv, except for times."""
    for spec, other in zip(first.model_specs, second.model_specs, strict=True):
        weights, expected = (load_file(folder / "model.safetensors") for folder in (spec.folder, other.folder))
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
        assert without_times(spec) == without_times(other)


def interrupt_training(monkeypatch, steps: int, recipe, prepared, out: Path) -> None:
    """Train until the process is interrupted after a number of steps, with a checkpoint after each of them."""
    done, training_step = [], trainer.Trainer.training_step

    def stopping(self, *batch):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(training_step(self, *batch))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(trainer.Trainer, "training_step", stopping)
        train(recipe, prepared, out, device="cpu")


def without_times(spec: ModelSpec) -> list[dict[str, float]]:
    """Return the rows of metrics.csv without columns of times."""
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in spec.metrics()]


def occurrences(folder: Path, pattern: str) -> list[str]:
    """Return the files below a folder whose name or content matches a pattern."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    found = [path for path in files if re.search(pattern.encode(), path.read_bytes()) or re.search(pattern, path.name)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def without_hashes(run: Path) -> None:
    """Change a run's folder to what versions before 0.4.0 wrote."""
    for path in (run / "folds").rglob("model.json"):
        described = json.loads(path.read_text())
        del described["sha256"]
        path.write_text(json.dumps(described))
    record = json.loads((run / "split.json").read_text())
    del record["bound"]
    (run / "split.json").write_text(json.dumps(record))


def model_of(**sections):
    """Return a small untrained model, in evaluation mode, with these sections."""
    torch.manual_seed(0)
    small = {"features": FeaturesSection(mels=24), "encoder": CnnSettings(channels=(4,), dim=12), "emotion": EmotionSection()}
    return SerModel(ModelSettings(labels=("a", "b", "c"), sample_rate=16_000, **{**small, **sections})).eval()


def fake_hub(monkeypatch, download, sizes=None):
    """Let a function take the place of huggingface_hub's download, from a repository of files of these sizes, in bytes."""
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in (sizes or {}).items()]
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
