"""A crowd with an utterance each cannot be audited; emotion is scored all the same, with the reason."""

import json
import shutil
from pathlib import Path

import pytest
import soundfile
from conftest import RATE, TINY, prepare_table, tone
from reports import against_report, changed, run_report, without_audit

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.cli.console import show_comparison
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.evaluation.summary import is_report
from speaker_invariant_ser.report.write import write_comparison, write_report
from speaker_invariant_ser.training.launcher import train

QUICK = ["--device", "cpu", "--quick", "--no-baseline", "--quiet"]


def against_unaudited():
    """The report of an audited run that is compared with one without an audit."""
    return changed(against_report(), against__speaker=None, against__unaudited="few")


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
    command = ["evaluate", str(crowd.folder), *QUICK]
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
    assert siser([*command, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (
        result == written
        and result["speaker"] is None
        and 0 < result["emotion"]["chance"] < 1
        and result["emotion"]["utterances"] == 16
    )


def test_runs_without_an_audit_are_compared_by_emotion(crowd, tmp_path, capsys):
    """Two runs that cannot be audited: the second evaluated against the first, then both side by side."""
    other = Path(shutil.copytree(crowd.folder, tmp_path / "other"))
    assert siser(["evaluate", str(crowd.folder), *QUICK]) == 1
    capsys.readouterr()
    assert siser(["evaluate", str(other), "--against", str(crowd.folder), "--data", str(crowd.data), *QUICK]) == 1
    shown = capsys.readouterr()
    assert "UAR of 16 speakers, other minus run, mean: +0.0 points, 95 % CI +0.0 to +0.0 points, p 1.000." in shown.out
    reason = "Leakage is not compared: that of other was not measured: an audit needs at least 2 speakers"
    assert reason in shown.err and "; that of run was not measured: an audit" in shown.err
    assert (
        reason in (other / "report/report.md").read_text() and "Paired comparison" in (other / "report/report.html").read_text()
    )
    against = json.loads((other / "report/report.json").read_text())["against"]
    assert against["speaker"] is None and against["unaudited"].startswith("an audit needs") and len(against["per_speaker"]) == 16

    runs = [str(crowd.folder), str(other)]
    assert siser(["compare", *runs, "--out", str(tmp_path / "compared")]) == 1
    shown = capsys.readouterr()
    assert shown.out.count("not measured") == 2 and "the leakage of run is not compared, because it was not measured" in shown.err
    page = (tmp_path / "compared/report.md").read_text()
    assert "The leakage of other is not compared" in page and "Pareto" not in page and not list(tmp_path.glob("compared/*.png"))
    compared = json.loads((tmp_path / "compared/report.json").read_text())["runs"]
    assert [run["pareto"] for run in compared] == [None, None] and all(run["unaudited"] for run in compared)


def test_a_run_without_an_audit_is_compared_with_others(tmp_path, capsys):
    """Audited ones keep plot and front, which the unaudited one, with the highest UAR, is not on."""
    reports = [run_report("first", 0.6, 0.3), without_audit(run_report("crowd", 0.9)), run_report("second", 0.5, 0.9)]
    write_comparison(reports, tmp_path / "out")
    show_comparison(reports)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["crowd"]]
    assert "90.0 %" in row and row.split()[-6:] == ["not", "measured", "-", "-", "-", "-"]
    page = (tmp_path / "out/report.md").read_text()
    assert (
        "On the Pareto front: 1 of 2 audited runs." in page and "crowd is not compared, because it was not measured: few" in page
    )
    runs = json.loads((tmp_path / "out/report.json").read_text())["runs"]
    assert [run["pareto"] for run in runs] == [True, None, False] and (tmp_path / "out/tradeoff.png").is_file()
    page = write_report(against_unaudited(), tmp_path / "paired").with_suffix(".md").read_text()
    assert "Leakage is not compared: that of emodb-baseline was not measured: few." in page and "not measured | -" in page


def test_a_baseline_reports_emotion_without_an_audit(crowd, tmp_path, capsys):
    words = ["--features", "log-mel", "--set", "split.scheme=group-kfold", "--set", "split.folds=2", "--quick", "--quiet"]
    command = ["baseline", str(crowd.data), *words, "--out", str(tmp_path / "report")]
    for _ in range(2):  # a report without an audit may be replaced
        assert siser(command) == 1
        shown = capsys.readouterr()
        assert "Emotion UAR on 16 unseen speakers" in shown.out and f"report: {tmp_path / 'report/report.html'}" in shown.out
        assert "speaker information is not measured: an audit needs at least 2 speakers" in shown.err
    for name in ("report.html", "report.md"):
        page = (tmp_path / "report" / name).read_text(encoding="utf-8")
        assert "Emotion UAR on 16 unseen speakers" in page and "Speaker information was not measured: an audit needs" in page
        assert "Log-mel baseline" in page and "All settings" in page
    written = json.loads((tmp_path / "report/report.json").read_text(encoding="utf-8"))
    assert siser([*command, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result == written and result["unaudited"].startswith("an audit needs") and result["baseline"]["utterances"] == 16


def test_encoders_are_compared_by_emotion_without_an_audit(crowd, tmp_path, capsys):
    command = ["audit-encoders", str(crowd.data), "log-mel", "--set", "split.scheme=group-kfold", "--set", "split.folds=2"]
    out = tmp_path / "encoders"
    for again in (False, True):
        assert siser([*command, "--out", str(out), "--quiet", *(["--json"] if again else [])]) == 1
        shown = capsys.readouterr()
        assert "log-mel: speaker information is not measured: an audit needs at least 2 speakers" in shown.err
    (layer,) = json.loads(shown.out)[0]["layers"]
    assert layer["speaker"] is None and layer["unaudited"] in shown.err and 0 <= layer["emotion"]["linear"]["uar"]["value"] <= 1
    page = (out / "encoders.md").read_text()
    assert "| - | - | - |" in page and layer["unaudited"] in page and ".svg" not in page and not list(out.glob("*.svg"))
