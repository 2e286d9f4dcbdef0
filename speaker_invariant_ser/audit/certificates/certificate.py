"""Certificates: how well any attacker whatever can name the speaker from one of M codes, by counting.

Of K speakers, each as likely as the others, an attacker who gets one code z and knows P(z | s) of every speaker s does best by
naming the speaker with the largest P(z | s). No attacker has a higher balanced accuracy than

    B = (1/K) * sum over z of max over s of P(z | s).

With n_s utterances of each speaker, A is the same with the observed shares, and B is bounded by the smallest of several limits
that are functions of A (`audit.certificates.limits`). The oldest of them is McDiarmid's: with probability 1 - delta or more

    B <= A + sqrt(ln(1/delta) / (2 K^2) * sum over s of 1/n_s).

Utterances of one recording are not independent: where m of a speaker's utterances are, they count as one that changes A by m / (K
n_s).

r utterances of one person are r codes. For every distribution Q, P_s(z) <= K B Q(z) with Q(z) = max_s P_s(z) / (K B), so that r
independent utterances are named with a balanced accuracy of at most (K B)^r / K: maximal leakage adds up over utterances. This
holds whenever the bound on B does, and is soon above 1, where it says nothing.

The bound needs a codebook that was fixed on other utterances, a closed set of speakers, and utterances of each of them that are
drawn independently or in independent groups. It says nothing of other speakers. Of several codebooks, each is certified with
delta divided by their number, so that all bounds hold together.

Jovanovic, Balunovic, Dimitrov and Vechev, "FARE: Provably Fair Representation Learning with Practical Certificates", ICML 2023
(finite representations); Issa, Wagner and Kamath, "An Operational Approach to Information Leakage", IEEE Trans. Inf. Theory 2020
(maximal leakage).

Shapes: N utterances, K speakers, M codes, W draws.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from speaker_invariant_ser.audit.certificates.limits import limits, smallest_limit
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.verification.several_clips import CLIPS
from speaker_invariant_ser.errors import AuditError
from speaker_invariant_ser.indexing import to_indices

DELTA = 0.05  # probability that one of the bounds is too low
PERMUTATIONS = 100  # of the speakers, for what utterances without a leak would give
DRAWS = 400  # groups of utterances of each speaker that accuracies are estimated on, at most
MIN_DRAWS, MAX_NUMBERS = 20, 4_000_000  # at least; fewer than DRAWS where they would take more numbers
PRIOR = 0.5  # added to the counts of the attacker that accuracies are estimated with

Origin = Literal["held-out", "unseen", "given"]


@dataclass(frozen=True)
class Several:
    """What the codes of some utterances of one person reveal, as balanced accuracies.

    Attributes:
        clips: Number of utterances.
        bound: No attacker is better, with the certificate's confidence; 1 where nothing is known.
        estimate: Accuracy of an attacker who knows how often every speaker has each code and takes utterances as independent, an
            estimate and no certificate; None where a speaker has too few utterances.
    """

    clips: int
    bound: float
    estimate: float | None


@dataclass(frozen=True)
class Certified:
    """What is certified of one codebook.

    Attributes:
        name: Name of the model; "" of a table.
        speakers: Number of speakers K; chance is 1/K.
        utterances: Number of utterances that were counted.
        clips_per_speaker: Number of utterances of each speaker.
        cells_used: Number of codes that occur.
        perplexity: Of the codes, 1 where all utterances have one.
        plug_in: A, the balanced accuracy of the best attacker on these utterances.
        bound: No attacker's balanced accuracy is higher: the smallest of the limits.
        smallest: The bound that these utterances would give if A were what it is on average where nothing is revealed.
        curve: The same for several utterances of one person.
        limit: Name of the limit that the bound is.
        limits: All limits by name; None where one does not apply.
    """

    name: str
    speakers: int
    utterances: int
    clips_per_speaker: dict[str, int]
    cells_used: int
    perplexity: float
    plug_in: float
    bound: float
    smallest: float
    curve: tuple[Several, ...]
    limit: str
    limits: dict[str, float | None]


@dataclass(frozen=True)
class Population:
    """Certificates of all codebooks on one kind of utterances.

    Attributes:
        clips: "held-out": of training speakers, not trained on; "unseen": of test speakers; "given": as a table says.
        certified: One for each codebook.
        unavailable: Why there is none; "" where there are some.
    """

    clips: Origin
    certified: tuple[Certified, ...] = ()
    unavailable: str = ""

    @property
    def summary(self) -> dict:
        """The population for report.json."""
        bounds = [each.bound for each in self.certified]
        worst, mean = (max(bounds), float(np.mean(bounds))) if bounds else (None, None)
        models = [asdict(each) for each in self.certified]
        return {"clips": self.clips, "worst": worst, "mean": mean, "models": models, "unavailable": self.unavailable}


@dataclass(frozen=True)
class Certificate:
    """Certificates of what one of a few codes reveals.

    Attributes:
        column: What was counted: "code", or a column of a table.
        cells: Number of codes M.
        populations: On which utterances, the first one first.
        delta: Probability that a bound of a population is too low.
    """

    column: str
    cells: int
    populations: tuple[Population, ...]
    delta: float = DELTA

    @property
    def summary(self) -> dict:
        """The part `speaker.certificate` of report.json; keys are stable."""
        populations = [population.summary for population in self.populations]
        return {"column": self.column, "cells": self.cells, "delta": self.delta, "populations": populations}


def certify(tables: Sequence[Embeddings], names: Sequence[str], clips: Origin, seed: int = 0) -> Population:
    """Certify the codes of one or several models, with confidence 1 - DELTA for all of them together.

    Args:
        tables: For each model, utterances with their codes. Only those are counted that are marked as scored.
        names: Names of the models.
        clips: What the utterances are.
        seed: Seed of permutations and draws; bounds do not depend on it.

    Returns:
        The certificates, or the reason why there is none.

    Raises:
        AuditError: A codebook was fitted on the utterances that would be counted: none is marked as scored.
    """
    scored = [table.select(table.scored) for table in tables]
    if not all(len(table.id) for table in scored):
        raise AuditError("the codes were fitted on all utterances, and utterances that they were fitted on certify nothing")
    usable = [(table, name) for table, name in zip(scored, names, strict=True) if len(set(table.speaker)) > 1]
    if len(usable) < len(scored):
        return Population(clips, unavailable="the utterances of a model are of a single speaker")
    return Population(clips, tuple(certify_codes(table, name, DELTA / len(usable), seed) for table, name in usable))


def certify_codes(table: Embeddings, name: str = "", delta: float = DELTA, seed: int = 0) -> Certified:
    """Certify the codes of one model on utterances that its codebook was not fitted on.

    Args:
        table: The utterances, of two speakers or more.
        name: Name of the model.
        delta: Probability that the bound is too low.
        seed: Seed of permutations and draws.
    """
    assert table.code is not None, "codes are certified"
    speakers, speaker = np.unique(table.speaker, return_inverse=True)
    code, rng = to_indices(table.code), np.random.default_rng(seed)
    counts = count(speaker, code)
    permuted = [plug_in(count(rng.permutation(speaker), code)) for _ in range(PERMUTATIONS)]
    share = counts.sum(axis=0) / counts.sum()
    computed = limits(plug_in(counts), speaker, table.unit, delta)
    limit, bound = smallest_limit(computed)
    _, smallest = smallest_limit(limits(float(np.mean(permuted)), speaker, table.unit, delta))
    return Certified(
        name=name,
        speakers=len(speakers),
        utterances=len(code),
        clips_per_speaker=dict(zip(speakers.tolist(), counts.sum(axis=1).tolist(), strict=True)),
        cells_used=counts.shape[1],
        perplexity=float(np.exp(-(share * np.log(share)).sum())),
        plug_in=plug_in(counts),
        bound=bound,
        smallest=smallest,
        curve=tuple(Several(clips, compose(bound, len(speakers), clips), estimate(counts, clips, rng)) for clips in CLIPS),
        limit=limit,
        limits=computed,
    )


def count(speaker: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Return how often each speaker has each code, [K, M], from integers [N].

    >>> count(np.array([0, 0, 1]), np.array([0, 1, 1])).tolist()
    [[1, 1], [0, 1]]
    """
    shape = speaker.max() + 1, code.max() + 1
    return np.bincount(np.ravel_multi_index((speaker, code), shape), minlength=np.prod(shape)).reshape(shape)


