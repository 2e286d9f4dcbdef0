"""F0 of a prepared corpus: stored in order, resumed to the same bytes, added later without any other change."""

import json

import numpy as np
import pytest
import torch
from conftest import prepare_table
from swift_f0 import SwiftF0

from speaker_invariant_ser.cli.app import run
from speaker_invariant_ser.data.decoding import workers
from speaker_invariant_ser.data.f0 import stored
from speaker_invariant_ser.data.f0.frames import HOP, frames_of
from speaker_invariant_ser.data.f0.stored import F0
from speaker_invariant_ser.data.f0.tracker import BLOCK, TRACKER_VERSION, compute_f0, track_f0
from speaker_invariant_ser.data.prepare import add_f0
from speaker_invariant_ser.data.prepared_corpus import AUDIO, MANIFEST, SETTINGS, PreparedCorpus
from speaker_invariant_ser.errors import PreparedCorpusError


@pytest.fixture
def plain(folder, tmp_path):
    """A corpus without F0, which tests may change."""
    return prepare_table(folder / "corpus.csv", tmp_path / "data")


def contents(folder, names=(AUDIO, MANIFEST, SETTINGS, F0)):
    return {name: (folder / name).read_bytes() for name in names}


def stop_after(monkeypatch, clips):
    """Make the tracker stop after so many utterances, as Ctrl-C would."""
    done = []

    def counted(clip):
        if len(done) == clips:
            raise KeyboardInterrupt
        done.append(clip)
        return compute_f0(clip)

    monkeypatch.setattr(stored, "compute_f0", counted)


def test_f0_of_each_utterance_is_that_of_its_clip(prepared_f0):
    indices = [40, 3, 71, 3]
    batch = prepared_f0.f0_batch(indices)
    for row, index in zip(batch, indices, strict=True):
        expected = compute_f0(prepared_f0.clip(index))
        assert expected.shape == (2, frames_of(prepared_f0.utterances[index].samples))
        assert np.array_equal(row[:, : expected.shape[1]], expected)
        assert not row[:, expected.shape[1] :].any()
    assert (batch[:, 0] > 0).mean() > 0.5, "tones are voiced"


def test_a_label_map_that_drops_utterances_leaves_f0_in_place(prepared_f0):
    fewer = prepared_f0.labelled({"rising": "up", "falling": "down"})
    assert len(fewer.utterances) < len(prepared_f0.utterances)
    last = len(fewer.utterances) - 1
    assert np.array_equal(fewer.f0_batch([last])[0], compute_f0(fewer.clip(last)))


def test_f0_added_later_is_that_of_prepare_and_nothing_else_changes(plain, prepared_f0):
    before = contents(plain.folder, (AUDIO, MANIFEST))
    assert not plain.f0_start
    assert add_f0(plain.folder).f0_start
    assert contents(plain.folder, (AUDIO, MANIFEST)) == before
    assert contents(plain.folder) == contents(prepared_f0.folder)
    assert sorted(path.name for path in plain.folder.iterdir()) == sorted(path.name for path in prepared_f0.folder.iterdir())


def test_processes_in_parallel_give_the_same_bytes(plain, prepared_f0):
    with workers(2) as pool:
        add_f0(plain.folder, pool)
    assert contents(plain.folder) == contents(prepared_f0.folder)


def test_an_interruption_loses_a_chunk_at_most_and_the_next_call_continues(plain, prepared_f0, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 2 * stored.CHUNK + 3)
        add_f0(plain.folder)
    assert not PreparedCorpus.open(plain.folder).f0_start
    (part,) = plain.folder.glob(".f0*.partial")
    part.write_bytes(part.read_bytes() + b"half of an utterance")  # a process that was killed while it wrote
    steps = []
    add_f0(plain.folder, progress=lambda task, done, total: steps.append((task, done, total)))
    assert steps[0] == ("tracking F0 (continued)", 3 * stored.CHUNK, 72)
    assert contents(plain.folder) == contents(prepared_f0.folder)


