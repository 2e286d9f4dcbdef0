"""The training loop learns, is reproducible, selects on dev speakers only, and saves nothing of the training speakers."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from conftest import TINY, prepare_table
from helpers import without_hashes
from safetensors.torch import load_file

from speaker_invariant_ser.adversaries.discriminators import GradientReversal
from speaker_invariant_ser.adversaries.schedules import ganin_ramp
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.errors import RecipeError, RunError, WriteError
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.metrics import uar
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.runs import Run, best_epoch
from speaker_invariant_ser.training import adversary_step, trainer
from speaker_invariant_ser.training.launcher import launched_fabric, train
from speaker_invariant_ser.training.objective import Objective, build_model, class_weights, soft_cross_entropy
from speaker_invariant_ser.training.optimisation import LEARNING_RATE_SCHEDULES, choose_precision, exponential_average
from speaker_invariant_ser.training.refit import train_model
from speaker_invariant_ser.training.trainer import stops_early


def weights(run):
    return load_file(run.model_specs[0].folder / "model.safetensors")


def test_a_model_overfits_one_batch(prepared):
    no_augmentation = {"warp": 0, "tempo": 0, "equaliser_db": 0, "time_masks": 0, "frequency_masks": 0}
    recipe = make_recipe(
        {**TINY, "augment": no_augmentation, "emotion": {"dropout": 0.0}, "encoder": {**TINY["encoder"], "dropout": 0.0}}
    )
    model, clips = make_model(recipe, prepared)
    mels, frames = next(clips.source.read([np.arange(12)]))
    emotion = torch.from_numpy(clips.emotion[:12])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        logits = model.from_mels(mels, frames).logits
        loss = F.cross_entropy(logits, emotion)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 and torch.equal(logits.argmax(dim=1), emotion)


def make_model(recipe, prepared):
    torch.manual_seed(0)
    labels = sorted({utterance.emotion for utterance in prepared.utterances})
    model = build_model(recipe, labels)
    clips = open_dataset(prepared, range(24), labels, ("speaker",), model.logmel, cache_gb=1.0)
    model.normalise.fit(clips.sample())
    return model, clips


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(prepared, tiny, trained, tmp_path):
    again = train(tiny, prepared, tmp_path / "again", device="cpu")
    other = train(make_recipe({**TINY, "train": {**TINY["train"], "seed": 1}}), prepared, tmp_path / "other", device="cpu")
    assert all(torch.equal(weights(again)[name], tensor) for name, tensor in weights(trained).items())
    assert any(not torch.equal(weights(other)[name], tensor) for name, tensor in weights(trained).items())


def test_the_selected_epoch_is_the_best_on_dev(trained):
    rows = trained.model_specs[0].metrics()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    kept = [row for row in rows if row["best"]][-1]
    assert kept["dev_uar"] == max(row["dev_uar"] for row in rows)


def test_lambda_follows_the_global_step(trained):
    rows, strength = trained.model_specs[0].metrics(), trained.recipe.adversary.strength
    total = rows[-1]["step"]
    for row in rows:
        assert row["lambda"] == pytest.approx(strength * ganin_ramp((row["step"] - 1) / (total - 1), 10), rel=1e-4)
    assert rows[0]["adversary_loss_uninformed"] == pytest.approx(np.log(3), rel=1e-4)


SHORT = {**TINY, "train": {"epochs": 2, "batch_size": 8, "precision": "float32"}}


@pytest.fixture(scope="module")
def unbalanced(folder, tmp_path_factory):
    """Data with unequal class frequencies, so that class weights matter, and a run with default settings."""

    def drop_half_of_level(utterances):
        return [utterance for utterance in utterances if utterance.emotion != "level" or utterance.text in "ab"]

    path = tmp_path_factory.mktemp("unbalanced")
    data = prepare_table(folder / "corpus.csv", path / "data", drop_half_of_level)
    return data, train(make_recipe(SHORT), data, path / "run", device="cpu")


@pytest.mark.parametrize(
    "section, change",
    [
        ("adversary", {"strength": 0.0}),
        ("emotion", {"class_weights": False}),
        ("emotion", {"label_smoothing": 0.0}),
        ("augment", {"warp": 0.0, "tempo": 0.0}),
        ("augment", {"equaliser_db": 0.0}),
        ("augment", {"time_masks": 0, "frequency_masks": 0}),
        ("train", {"ema": 0.0}),
        ("augment", {"concatenate": 0.9}),
        ("augment", {"mixup_same_emotion": 0.9}),
        ("augment", {"mixup_any_emotion": 0.9}),
        ("augment", {"mixup_any_emotion": 0.9, "mixup_alpha": 5.0}),
        ("augment", {"noise": 0.9}),
        ("augment", {"noise": 0.9, "noise_snr_db": [40.0, 50.0]}),
        ("emotion", {"class_weights": False, "logit_adjustment": 1.0}),
        ("train", {"batches": "balanced"}),
        ("train", {"schedule": "cosine"}),
        ("train", {"schedule": "constant"}),
        ("train", {"gradient_clip": 0.01}),
        ("train", {"precision": "bfloat16"}),
        ("train", {"epoch_clips": 16}),
    ],
)
def test_every_setting_reaches_the_weights(section, change, unbalanced, tmp_path):
    """A setting that has no effect would leave the weights as they are."""
    data, run = unbalanced
    recipe = make_recipe({**SHORT, section: {**SHORT.get(section, {}), **change}})
    first, second = weights(run), weights(train(recipe, data, tmp_path / "run", device="cpu"))
    assert not torch.equal(first["encoder.project.weight"], second["encoder.project.weight"])


def test_level_augmentation_has_no_effect_with_utterance_normalisation(prepared, tmp_path):
    def loss(normalise, level):
        sections = {"features": {**TINY["features"], "normalise": normalise}, "augment": {**TINY["augment"], "level_db": level}}
        recipe = make_recipe({**TINY, **sections, "train": {"epochs": 1, "batch_size": 8, "precision": "float32"}})
        return train(recipe, prepared, tmp_path / f"{normalise}{level}", device="cpu").model_specs[0].metrics()[0]["emotion_loss"]

    assert loss("utterance", 0.0) == pytest.approx(loss("utterance", 20.0), abs=1e-4)
    assert loss("corpus", 0.0) != pytest.approx(loss("corpus", 20.0), abs=1e-2)


def weights_after_two_steps(monkeypatch, prepared, folder, strength):
    """Return classifier and model after a run of two steps; lambda is 0 in the first and `strength` in the second."""
    adversaries = []
    monkeypatch.setitem(
        adversary_step.ADVERSARIES, "grl", lambda *arguments: adversaries.append(GradientReversal(*arguments)) or adversaries[-1]
    )
    recipe = make_recipe({**TINY, "adversary": {"hidden": 8, "strength": strength}, "train": {"epochs": 1, "batch_size": 15}})
    run = train(recipe, prepared, folder / f"strength{strength}", device="cpu")
    assert run.model_specs[0].metrics()[0]["step"] == 2
    return adversaries[-1].state_dict(), weights(run)


def test_lambda_changes_the_encoder_and_never_the_speaker_classifier(monkeypatch, prepared, tmp_path):
    (classifier, encoder), (other_classifier, other_encoder) = (
        weights_after_two_steps(monkeypatch, prepared, tmp_path, strength) for strength in (0.0, 90.0)
    )
    assert all(torch.equal(classifier[name], other_classifier[name]) for name in classifier)
    assert not torch.equal(encoder["encoder.project.weight"], other_encoder["encoder.project.weight"])


def test_the_speaker_classifier_learns(prepared, tmp_path):
    """Three speakers who differ in their overtones; with the wrong sign of its loss, accuracy would fall."""
    no_augmentation = {"warp": 0, "tempo": 0, "equaliser_db": 0, "time_masks": 0, "frequency_masks": 0}
    encoder = {"channels": [4, 8], "dim": 32, "dropout": 0.0}
    sections = {
        "adversary": {"strength": 0.0},
        "features": {**TINY["features"], "normalise": "corpus"},
        "augment": no_augmentation,
    }
    sections["audit"] = {"holdout": 0}  # train on all utterances
    recipe = make_recipe(
        {**TINY, **sections, "encoder": encoder, "train": {"epochs": 10, "batch_size": 8, "learning_rate": 0.01}}
    )
    rows = train(recipe, prepared, tmp_path / "run", device="cpu").model_specs[0].metrics()
    assert rows[-1]["adversary_loss"] < 0.8 * rows[-1]["adversary_loss_uninformed"] and rows[-1]["adversary_accuracy"] > 0.5


def test_the_saved_model_is_the_selected_one_and_dev_scores_are_of_the_dev_speakers(prepared, tmp_path):
    """The dev UAR of the selected epoch in metrics.csv is that of the saved model on the dev speakers' audio."""
    settings = {"epochs": 10, "batch_size": 8, "learning_rate": 0.3, "ema": 0.0, "precision": "float32"}
    recipe = make_recipe({**TINY, "train": settings, "audit": {"holdout": 0}})
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    rows = run.model_specs[0].metrics()
    best = best_epoch(rows)
    assert best["epoch"] < rows[-1]["epoch"] and best["dev_uar"] > rows[-1]["dev_uar"]  # otherwise this test shows nothing
    model = load_model(run.model_specs[0].folder)
    indices = run.splits[0].indices("dev", prepared.utterances)
    probability = apply_to_clips(model, [prepared.clip(index) for index in indices]).probability
    truth = [model.labels.index(prepared.utterances[index].emotion) for index in indices]
    assert uar(np.array(truth), probability.argmax(axis=1), 3) == pytest.approx(best["dev_uar"], abs=1e-5)
    assert model.normalise.mean.abs().max() > 0 or recipe.features.normalise == "utterance"
    assert (model.normalise.scale - 1).abs().max() > 0.1


