"""Without an adversary that learns: the speakers' embeddings within an emotion are compared as they are, and drawn together.

Soft label shares are weights throughout. Known failure of all: a batch holds few clips of a speaker in an emotion, so that what
is compared is noisy; large batches, or `train.batches = "balanced"`, help. Their values are small and differ in scale: choose
`strength` by trial, or set `balance`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.adversaries.base import Method, scaled
from speaker_invariant_ser.features.log_mel import Batch
from speaker_invariant_ser.recipe import AdversarySection

LEAST = 1e-12  # keeps a division by no clips at all finite; what it weighs is 0
NEAR = 1e-4  # squared distance below which embeddings of about unit variance count as equal
SHORT = 1e-2  # length below which an embedding is taken towards zero, since the direction of zero has no slope


class Matching(Method):
    """A term of the embeddings alone, least where they say nothing of the speaker; the encoder gets lambda times its slope."""

    def __init__(self, dim: int, targets: int, settings: AdversarySection, emotions: int) -> None:
        super().__init__(settings)

    def term(self, x: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, batch: Batch, progress: float) -> Tensor:
        return scaled(self.term(x, batch), self.strength(progress))


def unlabelled(emotion: Tensor) -> Tensor:
    """Emotion shares [B, C] -> [B], 1 where a clip has no label, else 0."""
    return (emotion.sum(dim=1) < 0.5).to(emotion.dtype)


def blocks(emotion: Tensor) -> tuple[Tensor, Tensor]:
    """Emotion shares [B, C] -> (each block's weights of the clips [C + 1, B], in all 1; each block's part of the batch [C + 1]).

    A block for each emotion. Clips without a label can only be compared whatever the emotion: the last block is all clips, and
    its part that of those without a label.
    """
    without = unlabelled(emotion)
    members = torch.cat((emotion.T, torch.ones_like(without)[None]))
    parts = torch.cat((emotion.sum(dim=0), without.sum()[None]))
    return members / members.sum(dim=1, keepdim=True).clamp_min(LEAST), parts / len(emotion)


def squared_distances(x: Tensor) -> Tensor:
    """[B, D] -> [B, B], by products of the centred embeddings: differences would take D times the memory."""
    x = x - x.mean(dim=0)
    squares = x.square().sum(dim=1)
    return (squares[:, None] + squares - 2 * x @ x.T).clamp_min(0)


def gaussian(x: Tensor, alike: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Mean of Gaussian kernels exp(-d^2 / 2 w^2) between embeddings [B, D], [B, B] in 0 .. 1.

    w is each of `widths` times the median distance of the pairs in bool `alike` [B, B], taken as a constant: a kernel without
    it could be made small by growing alone.
    """
    squared = squared_distances(x)
    median = squared.detach().where(alike, torch.nan).nanmedian().nan_to_num(1.0).clamp_min(NEAR)
    return torch.stack([(-squared / (2 * width**2 * median)).exp() for width in widths]).mean(dim=0)


def kernel_of(x: Tensor, weights: Tensor, parts: Tensor, widths: tuple[float, ...]) -> Tensor:
    """The Gaussian kernel, as wide as distances within the blocks that are used."""
    used = weights * (parts > 0)[:, None]
    alike = (used.T @ used > 0).fill_diagonal_(False)
    return gaussian(x, alike, widths)


def gaps(kernel: Tensor, weights: Tensor, target: Tensor, power: int = 1) -> Tensor:
    """Squared distance of each speaker's mean from that of all, in a kernel's features, summed over speakers: [G], of each block.

    kernel [B, B], weights [G, B] of the clips in each block, target shares [B, K]. A speaker weighs its share of the block to
    the given power.
    """
    members = weights[:, None] * target.T
    sizes = members.sum(dim=2)
    away = members / sizes.clamp_min(LEAST)[:, :, None] - weights[:, None]
    return (sizes**power * (away @ kernel * away).sum(dim=2)).sum(dim=1)


class Hsic(Matching):
    """Hilbert-Schmidt independence criterion of embedding and speaker within each emotion, weighted by clips.

    Gretton et al., ALT 2005: tr(K H L H) / n^2, Gaussian kernels of several widths for the embedding, L = 1 for clips of one
    speaker. With ever more clips it nears 0 only where nothing is said of the speaker, linearly or not. Known failure: the
    estimate from n clips of an emotion is too large by about 1 / n, so that small batches draw even clips of independent
    speakers together; in many dimensions all distances grow alike, and little is left to tell them by.
    """

    def term(self, x: Tensor, batch: Batch) -> Tensor:
        weights, parts = blocks(batch.emotion)
        kernel = kernel_of(x, weights, parts, self.settings.widths)
        return parts @ gaps(kernel, weights, batch.target, power=2)  # L being a sum over speakers, so is the trace


