"""Can emotion be told without listening? Checks of a corpus for what a network would learn instead of the voice.

Each is a guess from one plain number or label, scored on speakers it has not seen, beside chance. A corpus where such a guess
works lets any model look better than it is.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from itertools import compress

import numpy as np

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.indexing import to_indices

NEIGHBOURS = 15
GROUPS = 5  # of speakers, for the cross-validation
MOST = 20_000  # utterances examined; a sample of that size says the same as a million
MARGIN = 0.05  # UAR above chance that a guess's interval must exceed to be warned of
ONE_SIDED = 0.8  # share of one emotion in a speaker's clips from which the speaker gives the emotion away
FEWEST = 5  # clips of a speaker before that share means anything


def examine(
    utterances: Sequence[Utterance], seconds: np.ndarray, zeros: np.ndarray, levels: np.ndarray, done: Collection[str] = ()
) -> dict:
    """What gives emotion away in these utterances: a table for prepare.json, with its `warnings` in words.

    `seconds` [N] is the length, `zeros` [N] the digital zeros at both ends in seconds, `levels` [N] the RMS in dB.
    `done` names what was treated already ("padding", "level"), so that nobody is advised to do it again. Clips without an
    emotion say nothing of this.
    """
    told = [bool(one.emotion) for one in utterances]
    utterances = list(compress(utterances, told))
    seconds, zeros, levels = (values[np.array(told, dtype=bool)] for values in (seconds, zeros, levels))
    chosen = np.unique(np.linspace(0, len(utterances) - 1, min(len(utterances), MOST)).astype(int))
    some = [utterances[index] for index in chosen]
    numbers = {"length": seconds, "padding": zeros, "level": levels}
    found = {name: guess_from(values[chosen], some) for name, values in numbers.items()}
    found |= {
        "speaker": one_sided(utterances, "speaker"),
        "text": one_sided(utterances, "text"),
        "shared_texts": shared(utterances),
    }
    return {**found, "warnings": warnings(found, done) + spellings(utterances) + one_corpus_only(utterances)}


def guess_from(values: np.ndarray, utterances: Sequence[Utterance]) -> dict | None:
    """UAR of a nearest-neighbour guess of emotion from one number [N], on unseen speakers; None with too few speakers.

    Votes are weighed by inverse class frequency, so that chance is 1/C. The interval resamples speakers.
    """
    speakers = to_indices([utterance.speaker for utterance in utterances])
    labels, truth = np.unique([utterance.emotion for utterance in utterances], return_inverse=True)
    groups = speakers % GROUPS
    if len(set(groups)) < 2 or len(labels) < 2:
        return None
    predicted = np.empty_like(truth)
    for group in set(groups.tolist()):
        test = groups == group
        predicted[test] = neighbours(values[~test], truth[~test], values[test], len(labels))
    low, high = metrics.cluster_interval(truth, predicted, speakers, len(labels))
    return {"uar": metrics.uar(truth, predicted, len(labels)), "low": low, "high": high, "chance": 1 / len(labels)}


def neighbours(values: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """The class [Q] that leads among the nearest of `values` [N], one number each, relative to how common it is.

    In one dimension the nearest lie around the place in sorted order, so a million are looked up in a blink.
    """
    mixed = np.random.default_rng(0).permutation(len(values))  # or, of equal values, the first listed would be the nearest
    order = mixed[np.argsort(values[mixed], kind="stable")]
    values, labels = values[order], labels[order]
    counts = np.bincount(labels, minlength=classes)
    k = min(NEIGHBOURS, len(values))
    place = (np.searchsorted(values, asked, "left") + np.searchsorted(values, asked, "right")) // 2
    around = np.clip(place[:, None] + np.arange(-k, k), 0, len(values) - 1)
    distance = np.abs(values[around] - asked[:, None])
    distance[around != place[:, None] + np.arange(-k, k)] = np.inf  # beyond the ends
    nearest = np.take_along_axis(around, np.argsort(distance, axis=1, kind="stable")[:, :k], axis=1)
    votes = np.zeros((len(asked), classes))
    np.add.at(votes, (np.arange(len(asked))[:, None], labels[nearest]), 1 / counts[labels[nearest]])
    return votes.argmax(axis=1)


def one_sided(utterances: Sequence[Utterance], name: str) -> dict | None:
    """How much a speaker (or text) gives the emotion away: the share of them with nearly all clips in one emotion.

    None where fewer than two are known.
    """
    emotions = defaultdict(Counter)
    for utterance in utterances:
        emotions[getattr(utterance, name)][utterance.emotion] += 1
    emotions.pop("", None)
    many = {value: counts for value, counts in emotions.items() if counts.total() >= FEWEST}
    if len(many) < 2 or len({utterance.emotion for utterance in utterances}) < 2:
        return None
    odd = sorted(value for value, counts in many.items() if max(counts.values()) >= ONE_SIDED * counts.total())
    return {"one_sided": odd[:100], "share": len(odd) / len(many)}


def shared(utterances: Sequence[Utterance]) -> dict | None:
    """The share of utterances whose text another speaker says too: on these, a split by speaker is not one by text."""
    speakers = defaultdict(set)
    for utterance in utterances:
        speakers[utterance.text].add(utterance.speaker)
    known = [utterance.text for utterance in utterances if utterance.text]
    return {"share": sum(len(speakers[text]) > 1 for text in known) / len(known)} if known else None


SAYS = {
    "length": "the length of a clip",
    "padding": "digital silence at the ends of a clip",
    "level": "the level of a clip",
}
ADVICE = {
    "length": "some of it is how emotions are spoken; what is not, a fixed-length crop hides",
    "padding": "prepare with --trim-db to remove it",
    "level": "some of it is how emotions are spoken; prepare with --loudness to remove it",
}


def spellings(utterances: Sequence[Utterance]) -> list[str]:
    """Labels that differ in nothing but upper and lower case are most likely one."""
    alike = defaultdict(set)
    for utterance in utterances:
        alike[utterance.emotion.lower()].add(utterance.emotion)
    several = [" and ".join(sorted(labels)) for labels in alike.values() if len(labels) > 1]
    return [f"{one} count as different emotions; labels.map in the recipe can make them one" for one in several]


def one_corpus_only(utterances: Sequence[Utterance]) -> list[str]:
    """Emotions that not all of several corpora have: there, who tells the corpus tells the emotion."""
    corpora = defaultdict(set)
    for utterance in utterances:
        corpora[utterance.emotion].add(utterance.corpus)
    all_of_them = set().union(*corpora.values())
    some = [f"{label} ({', '.join(sorted(where))})" for label, where in sorted(corpora.items()) if where != all_of_them]
    return [f"not every corpus has {shorten(some, 20)}; labels.map = five keeps what nearly all have"] if some else []


def warnings(found: dict, done: Collection[str]) -> list[str]:
    """Sentences a user should read before training."""
    told = []
    for name, words in SAYS.items():
        guess = found[name]
        if guess and guess["low"] > guess["chance"] + MARGIN:
            told.append(
                f"{words} alone tells the emotion of unseen speakers with {guess['uar']:.0%} UAR "
                f"({guess['low']:.0%} to {guess['high']:.0%}, chance {guess['chance']:.0%})"
                + ("" if name in done else f": {ADVICE[name]}")
            )
    for name in ("speaker", "text"):
        if found[name] and found[name]["share"] > 0.5:
            told.append(
                f"{found[name]['share']:.0%} of the {name}s have nearly all their clips in one emotion: "
                f"who tells the {name} tells the emotion"
            )
    if found["shared_texts"] and found["shared_texts"]["share"] > 0.5:
        told.append(
            f"{found['shared_texts']['share']:.0%} of the clips have a text that other speakers say too: a split by speaker "
            "tests known sentences; split.text_folds tests unknown ones"
        )
    return told
