"""Apply a run's models to the utterances of their folds: predictions for the test speakers, embeddings for the audit."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from speaker_invariant_ser.audit.controls import CONTROLS, controls_for
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.data.conditions.telephone import telephone
from speaker_invariant_ser.data.holdout import independent_units
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.data.tables.columns import read_columns
from speaker_invariant_ser.errors import ManifestError, RunError, shorten
from speaker_invariant_ser.evaluation.dimensions.parts import GivenEmotion
from speaker_invariant_ser.evaluation.dimensions.rating_cells import RatingCells, given_emotion
from speaker_invariant_ser.evaluation.dimensions.results import DimensionValues
from speaker_invariant_ser.evaluation.predictions import Predictions, from_columns, join, with_temperatures_of_other_folds
from speaker_invariant_ser.features.speaker_means import SpeakerMeans, compute_speaker_means
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.models.apply import Outputs, apply_to_clips
from speaker_invariant_ser.models.calibration import fit_temperature
from speaker_invariant_ser.models.model import SerModel, choose_device, load_model
from speaker_invariant_ser.processes import TaskProgress
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import INNER_PREDICTIONS, ModelSpec, Run

MAX_FRAME_BYTES = 1e9  # of all models' frame-level features; where they would take more, their attacker is left out


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of all models of a run, in the order of its models.

    Attributes:
        predictions: Predictions for the test speakers of all folds.
        tables: Embeddings of each model's training speakers, which the attackers learn from and are scored on.
        unseen: Embeddings of each model's dev and test speakers.
        controls: Name of a control -> for each model, its array for the utterances of `tables`.
        rates: Rates of the bottleneck for the scored utterances of all models, nats.
        given: Ratings that "given emotion" is conditioned on beside the emotion, where models predict dimensions.
    """

    predictions: Predictions
    tables: list[Embeddings]
    unseen: list[Embeddings]
    controls: dict[str, list[np.ndarray]]
    rates: np.ndarray
    given: GivenEmotion | None = None


def apply_models(run: Run, prepared: PreparedCorpus, device: str, quick: bool, progress: TaskProgress) -> ModelOutputs:
    """Apply every model of a run to the utterances of its fold.

    Args:
        run: A run whose models are all trained.
        prepared: The labelled corpus.
        device: auto, cpu or cuda.
        quick: Leave out frame-level features and the controls that take long.
        progress: Called after each model.
    """
    model_specs, parts, means = run.model_specs, attacked_parts(run.recipe), speaker_means(run, prepared, device)
    with_frames = not quick and frame_bytes(run, prepared, means) <= MAX_FRAME_BYTES
    predictions, tables, unseen, rates = [], [], [], []
    controls: dict[str, list[np.ndarray]] = defaultdict(list)
    cells, by_id = dict[str, RatingCells](), {utterance.id: utterance for utterance in prepared.utterances}
    for done, spec in enumerate(model_specs, start=1):
        model = load_model(spec.folder, str(choose_device(device)))
        predictions.append(predict_test_speakers(model, prepared, spec, means, run.recipe))
        table, rate = embed_with_rate(model, prepared, spec.split, parts, means, with_frames)
        unseen_table = embed(model, prepared, spec.split, ("dev", "test"), means)
        if model.targets:
            trained = [prepared.utterances[index] for index in spec.split.indices("train", prepared.utterances)]
            cells[spec.name] = RatingCells.fit(model.targets, trained)
            table, unseen_table = (cells[spec.name].of_table(each, by_id) for each in (table, unseen_table))
        tables.append(table)
        unseen.append(unseen_table)
        rated = [values.predicted] if (values := predictions[-1].dimensions) else []
        require_finite(spec, predictions[-1].probability, table.embedding, *rated)
        rates.append(rate[table.scored])
        _, clips, clip_means = clips_of(prepared, spec.split, parts, means)
        for name in controls_for(model, quick):
            controls[name].append(CONTROLS[name](model, clips, clip_means))
        progress("applying models", done, len(model_specs))
    joined = join(predictions)
    if run.recipe.train.refit and not joined.temperatures:
        joined = with_temperatures_of_other_folds(joined)
    return ModelOutputs(joined, tables, unseen, controls, np.concatenate(rates), given_emotion(cells, tables))


def require_finite(spec: ModelSpec, *outputs: np.ndarray) -> None:
    """Raise RunError if outputs of a model are NaN or infinite, as with weights that overflow."""
    if not all(np.isfinite(values).all() for values in outputs):
        raise RunError(f"{spec.folder}: the model's outputs are not finite, its weights overflow; train it again")


