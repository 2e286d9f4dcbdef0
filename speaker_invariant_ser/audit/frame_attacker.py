"""A fresh attacker that reads the encoder's map before pooling: what a mean over time hides may still stand in single frames.

F features, T_n frames of clip n, K speakers. The map is what `model.apply_frames` gives, float16 [F, T_n].
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn

from speaker_invariant_ser.features.log_mel import mask_of

WINDOW = 300  # frames that are read at once
BATCH = 32  # windows; the two together bound the memory
EPOCHS, PATIENCE = 40, 6
WATCHED = 0.15  # share of each speaker's training clips that tells when to stop


class FrameAttacker(BaseEstimator, ClassifierMixin):
    """Attentive means over frames (Lin et al., A structured self-attentive sentence embedding, ICLR 2017), then softmax.

    What is pooled is turned to the frames' principal axes and every axis standardised: an encoder that was taught to hide the
    speaker does so in directions of little variance, and a probe of the features as they are would read those last.

    AdamW learns from 85 % of each speaker's clips and stops when the loss on the others has not fallen for 6 epochs; the best
    epoch is kept. Of a clip longer than 300 frames a random window is learned from each time, and all of it is asked. Beside
    the maps themselves, memory holds 32 windows in single precision, 20 MB for F = 512, and a few times that for gradients.

    It runs on the CPU. The same seed gives the same probe; torch's own random state and number of threads stay as they were.
    """

    def __init__(self, seed: int = 0, weight_decay: float = 0.01, learning_rate: float = 3e-3) -> None:
        self.seed = seed
        self.weight_decay = weight_decay
        self.learning_rate = learning_rate

    def fit(self, maps: Sequence[np.ndarray], labels: Sequence) -> "FrameAttacker":
        """Learn to name the label [N] of each map [F, T_n]; at least two labels."""
        self.classes_, target = np.unique(labels, return_inverse=True)
        rng = np.random.default_rng(self.seed)
        learned, watched = spare(target, rng)
        kept, best, since = None, np.inf, 0
        with undisturbed(self.seed):
            self.network_ = Network(maps, len(self.classes_))
            optimiser = torch.optim.AdamW(self.network_.parameters(), self.learning_rate, weight_decay=self.weight_decay)
            for epoch in range(EPOCHS):
                self._learn(optimiser, [maps[row] for row in learned], target[learned], rng)
                probability = self._read([maps[row] for row in watched])
                loss = F.nll_loss(probability.clamp(min=1e-9).log(), torch.from_numpy(target[watched])).item()
                if loss < best:
                    kept, best, since = copy.deepcopy(self.network_.state_dict()), loss, epoch
                if epoch - since == PATIENCE:
                    break
            self.network_.load_state_dict(kept)
        return self

    def predict_proba(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities [N, K] of `classes_`, the mean over a clip's windows."""
        with undisturbed(self.seed):
            return self._read(maps).numpy()

    def predict(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """The most probable label [N] of each map [F, T_n]."""
        return self.classes_[self.predict_proba(maps).argmax(axis=1)]

    def _learn(self, optimiser, maps: Sequence[np.ndarray], target: np.ndarray, rng: np.random.Generator) -> None:
        """One epoch. Clips of similar length share a batch, with some chance in it, or half of what is read would be padding."""
        self.network_.train()
        order = np.argsort([one.shape[1] * rng.uniform(0.8, 1.25) for one in maps])
        parts = np.array_split(order, -(-len(order) // BATCH))
        for part in rng.permutation(len(parts)):
            optimiser.zero_grad()
            logits = self.network_(*padded([crop(maps[row], rng) for row in parts[part]]))
            F.cross_entropy(logits, torch.from_numpy(target[parts[part]])).backward()
            optimiser.step()

    @torch.no_grad()
    def _read(self, maps: Sequence[np.ndarray]) -> Tensor:
        self.network_.eval()
        windows = [(row, part) for row, one in enumerate(maps) for part in cut(one)]
        windows.sort(key=lambda window: window[1].shape[1])
        total = torch.zeros(len(maps), len(self.classes_))
        for start in range(0, len(windows), BATCH):
            rows, parts = zip(*windows[start : start + BATCH], strict=True)
            total.index_add_(0, torch.tensor(rows), self.network_(*padded(parts)).softmax(dim=1))
        return total / total.sum(dim=1, keepdim=True)


class Network(nn.Module):
    """(maps [B, F, T], frames [B]) -> logits [B, K] from the plain mean over frames and one attentive mean for each head."""

    def __init__(self, maps: Sequence[np.ndarray], classes: int, heads: int = 3, hidden: int = 32) -> None:
        super().__init__()
        mean, deviation, axes = moments(maps)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.register_buffer("axes", axes)
        pooled = (1 + heads) * len(mean)
        self.look = nn.Linear(len(mean), hidden)
        self.score = nn.Conv1d(hidden, heads, 1)
        self.head = nn.Sequential(nn.BatchNorm1d(pooled, affine=False), nn.Dropout(0.5), nn.Linear(pooled, classes))

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        scale = self.look.weight / self.deviation  # standardising the weights, not the maps, is twice as fast
        score = self.score(torch.tanh(scale @ x + (self.look.bias - scale @ self.mean)[:, None]))
        score = torch.cat((torch.zeros_like(score[:, :1]), score), dim=1)  # equal scores give the plain mean
        weight = score.masked_fill(~mask_of(frames, x.shape[2])[:, None], -torch.inf).softmax(dim=2)
        return self.head(((weight @ x.mT - self.mean) / self.deviation @ self.axes).flatten(1))


def moments(maps: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Over all frames of all maps: mean [F], deviation [F], and the principal axes [F, F] of what they standardise.

    Axes are scaled to variance 1. A feature that never changes has deviation 1, an axis along which nothing varies stays small.
    """
    windows = [part for one in maps for part in cut(one)]
    batches = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
    frames = sum(part.shape[1] for part in windows)
    mean = sum(together(batch).sum(dim=1, dtype=torch.float64) for batch in batches) / frames
    mean = mean.float()
    products = (part @ part.T for part in (together(batch) - mean[:, None] for batch in batches))
    covariance = sum(product.double() for product in products) / frames
    deviation = covariance.diagonal().sqrt()
    deviation[deviation < 1e-6] = 1
    variance, axes = torch.linalg.eigh(covariance / deviation / deviation[:, None])
    return mean, deviation.float(), (axes / variance.clamp(min=1e-6).sqrt()).float()


def together(maps: Sequence[np.ndarray]) -> Tensor:
    """The frames of all maps as one float32 [F, T]."""
    return torch.cat([torch.from_numpy(one) for one in maps], dim=1).float()


def spare(target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to watch, a share of each class's clips; all rows are both where that share is no clip."""
    watched = np.zeros(len(target), dtype=bool)
    for one in np.unique(target):
        rows = rng.permutation(np.flatnonzero(target == one))
        watched[rows[: round(WATCHED * len(rows))]] = True
    if not watched.any():
        return np.arange(len(target)), np.arange(len(target))
    return np.flatnonzero(~watched), np.flatnonzero(watched)


def crop(one: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most WINDOW frames of a map, from a random start."""
    start = rng.integers(0, max(one.shape[1] - WINDOW, 0), endpoint=True)
    return one[:, start : start + WINDOW]


def cut(one: np.ndarray) -> list[np.ndarray]:
    """A map as the fewest windows of nearly equal length, at most WINDOW."""
    return np.array_split(one, -(-one.shape[1] // WINDOW), axis=1)


def padded(parts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Maps [F, T_n] -> (float32 [B, F, T], padded with zeros, their frames [B])."""
    frames = [part.shape[1] for part in parts]
    batch = torch.zeros(len(parts), len(parts[0]), max(frames))
    for row, part in zip(batch, parts, strict=True):
        row[:, : part.shape[1]] = torch.from_numpy(part)
    return batch, torch.tensor(frames)


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """Torch on one thread (the same sums everywhere) from this seed; state and threads as before afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's only: torch.manual_seed would reach every device
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
