"""What training reads: log-mels, all on the training device or read ahead from disk, and what is asked of them."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from speaker_invariant_ser.data.audio import FULL_SCALE
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.features.log_mel import LogMel, frame_sums, mask_of

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

    prepared: PreparedCorpus
    indices: np.ndarray  # [N] of the store's utterances
    logmel: LogMel
    device: torch.device

    @property
    def frames(self) -> np.ndarray:
        """[N]"""
        return 1 + np.array([self.prepared.utterances[index].samples for index in self.indices]) // self.logmel.hop

    def read(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1) as reader:
            for samples, lengths in ahead(reader, lambda batch: self.prepared.batch(self.indices[batch]), batches):
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
    """Utterances to train on or to be judged by. All arrays [N]; emotion and target are positions in sorted order.

    An emotion of -1 is none: the clip is trained on without it. `voices` are the speakers' mean log-mels where they are to be
    taken off, which `read` does and `source` does not.
    """

    source: Source
    frames: np.ndarray
    emotion: np.ndarray
    targets: tuple[np.ndarray, ...]  # what each adversary reads
    speaker: np.ndarray
    voices: Tensor | None = None  # [speakers, M], on the device

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def resident_gb(self) -> float:
        """Gigabytes of log-mels that are in memory."""
        return self.source.rows.nbytes / 1e9 if isinstance(self.source, Resident) else 0.0

    def read(self, batches: Sequence[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """(log-mel [B, M, T], frames [B]) of each batch of positions, as the model takes them."""
        for batch, (mels, frames) in zip(batches, self.source.read(batches), strict=True):
            yield (mels if self.voices is None else mels - self.means(batch)), frames

    def means(self, chosen: np.ndarray) -> Tensor:
        """The mean log-mels [B, M, 1] of the speakers of some clips."""
        return self.voices[torch.from_numpy(self.speaker[chosen]).to(self.voices.device)][:, :, None]

    def some(self, most: int = SAMPLE) -> Iterator[Tensor]:
        """Log-mels [M, T] of all clips, or of `most` drawn from them, as the model takes them."""
        chosen = np.arange(len(self))
        if len(self) > most:
            chosen = np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        for mels, frames in self.read(np.array_split(chosen, -(-len(chosen) // AT_ONCE))):
            yield from (clip[:, :count] for clip, count in zip(mels, frames.tolist(), strict=True))

    def in_order_of_length(self, size: int) -> list[np.ndarray]:
        """Every clip once, in batches of similar length."""
        order = np.argsort(self.frames, kind="stable")
        return [order[at : at + size] for at in range(0, len(order), size)]


def open_clips(
    prepared: PreparedCorpus,
    indices: Sequence[int],
    labels: Sequence[str],
    columns: Sequence[str],
    logmel: LogMel,
    resident_gb: float,
    unlabelled: Sequence[int] = (),
    transductive: bool = False,
) -> Clips:
    """Clips of a store, with these columns as targets, on the device of `logmel`: resident where log-mels take up to
    `resident_gb` GB, streamed otherwise.

    Those of `unlabelled` come after the others, and nobody asks for their emotion. `transductive`: the speakers' means are to
    be taken off.
    """
    utterances = [prepared.utterances[index] for index in (*indices, *unlabelled)]
    streamed = Streamed(prepared, np.array([*indices, *unlabelled]), logmel, next(logmel.buffers()).device)
    frames, who = streamed.frames, [one.speaker for one in utterances]
    resident = 4 * logmel.bands * int(frames.sum()) <= 1e9 * resident_gb
    means = speaker_means(prepared, logmel, set(who)) if transductive else {}
    return Clips(
        source=Resident.of(streamed) if resident else streamed,
        frames=frames,
        emotion=np.array([*(labels.index(one.emotion) for one in utterances[: len(indices)]), *(-1 for _ in unlabelled)]),
        targets=tuple(positions([getattr(one, column) for one in utterances]) for column in columns),
        speaker=positions(who),
        voices=torch.stack([means[one] for one in sorted(set(who))]) if transductive else None,
    )


def speaker_means(prepared: PreparedCorpus, logmel: LogMel, speakers: Collection[str]) -> dict[str, Tensor]:
    """The mean log-mel [M] of each speaker over all frames of all clips that the store has of them, on the device of `logmel`.

    Of every part and every emotion, those too that a map of labels drops: no label is looked at.
    """
    everything = replace(prepared, utterances=list(prepared.unmapped or prepared.utterances))
    names, who = sorted(speakers), np.array([one.speaker for one in everything.utterances])
    indices = np.flatnonzero(np.isin(who, names))
    whose = torch.from_numpy(np.searchsorted(names, who[indices]))
    streamed = Streamed(everything, indices, logmel, next(logmel.buffers()).device)
    order = np.argsort(streamed.frames, kind="stable")
    batches = [order[at : at + AT_ONCE] for at in range(0, len(order), AT_ONCE)]
    total = torch.zeros(len(names), logmel.bands, dtype=torch.float64)
    for batch, (mels, frames) in zip(batches, streamed.read(batches), strict=True):
        total.index_add_(0, whose[torch.from_numpy(batch)], frame_sums(mels, frames).cpu())
    count = torch.bincount(whose, weights=torch.from_numpy(streamed.frames).double(), minlength=len(names))
    means = (total / count[:, None]).float().to(streamed.device)
    return dict(zip(names, means, strict=True))


def positions(values: Sequence[str]) -> np.ndarray:
    """Each value's place among the sorted ones.

    >>> positions(["b", "a", "b"])
    array([1, 0, 1])
    """
    return np.unique(values, return_inverse=True)[1]
