"""Adversaries without a classifier: within each emotion, the embeddings of speakers are compared and drawn together.

Label shares serve as weights throughout. Known failure of all: a batch has few utterances of a speaker in an emotion, so that the
comparison is noisy; large batches or `train.batches = "balanced"` help. Their values are small and differ in scale: choose
`strength` by trial, or set `balance_gradients`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.adversaries.base import Adversary, AdversaryBatch
from speaker_invariant_ser.adversaries.gradients import scale_gradient
from speaker_invariant_ser.recipe_methods import AdversarySettings, ContrastiveSettings, KernelSettings

MIN_WEIGHT = 1e-12  # keeps a division by an empty group finite; its result has weight 0
MIN_SQUARED_DISTANCE = 1e-4  # below it embeddings of about unit variance count as equal
MIN_NORM = 1e-2  # below it an embedding is shrunk towards zero, where the direction has no gradient


class Matching(Adversary):
    """A term of the embeddings alone, smallest where they reveal nothing about the speaker.

    The encoder gets lambda times its gradient.

    Args:
        dim: Dimension D of the embedding.
        targets: Number K of the target's values.
        settings: The adversary's section of the recipe.
        emotions: Number C of emotions.
    """

    def __init__(self, dim: int, targets: int, settings: AdversarySettings, emotions: int) -> None:
        super().__init__(settings)

    def term(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the scalar term of embeddings [B, D]."""
        raise NotImplementedError

    def forward(self, x: Tensor, batch: AdversaryBatch, progress: float) -> Tensor:
        """Return the term, with lambda times its gradient."""
        return scale_gradient(self.term(x, batch), self.strength(progress))


def is_unlabelled(emotion: Tensor) -> Tensor:
    """Return [B], 1 for utterances without an emotion label and else 0, from emotion shares [B, C]."""
    return (emotion.sum(dim=1) < 0.5).to(emotion.dtype)


def emotion_groups(emotion: Tensor) -> tuple[Tensor, Tensor]:
    """Return the groups within which speakers are compared: one per emotion, and one of all utterances.

    Unlabelled utterances can only be compared whatever the emotion: they are the share of the last group.

    Args:
        emotion: Emotion shares [B, C], zero for utterances without a label.

    Returns:
        Weights of the utterances in each group [C + 1, B], with sum 1; each group's share of the batch [C + 1].
    """
    without = is_unlabelled(emotion)
    members = torch.cat((emotion.T, torch.ones_like(without)[None]))
    shares = torch.cat((emotion.sum(dim=0), without.sum()[None]))
    return members / members.sum(dim=1, keepdim=True).clamp_min(MIN_WEIGHT), shares / len(emotion)


def squared_distances(x: Tensor) -> Tensor:
    """Return squared distances [B, B] of [B, D], by products of centred embeddings: differences take D times the memory."""
    x = x - x.mean(dim=0)
    squares = x.square().sum(dim=1)
    return (squares[:, None] + squares - 2 * x @ x.T).clamp_min(0)


