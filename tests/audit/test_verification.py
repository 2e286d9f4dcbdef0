"""Verification recognises planted speakers, is at chance on noise, and is not misled by emotion, text or pooling."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.verification import scorers as scorers_module
from speaker_invariant_ser.audit.verification.error_rates import equal_error_rate, linkability, pool_trials, pooled_eer
from speaker_invariant_ser.audit.verification.scorers import SCORERS, TwoCovariance, fit_scorers
from speaker_invariant_ser.audit.verification.trials import MAX_PAIRS, Trials, draw_pairs, make_trials, pair_of_rank
from speaker_invariant_ser.audit.verification.unseen import halves
from speaker_invariant_ser.audit.verification.verify import Verification, verify

EMOTIONS = 4


def make_columns(code=0.0, seed=0, count=8, utterances=16, dims=16, text_code=0.0, emotion_code=0.0, prefix="p"):
    """Embedding, speaker, emotion and text of noise with codes of given sizes.

    Each of `count` speakers speaks each text once in each emotion.
    """
    rng = np.random.default_rng(seed)
    speaker, utterance = np.divmod(np.arange(count * utterances), utterances)
    emotion, text = utterance % EMOTIONS, utterance // EMOTIONS
    embedding = rng.standard_normal((len(speaker), dims)) + code * rng.standard_normal((count, dims))[speaker]
    embedding += text_code * rng.standard_normal((utterances, dims))[text]
    embedding += emotion_code * rng.standard_normal((EMOTIONS, dims))[emotion]
    return embedding, np.char.mod(f"{prefix}%d", speaker), np.char.mod("e%d", emotion), np.char.mod("t%d", text)


def trials_of_some(seed=0, background=8, count=4, max_pairs=MAX_PAIRS, **options) -> Trials | None:
    """Trials of `count` speakers with other speakers as background."""
    embedding, speaker, emotion, text = make_columns(seed=seed, count=background + count, **options)
    tested = np.isin(speaker, np.unique(speaker)[:count])
    columns = embedding[tested], speaker[tested], emotion[tested], text[tested]
    return make_trials(*columns, fit_scorers(embedding[~tested], speaker[~tested]), max_pairs, seed)


def verify_halves(embedding, speaker, emotion, text) -> Verification | None:
    """Verification of a table whose halves are each other's background."""
    ids = np.char.mod("u%d", np.arange(len(speaker)))
    table = Embeddings(embedding, ids, speaker, emotion, text, np.ones(len(speaker), dtype=bool))
    return verify([encoder.trials for encoder in halves(table)])


def summary_of(*columns) -> dict:
    """The summary of a verification without background."""
    return verify_halves(*columns).summary


# ---- what is recognised


@pytest.mark.parametrize("name", SCORERS)
def test_planted_speakers_are_recognised(name):
    result = summary_of(*make_columns(code=3.0))[name]
    assert max(result[kind] for kind in ("eer", "high", "same_emotion", "cross_emotion")) < 0.02
    assert result["linkability"] > 0.97
    assert max(result["per_encoder"]) < 0.02


@pytest.mark.parametrize("name", SCORERS)
def test_noise_is_at_chance(name):
    """Ten trials: the mean is within 0.015 of 0.5, which is 5 standard errors by simulation; each is within 0.07."""
    results = [summary_of(*make_columns(seed=seed))[name] for seed in range(10)]
    for kind in ("eer", "same_emotion", "cross_emotion"):
        rates = np.array([result[kind] for result in results])
        assert abs(rates.mean() - 0.5) < 0.015
        assert np.abs(rates - 0.5).max() < 0.07
    linkabilities = np.array([result["linkability"] for result in results])
    assert abs(linkabilities.mean()) < 0.02
    assert np.abs(linkabilities).max() < 0.06
    assert sum(result["low"] <= 0.5 <= result["high"] for result in results) >= 7


def test_a_larger_code_gives_fewer_errors_and_more_linkability():
    results = [summary_of(*make_columns(code=code))["trained"] for code in (0, 0.4, 0.8, 1.6)]
    rates, linkabilities = [result["eer"] for result in results], [result["linkability"] for result in results]
    assert rates == sorted(rates, reverse=True) and linkabilities == sorted(linkabilities)
    assert all(result["low"] < result["eer"] < result["high"] for result in results)


@pytest.mark.parametrize("name", SCORERS)
def test_same_emotion_trials_are_not_misled_by_emotion(name):
    """Each speaker has one emotion: over all trials the emotion separates speakers, within an emotion nothing does."""
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(16), 8)
    emotion = speaker % 4
    embedding = rng.standard_normal((128, 8)) + 4 * np.eye(4, 8)[emotion]
    labels = np.char.mod("p%d", speaker), np.char.mod("e%d", emotion), np.full(128, "")
    result = summary_of(embedding, *labels)[name]
    assert result["eer"] < 0.25
    assert result["same_emotion"] == pytest.approx(0.5, abs=0.08)
    assert result["cross_emotion"] is None  # no speaker has two emotions
    assert summary_of(embedding + 4 * np.eye(16, 8)[speaker], *labels)[name]["same_emotion"] < 0.4


