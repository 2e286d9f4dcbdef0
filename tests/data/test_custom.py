"""Your own data: tables, folder patterns and databases; errors use the names of the user's own files and columns."""

import contextlib
import json
import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.custom import Request, compile_pattern
from speaker_invariant_ser.data.tables.custom_formats import CUSTOM_FORMATS
from speaker_invariant_ser.errors import CorpusError, ManifestError, SetupError

AUDFORMAT_WARNINGS = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # audformat triggers them in pandas


def noise(seed: int, rate: int = 16_000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, rate // 4)


def write_clips(folder, names):
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, noise(seed), 16_000)


def labels_of(prepared):
    return [(u.source, u.speaker, u.emotion, u.text, u.sex) for u in prepared.utterances]


EXPECTED = [("a.wav", "03", "happy", "x", "female"), ("b.wav", "8", "sad", "", "male")]


def test_csv_tsv_and_parquet_give_the_same_utterances(tmp_path):
    write_clips(tmp_path, ["a.wav", "b.wav"])
    rows = [["a.wav", "03", " happy", "x", "F"], ["b.wav", "8", "sad", "", "male"]]
    head = ["path", "speaker", "emotion", "text", "sex"]
    for suffix, separator in (("csv", ","), ("tsv", "\t")):
        (tmp_path / f"t.{suffix}").write_text("\n".join(separator.join(row) for row in [head, *rows]))
    columns = {name: pyarrow.array([row[index] or None for row in rows]) for index, name in enumerate(head)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    for kind in ("csv", "tsv", "parquet"):
        assert siser(["prepare", kind, str(tmp_path / f"t.{kind}"), str(tmp_path / kind)]) == 0
        assert labels_of(PreparedCorpus.open(tmp_path / kind)) == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n" * 10**7, r"1000 lines without the names of columns"),
        ("a" * 50_000_000, r"a line of more than 50 MB, expected the names of columns"),
    ],
)
def test_a_table_without_a_header_ends(tmp_path, content, message):
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(ManifestError, match=message):
        CUSTOM_FORMATS["csv"](Request(tmp_path / "table.csv"))


