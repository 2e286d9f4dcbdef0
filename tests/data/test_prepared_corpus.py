"""A prepared corpus returns the audio it was made from, lists rejected files, and is never left incomplete."""

import csv
import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import prepare_table

from speaker_invariant_ser import files, json_files
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data import prepare as preparation
from speaker_invariant_ser.data.decoding import workers
from speaker_invariant_ser.data.manifest import write_manifest
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import ManifestError, PreparedCorpusError, RunError, WriteError
from speaker_invariant_ser.files import sha256, writing
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.runs import Run


def test_every_utterance_has_the_samples_of_its_file(folder, prepared):
    assert len(prepared.utterances) == 72 and prepared.settings["counts"]["speakers"] == 6
    for index in (0, 17, 71):
        expected, _ = soundfile.read(folder / prepared.utterances[index].source, dtype="float32")
        assert np.array_equal(prepared.clip(index), expected)


def test_the_result_does_not_depend_on_the_number_of_workers(folder, prepared, tmp_path):
    with workers(3) as pool:
        again = prepare_table(folder / "corpus.csv", tmp_path / "data", pool=pool)
    assert again.settings == prepared.settings


def test_unusable_files_are_listed_with_the_reason_and_the_others_kept(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    source = tmp_path / "copy" / "corpus.csv"
    lines = source.read_text().splitlines()
    (tmp_path / "copy" / lines[2].split(",")[0]).write_bytes(b"")
    (tmp_path / "copy" / lines[3].split(",")[0]).unlink()
    result = prepare_table(source, tmp_path / "data", lambda utterances: utterances[:4])
    rejected = list(csv.DictReader((tmp_path / "data" / "rejected.csv").read_text().splitlines()))
    assert [row["reason"].split(": ")[-1] for row in rejected] == ["is empty (0 bytes)", "no such file"]
    assert len(result.utterances) == result.settings["counts"]["utterances"] == 2 == result.settings["counts"]["rejected"]


def test_only_unusable_files_raise_an_error_and_leave_no_folder(tmp_path):
    (tmp_path / "t.csv").write_text("path,speaker,emotion\na.wav,1,sad\n")
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(PreparedCorpusError, match="none of 1 file"):
        prepare_table(tmp_path / "t.csv", tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "t.csv"]


def test_contradicting_utterances_raise_an_error(folder, tmp_path):
    def contradicting(utterances):
        return [*utterances, replace(utterances[0], source="other.wav")]

    with pytest.raises(ManifestError, match="id 01_rising_a.wav occurs more than once"):
        prepare_table(folder / "corpus.csv", tmp_path / "data", contradicting)


def test_an_existing_folder_is_never_overwritten(folder, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        prepare_table(folder / "corpus.csv", tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_full_disk_is_reported_before_and_while_writing(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
        with pytest.raises(WriteError, match="MB needed, 0.0 MB free"):
            prepare_table(folder / "corpus.csv", tmp_path / "data")

    def full(path, clips):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(preparation, "write_manifest", full)
    with pytest.raises(WriteError, match="no space left"):
        prepare_table(folder / "corpus.csv", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_keeps_the_previous_file(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), writing(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_a_header_that_declares_too_many_samples_raises_an_audio_error(tmp_path, monkeypatch):
    def exhaust_memory(*arguments, **options):
        raise MemoryError

    soundfile.write(tmp_path / "a.flac", np.ones(16000) / 2, 16000)
    monkeypatch.setattr(soundfile.SoundFile, "read", exhaust_memory)
    with pytest.raises(audio.AudioError, match=r"a.flac: 1 s do not fit into memory"):
        audio.read(tmp_path / "a.flac")


def test_prepare_into_a_link_or_an_empty_folder(folder, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    prepare_table(folder / "corpus.csv", tmp_path / "link", lambda utterances: utterances[:3])
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "audio.i16").is_file()


def change(data, **entries):
    """Change entries of prepare.json."""
    settings = json.loads((data / "prepare.json").read_text())
    (data / "prepare.json").write_text(json.dumps({**settings, **entries}))


def test_a_folder_that_is_not_empty_is_not_replaced(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    with pytest.raises(WriteError, match="is not empty"), files.new_folder(tmp_path / "x"):
        pytest.fail("the block must not begin")
    assert (tmp_path / "x" / "mine").exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: (data / "prepare.json").unlink(), "not a prepared corpus .has no prepare.json"),
        (lambda data: (data / "prepare.json").write_text("{"), "not valid JSON"),
        (lambda data: (data / "prepare.json").write_text('{"format": 99}'), "another version"),
        (lambda data: (data / "audio.i16").write_bytes(b"\0\0"), "has 2 bytes"),
        (lambda data: (data / "manifest.csv").write_text("id\n1\n"), "manifest.csv was changed since it was prepared"),
        (lambda data: (data / "prepare.json").write_text('{"format": 2}'), "no hashes"),
        (lambda data: change(data, corpora=[1]), "no hashes or no corpora in it"),
        (lambda data: change(data, corpora=["emodb", "xyz"]), "no utterance of 'xyz', which prepare.json"),
        (lambda data: change(data, note=["a"]), "expected a text as note and 16000 as sample_rate"),
        (lambda data: change(data, sample_rate=8000), "expected a text as note and 16000 as sample_rate"),
        (lambda data: change(data, sha256={"manifest.csv": sha256(data / "manifest.csv")}), "no hashes or no corpora in it"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_opening_a_damaged_corpus_raises_an_error(prepared, tmp_path, damage, message):
    shutil.copytree(prepared.folder, tmp_path / "data")
    damage(tmp_path / "data")
    with pytest.raises(PreparedCorpusError, match=message):
        PreparedCorpus.open(tmp_path / "data")


def test_the_stored_hashes_are_those_of_the_files(prepared):
    import hashlib

    settings = json.loads((prepared.folder / "prepare.json").read_text())
    for name, digest in settings["sha256"].items():
        assert hashlib.sha256((prepared.folder / name).read_bytes()).hexdigest() == digest


def test_pad_fills_shorter_clips_with_zeros():
    batch, samples = audio.pad([np.ones(3, np.float32), np.ones(5, np.float32)])
    assert samples.tolist() == [3, 5] and batch.tolist() == [[1, 1, 1, 0, 0], [1] * 5]


@pytest.mark.parametrize(
    "column, value",
    [
        *[("offset", -16), ("samples", -1), ("samples", 0), ("offset", 3), ("samples", 10), ("end", None), ("offset", None)],
        *[("", 0), ("id", "01_rising_b.wav"), ("corpus", "other")],
    ],
)
def test_a_manifest_with_impossible_positions_an_id_twice_or_another_corpus_is_damaged(prepared, tmp_path, column, value):
    forged = shutil.copytree(prepared.folder, tmp_path / "data")
    first, *others = prepared.utterances
    write_manifest(forged / "manifest.csv", [replace(first, **{column: value}), *others] if column else [])
    settings = json.loads((forged / "prepare.json").read_text())
    settings["sha256"]["manifest.csv"] = sha256(forged / "manifest.csv")
    (forged / "prepare.json").write_text(json.dumps(settings))
    reasons = r"expected \d+ and at least 1; prepare it again|is no number|more than once|corpus 'other', which|no utterance of"
    with pytest.raises(PreparedCorpusError, match=reasons):
        PreparedCorpus.open(forged)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "x" * 101 + " " * 10_000_000], ids=["lists", "tables", "large"]
)
@pytest.mark.parametrize("name", ["prepare.json", "split.json", "model.json"])
def test_json_that_is_nested_deeply_or_too_large_is_damaged(prepared, trained, tmp_path, monkeypatch, name, content):
    if content.startswith("x"):
        monkeypatch.setattr(json_files.read_json, "__defaults__", (100,))  # model.json has a limit of its own
    source = prepared.folder if name == "prepare.json" else trained.folder
    folder = shutil.copytree(source, tmp_path / "copy")
    (path,) = folder.glob(name) if name != "model.json" else list(folder.rglob(name))[:1]
    path.write_text(content)
    opening = {"prepare.json": PreparedCorpus.open, "split.json": Run.open, "model.json": lambda _: load_model(path.parent)}[name]
    with pytest.raises((PreparedCorpusError, RunError), match="is damaged.*(nested too deeply|expected at most (0|10) MB)"):
        opening(folder)
