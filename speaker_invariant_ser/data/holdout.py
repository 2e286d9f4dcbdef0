"""What a fold keeps aside of its training speakers: clips that the encoder never trains on, for the audit to score."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.splits import Split

MOST = 2.0  # whole texts may take this many times the share that was asked for; where they are too few, single clips are taken


def hold_out(splits: Sequence[Split], utterances: Sequence[Utterance], share: float, seed: int = 0) -> list[Split]:
    """The folds, each with `held_out`: about this share (0 to 0.5) of every training speaker's clips; 0 holds nothing.

    Whole texts where all are known, other ones in each fold, so that together the folds score as many clips as they can.
    Where that would take too much (a corpus of two sentences), leave a speaker without a held-out or a training clip, or an
    emotion without a training clip, single clips are taken, stratified by speaker x emotion. A speaker's only clip is kept.
    """
    if not share:
        return list(splits)
    held = []
    for place, split in enumerate(splits):
        training = [utterances[index] for index in split.indices("train", utterances)]
        ids = whole_texts(training, share, seed, place) or single_clips(training, share, seed, place)
        held.append(replace(split, held_out=tuple(ids)))
    return held


def whole_texts(training: Sequence[Utterance], share: float, seed: int, place: int) -> list[str]:
    """Ids of all clips of a few texts, the next ones for each fold's `place`; none if the texts do not allow it."""
    texts = sorted({one.text for one in training})
    random.Random(seed).shuffle(texts)
    count = math.ceil(round(share * len(texts), 6))
    chosen = {texts[(place * count + step) % len(texts)] for step in range(count)}
    held = [one for one in training if one.text in chosen]
    left = [one for one in training if one.text not in chosen]
    speakers = {one.speaker for one in training}
    fits = (
        "" not in texts
        and len(held) <= MOST * share * len(training)
        and {one.speaker for one in held} == {one.speaker for one in left} == speakers
        and {one.emotion for one in left} == {one.emotion for one in training}
    )
    return [one.id for one in held] if fits else []


def single_clips(training: Sequence[Utterance], share: float, seed: int, place: int) -> list[str]:
    """Ids of this share of each speaker's clips, at least one of two, from the speaker's emotions in proportion.

    The speaker's clips stand in an order that is the same in every fold, and each fold takes the next ones.
    """
    cells = defaultdict(lambda: defaultdict(list))
    for one in training:
        cells[one.speaker][one.emotion].append(one.id)
    held = set()
    for speaker, emotions in cells.items():
        order, ranked = random.Random(f"{seed} {speaker}"), []
        for _, ids in sorted(emotions.items()):
            shuffled = order.sample(ids, len(ids))
            ranked += [((rank + order.random()) / len(ids), one) for rank, one in enumerate(shuffled)]
        line = [one for _, one in sorted(ranked)]
        wanted = min(math.ceil(round(share * len(line), 6)), len(line) - 1)
        held |= {line[(place * wanted + step) % len(line)] for step in range(wanted)}
    for emotion in {one.emotion for one in training} - {one.emotion for one in training if one.id not in held}:
        held.remove(min(one.id for one in training if one.emotion == emotion))  # training may not lose an emotion
    return sorted(held)
