"""Worker processes: how many cores there are, how workers end, and how long work reports its progress."""

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait

TaskProgress = Callable[[str, int, int], None]  # name of the task, steps done, steps in total
EpochProgress = Callable[[str, dict[str, float]], None]  # name of a model (fold and seed), its latest row of metrics.csv


def cores() -> int:
    """Return the number of processors that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_up_worker() -> None:
    """Set up a worker process: it leaves Ctrl-C to the main process, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the end of the main process, then end this one."""
    if parent := parent_process():
        wait([parent.sentinel])
    os._exit(1)
