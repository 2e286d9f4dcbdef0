"""Measures on unseen speakers: hand-computed values, planted leaks, and none where there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from speaker_invariant_ser.audit.audit import AuditSettings, audit, clips_summary
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.leakage import measure_leakage
from speaker_invariant_ser.audit.several_clips import Identification, interval_over_speakers
from speaker_invariant_ser.audit.statistics import cluster_bootstrap_interval
from speaker_invariant_ser.audit.verification.enrolment import enrol
from speaker_invariant_ser.audit.verification.error_rates import (
    area_under_curve,
    auc_interval,
    equal_error_rate,
    minimum_cost,
    pool_trials,
    pooled_eer,
)
from speaker_invariant_ser.audit.verification.judge import Judge, read_judge
from speaker_invariant_ser.audit.verification.per_speaker import speaker_error_rates
from speaker_invariant_ser.audit.verification.ranks import normalised_ranks
from speaker_invariant_ser.audit.verification.scorers import HEADLINE, TwoCovariance
from speaker_invariant_ser.audit.verification.several_clips import group_clips
from speaker_invariant_ser.audit.verification.trials import Trials
from speaker_invariant_ser.audit.verification.unseen import Encoder, UnseenSpeakers, halves, measure_unseen
from speaker_invariant_ser.errors import AuditError

QUICK = AuditSettings(quick=True, permutations=20)


def world(code: float = 0.0, seed: int = 0, speakers: int = 24, clips: int = 20, known: int = 0) -> tuple[Embeddings, Judge]:
    """Noise in which `code` writes eight properties of the speaker, and a judge whose voice prints hold the same properties.

    Only the speakers from `known` on have the code; the judge knows all.
    """
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(speakers), clips)
    properties = rng.standard_normal((speakers, 8))
    revealed = (properties @ rng.standard_normal((8, 16)) / np.sqrt(8))[speaker] * (speaker >= known)[:, None]
    embedding = rng.standard_normal((len(speaker), 16)) + code * revealed
    judged = rng.standard_normal((len(speaker), 32)) + (properties @ rng.standard_normal((8, 32)))[speaker]
    ids = np.char.mod("clip%d", np.arange(len(speaker)))
    labels = np.char.mod("s%02d", speaker), np.char.mod("e%d", np.arange(len(speaker)) % 4), np.full(len(speaker), "")
    table = Embeddings(embedding, ids, *labels, np.ones(len(speaker), dtype=bool))
    return table, Judge(Path("judge.npz"), {name: row for row, name in enumerate(ids.tolist())}, judged)


def measured(**options) -> UnseenSpeakers:
    """What is measured in a world whose halves are each other's background."""
    table, judge = world(**options)
    return measure_unseen(halves(table), judge)


# ---- C_llr^min


@pytest.mark.parametrize(
    "score, target, expected",
    [
        ([3, 2, 1, 0], "TTNN", 0.0),
        ([1, 1, 1, 1], "TTNN", 1.0),  # scores say nothing
        ([0, 1, 2, 3], "TTNN", 1.0),  # the wrong order cannot be calibrated monotonically
        ([3, 1, 2, 0], "TTNN", 0.5),  # one pair of violators: posterior 1/2 for half of the trials
        # 1 target and 2 nontargets: at the upper score the posterior is (1/2) / (1/2 + 1/4) = 2/3
        ([1, 1, 0], "TNN", -(np.log2(2 / 3) / 2 + np.log2(1 / 3) / 4)),
        # 3 targets and 2 nontargets: 0, then (2/6) / (2/6 + 1/4) = 4/7 over three pooled trials, then 1
        ([4, 2, 1, 3, 0], "TTTNN", -(2 / 6 * np.log2(4 / 7) + 1 / 4 * np.log2(3 / 7))),
    ],
)
def test_the_minimum_cost_of_small_cases(score, target, expected):
    assert minimum_cost(np.array(score, float), np.array([kind == "T" for kind in target])) == pytest.approx(expected)


def test_the_minimum_cost_depends_on_the_order_of_scores_alone_and_exceeds_that_of_no_calibration():
    rng = np.random.default_rng(0)
    target = rng.random(500) < 0.3
    ratio = rng.standard_normal(500) + np.where(target, 0.5, -0.5)  # log-likelihood ratios of two unit Gaussians
    cost = minimum_cost(ratio, target)
    assert cost == pytest.approx(minimum_cost(np.exp(ratio), target))
    assert cost == pytest.approx(minimum_cost(ratio, target, np.full(500, 7)))
    uncalibrated = (np.log2(1 + np.exp(-ratio[target])).mean() + np.log2(1 + np.exp(ratio[~target])).mean()) / 2
    assert uncalibrated - 0.05 < cost < uncalibrated < 1


