"""Metrics agree with scikit-learn and confidence_intervals, and are refused or defined where those have no value."""

import warnings

import numpy as np
import pytest
from confidence_intervals import evaluate_with_conf_int
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from speaker_invariant_ser import metrics
from speaker_invariant_ser.errors import SerError

CLASSES = 5


def random_labels(seed, utterances=60):
    rng = np.random.default_rng(seed)
    return rng.integers(0, CLASSES, utterances), rng.integers(0, CLASSES, utterances)


def degenerate_cases():
    """Yield (name, truth, predicted) as a small or poor test set may have them."""
    truth, predicted = random_labels(0)
    yield "a class missing from the truth", np.where(truth == 2, 3, truth), predicted
    yield "a class never predicted", truth, np.where(predicted == 2, 3, predicted)
    yield "a class missing from both", np.where(truth == 2, 3, truth), np.where(predicted == 2, 3, predicted)
    yield "constant predictions", truth, np.full(60, 1)
    yield "constant truth", np.full(60, 1), predicted
    yield "constant predictions of a class that never occurs", np.where(truth == 4, 0, truth), np.full(60, 4)
    yield "one utterance, correct", np.array([3]), np.array([3])
    yield "one utterance, incorrect", np.array([3]), np.array([0])
    yield "all correct", truth, truth


CASES = [*((f"seed {seed}", *random_labels(seed)) for seed in range(20)), *degenerate_cases()]