def attacked_parts(recipe: Recipe) -> tuple[str, ...]:
    """Return the parts of a fold that attackers learn from and are scored on, without those an eraser was fitted on.

    An eraser makes the speakers alike on the utterances it was fitted on. Attackers that learned from these would miss what is
    left in new utterances.
    """
    return ("train", "held_out") if recipe.erase.name == "none" else ("held_out",)


def learned_from(recipe: Recipe) -> Literal["all", "held-out"]:
    """Return which utterances attackers learn from, as report.json names them."""
    return "all" if "train" in attacked_parts(recipe) else "held-out"


def scored_on(splits: Sequence[Split]) -> Literal["held-out", "trained"]:
    """Return which utterances attackers are scored on, as report.json names them."""
    return "held-out" if all(split.held_out for split in splits) else "trained"


def require_held_out(run: Run, prepared: PreparedCorpus) -> None:
    """Raise RunError if a fold holds out utterances that the corpus does not have."""
    known = {utterance.id for utterance in prepared.utterances}
    for split in run.splits:
        if missing := sorted(set(split.held_out) - known):
            raise RunError(
                f"{run.folder} is damaged: fold {split.name} holds out utterances that the data do not have: {shorten(missing)}"
            )


def frame_bytes(run: Run, prepared: PreparedCorpus, means: SpeakerMeans | None) -> float:
    """Estimate the memory for the frame-level features of all models, bytes, from those of one utterance."""
    model = load_model(run.model_specs[0].folder)
    speaker_mean = means.of([prepared.utterances[0].speaker]) if means else None
    output = apply_to_clips(model, [prepared.clip(0)], speaker_mean, frame_features=True)
    features, frames = output.frame_features[0].shape
    bytes_per_sample = 2 * features * frames / prepared.utterances[0].samples  # 2 bytes a value
    parts = attacked_parts(run.recipe)
    indices = [index for spec in run.model_specs for part in parts for index in spec.split.indices(part, prepared.utterances)]
    return bytes_per_sample * sum(prepared.utterances[index].samples for index in indices)


def predict_test_speakers(
    model: SerModel, prepared: PreparedCorpus, spec: ModelSpec, means: SpeakerMeans | None, recipe: Recipe
) -> Predictions:
    """Predict the emotions of a fold's test speakers, with a temperature fitted on speakers that were not trained on.

    Models of version 0.2.0 hold no temperature: it is fitted here.
    """
    utterances, outputs = classify(model, prepared, spec.split, "test", means)
    temperature = model.settings.temperature
    if temperature is None:
        temperature = dev_temperature(model, prepared, spec, means) if spec.split.dev else inner_temperature(model, spec, recipe)
    return predictions_of(model, spec, utterances, outputs, temperature)


def predict_by_telephone(run: Run, prepared: PreparedCorpus, device: str, progress: TaskProgress) -> Predictions:
    """Predict the emotions of the test utterances of all folds as a telephone transmits them.

    Raises:
        RunError: The run is for images, or subtracts speaker means, which are of the recordings.
    """
    features = run.recipe.features
    if features.transductive or features.front != "log-mel":
        key = "normalise" if features.transductive else "front"
        expected = "utterance or corpus" if features.transductive else "log-mel"
        raise RunError(f"{run.folder}: features.{key} = {getattr(features, key)}: not measured by telephone; expected {expected}")
    parts = []
    for done, spec in enumerate(run.model_specs, start=1):
        model = load_model(spec.folder, str(choose_device(device)))
        utterances, clips, _ = clips_of(prepared, spec.split, ("test",), None)
        outputs = apply_to_clips(model, [telephone(clip) for clip in clips])
        parts.append(predictions_of(model, spec, utterances, outputs))
        progress("applying models by telephone", done, len(run.model_specs))
    return join(parts)


def predictions_of(
    model: SerModel,
    spec: ModelSpec,
    utterances: Sequence[Utterance],
    outputs: Outputs,
    temperature: float | None = None,
) -> Predictions:
    """Return the outputs of a model for N test utterances as predictions."""
    return Predictions(
        labels=model.labels,
        id=np.array([utterance.id for utterance in utterances]),
        speaker=np.array([utterance.speaker for utterance in utterances]),
        fold=np.full(len(utterances), spec.split.name),
        seed=np.full(len(utterances), spec.seed),
        truth=to_indices([utterance.emotion for utterance in utterances], model.labels),
        probability=outputs.probability,
        temperatures={} if temperature is None else {spec.name: temperature},
        dimensions=DimensionValues.of(model.targets, outputs.dimensions, utterances),
    )


