"""Pairs of utterances: mixup and concatenation of log-mels, and the labels of the result.

Shapes: B batch, M mel bands, T frames, N utterances of the dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.recipe_encoders import AugmentSection


@dataclass(frozen=True)
class Pairs:
    """The partner that each of B utterances is mixed or concatenated with; the utterance itself where it has none.

    Attributes:
        partner: Index of the partner in the dataset, [B].
        weight: Weight of the utterance itself in a mix, float32 in 0.5 .. 1, [B]; 1 where it is not mixed.
        follows: Whether the partner is concatenated, after the utterance, bool [B].
    """

    partner: np.ndarray
    weight: np.ndarray
    follows: np.ndarray

    def rows(self, rows: slice) -> "Pairs":
        """Return the pairs of some of the utterances."""
        return Pairs(self.partner[rows], self.weight[rows], self.follows[rows])


def draw_pairs(
    chosen: Sequence[int] | np.ndarray,
    emotion: np.ndarray,
    speaker: np.ndarray,
    settings: AugmentSection,
    rng: np.random.Generator,
) -> Pairs:
    """Draw which utterances are mixed or concatenated, and their partners.

    An utterance without a possible partner stays as it is. Utterances of unknown emotion have only each other as partners. Every
    call sorts the whole dataset: draw for a whole epoch at once.

    Args:
        chosen: Indices of B utterances of the dataset.
        emotion: Emotions of all N utterances of the dataset, integers; -1 where it is unknown.
        speaker: Speakers of all N utterances, integers.
        settings: Section [augment] of the recipe.
        rng: Generator to draw from.

    Returns:
        The partners of the B utterances.
    """
    clip, all_clips = np.asarray(chosen), np.arange(len(emotion))
    kind, pick = rng.random((2, len(clip)))
    weight = rng.beta(settings.mixup_alpha, settings.mixup_alpha, len(clip))
    first, second, third = np.cumsum([settings.concatenate, settings.mixup_same_emotion, settings.mixup_any_emotion])
    follows, same_emotion, any_emotion = kind < first, (kind >= first) & (kind < second), (kind >= second) & (kind < third)
    partner, known = clip.copy(), (emotion >= 0).astype(np.int64)
    # (which utterances, what a partner must have in common, what it must not)
    kinds = ((follows, emotion, speaker), (same_emotion, emotion, all_clips), (any_emotion, known, all_clips))
    for rows, common, different in kinds:
        if rows.any():
            partner[rows] = draw_partners(clip[rows], common, different, pick[rows])
    alone = follows & (emotion[partner] == emotion[clip]) & (speaker[partner] == speaker[clip])
    if alone.any():  # no other speaker has this emotion: any other utterance of it follows
        partner[alone] = draw_partners(clip[alone], emotion, all_clips, pick[alone])
    mixed = (same_emotion | any_emotion) & (partner != clip)
    weight = np.where(mixed, np.maximum(weight, 1 - weight), 1).astype(np.float32)
    return Pairs(partner, weight, follows & (partner != clip))


def draw_partners(clip: np.ndarray, common: np.ndarray, different: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """Draw a partner for each utterance, all possible ones equally likely.

    Args:
        clip: Indices of B utterances.
        common: Integers [N] that a partner must have in common with the utterance.
        different: Integers [N] that a partner must not have in common with the utterance.
        pick: Uniform numbers in [0, 1), [B].

    Returns:
        Indices of the partners [B]; the utterance itself where there is none.
    """
    different = to_indices(different)
    key = common.astype(np.int64) * (different.max() + 1) + different
    order = np.argsort(key, kind="stable")  # grouped by what is in common, and within by what is different
    start, stop = (np.searchsorted(common[order], common[clip], side) for side in ("left", "right"))
    own_start, own_stop = (np.searchsorted(key[order], key[clip], side) for side in ("left", "right"))
    possible = (stop - start) - (own_stop - own_start)
    position = own_stop - start + (pick * possible).astype(np.int64)  # counted from the end of the utterance's own, cyclically
    return np.where(possible > 0, order[start + position % (stop - start)], clip)


def pair_up(
    mels: Tensor,
    frames: Tensor,
    partner: Tensor,
    partner_frames: Tensor,
    weight: Tensor,
    follows: Tensor,
    bands: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Concatenate or mix utterances with their partners.

    A mix is linear in the log-mel, the network's input (mixup: Zhang et al., ICLR 2018). A partner shorter than the utterance is
    repeated from its beginning.

    Args:
        mels: Log-mels of the utterances, [B, M, T].
        frames: Number of unpadded frames, [B].
        partner: Log-mels of the partners, [B, M, T''].
        partner_frames: Number of unpadded frames, [B].
        weight: As in `Pairs`.
        follows: As in `Pairs`.
        bands: M, where prosody rows follow the log-mels; a mix keeps those of the utterance, whose weight is larger.

    Returns:
        Log-mel [B, M, T'] and frames [B].
    """
    total = torch.where(follows, frames + partner_frames, frames)
    length = int(total.max())
    position = torch.arange(length, device=mels.device)
    at = (position - follows[:, None] * frames[:, None]) % partner_frames[:, None]
    rows = torch.arange(len(mels), device=mels.device)[:, None]
    aligned = partner.transpose(1, 2)[rows, at].transpose(1, 2)
    own_weight = torch.where(follows[:, None], (position < frames[:, None]).float(), weight[:, None])[:, None]
    padded = F.pad(mels, (0, length - mels.shape[2]))
    paired = torch.lerp(aligned, padded, own_weight)
    if bands is not None and bands < mels.shape[1]:
        paired[:, bands:] = torch.where(own_weight >= 0.5, padded[:, bands:], aligned[:, bands:])
    return paired, total


def label_weight(frames: Tensor, partner_frames: Tensor, weight: Tensor, follows: Tensor) -> Tensor:
    """Return the weight of the utterance's own label, [B]: its weight in a mix, its share of the frames in a concatenation."""
    return torch.where(follows, frames / (frames + partner_frames), weight)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return labels [B] as shares [B, classes]: a single 1 each, none for a label of -1."""
    return F.one_hot(labels.clamp_min(0), classes).float() * (labels >= 0)[:, None]


def mix_labels(own: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Return the label shares [B, C] of mixed utterances: `weight` [B] of the own ones [B, C], the rest of the partner's [B, C].

    >>> mix_labels(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0.75])).tolist()
    [[0.75, 0.0, 0.25]]
    """
    return torch.lerp(partner.to(weight.dtype), own.to(weight.dtype), weight[:, None])
