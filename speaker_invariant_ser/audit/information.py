"""How many bits about the speaker can be used? Two measures for where accuracy alone says little.

Usable information (V-information) is what a family of classifiers can say about the speaker from the embedding beyond
what the emotion says. The online code length asks besides how few clips that takes.
N clips, D dimensions, K speakers, Q clips asked about.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from speaker_invariant_ser.errors import SerError, unknown

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse penalties that are tried: C of scikit-learn
UNIFORM = 0.01  # share of the uniform distribution in every prediction: no clip costs more than log2(K / 0.01) bits
HELD_BACK = 4  # one in four clips to learn from is held back for tuning
TUNED_ON = 4000  # clips at most; a penalty is found on these as well as on all
HIDDEN, BATCH, RATE, EPOCHS, PATIENCE = 64, 32, 5e-3, 40, 6  # of the mlp


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small are slower shared between threads; a fit stopped early is still a fit."""
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@one_thread()
def usable_bits(
    embedding: np.ndarray,
    speaker: np.ndarray,
    emotion: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    family: str = "linear",
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Bits [N] that the embedding [N, D] adds about the speaker of each clip, to someone who knows its emotion.

    For one clip log2 p(s | z, emotion) - log2 p(s | emotion), negative where the embedding misleads. The mean over clips
    is I_V(Z -> S | emotion) = H_V(S | emotion) - H_V(S | Z, emotion), about log2 K at most. NaN for a clip in no test part.
    `parts` are (train, test) positions; clips of one of the `groups` [N] (texts) stay together in tuning too.

    `family` is "linear" or "mlp". As the definition asks, either may ignore the embedding, and does unless it predicts
    held-back clips clearly better with it; so noise comes out at 0 or slightly below, as it is. p(s | emotion) is a logistic
    regression in both: on a one-hot emotion that holds every table of speaker by emotion, and unlike smoothed counts it
    is tuned and penalised as the other side is, so that nothing of the difference is due to smoothing.

    Sources: Xu et al., ICLR 2020; given a second variable, Hewitt et al., EMNLP 2021. Raises SerError for another family.
    """
    if family not in FAMILIES:
        raise SerError(unknown("family", family, FAMILIES))
    speakers, truth = np.unique(speaker, return_inverse=True)
    one_hot = (np.asarray(emotion)[:, None] == np.unique(emotion)).astype(np.float32)
    bits = np.full(len(truth), np.nan)
    for train, test in parts:
        task = Task(truth, len(speakers), train, test)
        tuning = hold_back(task, groups, seed)
        strength = min(STRENGTHS, key=lambda c: loss(predict(tuning, one_hot * np.float32(np.sqrt(c)))))
        given = one_hot * np.float32(np.sqrt(strength))
        inputs = standardised(embedding, train)
        bits[test] = np.log2(FAMILIES[family](task, tuning, inputs, given, seed)) - np.log2(predict(task, given))
    return bits


@one_thread()
def codelength(embedding: np.ndarray, speaker: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bits of all N speaker labels sent one block after another given the embeddings [N, D], and N log2 K without them.

    Uniform bits / bits is the compression: 1 where nothing can be learned, more where little data is enough to learn much.
    The first block, of max(2 K, N / 64) clips, costs log2 K bits each; then the blocks double, and each is predicted by a
    logistic regression of all before it, which may ignore the embedding. If speakers have unequal numbers of clips, those
    alone compress a little. Source: online (prequential) code, Voita and Titov, EMNLP 2020.
    """
    speakers, truth = np.unique(speaker, return_inverse=True)
    order = spread(truth, seed)
    known = min(max(2 * len(speakers), len(truth) // 64), len(truth))
    bits = known * np.log2(len(speakers))
    nothing = np.zeros((len(truth), 1), dtype=np.float32)
    while known < len(truth):
        task = Task(truth, len(speakers), order[:known], order[known : 2 * known])
        inputs = standardised(embedding, task.train)
        bits -= np.log2(linear(task, hold_back(task, None, seed), inputs, nothing, seed)).sum()
        known *= 2
    return float(bits), float(len(truth) * np.log2(len(speakers)))


@dataclass(frozen=True)
class Task:
    """Predict the speakers `truth` [N] (0 .. K-1) of the clips at `test` [Q], learning from those at `train`."""

    truth: np.ndarray
    speakers: int
    train: np.ndarray
    test: np.ndarray

    def own(self, model, inputs: np.ndarray) -> np.ndarray:
        """The probability [Q] that a model gives to the right speaker: never 0, also for a speaker it has not met."""
        probability = np.zeros((len(self.test), self.speakers))
        probability[:, model.classes_] = model.predict_proba(inputs[self.test])
        right = probability[np.arange(len(self.test)), self.truth[self.test]]
        return (1 - UNIFORM) * right + UNIFORM / self.speakers


def linear(task: Task, tuning: Task, inputs: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """Logistic regression on the inputs [N, D], as strong as tuning says, and on what is given [N, C]."""

    def weighted(c: float) -> np.ndarray:
        return np.hstack([inputs * np.float32(np.sqrt(c)), given])

    tried = {c: predict(tuning, weighted(c)) for c in STRENGTHS}
    best = min(tried, key=lambda c: loss(tried[c]))
    return predict(task, weighted(best) if better(tried[best], predict(tuning, given)) else given)


def mlp(task: Task, tuning: Task, inputs: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """One hidden layer on the inputs [N, D] and on what is given [N, C], for as many epochs as tuning says."""
    both = np.hstack([inputs, given])
    tried = []
    for model in epochs(tuning, both, seed):
        tried.append(tuning.own(model, both))
        best = min(range(len(tried)), key=lambda epoch: loss(tried[epoch]))
        if len(tried) - best > PATIENCE:
            break
    if not better(tried[best], predict(tuning, given)):
        return predict(task, given)
    return task.own(next(islice(epochs(task, both, seed), best, None)), both)


FAMILIES: dict[str, Callable[..., np.ndarray]] = {"linear": linear, "mlp": mlp}


def epochs(task: Task, inputs: np.ndarray, seed: int) -> Iterator[MLPClassifier]:
    """One network after each of its epochs."""
    batch = min(max(BATCH, len(task.train) // 50), len(task.train))  # many clips: fewer, larger steps
    model = MLPClassifier((HIDDEN,), alpha=1.0, batch_size=batch, learning_rate_init=RATE, random_state=seed)
    for _ in range(EPOCHS):
        yield model.partial_fit(inputs[task.train], task.truth[task.train], classes=np.arange(task.speakers))


def predict(task: Task, inputs: np.ndarray) -> np.ndarray:
    """The right speaker's probability [Q] by a logistic regression with penalty 1; the scale of the inputs sets its strength."""
    known = task.truth[task.train]
    if len(set(known)) == 1:  # nothing to tell apart
        return (1 - UNIFORM) * (task.truth[task.test] == known[0]) + UNIFORM / task.speakers
    return task.own(LogisticRegression(max_iter=200).fit(inputs[task.train], known), inputs)


def better(probability: np.ndarray, other: np.ndarray) -> bool:
    """Whether predictions [Q] beat others by two standard errors; the best of many tries on noise seldom does.

    Of fewer than five clips none is known.
    """
    gains = np.log2(probability) - np.log2(other)
    return len(gains) >= 5 and gains.mean() > 2 * gains.std() / np.sqrt(len(gains))


def loss(probability: np.ndarray) -> float:
    """Log loss in bits per clip."""
    return float(-np.log2(probability).mean())


def hold_back(task: Task, groups: np.ndarray | None, seed: int) -> Task:
    """A smaller task within the training clips, no speaker unknown; groups stay together unless a speaker gets lost so."""
    some = np.random.default_rng(seed).permutation(task.train)[:TUNED_ON]
    order = spread(task.truth[some], seed)
    held, rest = np.split(order, [len(order) // HELD_BACK])
    if groups is not None and len(set(groups[some])) >= HELD_BACK:
        splitter = StratifiedGroupKFold(HELD_BACK, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")  # speakers of few clips are usual
            apart = next(splitter.split(some, task.truth[some], groups[some]))
        rest, held = apart if set(task.truth[some[apart[0]]]) == set(task.truth[some]) else (rest, held)
    lost = ~np.isin(task.truth[some[held]], task.truth[some[rest]])
    rest, held = np.concatenate([rest, held[lost]]), held[~lost]
    held = held if len(held) else rest[:1]  # too few to tune on: `better` says no to them
    return replace(task, train=some[rest], test=some[held])


def standardised(embedding: np.ndarray, train: np.ndarray) -> np.ndarray:
    return StandardScaler().fit(embedding[train]).transform(embedding).astype(np.float32)


def spread(truth: np.ndarray, seed: int) -> np.ndarray:
    """An order [N], random but for this: any stretch holds every speaker in about the share that all clips do."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(truth))
    for speaker in np.unique(truth):
        clips = rng.permutation(np.flatnonzero(truth == speaker))
        place[clips] = (np.arange(len(clips)) + rng.random(len(clips))) / len(clips)
    return np.argsort(place)
