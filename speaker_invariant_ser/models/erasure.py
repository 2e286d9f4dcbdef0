"""Erasers: maps that remove speaker information from embeddings, fitted after training on the training speakers.

The model stores what is applied to every embedding alike, and neither names nor means of single speakers.

Shapes: N utterances, B batch, D embedding dimension, R random features, K speakers, C emotions.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.recipe_methods import EraseSection, ObliviatorSettings

if TYPE_CHECKING:
    from concept_erasure import LeaceFitter

SINGULAR_VALUE_TOLERANCE = 1e-6  # correlations of embedding and speaker below this are rounding errors
FEATURES = 512  # R, random Fourier features of a kernel
MAX_SPEAKERS = FEATURES // 2  # or few functions would be free of them
SAMPLE = 20_000  # utterances that Obliviator is fitted on, at most: bounds memory
HIDDEN = 128  # units of a network
STEPS, BATCH_SIZE, LEARNING_RATE = 30, 512, 2e-3  # of its training; with more it learns the fitted utterances by heart
MIN_SCALE = 1e-3  # of a dimension that is divided by its deviation
MAX_PAIRED = 500  # rows among which distances are measured
TOLERANCE = 1e-3  # covariances with the speaker below this part of the largest count as none
MIN_IMPORTANCE = 1e-4  # functions below this part of the most important one are left out
RIDGE = 1e-6  # mean square of a function below which it predicts little


class Eraser(Protocol):
    """What every eraser offers."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] without what was erased; x as it is before `fit`, and in training."""
        ...

    def fit(self, x: Tensor, speaker: np.ndarray, emotion: np.ndarray, seed: int) -> None:
        """Fit the eraser.

        Args:
            x: Embeddings of training speakers, [N, D].
            speaker: Their speakers, [N].
            emotion: Their emotions as integers, -1 where unknown, [N].
            seed: Seed of everything random.
        """
        ...

    @property
    def ready(self) -> bool:
        """Whether it was fitted; one that can tell returns embeddings as they are before."""
        ...


