"""The typed report: complete, stable, and able to read what older and newer versions wrote."""

import json
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from reports import against_report, demo_report, run_report, seeded_report, table_report

from speaker_invariant_ser.audit.certificates import certificate
from speaker_invariant_ser.audit.further import Further
from speaker_invariant_ser.audit.several_clips import Identification
from speaker_invariant_ser.audit.tails import Tail
from speaker_invariant_ser.audit.verification.per_speaker import SpeakerMeans
from speaker_invariant_ser.cli.console import show_evaluation
from speaker_invariant_ser.data.tables.votes import as_text
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation import certificate_parts, summary_parts, unseen_parts
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.evaluation.part import Part
from speaker_invariant_ser.evaluation.summary import ComparisonReport, RunReport, TableReport, read_report
from speaker_invariant_ser.files import write_json
from speaker_invariant_ser.report.vote_tables import votes_table
from speaker_invariant_ser.report.write import write_report

PARTS = (  # what the audit computes, and the typed part of report.json that is made of it
    (certificate.Several, certificate_parts.SeveralClips),
    (certificate.Certified, certificate_parts.CertifiedModel),
    (Identification, unseen_parts.Identification),
    (Further, summary_parts.Further),
    (SpeakerMeans, unseen_parts.SpeakerMeans),
    (Tail, summary_parts.Tail),
)
OLD = Path(__file__).with_name("report-0.1.0.json")
UNMEASURED = {  # keys that depend on the run
    "Uar": {"seeds", "deviation"},  # of groups
    "SelectedEpoch": {"adversary_accuracy"},
    "Emotion": {"refit", "near_copies", "known_by_copies", "by_telephone", "votes", "dimensions"},
    "Speaker": {
        "rate_bits",
        "learned",
        "outputs",
        "adversary_head",
        "near_copies",
        "sample",
        "certificate",
        "given",
        "predicted_emotion",
    },  # of tables, and of codes
    "AttackerScore": {"converged"},  # of older versions
}


def parts_of(value) -> list[Part]:
    """A part of a report with all parts inside it."""
    if isinstance(value, Part):
        return [value, *(inner for _, field in value for inner in parts_of(field))]
    if isinstance(value, dict):
        return [inner for item in value.values() for inner in parts_of(item)]
    return [inner for item in value for inner in parts_of(item)] if isinstance(value, list) else []


def write(folder: Path, content) -> Path:
    """A run folder with this report."""
    (folder / "report").mkdir(parents=True, exist_ok=True)
    write_json(folder / "report" / "report.json", content)
    return folder


@pytest.mark.parametrize(("computed", "part"), PARTS, ids=lambda kind: kind.__name__)
def test_a_part_has_the_fields_of_what_is_computed(computed, part):
    assert [field.name for field in fields(computed)] == list(part.model_fields)


@pytest.fixture(scope="module")
def evaluated(trained, prepared, tmp_path_factory):
    """A small run, evaluated and compared with a copy; each utterance has three votes for its label and one for another."""
    texts = {u.id: as_text({u.emotion: 3, "level" if u.emotion == "rising" else "rising": 1}) for u in prepared.utterances}
    prepared = replace(prepared, utterances=[replace(u, votes=texts[u.id]) for u in prepared.utterances])
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    run = type(trained).open(shutil.copytree(trained.folder, folder))
    first = evaluate(run, prepared, "cpu", quick=True)
    write_report(first.report, folder / "report")
    copy = type(trained).open(shutil.copytree(folder, folder.with_name("copy")))
    return evaluate(run, prepared, "cpu", quick=True, against=copy, by=("text",))


@pytest.mark.parametrize(
    "report", [run_report(), against_report(), seeded_report(), demo_report(), table_report()], ids=lambda report: report.run
)
def test_the_invented_reports_have_exactly_the_keys_of_the_model(report):
    for part in parts_of(report):
        missing = set(type(part).model_fields) - part.model_fields_set
        assert not part.model_extra and missing <= UNMEASURED.get(type(part).__name__, set()), part


