"""Checkpoints that cannot be used: one line with the reason, before anything of them is run."""

import json
import sys
from shutil import copytree

import pytest
import torch
from checkpoints import describe_checkpoint
from helpers import fake_hub
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from speaker_invariant_ser.cli.app import run as command
from speaker_invariant_ser.errors import RecipeError, RunError, SetupError
from speaker_invariant_ser.features.pretrained import checkpoint as module
from speaker_invariant_ser.features.pretrained.backbone import Backbone
from speaker_invariant_ser.features.pretrained.checkpoint import open_checkpoint
from speaker_invariant_ser.features.pretrained.checkpoint_paths import without_path
from speaker_invariant_ser.features.pretrained.source_card import SourceCard, read_source_card
from speaker_invariant_ser.recipe_encoders import PretrainedSettings


def opened(source, **keys):
    return open_checkpoint(PretrainedSettings(source=str(source), **keys))


def test_what_a_checkpoint_is_follows_from_its_files(tmp_path):
    checkpoint = opened(describe_checkpoint(tmp_path / "any", num_hidden_layers=12, hidden_size=768))
    assert (checkpoint.depth, checkpoint.width, checkpoint.shortest) == (12, 768, 400)
    assert [checkpoint.frames_of(samples) for samples in (1, 400, 719, 720, 16_000)] == [1, 1, 1, 2, 49]
    assert checkpoint.layers(()) == tuple(range(13)) and checkpoint.layers((0, 12)) == (0, 12)
    with pytest.raises(RecipeError, match=r"encoder.layers: .*any has layers 0 to 12, and no layer 13"):
        checkpoint.layers((0, 13))


FOLDERS = {
    r"no config\.json; expected a checkpoint": lambda folder: (folder / "config.json").unlink(),
    r"no weights as safetensors .* pickled weights": lambda folder: (folder / "model.safetensors").rename(
        folder / "pytorch_model.bin"
    ),
    r"no preprocessor_config\.json": lambda folder: (folder / "preprocessor_config.json").unlink(),
    r"config\.json is damaged": lambda folder: (folder / "config.json").write_text("{"),
    r"config\.json is damaged: expected a table": lambda folder: (folder / "config.json").write_text("[]"),
}


@pytest.mark.parametrize("message", FOLDERS)
def test_an_incomplete_folder_is_refused(message, tmp_path):
    folder = describe_checkpoint(tmp_path / "any")
    FOLDERS[message](folder)
    with pytest.raises(RecipeError, match=message):
        opened(folder)


CONFIGS = {
    r"model_type = 'bert' is no speech encoder .*config\.json has no conv_kernel": {"model_type": "bert", "conv_kernel": None},
    r"made for audio at 8000 Hz .*expected 16000 Hz": {"rate": 8000},
}


@pytest.mark.parametrize("message", CONFIGS)
def test_another_architecture_or_rate_is_refused(message, tmp_path):
    folder, config = tmp_path / "any", CONFIGS[message]
    describe_checkpoint(folder, **config)
    table = {key: value for key, value in json.loads((folder / "config.json").read_text()).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(table))
    with pytest.raises(RecipeError, match=message):
        opened(folder)


@pytest.mark.parametrize(
    "source, revision, message",
    [
        (
            "no/such/folder",
            "",
            "encoder.source = no/such/folder: no such folder; expected one, here or",
        ),
        ("..", "main", "encoder.revision = main: .. is a folder, which has no revisions"),
    ],
)
def test_a_source_that_is_none_is_refused(source, revision, message):
    with pytest.raises(RecipeError, match=message):
        opened(source, revision=revision)


HUB = {
    "access is restricted; accept its conditions at https://huggingface.co/owner/gated": errors.GatedRepoError,
    "no such model on the hub": errors.RepositoryNotFoundError,
    "the repository has no revision v2": errors.RevisionNotFoundError,
    "cannot be downloaded and is not in the cache .*check the connection": errors.LocalEntryNotFoundError,
}


@pytest.mark.parametrize("message", HUB)
def test_a_repository_that_cannot_be_downloaded_is_refused(message, monkeypatch):
    def fail(repository, **options):
        error = HUB[message]
        raise error.__new__(error, "any")

    module.downloaded.cache_clear()
    fake_hub(monkeypatch, fail)
    with pytest.raises(RunError, match=f"encoder.source = owner/gated: {message}"):
        opened("owner/gated", revision="v2")


def test_an_encoder_that_is_too_large_is_not_downloaded(monkeypatch):
    module.downloaded.cache_clear()
    fake_hub(monkeypatch, lambda *_, **__: pytest.fail("downloaded"), {"model.safetensors": 25 * 10**9})
    with pytest.raises(RunError, match="encoder.source = owner/huge: 25.0 GB to download, expected at most 20 GB"):
        opened("owner/huge")


