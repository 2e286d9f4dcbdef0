"""A few damaged inputs of every kind: each is rejected, named in a warning, or does no harm; see benchmarks/faults.py."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")  # Windows has no limits of this kind
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def faults():
    """The benchmark as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("faults")
    for name in [name for name in sys.modules if name.split(".")[0] in ("faults", "mutations")]:
        del sys.modules[name]


class ThisProcess:
    """Runs commands in this process, in place of a child."""

    def __init__(self, faults):
        self.ask = lambda arguments, times=1: faults.answer_of(arguments)


@pytest.fixture
def results(faults):
    results = faults.Results(show=False)
    results.topic = "all"
    return results


def test_damaged_recordings(faults, results, trained, folder, tmp_path):
    (tmp_path / "recordings").mkdir()
    damaged = faults.recordings(tmp_path / "recordings", 90, seed=1)
    faults.try_recordings(damaged, trained.folder, folder / "01_rising_a.wav", tmp_path, ThisProcess(faults), results)
    assert results.findings == []
    counts = results.counts["all"]
    assert counts["rejected"] > 30 and counts["right"] > 10 and counts["warned"] > 1


def test_damaged_tables_and_recipes(faults, results, prepared, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "corpus")
    (tmp_path / "tables").mkdir()
    damaged = faults.tables(tmp_path / "tables", tmp_path / "corpus" / "corpus.csv", prepared.folder, None, seed=1)
    faults.try_commands([fault for fault in damaged if fault.detectable][::8], ThisProcess(faults), results)
    assert results.findings == []
    assert results.counts["all"]["rejected"] > 10


def test_tampered_models(faults, results, trained, prepared, folder, tmp_path):
    damaged = faults.runs(tmp_path, trained.folder, prepared.folder, folder / "01_rising_a.wav", None, 1, only=["model"])
    chosen = [fault for fault in damaged if fault.detectable]
    faults.try_commands(chosen[::2], ThisProcess(faults), results)
    assert results.findings == []
    assert results.counts["all"]["rejected"] == len(chosen[::2])


@pytest.mark.parametrize(
    "answer, verdict",
    [
        (None, "hang"),
        ((2, "error: no\n", ""), "rejected"),
        ((2, "error: no\nerror: no\n", ""), "traceback"),
        ((2, "", ""), "traceback"),
        ((None, "", "ValueError"), "traceback"),
        ((0, "warning: file 7 is short\n", ""), "warned"),
        ((0, "warning: usual 3\n", ""), "silent"),
        ((0, "", ""), "silent"),
    ],
)
def test_answers_are_told_apart(faults, answer, verdict):
    damaged = faults.Fault("x", ("infer",), detectable=True)
    assert faults.judge(damaged, answer and faults.Answer(*answer, 0), ["warning: usual "]) == verdict
