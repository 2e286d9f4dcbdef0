"""Memory that is available to a process, from files of /proc and /sys, and the number of trainings that fit into it."""

import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import joblib
import pytest
from click import Context
from typer.main import get_command

from speaker_invariant_ser import processes
from speaker_invariant_ser.cli import options
from speaker_invariant_ser.cli.app import app
from speaker_invariant_ser.data import decoding
from speaker_invariant_ser.processes import available_memory, bounded_jobs, jobs_that_fit

MEMINFO = {"proc/meminfo": "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:    8000000 kB\n"}
GB = 10**9


def files(root, contents):
    """Write files below a folder that stands for the root of the file system."""
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(folder, limit, used, cached, version=2):
    """Return the files of a control group."""
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    statistic = "inactive_file" if version == 2 else "total_inactive_file"
    contents = (str(limit), str(used), f"anon 5\n{statistic} {cached}\nactive_file 7\n")
    return {f"{folder}/{name}": text for name, text in zip((*names, "memory.stat"), contents, strict=True)}


def test_no_more_processes_are_started_than_there_are_cores(monkeypatch):
    """100,000 jobs were 100,000 forks."""
    sizes = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, size, *_, **__):
            sizes.append(size)
            super().__init__(1)

    monkeypatch.setattr(processes, "cores", lambda: 3)
    monkeypatch.setattr(decoding, "ProcessPoolExecutor", Pool)
    with decoding.workers(100_000):
        pass
    assert sizes == [3]
    assert [bounded_jobs(100_000, items=2), bounded_jobs(2), bounded_jobs(100_000), bounded_jobs(5, items=0)] == [2, 2, 3, 1]
    assert jobs_that_fit(100_000, 2, 1)[0] == 2 and jobs_that_fit(100_000, 10**6, 1)[0] == 3


def test_every_command_says_that_cores_bound_the_jobs(monkeypatch, capsys):
    monkeypatch.setattr(options, "CORES", 3)
    commands = {name: [o for o in command.params if "--jobs" in o.opts] for name, command in get_command(app).commands.items()}
    with_jobs = {name: found[0] for name, found in commands.items() if found}
    assert {"prepare", "add-f0", "train", "sweep", "evaluate", "audit", "baseline", "study", "demo"} <= set(with_jobs)
    for name, option in with_jobs.items():
        assert option.process_value(Context(get_command(app)), "100000") == 100_000
        assert capsys.readouterr().err == "warning: --jobs 100000: this machine has 3 cores; at most 3 processes are used\n", name
        option.process_value(Context(get_command(app)), "3")
        assert not capsys.readouterr().err


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 16000000 kB\n"}, None),
        (MEMINFO, 8 * 1024 * 10**6),
        ({"proc/self/cgroup": "0::/\n", **group(V2, 4 * GB, 3 * GB, 500)}, GB + 500),  # a container: its own group is the root
        ({**MEMINFO, "proc/self/cgroup": "0::/user/job\n", **group(f"{V2}/user/job", 2 * GB, GB, 7)}, GB + 7),
        ({**MEMINFO, "proc/self/cgroup": "0::/user/job\n", **group(f"{V2}/user", 3 * GB, GB, 0)}, 2 * GB),  # of the parent
        ({**MEMINFO, "proc/self/cgroup": "0::/user\n", **group(f"{V2}/user", "max", GB, 0)}, 8 * 1024 * 10**6),
        ({**MEMINFO, "proc/self/cgroup": "0::/user\n", **group(f"{V2}/user", GB, 2 * GB, 0)}, 0),  # more than its limit in use
        ({**MEMINFO, "proc/self/cgroup": "0::/user\n", **group(f"{V2}/other", GB, 0, 0)}, 8 * 1024 * 10**6),
        ({"proc/self/cgroup": "5:cpu,memory:/job\n4:pids:/job\n0::/\n", **group(f"{V1}/job", 3 * GB, GB, 9, 1)}, 2 * GB + 9),
        ({"proc/self/cgroup": "4:memory:/docker/1f\n", **group(V1, GB, 5, 0, 1)}, GB - 5),  # the path is the host's
    ],
)
def test_the_tightest_limit_of_machine_and_control_groups(tmp_path, contents, expected):
    assert available_memory(files(tmp_path, contents)) == expected


def test_this_machine_has_some_memory_available():
    assert 10**7 < available_memory() < 10**15


