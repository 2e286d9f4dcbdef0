"""Source and target apart: what a run of split.scheme = "domain" says of the domain whose labels it had, and of the other.

Their speakers, their emotions and how hard they are differ, so that a number over both says nothing of either. The headline is
the target's, which the run was made for; the source's where no clip of the target has a label to be tested by.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from speaker_invariant_ser.data.labels import domain_of
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.evaluation.comparison import compare
from speaker_invariant_ser.evaluation.predictions import Predictions, group, over_seeds, uar_by_seed
from speaker_invariant_ser.recipe import SplitSection

SOURCE, TARGET = "source", "target"


def domains_of(split: SplitSection, utterances: Sequence[Utterance]) -> np.ndarray:
    """Of which domain each tested clip is, [N]: "source" or "target"; all "" in runs that know no domains."""
    if split.scheme != "domain":
        return np.full(len(utterances), "")
    return np.array([SOURCE if domain_of(one, split) in split.source else TARGET for one in utterances])


def headline(domains: np.ndarray) -> np.ndarray:
    """Mask [N] of the clips whose results stand first."""
    return domains == next((name for name in (TARGET, SOURCE) if name in domains), "")


def domain_results(split: SplitSection, predictions: Predictions, domains: np.ndarray) -> dict | None:
    """The part `emotion.domains` of report.json: each domain's results over the emotions that it has, `tested` None for none."""
    if split.scheme != "domain":
        return None
    tested = {name: results(predictions.rows(domains == name)) for name in (SOURCE, TARGET) if name in domains}
    return {
        "column": split.column,
        "headline": str(domains[headline(domains)][0]),
        "target_in_training": split.use_unlabelled,
        SOURCE: {"values": list(split.source), "tested": tested.get(SOURCE)},
        TARGET: {"values": list(split.unlabelled), "tested": tested.get(TARGET)},
    }


def results(predictions: Predictions) -> dict:
    found = group(predictions)
    found["uar"] |= over_seeds(uar_by_seed(predictions))
    return {**found, "chance": 1 / len(set(predictions.truth.tolist()))}


def domain_differences(this: Predictions, other: Predictions, domains: np.ndarray) -> dict[str, dict] | None:
    """Two runs on the same clips, domain by domain; `domains` are those of `this`. None in runs that know no domains."""
    if "" in domains:
        return None
    found = {}
    for name in np.unique(domains):
        mine = this.rows(domains == name)
        theirs = other.rows(np.isin(other.id, mine.id))
        summary: Mapping = compare(mine, theirs).summary
        kept = {key: summary[key] for key in ("speakers", "difference", "p_value")}
        found[str(name)] = {"this": results(mine)["uar"], "other": results(theirs)["uar"], **kept}
    return found
