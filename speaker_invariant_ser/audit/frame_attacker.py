"""Attacker on frame-level features: it sees in single frames what a mean over time hides.

Shapes: F features, T frames (different for each utterance), K speakers. Frame-level features are those that
`models.apply.apply_to_clips` returns as `frame_features`, float16 [F, T].
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

WINDOW = 300  # frames that are processed at once
BATCH_SIZE = 32  # windows; with WINDOW it bounds the memory
EPOCHS, PATIENCE = 40, 6
VALIDATION_SHARE = 0.15  # of each speaker's training utterances, for early stopping


class FrameAttacker(BaseEstimator, ClassifierMixin):
    """Softmax classifier on attentive means over frames.

    Attention as in Lin et al., "A structured self-attentive sentence embedding", ICLR 2017. What is pooled is projected on the
    principal axes of the frames and every axis is standardised: an encoder that was trained to hide the speaker does so in
    directions of little variance, which a classifier of the features as they are would learn last.

    AdamW trains on 85 % of each speaker's utterances until the loss on the others has not fallen for 6 epochs; the best epoch
    is kept. In training a random window of at most 300 frames of each utterance is used, in prediction all of the utterance.
    Beside the features themselves, memory holds 32 windows in single precision, 20 MB for F = 512, and a few times that for
    gradients. Runs on the CPU. Results depend on the seed alone; torch's random state and number of threads are restored.

    Limits: one architecture with three attention heads; a failure to identify speakers does not show that no attacker can.

    Args:
        seed: Seed of initial weights, windows and batches.
        weight_decay: Weight decay of AdamW.
        learning_rate: Learning rate of AdamW.
    """

    def __init__(self, seed: int = 0, weight_decay: float = 0.01, learning_rate: float = 3e-3) -> None:
        self.seed = seed
        self.weight_decay = weight_decay
        self.learning_rate = learning_rate

    def fit(self, features: Sequence[np.ndarray], labels: Sequence) -> "FrameAttacker":
        """Fit the classifier to features [F, T] of N utterances and their labels [N], at least two different ones."""
        self.classes_, target = np.unique(labels, return_inverse=True)
        rng = np.random.default_rng(self.seed)
        train, validation = split_for_early_stopping(target, rng)
        best_loss, best_epoch = np.inf, 0
        with fixed_torch_state(self.seed):
            self.network_ = AttentiveClassifier(features, len(self.classes_))
            best_state = copy.deepcopy(self.network_.state_dict())
            optimiser = torch.optim.AdamW(self.network_.parameters(), self.learning_rate, weight_decay=self.weight_decay)
            for epoch in range(EPOCHS):
                self._train_epoch(optimiser, [features[row] for row in train], target[train], rng)
                probability = self._predict([features[row] for row in validation])
                loss = F.nll_loss(probability.clamp(min=1e-9).log(), torch.from_numpy(target[validation])).item()
                if loss < best_loss:
                    best_state, best_loss, best_epoch = copy.deepcopy(self.network_.state_dict()), loss, epoch
                if epoch - best_epoch == PATIENCE:
                    break
            self.network_.load_state_dict(best_state)
        return self

    def predict_proba(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities [N, K] in the order of `classes_`, the mean over an utterance's windows."""
        with fixed_torch_state(self.seed):
            return self._predict(features).numpy()

    def predict(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Return the most probable label [N] of each utterance."""
        return self.classes_[self.predict_proba(features).argmax(axis=1)]

    def _train_epoch(
        self, optimiser: torch.optim.Optimizer, features: Sequence[np.ndarray], target: np.ndarray, rng: np.random.Generator
    ) -> None:
        """Train one epoch; utterances of similar length share a batch, with some randomness, to limit the padding."""
        self.network_.train()
        order = np.argsort([utterance.shape[1] * rng.uniform(0.8, 1.25) for utterance in features])
        batches = np.array_split(order, -(-len(order) // BATCH_SIZE))
        for index in rng.permutation(len(batches)):
            optimiser.zero_grad()
            logits = self.network_(*pad([random_window(features[row], rng) for row in batches[index]]))
            F.cross_entropy(logits, torch.from_numpy(target[batches[index]])).backward()
            optimiser.step()

    @torch.no_grad()
    def _predict(self, features: Sequence[np.ndarray]) -> Tensor:
        """Return probabilities [N, K]."""
        self.network_.eval()
        windows = [(row, window) for row, utterance in enumerate(features) for window in cut_into_windows(utterance)]
        windows.sort(key=lambda row_and_window: row_and_window[1].shape[1])
        total = torch.zeros(len(features), len(self.classes_))
        for start in range(0, len(windows), BATCH_SIZE):
            rows, batch = zip(*windows[start : start + BATCH_SIZE], strict=True)
            total.index_add_(0, torch.tensor(rows), self.network_(*pad(batch)).softmax(dim=1))
        return total / total.sum(dim=1, keepdim=True)


class AttentiveClassifier(nn.Module):
    """Linear classifier of the plain mean over frames and one attentive mean for each head.

    Args:
        features: Training utterances, each [F, T], whose frames define the standardisation.
        classes: Number of classes K.
        heads: Attention heads.
        hidden: Units of the attention.
    """

    mean: Tensor
    deviation: Tensor
    axes: Tensor

    def __init__(self, features: Sequence[np.ndarray], classes: int, heads: int = 3, hidden: int = 32) -> None:
        super().__init__()
        mean, deviation, axes = frame_statistics(features)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.register_buffer("axes", axes)
        pooled = (1 + heads) * len(mean)
        self.attention = nn.Linear(len(mean), hidden)
        self.score = nn.Conv1d(hidden, heads, 1)
        self.head = nn.Sequential(nn.BatchNorm1d(pooled, affine=False), nn.Dropout(0.5), nn.Linear(pooled, classes))

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Return logits [B, K] of padded features x [B, F, T] with `frames` [B] valid frames."""
        scale = self.attention.weight / self.deviation  # standardising weights instead of features takes half the time
        score = self.score(torch.tanh(scale @ x + (self.attention.bias - scale @ self.mean)[:, None]))
        score = torch.cat((torch.zeros_like(score[:, :1]), score), dim=1)  # equal scores give the plain mean
        weight = score.masked_fill(~mask_of(frames, x.shape[2])[:, None], -torch.inf).softmax(dim=2)
        return self.head(((weight @ x.mT - self.mean) / self.deviation @ self.axes).flatten(1))


def frame_statistics(features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the standardisation of frames.

    Args:
        features: Utterances, each [F, T].

    Returns:
        Over all frames: mean [F], standard deviation [F] (1 for a constant feature), and the principal axes [F, F] of
        standardised frames, scaled to variance 1 (axes of nearly no variance stay small).
    """
    windows = [window for utterance in features for window in cut_into_windows(utterance)]
    batches = [windows[start : start + BATCH_SIZE] for start in range(0, len(windows), BATCH_SIZE)]
    frames = sum(window.shape[1] for window in windows)
    total = torch.zeros(len(features[0]), dtype=torch.float64)
    for batch in batches:
        total += concatenate_frames(batch).sum(dim=1, dtype=torch.float64)
    mean = (total / frames).float()
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for batch in batches:
        centred = concatenate_frames(batch) - mean[:, None]
        covariance += (centred @ centred.T).double()
    covariance /= frames
    deviation = covariance.diagonal().sqrt()
    deviation[deviation < 1e-6] = 1
    variance, axes = torch.linalg.eigh(covariance / deviation / deviation[:, None])
    return mean, deviation.float(), (axes / variance.clamp(min=1e-6).sqrt()).float()


def concatenate_frames(features: Sequence[np.ndarray]) -> Tensor:
    """Return the frames of all utterances as one float32 [F, T]."""
    return torch.cat([torch.from_numpy(utterance) for utterance in features], dim=1).float()


def split_for_early_stopping(target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a share of each class's utterances for validation.

    Args:
        target: Class of each utterance [N].
        rng: Random generator.

    Returns:
        Positions to train on and to validate on; all positions for both if the share is less than one utterance.
    """
    in_validation = np.zeros(len(target), dtype=bool)
    for label in np.unique(target):
        rows = rng.permutation(np.flatnonzero(target == label))
        in_validation[rows[: round(VALIDATION_SHARE * len(rows))]] = True
    if not in_validation.any():
        return np.arange(len(target)), np.arange(len(target))
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)


def random_window(utterance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return at most WINDOW frames of features [F, T] from a random start."""
    start = rng.integers(0, max(utterance.shape[1] - WINDOW, 0), endpoint=True)
    return utterance[:, start : start + WINDOW]


def cut_into_windows(utterance: np.ndarray) -> list[np.ndarray]:
    """Cut features [F, T] into the fewest windows of at most WINDOW frames and nearly equal length."""
    return np.array_split(utterance, -(-utterance.shape[1] // WINDOW), axis=1)


def pad(windows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return windows [F, T] as float32 [B, F, max T], padded with zeros, and their numbers of frames [B]."""
    frames = [window.shape[1] for window in windows]
    batch = torch.zeros(len(windows), len(windows[0]), max(frames))
    for row, window in zip(batch, windows, strict=True):
        row[:, : window.shape[1]] = torch.from_numpy(window)
    return batch, torch.tensor(frames)


@contextmanager
def fixed_torch_state(seed: int) -> Iterator[None]:
    """Run torch on one thread (for identical sums everywhere) from a seed; afterwards restore random state and threads."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's only: torch.manual_seed would seed every device
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
