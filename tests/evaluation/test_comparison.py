"""Paired comparison of two runs on the same utterances: planted differences, noise, undefined cases."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation import comparison as paired
from speaker_invariant_ser.evaluation.comparison import MARGIN, Comparison, compare
from speaker_invariant_ser.evaluation.predictions import Predictions, join
from speaker_invariant_ser.evaluation.summary import Against

CLIPS = 40  # of each speaker, alternating between two emotions


def run_of(shares, seed=0) -> Predictions:
    """A run with these accuracies, speaker by speaker."""
    rng = np.random.default_rng(seed)
    truth = np.arange(CLIPS * len(shares)) % 2
    right = np.concatenate([rng.permutation(CLIPS) < round(share * CLIPS) for share in shares])
    speaker = np.repeat([f"s{number:03}" for number in range(len(shares))], CLIPS)
    identity = np.array([f"clip{number}" for number in range(len(truth))])
    probability = np.eye(2)[np.where(right, truth, 1 - truth)] * 0.8 + 0.1
    fold, from_seed = np.full(len(truth), "f"), np.zeros(len(truth), int)
    return Predictions(("joy", "sad"), identity, speaker, fold, from_seed, truth, probability)


def worse_by(loss, speakers=20, jitter=0.0, seed=0) -> Comparison:
    """A run against one that is better by `loss` for every speaker, give or take `jitter`."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.4, 0.7, speakers)
    return compare(run_of(base), run_of(base + loss + jitter * rng.standard_normal(speakers), seed=1))


def test_differences_are_of_the_speakers_uars():
    this, other = run_of([0.5, 0.8, 0.7]), run_of([0.6, 0.6, 0.7], seed=5)
    summary = compare(this, other).summary
    assert list(summary["per_speaker"]) == ["s000", "s001", "s002"] and summary["speakers"] == 3
    for name, row in summary["per_speaker"].items():
        mine = this.speaker == name
        for key, run in (("this", this), ("other", other)):
            assert getattr(row, key) == pytest.approx(balanced_accuracy_score(run.truth[mine], run.predicted[mine]))
        assert row.difference == pytest.approx(row.this - row.other)
    mean = np.mean([row.difference for row in summary["per_speaker"].values()])
    assert summary["difference"].value == pytest.approx(mean)
    assert summary["difference"].low <= mean <= summary["difference"].high


def test_the_summary_has_the_keys_of_the_report():
    keys = "speakers difference per_speaker p_value effect_size margin non_inferior lower_bound"
    assert list(worse_by(0.1, jitter=0.1).summary) == keys.split()
    assert set(keys.split()) <= set(Against.model_fields)


def test_swapping_the_runs_changes_the_sign():
    this, other = run_of([0.5, 0.8, 0.7, 0.6]), run_of([0.6, 0.6, 0.7, 0.4], seed=5)
    there, back = compare(this, other), compare(other, this)
    assert np.allclose(there.difference, -back.difference) and there.p_value == back.p_value
    assert there.effect_size == pytest.approx(-back.effect_size) and there.lower == pytest.approx(-back.upper)


def test_order_of_clips_and_of_labels_does_not_matter():
    this, other = run_of([0.5, 0.8, 0.7]), run_of([0.6, 0.6, 0.7], seed=5)
    turned = replace(other, labels=("sad", "joy"), truth=1 - other.truth, probability=other.probability[:, ::-1])
    shuffled = turned.rows(np.random.default_rng(0).permutation(len(other.id)))
    assert compare(this, shuffled).summary == compare(this, other).summary


def test_runs_of_several_seeds_are_compared_by_the_mean_over_seeds():
    """With another number of seeds on the other side: an utterance is an utterance."""
    alone = [run_of([0.5, 0.8, 0.7], seed=1), run_of([0.7, 0.6, 0.7], seed=2)]
    both = join([replace(run, seed=np.full(len(run.id), number)) for number, run in enumerate(alone)])
    other = run_of([0.6, 0.6, 0.7], seed=5)
    mean = np.mean([compare(run, other).difference for run in alone], axis=0)
    assert not np.allclose(compare(alone[0], other).difference, mean)
    assert np.allclose(compare(both, other).difference, mean) and np.allclose(compare(other, both).difference, -mean)
    assert compare(both, other).speakers == ("s000", "s001", "s002")
    with pytest.raises(RunError, match="7 of 120 only here, 0 of 113 only in the other"):
        compare(both, other.rows(np.arange(7, 120)))


def test_a_run_against_itself_is_no_worse():
    run = run_of([0.5, 0.8, 0.7])
    same = compare(run, run)
    assert not same.difference.any() and same.p_value == 1 and same.non_inferior is True
    assert same.summary["effect_size"] is None and (same.low, same.high) == (same.lower, same.upper) == (0, 0)


@pytest.mark.parametrize("speakers", [12, 40], ids=["every pattern of signs", "random patterns"])
def test_a_planted_loss_is_significant_and_noise_is_not(speakers):
    planted, noise = worse_by(0.15, speakers, 0.05), worse_by(0.0, speakers, 0.1)
    assert planted.p_value < 0.001 and planted.effect_size < -1.5 and planted.high < 0 and planted.non_inferior is False
    assert noise.p_value > 0.05 and noise.low < 0 < noise.high and noise.non_inferior == "undecided"


