"""The public API on the tones: every function gives what the command line gives, and importing it stays cheap."""

import csv
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EMOTIONS, TINY

import speaker_invariant_ser as siser
from speaker_invariant_ser import api
from speaker_invariant_ser.audit.inputs.read_embeddings import embeddings_of
from speaker_invariant_ser.cli.app import run as command
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.f0.stored import F0
from speaker_invariant_ser.errors import (
    AuditError,
    CorpusError,
    PreparedCorpusError,
    RecipeError,
    RunError,
    SerError,
    WriteError,
)
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.training import launcher


def python(code: str) -> str:
    """Run code in a new interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "numpy", "pydantic", "sklearn", "matplotlib", "pyarrow", "typer", "rich", "importlib.metadata"}
    assert python(f"import sys, speaker_invariant_ser; print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize(
    "imports",
    [
        "import speaker_invariant_ser as siser",
        "import speaker_invariant_ser.audit.embeddings; import speaker_invariant_ser as siser",
        "import speaker_invariant_ser as siser; import speaker_invariant_ser.audit.embeddings",
        "from speaker_invariant_ser.audit import embeddings; import speaker_invariant_ser as siser",
    ],
)
def test_audit_is_a_function_and_a_package_in_any_order_of_imports(imports):
    code = f"""{imports}
try:
    siser.audit([[1.0]], [0, 1])
except siser.errors.AuditError as error:
    print(error)
import speaker_invariant_ser.audit.embeddings
from speaker_invariant_ser.audit import folds
print(siser.audit.embeddings.Embeddings.__name__, folds.__name__)"""
    first, second = python(code).splitlines()
    assert first == "embeddings: embedding has 1 row, speaker has 2; expected one per utterance"
    assert second == "Embeddings speaker_invariant_ser.audit.folds"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it may keep what it reports in other folders")
def test_libraries_report_nothing_of_their_use_to_their_makers(tmp_path, monkeypatch):
    """onnxruntime writes an id of the machine and a queue of events below the user's home where it may."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    code = "import os, speaker_invariant_ser, onnxruntime; print(os.environ['RAY_USAGE_STATS_ENABLED'])"
    assert python(code) == "0" and not [*tmp_path.rglob("*")]


def test_every_public_function_is_typed_and_documented():
    for name in siser.__all__:
        if name != "__version__":
            function = getattr(siser, name)
            parameters = inspect.signature(function).parameters
            assert inspect.signature(function) == inspect.signature(getattr(api, name))
            document = inspect.getdoc(getattr(api, name))
            sections = ("Args:", "Returns:", "Raises:", "Example:")
            assert all(section in document for section in sections), name
            assert all(f"\n    {parameter}: " in document for parameter in parameters), name
            assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values()), name
            assert f"siser.{name}(" in document


def test_the_version_is_that_of_the_command_line(capsys):
    assert command(["--version"]) == 0
    assert capsys.readouterr().out == f"siser {siser.__version__}\n"


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(write_toml(make_recipe(TINY)))
    return path


def test_prepare_gives_the_corpus_that_the_command_line_gives(folder, prepared, tmp_path):
    tasks, table = set(), str(folder / "corpus.csv")
    made = siser.prepare("csv", table, tmp_path / "data", f0=False, progress=lambda task, *_: tasks.add(task))
    assert made.settings == prepared.settings and tasks == {"decoding"}
    level = siser.prepare(
        "folder",
        folder,
        tmp_path / "level",
        pattern="{speaker}_{emotion}_*.wav",
        only=[("emotion", "level"), ("emotion", "rising")],
    )
    assert level.settings["emotions"] == {"level": 24, "rising": 24}
    assert (level.folder / F0).is_file(), "F0 is tracked by default"


