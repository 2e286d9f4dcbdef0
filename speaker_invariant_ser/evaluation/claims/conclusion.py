"""Conclude again, from the numbers of a report alone, whether attackers are at chance."""

import math

from speaker_invariant_ser.audit.leakage import conclude
from speaker_invariant_ser.audit.same_text import SameText, reconsider
from speaker_invariant_ser.audit.statistics import AtChance, Conclusion, Reason, Score
from speaker_invariant_ser.evaluation.summary_parts import AttackerScore, Speaker, StrongestAttacker


def concluded(speaker: Speaker, quick: bool) -> tuple[AtChance, str]:
    """Return the conclusion and its reason that follow from the numbers of an audit, as `Audit.summary` and an evaluation do.

    Args:
        speaker: Part `speaker` of report.json, of any version.
        quick: Whether the closed-form attackers alone were run.
    """
    first = from_scores(speaker)
    same = speaker.same_text
    same_text = SameText(same.attacker, same.accuracy, same.expected, same.p_value) if same else None
    shares = {"copies": speaker.copies or 0.0, "left_out": speaker.left_out_share or 0.0}
    return reconsider(first.at_chance, first.reason, same_text, shares, quick, starved(speaker))


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
    best, surest = speaker.best_recognised_speaker, speaker.surest_utterances
    tails: dict[Reason, float] = {"speaker": best.p_value, "surest": surest.p_value} if best and surest else {}
    return conclude(to_score(speaker.strongest), on_embedding, speaker.chance.to_json(), tails, speaker.nested_texts or 0.0)


def to_score(part: AttackerScore | StrongestAttacker) -> Score:
    """Return a score as it was before it was written; what is null is not a number."""
    return Score(**{name: math.nan if (value := getattr(part, name)) is None else value for name in Score.__annotations__})