def test_numbers_in_parquet_are_read_as_text(tmp_path):
    columns = {"path": ["a.wav"], "speaker_id": [3], "label": ["happy"], "start": [0.5], "end": [1.25]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    (only,) = CUSTOM_FORMATS["parquet"](Request(tmp_path / "t.parquet")).utterances
    assert (only.speaker, only.emotion, only.start, only.end, only.id) == ("3", "happy", 0.5, 1.25, "a.wav@0.5-1.25")


def test_columns_can_be_named(tmp_path):
    (tmp_path / "t.csv").write_text("file,who,feeling,gender\na.wav,1,glad,w\n")
    (only,) = CUSTOM_FORMATS["csv"](
        Request(tmp_path / "t.csv", columns={"speaker": "who", "emotion": "feeling"}, name="mine")
    ).utterances
    assert (only.speaker, only.emotion, only.source, only.corpus) == ("1", "glad", "a.wav", "mine")
    with pytest.raises(ManifestError, match="--column speaker=wo: unknown column 'wo', did you mean 'who'"):
        CUSTOM_FORMATS["csv"](Request(tmp_path / "t.csv", columns={"speaker": "wo"}))
    with pytest.raises(ManifestError, match="no column speaker, emotion; found file, who, feeling, .*--column speaker=NAME"):
        CUSTOM_FORMATS["csv"](Request(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    "pattern, path, expected",
    [
        ("{speaker}/{emotion}/*_{text}.wav", "s1/happy/take_3.wav", ("s1", "happy", "3")),
        ("{speaker}_{emotion}_*.wav", "s1_happy_3.wav", ("s1", "happy", "")),
        ("**/{speaker}-{emotion}.flac", "a/b/s1-sad.flac", ("s1", "sad", "")),
        ("**/{speaker}-{emotion}.flac", "s1-sad.flac", ("s1", "sad", "")),
        ("{speaker}/{speaker}_{emotion}.wav", "s1/s1_sad.WAV", ("s1", "sad", "")),
        ("{emotion}/{speaker}.(1).wav", "sad/s.1.(1).wav", ("s.1", "sad", "")),
    ],
)
def test_fields_are_parsed_from_paths(tmp_path, pattern, path, expected):
    write_clips(tmp_path, [path, "elsewhere.ogg"])
    listing = CUSTOM_FORMATS["folder"](Request(tmp_path, pattern=pattern))
    (only,) = listing.utterances
    assert (only.speaker, only.emotion, only.text) == expected and only.source == path
    assert listing.rejected == [("elsewhere.ogg", f"its name does not match the pattern {pattern}")]


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("", "a folder needs --pattern"),
        ("{speaker}/*.wav", "needs {emotion}"),
        ("{speker}/{emotion}/*.wav", "unknown field 'speker', did you mean 'speaker'"),
        ("{speaker}/{emotion}/{offset}.wav", "unknown field 'offset'"),
        ("{speaker}{emotion}.wav", "a separator is needed between the two fields at }{"),
        ("*{speaker}_{emotion}.wav", "a separator is needed between"),
        ("{speaker}/{emotion}.flac", "none of 1 audio file, such as a_b.wav, matches the pattern"),
        ("{speaker}/{speaker}_{emotion}.wav", "matches the pattern"),
        ("{speaker}\\{emotion}.wav", r"\\ is no slash here: write / between folders"),
        ("./{speaker}_{emotion}.wav", "paths are relative to the folder: write no / in front"),
    ],
)
def test_impossible_patterns_raise_an_error(tmp_path, pattern, message):
    write_clips(tmp_path, ["a_b.wav"])
    with pytest.raises(CorpusError, match=message):
        CUSTOM_FORMATS["folder"](Request(tmp_path, pattern=pattern))


def test_a_folder_without_audio_raises_an_error(tmp_path):
    with pytest.raises(CorpusError, match="no audio file in this folder or below it"):
        CUSTOM_FORMATS["folder"](Request(tmp_path, pattern="{speaker}/{emotion}.wav"))


@pytest.mark.parametrize("broken", ["s1/joy/a\nb.wav", "s1\r/joy/1.wav", "s\u20281/joy/1.wav"])
def test_a_name_with_a_line_break_rejects_that_file_alone(tmp_path, broken):
    write_clips(tmp_path / "in", [broken, "s1/joy/1.wav", "s2/joy/2.wav"])
    command = ["prepare", "folder", str(tmp_path / "in"), str(tmp_path / "data"), "--pattern", "{speaker}/{emotion}/*.wav"]
    assert siser(command) == 0
    assert [utterance.source for utterance in PreparedCorpus.open(tmp_path / "data").utterances] == [
        "s1/joy/1.wav",
        "s2/joy/2.wav",
    ]
    assert "its name or a label has a line break; rename it" in (tmp_path / "data" / "rejected.csv").read_text()