def dev_temperature(model: SerModel, prepared: PreparedCorpus, spec: ModelSpec, means: SpeakerMeans | None) -> float:
    """Fit the temperature of a model on its dev speakers."""
    utterances, outputs = classify(model, prepared, spec.split, "dev", means)
    return fit_temperature(to_indices([utterance.emotion for utterance in utterances], model.labels), outputs.probability)


def inner_temperature(model: SerModel, spec: ModelSpec, recipe: Recipe) -> float | None:
    """Fit the temperature of a refit model on what its inner folds predicted, after the selected epoch.

    Returns:
        The temperature; None without inner folds, and with an eraser or a release that is fitted after training: the
        predictions of inner folds do not have them.

    Raises:
        RunError: The predictions are missing or damaged.
    """
    if not has_inner_temperature(recipe):
        return None
    path = spec.folder / INNER_PREDICTIONS
    try:
        predictions = from_columns(read_columns(path, {}))
        if predictions.labels != model.labels:
            raise ValueError(f"emotions {shorten(predictions.labels)}, expected {shorten(model.labels)}")
    except (ManifestError, ValueError) as error:
        raise RunError(f"{path} is missing or damaged ({error}); remove {spec.folder} and train it again with --resume") from None
    return fit_temperature(predictions.truth, predictions.probability)


def has_inner_temperature(recipe: Recipe) -> bool:
    """Return whether the predictions of inner folds are those of models like the final one."""
    return recipe.train.inner_folds > 0 and not recipe.fits_after_training


def classify(
    model: SerModel, prepared: PreparedCorpus, split: Split, part: str, means: SpeakerMeans | None
) -> tuple[list[Utterance], Outputs]:
    """Return the utterances of one part of a fold, and the outputs of the model for them."""
    utterances, clips, clip_means = clips_of(prepared, split, (part,), means)
    return utterances, apply_to_clips(model, clips, clip_means)


def embed(
    model: SerModel, prepared: PreparedCorpus, split: Split, parts: Sequence[str], means: SpeakerMeans | None = None
) -> Embeddings:
    """Embed the utterances of some parts of a fold.

    Args:
        model: The model of the fold.
        prepared: The labelled corpus.
        split: The fold.
        parts: Names of parts: train, held_out, dev, test.
        means: Mean log-mels of all speakers, where the model needs them (`speaker_means`).

    Returns:
        Embeddings; utterances that the model was trained on are not scored, unless the fold holds none out.
    """
    return embed_with_rate(model, prepared, split, parts, means, with_frames=False)[0]


def embed_with_rate(
    model: SerModel,
    prepared: PreparedCorpus,
    split: Split,
    parts: Sequence[str],
    means: SpeakerMeans | None,
    with_frames: bool,
) -> tuple[Embeddings, np.ndarray]:
    """Return the same embeddings, with frame-level features if asked for, and the bottleneck's rates [N], nats."""
    utterances, clips, clip_means = clips_of(prepared, split, parts, means)
    output = apply_to_clips(model, clips, clip_means, frame_features=with_frames)
    table = table_of(utterances, split, output.embedding)
    return replace(table, frames=output.frame_features if with_frames else None, code=output.code), output.rate


def table_of(utterances: Sequence[Utterance], split: Split, embedding: np.ndarray) -> Embeddings:
    """Return embeddings [N, D] of utterances of a fold as the table that is attacked."""
    columns: dict[str, Any] = {
        key: np.array([getattr(utterance, key) for utterance in utterances]) for key in ("id", "speaker", "emotion", "text")
    }
    trained = set(split.train) if split.held_out else set()
    held_out = set(split.held_out)
    scored = np.array([utterance.speaker not in trained or utterance.id in held_out for utterance in utterances])
    return Embeddings(embedding, **columns, scored=scored, group=independent_units(utterances))


def clips_of(
    prepared: PreparedCorpus, split: Split, parts: Sequence[str], means: SpeakerMeans | None
) -> tuple[list[Utterance], list[np.ndarray], np.ndarray | None]:
    """Return utterances, audio and speaker means [N, M], if needed, of some parts of a fold, one part after another."""
    indices = [index for part in parts for index in split.indices(part, prepared.utterances)]
    utterances = [prepared.utterances[index] for index in indices]
    clips = [prepared.clip(index) for index in indices]
    return utterances, clips, means.of([utterance.speaker for utterance in utterances]) if means else None


def speaker_means(run: Run, prepared: PreparedCorpus, device: str) -> SpeakerMeans | None:
    """Compute all speakers' mean log-mels where the run's models subtract them (features.normalise = "speaker")."""
    if not run.recipe.features.transductive:
        return None
    logmel = load_model(run.model_specs[0].folder, str(choose_device(device))).logmel
    return compute_speaker_means(prepared, logmel, {utterance.speaker for utterance in prepared.utterances})
