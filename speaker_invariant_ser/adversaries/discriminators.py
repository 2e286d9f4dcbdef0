"""Against classifiers that learn to read the speaker. They learn alike in all methods; what the encoder makes of them differs."""

import math
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from speaker_invariant_ser.adversaries.base import OF_READERS, Method, reverse_gradient, scaled, silent
from speaker_invariant_ser.config import toml_value
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.log_mel import Batch, mask_of
from speaker_invariant_ser.recipe import AdversarySection

FORMS = ((1,), (), (1, 1), (4,))  # hidden layers of the readers in turn, each in units of `adversary.hidden`


class Reader(nn.Sequential):
    """A classifier on raw logits."""

    def forward(self, x: Tensor, emotion: Tensor | None = None) -> Tensor:
        """(x [B, D] or [B, T', D], shares of the emotion [B, C] if it is told them) -> logits [B, K] or [B, T', K]."""
        first, *others = self
        x = first(x) if emotion is None else with_emotion(first, x, emotion)
        for layer in others:
            x = layer(x)
        return x


def make_reader(form: int, inputs: int, hidden: int, outputs: int) -> Reader:
    """An untrained one; `form` counts through FORMS."""
    widths = (inputs, *(times * hidden for times in FORMS[form % len(FORMS)]), outputs)
    layers = [layer for one, other in pairwise(widths) for layer in (nn.Linear(one, other), nn.ReLU())]
    return Reader(*layers[:-1])


def with_emotion(layer: nn.Linear, x: Tensor, emotion: Tensor) -> Tensor:
    """The layer on x and a constant 1, times each emotion's share: on a product of C * (D + 1) numbers.

    It has its own weights for each emotion: Long et al., NeurIPS 2018 (CDAN), with the true emotion in place of the
    predicted one. The 1 is ours: with it, each emotion has a bias too, and what the emotion alone says of the speaker is
    known without x. Each clip's weights are mixed, which is the same and for frames ten times faster than the product.
    """
    weight = torch.einsum("bc,hcd->bdh", emotion, layer.weight.unflatten(1, (emotion.shape[1], -1)))
    rows = F.pad(x, (0, 1), value=1.0).reshape(len(x), -1, x.shape[-1] + 1)
    return (rows @ weight + layer.bias).reshape(*x.shape[:-1], -1)


def fixed(reader: Reader, *told: Tensor | None) -> Tensor:
    """What a reader says, its parameters taken as constants: a gradient goes to what it is told alone."""
    return functional_call(reader, {name: parameter.detach() for name, parameter in reader.named_parameters()}, told)


def even(emotion: Tensor) -> Tensor:
    """Emotion shares [B, C], even where a clip has no label."""
    return torch.where(emotion.sum(dim=1, keepdim=True) > 0, emotion, 1 / emotion.shape[1])


def clip_means(values: Tensor, frames: Tensor) -> Tensor:
    """[B, T', ...] -> [B, ...], the mean over each clip's own frames [B]."""
    mask = mask_of(frames, values.shape[1]).reshape(*values.shape[:2], *[1] * (values.ndim - 2))
    return (values * mask).sum(dim=1) / frames.reshape(-1, *[1] * (values.ndim - 2))


def over_clips(values: Tensor, batch: Batch) -> Tensor:
    """The mean over clips of [B], or of [B, T'], each clip's own frames averaged first."""
    return (values if values.ndim == 1 else clip_means(values, batch.frames)).mean()


def target_of(logits: Tensor, batch: Batch) -> Tensor:
    """The target's shares, shaped to go with logits [B, K] or [B, T', K]."""
    return batch.target if logits.ndim == 2 else batch.target[:, None]


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy from raw logits [B, K] or [B, T', K], in nats: [B] or [B, T']."""
    return -(target_of(logits, batch) * logits.log_softmax(dim=-1)).sum(dim=-1)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy over clips from raw logits (it is the softmax): 0 is reading surely, ln K knowing nothing."""
    return F.cross_entropy(logits, batch.target) if logits.ndim == 2 else over_clips(losses(logits, batch), batch)


