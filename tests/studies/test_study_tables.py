"""Tables, pictures and the page of a study, from result files alone."""

import itertools
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import TINY

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.errors import StudyError
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.studies.labels import Box, place
from speaker_invariant_ser.studies.page import updated
from speaker_invariant_ser.studies.picture import Point, draw, draw_points
from speaker_invariant_ser.studies.results import Result, recorded_recipe, table_sha256, write_result
from speaker_invariant_ser.studies.rows import Mean, gather
from speaker_invariant_ser.studies.study import read_study
from speaker_invariant_ser.studies.tables import markdown, notes, table_of

RENDER_PICTURES = True  # see conftest.py

STUDY = """
seeds = [0, 1]
page = "page.md"
[corpora]
here = "nowhere"
there = "nowhere"
[[arms]]
name = "plain"
recipe = "tiny.toml"
[[arms]]
name = "new"
title = "a new | network"
recipe = "tiny.toml"
set = {"train.epochs" = 5}
[[arms]]
name = "svm"
baseline = "prosody"
"""


@pytest.fixture
def path(tmp_path) -> Path:
    """A study whose corpora are not here."""
    (tmp_path / "tiny.toml").write_text(write_toml(make_recipe(TINY)))
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def put(path, arm, seed, uars, attacker, speaker_chance=0.2, quick=False, scored="held-out", **emotion):
    """Write a result on the corpus `here`, with these UARs of speakers and accuracy of the attacker."""
    (described,) = [candidate for candidate in read_study(path).arms if candidate.name == arm]
    recipe = recorded_recipe(described.resolved(seed) or make_recipe({}), baseline=seed is None)
    uar = float(np.mean(uars))
    score = {"value": uar, "low": uar - 0.1, "high": uar + 0.1}
    speakers = {f"s{i}": {"uar": value, "accuracy": value, "utterances": 10} for i, value in enumerate(uars)}
    timing = {"seconds": 100.0, "cpu_seconds": 90.0, "jobs": 1, "threads": 1, "trained": {}}
    content = {
        "command": "siser study study.toml",
        "date": f"2026-11-0{1 + (seed or 0)}",
        "machine": {"processor": "Some CPU", "cores": 2, "instructions": ["AVX2"]},
        "versions": {"speaker-invariant-ser": "0.2.0"},
        "recipe": recipe,
        "recipe_sha256": table_sha256(recipe),
        "data_sha256": {},
        "corpus": "here",
        "arm": arm,
        "seed": seed,
        "numbers": {
            "emotion": {
                "uar": score,
                "uar_mean_over_speakers": score,
                "accuracy": uar,
                "worst_speaker": {"speaker": (worst := f"s{np.argmin(uars)}"), **speakers[worst]},
                "chance": 0.25,
                "utterances": 10 * len(uars),
                "per_speaker": speakers,
                **emotion,
            },
            "speaker": {
                "strongest": {"name": "lda", "accuracy": attacker, "low": None, "high": None, "balanced_accuracy": attacker},
                "chance": speaker_chance,
                "speakers": 5,
                "quick": quick,
                "scored": scored,
                "controls": {},
            },
            "training": None if seed is None else {"parameters": 1234, "epoch": {"a": 3}, "dev_uar": {"a": 0.5}, **timing},
            "baseline": None,
        },
    }
    name = f"here-{arm}{'' if seed is None else f'-s{seed}'}.json"
    write_result(path.parent / "results" / name, Result.model_validate(content))


@pytest.fixture
def rows(path):
    """The rows of a study with two seeds of one arm and one of another."""
    put(path, "plain", 0, [0.5, 0.6, 0.7, 0.8], 0.9)
    put(path, "plain", 1, [0.7, 0.4, 0.7, 0.8], 0.8)
    put(path, "new", 0, [0.7, 0.6, 0.9, 0.9], 0.3, quick=True)
    put(path, "svm", None, [0.5, 0.5, 0.5, 0.4], 0.4, 0.1)
    return gather(read_study(path), path.parent / "results")


