"""Conclude again, from the numbers of a report alone, whether attackers are at chance."""

import math

from speaker_invariant_ser.audit.further import Further, FurtherAttacks, reconsider
from speaker_invariant_ser.audit.statistics import AtChance, Conclusion, Score
from speaker_invariant_ser.audit.tails import conclude, decisive
from speaker_invariant_ser.evaluation import summary_parts
from speaker_invariant_ser.evaluation.summary_parts import AttackerScore, Speaker, StrongestAttacker


def concluded(speaker: Speaker, quick: bool) -> tuple[AtChance, str]:
    """Return the conclusion and its reason that follow from the numbers of an audit, as `Audit.summary` and an evaluation do.

    Args:
        speaker: Part `speaker` of report.json, of any version.
        quick: Whether the closed-form attackers alone were run.
    """
    first = from_scores(speaker)
    further = FurtherAttacks(to_further(speaker.same_text), to_further(speaker.scored_alone))
    shares = {"copies": speaker.copies or 0.0, "left_out": speaker.left_out_share or 0.0}
    chance = speaker.chance.given_emotion
    return reconsider(first.at_chance, first.reason, further, chance, shares, quick, starved(speaker))


def starved(speaker: Speaker) -> bool:
    """Return whether attackers may have had too few utterances to learn from, so that failing shows nothing.

    Attackers of an erased embedding learn from held-out utterances alone. These were enough if attackers who learned from as few
    identified speakers before the erasure.
    """
    before = speaker.controls.get("unreleased")
    identified = before is not None and (before.low or 0) > speaker.chance.given_emotion
    return speaker.learned == "held-out" and not identified


def from_scores(speaker: Speaker) -> Conclusion:
    """Return what the scores of the attackers conclude by themselves, as `Leakage.conclusion` does."""
    on_embedding = {name: to_score(score) for name, score in speaker.attackers.items() if score.reads == "embedding"}
    chance, best = speaker.chance.to_json(), speaker.best_recognised_speaker
    tails = decisive(best, speaker.surest_utterances, speaker.balanced, speaker.best_recognised_model, chance)
    known = speaker.emotions > 1 and speaker.grouped_by_text
    nested = speaker.nested_texts or 0.0
    return conclude(to_score(speaker.strongest), on_embedding, chance, tails, nested, known)


def to_score(part: AttackerScore | StrongestAttacker) -> Score:
    """Return a score as it was before it was written; what is null is not a number."""
    return Score(**{name: math.nan if (value := getattr(part, name)) is None else value for name in Score.__annotations__})


def to_further(part: summary_parts.Further | None) -> Further | None:
    """Return what a further attack found as it was before it was written; None if there was none."""
    return Further(part.attacker, part.accuracy, part.expected, part.p_value, part.of) if part else None
