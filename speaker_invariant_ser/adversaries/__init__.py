"""What pushes the speaker out of the embedding while it is learned. Nothing of it is saved with the model.

A method is made of (D, K, its settings, C) and called as `adversary(x, batch, progress) -> loss`, see `Adversary`. The readers'
methods play against a classifier that learns to tell the speaker; the others compare the speakers' embeddings themselves.
Whatever an adversary says of itself is no evidence: a fresh attacker judges.
"""

from collections.abc import Callable

from speaker_invariant_ser.adversaries.base import Adversary, ReverseGradient, ramp, reverse_gradient, scaled, silent, warmed
from speaker_invariant_ser.adversaries.discriminators import GradientReversal, MaximumEntropy, MinMax, SignedSum, VariationalClub
from speaker_invariant_ser.adversaries.matching import Contrastive, Coral, Hsic, Mmd
from speaker_invariant_ser.recipe import AdversarySection

__all__ = [
    "ADVERSARIES",
    "Adversary",
    "GradientReversal",
    "ReverseGradient",
    "ramp",
    "reverse_gradient",
    "scaled",
    "silent",
    "warmed",
]

ADVERSARIES: dict[str, Callable[[int, int, AdversarySection, int], Adversary]] = {
    "grl": GradientReversal,
    "minmax": MinMax,
    "entropy": MaximumEntropy,
    "signed": SignedSum,
    "vclub": VariationalClub,
    "hsic": Hsic,
    "mmd": Mmd,
    "coral": Coral,
    "contrastive": Contrastive,
}