# ---- single speakers


def trials_of(score: list[float], pairs: list[tuple[int, int]], speakers: int = 3) -> Trials:
    pair = np.array(pairs)
    target = pair[:, 0] == pair[:, 1]
    names = np.array([f"s{index}" for index in range(speakers)])
    return Trials({"x": np.array(score, float)}, target, np.zeros(len(pair), bool), pair, names, 10, False)


def test_rates_of_speakers_are_clipped_before_they_are_averaged():
    """s0 is verified without error, s1 in half of the cases, s2 is mistaken every time, which counts as 50 %."""
    trials = trials_of([9, 3, 0, 1, 4, 5], [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)])
    rates = [equal_error_rate(np.array(own, float), np.array([True, False, False])) for own in ([9, 1, 4], [3, 1, 5], [0, 4, 5])]
    assert rates == pytest.approx([0.0, 0.5, 1.0])
    result = speaker_error_rates([trials], "x")
    assert (result.mean, result.worst, result.speaker, result.speakers) == (pytest.approx(1 / 3), 0.0, "s0", 3)


def test_one_revealed_speaker_is_named_although_the_average_is_at_chance():
    result = measured(code=3.0, known=23).summary
    assert result["eer"] > 0.44
    assert result["per_speaker"]["speaker"] == result["rank"]["speaker"] == "s23"
    assert result["per_speaker"]["worst"] < 0.3 and result["rank"]["worst"] < 0.1


def test_ranks_of_small_cases():
    score = np.array([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 5.0, 5.0, 9.0]])
    assert normalised_ranks(score, np.array([0, 3, 2, 1])) == pytest.approx([0, 1, 0.5, 0.5])


def test_the_own_text_is_not_enrolled():
    table, _ = world(speakers=3, clips=8)
    texts = replace(table, text=np.char.mod("t%d", np.arange(24) % 4))
    for given in (table, texts):
        enrolment = enrol(given)
        assert sorted(enrolment.probes) == list(range(24))
        for probe, speaker, vectors in zip(enrolment.probes, enrolment.speaker, enrolment.enrolled, strict=True):
            assert given.speaker[probe] == enrolment.speakers[speaker]
            for enrolled, vector in enumerate(vectors):
                rows = enrolment.members[vector]
                assert set(given.speaker[rows]) == {enrolment.speakers[enrolled]} and probe not in rows
                if given is texts:
                    assert len(rows) == 6 and given.text[probe] not in given.text[rows]
                else:
                    assert len(rows) == (7 if enrolled == speaker else 8)
    assert enrol(table.select(np.arange(8))) is None


# ---- several utterances


def test_groups_of_clips_are_of_one_speaker_and_share_no_clip():
    speaker = np.repeat([0, 1, 2], [11, 4, 10])
    members = group_clips(speaker, 5, np.random.default_rng(0))
    assert members.shape == (4, 5) and len(set(members.ravel())) == 20
    assert (speaker[members] == np.array([[0], [0], [2], [2]])).all()
    assert group_clips(speaker, 20, np.random.default_rng(0)).shape == (0, 20)


