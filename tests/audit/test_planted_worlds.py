"""The benchmark of planted leaks: small samples of it hold what its tables claim."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from speaker_invariant_ser.audit.leakage import measure_leakage

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "planted.py"


@pytest.fixture(scope="module")
def planted() -> Iterator[ModuleType]:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("planted", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["planted"]


def conclude(planted: ModuleType, plant, attackers: tuple[str, ...], seed: int = 0) -> tuple[bool | str, str]:
    """Attack a world of 330 utterances and 64 dimensions."""
    world = planted.World.of_noise(330, seed)
    plant(world)
    conclusion = measure_leakage([world.table()], attackers, permutations=300, repeats=1).conclusion
    return conclusion.at_chance, conclusion.reason


@pytest.mark.parametrize(
    "name, attackers, expected",
    [
        ("speaker means, large", ("logistic",), (False, "leak")),
        ("correlations", ("qda",), (False, "leak")),
        ("offset 1000, differences 0.01", ("logistic",), (False, "leak")),
        ("emotion is speaker", ("logistic",), ("undecided", "no_room")),
        ("one text of each speaker", ("logistic",), (False, "text_leak")),
    ],
)
def test_plants(planted, name, attackers, expected):
    assert conclude(planted, planted.PLANTS[name], attackers) == expected


@pytest.mark.parametrize("name", ["32 codes", "exact copies", "scaled and mirrored copies", "copies with noise"])
def test_worlds_without_a_code_give_no_alarm(planted, name):
    assert conclude(planted, planted.WORLDS[name], ("logistic", "knn"))[0] is not False


def test_texts_that_some_speakers_say_are_no_leak(planted):
    """The utterances of a text are right or wrong together, which would make the average or one speaker stand out."""
    assert conclude(planted, planted.WORLDS["texts that three say"], ("logistic", "knn"), seed=1) == ("undecided", "text")


def test_there_are_enough_of_both(planted):
    assert len(planted.PLANTS) >= 25 and len(planted.WORLDS) >= 10