def test_a_repository_is_downloaded_once_and_its_commit_kept(monkeypatch, tmp_path):
    calls, folder = [], describe_checkpoint(tmp_path / ("c" * 40))
    module.downloaded.cache_clear()
    fake_hub(monkeypatch, lambda repository, **options: calls.append((repository, options)) or str(folder))
    settings = module.pinned(PretrainedSettings(source="owner/name"))
    assert (settings.source, settings.revision) == ("owner/name", "c" * 40) and opened("owner/name").commit == "c" * 40
    ((repository, options),) = calls
    assert (repository, options["revision"]) == ("owner/name", None)
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in options["allow_patterns"])


def test_what_is_resumed_keeps_its_commit_and_asks_for_no_other(monkeypatch, tmp_path):
    folders = {name: describe_checkpoint(tmp_path / name) for name in ("a" * 40, "b" * 40)}
    asked = []
    module.downloaded.cache_clear()
    fake_hub(monkeypatch, lambda _, revision, **__: asked.append(revision) or str(folders[revision or "b" * 40]))
    held = PretrainedSettings(source="owner/name", revision="a" * 40)
    assert module.pinned(PretrainedSettings(source="owner/name"), held).revision == "a" * 40 and asked == ["a" * 40]
    for settings, other in (({"source": "owner/name"}, None), ({"source": "owner/name", "revision": "b" * 40}, held)):
        assert module.pinned(PretrainedSettings(**settings), other).revision == "b" * 40
    assert module.pinned(PretrainedSettings(source="owner/name"), held.model_copy(update={"source": "a/b"})).revision == "b" * 40


def test_a_folder_is_kept_by_its_name_and_found_in_the_places_that_a_variable_names(monkeypatch, tmp_path):
    folder = describe_checkpoint(tmp_path / "home" / "encoders" / "any")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = module.pinned(PretrainedSettings(source=str(folder)))
    assert settings.source == "~/encoders/any" and settings == module.pinned(PretrainedSettings(source=str(folder)), settings)
    kept = without_path(settings)
    assert kept == settings.model_copy(update={"source": "any"}) and without_path(kept) == kept
    for other in (PretrainedSettings(source="owner/name"), PretrainedSettings(source="a/b", revision="c", sha256="0" * 64)):
        assert without_path(other) == other, "a repository"
    with pytest.raises(RecipeError, match="encoder.source = any: no such folder; expected one, here or in a"):
        open_checkpoint(kept)
    monkeypatch.setenv("SISER_ENCODERS", f"{tmp_path}:{folder.parent}")
    assert open_checkpoint(kept).folder == folder
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(RecipeError, match="encoder.source = any: its files .* are not those that the model was trained with"):
        open_checkpoint(kept)


def test_without_transformers_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SetupError, match=r'pip install "speaker-invariant-ser\[pretrained\]"'):
        Backbone(opened(describe_checkpoint(tmp_path / "any")))


def test_damaged_incomplete_and_foreign_weights_are_refused(checkpoint, tmp_path):
    with pytest.raises(RecipeError, match=r"any: cannot be loaded \("):
        Backbone(opened(describe_checkpoint(tmp_path / "any")))
    own = describe_checkpoint(tmp_path / "own", model_type="mert_model", auto_map={"AutoModel": "modeling.MERTModel"})
    (own / "modeling.py").write_text("raise SystemExit('this code was run')")
    with pytest.raises(RecipeError, match=r"model_type = mert_model is none of transformers .* never run \(trust_remote_code\)"):
        Backbone(opened(own))
    weights = load_file(checkpoint("wavlm") / "model.safetensors")
    part = describe_checkpoint(tmp_path / "part")
    for name in ("config.json", "preprocessor_config.json"):
        (part / name).write_bytes((checkpoint("wavlm") / name).read_bytes())
    save_file({name: tensor for name, tensor in weights.items() if "layers.1" not in name}, part / "model.safetensors")
    with pytest.raises(RecipeError, match=r"its weights are incomplete or of another network \(encoder\.layers\.1\."):
        Backbone(opened(part))
    config = json.loads((part / "config.json").read_text())
    (part / "config.json").write_text(json.dumps({**config, "model_type": "hubert"}))  # which lacks WavLM's position weights
    save_file(weights | {"lm_head.weight": torch.zeros(2, 16)}, part / "model.safetensors")
    with pytest.raises(RecipeError, match=r"of another network \(encoder\.layers\.0\.attention\.gru_rel.*expected all of hubert"):
        Backbone(opened(part))
    (part / "config.json").write_text(json.dumps(config))
    assert Backbone(opened(part)), "the weights of a classifier are left out"


