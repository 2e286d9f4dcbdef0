"""Scarce memory and a full disk end every verb in one error line; what was there before stays, and nothing half-written is left.

Each verb runs in a fork of this process, where libraries are imported already, under a limit of address space (`ulimit -v`) or of
the size of files (`ulimit -f`). With SISER_ALL_LIMITS set, every verb is tried under many limits, which takes minutes.
"""

import json
import os
import shutil
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from reports import put_report

from speaker_invariant_ser.cli.app import VERBS, silence_libraries
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml

resource = pytest.importorskip("resource")  # Windows has no limits of this kind
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are those of Linux")

COMMANDS = {
    "prepare": "prepare csv {wav}/corpus.csv {tmp}/new --jobs 1 --quiet",
    "add-f0": "add-f0 {tmp}/data --jobs 1 --quiet",
    "train": "train {tmp}/tiny.toml --data {tmp}/data --out {tmp}/run --jobs 1 --device cpu --quiet",
    "sweep": "sweep {tmp}/sweep.toml --data {tmp}/data --out {tmp}/sweep --trials 1 --device cpu --quiet",
    "evaluate": "evaluate {tmp}/a --data {tmp}/data --no-baseline --quick --jobs 1 --device cpu --quiet",
    "audit": "audit {tmp}/t.npz --quick --jobs 1 --out {tmp}/audit --quiet",
    "embed": "embed prosody {f0} --out {tmp}/e.npz --quiet",
    "audit-encoders": "audit-encoders {f0} prosody --recipe {tmp}/tiny.toml --out {tmp}/encoders --jobs 1 --quiet",
    "baseline": "baseline {f0} --recipe {tmp}/tiny.toml --quick --jobs 1 --out {tmp}/base --quiet",
    "compare": "compare {tmp}/a {tmp}/b --out {tmp}/compared",
    "study": "study {tmp}/study.toml --results {tmp}/results --runs {tmp}/runs --jobs 1 --device cpu --quiet",
    "infer": "infer {tmp}/a {wav} --out {tmp}/p.csv --device cpu --quiet",
    "export": "export {tmp}/a --out {tmp}/export",
    "push": "push {tmp}/a owner/name --licence mit --training-data tones --dry-run {tmp}/upload",
    "card": "card {tmp}/a --out {tmp}/card.md",
    "demo": "demo --out {tmp}/demo --jobs 1 --device cpu --quiet",
}
QUICK_VERBS = ("prepare", "add-f0", "train", "compare", "infer")  # where limits suffice, they take less than a second
NO_FILES = {"corpora", "recipes", "models"}  # verbs that write nothing
MEGABYTE = 2**20
SMALL_FILES = (0, 1000, 20_000, 100_000)  # bytes
LITTLE_MEMORY = (0, MEGABYTE, 20 * MEGABYTE, 60 * MEGABYTE, 150 * MEGABYTE, 400 * MEGABYTE)  # more than now


@pytest.fixture
def paths(tmp_path, folder, prepared, prepared_f0, trained):
    """Paths by name, for the command lines; the run has a report of a version that reads the same."""
    shutil.copytree(prepared.folder, tmp_path / "data")
    shutil.copytree(trained.folder, tmp_path / "a")
    report = Path(__file__).parents[1] / "evaluation" / "report-0.1.0.json"
    put_report(trained, json.loads(report.read_text(encoding="utf-8")), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    tiny = write_toml(make_recipe(TINY))
    (tmp_path / "tiny.toml").write_text(tiny)
    (tmp_path / "sweep.toml").write_text(f'{tiny}\n[sweep]\nfolds = 1\n"train.learning_rate" = [0.001, 0.01]\n')
    arm = '[[arms]]\nname = "tiny"\ntitle = "tiny"\nrecipe = "tiny.toml"\n'
    (tmp_path / "study.toml").write_text(f'seeds = [0]\npage = "page.md"\n\n[corpora]\ntones = "data"\n\n{arm}')
    np.savez(tmp_path / "t.npz", embedding=np.random.default_rng(0).normal(size=(60, 4)), speaker=np.repeat(list("abcdef"), 10))
    return {"tmp": tmp_path, "wav": folder, "f0": prepared_f0.folder}


def run_limited(words: str, kind: int, limit: int) -> tuple[int, str]:
    """Run a command in a fork under a limit of this process, and return its exit code and output; a traceback exits with 99."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of Python warn of forks beside threads
        child = os.fork()
    if not child:
        code = 99
        try:
            os.close(reader)
            for descriptor in (1, 2):
                os.dup2(writer, descriptor)
            sys.stdout, sys.stderr = (open(descriptor, "w", closefd=False) for descriptor in (1, 2))  # noqa: SIM115
            silence_libraries()  # as `main` does
            resource.setrlimit(kind, (limit, limit))
            code = siser(words.split())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as output:
        shown = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def address_space() -> int:
    """Bytes of address space that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def snapshot(folder: Path) -> dict[str, bytes]:
    """Content of every file, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def require_one_error(verb: str, code: int, shown: str) -> None:
    """Check that a command has failed with one error line and no traceback.

    A study has a line for each cell, and its page; predictions name the files that do not fit, and keep the other rows.
    """
    if verb == "infer" and code == 1:
        assert "does not fit into memory" in shown and "Traceback" not in shown, shown[-2000:]
        return
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert (code == 2 or (verb == "study" and code == 1)) and len(errors) == 1 and "Traceback" not in shown, shown[-2000:]


def test_every_verb_that_writes_is_tried():
    assert set(COMMANDS) == set(VERBS) - NO_FILES


@pytest.mark.parametrize("verb", QUICK_VERBS)
def test_a_lack_of_memory_is_one_error_line(paths, verb):
    before = snapshot(paths["tmp"])
    code, shown = run_limited(COMMANDS[verb].format_map(paths), resource.RLIMIT_AS, address_space() + MEGABYTE)
    if code == 0:  # what is imported and free already was enough
        assert "error" not in shown
        return
    require_one_error(verb, code, shown)
    assert "memory" in shown
    after = snapshot(paths["tmp"])
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("verb", [*QUICK_VERBS, "sweep"])
def test_a_full_disk_is_one_error_line(paths, verb):
    before = snapshot(paths["tmp"])
    code, shown = run_limited(COMMANDS[verb].format_map(paths), resource.RLIMIT_FSIZE, 1000)
    require_one_error(verb, code, shown)
    assert "larger than the file system or a limit (ulimit -f) allows" in shown
    after = snapshot(paths["tmp"])
    assert {name: after[name] for name in before} == before


@pytest.mark.skipif("SISER_ALL_LIMITS" not in os.environ, reason="takes minutes: set SISER_ALL_LIMITS")
@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("kind, limits", [(resource.RLIMIT_FSIZE, SMALL_FILES), (resource.RLIMIT_AS, LITTLE_MEMORY)])
def test_every_limit_is_one_error_line_or_suffices(paths, tmp_path, verb, kind, limits):
    for number, limit in enumerate(limits):
        copied = shutil.copytree(paths["tmp"], tmp_path.with_name(f"{tmp_path.name}-{number}"))
        words = COMMANDS[verb].format_map({**paths, "tmp": copied})
        code, shown = run_limited(words, kind, limit + (address_space() if kind == resource.RLIMIT_AS else 0))
        if code:
            require_one_error(verb, code, shown)
        shutil.rmtree(copied)