def test_the_table_holds_means_over_seeds_and_paired_differences(path, rows):
    assert list(rows) == ["here"]
    table = table_of(rows["here"])
    by_column = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    plain, new, svm = by_column
    assert plain == {
        "arm": "plain",
        "parameters": "1,234",
        "seeds": "0, 1",
        "UAR, pooled": "65.0 ± 0.0 (55.0 to 75.0)",
        "UAR, mean over speakers": "65.0",
        "worst speaker": "50.0 (s1)",
        "difference to plain": "",
        "strongest attacker": "85.0 ± 7.1 lda",
        "chance": "20.0 of 5",
        "excess": "65.0",
        "training, CPU min": "1.5",
    }
    assert new["arm"] == "new: a new | network" and new["seeds"] == "0" and new["UAR, pooled"] == "77.5 (67.5 to 87.5)"
    assert new["difference to plain"] == "+12.5 (+10.0 to +17.5), p 0.125"
    assert new["strongest attacker"] == "30.0 lda*" and new["excess"] == "10.0"
    assert svm["parameters"] == svm["seeds"] == svm["training, CPU min"] == "-" and svm["excess"] == "30.0"
    assert notes(read_study(path), "here", rows["here"]) == [
        "* the closed-form attackers only; all attackers may be stronger.",
        "Not measured: new (seed 1).",
        "With 4 speakers, p is at least 0.125.",
        "Measured 2026-11-01 to 2026-11-02 with version 0.2.0 on Some CPU, 2 cores, AVX2.",
    ]


def test_the_uar_by_telephone_is_a_column_where_it_was_measured(path):
    put(path, "plain", 0, [0.5, 0.7], 0.9, by_telephone={"value": 0.4, "low": 0.3, "high": 0.5})
    put(path, "svm", None, [0.5, 0.5], 0.4)
    table = table_of(gather(read_study(path), path.parent / "results")["here"])
    assert table.head[-1] == "UAR by telephone" and [row[-1] for row in table.rows] == ["40.0 (30.0 to 50.0)", "-"]


def test_a_stale_result_is_marked_and_other_test_sets_are_not_compared(path, rows):
    put(path, "new", 0, [0.7, 0.6, 0.9], 0.3, scored="trained")
    path.write_text(path.read_text().replace("= 5}", "= 6}"))
    study = read_study(path)
    rows = gather(study, path.parent / "results")["here"]
    new = table_of(rows).rows[1]
    assert new[0].startswith("new†") and new[6] == "-"
    assert new[7] == "30.0 lda‡"
    assert "‡ attackers were scored on utterances that the encoder was trained on." in notes(study, "here", rows)
    assert "† new: measured with another recipe: train.epochs was 5, now 6." in notes(study, "here", rows)


def test_seeds_that_were_tested_on_different_speakers_are_averaged_but_not_compared(path, rows):
    put(path, "plain", 1, [0.7, 0.4, 0.7], 0.8)
    plain, new, _ = gather(read_study(path), path.parent / "results")["here"]
    assert plain.uar_by_speaker == pytest.approx({"s0": 0.6, "s1": 0.5, "s2": 0.7, "s3": 0.8})
    assert plain.worst_speaker == ("s1", 0.5)
    assert plain.compared_with(new) is None and new.compared_with(plain) is None


def test_arms_of_other_numbers_of_emotions_are_not_compared(path, rows):
    put(path, "new", 0, [0.9, 0.9, 0.9, 0.9], 0.3, chance=0.5)
    assert table_of(gather(read_study(path), path.parent / "results")["here"]).rows[1][6] == "-"


