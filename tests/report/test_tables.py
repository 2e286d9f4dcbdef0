"""Tables that the report and the console share."""

import re
from statistics import fmean

import pytest
from reports import (
    against_report,
    baseline_report,
    baseline_results,
    changed,
    run_report,
    seeded_report,
    table_report,
    unavailable_baseline,
)

from speaker_invariant_ser.cli.console import show_baseline, show_comparison, show_evaluation, show_speaker
from speaker_invariant_ser.evaluation.summary import RunReport
from speaker_invariant_ser.evaluation.summary_parts import AdversaryClassifier
from speaker_invariant_ser.report.formatting import percent
from speaker_invariant_ser.report.sections.comparison_table import comparison_table, pareto_front
from speaker_invariant_ser.report.sections.paired import run_row
from speaker_invariant_ser.report.table import Table, cell
from speaker_invariant_ser.report.tables import (
    adversary_table,
    attackers_table,
    chance_table,
    classifiers_table,
    key_table,
    mark_transductive,
    not_tried,
    run_name,
)
from speaker_invariant_ser.report.unseen_tables import clips_table, unseen_table
from speaker_invariant_ser.report.write import write_comparison, write_report


def cells_of(table: Table) -> set[str]:
    return {text for row in (table.head, *table.rows) for text in row if text}


def words(text: str) -> list[str]:
    return re.sub(r"[─\s]+", " ", text).split()


def assert_on_console(table: Table, printed: str) -> None:
    """Every word of the table is on the console, as often as the table has it or more: long cells are wrapped."""
    printed_words = words(printed)
    for word in {word for text in cells_of(table) for word in text.split()}:
        wanted = sum(text.split().count(word) for row in (table.head, *table.rows) for text in row)
        assert printed_words.count(word) >= wanted, word


def assert_in_markdown(table: Table, markdown: str) -> None:
    for row in (table.head, *table.rows):
        assert f"| {' | '.join(cell(text) for text in row)} |" in markdown


@pytest.mark.parametrize("report", [against_report(), seeded_report()], ids=["one seed", "three seeds"])
def test_the_console_prints_the_tables_of_the_report(report, tmp_path, capsys):
    markdown = (write_report(report, tmp_path / "report").parent / "report.md").read_text(encoding="utf-8")
    show_evaluation(report)
    printed = capsys.readouterr().out
    unseen, clips = unseen_table(report.speaker.unseen), clips_table(report.speaker)
    for table in (key_table(report), attackers_table(report.speaker), chance_table(report.speaker), unseen, clips):
        assert_in_markdown(table, markdown)
        assert_on_console(table, printed)
    assert all(sentence in printed for sentence in report.verdict)
    assert "27.7 %" in printed and "not evidence" in printed


def test_the_console_prints_the_attackers_of_a_table(capsys):
    speaker = changed(table_report(), speaker__not_tried={"frames": "needs frame-level features"}).speaker
    show_speaker(speaker)
    printed = capsys.readouterr().out
    assert_on_console(attackers_table(speaker), printed)
    assert "not tried: frames (needs frame-level features)" in printed and "not evidence" not in printed


def test_the_console_prints_the_comparison_of_the_report(tmp_path, capsys):
    reports = [run_report("first", 0.7, 0.5), run_report("[second]", 0.6, 0.6)]
    table = comparison_table(reports, [run_name(report) for report in reports], pareto_front(reports))
    markdown = (write_comparison(reports, tmp_path / "report").parent / "report.md").read_text(encoding="utf-8")
    assert_in_markdown(table, markdown)
    show_comparison(reports)
    assert_on_console(table, capsys.readouterr().out)


def test_the_key_table_has_value_interval_and_chance():
    rows = {row[0]: row[1:] for row in key_table(run_report()).rows}
    assert rows["emotion UAR, unseen speakers, pooled"] == ["73.5 %", "68.5 to 78.5 %", "14.3 %"]
    assert rows["emotion UAR, unseen speakers, mean over speakers"] == ["71.3 %", "65.3 to 77.3 %", "14.3 %"]
    assert rows["speaker accuracy, strongest attacker (svm)"] == ["70.8 %", "65.8 to 75.8 %", "21.4 %"]
    assert rows["verification, equal error rate"] == ["31.0 %", "26.0 to 36.0 %", "50.0 %"]


def test_the_table_of_clips_has_a_row_for_each_number_of_clips():
    one, five, ten = clips_table(run_report().speaker).rows
    assert one == ["1", "70.8 %", "65.8 to 75.8 %", "21.0 %", "370", "31.0 %", "26.0 to 36.0 %"]
    assert five[0] == "5" and ten == ["10", *["-"] * 6]
    unmeasured = [{"clips": 1, "identification": None, "verification": None}]
    assert clips_table(changed(run_report(), speaker__clips=[]).speaker) is None
    assert clips_table(changed(run_report(), speaker__clips=unmeasured).speaker) is None


def test_attackers_are_ranked_below_the_strongest():
    table = attackers_table(run_report().speaker)
    accuracies = [float(row[1].split()[0]) for row in table.rows[1:]]
    assert table.strong == [0] and table.rows[0][0].startswith("strongest") and accuracies == sorted(accuracies, reverse=True)
    assert table.rows[-1][0] == "frames (frame-level features)"


@pytest.mark.parametrize(("at_chance", "text"), [(True, "yes"), (False, "no"), ("undecided", "undecided")])
def test_the_comparison_says_whether_attackers_are_at_chance(at_chance, text):
    (row,) = comparison_table([changed(run_report(), at_chance=at_chance, baseline=None)], ["run"], []).rows
    assert row[9] == text


