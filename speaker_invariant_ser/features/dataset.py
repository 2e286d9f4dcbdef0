"""Utterances that a model is trained or scored on: their log-mels, emotions, speakers and adversary targets.

Shapes: B batch, M mel bands, T frames, K speakers, N utterances.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.votes import label_shares
from speaker_invariant_ser.features.log_mel import FrontEnd, subtract_mean
from speaker_invariant_ser.features.log_mel_sources import (
    BATCH_SIZE,
    CachedLogMels,
    LogMelSource,
    StreamedLogMels,
    length_sorted_batches,
    row_count,
)
from speaker_invariant_ser.features.speaker_means import compute_speaker_means
from speaker_invariant_ser.indexing import to_indices

SAMPLE = 4096  # utterances that normalisation statistics are estimated from; more would not change a mean noticeably


@dataclass(frozen=True)
class LogMelDataset:
    """Log-mels and labels of N utterances.

    Attributes:
        source: The log-mels, before speaker means are subtracted. With augment.telephone those of the N utterances as a telephone
            transmits them follow, at N to 2 N - 1.
        frames: Number of frames of each utterance, [N].
        emotion: Index of the emotion in the model's labels, [N]; -1 where it is unknown.
        targets: For each adversary the indices of its target, [N] each.
        speaker: Index of the speaker among the dataset's speakers, sorted, [N].
        speaker_means: Mean log-mels [K, M] on the device, if `read` is to subtract them; None otherwise.
        shares: Distribution of the annotators' votes over the model's labels, float32 [N, C]; None: that of the label alone.
        dimensions: Ratings of `emotion.targets`, float32 [N, R]; NaN where an utterance has none. None without targets.
    """

    source: LogMelSource
    frames: np.ndarray
    emotion: np.ndarray
    targets: tuple[np.ndarray, ...]
    speaker: np.ndarray
    speaker_means: Tensor | None = None
    shares: np.ndarray | None = None
    dimensions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def cached_gb(self) -> float:
        """Gigabytes of log-mels in memory."""
        return self.source.rows.nbytes / 1e9 if isinstance(self.source, CachedLogMels) else 0.0

    def read(self, batches: Sequence[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-mel [B, M, T] (with prosody [B, M + 4, T]), frames [B] of each batch of indices, as the model takes them."""
        for batch, (mels, frames) in zip(batches, self.source.read(batches), strict=True):
            mean = self.speaker_mean(batch)
            yield (mels if mean is None else subtract_mean(mels, mean)), frames

    def speaker_mean(self, indices: np.ndarray) -> Tensor | None:
        """Return the mean log-mel [B, M, 1] of the speaker of each utterance; None if it is not subtracted."""
        if self.speaker_means is None:
            return None
        return self.speaker_means[torch.from_numpy(self.speaker[indices]).to(self.speaker_means.device)][:, :, None]

    def sample(self, maximum: int = SAMPLE) -> Iterator[Tensor]:
        """Yield log-mels [M, T], without padding, of all utterances or of `maximum` drawn ones, as the model takes them."""
        indices = np.arange(len(self))
        if len(self) > maximum:
            indices = np.sort(np.random.default_rng(0).choice(len(self), maximum, replace=False))
        for mels, frames in self.read(np.array_split(indices, -(-len(indices) // BATCH_SIZE))):
            yield from (clip[:, :count] for clip, count in zip(mels, frames.tolist(), strict=True))

    def length_sorted_batches(self, size: int) -> list[np.ndarray]:
        """Return the indices of all utterances in batches of similar length, from the shortest on."""
        return length_sorted_batches(self.frames, size)


def open_dataset(
    prepared: PreparedCorpus,
    indices: Sequence[int],
    labels: Sequence[str],
    targets: Sequence[str],
    logmel: FrontEnd,
    cache_gb: float,
    unlabelled: Sequence[int] = (),
    subtract_speaker_means: bool = False,
    with_telephone: bool = False,
    soft: bool = False,
    dimensions: Sequence[str] = (),
) -> LogMelDataset:
    """Open utterances of a prepared corpus as a dataset on the device of `logmel`.

    Args:
        prepared: The prepared corpus.
        indices: Its utterances that have an emotion among `labels`.
        labels: The model's emotions.
        targets: Columns of the manifest, one for each adversary.
        logmel: The front end of the model.
        cache_gb: Gigabytes of log-mels that may stay in memory; a larger dataset is streamed from disk.
        unlabelled: Further utterances, whose emotion and ratings are ignored; they come after the others.
        subtract_speaker_means: Whether speaker means are to be subtracted (features.normalise = "speaker").
        with_telephone: Whether the source holds every utterance a second time, as a telephone transmits it.
        soft: Whether the votes of annotators are the labels to learn (emotion.labels = "soft").
        dimensions: Names of `emotion.targets`.

    Returns:
        The dataset, cached or streamed.
    """
    utterances = [prepared.utterances[index] for index in (*indices, *unlabelled)]
    chosen = np.tile([*indices, *unlabelled], 1 + with_telephone)
    by_telephone = np.arange(len(chosen)) >= len(utterances) if with_telephone else None
    logmel.use_cache(prepared)
    streamed = StreamedLogMels(prepared, chosen, logmel, by_telephone)
    frames, speakers = streamed.frames[: len(utterances)], [utterance.speaker for utterance in utterances]
    known = to_indices([utterance.emotion for utterance in utterances[: len(indices)]], labels)
    emotion = np.concatenate((known, np.full(len(unlabelled), -1)))
    cached = logmel.value_bytes * row_count(logmel) * int(streamed.frames.sum()) <= 1e9 * cache_gb
    return LogMelDataset(
        source=CachedLogMels.compute(streamed) if cached else streamed,
        frames=frames,
        emotion=emotion,
        targets=tuple(to_indices([getattr(utterance, column) for utterance in utterances]) for column in targets),
        speaker=to_indices(speakers),
        speaker_means=compute_speaker_means(prepared, logmel, set(speakers)).means if subtract_speaker_means else None,
        shares=label_shares([utterance.votes for utterance in utterances], emotion, labels) if soft else None,
        dimensions=ratings(utterances, len(indices), dimensions) if dimensions else None,
    )


def ratings(utterances: Sequence[Utterance], labelled: int, dimensions: Sequence[str]) -> np.ndarray:
    """Return the ratings of utterances, float32 [N, R]; NaN where one is missing, and after the first `labelled` ones."""
    values = np.array([[getattr(utterance, name) for name in dimensions] for utterance in utterances], dtype=np.float32)
    values[labelled:] = np.nan
    return values
