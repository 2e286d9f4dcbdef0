"""Releases: what becomes of an embedding before it leaves the model, and noise as a function of the utterance.

Shapes: B batch, S samples, M mel bands, T frames, D embedding dimension, N utterances, C emotions.
"""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from speaker_invariant_ser.data.audio import to_int16
from speaker_invariant_ser.models.encoders import Norm1d, freeze
from speaker_invariant_ser.recipe_methods import CodesSettings, DecisionSettings, NoiseSettings, QuantiseSettings, ReleaseSection

MIN_VARIANCE = 1e-3  # added to variances, so that nearly constant dimensions are not amplified
MEMORY = 20  # utterances of a code that its place and share are estimated from
UNUSED = 0.1  # a code with less than this part of an equal share is not used
RESET_UNTIL = 0.5  # share of training after which codes are no longer moved: their new places would not be trained
NOISE_VECTORS = 2  # for each utterance: one for the bottleneck, one for the release

Classify = Callable[[Tensor], Tensor]


class Release(nn.Module):
    """Base of all releases, which returns embeddings as they are.

    Attributes:
        noisy: Whether it adds noise.
    """

    noisy = False

    def __init__(self, dim: int, settings: ReleaseSection, classes: int) -> None:
        super().__init__()

    @property
    def ready(self) -> bool:
        """Whether it does what it is for in evaluation: one that has to be fitted returns embeddings as they are before."""
        return True

    def forward(self, x: Tensor, noise: Tensor | None = None, classify: Classify | None = None) -> Tensor:
        """Return what leaves the model for embeddings x [B, D]; noise [B, D] is drawn if needed and not given.

        `classify` returns the emotion logits [B, C] of embeddings [B, D], for releases of the decision.
        """
        return x

    def code(self, x: Tensor, classify: Classify | None = None) -> Tensor | None:
        """Return the number of the code [B] that is released for embeddings x [B, D]; None where there are no codes."""
        return None

    def fit(self, x: Tensor, classify: Classify | None = None) -> None:
        """Estimate statistics from embeddings [N, D] of training speakers (and of no other speaker), after training."""

    def after_step(self, x: Tensor, share_done: float) -> None:
        """Take note of the embeddings [B, D] of a training step; `share_done` is the share of training that is done."""

    def columns(self) -> dict[str, float]:
        """Return the release's columns of metrics.csv after an epoch."""
        return {}


