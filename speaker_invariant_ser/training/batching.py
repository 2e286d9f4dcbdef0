"""Which utterances make a batch, and the batch as the network gets it.

Everything random, torch's own numbers too, is a function of (seed, epoch, index of the batch) alone: a resumed training continues
with the same batches, and processes that share a batch draw the same numbers for all of it and keep their rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.features.augmentation import Augment
from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.features.log_mel import subtract_mean
from speaker_invariant_ser.features.log_mel_sources import padded_width
from speaker_invariant_ser.features.pairing import Pairs, draw_pairs, label_weight, mix_labels, one_hot, pair_up
from speaker_invariant_ser.features.virtual_speakers import VirtualSpeakers
from speaker_invariant_ser.recipe import Recipe, TrainSection
from speaker_invariant_ser.training.timing import PhaseTimer

MIXED_BATCHES = 4  # balanced batches of similar length whose utterances are redistributed among each other


@dataclass(frozen=True)
class BatchLabels:
    """Labels of a batch of all processes, as shares (see `adversaries.base.AdversaryBatch`)."""

    emotion: Tensor  # [B, C]
    targets: tuple[Tensor, ...]  # of each adversary, [B, K]
    dimensions: Tensor | None = None  # ratings of `emotion.targets` [B, R], NaN where there is none; None without targets

    def rows(self, chosen: slice) -> "BatchLabels":
        """Return the labels of some rows."""
        dimensions = None if self.dimensions is None else self.dimensions[chosen]
        return BatchLabels(self.emotion[chosen], tuple(target[chosen] for target in self.targets), dimensions)


@dataclass(frozen=True)
class BatchPlan:
    """Everything random about a batch of all processes, except noise and dropout."""

    chosen: np.ndarray  # [B] indices of utterances among the training utterances
    pairs: Pairs | None  # their partners, where utterances are mixed or joined
    draws: np.ndarray  # [B, columns] uniform numbers that decide about augmentation
    virtual: np.ndarray | None = None  # [B, 2] virtual speaker of each utterance and of its partner; 0 is the real one
    telephone: np.ndarray | None = None  # [B, 2] whether utterance and partner are heard over a telephone


class BatchLoader:
    """Batches for one of several processes that share each batch.

    Args:
        dataset: The training utterances.
        recipe: The recipe.
        classes: C, the number of emotions.
        target_counts: K of each adversary.
        seed: Seed of the training.
        device: Where batches are made.
        rank: Index of this process.
        world: Number of processes; row r of a batch belongs to process r modulo `world`.
    """

    def __init__(
        self,
        dataset: LogMelDataset,
        recipe: Recipe,
        classes: int,
        target_counts: Sequence[int],
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset, self.settings, self.seed, self.device = dataset, recipe.train, seed, device
        self.rank, self.rows = rank, slice(rank, None, world)
        self.augment = Augment(recipe.augment, recipe.features, changes=not recipe.encoder.on_waveform)
        self.frames = self.on_device(dataset.frames)
        self.labels = [self.on_device(values) for values in (dataset.emotion, *dataset.targets)]
        self.label_counts = [classes, *target_counts]
        self.vote_shares = None if dataset.shares is None else self.on_device(dataset.shares)
        self.dimensions = None if dataset.dimensions is None else self.on_device(dataset.dimensions)
        copies = recipe.augment.virtual_speakers  # virtual speakers of each real one
        self.virtual_copies = copies
        self.virtual_speakers = (
            VirtualSpeakers(dataset.speaker.max() + 1, copies, seed, recipe.features, device) if copies else None
        )
        # How far apart the labels of a real speaker and its virtual ones are: the number of real speakers, 0 for other targets.
        adversaries = zip(recipe.adversaries, target_counts, strict=False)  # the augmentation preview has no targets
        self.label_strides = [0, *(count // (1 + copies) * (settings.target == "speaker") for settings, count in adversaries)]

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return steps_per_epoch(self.settings, *count_labelled(self.dataset))

    def class_shares(self) -> Tensor:
        """Return the share of an epoch's labelled utterances of each emotion [C], before utterances are mixed.

        With votes, that is the mean of the utterances' shares; with balanced batches, of the means of the cells of speaker and
        emotion, which are drawn equally often.
        """
        labelled, classes = self.dataset.emotion >= 0, self.label_counts[0]
        counted = self.dataset.emotion[labelled]
        if self.dataset.shares is not None:
            shares, cell = self.dataset.shares[labelled], np.arange(len(counted))
            if self.settings.batches == "balanced":
                cell = np.unique(np.stack((self.dataset.speaker[labelled], counted)), axis=1, return_inverse=True)[1]
            size = np.bincount(cell)
            return torch.from_numpy((shares / size[cell][:, None]).sum(axis=0) / len(size)).float()
        if self.settings.batches == "balanced":
            counted = np.unique(np.stack((self.dataset.speaker[labelled], counted)), axis=1)[1]
        return torch.from_numpy(np.bincount(counted, minlength=classes) / len(counted)).float()

    def epoch(self, number: int, skip: int, timer: PhaseTimer) -> Iterator[tuple[Tensor, Tensor, BatchLabels]]:
        """Yield the batches of an epoch.

        Args:
            number: Epoch, from 1.
            skip: Batches to leave out at the beginning: those that a resumed training has done.
            timer: Ends the phases "data" and "features" of each batch.

        Yields:
            Log-mels [B', M, T], or with prosody [B', M + 4, T], and frames [B'] of this process's rows; the labels of all B rows.
        """
        plans = self.plan_epoch(number)[skip:]
        loaded = self.dataset.source.read(self.positions(plan) for plan in plans)
        for index, (plan, (mels, frames)) in enumerate(zip(plans, loaded, strict=True), start=skip):
            timer.end_phase("data")
            torch.manual_seed(seed_of(self.seed, number, index, self.rank))  # of noise, and of dropout after it
            mels, frames = self.features(plan, mels, frames)
            labels = self.labels_of(plan)
            timer.end_phase("features")
            yield mels, frames, labels

    def plan_epoch(self, epoch: int) -> list[BatchPlan]:
        """Draw the batches of an epoch."""
        batches = epoch_batches(self.dataset, self.settings, self.seed, epoch)
        chosen, rng = np.concatenate(batches), np.random.default_rng([self.seed, epoch, 1])
        draws = rng.random((len(chosen), self.augment.columns), dtype=np.float32)
        pairs, settings = None, self.augment.settings
        if settings.concatenate or settings.mixup_same_emotion or settings.mixup_any_emotion:
            pairs = draw_pairs(chosen, self.dataset.emotion, self.dataset.speaker, settings, rng)
        virtual, telephone = self.draw_virtual(len(chosen), rng), self.draw_telephone(len(chosen), rng)
        ends = np.cumsum([len(batch) for batch in batches])
        rows = [slice(end - len(batch), end) for end, batch in zip(ends, batches, strict=True)]
        return [
            BatchPlan(
                chosen[row],
                pairs and pairs.rows(row),
                draws[row],
                None if virtual is None else virtual[row],
                None if telephone is None else telephone[row],
            )
            for row in rows
        ]

    def draw_virtual(self, number: int, rng: np.random.Generator) -> np.ndarray | None:
        """Draw the virtual speaker of utterances and of their partners [number, 2], all equally often; 0 is the real one."""
        return rng.integers(0, 1 + self.virtual_copies, (number, 2)) if self.virtual_copies else None

    def draw_telephone(self, number: int, rng: np.random.Generator) -> np.ndarray | None:
        """Draw which utterances, and which of their partners, are heard over a telephone [number, 2]."""
        share = self.augment.settings.telephone
        return rng.random((number, 2)) < share if share else None

    def needed(self, plan: BatchPlan) -> np.ndarray:
        """Return the utterances to load: those of this process's rows, then their partners."""
        chosen = plan.chosen[self.rows]
        if plan.pairs is None:
            return chosen
        other = plan.pairs.partner[self.rows]
        return np.concatenate((chosen, other[other != chosen]))

    def of_needed(self, plan: BatchPlan, values: np.ndarray) -> np.ndarray:
        """Return the values [B, 2], of utterances and of their partners, for the utterances that `needed` names."""
        own, others = values[self.rows].T
        return own if plan.pairs is None else np.concatenate((own, others[(plan.pairs.partner != plan.chosen)[self.rows]]))

    def positions(self, plan: BatchPlan) -> np.ndarray:
        """Return where the dataset's source has the utterances that `needed` names, as recorded or by telephone."""
        needed = self.needed(plan)
        return needed if plan.telephone is None else needed + len(self.dataset) * self.of_needed(plan, plan.telephone)

    @torch.no_grad()
    def features(self, plan: BatchPlan, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Augment the log-mels of the utterances that `needed` names.

        Returns:
            Log-mels [B', M, T] and frames [B'] of this process's rows.
        """
        mels, mean = self.with_virtual_speakers(plan, mels)
        if plan.pairs is not None:
            pairs = plan.pairs.rows(self.rows)
            n, paired = len(pairs.partner), pairs.partner != plan.chosen[self.rows]
            partner = self.on_device(np.where(paired, n - 1 + paired.cumsum(), np.arange(n)))
            weight, follows = self.on_device(pairs.weight), self.on_device(pairs.follows)
            others = mels[partner]
            if mean is not None:
                others = subtract_mean(others, mean[partner] - mean[:n])  # so that one mean can be subtracted from both
            mels, frames = pair_up(mels[:n], frames[:n], others, frames[partner], weight, follows, self.augment.features.mels)
        mean = None if mean is None else mean[: len(mels)]
        mels, frames = self.augment(mels, frames, self.on_device(plan.draws[self.rows]), mean)
        return F.pad(mels, (0, padded_width(mels.shape[2]) - mels.shape[2])), frames

    def with_virtual_speakers(self, plan: BatchPlan, mels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn log-mels into those of the virtual speakers that were drawn.

        Returns:
            Log-mels of the needed utterances; and the mean log-mels [B, M, 1] of who speaks in them, where these are to be
            subtracted. A warp is linear in the bands, so the mean of a virtual speaker is the warped mean of the real one.
        """
        needed = self.needed(plan)
        mean = self.dataset.speaker_mean(needed)
        if plan.virtual is None or self.virtual_speakers is None:
            return mels, mean
        virtual, speaker = self.on_device(self.of_needed(plan, plan.virtual)), self.on_device(self.dataset.speaker[needed])
        warped = self.virtual_speakers(mels, speaker, virtual)
        return warped, None if mean is None else self.virtual_speakers(mean, speaker, virtual)

    def labels_of(self, plan: BatchPlan) -> BatchLabels:
        """Return the labels of all rows, this process's and the others'."""
        own, others = (None, None) if plan.virtual is None else plan.virtual.T
        emotion, *targets = first = self.label_shares(plan.chosen, own)
        if plan.pairs is None:
            return BatchLabels(emotion, tuple(targets), self.dimensions_of(plan.chosen))
        second = self.label_shares(plan.pairs.partner, others)
        chosen, other, weight, follows = map(
            self.on_device, (plan.chosen, plan.pairs.partner, plan.pairs.weight, plan.pairs.follows)
        )
        share = label_weight(self.frames[chosen], self.frames[other], weight, follows)
        emotion, *targets = (mix_labels(label, other_label, share) for label, other_label in zip(first, second, strict=True))
        dimensions = self.dimensions_of(plan.chosen, plan.pairs.partner, share)
        return BatchLabels(emotion, tuple(targets), dimensions)

    def dimensions_of(self, chosen: np.ndarray, partner: np.ndarray | None = None, share: Tensor | None = None) -> Tensor | None:
        """Return the ratings [B, R] of utterances, or their mean with those of partners; NaN where either has none."""
        if self.dimensions is None:
            return None
        values = self.dimensions[self.on_device(chosen)]
        if partner is None or share is None:
            return values
        return torch.lerp(self.dimensions[self.on_device(partner)], values, share[:, None])

    def label_shares(self, chosen: np.ndarray, virtual: np.ndarray | None) -> list[Tensor]:
        """Return emotion [B, C] and targets [B, K] of utterances as shares: single labels, or annotators' votes for emotions."""
        emotion, *targets = map(one_hot, self.label_indices(chosen, virtual), self.label_counts)
        return [emotion if self.vote_shares is None else self.vote_shares[self.on_device(chosen)], *targets]

    def label_indices(self, chosen: np.ndarray, virtual: np.ndarray | None) -> list[Tensor]:
        """Return emotion and targets [B] of utterances as integers; a virtual speaker has a label of its own."""
        rows = self.on_device(chosen)
        labels = [values[rows] for values in self.labels]
        if virtual is None:
            return labels
        offset = self.on_device(virtual)
        return [values + stride * offset for values, stride in zip(labels, self.label_strides, strict=True)]

    def on_device(self, values: np.ndarray) -> Tensor:
        """Return an array as a tensor on the training device."""
        return torch.from_numpy(values).to(self.device)


def seed_of(*numbers: int) -> int:
    """Mix numbers into one 64-bit seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def count_labelled(dataset: LogMelDataset) -> tuple[int, int]:
    """Return how many utterances have an emotion label, and how many have none."""
    labelled = int((dataset.emotion >= 0).sum())
    return labelled, len(dataset) - labelled


def steps_per_epoch(settings: TrainSection, labelled: int, unlabelled: int = 0) -> int:
    """Return the number of batches in an epoch.

    Batches have `batch_size` utterances or more, but fewer than twice as many: a single one left over would break batch norm.
    An epoch is one of the labelled utterances; where there are others, as many of them are added.
    """
    return max(1, min(settings.epoch_clips or labelled, labelled) * (2 if unlabelled else 1) // settings.batch_size)


def epoch_batches(dataset: LogMelDataset, settings: TrainSection, seed: int, epoch: int) -> list[np.ndarray]:
    """Draw an epoch's batches of utterances of similar length: padding costs time and dilutes batch norm.

    Where there are utterances without a label, they are half of each batch.

    Returns:
        Indices [B] of each batch, in random order.
    """
    rng, (labelled, unlabelled) = np.random.default_rng([seed, epoch]), count_labelled(dataset)
    number, steps = min(settings.epoch_clips or labelled, labelled), steps_per_epoch(settings, labelled, unlabelled)
    batches = batches_by_length(dataset, np.flatnonzero(dataset.emotion >= 0), number, steps, settings, rng)
    if unlabelled:
        others = batches_by_length(dataset, np.flatnonzero(dataset.emotion < 0), number, steps, settings, rng)
        batches = [np.concatenate(halves) for halves in zip(batches, others, strict=True)]
    return [batches[index] for index in rng.permutation(len(batches))]


def batches_by_length(
    dataset: LogMelDataset, candidates: np.ndarray, number: int, steps: int, settings: TrainSection, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw utterances into batches, the shortest first.

    Args:
        dataset: The utterances and their lengths.
        candidates: Positions of the utterances to draw from, [N].
        number: Utterances to draw; candidates repeat where they are fewer.
        steps: Number of batches.
        settings: Whether batches are balanced.
        rng: Draws the utterances and jitters their lengths.

    Returns:
        The positions of each batch.
    """
    balanced = settings.batches == "balanced"
    if balanced:
        chosen = draw_balanced(dataset, candidates, number, rng)
    else:
        chosen = np.resize(candidates[rng.permutation(len(candidates))], number)
    jittered = dataset.frames[chosen] * rng.uniform(0.9, 1.1, len(chosen))
    batches = np.array_split(chosen[np.argsort(jittered)], steps)
    if balanced:
        groups = [batches[start : start + MIXED_BATCHES] for start in range(0, len(batches), MIXED_BATCHES)]
        batches = [batch for group in groups for batch in redistribute(group, dataset)]
    return batches


def draw_balanced(dataset: LogMelDataset, candidates: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw every combination of speaker and emotion equally often, and each of its utterances equally often, up to remainders."""
    _, cell = np.unique(np.stack((dataset.speaker[candidates], dataset.emotion[candidates])), axis=1, return_inverse=True)
    members = [candidates[cell == index] for index in range(cell.max() + 1)]
    quota = np.full(len(members), number // len(members))
    quota[rng.permutation(len(members))[: number % len(members)]] += 1
    drawn = [np.resize(rng.permutation(utterances), count) for utterances, count in zip(members, quota, strict=True)]
    return np.concatenate(drawn)


def redistribute(batches: list[np.ndarray], dataset: LogMelDataset) -> list[np.ndarray]:
    """Spread each emotion, and in it each speaker, evenly over as many batches of the same utterances."""
    utterances = np.concatenate(batches)
    order = np.lexsort((dataset.speaker[utterances], dataset.emotion[utterances]))
    return [utterances[order[start :: len(batches)]] for start in range(len(batches))]
