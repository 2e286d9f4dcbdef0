"""Models of the hub, without a network: a fake download puts an export where huggingface_hub would."""

import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import soundfile
from conftest import RATE, tone
from helpers import fake_hub
from huggingface_hub import errors, utils

import speaker_invariant_ser as siser
from speaker_invariant_ser.cli.app import run as command
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.inference.defaults import DEFAULT_MODEL
from speaker_invariant_ser.inference.exported import open_models, shipped_models


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with an export and other files; the folder is returned, and links stand for files as in the hub's cache."""
    stored, calls = shutil.copytree(shipped_models()[DEFAULT_MODEL], tmp_path / "stored"), []
    for name in ("pytorch_model.bin", "handler.py", "models/1/weights.pt"):
        (stored / name).write_text("code")

    utils.enable_progress_bars()  # other tests may have disabled them

    def snapshot_download(repository, *, revision, allow_patterns, **_):
        calls.append((repository, revision))
        assert utils.are_progress_bars_disabled(), "standard error is no terminal here"
        folder = tmp_path / f"snapshot-{len(calls)}"
        for path in stored.rglob("*"):
            name = path.relative_to(stored)
            if path.is_file() and any(fnmatch(str(name), pattern) for pattern in allow_patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(path)
        folder.mkdir(exist_ok=True)
        return str(folder)

    fake_hub(monkeypatch, snapshot_download)
    return stored, calls


@pytest.mark.parametrize("source", ["hf:owner/emotion-1.0", Path("hf:owner/emotion-1.0@refs/pr/1")])
def test_a_model_of_the_hub_is_opened_and_nothing_else_is_downloaded(repository, source):
    opened = open_models(source)
    files = sorted(str(path.relative_to(opened.folder)) for path in opened.folder.rglob("*") if path.is_file())
    assert not utils.are_progress_bars_disabled()
    assert files == ["README.md", "export.json", "models/1/model.json", "models/1/model.safetensors"]
    assert repository[1] == [("owner/emotion-1.0", None if isinstance(source, str) else "refs/pr/1")]


def test_infer_takes_a_model_of_the_hub(repository, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", tone("01", "rising", "a"), RATE)
    shown = []
    for model in ("hf:owner/emotion", DEFAULT_MODEL):
        assert command(["infer", "--model", model, str(tmp_path / "a.wav"), "--device", "cpu", "--quiet"]) == 0
        shown.append(capsys.readouterr().out.replace(model, "MODEL"))
    assert shown[0] == shown[1]
    assert siser.predict("hf:owner/emotion", tmp_path / "a.wav", device="cpu")[0]["error"] == ""


def test_a_repository_without_an_export_or_with_a_changed_one_is_refused(repository):
    described = repository[0] / "models" / "1" / "model.json"
    described.write_text(described.read_text().replace("happy", "proud"))
    with pytest.raises(RunError, match="model.json was changed since it was exported"):
        open_models("hf:owner/emotion")
    (repository[0] / "export.json").unlink()
    with pytest.raises(RunError, match="^hf:owner/emotion has no export.json: expected a model that `siser export` wrote"):
        open_models("hf:owner/emotion")


HUGE = {"models/1/model.safetensors": 1_500_000_000}
MANY = {f"models/{number}/model.json": 1 for number in range(1001)}


@pytest.mark.parametrize(
    "sizes, message", [(HUGE, "1.5 GB to download, expected at most 1 GB"), (MANY, "1,001 files to download")]
)
def test_more_than_a_model_takes_is_not_downloaded(sizes, message, monkeypatch):
    fake_hub(monkeypatch, lambda *_, **__: pytest.fail("downloaded"), {**sizes, "other.bin": 10**12})
    with pytest.raises(RunError, match=f"^hf:owner/emotion: {message}"):
        open_models("hf:owner/emotion")


@pytest.mark.parametrize("kind", [errors.OfflineModeIsEnabled, ValueError, TypeError])  # also an answer that is not the hub's
def test_without_a_connection_only_the_cache_is_used(kind, repository, monkeypatch):
    def fail(*_, **__):
        raise failure(kind)

    options, download = [], huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "model_info", fail)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *names, **keys: options.append(keys) or download(*names, **keys)
    )
    assert open_models("hf:owner/emotion").models and options[0]["local_files_only"]


def failure(kind: type[Exception], message: str = "what the server says\nin many lines") -> Exception:
    """Return an error of the hub without the answer of a server that its constructor wants."""
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    return error


@pytest.mark.parametrize(
    "kind, message",
    [
        (errors.GatedRepoError, "access is restricted; accept its conditions at https://huggingface.co/owner/emotion, then"),
        (errors.RepositoryNotFoundError, "no such model on the hub, or a private one; check the name"),
        (errors.RevisionNotFoundError, "the repository has no revision v9; expected a branch, a tag or a commit"),
        (errors.HFValidationError, "emotion@v9: what the server says"),
        (errors.LocalEntryNotFoundError, "is not in the cache (what the server says); check the connection, or download it"),
        (errors.HTTPError, "is not in the cache (what the server says); check the connection"),
        (ConnectionError, "is not in the cache (what the server says); check the connection"),
        (ValueError, "is not in the cache: the server's answer cannot be used (what the server says); check the connection"),
        (TypeError, "the server's answer cannot be used"),
    ],
)
def test_what_goes_wrong_with_the_hub_is_one_line(kind, message, monkeypatch, capsys):
    def fail(*_, **__):
        raise failure(kind)

    def not_there(*_, local_files_only, **__):
        assert local_files_only
        raise failure(errors.LocalEntryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "model_info", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    assert command(["infer", "--model", "hf:owner/emotion@v9", "a.wav"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: hf:owner/emotion@v9: ") and message in line


def test_sizes_that_are_none_are_no_reason_to_download(monkeypatch):
    sizes = {"models/1/model.safetensors": 2 * 10**9, "models/2/model.safetensors": -(10**12)}
    fake_hub(monkeypatch, lambda *_, **__: pytest.fail("downloaded"), sizes)
    with pytest.raises(RunError, match="2.0 GB to download"):
        open_models("hf:owner/emotion")


@pytest.mark.parametrize(
    "source", ["hf:emotion", "hf:", "hf:a/b/c", "hf:a/b@", "hf:a/b c", "hf:../b/c", "hf:../b", "hf:a/b@../../c", "hf:a/b@/c"]
)
def test_a_name_that_is_none_is_refused(source):
    with pytest.raises(RunError, match="expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION"):
        open_models(source)


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert command(["infer", "--model", "hf:owner/emotion", "a.wav"]) == 2
    assert 'error: hf:owner/emotion needs huggingface_hub: pip install "speaker-invariant-ser[hub]"' in capsys.readouterr().err
