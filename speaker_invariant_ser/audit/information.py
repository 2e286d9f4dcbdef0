"""Usable information: how many bits about the speaker an embedding provides, where accuracy alone says little.

Two measures: usable information (V-information) is what a family of classifiers gains about the speaker from the embedding
beyond what the emotion says; the online code length also measures how few utterances that takes. Neither bounds attackers of
other families.

Shapes: N utterances, D dimensions, C emotions, K speakers, Q test utterances.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from speaker_invariant_ser.audit.embeddings import Embeddings, without_single_utterances
from speaker_invariant_ser.audit.folds import plan_folds
from speaker_invariant_ser.errors import SerError, unknown
from speaker_invariant_ser.indexing import one_hot, spread_order, to_indices

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # candidates; C of scikit-learn
UNIFORM_SHARE = 0.01  # of the uniform distribution in every prediction: no utterance costs more than log2(K / 0.01) bits
VALIDATION_FOLDS = 4  # one in four training utterances validates the settings
MAX_TUNING_UTTERANCES = 4000  # settings chosen on these are as good as on all
MIN_VALIDATION_UTTERANCES = 5  # with fewer, the embedding is not used
HIDDEN, BATCH_SIZE, LEARNING_RATE, EPOCHS, PATIENCE = 64, 32, 5e-3, 40, 6  # of the multilayer perceptron


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, which is faster for matrices of this size, and allow fits to stop early or to learn few utterances."""
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The number of unique classes")  # the first blocks of a code
        yield


