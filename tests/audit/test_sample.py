"""A quick audit of a large table uses a sample of stated size; attackers that did not converge are named in our own words."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from embedding_tables import linear_code, make_table
from sklearn.neural_network import MLPClassifier

from speaker_invariant_ser.api import audit as siser_audit
from speaker_invariant_ser.audit import attackers
from speaker_invariant_ser.audit.attackers import sample_utterances
from speaker_invariant_ser.audit.audit import AuditSettings, audit_table
from speaker_invariant_ser.audit.inputs import sample as sampling
from speaker_invariant_ser.audit.inputs.sample import draw_sample
from speaker_invariant_ser.audit.leakage import measure_leakage
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.errors import AuditError
from speaker_invariant_ser.evaluation.summary_parts import Speaker
from speaker_invariant_ser.report.tables import NETWORKS, STOPPED, not_converged


@pytest.fixture
def small(monkeypatch):
    """Limits that small tables exceed."""
    for name, limit in (("MAX_UTTERANCES", 100), ("MAX_SPEAKERS", 5), ("MAX_DIMENSIONS", 12)):
        monkeypatch.setattr(sampling, name, limit)


def test_a_small_table_is_used_as_it_is():
    table = make_table(300)
    assert draw_sample(table, 0) == (table, None)


def test_the_sample_is_stratified_seeded_and_stated(small):
    table = make_table(1100, dims=20)
    drawn, sample = draw_sample(table, 3)
    assert (sample.utterances, sample.of_utterances) == (len(drawn.id), 1100) == (100, 1100)
    assert (sample.speakers, sample.of_speakers) == (len(set(drawn.speaker)), 11) == (5, 11)
    assert (sample.dimensions, sample.of_dimensions) == (drawn.embedding.shape[1], 20) == (12, 20)
    assert 0.6 < sample.variance < 0.9 and sample.seed == 3
    _, sizes = np.unique(drawn.speaker_and_emotion, return_counts=True)
    assert sizes.min() >= 3 and sizes.max() <= 5  # 4 of each of 25 kinds
    np.testing.assert_array_equal(drawn.id, draw_sample(table, 3)[0].id)
    assert set(drawn.id) != set(draw_sample(table, 4)[0].id)
    for words in ("100 of 1,100 utterances", "5 of 11 speakers", "12 principal components of 20 dimensions", "seed 3"):
        assert words in sample.described


def test_rare_speakers_and_both_kinds_of_utterances_stay(small):
    table = make_table(1100, dims=20, speakers=5)
    rare = np.flatnonzero(table.speaker == "s00")[8:]
    table = replace(table, scored=np.arange(1100) % 50 == 0).select(np.setdiff1d(np.arange(1100), rare))
    drawn, _ = draw_sample(table, 0)
    assert (drawn.speaker == "s00").sum() == 8
    assert drawn.scored.sum() == table.scored.sum() and len(drawn.id) == 100


def test_speakers_with_scored_utterances_are_drawn_first(small):
    table = make_table(440, dims=4, speakers=40)
    drawn, sample = draw_sample(replace(table, scored=np.isin(table.speaker, ["s03", "s30"])), 0)
    assert sample.speakers == 5 and {"s03", "s30"} <= set(drawn.speaker)


def test_a_leak_is_found_in_the_sample_and_the_sample_is_stated_everywhere(small, tmp_path, capsys):
    table = make_table(1100, dims=20, code=linear_code)
    np.savez(tmp_path / "t.npz", embedding=table.embedding, speaker=table.speaker, emotion=table.emotion)
    command = ["audit", str(tmp_path / "t.npz"), "--quick", "--jobs", "1", "--quiet"]
    assert siser([*command, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert report["speaker"]["sample"]["of_dimensions"] == 20 and report["speaker"]["utterances"] == 100
    assert report["at_chance"] is False and report["speaker"]["strongest"]["accuracy"] > 0.8
    for text in (shown.err, (tmp_path / "out/report.md").read_text(encoding="utf-8")):
        assert "a quick audit of a sample (seed 0): 100 of 1,100 utterances" in text
    for text in (shown.out, (tmp_path / "out/report.md").read_text(encoding="utf-8").partition("|")[0]):
        sample = "a sample: 100 of 1,100 utterances, 5 of 11 speakers, 12 principal components of 20 dimensions."
        assert sample in " ".join(text.split())


def test_a_table_of_many_speakers_with_one_utterance_each_is_refused(small):
    table = make_table(20)
    with pytest.raises(AuditError, match="2 speakers with 2 or more utterances each; there are none"):
        audit_table(replace(table, speaker=np.arange(20)), AuditSettings(quick=True))


def test_no_leak_is_found_in_a_sample_of_noise(small):
    result = siser_audit(make_table(1100, dims=20).embedding, make_table(1100).speaker, quick=True)
    assert result["at_chance"] == "undecided" and result["sample"]["of_speakers"] == 11
    assert "a quick audit of a sample" in result["notes"][-1]


def test_fits_that_do_not_converge_are_counted_and_named(monkeypatch):
    table = make_table(120, speakers=4)
    converged = measure_leakage([table], ["logistic", "lda"], permutations=0, repeats=1)
    assert converged.converged == {"logistic": 1.0, "lda": 1.0}
    monkeypatch.setattr(attackers, "MAX_ITERATIONS", 1)
    stopped = audit_table(table, AuditSettings(quick=True, permutations=0))
    assert stopped.leakage.converged["logistic"] == 0.0 and stopped.summary["attackers"]["logistic"]["converged"] == 0.0
    assert "sample" not in stopped.summary
    speaker = Speaker.model_validate(stopped.summary)
    assert not_converged(speaker) == ["not converged at the limit of iterations: logistic in 100 % of the fits"]
    speaker.attackers["mlp"] = speaker.attackers["logistic"]  # a network, which stops so on purpose
    assert not_converged(speaker)[1] == f"{STOPPED}: mlp in 100 % of the fits"


def test_networks_stop_after_the_epochs_that_reports_state():
    made = {
        name: attacker.make(attacker.settings[0], 0)
        for name, attacker in attackers.ATTACKERS.items()
        if attacker.input == "embedding"
    }
    networks = {name: model for name, model in made.items() if isinstance(model, MLPClassifier)}
    assert tuple(networks) == NETWORKS
    assert all(f"after {model.max_iter} epochs" in STOPPED for model in networks.values())


@pytest.mark.parametrize("wish, shown", [([], False), (["-W", "default"], True)])
def test_warnings_of_libraries_are_shown_only_on_request(wish, shown):
    code = (
        "import warnings; from speaker_invariant_ser.cli import app; "
        "app.run = lambda words: warnings.warn('of a library') or 0; app.main([])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    completed = subprocess.run([sys.executable, *wish, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ("of a library" in completed.stderr) == shown


@pytest.mark.parametrize("maximum", [20, 40, 50, 51])
def test_of_more_speakers_than_utterances_to_keep_some_are_drawn(maximum):
    speaker = np.repeat(np.arange(50), 3)
    rows = sample_utterances(speaker, maximum, seed=0)
    assert len(set(rows)) == len(rows) == maximum
    assert len(set(speaker[rows])) == (maximum // 2 if maximum <= 50 else 50)
