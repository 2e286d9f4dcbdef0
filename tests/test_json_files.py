"""JSON of others: a key that occurs twice, and numbers out of range, are refused wherever JSON is read."""

import json
import shutil
from pathlib import Path

import pytest
from reports import run_report

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.custom_formats import read_header
from speaker_invariant_ser.data.tables.votes import require_votes
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.evaluation.summary import read_report
from speaker_invariant_ser.files import write_json
from speaker_invariant_ser.inference.exported import Export
from speaker_invariant_ser.inference.onnx.model import OnnxMetadata
from speaker_invariant_ser.json_files import parse_json
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.studies.encoders.results import read_encoder_result
from speaker_invariant_ser.studies.results import read_result

RESULTS = Path(__file__).parents[1] / "recipes" / "results"
RESULT, ENCODER = RESULTS / "emodb-cnn-s0.json", RESULTS / "encoders" / "emodb" / "prosody.json"
READERS = {
    "prepare.json": lambda path: PreparedCorpus.open(path.parent),
    "split.json": lambda path: Run.open(path.parent),
    "model.json": lambda path: load_model(path.parent),
    "export.json": lambda path: Export.open(path.parent),
    "report/report.json": lambda path: read_report(path.parents[1]),
    RESULT.name: read_result,
    ENCODER.name: read_encoder_result,
}


@pytest.fixture
def files(prepared, trained, tmp_path) -> Path:
    """A folder with one intact file of each kind, and what it is read with."""
    for folder in (prepared.folder, trained.folder, trained.model_specs[0].folder):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.copy(RESULT, tmp_path)
    shutil.copy(ENCODER, tmp_path)
    write_json(tmp_path / "export.json", {"format": 1, "name": "x"})
    write_json(tmp_path / "report" / "report.json", run_report().to_json())
    return tmp_path


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "end, reason",
    [('"{}": null', "the key '{}' occurs twice"), (r'"x": ["\ud800"]', "a text has the code 0xd800, which is half a character")],
    ids=["key twice", "half a character"],
)
def test_a_file_with_a_key_twice_or_half_a_character_is_refused(name, end, reason, files):
    path = files / name
    first = next(iter(json.loads(path.read_text(encoding="utf-8"))))
    path.write_text(path.read_text(encoding="utf-8").rstrip()[:-1] + f", {end.format(first)}}}", encoding="utf-8")
    with pytest.raises(SerError, match=rf"{path.name}.*{reason.format(first)}"):
        READERS[name](path)


def test_votes_with_half_a_character_are_refused_and_whole_ones_are_read():
    with pytest.raises(SerError, match=r"votes in row 1 cannot be read \(a text has the code 0xdfff"):
        require_votes([r'{"\uDFFF": 1}'], "table.csv")
    assert parse_json(r'["\ud83d\ude00", "\\ud800"]') == ["\U0001f600", r"\ud800"]


def test_votes_settings_and_headers_with_a_key_twice_are_refused(tmp_path):
    with pytest.raises(SerError, match=r"table.csv: votes in row 2 cannot be read \(the key 'angry' occurs twice\)"):
        require_votes(['{"angry": 1}', '{"angry": 1, "angry": 100}'], "table.csv")
    said = {"format": "1", "labels": '["a", "b"]', "embedding_size": "3"}
    with pytest.raises(ValueError, match="the key 'temperature' occurs twice"):
        OnnxMetadata.model_validate({**said, "settings": '{"temperature": 1.0, "temperature": 2.0}'})
    (tmp_path / "db.yaml").write_text("name: x\ntables:\n  files: 1\n  files: 2\n")
    with pytest.raises(SerError, match=r"db.yaml: line 3: the key 'files' occurs twice"):
        read_header(tmp_path / "db.yaml")
    with pytest.raises(ValueError, match=r"^the key 'x{199}\.\.\. occurs twice$"):
        parse_json('{"%s": 1, "%s": 1}' % (("x" * 10_000,) * 2))


def changed(content: dict, key: str, value: object) -> dict:
    """A report or result with another value of a key with dots."""
    *parents, last = key.split(".")
    table = content
    for name in parents:
        table = table[name]
    assert last in table
    table[last] = value
    return content


WRONG = {
    "emotion.uar.value": [7.0, -1, "0.5", float("nan"), True],
    "emotion.uar": [{"value": 0.5, "low": 0.6, "high": 0.4}],
    "emotion.uar_mean_over_speakers": [{"value": 0.5, "low": 0.6, "high": 0.7}],
    "emotion.accuracy": [-1],
    "emotion.chance": [1.5],
    "emotion.utterances": [-1, 1.5, "12"],
    "speaker.strongest.accuracy": [1.01],
    "speaker.chance.given_emotion": [-0.1],
    "speaker.speakers": [-2],
    "settings.seeds": [["0"]],
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in WRONG.items() for value in values], ids=str)
def test_a_number_out_of_range_in_a_report_is_refused_by_key_and_value(key, value, tmp_path):
    write_json(tmp_path / "report" / "report.json", changed(run_report().to_json(), key, value))
    shown = "expected low" if isinstance(value, dict) else ".0 = '0'" if isinstance(value, list) else f" = {value!r}: "
    with pytest.raises(SerError, match=rf"report/report.json is damaged \({key}.*{shown}"):
        read_report(tmp_path)


@pytest.mark.parametrize("name", [RESULT.name, ENCODER.name])
@pytest.mark.parametrize("value", [7.0, -1, "0.5", float("nan")], ids=str)
def test_a_number_out_of_range_in_a_result_is_refused_by_key_and_value(name, value, tmp_path):
    content = json.loads(({RESULT.name: RESULT, ENCODER.name: ENCODER}[name]).read_text(encoding="utf-8"))
    key = "numbers.emotion.uar.value" if name == RESULT.name else "chance"
    write_json(tmp_path / name, changed(content, key, value))
    with pytest.raises(SerError, match=rf"{name} is not a result .*\({key} = {value!r}: .*\); choose another folder, or move it"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("verb", ["card", "compare"])
def test_no_command_prints_numbers_out_of_range(verb, trained, tmp_path, capsys):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    write_json(folder / "report" / "report.json", changed(run_report().to_json(), "emotion.uar.value", 7.0))
    assert siser([verb, str(folder), *(["--out", str(tmp_path / "out")] if verb == "compare" else [])]) == 2
    said = capsys.readouterr()
    assert "report.json is damaged (emotion.uar.value = 7.0: expected a number from 0 to 1)" in said.err and not said.out


def test_every_published_result_is_within_range():
    assert all(read_result(path) for path in RESULTS.glob("*.json"))
    assert all(read_encoder_result(path) for path in RESULTS.glob("encoders/*/*.json"))
