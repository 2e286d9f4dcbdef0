"""The report page, its Markdown and its plots, for invented reports; test_browser.py looks at them in a browser."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from reports import (
    HASH,
    against_report,
    attacker,
    baseline_report,
    calibration,
    changed,
    control,
    curves,
    demo_report,
    points,
    run_report,
    run_settings,
    seeded_report,
    selected_epoch,
    table_report,
    with_judge,
)

from speaker_invariant_ser.cli.console import show_answers, show_comparison
from speaker_invariant_ser.evaluation.summary import PLOTS, RunReport, SpeakerDifference
from speaker_invariant_ser.evaluation.summary_parts import SpeakerResult, Uar
from speaker_invariant_ser.report.figure import Plot, label, save
from speaker_invariant_ser.report.formatting import interval, percent
from speaker_invariant_ser.report.palette import COLOURS, INK
from speaker_invariant_ser.report.plots import Points, Score, TradeoffChance, TradeoffPoint, plot_gradients, plot_tradeoff
from speaker_invariant_ser.report.sections import training
from speaker_invariant_ser.report.sections.blocks import Plots, Section, Text
from speaker_invariant_ser.report.sections.comparison_table import pareto_front
from speaker_invariant_ser.report.sections.emotion import results_section, speakers_section
from speaker_invariant_ser.report.sections.paired import paired_section
from speaker_invariant_ser.report.sections.speaker import about_tails
from speaker_invariant_ser.report.sections.training import TIMES, about_time, map_section, training_section
from speaker_invariant_ser.report.table import cell
from speaker_invariant_ser.report.write import write_comparison, write_report

NASTY = '<b>&"$x_1$|*'
ALWAYS = {"verdict", "confusion", "speakers", "calibration", "attackers"}


class Page(HTMLParser):
    """Tags with attributes, ids, headings and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One report of each kind, with the text of its files."""
    folder = tmp_path_factory.mktemp("reports")
    run, demo, seeded = against_report(), demo_report(), seeded_report()
    pages = {
        "run": write_report(run, folder / "run", curves(list(run.emotion.folds)), points()),
        "demo": write_report(demo, folder / "demo", curves(["fixed"], 1)),
        "table": write_report(table_report(), folder / "table"),
        "seeds": write_report(seeded, folder / "seeds", curves(list(seeded.emotion.folds)), points()),
    }
    return {kind: Written(page) for kind, page in pages.items()}


class Written:
    def __init__(self, page) -> None:
        self.folder, self.html = page.parent, page.read_text(encoding="utf-8")
        self.page = Page(self.html)
        self.markdown = (self.folder / "report.md").read_text(encoding="utf-8")


def write(folder, report, *more) -> Written:
    return Written(write_report(report, folder / "report", *more))


def tables(markdown: str) -> list[list[str]]:
    """The tables of a Markdown text, each a list of its lines."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.M)]


@pytest.mark.parametrize("kind", ["run", "demo", "table", "seeds"])
def test_the_page_needs_nothing_from_outside(written, kind):
    page = written[kind].page
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", written[kind].html)
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object"} == set()
    assert all(target.startswith(("#", "data:,")) for target in page.all("href"))
    assert all(target[1:] in page.all("id") for target in page.all("href") if target != "data:,")


@pytest.mark.parametrize("kind", ["run", "demo", "table", "seeds"])
def test_ids_are_unique_and_every_reference_has_its_target(written, kind):
    ids = written[kind].page.all("id")
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", written[kind].html)) <= set(ids)


