"""Where log-mels come from: utterances in memory, or a prepared corpus, computed once (cached) or as needed (streamed).

Shapes: B batch, S samples, M mel bands, T frames, N utterances.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from speaker_invariant_ser.data.audio import FULL_SCALE, pad, to_float32, to_int16
from speaker_invariant_ser.data.conditions.telephone import telephone
from speaker_invariant_ser.features.log_mel import FrontEnd, mask_of
from speaker_invariant_ser.features.prosody import PROSODY_ROWS, prosody_rows

if TYPE_CHECKING:
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus

PREFETCH = 4  # batches that are loaded before they are asked for
BATCH_SIZE = 32  # utterances whose log-mels are computed together
WIDTHS_PER_OCTAVE = 5  # widths of batches; see `padded_width`

Loaded = TypeVar("Loaded")


class LogMelSource(Protocol):
    """Log-mels of N utterances, by index."""

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the log-mels of each batch of indices, followed by the prosody rows where the front end needs F0.

        Args:
            batches: Indices [B] of the utterances of each batch.

        Yields:
            Log-mel [B, M, T], or with prosody [B, M + 4, T], and frames [B] on the device. Values beyond an utterance's
            frames are arbitrary, but finite.
        """
        ...


@dataclass(frozen=True)
class StreamedLogMels:
    """Log-mels computed as needed: a thread loads the next batches of audio while the network processes the current one.

    Attributes:
        prepared: The prepared corpus that holds the audio.
        indices: Which of its utterances these are, [N].
        logmel: The front end, whose device the log-mels are on.
        by_telephone: Which of them are wanted as a telephone transmits them, [N]; None: none. F0 stays that of the recording.
    """

    prepared: "PreparedCorpus"
    indices: np.ndarray
    logmel: FrontEnd
    by_telephone: np.ndarray | None = None

    @property
    def frames(self) -> np.ndarray:
        """Number of frames of each utterance, [N]."""
        return np.array([self.logmel.frames_of(self.prepared.utterances[index].samples) for index in self.indices])

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-mel [B, M, T] and frames [B] of each batch of indices, see `LogMelSource`."""
        with ThreadPoolExecutor(1) as executor:
            for samples, lengths, f0 in prefetch(executor, self.load, batches):
                yield self.compute(torch.from_numpy(samples), torch.from_numpy(lengths), f0)

    def load(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor | None]:
        """Read 16-bit samples [B, S], lengths [B], and F0 with confidence [B, 2, T], if needed, of a batch of indices."""
        indices = self.indices[batch]
        f0 = torch.from_numpy(self.prepared.f0_batch(indices)) if self.logmel.needs_f0 else None
        samples, lengths = self.prepared.batch(indices)
        for row in np.flatnonzero(self.by_telephone[batch]) if self.by_telephone is not None else ():
            clip = samples[row, : lengths[row]]
            clip[:] = to_int16(telephone(to_float32(clip)))
        return samples, lengths, f0

    @torch.no_grad()
    def compute(self, samples: Tensor, lengths: Tensor, f0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log-mel [B, M, T], with F0 [B, M + 4, T], and frames [B] of samples [B, S], lengths [B], F0 [B, 2, T]."""
        device = device_of(self.logmel)
        mels, frames = self.logmel(samples.to(device).float() / FULL_SCALE, lengths.to(device))
        if f0 is None:
            return mels, frames
        return torch.cat((mels, prosody_rows(mels, f0.to(device), self.logmel.low_bands)), dim=1), frames