def test_prepare_refuses_wrong_requests(folder, tmp_path):
    with pytest.raises(CorpusError, match="unknown corpus 'emobd', did you mean 'emodb'"):
        siser.prepare("emobd", folder, tmp_path / "data")
    with pytest.raises(CorpusError, match="--pattern: for your own data only, emodb is a known corpus; leave it out"):
        siser.prepare("emodb", folder, tmp_path / "data", pattern="{speaker}/*.wav")
    with pytest.raises(CorpusError, match="--pattern: for folder, and not for csv; leave it out"):
        siser.prepare("csv", folder / "corpus.csv", tmp_path / "data", pattern="{speaker}/*.wav")
    (tmp_path / "mine").touch()
    with pytest.raises(WriteError, match="exists already: prepare into a new folder"):
        siser.prepare("csv", folder / "corpus.csv", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_read_recipe_checks_the_recipe(recipe_file):
    recipe = siser.read_recipe(recipe_file, ["train.epochs=2"])
    assert recipe.train.epochs == 2 and recipe.encoder.dim == TINY["encoder"]["dim"]
    with pytest.raises(RecipeError, match="train.epochs = -1"):
        siser.read_recipe(recipe_file, ["train.epochs=-1"])


@pytest.mark.parametrize("name", [None, "default", Path("default")])
def test_train_takes_names_of_shipped_recipes_and_the_default_without_one(name, prepared, tmp_path, monkeypatch):
    recipes = []
    monkeypatch.setattr(launcher, "train", lambda recipe, *_: recipes.append(recipe))
    siser.train(name, prepared, tmp_path / "run")
    assert recipes == [siser.read_recipe("default")] and recipes[0].encoder.name == "fusion"


def test_the_default_recipe_asks_for_f0(prepared, tmp_path):
    with pytest.raises(PreparedCorpusError, match="add it: siser add-f0 "):
        siser.train(None, prepared, tmp_path / "run", device="cpu")


def test_train_gives_the_same_run_from_paths_and_from_objects(recipe_file, tiny, prepared, trained, tmp_path):
    epochs = []
    run = siser.train(
        recipe_file, str(prepared.folder), tmp_path / "run", device="cpu", progress=lambda name, row: epochs.append((name, row))
    )
    again = siser.train(tiny, prepared, tmp_path / "again", device="cpu")
    assert [name for name, _ in epochs] == ["fixed"] * 3
    weights = [folder.folder / "folds" / "fixed" / "model.safetensors" for folder in (run, again, trained)]
    assert len({path.read_bytes() for path in weights}) == 1
    with pytest.raises(WriteError, match="resume it with --resume"):
        siser.train(tiny, prepared, run.folder, device="cpu")
    assert siser.train(tiny, prepared, run.folder, device="cpu", resume=True).folder == run.folder


def test_evaluate_writes_the_report_that_it_returns(trained, tmp_path, capsys):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    returned = siser.evaluate(run, quick=True, device="cpu", by=["text"])
    report = json.loads((run / "report" / "report.json").read_text())
    assert returned.to_json() == report and set(report["emotion"]["groups"]["text"]) == {"a", "b", "c", "d"}
    assert command(["evaluate", str(run), "--quick", "--device", "cpu", "--by", "text", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    with pytest.raises(RunError, match="evaluate it first"):
        siser.evaluate(run, against=trained, quick=True, device="cpu")


@pytest.fixture(scope="module")
def table():
    """Embeddings [60, 3] of four speakers, the first dimension of which is the speaker."""
    rng = np.random.default_rng(0)
    speaker = np.repeat([1, 2, 3, 4], 15)
    embedding = rng.standard_normal((60, 3))
    embedding[:, 0] += 5 * speaker
    return embedding, speaker, rng.permutation(np.tile(["sad", "angry", "neutral"], 20)), np.tile(list("abcde"), 12)


def test_audit_of_arrays_and_of_a_file_agree_with_the_command_line(table, tmp_path, capsys):
    embedding, speaker, emotion, text = table
    np.savez(tmp_path / "table.npz", embedding=embedding, spk=speaker, emotion=emotion, text=text)
    arrays = siser.audit(embedding.tolist(), speaker, emotion=emotion, text=text, quick=True)
    assert arrays["strongest"]["accuracy"] > 0.9 > 0.4 > arrays["chance"]["given_emotion"]
    assert arrays == siser.audit(tmp_path / "table.npz", columns={"speaker": "spk"}, quick=True)
    assert command(["audit", str(tmp_path / "table.npz"), "--column", "speaker=spk", "--quick", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == arrays
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


def test_audit_scores_only_marked_utterances(table):
    embedding, speaker, *_ = table
    scored = np.arange(60) % 3 == 0
    result = siser.audit(embedding, speaker, scored=scored, quick=True)
    assert (result["scored"], result["decisions"]) == ("held-out", 20)


def test_audit_refuses_incomplete_requests(table, tmp_path):
    embedding, speaker, *_ = table
    with pytest.raises(AuditError, match="need the argument speaker"):
        siser.audit(embedding)
    with pytest.raises(AuditError, match="the table file already contains its labels; omit the arguments speaker"):
        siser.audit(tmp_path / "table.npz", speaker)
    with pytest.raises(AuditError, match="expected text or integers"):
        siser.audit(embedding, speaker / 2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"embeddings": [[1.0, 2.0], [3.0]] * 30}, "embeddings: not an array of real numbers"),
        ({"embeddings": torch.zeros(60, 3, requires_grad=True)}, "embeddings: not an array of real numbers.*requires grad"),
        ({"speaker": [["a"], ["b", "c"]] * 30}, r"speaker in row 1 is \['a'\]; expected text or integers"),
        ({"speaker": "abc"}, r"speaker has the shape \(\); expected text or integers"),
        ({"speaker": ["a", None, "b"] * 20}, "speaker in row 2 is None; expected text or integers"),
        ({"emotion": ["a", float("nan"), "b"] * 20}, "emotion in row 2 is nan; expected text or integers"),
        ({"text": ["a"] * 59}, "embedding has 60 rows, text has 59"),
        ({"seed": -1}, "seed = -1: expected a whole number, 0 to 2147483647"),
        ({"seed": 2**31}, "seed = 2147483648: expected a whole number"),
        ({"jobs": 0}, "jobs = 0: expected a whole number, 1 to"),
    ],
)
def test_audit_refuses_what_is_no_embedding_or_label(table, change, message):
    with pytest.raises(SerError, match=message):
        siser.audit(**{"embeddings": table[0], "speaker": table[1], "quick": True, **change})


def test_audit_takes_labels_as_data_frames_and_lists_hold_them(table):
    embedding, speaker, *_ = table
    names = [f"s{number}" for number in speaker]
    for given in (names, np.array(names), np.array(names, dtype=object), [name.encode() for name in names]):
        made, _ = embeddings_of(torch.tensor(embedding), {"speaker": given, "text": speaker})
        assert made.speaker.tolist() == names and made.text.tolist() == [str(number) for number in speaker]
        assert np.array_equal(made.embedding, embedding) and made.scored.all()


def test_predict_agrees_with_infer(trained, folder, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    files = [folder / "05_level_a.wav", str(folder / "06_*_b.wav"), tmp_path / "bad.wav"]
    rows = siser.predict(trained, files, device="cpu")
    assert [bool(row["error"]) for row in rows] == [False] * 4 + [True]
    arguments = ["infer", str(trained.folder), *map(str, files), "--out", str(tmp_path / "p.csv"), "--device", "cpu"]
    assert command(arguments) == 1
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["emotion"] for row in rows] == [row["emotion"] for row in written]
    assert [f"{row['p_level']:.6f}" for row in rows[:4]] == [row["p_level"] for row in written[:4]]
    assert siser.predict(str(trained.folder), files[0], device="cpu") == rows[:1]


def test_load_model_takes_a_run_a_fold_or_the_folder_of_a_model(trained, tmp_path):
    folder = trained.folder / "folds" / "fixed"
    loaded = [siser.load_model(folder), siser.load_model(str(trained.folder)), siser.load_model(trained.folder, fold="fixed")]
    for name, weights in loaded[0].module.state_dict().items():
        assert all(torch.equal(each.module.state_dict()[name], weights) for each in loaded)
    assert set(loaded[0].labels) == set(EMOTIONS)
    with pytest.raises(RunError, match="unknown trained fold '9'. Expected one of: fixed"):
        siser.load_model(trained.folder, fold="9")
    with pytest.raises(RunError, match="fold 'fixed': .*fixed is not a run folder, and has no folds to choose from"):
        siser.load_model(folder, fold="fixed")
    with pytest.raises(RunError, match="is not a run folder"):
        siser.load_model(tmp_path)


def test_load_model_refuses_an_unknown_device(trained):
    folder = trained.folder / "folds" / "fixed"
    with pytest.raises(RecipeError, match="unknown device 'gpu', did you mean 'cpu'"):
        siser.load_model(folder, "gpu")
    assert isinstance(siser.load_model(folder, "auto").module, SerModel)


@pytest.mark.parametrize(
    "call",
    [
        lambda: siser.prepare("csv", "table.csv", "out", jobs=0),
        lambda: siser.train("recipe.toml", "data", "out", jobs=0),
        lambda: siser.train("recipe.toml", "data", "out", devices=0),
        lambda: siser.evaluate("run", jobs=0),
    ],
)
def test_no_function_takes_a_number_of_processes_below_one(call):
    with pytest.raises(SerError, match="^(jobs|devices) = 0: expected a whole number, 1 to"):
        call()