@pytest.mark.parametrize("kind", ["run", "demo", "table", "seeds"])
def test_headings_do_not_skip_a_level(written, kind):
    levels = [int(tag[1]) for tag, _ in written[kind].page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("kind", ["run", "demo", "table", "seeds"])
def test_markdown_tables_are_well_formed_and_plots_are_there(written, kind):
    all_tables = tables(written[kind].markdown)
    assert len(all_tables) >= 4
    for lines in all_tables:
        assert re.fullmatch(r"\|(---\|)+", lines[1])
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {lines[1].count("|")}
    plots = re.findall(r"\((\S+\.png)\)", written[kind].markdown)
    assert sorted(plots) == sorted(path.name for path in written[kind].folder.glob("*.png"))
    assert all((written[kind].folder / name).read_bytes().startswith(b"\x89PNG") for name in plots)


def test_the_first_screen_holds_verdict_plot_and_numbers_before_the_contents(written):
    page = written["run"].html
    first = page[: page.index("<nav")]
    assert all(sentence in Page(first).text for sentence in against_report().verdict)
    assert first.count("<svg") == 1 and "emodb-baseline" in first
    texts = ['class="badge leaks">leaks<', "a large leak, 63 % of the way", "UAR, unweighted average recall", "73.5 %"]
    positions = [first.index(text) for text in texts]
    assert positions == sorted(positions), "conclusion and answers come before the numbers, UAR is explained where it is first"
    assert "70.8" in first and "21.4" in first
    assert "Corpus emodb, 506 test utterances of 10 speakers; evaluated on 2026-11-29 with speaker-invariant-ser 0.1.0." in first


@pytest.mark.parametrize(
    "report, said",
    [
        (demo_report(), "UNDECIDED: It is undecided whether"),
        (table_report(), "AT CHANCE: From one utterance, no speaker is identified better than by chance."),
        (changed(table_report(), speaker__reason="below", at_chance=False), "LEAKS: The embedding identifies speakers: an"),
        (
            changed(run_report(), settings__audit__quick=True),
            "speaker-invariant-ser 0.1.0; closed-form attackers only (--quick).",
        ),
        (table_report(), "Table egemaps.csv: 535 utterances, 88 dimensions; evaluated on 2026-11-29."),
        (baseline_report(), "unseen speakers is recognised for about 7 of 10"),
        (baseline_report(), "Baseline emodb-prosody: 535 utterances, 88 dimensions"),
    ],
)
def test_the_answer_is_the_first_thing_in_every_report_and_on_the_console(report, said, tmp_path, capsys):
    assert said in (write_report(report, tmp_path / "report").parent / "report.md").read_text().partition("|")[0]
    show_answers(report)
    assert said in capsys.readouterr().out


def test_the_report_has_every_measurement(written):
    for text in (written["run"].page.text, written["run"].markdown):
        for said in ("370 decisions", "26.4 %", "1,000 permutations", "10 texts", "plus 3 points", "1.52 of 2.81"):
            assert said in text
        for said in (
            "Confusion",
            "Controls",
            "untrained encoder",
            "EER, all pairs",
            "C_llr^min",
            "trained (semi-informed)",
            "In the words of the VoicePrivacy challenges",
            "Several utterances of one person",
            "equal error rate, clipped, most exposed speaker (08)",
            "rank of the true speaker among 3, mean over 10 speakers",
            "linkability",
            "temperature",
            HASH,
            "2.13.0",
        ):
            assert said in text
        for said in ("undecided: too few speakers", "-1.6 points", "-4.1 to +0.8 points", "macro F1", "female", "8.3 points"):
            assert said in text
    assert {path.stem for path in written["run"].folder.glob("*.png")} == ALWAYS | {
        "differences",
        "controls",
        "map-emotion",
        "map-speaker",
        "losses",
        "accuracies",
    }


def test_a_judge_is_the_ceiling_of_controls_and_verification(tmp_path, written):
    rows = (
        "| ceiling: the recording itself (judge) | 99.0 % |",
        "| ceiling: the recording itself (judge, unprotected) | 2.0 % | 0.0 to 7.0 % | 1.0 % | 3.0 % | 0.08 | 0.97 |",
        "| the recording itself (judge), equal error rate | 2.0 % | 0.0 to 7.0 % | 50.0 % |",
        "| linkage to voice prints, AUC | 77.0 % | 72.0 to 82.0 % | 50.0 % |",
        "| linkage to voice prints, equal error rate | 30.0 % | 25.0 to 35.0 % | 50.0 % |",
    )
    judged = write(tmp_path, with_judge(run_report())).markdown
    assert all(row in judged for row in rows) and "voice prints made of other recordings" in judged
    assert not any(row in written["run"].markdown for row in rows) and "learned on other speakers" not in written["run"].markdown


@pytest.mark.parametrize("kind", ["run", "demo"])
def test_the_adversarys_accuracy_appears_once_and_is_no_evidence(written, kind):
    for text in (written[kind].page.text, written[kind].markdown):
        assert text.count("27.7 %") == 1
        assert re.search(r"Not evidence:[^.]*27\.7 %", text)


def test_scoring_on_training_utterances_is_a_warning_before_the_plot(written):
    demo, run = written["demo"].html, written["run"].html
    assert demo.index('class="warning"') < demo.index("<svg") and "audit.holdout" in demo
    assert 'class="warning"' not in run and "audit.holdout" not in written["run"].markdown
    assert "> Warning:" in written["demo"].markdown


def test_several_seeds_are_shown_with_their_deviation(written):
    seeded, run = written["seeds"], written["run"]
    for text in (seeded.page.text, seeded.markdown):
        assert "68.5 to 78.5 %, SD over 3 seeds 1.2" in text, "compared with the baseline of one seed"
        assert "73.5 % (68.5 to 78.5 %), SD over 3 seeds 1.2" in text
        assert "65.8 to 75.8 %, SD over 3 seeds 2.7" in text
        assert "Each fold was trained from 3 seeds" in text and "in 10 folds" in text and "30 encoders" in text
        assert "Its accuracy is 70.8 %, SD over 3 seeds 2.7." in text
        assert "counted 3 times" in text and "31, 32, 33" in text and "77.0 %, 76.0 %, 75.0 %" in text
    rows = tables(seeded.markdown)[0]
    assert rows[3] == "| SD over 3 seeds, points | 1.2 |  |  |" and rows[2].startswith("| emotion UAR")
    assert rows[10] == "| SD over 3 seeds, points | 2.7 |  |  |" and rows[9].startswith("| speaker accuracy, strongest")
    for text in (run.page.text, run.markdown):
        assert "seeds" not in text.replace("train.seeds", "").partition("Settings")[0] and "counted" not in text
    clips = [re.search(r"^\| angry \|.*\| ([\d,]+) \|$", report.markdown, flags=re.M)[1] for report in (seeded, run)]
    assert clips[0] == clips[1], "utterances are counted once in the table"


def test_the_note_is_shown_only_if_there_is_one(written):
    assert demo_report().note in written["demo"].html[: written["demo"].html.index("<svg")]
    assert 'class="note"' not in written["run"].html


def test_undefined_values_are_marked_as_such(written):
    text = written["demo"].page.text
    assert "none: fewer than 3 speakers" in text and "Not measured" in text and "Result: undecided" in text
    assert "would probably miss" not in text and "s99" in text and "Controls" not in text and "log2 K" not in text


def test_an_emotion_that_no_test_speaker_shows_is_not_counted_in_uar():
    report = run_report()
    known = len(report.emotion.per_class)
    without = {name: None if n == 0 else recall for n, (name, recall) in enumerate(report.emotion.per_class.items())}
    for each, said in (
        (report, f"mean recall of the {known} emotions."),
        (changed(report, emotion__per_class=without), f"mean recall of the {known - 1} emotions that occur here, of {known}."),
    ):
        text = results_section(each.emotion).blocks[0]
        assert isinstance(text, Text) and said in text.text


def test_the_speaker_who_stands_out_is_not_called_the_best_recognised_one():
    """It is chosen by deviations from chance: others, who are named more often by chance, can have a larger recall."""
    text = about_tails(run_report().speaker)
    assert "Speaker that stands out most from chance: 03, " in text and "ecognised" not in text


def test_a_table_of_embeddings_has_the_speaker_part_alone(written):
    text = written["table"].page.text
    assert "untrained" not in text and "log-mel" not in text and "unseen by the encoder" not in text
    assert "the speaker is at chance" in text and "the table does not say" in text and "egemaps.csv" in text
    assert not {"Training", "Confusion", "Not evidence"} & set(re.split(r"[\n:]", text))
    assert written["table"].html.count("<svg") == 2
    assert json.loads((written["table"].folder / "report.json").read_text())["emotion"] is None


def test_report_json_is_the_report(written):
    assert json.loads((written["run"].folder / "report.json").read_text(encoding="utf-8")) == against_report().to_json()


@pytest.mark.parametrize(
    "value, said", [(True, "yes: not worse"), (False, "no: worse"), ("undecided", "undecided: too few speakers")]
)
def test_non_inferiority_is_a_sentence(value, said):
    report = against_report(value)
    assert rows_of(paired_section(report, report.against))["non-inferior, margin 1 point"].startswith(said)


def rows_of(section: Section) -> dict[str, str]:
    """Return the first and the second column of the tables next to a section's plots."""
    tables = [block.table for block in section.blocks if isinstance(block, Plots)]
    return {row[0]: row[1] for table in tables for row in table.rows}


def test_one_speaker_on_either_side_leaves_no_interval(tmp_path):
    report = changed(
        against_report(),
        against__difference={"value": 0.02, "low": None, "high": None},
        against__p_value=None,
        against__lower_bound=None,
        against__effect_size=None,
        against__per_speaker={"03": SpeakerDifference(this=0.7, other=0.68, difference=0.02)},
    )
    section = paired_section(report, report.against)
    rows = rows_of(section)
    assert rows["mean difference of the speakers' UARs"] == "+2.0 points"
    assert [value for value in rows.values() if value == "-"] == ["-"] * 4


@pytest.mark.parametrize("speakers, said", [(4, "0.125 (not below 0.125 with 4 speakers)"), (10, "0.125")])
def test_few_speakers_limit_the_p_value_of_a_sign_flip_test(speakers, said, tmp_path):
    report = changed(against_report(), against__p_value=0.125, against__speakers=speakers)
    section = paired_section(report, report.against)
    rows = rows_of(section)
    assert rows["p, sign-flip permutation test"] == said
    save(next(block for block in section.blocks if isinstance(block, Plots)).plots[0], tmp_path)


def test_runs_of_other_data_under_one_name_are_noted(tmp_path):
    first, second, other = run_report("a"), run_report("b"), run_report("c")
    hashes = other.settings.data_sha256 | {"manifest.csv": "0" * 64}
    note = "of another corpus with the same name: a, b; c. Their numbers may not be comparable."
    assert (
        note in Written(write_comparison([first, second, changed(other, settings__data_sha256=hashes)], tmp_path / "o")).page.text
    )
    assert "another corpus" not in Written(write_comparison([first, second, other], tmp_path / "same")).page.text


def test_a_comparison_warns_where_some_attackers_had_fewer_utterances_to_learn_from(tmp_path):
    plain, other = against_report(), run_report("other")
    erased = changed(plain, speaker__learned="held-out")
    warned = "learned from held-out utterances alone, since an eraser was fitted on the others"
    assert warned not in Written(write_comparison([plain, other], tmp_path / "alike")).page.text
    assert warned not in Written(write_report(plain, tmp_path / "plain")).page.text
    assert warned in Written(write_comparison([erased, other], tmp_path / "mixed")).page.text
    assert warned in Written(write_report(erased, tmp_path / "erased")).page.text


def nasty_report() -> RunReport:
    """Names that are markup everywhere."""
    text = json.dumps(against_report().to_json())
    for old in ("emodb-grl", "emodb-baseline", "angry", '"03"', "svm", "female"):
        name = f"{old} {NASTY}" if old != '"03"' else f"03 {NASTY}"
        text = text.replace(json.dumps(old.strip('"')), json.dumps(name))
    return RunReport.model_validate({**json.loads(text), "note": NASTY, "verdict": [NASTY, NASTY]})


def test_markup_in_names_is_shown_as_text(tmp_path):
    first = points(3, 60)
    embedding_map = Points(first.position, np.where(first.emotion == "sad", NASTY, first.emotion), first.speaker)
    shown = write(tmp_path, nasty_report(), {}, embedding_map)
    for name in (f"emodb-grl {NASTY}", f"03 {NASTY}", f"angry {NASTY}", f"svm {NASTY}", f"female {NASTY}"):
        assert name in shown.page.text
    assert ("b", {}) not in shown.page.tags
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", shown.html, flags=re.S)]
    drawn = [element.text for svg in drawings for element in svg.iter("text")]
    assert {f"03 {NASTY}", NASTY} <= set(drawn)
    assert "<b>" not in shown.markdown and '&lt;b&gt;&amp;"\\$x_1\\$\\|\\*' in shown.markdown
    assert all(
        {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {lines[1].count("|")} for lines in tables(shown.markdown)
    )


@pytest.mark.parametrize("text", ["_hidden", "line\nbreak", "nul\x00", "漢字", "x" * 300, ""])
def test_any_label_can_be_drawn(tmp_path, text):
    result = SpeakerResult(uar=0.5, accuracy=0.5, utterances=3)
    emotion = run_report().emotion.model_copy(update={"per_speaker": {text: result}})
    embedding_map = Points(np.zeros((2, 2)), np.array([text, "b"]), np.array(["s", "t"]))
    for section in (speakers_section(emotion), map_section(embedding_map)):
        svg = ElementTree.fromstring(save(section.blocks[-1].plots[0], tmp_path))
        assert label(text, 14).strip()[:13] in "".join(svg.itertext())


def test_many_speakers_folds_and_attackers_stay_readable(tmp_path):
    names = [f"speaker{number:03}" for number in range(300)]
    folds = [fold.model_copy(update={"train": [*names]}) for fold in run_settings(names, names).folds]
    report = changed(
        against_report(),
        emotion__per_speaker={
            name: SpeakerResult(uar=0.5 + number / 1000, accuracy=0.5, utterances=9) for number, name in enumerate(names)
        },
        emotion__calibration=calibration(names),
        emotion__folds={name: selected_epoch(name) for name in names},
        against__per_speaker={name: SpeakerDifference(this=0.5, other=0.4, difference=0.1) for name in names},
        speaker__attackers={f"attacker{number}": attacker(0.1 + number / 100) for number in range(40)},
        settings__folds=folds,
    )
    shown = write(tmp_path, report)
    assert len(shown.html) < 500_000
    assert (
        "All 300 speakers" in shown.html
        and "The 15 strongest of 40" in shown.html
        and "300 speakers, highest UAR at the top" in shown.html
    )
    heights = [float(box.split()[3]) for box in re.findall(r'viewBox="([^"]+)"', shown.html)]
    assert max(heights) < 600


def test_the_page_is_the_same_each_time(tmp_path):
    pages = [write_report(table_report(), tmp_path / name, {}, points()) for name in ("one", "two")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_drawings_use_the_pages_text_colour_and_have_a_text_alternative(tmp_path):
    svg = save(Plot("two", 'a <b> "c"', lambda axes: axes.plot([0, 1], color=INK)), tmp_path)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == root.find("title").text == 'a <b> "c"'
    assert "currentColor" in svg and INK not in svg and "width" not in root.attrib
    assert all(element.get("id", "two-").startswith("two-") for element in root.iter())


def luminance(colour: str) -> float:
    """Relative luminance 0..1 of "#rrggbb", as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("background", ["#fdfdfc", "#14181c"])
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_from_light_and_dark(written, colour, background):
    assert f"--page: {background}" in written["run"].html
    low, high = sorted((luminance(colour), luminance(background)))
    assert (high + 0.05) / (low + 0.05) >= 3


def test_labels_are_one_short_line():
    assert label("a\nb") == "a b" and label("_a") == " _a" and label("x" * 30, 5) == "xxxx…"


def test_numbers_in_words():
    assert percent(0.1234) == "12.3 %" and percent(None) == "-"
    assert interval(Uar(value=0.2, low=0.1, high=0.25)) == "10.0 to 25.0 %"
    assert interval(Uar(value=0.2, low=None, high=None)) == "none: fewer than 3 speakers"
    assert interval(control(0.3).model_copy(update={"low": None})) == "none: fewer than 3 texts"
    assert cell("a|b\nc") == "a\\|b c" and cell("random_encoder") == "random_encoder"


def runs(*scores: tuple[float, float]) -> list[RunReport]:
    """Reports with these (UAR, accuracy of the strongest attacker)."""
    return [run_report(f"run{number}", uar, leakage) for number, (uar, leakage) in enumerate(scores)]


def test_a_run_is_on_the_front_unless_another_beats_it_in_both():
    assert pareto_front(runs((0.7, 0.8), (0.6, 0.5), (0.6, 0.8), (0.5, 0.6), (0.7, 0.9))) == [0, 1]


def test_equal_runs_are_both_on_the_front():
    assert pareto_front(runs((0.7, 0.8), (0.7, 0.8), (0.65, 0.8))) == [0, 1]


def test_the_front_is_that_of_the_definition():
    """No other run has both a higher UAR and lower leakage; with no ties that is all there is to it."""
    rng = np.random.default_rng(0)
    scores = [tuple(score) for score in rng.uniform(0.2, 0.8, (40, 2))]
    front = [n for n, (uar, leakage) in enumerate(scores) if not any(u > uar and s < leakage for u, s in scores)]
    assert pareto_front(runs(*scores)) == front and 0 < len(front) < 40


def test_the_comparison_marks_the_front(tmp_path):
    many = runs((0.7, 0.8), (0.6, 0.5), (0.6, 0.8))
    shown = Written(write_comparison(many, tmp_path / "comparison"))
    assert [row for row in tables(shown.markdown)[0][2:] if "| yes | " in row.split("%")[0]] == tables(shown.markdown)[0][2:4]
    assert shown.html.count('class="strong"') == 2 and "Pareto front: 2 of 3 runs" in shown.html
    assert [run["pareto"] for run in json.loads((shown.folder / "report.json").read_text())["runs"]] == [True, True, False]
    assert "not evidence" in shown.page.text and "(tradeoff.png)" in shown.markdown and (shown.folder / "tradeoff.png").is_file()


def test_runs_of_several_seeds_and_older_ones_are_compared(tmp_path):
    """A report of a former version has no seeds at all."""
    content = run_report("old").to_json()
    for score in (content["emotion"]["uar"], content["speaker"]["strongest"]):
        del score["seeds"], score["deviation"]
    old = RunReport.model_validate(content)
    shown = Written(write_comparison([seeded_report(), old], tmp_path / "seeds"))
    rows = tables(shown.markdown)[0][2:]
    assert "68.5 to 78.5 %, SD over 3 seeds 1.2 |" in rows[0] and "75.8 %, SD over 3 seeds 2.7 |" in rows[0]
    assert "68.5 to 78.5 % |" in rows[1] and "SD" not in rows[1]


def test_the_comparison_says_which_conditions_its_runs_share(tmp_path):
    demo, run = demo_report(), run_report()
    mixed = Written(write_comparison([demo, run], tmp_path / "mixed")).page.text
    assert (
        "not tested on the same utterances" in mixed
        and "distinguish different emotions" in mixed
        and demo.note in mixed
        and "This concerns adversarial." in mixed
    )
    alike = Written(write_comparison([run, run_report("other")], tmp_path / "alike")).page.text
    assert "not measured on the same utterances" not in alike and "Warning" not in alike and "emodb-grl and other" in alike
    assert "closed-form attackers were tried" not in alike and "not tested on the same" not in alike
    per_speaker = run.to_json()["emotion"]["per_speaker"]
    others = {f"{name}-": result for name, result in per_speaker.items()}
    apart = Written(write_comparison([run, changed(run, run="o", emotion__per_speaker=others)], tmp_path / "apart")).page.text
    assert "not tested on the same utterances of the same speakers" in apart
    classes = {f"{name} or not": recall for name, recall in run.emotion.per_class.items()}
    merged = Written(write_comparison([run, changed(run, run="o", emotion__per_class=classes)], tmp_path / "merged")).page.text
    assert "The runs distinguish different emotions" in merged and "on the same utterances" not in merged


@pytest.mark.parametrize(
    "quick, said",
    [((True, False), "quick: only closed-form attackers were tried"), ((True, True), "Only closed-form attackers were")],
)
def test_the_comparison_says_which_audits_were_quick(tmp_path, capsys, quick, said):
    reports = [
        changed(run_report(name), settings__audit__quick=flag) for name, flag in zip(("quick", "other"), quick, strict=True)
    ]
    page = Written(write_comparison(reports, tmp_path / "mixed"))
    show_comparison(reports)
    for text in (page.page.text, page.markdown, capsys.readouterr().out):
        assert said in " ".join(text.split())
        assert ("their strongest attackers are not comparable" in " ".join(text.split())) == (not all(quick))


def test_runs_of_different_corpora_are_compared_apart(tmp_path, capsys):
    """A note on one corpus, a chance level and a Pareto front of another one would be misleading."""
    note = "The speech is synthesised."
    demo = changed(demo_report(), settings__corpora=["builtin"], note=note, emotion__uar__value=0.1)
    reports = [demo, run_report("best", 0.7, 0.5), run_report("worst", 0.6, 0.6), changed(demo, run="ребро")]
    shown = Written(write_comparison(reports, tmp_path / "mixed"))
    first, builtin, emodb = re.split(r"^## Corpus ", shown.markdown, flags=re.M)
    assert "different chance levels and are compared apart: builtin (2 runs), emodb (2 runs)" in first and "%" not in first
    assert note in builtin and note not in emodb and "| best |" in emodb and "| best |" not in builtin
    assert "20.0 %" in builtin and "14.3 %" not in builtin and "14.3 %" in emodb and "20.0 %" not in emodb
    assert "(tradeoff-1.png)" in builtin and (shown.folder / "tradeoff-2.png").is_file()
    assert all(len(tables(part)) == 1 for part in (builtin, emodb))
    marks = {run["run"]: run["pareto"] for run in json.loads((shown.folder / "report.json").read_text())["runs"]}
    assert marks == {"adversarial": True, "ребро": True, "best": True, "worst": False}
    ids = shown.page.all("id")
    assert len(ids) == len(set(ids)) and {"corpus-builtin", "corpus-emodb"} <= set(ids)
    show_comparison(reports)
    before, _, after = capsys.readouterr().out.partition("corpus emodb:")
    assert before.startswith("corpus builtin:") and note in before and note not in after and "best" in after


def test_a_note_that_some_runs_of_a_corpus_lack_names_the_others(tmp_path):
    reports = [changed(run_report("first"), note="Mended."), run_report("second")]
    assert "first: Mended." in Written(write_comparison(reports, tmp_path / "one")).page.text


def test_gradients_and_times_are_shown_where_they_were_measured():
    """Runs of an earlier version have neither."""
    old = curves(["03", "08"], 4)
    seconds = {f"seconds_{part}": 6.0 if part == "network" else 0.8 for part in TIMES}
    new = {
        fold: [{**row, "emotion_gradient": 0.1, "adversary_gradient": 0.0, **seconds} for row in rows]
        for fold, rows in old.items()
    }
    assert plot_names(training_section(new, None)) == ["losses", "accuracies", "gradients"]
    assert plot_names(training_section(old, None)) == ["losses", "accuracies"]
    assert about_time(old) == ""
    assert about_time(new).startswith("Training took 1.3 minutes, summed over the models: 8.0 % loading audio, 8.0 % augm")
    assert "60.0 % forward and backward" in about_time(new)


def test_a_report_replaces_every_picture_of_a_former_one():
    sections = Path(training.__file__).parent.glob("*.py")
    drawn = {name for path in sections for name in re.findall(r'\bPlot\(\s*"([\w-]+)"', path.read_text(encoding="utf-8"))}
    assert {"layers", "losses", "confusion"} <= drawn <= set(PLOTS)


def plot_names(section: Section) -> list[str]:
    return [plot.name for block in section.blocks if isinstance(block, Plots) for plot in block.plots]


def test_a_gradient_norm_of_zero_leaves_the_others_in_the_plot(tmp_path):
    """Without an adversary its gradient is 0, which a logarithmic scale does not have."""
    rows = [{"epoch": epoch, "a": 0.1 * epoch, "b": 0.0} for epoch in (1, 2, 3)]
    figure = Figure()
    axes = figure.subplots()
    plot_gradients(axes, {"03": rows}, {"a": "one", "b": "other"})
    figure.canvas.draw()
    assert {tick.get_text() for tick in axes.get_yticklabels()} >= {"0.1", "0.2"}
    assert axes.get_yscale() == "log" and 0 < axes.get_ylim()[0] < 0.1 < 0.3 < axes.get_ylim()[1] < 10


def test_labels_of_the_trade_off_plot_hide_no_other_label_and_no_other_run():
    given = {"this run": (0.817, 0.308), "baseline": (0.804, 0.873), "prosody baseline": (0.796, 0.223)}
    runs = [TradeoffPoint(name, Score(uar, uar - 0.1, uar + 0.1), Score(a, a, a), "k") for name, (uar, a) in given.items()]
    figure = Figure((5.6, 3.6))
    axes = figure.subplots()
    plot_tradeoff(axes, runs, TradeoffChance())
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    points = [line.get_window_extent() for line in axes.lines if line.get_marker() == "o"]
    assert [text.get_text() for text in axes.texts] == list(given)
    assert all(box.count_overlaps([*boxes, *points]) == 1 for box in boxes), "each overlaps with itself alone"
