"""Worker processes: how many cores and how much memory there are, how workers end, and how long work reports its progress."""

import errno
import mmap
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from pathlib import Path

from speaker_invariant_ser.errors import counted

try:
    import resource
except ImportError:  # Windows has no limits of this kind
    resource = None  # type: ignore[assignment]

TaskProgress = Callable[[str, int, int], None]  # name of the task, steps done, steps in total
# What libraries say when memory runs out; some raise RuntimeError or ImportError then
OUT_OF_MEMORY = re.compile(
    r"allocate memory|out of memory|not enough memory|bad_alloc|failed to map segment|launch worker thread|start new thread",
    re.IGNORECASE,
)
LOW_MEMORY, RESERVE, BLAS_BUFFER = 2**28, 2**21, 2**26  # bytes
EpochProgress = Callable[[str, dict[str, float]], None]  # name of a model (fold and seed), its latest row of metrics.csv


def cores() -> int:
    """Return the number of processors that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions_of(*packages: str) -> dict[str, str]:
    """Return the version of this package, of the code that runs and not of what is installed, and those of others."""
    from importlib.metadata import version

    from speaker_invariant_ser import __version__  # which imports this module

    return {"speaker-invariant-ser": __version__, **{name: version(name) for name in packages}}


def bounded_jobs(requested: int, items: int | None = None) -> int:
    """Return how many processes to start: what is requested, but no more than there are cores or, if known, pieces of work.

    >>> bounded_jobs(100_000, items=1)
    1
    """
    return max(1, min(requested, cores(), requested if items is None else items))


def available_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process and its workers can still take without swapping or being killed.

    The smallest of: what Linux estimates to be available; for each control group that this process is in (containers, batch
    systems), its limit less what it uses; and `ulimit -v` less the address space in use. The last one limits each process, but
    batch systems that set it count a job's processes together.

    Args:
        root: Where proc/ and sys/ are.

    Returns:
        The bytes, 0 or more; None if nothing limits memory, or the system does not say (macOS, Windows).
    """
    meminfo = numbers_in(root / "proc/meminfo")
    bounds = [1024 * meminfo["MemAvailable"]] if "MemAvailable" in meminfo else []
    bounds += control_group_bounds(root)
    bounds += [left] if (left := address_space_left(root)) is not None else []
    return max(0, min(bounds)) if bounds else None


