"""Tables on speakers that the encoder was not trained on, and on several utterances of one person."""

from typing import NamedTuple

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary_parts import Speaker
from speaker_invariant_ser.evaluation.unseen_parts import (
    Clips,
    Linkage,
    PredictedEmotion,
    Scorer,
    SpeakerMeans,
    Unseen,
    Verification,
)
from speaker_invariant_ser.report.formatting import decimal, interval, interval_or_dash, percent
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.tables import KEY_COLUMNS

CHANCE = percent(0.5)  # of verification, ranks and linkage


class Ends(NamedTuple):
    """A 95 % confidence interval; None where it is not defined."""

    low: float | None
    high: float | None


def unseen_table(unseen: Unseen) -> Table:
    """Return what is recognised of speakers that the encoder was not trained on, each number with its chance level."""
    rows = []
    if unseen.verification:
        rows += verification_rows(unseen.verification)
    if unseen.accuracy is not None:
        name = f"accuracy of the strongest attacker ({unseen.attacker})"
        rows.append([name, percent(unseen.accuracy), interval(unseen), percent(unseen.chance)])
    return Table(KEY_COLUMNS, rows)


def predicted_emotion_table(predicted: PredictedEmotion) -> Table:
    """Return how often the predicted emotion alone names a test speaker."""
    name = f"accuracy from the predicted emotion alone, {counted(predicted.speakers, 'test speaker')} of all folds"
    return Table(KEY_COLUMNS, [[name, percent(predicted.accuracy), interval(predicted), percent(predicted.chance)]])


def verification_rows(verification: Verification) -> list[list[str]]:
    """Return the numbers of verification by the trained scorer, of single speakers, and of a judge."""
    trained, rank = verification.trained, verification.rank
    rows = [["verification, equal error rate", percent(trained.eer), interval_or_dash(trained), CHANCE]]
    if trained.cllr_min is not None:
        rows.append(["verification, C_llr^min", decimal(trained.cllr_min), "", "1.00"])
    rows.append(["linkability", decimal(trained.linkability), "", "0.00"])
    if verification.per_speaker:
        rows += speaker_rows("equal error rate, clipped", verification.per_speaker)
    if rank:
        rows += speaker_rows(f"rank of the true speaker among {rank.enrolled}", rank)
    if verification.judge:
        judge = verification.judge
        rows.append(["the recording itself (judge), equal error rate", percent(judge.eer), interval_or_dash(judge), CHANCE])
    return rows + (linkage_rows(verification.linkage) if verification.linkage else [])


def speaker_rows(name: str, means: SpeakerMeans) -> list[list[str]]:
    """Return the mean over speakers, and the speaker with the lowest value."""
    return [
        [f"{name}, mean over {means.speakers} speakers", percent(means.mean), interval_or_dash(means), CHANCE],
        [f"{name}, most exposed speaker ({means.speaker})", percent(means.worst), "", CHANCE],
    ]


def linkage_rows(linkage: Linkage) -> list[list[str]]:
    """Return how well embeddings match voice prints."""
    ends = Ends(linkage.eer_low, linkage.eer_high)
    return [
        ["linkage to voice prints, AUC", percent(linkage.auc), interval_or_dash(linkage), CHANCE],
        ["linkage to voice prints, equal error rate", percent(linkage.eer), interval_or_dash(ends), CHANCE],
    ]


def scorers_table(verification: Verification) -> Table:
    """Return the error rates of both scorers, and those of a judge."""
    rows = [
        scorer_row("cosine (lazy-informed)", verification.cosine),
        scorer_row("trained (semi-informed)", verification.trained),
    ]
    if verification.judge:
        rows.append(scorer_row("ceiling: the recording itself (judge, unprotected)", verification.judge))
    return Table(["scorer", "EER, all pairs", "95 % CI", "same emotion", "across emotions", "C_llr^min", "linkability"], rows)


def scorer_row(name: str, scorer: Scorer) -> list[str]:
    """Return one row of the scorers' table."""
    rates = [percent(scorer.same_emotion), percent(scorer.cross_emotion)]
    return [name, percent(scorer.eer), interval_or_dash(scorer), *rates, decimal(scorer.cllr_min), decimal(scorer.linkability)]


def clips_table(speaker: Speaker) -> Table | None:
    """Return what 1, 5 and 10 utterances of one person reveal; None where nothing was measured."""
    if not any(row.identification or row.verification for row in speaker.clips):
        return None
    over = "95 % CI, over speakers"
    head = ["utterances of one person", "identification", over, "chance", "groups", "EER", over]
    return Table(head, [clips_row(row) for row in speaker.clips])


def clips_row(row: Clips) -> list[str]:
    """Return what one number of utterances reveals."""
    identified, verified = row.identification, row.verification
    cells = [str(row.clips)]
    if identified:
        level = percent(identified.chance)
        cells += [percent(identified.accuracy), interval_or_dash(identified), level, str(identified.groups)]
    else:
        cells += ["-"] * 4
    return cells + ([percent(verified.eer), interval_or_dash(verified)] if verified else ["-", "-"])