@pytest.mark.parametrize(("truth", "predicted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_equal_to_scikit_learn(truth, predicted):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        assert metrics.uar(truth, predicted, CLASSES) == pytest.approx(balanced_accuracy_score(truth, predicted))
    f1 = f1_score(truth, predicted, average="macro", labels=np.unique(truth), zero_division=0)
    assert metrics.macro_f1(truth, predicted, CLASSES) == pytest.approx(f1)
    assert metrics.accuracy(truth, predicted) == accuracy_score(truth, predicted)
    expected = confusion_matrix(truth, predicted, labels=range(CLASSES))
    assert np.array_equal(metrics.confusion(truth, predicted, CLASSES), expected)


def test_macro_f1_averages_the_classes_of_uar_and_counts_false_positives():
    truth = np.array([0, 0, 0, 0, 1])
    predicted = np.array([0, 0, 1, 1, 1])
    assert metrics.macro_f1(truth, predicted, 3) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics.macro_f1(truth, np.array([0, 0, 2, 2, 1]), 3) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.macro_f1(truth, truth, 3) == 1


def predictions_by_speaker(seed, speakers=12, utterances=10, classes=3):
    """Return (truth, predicted, speaker) of speakers with different accuracies and different shares of emotions."""
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(speakers), utterances)
    truth = np.concatenate([rng.choice(classes, utterances, p=rng.dirichlet(np.ones(classes))) for _ in range(speakers)])
    correct = rng.random(len(truth)) < rng.uniform(0.3, 0.95, speakers)[speaker]
    return truth, np.where(correct, truth, rng.integers(0, classes, len(truth))), speaker


def plain_uar(truth, predicted):
    """Compute the UAR without the package; faster than scikit-learn for a few thousand small samples."""
    return np.mean([np.mean(predicted[truth == label] == label) for label in np.unique(truth)])


def reference_interval(truth, predicted, speaker, resamples=1000):
    """Return the interval of confidence_intervals over speakers; an item is one speaker's truth and predictions [2, N]."""
    items = np.empty(len(set(speaker)), dtype=object)
    items[:] = [np.stack([truth, predicted])[:, speaker == name] for name in np.unique(speaker)]
    return evaluate_with_conf_int(items, lambda drawn: plain_uar(*np.hstack(list(drawn))), num_bootstraps=resamples)[1]


def difficult_cases():
    truth, predicted, speaker = predictions_by_speaker(9)
    yield "a class missing", np.where(truth == 1, 2, truth), predicted, speaker
    yield "constant predictions", truth, np.zeros(len(truth), int), speaker
    yield "an emotion of a single speaker", np.where(speaker == 0, 1, truth // 2 * 2), predicted, speaker
    yield "two speakers", truth[:20], predicted[:20], speaker[:20]
    yield "a speaker with one utterance", truth[:61], predicted[:61], speaker[:61]


INTERVALS = [*((f"seed {seed}", *predictions_by_speaker(seed)) for seed in range(3)), *difficult_cases()]


@pytest.mark.parametrize(("truth", "predicted", "speaker"), [case[1:] for case in INTERVALS], ids=[case[0] for case in INTERVALS])
def test_the_interval_agrees_with_confidence_intervals(truth, predicted, speaker):
    """Both are bootstraps of the same distribution, with 1000 and 2000 resamples."""
    low, high = metrics.cluster_interval(truth, predicted, speaker, 3)
    assert (low, high) == pytest.approx(reference_interval(truth, predicted, speaker), abs=0.02)
    assert 0 <= low <= metrics.uar(truth, predicted, 3) <= high <= 1


def test_the_interval_agrees_with_conditions_of_confidence_intervals_if_utterances_of_a_speaker_are_alike():
    """Conditions also resample the utterances of a drawn speaker, which widens the interval unless these are all alike."""
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(12), 6)
    truth, predicted = np.repeat(rng.integers(0, 2, (2, 12)), 6, axis=1)
    mixed = np.where(rng.random(72) < 0.5, truth, predicted)
    alike, wider = (
        evaluate_with_conf_int(samples, plain_uar, labels=truth, conditions=speaker, num_bootstraps=100)[1]
        for samples in (predicted, mixed)
    )
    assert metrics.cluster_interval(truth, predicted, speaker, 2) == pytest.approx(alike, abs=0.05)
    low, high = metrics.cluster_interval(truth, mixed, speaker, 2)
    assert wider[0] < low and wider[1] > high


UNDEFINED = [
    (lambda: metrics.uar(np.array([]), np.array([]), 2), "truth: expected a list of at least one label, not an array of shape"),
    (lambda: metrics.macro_f1([], [], 2), "at least one label"),
    (lambda: metrics.accuracy([], []), "accuracy of no predictions is undefined"),
    (lambda: metrics.accuracy([1], [1, 1]), "two lists of one length"),
    (lambda: metrics.uar(np.zeros(3, int), np.zeros(4, int), 2), "two lists of one length"),
    (lambda: metrics.uar(np.zeros((2, 2), int), np.zeros((2, 2), int), 2), "truth: expected a list"),
    (lambda: metrics.uar([0, 2], [0, 1], 2), "truth: label 2 is not an integer from 0 to 1"),
    (lambda: metrics.uar([0, 1], [0, -1], 2), "predictions: label -1 is not an integer from 0 to 1"),
    (lambda: metrics.uar([0, 1], [0, 0.5], 2), "predictions: label 0.5"),
    (lambda: metrics.cluster_interval([0, 5], [0, 1], ["a", "b"], 2), "truth: label 5"),
    (lambda: metrics.cluster_interval([0, 1], [0, 1, 1], ["a", "b"], 2), "two lists of one length"),
    (lambda: metrics.cluster_interval([], [], [], 2), "at least one label"),
    (lambda: metrics.cluster_interval([0, 1], [0, 1], ["a"], 2), "1 cluster for 2 predictions"),
    (lambda: metrics.calibration_error([0, 1], np.array([0.5, 0.5])), r"must be \[2, C\], not \[2\]"),
    (lambda: metrics.calibration_error([0], np.full((2, 2), 0.5)), r"must be \[1, C\], not \[2, 2\]"),
    (lambda: metrics.calibration_error([], np.empty((0, 2))), "at least one label"),
    (lambda: metrics.reliability([0, 2], np.full((2, 2), 0.5)), "label 2 is not an integer from 0 to 1"),
    (lambda: metrics.reliability([0, 1], np.array([[3.0, -2.0], [0.5, 0.5]])), "between 0 and 1"),
    (lambda: metrics.reliability([0, 1], np.full((2, 2), np.nan)), "some do not, or are NaN"),
]


@pytest.mark.parametrize(("call", "text"), UNDEFINED, ids=range(len(UNDEFINED)))
def test_undefined_metrics_are_refused_with_a_reason(call, text):
    with pytest.raises(SerError, match=text):
        call()


def test_reliability_agrees_with_scikit_learn_and_ece_is_its_weighted_difference():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.5), 500)
    truth = np.array([rng.choice(4, p=row) for row in probabilities**2 / (probabilities**2).sum(axis=1, keepdims=True)])
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    mean_confidence, accuracy, counts = metrics.reliability(truth, probabilities, 15)
    assert np.isnan(mean_confidence[:3]).all() and (counts[:3] == 0).all(), "with four classes no confidence is below 1/4"
    filled = counts > 0
    shares, means = calibration_curve(correct, confidence, n_bins=15)
    assert np.allclose(mean_confidence[filled], means) and np.allclose(accuracy[filled], shares)
    assert np.array_equal(counts, np.histogram(confidence, 15, (0, 1))[0])
    expected = sum(
        inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
        for edge in range(15)
        if (inside := (confidence > edge / 15) & (confidence <= (edge + 1) / 15)).any()
    )
    assert 0.02 < metrics.calibration_error(truth, probabilities) == pytest.approx(expected)


