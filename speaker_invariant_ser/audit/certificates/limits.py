"""Limits: how high the accuracy B of the best attacker can be, from the accuracy A of the best rule on the counted utterances.

Let g be the rule of the attacker who knows P(z | s) of every speaker. It does not depend on the utterances. Its balanced accuracy
on them, S, is at most A, the maximum over all rules. S is a sum of independent variables, one for each unit u (an utterance, or
the utterances of one recording) with values from 0 to c_u, the largest change of A by that unit, and the mean of S is B. Each
limit inverts a bound on the lower tail of such sums: where B is above it, a sum as low as A has probability delta or less. That A
is too high on average only adds to the safety.

The smallest of the limits needs no smaller delta. Each is an increasing function of A, and S <= A, so that a limit is below B
only if S is below a threshold that depends on B and not on the utterances. The smallest limit is below B only if S is below the
largest of the thresholds, which is the failure of the limit that this threshold belongs to, and has probability delta or less.

- McDiarmid: A + sqrt(ln(1/delta) / 2 * sum over units of c_u^2). It allows for the variance of a fair coin, whatever B is.
- Chernoff: E exp(-x S) is at most the product over units of 1 - p_u (1 - exp(-x c_u)), whose means c_u p_u add up to B. It is
  never above McDiarmid's, which follows from it by Hoeffding's lemma. If all c_u are equal, it solves U kl(A, B) = ln(1/delta),
  with the relative entropy kl.
- Bentkus: P(S <= A) is at most E max(0, y - S) / (y - A) for every y above A. Let c be the largest c_u. Convex functions, as
  this one, have no higher mean for S than for c times a binomial variable of U draws with mean B/c. It is below Chernoff's
  where the c_u are equal or nearly so.
- Binomial, where every unit is a single utterance and all speakers have equally many: N S is how many of N independent utterances
  g names. For whole numbers n up to N B - 1, P(N S <= n) is at most that of a binomial variable with the same mean, so that the
  upper limit of Clopper and Pearson holds, if it is never taken below (n + 1) / N.

Hoeffding, "On the distribution of the number of successes in independent trials", Annals of Mathematical Statistics 1956
(theorem 3 for convex functions, theorem 4 for binomial tails); Hoeffding, "Probability inequalities for sums of bounded random
variables", JASA 1963; McDiarmid, "On the method of bounded differences", Surveys in Combinatorics 1989; Bentkus, "On
Hoeffding's inequalities", Annals of Probability 2004; Clopper and Pearson, "The use of confidence or fiducial limits
illustrated in the case of the binomial", Biometrika 1934.

Shapes: N utterances, U units, K speakers.
"""

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.stats import beta, binom

from speaker_invariant_ser.indexing import to_indices

CERTAIN = 1 - 1e-6  # limits above are rounding errors away from 1


def limits(plug_in: float, speaker: np.ndarray, unit: np.ndarray, delta: float) -> dict[str, float | None]:
    """Return all limits on B; 1 where one says nothing, None where it does not apply.

    Args:
        plug_in: A.
        speaker: Speaker of each utterance as integers 0 .. K-1, [N].
        unit: Equal for utterances that are not independent, [N].
        delta: Probability that a limit is too low, and that the smallest one is; below 1/2.
    """
    change = changes(speaker, unit)
    single_clips = len(change) == len(speaker) and np.ptp(np.bincount(speaker)) == 0
    computed = {
        "mcdiarmid": mcdiarmid(plug_in, change, delta),
        "chernoff": chernoff(plug_in, change, delta),
        "bentkus": bentkus(plug_in, change, delta),
        "binomial": binomial(plug_in, len(speaker), delta) if single_clips else None,
    }
    return {name: limit if limit is None or limit < CERTAIN else 1.0 for name, limit in computed.items()}


