"""Training on a pre-trained encoder, frozen or not: from a checkpoint to predictions, with resumption to the same bits."""

import json
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES
from conftest import TINY
from helpers import fake_hub, occurrences

from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.errors import RecipeError, RunError, SetupError
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.features.pretrained import front
from speaker_invariant_ser.features.pretrained.checkpoint import downloaded
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.onnx.export import export_onnx
from speaker_invariant_ser.inference.predict import predict
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.binding import digest
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.report.export import export_run
from speaker_invariant_ser.report.sections.training import curve_plots
from speaker_invariant_ser.studies.measure import why_other_run
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.objective import build_model

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pretrained.toml"


def small(source: Path, epochs: int = 1, **encoder):
    """The shipped recipe with a small head, a split for the tones and few epochs."""
    tables = read_recipe(RECIPE).model_dump(exclude_unset=True)
    tables["encoder"] |= {"source": str(source), "dim": 8, **encoder}
    return make_recipe(
        tables | {"split": TINY["split"], "emotion": TINY["emotion"], "train": {"epochs": epochs, "batch_size": 10}}
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_frozen_encoder_is_trained_on_and_used(name, checkpoint, prepared, folder, tmp_path):
    run = train(small(checkpoint(name)), prepared, tmp_path / "run", device="cpu")
    model = load_model(run.model_specs[0].folder)
    assert model.settings.encoder.source == str(checkpoint(name)) and len(model.settings.encoder.sha256) == 64
    assert (model.encoder.layer_weights != 0).any() and model.encoder.layer_weights.shape == (3,)
    assert not any("trained" in key for key in model.state_dict()), "weights of the checkpoint are not copied"
    clips = [prepared.clip(index) for index in (0, 30, 71)]
    cached = apply_to_clips(model, clips).embedding
    front.source_of.cache_clear()  # so that layers are computed from here on
    computed = load_model(run.model_specs[0].folder)
    for clip, embedding in zip(clips, cached, strict=True):
        assert np.abs(apply_to_clips(computed, [clip]).embedding[0] - embedding).max() < 1e-4, "alone, in a batch, from the cache"
    rows = list(predict(load_models(run, device="cpu"), find_inputs([folder / "05_*.wav"])))
    assert len(rows) == 12 and not any(row["error"] for row in rows)


def test_a_run_is_evaluated_from_the_cache(checkpoint, prepared, tmp_path, monkeypatch):
    run = train(small(checkpoint("wavlm")), prepared, tmp_path / "run", device="cpu")
    front.source_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(front, "Backbone", None)  # nothing is computed
        prepared = run.open_data(prepared.folder)
        evaluation = evaluate(run, prepared, device="cpu", quick=True)
    assert evaluation.report.speaker.speakers == 3
    (row,) = evaluation.curves["fixed"]
    weights = [row[f"layer_{layer}"] for layer in range(3)]
    assert sum(weights) == pytest.approx(1, abs=1e-6) and len(set(weights)) == 3
    plots = {plot.name: plot for plot in curve_plots(evaluation.curves, "dev speakers")}
    assert plots["layers"].draw.keywords["weights"] == {"fixed": weights} and plots["layers"].draw.keywords["layers"] == [0, 1, 2]
    with pytest.raises(RunError, match="cannot be exported to ONNX: its encoder is a pre-trained checkpoint"):
        export_onnx(run.model_specs[0].folder, tmp_path / "model.onnx")


@pytest.mark.parametrize("mode, changed", [("top 1", 16), ("lora", 8), ("all", 50)])
def test_what_is_trained_learns_at_its_own_rate_and_padding_changes_nothing(mode, changed, checkpoint):
    recipe = small(checkpoint("wav2vec2"), train=mode, lora_rank=2, learning_rate=3e-5)
    torch.manual_seed(0)
    model = build_model(recipe, ("a", "b"))
    (group,) = model.fine_tuned()
    assert group["lr"] == 3e-5 and sum(parameter.requires_grad for parameter in group["params"]) == changed
    audio, samples = 0.1 * torch.randn(3, 9000), torch.tensor([3000, 9000, 3000])
    audio *= torch.arange(9000) < samples[:, None]
    model(audio, samples).logits.square().sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in group["params"])
    model.eval()
    with torch.no_grad():
        together = model(audio, samples).embedding
        assert (model(audio[2:, :3000], samples[2:]).embedding[0] - together[2]).abs().max() < 1e-4
        other = deepcopy(model)
        for parameter in other.fine_tuned()[0]["params"]:
            parameter += 0.5
        assert not torch.equal(other(audio, samples).embedding, together), "a copy has a network of its own"
        assert torch.equal(model(audio, samples).embedding, together)
        again = build_model(recipe, ("a", "b")).eval()
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(audio, samples).embedding, together)