def gaussian_kernel(x: Tensor, compared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Return the mean of Gaussian kernels exp(-d^2 / 2 w^2) between embeddings, 0 to 1.

    The median is a constant for the gradient: a kernel of fixed width could be made small by scaling the embedding.

    Args:
        x: Embeddings [B, D].
        compared: Bool [B, B], the pairs whose median distance is the unit of the widths.
        widths: Widths w, in units of that median.

    Returns:
        The kernel [B, B].
    """
    squared = squared_distances(x)
    median = squared.detach().where(compared, torch.nan).nanmedian().nan_to_num(1.0).clamp_min(MIN_SQUARED_DISTANCE)
    return torch.stack([(-squared / (2 * width**2 * median)).exp() for width in widths]).mean(dim=0)


def group_kernel(x: Tensor, weights: Tensor, shares: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Return the Gaussian kernel whose unit is the median distance within the groups that are used."""
    used = weights * (shares > 0)[:, None]
    compared = (used.T @ used > 0).fill_diagonal_(False)
    return gaussian_kernel(x, compared, widths)


def mean_discrepancies(kernel: Tensor, weights: Tensor, target: Tensor, power: int = 1) -> Tensor:
    """Return each group's squared distances of speaker means from the group's mean in a kernel's features, summed.

    Args:
        kernel: The kernel [B, B].
        weights: Weights [G, B] of the utterances in each group.
        target: Shares of the speakers [B, K].
        power: A speaker is weighted by its share of the group to this power.

    Returns:
        One sum per group [G].
    """
    members = weights[:, None] * target.T
    sizes = members.sum(dim=2)
    difference = members / sizes.clamp_min(MIN_WEIGHT)[:, :, None] - weights[:, None]
    return (sizes**power * (difference @ kernel * difference).sum(dim=2)).sum(dim=1)


class KernelMatching(Matching):
    """Matching by Gaussian kernels of several widths within each emotion; a speaker's weight is its share to a power."""

    power: int

    def __init__(self, dim: int, targets: int, settings: KernelSettings, emotions: int) -> None:
        super().__init__(dim, targets, settings, emotions)
        self.widths = settings.kernel_widths

    def term(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the discrepancy of embeddings [B, D]."""
        weights, shares = emotion_groups(batch.emotion)
        kernel = group_kernel(x, weights, shares, self.widths)
        return shares @ mean_discrepancies(kernel, weights, batch.target, self.power)


class Hsic(KernelMatching):
    """Hilbert-Schmidt independence criterion of embedding and speaker within each emotion, weighted by utterances.

    Gretton et al., ALT 2005: tr(K H L H) / n^2 with Gaussian kernels of several widths for the embedding and L = 1 for
    utterances of the same speaker. With growing n it approaches 0 only where embedding and speaker are independent, linearly or
    not. Known failures: the estimate from n utterances of an emotion is too large by about 1 / n, so that small batches draw
    together even utterances of independent speakers; in many dimensions all distances become similar, and the kernel separates
    little.
    """

    power = 2  # with L as above, the trace is a sum over speakers


class Mmd(KernelMatching):
    """Maximum mean discrepancy between a speaker's utterances of an emotion and all of it, weighted by utterances.

    Gretton et al., JMLR 2012, within emotions, so that speakers may differ in their emotions: |speaker's mean feature - mean of
    all|^2 with the kernels of `hsic`. HSIC weights each speaker's discrepancy by the square of its share of the emotion, MMD by
    the share. Known failure: a speaker with a single utterance of an emotion in the batch has it for its mean, which is drawn to
    the centre whoever speaks.
    """

    power = 1


class Coral(Matching):
    """Difference of means and second moments around the emotion's mean: each speaker against all, weighted by utterances.

    Sun and Saenko, ECCV Workshops 2016: |difference of covariances|^2 / 4 D^2. The means, |difference|^2 / D, are our addition:
    covariances do not see that a speaker's mean differs, which is most of what an embedding reveals. Both are distances of means
    in the features of one kernel, r.r' / D + (r.r')^2 / 4 D^2. Known failures: what is in neither mean nor covariance remains
    for a nonlinear attacker; fewer utterances of a speaker than D give no usable covariance.
    """

    def term(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the difference of embeddings [B, D]."""
        without = is_unlabelled(batch.emotion)
        weights, shares = emotion_groups(batch.emotion)
        means = weights @ x
        around_emotion = (x - batch.emotion @ means[:-1]) * (1 - without)[:, None]
        labelled = (1 - without) / (1 - without).sum().clamp_min(MIN_WEIGHT)
        within = mean_discrepancies(moment_kernel(around_emotion), labelled[None], batch.target)[0]
        overall = mean_discrepancies(moment_kernel(x - means[-1]), weights[-1:], batch.target)[0]
        return shares[:-1].sum() * within + shares[-1] * overall


def moment_kernel(x: Tensor) -> Tensor:
    """Return the kernel [B, B] whose features are those of [B, D] and their products, in the scale of CORAL."""
    products = x @ x.T / x.shape[1]
    return products + products.square() / 4


class Contrastive(Matching):
    """Supervised contrastive loss across speakers: attracts same emotion and other speaker, repels other emotions.

    Khosla et al., NeurIPS 2020, equation 2, with cosine / temperature: for each utterance the mean over its positives of -log of
    their softmax among positives and negatives. Utterances of the same emotion and speaker are neither: attracting them would
    teach the speaker, repelling them would spread the emotion. Utterances without a label or without a positive in the batch are
    left out. Known failures: it teaches emotion too, so that UAR may change with no speaker information removed; an emotion of
    one speaker is not affected.
    """

    def __init__(self, dim: int, targets: int, settings: ContrastiveSettings, emotions: int) -> None:
        super().__init__(dim, targets, settings, emotions)
        self.temperature = settings.temperature

    def term(self, x: Tensor, batch: AdversaryBatch) -> Tensor:
        """Return the loss of embeddings [B, D]."""
        emotion, labelled = batch.emotion, 1 - is_unlabelled(batch.emotion)
        pairs = (labelled[:, None] * labelled).fill_diagonal_(0)
        same = emotion @ emotion.T
        positives = pairs * same * (1 - batch.target @ batch.target.T).clamp_min(0)
        negatives = pairs * (1 - same).clamp_min(0)
        direction = F.normalize(x, dim=1, eps=MIN_NORM)
        cosine = direction @ direction.T / self.temperature
        return mean_over_anchors(cosine, positives, negatives)


def mean_over_anchors(scores: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the mean contrastive loss over the anchors, the rows with a positive.

    Args:
        scores: Similarities [B, B].
        positives: Weights [B, B] of each row's positives.
        negatives: Weights [B, B] of each row's negatives.
    """
    weights, anchors = positives + negatives, (positives.sum(dim=1) > 0).to(scores.dtype)
    weights = torch.where(anchors[:, None] > 0, weights, 1)  # any weight above 0 keeps the gradient finite; the row counts 0
    total = (scores + weights.clamp_min(MIN_WEIGHT).log()).masked_fill(weights == 0, -torch.inf).logsumexp(dim=1)
    attracted = (positives * scores).sum(dim=1) / positives.sum(dim=1).clamp_min(MIN_WEIGHT)
    return (anchors * (total - attracted)).sum() / anchors.sum().clamp_min(1)