def test_the_page_keeps_the_text_around_and_the_picture_shows_every_arm(path, rows, capsys):
    page, begin, end = path.parent / "page.md", *(f"<!-- siser study study.toml: {word} -->" for word in ("begin", "end"))
    page.write_text(f"Before\n{begin}\nold table\n{end}\nAfter\n")
    assert siser(["study", str(path), "--table"]) == 0
    printed = capsys.readouterr().out
    assert "65.0 ± 0.0 (55.0 to 75.0)" in printed and "there: no results yet" in printed and f"page: {page}" in printed
    text = page.read_text()
    assert text.startswith("Before\n") and text.endswith("After\n") and "old table" not in text
    assert r"| new: a new \| network | 1,234 |" in text and r"30.0 lda\* |" in text and "(page-here.svg)" in text
    assert updated(read_study(path), page, rows) == text, "the same results give the same page"

    root = ElementTree.parse(page.with_name("page-here.svg")).getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"plain", "new", "svm", "here", "chance 10.0 to 20.0", "network, closed-form attackers"} <= set(texts)
    assert sum(element.tag.endswith("circle") for element in root.iter()) == 2 + 2  # the points, and those of the legend
    assert "new: UAR 77.5, attacker 30.0" in next(element.text for element in root.iter() if element.tag.endswith("title"))


def test_no_text_of_a_table_is_markup_on_the_page():
    page = markdown(Table(["<script>x</script>"], [["`a` [b](javascript:c) ![d](e) |\n\n# f"]]))
    assert page.splitlines()[::2] == [
        "| &lt;script&gt;x&lt;/script&gt; |",
        r"| \`a\` \[b\](javascript:c) !\[d\](e) \| # f |",
    ]


@pytest.mark.parametrize("page", ["{outside}/new.md", "link/new.md", "../{outside.name}/new.md", ".bashrc"])
def test_a_study_makes_no_files_outside_its_folder(path, rows, tmp_path_factory, capsys, page):
    outside = tmp_path_factory.mktemp("outside")
    (path.parent / "link").symlink_to(outside)
    path.write_text(STUDY.replace("page.md", page.format(outside=outside)))
    assert siser(["study", str(path), "--table"]) == 2 and not list(outside.iterdir())
    printed = capsys.readouterr().err
    if page.endswith(".md"):
        assert "a new page is made in the folder of the study or below it" in printed
        (outside / "new.md").write_text("".join(f"<!-- siser study study.toml: {word} -->\n" for word in ("begin", "end")))
        assert siser(["study", str(path), "--table"]) == 0 and (outside / "new-here.svg").is_file()
    else:
        assert "expected the ending .md" in printed and not (path.parent / page).exists()


def test_a_page_without_marks_is_left_alone(path, rows):
    (path.parent / "page.md").write_text("My own text.\n")
    with pytest.raises(StudyError, match=r"page.md exists and has no lines <!-- siser study study.toml: begin -->"):
        updated(read_study(path), path.parent / "page.md", rows)
    assert siser(["study", str(path), "--table"]) == 2
    assert (path.parent / "page.md").read_text() == "My own text.\n"


def test_pages_and_pictures_of_somebody_else_are_not_replaced(path, rows, capsys):
    page, picture = path.parent / "page.md", path.parent / "page-here.svg"
    picture.write_text("mine")
    assert siser(["study", str(path), "--table"]) == 2
    assert "page-here.svg exists, and" in " ".join(capsys.readouterr().err.split()) and picture.read_text() == "mine"
    picture.unlink()
    assert siser(["study", str(path), "--table"]) == 0 and siser(["study", str(path), "--table", "--results", "none"]) == 2
    assert "none holds no result of this study" in capsys.readouterr().err and "(page-here.svg)" in page.read_text()
    page.unlink()
    assert siser(["study", str(path), "--table"]) == 0, "a picture of this program may be replaced, whatever the page says"
    page.write_bytes(content := b"\xff\xfe")
    assert siser(["study", str(path), "--table"]) == 2
    assert "page.md is no page in Markdown" in " ".join(capsys.readouterr().err.split()) and page.read_bytes() == content
    page.unlink()
    os.mkfifo(page)
    assert siser(["study", str(path), "--table"]) == 2
    assert "page.md is not a regular file" in " ".join(capsys.readouterr().err.split()) and page.is_fifo()


