"""Certificates: they hold in simulated worlds, are exact in small cases, and refuse utterances that codes were fitted on."""

import csv
import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import section

from speaker_invariant_ser.audit.certificates.certificate import CLIPS, certify, certify_codes, compose, estimate
from speaker_invariant_ser.audit.certificates.words import certificate_verdict
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.inputs.read_embeddings import read_embeddings
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.errors import AuditError
from speaker_invariant_ser.evaluation.certificate_parts import CertificatePart
from speaker_invariant_ser.evaluation.certificates import certify_run
from speaker_invariant_ser.indexing import one_hot
from speaker_invariant_ser.report.sections.blocks import Text
from speaker_invariant_ser.report.sections.certificate import certificate_section
from speaker_invariant_ser.report.table import Table

WORLDS = 2000


def best_accuracy(shares):
    """Balanced accuracy of the best attacker of codes with shares [..., K, M]."""
    return shares.max(axis=-2).sum(axis=-1) / shares.shape[-2]


def bounds(counts, delta=0.05):
    """Bounds from counts [W, K, M] of independent utterances, written anew from the formula."""
    clips = counts.sum(axis=-1)  # [W, K]
    slack = np.sqrt(math.log(1 / delta) / (2 * counts.shape[1] ** 2) * (1 / clips).sum(axis=-1))
    return best_accuracy(counts / clips[..., None]) + slack


def table_of(speaker, code, scored=True, group=None):
    """A table of codes."""
    speaker, code, number = np.asarray(speaker), np.asarray(code), len(speaker)
    ids, same = np.array([f"u{index}" for index in range(number)]), np.full(number, "")
    mask = np.broadcast_to(scored, number).copy()
    return Embeddings(one_hot(code), ids, speaker, same, same, mask, group=group, code=code)


