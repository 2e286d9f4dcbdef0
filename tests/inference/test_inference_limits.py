"""Infer loses and mixes nothing: one writer for a table, no decoder in it, no file too large for memory, finite answers."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import RATE, tone
from safetensors.torch import load_file

from speaker_invariant_ser import api
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats.reading import Reader
from speaker_invariant_ser.errors import AudioError, RunError
from speaker_invariant_ser.files import held
from speaker_invariant_ser.models.model import load_model, save_model


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_second_process_with_the_same_table_says_so(ending, trained, folder, tmp_path, capsys):
    out = tmp_path / f"table.{ending}"
    command = ["infer", str(trained.folder), str(folder / "05_level_a.wav"), "--out", str(out), "--device", "cpu"]
    with held(out):
        assert siser(command) == 2
        error = f"error: cannot write {out}: another process is writing it; wait for it or choose another folder\n"
        assert capsys.readouterr().err == error
    assert not out.exists()
    assert siser(command) == 0 and sorted(path.name for path in tmp_path.iterdir()) == [out.name]


def test_a_second_process_with_the_same_embeddings_says_so(trained, folder, tmp_path, capsys, monkeypatch):
    embeddings, words = tmp_path / "e.npz", ["infer", str(trained.folder), str(folder / "05_level_a.wav"), "--device", "cpu"]
    command = [*words, "--embeddings", str(embeddings), "--out"]
    with held(embeddings):
        assert siser([*command, str(tmp_path / "1.csv")]) == 2
    assert "e.npz: another process is writing it" in capsys.readouterr().err
    monkeypatch.setattr("speaker_invariant_ser.cli.infer.refuse_outputs", lambda *_: None)  # before the first has finished
    assert [siser([*command, str(tmp_path / name)]) for name in ("1.csv", "2.csv")] == [0, 2]
    assert "e.npz holds embeddings already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.csv", "e.npz"]


def test_a_second_evaluation_of_a_run_says_so(trained, tmp_path, capsys):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    (run / "predictions.csv").unlink(missing_ok=True)  # of another test
    with held(run / "predictions.csv"):
        assert siser(["evaluate", str(run), "--data", str(trained.data), "--device", "cpu"]) == 2
    assert "predictions.csv: another process is writing it" in capsys.readouterr().err
    assert not (run / "predictions.csv").exists()


def test_a_closed_standard_error_is_not_replaced_by_the_table(tmp_path):
    """What a decoder prints to descriptor 2 was written into whichever file came first."""
    script = (
        "import os, sys; from speaker_invariant_ser.cli.app import open_standard_files as o; o();"
        f"table = open({str(tmp_path / 'table')!r}, 'w'); os.write(2, b'mpg123: warning'); os.write(1, b'hello');"
        "print('a warning', file=sys.stderr); print(table.fileno() > 2, sys.stdin.read() == '', file=table)"
    )
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, sys.executable, script], check=False, timeout=60).returncode == 0
    assert (tmp_path / "table").read_text() == "True True\n"


@pytest.mark.parametrize(
    "rate, hours, message",
    [
        (16_000, 291, "1047600 s at 16000 Hz are too long to be decoded at once, expected at most 4194 s; cut it into parts"),
        (655_350, 0.05, "180 s at 655350 Hz are too long to be decoded at once, expected at most 102 s"),
        (1_000, 2, "7200 s at 1000 Hz are too long to be decoded at once, expected at most 4194 s"),
    ],
)
def test_a_recording_that_memory_cannot_hold_is_refused(rate, hours, message):
    with pytest.raises(AudioError, match=f"^x.flac: {message}"):
        audio.require_size(rate, int(hours * 3600 * rate), "x.flac")
    audio.require_size(16_000, 60 * 60 * 16_000, "an hour, as recorders make them")


def test_a_long_recording_is_a_row_with_the_reason_and_nothing_of_it_is_decoded(trained, folder, tmp_path, monkeypatch):
    """In place of 291 hours of silence in a FLAC of 5.8 MB."""
    soundfile.write(tmp_path / "long.flac", np.zeros((60 * RATE, 2), np.int16), RATE)
    soundfile.write(tmp_path / "short.flac", tone("01", "level", "a"), RATE)
    monkeypatch.setattr(audio, "MAX_SAMPLES", 10 * RATE)
    read = Reader.read

    def reading(reader, frames, dtype):
        assert reader.path.name != "long.flac"
        return read(reader, frames, dtype)

    monkeypatch.setattr(Reader, "read", reading)
    out = tmp_path / "p.csv"
    files = [str(tmp_path / name) for name in ("long.flac", "short.flac")]
    assert siser(["infer", str(trained.folder), *files, "--out", str(out), "--device", "cpu"]) == 1
    long, short = csv.DictReader(out.read_text().splitlines())
    assert "60 s at 16000 Hz are too long to be decoded at once, expected at most 10 s" in long["error"] and not long["emotion"]
    assert short["emotion"] and not short["error"]


def test_weights_that_overflow_give_an_error_and_never_nan(trained, folder, tmp_path):
    model = load_model(trained.model_specs[0].folder)
    for value in model.head.parameters():
        value.data.fill_(3e38)
    run = shutil.copytree(trained.folder, tmp_path / "run")
    fold = run / "folds" / "fixed"
    save_model(model, fold, run=trained.facts(trained.model_specs[0]))
    assert all(value.isfinite().all() for value in load_file(fold / "model.safetensors").values())
    (row,) = api.predict(run, folder / "05_level_a.wav", device="cpu")
    assert "05_level_a.wav: the models' output is not finite, their weights overflow" in row["error"]
    assert row["emotion"] == "" and row["confidence"] is None and row["p_level"] is None
    with pytest.raises(RunError, match="folds/fixed: the model's outputs are not finite, its weights overflow; train it again"):
        api.evaluate(run, data=trained.data, device="cpu", quick=True, baseline=False)