def test_an_evaluation_writes_exactly_the_keys_of_the_model(evaluated):
    parts = parts_of(evaluated.report)
    assert {"Uar", "Against", "Speaker", "Fold", "Scorer", "Control", "AuditRecord"} <= {type(part).__name__ for part in parts}
    for part in parts:
        missing = set(type(part).model_fields) - part.model_fields_set
        assert not part.model_extra and missing <= UNMEASURED.get(type(part).__name__, set()), part


def test_votes_of_annotators_are_scored_and_printed(evaluated, capsys):
    emotion = evaluated.report.emotion
    votes = emotion.votes
    assert votes.label_is_majority == 1 and votes.utterances == emotion.utterances
    assert votes.kl == pytest.approx(votes.cross_entropy - 0.811278)  # the entropy of 3/4 and 1/4
    assert votes.single_annotator.votes == 4 * votes.utterances
    show_evaluation(evaluated.report)
    printed = capsys.readouterr().out
    assert "a single annotator, UAR against the others" in printed and "Jensen-Shannon divergence" in printed
    assert votes_table(emotion, votes).rows[1][0] == "UAR of a single annotator, against the others"


def test_a_written_report_is_read_back_equal(evaluated, tmp_path):
    write_report(evaluated.report, tmp_path / "report")
    assert read_report(tmp_path) == evaluated.report


def test_a_report_of_version_0_1_0_is_written_back_byte_for_byte(tmp_path):
    report = read_report(write(tmp_path, json.loads(OLD.read_text(encoding="utf-8"))))
    assert report.settings.versions["speaker-invariant-ser"] == "0.1.0" and report.against.run == "baseline"
    write_json(tmp_path / "again.json", report.to_json())
    assert (tmp_path / "again.json").read_bytes() == OLD.read_bytes()


def test_importing_the_model_does_not_import_torch():
    code = "import sys; import speaker_invariant_ser.evaluation.summary; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_keys_of_older_and_newer_versions_are_neither_invented_nor_dropped():
    content = run_report().to_json()
    del content["emotion"]["uar"]["seeds"], content["speaker"]["learned"], content["settings"]["transductive"]
    content["speaker"]["later"] = {"number": 1}
    report = RunReport.model_validate(content)
    assert report.to_json() == content
    assert (report.emotion.uar.seeds, report.speaker.learned, report.transductive) == ({}, "all", False)


def test_null_stays_null():
    content = demo_report().to_json()
    assert content["emotion"]["uar"]["low"] is None and content["against"] is None and content["speaker"]["unseen"] is None
    assert TableReport.model_validate(table_report().to_json()).to_json()["emotion"] is None


def test_a_comparison_puts_pareto_first_and_keeps_every_report():
    reports = [run_report("a", 0.7, 0.5), run_report("b", 0.6, 0.6)]
    runs = ComparisonReport.of(reports, [0]).to_json()["runs"]
    assert [next(iter(run)) for run in runs] == ["pareto", "pareto"] and [run.pop("pareto") for run in runs] == [True, False]
    assert runs == [report.to_json() for report in reports]


def test_a_run_without_a_report_is_refused(tmp_path):
    with pytest.raises(
        RunError, match=f"{tmp_path} has no report/report.json: evaluate it first with `siser evaluate {tmp_path}`"
    ):
        read_report(tmp_path)


@pytest.mark.parametrize("key", ["run", "emotion.uar.value", "speaker.strongest.name", "settings.audit.quick"])
def test_a_missing_key_is_named(key, tmp_path):
    content = run_report().to_json()
    *parents, last = key.split(".")
    table = content
    for name in parents:
        table = table[name]
    del table[last]
    with pytest.raises(RunError, match=f"report.json is damaged or of another version, it has no {key}: evaluate it again with"):
        read_report(write(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"run": "x', "Unterminated string"),
        ("[]", "Input should be an object"),
        (json.dumps({**run_report().to_json(), "note": 3}), r"note = 3: Input should be a valid string"),
        (json.dumps({**run_report().to_json(), "emotion": None}), "emotion = None: Input should be an object"),
    ],
    ids=["empty", "cut short", "a list", "a number for a text", "of a table"],
)
def test_a_damaged_report_is_refused(text, reason, tmp_path):
    path = write(tmp_path, {}) / "report" / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=rf"report.json is damaged \(.*{reason}.*\): evaluate it again with `siser evaluate"):
        read_report(tmp_path)
