"""The certificate of codes in words."""

import math
from collections.abc import Mapping

from speaker_invariant_ser.errors import counted

CODE = "code"  # what a run with codes releases; a table has a column of another name
CERTIFIED = {
    "held-out": "held-out utterances of training speakers",
    "unseen": "utterances of test speakers",
    "given": "utterances that the codes were not fitted on",
}


def at_most(bound: float) -> str:
    """Write a bound as a percentage, rounded up: a lower number would not be certified.

    >>> at_most(0.28101)
    '28.2 %'
    """
    return f"{math.ceil(1000 * bound) / 10:.1f} %"


def certificate_verdict(certificate: Mapping | None) -> str:
    """State the highest bound on the first kind of utterances that is bounded; "" where no codes are released.

    Args:
        certificate: Part `speaker.certificate` of report.json.
    """
    if certificate is None:
        return ""
    populations = [population for population in certificate["populations"] if population["models"]]
    if not populations:
        return f" No certificate: {certificate['populations'][0]['unavailable']}."
    bounded = [population for population in populations if worst_of(population)["bound"] < 1]
    chosen = (bounded or populations)[0]
    models, worst = chosen["models"], worst_of(chosen)
    clips = f"{worst['utterances']:,} {CERTIFIED[chosen['clips']]}"
    if not bounded:
        return f" No certificate: the bound from {clips} is 100 %."
    others = [CERTIFIED[population["clips"]] for population in populations if population not in bounded]
    none = "".join(f" The bound from {kind} is 100 %." for kind in others)
    column = "" if certificate["column"] == CODE else f" ({certificate['column']})"
    several = "" if len(models) == 1 else f"; the worst of {counted(len(models), 'model')}"
    confidence = 100 * (1 - certificate["delta"])
    return (
        f" No attacker who gets the code{column} of one utterance and nothing else can name the speaker in more than "
        f"{at_most(worst['bound'])} (balanced over {counted(worst['speakers'], 'speaker')}{several}), "
        f"with {confidence:.0f} % confidence ({clips}).{none}"
    )


def worst_of(population: Mapping) -> Mapping:
    """Return the model of a population whose codes have the highest bound."""
    return max(population["models"], key=lambda model: model["bound"])