def smallest_limit(computed: dict[str, float | None]) -> tuple[str, float]:
    """Return the name of the smallest limit, and the limit; of equal ones the first.

    >>> smallest_limit({"mcdiarmid": 0.3, "chernoff": 0.2, "binomial": None})
    ('chernoff', 0.2)
    """
    return min(((name, limit) for name, limit in computed.items() if limit is not None), key=lambda named: named[1])


def changes(speaker: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return how much each unit can change A, [U]: m / (K n_s) with m of the n_s utterances of a speaker.

    A unit with utterances of several speakers changes what each of these has.

    >>> changes(np.array([0, 0, 1, 1]), np.array([5, 5, 6, 7])).tolist()
    [0.5, 0.25, 0.25]
    """
    clips = np.bincount(speaker)
    return np.bincount(to_indices(unit), weights=1 / (len(clips) * clips[speaker]))


def mcdiarmid(plug_in: float, change: np.ndarray, delta: float) -> float:
    """Return McDiarmid's limit.

    >>> round(mcdiarmid(0.5, np.full(200, 1 / 200), 0.05), 4)
    0.5865
    """
    return float(plug_in + np.sqrt(np.log(1 / delta) / 2 * np.square(change).sum()))


def chernoff(plug_in: float, change: np.ndarray, delta: float) -> float:
    """Return Chernoff's limit for sums of variables of different ranges.

    For each x > 0 and y > 0, P(S <= A) <= exp(x A + F(x, y) - y B), with F the sum over units of the maximum over p in [0, 1] of
    ln(1 - p q) + y c p: the multiplier y stands for the condition that the means add up to B. So B is at most
    (x A + F + ln(1/delta)) / y. Every pair gives a limit, and the minimum is searched: stopping early makes it higher, not wrong.

    >>> round(chernoff(0.5, np.full(200, 1 / 200), 0.05), 4), round(chernoff(0.1, np.full(200, 1 / 200), 0.05), 4)
    (0.5859, 0.1597)
    """
    ranges, units = np.unique(change, return_counts=True)

    def limit(logarithms: np.ndarray) -> float:
        x, y = np.exp(logarithms)
        q = np.minimum(-np.expm1(-x * ranges), 1 - 1e-9)  # a lower q gives a higher limit; 1 would have no logarithm
        p = np.clip(1 / q - 1 / (y * ranges), 0, 1)
        return (x * plug_in - np.log(delta) + (units * (np.log1p(-p * q) + y * ranges * p)).sum()) / y

    variance = ranges.max() * plug_in
    starts = [np.log(np.sqrt(-2 * np.log(delta) / variance) * np.array([factor, factor])) for factor in (0.5, 1.0)]
    found = (minimize(limit, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12}).fun for start in starts)
    return float(min([mcdiarmid(plug_in, change, delta), *found]))


def bentkus(plug_in: float, change: np.ndarray, delta: float) -> float:
    """Return Bentkus's limit, from a binomial variable of as many draws as there are units, each worth the largest change.

    In units of c the bound is lowest at a whole number: between two of them it is a ratio of linear functions. Where it is as low
    as delta, that number is not far above A / c.

    >>> round(bentkus(0.1, np.full(200, 1 / 200), 0.05), 4)
    0.1498
    """
    draws, named = len(change), plug_in / change.max()
    if named >= draws:
        return 1.0
    first = int(named) + 1
    above = np.arange(first, min(draws, first + 10 + 10 * int(np.sqrt(first))) + 1)

    def excess(mean: float) -> float:
        hinge = above * binom.cdf(above - 1, draws, mean) - draws * mean * binom.cdf(above - 2, draws - 1, mean)
        return float((hinge / (above - named)).min()) - delta

    return float(brentq(excess, named / draws, 1) * draws * change.max())


def binomial(plug_in: float, clips: int, delta: float) -> float:
    """Return the binomial limit from the number of utterances N.

    >>> round(binomial(0.1, 200, 0.05), 4)
    0.142
    """
    named = clips * plug_in
    if named > clips - 0.5:
        return 1.0
    return float(max(beta.ppf(1 - delta, named + 1, clips - named), (named + 1) / clips))
