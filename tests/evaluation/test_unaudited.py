"""A crowd with an utterance each cannot be audited; emotion is scored all the same, with the reason."""

import json

import pytest
import soundfile
from conftest import RATE, TINY, prepare_table, tone

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.evaluation.summary import is_report
from speaker_invariant_ser.training.launcher import train


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A run on 16 speakers with one utterance each."""
    folder, rows = tmp_path_factory.mktemp("crowd"), ["path,speaker,emotion"]
    for number in range(16):
        emotion = ("rising", "falling")[number // 4 % 2]
        soundfile.write(folder / f"{number}.wav", tone(f"0{number % 6 + 1}", emotion, "abcd"[number % 4]), RATE)
        rows.append(f"{number}.wav,s{number},{emotion}")
    (folder / "crowd.csv").write_text("\n".join(rows))
    prepared = prepare_table(folder / "crowd.csv", folder / "data")
    split, labels = {"scheme": "group-kfold", "folds": 2}, {"map": {"rising": "up", "falling": "down"}}
    recipe = make_recipe({**TINY, "split": split, "labels": labels, "train": {"epochs": 1, "batch_size": 8}})
    return train(recipe, prepared, folder / "run", device="cpu")


def test_emotion_is_reported_without_an_audit(crowd, capsys):
    command = ["evaluate", str(crowd.folder), "--device", "cpu", "--quick", "--no-baseline", "--quiet"]
    assert siser(command) == 1
    shown = capsys.readouterr()
    assert "emotion UAR" in shown.out and "speaker accuracy" not in shown.out
    assert "speaker information is not measured: an audit needs at least 2 speakers" in shown.err and "are none" in shown.err
    assert (crowd.folder / "predictions.csv").is_file()
    for name in ("report.html", "report.md"):
        page = (crowd.folder / "report" / name).read_text(encoding="utf-8")
        assert "Emotion UAR on 16 unseen speakers" in page and "Speaker information was not measured: an audit needs" in page
    written = json.loads((crowd.folder / "report/report.json").read_text(encoding="utf-8"))
    assert written["settings"]["labels"]["merged"] == {"falling": ["down", 8], "rising": ["up", 8]}
    assert is_report(crowd.folder / "report/report.json") and written["unaudited"].startswith(
        "an audit needs at least 2 speakers"
    )
    assert siser(["compare", str(crowd.folder), "--out", str(crowd.folder / "compared")]) != 0
    assert "could not be audited: an audit needs at least 2 speakers" in capsys.readouterr().err
    assert siser([*command, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (
        result == written
        and result["speaker"] is None
        and 0 < result["emotion"]["chance"] < 1
        and result["emotion"]["utterances"] == 16
    )


def test_a_baseline_reports_emotion_without_an_audit(crowd, tmp_path, capsys):
    words = ["--features", "log-mel", "--set", "split.scheme=group-kfold", "--set", "split.folds=2", "--quick", "--quiet"]
    command = ["baseline", str(crowd.data), *words, "--out", str(tmp_path / "report")]
    assert siser(command) == 1
    shown = capsys.readouterr()
    assert "Emotion UAR on 16 unseen speakers" in shown.out and not (tmp_path / "report").exists()
    assert "speaker information is not measured, and no report is written: an audit needs at least 2 speakers" in shown.err
    assert siser([*command, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["unaudited"].startswith("an audit needs") and result["baseline"]["utterances"] == 16
