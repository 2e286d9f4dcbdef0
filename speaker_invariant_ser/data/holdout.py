"""Hold out utterances of the training speakers: the encoder never trains on them, so the audit can score attackers on them."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from speaker_invariant_ser.data.copies import Groups
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.splits import Split

MAX_EXCESS = 2.0  # whole texts are held out while they take at most this many times the requested share


def hold_out(splits: Sequence[Split], utterances: Sequence[Utterance], share: float, seed: int = 0) -> list[Split]:
    """Reserve part of every training speaker's utterances for scoring attackers.

    Whole texts are held out where all texts are known, so that no attacker is scored on a sentence it was fitted on. Each fold
    holds out other texts, so that together the folds score as many utterances as possible. Single utterances, stratified by
    speaker and emotion, are held out instead where whole texts would take more than twice the share, leave a speaker without
    held-out or training utterances, or leave an emotion without training utterances. A speaker's only utterance is never held
    out.

    Utterances that share audio (`copies`) stay together, and so do those of one recording where every speaker has several
    recordings. A speaker whose utterances all belong together gives up none.

    Args:
        splits: Folds whose `train` speakers give up utterances.
        utterances: All utterances of the prepared corpus.
        share: Share of each training speaker's utterances to hold out, 0 to 0.5; 0 holds out nothing.
        seed: Seed of the draw.

    Returns:
        The same folds with `held_out` filled with utterance ids.
    """
    if not share:
        return list(splits)
    folds = []
    for fold, split in enumerate(splits):
        training = [utterances[index] for index in split.indices("train", utterances)]
        ids = whole_texts(training, share, seed, fold) or single_utterances(training, share, seed, fold)
        folds.append(replace(split, held_out=tuple(ids)))
    return folds


def whole_texts(training: Sequence[Utterance], share: float, seed: int, fold: int) -> list[str]:
    """Return the ids of all utterances of a few texts, other texts in each fold; empty if the texts do not allow it."""
    texts = sorted({utterance.text for utterance in training})
    random.Random(seed).shuffle(texts)
    count = math.ceil(round(share * len(texts), 6))
    chosen = {texts[(fold * count + step) % len(texts)] for step in range(count)}
    held_out = [utterance for utterance in training if utterance.text in chosen]
    remaining = [utterance for utterance in training if utterance.text not in chosen]
    speakers = {utterance.speaker for utterance in training}
    allowed = (
        "" not in texts
        and len(held_out) <= MAX_EXCESS * share * len(training)
        and {utterance.speaker for utterance in held_out} == {utterance.speaker for utterance in remaining} == speakers
        and {utterance.emotion for utterance in remaining} == {utterance.emotion for utterance in training}
        and not {utterance.copies for utterance in remaining} & {utterance.copies for utterance in held_out} - {""}
    )
    return [utterance.id for utterance in held_out] if allowed else []


def single_utterances(training: Sequence[Utterance], share: float, seed: int, fold: int) -> list[str]:
    """Return the ids of a share of each speaker's utterances, with the speaker's emotions in proportion.

    Each speaker's units (utterances, or groups that stay together) have the same random order in every fold, and each fold takes
    the next ones of that order.
    """
    unit_of = units(training)
    members: dict[str, list[Utterance]] = defaultdict(list)
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for utterance in training:
        unit = unit_of[utterance.id]
        members[unit].append(utterance)
        if unit not in cells[utterance.speaker][utterance.emotion]:
            cells[utterance.speaker][utterance.emotion].append(unit)
    held_out: set[str] = set()
    for speaker, units_by_emotion in cells.items():
        rng, ranked = random.Random(f"{seed} {speaker}"), []
        for _, names in sorted(units_by_emotion.items()):
            shuffled = rng.sample(names, len(names))
            ranked += [((rank + rng.random()) / len(names), name) for rank, name in enumerate(shuffled)]
        order = list(dict.fromkeys(name for _, name in sorted(ranked)))
        count = min(math.ceil(round(share * len(order), 6)), len(order) - 1)
        held_out |= {order[(fold * count + step) % len(order)] for step in range(count)}
    for column in ("emotion", "speaker"):  # a unit can be of several speakers, so that a speaker may have lost the last one
        remaining = {getattr(utterance, column) for utterance in training if unit_of[utterance.id] not in held_out}
        for value in {getattr(utterance, column) for utterance in training} - remaining:
            held_out.discard(unit_of[min(utterance.id for utterance in training if getattr(utterance, column) == value)])
    return sorted(utterance.id for unit in held_out for utterance in members[unit])


def units(training: Sequence[Utterance]) -> dict[str, str]:
    """Return for each utterance's id the unit that is held out as a whole: the id of the unit's first utterance.

    Utterances that share audio are one unit. So are those of one recording, unless a speaker would then have a single unit.
    """
    groups = Groups(len(training))
    groups.join_equal([utterance.copies for utterance in training])
    by_recording = Groups(len(training))
    by_recording.join_equal([utterance.copies for utterance in training])
    by_recording.join_equal([utterance.recorded_in for utterance in training])
    recordings: defaultdict[str, set[int]] = defaultdict(set)
    for index, utterance in enumerate(training):
        recordings[utterance.speaker].add(by_recording.find(index))
    chosen = by_recording if all(len(indices) > 1 for indices in recordings.values()) else groups
    return {utterance.id: training[chosen.find(index)].id for index, utterance in enumerate(training)}


def independent_units(utterances: Sequence[Utterance]) -> np.ndarray | None:
    """Return the unit of each utterance [N]; None if each is one by itself."""
    if not any(utterance.copies or utterance.recorded_in for utterance in utterances):
        return None
    unit_of = units(utterances)
    return np.array([unit_of[utterance.id] for utterance in utterances])
