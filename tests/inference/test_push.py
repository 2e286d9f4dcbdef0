"""Uploads to the hub, without a network: a fake takes the place of huggingface_hub's client."""

import json
import shutil
import sys
from inspect import signature
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from conftest import RATE, tone
from helpers import fake_hub, occurrences
from huggingface_hub import errors

import speaker_invariant_ser as siser
from speaker_invariant_ser.cli.app import run as command
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.inference.classifier import Classifier
from speaker_invariant_ser.inference.exported import Export, shipped_models, write_index
from speaker_invariant_ser.inference.onnx.model import OnnxModel
from speaker_invariant_ser.inference.upload import require_complete

STATED = ["--licence", "mit", "--training-data", "Tones, made by a program, public domain."]


def names_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(monkeypatch):
    """A fake client; the calls are returned, and what goes wrong is chosen by `fails`."""
    hub = SimpleNamespace(calls=[], files={}, fails=None)

    real = huggingface_hub.HfApi

    class Client:
        def __init__(self, token, library_name):
            hub.calls.append(("token", token))

        def create_repo(self, name, **options):
            signature(real.create_repo).bind(self, name, **options)
            hub.calls.append(("create_repo", name, options))
            if hub.fails:
                raise hub.fails

        def create_branch(self, name, **options):
            signature(real.create_branch).bind(self, name, **options)
            hub.calls.append(("create_branch", name, options))

        def upload_folder(self, **options):
            signature(real.upload_folder).bind(self, **options)
            hub.files = names_below(options["folder_path"])
            hub.calls.append(("upload_folder", options))
            return SimpleNamespace(commit_url="https://huggingface.co/owner/name/commit/c")

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return hub


def test_what_is_uploaded_is_what_a_dry_run_writes_and_names_nobody(trained, hub, tmp_path, capsys):
    dry = tmp_path / "dry"
    assert command(["push", str(trained.folder), "owner/name", *STATED, "--dry-run", str(dry)]) == 0
    assert hub.calls == [] and "1 model -> " in capsys.readouterr().out
    assert set(names_below(dry)) == {"README.md", "export.json", "models/1/model.json", "models/1/model.safetensors"}
    card = (dry / "README.md").read_text()
    assert "# name\n" in card and 'license: "mit"' in card and "Tones, made by a program" in card and "not known" not in card
    assert occurrences(dry, f"{trained.folder}|{trained.data}|_level_|held_out") == []
    assert command(["push", str(trained.folder), "owner/name", *STATED]) == 0
    assert hub.files == names_below(dry)
    created, uploaded = hub.calls[1:]
    assert created == ("create_repo", "owner/name", {"private": True, "exist_ok": False})
    assert uploaded[1]["revision"] is None and "models/*/model.json" in uploaded[1]["delete_patterns"]
    assert "siser infer --model hf:owner/name FILES" in capsys.readouterr().out

    options = ["--public", "--overwrite", "--revision", "v2", "--message", "better", "--dry-run", str(dry)]
    assert command(["push", str(dry), "owner/name", *options[:-2]]) == 0
    assert hub.files == names_below(dry), "an export is uploaded as it is"
    created, branch, uploaded = hub.calls[-3:]
    assert created[2] == {"private": False, "exist_ok": True} and branch[2] == {"branch": "v2", "exist_ok": True}
    assert uploaded[1]["revision"] == "v2" and uploaded[1]["commit_message"] == "better"
    assert "--model hf:owner/name@v2" in capsys.readouterr().out