class Mmd(Matching):
    """Maximum mean discrepancy between a speaker's clips of an emotion and all of it, weighted by clips.

    Gretton et al., JMLR 2012; within emotions, so that who says what may differ. |mean feature of the speaker - of all|^2 with
    the kernels of `hsic`. The two are kin: HSIC weighs each speaker's discrepancy by the square of its share of the emotion, this
    by the share. Known failure: a speaker with one clip of an emotion in the batch has it for its mean, which is drawn to the
    middle whoever speaks.
    """

    def term(self, x: Tensor, batch: Batch) -> Tensor:
        weights, parts = blocks(batch.emotion)
        kernel = kernel_of(x, weights, parts, self.settings.widths)
        return parts @ gaps(kernel, weights, batch.target)


class Coral(Matching):
    """Means and second moments around the emotion's mean: each speaker's against all, weighted by clips.

    Sun and Saenko, ECCV Workshops 2016: |difference of covariances|^2 / 4 D^2. The means, |difference|^2 / D, are our
    addition: covariances do not see that a speaker lies elsewhere, which is most of what an embedding tells. Both are
    distances of means in the features of one kernel, r.r' / D + (r.r')^2 / 4 D^2. Known failure: what is in neither mean nor
    covariance stays, a nonlinear attacker reads it; fewer clips of a speaker than D have no covariance to speak of.
    """

    def term(self, x: Tensor, batch: Batch) -> Tensor:
        without = unlabelled(batch.emotion)
        weights, parts = blocks(batch.emotion)
        means = weights @ x
        around_emotion = (x - batch.emotion @ means[:-1]) * (1 - without)[:, None]
        labelled = (1 - without) / (1 - without).sum().clamp_min(LEAST)
        within = gaps(moments(around_emotion), labelled[None], batch.target)[0]
        overall = gaps(moments(x - means[-1]), weights[-1:], batch.target)[0]
        return parts[:-1].sum() * within + parts[-1] * overall


def moments(x: Tensor) -> Tensor:
    """The kernel [B, B] whose features are those of [B, D] and their products, to the scale of CORAL."""
    products = x @ x.T / x.shape[1]
    return products + products.square() / 4


class Contrastive(Matching):
    """Supervised contrastive loss across speakers: same emotion and another speaker attracts, another emotion repels.

    Khosla et al., NeurIPS 2020, equation 2, cosine / temperature: for each clip the mean over its positives of -log of their
    softmax among positives and negatives. Clips of the same emotion and speaker are in neither: pulling them would teach the
    voice, pushing them would tear the emotion. Clips without a label or without a positive in the batch are left out. Known
    failure: it teaches emotion too, so that UAR may change with no speaker forgotten; where an emotion has one speaker
    nothing is done.
    """

    def term(self, x: Tensor, batch: Batch) -> Tensor:
        emotion, labelled = batch.emotion, 1 - unlabelled(batch.emotion)
        pairs = (labelled[:, None] * labelled).fill_diagonal_(0)
        same = emotion @ emotion.T
        attracts = pairs * same * (1 - batch.target @ batch.target.T).clamp_min(0)
        repels = pairs * (1 - same).clamp_min(0)
        direction = F.normalize(x, dim=1, eps=SHORT)
        cosine = direction @ direction.T / self.settings.temperature
        return of_anchors(cosine, attracts, repels)


def of_anchors(scores: Tensor, attracts: Tensor, repels: Tensor) -> Tensor:
    """Scores [B, B], weights [B, B] of positives and negatives -> mean loss over the anchors, the rows that have a positive."""
    weights, anchors = attracts + repels, (attracts.sum(dim=1) > 0).to(scores.dtype)
    weights = torch.where(anchors[:, None] > 0, weights, 1)  # any but none, for a finite slope; the row counts 0
    among = (scores + weights.clamp_min(LEAST).log()).masked_fill(weights == 0, -torch.inf).logsumexp(dim=1)
    attracted = (attracts * scores).sum(dim=1) / attracts.sum(dim=1).clamp_min(LEAST)
    return (anchors * (among - attracted)).sum() / anchors.sum().clamp_min(1)