@pytest.mark.parametrize("clips", [1, 5])
def test_copies_do_not_verify_a_speaker(clips):
    """Noise of 24 speakers, each with 4 recordings, of which there are 10 near copies; without their groups these would match."""
    rng, number = np.random.default_rng(0), np.arange(960)
    noise = np.repeat(rng.standard_normal((96, 8)), 10, axis=0) + 0.01 * rng.standard_normal((960, 8))
    names, blank = np.char.mod("s%d", number // 40), np.full(960, "")
    table = Embeddings(noise, np.char.mod("u%d", number), names, blank, blank, np.ones(960, bool))
    known, unknown = (
        pooled_eer([e.trials if clips == 1 else e.trials_of_groups(clips) for e in halves(given)], HEADLINE)
        for given in (replace(table, group=np.char.mod("r%d", number // 10)), table)
    )
    assert unknown < 0.45 < known < 0.55


def test_the_ratio_of_means_of_several_clips_is_that_of_two_gaussians():
    table, _ = world(1.0, speakers=8)
    back_end = TwoCovariance(table.embedding[:, :3], table.speaker)
    x, y = back_end.prepare.transform(table.embedding[[3, 70], :3]) @ back_end.transform
    between, left, right = (np.diag(back_end.between + extra) for extra in (0, 1 / 5, 1 / 2))
    same = multivariate_normal(np.zeros(6), np.block([[left, between], [between, right]])).logpdf(np.concatenate([x, y]))
    apart = multivariate_normal(np.zeros(3), left).logpdf(x) + multivariate_normal(np.zeros(3), right).logpdf(y)
    clips = np.ones(len(table.id), dtype=int)
    clips[[3, 70]] = 5, 2
    ratios = back_end.compare(table.embedding[:, :3], np.array([3, 1]), np.array([70, 2]), clips)
    single = back_end.compare(table.embedding[:, :3], np.array([1]), np.array([2]))
    assert ratios == pytest.approx([same - apart, single[0]])


def identified(table: Embeddings) -> dict[int, Identification | None]:
    """Identification by one attacker, which is the strongest then."""
    return measure_leakage([table], ["lda"], permutations=0, repeats=2).clips


def test_several_clips_reveal_more():
    table, _ = world(code=0.5)
    curve, rates = identified(table), measured(code=0.5).clips
    assert list(curve) == list(rates) == [1, 5, 10]
    assert curve[1].accuracy + 0.2 < curve[5].accuracy < curve[10].accuracy
    assert rates[1]["eer"] > rates[5]["eer"] + 0.1 > rates[10]["eer"] + 0.1
    assert [score.groups for score in curve.values()] == [480, 96, 48]
    assert all(score.chance < 0.1 < score.low < score.accuracy < score.high for score in curve.values())
    assert all(rate["low"] < rate["eer"] < rate["high"] for rate in rates.values())


def test_several_clips_of_noise_reveal_nothing():
    curve = identified(world()[0])
    assert all(score.chance == 1 / 24 and score.low < 2 / 24 and score.accuracy < 0.1 for score in curve.values())


def test_the_interval_of_several_clips_is_wide_where_speakers_are_few():
    """Four speakers without a deviation worth the name reach chance as often as not; a bootstrap was above it for 8 of 100."""
    speaker = np.repeat(["a", "b", "c", "d"], 100)
    hit = np.concatenate([np.arange(100) < named for named in (25, 28, 30, 35)]).astype(float)
    low, high = interval_over_speakers(hit, speaker, 40)
    assert (low, high) == pytest.approx(0.295 + np.array([-1, 1]) * 3.1824 * np.std([25, 28, 30, 35], ddof=1) / 200, abs=1e-4)
    assert low < 0.25 < cluster_bootstrap_interval(hit, speaker)[0]
    low, high = interval_over_speakers(hit[200:], speaker[200:], 20)
    assert (low, high) == pytest.approx((0.1189, 0.5428), abs=1e-4), "two speakers: binomial, 6 of 20 groups"


def test_neighbours_add_up_to_no_evidence_of_several_clips():
    assert measure_leakage([world(code=0.5)[0]], ["knn"], permutations=0, repeats=1).clips == {}


def test_chance_of_several_clips_knows_the_emotions():
    """Speakers differ in their emotions alone: ten utterances name the speaker, and the chance level says so."""
    table, _ = world(speakers=4, clips=40)
    emotion = np.where(np.arange(160) % 4 == 0, "other", np.char.mod("e%d", np.repeat(np.arange(4), 40)))
    embedding = table.embedding + 6 * np.eye(16)[np.unique(emotion, return_inverse=True)[1]]
    curve = identified(replace(table, embedding=embedding, emotion=emotion))
    assert 0.7 < curve[1].chance < 0.9 and curve[10].chance == curve[10].accuracy == 1


def test_groups_of_one_speaker_alone_identify_nobody():
    """Where one speaker has five utterances and all others fewer, a share over its groups is not one of all speakers."""
    table, _ = world(speakers=6, clips=7)
    kept = np.flatnonzero((table.speaker == table.speaker[0]) | (np.arange(len(table.id)) % 7 < 4))
    curve = identified(table.select(kept))
    assert curve[1].speakers == 6 and curve[5] is None


def test_too_few_clips_are_said_to_be_too_few():
    table, _ = world(speakers=6, clips=7)
    leakage = measure_leakage([table], ["lda"], permutations=0, repeats=1)
    one, five, ten = clips_summary(leakage, measure_unseen(halves(table)))
    assert one["identification"] and five["identification"]["groups"] == 6 and one["verification"]
    assert five["verification"] is None and ten == {"clips": 10, "identification": None, "verification": None}


# ---- judge and linkage


def test_a_planted_leak_is_seen_by_every_measure():
    found = measured(code=1.2).summary
    assert found["trained"]["cllr_min"] < 0.6 and found["per_speaker"]["mean"] < 0.2 and found["rank"]["high"] < 0.1
    assert 0.8 < found["linkage"]["low"] < found["linkage"]["auc"] < found["linkage"]["high"]
    assert found["linkage"]["eer_low"] < found["linkage"]["eer"] < found["linkage"]["eer_high"] < 0.3
    assert found["judge"]["eer"] < 0.05 and found["rank"]["enrolled"] == 12 and found["rank"]["speakers"] == 24


def test_noise_is_at_chance_by_every_measure():
    """Four worlds: means within 5 standard errors by simulation; nine of twelve 95 % intervals or more hold chance."""
    results = [measured(seed=seed, speakers=16) for seed in range(4)]
    found = [result.summary for result in results]
    assert min(result["trained"]["cllr_min"] for result in found) > 0.98
    assert np.mean([result["per_speaker"]["mean"] for result in found]) > 0.47
    for name, value in (("rank", "mean"), ("linkage", "auc"), ("linkage", "eer")):
        assert abs(np.mean([result[name][value] for result in found]) - 0.5) < 0.05
    held = [result[name]["low"] < 0.5 < result[name]["high"] for result in found for name in ("rank", "linkage")]
    held += [result.clips[10]["low"] < 0.5 < result.clips[10]["high"] for result in results]
    assert sum(held) >= 9
    assert max(result["judge"]["eer"] for result in found) < 0.05


def test_the_area_under_the_curve_and_its_interval():
    rng = np.random.default_rng(0)
    pairs = [(left, right) for left in range(8) for right in range(8) for _ in range(20)]
    score = [float(left == right) + rng.standard_normal() for left, right in pairs]
    trials = trials_of(score, pairs, speakers=8)
    pooled = area_under_curve(*pool_trials([trials], "x"))
    target, other = (trials.score["x"][kind] for kind in (trials.target, ~trials.target))
    assert pooled == pytest.approx((target[:, None] > other).mean())
    low, high = auc_interval([trials], "x")
    assert low < pooled < high < low + 0.2
    assert auc_interval([trials_of(score[:4], [(0, 0), (0, 1), (1, 0), (1, 1)], speakers=2)], "x") == (None, None)


def test_a_judge_of_runs_is_a_control_and_a_ceiling():
    """Training speakers are the background of unseen ones, as in a run; the judge's rows are in another order, with more rows."""
    table, judge = world(speakers=12, clips=12)
    order = np.random.default_rng(0).permutation(len(table.id))
    shuffled = Judge(judge.path, {name: row for row, name in enumerate(table.id[order].tolist())}, judge.embedding[order])
    known = np.isin(table.speaker, np.unique(table.speaker)[:8])
    training, unseen = table.select(known), table.select(~known)
    summary = audit([training], unseen=[unseen], settings=QUICK, judge=shuffled).summary
    assert summary["controls"]["judge"]["accuracy"] > 0.95 > 0.3 > summary["controls"]["embedding"]["accuracy"]
    verification = summary["unseen"]["verification"]
    assert verification["judge"] == measure_unseen([Encoder(unseen, training)], judge).judge
    assert verification["judge"]["eer"] < 0.1 and verification["linkage"]["speakers"] == 4
    without = measure_unseen([Encoder(unseen, training)]).summary
    assert without["judge"] is without["linkage"] is None and set(without) == set(verification)


JUDGES = {
    "id,x_0,x_1\na,1,2\nb,2,1\nb,3,3\n": "id b occurs more than once",
    "name,x_0,x_1\na,1,2\n": "no id; the table of a judge needs the utterances' ids",
    "id,x_0,x_1\na,1,2\nb,nan,1\n": "the embedding of b contains NaN",
    "id,x_0,x_1\na,1,2\n": "no row for 1 of 2 utterances: b. Rows are joined by id; ids of this table are such as a",
    "id,word\na,x\nb,y\n": "the embedding has no dimensions",
}


@pytest.mark.parametrize("text", JUDGES)
def test_unusable_judges_are_refused(tmp_path, text):
    path = tmp_path / "judge.csv"
    path.write_text(text)
    with pytest.raises(AuditError, match=r"judge\.csv") as raised:
        read_judge(path).require(["a", "b"])
    assert JUDGES[text] in str(raised.value)


def test_a_judge_is_read_with_ids_alone(tmp_path):
    numpy_file, parquet_like = tmp_path / "judge.npz", tmp_path / "judge.tsv"
    vectors = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.savez(numpy_file, id=np.array(["01", "b", "c"]), embedding=vectors)
    parquet_like.write_text("id\temotion\tx_0\tx_1\n01\t\t1\t2\nb\t\t3\t4\nc\t\t5\t6\n")
    for path in (numpy_file, parquet_like):
        judge = read_judge(path)
        assert judge.of(np.array(["c", "01"])).tolist() == [[5, 6], [1, 2]]
        assert judge.described["dimensions"] == 2 and len(judge.described["sha256"]) == 64
    np.savez(numpy_file, id=np.array(["01", "b"]), embedding=vectors)
    with pytest.raises(AuditError, match="embedding has 3 rows, id has 2"):
        read_judge(numpy_file)
