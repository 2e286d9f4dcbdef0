"""What is fitted after training, on the training speakers alone: eraser, release, and the emotion head once more. N clips."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.erasure import check_erase
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.recipe import EmotionSection, Recipe
from speaker_invariant_ser.training.objective import class_weights

REFITS, REFIT_RATE = 300, 1e-3  # steps of AdamW over all clips at once, and their learning rate


def finish(model: SerModel, clips: LogMelDataset, recipe: Recipe, seed: int | None = None) -> None:
    """Fit what the recipe's [erase] and [release] put behind a trained encoder; without them the model stays as it is.

    `clips` are the fold's training clips (emotion -1 where it is not known). They are embedded as they are, without
    augmentation. The same model, clips and `seed` (the recipe's if None) give the same result. Raises RecipeError where an
    eraser would leave nothing.
    """
    if recipe.erase.name == recipe.release.name == "none":
        return
    check_erase(recipe, model.dim, len(set(clips.speaker)))
    seed = recipe.train.seed if seed is None else seed
    parts = nn.ModuleDict({"eraser": model.eraser, "release": model.release, "head": model.head})
    done = copy.deepcopy(parts).cpu().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x = torch.from_numpy(apply_to_dataset(model, clips).bottleneck)
        done["eraser"].fit(x, clips.speaker, seed)
        with torch.no_grad():
            x = done["eraser"](x)
        fit_release(done, x, recipe)
        if recipe.erase.name != "none":
            known = torch.from_numpy(clips.emotion >= 0)
            refit_head(done["head"], x[known], torch.from_numpy(clips.emotion)[known], reading(done["release"], recipe), recipe)
    parts.load_state_dict(done.state_dict())


def fit_release(parts: nn.ModuleDict, x: Tensor, recipe: Recipe) -> None:
    """Take the release's statistics from embeddings [N, D]; a head that reads what is released is told of the new scale."""
    release, first = parts["release"], parts["head"][0]
    if recipe.release.name == "none" or recipe.release.classifies_before:
        release.fit(x)
        return
    known = recipe.release.in_training or release.fitted  # or it has read embeddings as they are so far
    mean, scale = release.norm.running_mean.clone(), release.scale if known else torch.ones(())
    release.fit(x)
    with torch.no_grad():  # w (mean' + scale' u - mean) / scale + b, of the u that it reads from now on
        first.bias += first.weight @ ((release.norm.running_mean - mean) / scale)
        first.weight *= release.scale / scale


def reading(release: nn.Module, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """What the head is told emotion from, of embeddings [N, D]; with new noise each time, if training has seen it so."""
    if recipe.release.name == "none" or recipe.release.classifies_before:
        return lambda x: x
    return lambda x: release(x, None if recipe.release.in_training else torch.zeros_like(x))


def refit_head(head: nn.Module, x: Tensor, emotion: Tensor, read: Callable[[Tensor], Tensor], recipe: Recipe) -> None:
    """Train the emotion head on what is left [N, D] and the emotions [N], from where it is, by the loss that it was trained by.

    Every clip counts once, however batches were drawn.
    """
    weight, offset = emotion_terms(emotion, head[-1].out_features, recipe.emotion)
    optimizer = torch.optim.AdamW(head.parameters(), lr=REFIT_RATE, weight_decay=recipe.train.weight_decay)
    head.train()
    for _ in range(REFITS):
        loss = F.cross_entropy(head(read(x)) + offset, emotion, weight, label_smoothing=recipe.emotion.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()


def emotion_terms(emotion: Tensor, classes: int, settings: EmotionSection) -> tuple[Tensor, Tensor]:
    """(weights of the classes [C], what is added to their logits [C]), as `Objective` has them."""
    shares = torch.bincount(emotion, minlength=classes) / max(1, len(emotion))
    weight = class_weights(shares) if settings.class_weights else torch.ones(classes)
    return weight, settings.logit_adjustment * shares.clamp_min(1e-12).log()