@pytest.mark.parametrize(("at_chance", "reason", "text"), [(True, "within", "yes"), ("undecided", "quick", "undecided")])
def test_the_comparison_says_that_several_clips_reveal_speakers(at_chance, reason, text):
    report = changed(run_report(), at_chance=at_chance, speaker__at_chance=at_chance, speaker__reason=reason, baseline=None)
    (row,) = comparison_table([report], ["run"], []).rows
    assert row[9] == f"{text}, but speakers are revealed by several utterances of one person and verification"


def test_the_paired_comparison_gives_the_chance_of_both_attackers():
    report = against_report()
    assert report.against and report.against.speaker
    report = changed(report, against__speaker__chance__given_emotion=0.09)
    rows = [run_row(run.run, run, 0.5) for run in (report, report.against)]
    assert [row[-1] for row in rows] == ["21.4 %", "9.0 %"]


def test_a_transductive_table_says_so_in_its_first_header():
    table = Table(["measure", "value"], [["UAR", "70.0 %"]], strong=[0])
    assert mark_transductive(table).head == ["measure (transductive)", "value"] and mark_transductive(table).strong == [0]


@pytest.mark.parametrize(
    "accuracy, target, said",
    [
        (0.05, "speaker", "5.0 % (below chance, 14.3 %)"),
        (0.13, "speaker", "13.0 % (at chance, 14.3 %)"),
        (0.277, "speaker", "27.7 % (above chance, 14.3 %)"),
        (0.05, "sex", "5.0 %"),
    ],
)
def test_the_adversarys_accuracy_is_set_against_chance(accuracy, target, said):
    classifier = AdversaryClassifier(accuracy=accuracy, target=target, evidence=False)
    report = changed(run_report(), speaker__adversary_head=classifier)
    assert adversary_table(report.speaker).rows == [[f"{target}, in training", said]]
    assert comparison_table([report], ["run"], []).rows[0][-1] == said.replace(", 14.3 %", "")


def test_attackers_that_were_not_tried_for_one_reason_are_one_line():
    speaker = changed(table_report(), speaker__not_tried={"svm": "quick", "frames": "no frames", "mlp": "quick"}).speaker
    assert not_tried(speaker) == ["not tried: svm, mlp (quick)", "not tried: frames (no frames)"]


def test_the_baseline_stands_beside_the_network():
    rows = {row[0]: row[1:] for row in key_table(run_report()).rows}
    assert rows["prosody baseline (no network), emotion UAR, pooled"] == ["68.9 %", "63.9 to 73.9 %", "14.3 %"]
    assert rows["prosody baseline (no network), emotion UAR, mean over speakers"][0] == "64.4 %"
    assert rows["prosody baseline (no network), emotion UAR, worst speaker (16)"][0] == "59.9 %"
    assert rows["prosody baseline (no network), speaker accuracy, closed-form attackers (logistic)"] == [
        "34.9 %",
        "29.9 to 39.9 %",
        "21.4 %",
    ]


def test_a_baseline_that_could_not_be_computed_says_why(capsys):
    report = changed(run_report(), baseline=unavailable_baseline())
    (name,) = [row[0] for row in key_table(report).rows if row[0].startswith("prosody")]
    assert name == "prosody baseline (no network): not computed, torchaudio does not fit torch"
    show_evaluation(report)
    assert "not computed, torchaudio does not fit torch" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("baseline", [None, unavailable_baseline()], ids=["not asked for", "unavailable"])
def test_without_a_baseline_no_number_of_one_is_shown(baseline, tmp_path):
    report = changed(run_report(), baseline=baseline)
    markdown = (write_report(report, tmp_path / "report").parent / "report.md").read_text(encoding="utf-8")
    assert "68.9 %" not in markdown and ("Not computed" in markdown) == (baseline is not None)
    assert len(comparison_table([report], ["run"], []).rows) == 1


def test_runs_that_share_their_folds_share_a_row_of_the_comparison():
    other = baseline_results(["03", "08"], 0.4)
    reports = [run_report("a"), run_report("b"), changed(run_report("c"), baseline=other)]
    rows = comparison_table(reports, ["a", "b", "c"], [0]).rows
    baseline = "prosody baseline (no network)"
    assert [row[0] for row in rows] == ["a", "b", "c", f"{baseline}, beside a, b", f"{baseline}, beside c"]
    assert comparison_table(reports[:2], ["a", "b"], [0]).rows[2][0] == baseline
    assert [row[6] for row in rows[3:]] == ["34.9 % (logistic)", "40.0 % (logistic)"]
    assert {len(row) for row in rows} == {11}


def test_a_report_of_an_older_version_shows_the_mean_over_speakers_without_an_interval():
    content = run_report().to_json()
    del content["emotion"]["uar_mean_over_speakers"], content["baseline"]
    old = RunReport.model_validate(content)
    (row,) = [row for row in key_table(old).rows if "mean over speakers" in row[0]]
    expected = fmean(result.uar for result in old.emotion.per_speaker.values())
    assert row[1:3] == [percent(expected), "-"] and not any("baseline" in row[0] for row in key_table(old).rows)


def test_the_console_prints_both_classifiers_of_a_baseline(capsys):
    report = baseline_report()
    show_baseline(report)
    printed = capsys.readouterr().out
    assert_on_console(classifiers_table(report.baseline), printed)
    assert_on_console(attackers_table(report.speaker), printed)


def test_the_page_of_a_baseline_has_its_emotion_results(tmp_path):
    markdown = (write_report(baseline_report(), tmp_path / "report").parent / "report.md").read_text(encoding="utf-8")
    assert_in_markdown(classifiers_table(baseline_report().baseline), markdown)
    assert "## Prosody baseline" in markdown and "22 features" in markdown and "hyperparameters were fixed beforehand" in markdown
    assert "| 03 | 65.6 % | 68.9 % | 50 |" in markdown
