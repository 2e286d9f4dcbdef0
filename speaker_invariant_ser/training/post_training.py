"""Fit eraser and release after training, on the training speakers alone, and then emotion head and regressor again."""

import copy
from collections.abc import Callable
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.emotion_heads import first_layers
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.models.release import StandardisedRelease
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.training.objective import ccc_loss, loss_terms, soft_cross_entropy

REFIT_STEPS, REFIT_LEARNING_RATE = 300, 1e-3  # of AdamW over all utterances at once


def fit_eraser_and_release(model: SerModel, dataset: LogMelDataset, recipe: Recipe, seed: int | None = None) -> None:
    """Fit the recipe's [erase] and [release] to the embeddings of a trained encoder; without them the model stays as it is.

    Args:
        model: The trained model, which is changed.
        dataset: The fold's training utterances, which are not augmented here; an emotion of -1 is unknown.
        recipe: The recipe.
        seed: Seed of everything random; the recipe's if None. The same arguments give the same result.
    """
    if not recipe.fits_after_training:
        return
    seed = recipe.train.seed if seed is None else seed
    fitted = copy.deepcopy(model).cpu().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x = torch.from_numpy(apply_to_dataset(model, dataset).bottleneck)
        fitted.eraser.fit(x, dataset.speaker, dataset.emotion, seed)
        with torch.no_grad():
            x = fitted.eraser(x)
        fit_release(fitted, x)
        if recipe.erase.name != "none":
            labelled = torch.from_numpy(dataset.emotion >= 0)
            emotion = torch.from_numpy(dataset.emotion)[labelled]
            shares = None if dataset.shares is None else torch.from_numpy(dataset.shares)[labelled]
            refit_head(fitted.head, x[labelled], emotion, head_input(fitted), recipe, shares)
            if fitted.regressor is not None and dataset.dimensions is not None:
                refit_regressor(fitted.regressor, x, torch.from_numpy(dataset.dimensions), head_input(fitted), recipe)
    model.load_state_dict(fitted.state_dict())


def fit_release(model: SerModel, x: Tensor) -> None:
    """Take the release's mean and scale from embeddings [N, D], and adapt a head whose input is the released embedding."""
    release = model.release
    if not isinstance(release, StandardisedRelease) or release.settings.classifies_before:
        release.fit(x, model.head)
        return
    # The head has been trained on standardised embeddings, or on embeddings as they are.
    standardised = release.settings.in_training or release.fitted
    assert release.norm.running_mean is not None
    mean, scale = release.norm.running_mean.clone(), release.scale if standardised else torch.ones(())
    release.fit(x, model.head)
    with torch.no_grad():  # w (mean' + scale' u - mean) / scale + b, where u is the head's input from now on
        shift, factor = (release.norm.running_mean - mean) / scale, release.scale / scale
        for first, part in chain(first_layers(model.head), first_layers(model.regressor) if model.regressor else ()):
            first.bias.add_(first.weight @ shift[part])
            first.weight.mul_(factor[part])


def head_input(model: SerModel) -> Callable[[Tensor], Tensor]:
    """Return the function from embeddings [N, D] to the head's input, with fresh noise if training applied the release."""
    release = model.release
    if not isinstance(release, StandardisedRelease) or release.settings.classifies_before:
        return lambda x: x
    in_training = release.settings.in_training
    return lambda x: release(x, None if in_training else torch.zeros_like(x), model.head)


def refit_head(
    head: nn.Module,
    x: Tensor,
    emotion: Tensor,
    transform: Callable[[Tensor], Tensor],
    recipe: Recipe,
    votes: Tensor | None = None,
) -> None:
    """Continue the training of the emotion head on the embeddings after erasure, with the recipe's emotion loss.

    Every utterance counts once, whatever `train.batches` says.

    Args:
        head: The emotion head.
        x: Embeddings [N, D].
        emotion: Emotions [N] as integers.
        transform: From embeddings to the head's input, see `head_input`.
        recipe: The recipe.
        votes: Shares of the annotators' votes [N, C], which are learned in place of the emotions.
    """
    with torch.no_grad():
        classes = head(x[:1]).shape[1]
    shares = torch.bincount(emotion, minlength=classes) / max(1, len(emotion)) if votes is None else votes.mean(dim=0)
    weight, offset = loss_terms(recipe.emotion, shares)
    smoothing = recipe.emotion.label_smoothing

    def loss() -> Tensor:
        """Return the emotion loss of all utterances."""
        logits = head(transform(x)) + offset
        if votes is None:
            return F.cross_entropy(logits, emotion, weight, label_smoothing=smoothing)
        return soft_cross_entropy(logits, votes, weight, smoothing)

    minimise(head, loss, recipe)


def refit_regressor(
    regressor: nn.Module, x: Tensor, dimensions: Tensor, transform: Callable[[Tensor], Tensor], recipe: Recipe
) -> None:
    """Continue the training of the regressor of `emotion.targets` in the same way, on embeddings [N, D] and ratings [N, R]."""
    minimise(regressor, lambda: ccc_loss(regressor(transform(x)), dimensions), recipe)


def minimise(module: nn.Module, loss_of: Callable[[], Tensor], recipe: Recipe) -> None:
    """Take `REFIT_STEPS` steps of AdamW on the parameters of a module, and leave it in evaluation mode."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=REFIT_LEARNING_RATE, weight_decay=recipe.train.weight_decay)
    module.train()
    for _ in range(REFIT_STEPS):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()
