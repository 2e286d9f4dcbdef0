"""Erasers: maps that remove speaker information from embeddings, fitted after training on the training speakers.

The model stores directions in which speakers differ, not which speaker is where: no speaker can be identified with them.

Shapes: N utterances, B batch, D embedding dimension, R random features, r discriminant functions, K speakers.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.recipe_methods import EraseSection, KernelErasureSettings

if TYPE_CHECKING:
    from concept_erasure import LeaceFitter

SINGULAR_VALUE_TOLERANCE = 1e-6  # correlations of embedding and speaker below this are rounding errors
SAMPLE = 5000  # utterances that the rounds of a kernel eraser are fitted on, at most
FEATURES = 512  # R, random Fourier features of a discriminant
KERNEL_WIDTHS = 0.5, 1.0, 2.0  # of their Gaussian kernels, as multiples of the median distance
PENALTIES = 0.01, 0.1, 1.0  # ridge of a discriminant, as multiples of the mean variance of its features
VALIDATION_EVERY = 3  # one utterance in three of each speaker is held out to measure what is left
VALIDATION_FOLDS = 4  # of the cross-validation among these
STEPS, DAMPING = 12, 1e-4  # of the Gauss-Newton search for the nearest embedding without speaker information
BATCH_SIZE = 256  # utterances moved together: bounds memory


class Eraser(Protocol):
    """What every eraser offers."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] without what was erased; x as it is before `fit`, and in training."""
        ...

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None:
        """Fit the eraser.

        Args:
            x: Embeddings of training speakers, [N, D].
            speaker: Their speakers, [N].
            seed: Seed of everything random.
        """
        ...