def test_true_probabilities_are_calibrated_and_overconfident_ones_are_not():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 4000)
    truth = (rng.random((4000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=2)
    overconfident = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)
    assert metrics.calibration_error(truth, probabilities) < 0.03 < 0.15 < metrics.calibration_error(truth, overconfident)


def test_uar_averages_the_classes_that_occur_in_the_truth():
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 2])
    assert metrics.uar(truth, predicted, 3) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.uar(predicted, truth, 3) == pytest.approx((1 + 0) / 2)


def test_constant_predictions_are_at_chance():
    assert metrics.uar(np.repeat(range(4), 9), np.zeros(36, int), 4) == 0.25


def test_calibration():
    truth = np.array([0, 1] * 50)
    certain, half = np.eye(2)[truth], np.full((100, 2), 0.5)
    assert metrics.calibration_error(truth, certain) == 0
    assert metrics.calibration_error(truth, half) == pytest.approx(0)
    assert metrics.calibration_error(1 - truth, certain) == 1


def test_the_interval_grows_when_utterances_cluster_in_speakers():
    """Half of the speakers are always correct and half never: 200 utterances, but only 10 independent speakers."""
    speakers = np.repeat(np.arange(10), 20)
    truth = np.tile([0, 1], 100)
    predicted = np.where(speakers < 5, truth, 1 - truth)
    low, high = metrics.cluster_interval(truth, predicted, speakers, 2)
    by_utterance = metrics.cluster_interval(truth, predicted, np.arange(200), 2)
    assert low < 0.25 and high > 0.75
    assert high - low > 3 * (by_utterance[1] - by_utterance[0])


def test_the_coverage_of_the_interval_is_about_95_percent():
    """All utterances are of one class, so that UAR is accuracy."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        hits = rng.random(150) < 0.7
        low, high = metrics.cluster_interval(np.ones(150, int), hits.astype(int), np.arange(150), 2, resamples=400, seed=trial)
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_one_speaker_has_no_interval():
    assert np.isnan(metrics.cluster_interval(np.array([0, 1]), np.array([0, 1]), np.array(["a", "a"]), 2)).all()


def random_values(seed=0, utterances=200, speakers=10):
    rng = np.random.default_rng(seed)
    truth = rng.random(utterances)
    return truth, 0.5 * truth + 0.2 * rng.random(utterances), np.arange(utterances) * speakers // utterances


def test_ccc_has_the_values_of_its_definition():
    x = np.array([0.0, 0.5, 1.0])
    assert metrics.ccc(x, x) == 1 and metrics.ccc(x, 1 - x) == pytest.approx(-1)
    assert metrics.ccc(x, x + 0.5) == pytest.approx(2 / 3.5)  # variances 1/6 each, means 1/2 apart: 2/6 / (2/6 + 1/4)
    assert metrics.ccc(x, np.full(3, 0.9)) == 0 and np.isnan(metrics.ccc(np.ones(3), np.ones(3)))
    truth, predicted, _ = random_values()
    variance, apart = truth.var() + predicted.var(), (truth.mean() - predicted.mean()) ** 2
    assert metrics.ccc(truth, predicted) == pytest.approx(2 * np.cov(truth, predicted, bias=True)[0, 1] / (variance + apart))
    assert metrics.pearson(truth, predicted) == pytest.approx(np.corrcoef(truth, predicted)[0, 1])
    assert metrics.rmse(x, x + 0.5) == 0.5 and np.isnan(metrics.pearson(x, np.ones(3)))


def test_the_interval_of_the_ccc_resamples_speakers_and_averages_seeds():
    truth, predicted, speaker = random_values()
    low, high = metrics.ccc_interval(truth, predicted, speaker)
    assert low < metrics.ccc(truth, predicted) < high
    scores = []
    for drawn in np.random.default_rng(0).multinomial(10, np.full(10, 0.1), size=2000):
        rows = np.repeat(np.arange(200), drawn[speaker])
        scores.append(metrics.ccc(truth[rows], predicted[rows]))
    assert (low, high) == pytest.approx(tuple(np.percentile(scores, [2.5, 97.5])))
    twice = [np.concatenate((values, values)) for values in (truth, predicted, speaker)]
    assert metrics.ccc_interval(*twice, np.repeat([0, 1], 200)) == pytest.approx((low, high))
    assert np.isnan(metrics.ccc_interval(truth, predicted, np.zeros(200))).all()


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [([0.1], [0.1, 0.2], "must be two lists"), ([], [], "at least one value"), ([0.1, np.nan], [0.1, 0.2], "must be finite")],
)
def test_values_that_have_no_ccc_are_refused(truth, predicted, message):
    with pytest.raises(SerError, match=message):
        metrics.ccc(np.array(truth), np.array(predicted))