@pytest.mark.parametrize("name", ["../../escape", "../../..", ".", "..", "a/b", "spk 1", "ü|x"])
def test_a_speakers_name_is_never_a_path(name, folder, tmp_path):
    """Folds are named after speakers, and their folder must stay in the run whatever a table calls them."""

    def rename_speaker(utterances):
        return [replace(u, speaker=name) if u.speaker == "05" else u for u in utterances]

    data = prepare_table(folder / "corpus.csv", tmp_path / "data", rename_speaker)
    recipe = make_recipe({**TINY, "split": {"scheme": "fixed", "test": [name], "dev": ["03"]}})
    split = make_splits(recipe.split, data.utterances)[0]
    run = Run.create(tmp_path / "deep" / "run", recipe, [replace(split, name=name)], data)
    with launched_fabric("float32", "cpu") as fabric:
        train_model(run, data, run.model_specs[0], fabric)
    assert run.model_specs[0].folder.parent == run.folder / "folds" and run.all_models()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "deep"]
    assert Run.open(run.folder).splits == run.splits


def test_test_speakers_never_reach_training(prepared, folder, tmp_path, tiny, trained):
    """With other audio for the test speakers, model and statistics are the same to the bit."""
    shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("0[56]_*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[::-1] / 2, rate)
    changed = prepare_table(tmp_path / "copy" / "corpus.csv", tmp_path / "data")
    run = train(tiny, changed, tmp_path / "run", device="cpu")
    assert all(torch.equal(weights(run)[name], tensor) for name, tensor in weights(trained).items())


def test_nothing_of_the_speakers_is_saved_and_nothing_is_pickled(trained):
    assert all(name.startswith(("logmel.", "normalise.", "encoder.", "head.")) for name in weights(trained))
    assert weights(trained)["head.3.weight"].shape[0] == 3
    files = [path for path in trained.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".toml", ".json", ".csv", ".safetensors", ".md", ".png"}
    assert not any(path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK") for path in files)
    described = json.loads((trained.model_specs[0].folder / "model.json").read_text())
    assert all(len(limits) == 2 for limits in described.pop("trained_range").values()), "numbers of all speakers together"
    assert "03" not in json.dumps({name: value for name, value in described.items() if name != "sha256"})


def test_an_existing_run_is_not_overwritten_and_resume_needs_the_same_recipe(prepared, tiny, trained, tmp_path, folder):
    with pytest.raises(WriteError, match="exists already: resume it with --resume"):
        train(tiny, prepared, trained.folder, device="cpu")
    other = make_recipe({**TINY, "train": {**TINY["train"], "epochs": 5}})
    with pytest.raises(RunError, match="another recipe: train.epochs was 3, now 5"):
        train(other, prepared, trained.folder, resume=True, device="cpu")
    smaller = prepare_table(folder / "corpus.csv", tmp_path / "data", lambda utterances: utterances[:-1])
    with pytest.raises(RunError, match="other data"):
        train(tiny, smaller, trained.folder, resume=True, device="cpu")


def test_an_unknown_adversary_and_a_missing_gpu_are_refused_before_anything_is_written(prepared, tmp_path):
    with pytest.raises(RecipeError, match=r"unknown adversary.name 'gr'.*grl"):
        train(make_recipe({"adversary": {"name": "gr"}}), prepared, tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="sees no CUDA device"):
            train(make_recipe(TINY), prepared, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"perturb": {"name": "fg"}}, "unknown perturb.name 'fg'.*fgm"),
        (
            {"perturb": {"name": "cross"}, "adversary": {"name": "hsic"}},
            "a speaker classifier that learns: adversary.name = hsic has none",
        ),
        (
            {"perturb": {"name": "cross"}, "adversary": {"name": "signed"}},
            "a speaker classifier that learns: adversary.name = signed has none",
        ),
        ({"extra_adversaries": [{"name": "gr"}]}, "unknown extra_adversaries.0.name 'gr'.*grl"),
        ({"erase": {"name": "leace"}, "audit": {"holdout": 0.0}}, "audit.holdout = 0"),
        ({"bottleneck": {"name": "vi"}}, "unknown bottleneck.name 'vi'.*vib"),
        ({"release": {"name": "nois"}}, "unknown release.name 'nois'.*noise"),
    ],
)
def test_impossible_methods_are_refused_before_anything_is_written(prepared, tmp_path, sections, message):
    with pytest.raises(RecipeError, match=message):
        train(make_recipe({**TINY, **sections}), prepared, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_every_adversary_has_its_own_columns(prepared, tmp_path):
    extra = [{"name": "grl", "target": "sex", "strength": 0.2, "hidden": 8}, {"name": "hsic", "strength": 1.0}]
    recipe = make_recipe({**TINY, "extra_adversaries": extra, "train": {"epochs": 1, "batch_size": 8}})
    (row,) = train(recipe, prepared, tmp_path / "run", device="cpu").model_specs[0].metrics()
    assert row["adversary_loss_uninformed"] == pytest.approx(np.log(3), rel=1e-4)
    assert row["adversary_2_loss_uninformed"] == pytest.approx(np.log(2), rel=1e-4)
    assert "adversary_3_accuracy" not in row and row["adversary_3_gradient"] > 0 < row["lambda_3"]


@pytest.mark.parametrize("clip", [0, 5])
def test_a_training_that_exploded_is_an_error_and_not_a_success(clip, prepared, tmp_path, capsys):
    """All losses are finite: with the largest learning rate, the network answers at random with great confidence."""
    recipe = {**TINY, "train": {**TINY["train"], "learning_rate": 10.0, "gradient_clip": clip}}
    (tmp_path / "recipe.toml").write_text(write_toml(make_recipe(recipe)))
    command = ["train", tmp_path / "recipe.toml", "--data", prepared.folder, "--out", tmp_path / "run", "--device", "cpu"]
    assert siser([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    assert "fold fixed: training diverged (emotion loss " in error and "classifier that knows nothing has 1.10" in error
    assert "lower train.learning_rate (10.0)" in error
    assert not Run.open(tmp_path / "run").model_specs[0].done


@pytest.mark.parametrize("name", ["audio.i16", "f0.f32"])
def test_training_checks_the_corpus_before_it_writes_anything(name, prepared_f0, tmp_path, capsys):
    data = shutil.copytree(prepared_f0.folder, tmp_path / "data")
    content = bytearray((data / name).read_bytes())
    content[len(content) // 2] ^= 1
    (data / name).write_bytes(content)
    commands = [f"train default --data {data}", *[f"baseline {data}"] * (name == "audio.i16")]
    for command in commands:
        assert siser(f"{command} --set split.test=['05'] --set split.scheme=fixed --out {tmp_path / 'out'}".split()) == 2
        assert name in (error := capsys.readouterr().err) and "changed" in error
    assert not (tmp_path / "out").exists()


def test_a_diverging_training_raises_an_error(prepared, tiny, tmp_path):
    class Exploding(GradientReversal):
        def forward(self, embedding, batch, progress):
            return super().forward(embedding, batch, progress) * float("inf")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(adversary_step.ADVERSARIES, "grl", Exploding)
        with pytest.raises(RunError, match="diverged in epoch 1 .*lower train.learning_rate"):
            train(tiny, prepared, tmp_path / "run", device="cpu")
    assert not Run.open(tmp_path / "run").model_specs[0].done


def test_class_weights_are_inverse_frequencies():
    weight = class_weights(torch.tensor([0.75, 0.25, 0.0]))
    assert torch.allclose(weight, torch.tensor([4 / 6, 2.0, 0.0]))


def test_a_label_map_applies_to_training_and_evaluation_and_is_stored(prepared, tmp_path):
    recipe = make_recipe({**TINY, "labels": {"map": {"rising": "moving", "falling": "moving", "level": "still"}}})
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    record = json.loads((run.folder / "split.json").read_text())
    assert record["labels"]["merged"] == {"falling": ["moving", 24], "rising": ["moving", 24], "level": ["still", 24]}
    assert {utterance.emotion for utterance in run.open_data().utterances} == {"moving", "still"}
    assert load_model(run.model_specs[0].folder).labels == ("moving", "still")
    again = train(recipe, prepared, tmp_path / "again", device="cpu", jobs=2)
    assert all(torch.equal(weights(run)[name], tensor) for name, tensor in weights(again).items())
    unmapped = train(make_recipe(TINY), prepared, tmp_path / "unmapped", device="cpu")
    assert load_model(unmapped.model_specs[0].folder).labels == ("falling", "level", "rising")
    dropping = make_recipe({**TINY, "labels": {"map": {"rising": "up", "falling": "down"}}})
    assert len(prepared.labelled(dropping.labels.map).utterances) == 48


@pytest.mark.parametrize("column, classes", [("sex", 2), ("speaker", 3)])
def test_any_manifest_column_can_be_the_adversarys_target(prepared, tmp_path, monkeypatch, column, classes):
    target_counts = []
    monkeypatch.setitem(
        adversary_step.ADVERSARIES, "grl", lambda *arguments: target_counts.append(arguments[1]) or GradientReversal(*arguments)
    )
    recipe = make_recipe({**TINY, "adversary": {"hidden": 8, "target": column}, "train": {"epochs": 1, "batch_size": 8}})
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    rows = run.model_specs[0].metrics()
    assert rows[0]["adversary_loss_uninformed"] == pytest.approx(np.log(classes), rel=1e-4)
    assert target_counts[-1] == classes


@pytest.mark.parametrize(
    "column, message",
    [
        ("corpus", r"fold fixed trains on one corpus only \(corpus\)"),
        ("session", "30 training utterances of fold fixed have no session"),
    ],
)
def test_an_empty_or_constant_target_is_refused_before_anything_is_written(prepared, tmp_path, column, message):
    with pytest.raises(RecipeError, match=message):
        train(make_recipe({**TINY, "adversary": {"target": column}}), prepared, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "table, message",
    [
        ({"target": "corpus"}, r"^extra_adversaries\.1\.target = corpus: fold fixed trains on one corpus only"),
        ({"name": "hsci"}, r"unknown extra_adversaries\.1\.name 'hsci', did you mean 'hsic'"),
        (
            {"name": "hsic", "input": "frames"},
            r'extra_adversaries\.1\.input = "frames": does nothing with extra_adversaries\.1\.name = "hsic"',
        ),
    ],
)
def test_an_error_in_an_extra_adversary_names_its_table(prepared, tmp_path, table, message):
    with pytest.raises(RecipeError, match=message):
        train(make_recipe({**TINY, "extra_adversaries": [{}, table]}), prepared, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_text_folds_train_and_test_on_different_texts(prepared, tmp_path):
    recipe = make_recipe({**TINY, "split": {**TINY["split"], "text_folds": 2}, "train": {"epochs": 1, "batch_size": 8}})
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    assert [split.name for split in run.splits] == ["fixed, texts 1", "fixed, texts 2"] and run.all_models() == run.model_specs
    assert Run.open(run.folder).splits == run.splits


def test_a_run_without_text_folds_of_an_earlier_version_opens(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    without_hashes(tmp_path / "run")
    path = tmp_path / "run" / "split.json"
    record = json.loads(path.read_text())
    for fold in record["folds"]:
        del fold["texts"]
    del record["labels"]
    path.write_text(json.dumps(record))
    assert Run.open(tmp_path / "run").splits == trained.splits


def test_soft_cross_entropy_equals_torch_for_single_labels():
    torch.manual_seed(0)
    logits, labels, weight = torch.randn(9, 4), torch.randint(4, (9,)), torch.tensor([0.5, 1.0, 2.0, 0.7])
    loss = soft_cross_entropy(logits, F.one_hot(labels, 4).float(), weight, 0.1)
    assert torch.allclose(loss, F.cross_entropy(logits, labels, weight, label_smoothing=0.1))
    mixed = soft_cross_entropy(logits[:1], torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.ones(4), 0.0)
    assert torch.allclose(mixed, -logits[:1].log_softmax(dim=1)[0, :2].mean())


@pytest.mark.parametrize("name", LEARNING_RATE_SCHEDULES)
def test_schedules_never_exceed_the_peak_and_decay_unless_constant(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, rates = LEARNING_RATE_SCHEDULES[name](optimizer, 40), []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.5, rel=0.01)
    assert rates == [0.5] * 40 if name == "constant" else rates[-1] < 0.01
    assert (rates[0] < 0.1) == (name == "one-cycle")


def test_patience_stops_a_training_that_no_longer_improves(prepared, tmp_path, monkeypatch):
    scores = iter([(1.0, 0.5), (1.0, 0.6), (0.9, 0.6), (1.1, 0.6), (1.0, 0.5), (0.1, 0.9)])  # the third is better by its loss
    monkeypatch.setattr(trainer, "score", lambda model, clips: next(scores))
    recipe = make_recipe({**TINY, "train": {"epochs": 12, "batch_size": 8, "patience": 2}})
    rows = train(recipe, prepared, tmp_path / "run", device="cpu").model_specs[0].metrics()
    assert [row["best"] for row in rows] == [1, 1, 1, 0, 0]
    assert not stops_early([], 2) and not stops_early([{"best": 1}, {"best": 0}, {"best": 0}], 0)


def test_a_model_records_device_precision_and_processes(prepared, tiny, trained, tmp_path):
    assert trained.model_specs[0].trained["device"] == "cpu" and trained.model_specs[0].trained["processes"] == 1
    assert trained.model_specs[0].trained["precision"] == choose_precision("auto", "cpu")
    bfloat16 = train(make_recipe(TINY, ["train.precision=bfloat16", "train.epochs=1"]), prepared, tmp_path / "run", device="cpu")
    assert bfloat16.model_specs[0].trained["precision"] == "bfloat16"


def test_auto_precision_is_bfloat16_where_the_cpu_has_units_for_it(monkeypatch):
    for has_amx, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has_amx=has_amx: {"amx_bf16": has_amx}, raising=False)
        assert choose_precision("auto", "cpu") == precision and choose_precision("float32", "cpu") == "float32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision("auto", "cpu") == "float32"


def test_gradient_norms_of_emotion_and_adversary_are_measured_separately(prepared, tmp_path):
    """The adversary's gradient has the factor lambda; the emotion's has not."""
    rows = {}
    for strength in (0.0, 0.5):
        recipe = make_recipe({**TINY, "adversary": {"hidden": 8, "strength": strength}, "train": {"epochs": 1, "batch_size": 15}})
        rows[strength] = train(recipe, prepared, tmp_path / str(strength), device="cpu").model_specs[0].metrics()[0]
    assert rows[0.0]["adversary_gradient"] == 0 < rows[0.5]["adversary_gradient"]
    assert rows[0.5]["emotion_gradient"] == pytest.approx(rows[0.0]["emotion_gradient"], rel=0.2)


@pytest.mark.parametrize("name", ["grl", "hsic"])
def test_balanced_gradients_have_the_requested_ratio(prepared, tmp_path, name):
    """The ratio holds in every step, whatever the losses are, so it holds for the epoch's root mean squares too."""
    for balance in (True, False):
        adversary = {"name": name, "strength": 0.5, "schedule": "constant", "balance_gradients": balance}
        adversary |= {"hidden": 8} if name == "grl" else {}
        run = train(make_recipe({**TINY, "adversary": adversary}), prepared, tmp_path / str(balance), device="cpu")
        shares = [row["adversary_gradient"] / row["emotion_gradient"] for row in run.model_specs[0].metrics()]
        assert all(share == pytest.approx(0.5, rel=1e-3) for share in shares) == balance


def test_the_phases_of_an_epoch_add_up_to_its_seconds(trained):
    for row in trained.model_specs[0].metrics():
        parts = {name: value for name, value in row.items() if name.startswith("seconds_") and name != "seconds_cpu"}
        assert len(parts) == 7 and sum(parts.values()) == pytest.approx(row["seconds"], rel=1e-3)
        assert all(parts[f"seconds_{part}"] > 0 for part in ("data", "features", "network", "update", "dev"))


def test_streamed_and_cached_log_mels_train_the_same_model(prepared, tmp_path):
    rows = []
    for gigabytes in (1.0, 0.0):
        recipe = make_recipe(SHORT, [f"train.cache_gb={gigabytes}", "augment.concatenate=0.3", "augment.mixup_any_emotion=0.3"])
        rows.append(train(recipe, prepared, tmp_path / str(gigabytes), device="cpu").model_specs[0].metrics()[-1])
    for name in ("emotion_loss", "adversary_loss", "dev_loss"):
        assert rows[0][name] == pytest.approx(rows[1][name], abs=1e-3)


def test_the_moving_average_decays_faster_in_the_first_steps():
    """After n steps from 0 towards weights of 1, the remaining difference is the product of the decays."""
    average, missing = [torch.zeros(1)], 1.0
    for number in range(1, 30):
        exponential_average(0.5)(average, [torch.ones(1)], torch.tensor(number))
        missing *= min(0.5, (1 + number) / (10 + number))
        assert average[0].item() == pytest.approx(1 - missing, abs=1e-6)


def test_logit_adjustment_adds_the_log_prior_to_the_logits(prepared):
    """In the loss alone, tau * log(prior) is added to the logits (Menon et al., ICLR 2021)."""
    shares = torch.tensor([0.7, 0.2, 0.1])
    recipe = make_recipe({**TINY, "emotion": {"hidden": 8, "class_weights": False, "logit_adjustment": 2.0, "dropout": 0.0}})
    model, clips = make_model(recipe, prepared)
    objective = Objective(model, recipe.emotion, shares).eval()
    mels, frames = next(clips.source.read([np.arange(6)]))
    emotion = torch.eye(3).repeat(2, 1)
    loss = objective.emotion_loss(objective(mels, frames, emotion, emotion)[0]["logits"], emotion)
    logits = model.from_mels(mels, frames).logits
    expected = F.cross_entropy(logits + 2.0 * shares.log(), emotion.argmax(dim=1), label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_gradients_of_model_and_adversary_are_clipped_separately(prepared, tmp_path, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def recording(parameters, maximum):
        parameters = list(parameters)
        before = clip(parameters, maximum)
        after = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]).norm()
        norms.append((len(parameters), before.item(), after.item()))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", recording)
    train(make_recipe(SHORT, ["train.gradient_clip=0.01"]), prepared, tmp_path / "run", device="cpu")
    assert len({number for number, _, _ in norms}) == 2
    assert all(before > 0.01 and after == pytest.approx(0.01, rel=1e-3) for _, before, after in norms)
