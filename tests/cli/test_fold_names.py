"""Folds are called by speakers' names, of any script and length, and their folders have names that file systems take."""

import random

import numpy as np
import pytest
import soundfile
from conftest import TINY

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.runs import MAX_NAME, Run, folder_name, folder_names

SCRIPTS = {"Latin": 0x41, "Cyrillic": 0x410, "Arabic": 0x627, "Bengali": 0x995, "Han": 0x4E00, "emoji": 0x1F600}
KEPT = {"03": "03", "a/b": "a%2Fb", "no. 1": "no%2E 1", "Jörg": "J%C3%B6rg", "x" * 200: "x" * 200}
LONG = "মোহাম্মদ আব্দুর রহমান চৌধুরী মিয়া"


@pytest.mark.parametrize("script", SCRIPTS)
def test_folder_names_are_valid_and_different(tmp_path, script):
    rng = random.Random(script)
    names = {"".join(chr(SCRIPTS[script] + rng.randrange(20)) for _ in range(length)) for length in [*range(1, 101)] * 3}
    names |= {f"{name}." for name in names} | {f"{name}/x" for name in names} | {".", "..", "a b", "CON"}
    folders = [folder_name(name) for name in sorted(names)]
    assert len(set(folders)) == len(names)
    assert all(folder.isascii() and len(folder) <= MAX_NAME and not set(folder) & set('/\\:*?"<>|.') for folder in folders)
    for folder in folders[:: len(folders) // 20]:
        (tmp_path / f".{folder}.partial").mkdir()


def test_folders_are_different_where_case_does_not_count():
    names = ["Anna", "anna", "x" * 300, "X" * 300, "Bob", "CON", "con"]
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders.values()}) == len(names) and folders["Bob"] == "Bob"
    assert max(map(len, folders.values())) <= MAX_NAME and "~" in folders["Anna"] and "~" in folders["anna"]


def test_folders_of_names_that_fitted_before_stay_as_they_were():
    assert {name: folder_name(name) for name in KEPT} == KEPT


def test_a_speaker_with_a_long_name_is_trained_evaluated_and_inferred(tmp_path):
    rows = ["path,speaker,emotion"]
    speakers = (LONG, "🙂" * 100, "C", "c")
    for number in range(4 * 6):
        soundfile.write(tmp_path / f"{number}.wav", np.random.default_rng(number).uniform(-0.3, 0.3, 6000), 16_000)
        rows.append(f"{number}.wav,{speakers[number // 6]},{('a', 'b')[number % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    recipe = {**TINY, "split": {"scheme": "loso", "dev_speakers": 1}, "train": {"epochs": 1, "batch_size": 8}}
    (tmp_path / "r.toml").write_text(write_toml(make_recipe(recipe)))
    data, run = tmp_path / "data", tmp_path / "run"
    assert siser(["prepare", "csv", str(tmp_path / "t.csv"), str(data), "--jobs", "1", "--distinct-speakers"]) == 0
    machine = ["--jobs", "1", "--device", "cpu"]
    assert siser(["train", str(tmp_path / "r.toml"), "--data", str(data), "--out", str(run), *machine]) == 0
    assert {spec.split.name for spec in Run.open(run).all_models()} == set(speakers)
    assert siser(["evaluate", str(run), "--quick", "--no-baseline", *machine]) == 0
    for name in speakers[:2]:
        out = tmp_path / "rows.csv"
        assert siser(["infer", str(run), str(tmp_path / "0.wav"), "--fold", name, "--out", str(out), "--device", "cpu"]) == 0
        assert out.read_text(encoding="utf-8").count("\n") == 2
        out.unlink()