@contextmanager
def memory_limited() -> Iterator[None]:
    """Let an allocation beyond the available memory fail, with MemoryError, where Linux would end some process for it.

    For reading what anybody may have made: a kilobyte of a compressed file can hold any number of gigabytes. Where the system
    does not say how much memory is available, nothing is limited.
    """
    available = available_memory()
    if not resource or available is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = 1024 * numbers_in(Path("/proc/self/status")).get("VmSize", 0)
    limit = in_use + available if soft == resource.RLIM_INFINITY else min(in_use + available, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def address_space_left(root: Path = Path("/")) -> int | None:
    """Return how many bytes `ulimit -v` leaves this process, None if there is no such limit; `root` is where proc/ is."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    if not resource or limit == resource.RLIM_INFINITY:
        return None
    return limit - 1024 * numbers_in(root / "proc/self/status").get("VmSize", 0)


def require_address_space(needed: int) -> None:
    """Raise MemoryError if `ulimit -v` leaves too little to train: torch ends the process, without an error, where it runs out.

    Args:
        needed: Bytes that training takes beside those of the process, about.
    """
    left = address_space_left()
    if left is not None and left < LOW_MEMORY + needed:
        raise MemoryError(f"ulimit -v leaves {left / 1e6:.0f} MB, training takes about {(LOW_MEMORY + needed) / 1e6:.0f} MB")


def jobs_that_fit(requested: int | None, models: int, model_bytes: int) -> tuple[int, str]:
    """Return how many models to train at the same time, and a line for the user where memory is short.

    Args:
        requested: What the user asks for, obeyed whatever memory there is, up to the number of cores; None for as many as there
            are cores and memory for.
        models: Number of models.
        model_bytes: Memory that the training of a model takes, about.

    Returns:
        Number of models, from 1; and the line, empty if memory suffices or is not known.
    """
    jobs, available = bounded_jobs(requested or cores(), models), available_memory()
    if available is None or jobs * model_bytes <= available:
        return jobs, ""
    if not requested:
        jobs = min(jobs, max(1, available // model_bytes))
    line, advice = f"training {counted(jobs, 'model')} at a time", ""
    if jobs * model_bytes > available:
        line += " may run out of memory"
        advice = f"; lower {'--jobs or ' * (jobs > 1)}train.batch_size, or prepare shorter utterances"
    return (
        jobs,
        f"{line}: {available / 1e9:.1f} GB of memory are available, a model takes about {model_bytes / 1e9:.1f} GB{advice}",
    )


# Of version 2 and 1: folder, limit, use, and the statistic of cached files, which are dropped when memory is needed.
CONTROL_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def control_group_bounds(root: Path) -> Iterator[int]:
    """Yield the bytes that each control group of this process has left; without a limit that is a very large number, or none."""
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in {"", "memory"} & set(controllers.split(",")):
            mount, limit_name, used_name, cached_name = CONTROL_GROUPS[controller]
            inner = root / mount / group.strip("/")
            # A group's parents limit it too. In a container the outermost folder is its own group, and `group` may not exist.
            for folder in (inner, *inner.parents[: len(Path(group).parts) - 1]):
                limit, used = text_of(folder / limit_name).strip(), text_of(folder / used_name).strip()
                if limit.isdigit() and used.isdigit():
                    yield int(limit) - int(used) + numbers_in(folder / "memory.stat").get(cached_name, 0)


def numbers_in(path: Path) -> dict[str, int]:
    """Return the first number of each line `name: number` or `name number` of a file; empty if it cannot be read."""
    return {name: int(number) for name, number in re.findall(r"^([\w()]+):?\s+(\d+)", text_of(path), re.MULTILINE)}


def text_of(path: Path) -> str:
    """Return the text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError for every error of a library that means that memory ran out; other errors pass."""
    reserve = bytearray(RESERVE)
    try:
        yield
    except library_errors() as error:
        del reserve  # so that there is memory to find out that there was none
        ran_out = getattr(error, "errno", None) == errno.ENOMEM or OUT_OF_MEMORY.search(str(error))
        if ran_out or (not isinstance(error, OSError) and memory_is_low()):  # such as "could not create a primitive"
            raise MemoryError(str(error)) from error
        raise


def reserve_blas() -> None:
    """Let OpenBLAS, of which numpy and scipy have a copy each, allocate its buffer where address space is limited.

    It does so in its first computation. Where it cannot, it ends the process without an error, or tries again for ever.

    Raises:
        OSError: There is too little memory; `memory_errors` makes a MemoryError of it.
    """
    if not resource or resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    import numpy as np  # slow to import, for a command line that only shows help
    from scipy.linalg import cholesky

    matrix = np.eye(256)
    for compute in (matrix.dot, cholesky):
        mmap.mmap(-1, BLAS_BUFFER).close()
        compute(matrix)


def library_errors() -> tuple[type[Exception], ...]:
    """Return the types of errors that libraries raise where memory runs out; of pyarrow only if it is imported."""
    arrow = getattr(sys.modules.get("pyarrow"), "ArrowException", None)
    return (RuntimeError, OSError, ImportError, AttributeError, NameError, SystemError, *([arrow] if arrow else []))


def memory_is_low() -> bool:
    """Return whether so little memory is left that libraries are imported in part only, with errors of any kind."""
    available = available_memory()
    return available is not None and available < LOW_MEMORY


def set_up_worker() -> None:
    """Set up a worker process: it leaves Ctrl-C to the main process, ends with it, and has the memory to compute."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    Finalize(None, end_joblib, exitpriority=100)  # before the queues to joblib's processes are closed
    reserve_blas()


def end_joblib() -> None:
    """End the processes of joblib, if there are any: a worker waits for its children, which wait five minutes for more work."""
    if "joblib.externals.loky.reusable_executor" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def end_with_parent() -> None:
    """Wait for the end of the main process, then end this one."""
    if parent := parent_process():
        wait([parent.sentinel])
    os._exit(1)