def test_nothing_beside_the_hashed_files_changes_an_encoder(checkpoint, tmp_path):
    folder, wave = (
        copytree(checkpoint("wavlm"), tmp_path / "any"),
        torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)),
    )
    expected = Backbone(opened(folder))(wave, (2,))
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000, "do_normalize": False}
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    assert torch.equal(Backbone(opened(folder))(wave, (2,)), expected)
    index, elsewhere = folder / "model.safetensors.index.json", str(checkpoint("wavlm") / "model.safetensors")
    for content, message in (({"weight_map": {"a": elsewhere}}, f"names {elsewhere}, which is none of its"), ({}, "is damaged")):
        index.write_text(json.dumps(content))
        with pytest.raises(RecipeError, match=message):
            opened(folder)
    index.unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(RecipeError, match="any: holds an adapter .* not applied; merge it into the weights"):
        opened(folder)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("attn_implementation", "owner/kernel", "attn_implementation = 'owner/kernel', which may be code of the hub"),
        ("quantization_config", {"quant_method": "fp8"}, "its weights are quantised"),
        ("num_hidden_layers", 10**9, "has no num_hidden_layers of at most 1,000"),
        ("num_labels", 10**9, "has no num_labels of at most 100,000"),
        ("max_bucket_distance", 0, r"cannot be used \(math domain error"),
        ("conv_depthwise_layers", 10**9, "has no conv_depthwise_layers of at most 1,000"),
        ("hidden_size", 1.5, r"cannot be loaded \(.*hidden_size"),
        ("conv_dim", [8] * 3, r"cannot be loaded \("),
    ],
)
def test_a_configuration_with_code_or_impossible_sizes_is_refused(key, value, message, checkpoint, tmp_path):
    folder = copytree(checkpoint("wavlm"), tmp_path / "any")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(RecipeError, match=message):
        Backbone(opened(folder))(torch.zeros(1, 8000), (2,))


def test_train_names_a_wrong_source_and_methods_that_need_log_mels(prepared, tmp_path, capsys):
    source = describe_checkpoint(tmp_path / "any")
    arguments = ["train", "pretrained", "--data", str(prepared.folder), "--out", str(tmp_path / "run"), "--quiet", "--yes"]
    wrong = {
        "encoder.source=nowhere": "encoder.source = nowhere: no such folder",
        "augment.tempo=0.1": "augment.tempo = 0.1 with encoder.name = pretrained: augmentation is defined for log-mels",
        "perturb.name=vat": "perturb.name = vat with encoder.name = pretrained: perturbations are defined for log-mels only",
        "features.normalise=speaker": "features.normalise = speaker with encoder.name = pretrained",
        "encoder.layers=[2, 1]": "encoder.layers = [2, 1]: expected each layer once, in ascending order",
        "encoder.layers=[3]": "has layers 0 to 2, and no layer 3",
        'features.streams=["log-mel"]': 'encoder.name = pretrained with features.streams = ["log-mel"]: expected',
    }
    for override, message in wrong.items():
        assert command([*arguments, "--set", f"encoder.source={source}", "--set", override]) == 2
        error = capsys.readouterr().err
        assert message in error and error.splitlines()[-1].startswith("error:") and not (tmp_path / "run").exists()


STATED = {
    "license: mit\ndatasets:\n- a/b\n- c": ("mit", "a/b, c"),
    "license: other\nlicense_name: own\ndatasets: a": ("own", "a"),
    "license: other": ("other", "not stated"),
    "license: [mit, {a: b}, 3]\ndatasets: {a: b}": ("mit", "not stated"),
    f"license: {'x' * 200}": ("not stated", "not stated"),
    "license: [": ("not stated", "not stated"),
    "- a list": ("not stated", "not stated"),
    "a: " + "[" * 1500: ("not stated", "not stated"),
}


@pytest.mark.parametrize("metadata", STATED, ids=range(len(STATED)))
def test_licence_and_data_of_a_checkpoint_are_what_its_readme_states(metadata, tmp_path):
    folder = describe_checkpoint(tmp_path / "any")
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# Any\nlicense: gpl\n")
    stated = read_source_card(PretrainedSettings(source=str(folder)))
    assert (stated.licence, stated.data) == STATED[metadata]


def test_a_checkpoint_that_is_not_there_or_has_no_readme_states_nothing(tmp_path):
    for source in (tmp_path / "none", describe_checkpoint(tmp_path / "any")):
        assert read_source_card(PretrainedSettings(source=str(source))) == SourceCard("not stated", "not stated")