def test_only_the_trained_back_end_recognises_speakers_under_large_nuisance_variance():
    embedding, *labels = make_columns(code=1.5, count=24)
    embedding[:, :8] = 30 * np.random.default_rng(1).standard_normal((len(embedding), 8))
    summary = summary_of(embedding, *labels)
    assert summary["trained"]["eer"] < 0.2 < 0.45 < summary["cosine"]["eer"]
    assert summary["eer"] == summary["trained"]["eer"]


def test_the_trained_back_end_ignores_directions_of_emotion():
    embedding, *labels = make_columns(code=0.8, emotion_code=6.0, count=24)
    summary = summary_of(embedding, *labels)
    assert summary["trained"]["cross_emotion"] < 0.25 < 0.4 < summary["cosine"]["cross_emotion"]


@pytest.mark.parametrize(
    "background, utterances, dims",
    [
        pytest.param(2, 16, 128, id="two speakers"),
        pytest.param(6, 1, 32, id="one utterance each"),
        pytest.param(1, 16, 32, id="one speaker"),
        pytest.param(8, 16, 400, id="projected"),
    ],
)
def test_a_large_code_is_recognised_with_a_small_background(background, utterances, dims, monkeypatch):
    monkeypatch.setattr(scorers_module, "MAX_DIMENSIONS", 200)
    columns = make_columns(code=1.5, count=4, dims=dims)
    others = make_columns(code=1.5, count=background, utterances=utterances, dims=dims, seed=1, prefix="q")
    summary = verify([make_trials(*columns, fit_scorers(*others[:2]))]).summary
    assert summary["trained"]["eer"] < 0.2 and summary["cosine"]["eer"] < 0.2


def test_a_constant_embedding_is_at_chance():
    embedding, *labels = make_columns()
    summary = summary_of(np.ones_like(embedding), *labels)
    for scorer in (summary["trained"], summary["cosine"]):
        assert [scorer[key] for key in ("low", "eer", "high")] == pytest.approx([0.5] * 3)


# ---- pairs with the same text


def test_pairs_with_the_same_text_are_left_out():
    """Each speaker has other texts: recognising the sentence recognises the speaker, until such pairs are left out."""
    rng = np.random.default_rng(0)
    speaker, utterance = np.divmod(np.arange(96), 12)
    text = speaker * 3 + utterance % 3
    embedding = rng.standard_normal((96, 16)) + 3 * rng.standard_normal((24, 16))[text]
    labels = np.char.mod("p%d", speaker), np.full(96, "calm")
    known = summary_of(embedding, *labels, np.char.mod("t%d", text))
    unknown = summary_of(embedding, *labels, np.full(96, ""))
    assert known["same_text_left_out"] and not unknown["same_text_left_out"]
    assert known["target_trials"] == 8 * (66 - 18) and unknown["target_trials"] == 8 * 66
    assert known["cosine"]["linkability"] < 0.1 < 0.2 < unknown["cosine"]["linkability"]


def test_pairs_with_the_same_text_stay_if_there_are_no_others():
    embedding, speaker, emotion, _ = make_columns()
    result = verify_halves(embedding, speaker, emotion, text=speaker)
    assert not result.same_text_left_out and result.target_trials == 8 * 120


# ---- scorers


def test_scores_do_not_depend_on_scale_and_offset():
    embedding, *labels = make_columns(code=0.5)
    plain, rescaled = summary_of(embedding, *labels), summary_of(1000 * embedding - 7, *labels)
    for name in SCORERS:
        assert rescaled[name]["eer"] == pytest.approx(plain[name]["eer"], abs=1e-6)
    stretched = summary_of(embedding * np.linspace(1, 50, 16), *labels)
    assert stretched["trained"]["eer"] == pytest.approx(plain["trained"]["eer"], abs=1e-6)


def test_the_back_end_gives_the_log_likelihood_ratio_of_two_gaussians():
    embedding, speaker, *_ = make_columns(code=1.0, dims=3)
    back_end = TwoCovariance(embedding, speaker)
    x, y = back_end.prepare.transform(embedding[[3, 70]]) @ back_end.transform
    between, total = np.diag(back_end.between), np.diag(back_end.between + 1)
    same = multivariate_normal(np.zeros(6), np.block([[total, between], [between, total]])).logpdf(np.concatenate([x, y]))
    single = multivariate_normal(np.zeros(3), total)
    ratio = back_end.compare(embedding, np.array([3]), np.array([70]))[0]
    assert ratio == pytest.approx(same - single.logpdf(x) - single.logpdf(y))


