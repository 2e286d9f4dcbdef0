"""What others wrote reaches the terminal as text: names, cells, keys and values with control characters are shown as escapes."""

import ast
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.cli import console
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.cli.console import printable, show_table
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.report.table import Table

CLEAR, TITLE, EIGHT_BIT, TURNED, LINE = "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202eevil\u202c", "a\nerror: b\u2028c"
HOSTILE = f"{CLEAR}{TITLE}{EIGHT_BIT}{TURNED}{LINE}"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(tmp_path):
    """Recordings, a table, embeddings and a recipe with control characters wherever text is allowed."""
    for seed in range(6):
        folder = tmp_path / "in" / f"{HOSTILE}{seed % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        clip = np.random.default_rng(seed).uniform(-0.3, 0.3, 8000)
        soundfile.write(folder / f"x{TITLE}{seed}.wav", clip, 16_000)
    (tmp_path / "in" / f"{HOSTILE}.wav").write_text("no audio")
    (tmp_path / "in" / os.fsdecode(b"\xff\xfe.wav")).write_text("no audio")
    (tmp_path / "t.csv").write_text(f"path,{CLEAR},speaker\nmissing{TITLE}.wav,{CLEAR},{EIGHT_BIT}\n")
    rows = [f"s{row % 2}{TITLE},e{CLEAR},{row}.5" for row in range(20)]
    (tmp_path / "embeddings.csv").write_text(f"speaker,emotion,d{EIGHT_BIT}\n" + "\n".join(rows))
    (tmp_path / "r.toml").write_text(f'[train]\n"epocs\\u001b{EIGHT_BIT}" = "\\u001b[2J\\u202e"\n', encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["prepare", "folder", "in", "data", "--pattern", "{speaker}/{emotion}.wav"],
        ["prepare", "folder", "in", f"data{TURNED}", "--pattern", f"{{speaker}}/{CLEAR}.wav"],
        ["prepare", "folder", f"in{CLEAR}", "data"],
        ["prepare", "csv", "t.csv", "data"],
        ["prepare", "csv", "t.csv", "data", "--column", f"emotion={TITLE}"],
        ["prepare", f"emodb{HOSTILE}", "in", "data"],
        ["audit", "embeddings.csv", "--dimensions", HOSTILE],
        ["train", "r.toml", "--data", "data"],
        ["train", "--data", "in", "--set", f"train.epochs={HOSTILE}"],
        ["evaluate", f"run{HOSTILE}"],
        [f"{HOSTILE}"],
        ["prepare", f"--{HOSTILE}"],
    ],
    ids=lambda command: printable(" ".join(command))[:40],
)
def test_no_command_prints_control_characters(hostile, monkeypatch, capsys, command):
    monkeypatch.chdir(hostile)
    siser(command)
    shown = capsys.readouterr()
    assert shown.out + shown.err and not CONTROL.search(shown.out + shown.err)
    assert sum(line.startswith("error: ") for line in shown.err.splitlines()) <= 1
    assert "\nerror: b" not in shown.out + shown.err


def test_an_error_names_a_file_with_all_of_its_blanks(tmp_path, capsys):
    assert siser(["audit", f"{tmp_path}/two  blanks.npz"]) == 2
    assert "two  blanks.npz" in capsys.readouterr().err


def test_tables_and_json_hold_the_names_as_escapes(capsys):
    show_table(Table(["run", CLEAR], [(HOSTILE, TITLE)]))
    shown = capsys.readouterr().out
    assert not CONTROL.search(shown) and r"\u001b[2J" in shown and r"a\nerror: b" in shown
    console.show_json({HOSTILE: ["\udc80", HOSTILE]})
    shown = capsys.readouterr().out
    assert not CONTROL.search(shown) and json.loads(shown) == {HOSTILE: ["\udc80", HOSTILE]}


def test_progress_bars_hold_no_control_characters(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with progress_bars(quiet=False) as progress:
        progress(f"task{TITLE}", 1, 2)
    assert TITLE not in capsys.readouterr().err


def test_what_people_write_is_not_changed():
    for text in ("Ärger", "خنده‌دار", "怒り", "a b", "😀", r"C:\new"):
        assert printable(text) == text


def test_one_function_prints():
    for path in Path(console.__file__).parent.glob("*.py"):
        calls = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printed = [call for call in calls if re.match(r"print\(|typer\.(echo|secho)|click\.|sys\.std\w+\.write", call)]
        assert len(printed) == (path.name == "console.py"), printed
