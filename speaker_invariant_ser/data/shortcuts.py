"""Check a corpus for shortcuts: properties other than vocal expression from which a model could predict the emotion.

Each check predicts the emotion from one number or label. Predictions from numbers are scored on unseen speakers and compared with
chance. In a corpus with a shortcut every model appears better than it is.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from itertools import compress
from typing import Any

import numpy as np

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.tables.names import groups
from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.indexing import to_indices

NEIGHBOURS = 15
FOLDS = 5  # of speakers, for the cross-validation
MAX_UTTERANCES = 20_000  # larger corpora are sampled; the result is the same
MARGIN = 0.05  # a warning needs a confidence interval this far above chance, in UAR
DOMINANT_SHARE = 0.8  # share of one emotion in a speaker's utterances from which the speaker predicts the emotion
MIN_UTTERANCES = 5  # per speaker, for that share to be meaningful


def examine(
    utterances: Sequence[Utterance], seconds: np.ndarray, zeros: np.ndarray, levels: np.ndarray, removed: Collection[str] = ()
) -> dict[str, Any]:
    """Check utterances for every shortcut; utterances without an emotion are ignored.

    Args:
        utterances: The kept utterances.
        seconds: Their durations in seconds [N].
        zeros: Duration of the digital zeros at both ends in seconds [N].
        levels: RMS levels in dB [N].
        removed: Shortcuts that the preparation has treated ("padding", "level"); no advice is given for these.

    Returns:
        The `shortcuts` of prepare.json: one entry per check (None where it is impossible), and `warnings` as sentences.
    """
    labelled = [bool(utterance.emotion) for utterance in utterances]
    utterances = list(compress(utterances, labelled))
    seconds, zeros, levels = (values[np.array(labelled, dtype=bool)] for values in (seconds, zeros, levels))
    chosen = np.unique(np.linspace(0, len(utterances) - 1, min(len(utterances), MAX_UTTERANCES)).astype(int))
    sample = [utterances[index] for index in chosen]
    numbers = {"length": seconds, "padding": zeros, "level": levels}
    checks: dict[str, Any] = {name: score_number(values[chosen], sample) for name, values in numbers.items()}
    checks |= {
        "speaker": one_sided(utterances, "speaker"),
        "text": one_sided(utterances, "text"),
        "shared_texts": shared_texts(utterances),
    }
    return {**checks, "warnings": warnings(checks, removed) + similar_labels(utterances) + missing_emotions(utterances)}


def score_number(values: np.ndarray, utterances: Sequence[Utterance]) -> dict[str, float] | None:
    """Score nearest-neighbour predictions of the emotion from one number per utterance, on unseen speakers.

    Votes are weighted by inverse class frequency, so that chance is 1/C.

    Args:
        values: The number, such as the duration [N].
        utterances: The utterances [N].

    Returns:
        `uar`, the limits `low` and `high` of its interval by resampling speakers, and `chance`; None for too few speakers or
        emotions.
    """
    speakers = to_indices([utterance.speaker for utterance in utterances])
    truth = to_indices([utterance.emotion for utterance in utterances])
    classes = len(set(truth.tolist()))
    folds = speakers % FOLDS
    if len(set(folds)) < 2 or classes < 2:
        return None
    predicted = np.empty_like(truth)
    for fold in set(folds.tolist()):
        test = folds == fold
        predicted[test] = nearest_neighbours(values[~test], truth[~test], values[test], classes)
    low, high = metrics.cluster_interval(truth, predicted, speakers, classes)
    return {"uar": metrics.uar(truth, predicted, classes), "low": low, "high": high, "chance": 1 / classes}


def nearest_neighbours(values: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int) -> np.ndarray:
    """Classify numbers by the classes of their nearest neighbours, weighted by inverse class frequency.

    In one dimension the neighbours are adjacent in sorted order, which makes the search fast.

    Args:
        values: Training numbers [N].
        labels: Their classes as integers [N].
        queries: Numbers to classify [Q].
        classes: Number of classes.

    Returns:
        Predicted classes [Q].
    """
    shuffled = np.random.default_rng(0).permutation(len(values))  # otherwise the first listed of equal values would be nearest
    order = shuffled[np.argsort(values[shuffled], kind="stable")]
    values, labels = values[order], labels[order]
    counts = np.bincount(labels, minlength=classes)
    k = min(NEIGHBOURS, len(values))
    position = (np.searchsorted(values, queries, "left") + np.searchsorted(values, queries, "right")) // 2
    window = position[:, None] + np.arange(-k, k)
    candidates = np.clip(window, 0, len(values) - 1)
    distance = np.abs(values[candidates] - queries[:, None])
    distance[candidates != window] = np.inf  # beyond the first or last value
    nearest = np.take_along_axis(candidates, np.argsort(distance, axis=1, kind="stable")[:, :k], axis=1)
    votes = np.zeros((len(queries), classes))
    np.add.at(votes, (np.arange(len(queries))[:, None], labels[nearest]), 1 / counts[labels[nearest]])
    return votes.argmax(axis=1)


def one_sided(utterances: Sequence[Utterance], column: str) -> dict[str, Any] | None:
    """Return the speakers (or texts) with nearly all utterances in one emotion, and their share; None for fewer than two."""
    emotions: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for utterance in utterances:
        emotions[getattr(utterance, column)][utterance.emotion] += 1
    emotions.pop("", None)
    frequent = {value: counts for value, counts in emotions.items() if counts.total() >= MIN_UTTERANCES}
    if len(frequent) < 2 or len({utterance.emotion for utterance in utterances}) < 2:
        return None
    dominated = sorted(v for v, counts in frequent.items() if max(counts.values()) >= DOMINANT_SHARE * counts.total())
    return {"one_sided": dominated[:100], "share": len(dominated) / len(frequent)}


def shared_texts(utterances: Sequence[Utterance]) -> dict[str, float] | None:
    """Return the share of utterances whose text another speaker says, too; None if no text is known."""
    speakers = defaultdict(set)
    for utterance in utterances:
        speakers[utterance.text].add(utterance.speaker)
    known = [utterance.text for utterance in utterances if utterance.text]
    return {"share": sum(len(speakers[text]) > 1 for text in known) / len(known)} if known else None


PROPERTIES = {
    "length": "the duration of an utterance",
    "padding": "digital silence at start and end",
    "level": "the level of an utterance",
}
ADVICE = {
    "length": "part of this is how emotions are expressed; a fixed-length crop hides the rest",
    "padding": "prepare with --trim-db to remove it",
    "level": "part of this is how emotions are expressed; prepare with --loudness to remove it",
}


def similar_labels(utterances: Sequence[Utterance]) -> list[str]:
    """Warn of emotion labels that are alike (see `tables.names`), because they most likely mean the same."""
    alike = groups({utterance.emotion for utterance in utterances})
    return [f"{' and '.join(labels)} count as different emotions; labels.map in the recipe can merge them" for labels in alike]


def missing_emotions(utterances: Sequence[Utterance]) -> list[str]:
    """Warn of emotions that not all of several corpora have: for these, the corpus predicts the emotion."""
    corpora = defaultdict(set)
    for utterance in utterances:
        corpora[utterance.emotion].add(utterance.corpus)
    every_corpus = {corpus for names in corpora.values() for corpus in names}
    partial = [f"{label} ({', '.join(sorted(names))})" for label, names in sorted(corpora.items()) if names != every_corpus]
    advice = "labels.map = five keeps the emotions that nearly all corpora have"
    return [f"not every corpus has {shorten(partial, 20)}; {advice}"] if partial else []


def warnings(checks: dict[str, Any], removed: Collection[str]) -> list[str]:
    """Return a sentence for every shortcut that the checks found."""
    sentences = []
    for name, words in PROPERTIES.items():
        score = checks[name]
        if score and score["low"] > score["chance"] + MARGIN:
            sentences.append(
                f"{words} alone predicts the emotion of unseen speakers with {score['uar']:.0%} UAR "
                f"({score['low']:.0%} to {score['high']:.0%}, chance {score['chance']:.0%})"
                + ("" if name in removed else f": {ADVICE[name]}")
            )
    for name in ("speaker", "text"):
        if checks[name] and checks[name]["share"] > 0.5:
            sentences.append(
                f"{checks[name]['share']:.0%} of the {name}s have nearly all their utterances in one emotion: "
                f"the {name} predicts the emotion"
            )
    if checks["shared_texts"] and checks["shared_texts"]["share"] > 0.5:
        sentences.append(
            f"{checks['shared_texts']['share']:.0%} of the utterances have a text that other speakers say as well: a split by "
            "speaker tests on known sentences; split.text_folds tests on unknown ones"
        )
    return sentences
