"""Everything that checks a recipe against the methods, the corpus and the machine, before anything is written.

Types and ranges of single keys are checked where they are declared, in `speaker_invariant_ser.recipe`.
"""

from collections import Counter
from collections.abc import Sequence

import torch

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.manifest import GROUPABLE
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.errors import RecipeError, counted, shorten, unknown
from speaker_invariant_ser.features.log_mel_sources import row_count
from speaker_invariant_ser.features.pretrained.checkpoint import WEIGHTS, open_checkpoint
from speaker_invariant_ser.features.pretrained.front import open_front
from speaker_invariant_ser.models.erasure import MAX_SPEAKERS
from speaker_invariant_ser.models.model import choose_device
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_encoders import SOUND_ONLY, PretrainedSettings
from speaker_invariant_ser.recipe_methods import TrainedClassifierSettings
from speaker_invariant_ser.training.adversary_step import Adversaries, errors_name_table
from speaker_invariant_ser.training.objective import build_model

LOG_MEL_ONLY = (*SOUND_ONLY, "mixup_same_emotion", "mixup_any_emotion")  # keys of [augment]
TARGETS = ("speaker", *GROUPABLE)  # columns that an adversary may have as its target; unlabelled utterances have no emotion


# Memory of a training on a CPU, measured on EMO-DB with the recipes of `benchmarks/train.py --only step`.
PROCESS_BYTES = 450_000_000  # of a process whose batches are empty: 370 MB are torch, Lightning and other imports
# For each frame of a batch, by encoder: what the backward pass needs, and what the allocator cannot return.
FRAME_BYTES = {"cnn": 36_000, "prosody": 15_000, "fusion": 21_000}
OTHER_FRAME_BYTES = 36_000  # of encoders that were not measured: the largest


def check_recipe(recipe: Recipe, prepared: PreparedCorpus, splits: Sequence[Split], processes: int) -> None:
    """Check a recipe against the methods that there are and against the folds of a corpus.

    Args:
        recipe: The recipe.
        prepared: The corpus, its labels already mapped.
        splits: All folds, utterances for the audit already held out.
        processes: Number of processes that share each batch.

    Raises:
        RecipeError: Something in the recipe cannot be, or does not fit the corpus.
        PreparedCorpusError: The recipe needs F0, and the corpus has none.
    """
    check_waveform(recipe)
    dim = check_methods(recipe)
    check_images(recipe, prepared)
    if recipe.features.needs_f0:
        prepared.require_f0()
    check_votes(recipe, prepared)
    for split in splits:
        for index, settings in enumerate(recipe.adversaries):
            with errors_name_table(index):
                target_values(prepared, split, settings.target, recipe.augment.virtual_speakers)
        check_erase(recipe, dim, len(target_values(prepared, split, "speaker")))
        check_ratings(recipe, prepared, split)
        utterances = len(split.indices("train", prepared.utterances))
        check_batches(recipe, min(utterances, recipe.train.epoch_clips or utterances), split.name, processes)


def model_memory(recipe: Recipe, prepared: PreparedCorpus) -> int:
    """Return how many bytes the training of a model takes on a CPU, about: process, cached log-mels, longest batch."""
    logmel = open_front(recipe.features, recipe.encoder, SAMPLE_RATE)
    frames = [logmel.frames_of(utterance.samples) for utterance in prepared.utterances]
    copies = 1 + (recipe.augment.telephone > 0)
    every, allowed = copies * logmel.value_bytes * row_count(logmel) * sum(frames), int(1e9 * recipe.train.cache_gb)
    frame_bytes = FRAME_BYTES.get(recipe.encoder.name, OTHER_FRAME_BYTES)
    weights = 0
    if isinstance(recipe.encoder, PretrainedSettings):
        frame_bytes, weights = pretrained_memory(recipe.encoder, row_count(logmel))
    return PROCESS_BYTES + weights + min(every, allowed) + frame_bytes * recipe.train.batch_size * max(frames)


