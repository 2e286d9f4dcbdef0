"""Give damaged inputs of every kind to the command line, and count how it answers.

    python benchmarks/faults.py [--recordings 500] [--tables 200] [--runs 130] [--seed 0] [--seconds 60] [--keep FOLDER] [--show]

Recordings go through `siser infer`, tables, recipes and segments through the verbs that read them, and tampered runs and prepared
corpora through infer, evaluate, compare and train. Each answer is one of

- rejected: one `error:` line and exit code 2, or a row with an error;
- warned: accepted, with a warning or a note that the intact input does not get;
- right: accepted with the answer of the intact input, which the damage does not concern;
- undetectable: accepted, and nothing in the input tells that it was changed;
- silent: accepted although the input contradicts itself or its hashes, or with another answer than it should have;
- traceback: an exception, a crash, or an error without its line;
- hang: no answer within the time limit.

The last three are findings: there must be none. Commands run in a child process with a limit of time and of address space. The
last line of the output is JSON. Needs Linux or macOS.
"""

import argparse
import csv
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from mutations.base import RECIPE, Fault, write_corpus
from mutations.recordings import recordings
from mutations.runs import runs
from mutations.tables import tables

ANSWERS = ("rejected", "warned", "right", "undetectable", "silent", "traceback", "hang")
FINDINGS = ("silent", "traceback", "hang")
ADDRESS_SPACE = 8 * 2**30  # bytes; importing the libraries takes half of it
MAX_MEMORY = 1e9  # bytes that predicting the damaged recordings may take
TOLERANCE = 0.02  # of a probability, between two encodings of a recording


class Answer(NamedTuple):
    """How a command ended; without an exit code, in an exception or not at all."""

    code: int | None
    error: str
    trace: str
    peak: int  # bytes of memory that the child process has held at most


