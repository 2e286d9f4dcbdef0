"""What a report says about the votes of annotators: rows, sentences and the table."""

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary_parts import Emotion
from speaker_invariant_ser.evaluation.votes import VoteResults
from speaker_invariant_ser.report.formatting import decimal, interval, interval_or_dash, percent
from speaker_invariant_ser.report.table import Table


def single_annotator_rows(emotion: Emotion) -> list[list[str]]:
    """Return the row of the UAR of a single annotator, where it was measured."""
    single = emotion.votes.single_annotator if emotion.votes else None
    if not single:
        return []
    return [
        ["a single annotator, UAR against the others", percent(single.value), interval_or_dash(single), percent(emotion.chance)]
    ]


def about_votes(votes: VoteResults) -> str:
    """Say in one line how far a model's probabilities are from the votes, and why no single annotator could be scored."""
    text = (
        f"Votes of annotators: cross-entropy {decimal(votes.cross_entropy)} bits (entropy of the votes {decimal(votes.entropy)}, "
        f"without a model {decimal(votes.uninformed)}), KL divergence {decimal(votes.kl)}, Jensen-Shannon divergence "
        f"{decimal(votes.jensen_shannon)}."
    )
    return f"{text} {about_too_few(votes)}" if votes.too_few else text


def about_too_few(votes: VoteResults) -> str:
    """Say why no single annotator could be scored."""
    return f"The UAR of a single annotator was not measured, because the votes are too few: {votes.too_few}."


def votes_text(emotion: Emotion, votes: VoteResults) -> str:
    """Say what the votes are of, and how a single annotator is scored."""
    text = (
        f"Votes of annotators are known for {votes.utterances:,} of {counted(emotion.utterances, 'test utterance')}. In "
        f"{percent(votes.label_is_majority)} of these, the label has the most votes, alone or tied. Cross-entropy and "
        "divergences are means over utterances, of the model's probabilities before any temperature from the shares of the votes."
    )
    single = votes.single_annotator
    if not single:
        return f"{text} {about_too_few(votes)}"
    text += (
        f" Each of {counted(single.votes, 'vote')} for {counted(single.utterances, 'utterance')} is scored against the majority "
        "of the other votes for its utterance; where these are tied, it counts for each tied emotion in equal parts."
    )
    if single.annotators:
        text += f" The votes are of {counted(single.annotators, 'annotator')}"
        spread = f", whose UARs are {percent(single.lowest)} to {percent(single.highest)}" if single.lowest is not None else ""
        text += f"{spread}."
    return text


def votes_table(emotion: Emotion, votes: VoteResults) -> Table:
    """Return model and single annotator side by side, and the distances from the votes."""
    single = votes.single_annotator
    bounds = (votes.cross_entropy_low, votes.cross_entropy_high)
    cross_interval = "-" if None in bounds else f"{decimal(bounds[0])} to {decimal(bounds[1])}"
    rows = [
        ["UAR of the model, against the label", percent(emotion.uar.value), interval(emotion.uar)],
        *([["UAR of a single annotator, against the others", percent(single.value), interval_or_dash(single)]] if single else []),
        ["cross-entropy of model and votes, bits", decimal(votes.cross_entropy), cross_interval],
        ["entropy of the votes, the lowest possible, bits", decimal(votes.entropy), ""],
        ["cross-entropy without a model, bits", decimal(votes.uninformed), ""],
        ["KL divergence, bits", decimal(votes.kl), ""],
        ["Jensen-Shannon divergence, bits", decimal(votes.jensen_shannon), ""],
    ]
    return Table(["measure", "value", "95 % CI"], rows)
