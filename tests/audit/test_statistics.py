"""Chance levels, intervals and p-values mean what they say, on data whose truth is known."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from speaker_invariant_ser.audit import statistics as chance
from speaker_invariant_ser.audit.statistics import Clips, Score


def test_the_detection_limit_of_the_issue_that_asked_for_it():
    """110 clips of 11 speakers: 16 hits are needed for p < 0.05, and 17 % brings them in 4 of 5 cases."""
    limit = chance.detection_limit(110, 1 / 11)
    assert round(100 * limit) == 17
    assert binom.sf(15, 110, limit) == pytest.approx(0.8, abs=0.01)
    assert (
        binomtest(16, 110, 1 / 11, alternative="greater").pvalue < 0.05 < binomtest(15, 110, 1 / 11, alternative="greater").pvalue
    )


def test_the_detection_limit_shrinks_with_clips_and_has_a_ceiling():
    limits = [chance.detection_limit(clips, 0.1) for clips in (1, 10, 100, 1000, 10_000)]
    assert limits[0] == 1.0 and limits == sorted(limits, reverse=True) and limits[-1] < 0.11
    assert chance.detection_limit(10, 1.0) is None and chance.detection_limit(10, 0.9999999999999999) is None


def clips(count=300, speakers=6, emotions=3, seed=0):
    rng = np.random.default_rng(seed)
    return Clips(np.arange(count), np.arange(count) % speakers, rng.integers(0, emotions, count), np.ones(count, dtype=bool))


def test_permuted_labels_keep_encoder_and_emotion():
    """Whoever names speakers by the emotion alone reads as much from permuted labels as from the true ones."""
    labels = np.array([0, 0, 1, 1, 2, 2] * 30)
    one = Clips(np.arange(180), labels, labels, np.ones(180, dtype=bool))
    votes = {"emotion": [np.eye(3)[one.emotion]], "fixed": [np.eye(3)[np.zeros(180, int)]]}
    permuted = chance.permuted_accuracies(votes, [one], 50, seed=0)
    assert permuted["emotion"] == pytest.approx(1.0) and permuted["fixed"] == pytest.approx(1 / 3)


def test_permutations_do_not_depend_on_the_blocks_they_are_drawn_in(monkeypatch):
    one, votes = clips(), {"a": [np.eye(6)[np.arange(300) % 6]]}
    whole = chance.permuted_accuracies(votes, [one], 200, seed=0)["a"]
    monkeypatch.setattr(chance, "BLOCK", 1000)
    assert np.array_equal(whole, chance.permuted_accuracies(votes, [one], 200, seed=0)["a"])


def test_p_values_of_guesses_are_spread_evenly():
    one, rng = clips(), np.random.default_rng(0)
    votes = {str(trial): [np.eye(6)[rng.integers(0, 6, 300)]] for trial in range(300)}
    permuted = chance.permuted_accuracies(votes, [one], 300, seed=1)
    hits = {name: each[0][np.arange(300), one.speaker].mean() for name, each in votes.items()}
    above, below = np.transpose([chance.p_values(hits[name], permuted[name]) for name in votes])
    assert 0.02 < (above < 0.05).mean() < 0.09 and 0.02 < (below < 0.05).mean() < 0.09
    assert above.min() >= 1 / 301


def test_the_interval_is_wider_where_clips_of_a_text_are_alike():
    text = np.repeat(np.arange(10), 20)
    hits = (text < 5).astype(float)
    by_text, by_clip = chance.interval(hits, text), chance.interval(hits, np.arange(200))
    assert by_text[1] - by_text[0] > 3 * (by_clip[1] - by_clip[0])


def test_the_upper_bound_holds_about_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        text = np.repeat(np.arange(8), 15)
        rate = np.clip(rng.normal(0.3, 0.08, 8), 0, 1)[text]
        hits = (rng.random(120) < rate).astype(float)
        held += chance.score(hits, np.arange(120) % 6, text, 120).upper >= 0.3
    assert 0.92 < held / 400 < 0.98


def test_bounds_of_balanced_accuracy_are_those_of_accuracy_where_speakers_are_balanced():
    rng = np.random.default_rng(0)
    score = chance.score((rng.random(240) < 0.4).astype(float), np.arange(240) % 6, np.arange(240), 240)
    assert score.balanced_accuracy == pytest.approx(score.accuracy)
    assert score.balanced_upper == pytest.approx(score.upper, abs=0.002)


def test_balanced_accuracy_is_the_mean_over_speakers():
    score = chance.score(np.array([1.0, 1, 1, 1, 1, 1, 0, 0]), np.array(list("aaaaaabb")), np.arange(8), 8)
    assert score.accuracy == 0.75 and score.balanced_accuracy == 0.5


def test_one_cluster_has_no_bounds():
    score = chance.score(np.array([1.0, 0.0]), np.array(["a", "b"]), np.array(["t", "t"]), 2)
    assert np.isnan([score.low, score.high, score.upper, score.balanced_upper]).all()


def attacker(accuracy, upper, p_value=0.5, p_below=0.5, balanced=None):
    return Score(accuracy, 0, 1, upper, accuracy, upper if balanced is None else balanced, p_value, p_below)


CHANCE = {"given_emotion": 0.10, "given_emotion_balanced": 0.10}


@pytest.mark.parametrize(
    "strongest, others, said",
    [
        (attacker(0.10, 0.12), [], True),
        (attacker(0.10, 0.14), [], "undecided"),
        (attacker(0.10, np.nan), [], "undecided"),
        (attacker(0.20, 0.22, 0.001), [], "leak"),
        (attacker(0.10, 0.12, balanced=0.15), [], "undecided"),
        (attacker(0.11, 0.125, 0.04), [], True),  # a leak within the margin is none
        (attacker(0.10, 0.12), [attacker(0.02, 0.03, 1.0, 0.0009)], "below"),  # significantly below is a leak
        (attacker(0.10, 0.12), [attacker(0.08, 0.09, 0.9, 0.04)], True),  # one in twenty is below by luck
        (attacker(0.10, 0.12), [attacker(0.30, 0.35, 0.001)], "leak"),  # the choice went wrong
        (attacker(0.12, 0.14, 0.2), [attacker(0.14, 0.16, 0.03)], "undecided"),  # the best of many by luck
    ],
)
def test_what_is_called_chance(strongest, others, said):
    attackers = {str(number): one for number, one in enumerate([strongest, *others])}
    judgement = chance.judge(strongest, attackers, CHANCE)
    assert (judgement.at_chance, judgement.reason) == (said if said in (True, "undecided") else False, REASONS.get(said, said))


REASONS = {True: "within", "undecided": "few"}


@pytest.mark.parametrize("speakers, utterances", [(10, 50), (20, 80), (50, 150), (100, 150), (10, 5), (2, 4), (11, 110)])
def test_a_leak_at_the_margin_is_rarely_within_it_however_few_the_clips(speakers, utterances):
    """Exact, over all numbers of hits: at most 1 in 20 times the bound lies below the true accuracy, chance + 3 points."""
    true = 1 / speakers + chance.MARGIN
    wrong = 0.0
    for hits in range(utterances + 1):
        right = (np.arange(utterances) < hits).astype(float)
        bound = chance.score(right, np.arange(utterances) % 2, np.arange(utterances), utterances).upper
        wrong += binom.pmf(hits, utterances, true) * (bound < true)
    assert wrong <= 0.055


def test_encoders_that_score_the_same_clips_are_no_new_evidence():
    """Guesses of one encoder, copied eight times: as sure as one, where permuting each by itself would be far surer."""
    one, rng = clips(), np.random.default_rng(0)
    copies, p_values = [one] * 8, {1: [], 8: []}
    for _ in range(150):
        guess = np.eye(6)[rng.integers(0, 6, 300)]
        for encoders in p_values:
            each = [guess] * encoders
            permuted = chance.permuted_accuracies({"a": each}, copies[:encoders], 200, seed=1)["a"]
            p_values[encoders].append(chance.p_values(guess[np.arange(300), one.speaker].mean(), permuted)[0])
    assert np.mean(np.array(p_values[8]) < 0.05) < 0.1
    assert np.abs(np.subtract(p_values[8], p_values[1])).mean() < 0.06


def test_knowing_the_emotion_is_no_more_than_chance_where_it_says_nothing():
    """Few clips and many emotions: the most frequent speaker among the scored clips themselves would be right twice as often."""
    rng, found, counted = np.random.default_rng(0), [], []
    for _ in range(200):
        one = Clips(np.arange(110), np.arange(110) % 10, rng.integers(0, 7, 110), np.ones(110, dtype=bool))
        test = np.arange(110) % 5 == 0
        guess = chance.guess_by_emotion(one, np.flatnonzero(~test), np.flatnonzero(test), False)
        found.append((guess == one.speaker[test]).mean())
        best = [np.bincount(one.speaker[one.emotion == emotion]).max() for emotion in set(one.emotion)]
        counted.append(sum(best) / 110)
    assert np.mean(found) < 0.12 < 0.2 < np.mean(counted)