class IdentityEraser(nn.Module):
    """No eraser."""

    def __init__(self, dim: int, settings: EraseSection) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return x as it is."""
        return x

    @property
    def ready(self) -> bool:
        """As of `Eraser`; there is nothing to fit."""
        return True

    def fit(self, x: Tensor, speaker: np.ndarray, emotion: np.ndarray, seed: int) -> None:
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

    @property
    def ready(self) -> bool:
        """As of `Eraser`; any matrix may have been fitted."""
        return True

    def fit(self, x: Tensor, speaker: np.ndarray, emotion: np.ndarray, seed: int) -> None:
        """Fit on embeddings [N, D] of speakers [N], whatever their emotions; nothing is random.

        Speakers are one-hot: integers would be taken as one continuous number, and next to nothing would be erased. All
        directions are erased: with many speakers most singular values are below concept-erasure's default limit of 0.01. The
        trace of the covariance is not constrained: it can only grow by rounding.
        """
        fitter = import_leace().fit(x.double(), one_hot(speaker), svd_tol=SINGULAR_VALUE_TOLERANCE, constrain_cov_trace=False)
        eraser = fitter.eraser
        self.mean.copy_(eraser.bias)
        self.matrix.copy_(eraser.P)


class ObliviatorEraser(nn.Module):
    """Obliviator: nonlinear erasure that keeps what depends on the emotion.

    In every round a small network is trained so that its output depends on emotion and embedding, and not on the speaker.
    Dependence is the root of the Hilbert-Schmidt independence criterion with Gaussian kernels: the norm of a cross-covariance of
    random Fourier features (Rahimi and Recht, NeurIPS 2007). Functions of the network's output that are linear in such features
    are the input of the next round: those that have no covariance with any speaker and depend most on emotion and embedding.
    What leaves is the linear prediction of the embedding from those of the last round, so that the emotion head changes little.
    Akbari, Afshari and Boddeti, "Obliviator reveals the cost of nonlinear guardedness in concept erasure", NeurIPS 2025
    (arXiv 2603.07529), with emotions as its labels; the linear prediction and all sizes are not theirs.

    Known failures: more rounds remove more of the emotion, and of the speaker little more. Less is removed of utterances that it
    was not fitted on, least where it was fitted on few: consult the audit. An utterance without emotion says nothing about what
    has to be kept.

    Args:
        dim: Dimension D of the embedding.
        settings: Section [erase] of the recipe.
    """

    fitted: Tensor
    mean: Tensor
    scale: Tensor
    hidden: Tensor
    bias: Tensor
    output: Tensor
    frequency: Tensor
    phase: Tensor
    level: Tensor
    functions: Tensor
    back: Tensor
    offset: Tensor

    def __init__(self, dim: int, settings: ObliviatorSettings) -> None:
        super().__init__()
        rounds, self.embedding_weight = settings.rounds, settings.embedding_weight
        shapes = {
            "mean": (dim,),
            "scale": (dim,),
            "hidden": (rounds, dim, HIDDEN),
            "bias": (rounds, HIDDEN),
            "output": (rounds, HIDDEN, dim),
            "frequency": (rounds, dim, FEATURES),
            "phase": (rounds, FEATURES),
            "level": (rounds, FEATURES),
            "functions": (rounds, FEATURES, dim),
            "back": (dim, dim),
            "offset": (dim,),
        }
        self.register_buffer("fitted", torch.zeros((), dtype=torch.long))
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape) if name == "scale" else torch.zeros(shape))

    @property
    def ready(self) -> bool:
        """As of `Eraser`."""
        return bool(self.fitted)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] after erasure."""
        if self.training:
            return x
        return torch.where(self.fitted > 0, self.after_rounds(x) @ self.back + self.offset, x)  # no `if`: ONNX has none on values

    def after_rounds(self, x: Tensor) -> Tensor:
        """Return the functions [B, D] of the last round; some are 0 where there are fewer than D."""
        z = (x - self.mean) / self.scale
        for number in range(len(self.hidden)):
            z = unit((self.features(number, z) - self.level[number]) @ self.functions[number])
        return z

    def features(self, number: int, z: Tensor) -> Tensor:
        """Return random Fourier features [B, R] of the output of a round's network for its input [B, D]."""
        output = network(z, self.hidden[number], self.bias[number], self.output[number])
        return fourier_features(output, self.frequency[number], self.phase[number])

    def fit(self, x: Tensor, speaker: np.ndarray, emotion: np.ndarray, seed: int) -> None:
        """As of `Eraser`."""
        generator = torch.Generator().manual_seed(seed)
        if len(x) > SAMPLE:
            rows = torch.randperm(len(x), generator=generator)[:SAMPLE]
            x, speaker, emotion = x[rows], speaker[rows.numpy()], emotion[rows.numpy()]
        self.mean.copy_(x.mean(dim=0))
        self.scale.copy_(x.std(dim=0, unbiased=False).clamp_min(MIN_SCALE))
        whole = z = (x - self.mean) / self.scale
        speakers, emotions = one_hot(speaker).float(), centred_emotions(emotion)
        for number in range(len(self.hidden)):
            kept = [(emotions, 1.0)]
            kept += [(gaussian_features(part, generator), self.embedding_weight) for part in (whole, z)]
            self.train_network(number, z, speakers, kept, generator)
            z = self.choose_functions(number, z, speakers, kept)
        self.back.copy_(ridge_regression(z - z.mean(dim=0), x - self.mean))
        self.offset.copy_(self.mean - z.mean(dim=0) @ self.back)
        self.fitted.fill_(1)

    def train_network(self, number: int, z: Tensor, speakers: Tensor, kept: "Kept", generator: torch.Generator) -> None:
        """Train and store the network and the random Fourier features of a round.

        Args:
            number: The round.
            z: Its input, [N, D].
            speakers: The speakers, one-hot [N, K].
            kept: What the output has to depend on, see `Kept`.
            generator: Generator to draw from.
        """

        def normal(like: Tensor) -> Tensor:
            """Return random weights, such that outputs vary as inputs do."""
            return torch.randn(like.shape, generator=generator) / math.sqrt(len(like))

        direction = torch.randn(self.frequency[number].shape, generator=generator)
        phase = 2 * math.pi * torch.rand(FEATURES, generator=generator)
        weights = [normal(self.hidden[number]), torch.zeros(HIDDEN), normal(self.output[number])]
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_()
            optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE)
            for _ in range(STEPS):
                rows = torch.randperm(len(z), generator=generator)[:BATCH_SIZE]
                output = network(z[rows], *weights)
                features = fourier_features(output, direction / median_distance(output.detach()), phase)
                loss = dependence(features, speakers[rows])
                loss = loss - sum(weight * dependence(features, values[rows]) for values, weight in kept)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            for buffer, weight in zip((self.hidden, self.bias, self.output), weights, strict=True):
                buffer[number] = weight
            self.frequency[number] = direction / median_distance(network(z, *weights))
            self.phase[number] = phase

    def choose_functions(self, number: int, z: Tensor, speakers: Tensor, kept: "Kept") -> Tensor:
        """Store the functions of a round, and return their values [N, D]; arguments as of `train_network`."""
        features = self.features(number, z)
        self.level[number] = features.mean(dim=0)
        _, size, directions = torch.linalg.svd(covariance(speakers, features), full_matrices=True)
        free = directions[int((size > TOLERANCE * size.max()).sum()) :].T
        wanted = torch.zeros(free.shape[1], free.shape[1], dtype=torch.float64)
        for values, weight in kept:
            crossed = covariance(values, features) @ free
            gram = crossed.T @ crossed
            wanted += weight * gram / torch.linalg.matrix_norm(gram, 2).clamp_min(1e-12)
        importance, functions = torch.linalg.eigh(wanted)
        functions = functions[:, importance > MIN_IMPORTANCE * importance[-1]][:, -self.functions.shape[2] :]
        self.functions[number] = F.pad(free @ functions, (self.functions.shape[2] - functions.shape[1], 0))
        return unit((features - self.level[number]) @ self.functions[number])


