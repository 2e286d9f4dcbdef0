"""What is taken out of the embedding after training, by a map fitted on the training speakers and stored in the model.

An eraser is an nn.Module, `[B, D] -> [B, D]`, that is the identity until it is fitted, and in training. What is stored are
directions in which speakers differ, not who is where: nobody can be named with it. N clips, R random features, r directions.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import EraseSection, KernelErasureSettings

EXACT = 1e-6  # correlations of embedding and speaker below this are rounding; with 100 speakers, 0.01 is not
SAMPLE = 5000  # clips at most that a kernel eraser is fitted on
FEATURES = 512  # R, random Fourier features of a reader
WIDTHS = 0.5, 1.0, 2.0  # of their Gaussian kernels, in median distances
PENALTIES = 0.01, 0.1, 1.0  # of a reader, in mean variances of its features
KEPT_BACK = 3  # one clip in three of each speaker says how much can be read
PROBES = 4  # parts of these that are read in turn
STEPS, DAMPING = 12, 1e-4  # of the search for the nearest embedding that a reader cannot read
AT_ONCE = 256  # clips: bounds memory


class Eraser(Protocol):
    def __call__(self, x: Tensor) -> Tensor: ...

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None: ...


class Nothing(nn.Module):
    """No eraser."""

    def __init__(self, dim: int, settings: EraseSection) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None:
        """Nothing to do."""


class Leace(nn.Module):
    """The smallest affine change after which all speakers' means are equal, so that on the clips it was fitted on no linear
    classifier does better than without the embedding. Belrose et al., NeurIPS 2023, as the authors' concept-erasure has it.

    Known failures: it is about straight lines only, a kernel or a network reads on. It equalises means of the clips that it was
    fitted on, and few clips are poor means: with 50 each in 128 dimensions, whoever learns from other clips of these people
    names three times as many as by chance (who learns from the fitted ones names none, and must not be believed). It costs a
    dimension for each speaker but one, and what emotion says along these.
    """

    def __init__(self, dim: int, settings: EraseSection) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else F.linear(x - self.mean, self.matrix, self.mean)

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None:
        """Fit on embeddings [N, D] of known speakers [N]; nothing is random.

        One column a speaker: integers would be read as one number, of which next to nothing is erased. Every direction is taken:
        concept-erasure's own limit leaves those with a singular value below 0.01, which with many speakers are most. The trace
        of the covariance is not held back: it grows by rounding alone.
        """
        options = {"svd_tol": EXACT, "constrain_cov_trace": False}
        eraser = import_leace().fit(x.double(), one_hot(speaker), **options).eraser
        self.mean.copy_(eraser.bias)
        self.matrix.copy_(eraser.P)


class Kernel(nn.Module):
    """A Leace; then, round after round, a fresh nonlinear reader of the speaker is fitted, and every embedding is moved, by as
    little as it takes, to where that reader reads the same of everyone; another Leace for what that has left.

    A reader is linear discriminant analysis of random Fourier features (Rahimi and Recht, NeurIPS 2007) of three widths: r
    functions g(x), at most D / 8 and one less than speakers, that are 0 on average. The move solves g(x') = 0 for the x' next
    to x by damped Gauss-Newton steps, none longer than half the median distance of two clips. That is the iterative gradient
    projection of Iskander et al. (ACL Findings 2023) with all speakers and the curve of g taken into account, or the kernel
    eraser of Ravfogel et al. (EMNLP 2022) with a pre-image. Distances are those of standardised dimensions.

    A third of each speaker's clips is kept from the readers: the rounds end when these clips, learned from and scored among
    themselves, are read no better than by chance. Clips that were erased from would say so too early, as their own readers
    have wiped them cleaner than any new clip.

    Known failures: erased for these kernels is not erased for another kind of reader (Ravfogel et al. show it), so ask the audit.
    Few clips make poor readers, that leave much in new clips, and a poor probe, that ends the rounds too early. Where g has no
    0 nearby, an embedding stays where it stopped. A round costs up to r dimensions, and emotion with them.
    """

    def __init__(self, dim: int, settings: KernelErasureSettings) -> None:
        super().__init__()
        rounds, directions = settings.rounds, max(1, dim // 8)
        self.first, self.last = Leace(dim, settings), Leace(dim, settings)
        self.register_buffer("used", torch.zeros((), dtype=torch.long))  # rounds; what is stored has one shape however many
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("frequency", torch.zeros(rounds, dim, FEATURES))
        self.register_buffer("phase", torch.zeros(rounds, FEATURES))
        self.register_buffer("weight", torch.zeros(rounds, FEATURES, directions))
        self.register_buffer("level", torch.zeros(rounds, directions))
        self.register_buffer("longest", torch.zeros(rounds))

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else self.last(self.moved(x))

    def moved(self, x: Tensor) -> Tensor:
        """Embeddings [B, D] after all rounds."""
        x = (self.first(x) - self.mean) / self.scale
        for number in range(int(self.used)):
            x = self.reader(number).blinded(x)
        return x * self.scale + self.mean

    def reader(self, number: int) -> "Discriminant":
        parts = self.frequency, self.phase, self.weight, self.level, self.longest
        return Discriminant(*(part[number] for part in parts))

    def fit(self, x: Tensor, speaker: np.ndarray, seed: int) -> None:
        """Fit on embeddings [N, D] of known speakers [N]; rounds on at most `SAMPLE` of them."""
        rng = np.random.default_rng(seed)
        told, probed = keep_back(speaker, rng)
        self.used.zero_()
        self.first.fit(x[told], speaker[told], seed)
        left = self.first(x)
        self.mean.copy_(left.mean(dim=0))
        self.scale.copy_(left.std(dim=0).clamp_min(1e-3))
        told, probed = (rng.permutation(part)[: SAMPLE * len(part) // len(x) + 1] for part in (told, probed))
        self.fit_rounds((left - self.mean) / self.scale, speaker, told, probed, rng)
        self.last.fit(self.moved(x), speaker, seed)

    def fit_rounds(self, x: Tensor, speaker: np.ndarray, told: np.ndarray, probed: np.ndarray, rng: np.random.Generator) -> None:
        """Rounds on what is left [N, D] after the first Leace, readers told of some clips, the probe of others."""
        who = to_indices(speaker)
        if len(probed) < 2 * PROBES or who.max() == 0:
            return
        a, b = x[told], x[probed]
        for number in range(len(self.longest)):
            if at_chance(readable(b, who[probed], rng), who[probed]):
                return
            self.prepared(number, best_reader(a, who[told], b, who[probed], self.weight.shape[2], rng))
            a, b = (self.reader(number).blinded(part) for part in (a, b))

    def prepared(self, number: int, reader: "Discriminant") -> None:
        """Keep a reader as that of this round; one of fewer directions than there is room for is filled up with zeros."""
        directions = reader.weight.shape[1]
        self.frequency[number], self.phase[number], self.longest[number] = reader.frequency, reader.phase, reader.longest
        self.weight[number] = F.pad(reader.weight, (0, self.weight.shape[2] - directions))
        self.level[number] = F.pad(reader.level, (0, self.level.shape[1] - directions))
        self.used.fill_(number + 1)


@dataclass(frozen=True)
class Discriminant:
    """What tells speakers apart: g(x) [B, r] = features(x) [B, R] @ weight [R, r] - level [r]; 0 on average."""

    frequency: Tensor  # [D, R], 1 / standard deviations
    phase: Tensor  # [R]
    weight: Tensor
    level: Tensor
    longest: Tensor  # step of `blinded`

    def __call__(self, x: Tensor) -> Tensor:
        return fourier(x, self.frequency, self.phase) @ self.weight - self.level

    def blinded(self, x: Tensor) -> Tensor:
        """Embeddings [B, D] moved to where g is 0."""
        return torch.cat([self.blinded_few(some) for some in x.split(AT_ONCE)])

    def blinded_few(self, x: Tensor) -> Tensor:
        ridge = DAMPING * torch.eye(self.weight.shape[1], dtype=x.dtype, device=x.device)
        for _ in range(STEPS):
            slope = self.slope(x)
            square = slope @ slope.mT
            size = square.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)
            share = torch.linalg.solve(square + size[:, None, None] * ridge, self(x)[:, :, None])
            step = (slope.mT @ share)[:, :, 0]
            x = x - step * (self.longest / step.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        return x

    def slope(self, x: Tensor) -> Tensor:
        """The derivative of g [B, r, D]."""
        bend = -math.sqrt(2 / FEATURES) * torch.sin(x @ self.frequency + self.phase)
        return (bend[:, None, :] * self.weight.T) @ self.frequency.T


def fourier(x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Random Fourier features [B, R] of x [B, D]: two clips' products are about a Gaussian kernel of their distance."""
    return math.sqrt(2 / FEATURES) * torch.cos(x @ frequency + phase)


def best_reader(
    x: Tensor, speaker: np.ndarray, others: Tensor, their_speaker: np.ndarray, directions: int, rng: np.random.Generator
) -> "Discriminant":
    """The reader of clips [N, D] whose penalty reads most of other clips."""
    tried = list(readers(x, speaker, directions, rng))
    return max(tried, key=lambda reader: right_of(reader, x, speaker, others, their_speaker).sum())


def readable(x: Tensor, speaker: np.ndarray, rng: np.random.Generator) -> float:
    """Share of clips [N, D] of which readers told of three in four of the others name the speaker [N] rightly."""
    order = np.concatenate([rng.permutation(np.flatnonzero(speaker == who)) for who in np.unique(speaker)])
    fold, right = np.empty(len(speaker), dtype=int), np.zeros((len(PENALTIES), len(speaker)))
    fold[order] = np.arange(len(order)) % PROBES  # each speaker in all, where there are clips enough
    for number in range(PROBES):
        on, off = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        for row, reader in zip(right, readers(x[on], speaker[on], x.shape[1], rng), strict=True):
            row[off] = right_of(reader, x[on], speaker[on], x[off], speaker[off])
    return float(right.mean(axis=1).max())


def right_of(reader: "Discriminant", x: Tensor, speaker: np.ndarray, others: Tensor, their_speaker: np.ndarray) -> np.ndarray:
    """Bool [M], which other clips lie next to the mean of their own speaker's clips, as the reader sees them."""
    seen, known = reader(x.double()), np.unique(speaker)
    means = torch.stack([seen[speaker == who].mean(dim=0) for who in known])
    return known[torch.cdist(reader(others.double()), means).argmin(dim=1).numpy()] == their_speaker


def readers(x: Tensor, speaker: np.ndarray, directions: int, rng: np.random.Generator) -> Iterator[Discriminant]:
    """A reader of clips [N, D] for each penalty: discriminant analysis, whitened by the covariance of all features."""
    x = x.double()
    distance = torch.pdist(x[:1000]).median().clamp_min(1e-6)
    width = distance * torch.tensor(WIDTHS).repeat(-(-FEATURES // len(WIDTHS)))[:FEATURES]
    frequency = torch.from_numpy(rng.standard_normal((x.shape[1], FEATURES))) / width
    phase = torch.from_numpy(rng.uniform(0, 2 * math.pi, FEATURES))
    features, who = fourier(x, frequency, phase), one_hot(speaker)
    level = features.mean(dim=0)
    covariance = (features - level).T @ (features - level) / len(x)
    means = (features - level).T @ (who / who.sum(dim=0).sqrt())  # of each speaker, as heavy as clips of theirs there are
    for penalty in PENALTIES:
        ridge = penalty * covariance.diagonal().mean() + 1e-12  # more than nothing, where all clips are the same
        root = torch.linalg.cholesky(covariance + ridge * torch.eye(FEATURES, dtype=x.dtype))
        left, _, _ = torch.linalg.svd(torch.linalg.solve_triangular(root, means, upper=False), full_matrices=False)
        weight = torch.linalg.solve_triangular(root.T, left[:, : min(directions, who.shape[1] - 1)], upper=True)
        yield Discriminant(frequency, phase, weight, level @ weight, distance / 2)


def keep_back(speaker: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions (to learn from, kept back): of each speaker one clip in three, none of a speaker with fewer."""
    clips = [rng.permutation(np.flatnonzero(speaker == who)) for who in np.unique(speaker)]
    kept = np.sort(np.concatenate([mine[: len(mine) // KEPT_BACK] for mine in clips]))
    return np.setdiff1d(np.arange(len(speaker)), kept), kept


def at_chance(right: float, speaker: np.ndarray) -> bool:
    """Whether a share named rightly is no more, but for luck (95 %, one-sided), than what always naming one speaker gives."""
    chance = np.bincount(speaker).max() / len(speaker)
    return right <= chance + 1.645 * math.sqrt(chance * (1 - chance) / len(speaker))


def one_hot(speaker: np.ndarray) -> Tensor:
    """Speakers [N], whatever their names -> [N, K] in double precision."""
    return F.one_hot(torch.from_numpy(to_indices(speaker))).double()


def import_leace():
    """concept-erasure's LeaceFitter; its import warns of something that torch deprecates and we do not use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from concept_erasure import LeaceFitter
    return LeaceFitter


ERASERS: dict[str, Callable[..., Eraser]] = {"none": Nothing, "leace": Leace, "kernel": Kernel}


def check_erase(recipe: Recipe, dim: int, speakers: int) -> None:
    """Raise RecipeError for an eraser that would leave nothing of D = `dim`, or one that nobody could check."""
    name = recipe.erase.name
    if name != "none" and speakers > dim:
        raise RecipeError(
            f"erase.name = {name}: {speakers} training speakers take {speakers - 1} dimensions, and the embedding has {dim}; "
            f"expected encoder.dim above {speakers - 1}, such as {4 * speakers}, or erase.name = none"
        )
    if name != "none" and not recipe.audit.holdout:
        raise RecipeError(
            f"erase.name = {name} with audit.holdout = 0: no attacker learns anything from clips that an eraser was fitted on, "
            "whatever is left in others; expected audit.holdout above 0, such as 0.3"
        )