def test_a_picture_of_one_arm_can_be_drawn(path):
    put(path, "plain", 0, [0.5, 0.5], 0.2, 0.2)
    (rows,) = gather(read_study(path), path.parent / "results").values()
    assert ">plain</text>" in draw("here", rows)


def test_of_many_points_the_first_the_front_and_the_extremes_have_names_and_error_bars():
    inner = [(f"inner{number}", 0.5 + number / 100, 0.5) for number in range(12)]
    scores = [("first", 0.55, 0.55), *inner, ("left", 0.5, 0.3), ("top", 0.8, 0.4), ("right", 0.6, 0.9), ("low", 0.2, 0.5)]
    points = [Point(name, *(Mean(x, x - 0.01, x + 0.01, None) for x in rates), 0.1, False, True) for name, *rates in scores]
    root = ElementTree.fromstring(draw_points("here", points, 0.2))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert [name for name, *_ in scores if name in texts] == ["first", "left", "top", "right", "low"]
    marks = [element for element in root.iter() if element.tag.endswith("circle")]
    assert {title.text for mark in marks for title in mark} == {name for name, *_ in scores}, "the others say it at the pointer"
    assert sum(element.get("fill-opacity") == "0.4" for element in root.iter()) == 2 * 5
    few = draw_points("here", points[:12], 0.2)
    assert all(f">{name}</text>" in few for name, *_ in scores[:12])


@pytest.mark.parametrize("seed", range(3))
def test_labels_cover_neither_each_other_nor_a_point_and_stay_in_the_frame(seed):
    rng = np.random.default_rng(seed)
    frame, size, radius = Box(64, 34, 744, 466), 13, 5.5
    crowd = rng.normal((550, 200), (25, 30), (10, 2))  # ten arms in an eighth of the picture, the others anywhere
    points = [tuple(point) for point in np.vstack([crowd, rng.uniform((80, 50), (730, 450), (5, 2))])]
    texts = [f"arm-number-{number}" for number in range(len(points))]
    bars = [Box(x - 40, y - 0.75, x + 40, y + 0.75) for x, y in points]
    boxes = place(points, texts, bars, frame, size, radius)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlap(pair[1])]
    discs = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    assert not [(box, disc) for box in boxes for disc in discs if box.overlap(disc)]
    assert not any(box.outside(frame) for box in boxes)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("seed", 1, "is of seed 1, not 0"),
        ("corpus", "there", "is of corpus 'there', not 'here'"),
        ("numbers.emotion.accuracy", 0.99, "contradicts itself: accuracy is 0.99, expected 0.65"),
        ("numbers.emotion.uar_mean_over_speakers.value", 0.7, "uar_mean_over_speakers is 0.7, expected 0.65"),
        ("numbers.emotion.utterances", 400, "utterances is 400, expected 40"),
        ("numbers.emotion.worst_speaker.uar", 0.6, "worst_speaker.uar is 0.6, expected 0.5, worst_speaker is not as"),
        ("numbers.emotion.per_speaker", {}, "no speaker has an utterance"),
        ("numbers.speaker", None, "expected numbers of attackers or a reason why there are none"),
        ("numbers.unaudited", "too few", "expected numbers of attackers or a reason why there are none"),
        ("recipe.train.epochs", 7, "recipe_sha256 is not the hash of its recipe"),
    ],
)
def test_a_result_of_another_cell_or_one_that_contradicts_itself_is_refused(key, value, message, path, rows, capsys):
    result = path.parent / "results" / "here-plain-s0.json"
    content = json.loads(result.read_text())
    *parents, last = key.split(".")
    table = content
    for name in parents:
        table = table[name]
    table[last] = value
    result.write_text(json.dumps(content))
    assert siser(["study", str(path), "--table"]) == 2
    assert f"{message}" in (error := " ".join(capsys.readouterr().err.split())) and "remove it" in error
