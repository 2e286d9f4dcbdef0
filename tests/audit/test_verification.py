"""Planted people are told apart, noise is not, and neither emotion nor text nor the pooling passes for a person."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal as normal

from speaker_invariant_ser.audit import verification
from speaker_invariant_ser.audit.verification import (
    SCORERS,
    TwoCovariance,
    draw_pairs,
    equal_error_rate,
    linkability,
    make_trials,
    pool,
    pooled_eer,
    unrank,
    verify,
    verify_without_background,
)

EMOTIONS = 4


def people(code=0.0, seed=0, count=8, clips=16, dims=16, text_code=0.0, emotion_code=0.0, names="p"):
    """Noise [N, D] with a code of each size; every text is said once by each speaker in each emotion."""
    rng = np.random.default_rng(seed)
    speaker, clip = np.divmod(np.arange(count * clips), clips)
    emotion, text = clip % EMOTIONS, clip // EMOTIONS
    embedding = rng.standard_normal((len(speaker), dims)) + code * rng.standard_normal((count, dims))[speaker]
    embedding += text_code * rng.standard_normal((clips, dims))[text]
    embedding += emotion_code * rng.standard_normal((EMOTIONS, dims))[emotion]
    return embedding, np.char.mod(f"{names}%d", speaker), np.char.mod("e%d", emotion), np.char.mod("t%d", text)


def trials(seed=0, known=8, count=4, most=200_000, **options):
    """Trials of some of the people, the others being the background."""
    embedding, speaker, emotion, text = people(seed=seed, count=known + count, **options)
    asked = np.isin(speaker, np.unique(speaker)[:count])
    return make_trials(
        embedding[asked], speaker[asked], emotion[asked], text[asked], embedding[~asked], speaker[~asked], most, seed
    )


@pytest.mark.parametrize("name", SCORERS)
def test_planted_people_are_told_apart(name):
    found = verify_without_background(*people(code=3.0)).summary[name]
    assert max(found[kind] for kind in ("eer", "high", "same_emotion", "cross_emotion")) < 0.02
    assert found["linkability"] > 0.97
    assert max(found["per_encoder"]) < 0.02


@pytest.mark.parametrize("name", SCORERS)
def test_noise_is_not_told_apart(name):
    """Ten trials: the mean within 0.015 of a half, which is 5 standard errors as simulated, each within 0.07."""
    found = [verify_without_background(*people(seed=seed)).summary[name] for seed in range(10)]
    for kind in ("eer", "same_emotion", "cross_emotion"):
        rates = np.array([each[kind] for each in found])
        assert abs(rates.mean() - 0.5) < 0.015
        assert np.abs(rates - 0.5).max() < 0.07
    links = np.array([each["linkability"] for each in found])
    assert abs(links.mean()) < 0.02
    assert np.abs(links).max() < 0.06
    assert sum(each["low"] <= 0.5 <= each["high"] for each in found) >= 7


def test_more_code_means_fewer_errors_and_more_linkability():
    found = [verify_without_background(*people(code=code)).summary["trained"] for code in (0, 0.4, 0.8, 1.6)]
    rates, links = [each["eer"] for each in found], [each["linkability"] for each in found]
    assert rates == sorted(rates, reverse=True) and links == sorted(links)
    assert all(each["low"] < each["eer"] < each["high"] for each in found)


@pytest.mark.parametrize("name", SCORERS)
def test_emotion_does_not_pass_for_a_person(name):
    """Speakers of one emotion each: over all trials emotion tells them, among trials of one emotion nothing does."""
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(16), 8)
    emotion = speaker % 4
    embedding = rng.standard_normal((128, 8)) + 4 * np.eye(4, 8)[emotion]
    labels = np.char.mod("p%d", speaker), np.char.mod("e%d", emotion), np.full(128, "")
    found = verify_without_background(embedding, *labels).summary[name]
    assert found["eer"] < 0.25
    assert found["same_emotion"] == pytest.approx(0.5, abs=0.08)
    assert found["cross_emotion"] is None  # nobody speaks in two emotions
    assert verify_without_background(embedding + 4 * np.eye(16, 8)[speaker], *labels).summary[name]["same_emotion"] < 0.4


def test_a_code_under_loud_nuisance_is_found_by_the_trained_back_end_alone():
    embedding, *labels = people(code=1.5, count=24)
    embedding[:, :8] = 30 * np.random.default_rng(1).standard_normal((len(embedding), 8))
    found = verify_without_background(embedding, *labels).summary
    assert found["trained"]["eer"] < 0.2 < 0.45 < found["cosine"]["eer"]
    assert found["eer"] == found["trained"]["eer"]


def test_the_back_end_learns_which_directions_are_emotion():
    embedding, *labels = people(code=0.8, emotion_code=6.0, count=24)
    found = verify_without_background(embedding, *labels).summary
    assert found["trained"]["cross_emotion"] < 0.25 < 0.4 < found["cosine"]["cross_emotion"]


@pytest.mark.parametrize("known,clips,dims", [(2, 16, 128), (6, 1, 32), (1, 16, 32), (8, 16, 400)])
def test_poor_backgrounds_do_no_harm(known, clips, dims, monkeypatch):
    """Few people, one clip of each, one person, very many dimensions: a clear code is seen all the same."""
    monkeypatch.setattr(verification, "MOST_DIMENSIONS", 200)
    embedding, speaker, emotion, text = people(code=1.5, count=4, dims=dims)
    other = people(code=1.5, count=known, clips=clips, dims=dims, seed=1, names="q")
    found = verify([make_trials(embedding, speaker, emotion, text, *other[:2])]).summary
    assert found["trained"]["eer"] < 0.2 and found["cosine"]["eer"] < 0.2


def test_an_embedding_that_never_changes_says_nothing():
    embedding, *labels = people()
    found = verify_without_background(np.ones_like(embedding), *labels).summary
    assert found["trained"]["eer"] == pytest.approx(0.5) and found["cosine"]["eer"] == pytest.approx(0.5)


def test_pairs_of_one_text_are_left_out():
    """Speakers with a text each: who hears the sentence knows the speaker, until pairs of one text are left out."""
    rng = np.random.default_rng(0)
    speaker, clip = np.divmod(np.arange(96), 12)
    text = speaker * 3 + clip % 3
    embedding = rng.standard_normal((96, 16)) + 3 * rng.standard_normal((24, 16))[text]
    labels = np.char.mod("p%d", speaker), np.full(96, "calm")
    known = verify_without_background(embedding, *labels, np.char.mod("t%d", text)).summary
    unknown = verify_without_background(embedding, *labels, np.full(96, "")).summary
    assert known["same_text_left_out"] and not unknown["same_text_left_out"]
    assert known["target_trials"] == 8 * (66 - 18) and unknown["target_trials"] == 8 * 66
    assert known["cosine"]["linkability"] < 0.1 < 0.2 < unknown["cosine"]["linkability"]


def test_pairs_of_one_text_stay_if_there_are_no_others():
    embedding, speaker, emotion, _ = people()
    own = verify_without_background(embedding, speaker, emotion, speaker)
    assert not own.same_text_left_out and own.target_trials == 8 * 120


def test_rescaling_and_shifting_change_nothing():
    embedding, *labels = people(code=0.5)
    plain, moved = (
        verify_without_background(embedding, *labels).summary,
        verify_without_background(1000 * embedding - 7, *labels).summary,
    )
    for name in SCORERS:
        assert moved[name]["eer"] == pytest.approx(plain[name]["eer"], abs=1e-6)
    stretched = verify_without_background(embedding * np.linspace(1, 50, 16), *labels).summary
    assert stretched["trained"]["eer"] == pytest.approx(plain["trained"]["eer"], abs=1e-6)


def test_the_ratio_is_that_of_two_gaussians():
    embedding, speaker, *_ = people(code=1.0, dims=3)
    back_end = TwoCovariance(embedding, speaker)
    x, y = back_end.prepare.transform(embedding[[3, 70]]) @ back_end.turn
    between, total = np.diag(back_end.between), np.diag(back_end.between + 1)
    one = normal(np.zeros(6), np.block([[total, between], [between, total]])).logpdf(np.concatenate([x, y]))
    two = normal(np.zeros(3), total)
    ratio = back_end.compare(embedding, np.array([3]), np.array([70]))[0]
    assert ratio == pytest.approx(one - two.logpdf(x) - two.logpdf(y))


def sweep(score, target):
    """The error rate by trying every threshold, between the two where the balance tips."""
    thresholds = [np.inf, *sorted(set(score), reverse=True)]
    accepted = np.array([np.mean(score[~target] >= threshold) for threshold in thresholds])
    refused = np.array([np.mean(score[target] < threshold) for threshold in thresholds])
    after = int(np.argmax(accepted >= refused))
    gap = refused - accepted
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return accepted[after - 1] + share * (accepted[after] - accepted[after - 1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_error_rate_equals_a_sweep_of_thresholds(seed, digits):
    rng = np.random.default_rng(seed)
    target = rng.random(80) < 0.3
    score = np.round(rng.standard_normal(80) + seed * target / 2, digits)
    assert equal_error_rate(score, target) == pytest.approx(sweep(score, target))
    assert equal_error_rate(-score, target) == pytest.approx(1 - equal_error_rate(score, target))


def test_encoders_of_unlike_scores_and_people_are_pooled_without_harm():
    """One encoder scores high and has many target trials: thrown together, noise would look like a code."""
    few, many = trials(seed=1, count=2, clips=32), trials(seed=2, count=6)
    few = replace(few, score={name: values + 5 for name, values in few.score.items()})
    together = pool([few, many], "cosine")
    assert equal_error_rate(*together[:2]) < 0.45
    assert pooled_eer([few, many], "cosine") == pytest.approx(0.5, abs=0.02)
    assert abs(linkability(*together)) < 0.05 < linkability(together[0], together[1], np.ones(len(together[0])))


def test_linkability_of_known_distributions():
    """Scores 0 or 1; targets are 1 in p of cases, others in q: p (p - q) / (p + q) if p > q."""
    target = np.repeat([True, False], 5000)
    score = np.concatenate([np.arange(5000) < 4000, np.arange(5000) < 1000]).astype(float)
    assert linkability(score, target, np.ones(10_000)) == pytest.approx(0.8 * 0.6 / 1.0, abs=0.01)
    assert linkability(score[:5001], target[:5001], np.ones(5001)) is None


def test_what_is_undefined_contributes_nothing():
    alone = trials(count=1)
    single = make_trials(*people(count=3, clips=1), *people(names="q")[:2])
    fine = trials(count=3)
    assert alone is None and single is None
    assert verify([alone, single]) is None and verify_without_background(*people(count=3)) is None
    assert verify([alone, fine]).summary == verify([fine]).summary
    assert verify([trials(count=2)]).summary["low"] is None  # of two people no interval is made
    assert fine.clips == 48 and verify([fine, fine]).target_trials == 2 * fine.target.sum()


def test_pairs_are_each_drawn_once():
    who = np.repeat([0, 1, 2], [40, 30, 5])
    everything = draw_pairs(who, 75 * 74 // 2, 0)
    sample = draw_pairs(who, 1000, 0)
    for pairs in (everything, sample):
        assert (pairs[:, 0] != pairs[:, 1]).all()
        assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert len(everything) == 75 * 74 // 2 and len(sample) == 1000
    assert (who[sample[:, 0]] == who[sample[:, 1]]).sum() == 500
    assert not np.array_equal(sample, draw_pairs(who, 1000, 1))
    assert np.array_equal(sample, draw_pairs(who, 1000, 0))
    last = 20_000 * 19_999 // 2 - 1
    assert unrank(np.array([last])).tolist() == [[19_999, 19_998]]


def test_a_sample_of_pairs_says_the_same():
    assert pooled_eer([trials(code=0.7, clips=32, most=3000)], "cosine") == pytest.approx(
        pooled_eer([trials(code=0.7, clips=32)], "cosine"), abs=0.03
    )


def test_many_clips_need_little_memory():
    """All pairs of 20,000 clips would be 200 million; 200,000 are drawn, in under 300 MB."""
    asked, other = people(code=0.5, count=50, clips=400, dims=64), people(code=0.5, count=20, clips=50, dims=64, seed=1)
    tracemalloc.start()
    made = make_trials(*asked, *other[:2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 190_000 < len(made.target) <= 200_000 and made.target.sum() > 90_000
    assert peak < 300e6