def test_cells_that_a_spreadsheet_would_compute_are_text_in_tables_for_people(tmp_path):
    write_clips(tmp_path / "in", ["=s1/@joy/+1.wav", "-s2/joy/2.wav"])
    for name in ("=cmd", "\uff1dcmd", " =cmd"):
        (tmp_path / "in" / f"{name}.wav").write_bytes(b"RIFF")
    command = ["prepare", "folder", str(tmp_path / "in"), str(tmp_path / "data"), "--pattern", "{speaker}/{emotion}/*.wav"]
    assert siser(command) == 0
    utterances = PreparedCorpus.open(tmp_path / "data").utterances
    assert [(clip.source, clip.speaker, clip.emotion) for clip in utterances] == [
        ("-s2/joy/2.wav", "-s2", "joy"),
        ("=s1/@joy/+1.wav", "=s1", "@joy"),
    ]
    rejected = (tmp_path / "data" / "rejected.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {line.partition(".")[0] for line in rejected} == {"'=cmd", "'\uff1dcmd", "' =cmd"}


def test_no_pattern_takes_long_for_a_long_name(tmp_path):
    random, started = np.random.default_rng(0), time.process_time()
    names = ["a" * 250, "a_" * 125, "/".join(["a_" * 60] * 30)]
    fields = ["{speaker}", "{emotion}", "{text}", "{session}", "{style}", "{speaker}", "{repetition}"]
    for count in range(0, 50, 5):
        pattern = "{speaker}a{emotion}" + "".join(
            random.choice(["a", "_", "a_"]) + random.choice(["*", "*", "**", *fields]) for _ in range(count % 48)
        )
        for name in names[:2]:
            with contextlib.suppress(CorpusError):
                assert compile_pattern(pattern + "b").match(name) is None
    assert time.process_time() - started < 20, "a regular expression takes minutes for one of them"
    with pytest.raises(CorpusError, match="takes too long for a_a_.*; name no field twice, or use fewer wildcards"):
        compile_pattern("{speaker}a{emotion}a{text}_{speaker}_{emotion}_{text}_*_*b").match("a_" * 125)
    with pytest.raises(CorpusError, match=r"103 parts \(texts and wildcards\), expected at most 100"):
        compile_pattern("{speaker}_{emotion}" + "_*" * 50)


def test_prepare_a_folder_with_a_pattern_and_only(tmp_path, capsys):
    write_clips(tmp_path / "mine", [f"s{s}/{emotion}/{t}.wav" for s in range(4) for emotion in ("a", "b") for t in range(2)])
    command = ["prepare", "folder", str(tmp_path / "mine"), str(tmp_path / "data"), "--pattern", "{speaker}/{emotion}/{text}.wav"]
    assert siser([*command, "--only", "speaker=s1", "--only", "speaker=s2"]) == 0
    prepared = PreparedCorpus.open(tmp_path / "data")
    assert len(prepared.utterances) == 8 and {u.corpus for u in prepared.utterances} == {"mine"}
    assert siser([*command[:3], str(tmp_path / "other"), *command[4:], "--only", "speaker=s9"]) == 2
    assert "--only speaker=s9: no utterance has it, speaker is one of s0, s1, s2, s3" in capsys.readouterr().err
    assert siser([*command[:3], str(tmp_path / "other"), *command[4:], "--only", "speker=s9"]) == 2
    assert "unknown column 'speker', did you mean 'speaker'" in capsys.readouterr().err


@pytest.fixture
def audformat_folder(tmp_path):
    """Write a database with emotions in one table, speakers in another, and sex as a field of the speaker scheme."""
    audformat = pytest.importorskip("audformat")
    folder = tmp_path / "db"
    names = [f"wav/{n}.wav" for n in range(6)]
    write_clips(folder, names)
    database = audformat.Database("feelings")
    database.schemes["emotion"] = audformat.Scheme(labels=["anger", "joy"])
    database.schemes["speaker"] = audformat.Scheme(labels={"01": {"gender": "female"}, "02": {"gender": "male"}})
    database["files"] = audformat.Table(audformat.filewise_index(names))
    database["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    database["files"]["speaker"].set(["01", "02"] * 3)
    database["emotion"] = audformat.Table(audformat.filewise_index(names[:5]))
    database["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    database["emotion"]["emotion"].set(["anger", "joy", "joy", "anger", None])
    database.save(str(folder))
    return folder


@AUDFORMAT_WARNINGS
def test_an_audformat_database(audformat_folder, tmp_path):
    assert siser(["prepare", "audformat", str(audformat_folder), str(tmp_path / "data")]) == 0
    prepared = PreparedCorpus.open(tmp_path / "data")
    assert labels_of(prepared) == [
        ("wav/0.wav", "01", "anger", "", "female"),
        ("wav/1.wav", "02", "joy", "", "male"),
        ("wav/2.wav", "01", "joy", "", "female"),
        ("wav/3.wav", "02", "anger", "", "male"),
    ]
    assert "wav/4.wav" in (tmp_path / "data" / "rejected.csv").read_text()


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@AUDFORMAT_WARNINGS
@pytest.mark.parametrize(
    "place", ["tag", "pickle alone", "pickle beside the table", "name of a table", "merges", "aliases", "type"]
)
def test_an_audformat_database_runs_no_program(audformat_folder, tmp_path, capsys, place):
    header, proof, message = audformat_folder / "db.yaml", tmp_path / "proof", ""
    tables = list(audformat_folder.glob("db.files.*"))
    if place == "tag":
        tag = f"proof: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{proof}']]"
        header.write_text(f"{header.read_text()}{tag}\n")
        message = r"db.yaml, line \d+: could not determine a constructor for the tag .*python/object.*: remove it"
    elif place == "merges":  # each line repeats what the one before it repeats: for ever
        lines = (f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}]}}\n" for n in range(1, 30))
        header.write_text(f"{header.read_text()}b0: &b0 {{x: 1}}\n{''.join(lines)}")
        message = r"db.yaml, line \d+: could not determine a constructor for the tag .*:merge'"
    elif place == "aliases":
        lines = (f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 10))
        header.write_text(f"b0: &b0 x\n{''.join(lines)}{header.read_text().replace('usage: unrestricted', 'usage: *b9')}")
        message = "db.yaml: more than 5,000,000 values, by aliases"
    elif place == "type":
        header.write_text(header.read_text().replace("type: filewise", "type: [filewise]"))
        message = "database is damaged: db.yaml has a value of another type than audformat writes"
    elif place == "name of a table":
        header.write_text(header.read_text().replace("\n  files:", "\n  x/../files:"))
        message = "db.yaml: the table 'x/../files' has a slash in its name; rename it"
    else:
        (audformat_folder / "db.files.pkl").write_bytes(pickle.dumps(Touch(proof)))
    if place == "pickle alone":
        for table in tables:
            table.unlink()
        message = r"db.files.pkl: a pickle can run a program and is not read; save the table as CSV or Parquet"
    assert siser(["prepare", "audformat", str(audformat_folder), str(tmp_path / "data")]) == (2 if message else 0)
    assert not proof.exists()
    assert re.search(message, capsys.readouterr().err)


