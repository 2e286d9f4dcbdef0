"""Speech emotion recognition for unseen speakers, with an audit of the speaker information left in the embedding.

    import speaker_invariant_ser as siser

    siser.prepare("emodb", "corpora/emodb", "data/emodb")
    siser.train("default", "data/emodb", "runs/emodb")
    report = siser.evaluate("runs/emodb")
    rows = siser.predict("runs/emodb", ["call.wav"])
    prediction = siser.load_model().predict_file("call.wav")

Importing the package is fast and loads no torch; each function imports what it needs.

docs/architecture.md describes the packages, and which imports from which.
Shape letters: B batch, S samples, M mel bands, T frames, D embedding, C emotions, K speakers, N utterances.
"""

import os
from types import ModuleType
from typing import TYPE_CHECKING

from speaker_invariant_ser import api
from speaker_invariant_ser import audit as audit_package
from speaker_invariant_ser.api import add_f0, evaluate, load_model, pipeline, predict, prepare, read_recipe, train

# These libraries report their use to their makers unless a variable forbids it when they are imported.
for _variable, _value in {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}.items():
    os.environ.setdefault(_variable, _value)

__version__ = "0.12.0"
__all__ = ["__version__", "add_f0", "audit", "evaluate", "load_model", "pipeline", "predict", "prepare", "read_recipe", "train"]

if TYPE_CHECKING:
    from speaker_invariant_ser.api import audit
else:

    class _CallablePackage(ModuleType):
        """The subpackage `audit`, which has the name of a public function: calling it calls that function."""

        __call__ = staticmethod(api.audit)

    audit_package.__class__ = _CallablePackage
    audit_package.__wrapped__ = api.audit  # for inspect.signature
    audit = audit_package