Kept = Sequence[tuple[Tensor, float]]  # columns [N, any] that an output has to depend on, each with its weight


def network(z: Tensor, hidden: Tensor, bias: Tensor, output: Tensor) -> Tensor:
    """Return the output [B, D], of length 1, of a network with one hidden layer."""
    return unit(F.silu(z @ hidden + bias) @ output)


def unit(x: Tensor) -> Tensor:
    """Return rows [B, D] of length 1."""
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)


def fourier_features(x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Return random Fourier features [B, R] of x [B, D]; the inner product of two rows approximates a Gaussian kernel."""
    return math.sqrt(2 / FEATURES) * torch.cos(x @ frequency + phase)


def gaussian_features(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return random Fourier features [N, R] of x [N, D], for a kernel as wide as the median distance."""
    frequency = torch.randn(x.shape[1], FEATURES, generator=generator) / median_distance(x)
    return fourier_features(x, frequency, 2 * math.pi * torch.rand(FEATURES, generator=generator))


def median_distance(x: Tensor) -> Tensor:
    """Return the median distance between rows, of some rows where there are many."""
    distances = torch.pdist(x[:: max(1, len(x) // MAX_PAIRED)])
    return distances.median().clamp_min(1e-3) if len(distances) else torch.ones(())


def covariance(x: Tensor, y: Tensor) -> Tensor:
    """Return the covariance [P, R] of columns [N, P] and [N, R], in double precision."""
    return (x - x.mean(dim=0)).double().T @ (y - y.mean(dim=0)).double() / len(x)


def dependence(x: Tensor, y: Tensor) -> Tensor:
    """Return the norm of the covariance of columns [B, P] and [B, R]: the root of their HSIC, with features of the kernels."""
    return ((x - x.mean(dim=0)).T @ (y - y.mean(dim=0)) / len(x)).norm()


def centred_emotions(emotion: np.ndarray) -> Tensor:
    """Return one-hot emotions [N, C] less their mean; 0 where the emotion is unknown (-1)."""
    known = torch.from_numpy(emotion >= 0)
    rows = torch.zeros(len(emotion), int(emotion.max(initial=0)) + 1)
    if known.any():
        rows[known] = F.one_hot(torch.from_numpy(emotion)[known].long(), rows.shape[1]).float()
        rows[known] -= rows[known].mean(dim=0)
    return rows


def ridge_regression(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix [D, D] that predicts centred y [N, D] from centred x [N, D]."""
    x, y = x.double(), y.double()
    return torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).float()


def one_hot(speaker: np.ndarray) -> Tensor:
    """Return speakers [N], given by name or number, as one-hot rows [N, K] in double precision."""
    return F.one_hot(torch.from_numpy(to_indices(speaker))).double()


def import_leace() -> type["LeaceFitter"]:
    """Import LeaceFitter of concept-erasure without its deprecation warning about a part of torch that is not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from concept_erasure import LeaceFitter
    return LeaceFitter


ERASERS: dict[str, Callable[..., Eraser]] = {"none": IdentityEraser, "leace": LeaceEraser, "obliviator": ObliviatorEraser}
