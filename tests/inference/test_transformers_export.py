"""Checkpoints for transformers: its own pipeline gives the probabilities of the model, or one line says why it cannot."""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from checkpoints import ARCHITECTURES
from conftest import RATE, TINY
from helpers import occurrences, section
from safetensors import SafetensorError

import speaker_invariant_ser as siser
from speaker_invariant_ser.cli.app import run as command
from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.errors import RecipeError, RunError, SetupError, WriteError
from speaker_invariant_ser.features.pretrained import front
from speaker_invariant_ser.features.pretrained.checkpoint import pinned
from speaker_invariant_ser.inference import transformers_export
from speaker_invariant_ser.inference.exported import CHECKPOINT, FILES
from speaker_invariant_ser.inference.transformers_export import export_transformers
from speaker_invariant_ser.models.model import ModelSettings, SerModel, load_model, save_model
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import PretrainedSettings
from speaker_invariant_ser.training.launcher import train

LABELS = ("angry", "sad", "so so")
FITTING = {"pooling": "mean", "normalise_layers": False}


def saved_model(folder, source, settings=None, **encoder):
    """Save a model with random weights that no part of could be left out unnoticed, and return its folder."""
    encoder = pinned(PretrainedSettings(source=str(source), dim=8, **{**FITTING, **encoder}))
    features, head = FeaturesSection(streams=["waveform"]), section("emotion", hidden=0)
    sections = {"features": features, "encoder": encoder, "emotion": head, "temperature": 0.7, **(settings or {})}
    torch.manual_seed(0)
    model = SerModel(ModelSettings(labels=LABELS, sample_rate=RATE, **sections)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name or "layer_weights" in name:
                parameter.normal_(std=0.3)
        for buffer in model.eraser.buffers():
            buffer.normal_() if buffer.is_floating_point() else buffer.fill_(1)  # which says that it was fitted
        model.encoder.norm.running_mean.normal_()
        model.encoder.norm.running_var.uniform_(0.1, 1)
        model.release.fit(torch.randn(8, model.dim), model.head)
    folder.mkdir(parents=True)
    save_model(model, folder)
    return folder


def answers(folder, waves):
    classify = transformers.pipeline("audio-classification", model=str(folder), top_k=None)
    return [{answer["label"]: answer["score"] for answer in classify(wave)} for wave in waves]


WAVES = [np.round(np.random.default_rng(n).normal(0, 3000, n)).astype(np.float32) / 32768 for n in (1700, 16_001)]
CASES = [(name, {}) for name in ARCHITECTURES if name != "whisper"]
CASES += [("wavlm", {"train": mode, "layers": layers}) for mode, layers in (("lora", ()), ("top 1", (0, 2)))]


@pytest.mark.parametrize("name, encoder", CASES, ids=[f"{name} {encoder.get('train', '')}" for name, encoder in CASES])
def test_the_pipeline_of_transformers_gives_the_probabilities_of_the_model(name, encoder, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SISER_ENCODERS", str(checkpoint(name).parent))
    folder = saved_model(tmp_path / "model", checkpoint(name), **encoder)
    assert export_transformers(folder, tmp_path / "out", "# card") < 1e-6
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert occurrences(tmp_path / "out", str(checkpoint(name).parent)) == []
    predictions = siser.load_model(folder).predict(WAVES, RATE)
    for prediction, answer in zip(predictions, answers(tmp_path / "out", WAVES), strict=True):
        expected = prediction.probabilities
        assert len(set(expected.values())) == 3 and answer == pytest.approx(expected, abs=1e-4)


def test_a_linear_eraser_becomes_part_of_the_classifier(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SISER_ENCODERS", str(checkpoint("wavlm").parent))
    settings = {"erase": section("erase", name="leace"), "release": section("release", name="noise", classify="before")}
    folder = saved_model(tmp_path / "model", checkpoint("wavlm"), settings)
    assert load_model(folder).eraser.matrix.std() > 0.1
    with monkeypatch.context() as patch, pytest.raises(WriteError, match=r"cannot write .*out: .*File too large"):
        patch.setattr(transformers.PreTrainedModel, "save_pretrained", full_disk)
        export_transformers(folder, tmp_path / "out", "# card")
    assert not (tmp_path / "out").exists()
    assert export_transformers(folder, tmp_path / "out", "# card") < 1e-6


def full_disk(*_):
    raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")


REFUSED = {
    "encoder.pooling = attentive, encoder.normalise_layers = true, emotion.hidden = 64; train one with "
    "--set encoder.pooling=mean --set encoder.normalise_layers=false --set emotion.hidden=0": (
        {"pooling": "attentive", "normalise_layers": True},
        {"emotion": section("emotion")},
    ),
    "emotion.targets = [arousal], bottleneck.name = fsq; train one with --set emotion.targets=[] --set bottleneck.name=none": (
        {},
        {"emotion": section("emotion", hidden=0, targets=["arousal"]), "bottleneck": section("bottleneck", name="fsq")},
    ),
    "erase.name = obliviator; train one with --set erase.name=none": ({}, {"erase": section("erase", name="obliviator")}),
    **{
        f"release.name = {name}; train one with --set release.name=none": ({}, {"release": section("release", name=name)})
        for name in ("codes", "decision")
    },
}


@pytest.mark.parametrize("message", REFUSED, ids=range(len(REFUSED)))
def test_what_no_class_computes_is_refused_with_the_settings_that_fit(message, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SISER_ENCODERS", str(checkpoint("wavlm").parent))
    encoder, settings = REFUSED[message]
    folder = saved_model(tmp_path / "model", checkpoint("wavlm"), settings, **encoder)
    with pytest.raises(RunError) as caught:
        export_transformers(folder, tmp_path / "out", "# card")
    assert str(caught.value) == f"{folder} cannot be exported to transformers: its classifiers have nothing for {message}"
    assert not (tmp_path / "out").exists()


def test_whisper_and_architectures_without_a_class_are_refused(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SISER_ENCODERS", str(checkpoint("whisper").parent))
    folder = saved_model(tmp_path / "model", checkpoint("whisper"))
    with pytest.raises(RunError, match="its whisper classifier averages over the silence .* such as wavlm, hubert or wav2vec2"):
        export_transformers(folder, tmp_path / "out", "# card")
    monkeypatch.setenv("SISER_ENCODERS", str(checkpoint("wavlm").parent))
    folder = saved_model(tmp_path / "other", checkpoint("wavlm"))
    library = SimpleNamespace(CONFIG_MAPPING=transformers.CONFIG_MAPPING, MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING={})
    with monkeypatch.context() as patch:
        patch.setattr(transformers_export, "open_transformers", lambda: library)
        with pytest.raises(RunError, match="it has no classifier on wavlm; expected an encoder such as wavlm"):
            export_transformers(folder, tmp_path / "out", "# card")
    monkeypatch.setattr(transformers_export, "largest_difference", lambda *_: 0.5)
    with pytest.raises(RunError, match="the checkpoint differs from the model by 0.5, more than 0.0001 .* nothing was written"):
        export_transformers(folder, tmp_path / "out", "# card")
    assert not (tmp_path / "out").exists()


def test_a_model_is_trained_exported_and_described(checkpoint, prepared, trained, tmp_path, monkeypatch, capsys):
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "pretrained.toml"
    tables = read_recipe(recipe).model_dump(exclude_unset=True)
    tables["encoder"] |= {"source": str(checkpoint("wavlm")), "dim": 8, **FITTING}
    tables |= {"split": TINY["split"], "emotion": {"hidden": 0}, "train": {"epochs": 1, "batch_size": 10}}
    run = train(make_recipe(tables), prepared, tmp_path / "run", device="cpu")
    words = ["export", str(run.folder), "--transformers", str(tmp_path / "out")]
    assert command([*words, "--licence", "mit"]) == 0
    assert f"model fixed -> {tmp_path / 'out'}, equal to the model within 1e-0" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ('library_name: "transformers"', 'license: "mit"', 'pipeline("audio-classification"', "are part of this model"):
        assert part in card
    assert occurrences(tmp_path / "out", f"{tmp_path}|{checkpoint('wavlm').parent}|_level_") == []
    clip = prepared.clip(5)
    (answer,) = answers(tmp_path / "out", [clip])
    assert answer == pytest.approx(siser.load_model(run).predict(clip, RATE).probabilities, abs=1e-4)
    cached = [json.loads(path.read_text()) for path in (prepared.folder / "pretrained").glob("*/cache.json")]
    assert False in [description["normalised"] for description in cached]

    upload = ["push", str(run.folder), "owner/name", "--for-transformers", "--dry-run", str(tmp_path / "dry")]
    assert command([*upload, "--licence", "mit"]) == 2 and "its card lacks the training data" in capsys.readouterr().err
    stated = ["--licence", "mit", "--training-data", "Tones, made by a program, public domain."]
    assert command([*upload, *stated]) == 0 and "1 model -> " in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "dry").iterdir()} == {path.name for path in (tmp_path / "out").iterdir()}
    assert all(any(fnmatch(path.name, pattern) for pattern in (*FILES, *CHECKPOINT)) for path in (tmp_path / "dry").iterdir())
    assert "# name\n" in (tmp_path / "dry" / "README.md").read_text()
    assert answers(tmp_path / "dry", [clip]) == [answer]
    assert command([*upload, *stated]) == 2 and "exists already: choose another --dry-run" in capsys.readouterr().err
    for arguments, message in (
        (["emodb-five", "owner/name", "--for-transformers"], "emodb-five: expected a run with --for-transformers"),
        ([str(run.folder), "owner/name", "--seed", "0"], "--fold and --seed choose the model of --for-transformers"),
    ):
        assert command(["push", *arguments, *stated]) == 2 and message in " ".join(capsys.readouterr().err.split())

    assert command(words) == 2 and "exists already: choose another --transformers" in capsys.readouterr().err
    new = ["--transformers", str(tmp_path / "new")]
    for arguments, message in (
        ([str(trained.folder), *new], "it has no class for encoder.name = cnn; expected a model with pretrained"),
        ([str(run.folder), *new, "--out", "x"], "expected one of --out FOLDER, --onnx FILE and --transformers FOLDER"),
        ([str(run.folder), *new, "--seed", "9"], "unknown seed '9'"),
    ):
        assert command(["export", *arguments]) == 2 and message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


def test_layers_that_float16_does_not_hold_are_refused(checkpoint):
    source = front.layer_source(PretrainedSettings(source=str(checkpoint("wavlm")), normalise_layers=False))
    wave = np.zeros(1600, np.float32)
    assert np.isfinite(source.compute(wave, torch.device("cpu"))).all()
    source.backbone.network.register_forward_hook(lambda module, given, made: scaled(made))
    with pytest.raises(RecipeError, match="values above 65504, which float16 does not hold; set encoder.normalise_layers = true"):
        source.compute(wave, torch.device("cpu"))
    front.source_of.cache_clear()


def scaled(output):
    output.hidden_states = tuple(1e6 * (layer + 1) for layer in output.hidden_states)
    return output


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SetupError, match=r'--transformers needs transformers: pip install "speaker-invariant-ser\[pretrained\]"'):
        transformers_export.open_transformers()
