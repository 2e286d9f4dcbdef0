"""The adversaries by the name that `adversary.name` gives them."""

from collections.abc import Callable

from speaker_invariant_ser.adversaries.base import Adversary
from speaker_invariant_ser.adversaries.discriminators import GradientReversal, MaximumEntropy, MinMax, SignedSum, VariationalClub
from speaker_invariant_ser.adversaries.matching import Contrastive, Coral, Hsic, Mmd

# Each is called with (D, K, its settings, C): the input's dimension, the target's and the emotions' number of values.
ADVERSARIES: dict[str, Callable[..., Adversary]] = {
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