REFUSED = {
    "encoder.train = top 3: .* has 2 transformer layers": {"train": "top 3"},
    r"encoder.train = top 1 with encoder.layers = \[0, 1\]: these layers come before what is trained": {
        "train": "top 1",
        "layers": (0, 1),
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_trained_is_refused(message, checkpoint):
    with pytest.raises(RecipeError, match=message):
        build_model(small(checkpoint("wavlm"), **REFUSED[message]), ("a", "b"))


def test_without_peft_the_extra_is_named(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SetupError, match=r'encoder.train = lora needs peft: pip install "speaker-invariant-ser\[pretrained\]"'):
        build_model(small(checkpoint("wavlm"), train="lora"), ("a", "b"))


def test_a_model_has_the_name_of_its_checkpoint_and_no_path(checkpoint, prepared, tmp_path, monkeypatch):
    run = train(small(checkpoint("wavlm")), prepared, tmp_path / "run", device="cpu")
    place, (spec,) = str(checkpoint("wavlm").parent), run.model_specs
    assert "recipe.toml" in occurrences(run.folder, place) and occurrences(spec.folder, place) == []
    assert occurrences(prepared.folder / "pretrained", place) == []
    path = spec.folder / "model.json"
    described = json.loads(path.read_text())  # as version 0.6.0 wrote it
    described["encoder"]["source"] = str(checkpoint("wavlm"))
    described["sha256"]["model"]["encoder"] = digest(described["encoder"])
    path.write_text(json.dumps(described))
    assert export_run(run, tmp_path / "export", "mit") == 1 and occurrences(tmp_path / "export", place) == []
    model, card = tmp_path / "export" / "models" / "1", (tmp_path / "export" / "README.md").read_text()
    for part in (
        "| encoder | wavlm, pre-trained |",
        "| trained of the encoder | nothing |",
        "| licence of the encoder | not stated |",
    ):
        assert part in card
    assert "random weights" not in card and "base_model" not in card and place not in card
    with pytest.raises(RunError, match="encoder.source = wavlm: no such folder"):
        load_model(model)
    monkeypatch.setenv("SISER_ENCODERS", place)
    clips = [prepared.clip(3)]
    expected = apply_to_clips(load_model(spec.folder), clips).embedding
    assert (apply_to_clips(load_model(model), clips).embedding == expected).all()


def test_a_run_is_resumed_with_its_own_checkpoint_and_no_other(checkpoint, prepared, tmp_path, monkeypatch):
    latest = ["wavlm"]
    downloaded.cache_clear()
    fake_hub(monkeypatch, lambda _, revision, **__: str(checkpoint(revision or latest[0])))
    recipe, folder = small("owner/name"), tmp_path / "run"
    train(recipe, prepared, folder, device="cpu")
    latest[0] = "hubert"
    downloaded.cache_clear()
    assert train(recipe, prepared, folder, resume=True, device="cpu").recipe.encoder.revision == "wavlm"
    assert why_other_run(folder, recipe, prepared) == "", "a study continues with it"
    with pytest.raises(RunError, match=r"was started with another recipe: encoder\.revision was 'wavlm', now 'hubert'"):
        train(small("owner/name", revision="hubert"), prepared, folder, resume=True, device="cpu")
    with pytest.raises(RunError, match=r"was started with another recipe: encoder\.\w+ was .*, now"):
        train(small(checkpoint("hubert")), prepared, folder, resume=True, device="cpu")
    downloaded.cache_clear()