class IdentityEraser(nn.Module):
    """No eraser."""

    def __init__(self, dim: int, settings: EraseSection) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return x as it is."""
        return x

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None:
        """Do nothing."""


class LeaceEraser(nn.Module):
    """LEACE: the smallest affine change that makes the means of all speakers equal.

    On the utterances it was fitted on, no linear classifier of the speaker then does better than one without the embedding.
    Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff and Biderman, "LEACE: Perfect linear concept erasure in closed form",
    NeurIPS 2023; the implementation is the authors' concept-erasure.

    Known failures: nonlinear classifiers are not covered. It equalises the means of the utterances it was fitted on, and means
    of few utterances are inaccurate: with 50 for each speaker in 128 dimensions, an attacker trained on other utterances of
    these speakers is three times as accurate as chance (one trained on the fitted utterances is at chance, which is no
    evidence). K speakers cost K - 1 dimensions, and the emotion along them.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, settings: EraseSection) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] after erasure."""
        return x if self.training else F.linear(x - self.mean, self.matrix, self.mean)

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None:
        """Fit on embeddings [N, D] of speakers [N]; nothing is random.

        Speakers are one-hot: integers would be taken as one continuous number, and next to nothing would be erased. All
        directions are erased: with many speakers most singular values are below concept-erasure's default limit of 0.01. The
        trace of the covariance is not constrained: it can only grow by rounding.
        """
        fitter = import_leace().fit(x.double(), one_hot(speaker), svd_tol=SINGULAR_VALUE_TOLERANCE, constrain_cov_trace=False)
        eraser = fitter.eraser
        self.mean.copy_(eraser.bias)
        self.matrix.copy_(eraser.P)


class KernelEraser(nn.Module):
    """Kernel erasure: LEACE, then rounds of nonlinear discriminants whose speaker information is removed, then LEACE again.

    In every round a fresh discriminant of the speaker is fitted: linear discriminant analysis of random Fourier features (Rahimi
    and Recht, NeurIPS 2007) of three kernel widths, r functions g(x) of mean 0, with r at most D / 8 and at most K - 1. Every
    embedding is then moved, as little as possible, to where g is 0 for all speakers: g(x') = 0 for the x' nearest to x, by
    damped Gauss-Newton steps no longer than half the median distance between utterances. That is the iterative gradient-based
    projection of Iskander, Radinsky and Belinkov (ACL Findings 2023) for all speakers at once and with the curvature of g, or
    the kernel erasure of Ravfogel, Vargas, Goldberg and Cotterell (EMNLP 2022) with a pre-image. Distances are between
    standardised embeddings.

    A third of each speaker's utterances is held out from fitting discriminants. The rounds end when discriminants
    cross-validated among these are at chance. The fitted utterances would be at chance too early, because they are erased more
    thoroughly than new ones.

    Known failures: what is erased for these kernels is not erased for other nonlinear classifiers (Ravfogel et al. show it), so
    consult the audit. With few utterances the discriminants are poor and leave much in new utterances, and the cross-validation
    is poor and ends the rounds too early. Where g has no zero nearby, an embedding stays where the search stopped. A round
    costs up to r dimensions, and the emotion in them.

    Args:
        dim: Dimension D of the embedding.
        settings: Section [erase] of the recipe.
    """

    used: Tensor
    mean: Tensor
    scale: Tensor
    frequency: Tensor
    phase: Tensor
    weight: Tensor
    level: Tensor
    longest: Tensor

    def __init__(self, dim: int, settings: KernelErasureSettings) -> None:
        super().__init__()
        rounds, directions = settings.rounds, max(1, dim // 8)
        self.first, self.last = LeaceEraser(dim, settings), LeaceEraser(dim, settings)
        self.register_buffer("used", torch.zeros((), dtype=torch.long))  # how many of the rounds; shapes do not depend on it
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("frequency", torch.zeros(rounds, dim, FEATURES))
        self.register_buffer("phase", torch.zeros(rounds, FEATURES))
        self.register_buffer("weight", torch.zeros(rounds, FEATURES, directions))
        self.register_buffer("level", torch.zeros(rounds, directions))
        self.register_buffer("longest", torch.zeros(rounds))

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] after erasure."""
        return x if self.training else self.last(self.after_rounds(x))

    def after_rounds(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] after the first LEACE and all rounds."""
        x = (self.first(x) - self.mean) / self.scale
        for number in range(int(self.used)):
            x = self.discriminant(number).erase(x)
        return x * self.scale + self.mean

    def discriminant(self, number: int) -> "Discriminant":
        """Return the discriminant of a round."""
        parts = self.frequency, self.phase, self.weight, self.level, self.longest
        return Discriminant(*(part[number] for part in parts))

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None:
        """Fit on embeddings [N, D] of speakers [N]; the rounds use at most `SAMPLE` of them."""
        rng = np.random.default_rng(seed)
        train, validation = hold_out_utterances(speaker, rng)
        self.used.zero_()
        self.first.fit(x[train], speaker[train], seed)
        left = self.first(x)
        self.mean.copy_(left.mean(dim=0))
        self.scale.copy_(left.std(dim=0).clamp_min(1e-3))
        train, validation = (rng.permutation(part)[: SAMPLE * len(part) // len(x) + 1] for part in (train, validation))
        self.fit_rounds((left - self.mean) / self.scale, to_indices(speaker), train, validation, rng)
        self.last.fit(self.after_rounds(x), speaker, seed)

    def fit_rounds(
        self, x: Tensor, speaker: np.ndarray, train: np.ndarray, validation: np.ndarray, rng: np.random.Generator
    ) -> None:
        """Fit round after round, until speakers of the validation utterances are identified at chance.

        Args:
            x: Standardised embeddings after the first LEACE, [N, D].
            speaker: Their speakers as integers, [N].
            train: Indices of the utterances that discriminants are fitted on.
            validation: Indices of those that measure what is left.
            rng: Generator to draw from.
        """
        if len(validation) < 2 * VALIDATION_FOLDS or speaker.max() == 0:
            return
        fitted, held_out = Labelled(x[train], speaker[train]), Labelled(x[validation], speaker[validation])
        for number in range(len(self.longest)):
            if at_chance(cross_validated_accuracy(held_out, rng), held_out.speaker):
                return
            self.store(number, best_discriminant(fitted, held_out, self.weight.shape[2], rng))
            erase = self.discriminant(number).erase
            fitted, held_out = (Labelled(erase(part.x), part.speaker) for part in (fitted, held_out))

    def store(self, number: int, discriminant: "Discriminant") -> None:
        """Store the discriminant of a round, padded with zeros to the number of functions there is room for."""
        self.frequency[number], self.phase[number] = discriminant.frequency, discriminant.phase
        self.longest[number] = discriminant.longest
        padding = (0, self.weight.shape[2] - discriminant.weight.shape[1])
        self.weight[number], self.level[number] = F.pad(discriminant.weight, padding), F.pad(discriminant.level, padding)
        self.used.fill_(number + 1)


class Labelled(NamedTuple):
    """Embeddings [N, D] and their speakers as integers [N]."""

    x: Tensor
    speaker: np.ndarray


@dataclass(frozen=True)
class Discriminant:
    """Functions that separate speakers: g(x) [B, r] = features(x) [B, R] @ weight - level, with mean 0.

    Attributes:
        frequency: Frequencies of the random Fourier features, [D, R]; their scale is 1 / width of the kernels.
        phase: Phases of the random Fourier features, [R].
        weight: Weights of the features, [R, r].
        level: Mean of each function before it is subtracted, [r].
        longest: Maximum length of a step of `erase`.
    """

    frequency: Tensor
    phase: Tensor
    weight: Tensor
    level: Tensor
    longest: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return g [B, r] of embeddings [B, D]."""
        return fourier_features(x, self.frequency, self.phase) @ self.weight - self.level

    def erase(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] moved to where g is 0."""
        return torch.cat([self.erase_batch(batch) for batch in x.split(BATCH_SIZE)])

    def erase_batch(self, x: Tensor) -> Tensor:
        """Solve g(x) = 0 by damped Gauss-Newton steps, each as short as possible."""
        ridge = DAMPING * torch.eye(self.weight.shape[1], dtype=x.dtype, device=x.device)
        for _ in range(STEPS):
            jacobian = self.jacobian(x)
            gram = jacobian @ jacobian.mT
            size = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)
            solution = torch.linalg.solve(gram + size[:, None, None] * ridge, self(x)[:, :, None])
            step = (jacobian.mT @ solution)[:, :, 0]
            x = x - step * (self.longest / step.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        return x

    def jacobian(self, x: Tensor) -> Tensor:
        """Return the derivative of g, [B, r, D]."""
        outer = -math.sqrt(2 / FEATURES) * torch.sin(x @ self.frequency + self.phase)
        return (outer[:, None, :] * self.weight.T) @ self.frequency.T

    def identified(self, train: Labelled, test: Labelled) -> np.ndarray:
        """Return which test utterances lie nearest to the mean of their own speaker's training utterances, bool [N]."""
        values, speakers = self(train.x.double()), np.unique(train.speaker)
        means = torch.stack([values[train.speaker == speaker].mean(dim=0) for speaker in speakers])
        return speakers[torch.cdist(self(test.x.double()), means).argmin(dim=1).numpy()] == test.speaker


def fourier_features(x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Return random Fourier features [B, R] of x [B, D]; the inner product of two rows approximates a Gaussian kernel."""
    return math.sqrt(2 / FEATURES) * torch.cos(x @ frequency + phase)


def best_discriminant(train: Labelled, validation: Labelled, functions: int, rng: np.random.Generator) -> Discriminant:
    """Return the discriminant of `train` with the penalty that identifies most speakers of `validation`."""
    candidates = list(fit_discriminants(train, functions, rng))
    return max(candidates, key=lambda candidate: candidate.identified(train, validation).sum())


def cross_validated_accuracy(data: Labelled, rng: np.random.Generator) -> float:
    """Return the accuracy of discriminants at identifying speakers, cross-validated, with the best penalty."""
    speaker = data.speaker
    order = np.concatenate([rng.permutation(np.flatnonzero(speaker == index)) for index in np.unique(speaker)])
    fold, correct = np.empty(len(speaker), dtype=int), np.zeros((len(PENALTIES), len(speaker)))
    fold[order] = np.arange(len(order)) % VALIDATION_FOLDS  # every speaker in every fold, given enough utterances
    for number in range(VALIDATION_FOLDS):
        train, test = (Labelled(data.x[rows], speaker[rows]) for rows in map(np.flatnonzero, (fold != number, fold == number)))
        for row, candidate in zip(correct, fit_discriminants(train, data.x.shape[1], rng), strict=True):
            row[fold == number] = candidate.identified(train, test)
    return float(correct.mean(axis=1).max())


def fit_discriminants(data: Labelled, functions: int, rng: np.random.Generator) -> Iterator[Discriminant]:
    """Fit linear discriminant analysis of random Fourier features, once with each penalty.

    Classes are separated relative to the covariance of all features, not of the features within classes.

    Args:
        data: Embeddings and speakers.
        functions: How many functions r a discriminant has, at most.
        rng: Generator of the random features.
    """
    x = data.x.double()
    distance = torch.pdist(x[:1000]).median().clamp_min(1e-6)
    width = distance * torch.tensor(KERNEL_WIDTHS).repeat(-(-FEATURES // len(KERNEL_WIDTHS)))[:FEATURES]
    frequency = torch.from_numpy(rng.standard_normal((x.shape[1], FEATURES))) / width
    phase = torch.from_numpy(rng.uniform(0, 2 * math.pi, FEATURES))
    features, speaker = fourier_features(x, frequency, phase), one_hot(data.speaker)
    level = features.mean(dim=0)
    covariance = (features - level).T @ (features - level) / len(x)
    means = (features - level).T @ (speaker / speaker.sum(dim=0).sqrt())  # of each speaker, weighted by utterances
    for penalty in PENALTIES:
        ridge = penalty * covariance.diagonal().mean() + 1e-12  # positive even where all utterances are the same
        root = torch.linalg.cholesky(covariance + ridge * torch.eye(FEATURES, dtype=x.dtype))
        left, _, _ = torch.linalg.svd(torch.linalg.solve_triangular(root, means, upper=False), full_matrices=False)
        weight = torch.linalg.solve_triangular(root.T, left[:, : min(functions, speaker.shape[1] - 1)], upper=True)
        yield Discriminant(frequency, phase, weight, level @ weight, distance / 2)


def hold_out_utterances(speaker: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split utterances into indices to fit on and indices held out, one in three of each speaker's."""
    by_speaker = [rng.permutation(np.flatnonzero(speaker == name)) for name in np.unique(speaker)]
    held_out = np.sort(np.concatenate([indices[: len(indices) // VALIDATION_EVERY] for indices in by_speaker]))
    return np.setdiff1d(np.arange(len(speaker)), held_out), held_out


def at_chance(accuracy: float, speaker: np.ndarray) -> bool:
    """Return whether an accuracy is not significantly above always guessing the most frequent speaker (95 %, one-sided)."""
    chance = np.bincount(speaker).max() / len(speaker)
    return bool(accuracy <= chance + 1.645 * math.sqrt(chance * (1 - chance) / len(speaker)))


def one_hot(speaker: np.ndarray) -> Tensor:
    """Return speakers [N], given by name or number, as one-hot rows [N, K] in double precision."""
    return F.one_hot(torch.from_numpy(to_indices(speaker))).double()


def import_leace() -> type["LeaceFitter"]:
    """Import LeaceFitter of concept-erasure without its deprecation warning about a part of torch that is not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from concept_erasure import LeaceFitter
    return LeaceFitter


ERASERS: dict[str, Callable[..., Eraser]] = {"none": IdentityEraser, "leace": LeaceEraser, "kernel": KernelEraser}
