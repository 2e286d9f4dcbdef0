"""How long each phase of an epoch takes."""

import time
from collections import defaultdict

PHASES = ("data", "features", "network", "adversary", "update", "dev", "checkpoint")  # columns seconds_PHASE of metrics.csv


class PhaseTimer:
    """Wall-clock seconds by phase of an epoch; every moment belongs to exactly one phase. CPU seconds of all phases together.

    On a GPU a phase ends when its work has been queued, not when it has been computed.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = time.perf_counter()
        self.cpu_start = time.process_time()

    def end_phase(self, phase: str) -> None:
        """Add the time since the previous call to this phase."""
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now

    def columns(self) -> dict[str, float]:
        """Return the columns `seconds`, `seconds_PHASE` and `seconds_cpu` of metrics.csv.

        The last is the processor time of this process, all its threads together.
        """
        phases = {f"seconds_{phase}": self.seconds[phase] for phase in PHASES}
        return {"seconds": sum(self.seconds.values()), **phases, "seconds_cpu": time.process_time() - self.cpu_start}

    def reset(self) -> None:
        """Start the next epoch at 0 seconds in every phase."""
        self.seconds.clear()
        self.cpu_start = time.process_time()