@AUDFORMAT_WARNINGS
def test_an_audformat_database_of_segments(tmp_path):
    audformat = pytest.importorskip("audformat")
    write_clips(tmp_path / "db", ["long.wav"])
    database = audformat.Database("feelings")
    index = audformat.segmented_index(["long.wav"] * 2, ["0s", "0.1s"], ["0.1s", "0.25s"])
    database["segments"] = audformat.Table(index)
    for name, values in {"mood": ["a", "b"], "speaker": ["1", "2"]}.items():
        database.schemes[name] = audformat.Scheme("str")
        database["segments"][name] = audformat.Column(scheme_id=name)
        database["segments"][name].set(values)
    database.save(str(tmp_path / "db"))
    with pytest.raises(CorpusError, match="this database has no scheme named emotion; name it with --column emotion=SCHEME"):
        CUSTOM_FORMATS["audformat"](Request(tmp_path / "db"))
    first, second = CUSTOM_FORMATS["audformat"](Request(tmp_path / "db", columns={"emotion": "mood"})).utterances
    assert (first.start, first.end, second.start, second.end) == (0, 0.1, 0.1, 0.25) and second.emotion == "b"


@AUDFORMAT_WARNINGS
def test_file_labels_apply_to_segments_and_a_table_can_be_chosen(tmp_path):
    audformat = pytest.importorskip("audformat")
    names = ["long.wav", "other.wav"]
    write_clips(tmp_path / "db", names)
    database = audformat.Database("feelings")
    database.schemes["speaker"] = audformat.Scheme("str")
    database.schemes["emotion"] = audformat.Scheme("str")
    database["files"] = audformat.Table(audformat.filewise_index(names))
    database["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    database["files"]["speaker"].set(["1", "2"])
    index = audformat.segmented_index(["long.wav", "long.wav", "other.wav"], ["0s", "0.1s", "0s"], ["0.1s", "0.25s", "0.2s"])
    for rater, values in {"first": ["a", "b", "a"], "second": ["b", "b", "b"]}.items():
        database[rater] = audformat.Table(index)
        database[rater]["emotion"] = audformat.Column(scheme_id="emotion")
        database[rater]["emotion"].set(values)
    database.save(str(tmp_path / "db"))
    with pytest.raises(CorpusError, match="several tables have the scheme emotion; .* --column emotion=TABLE.COLUMN"):
        CUSTOM_FORMATS["audformat"](Request(tmp_path / "db"))
    utterances = CUSTOM_FORMATS["audformat"](Request(tmp_path / "db", columns={"emotion": "first.emotion"})).utterances
    assert [(u.speaker, u.emotion, u.end) for u in utterances] == [("1", "a", 0.1), ("1", "b", 0.25), ("2", "a", 0.2)]
    with pytest.raises(CorpusError, match="--column text=nothere: this database has no scheme or TABLE.COLUMN named nothere"):
        CUSTOM_FORMATS["audformat"](Request(tmp_path / "db", columns={"emotion": "first.emotion", "text": "nothere"}))
    next((tmp_path / "db").glob("db.files.*")).unlink()
    with pytest.raises(CorpusError, match="is damaged"):
        CUSTOM_FORMATS["audformat"](Request(tmp_path / "db"))
    (tmp_path / "db" / "db.yaml").write_text("a: [")
    with pytest.raises(CorpusError, match="is damaged"):
        CUSTOM_FORMATS["audformat"](Request(tmp_path / "db"))


def test_hugging_face_splits_with_different_columns_and_rows_without_audio(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_clips(tmp_path, ["a.wav", "b.wav"])
    cell = {"bytes": (tmp_path / "a.wav").read_bytes(), "path": "a.wav"}

    def part(**columns):
        types = {"audio": datasets.Audio(), "noise": datasets.Audio(), "face": datasets.Image()}
        features = datasets.Features({name: types.get(name, datasets.Value("string")) for name in columns})
        table = pyarrow.table(columns, schema=features.arrow_schema)
        return datasets.Dataset(datasets.table.InMemoryTable(table), info=datasets.DatasetInfo(features=features))

    whole = part(audio=[cell, None], speaker=["1", "2"], emotion=["a", "b"], text=["t1", "t2"])
    other = part(audio=[cell], speaker=["3"], emotion=["b"], noise=[cell], face=[cell])
    other.set_format("numpy", ["speaker"])  # which would return neither audio nor plain numbers
    datasets.DatasetDict({"train": whole, "clean.100": other}).save_to_disk(str(tmp_path / "saved"))
    listing = CUSTOM_FORMATS["datasets"](Request(tmp_path / "saved", scratch=tmp_path / "scratch"))
    labels = [(u.speaker, u.text, u.partition) for u in listing.utterances]
    assert labels == [("1", "t1", "train"), ("3", "", "")] and listing.rejected == [("train-0000001", "has no audio")]
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "dataset_dict.json").write_text('{"splits": ["../saved/train"]}')
    with pytest.raises(CorpusError, match="outer: the split '../saved/train' is no folder in it by its name; rename it"):
        CUSTOM_FORMATS["datasets"](Request(tmp_path / "outer", scratch=tmp_path / "scratch" / "0"))
    train = tmp_path / "saved" / "train"
    state, info = (json.loads((train / name).read_text()) for name in ("state.json", "dataset_info.json"))
    info["features"]["speaker"] = {"_type": "Audio"}
    damages = {
        "state.json: '../data.arrow' is no file beside it": (
            "state.json",
            {**state, "_data_files": [{"filename": "../data.arrow"}]},
        ),
        "or named twice": ("state.json", {**state, "_data_files": state["_data_files"] * 2}),
        "a damaged one: '_data_files'": ("state.json", {}),
        "a damaged one: ": ("dataset_info.json", info),
        "a damaged one: 'list' object": ("dataset_info.json", []),
    }
    for message, (name, content) in damages.items():
        (train / "state.json").write_text(json.dumps(state))
        (train / name).write_text(json.dumps(content))
        with pytest.raises(CorpusError, match=message):
            CUSTOM_FORMATS["datasets"](Request(tmp_path / "saved", scratch=tmp_path / "scratch"))


def test_files_in_unsupported_formats_are_rejected(tmp_path):
    write_clips(tmp_path, ["s1_sad.wav"])
    (tmp_path / "s2_sad.m4a").touch()
    listing = CUSTOM_FORMATS["folder"](Request(tmp_path, pattern="{speaker}_{emotion}.wav"))
    assert listing.rejected == [("s2_sad.m4a", ".m4a is not supported; convert it: ffmpeg -i s2_sad.m4a s2_sad.wav")]


def test_a_hugging_face_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_clips(tmp_path / "wav", [f"{n}.wav" for n in range(4)])
    features = datasets.Features(
        {
            "audio": datasets.Audio(),
            "speaker_id": datasets.Value("int64"),
            "label": datasets.ClassLabel(names=["sad", "happy"]),
        }
    )

    def part(numbers, ending=".wav"):  # as a table, because encoding audio needs another library
        rows = [{"bytes": (tmp_path / "wav" / f"{n}.wav").read_bytes(), "path": f"{n}{ending}"} for n in numbers]
        columns = {"audio": rows, "speaker_id": list(numbers), "label": [n % 2 for n in numbers]}
        table = pyarrow.table(columns, schema=features.arrow_schema)
        return datasets.Dataset(datasets.table.InMemoryTable(table), info=datasets.DatasetInfo(features=features))

    train, validation = part(range(3)), part(range(3, 4), ".\0x")
    train.set_format("numpy")
    validation.set_format("torch", columns=["label"])
    datasets.DatasetDict({"train": train, "validation": validation}).save_to_disk(str(tmp_path / "saved"))
    assert siser(["prepare", "datasets", str(tmp_path / "saved"), str(tmp_path / "data"), "--name", "hub"]) == 0
    prepared = PreparedCorpus.open(tmp_path / "data")
    labels = [(u.speaker, u.emotion, u.partition, u.corpus) for u in prepared.utterances]
    assert labels == [
        ("0", "sad", "train", "hub"),
        ("1", "happy", "train", "hub"),
        ("2", "sad", "train", "hub"),
        ("3", "happy", "dev", "hub"),
    ]
    expected, _ = soundfile.read(tmp_path / "wav" / "3.wav", dtype="float32")
    assert np.array_equal(prepared.clip(3), expected)


@pytest.mark.parametrize("kind", ["audformat", "datasets"])
def test_a_missing_database_or_library_raises_an_error(tmp_path, kind, monkeypatch):
    (tmp_path / "f").mkdir()
    with pytest.raises(CorpusError, match="does not exist"):
        CUSTOM_FORMATS[kind](Request(tmp_path / "nothing"))
    pytest.importorskip(kind)
    with pytest.raises(CorpusError, match=r"holds no (audformat database|dataset)"):
        CUSTOM_FORMATS[kind](Request(tmp_path / "f"))
    monkeypatch.setitem(sys.modules, kind, None)
    (tmp_path / "f" / "db.yaml").touch()
    with pytest.raises(SetupError, match=rf'pip install "speaker-invariant-ser\[{kind}\]"'):
        CUSTOM_FORMATS[kind](Request(tmp_path / "f"))
