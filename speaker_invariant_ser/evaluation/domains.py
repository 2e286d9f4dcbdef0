"""Results of source and target domain apart, for runs with `split.scheme = "domain"`.

The two domains differ in speakers, emotions and difficulty, so a number over both is not reported. The headline is the
target's, for which the run was made; it is the source's where no target utterance has a label to be tested with.
"""

from collections.abc import Sequence

import numpy as np

from speaker_invariant_ser.data.labels import domain_of
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.evaluation.comparison import compare
from speaker_invariant_ser.evaluation.emotion import chance_uar, group_result, uar_over_seeds
from speaker_invariant_ser.evaluation.predictions import Predictions
from speaker_invariant_ser.evaluation.summary import DomainDifference
from speaker_invariant_ser.evaluation.summary_parts import Domain, DomainResult, Domains
from speaker_invariant_ser.recipe import SplitSection

SOURCE, TARGET = "source", "target"


def domains_of(split: SplitSection, utterances: Sequence[Utterance]) -> np.ndarray:
    """Return the domain of each tested utterance [N], "source" or "target"; "" in runs without domains."""
    if split.scheme != "domain":
        return np.full(len(utterances), "")
    return np.array([SOURCE if domain_of(utterance, split) in split.source else TARGET for utterance in utterances])


def headline(domains: np.ndarray) -> np.ndarray:
    """Return the mask [N] of the utterances that the headline numbers are computed on."""
    return domains == next((name for name in (TARGET, SOURCE) if name in domains), "")


def domain_results(split: SplitSection, predictions: Predictions, domains: np.ndarray) -> Domains | None:
    """Compute each domain's results over the emotions that occur in it; None in runs without domains.

    Args:
        split: The recipe's split section.
        predictions: Predictions for N rows.
        domains: Domain of each row [N].
    """
    if split.scheme != "domain":
        return None
    tested = {name: domain_result(predictions.rows(domains == name)) for name in (SOURCE, TARGET) if name in domains}
    return Domains(
        column=split.column,
        headline=SOURCE if str(domains[headline(domains)][0]) == SOURCE else TARGET,
        target_in_training=split.use_unlabelled,
        source=Domain(values=list(split.source), tested=tested.get(SOURCE)),
        target=Domain(values=list(split.unlabelled), tested=tested.get(TARGET)),
    )


def domain_result(predictions: Predictions) -> DomainResult:
    """Compute the results on one domain."""
    group = group_result(predictions)
    return DomainResult(
        uar=uar_over_seeds(predictions),
        accuracy=group.accuracy,
        utterances=group.utterances,
        speakers=group.speakers,
        chance=chance_uar(predictions),
    )


def domain_differences(this: Predictions, other: Predictions, domains: np.ndarray) -> dict[str, DomainDifference] | None:
    """Compare two runs on the same utterances, domain by domain; None in runs without domains.

    Args:
        this: Predictions of this run.
        other: Predictions of the other run, in any order.
        domains: Domain of each row of `this` [N].
    """
    if "" in domains:
        return None
    differences = {}
    for name in np.unique(domains):
        these = this.rows(domains == name)
        others = other.rows(np.isin(other.id, these.id))
        comparison = compare(these, others)
        differences[str(name)] = DomainDifference(
            this=uar_over_seeds(these),
            other=uar_over_seeds(others),
            speakers=len(comparison.speakers),
            difference=comparison.mean_difference,
            p_value=comparison.p_value_or_none,
        )
    return differences
