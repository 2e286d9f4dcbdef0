"""What people expect of any command line: -h, python -m, completion, help that names the verb, commands that can be copied."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import speaker_invariant_ser
from speaker_invariant_ser.cli.app import VERBS
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.corpora.base import corpus_facts
from speaker_invariant_ser.data.corpora.registry import known_corpora
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_h_is_help_on_every_verb(verb, capsys):
    printed = []
    for option in ("-h", "--help"):
        assert siser([*filter(None, [verb]), option]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[0].startswith(f"Usage: siser {verb}".strip())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["infer"], "Missing argument 'inputs'. Try `siser infer --help`."),
        (["train", "--zzz"], "No such option: --zzz. Try `siser train --help`."),
        (["add-f0", "a", "b"], "Got unexpected extra argument (b). Try `siser add-f0 --help`."),
        (["trian"], "No such command 'trian'. Did you mean 'train'? Try `siser --help`."),
        (["--zzz"], "No such option: --zzz. Try `siser --help`."),
    ],
)
def test_an_error_names_the_help_of_its_verb(arguments, message, capsys):
    assert siser(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def in_a_shell(command: str, folder) -> str:
    """Run a command of bash that can call `siser`, and return what it prints."""
    program = folder / "siser"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m speaker_invariant_ser "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes_verbs_options_recipes_and_corpora(tmp_path):
    lines = ["siser tr", "siser infer --ch", "siser infer --channel ''", "siser train defa", "siser prepare emod"]
    calls = [
        f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _siser_completion siser; echo ${{COMPREPLY[*]}}"
        for line in lines
    ]
    printed = in_a_shell(f'eval "$(siser --show-completion)"; {"; ".join(calls)}', tmp_path).splitlines()
    assert printed == ["train", "--channel", "mix left right each", "default", "emodb"]


def test_completion_is_installed_for_the_shell_that_asks(tmp_path):
    assert "bash completion installed" in in_a_shell("siser --install-completion; true", tmp_path)
    assert "_siser_completion" in (tmp_path / ".bash_completions" / "siser.sh").read_text()
    assert "siser.sh" in (tmp_path / ".bashrc").read_text()


def test_help_and_completion_import_nothing_slow():
    """They take 0.3 s, most of it for typer; every library that computes would take longer than that."""
    command = [sys.executable, "-X", "importtime", "-m", "speaker_invariant_ser", "--help"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    imported = {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in lines}
    assert "typer" in imported
    assert not imported & {"numpy", "torch", "sklearn", "scipy", "pandas", "pydantic", "matplotlib", "soundfile", "jinja2"}


def test_numbers_have_their_noun_and_printed_commands_can_be_copied(trained, folder, tmp_path, capsys):
    """In a folder whose name a shell would split, with one file of everything."""
    run = shutil.copytree(trained.folder, tmp_path / "my runs" / "it's")
    command = ["infer", str(run), str(folder / "05_level_a.wav"), "--device", "cpu", "--out"]
    assert siser([*command, str(tmp_path / "p.csv")]) == 0
    assert capsys.readouterr().out.startswith("1 of 1 file -> ")
    assert siser([*command[:2], str(tmp_path / "no.wav"), *command[3:], str(tmp_path / "q.csv")]) == 1
    assert "warning: 1 file failed; the reason" in capsys.readouterr().err
    assert siser(["compare", str(run)]) == 2
    command = re.search("`(siser evaluate .*)`", capsys.readouterr().err).group(1)
    assert shlex.split(command) == ["siser", "evaluate", str(run)]


def test_a_list_is_relative_to_its_folder_then_to_the_current_one(trained, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "lists").mkdir()
    shutil.copy(folder / "05_level_a.wav", tmp_path / "lists" / "beside.wav")
    shutil.copy(folder / "05_level_b.wav", tmp_path / "here.wav")
    shutil.copy(folder / "06_level_b.wav", tmp_path / "beside.wav")
    (tmp_path / "lists" / "l.txt").write_text(f"beside.wav\nhere.wav\n{folder / '06_level_a.wav'}\nno.wav\n")
    monkeypatch.chdir(tmp_path)
    assert siser(["infer", str(trained.folder), "lists/l.txt", "--out", "p.csv", "--device", "cpu"]) == 1
    with open("p.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = ["lists/beside.wav", "here.wav", str(folder / "06_level_a.wav"), "lists/no.wav"]
    assert [row["file"] for row in rows] == paths and [bool(row["error"]) for row in rows] == [False, False, False, True]
    said = "lists/l.txt: 1 of 4 files taken from the current folder, since not beside the list"
    assert f"warning: {said}" in capsys.readouterr().err


def test_a_table_is_relative_to_its_folder_then_to_the_current_one(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "tables").mkdir()
    lines = (folder / "corpus.csv").read_text().splitlines()
    (tmp_path / "tables" / "t.csv").write_text("\n".join([lines[0], *(f"wavs/{line}" for line in lines[1:])]))
    (tmp_path / "wavs").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert siser(["prepare", "csv", "tables/t.csv", "data", "--no-f0", "--jobs", "1"]) == 0
    assert "72 of 72 files taken from the current folder, since not beside the table" in capsys.readouterr().err
    assert {utterance.source[:8] for utterance in PreparedCorpus.open(tmp_path / "data").utterances} == {"../wavs/"}


@pytest.mark.parametrize("name", known_corpora())
def test_where_to_get_a_corpus_is_a_sentence(name, tmp_path):
    """An address first, with what has to be done before in brackets, so that it follows "Get it from"."""
    corpus = known_corpora()[name]
    assert re.fullmatch(r"(https?://[^\s()]+( \([a-z -]+\))?)|`siser demo`, which generates it", corpus.url)
    assert corpus_facts(corpus)["get it"] == corpus.url + (", or with --download" if corpus.download else "")
    assert not corpus.layout.endswith(".") and not re.search(r"\b1 [a-z]+s\b", str(corpus_facts(corpus)["holds"]))


SEVERAL = (
    "speakers, highest",
    "seeds",
    "runs compared",
    "rows are equal",
    "probabilities and {self.dim}",
    "embeddings are equal",
    "embeddings, of {speakers} speakers",
    "of its bytes",
    "files of {unpacked",
)  # never one


def test_numbers_of_things_are_written_by_one_function():
    """`{len(rows)} rows` would say "1 rows": `counted` is there for that."""
    number_and_plural = re.compile(r"\{[^{}]*\b(len|sum)\([^{}]*\} ([a-z-]+ )?[a-z]+s\b")
    for path in Path(speaker_invariant_ser.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if number_and_plural.search(line) and "counted(" not in line:
                assert any(words in line for words in SEVERAL), f"{path.name}: {line.strip()}"
