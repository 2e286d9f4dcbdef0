"""What training reads: log-mels, all on the training device or read ahead from disk, and what is asked of them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from speaker_invariant_ser.audio import FULL_SCALE
from speaker_invariant_ser.features import LogMel, mask_of
from speaker_invariant_ser.store import Store

AHEAD = 4  # batches that are read before they are asked for
AT_ONCE = 32  # clips whose log-mels are computed together
SAMPLE = 4096  # clips that statistics are taken from; more would not move a mean


class Source(Protocol):
    """Log-mels by position."""

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions [B], batch by batch -> (log-mel [B, M, T], frames [B]) on the device; beyond a clip's frames is junk."""
        ...


@dataclass(frozen=True)
class Resident:
    """All log-mels one after another on the device: a batch is one gather.

    They are kept and not the audio, since at 64 bands and 10 ms they are the smaller of the two, and are computed once, not
    once an epoch.
    """

    rows: Tensor  # [all frames, M]
    start: Tensor  # [N]
    frames: Tensor  # [N]

    @classmethod
    def of(cls, streamed: "Streamed") -> "Resident":
        frames = torch.from_numpy(streamed.frames)
        start = frames.cumsum(0) - frames
        rows = None
        order = np.argsort(streamed.frames, kind="stable")  # clips of like length together
        batches = [order[at : at + AT_ONCE] for at in range(0, len(order), AT_ONCE)]
        for batch, (mels, count) in zip(batches, streamed.read(batches), strict=True):
            if rows is None:
                rows = mels.new_empty(int(frames.sum()), mels.shape[1])
            real = mask_of(count, mels.shape[2])
            place = start[batch].to(mels.device)[:, None] + torch.arange(mels.shape[2], device=mels.device)
            rows[place[real]] = mels.transpose(1, 2)[real]
        return cls(rows, start.to(rows.device), frames.to(rows.device))

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            chosen = torch.from_numpy(batch).to(self.rows.device)
            frames = self.frames[chosen]
            place = self.start[chosen][:, None] + torch.arange(int(frames.max()), device=self.rows.device)
            yield self.rows[place.clamp_(max=len(self.rows) - 1)].transpose(1, 2), frames


@dataclass(frozen=True)
class Streamed:
    """Log-mels of audio that is read as it is needed: the next batches by a thread, while the network is at this one."""

    store: Store
    indices: np.ndarray  # [N] of the store's utterances
    logmel: LogMel
    device: torch.device

    @property
    def frames(self) -> np.ndarray:
        """[N]"""
        return 1 + np.array([self.store.utterances[index].samples for index in self.indices]) // self.logmel.hop

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1) as reader:
            for samples, lengths in ahead(reader, lambda batch: self.store.batch(self.indices[batch]), batches):
                yield self.logmels(torch.from_numpy(samples), torch.from_numpy(lengths))

    @torch.no_grad()
    def logmels(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.logmel(samples.to(self.device).float() / FULL_SCALE, lengths.to(self.device))


def ahead(reader: ThreadPoolExecutor, load: Callable, batches: Iterable[np.ndarray]) -> Iterator:
    """load(batch) of each batch in order, AHEAD of them begun before they are asked for."""
    batches = iter(batches)
    waiting: deque[Future] = deque(reader.submit(load, batch) for batch in islice(batches, AHEAD))
    while waiting:
        done = waiting.popleft().result()
        waiting.extend(reader.submit(load, batch) for batch in islice(batches, 1))
        yield done


@dataclass(frozen=True)
class Clips:
    """Utterances to train on or to be judged by. All arrays [N]; emotion and target are positions in sorted order."""

    source: Source
    frames: np.ndarray
    emotion: np.ndarray
    targets: tuple[np.ndarray, ...]  # what each adversary reads
    speaker: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def resident_gb(self) -> float:
        """Gigabytes of log-mels that are in memory."""
        return self.source.rows.nbytes / 1e9 if isinstance(self.source, Resident) else 0.0

    def some(self, most: int = SAMPLE) -> Iterator[Tensor]:
        """Log-mels [M, T] of all clips, or of `most` drawn from them."""
        chosen = np.arange(len(self))
        if len(self) > most:
            chosen = np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        for mels, frames in self.source.read(np.array_split(chosen, -(-len(chosen) // AT_ONCE))):
            yield from (clip[:, :count] for clip, count in zip(mels, frames.tolist(), strict=True))

    def in_order_of_length(self, size: int) -> list[np.ndarray]:
        """Every clip once, in batches of similar length."""
        order = np.argsort(self.frames, kind="stable")
        return [order[at : at + size] for at in range(0, len(order), size)]


def open_clips(
    store: Store,
    indices: Sequence[int],
    labels: Sequence[str],
    columns: Sequence[str],
    logmel: LogMel,
    resident_gb: float,
) -> Clips:
    """Clips of a store, with these columns as targets, on the device of `logmel`: resident where log-mels take up to
    `resident_gb` GB, streamed otherwise.
    """
    utterances = [store.utterances[index] for index in indices]
    streamed = Streamed(store, np.array(indices), logmel, next(logmel.buffers()).device)
    frames = streamed.frames
    resident = 4 * logmel.bands * int(frames.sum()) <= 1e9 * resident_gb
    return Clips(
        source=Resident.of(streamed) if resident else streamed,
        frames=frames,
        emotion=np.array([labels.index(one.emotion) for one in utterances]),
        targets=tuple(positions([getattr(one, column) for one in utterances]) for column in columns),
        speaker=positions([one.speaker for one in utterances]),
    )


def positions(values: Sequence[str]) -> np.ndarray:
    """Each value's place among the sorted ones.

    >>> positions(["b", "a", "b"])
    array([1, 0, 1])
    """
    return np.unique(values, return_inverse=True)[1]