class StandardisedRelease(Release):
    """Standardise every dimension to mean 0 and variance 1, then `perturb`.

    In evaluation the statistics are those that were fitted on the training speakers; in training, with release.in_training,
    those of the batch. Without release.in_training, x is returned unchanged until the statistics are fitted. A dimension
    whose variance is below 0.001 stays smaller than the others, because most of it would be rounding errors.

    Args:
        dim: Dimension D of the embedding.
        settings: Section [release] of the recipe.
        classes: Number C of emotions.
    """

    fitted: Tensor

    def __init__(self, dim: int, settings: NoiseSettings | QuantiseSettings, classes: int) -> None:
        super().__init__(dim, settings, classes)
        self.settings = settings
        self.norm = Norm1d(dim, eps=MIN_VARIANCE)
        freeze(self.norm.weight)  # fixed at 1 and 0: batch norm without an affine part
        freeze(self.norm.bias)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.long))

    @property
    def ready(self) -> bool:
        """As of `Release`."""
        return self.settings.in_training or bool(self.fitted)

    def forward(self, x: Tensor, noise: Tensor | None = None, classify: Classify | None = None) -> Tensor:
        """Return what leaves the model for embeddings x [B, D]."""
        active = self.settings.in_training or (not self.training and self.fitted)
        return self.perturb(self.norm(x), noise) if active else x

    def perturb(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Add noise to, or round, standardised embeddings x [B, D]."""
        raise NotImplementedError

    @property
    def scale(self) -> Tensor:
        """What each dimension is divided by, [D]."""
        assert self.norm.running_var is not None
        return (self.norm.running_var + MIN_VARIANCE).sqrt()

    def fit(self, x: Tensor, classify: Classify | None = None) -> None:
        """Estimate the statistics from embeddings [N, D] of training speakers (and of no other speaker)."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        x = x.double()
        self.norm.running_mean.copy_(x.mean(dim=0))
        self.norm.running_var.copy_((x.var(dim=0, unbiased=False) - MIN_VARIANCE).clamp_min(0))
        self.fitted.fill_(1)


class NoiseRelease(StandardisedRelease):
    """Gaussian noise: x + sigma * noise, where x has unit variance.

    The noise is a function of the utterance (`content_noise`): embedding it again gives the same bits, and nothing averages out.

    Known failures: over several utterances of a speaker the noise averages out, with the square root of their number. It is
    equally strong in every dimension while dimensions are redundant: an attacker that adds up 100 of them meets a tenth of
    sigma. It hides emotion and speaker alike.
    """

    noisy = True

    def __init__(self, dim: int, settings: NoiseSettings, classes: int) -> None:
        super().__init__(dim, settings, classes)
        self.sigma = settings.sigma

    def perturb(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Add noise to x [B, D]."""
        return x + self.sigma * (torch.randn_like(x) if noise is None else noise)


class QuantisedRelease(StandardisedRelease):
    """Rounding: round(x / step) * step, where x has unit variance; with step 1 and a normal x about 2 bits per dimension.

    In training the gradient is that of the identity (straight-through).

    Known failures: D dimensions of 2 bits are many bits. The same cell again suggests the same speaker again. Two utterances
    on either side of a border differ by a whole step, however close they were.
    """

    def __init__(self, dim: int, settings: QuantiseSettings, classes: int) -> None:
        super().__init__(dim, settings, classes)
        self.step = settings.step

    def perturb(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Round x [B, D]."""
        cell = (x / self.step).round()
        cell = torch.where(cell == 0, 0.0, cell)  # not -0.0, which shows x's sign; ONNX export would drop a sum with 0
        rounded = cell * self.step
        return x + (rounded - x).detach() if self.training else rounded  # the rounding error of that sum would depend on x


class CodesRelease(Release):
    """The nearest of M codes: z = c_m with m = argmin over m of ||x - c_m||^2; of equal ones the lowest m.

    Vector quantisation, van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017, with the
    emotion loss in the place of reconstruction, which would spend codes on whatever differs most between utterances. Emotion is
    classified from z in training, too. The gradient of z is handed to x as it is (straight-through), and each code follows the
    mean of its utterances' embeddings. On EMO-DB (four speakers) codes that get the gradient themselves, through a mean of all
    codes weighted by nearness, were as good at best, and 15 points of emotion UAR worse with another temperature.

    In the first half of training a code that next to no utterance is nearest to is moved to an embedding of the batch; the first
    step moves all of them. How many are used, and their perplexity exp(H), H the entropy of their shares, is in metrics.csv: with
    a perplexity near 1 the codes have collapsed.

    What one utterance reveals is at most log M, whoever attacks it, and `audit.certificates` bounds it by counting.

    Known failures: several utterances of a speaker give several codes, and their frequencies reveal more than one does. An
    utterance near the border of two cells may get the other code where the audio differs by one bit. Fewer codes than emotions
    leave an emotion without one.

    Args:
        dim: Dimension D of the embedding.
        settings: Section [release] of the recipe.
        classes: Number C of emotions.
    """

    codes: Tensor
    usage: Tensor

    def __init__(self, dim: int, settings: CodesSettings, classes: int) -> None:
        super().__init__(dim, settings, classes)
        self.register_buffer("codes", torch.randn(settings.cells, dim))
        self.register_buffer("usage", torch.zeros(settings.cells))  # share of the latest utterances with each code

    def forward(self, x: Tensor, noise: Tensor | None = None, classify: Classify | None = None) -> Tensor:
        """Return the nearest code for each x [B, D]."""
        nearest = self.codes[self.code(x)]
        return x + (nearest - x).detach() if self.training else nearest  # the rounding error of that sum would depend on x

    def code(self, x: Tensor, classify: Classify | None = None) -> Tensor:
        """Return the number of the nearest code [B] for embeddings x [B, D]."""
        return (x[:, None] - self.codes).square().sum(dim=2).argmin(dim=1)  # no matrix product, which autocast would round

    @torch.no_grad()
    def after_step(self, x: Tensor, share_done: float) -> None:
        """Move codes towards the embeddings [B, D] of a batch that they are nearest to, and unused ones to some of them."""
        (size, _), cells, untrained = x.shape, len(self.codes), ~self.usage.any()
        members = nn.functional.one_hot(self.code(x), cells).to(x.dtype)
        counts = members.sum(dim=0)
        means = members.T @ x / counts.clamp_min(1)[:, None]
        self.codes.lerp_(means, (counts / (counts + MEMORY))[:, None])
        self.usage.lerp_(counts / size, size / (size + MEMORY * cells))
        unused = (untrained | ~self.used).nonzero()[:size, 0]
        if share_done < RESET_UNTIL and len(unused):
            # Evenly spread over the batch: its utterances may be sorted by length or by emotion.
            rows = (2 * torch.arange(len(unused), device=x.device) + 1) * size // (2 * len(unused))
            self.codes[unused] = x[rows].to(self.codes.dtype)
            self.usage[unused] = 1 / cells

    @property
    def used(self) -> Tensor:
        """Whether each code [M] is in use: at least a tenth as often as if all were used equally."""
        return self.usage >= UNUSED / len(self.usage)

    def columns(self) -> dict[str, float]:
        """Return how many codes are used, and the perplexity of the latest utterances' codes."""
        share = self.usage.double() / self.usage.double().sum().clamp_min(1e-12)
        return {"codes_used": int(self.used.sum()), "codes_perplexity": torch.special.entr(share).sum().exp().item()}


class DecisionRelease(Release):
    """The code of the predicted emotion: z = c_m with m = argmax over m of the logits of x.

    There is one code for each emotion, the mean embedding of the training utterances that are classified as it. Logits, and
    dimensions where the model predicts them, are computed from z: the decision is all that leaves the model, and no probability
    says how sure it was. Training is that of the model without the release, and the codes are fitted after it.

    Where the mean of an emotion's utterances is classified as another emotion, which a linear classifier excludes, or where no
    utterance is classified as it, its code is the embedding that is most probably of this emotion.

    What one utterance reveals is at most log C, whoever attacks it, and `audit.certificates` bounds it by counting.

    Known failures: a speaker whose utterances are misclassified in a way of their own is recognised by it, the sooner the more
    utterances there are.

    Args:
        dim: Dimension D of the embedding.
        settings: Section [release] of the recipe.
        classes: Number C of emotions.
    """

    codes: Tensor
    fitted: Tensor

    def __init__(self, dim: int, settings: DecisionSettings, classes: int) -> None:
        super().__init__(dim, settings, classes)
        self.register_buffer("codes", torch.zeros(classes, dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.long))

    @property
    def ready(self) -> bool:
        """As of `Release`."""
        return bool(self.fitted)

    def forward(self, x: Tensor, noise: Tensor | None = None, classify: Classify | None = None) -> Tensor:
        """Return the code of the predicted emotion for each x [B, D]; x itself until the codes are fitted."""
        return x if self.training or not self.fitted else self.codes[self.code(x, classify)]

    def code(self, x: Tensor, classify: Classify | None = None) -> Tensor:
        """Return the number of the predicted emotion [B] for embeddings x [B, D]."""
        assert classify is not None, "the decision is the classifier's"
        return classify(x).argmax(dim=1)

    @torch.no_grad()
    def fit(self, x: Tensor, classify: Classify | None = None) -> None:
        """Take the codes from embeddings [N, D] of training speakers (and of no other speaker)."""
        assert classify is not None, "the decision is the classifier's"
        logits = classify(x)
        decided = logits.argmax(dim=1)
        for emotion in range(len(self.codes)):
            mean = x[decided == emotion].double().mean(dim=0).to(x.dtype)  # NaN of no utterance
            typical = bool(mean.isfinite().all()) and classify(mean[None]).argmax() == emotion
            self.codes[emotion] = mean if typical else x[logits.log_softmax(dim=1)[:, emotion].argmax()]
        self.fitted.fill_(1)


def content_noise(audio: Tensor, samples: Tensor, dim: int) -> Tensor:
    """Compute noise that is a function of each utterance alone.

    It depends on the utterance's own samples, rounded to 16 bits, without padding: it is the same alone or in a batch, on any
    device, in any process, so that embedding an utterance twice averages nothing out.

    The noise is not secret, because the model contains everything that determines it. A recipient of the audio and the model
    can compute the noise and subtract it; a recipient of the embedding alone cannot. A copy of the audio that differs in one
    bit has other noise, so that a recipient of the audio could also average over such copies. The noises of two different
    utterances are practically independent.

    Args:
        audio: Zero-padded utterances in [-1, 1], [B, S].
        samples: Their lengths, [B].
        dim: Embedding dimension D.

    Returns:
        Standard normal numbers, [2, B, D].
    """
    clips = zip(audio.detach().cpu().numpy(), samples.tolist(), strict=True)
    return hashed_noise((to_int16(clip[:count]).astype("<i2") for clip, count in clips), dim).to(audio.device)


def mel_noise(mels: Tensor, frames: Tensor, dim: int) -> Tensor:
    """Compute such noise, [2, B, D], from log-mels [B, M, T] with frames [B] instead of audio.

    For evaluation during training, which has log-mels only; nothing embedded with it is released. It differs from
    `content_noise`, and between devices, whose log-mels differ in their last digits.
    """
    clips = zip(mels.detach().cpu().numpy(), frames.tolist(), strict=True)
    return hashed_noise((clip[:, :count].astype("<f4") for clip, count in clips), dim).to(mels.device)


def hashed_noise(clips: Iterable[np.ndarray], dim: int) -> Tensor:
    """Return standard normal numbers [2, B, D] that are a function of the bytes of each of B utterances."""
    noise = [hashed_normal(clip.tobytes(), NOISE_VECTORS * dim) for clip in clips]
    return torch.stack(noise).view(-1, NOISE_VECTORS, dim).transpose(0, 1)


def hashed_normal(content: bytes, count: int) -> Tensor:
    """Return standard normal numbers [count]: SHAKE-256 (FIPS 202), 8 bytes a number, through the inverse normal distribution.

    No library's random generator, which another version might change.
    """
    digest = hashlib.shake_256(content).digest(8 * count)
    uniform = ((np.frombuffer(digest, "<u8") >> 12) + 0.5) / 2.0**52  # never 0 or 1, which 53 bits would round to
    return torch.special.ndtri(torch.from_numpy(uniform)).float()


RELEASES: dict[str, Callable[..., Release]] = {
    "none": Release,
    "noise": NoiseRelease,
    "quantise": QuantisedRelease,
    "codes": CodesRelease,
    "decision": DecisionRelease,
}
