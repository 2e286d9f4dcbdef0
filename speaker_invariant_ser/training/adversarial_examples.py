"""A second look at each clip, its log-mel moved a little to where the model is weakest: loss(x) + weight * loss(x + d).

||d|| is epsilon. d is found apart from training: no gradient of a parameter is written, and under `statistics_kept` no
statistic either. Lengths are L2 norms over a clip's own frames, in natural logarithms of mel power, as log-mels are. One length
for all clips moves a frame of a long one less than a frame of a short one.

A known failure of all: what is hard in the direction of a gradient is no voice that anybody has. Nothing here says that an
unseen speaker is read better; that is for the test speakers to say.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.features.log_mel import mask_of


class Output(Protocol):
    """Of the model's output, what is read here."""

    logits: Tensor  # [B, C]


Loss = Callable[[Output], Tensor]  # a scalar that depends on the log-mel


class Perturbation(Protocol):
    """How the move d [B, M, T] of log-mels is found, and what the loss at the moved clip compares with."""

    against: Literal["labels", "prediction"]

    def __call__(
        self,
        look: Callable[[Tensor], Output],
        mels: Tensor,
        frames: Tensor,
        output: Output,
        emotion_loss: Loss,
        speaker_loss: Loss,
        epsilon: float,
    ) -> Tensor:
        """`look` is the model in training, `mels` [B, M, T] a leaf that requires a gradient, `output` what it saw there."""
        ...


class FastGradient:
    """d = epsilon * g / ||g||, g the gradient of the emotion loss alone. Goodfellow, Shlens, Szegedy, ICLR 2015; with the L2
    norm for each clip, Miyato, Dai, Goodfellow, ICLR 2017.

    Known failures: one step is the worst move of a straight loss only, and a model trained on it may learn to bend its loss
    instead (gradient masking); the step is made of the true label, which a strong model can read back from it (label leaking,
    Kurakin et al., ICLR 2017). A clip without a label stays where it is.
    """

    against: Literal["labels", "prediction"] = "labels"

    def __call__(self, look, mels, frames, output, emotion_loss, speaker_loss, epsilon) -> Tensor:
        return along(slope(emotion_loss(output), mels), frames, epsilon)


class CrossGradient:
    """Along the gradient of the *speaker* loss: the same words as another voice might say them, with the same emotion. The label
    half of CrossGrad, Shankar et al., ICLR 2018; its other half trains the speaker reader on moves along the emotion's gradient.

    `speaker_loss` is to be the plain loss of a reader: turned round or times lambda, the clip would be moved towards its own
    speaker, or not at all. Known failures: the reader is the one that the encoder is trained to fool, and where it is at chance
    its gradient points nowhere; where speakers differ in how they show emotion, the move changes the emotion under its label.
    """

    against: Literal["labels", "prediction"] = "labels"

    def __call__(self, look, mels, frames, output, emotion_loss, speaker_loss, epsilon) -> Tensor:
        return along(slope(speaker_loss(output), mels), frames, epsilon)


class Virtual:
    """Where the model changes its mind fastest, whatever the label: the direction in which KL(p(x) || p(x + d)) grows most, by
    one power iteration from a random one. Virtual adversarial training: Miyato, Maeda, Koyama, Ishii, TPAMI 2019. No labels are
    needed.

    The random direction is as long as the move: along a much shorter one, what is seen in bfloat16 is rounding. Two more passes
    with the same random numbers in both, or what differs would be dropout. Known failures: one iteration may miss the worst
    direction; a model that is sure of everything has nearly no slope.
    """

    against: Literal["labels", "prediction"] = "prediction"

    def __call__(self, look, mels, frames, output, emotion_loss, speaker_loss, epsilon) -> Tensor:
        plain = mels.detach()
        start = along(torch.randn_like(plain), frames, epsilon).requires_grad_()
        with torch.no_grad(), drawn_again(mels):
            here = look(plain).logits
        there = look(plain + start).logits
        return along(slope(divergence(here, there), start), frames, epsilon)


def slope(loss: Tensor, x: Tensor) -> Tensor:
    """D loss / d x alone: no parameter gets a gradient, and what the loss was made of can be gone through again."""
    return torch.autograd.grad(loss, x, retain_graph=True)[0]


@torch.no_grad()
def along(gradient: Tensor, frames: Tensor, epsilon: float) -> Tensor:
    """The direction of a gradient [B, M, T] at length epsilon over each clip's own frames [B]; 0 beyond them.

    A clip whose gradient is zero, NaN or infinite does not move. Divided by its largest value first, since the squares of
    small gradients are zero in single precision.
    """
    own = torch.where(mask_of(frames, gradient.shape[2])[:, None], gradient.float(), 0)
    largest = own.abs().amax(dim=(1, 2), keepdim=True)
    own = torch.where((largest > 0) & largest.isfinite(), own / largest, 0)
    length = own.square().sum(dim=(1, 2), keepdim=True).sqrt()
    return (epsilon / length.clamp_min(1)) * own  # at least 1, unless it is 0


def divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """KL(p || q) in nats, the mean over clips; p of `logits` [B, C] is taken as given, q of `moved` [B, C] is to come near it."""
    given, q = logits.detach().float().log_softmax(dim=1), moved.float().log_softmax(dim=1)
    return F.kl_div(q, given, reduction="batchmean", log_target=True)


def drawn_again(x: Tensor) -> AbstractContextManager:
    """Random numbers that are drawn inside are drawn once more after it, on the processor and where x is: two passes that are
    compared have the same dropout and noise, or these would be most of what differs.
    """
    return torch.random.fork_rng(devices=[x.device] if x.is_cuda else [])


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Inside, passes in training mode write their running statistics and counters into copies, which are dropped at the end.

    Copies stand in for the buffers, and not the other way round: written back, values would count as changed under the
    backward of an earlier pass, which autograd refuses.
    """
    held = [(part, name, buffer) for part in model.modules() for name, buffer in part.named_buffers(recurse=False)]
    for part, name, buffer in held:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in held:
            setattr(part, name, buffer)


PERTURBATIONS: dict[str, Perturbation] = {"fgm": FastGradient(), "vat": Virtual(), "cross": CrossGradient()}
