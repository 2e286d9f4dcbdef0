"""Our numbers are scikit-learn's where it has them, and behave where it has none."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from speaker_invariant_ser import metrics
from speaker_invariant_ser.errors import SerError


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 5, 60), rng.integers(0, 5, 60)
    truth[:5] = range(5)
    assert metrics.uar(truth, predicted, 5) == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert metrics.accuracy(truth, predicted) == accuracy_score(truth, predicted)
    assert np.array_equal(metrics.confusion(truth, predicted, 5), confusion_matrix(truth, predicted, labels=range(5)))


def test_uar_counts_the_classes_that_occur_and_knows_truth_from_prediction():
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 2])
    assert metrics.uar(truth, predicted, 3) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.uar(predicted, truth, 3) == pytest.approx((1 + 0) / 2)


def test_constant_predictions_are_at_chance():
    assert metrics.uar(np.repeat(range(4), 9), np.zeros(36, int), 4) == 0.25


def test_lists_of_different_length_are_refused():
    with pytest.raises(SerError, match="one length"):
        metrics.uar(np.zeros(3, int), np.zeros(4, int), 2)


def test_calibration():
    truth = np.array([0, 1] * 50)
    sure, half = np.eye(2)[truth], np.full((100, 2), 0.5)
    assert metrics.calibration_error(truth, sure) == 0
    assert metrics.calibration_error(truth, half) == pytest.approx(0)
    assert metrics.calibration_error(1 - truth, sure) == 1


def test_the_interval_grows_when_utterances_cluster_in_speakers():
    """Half of the speakers are always right and half always wrong: 200 utterances, but only 10 people."""
    speakers = np.repeat(np.arange(10), 20)
    truth = np.tile([0, 1], 100)
    predicted = np.where(speakers < 5, truth, 1 - truth)
    low, high = metrics.cluster_interval(truth, predicted, speakers, 2)
    alone = metrics.cluster_interval(truth, predicted, np.arange(200), 2)
    assert low < 0.25 and high > 0.75
    assert high - low > 3 * (alone[1] - alone[0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        hits = rng.random(150) < 0.7
        low, high = metrics.cluster_interval(np.ones(150, int), hits.astype(int), np.arange(150), 2, metrics.hit_rate, 400, trial)
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_one_speaker_has_no_interval():
    assert np.isnan(metrics.cluster_interval(np.array([0, 1]), np.array([0, 1]), np.array(["a", "a"]), 2)).all()
