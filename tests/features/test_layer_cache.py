"""The cache of a frozen encoder's layers: the same bytes after any interruption, and never those of another checkpoint."""

import json
import os
import shutil
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from checkpoints import describe_checkpoint

from speaker_invariant_ser.errors import PreparedCorpusError, RecipeError, SerError, WriteError
from speaker_invariant_ser.features.pretrained import front, layer_cache
from speaker_invariant_ser.features.pretrained.checkpoint import open_checkpoint, pinned
from speaker_invariant_ser.files import locked, partial_of
from speaker_invariant_ser.recipe_encoders import PretrainedSettings
from speaker_invariant_ser.studies.encoders.sources import Request, open_encoders

LAYERS = (0, 2)
WITHOUT_CACHES = shutil.ignore_patterns("pretrained")  # of other tests


def compute(clip):
    """Stand-in for an encoder of hidden size 16: numbers that depend on every sample."""
    frames = np.arange(1 + (max(len(clip), 400) - 400) // 320)
    return (np.abs(clip).sum() + frames[:, None] * np.linspace(-1, 1, 2 * 16)).astype(np.float16)


@pytest.fixture
def corpus(prepared, tmp_path):
    """A prepared corpus that tests may write into."""
    return replace(prepared, folder=shutil.copytree(prepared.folder, tmp_path / "data", ignore=WITHOUT_CACHES))


@pytest.fixture
def described(tmp_path):
    """Settings with a checkpoint that nothing is computed with."""
    return PretrainedSettings(source=str(describe_checkpoint(tmp_path / "wavlm")), layers=LAYERS)


def written(corpus, checkpoint) -> dict[str, bytes]:
    folder = layer_cache.cache_folder(corpus, checkpoint, LAYERS)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_cache_holds_the_layers_of_every_clip(corpus, described):
    checkpoint = open_checkpoint(described)
    assert layer_cache.open_cache(corpus, checkpoint, LAYERS) is None
    done = []
    layer_cache.write_cache(corpus, checkpoint, LAYERS, compute, lambda *step: done.append(step))
    assert done[-1] == (f"computing layers of {described.source}", 72, 72) and len(done) == 72
    cache = layer_cache.open_cache(corpus, checkpoint, LAYERS)
    for index in (71, 0, 30):
        clip = corpus.clip(index)
        assert np.array_equal(cache.read(layer_cache.digest_of_clip(clip)), compute(clip))
    assert cache.read(layer_cache.digest_of_clip(corpus.clip(0)[:-1])) is None
    assert written(corpus, checkpoint).keys() == {"layers.f16", "clips.npy", "cache.json", "versions.json"}


def test_interrupted_at_any_byte_the_cache_becomes_the_same(corpus, described, tmp_path):
    checkpoint = open_checkpoint(described)
    folder = layer_cache.cache_folder(corpus, checkpoint, LAYERS)
    layer_cache.write_cache(corpus, checkpoint, LAYERS, compute)
    whole, size = written(corpus, checkpoint), (folder / "layers.f16").stat().st_size
    for kept in (0, 1, 63, 64, 1216, size // 2, size - 1, size):
        shutil.rmtree(folder)
        calls = []

        def stopping(clip, calls=calls):
            if len(calls) == 60:
                raise KeyboardInterrupt
            calls.append(len(clip))
            return compute(clip)

        with pytest.raises(KeyboardInterrupt):
            layer_cache.write_cache(corpus, checkpoint, LAYERS, stopping)
        assert layer_cache.open_cache(corpus, checkpoint, LAYERS) is None, "a part is no cache"
        if kept == 63:
            (partial_of(folder) / "versions.json").write_text("{")
        with open(partial_of(folder) / "layers.f16", "r+b") as file:
            file.write(whole["layers.f16"])
            file.truncate(kept)  # as a killed process leaves it
        again = []
        layer_cache.write_cache(corpus, checkpoint, LAYERS, lambda clip, again=again: again.append(clip) or compute(clip))
        assert written(corpus, checkpoint) == whole
        assert (len(again) == 72) == (kept < 2 * 32 * checkpoint.frames_of(corpus.utterances[0].samples))
        assert (len(again) == 0) == (kept == size)


def test_a_part_of_other_versions_is_not_continued(corpus, described, monkeypatch):
    checkpoint = open_checkpoint(described)
    monkeypatch.setattr(layer_cache, "version", lambda name: "1")
    calls = []

    def stopping(clip):
        if len(calls) == 5:
            raise KeyboardInterrupt
        return calls.append(clip) or compute(clip)

    with pytest.raises(KeyboardInterrupt):
        layer_cache.write_cache(corpus, checkpoint, LAYERS, stopping)
    monkeypatch.setattr(layer_cache, "version", lambda name: "2")
    done = []
    layer_cache.write_cache(corpus, checkpoint, LAYERS, compute, lambda *step: done.append(step))
    assert len(done) == 72


def test_two_processes_do_not_write_the_same_cache(corpus, described):
    checkpoint = open_checkpoint(described)
    folder = layer_cache.cache_folder(corpus, checkpoint, LAYERS)
    with locked(folder, "lock"), pytest.raises(WriteError, match="another process is writing it"):
        layer_cache.write_cache(corpus, checkpoint, LAYERS, compute)


def damage_layers(folder):
    content = bytearray((folder / "layers.f16").read_bytes())
    content[1000] ^= 1
    (folder / "layers.f16").write_bytes(content)


DAMAGES = {
    r"layers\.f16 is damaged or was changed .* remove .*wavlm-\w{16}, and it is computed again": damage_layers,
    r"layers\.f16 is damaged: it has 10 bytes, expected \d+": lambda folder: (folder / "layers.f16").write_bytes(b"0123456789"),
    r"layers\.f16 is damaged: it has 0 bytes": lambda folder: (folder / "layers.f16").unlink(),
    r"clips\.npy is damaged \(": lambda folder: (folder / "clips.npy").write_bytes(b"no array"),
    r"clips\.npy is damaged: its hashes": lambda folder: np.save(folder / "clips.npy", np.zeros((3, 16), np.uint8)),
    r"clips\.npy is damaged or was changed": lambda folder: np.save(folder / "clips.npy", np.zeros((72, 16), np.uint8)),
    r"clips\.npy is damaged \(the magic string": lambda folder: (folder / "clips.npy").write_bytes(b"PK\3\4" + bytes(99)),
    r"clips\.npy is damaged \(.*allocate": lambda folder: (folder / "clips.npy").write_bytes(array_header((10**12, 16))),
    r"clips\.npy is not a regular file": lambda folder: (folder / "clips.npy").unlink() or os.mkfifo(folder / "clips.npy"),
    r"cache\.json is damaged": lambda folder: (folder / "cache.json").write_text("{"),
    r"cache\.json is damaged \(no hashes\)": lambda folder: (folder / "cache.json").write_text('{"sha256": 1}'),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_cache_is_named(message, corpus, described):
    checkpoint = open_checkpoint(described)
    layer_cache.write_cache(corpus, checkpoint, LAYERS, compute)
    front.require_cache(described, corpus)
    DAMAGES[message](layer_cache.cache_folder(corpus, checkpoint, LAYERS))
    with pytest.raises(SerError, match=message):
        front.require_cache(described, corpus)


def test_a_cache_under_the_name_of_another_is_named(corpus, described):
    checkpoint = open_checkpoint(described)
    layer_cache.write_cache(corpus, checkpoint, LAYERS, compute)
    other = replace(checkpoint, sha256="0" * 64)
    layer_cache.cache_folder(corpus, checkpoint, LAYERS).rename(layer_cache.cache_folder(corpus, other, LAYERS))
    with pytest.raises(PreparedCorpusError, match=r"cache\.json is of another cache \(checkpoint_sha256\); remove .*wavlm-"):
        layer_cache.open_cache(corpus, other, LAYERS)


def array_header(shape):
    """Return the beginning of an .npy file that states this shape."""
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_an_encoder_is_not_opened_with_a_changed_cache(corpus, described):
    checkpoint = open_checkpoint(described)
    layers = checkpoint.layers(())
    layer_cache.write_cache(corpus, checkpoint, layers, lambda clip: np.repeat(compute(clip)[:, :16], len(layers), axis=1))
    assert open_encoders(Request(described.source, corpus))
    damage_layers(layer_cache.cache_folder(corpus, checkpoint, layers))
    with pytest.raises(PreparedCorpusError, match=r"layers\.f16 is damaged or was changed"):
        open_encoders(Request(described.source, corpus))


def test_a_cache_is_not_written_through_a_link(corpus, described, tmp_path):
    (tmp_path / "outside").mkdir()
    (corpus.folder / "pretrained").symlink_to(tmp_path / "outside")
    with pytest.raises(WriteError, match="pretrained is a link, to which this command would write"):
        layer_cache.write_cache(corpus, open_checkpoint(described), LAYERS, compute)
    (corpus.folder / "pretrained").unlink()
    folder = layer_cache.cache_folder(corpus, open_checkpoint(described), LAYERS)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "outside" / "new")
    with pytest.raises(WriteError, match=r"wavlm-\w+ is a link, to which this command would write"):
        layer_cache.write_cache(corpus, open_checkpoint(described), LAYERS, compute)
    assert not any((tmp_path / "outside").iterdir())


def test_another_checkpoint_other_layers_and_other_audio_have_another_cache(corpus, described, tmp_path):
    checkpoint = open_checkpoint(described)
    changed = describe_checkpoint(tmp_path / "changed" / "wavlm", extra=1) if (tmp_path / "changed").mkdir() is None else None
    other_audio = replace(corpus, settings={**corpus.settings, "sha256": {**corpus.settings["sha256"], "audio.i16": "0"}})
    folders = {
        layer_cache.cache_folder(corpus, checkpoint, LAYERS),
        layer_cache.cache_folder(corpus, open_checkpoint(PretrainedSettings(source=str(changed))), LAYERS),
        layer_cache.cache_folder(corpus, checkpoint, (0, 1, 2)),
        layer_cache.cache_folder(other_audio, checkpoint, LAYERS),
    }
    assert len(folders) == 4 and {folder.name[:6] for folder in folders} == {"wavlm-"}


def test_layers_come_from_the_cache_and_are_computed_for_other_clips(corpus, described, monkeypatch):
    settings = pinned(described)
    front.source_of.cache_clear()
    layers, calls = front.FrozenLayers(settings), []
    monkeypatch.setattr(layers.source, "compute", lambda clip, device: calls.append(len(clip)) or compute(clip))
    front.use_cache(settings, corpus, torch.device("cpu"))
    assert len(calls) == 72
    clips = [corpus.clip(3), corpus.clip(4), 0.5 * corpus.clip(3)]
    samples = torch.tensor([len(clip) for clip in clips])
    audio = torch.zeros(3, int(samples.max()))
    for row, clip in zip(audio, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    for _ in range(2):  # of the second call, even the third utterance is remembered
        batch, frames = layers(audio, samples)
        assert len(calls) == 73
    assert batch.dtype == torch.float16 and batch.shape == (3, 32, frames.max())
    for row, count, clip in zip(batch, frames.tolist(), clips, strict=True):
        assert torch.equal(row[:, :count].T, torch.from_numpy(compute(clip))) and not row[:, count:].any()


def test_a_changed_checkpoint_is_named(described):
    settings = pinned(described)
    assert len(settings.sha256) == 64 and settings.revision == "" and open_checkpoint(settings).sha256 == settings.sha256
    path = front.open_checkpoint(settings).folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_dropout": 0.3}))
    with pytest.raises(RecipeError, match=r"wavlm: its files \(config\.json, .*\) are not those that the model"):
        open_checkpoint(settings)
