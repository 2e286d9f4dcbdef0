"""Training on a pre-trained encoder: for every architecture from a checkpoint to predictions, with resumption."""

from pathlib import Path

import pytest
from checkpoints import ARCHITECTURES
from conftest import TINY

from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.features.pretrained import front
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.predict import predict
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.training.launcher import train

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pretrained.toml"


def small(source: Path, **sections):
    """The shipped recipe with a small head, a split for the tones and few epochs."""
    tables = read_recipe(RECIPE).model_dump(exclude_unset=True)
    tables["encoder"] |= {"source": str(source), "dim": 8}
    tables |= {"split": TINY["split"], "emotion": TINY["emotion"], "train": {"epochs": 2, "batch_size": 10}}
    for name, keys in sections.items():
        tables[name] = {**tables.get(name, {}), **keys}
    return make_recipe(tables)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_frozen_encoder_is_trained_on_evaluated_and_used(name, checkpoint, prepared, folder, tmp_path):
    run = train(small(checkpoint(name)), prepared, tmp_path / "run", device="cpu")
    evaluation = evaluate(run, prepared, device="cpu", quick=True)
    assert evaluation.report.speaker.speakers == 3
    front.source_of.cache_clear()  # so that the layers below are computed, and not from the corpus's cache
    stored = dict(zip(evaluation.predictions.id, evaluation.predictions.probability, strict=True))
    rows = list(predict(load_models(run, device="cpu"), find_inputs([folder / "05_*.wav"])))
    assert len(rows) == 12 and not any(row["error"] for row in rows)
    for row in rows:
        probability = [row[f"p_{label}"] for label in evaluation.predictions.labels]
        expected = apply_temperature(stored[Path(row["file"]).name][None], evaluation.predictions.temperatures["fixed"])[0]
        assert probability == pytest.approx(expected.tolist(), abs=1e-4)
