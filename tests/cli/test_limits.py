"""Where memory or the system sets a limit, there is one error line and what to do, and other files keep their rows."""

import csv
import errno
import os
import struct
import subprocess
import sys

import pytest
import soundfile
from conftest import RATE, tone

from speaker_invariant_ser.cli import app
from speaker_invariant_ser.processes import memory_errors

resource = pytest.importorskip("resource")  # Windows has no limits of this kind

ALLOCATION = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 9 bytes.\n frame #0"
)


@pytest.mark.parametrize(
    "error, expected",
    [
        (
            MemoryError("Unable to allocate 7.5 GiB"),
            "memory ran out; lower train.batch_size or --jobs, .* (Unable to allocate 7.5 GiB)",
        ),
        (MemoryError(), "memory ran out; .* (out of memory)"),
        (RuntimeError(ALLOCATION), "memory ran out; .*tried 9 bytes.)"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory ran out"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory ran out; .*Cannot allocate memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory ran out"),
        (OSError(errno.EMFILE, "Too many open files"), "the system refused: Too many open files"),
        (OSError(errno.EIO, "Input/output error", "/media/a.wav"), "/media/a.wav: Input/output error"),
    ],
)
def test_a_limit_of_the_system_is_one_line(monkeypatch, capsys, error, expected):
    def refuse(**_):
        raise error

    monkeypatch.setattr(app, "app", refuse)
    assert app.run(["train", "recipe.toml"]) == 2
    shown = capsys.readouterr().err
    parts = expected.split(".*")
    assert shown.startswith("error: ") and shown.count("\n") == 1 and all(part.strip() in shown for part in parts)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ImportError("no module named x"), AttributeError("x")])
def test_other_errors_pass(monkeypatch, error):
    monkeypatch.setattr("speaker_invariant_ser.processes.available_memory", lambda: 2**40)
    with pytest.raises(type(error), match=str(error)), memory_errors():
        raise error


def test_libraries_imported_in_part_are_a_lack_of_memory(monkeypatch):
    monkeypatch.setattr("speaker_invariant_ser.processes.available_memory", lambda: 2**20)
    with pytest.raises(MemoryError, match="cannot import name"), memory_errors():
        raise ImportError("cannot import name 'x' from 'y'")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are those of Linux")
def test_a_recording_that_does_not_fit_into_memory_costs_its_own_row(trained, tmp_path):
    soundfile.write(tmp_path / "short.wav", tone("01", "rising", "a"), RATE)
    length = 3_800_000_000  # eleven hours; the file is sparse and takes no space
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", length + 36, b"WAVE", b"fmt ", 16, 1, 1, 48_000, 96_000, 2, 16, b"data", length
    )
    with open(tmp_path / "hours.wav", "wb") as file:
        file.write(head)
        file.truncate(len(head) + length)
    command = [sys.executable, "-m", "speaker_invariant_ser.cli", "infer", str(trained.folder), str(tmp_path), "--device", "cpu"]
    completed = subprocess.run(
        [*command, "--out", str(tmp_path / "p.csv")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert completed.returncode == 1 and "Traceback" not in completed.stderr, completed.stderr
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        rows = {os.path.basename(row["file"]): row for row in csv.DictReader(file)}
    assert rows["short.wav"]["emotion"] and not rows["short.wav"]["error"]
    assert "too long to be decoded at once" in rows["hours.wav"]["error"] and not rows["hours.wav"]["emotion"]