# ---- error rates and linkability


def eer_by_thresholds(score: np.ndarray, target: np.ndarray) -> float:
    """Equal error rate from all thresholds, interpolated between the two where the difference changes its sign."""
    thresholds = [np.inf, *sorted(set(score), reverse=True)]
    false_acceptance = np.array([np.mean(score[~target] >= threshold) for threshold in thresholds])
    false_rejection = np.array([np.mean(score[target] < threshold) for threshold in thresholds])
    after = int(np.argmax(false_acceptance >= false_rejection))
    difference = false_rejection - false_acceptance
    share = difference[after - 1] / (difference[after - 1] - difference[after])
    return false_acceptance[after - 1] + share * (false_acceptance[after] - false_acceptance[after - 1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_error_rate_equals_that_of_all_thresholds(seed, digits):
    rng = np.random.default_rng(seed)
    target = rng.random(80) < 0.3
    score = np.round(rng.standard_normal(80) + seed * target / 2, digits)
    assert equal_error_rate(score, target) == pytest.approx(eer_by_thresholds(score, target))
    assert equal_error_rate(-score, target) == pytest.approx(1 - equal_error_rate(score, target))


def test_encoders_with_different_score_levels_and_speaker_counts_can_be_pooled():
    """One encoder has high scores and many target trials: without weights, noise would look like a speaker code."""
    two, six = trials_of_some(seed=1, count=2, utterances=32), trials_of_some(seed=2, count=6)
    two = replace(two, score={name: values + 5 for name, values in two.score.items()})
    score, target, weight = pool_trials([two, six], "cosine")
    assert equal_error_rate(score, target) < 0.45
    assert pooled_eer([two, six], "cosine") == pytest.approx(0.5, abs=0.02)
    assert abs(linkability(score, target, weight)) < 0.05 < linkability(score, target, np.ones(len(score)))


def test_linkability_of_known_distributions():
    """Scores are 0 or 1; target trials have 1 with probability p, others with q: p (p - q) / (p + q) if p > q."""
    target = np.repeat([True, False], 5000)
    score = np.concatenate([np.arange(5000) < 4000, np.arange(5000) < 1000]).astype(float)
    assert linkability(score, target, np.ones(10_000)) == pytest.approx(0.8 * 0.6 / 1.0, abs=0.01)
    assert linkability(score[:5001], target[:5001], np.ones(5001)) is None


def test_encoders_without_both_kinds_of_trials_are_skipped():
    one_speaker = trials_of_some(count=1)
    one_utterance_each = make_trials(*make_columns(count=3, utterances=1), fit_scorers(*make_columns(prefix="q")[:2]))
    valid = trials_of_some(count=3)
    assert one_speaker is None and one_utterance_each is None
    assert verify([one_speaker, one_utterance_each]) is None and verify_halves(*make_columns(count=3)) is None
    assert verify([one_speaker, valid]).summary == verify([valid]).summary
    assert verify([trials_of_some(count=2)]).summary["low"] is None  # no interval from two speakers
    assert valid.utterances == 48 and verify([valid, valid]).target_trials == 2 * valid.target.sum()


# ---- drawing pairs


def test_every_pair_is_drawn_once():
    speaker = np.repeat([0, 1, 2], [40, 30, 5])
    all_pairs = draw_pairs(speaker, 75 * 74 // 2, 0)
    sample = draw_pairs(speaker, 1000, 0)
    for pairs in (all_pairs, sample):
        assert (pairs[:, 0] != pairs[:, 1]).all()
        assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert len(all_pairs) == 75 * 74 // 2 and len(sample) == 1000
    assert (speaker[sample[:, 0]] == speaker[sample[:, 1]]).sum() == 500
    assert not np.array_equal(sample, draw_pairs(speaker, 1000, 1))
    assert np.array_equal(sample, draw_pairs(speaker, 1000, 0))
    last = 20_000 * 19_999 // 2 - 1
    assert pair_of_rank(np.array([last])).tolist() == [[19_999, 19_998]]


def test_a_sample_of_pairs_estimates_the_error_rate():
    sample = pooled_eer([trials_of_some(code=0.7, utterances=32, max_pairs=3000)], "cosine")
    assert sample == pytest.approx(pooled_eer([trials_of_some(code=0.7, utterances=32)], "cosine"), abs=0.03)


def test_many_utterances_need_little_memory():
    """All pairs of 20,000 utterances would be 200 million; 200,000 are drawn, in under 300 MB."""
    columns = make_columns(code=0.5, count=50, utterances=400, dims=64)
    others = make_columns(code=0.5, count=20, utterances=50, dims=64, seed=1)
    tracemalloc.start()
    trials = make_trials(*columns, fit_scorers(*others[:2]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 190_000 < len(trials.target) <= 200_000 and trials.target.sum() > 90_000
    assert peak < 300e6