@pytest.mark.parametrize(
    ("speakers", "cells", "clips", "concentration"),
    [(2, 2, 10, 1.0), (3, 8, 25, 0.3), (9, 16, 50, 50.0), (20, 8, 40, 2.0)],
    ids=["small", "strong leaks", "hardly a leak", "many speakers"],
)
def test_the_bound_holds_in_simulated_worlds(speakers, cells, clips, concentration):
    """Each world has shares of its own, and speakers with different numbers of utterances."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(cells, concentration), (WORLDS, speakers))
    counts = rng.multinomial(rng.integers(clips // 2, 2 * clips, (WORLDS, speakers)), shares)
    truth, certified = best_accuracy(shares), bounds(counts)
    assert (certified >= truth).mean() > 0.99, "95 % were promised; A is too high on average as well"
    assert (certified < 1).mean() > 0.5 or cells == 2, "a bound of 1 would hold always"


@pytest.mark.parametrize("leak", [0.2, 0.5, 0.9])
def test_a_planted_leak_is_never_certified_away(leak):
    """Each of 4 speakers has a code of its own in some utterances; the bound is never below what an attacker then reaches."""
    rng, speakers, cells = np.random.default_rng(1), 4, 8
    shares = (1 - leak) / cells + leak * np.eye(speakers, cells)
    truth = best_accuracy(shares)
    counts = rng.multinomial(200, shares, (WORLDS, speakers))
    assert truth == pytest.approx(leak + (1 - leak) * (1 / speakers)) and (bounds(counts) >= truth).all()
    speaker, code = np.repeat(np.arange(speakers), 200), np.concatenate([np.repeat(np.arange(cells), own) for own in counts[0]])
    assert certify_codes(table_of(speaker, code)).limits["mcdiarmid"] == pytest.approx(min(1, bounds(counts[:1])[0]))


def test_small_cases_by_hand():
    certified = certify_codes(table_of(["a"] * 4 + ["b"] * 6, [0, 0, 0, 1, 0, 0, 1, 1, 1, 1]))
    slack = math.sqrt(math.log(20) / 8 * (1 / 4 + 1 / 6))
    assert certified.plug_in == pytest.approx((3 / 4 + 4 / 6) / 2) and certified.limits["mcdiarmid"] == 1.0 and slack > 0.39
    assert (certified.speakers, certified.utterances, certified.cells_used) == (2, 10, 2)
    assert certified.clips_per_speaker == {"a": 4, "b": 6} and certified.perplexity == pytest.approx(2)
    alike = certify_codes(table_of(np.arange(2000) % 2, np.arange(2000) // 2 % 2))
    assert alike.plug_in == 0.5 and alike.limits["mcdiarmid"] == pytest.approx(0.5 + math.sqrt(math.log(20) / 8 * 2 / 1000))
    assert (alike.bound, alike.limit) == (alike.limits["binomial"], "binomial")
    collapsed = certify_codes(table_of(np.arange(60) % 3, np.zeros(60, int)))
    assert (collapsed.plug_in, collapsed.cells_used, collapsed.perplexity) == (pytest.approx(1 / 3), 1, pytest.approx(1))


@pytest.mark.parametrize(
    ("clips", "speakers", "by_mcdiarmid", "smallest", "limit"),
    [(4481, 9, 0.158, 0.151, "bentkus"), (7442, 91, 0.038, 0.028, "bentkus"), (378, 9, 0.28, 0.256, "binomial")],
)
def test_the_smallest_bound_is_that_of_codes_which_reveal_nothing(clips, speakers, by_mcdiarmid, smallest, limit):
    code = np.random.default_rng(0).integers(0, 16, clips)
    certified = certify_codes(table_of(np.arange(clips) % speakers, code))
    assert certified.limits["mcdiarmid"] == pytest.approx(by_mcdiarmid, abs=0.006)
    assert certified.smallest == pytest.approx(smallest, abs=0.002) and certified.limit == limit
    assert certified.bound == pytest.approx(smallest, abs=0.006) == certified.limits[limit]


def test_clips_of_one_recording_count_as_one():
    speaker, code = np.arange(400) % 2, np.arange(400) // 2 % 4
    alone, pairs = (certify_codes(table_of(speaker, code, group=group)) for group in (None, np.arange(400) // 4 * 2 + speaker))
    slack, slack_of_pairs = (each.limits["mcdiarmid"] - each.plug_in for each in (alone, pairs))
    assert slack_of_pairs == pytest.approx(math.sqrt(2) * slack)
    assert alone.limit == "binomial" and pairs.limit == "bentkus" and pairs.limits["binomial"] is None
    single = certify_codes(table_of(speaker, code, group=np.zeros(400)))
    assert single.bound == pytest.approx(1 - 0.05 * (1 - single.plug_in)), "Markov's inequality"


def accuracy_of_several(shares, clips):
    """Balanced accuracy of the best attacker who gets several utterances of one person, by going through all of them."""
    codes = itertools.product(range(shares.shape[1]), repeat=clips)
    return sum(shares[:, list(each)].prod(axis=1).max() for each in codes) / len(shares)


def test_the_bound_for_several_clips_holds_and_is_reached():
    rng = np.random.default_rng(0)
    for shares in rng.dirichlet(np.full(3, 3.0), (50, 4)):
        for clips in (1, 2, 4):
            assert accuracy_of_several(shares, clips) <= compose(best_accuracy(shares), 4, clips) + 1e-12
    identified = np.eye(4)
    assert accuracy_of_several(identified, 2) == compose(best_accuracy(identified), 4, 2) == 1
    assert compose(best_accuracy(np.ones((4, 1))), 4, 10) == 0.25


def test_estimates_are_at_chance_without_a_leak_and_those_of_the_best_attacker_with_one():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(6, 2.0), 3)
    leaking, alike = (np.array([rng.multinomial(5000, own) for own in each]) for each in (shares, np.tile(shares[:1], (3, 1))))
    for clips in (1, 5):
        assert estimate(leaking, clips, rng) == pytest.approx(accuracy_of_several(shares, clips), abs=0.04)
        worlds = [estimate(np.array([rng.multinomial(40, shares[0]) for _ in range(3)]), clips, rng) for _ in range(40)]
        assert np.mean(worlds) == pytest.approx(1 / 3, abs=0.025), "unbiased for few utterances, too"
    assert estimate(alike[:, :] // 1000, 10, rng) is None, "five utterances of a speaker"


def test_only_clips_that_the_codes_were_not_fitted_on_are_counted():
    speaker, code = np.arange(400) % 2, np.arange(400) % 2  # an own code each, on the utterances that the codes were fitted on
    code[200:] = np.arange(200) // 2 % 2
    fitted = np.arange(400) < 200
    (certified,) = certify([table_of(speaker, code, scored=~fitted)], [""], "given").certified
    assert (certified.utterances, certified.plug_in) == (200, 0.5)
    with pytest.raises(AuditError, match="utterances that they were fitted on certify nothing"):
        certify([table_of(speaker, code, scored=False)], [""], "given")


def test_all_bounds_of_several_models_hold_together():
    table = table_of(np.arange(200) % 2, np.arange(200) // 2 % 2)
    (alone,), several = certify([table], ["a"], "unseen").certified, certify([table] * 3, list("abc"), "unseen")
    slack = [each.limits["mcdiarmid"] - each.plug_in for each in (alone, *several.certified)]
    assert slack[1:] == pytest.approx([slack[0] * math.sqrt(math.log(60) / math.log(20))] * 3)
    assert several.certified[0].bound > alone.bound
    summary = several.summary
    assert summary["worst"] == pytest.approx(summary["mean"]) and [each["name"] for each in summary["models"]] == list("abc")
    assert [each["clips"] for each in summary["models"][0]["curve"]] == list(CLIPS)
    single = certify([table, table_of(["a"] * 4, [0, 1] * 2)], list("ab"), "unseen").summary
    assert single["models"] == [] and single["worst"] is None and "a single speaker" in single["unavailable"]


def run_of(held_out, release="codes", normalise="utterance"):
    """A run of two models, and its outputs: training speakers a and b, dev speaker c, test speakers d and e."""
    specs = [SimpleNamespace(name=name, split=SimpleNamespace(held_out=held_out, test=("d", "e"))) for name in "12"]
    features = SimpleNamespace(transductive=normalise == "speaker")
    recipe = SimpleNamespace(release=section("release", name=release), audit=SimpleNamespace(seed=0), features=features)
    tables = [table_of(["a", "b"] * 50, [0, 1] * 50, scored=np.arange(100) < 60)] * 2
    unseen = [table_of(["c", "d", "e"] * 40, np.arange(120) // 3 % 2)] * 2
    outputs = SimpleNamespace(tables=tables, unseen=unseen, predictions=SimpleNamespace(labels=("angry", "happy", "sad")))
    return SimpleNamespace(recipe=recipe, model_specs=specs), outputs


def test_a_run_is_certified_on_held_out_utterances_and_on_test_speakers():
    held_out, unseen = certify_run(*run_of(("u0",))).populations
    assert [each.utterances for each in held_out.certified] == [60, 60] and held_out.certified[0].plug_in == 1.0
    assert set(unseen.certified[0].clips_per_speaker) == {"d", "e"}, "dev speakers selected the epoch"
    refused, _ = certify_run(*run_of(())).populations
    assert not refused.certified and "audit.holdout = 0" in refused.unavailable
    assert certify_run(*run_of(("u0",), release="quantise")) is None


@pytest.mark.parametrize("normalise", ["utterance", "speaker"])
def test_decisions_are_certified_as_codes_of_which_there_is_one_for_each_emotion(normalise):
    certificate = certify_run(*run_of(("u0",), release="decision", normalise=normalise))
    assert certificate.cells == 3 and bool(certificate.populations[0].certified) == (normalise == "utterance")


def test_codes_that_depend_on_all_utterances_of_a_speaker_are_not_certified():
    certificate = certify_run(*run_of(("u0",), normalise="speaker"))
    assert [population.clips for population in certificate.populations] == ["held-out", "unseen"]
    assert all(not each.certified and "features.normalise = speaker" in each.unavailable for each in certificate.populations)
    assert certificate_verdict(certificate.summary).startswith(" No certificate: each code depends on all utterances")


def test_the_verdict_and_the_section_state_the_worst_bound_and_what_it_is_of():
    summary = certify_run(*run_of(())).summary
    sentence = certificate_verdict(summary)
    worst = summary["populations"][1]["worst"]
    assert sentence == (
        " No attacker who gets the code of one utterance and nothing else can name the speaker in more than "
        f"{math.ceil(1000 * worst) / 10:.1f} % (balanced over 2 speakers; the worst of 2 models), "
        "with 95 % confidence (80 utterances of test speakers)."
    )
    both = certify_run(*run_of(("u0",))).summary
    assert certificate_verdict(both) == f"{sentence} The bound from held-out utterances of training speakers is 100 %."
    few = {**both, "populations": both["populations"][:1]}
    assert certificate_verdict(few) == (" No certificate: the bound from 60 held-out utterances of training speakers is 100 %.")
    refused = {**summary, "populations": summary["populations"][:1]}
    assert certificate_verdict(refused).startswith(" No certificate: the codes were fitted on")
    assert certificate_verdict(None) == ""
    blocks = certificate_section(CertificatePart.model_validate(summary)).blocks
    texts, tables = ([block for block in blocks if isinstance(block, kind)] for kind in (Text, Table))
    assert any("audit.holdout = 0" in block.text for block in texts) and len(tables) == 1
    assert [row[:4] for row in tables[0].rows] == [["1", "2", "80", "40"], ["2", "2", "80", "40"]]
    assert [row[7] for row in tables[0].rows] == [f"{math.ceil(1000 * worst) / 10:.1f} %"] * 2, "bounds are rounded up"
    assert [row[8] for row in tables[0].rows] == ["binomial"] * 2


def codes_table(path, **changes):
    """A table with 40 utterances of each of 3 speakers, and codes 1 to 4."""
    columns = {
        "speaker": [f"s{number % 3}" for number in range(120)],
        "cell": [f"{number // 3 % 4 + 1}" for number in range(120)],
        "scored": ["0"] * 30 + ["1"] * 90,
    }
    columns = {name: cells for name, cells in (columns | changes).items() if cells is not None}
    if path.suffix == ".npz":
        np.savez(path, **columns)
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return str(path)


def test_a_column_of_codes_is_audited_and_certified(tmp_path, capsys):
    path, out = codes_table(tmp_path / "t.csv"), tmp_path / "out"
    assert siser(["audit", path, "--discrete", "cell", "--quick", "--jobs", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "cell = 1 to cell = 4" in printed and "No attacker who gets the code (cell) of one utterance and nothing" in " ".join(
        printed.split()
    )
    certificate = json.loads((out / "report.json").read_text())["speaker"]["certificate"]
    (population,) = certificate["populations"]
    (model,) = population["models"]
    assert (certificate["column"], certificate["cells"], certificate["delta"]) == ("cell", 4, 0.05)
    assert (population["clips"], model["utterances"], model["speakers"], model["cells_used"]) == ("given", 90, 3, 4)
    assert model["plug_in"] == pytest.approx(1 / 3) and model["plug_in"] < model["bound"] == population["worst"] < 0.7
    assert model["limit"] == "binomial" and model["limits"]["binomial"] == model["bound"] < model["limits"]["mcdiarmid"]
    page = (out / "report.md").read_text()
    assert "### Certificate" in page and (out / "certificate-given.png").is_file()


def test_codes_are_read_alike_from_every_format(tmp_path):
    """And a code that one speaker alone has is no copy of another row."""
    cells = ["1"] * 40 + [f"{number % 4 + 1}" for number in range(80)]
    speakers = ["s0"] * 40 + [f"s{number % 2 + 1}" for number in range(80)]
    tables = [
        read_embeddings(codes_table(tmp_path / f"t.{ending}", cell=cells, speaker=speakers), discrete="cell").embeddings
        for ending in ("csv", "npz")
    ]
    for table in tables:
        assert len(table.id) == 120 and table.code.tolist() == cells and table.embedding.sum(axis=1).tolist() == [1] * 120
        assert table.scored.sum() == 90 and np.array_equal(table.embedding.argmax(axis=1) + 1, table.code.astype(int))


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_what_a_table_of_codes_has_besides_is_named_as_not_certified(ending, tmp_path):
    """A coarse column can be certified while a finer one beside it names everybody."""
    path = codes_table(tmp_path / f"t.{ending}", fine_1=["2"] * 120, fine_2=["3"] * 120, text=["a"] * 120)
    notes = read_embeddings(path, discrete="cell").notes
    assert notes[0] == "audited and certified is cell alone, as if nothing else were released: not fine_1 to fine_2 (2)"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"scored": None}, [], "--discrete cell needs a column scored"),
        ({"scored": ["0"] * 120}, [], "scored is 0 for all utterances"),
        ({"cell": [str(number) for number in range(120)]}, [], "120 different values in 120 rows; expected a few codes"),
        ({"cell": ["", "1"] * 60}, [], "empty cell in row 1, 3"),
        ({"cell": ["1", "2", "2 "] * 40}, [], "--discrete cell: '2' and '2 ' differ in blanks or zero bytes alone"),
        ({"cell": ["1", "2", "\u20031"] * 40}, [], "--discrete cell: '1' and '\\u20031' differ in blanks or zero bytes alone"),
        ({"cell": ["1", "2", "2\0"] * 40}, [], "--discrete cell: '2' and '2\\x00' differ in blanks or zero bytes alone"),
        ({"other": ["1"] * 120, "cell": None}, [], "--discrete cell: unknown column 'cell'"),
        ({}, ["--dimensions", "cell"], "leave out --dimensions or --discrete"),
    ],
    ids=["no scored", "fitted on all", "no codes", "empty", "blank", "wide blank", "zero byte", "no column", "dimensions"],
)
def test_codes_that_cannot_be_certified_are_refused(changes, options, message, tmp_path, capsys):
    path = codes_table(tmp_path / "t.csv", **changes)
    assert siser(["audit", path, "--discrete", "cell", "--quick", "--out", str(tmp_path / "out"), *options]) == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert message in errors and errors.count("error:") == 1, errors