class Readers(Method):
    """`heads` classifiers of different form, which read the embedding, or every frame of the map before pooling.

    Each learns by cross-entropy with weight 1, however many there are; what the encoder gets of them is their mean. Known
    failure of all of them: the encoder learns to fool *these* readers, and a fresh one may still read nearly everything
    (Elazar and Goldberg, EMNLP 2018). Several forms, inner steps, and renewal make that harder, not impossible.
    """

    takes = OF_READERS
    has_reader = True

    def __init__(self, dim: int, targets: int, settings: AdversarySection, emotions: int) -> None:
        super().__init__(settings)
        self.inputs = (dim + 1) * emotions if settings.conditional else dim
        self.targets = targets
        self.heads = nn.ModuleList(self.reader(number) for number in range(settings.heads))

    def reader(self, number: int) -> Reader:
        return make_reader(number, self.inputs, self.settings.hidden, self.targets)

    @property
    def own_steps(self) -> int:
        """One less than asked for: the backward pass for the encoder teaches the readers as well."""
        return self.settings.inner_steps - 1

    def readings(self, x: Tensor, batch: Batch, constant: bool = False) -> list[Tensor]:
        """Each reader's logits of the embedding, [B, K], or of a map's frames, [B, T', K]; with `constant` the readers'
        parameters get no gradient.
        """
        x = x.transpose(1, 2) if self.settings.reads == "frames" else x
        emotion = even(batch.emotion) if self.settings.conditional else None
        return [fixed(head, x, emotion) if constant else head(x, emotion) for head in self.heads]

    def logits(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean over readers and frames, [B, K]; its accuracy is shown, and is not evidence of anything."""
        mean = torch.stack(self.readings(x, batch)).mean(dim=0)
        return mean if mean.ndim == 2 else clip_means(mean, batch.frames)

    def learn(self, x: Tensor, batch: Batch) -> Tensor:
        """The readers' mean cross-entropy; its gradient is that of the sum over readers, and of the gradient penalty."""
        read = torch.stack([cross_entropy(logits, batch) for logits in self.readings(x, batch)])
        taught = read.sum()
        if weight := self.settings.gradient_penalty:
            taught = taught + weight * self.penalty(x, batch)
        return read.mean().detach() + silent(taught)

    def penalty(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean squared length of the gradient of a clip's loss (a frame's) by what is read, summed over readers.

        R1 of Mescheder, Geiger and Nowozin, ICML 2018, where it damps the game's circling. It acts on the readers alone.
        """
        x = x.detach().requires_grad_()
        total = torch.zeros((), device=x.device)
        for logits in self.readings(x, batch):
            (gradient,) = torch.autograd.grad(losses(logits, batch).sum(), x, create_graph=True)
            total = total + over_clips(gradient.square().sum(dim=1), batch)
        return total

    def renewed(self, step: int, seed: int = 0) -> list[nn.Parameter]:
        """Every `renew` steps the next reader in turn starts anew: a fresh look at what the others no longer see.

        From step and seed alone and on the CPU, so that all processes, all devices, and a resumed run begin with the same
        numbers, and nobody else's random numbers change.
        """
        if not (self.settings.renew and step and step % self.settings.renew == 0):
            return []
        number = (step // self.settings.renew - 1) % len(self.heads)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + step)
            self.heads[number].load_state_dict(self.reader(number).state_dict())
        return list(self.heads[number].parameters())


class GradientReversal(Readers):
    """The readers behind a gradient reversal layer: one backward pass trains them and, turned round, the encoder.

    Ganin and Lempitsky, ICML 2015. loss = cross-entropy; the encoder gets -lambda times its gradient. Known failures: what a
    reader misjudges with confidence pays the encoder without bound; a reader at chance proves nothing.
    """

    def forward(self, x: Tensor, batch: Batch, progress: float) -> Tensor:
        return self.learn(reverse_gradient(x, self.strength(progress) / len(self.heads)), batch)


class OwnOptimizer(Readers):
    """Readers that learn in steps of their own and stand still while the encoder moves."""

    def __init__(self, dim: int, targets: int, settings: AdversarySection, emotions: int) -> None:
        super().__init__(dim, targets, settings, emotions)
        if not settings.learning_rate:
            raise RecipeError(
                f"adversary.learning_rate = {toml_value(settings.learning_rate)}: adversary.name = {toml_value(settings.name)} "
                "takes an optimizer of its own; expected more than 0, such as 0.001"
            )

    @property
    def own_steps(self) -> int:
        return self.settings.inner_steps


class MinMax(OwnOptimizer):
    """Alternating min-max with two optimizers: max over readers, `inner_steps` at a time, then one step of the encoder.

    Goodfellow et al., NeurIPS 2014, algorithm 1, with a classifier of K speakers as the discriminator. The encoder goes up the
    cross-entropy of readers that stand still. Same game as gradient reversal, another timetable; same known failures, and it
    circles where the readers are too slow.
    """

    def forward(self, x: Tensor, batch: Batch, progress: float) -> Tensor:
        read = [cross_entropy(logits, batch) for logits in self.readings(x, batch, constant=True)]
        return scaled(torch.stack(read).mean(), -self.strength(progress))


def certainty(logits: Tensor) -> Tensor:
    """Ln K - H(softmax(logits)), the last dimension gone: KL divergence from even shares, 0 (even) to ln K (sure), in nats."""
    log = logits.log_softmax(dim=-1)
    return (log.exp() * (log + math.log(log.shape[-1]))).sum(dim=-1)


class MaximumEntropy(Readers):
    """The encoder makes the readers unsure, not wrong: it goes down ln K - H(what they say), between 0 and ln K.

    Roy and Boddeti, CVPR 2019 (MaxEnt-ARL), where readers learn by cross-entropy all the same. The confusion loss of
    Tzeng et al., ICCV 2015, is the other divergence, cross-entropy with even shares: it too is least where they are even, but
    has no bound. Sure and wrong is as bad as sure and right, so fooling them pays nothing. Known failure: where a reader is
    quite sure, right or wrong, the slope is nearly 0, and nothing pulls.
    """

    def forward(self, x: Tensor, batch: Batch, progress: float) -> Tensor:
        sure = [over_clips(certainty(logits), batch) for logits in self.readings(x, batch, constant=True)]
        return self.learn(x.detach(), batch) + self.strength(progress) * silent(torch.stack(sure).mean())


class SignedSum(Readers):
    """`emotion loss - lambda * speaker loss` made small by one optimizer. A demonstration: do not use it.

    The sum is what is meant to be made small over the encoder and large over the readers; one optimizer makes it small over
    both. So the readers are trained to be bad, which is far easier than to make the embedding clean: their loss
    runs away without bound, the head's accuracy falls below chance, and a fresh attacker reads the speaker as before. The
    only method whose own parameters get -lambda times the gradient.
    """

    takes = ("reads", "conditional", "heads")

    def forward(self, x: Tensor, batch: Batch, progress: float) -> Tensor:
        read = [cross_entropy(logits, batch) for logits in self.readings(x, batch)]
        return scaled(torch.stack(read).mean(), -self.strength(progress))


class VariationalClub(OwnOptimizer):
    """vCLUB: the readers learn q(s | x); the encoder makes an upper bound of the mutual information I(x; s) small.

    Cheng et al., ICML 2020: mean log q(s_i | x_i) of the batch's true pairs minus mean log q(s_j | x_i) of all its pairs, in
    nats. With `conditional`, q knows the emotion and the pairs are those within it, for I(x; s | emotion). Known
    failure: a bound only where q is near the truth. It falls below 0 where q is wrong, and that pays the encoder as in
    gradient reversal; keep q well trained (learning_rate, inner_steps).
    """

    def forward(self, x: Tensor, batch: Batch, progress: float) -> Tensor:
        readings = self.readings(x, batch, constant=True)
        read = torch.stack([cross_entropy(logits, batch) for logits in readings])
        return read.mean().detach() + self.strength(progress) * silent(self.bound(readings, batch))

    def bound(self, readings: list[Tensor], batch: Batch) -> Tensor:
        """The bound in nats, mean over readers; a mean over pairs is one against the mean of their targets."""
        expected = batch.target.mean(dim=0).expand_as(batch.target)
        if self.settings.conditional:
            expected = within(even(batch.emotion)) @ batch.target
        pairs = replace(batch, target=expected)
        return torch.stack([over_clips(losses(logits, pairs) - losses(logits, batch), batch) for logits in readings]).mean()


def within(shares: Tensor) -> Tensor:
    """Emotion shares [B, C] -> weights [B, B] of each clip's peers, those of its emotion and itself, in all 1 a row."""
    alike = shares @ shares.T
    return alike / alike.sum(dim=1, keepdim=True)