def test_an_interrupted_prepare_continues_with_f0(folder, tmp_path, prepared_f0, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, stored.CHUNK)
        prepare_table(folder / "corpus.csv", tmp_path / "data", f0=True)
    assert not (tmp_path / "data").exists()
    steps = []
    prepare_table(folder / "corpus.csv", tmp_path / "data", f0=True, progress=lambda *step: steps.append(step))
    assert ("tracking F0 (continued)", 2 * stored.CHUNK, 72) in steps
    assert contents(tmp_path / "data") == contents(prepared_f0.folder)


def test_nothing_is_tracked_again_unless_the_file_was_changed(plain, monkeypatch):
    path = add_f0(plain.folder).folder / F0
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        add_f0(plain.folder)
    path.write_bytes(content[:-4])
    assert not PreparedCorpus.open(plain.folder).f0_start, "of another size: as if there were none"
    path.write_bytes(b"\0" * len(content))
    with pytest.raises(PreparedCorpusError, match=r"changed f0.f32 \(its hash differs\).*siser add-f0"):
        PreparedCorpus.open(plain.folder).require_f0()
    add_f0(plain.folder).require_f0()
    assert path.read_bytes() == content


def test_a_link_planted_for_f0_is_not_written_through(plain, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("old")
    (plain.folder / f".{F0[:-4]}.f32.{TRACKER_VERSION.replace(' ', '-')}.partial").symlink_to(victim)
    add_f0(plain.folder)
    assert victim.read_text() == "old" and not (plain.folder / F0).is_symlink()


def test_a_corpus_without_f0_says_how_to_add_it(prepared):
    with pytest.raises(PreparedCorpusError, match=rf"{prepared.folder} has no F0.*add it: siser add-f0 {prepared.folder}"):
        prepared.f0_batch([0])


def test_the_command_adds_f0_that_training_asks_for(plain, tmp_path, capsys):
    recipe = tmp_path / "prosody.toml"
    recipe.write_text('[features]\nstreams = ["prosody"]\nhop_ms = 16\n[encoder]\nname = "prosody"\n')
    train = ["train", str(recipe), "--data", str(plain.folder), "--out", str(tmp_path / "run")]
    assert run(train) == 2
    assert f"add it: siser add-f0 {plain.folder}" in capsys.readouterr().err
    assert run(["add-f0", str(plain.folder), "--jobs", "1"]) == 0
    assert capsys.readouterr().out == f"F0 of 72 utterances -> {plain.folder / F0}\n"
    assert F0 in json.loads((plain.folder / SETTINGS).read_text())["sha256"]


def test_a_clip_that_was_tracked_before_gets_a_copy_of_the_same_result():
    clip = np.sin(np.arange(4000) / 10).astype(np.float32)
    first = track_f0(clip)
    expected = first.copy()
    first[:] = 0
    assert np.array_equal(track_f0(clip), expected) and expected.any()
    assert not np.array_equal(track_f0(clip[:-300]), expected)


def glide(samples, seed=0):
    """A gliding buzz in noise, with a pause of digital silence."""
    rng, times = np.random.default_rng(seed), np.arange(samples) / 16_000
    phase = 2 * np.pi * np.cumsum(150 + 60 * np.sin(3 * times)) / 16_000
    clip = sum(np.sin(k * phase) / k for k in range(1, 12)) / 4 + 0.01 * rng.standard_normal(samples)
    clip[samples // 3 : samples // 2] = 0
    return clip.astype(np.float32)


@pytest.mark.parametrize("samples", [100, 255, 256, 4_001, 40_000, (BLOCK + 100) * HOP + 3])
def test_f0_is_what_the_package_of_the_weights_computes(samples):
    clip = glide(samples)
    expected = SwiftF0(threads=1).detect(np.pad(clip * np.float32(0.5 / np.abs(clip).max()), (0, HOP)), 16_000)
    f0, confidence = compute_f0(clip)
    voiced = expected.confidence >= 0.5
    assert np.allclose(confidence, expected.confidence, atol=1e-4)
    assert np.allclose(f0[voiced], expected.pitch_hz[voiced], atol=0.01)
    assert samples < 4_000 or (voiced.mean() > 0.5 and not voiced.all())


def test_f0_has_the_same_bits_with_any_number_of_threads():
    alone = compute_f0(glide(40_000))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert np.array_equal(compute_f0(glide(40_000)), alone)
    finally:
        torch.set_num_threads(threads)