def test_no_file_outside_an_export_is_uploaded(hub, tmp_path, capsys):
    secret = tmp_path / "token"
    secret.write_text("secret")
    (tmp_path / "notes.md").write_text("---\nlicense: mit\n---\n## Training data\nsecret\n")

    def link(folder, name, target):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    def forget_hashes(folder):
        path = folder / "models/1/model.json"
        described = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
        path.write_text(json.dumps(described))
        write_index(folder)

    for number, (change, message) in enumerate(
        (
            (lambda folder: link(folder, "models/1/model.safetensors", secret), "damaged or was changed since training"),
            (lambda folder: [forget_hashes(folder), link(folder, "models/1/model.safetensors", secret)], "is a link or missing"),
            (lambda folder: link(folder, "README.md", tmp_path / "notes.md"), "README.md is a link or missing"),
        )
    ):
        forged = shutil.copytree(shipped_models()["emodb-five"], tmp_path / str(number))
        change(forged)
        assert command(["push", str(forged), "owner/name"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line and hub.calls == []

    forged = shutil.copytree(shipped_models()["emodb-five"], tmp_path / "named")
    (forged / "models" / "1").rename(forged / "models" / "Anna")
    record = json.loads((forged / "export.json").read_text())
    models = {"models/Anna": record["models"]["models/1"]}
    (forged / "export.json").write_text(json.dumps({**record, "models": models, "note": "/home/anna"}))
    assert command(["push", str(forged), "owner/name"]) == 0
    assert "models/1/model.json" in hub.files and not any(b"nna" in content for content in hub.files.values())


REFUSED = {
    "its card lacks the licence of the weights (--licence, such as cc0-1.0) and the training data (--training-data: ": [],
    "its card lacks the licence of the weights (--licence, such as cc0-1.0)": STATED[2:],
    "its card lacks the training data (--training-data: what was recorded, by whom, and under which licence)": STATED[:2],
}


@pytest.mark.parametrize("message", REFUSED)
def test_nothing_is_uploaded_without_licence_or_training_data(message, trained, hub, tmp_path, capsys):
    for target in ([], ["--dry-run", str(tmp_path / "dry")]):
        assert command(["push", str(trained.folder), "owner/name", *REFUSED[message], *target]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and f"nothing was uploaded, because {message}" in line
    assert hub.calls == [] and not (tmp_path / "dry").exists()


def test_a_card_must_have_its_metadata_and_its_section():
    card = (shipped_models()["emodb-five"] / "README.md").read_text()
    require_complete(card, "any")
    require_complete(card.replace('license: "', 'license: "other"\nlicense_name: "'), "any")
    for old, new in (("license:", "licence:"), ("---", "***"), ("## Training data", "## Data"), (card, "")):
        with pytest.raises(RunError, match="nothing was uploaded, because its card lacks"):
            require_complete(card.replace(old, new), "any")


def of_kind(kind, status=None):
    error = kind.__new__(kind)
    Exception.__init__(error, "what the server says\nin many lines")
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize(
    "kind, status, message",
    [
        (errors.HfHubHTTPError, 401, "not logged in, or the token is not valid; log in with `hf auth login` (what the server"),
        (errors.HfHubHTTPError, 403, "you may not write there; check the name, or log in with a token that may write"),
        (errors.HfHubHTTPError, 409, "exists already; choose another name, or add a commit to it with --overwrite"),
        (errors.HfHubHTTPError, 500, "cannot be uploaded (what the server says); check the connection"),
        (errors.GatedRepoError, 403, "access is restricted; accept its conditions at https://huggingface.co/owner/name"),
        (errors.RepositoryNotFoundError, 404, "no such model on the hub, or a private one; check the name"),
        (errors.HFValidationError, None, "owner/name: what the server says"),
        (errors.OfflineModeIsEnabled, None, "cannot be uploaded (what the server says); check the connection"),
    ],
)
def test_what_goes_wrong_with_an_upload_is_one_line(kind, status, message, hub, capsys):
    hub.fails = of_kind(kind, status)
    assert command(["push", "emodb-five", "owner/name"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: owner/name: ") and message in line and hub.files == {}


def test_what_cannot_be_uploaded_is_refused(trained, hub, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for words, message in (
        (["emodb-five", "name"], "error: name: expected OWNER/NAME of the Hugging Face Hub"),
        (["emodb-five", "a/../b"], "error: a/../b: expected OWNER/NAME"),
        (["emodb-five", "a/b", "--licence", "mit"], "--training-data are for the card of a run; that of emodb-five is written"),
        (["emodb-five", "a/b", "--dry-run", str(tmp_path / "full")], "exists already: choose another --dry-run"),
        ([str(trained.folder / "folds" / "fixed"), "a/b"], "fixed has no README.md: expected a run, or a folder"),
        (["model.onnx", "a/b"], "model.onnx: an ONNX file has no card"),
    ):
        assert command(["push", *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert command(["push", "emodb-five", "owner/name"]) == 2
    assert "error: owner/name: not logged in" in capsys.readouterr().err and hub.calls == []
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert command(["push", "emodb-five", "owner/name"]) == 2
    assert 'error: owner/name needs huggingface_hub: pip install "speaker-invariant-ser[hub]"' in capsys.readouterr().err


def test_a_classifier_is_saved_loaded_and_uploaded_by_the_conventions_of_the_hub(hub, tmp_path, monkeypatch):
    classifier, wave = siser.load_model(), tone("01", "rising", "a")
    assert classifier.save_pretrained(tmp_path / "saved") is None
    again = Classifier.from_pretrained(tmp_path / "saved")
    assert Export.open(tmp_path / "saved").corpora == Export.open(classifier.card.parent).corpora != ()
    assert again.predict(wave, RATE) == classifier.predict(wave, RATE) and again.card.read_text() == classifier.card.read_text()

    calls = []
    fake_hub(monkeypatch, lambda name, **options: calls.append((name, options)) or str(tmp_path / "saved"))
    options = {"token": "mine", "cache_dir": tmp_path, "force_download": True}
    loaded = Classifier.from_pretrained("owner/name", revision="v1", **options)
    assert loaded.name == "hf:owner/name@v1" and np.array_equal(loaded.embed(wave, RATE), classifier.embed(wave, RATE))
    ((name, given),) = calls
    assert (name, given["revision"]) == ("owner/name", "v1") and {key: given[key] for key in options} == options
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: pytest.fail("the cache is enough"))
    assert Classifier.from_pretrained("owner/name", local_files_only=True).labels == classifier.labels
    assert calls[-1][1]["local_files_only"] is True
    for source in (tmp_path / "saved", "hf:owner/name@v1"):
        with pytest.raises(RunError, match="revision v2: .* is no repository without one; leave it out"):
            Classifier.from_pretrained(source, revision="v2")

    assert classifier.push_to_hub("owner/name", branch="v1", token="mine").endswith("/commit/c")
    assert hub.calls[0] == ("token", "mine") and hub.calls[1][2] == {"private": True, "exist_ok": True}
    assert hub.files == names_below(tmp_path / "saved")
    address = classifier.save_pretrained(tmp_path / "other", repo_id="owner/name", push_to_hub=True, private=False)
    assert address.endswith("/commit/c") and hub.calls[-2][2]["private"] is False


def test_a_classifier_without_a_card_or_weights_is_not_uploaded(trained, hub, tmp_path):
    single = siser.load_model(trained.folder)
    with pytest.raises(RunError, match="has no card, without which nothing is uploaded: use `siser push` with its run"):
        single.push_to_hub("owner/name")
    single.save_pretrained(tmp_path / "saved")
    assert siser.load_model(tmp_path / "saved").card is None
    (tmp_path / "private").write_text("a key")
    (tmp_path / "saved" / "README.md").symlink_to(tmp_path / "private")
    with pytest.raises(RunError, match="README.md is a link or missing"):
        siser.load_model(tmp_path / "saved").save_pretrained(tmp_path / "passed on")
    single.models, single.name = [OnnxModel.__new__(OnnxModel)], "model.onnx"
    with pytest.raises(RunError, match="model.onnx is an ONNX file, which has no weights to save"):
        single.save_pretrained(tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists() and hub.calls == []
