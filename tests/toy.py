"""A toy problem with a planted speaker code: two channels encode the speaker, twelve the emotion. Training takes a second."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from helpers import section
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from speaker_invariant_ser.adversaries.base import Adversary, AdversaryBatch
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.models.bottlenecks import BOTTLENECKS
from speaker_invariant_ser.recipe_methods import AdversarySection, BottleneckSection

SPEAKERS, EMOTIONS, FRAMES = 4, 3, 4
CHANNELS = 2 + 4 * EMOTIONS
NO_BOTTLENECK = section("bottleneck")


@dataclass(frozen=True)
class Clips:
    x: Tensor  # [N, CHANNELS, FRAMES], zero beyond an utterance's frames
    frames: Tensor  # [N], 2 .. FRAMES
    emotion: Tensor  # [N, EMOTIONS], a single 1
    target: Tensor  # [N, SPEAKERS], a single 1

    def rows(self, chosen: Tensor) -> "Clips":
        return Clips(self.x[chosen], self.frames[chosen], self.emotion[chosen], self.target[chosen])


@cache
def make_clips(count: int, seed: int) -> Clips:
    """Return utterances: speakers on a circle in two channels, each emotion in four others, utterance and frame noise in all.

    The embedding has fewer dimensions than there are channels without the speaker code, so that the code can be dropped.
    """
    draw = torch.Generator().manual_seed(seed)
    speaker = torch.randint(SPEAKERS, (count,), generator=draw)
    emotion = F.one_hot(torch.randint(EMOTIONS, (count,), generator=draw), EMOTIONS).float()
    angle = 2 * math.pi * speaker / SPEAKERS
    code = 4 * torch.stack((angle.cos(), angle.sin()), dim=1)
    clip = torch.cat((code, emotion.repeat(1, 4)), dim=1) + 0.5 * torch.randn(count, CHANNELS, generator=draw)
    x = clip[:, :, None] + 0.5 * torch.randn(count, CHANNELS, FRAMES, generator=draw)
    frames = torch.randint(2, FRAMES + 1, (count,), generator=draw)
    return Clips(x * mask_of(frames, FRAMES)[:, None], frames, emotion, F.one_hot(speaker, SPEAKERS).float())


class Encoder(nn.Module):
    """A layer on each frame, mean pooling, a layer to the embedding, and batch norm, as in the package's encoders."""

    frame_dim = 12

    def __init__(self, dim: int = 12, bottleneck: BottleneckSection = NO_BOTTLENECK) -> None:
        super().__init__()
        self.dim = dim
        self.layer = nn.Conv1d(CHANNELS, self.frame_dim, 1)
        self.project = nn.Linear(self.frame_dim, dim)
        self.norm = nn.BatchNorm1d(dim)
        self.bottleneck = BOTTLENECKS[bottleneck.name](dim, bottleneck)
        self.rate = torch.zeros(())  # of the latest batch, nats an utterance

    def frame_features(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return frame-level features [B, F, T] of x [B, CHANNELS, T], and their frames [B]."""
        return self.layer(x).relu() * mask_of(frames, x.shape[2])[:, None], frames

    def embed(self, x: Tensor, frames: Tensor) -> Tensor:
        z, rate = self.bottleneck(self.norm(self.project(x.sum(dim=2) / frames[:, None])))
        self.rate = rate.mean()
        return z


@dataclass(frozen=True)
class Trained:
    encoder: Encoder
    head: nn.Linear
    adversary: Adversary
    values: list[float]  # the adversary's loss, step by step


def train(
    settings: AdversarySection,
    steps: int = 200,
    clips: int = 64,
    seed: int = 0,
    dim: int = 12,
    bottleneck: BottleneckSection = NO_BOTTLENECK,
) -> Trained:
    """Train the emotion classifier with an adversary, `clips` utterances per batch, as the training loop does."""
    torch.manual_seed(seed)
    corpus, encoder = make_clips(600, seed=1), Encoder(dim, bottleneck)
    head, on_frames = nn.Linear(encoder.dim, EMOTIONS), settings.on_frames
    adversary = ADVERSARIES[settings.name](encoder.frame_dim if on_frames else encoder.dim, SPEAKERS, settings, EMOTIONS)
    model, own = [*encoder.parameters(), *head.parameters()], list(adversary.parameters())
    optimizers = [torch.optim.AdamW(model if settings.own_learning_rate else model + own, 0.01)]
    if settings.own_learning_rate:
        optimizers.append(torch.optim.AdamW(own, settings.own_learning_rate, betas=(0.5, 0.999)))
    draw, values = torch.Generator().manual_seed(2), []
    for step in range(steps):
        for parameter in adversary.reset_due(step):
            optimizers[-1].state.pop(parameter, None)
        rows = corpus.rows(torch.randint(len(corpus.x), (clips,), generator=draw))
        hidden, frames = encoder.frame_features(rows.x, rows.frames)
        embedding = encoder.embed(hidden, frames)
        adversary_input = hidden if on_frames else embedding
        x, batch = (
            adversary_input.detach().requires_grad_(),
            AdversaryBatch(frames=frames, emotion=rows.emotion, target=rows.target),
        )
        for _ in range(adversary.separate_steps):
            optimizers[-1].zero_grad()
            adversary.classifier_loss(x.detach(), batch).backward()
            optimizers[-1].step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = adversary(x, batch, step / max(1, steps - 1))
        loss.backward()
        task = F.cross_entropy(head(embedding), rows.emotion) + bottleneck.rate_weight * encoder.rate
        torch.autograd.backward([task, adversary_input], [None, x.grad])
        for optimizer in optimizers:
            optimizer.step()
        values.append(loss.item())
    return Trained(encoder.eval(), head, adversary, values)


@dataclass(frozen=True)
class Judged:
    task: float  # emotion accuracy on new utterances
    attacker: float  # accuracy of a fresh attacker of the embedding; chance is 1 / SPEAKERS
    frame_attacker: float  # of an attacker on the mean frame-level features
    classifier: float | None  # of the adversary's classifier, which is no evidence


@torch.no_grad()
def judge(trained: Trained, release: Callable[[Tensor], Tensor] = lambda embedding: embedding) -> Judged:
    """Score the emotion, and attackers of the embedding after `release`; emotion is classified before it."""
    clips = make_clips(1000, seed=3)
    hidden, frames = trained.encoder.frame_features(clips.x, clips.frames)
    embedding, mean = trained.encoder.embed(hidden, frames), hidden.sum(dim=2) / frames[:, None]
    adversary_input = hidden if trained.adversary.settings.on_frames else embedding
    logits = trained.adversary.logits(adversary_input, AdversaryBatch(frames=frames, emotion=clips.emotion, target=clips.target))
    return Judged(
        task=accuracy(trained.head(embedding), clips.emotion),
        attacker=attack(release(embedding).numpy(), clips.target.argmax(dim=1).numpy()),
        frame_attacker=attack(mean.numpy(), clips.target.argmax(dim=1).numpy()),
        classifier=None if logits is None else accuracy(logits, clips.target),
    )


def accuracy(logits: Tensor, shares: Tensor) -> float:
    return (logits.argmax(dim=1) == shares.argmax(dim=1)).float().mean().item()


def attack(x: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of a logistic regression, fitted on one half and scored on the other."""
    half = len(x) // 2
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return probe.fit(x[:half], labels[:half]).score(x[half:], labels[half:])
