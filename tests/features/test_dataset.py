"""Cached and streamed log-mels are the same, and are those of the prepared corpus."""

import numpy as np
import pytest
import torch
from conftest import TINY

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.audio import SAMPLE_RATE, to_float32, to_int16
from speaker_invariant_ser.data.conditions.telephone import telephone
from speaker_invariant_ser.data.prepared_corpus import AUDIO, PreparedCorpus
from speaker_invariant_ser.errors import PreparedCorpusError
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.features.log_mel import LogMel
from speaker_invariant_ser.features.log_mel_sources import CachedLogMels, StreamedLogMels, padded_width
from speaker_invariant_ser.recipe import FeaturesSection

LABELS = ("falling", "level", "rising")
CHOSEN = [40, 3, 3, 17, 60, 61, 62]


@pytest.fixture(scope="module")
def logmel():
    return LogMel(make_recipe(TINY).features, SAMPLE_RATE)


def test_a_batch_holds_the_log_mels_of_its_utterances(prepared, logmel):
    dataset = open_dataset(prepared, CHOSEN, LABELS, ("sex",), logmel, cache_gb=1.0)
    assert isinstance(dataset.source, CachedLogMels)
    ((mels, frames),) = dataset.source.read([np.array([2, 0, 5])])
    for mel, count, index in zip(mels, frames.tolist(), (3, 40, 61), strict=True):
        audio = torch.from_numpy(prepared.clip(index))[None]
        alone, length = logmel(audio, torch.tensor([audio.shape[1]]))
        assert count == length.item() == dataset.frames[CHOSEN.index(index)]
        assert torch.allclose(mel[:, :count], alone[0], atol=1e-4)
    assert mels.shape[2] == frames.max()


def test_streamed_and_cached_log_mels_are_the_same(prepared, logmel):
    cached, streamed = (open_dataset(prepared, range(50), LABELS, ("speaker",), logmel, gigabytes) for gigabytes in (1.0, 0.0))
    assert isinstance(streamed.source, StreamedLogMels) and isinstance(cached.source, CachedLogMels)
    plan = [np.array([4, 9, 1]), np.array([30]), *np.array_split(np.arange(50), 12)]  # more than are read ahead
    for (first, frames), (second, same_frames) in zip(cached.source.read(plan), streamed.source.read(plan), strict=True):
        assert torch.equal(frames, same_frames)
        real = torch.arange(first.shape[2]) < frames[:, None]
        assert torch.allclose(first.transpose(1, 2)[real], second.transpose(1, 2)[real], atol=1e-4)
    for name in ("frames", "emotion", "targets", "speaker"):
        assert np.array_equal(getattr(cached, name), getattr(streamed, name))


@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_telephone_copies_follow_the_recordings(prepared, logmel, gigabytes):
    """The copy of utterance i is at N + i; labels, frames and samples for statistics are of the recordings."""
    dataset = open_dataset(prepared, CHOSEN, LABELS, (), logmel, gigabytes, with_telephone=True)
    assert isinstance(dataset.source, CachedLogMels if gigabytes else StreamedLogMels)
    assert len(dataset) == len(dataset.emotion) == len(CHOSEN) and len(list(dataset.sample())) == len(CHOSEN)
    ((mels, frames),) = dataset.source.read([np.array([2, 2 + len(CHOSEN)])])
    clip = prepared.clip(CHOSEN[2])
    for mel, audio in zip(mels, (clip, to_float32(to_int16(telephone(clip)))), strict=True):
        expected, count = logmel(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
        assert count == frames[0] == frames[1] and torch.allclose(mel[:, :count], expected[0], atol=0.1)
    assert (mels[0] - mels[1])[-3:].mean() > 2, "the highest bands are lost"


def test_prosody_of_a_telephone_copy_has_the_f0_of_the_recording(prepared_f0):
    logmel = LogMel(FeaturesSection(streams=("prosody",), hop_ms=16, mels=24), SAMPLE_RATE)
    dataset = open_dataset(prepared_f0, [3], LABELS, (), logmel, 1.0, with_telephone=True)
    ((rows, _),) = dataset.source.read([np.array([0, 1])])
    assert torch.equal(rows[0, 24:26], rows[1, 24:26]) and not torch.equal(rows[0, 26:], rows[1, 26:])


def test_labels_are_indices_in_sorted_order(prepared, logmel):
    dataset = open_dataset(prepared, CHOSEN, LABELS, ("sex",), logmel, cache_gb=1.0)
    assert [LABELS[label] for label in dataset.emotion] == [prepared.utterances[index].emotion for index in CHOSEN]
    assert [("female", "male")[target] for target in dataset.targets[0]] == [prepared.utterances[index].sex for index in CHOSEN]


def test_a_sample_is_the_whole_dataset_or_as_many_utterances_as_asked_for(prepared, logmel):
    dataset = open_dataset(prepared, range(50), LABELS, ("sex",), logmel, cache_gb=1.0)
    assert sorted(mels.shape[1] for mels in dataset.sample()) == sorted(dataset.frames)
    few = [mels.shape[1] for mels in dataset.sample(7)]
    assert len(few) == 7 and few == [mels.shape[1] for mels in dataset.sample(7)]


def test_prefetching_stops_when_the_iterator_is_closed_and_passes_errors_on(prepared, logmel, tmp_path, monkeypatch):
    dataset = open_dataset(prepared, range(50), LABELS, ("sex",), logmel, cache_gb=0.0)
    reading = dataset.source.read(np.array_split(np.arange(50), 10))
    next(reading)
    reading.close()
    for name in ("manifest.csv", "prepare.json", AUDIO):
        (tmp_path / name).write_bytes((prepared.folder / name).read_bytes())
    copy = PreparedCorpus.open(tmp_path)
    with open(tmp_path / AUDIO, "r+b") as file:
        file.truncate(2 * copy.utterances[20].offset)
    shorter = open_dataset(copy, range(50), LABELS, ("sex",), logmel, cache_gb=0.0)
    with pytest.raises(PreparedCorpusError, match=f"{AUDIO} was truncated while in use"):
        list(shorter.source.read([np.arange(5), np.arange(15, 25)]))


def test_batches_have_few_widths_and_little_padding():
    """1.2 to 9 seconds, as in EMO-DB, at hops of 16 and 10 ms."""
    for shortest, longest in ((75, 600), (120, 900)):
        frames = range(shortest, longest)
        widths = [padded_width(count) for count in frames]
        assert len(set(widths)) <= 18 and widths == sorted(widths)
        assert all(count <= width <= 1.15 * count + 8 for count, width in zip(frames, widths, strict=True))
        assert [padded_width(width) for width in widths] == widths, "of a padded batch, its own"
    assert padded_width(1) == 8