def test_non_inferiority_is_judged_by_the_bounds_of_a_t_test_at_one_point():
    better, unclear = worse_by(-0.2, jitter=0.05), worse_by(0.02, 6, 0.05)
    assert MARGIN == 0.01 and better.non_inferior is True and unclear.non_inferior == "undecided"
    for one, side in ((better, "greater"), (unclear, "greater"), (unclear, "less")):
        interval = stats.ttest_1samp(one.difference, 0, alternative=side).confidence_interval(0.95)
        assert one.lower == pytest.approx(interval.low) if side == "greater" else one.upper == pytest.approx(interval.high)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [(-0.009, 0.1, True), (-0.011, 0.1, "undecided"), (-0.1, -0.009, "undecided"), (-0.1, -0.011, False), (0.01, 0.02, True)],
)
def test_the_margin_is_one_point(lower, upper, expected):
    assert replace(worse_by(0.0), lower=lower, upper=upper).non_inferior == expected


@pytest.mark.parametrize("seed", range(5))
def test_p_is_the_share_of_all_patterns_of_signs_that_are_as_far_from_0(seed):
    difference = np.random.default_rng(seed).normal(0.05, 0.1, 9)
    means = [np.mean(np.multiply(signs, difference)) for signs in product((-1, 1), repeat=9)]
    share = np.mean(np.abs(means) >= abs(difference.mean()) - 1e-12)
    assert paired.sign_flip_p(difference) == pytest.approx(share)


def test_the_smallest_p_is_what_the_number_of_speakers_allows():
    """Exact up to 14 speakers; beyond, random patterns can be no surer than their number, the observed one included."""
    assert paired.sign_flip_p(np.full(5, 0.1)) == 2 / 2**5
    assert paired.sign_flip_p(np.full(14, 0.1)) == 2 / 2**14
    assert paired.sign_flip_p(np.full(30, 0.1)) == pytest.approx(2 / 10_001)
    assert paired.sign_flip_p(np.zeros(8)) == 1


def test_random_patterns_agree_with_all_of_them(monkeypatch):
    difference = np.random.default_rng(2).normal(0.04, 0.1, 12)
    exact = paired.sign_flip_p(difference)
    monkeypatch.setattr(paired, "MAX_EXACT_SPEAKERS", 5)
    monkeypatch.setattr(paired, "RANDOM_PATTERNS", 2000)
    by_chance = paired.sign_flip_p(difference)
    assert 0.01 < exact < 0.9 and by_chance == pytest.approx(exact, abs=0.04) and by_chance != exact


def test_without_a_difference_p_is_below_a_twentieth_about_one_time_in_twenty():
    rng = np.random.default_rng(0)
    below = sum(paired.sign_flip_p(rng.normal(0, 0.1, 8)) <= 0.05 for _ in range(400))
    assert 8 <= below <= 34


def test_the_lower_bound_is_below_the_truth_about_as_often_as_it_says():
    """For few speakers and differences that are no normal ones: shares of 40 utterances."""
    rng = np.random.default_rng(0)
    held = sum(paired.bounds((rng.binomial(40, 0.6, 6) - rng.binomial(40, 0.6, 6)) / 40)[0] <= 0 for _ in range(600))
    assert 0.92 <= held / 600 <= 0.975


def test_one_speaker_has_a_difference_and_nothing_else():
    summary = compare(run_of([0.5]), run_of([0.7], seed=1)).summary
    assert summary["difference"].to_json() == {"value": pytest.approx(-0.2), "low": None, "high": None}
    assert summary["p_value"] is summary["effect_size"] is summary["lower_bound"] is None
    assert summary["non_inferior"] == "undecided"


def test_two_speakers_have_no_bootstrap_interval():
    difference = compare(run_of([0.5, 0.6]), run_of([0.7, 0.7], seed=1)).summary["difference"]
    assert (difference.low, difference.high) == (None, None) and difference.value == pytest.approx(-0.15)


def test_the_same_gain_for_all_speakers_has_no_effect_size():
    gain = compare(run_of([0.6, 0.7, 0.8]), run_of([0.5, 0.6, 0.7]))
    assert np.allclose(gain.difference, 0.1) and gain.summary["effect_size"] is None and gain.non_inferior is True


def test_the_effect_size_is_the_mean_by_the_deviation_of_a_sample():
    assert paired.effect_size(np.array([0.1, 0.2, 0.6])) == pytest.approx(0.3 / 0.07**0.5)


def test_other_clips_are_refused():
    run = run_of([0.5, 0.8])
    with pytest.raises(RunError, match="tested on different utterances: 7 of 80 only here, 0 of 73 only in the other"):
        compare(run, run.rows(np.arange(7, 80)))
    renamed = replace(run, id=np.array(["new", *run.id[1:]]))
    with pytest.raises(RunError, match="1 of 80 only here, 1 of 80 only in the other; compare runs of the same corpus"):
        compare(run, renamed)


@pytest.mark.parametrize("column", ["speaker", "truth"])
def test_clips_that_changed_speaker_or_emotion_are_refused(column):
    run = run_of([0.5, 0.8])
    values = getattr(run, column).copy()
    values[[0, 2, 4]] = values[-1]
    with pytest.raises(RunError, match="3 of 80 test utterances have another speaker or emotion in the other run"):
        compare(run, replace(run, **{column: values}))
