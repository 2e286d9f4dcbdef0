"""Worker processes: how many cores there are, and how workers end."""

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


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
