"""Emotion classifiers on the embedding: linear or with one hidden layer, one for each branch; and regressors of dimensions.

Shapes: B batch, D embedding dimension, C emotions, R branches.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from speaker_invariant_ser.models.encoders import Encoder
from speaker_invariant_ser.recipe_encoders import EmotionSection


def classifier(dim: int, settings: EmotionSection, classes: int) -> nn.Sequential:
    """Return an untrained classifier of `dim` dimensions, linear or with one hidden layer."""
    if settings.hidden == 0:
        return nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(dim, classes))
    return nn.Sequential(
        nn.Linear(dim, settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, classes),
    )


class BranchHeads(nn.Module):
    """A classifier for each part of the embedding; the prediction is the mean of their log probabilities.

    Args:
        dims: Dimensions of the R parts, which are joined in this order.
        settings: Section [emotion] of the recipe, for each classifier.
        classes: Number C of emotions.
    """

    def __init__(self, dims: Sequence[int], settings: EmotionSection, classes: int) -> None:
        super().__init__()
        self.dims = list(dims)
        self.classifiers = nn.ModuleList([classifier(dim, settings, classes) for dim in dims])

    def branches(self, x: Tensor) -> Tensor:
        """Return the logits [B, R, C] of each classifier for embeddings [B, D]."""
        parts = x.split(self.dims, dim=1)
        return torch.stack([head(part) for head, part in zip(self.classifiers, parts, strict=True)], dim=1)

    @staticmethod
    def average(logits: Tensor) -> Tensor:
        """Return the mean [B, C] of the log probabilities of logits [B, R, C]."""
        return logits.float().log_softmax(dim=2).mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, C] of embeddings [B, D]."""
        return self.average(self.branches(x))


def build_head(encoder: Encoder, dim: int, settings: EmotionSection, classes: int) -> nn.Sequential | BranchHeads:
    """Return an untrained emotion classifier.

    Args:
        encoder: The encoder, whose embedding may be joined from branches.
        dim: Dimension of the embedding after the bottleneck.
        settings: Section [emotion] of the recipe.
        classes: Number of emotions.
    """
    dims = encoder.branch_dims
    if len(dims) == 1:
        return classifier(dim, settings, classes)
    assert sum(dims) == dim, "bottlenecks keep the dimension"
    return BranchHeads(dims, settings, classes)


def build_regressor(dim: int, settings: EmotionSection) -> nn.Sequential | None:
    """Return an untrained regressor from embeddings [B, D] to a value of each of `emotion.targets` [B, R]; None without any.

    Args:
        dim: Dimension of the embedding after the bottleneck; all branches together.
        settings: Section [emotion] of the recipe.
    """
    if not settings.targets:
        return None
    regressor = classifier(dim, settings, len(settings.targets))
    nn.init.constant_(regressor[-1].bias, 0.5)  # type: ignore[arg-type]  # the middle of the scale
    return regressor


def first_layers(head: nn.Sequential | BranchHeads) -> Iterator[tuple[nn.Linear, slice]]:
    """Yield the first linear layer of each classifier, and which dimensions of the embedding it gets."""
    begin = 0
    for layers in head.classifiers if isinstance(head, BranchHeads) else [head]:
        assert isinstance(layers, nn.Sequential)
        first = next(layer for layer in layers if isinstance(layer, nn.Linear))
        yield first, slice(begin, begin + first.in_features)
        begin += first.in_features
