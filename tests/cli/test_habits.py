"""What people expect of any command line: -h, python -m, completion, help that names the verb, commands that can be copied."""

import os
import subprocess
import sys
import time

import pytest

from speaker_invariant_ser.cli.app import VERBS
from speaker_invariant_ser.cli.app import run as siser


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
        (["infer"], "Missing argument 'run'. Try `siser infer --help`."),
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


def test_help_and_completion_are_quick(tmp_path):
    """0.3 s, and twice that here, since other programs may run beside the tests: the best of three is taken."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "speaker_invariant_ser", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.6
