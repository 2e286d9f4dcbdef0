"""Measure encoders: emotion on unseen speakers by a linear classifier and a network, and the strongest closed-form attacker."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from speaker_invariant_ser.audit.audit import AuditSettings, quick_leakage
from speaker_invariant_ser.audit.cross_validation import FitProgress
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.inputs.scaling import RELEASED_BITS, attackable
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits, require_test_speakers
from speaker_invariant_ser.errors import AuditError, shorten
from speaker_invariant_ser.evaluation.baseline import CLASSIFIERS, Classifier, classifier_results, feature_table, predict_fold
from speaker_invariant_ser.evaluation.domains import domains_of, headline
from speaker_invariant_ser.evaluation.predictions import Predictions, join
from speaker_invariant_ser.metrics import none_if_nan
from speaker_invariant_ser.processes import TaskProgress
from speaker_invariant_ser.recipe import Recipe, SplitSection
from speaker_invariant_ser.studies.encoders.embedding import embed_utterances
from speaker_invariant_ser.studies.encoders.results import AttackerNumbers, ClassifierNumbers, LayerNumbers
from speaker_invariant_ser.studies.encoders.sources import Encoder, Layers
from speaker_invariant_ser.studies.results import StrongestNumbers

HIDDEN, WEIGHT_DECAY, EPOCHS = 128, 1.0, 100


class BalancedMlp(MLPClassifier):
    """A multilayer perceptron whose classes have the same weight in sum, however many utterances they have."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "BalancedMlp":
        """Fit it on x [N, D] and labels y [N], for at most as many epochs as it may take."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().fit(x, y, sample_weight=compute_sample_weight("balanced", y))


def mlp() -> Pipeline:
    """Return a scaler and a network with one hidden layer."""
    network = BalancedMlp((HIDDEN,), alpha=WEIGHT_DECAY, max_iter=EPOCHS, tol=1e-3, n_iter_no_change=5, random_state=0)
    return make_pipeline(StandardScaler(), network)


PROBES: dict[str, Classifier] = {  # hyperparameters were fixed beforehand
    "linear": CLASSIFIERS["linear"],
    "mlp": Classifier(f"{HIDDEN} hidden units, weight decay {WEIGHT_DECAY:g}, at most {EPOCHS} epochs, classes balanced", mlp),
}


@dataclass(frozen=True)
class Embedded:
    """The labelled utterances of a corpus, embedded by each model of an encoder.

    Attributes:
        encoders: The models.
        layers: Layers of each model, [N, D] each.
        rows: Row of the layers by position in `utterances`.
        utterances: All utterances of the corpus.
        folds: Each fold, with the number of the model that its test speakers are embedded by.
        shown: Mask of the tested utterances, fold by fold, that results are computed on.
    """

    encoders: Sequence[Encoder]
    layers: Sequence[Layers]
    rows: dict[int, int]
    utterances: Sequence[Utterance]
    folds: Sequence[tuple[Split, int]]
    shown: np.ndarray


def measure_encoder(
    encoders: Sequence[Encoder],
    prepared: PreparedCorpus,
    recipe: Recipe,
    settings: AuditSettings,
    work: Path,
    progress: TaskProgress,
) -> Iterator[tuple[LayerNumbers, Predictions]]:
    """Measure one encoder, which is a single model or one for each fold, layer by layer.

    Args:
        encoders: Its models.
        prepared: The labelled corpus that they were opened for.
        recipe: Its section [split] gives the folds, unless the models have folds of their own.
        settings: Folds, seed and jobs of the attackers.
        work: Folder for finished blocks of embeddings.
        progress: Called with the step's name, the units done and the total.

    Yields:
        The numbers of each layer, and the predictions of its linear classifier.

    Raises:
        SplitError: The speakers do not allow the split, or none is tested.
        AuditError: The encoder was trained on a speaker who is tested.
    """
    embedded = embed_all(encoders, prepared, recipe.split, work, progress)
    for layer in embedded.layers[0]:
        step = f", layer {layer}" if len(embedded.layers[0]) > 1 else ""
        predictions = {
            name: predict(embedded, layer, classifier, counted_as(f"fitting {name}{step}", progress))
            for name, classifier in PROBES.items()
        }
        progress(f"attacking{step}", 0, 1)
        tables, scored = attacked_tables(embedded, layer)
        tables, _, _ = attackable(tables, None, RELEASED_BITS)
        speaker, reason = attack(tables, scored, settings)
        progress(f"attacking{step}", 1, 1)
        yield layer_numbers(layer, embedded.layers[0][layer].shape[1], predictions, speaker, reason), predictions["linear"]


def embed_all(
    encoders: Sequence[Encoder], prepared: PreparedCorpus, split: SplitSection, work: Path, progress: TaskProgress
) -> Embedded:
    """Embed all labelled utterances by each model."""
    utterances = prepared.utterances
    if encoders[0].split is None:
        folds = [(fold, 0) for fold in make_splits(split, utterances)]
        require_not_trained(encoders[0], [fold for fold, _ in folds], utterances)
    else:
        folds = [(encoder.split, number) for number, encoder in enumerate(encoders) if encoder.split]
    require_test_speakers([fold for fold, _ in folds], "comparison of encoders")
    labelled = [index for index, utterance in enumerate(utterances) if utterance.emotion]
    layers: list[Layers] = []
    for number, encoder in enumerate(encoders):
        report = counted_as("embedding utterances", progress, number * len(labelled), len(encoders) * len(labelled))
        layers.append(embed_utterances(encoder, prepared, labelled, work, report))
    tested = [utterances[index] for fold, _ in folds for index in fold.indices("test", utterances)]
    rows = {index: row for row, index in enumerate(labelled)}
    return Embedded(encoders, layers, rows, utterances, folds, headline(domains_of(split, tested)))


def require_not_trained(encoder: Encoder, folds: Sequence[Split], utterances: Sequence[Utterance]) -> None:
    """Raise AuditError if a table says that its encoder was trained on a tested speaker; of a model, the result says so."""
    if encoder.contamination:
        return
    tested = {speaker for fold in folds for speaker in fold.test}
    trained = sorted(tested & {utterance.speaker for utterance in utterances if utterance.id in encoder.trained})
    if trained:
        raise AuditError(
            f"the encoder was trained on speakers who are tested (scored = 0: {shorten(trained)}); expected one that was trained "
            "on none of them, or a run, whose models are each tested on speakers that they were not trained on"
        )


def counted_as(step: str, progress: TaskProgress, before: int = 0, total: int | None = None) -> FitProgress:
    """Return a function `(done, total)` that reports a step, after `before` units of `total` where it is a part of it."""
    return lambda done, of: progress(step, before + done, total or of)


def predict(embedded: Embedded, layer: str, classifier: Classifier, progress: FitProgress) -> Predictions:
    """Fit a classifier on the speakers of each fold that are not tested, and predict the emotions of those that are."""
    predicted = []
    for done, (fold, number) in enumerate(embedded.folds, start=1):
        values = embedded.layers[number][layer]
        predicted.append(predict_fold(classifier, values, embedded.rows, embedded.utterances, fold))
        progress(done, len(embedded.folds))
    return join(predicted).rows(embedded.shown)


def attacked_tables(embedded: Embedded, layer: str) -> tuple[list[Embeddings], str]:
    """Return what attackers are given of each model, and which utterances they are scored on, see `AttackerNumbers`."""
    tables, scored = [], "given"
    for encoder, layers in zip(embedded.encoders, embedded.layers, strict=True):
        indices = attacked_indices(encoder, embedded)
        chosen = [embedded.utterances[index] for index in indices]
        table = feature_table(layers[layer][[embedded.rows[index] for index in indices]], chosen)
        new = ~np.isin(table.id, list(encoder.trained))
        if encoder.trained:
            scored = "held-out" if new.any() else "trained"
        tables.append(replace(table, scored=new) if new.any() else table)
    return tables, scored


def attacked_indices(encoder: Encoder, embedded: Embedded) -> list[int]:
    """Return the positions of the utterances that a model is attacked on."""
    if encoder.split is None:
        return list(embedded.rows)
    return [index for part in encoder.attacked for index in encoder.split.indices(part, embedded.utterances)]


def attack(tables: list[Embeddings], scored: str, settings: AuditSettings) -> tuple[AttackerNumbers | None, str]:
    """Return what the closed-form attackers identify, or None and why the utterances do not allow an attack."""
    try:
        leakage = quick_leakage(tables, settings, repeats=1)
    except AuditError as error:
        return None, str(error)
    score = leakage.strongest.score
    strongest = {key: none_if_nan(getattr(score, key)) for key in ("accuracy", "low", "high", "balanced_accuracy")}
    numbers = AttackerNumbers(
        strongest=StrongestNumbers.model_validate({"name": leakage.strongest.name, **strongest}),
        attackers={name: attacker.accuracy for name, attacker in leakage.attackers.items()},
        chance=leakage.chance["given_emotion"],
        speakers=leakage.speakers,
        utterances=leakage.decisions,
        scored=scored,
        grouped_by_text=leakage.grouped_by_text,
    )
    return numbers, ""


def layer_numbers(
    layer: str, dimensions: int, predictions: dict[str, Predictions], speaker: AttackerNumbers | None, reason: str
) -> LayerNumbers:
    """Return the results of one layer; `reason` is why nothing is known of the speaker."""
    emotion = {name: classifier_results(PROBES[name], of_probe).to_json() for name, of_probe in predictions.items()}
    for results in emotion.values():
        del results["per_speaker"]
    return LayerNumbers(
        layer=layer,
        dimensions=dimensions,
        emotion={name: ClassifierNumbers.model_validate(results) for name, results in emotion.items()},
        speaker=speaker,
        unaudited=reason,
    )
