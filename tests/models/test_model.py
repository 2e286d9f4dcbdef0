"""The model as a whole: its parts together, on disk, and in runs with every kind of bottleneck, eraser and release."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, prepare_table
from helpers import model_of, section

from speaker_invariant_ser.audit.controls import CONTROLS, controls_for, describe_threat_model
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.errors import RecipeError, RunError, SerError
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.predict import predict
from speaker_invariant_ser.models.apply import apply_to_clips, apply_to_dataset
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, load_model, save_model
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import EmotionSection, FusionSettings
from speaker_invariant_ser.report.write import write_report
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.post_training import fit_eraser_and_release, fit_release


def test_without_bottleneck_eraser_and_release_the_embedding_is_the_encoders_output():
    model, mels, frames = model_of(), torch.randn(3, 24, 40), torch.tensor([40, 20, 40])
    assert {name.split(".")[0] for name in model.state_dict()} == {"logmel", "normalise", "encoder", "head"}
    before = torch.get_rng_state()
    output = model.from_mels(mels, frames)
    plain = model.encoder(model.normalise(mels, frames), frames)
    assert torch.equal(output.embedding, plain) and torch.equal(output.head_input, plain) and not output.rate.any()
    assert torch.equal(output.logits, model.head(plain)) and torch.equal(torch.get_rng_state(), before)


def test_unknown_methods_are_refused_with_the_allowed_names():
    for name in ("bottleneck", "erase", "release"):
        with pytest.raises(RecipeError, match=rf"unknown {name}.name 'nose'.* Expected one of: none, "):
            section(name, name="nose")


@pytest.mark.parametrize("classify", ["before", "after"])
def test_the_emotion_is_classified_before_or_after_the_release(classify):
    model = model_of(release=section("release", name="noise", sigma=3.0, classify=classify))
    model.release.fit(torch.randn(500, 12))
    mels, frames = torch.randn(3, 24, 40), torch.tensor([40, 20, 40])
    quiet, loud = (model.from_mels(mels, frames, noise) for noise in (torch.zeros(2, 3, 12), torch.ones(2, 3, 12)))
    assert not torch.allclose(quiet.embedding, loud.embedding, atol=1)
    assert torch.equal(quiet.logits, loud.logits) is (classify == "before")
    assert torch.equal(loud.head_input, loud.embedding) is (classify == "after")
    assert torch.equal(loud.logits, model.head(loud.head_input))


FUSION = {
    "features": FeaturesSection(streams=("prosody", "log-mel"), hop_ms=16, mels=24),
    "encoder": FusionSettings(dim=6),
}


def test_a_linear_classifier_has_no_hidden_layer():
    model = model_of(emotion=EmotionSection(hidden=0))
    first, second = torch.randn(2, 5, 12)
    middle = model.head((first + second) / 2)
    assert torch.allclose(middle, (model.head(first) + model.head(second)) / 2, atol=1e-6)
    assert not torch.allclose(model_of().head((first + second) / 2), (model_of().head(first) + model_of().head(second)) / 2)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    "sections",
    [{}, {"emotion": EmotionSection(hidden=0)}, FUSION],
    ids=["one classifier", "a linear one", "a classifier for each branch"],
)
def test_fitting_the_release_rescales_a_head_that_classifies_after_it(trained, sections):
    release = section("release", name="noise", classify="after", in_training=trained)
    model, x = model_of(release=release, **sections), 5 + torch.randn(300, 12) * torch.logspace(-1, 2, 12)
    if trained:
        model.release.train()(2 * x + 1)
        model.release.eval()
    before = model.head(model.release(x, torch.zeros_like(x)))
    for _ in range(2):  # fitting again changes nothing
        fit_release(model, x)
        released = model.release(x, torch.zeros_like(x))
        assert torch.allclose(released.std(dim=0), torch.ones(12), atol=5e-3)
        assert torch.allclose(model.head(released), before, atol=2e-3 * before.abs().max().item())


def test_controls_of_a_model_with_eraser_and_release():
    """The output of the bottleneck, and an untrained encoder without bottleneck, eraser and release."""
    plain, changed = model_of(), model_of(erase=section("erase", name="leace"), release=section("release", name="quantise"))
    changed.release.fit(torch.randn(50, 12))
    changed.eraser.fit(torch.randn(50, 12), np.arange(50) % 3, np.arange(50) % 2, seed=0)
    audio = [np.random.default_rng(seed).uniform(-0.3, 0.3, 4000).astype(np.float32) for seed in range(4)]
    assert np.array_equal(CONTROLS["unreleased"](changed, audio), apply_to_clips(plain, audio).embedding), (
        "the encoders are the same"
    )
    assert not np.allclose(apply_to_clips(changed, audio).embedding, apply_to_clips(plain, audio).embedding, atol=0.1)
    assert np.array_equal(CONTROLS["random_encoder"](changed, audio), CONTROLS["random_encoder"](plain, audio))
    assert "unreleased" in controls_for(changed, quick=False) and "unreleased" not in controls_for(plain, quick=False)
    assert controls_for(changed, quick=True) == ["posteriors"] and controls_for(plain, quick=True) == []
    assert controls_for(model_of(release=section("release", name="noise", classify="after")), quick=True) == []


NAMES = {"01": "Annegret", "02": "Balthasar", "03": "Clothilde", "04": "Dietlinde", "05": "Eberhard", "06": "Friedhelm"}
RUNS = {
    "vib, leace, noise before": {
        "bottleneck": {"name": "vib"},
        "erase": {"name": "leace"},
        "release": {"name": "noise", "sigma": 0.5},
    },
    "fsq, obliviator": {"bottleneck": {"name": "fsq", "levels": 8}, "erase": {"name": "obliviator", "rounds": 2}},
    "noise after, trained": {"release": {"name": "noise", "in_training": True, "classify": "after"}},
    "quantise after": {"release": {"name": "quantise", "step": 0.5, "classify": "after"}},
    "codes": {"release": {"name": "codes", "cells": 8}},
    "decision": {"release": {"name": "decision"}},
}
TRAINED = ("Annegret", "Balthasar", "Dietlinde")


@pytest.fixture(scope="module")
def named(folder, tmp_path_factory):
    """The tones, with speaker names that are easy to search for in a file."""
    rename = lambda utterances: [replace(utterance, speaker=NAMES[utterance.speaker]) for utterance in utterances]  # noqa: E731
    return prepare_table(folder / "corpus.csv", tmp_path_factory.mktemp("named") / "data", rename)


@pytest.fixture(scope="module", params=RUNS)
def run(request, named, tmp_path_factory):
    """A run of three epochs with one of the settings of RUNS."""
    split = {"scheme": "fixed", "test": ["Eberhard", "Friedhelm"], "dev": ["Clothilde"]}
    recipe = make_recipe({**TINY, "split": split, **RUNS[request.param]})
    return train(recipe, named, tmp_path_factory.mktemp("runs") / "run", device="cpu")


def training_part(run, prepared, model):
    indices = run.splits[0].indices("train", prepared.utterances)
    return open_dataset(prepared, indices, model.labels, (), model.logmel, 1.0)


def test_a_model_gives_the_same_outputs_again_alone_and_in_a_batch(run, named):
    model, audio = load_model(run.model_specs[0].folder), [named.clip(index) for index in range(7)]
    outputs = apply_to_clips(model, audio)
    embedding = outputs.embedding
    assert np.array_equal(embedding, apply_to_clips(model, audio).embedding) and np.isfinite(embedding).all()
    single, reversed_order = apply_to_clips(model, audio[3:4]), apply_to_clips(model, audio[::-1], batch_size=3)
    if run.recipe.release.name not in ("quantise", "codes", "decision"):  # where rounding errors may decide on the cell
        assert np.allclose(single.embedding[0], embedding[3], atol=1e-4)
        assert np.allclose(reversed_order.embedding[::-1], embedding, atol=1e-4)
    assert np.allclose(outputs.probability.sum(axis=1), 1, atol=1e-5)
    if run.recipe.release.name in ("codes", "decision"):
        released = np.unique(np.column_stack((outputs.code, outputs.embedding, outputs.probability.round(5))), axis=0)
        assert len(released) == len(np.unique(outputs.code)) <= 8, "the posteriors follow from the code, too"
    if run.recipe.release.name == "decision":
        assert np.array_equal(outputs.probability.argmax(axis=1), outputs.code)


def test_the_files_of_a_model_contain_no_speaker_names(run):
    folder = run.model_specs[0].folder
    content = (folder / DESCRIPTION).read_bytes() + (folder / WEIGHTS).read_bytes()
    assert not any(name.encode() in content for name in NAMES.values()) and b"head.0.weight" in content
    assert "Annegret" in (run.folder / "split.json").read_text()


def test_post_training_is_deterministic_and_uses_training_speakers_only(run, named):
    """The same bits from the same utterances."""
    first, second = (load_model(run.model_specs[0].folder) for _ in range(2))
    assert not run.recipe.release.fitted_later or int(first.release.fitted) == 1, "fitted by training"
    assert run.recipe.erase.name == "none" or not torch.equal(first.eraser(torch.eye(12)), torch.eye(12)), "fitted by training"
    for model in (first, second):
        fit_eraser_and_release(model, training_part(run, named, model), run.recipe)
    state = first.state_dict()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in state.items())
    if run.recipe.erase.name == "leace":
        dataset = training_part(run, named, first)
        x = first.eraser(torch.from_numpy(apply_to_dataset(first, dataset).bottleneck))
        means = torch.stack([x[dataset.speaker == speaker].mean(dim=0) for speaker in range(3)])
        assert len(dataset) == 30 and (means.amax(dim=0) - means.amin(dim=0)).max() < 1


def test_a_run_is_evaluated_and_used_for_inference(run, named, folder):
    evaluation = evaluate(run, named, device="cpu", quick=True, with_baseline=False)
    report, recipe = evaluation.report, run.recipe
    speaker = report.speaker
    assert report.settings.threat == describe_threat_model(recipe) and "Not covered" in describe_threat_model(recipe)
    rate = {"none": None, "fsq": 12 * 3.0}.get(recipe.bottleneck.name, speaker.rate_bits)
    assert speaker.rate_bits == (rate if rate is None else pytest.approx(rate)) and rate != 0
    two_outputs = recipe.release.name == "noise" and recipe.release.classifies_before
    assert bool(speaker.outputs) is two_outputs is ("second output" in describe_threat_model(recipe))
    if two_outputs:
        assert speaker.outputs.posteriors == speaker.controls["posteriors"]
        assert speaker.outputs.embedding == speaker.controls["embedding"] and speaker.outputs.attackers == "quick"
    assert speaker.learned == ("held-out" if recipe.erase.name != "none" else "all")
    assert set(evaluation.table.id) == set(run.splits[0].held_out) or recipe.erase.name == "none"
    written = write_report(report, run.folder / "report").parent
    for text in ((written / "report.md").read_text(), (written / "report.html").read_text()):
        assert "the attacker has the embedding of one utterance" in text
        assert ("Two outputs" in text) is two_outputs and ("bounds what any attacker can learn" in text) is (rate is not None)
    assert json.loads((written / "report.json").read_text())["settings"]["threat"]
    rows = list(predict(load_models(run, device="cpu"), find_inputs([folder / "05_*.wav"])))
    stored = dict(zip(evaluation.predictions.id, evaluation.predictions.calibrated, strict=True))
    assert len(rows) == 12 and not any(row["error"] for row in rows) and all(row["calibrated"] for row in rows)
    for row in rows:
        expected = stored[row["file"].rsplit("/", 1)[-1]]
        close = 0.2 if recipe.release.name == "quantise" else 1e-4
        assert [row[f"p_{label}"] for label in evaluation.predictions.labels] == pytest.approx(expected.tolist(), abs=close)


def test_a_model_without_the_later_sections_loads(trained, prepared, tmp_path):
    folder = trained.model_specs[0].folder
    model = load_model(folder)
    save_model(model, tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    for name in ("bottleneck", "erase", "release"):
        assert described.pop(name)["name"] == "none"
    del described["sha256"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    old, audio = load_model(tmp_path), [prepared.clip(0)]
    assert (
        np.array_equal(apply_to_clips(old, audio).embedding, apply_to_clips(model, audio).embedding)
        and old.settings == model.settings
    )


def test_model_json_keeps_the_keys_of_format_1(tmp_path):
    """Version 0.1.0 refuses keys that it does not know."""
    model = model_of(release=section("release", name="noise", sigma=3.0, classify="after", in_training=True))
    save_model(model, tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    assert described["release"] == {"name": "noise", "sigma": 3.0, "decision": "after", "trained": True}
    assert not described["features"].keys() & {"streams", "deltas", "absolute_f0"}
    assert load_model(tmp_path).settings == model.settings


def test_model_json_holds_streams_that_are_not_the_default(tmp_path):
    model = model_of(**FUSION)
    save_model(model, tmp_path)
    features = json.loads((tmp_path / DESCRIPTION).read_text())["features"]
    assert features["streams"] == ["prosody", "log-mel"] and "deltas" not in features
    assert load_model(tmp_path).settings == model.settings


@pytest.mark.parametrize(
    "change, message",
    [
        ({"erase": {"name": "leacee"}}, f"{DESCRIPTION} is damaged: unknown erase.name 'leacee', did you mean 'leace'"),
        (
            {"release": {"name": "noise", "sigma": -1}},
            f"{DESCRIPTION} is damaged: release.sigma = -1: .*greater than or equal to 0",
        ),
        ({"erase": {"name": "leace"}}, f"{WEIGHTS} is damaged or belongs to another model: Missing key.*eraser"),
    ],
)
def test_a_model_whose_weights_and_description_do_not_match_is_refused(trained, tmp_path, change, message):
    save_model(load_model(trained.model_specs[0].folder), tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    del described["sha256"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(described | {name: described[name] | part for name, part in change.items()}))
    with pytest.raises(RunError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "key, value, message",
    [
        *(("labels", labels, "labels: expected at least two different names of one line each")
          for labels in (["a"], ["a", "a", "b"], ["", "a", "b"], ["a\nb", "c", "d"])),
        ("labels", ["\ud800", "a", "b"], "a text has the code 0xd800, which is half a character"),
        ("sample_rate", 10**9, "sample_rate = 1000000000: should be 16000"),
        ("trained", [1], r"trained = \[1\]: should be a valid dictionary"),
        ("trained", {"device": ["cpu"]}, "trained.device.str = .*: should be a valid string"),
        ("versions", [1], r"versions = \[1\]: should be a valid dictionary"),
        ("trained_range", {"level": [math.nan, 0]}, "trained_range.level.0 = nan: should be a finite number"),
    ],
)  # fmt: skip
def test_a_forged_description_is_refused(trained, tmp_path, key, value, message):
    """Whoever forges a description makes its hashes fit, so that they are removed here."""
    save_model(load_model(trained.model_specs[0].folder), tmp_path)
    described = {**json.loads((tmp_path / DESCRIPTION).read_text()), key: value}
    del described["sha256"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(RunError, match=f"^{tmp_path / DESCRIPTION} is damaged: .*{message}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "section, sizes", [("emotion", {"hidden": 4096}), ("encoder", {"channels": [512] * 8})], ids=["head", "encoder"]
)
def test_a_description_of_a_larger_model_is_refused_before_memory_is_taken(trained, tmp_path, monkeypatch, section, sizes):
    save_model(load_model(trained.model_specs[0].folder), tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    del described["sha256"]
    described["labels"] = [str(number) for number in range(1000)]
    described[section] |= sizes
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_: pytest.fail("constructed"))
    with pytest.raises(RunError, match=f"{DESCRIPTION} describes a larger model than that of {WEIGHTS}, which has [0-9]+ bytes"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind, message", [("nothing", "is not a trained fold: it has no"), ("pipe", "is not a regular file")])
def test_a_model_whose_weights_are_no_file_is_not_constructed(trained, tmp_path, monkeypatch, kind, message):
    save_model(load_model(trained.model_specs[0].folder), tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    del described["sha256"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    (tmp_path / WEIGHTS).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / WEIGHTS)
    monkeypatch.setattr("speaker_invariant_ser.models.model.SerModel", lambda *_: pytest.fail("constructed"))
    with pytest.raises(SerError, match=message):
        load_model(tmp_path)


def test_a_model_with_weights_that_are_not_finite_is_refused(trained, tmp_path):
    model = load_model(trained.model_specs[0].folder)
    model.head[0].bias.data[0] = math.nan
    save_model(model, tmp_path)
    with pytest.raises(RunError, match=f"{WEIGHTS} is damaged: head.0.bias not finite"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["decision", "noise", "quantise"])
def test_a_model_whose_release_was_not_fitted_is_refused(name, tmp_path):
    """It would release embeddings as they are, and codes would be certified meanwhile."""
    save_model(model := model_of(release=section("release", name=name)), tmp_path)
    with pytest.raises(RunError, match=f"{WEIGHTS} is damaged: \\[release\\] was not fitted, .* without release.name = {name}"):
        load_model(tmp_path)
    model.release.fitted.fill_(1)
    save_model(model, tmp_path)
    assert load_model(tmp_path).release.ready


def test_a_model_whose_eraser_was_not_fitted_is_refused(tmp_path):
    save_model(model_of(erase=section("erase", name="obliviator")), tmp_path)
    with pytest.raises(RunError, match=f"{WEIGHTS} is damaged: \\[erase\\] was not fitted, .* without erase.name = obliviator"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "tables, present, absent",
    [
        ({}, ["as the model outputs it, and labelled embeddings", "return the same embedding."], ["noise", "second output"]),
        ({"release": {"name": "noise", "sigma": 0.5}}, ["noise of 0.5 times", "can be averaged", "second output"], ["rounded"]),
        ({"release": {"name": "quantise", "classify": "after"}}, ["rounded to steps of 1 "], ["noise", "second output"]),
        ({"release": {"name": "codes", "cells": 9}}, ["replaced by the nearest of 9 codes"], ["noise", "second output"]),
        ({"release": {"name": "decision"}}, ["replaced by the code of the predicted emotion"], ["noise", "second output"]),
        (
            {"bottleneck": {"name": "vib"}},
            ["sampled from the distribution that the bottleneck gives", "can be averaged"],
            ["second output"],
        ),
        ({"bottleneck": {"name": "fsq", "levels": 7}}, ["quantised to 7 levels"], ["noise"]),
    ],
)
def test_the_threat_model_names_what_the_attacker_has(tables, present, absent):
    text = describe_threat_model(make_recipe(tables))
    assert all(part in text for part in present) and not any(part in text for part in absent)
