"""What is fitted after training, on the training speakers alone: eraser, release, and then the emotion head again."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.recipe import EmotionSection, Recipe
from speaker_invariant_ser.training.objective import class_weights

REFIT_STEPS, REFIT_LEARNING_RATE = 300, 1e-3  # of AdamW over all utterances at once


def finish(model: SerModel, clips: LogMelDataset, recipe: Recipe, seed: int | None = None) -> None:
    """Fit the recipe's [erase] and [release] to the embeddings of a trained encoder; without them the model stays as it is.

    Args:
        model: The trained model, which is changed.
        clips: The fold's training clips, which are not augmented here; an emotion of -1 is unknown.
        recipe: The recipe.
        seed: Seed of everything random; the recipe's if None. The same arguments give the same result.
    """
    if recipe.erase.name == recipe.release.name == "none":
        return
    seed = recipe.train.seed if seed is None else seed
    modules = nn.ModuleDict({"eraser": model.eraser, "release": model.release, "head": model.head})
    fitted = copy.deepcopy(modules).cpu().eval()
    eraser, release, head = fitted["eraser"], fitted["release"], fitted["head"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x = torch.from_numpy(apply_to_dataset(model, clips).bottleneck)
        eraser.fit(x, clips.speaker, seed)
        with torch.no_grad():
            x = eraser(x)
        fit_release(release, head, x, recipe)
        if recipe.erase.name != "none":
            labelled = torch.from_numpy(clips.emotion >= 0)
            emotion = torch.from_numpy(clips.emotion)[labelled]
            refit_head(head, x[labelled], emotion, head_input(release, recipe), recipe)
    modules.load_state_dict(fitted.state_dict())


def fit_release(release: nn.Module, head: nn.Sequential, x: Tensor, recipe: Recipe) -> None:
    """Take the release's mean and scale from embeddings [N, D], and adapt a head whose input is the released embedding."""
    if recipe.release.name == "none" or recipe.release.classifies_before:
        release.fit(x)
        return
    standardised = recipe.release.in_training or release.fitted  # else the head has been trained on embeddings as they are
    mean, scale = release.norm.running_mean.clone(), release.scale if standardised else torch.ones(())
    release.fit(x)
    first = head[0]
    with torch.no_grad():  # w (mean' + scale' u - mean) / scale + b, where u is the head's input from now on
        first.bias += first.weight @ ((release.norm.running_mean - mean) / scale)
        first.weight *= release.scale / scale


def head_input(release: nn.Module, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """Return the function from embeddings [N, D] to the emotion head's input; with fresh noise where training has had it."""
    if recipe.release.name == "none" or recipe.release.classifies_before:
        return lambda x: x
    return lambda x: release(x, None if recipe.release.in_training else torch.zeros_like(x))


def refit_head(head: nn.Sequential, x: Tensor, emotion: Tensor, transform: Callable[[Tensor], Tensor], recipe: Recipe) -> None:
    """Continue the training of the emotion head on what is left in the embeddings, with the recipe's emotion loss.

    Every utterance counts once, whatever `train.batches` says.

    Args:
        head: The emotion head.
        x: Embeddings [N, D].
        emotion: Emotions [N] as integers.
        transform: From embeddings to the head's input, see `head_input`.
        recipe: The recipe.
    """
    last = head[-1]
    assert isinstance(last, nn.Linear)
    weight, offset = emotion_terms(emotion, last.out_features, recipe.emotion)
    optimizer = torch.optim.AdamW(head.parameters(), lr=REFIT_LEARNING_RATE, weight_decay=recipe.train.weight_decay)
    head.train()
    for _ in range(REFIT_STEPS):
        logits = head(transform(x)) + offset
        loss = F.cross_entropy(logits, emotion, weight, label_smoothing=recipe.emotion.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()


def emotion_terms(emotion: Tensor, classes: int, settings: EmotionSection) -> tuple[Tensor, Tensor]:
    """Return (class weights [C], what is added to the logits [C]), as `Objective` has them."""
    shares = torch.bincount(emotion, minlength=classes) / max(1, len(emotion))
    weight = class_weights(shares) if settings.class_weights else torch.ones(classes)
    return weight, settings.logit_adjustment * shares.clamp_min(1e-12).log()
