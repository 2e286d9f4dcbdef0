"""Which clips make a batch, and the batch as the network sees it.

Everything random, torch's own numbers too, is a function of (seed, epoch, place in the epoch) alone: a run that was cut
short goes on with the same batches, and processes that share a batch draw the same for all of it and keep their rows.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.features.augmentation import Augment
from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.features.pairing import Pairs, draw_pairs, label_weight, mix_labels, one_hot, pair_up
from speaker_invariant_ser.features.virtual_speakers import VirtualSpeakers
from speaker_invariant_ser.recipe import Recipe, TrainSection

DEAL = 4  # balanced batches of similar length that are mixed with each other
MULTIPLE = 16  # frames; few different widths, since the fastest convolution is sought, and kept, for each


@dataclass(frozen=True)
class Labels:
    """Of a batch of all processes together: emotion [B, C], and what each adversary reads, [B, K] each; shares, see `Batch`."""

    emotion: Tensor
    targets: tuple[Tensor, ...]

    def rows(self, chosen: slice) -> "Labels":
        """Some of the clips."""
        return Labels(self.emotion[chosen], tuple(target[chosen] for target in self.targets))


@dataclass(frozen=True)
class Step:
    """What is drawn for a batch of all processes together: clips [B], their partners, uniform numbers [B, columns], and in which
    voice each clip and its partner speak [B, 2].
    """

    chosen: np.ndarray
    pairs: Pairs | None
    draws: np.ndarray
    voices: np.ndarray | None = None


class Clock:
    """Seconds by part, between one `lap` and the next. On a GPU, until the work is handed to it."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        """What passed since the last lap belongs to this part."""
        now = time.perf_counter()
        self.parts[part] += now - self.last
        self.last = now


class Feed:
    """Batches of clips for one of `world` processes that share each batch, on the device."""

    def __init__(
        self,
        clips: LogMelDataset,
        recipe: Recipe,
        classes: int,
        targets: Sequence[int],
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.clips, self.settings, self.seed, self.device = clips, recipe.train, seed, device
        self.rank, self.rows = rank, slice(rank, None, world)
        self.augment = Augment(recipe.augment, recipe.features)
        self.frames = self.on_device(clips.frames)
        values = (clips.emotion, *clips.targets)
        self.labels = [(self.on_device(one), number) for one, number in zip(values, (classes, *targets), strict=True)]
        self.virtual = recipe.augment.virtual_speakers
        self.virtual_speakers = (
            VirtualSpeakers(clips.speaker.max() + 1, self.virtual, seed, recipe.features, device) if self.virtual else None
        )
        adversaries = zip(recipe.adversaries, targets, strict=False)  # a preview has none
        self.people = [0, *(number // (1 + self.virtual) * (one.target == "speaker") for one, number in adversaries)]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_in(self.settings, *counts(self.clips))

    def class_shares(self) -> Tensor:
        """What share of an epoch's labelled clips each emotion has [C], before clips are paired."""
        known, classes = self.clips.emotion >= 0, self.labels[0][1]
        counted = self.clips.emotion[known]
        if self.settings.batches == "balanced":
            counted = np.unique(np.stack((self.clips.speaker[known], counted)), axis=1)[1]
        return torch.from_numpy(np.bincount(counted, minlength=classes) / len(counted)).float()

    def epoch(self, number: int, skip: int, clock: Clock) -> Iterator[tuple[Tensor, Tensor, Labels]]:
        """The batches after the first `skip`: log-mel [B, M, T], frames [B] of this process's rows, labels of all rows."""
        steps = self.draw(number)[skip:]
        read = self.clips.source.read(self.needed(step) for step in steps)
        for place, (step, (mels, frames)) in enumerate(zip(steps, read, strict=True), start=skip):
            clock.lap("data")
            torch.manual_seed(seed_of(self.seed, number, place, self.rank))  # noise, and dropout after it
            seen, labels = self.features(step, mels, frames), self.labels_of(step)
            clock.lap("features")
            yield *seen, labels

    def draw(self, epoch: int) -> list[Step]:
        """All that is random in an epoch, but for dropout and noise."""
        batches = epoch_batches(self.clips, self.settings, self.seed, epoch)
        chosen, rng = np.concatenate(batches), np.random.default_rng([self.seed, epoch, 1])
        draws = rng.random((len(chosen), self.augment.columns), dtype=np.float32)
        pairs, s = None, self.augment.settings
        if s.concatenate or s.mixup_same_emotion or s.mixup_any_emotion:
            pairs = draw_pairs(chosen, self.clips.emotion, self.clips.speaker, s, rng)
        voices = self.draw_voices(len(chosen), rng)
        ends = np.cumsum([len(batch) for batch in batches])
        places = [slice(end - len(batch), end) for end, batch in zip(ends, batches, strict=True)]
        return [
            Step(chosen[place], pairs and pairs.rows(place), draws[place], None if voices is None else voices[place])
            for place in places
        ]

    def draw_voices(self, number: int, rng: np.random.Generator) -> np.ndarray | None:
        """Which of their voices clips and their partners speak in [number, 2], each equally often; 0 is their own."""
        return rng.integers(0, 1 + self.virtual, (number, 2)) if self.virtual else None

    def needed(self, step: Step) -> np.ndarray:
        """The clips to be read: this process's, then their partners."""
        own = step.chosen[self.rows]
        if step.pairs is None:
            return own
        other = step.pairs.partner[self.rows]
        return np.concatenate((own, other[other != own]))

    @torch.no_grad()
    def features(self, step: Step, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels of what was needed -> (this process's rows after all augmentation [B, M, T], frames [B])."""
        mels, mean = self.spoken(step, mels)
        if step.pairs is not None:
            pairs = step.pairs.rows(self.rows)
            n, paired = len(pairs.partner), pairs.partner != step.chosen[self.rows]
            partner = self.on_device(np.where(paired, n - 1 + paired.cumsum(), np.arange(n)))
            weight, follows = self.on_device(pairs.weight), self.on_device(pairs.follows)
            others = mels[partner]
            if mean is not None:
                others += mean[:n] - mean[partner]  # so that one mean is that of both
            mels, frames = pair_up(mels[:n], frames[:n], others, frames[partner], weight, follows)
        mean = None if mean is None else mean[: len(mels)]
        mels, frames = self.augment(mels, frames, self.on_device(step.draws[self.rows]), mean)
        return F.pad(mels, (0, -mels.shape[2] % MULTIPLE)), frames

    def spoken(self, step: Step, mels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log-mels of what was needed in the voices that were drawn; where they are to be taken off, the means [B, M, 1] of
        these voices. A warp is linear in the bands, so that a voice's mean is the speaker's, warped.
        """
        needed = self.needed(step)
        mean = self.clips.speaker_mean(needed)
        if step.voices is None:
            return mels, mean
        own, others = step.voices[self.rows].T
        paired = others[step.pairs.partner[self.rows] != step.chosen[self.rows]] if step.pairs is not None else others[:0]
        voice, speaker = self.on_device(np.concatenate((own, paired))), self.on_device(self.clips.speaker[needed])
        return self.virtual_speakers(mels, speaker, voice), None if mean is None else self.virtual_speakers(mean, speaker, voice)

    def labels_of(self, step: Step) -> Labels:
        """Labels of all rows, this process's and the others'."""
        numbers, (own, others) = [number for _, number in self.labels], (None, None) if step.voices is None else step.voices.T
        first = self.known(step.chosen, own)
        if step.pairs is None:
            emotion, *targets = map(one_hot, first, numbers)
            return Labels(emotion, tuple(targets))
        second = self.known(step.pairs.partner, others)
        chosen, other, weight, follows = map(
            self.on_device, (step.chosen, step.pairs.partner, step.pairs.weight, step.pairs.follows)
        )
        part = label_weight(self.frames[chosen], self.frames[other], weight, follows)
        emotion, *targets = (mix_labels(*both, part, number) for *both, number in zip(first, second, numbers, strict=True))
        return Labels(emotion, tuple(targets))

    def known(self, chosen: np.ndarray, voice: np.ndarray | None) -> list[Tensor]:
        """Emotion and targets [B] of clips, as numbers; who speaks in a further voice is another one."""
        place = self.on_device(chosen)
        found = [values[place] for values, _ in self.labels]
        if voice is None:
            return found
        further = self.on_device(voice)
        return [values + people * further for values, people in zip(found, self.people, strict=True)]

    def on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def counts(clips: LogMelDataset) -> tuple[int, int]:
    """How many clips have a label, and how many have none."""
    labelled = int((clips.emotion >= 0).sum())
    return labelled, len(clips) - labelled


def steps_in(settings: TrainSection, labelled: int, unlabelled: int = 0) -> int:
    """Batches in an epoch; of `batch_size` clips or more, less than twice as many: one left over would break batch norm.

    An epoch is one of the labelled clips; where there are others, as many of them come along.
    """
    return max(1, min(settings.epoch_clips or labelled, labelled) * (2 if unlabelled else 1) // settings.batch_size)


def epoch_batches(clips: LogMelDataset, settings: TrainSection, seed: int, epoch: int) -> list[np.ndarray]:
    """The epoch's clips in random batches of similar length: padding costs time and dilutes batch norm.

    Where there are clips without a label, they are half of each batch.
    """
    rng, (labelled, unlabelled) = np.random.default_rng([seed, epoch]), counts(clips)
    number, steps = min(settings.epoch_clips or labelled, labelled), steps_in(settings, labelled, unlabelled)
    batches = part_batches(clips, np.flatnonzero(clips.emotion >= 0), number, steps, settings, rng)
    if unlabelled:
        others = part_batches(clips, np.flatnonzero(clips.emotion < 0), number, steps, settings, rng)
        batches = [np.concatenate(halves) for halves in zip(batches, others, strict=True)]
    return [batches[place] for place in rng.permutation(len(batches))]


def part_batches(
    clips: LogMelDataset, among: np.ndarray, number: int, steps: int, settings: TrainSection, rng: np.random.Generator
) -> list[np.ndarray]:
    """`number` of the clips `among` in batches by length, from the shortest on; where they are fewer, some come again."""
    even = settings.batches == "balanced"
    chosen = balanced(clips, among, number, rng) if even else np.resize(among[rng.permutation(len(among))], number)
    jittered = clips.frames[chosen] * rng.uniform(0.9, 1.1, len(chosen))
    batches = np.array_split(chosen[np.argsort(jittered)], steps)
    if even:
        batches = [hand for at in range(0, len(batches), DEAL) for hand in deal(batches[at : at + DEAL], clips)]
    return batches


def balanced(clips: LogMelDataset, among: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """`number` clips: every speaker x emotion that there is equally often, in it every clip equally often, but for rests."""
    _, cell = np.unique(np.stack((clips.speaker[among], clips.emotion[among])), axis=1, return_inverse=True)
    members = [among[cell == one] for one in range(cell.max() + 1)]
    quota = np.full(len(members), number // len(members))
    quota[rng.permutation(len(members))[: number % len(members)]] += 1
    drawn = [np.resize(rng.permutation(mine), count) for mine, count in zip(members, quota, strict=True)]
    return np.concatenate(drawn)


def deal(batches: list[np.ndarray], clips: LogMelDataset) -> list[np.ndarray]:
    """The same clips in as many batches, dealt out in the order of emotion and speaker, so that no batch has many of one kind."""
    together = np.concatenate(batches)
    order = np.lexsort((clips.speaker[together], clips.emotion[together]))
    return [together[order[place :: len(batches)]] for place in range(len(batches))]
