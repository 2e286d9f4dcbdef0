"""Adversarial perturbations of log-mels: training also minimises the loss at x + d, with ||d|| = epsilon.

Computing d leaves no trace: no parameter gets a gradient, and inside `preserve_statistics` no running statistic changes. Norms
are L2 norms over the frames of an utterance, in natural logarithms of mel power, as log-mels are. With one epsilon for all
utterances, a frame of a long utterance changes less than a frame of a short one.

Known failure of every method: the direction of a gradient need not be one in which speakers differ. Whether unseen speakers are
recognised better is for the test speakers to show.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.models.model import Output

Loss = Callable[[Output], Tensor]  # a scalar, differentiable with respect to the log-mels
Forward = Callable[[Tensor], Output]  # log-mels [B, M, T] -> the model's outputs
Reference = Literal["labels", "prediction"]


@dataclass(frozen=True)
class PerturbationInput:
    """What a perturbation is computed from.

    Attributes:
        forward: The model in training mode.
        mels: Log-mels [B, M, T], a leaf that requires a gradient.
        frames: Frames of each utterance [B].
        output: `forward(mels)`.
        emotion_loss: Loss of the emotion head's outputs.
        speaker_loss: Loss of the adversary's classifier, without lambda and not reversed.
        epsilon: L2 norm of d over an utterance.
    """

    forward: Forward
    mels: Tensor
    frames: Tensor
    output: Output
    emotion_loss: Loss
    speaker_loss: Loss
    epsilon: float


class Perturbation(Protocol):
    """A method that computes the perturbation d of a batch of log-mels.

    `reference` says what the outputs at x + d are compared with: the labels, or the model's prediction at x.
    """

    reference: Reference

    def __call__(self, batch: PerturbationInput) -> Tensor:
        """Return d [B, M, T], 0 in padding."""
        ...


class FastGradient:
    """Follow the gradient of the emotion loss: d = epsilon * g / ||g||.

    Goodfellow, Shlens, Szegedy, ICLR 2015; with the L2 norm of each utterance, Miyato, Dai, Goodfellow, ICLR 2017.

    Known failures: one step is the worst perturbation of a linear loss only, and a model may learn to curve its loss instead
    (gradient masking). d depends on the true label, which a strong model can recover from it (label leaking, Kurakin et al.,
    ICLR 2017). An utterance without a label is not perturbed.
    """

    reference: Reference = "labels"

    def __call__(self, batch: PerturbationInput) -> Tensor:
        """Return d [B, M, T], see `Perturbation`."""
        return scale_to_norm(input_gradient(batch.emotion_loss(batch.output), batch.mels), batch.frames, batch.epsilon)


class CrossGradient:
    """Follow the gradient of the *speaker* loss: towards another speaker with the same words and the same emotion.

    The label half of CrossGrad, Shankar et al., ICLR 2018; its other half trains the speaker classifier on perturbations along
    the emotion loss's gradient.

    `speaker_loss` is a classifier's plain loss: reversed, it would lead towards the utterance's own speaker. Known failures: the
    classifier is the one that the encoder learns to fool, and at chance its gradient has no meaningful direction; where speakers
    express emotion differently, the perturbation changes the emotion while the label stays.
    """

    reference: Reference = "labels"

    def __call__(self, batch: PerturbationInput) -> Tensor:
        """Return d [B, M, T], see `Perturbation`."""
        return scale_to_norm(input_gradient(batch.speaker_loss(batch.output), batch.mels), batch.frames, batch.epsilon)


class VirtualAdversarial:
    """Follow the direction in which the prediction changes fastest: KL(p(x) || p(x + d)), by one power iteration.

    Virtual adversarial training: Miyato, Maeda, Koyama, Ishii, TPAMI 2019. No labels are needed.

    The iteration starts from a random direction of length epsilon: with a much shorter one, differences in bfloat16 are
    rounding errors. It takes two more forward passes, both with the same random numbers, or the difference would be dropout's.
    Known failures: one iteration may miss the worst direction; a confident model has hardly any gradient.
    """

    reference: Reference = "prediction"

    def __call__(self, batch: PerturbationInput) -> Tensor:
        """Return d [B, M, T], see `Perturbation`."""
        original = batch.mels.detach()
        start = scale_to_norm(torch.randn_like(original), batch.frames, batch.epsilon).requires_grad_()
        with torch.no_grad(), repeat_random_numbers(original):
            logits = batch.forward(original).logits
        divergence = kl_divergence(logits, batch.forward(original + start).logits)
        return scale_to_norm(input_gradient(divergence, start), batch.frames, batch.epsilon)


def input_gradient(loss: Tensor, x: Tensor) -> Tensor:
    """Return d loss / d x; no parameter gets a gradient, and the graph of the loss stays usable."""
    return torch.autograd.grad(loss, x, retain_graph=True)[0]


@torch.no_grad()
def scale_to_norm(gradient: Tensor, frames: Tensor, epsilon: float) -> Tensor:
    """Scale each utterance's gradient to an L2 norm.

    Args:
        gradient: [B, M, T].
        frames: Frames of each utterance [B]; values in padding are ignored.
        epsilon: The norm.

    Returns:
        [B, M, T], 0 in padding. All 0 for an utterance whose gradient is zero, NaN or infinite.
    """
    inside = torch.where(mask_of(frames, gradient.shape[2])[:, None], gradient.float(), 0)
    # Divided by the largest value first: squares of small gradients are 0 in single precision.
    largest = inside.abs().amax(dim=(1, 2), keepdim=True)
    inside = torch.where((largest > 0) & largest.isfinite(), inside / largest, 0)
    norm = inside.square().sum(dim=(1, 2), keepdim=True).sqrt()
    return (epsilon / norm.clamp_min(1)) * inside  # the norm is at least 1, unless all is 0


def kl_divergence(logits: Tensor, perturbed: Tensor) -> Tensor:
    """Return KL(p || q) in nats, the mean over utterances.

    Args:
        logits: Logits of p [B, C], a constant: no gradient goes to them.
        perturbed: Logits of q [B, C].
    """
    p, q = logits.detach().float().log_softmax(dim=1), perturbed.float().log_softmax(dim=1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def repeat_random_numbers(x: Tensor) -> AbstractContextManager:
    """Restore torch's generators afterwards, on the CPU and on the device of x.

    The pass that follows draws the same random numbers as the one inside: two passes that are compared have the same dropout
    and noise, which would otherwise be most of their difference.
    """
    return torch.random.fork_rng(devices=[x.device] if x.is_cuda else [])


@contextmanager
def preserve_statistics(model: nn.Module) -> Iterator[None]:
    """Keep running statistics and counters as they are while passes in training mode run inside.

    Copies replace the buffers meanwhile. Writing values back instead would count as an in-place change under the backward pass
    of an earlier forward pass, which autograd refuses.
    """
    held = [(module, name, buffer) for module in model.modules() for name, buffer in module.named_buffers(recurse=False)]
    for module, name, buffer in held:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in held:
            setattr(module, name, buffer)


PERTURBATIONS: dict[str, Perturbation] = {"fgm": FastGradient(), "vat": VirtualAdversarial(), "cross": CrossGradient()}
