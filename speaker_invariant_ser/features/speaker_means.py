"""Speaker means: the mean log-mel of each speaker, which models with features.normalise = "speaker" subtract.

Training, evaluation and inference compute and look them up here. Shapes: M mel bands, K speakers, N utterances.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.features.log_mel import FrontEnd, sum_frames
from speaker_invariant_ser.features.log_mel_sources import (
    BATCH_SIZE,
    StreamedLogMels,
    clip_batches,
    device_of,
    length_sorted_batches,
)


@dataclass(frozen=True)
class SpeakerMeans:
    """The mean log-mel of each of some speakers.

    Attributes:
        speakers: K names, sorted.
        means: [K, M], on the device of the front end that computed them.
    """

    speakers: list[str]
    means: Tensor

    def __getitem__(self, speaker: str) -> Tensor:
        """Return one speaker's mean log-mel [M]."""
        return self.means[self.speakers.index(speaker)]

    def of(self, speakers: Sequence[str]) -> np.ndarray:
        """Return the mean log-mel of the speaker of each of N utterances, [N, M]."""
        index = {speaker: number for number, speaker in enumerate(self.speakers)}
        return self.means.cpu().numpy()[[index[speaker] for speaker in speakers]]


def compute_speaker_means(prepared: PreparedCorpus, logmel: FrontEnd, speakers: Collection[str]) -> SpeakerMeans:
    """Compute speakers' mean log-mels over all frames of everything that a prepared corpus holds of them.

    No label is used: utterances of every part of a split and of every emotion count, also those that a label map drops.
    A mean over few utterances, or over utterances of mostly one emotion, contains emotion: subtracting it removes that too.

    Args:
        prepared: The prepared corpus.
        logmel: The front end of the model.
        speakers: Names of speakers in the corpus.

    Returns:
        The means of these speakers.
    """
    everything = replace(prepared, utterances=list(prepared.unmapped or prepared.utterances))
    names, speaker = sorted(speakers), np.array([utterance.speaker for utterance in everything.utterances])
    indices = np.flatnonzero(np.isin(speaker, names))
    speaker_index = torch.from_numpy(np.searchsorted(names, speaker[indices]))
    streamed = StreamedLogMels(everything, indices, logmel)
    batches = length_sorted_batches(streamed.frames, BATCH_SIZE)
    total = torch.zeros(len(names), logmel.bands, dtype=torch.float64)
    for batch, (mels, frames) in zip(batches, streamed.read(batches), strict=True):
        total.index_add_(0, speaker_index[torch.from_numpy(batch)], sum_frames(mels[:, : logmel.bands], frames).cpu())
    count = torch.bincount(speaker_index, weights=torch.from_numpy(streamed.frames).double(), minlength=len(names))
    return SpeakerMeans(names, (total / count[:, None]).float().to(device_of(logmel)))


@torch.inference_mode()
def mean_log_mel(logmel: FrontEnd, blocks: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    """Compute the mean log-mel over all frames of one speaker's recordings.

    Args:
        logmel: The front end of the model.
        blocks: Utterances, float32 [S] each, as many at a time as fit into memory.

    Returns:
        The mean [M]; zero without any utterance.
    """
    total, count = np.zeros(logmel.bands), 0
    for clips in blocks:
        block_total = np.zeros(logmel.bands)
        for _, audio, samples in clip_batches(clips, BATCH_SIZE, device_of(logmel)):
            mels, frames = logmel(audio, samples)
            block_total += sum_frames(mels, frames).sum(dim=0).cpu().numpy()
            count += int(frames.sum())
        total += block_total
    return (total / max(1, count)).astype(np.float32)
