"""The public API: the steps of the command line and its models as functions, for `import speaker_invariant_ser as siser`.

Each function imports what it needs when it is called, so that importing the package is fast and does not load torch.
Paths may be given as text. A wrong request raises a subclass of `errors.SerError` that says what would be right.
"""

from speaker_invariant_ser.api.models import load_model, pipeline
from speaker_invariant_ser.api.steps import add_f0, audit, evaluate, predict, prepare, read_recipe, train

__all__ = ["add_f0", "audit", "evaluate", "load_model", "pipeline", "predict", "prepare", "read_recipe", "train"]
