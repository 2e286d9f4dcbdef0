"""Chance levels, intervals and p values have their nominal properties on data whose distribution is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from speaker_invariant_ser.audit import permutations, statistics
from speaker_invariant_ser.audit.permutations import IntegerLabels
from speaker_invariant_ser.audit.statistics import Score
from speaker_invariant_ser.audit.tails import Tail, conclude


def make_labels(count: int = 300, speakers: int = 6, emotions: int = 3, seed: int = 0) -> IntegerLabels:
    """Equally frequent speakers, random emotions."""
    rng = np.random.default_rng(seed)
    emotion = rng.integers(0, emotions, count)
    return IntegerLabels(np.arange(count), np.arange(count) % speakers, emotion, np.ones(count, dtype=bool))


def test_detection_limit_of_110_utterances_of_11_speakers():
    """16 correct predictions are needed for p < 0.05, and an accuracy of 17 % gives them with a probability of 0.8."""
    limit = statistics.detection_limit(110, 1 / 11)
    assert round(100 * limit) == 17
    assert binom.sf(15, 110, limit) == pytest.approx(0.8, abs=0.01)
    p_value = {correct: binomtest(correct, 110, 1 / 11, alternative="greater").pvalue for correct in (15, 16)}
    assert p_value[16] < 0.05 < p_value[15]


def test_the_detection_limit_falls_with_utterances_and_is_at_most_1():
    limits = [statistics.detection_limit(utterances, 0.1) for utterances in (1, 10, 100, 1000, 10_000)]
    assert limits[0] == 1.0 and limits == sorted(limits, reverse=True) and limits[-1] < 0.11
    assert statistics.detection_limit(10, 1.0) is None and statistics.detection_limit(10, 0.9999999999999999) is None


# ---- permutation tests


def test_speakers_are_permuted_within_the_emotion():
    """Predictions from the emotion alone are as accurate on permuted speakers as on the true ones."""
    codes = np.array([0, 0, 1, 1, 2, 2] * 30)
    labels = IntegerLabels(np.arange(180), codes, codes, np.ones(180, dtype=bool))
    votes = {"by emotion": [np.eye(3)[labels.emotion]], "constant": [np.eye(3)[np.zeros(180, int)]]}
    permuted = permutations.permuted_accuracies(votes, [labels], 50, seed=0)
    assert permuted["by emotion"] == pytest.approx(1.0) and permuted["constant"] == pytest.approx(1 / 3)


def test_permutations_do_not_depend_on_the_block_size(monkeypatch):
    labels, votes = make_labels(), {"a": [np.eye(6)[np.arange(300) % 6]]}
    in_one_block = permutations.permuted_accuracies(votes, [labels], 200, seed=0)["a"]
    monkeypatch.setattr(permutations, "BLOCK_SIZE", 1000)
    assert np.array_equal(in_one_block, permutations.permuted_accuracies(votes, [labels], 200, seed=0)["a"])


def test_p_values_of_random_guesses_are_uniform():
    labels, rng = make_labels(), np.random.default_rng(0)
    votes = {str(trial): [np.eye(6)[rng.integers(0, 6, 300)]] for trial in range(300)}
    permuted = permutations.permuted_accuracies(votes, [labels], 300, seed=1)
    accuracy = {name: guesses[0][np.arange(300), labels.speaker].mean() for name, guesses in votes.items()}
    above, below = np.transpose([permutations.p_values(accuracy[name], permuted[name]) for name in votes])
    assert 0.02 < (above < 0.05).mean() < 0.09 and 0.02 < (below < 0.05).mean() < 0.09
    assert above.min() >= 1 / 301


def test_several_encoders_with_the_same_predictions_are_no_more_significant_than_one():
    labels, rng = make_labels(), np.random.default_rng(0)
    p_values: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(150):
        guesses = np.eye(6)[rng.integers(0, 6, 300)]
        accuracy = guesses[np.arange(300), labels.speaker].mean()
        for encoders in p_values:
            votes = {"a": [guesses] * encoders}
            permuted = permutations.permuted_accuracies(votes, [labels] * encoders, 200, seed=1)["a"]
            p_values[encoders].append(permutations.p_values(accuracy, permuted)[0])
    assert np.mean(np.array(p_values[8]) < 0.05) < 0.1
    assert np.abs(np.subtract(p_values[8], p_values[1])).mean() < 0.06


def test_the_design_effect_of_identical_encoders_is_their_number():
    labels = make_labels()
    guesses = np.eye(6)[np.random.default_rng(0).integers(0, 6, 300)]
    assert permutations.design_effect([guesses] * 5, [labels] * 5) == pytest.approx(5)
    assert permutations.design_effect([guesses], [labels]) == 1.0


def test_the_design_effect_of_windows_of_a_recording_is_that_of_one_encoder_where_encoders_are_tested_apart():
    voices = make_labels()
    labels = replace(voices, **{name: np.repeat(getattr(voices, name), 4) for name in ("id", "speaker", "emotion", "scored")})
    guesses = np.repeat(np.eye(6)[np.random.default_rng(0).integers(0, 6, 300)], 4, axis=0)
    assert permutations.design_effect([guesses] * 5, [labels] * 5) == pytest.approx(20)
    assert permutations.design_effect([guesses] * 5, [labels] * 5, apart=True) == pytest.approx(4)


@pytest.mark.parametrize(
    "says, parts, expected",
    [
        ("all", "none", 1.0),
        ("some", "none", 12.0),
        ("some", "speaker", 12.0),
        ("one each", "speaker", np.inf),
        ("one each", "within", 1.0),
    ],
)
def test_utterances_of_a_text_count_as_few_where_some_speakers_say_it(says, parts, expected):
    """An attacker that knows the text is right or wrong for all 24 utterances of it, half of them of each of two speakers."""
    text, speaker = np.repeat(np.arange(60), 24), np.arange(1440) % 6
    if says == "some":
        speaker = text % 3 * 2 + np.arange(1440) % 2
    elif says == "one each":
        text = speaker
    votes = np.eye(6)[np.random.default_rng(0).integers(0, 6, 60)[text]]
    labels = IntegerLabels(np.arange(1440), speaker, np.zeros(1440, dtype=int), np.ones(1440, dtype=bool), text)
    effect = permutations.text_effect([votes], [labels], None if parts == "none" else [speaker], parts == "within")
    assert effect == pytest.approx(expected, rel=0.4)
    assert np.isnan(permutations.text_effect([votes], [replace(labels, text=None)]))


# ---- intervals and bounds


def test_the_interval_is_wider_where_utterances_of_a_text_are_alike():
    text = np.repeat(np.arange(10), 20)
    correct = (text < 5).astype(float)
    by_text, by_utterance = (
        statistics.cluster_bootstrap_interval(correct, text),
        statistics.cluster_bootstrap_interval(correct, np.arange(200)),
    )
    assert by_text[1] - by_text[0] > 3 * (by_utterance[1] - by_utterance[0])
    assert np.isnan(statistics.cluster_bootstrap_interval(correct, np.arange(200) % 2)).all(), "three resamples are none"


def test_the_upper_bound_covers_the_true_accuracy_in_95_percent():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        text = np.repeat(np.arange(8), 15)
        rate = np.clip(rng.normal(0.3, 0.08, 8), 0, 1)[text]
        correct = (rng.random(120) < rate).astype(float)
        covered += statistics.compute_score(correct, np.arange(120) % 6, text, 120).upper >= 0.3
    assert 0.92 < covered / 400 < 0.98


@pytest.mark.parametrize("speakers, utterances", [(10, 50), (20, 80), (50, 150), (100, 150), (10, 5), (2, 4), (11, 110)])
def test_the_upper_bound_is_valid_at_the_margin_for_few_utterances(speakers, utterances):
    """Exact, over all numbers of correct predictions: the bound is below the true accuracy with probability 0.05 at most."""
    true_accuracy = 1 / speakers + statistics.MARGIN
    probability_below = 0.0
    for count in range(utterances + 1):
        correct = (np.arange(utterances) < count).astype(float)
        bound = statistics.compute_score(correct, np.arange(utterances) % 2, np.arange(utterances), utterances).upper
        probability_below += binom.pmf(count, utterances, true_accuracy) * (bound < true_accuracy)
    assert probability_below <= 0.055


def test_balanced_accuracy_and_accuracy_agree_where_speakers_are_equally_frequent():
    correct = (np.random.default_rng(0).random(240) < 0.4).astype(float)
    score = statistics.compute_score(correct, np.arange(240) % 6, np.arange(240), 240)
    assert score.balanced_accuracy == pytest.approx(score.accuracy)
    assert score.balanced_upper == pytest.approx(score.upper, abs=0.002)


def test_balanced_accuracy_is_the_mean_recall_over_speakers():
    correct = np.array([1.0, 1, 1, 1, 1, 1, 0, 0])
    score = statistics.compute_score(correct, np.array(list("aaaaaabb")), np.arange(8), 8)
    assert score.accuracy == 0.75 and score.balanced_accuracy == 0.5


def test_bounds_are_undefined_with_a_single_cluster():
    score = statistics.compute_score(np.array([1.0, 0.0]), np.array(["a", "b"]), np.array(["t", "t"]), 2)
    assert np.isnan([score.low, score.high, score.upper, score.balanced_upper]).all()


# ---- the equivalence test


def make_score(
    accuracy: float, upper: float, p_value: float = 0.5, p_below: float = 0.5, balanced_upper: float | None = None
) -> Score:
    """A score with the values that the equivalence test uses."""
    return Score(accuracy, 0, 1, upper, accuracy, upper if balanced_upper is None else balanced_upper, p_value, p_below)


CHANCE = {"given_emotion": 0.10, "given_emotion_balanced": 0.10}


@pytest.mark.parametrize(
    "strongest, others, at_chance, reason",
    [
        pytest.param(make_score(0.10, 0.12), [], True, "within", id="bound within the margin"),
        pytest.param(make_score(0.10, 0.14), [], "undecided", "few", id="bound beyond the margin"),
        pytest.param(make_score(0.10, np.nan), [], "undecided", "few", id="no bound"),
        pytest.param(make_score(0.20, 0.22, 0.001), [], False, "leak", id="significant"),
        pytest.param(make_score(0.10, 0.12, balanced_upper=0.15), [], "undecided", "few", id="balanced bound beyond the margin"),
        pytest.param(make_score(0.11, 0.125, 0.04), [], True, "within", id="significant but within the margin"),
        pytest.param(make_score(0.10, 0.12), [make_score(0.02, 0.03, 1.0, 0.0009)], False, "below", id="another below chance"),
        pytest.param(make_score(0.10, 0.12), [make_score(0.08, 0.09, 0.9, 0.04)], True, "within", id="below by luck"),
        pytest.param(make_score(0.10, 0.12), [make_score(0.30, 0.35, 0.001)], False, "leak", id="another is significant"),
        pytest.param(make_score(0.12, 0.14, 0.2), [make_score(0.14, 0.16, 0.03)], "undecided", "few", id="above by luck"),
    ],
)
def test_equivalence_test(strongest, others, at_chance, reason):
    attackers = {str(number): score for number, score in enumerate([strongest, *others])}
    conclusion = statistics.equivalence_test(strongest, attackers, CHANCE)
    assert (conclusion.at_chance, conclusion.reason) == (at_chance, reason)


@pytest.mark.parametrize(
    "strongest, tails, reason",
    [
        pytest.param(make_score(0.01, 0.03, 1.0, 0.0009), {}, "uneven", id="below chance alone"),
        pytest.param(make_score(0.20, 0.22, 0.001), {}, "leak", id="one above, one below"),
        pytest.param(
            make_score(0.10, 0.12), {"speaker": Tail("a", 0.5, 0.1, 20, 0.001)}, "speaker", id="one speaker is recognised"
        ),
    ],
)
def test_below_chance_is_no_leak_by_itself_where_emotions_or_texts_are_unknown(strongest, tails, reason):
    attackers = {"a": strongest, "b": make_score(0.02, 0.03, 1.0, 0.0009)}
    unknown = conclude(strongest, attackers, CHANCE, tails, 0.0, known=False)
    assert (unknown.at_chance, unknown.reason) == ("undecided" if reason == "uneven" else False, reason)
    known = conclude(strongest, attackers, CHANCE, tails, 0.0, known=True)
    assert (known.at_chance, known.reason) == (False, "below")


@pytest.mark.parametrize(
    "speaker, surest, at_chance, reason",
    [
        (0.03, 0.03, True, "within"),
        (0.02, 0.5, "undecided", "tail"),
        (0.004, 0.5, False, "speaker"),
        (0.5, 0.001, False, "surest"),
    ],
)
def test_one_speaker_and_the_surest_utterances_stand_against_a_claim(speaker, surest, at_chance, reason):
    score, tails = make_score(0.10, 0.12), {"speaker": speaker, "surest": surest}
    conclusion = statistics.equivalence_test(score, {"a": score}, CHANCE, tails)
    assert (conclusion.at_chance, conclusion.reason) == (at_chance, reason)


@pytest.mark.parametrize("chance", [{"given_emotion": 0.97}, {"given_emotion_balanced": 0.98}], ids=["pooled", "balanced"])
def test_where_chance_leaves_no_room_nothing_is_claimed(chance):
    conclusion = statistics.equivalence_test(make_score(0.10, 0.12), {}, {**CHANCE, **chance})
    assert (conclusion.at_chance, conclusion.reason) == ("undecided", "no_room")


@pytest.mark.parametrize(
    "low, expected", [(0.2, (False, "text_leak")), (0.05, ("undecided", "text")), (np.nan, ("undecided", "text"))]
)
def test_where_texts_name_speakers_a_leak_may_be_of_the_text(low, expected):
    score = replace(make_score(0.3, 0.4, 0.001), low=low)
    conclusion = conclude(score, {"a": score}, CHANCE, {}, 0.9, known=True)
    assert (conclusion.at_chance, conclusion.reason) == expected
    few = make_score(0.10, 0.2)
    assert conclude(few, {"a": few}, CHANCE, {}, 0.9, known=True).reason == "few", "no leak is reconsidered"


@pytest.mark.parametrize("over_texts, expected", [(0.001, (False, "leak")), (0.2, ("undecided", "text"))])
@pytest.mark.parametrize("tail", [False, True], ids=["average", "one speaker"])
def test_a_leak_is_significant_over_texts_where_these_are_known(over_texts, expected, tail):
    """Utterances of one text stand or fall together, which makes a text look like many utterances of evidence."""
    p_value, over = (0.5, 0.5) if tail else (0.001, over_texts)
    score = replace(make_score(0.3, 0.4, p_value), p_value_texts=over, p_below_texts=1.0)
    tails = {"speaker": Tail("a", 0.5, 0.1, 20, 0.001, p_value_texts=over_texts)} if tail else {}
    conclusion = conclude(score, {"a": score}, CHANCE, tails, 0.0, known=True)
    assert (conclusion.at_chance, conclusion.reason) == ((expected[0], "speaker") if tail and expected[0] is False else expected)


def test_the_reason_is_what_texts_do_not_explain():
    """The average may be the text's; one speaker is more than that."""
    score = replace(make_score(0.3, 0.4, 0.001), p_value_texts=0.5, p_below_texts=1.0)
    tails = {"speaker": Tail("a", 0.5, 0.1, 20, 0.001, p_value_texts=0.001)}
    assert conclude(score, {"a": score}, CHANCE, tails, 0.0, known=True) == statistics.Conclusion(False, "speaker")


@pytest.mark.parametrize("factor", [1.5, np.inf])
def test_accuracies_that_do_not_vary_are_not_spread(factor):
    assert permutations.spread_by(factor, np.full(3, 0.25)).tolist() == [0.25] * 3


# ---- chance given the emotion


def test_predictions_from_an_irrelevant_emotion_are_at_uniform_chance():
    """With few utterances and many emotions, counts on the scored utterances themselves would be twice as accurate by luck."""
    rng, accuracies, counted_on_test = np.random.default_rng(0), [], []
    for _ in range(200):
        labels = IntegerLabels(np.arange(110), np.arange(110) % 10, rng.integers(0, 7, 110), np.ones(110, dtype=bool))
        test = np.arange(110) % 5 == 0
        predicted = statistics.predict_from_emotion(labels, np.flatnonzero(~test), np.flatnonzero(test), False)
        accuracies.append((predicted == labels.speaker[test]).mean())
        most_frequent = [np.bincount(labels.speaker[labels.emotion == emotion]).max() for emotion in set(labels.emotion)]
        counted_on_test.append(sum(most_frequent) / 110)
    assert np.mean(accuracies) < 0.12 < 0.2 < np.mean(counted_on_test)