@dataclass(frozen=True)
class CachedLogMels:
    """All log-mels one after another on the device, computed once: a batch is one gather.

    Log-mels are cached rather than audio, because with 64 bands every 10 ms they take less memory.

    Attributes:
        rows: Frames of all utterances, [sum of frames, M], or with prosody [sum of frames, M + 4].
        start: Row of each utterance's first frame, [N].
        frames: Number of frames of each utterance, [N].
    """

    rows: Tensor
    start: Tensor
    frames: Tensor

    @classmethod
    def compute(cls, streamed: StreamedLogMels) -> "CachedLogMels":
        """Read all log-mels of a stream into memory."""
        frames = torch.from_numpy(streamed.frames)
        start = frames.cumsum(0) - frames
        device = device_of(streamed.logmel)
        dtype = torch.float16 if streamed.logmel.value_bytes == 2 else torch.float32
        rows = torch.empty(int(frames.sum()), row_count(streamed.logmel), device=device, dtype=dtype)
        batches = length_sorted_batches(streamed.frames, BATCH_SIZE)
        for batch, (mels, count) in zip(batches, streamed.read(batches), strict=True):
            real = mask_of(count, mels.shape[2])
            row = start[batch].to(device)[:, None] + torch.arange(mels.shape[2], device=device)
            rows[row[real]] = mels.transpose(1, 2)[real]
        return cls(rows, start.to(device), frames.to(device))

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-mel [B, M, T] and frames [B] of each batch of indices."""
        for batch in batches:
            indices = torch.from_numpy(batch).to(self.rows.device)
            frames = self.frames[indices]
            row = self.start[indices][:, None] + torch.arange(int(frames.max()), device=self.rows.device)
            yield self.rows[row.clamp_(max=len(self.rows) - 1)].transpose(1, 2), frames


def row_count(logmel: FrontEnd) -> int:
    """Return how many rows a source yields: mel bands, and those of prosody if needed."""
    return logmel.bands + PROSODY_ROWS * logmel.needs_f0


def clip_batches(clips: Sequence[np.ndarray], size: int, device: torch.device) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Yield utterances of similar length together, zero-padded.

    Args:
        clips: Float32 [S] each, in [-1, 1].
        size: Utterances in a batch, at most.
        device: Where audio and lengths are wanted.

    Yields:
        Indices [B] of the utterances, audio [B, S], samples [B].
    """
    for batch in length_sorted_batches(np.array([len(clip) for clip in clips]), size):
        audio, samples = pad([clips[index] for index in batch])
        yield batch, torch.from_numpy(audio).to(device), torch.from_numpy(samples).to(device)


def length_sorted_batches(lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Return the indices of all lengths [N] in batches of at most `size`, from the shortest on: little padding.

    >>> length_sorted_batches(np.array([9, 2, 4]), 2)
    [array([1, 2]), array([0])]
    """
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded_width(frames: int) -> int:
    """Return the number of frames that a batch is padded to: one of few, which grow by 15 %.

    A network has kernels for every width that it has seen, and tensors of as many sizes. On a CPU both stay in memory: freed
    tensors leave holes between the kernels, into which those of another width do not fit.

    >>> [padded_width(frames) for frames in (1, 90, 100, 112, 113, 250, 1000)]
    [8, 104, 104, 112, 128, 256, 1024]
    """
    steps = itertools.count(math.floor(WIDTHS_PER_OCTAVE * math.log2(frames)))
    widths = (8 * math.ceil(2 ** (step / WIDTHS_PER_OCTAVE) / 8) for step in steps)
    return next(width for width in widths if width >= frames)


def device_of(module: nn.Module) -> torch.device:
    """Return the device that a front end computes on."""
    return next(module.buffers()).device


def prefetch(
    executor: ThreadPoolExecutor, load: Callable[[np.ndarray], Loaded], batches: Iterable[np.ndarray]
) -> Iterator[Loaded]:
    """Yield load(batch) of each batch in order; the next PREFETCH batches are loading meanwhile."""
    remaining = iter(batches)
    waiting: deque[Future[Loaded]] = deque(executor.submit(load, batch) for batch in islice(remaining, PREFETCH))
    while waiting:
        loaded = waiting.popleft().result()
        waiting.extend(executor.submit(load, batch) for batch in islice(remaining, 1))
        yield loaded
