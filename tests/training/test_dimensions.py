"""Arousal, valence and dominance beside the emotion: trained by the CCC, scored on unseen speakers, missing ratings masked."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY, prepare_table
from helpers import assert_same_bits, interrupt_training

from speaker_invariant_ser import metrics
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.evaluation.dimensions.results import DimensionValues, dimension_results
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS, read_predictions
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.report.card import render_card
from speaker_invariant_ser.report.sections.comparison_table import comparison_table
from speaker_invariant_ser.report.sections.emotion import emotion_sections
from speaker_invariant_ser.report.tables import emotion_rows
from speaker_invariant_ser.training import post_training
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.objective import ccc_loss

RATE, LEVELS = 16_000, 8
RATED = {
    **TINY,
    "split": {"scheme": "fixed", "test": ["4", "5", "6"], "dev": ["3"]},
    "features": {**TINY["features"], "normalise": "corpus"},
    "augment": {"warp": 0, "tempo": 0, "equaliser_db": 0, "time_masks": 0, "frequency_masks": 0},
    "emotion": {"hidden": 8, "dropout": 0.0, "targets": ["arousal", "valence"]},
    "train": {"epochs": 10, "batch_size": 4, "learning_rate": 0.02, "ema": 0.0, "precision": "float32"},
}


@pytest.fixture(scope="module")
def rated_folder(tmp_path_factory):
    """Noise of six speakers, the brighter the higher the arousal; valence is rated for half of the utterances."""
    folder = tmp_path_factory.mktemp("noise")
    rows = ["path,speaker,emotion,text,arousal,valence"]
    for speaker in range(1, 7):
        for level in range(LEVELS):
            rng = np.random.default_rng([speaker, level])
            noise = rng.standard_normal(int(rng.uniform(0.25, 0.4) * RATE))
            smooth = np.convolve(noise, np.ones(8), "same") + 0.3 * np.roll(noise, speaker)
            clip = 0.05 * (level / LEVELS * noise + (1 - level / LEVELS) * smooth)
            soundfile.write(folder / f"{speaker}-{level}.wav", clip, RATE, subtype="PCM_16")
            arousal = level / (LEVELS - 1)
            valence = f"{1 - arousal:.3f}" if level % 2 else ""
            rows.append(f"{speaker}-{level}.wav,{speaker},{'low' if level < 4 else 'high'},{level},{arousal:.3f},{valence}")
    (folder / "table.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def rated_data(rated_folder, tmp_path_factory):
    return prepare_table(rated_folder / "table.csv", tmp_path_factory.mktemp("rated") / "data")


@pytest.fixture(scope="module")
def rated_run(rated_data, tmp_path_factory):
    return train(make_recipe(RATED), rated_data, tmp_path_factory.mktemp("rated") / "run", device="cpu")


def predicted(run, prepared):
    """Return predictions of arousal and valence for the unseen speakers [N, 2], and their ratings of arousal [N]."""
    chosen = run.splits[0].indices("test", prepared.utterances)
    outputs = apply_to_clips(load_model(run.model_specs[0].folder), [prepared.clip(index) for index in chosen])
    return outputs.dimensions, np.array([prepared.utterances[index].arousal for index in chosen])


def test_a_training_reaches_a_ccc_that_shuffled_ratings_do_not(rated_run, rated_data, rated_folder, tmp_path):
    def shuffled(utterances):
        """Exchange the ratings of each speaker's utterances so that they do not correlate with the true ones."""
        levels = (3, 6, 0, 5, 2, 7, 1, 4)
        order = [8 * (row // 8) + levels[:: -1 if row // 8 % 2 else 1][row % 8] for row in range(len(utterances))]
        ratings = [(utterances[row].arousal, utterances[row].valence) for row in order]
        return [replace(u, arousal=a, valence=v) for u, (a, v) in zip(utterances, ratings, strict=True)]

    values, arousal = predicted(rated_run, rated_data)
    assert ((values >= 0) & (values <= 1)).all()
    assert metrics.ccc(arousal, values[:, 0]) > 0.6 and metrics.ccc(1 - arousal, values[:, 1]) > 0.5
    other = prepare_table(rated_folder / "table.csv", tmp_path / "data", shuffled)
    values, _ = predicted(train(make_recipe(RATED), other, tmp_path / "run", device="cpu"), other)
    assert metrics.ccc(arousal, values[:, 0]) < 0.3


def test_the_loss_is_1_minus_ccc_of_the_rated_utterances():
    rng = np.random.default_rng(0)
    predicted, rated = rng.random((9, 3)), rng.random((9, 3))
    rated[2:5, 0], rated[1:, 1], rated[:, 2] = np.nan, np.nan, np.nan  # the second has one rating, the third none
    x = torch.tensor(predicted, dtype=torch.float32, requires_grad=True)
    loss = ccc_loss(x, torch.tensor(rated, dtype=torch.float32))
    known = ~np.isnan(rated[:, 0])
    assert loss.item() == pytest.approx(1 - metrics.ccc(rated[known, 0], predicted[known, 0]), abs=1e-6)
    loss.backward()
    assert ((x.grad != 0).numpy() == np.stack((known, known & False, known & False), axis=1)).all()
    nothing = ccc_loss(x, torch.full((9, 3), torch.nan))
    nothing.backward()
    assert nothing.item() == 0 and x.grad.isfinite().all()
    assert ccc_loss(torch.full((4, 1), 0.5), torch.full((4, 1), 0.5)).isfinite()


def test_an_interrupted_training_resumes_to_the_same_bits(rated_data, tmp_path, monkeypatch):
    """Without dev speakers, with mixed utterances, another adversary, and an eraser, after which the regressor trains again."""
    changes = {
        "split": {"scheme": "fixed", "test": ["4", "5", "6"], "dev_speakers": 0},
        "augment": {**RATED["augment"], "mixup_any_emotion": 0.5},
        "adversary": {"name": "hsic"},
        "erase": {"name": "leace"},
        "train": {**RATED["train"], "epochs": 2, "ema": 0.5, "refit": True, "inner_folds": 0},
        "audit": {"holdout": 0.25},
    }
    recipe = make_recipe({**RATED, **changes})
    monkeypatch.setattr(post_training, "REFIT_STEPS", 20)
    whole = train(recipe, rated_data, tmp_path / "whole", device="cpu")
    interrupt_training(monkeypatch, 3, recipe, rated_data, tmp_path / "run")
    torch.rand(5)
    assert_same_bits(train(recipe, rated_data, tmp_path / "run", device="cpu", resume=True), whole)
    assert all(row["dimensions_loss"] > 0 for row in whole.model_specs[0].metrics())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["dominance"], "it has no ratings of dominance in what fold fixed trains on"),
        (["arousal", "arousal"], r"emotion.targets = \[arousal, arousal\]: expected each dimension once"),
        (["pleasure"], "emotion.targets"),
    ],
)
def test_targets_that_cannot_be_trained_are_refused(targets, message, rated_data, tmp_path):
    with pytest.raises(RecipeError, match=message):
        train(make_recipe({**RATED, "emotion": {"targets": targets}}), rated_data, tmp_path / "run", device="cpu")