@one_thread()
def measure_information(
    tables: Sequence[Embeddings],
    families: Sequence[str],
    folds: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """Compute usable bits about the speaker given the emotion and the online code length, both pooled over encoders.

    Args:
        tables: Embeddings of each encoder.
        families: Families of classifiers, keys of `FAMILIES`.
        folds: Folds of the cross-validation.
        seed: Seed of folds and classifiers.
        progress: Called with the encoders done and in total.

    Returns:
        The part `information` of report.json.
    """
    tables = [without_single_utterances(table) for table in tables]
    bits: dict[str, list[np.ndarray]] = {family: [] for family in families}
    code_lengths = []
    for done, table in enumerate(tables, start=1):
        plan = plan_folds(table, folds, seed)
        splits = [(fold.train, fold.test) for fold in plan.folds if fold.repeat == 0]
        groups = table.text if plan.grouped_by_text else table.group
        for family in families:
            bits[family].append(usable_bits(table.embedding, table.speaker, table.given_emotion, splits, family, groups, seed))
        code_lengths.append(codelength(table.embedding, table.speaker, seed))
        progress(done, len(tables))
    with_embedding_bits, uniform_bits = np.sum(code_lengths, axis=0)
    return {
        "v_bits": {family: float(np.nanmean(np.concatenate(encoder_bits))) for family, encoder_bits in bits.items()},
        "mdl": {
            "codelength_bits": float(with_embedding_bits),
            "uniform_bits": float(uniform_bits),
            "compression": float(uniform_bits / with_embedding_bits),
        },
        "log2_speakers": float(np.log2(max(len(set(table.speaker)) for table in tables))),
        "given_emotion_bits": float(np.mean([speaker_bits_given_emotion(table) for table in tables])),
    }


def speaker_bits_given_emotion(table: Embeddings) -> float:
    """Return the conditional entropy of the speaker given the emotion, bits: 0 where the emotion names the speaker."""
    names, emotions = to_indices(table.speaker), to_indices(table.given_emotion)
    joint = np.zeros((names.max() + 1, emotions.max() + 1))
    np.add.at(joint, (names, emotions), 1 / len(names))
    share = joint / joint.sum(axis=0)
    return float(-(joint * np.log2(np.where(share > 0, share, 1))).sum())


def usable_bits(
    embedding: np.ndarray,
    speaker: np.ndarray,
    emotion: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    family: str = "linear",
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Compute how many bits the embedding adds about each utterance's speaker if the emotion is known.

    For one utterance these are log2 p(speaker | embedding, emotion) - log2 p(speaker | emotion), negative where the embedding
    misleads. The mean estimates the conditional V-information I_V(embedding -> speaker | emotion) (Xu et al., ICLR 2020;
    Hewitt et al., EMNLP 2021), which is at most about log2 K.

    As the definition requires, a family may ignore the embedding, and does so unless validation utterances are predicted
    clearly better with it; so noise gives 0 or slightly less. p(speaker | emotion) is a logistic regression for both
    families: on one-hot emotions it represents every table of speaker by emotion, and unlike smoothed counts it is tuned and
    penalised like its counterpart, so that the difference is not due to smoothing.

    Args:
        embedding: Embeddings [N, D].
        speaker: Speaker of each utterance [N].
        emotion: Emotion of each utterance [N].
        folds: Positions of training and test utterances of each fold.
        family: "linear" or "mlp".
        groups: Group of each utterance [N], such as its text; kept together in tuning too.
        seed: Seed of tuning and of networks.

    Returns:
        Bits [N]; NaN for utterances in no test set.

    Raises:
        SerError: The family is unknown.
    """
    if family not in FAMILIES:
        raise SerError(unknown("family", family, FAMILIES))
    truth, emotions = to_indices(speaker), one_hot(emotion)
    speakers = int(truth.max()) + 1
    bits = np.full(len(truth), np.nan)
    for train, test in folds:
        task = Task(truth, speakers, train, test)
        tuning = tuning_task(task, groups, seed)
        best = min(INVERSE_PENALTIES, key=lambda c: log_loss(predict(tuning, scaled(emotions, c))))
        given = scaled(emotions, best)
        with_embedding = FAMILIES[family](task, tuning, standardise(embedding, train), given, seed)
        bits[test] = np.log2(with_embedding) - np.log2(predict(task, given))
    return bits


@one_thread()
def codelength(embedding: np.ndarray, speaker: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Compute the online (prequential) code length of the speaker labels given the embeddings (Voita and Titov, EMNLP 2020).

    Labels are transmitted block by block, each predicted by a logistic regression that was fitted to all before it and may
    ignore the embedding. The first block, of max(2 K, N / 64) utterances, costs log2 K bits each; then blocks double. The
    ratio of both results is the compression: 1 if nothing can be learned, more if much can be learned from few utterances.
    Unequal numbers of utterances per speaker compress a little by themselves.

    Args:
        embedding: Embeddings [N, D].
        speaker: Speaker of each utterance [N].
        seed: Seed of the order.

    Returns:
        Bits for all labels with the embeddings, and N log2 K bits without them.
    """
    truth = to_indices(speaker)
    speakers = int(truth.max()) + 1
    order = spread_order(truth, seed)
    known = min(max(2 * speakers, len(truth) // 64), len(truth))
    bits = known * np.log2(speakers)
    nothing_given = np.zeros((len(truth), 1), dtype=np.float32)
    while known < len(truth):
        task = Task(truth, speakers, order[:known], order[known : 2 * known])
        inputs = standardise(embedding, task.train)
        bits -= np.log2(linear(task, tuning_task(task, None, seed), inputs, nothing_given, seed)).sum()
        known *= 2
    return float(bits), float(len(truth) * np.log2(speakers))


@dataclass(frozen=True)
class Task:
    """Prediction of the speakers of test utterances from training utterances.

    Attributes:
        truth: Speaker of each utterance [N], 0 to K - 1.
        speakers: Number of speakers K.
        train: Positions of training utterances.
        test: Positions of test utterances [Q].
    """

    truth: np.ndarray
    speakers: int
    train: np.ndarray
    test: np.ndarray

    def probability_of_truth(self, model: ClassifierMixin, inputs: np.ndarray) -> np.ndarray:
        """Return the probability [Q] of the true speaker, never 0 even for a speaker without training utterances."""
        probability = np.zeros((len(self.test), self.speakers))
        probability[:, model.classes_] = model.predict_proba(inputs[self.test])
        of_truth = probability[np.arange(len(self.test)), self.truth[self.test]]
        return (1 - UNIFORM_SHARE) * of_truth + UNIFORM_SHARE / self.speakers


def linear(task: Task, tuning: Task, inputs: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """Predict by logistic regression on inputs [N, D], with a tuned penalty, and on what is given [N, C].

    Returns:
        Probability of the true speaker [Q].
    """
    tuned = {c: predict(tuning, np.hstack([scaled(inputs, c), given])) for c in INVERSE_PENALTIES}
    best = min(tuned, key=lambda c: log_loss(tuned[c]))
    use_inputs = is_clearly_better(tuned[best], predict(tuning, given))
    return predict(task, np.hstack([scaled(inputs, best), given]) if use_inputs else given)


def mlp(task: Task, tuning: Task, inputs: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """Predict by a network with one hidden layer on inputs [N, D] and what is given [N, C], for a tuned number of epochs.

    Returns:
        Probability of the true speaker [Q].
    """
    both = np.hstack([inputs, given])
    by_epoch: list[np.ndarray] = []
    best = 0
    for model in train_epochs(tuning, both, seed):
        by_epoch.append(tuning.probability_of_truth(model, both))
        best = min(range(len(by_epoch)), key=lambda epoch: log_loss(by_epoch[epoch]))
        if len(by_epoch) - best > PATIENCE:
            break
    if not is_clearly_better(by_epoch[best], predict(tuning, given)):
        return predict(task, given)
    return task.probability_of_truth(next(islice(train_epochs(task, both, seed), best, None)), both)


FAMILIES: dict[str, Callable[[Task, Task, np.ndarray, np.ndarray, int], np.ndarray]] = {"linear": linear, "mlp": mlp}


def train_epochs(task: Task, inputs: np.ndarray, seed: int) -> Iterator[MLPClassifier]:
    """Yield one network after each of its epochs."""
    batch_size = min(max(BATCH_SIZE, len(task.train) // 50), len(task.train))  # about 50 steps per epoch for many utterances
    model = MLPClassifier((HIDDEN,), alpha=1.0, batch_size=batch_size, learning_rate_init=LEARNING_RATE, random_state=seed)
    for _ in range(EPOCHS):
        yield model.partial_fit(inputs[task.train], task.truth[task.train], classes=np.arange(task.speakers))


def predict(task: Task, inputs: np.ndarray) -> np.ndarray:
    """Return the true speaker's probability [Q] by a logistic regression with C = 1; scaled inputs change its penalty."""
    known = task.truth[task.train]
    if len(set(known)) == 1:  # logistic regression needs two classes
        return (1 - UNIFORM_SHARE) * (task.truth[task.test] == known[0]) + UNIFORM_SHARE / task.speakers
    return task.probability_of_truth(LogisticRegression(max_iter=200).fit(inputs[task.train], known), inputs)


def scaled(inputs: np.ndarray, inverse_penalty: float) -> np.ndarray:
    """Scale inputs so that a regression with C = 1 on them has this inverse penalty."""
    return inputs * np.float32(np.sqrt(inverse_penalty))


def is_clearly_better(probability: np.ndarray, reference: np.ndarray) -> bool:
    """Whether predictions beat others by two standard errors, which the best of many settings on noise seldom does.

    Args:
        probability: Probability of the true speaker [Q].
        reference: The same for the predictions to beat [Q].

    Returns:
        False for fewer than `MIN_VALIDATION_UTTERANCES`, which decide nothing.
    """
    gains = np.log2(probability) - np.log2(reference)
    return len(gains) >= MIN_VALIDATION_UTTERANCES and gains.mean() > 2 * gains.std() / np.sqrt(len(gains))


def log_loss(probability: np.ndarray) -> float:
    """Return the mean log loss in bits."""
    return float(-np.log2(probability).mean())


def tuning_task(task: Task, groups: np.ndarray | None, seed: int) -> Task:
    """Divide a task's training utterances for the choice of settings.

    Args:
        task: The task.
        groups: Group of each utterance [N], kept together unless a speaker would have no training utterance.
        seed: Seed of sample and division.

    Returns:
        A task in which every tested speaker has training utterances.
    """
    sample = np.random.default_rng(seed).permutation(task.train)[:MAX_TUNING_UTTERANCES]
    order = spread_order(task.truth[sample], seed)
    validation, train = np.split(order, [len(order) // VALIDATION_FOLDS])
    if groups is not None and len(set(groups[sample])) >= VALIDATION_FOLDS:
        splitter = StratifiedGroupKFold(VALIDATION_FOLDS, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")  # speakers with few utterances are normal
            grouped_train, grouped_validation = next(splitter.split(sample, task.truth[sample], groups[sample]))
        if set(task.truth[sample[grouped_train]]) == set(task.truth[sample]):
            train, validation = grouped_train, grouped_validation
    untrained = ~np.isin(task.truth[sample[validation]], task.truth[sample[train]])
    train, validation = np.concatenate([train, validation[untrained]]), validation[~untrained]
    validation = validation if len(validation) else train[:1]  # too few to decide: `is_clearly_better` is then False
    return replace(task, train=sample[train], test=sample[validation])


def standardise(embedding: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return embeddings [N, D] in single precision, standardised with the statistics of the training utterances."""
    return StandardScaler().fit(embedding[train]).transform(embedding).astype(np.float32)
