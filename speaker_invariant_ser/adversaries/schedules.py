"""The schedules of lambda: functions of training progress alone, so that a resumed run continues with the same value."""

import math
from collections.abc import Callable

from speaker_invariant_ser.recipe_methods import AdversarySettings


def ganin_ramp(progress: float, steepness: float) -> float:
    """Return 2 / (1 + exp(-steepness * progress)) - 1. Ganin et al., JMLR 2016, section 5.2.2.

    Args:
        progress: Share of training that is done, 0 to 1. As nothing else enters, a resumed run continues the ramp.
        steepness: The paper's gamma, above 0; the paper's value is 10.

    Returns:
        0 at the start of training, about 1 at its end.

    >>> ganin_ramp(0.0, 10)
    0.0
    """
    return 2 / (1 + math.exp(-steepness * progress)) - 1


def warm_up_ramp(progress: float, warm_up: float) -> float:
    """Return 0 during a warm-up, then a linear rise to 1 that takes as long again, or ends with training if that is sooner.

    Args:
        progress: Share of training that is done, 0 to 1.
        warm_up: Share of training that the warm-up takes, 0 to 1.

    >>> [warm_up_ramp(progress, 0.2) for progress in (0.1, 0.25, 0.5)]
    [0.0, 0.24999999999999994, 1.0]
    """
    rise = min(warm_up, 1 - warm_up)
    return min(1.0, max(0.0, (progress - warm_up) / rise)) if rise else float(progress >= warm_up)


STRENGTH_SCHEDULES: dict[str, Callable[[float, AdversarySettings], float]] = {
    "ganin": lambda progress, settings: ganin_ramp(progress, settings.steepness),
    "constant": lambda progress, settings: 1.0,
    "warm-up": lambda progress, settings: warm_up_ramp(progress, settings.warm_up),
}