def test_a_weight_without_targets_is_refused():
    with pytest.raises(RecipeError, match=r"emotion.targets_weight = 2 with emotion.targets = \[\]"):
        make_recipe({"emotion": {"targets_weight": 2.0}})


def test_models_without_targets_are_described_as_before(trained):
    assert not {"targets", "targets_weight"} & set(
        json.loads((trained.model_specs[0].folder / "model.json").read_text())["emotion"]
    )


def test_results_are_those_of_the_rated_utterances_by_speaker_and_seed():
    rated = np.array([0.0, 0.5, 1.0, 0.2, 0.2, np.nan] * 2)
    predicted = np.array([0.0, 0.5, 1.0, 0.1, 0.6, 0.3, 0.5, 0.5, 0.5, 0.1, 0.6, 0.3])
    speaker, seed = np.array(list("aaabbb") * 2), np.repeat([0, 1], 6)
    result = dimension_results(DimensionValues(("arousal",), predicted[:, None], rated[:, None]), speaker, seed)["arousal"]
    by_seed = [metrics.ccc(rated[rows], predicted[rows]) for rows in (slice(5), slice(6, 11))]
    assert result.ccc.value == pytest.approx(np.mean(by_seed)) and list(result.ccc.seeds.values()) == pytest.approx(by_seed)
    assert result.per_speaker == {"a": 0.5, "b": None} and result.utterances == 5  # all of b's ratings are equal
    assert result.ccc_mean_over_speakers.value == 0.5 and result.ccc.low is None  # two speakers have no interval
    assert dimension_results(DimensionValues(("valence",), predicted[:, None], rated[:, None] * np.nan), speaker, seed) == {}


def test_the_report_has_the_ccc_of_each_dimension(rated_run, rated_data):
    evaluation = evaluate(rated_run, rated_data, "cpu", quick=True, with_baseline=False)
    (values, arousal), results = predicted(rated_run, rated_data), evaluation.report.to_json()["emotion"]["dimensions"]
    assert results["arousal"]["ccc"]["value"] == pytest.approx(metrics.ccc(arousal, values[:, 0]))
    assert results["arousal"]["ccc"]["low"] < results["arousal"]["ccc"]["value"] < results["arousal"]["ccc"]["high"]
    given = evaluation.report.speaker.given
    assert given.dimensions == ["arousal", "valence"] and given.share == 0 and given.cells["fixed"].minimum == 20
    assert results["valence"]["utterances"] == 12 and set(results["valence"]["per_speaker"]) == {"4", "5", "6"}
    table = read_predictions(rated_run.folder / PREDICTIONS).dimensions
    assert table.names == ("arousal", "valence") and table.predicted == pytest.approx(values, abs=1e-6)
    assert np.array_equal(table.rated[:, 0], arousal) and np.isnan(table.rated[:, 1]).sum() == 12
    number = f"{results['arousal']['ccc']['value']:.2f}"
    (row, _), section = emotion_rows(evaluation.report.emotion)[-2:], emotion_sections(evaluation.report.emotion)[1]
    assert row[:2] == ["arousal CCC, unseen speakers, pooled", number] and section.title == "Arousal, valence and dominance"
    assert section.blocks[1].rows[0][:2] == ["arousal", number]
    card = render_card(rated_run, evaluation.report, "other", "rated")
    assert f"| CCC of arousal (concordance with the ratings, 1 at most) | {number} (" in card and "CCC of valence" in card
    other = evaluation.report.model_copy(update={"emotion": evaluation.report.emotion.model_copy(update={"dimensions": None})})
    table = comparison_table([evaluation.report, other], ["one", "other"], [0])
    assert table.head[-2:] == ["arousal CCC, pooled", "valence CCC, pooled"]
    assert table.rows[0][-2].startswith(f"{number} (") and table.rows[1][-2:] == ["-", "-"]