def test_a_limit_of_the_address_space():
    """Of `ulimit -v`, less the address space in use, in a process of its own."""
    code = (
        "import json, resource\n"
        "from speaker_invariant_ser.processes import available_memory, jobs_that_fit\n"
        "before = available_memory()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 * 10**8, resource.RLIM_INFINITY))\n"
        "print(json.dumps([before, available_memory(), jobs_that_fit(None, 4, 5 * 10**8)]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    before, available, (jobs, line) = json.loads(printed)
    assert 0 < available < min(before, 6 * 10**8 - 10**7)  # the interpreter has taken some of it
    assert jobs == 1 and line.startswith("training 1 model at a time")


@pytest.mark.parametrize(
    ("requested", "models", "available", "jobs", "line"),
    [
        (None, 10, None, 4, ""),
        (None, 10, 3.3 * GB, 4, ""),
        (None, 2, 1.7 * GB, 2, ""),
        (None, 10, 1.7 * GB, 2, "training 2 models at a time: 1.7 GB of memory are available, a model takes about 0.8 GB"),
        (None, 10, 1.2 * GB, 1, "training 1 model at a time: 1.2 GB of memory are available, a model takes about 0.8 GB"),
        (None, 10, 0.5 * GB, 1, "training 1 model at a time may run out of memory: 0.5 GB of memory are available, a model "),
        (3, 10, 1.2 * GB, 3, "training 3 models at a time may run out of memory: 1.2 GB of memory are available, a model "),
        (3, 1, 1.2 * GB, 1, ""),
        (9, 10, 99 * GB, 4, ""),
    ],
)
def test_as_many_models_as_cores_and_memory_allow(monkeypatch, requested, models, available, jobs, line):
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr(processes, "available_memory", lambda: available and int(available))
    chosen, printed = jobs_that_fit(requested, models, 8 * 10**8)
    assert chosen == jobs and printed.startswith(line) and bool(printed) == bool(line)
    lowered = f"; lower {'--jobs or ' * (jobs > 1)}train.batch_size, or prepare shorter utterances"
    assert printed.endswith(lowered) == ("run out" in line)


def test_no_limits_where_the_system_has_none(tmp_path, monkeypatch):
    """Windows has no module `resource`."""
    monkeypatch.setattr(processes, "resource", None)
    assert available_memory(tmp_path) is None
    assert jobs_that_fit(2, 3, 1)[0] == 2
    assert resource.getrlimit(resource.RLIMIT_AS)  # the module itself is untouched


def test_training_imports_no_more_than_it_needs():
    """scikit-learn, which the online probe alone needs, would take a quarter of what a process without batches does."""
    code = "import sys, speaker_invariant_ser.training.launcher; print(*{'sklearn', 'pandas', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout == "\n"


SCARCE = """
import resource, sys
from pathlib import Path
import numpy as np
from scipy.linalg import cholesky
from speaker_invariant_ser.processes import memory_errors, reserve_blas

def leave(megabytes):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, -1))

leave(int(sys.argv[1]))
try:
    with memory_errors():
        reserve_blas()
    leave(2)
    print(np.eye(99).dot(np.eye(99)).sum(), cholesky(np.eye(99)).sum())
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are those of Linux")
@pytest.mark.parametrize("megabytes, printed", [(20, "MemoryError"), (400, "99.0 99.0")])
def test_matrices_are_computed_or_refused_where_memory_is_scarce(megabytes, printed):
    """Without `reserve_blas`, OpenBLAS ends the process or tries to allocate its buffer for ever."""
    arguments = [sys.executable, "-c", SCARCE, str(megabytes)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert done.stdout.strip() == printed and not done.returncode, done.stderr


def test_training_is_refused_where_address_space_would_run_out(monkeypatch):
    """torch ends the process without an error there."""
    monkeypatch.setattr(processes, "address_space_left", lambda: 3 * 10**8)
    processes.require_address_space(10**7)
    with pytest.raises(MemoryError, match=r"ulimit -v leaves 300 MB, training takes about 368 MB"):
        processes.require_address_space(10**8)
    monkeypatch.setattr(processes, "address_space_left", lambda: None)
    processes.require_address_space(10**12)


def in_joblib(numbers):
    return joblib.Parallel(2)(joblib.delayed(abs)(number) for number in numbers)


def test_a_worker_does_not_wait_for_idle_processes_of_joblib():
    """It did for the five minutes after which these end by themselves."""
    start = time.monotonic()
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=processes.set_up_worker) as pool:
        assert pool.submit(in_joblib, [-1, 2]).result() == [1, 2]
    assert time.monotonic() - start < 150


SPAWNING = """
if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from speaker_invariant_ser.cli import app

    app.run = lambda arguments: ProcessPoolExecutor(1, get_context("spawn")).submit(abs, -3).result()
    app.main()
"""


def test_worker_processes_import_nothing_from_the_current_folder(tmp_path):
    """One process that starts another: only so is the path that of a worker."""
    (tmp_path / "siser.py").write_text(SPAWNING)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "contextlib.py").write_text("raise SystemExit('ran')")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run([sys.executable, tmp_path / "siser.py"], cwd=corpus, env=environment, timeout=60, check=False)
    assert done.returncode == 3