def pretrained_memory(settings: PretrainedSettings, rows: int) -> tuple[int, int]:
    """Return bytes for each frame of a batch, and for weights, of a training on a pre-trained encoder: estimated, not measured.

    Args:
        settings: Section [encoder] of the recipe.
        rows: Rows of its input: a frozen encoder's layers, of which the network is not loaded, or the waveform.
    """
    if settings.frozen:
        return 3 * 4 * rows, 0  # float32 copies: the batch, its padding, and what the backward pass needs
    checkpoint = open_checkpoint(settings)
    activations = 80 * checkpoint.depth * checkpoint.width * checkpoint.frames_of(SAMPLE_RATE) // SAMPLE_RATE
    files = sum(path.stat().st_size for path in checkpoint.folder.glob(WEIGHTS))
    return activations + 1500, 4 * files  # the convolutions; weights, gradients and moments


def check_device(name: str, devices: int) -> torch.device:
    """Return the device of that name.

    Args:
        name: "auto", "cpu" or "cuda".
        devices: GPUs (or processes on the CPU) that share each batch.

    Raises:
        RecipeError: The machine has no such device, or too few of them.
    """
    device = choose_device(name)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise RecipeError(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def check_methods(recipe: Recipe) -> int:
    """Build the model and the adversaries once, and return the embedding's dimension.

    Raises:
        RecipeError: The encoder is unknown, band limits are impossible, or methods do not go together.
    """
    model = build_model(recipe, ("any", "other"))
    Adversaries(recipe, model, [2 for _ in recipe.adversaries])
    if recipe.perturb.name == "cross" and not isinstance(recipe.adversary, TrainedClassifierSettings):
        raise RecipeError(
            "perturb.name = cross follows the loss of a speaker classifier that learns: adversary.name = "
            f"{recipe.adversary.name} has none; expected grl or another adversary with a classifier"
        )
    return model.dim


def check_waveform(recipe: Recipe) -> None:
    """Check that a recipe whose encoder gets the waveform asks for nothing that is defined for log-mels only.

    Raises:
        RecipeError: It does.
    """
    if not recipe.encoder.on_waveform:
        return
    used = {f"augment.{name}": value for name in LOG_MEL_ONLY if (value := getattr(recipe.augment, name))}
    if used:
        keys = ", ".join(f"{key} = {value:g}" for key, value in used.items())
        raise RecipeError(
            f"{keys} with encoder.name = {recipe.encoder.name}: augmentation is defined for log-mels, which this encoder does "
            "not get; expected 0 for each, as in recipes/pretrained.toml"
        )
    if recipe.perturb.name != "none":
        raise RecipeError(
            f"perturb.name = {recipe.perturb.name} with encoder.name = {recipe.encoder.name}: perturbations are defined for "
            "log-mels only; expected perturb.name = none"
        )
    if recipe.features.normalise != "utterance":
        raise RecipeError(
            f"features.normalise = {recipe.features.normalise} with encoder.name = {recipe.encoder.name}: it is about log-mels, "
            "and the encoder's own feature extractor normalises audio; expected features.normalise = utterance"
        )


def check_images(recipe: Recipe, prepared: PreparedCorpus) -> None:
    """Check that every utterance is an image where `features.front` is "pixels" (see `features.log_mel.Pixels`).

    Raises:
        RecipeError: An utterance is not a whole number of columns, or has too many of them.
    """
    rows = recipe.features.mels
    if recipe.features.front != "pixels":
        return
    for utterance in prepared.unmapped or prepared.utterances:
        if utterance.samples % rows or utterance.samples > rows * (rows + 1):
            raise RecipeError(
                f"features.front = 'pixels' expects images of {rows} rows (features.mels) and at most {rows + 1} columns; "
                f"utterance {utterance.id} of {prepared.folder} has {counted(utterance.samples, 'sample')} (is this an "
                "audio corpus? it needs features.front = 'log-mel')"
            )


def check_votes(recipe: Recipe, prepared: PreparedCorpus) -> None:
    """Check that a corpus has votes of annotators where the recipe learns them.

    Raises:
        RecipeError: No utterance has a vote for an emotion of the label map.
    """
    if recipe.emotion.labels == "soft" and not any(utterance.votes for utterance in prepared.utterances):
        raise RecipeError(
            f"emotion.labels = soft: no utterance of {prepared.folder} has votes of annotators for its emotions; prepare it with "
            "--votes or --annotators, or set emotion.labels = hard"
        )


def check_ratings(recipe: Recipe, prepared: PreparedCorpus, split: Split) -> None:
    """Check that a fold trains on different ratings of each of `emotion.targets`.

    Raises:
        RecipeError: There are none, or all are equal.
    """
    for name in recipe.emotion.targets:
        trained = [getattr(prepared.utterances[index], name) for index in split.indices("train", prepared.utterances)]
        if len(set(trained) - {None}) < 2:
            found = "all its ratings are equal" if any(value is not None for value in trained) else "it has no ratings"
            raise RecipeError(
                f'emotion.targets = ["{name}"]: {found} of {name} in what fold {split.name} trains on; prepare a corpus with the '
                f"column {name} (docs/your-own-data.md), or leave {name} out"
            )


def check_batches(recipe: Recipe, utterances: int, fold: str, processes: int) -> None:
    """Check that every process gets an utterance of each batch; `utterances` is their number in an epoch.

    Raises:
        RecipeError: There are too few.
    """
    if recipe.train.batch_size < processes:
        raise RecipeError(f"train.batch_size = {recipe.train.batch_size}: {processes} processes share it; expected at least that")
    required = max(2, processes)  # batch norm needs two
    if utterances < required:
        raise RecipeError(
            f"fold {fold} trains on {counted(utterances, 'utterance')} an epoch with "
            f"{counted(processes, 'process', 'processes')}; expected {required} or more"
        )


def check_erase(recipe: Recipe, dim: int, speakers: int) -> None:
    """Check that an eraser leaves dimensions to the embedding, and that its effect can be measured.

    Args:
        recipe: The recipe.
        dim: D, dimensions of the embedding.
        speakers: Number of training speakers.

    Raises:
        RecipeError: The eraser takes every dimension, or nothing is held out to attack it with.
    """
    name = recipe.erase.name
    if name == "none":
        return
    if name == "leace" and speakers > dim:
        raise RecipeError(
            f"erase.name = leace: {speakers} training speakers take {speakers - 1} dimensions, and the embedding has {dim}; "
            f"expected encoder.dim above {speakers - 1}, such as {4 * speakers}, or erase.name = none"
        )
    if name == "obliviator" and speakers > MAX_SPEAKERS:
        raise RecipeError(
            f"erase.name = obliviator: {speakers} training speakers; expected at most {MAX_SPEAKERS}, or erase.name = none"
        )
    if not recipe.audit.holdout:
        raise RecipeError(
            f"erase.name = {name} with audit.holdout = 0: attackers learn nothing from utterances that an eraser was fitted on, "
            "whatever is left in others; expected audit.holdout above 0, such as 0.3"
        )


def target_values(prepared: PreparedCorpus, split: Split, column: str, virtual: int = 0) -> list[str]:
    """Return the values that an adversary's target can take in a fold.

    Args:
        prepared: The corpus.
        split: The fold; its training utterances count, with or without emotion labels.
        column: Column of the manifest that is the target.
        virtual: Virtual speakers of each real one, where the target is the speaker.

    Returns:
        The values sorted; after the speakers, their first virtual speakers, then their second ones, and so on.

    Raises:
        RecipeError: The column is unknown, is empty for some training utterances, or has a single value.
    """
    indices = [index for part in ("train", "unlabelled") for index in split.indices(part, prepared.utterances)]
    utterances = [prepared.utterances[index] for index in indices]
    if column not in TARGETS:
        full = [name for name in TARGETS if all(getattr(utterance, name) for utterance in utterances)]
        raise RecipeError(f"adversary.target: {unknown('column', column, full)}")
    counts = Counter(getattr(utterance, column) for utterance in utterances)
    if counts[""]:
        raise RecipeError(
            f"adversary.target = {column}: {counted(counts[''], 'training utterance')} of fold {split.name} have no {column}"
        )
    if len(counts) < 2:
        raise RecipeError(f"adversary.target = {column}: fold {split.name} trains on one {column} only ({shorten(counts)})")
    values = sorted(counts)
    copies = range(1, virtual + 1) if column == "speaker" else ()
    return [*values, *(f"{value}, virtual speaker {copy}" for copy in copies for value in values)]