def plug_in(counts: np.ndarray) -> float:
    """Return A = (1/K) * sum over codes of the largest share of a speaker, from counts [K, M].

    >>> plug_in(np.array([[3, 1], [1, 3]])), plug_in(np.array([[5, 5], [1, 1]]))
    (0.75, 0.5)
    """
    return float((counts / counts.sum(axis=1, keepdims=True)).max(axis=0).sum() / len(counts))


def compose(bound: float, speakers: int, clips: int) -> float:
    """Return the bound on the balanced accuracy with several utterances of one person: (K B)^r / K, at most 1.

    >>> compose(0.5, 2, 10), round(compose(0.15, 10, 5), 3)
    (0.5, 0.759)
    """
    return min(1.0, (speakers * bound) ** clips / speakers)


def estimate(counts: np.ndarray, clips: int, rng: np.random.Generator) -> float | None:
    """Estimate the balanced accuracy of an attacker who gets the codes of several utterances of one person.

    The utterances are drawn without replacement, a group of each speaker at a time. The attacker names the speaker s with the
    largest sum of ln P(z | s) over the codes, with P(z | s) from all utterances but the groups: (counts + 1/2) / (n_s - r + M/2).
    Speakers who are equally likely share the success.

    Args:
        counts: How often each speaker has each code, [K, M].
        clips: Number of utterances r.
        rng: Of the draws.

    Returns:
        The accuracy; None unless every speaker has more than r utterances.
    """
    if counts.sum(axis=1).min() <= clips:
        return None
    speakers, cells = counts.shape
    draws = min(DRAWS, max(MIN_DRAWS, MAX_NUMBERS // (speakers * max(speakers, cells))))
    drawn = np.stack([draw(own, clips, draws, rng) for own in counts], axis=1)  # [W, K, M]
    rest = counts - drawn + PRIOR
    log_share = np.log(rest / rest.sum(axis=2, keepdims=True))
    likelihood = drawn @ log_share.swapaxes(1, 2)  # [W, K, K]: of a group of a speaker, under each speaker
    best = likelihood >= likelihood.max(axis=2, keepdims=True) - 1e-9
    return float((best.diagonal(axis1=1, axis2=2) / best.sum(axis=2)).mean())


def draw(counts: np.ndarray, clips: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw groups of a speaker's utterances, each utterance once before any is drawn again.

    Args:
        counts: How often the speaker has each code, [M].
        clips: Number of utterances in a group.
        draws: Number of groups W.
        rng: Of the draws.

    Returns:
        How often each group has each code, [W, M].
    """
    groups = counts.sum() // clips
    codes = np.tile(np.repeat(np.arange(len(counts)), counts), (-(-draws // groups), 1))
    grouped = rng.permuted(codes, axis=1)[:, : groups * clips].reshape(-1, clips)[:draws]
    return (grouped[:, :, None] == np.arange(len(counts))).sum(axis=1)