def serve(connection: Connection, address_space: int) -> None:
    """Run commands that arrive through a pipe, in this process, until None arrives."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    from speaker_invariant_ser.cli.app import silence_libraries
    from speaker_invariant_ser.data.formats.quiet import move_stderr

    silence_libraries()
    move_stderr()
    while arguments := connection.recv():
        connection.send(answer_of(arguments))


def answer_of(arguments: Sequence[str]) -> Answer:
    """Run a command in this process."""
    output, error, code, trace = io.StringIO(), io.StringIO(), None, ""
    with redirect_stdout(output), redirect_stderr(error):
        try:
            code = run_command(arguments)
        except BaseException:  # whatever it is, it is a finding
            trace = traceback.format_exc()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Answer(code, error.getvalue(), trace, peak)


def run_command(arguments: Sequence[str]) -> int:
    """Run a command, or read segments, which have no verb of their own."""
    from speaker_invariant_ser.cli.app import fail, run

    if arguments[0] != "segments":
        return run(arguments)
    from speaker_invariant_ser.errors import SerError
    from speaker_invariant_ser.inference.parts.segments import read_segments

    try:
        read_segments(arguments[1])
    except SerError as error:
        return fail(str(error))
    return 0


class Child:
    """A child process that runs commands, and is started again after it has crashed or was stopped."""

    def __init__(self, seconds: float) -> None:
        self.process, self.seconds = None, seconds

    def ask(self, arguments: Sequence[str], times: int = 1) -> Answer | None:
        """Return the answer to a command; None if it does not come within the limit, or `times` that."""
        if self.process is None:
            context = get_context("spawn")
            self.connection, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, ADDRESS_SPACE))
            self.process.start()
            other.close()
        try:
            self.connection.send(list(arguments))
            if self.connection.poll(times * self.seconds):
                return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            status, self.process = self.process.exitcode, None
            return Answer(None, "", f"the process ended with status {status}", 0)
        self.stop()
        return None

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def warnings_of(error: str) -> list[str]:
    """Return the lines of standard error that are warnings, without what differs from input to input."""
    return ["".join(c for c in line if not c.isdigit()) for line in error.splitlines() if line.startswith("warning:")]


def judge(fault: Fault, answer: Answer | None, usual: Iterable[str]) -> str:
    """Return what an answer is; `usual` are the warnings that the intact input gets."""
    if answer is None:
        return "hang"
    errors = [line for line in answer.error.splitlines() if line.startswith("error:")]
    if answer.trace or answer.code not in (0, 1, 2) or (answer.code == 2 and len(errors) != 1):
        return "traceback"
    if answer.code:
        return "rejected" if fault.detectable is not False else "silent"
    if set(warnings_of(answer.error)) - set(usual):
        return "warned"
    return {True: "silent", False: "right", None: "undetectable"}[fault.detectable]


def try_commands(faults: Iterable[Fault], child: Child, results: "Results") -> None:
    """Run the commands of faults; those that are intact come first of their kind, and tell the usual warnings."""
    usual: dict[str, list[str]] = {}
    for fault in faults:
        answer = child.ask(fault.arguments)
        topic = f"{fault.kind.split(':')[0]} {fault.arguments[0]}"
        if fault.kind.endswith("intact") and answer:
            usual.setdefault(topic, warnings_of(answer.error))
        results.add(fault, judge(fault, answer, usual.get(topic, [])), answer)


def try_recordings(faults: Sequence[Fault], run: Path, reference: Path, folder: Path, child: Child, results: "Results") -> int:
    """Predict all recordings with one command, and judge row by row; return the memory held at most.

    Where the command fails, halves of the recordings are given to it, down to those that make it fail.
    """
    expected = predict([os.fspath(reference)], run, folder / "reference.csv", child)[1]
    answer, rows = predict([os.fsdecode(os.path.dirname(faults[0].path))], run, folder / "all.csv", child, 10)
    if answer is not None and answer.code in (0, 1) and not answer.trace:
        for fault in faults:
            results.add(fault, judge_row(fault, rows.get(shown(fault.path)), expected), answer)
        return answer.peak
    print("the folder fails: ", "hang" if answer is None else answer.trace or answer.error)
    pending, peak = [list(faults)], answer.peak if answer else 0
    while pending:
        group = pending.pop()
        answer, rows = predict([os.fsdecode(fault.path) for fault in group], run, folder / f"{len(pending)}.csv", child, 5)
        peak = max(peak, answer.peak if answer else 0)
        if answer is not None and answer.code in (0, 1) and not answer.trace:
            for fault in group:
                results.add(fault, judge_row(fault, rows.get(shown(fault.path)), expected), answer)
        elif len(group) == 1:
            results.add(group[0], judge(group[0], answer, []), answer)
        else:
            pending += [group[: len(group) // 2], group[len(group) // 2 :]]
    return peak


Rows = dict[str, dict[str, str]]


def predict(inputs: list[str], run: Path, out: Path, child: Child, times: int = 1) -> tuple[Answer | None, Rows]:
    """Run `siser infer`, and return the rows of its table by the path, as it is shown."""
    out.unlink(missing_ok=True)
    answer = child.ask(["infer", str(run), *inputs, "--out", str(out), "--device", "cpu", "--quiet"], times)
    if not out.is_file():
        return answer, {}
    with open(out, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return answer, {shown(row["file"]): row for row in rows}


def shown(path: str | bytes) -> str:
    """Return a path as tables and terminals show it."""
    from speaker_invariant_ser.cli.console import printable

    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def judge_row(fault: Fault, row: dict[str, str] | None, expected: Rows) -> str:
    """Return what the row of a recording is; a recording without a row is lost."""
    if row is None:
        return "silent"
    if row["error"]:
        return "rejected" if fault.detectable is not False else "silent"
    probabilities = [float(cell) for name, cell in row.items() if name.startswith("p_")]
    if not (abs(sum(probabilities) - 1) < 1e-3 and all(0 <= value <= 1 for value in probabilities)):
        return "silent"
    if row["warnings"]:
        return "warned"
    if fault.detectable is None:
        return "undetectable"
    return "silent" if fault.detectable else "right"


class Results:
    """Counts of answers, and the findings."""

    def __init__(self, show: bool) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.findings: list[str] = []
        self.topic, self.show = "", show

    def add(self, fault: Fault, verdict: str, answer: Answer | None) -> None:
        """Count an answer, and print it if it is a finding."""
        self.counts.setdefault(self.topic, Counter())[verdict] += 1
        if verdict in FINDINGS:
            self.findings.append(f"{self.topic}, {fault.kind}: {verdict}")
        if verdict in FINDINGS or self.show:
            command = shown(fault.path) or " ".join(fault.arguments)
            said = "" if answer is None or fault.path else (answer.trace[-1500:] or answer.error.strip()[-300:])
            print(f"{verdict}: {fault.kind}: {shown(command)[-200:]}\n    {said}", flush=True)

    def summary(self) -> dict[str, dict[str, int]]:
        """Return the counts of every topic, and of all."""
        total: Counter[str] = sum(self.counts.values(), Counter())
        return {topic: {name: counts[name] for name in ANSWERS} for topic, counts in {**self.counts, "all": total}.items()}


def make_material(folder: Path, child: Child) -> tuple[Path, Path, Path]:
    """Make what is damaged: a corpus, a prepared corpus, and a run that is evaluated; return table, prepared corpus and run."""
    table, recipe, prepared, run = folder / "corpus" / "corpus.csv", folder / "recipe.toml", folder / "prepared", folder / "run"
    if (run / "report").is_dir():
        return table, prepared, run
    write_corpus(table)
    recipe.write_text(RECIPE, encoding="utf-8")
    for arguments in (
        ["prepare", "csv", table, prepared, "--no-f0", "--jobs", "1", "--quiet"],
        ["train", recipe, "--data", prepared, "--out", run, "--device", "cpu", "--jobs", "1", "--quiet"],
        ["evaluate", run, "--quick", "--no-baseline", "--device", "cpu", "--jobs", "1", "--quiet"],
    ):
        answer = child.ask([str(word) for word in arguments], 5)
        if answer is None or answer.code:
            raise SystemExit(f"the intact material cannot be made: {arguments[0]}: {answer and (answer.trace or answer.error)}")
    return table, prepared, run


def measure(folder: Path, numbers: tuple[int, int, int], seed: int, seconds: float = 60.0, show: bool = False) -> dict:
    """Damage inputs, run the commands, and return the summary.

    Args:
        folder: An empty folder, or one that was used before, whose intact corpus and run are used again.
        numbers: How many recordings, tables and recipes, and runs and prepared corpora.
        seed: Seed of the damage.
        seconds: Limit for a command, several times that where it reads many files.
        show: Print every answer, not the findings alone.
    """
    child, results, begin, memory = Child(seconds), Results(show), time.monotonic(), 0
    try:
        table, prepared, run = make_material(folder, child)
        clip = table.parent / "ada_calm_one.wav"
        for name in ("recordings", "tables", "runs"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
        if numbers[0]:
            child.stop()  # a new process, whose memory is that of predicting
            results.topic, damaged = "recordings", recordings(folder / "recordings", numbers[0], seed)
            memory = try_recordings(damaged, run, clip, folder, child, results)
            if memory >= MAX_MEMORY:
                results.findings.append(f"recordings: infer takes {memory / 1e9:.2f} GB")
            child.stop()
        if numbers[1]:
            results.topic = "tables"
            try_commands(tables(folder / "tables", table, prepared, numbers[1], seed), child, results)
        if numbers[2]:
            results.topic = "runs"
            try_commands(runs(folder / "runs", run, prepared, clip, numbers[2], seed), child, results)
    finally:
        child.stop()
    return {
        "seed": seed,
        **results.summary(),
        "infer_gb": round(memory / 1e9, 2),
        "seconds": round(time.monotonic() - begin),
        "findings": results.findings,
    }


def main() -> int:
    """Run the benchmark; return 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=500)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--runs", type=int, default=130)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print every answer")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit for a command; more on a busy machine")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept; a second call begins with its run")
    options = parser.parse_args()
    numbers = (options.recordings, options.tables, options.runs)
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        summary = measure(folder, numbers, options.seed, options.seconds, options.show)
    print(json.dumps(summary))
    return int(bool(summary["findings"]))


if __name__ == "__main__":
    sys.exit(main())
