"""Limits of certificates: they hold whatever the best attacker's rule is, in exact small cases and in simulated worlds."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom

from speaker_invariant_ser.audit.certificates.limits import (
    bentkus,
    binomial,
    changes,
    chernoff,
    limits,
    mcdiarmid,
    smallest_limit,
)

DELTA = 0.05
WORLDS = 2000
LOWEST = 1e-6
ASED_LIKE = [70, 70, 66, 66, 58, 54, 50, 50, 50, 49]


def design(clips, unit=1):
    """Speakers of utterances, and units of so many utterances of one speaker each."""
    speaker = np.repeat(np.arange(len(clips)), clips)
    return speaker, np.arange(len(speaker)) // unit  # numbers of utterances are multiples of the unit


def threshold(truth, clips, unit=1):
    """The plug-in at which the smallest limit is the truth: it fails where the plug-in is lower."""
    speaker, units = design(clips, unit)

    def excess(low):
        return smallest_limit(limits(low, speaker, units, DELTA))[1] - truth

    return brentq(excess, LOWEST, truth, xtol=1e-6) if excess(LOWEST) < 0 else 0.0


@pytest.mark.parametrize(("clips", "unit"), [([12, 12], 1), ([3, 5, 9], 1), ([2, 20], 1), ([6, 9, 12], 3)], ids=str)
def test_the_smallest_limit_holds_whatever_the_accuracies_of_the_best_rule(clips, unit):
    """Exactly: the probability of all numbers of utterances that the rule names, for accuracies of single speakers at random."""
    rng, highest = np.random.default_rng(0), 0.0
    named = np.array(list(itertools.product(*(range(0, number + 1, unit) for number in clips))))
    accuracy = (named / clips).mean(axis=1)
    for _ in range(5):
        right = rng.beta(0.5, 0.5, len(clips)) if rng.random() < 0.5 else np.full(len(clips), 0.01 + rng.random() / 2)
        probability = binom.pmf(named // unit, np.array(clips) // unit, right).prod(axis=1)
        truth = right.mean()
        failure = probability[accuracy < threshold(truth, clips, unit) - 1e-6].sum()
        assert failure <= DELTA, right
        highest = max(highest, failure)
    assert highest > 0, "a limit of 1 would never fail"


def apart(speakers, share):
    """All speakers have one code, and each another of its own now and then: A is hardly too high."""
    shares = np.zeros((speakers, speakers + 1))
    shares[:, 0] = 1 - share
    shares[np.arange(speakers), np.arange(speakers) + 1] = share
    return shares


@pytest.mark.parametrize(
    ("shares", "clips", "unit", "fails"),
    [
        (np.full((9, 16), 1 / 16), [50] * 9, 1, 0.0),
        (apart(10, 0.1), [50] * 10, 1, 0.001),
        (apart(10, 0.5), [50] * 10, 1, 0.003),
        (apart(10, 0.3), ASED_LIKE, 1, 0.0),
        (apart(10, 0.5), [60] * 10, 3, 0.0005),
        (apart(4, 0.3), [10, 200, 200, 200], 1, 0.0),
    ],
    ids=["no leak", "small leak", "leak", "unequal numbers", "recordings of three utterances", "a speaker with few utterances"],
)
def test_the_smallest_limit_holds_in_simulated_worlds(shares, clips, unit, fails):
    counts = np.random.default_rng(0).multinomial(np.array(clips) // unit, shares, (WORLDS, len(clips)))
    plug_in = (counts / (np.array(clips) // unit)[:, None]).max(axis=1).sum(axis=1) / len(clips)
    truth = shares.max(axis=0).sum() / len(clips)
    failures = (plug_in < threshold(truth, clips, unit)).mean()
    assert fails <= failures <= DELTA


def test_chernoff_is_the_relative_entropy_where_clips_count_alike():
    for clips, plug_in in ((1161, 0.08), (200, 0.5), (40, 0.3)):

        def excess(limit, plug_in=plug_in, clips=clips):
            divergence = plug_in * math.log(plug_in / limit) + (1 - plug_in) * math.log((1 - plug_in) / (1 - limit))
            return clips * divergence - math.log(1 / DELTA)

        solved = brentq(excess, plug_in, 1 - 1e-9)
        assert chernoff(plug_in, np.full(clips, 1 / clips), DELTA) == pytest.approx(solved, abs=1e-6)


def test_limits_are_ordered_and_grow_with_the_plug_in():
    rng = np.random.default_rng(0)
    for clips in ([50] * 20, ASED_LIKE, [10, 200, 200, 200], rng.integers(5, 90, 12).tolist()):
        change, before = changes(*design(clips)), np.zeros(3)
        for plug_in in (1 / len(clips), 1.3 / len(clips), 0.4, 0.8, 0.99):
            computed = np.array([limit(plug_in, change, DELTA) for limit in (mcdiarmid, chernoff, bentkus)])
            assert computed[1] <= computed[0] and (computed > before).all() and (np.minimum(computed, 1) >= plug_in).all()
            before = computed
    equal, clips = np.full(1000, 1 / 1000), 1000
    for plug_in in (0.05, 0.11, 0.6):
        assert binomial(plug_in, clips, DELTA) < bentkus(plug_in, equal, DELTA) < chernoff(plug_in, equal, DELTA)
        assert binom.cdf(round(plug_in * clips), clips, binomial(plug_in, clips, DELTA)) == pytest.approx(DELTA)


def test_limits_of_extreme_cases():
    speaker, unit = design([3, 3])
    assert set(limits(1.0, speaker, unit, DELTA).values()) == {1.0}
    assert limits(0.5, speaker, np.zeros(6, int), DELTA)["bentkus"] == pytest.approx(0.975), "one unit: Markov's inequality"
    assert limits(0.5, *design([3, 4]), DELTA)["binomial"] is None
    assert changes(*design([4, 2], 2)).tolist() == [0.25, 0.25, 0.5]
    assert binomial(2 / 3, 3, 0.45) >= 1 - 1e-12, "never below (n + 1) / N: the theorem on binomial tails ends there"
