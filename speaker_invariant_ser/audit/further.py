"""Further attacks, on the same embeddings, that find what the ones of `leakage` cannot.

- **Known sentences.** Folds are grouped by text, so that no attacker recognises a sentence instead of a voice. An embedding with
  a code of its own for every speaker and sentence is at chance then, although it names everybody who says a known sentence
  again. So attackers are fitted in folds that do not keep texts apart as well, and compared with speakers that are permuted
  within emotion and text: what the text alone says about the speaker is no leak.
- **Scored utterances alone.** Attackers also learn from utterances that the encoder was trained on. Where training removed the
  speaker from these, and not from new ones, they teach attackers that there is nothing to be found.

Both are by the closed-form attackers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.leakage import Leakage, measure_leakage
from speaker_invariant_ser.audit.statistics import MARGIN, TAIL_ALPHA, AtChance, margin_of
from speaker_invariant_ser.audit.tails import Tail, p_value_over_texts
from speaker_invariant_ser.errors import AuditError
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.processes import TaskProgress

Part = Literal["all", "speaker", "surest", "model"]


@dataclass(frozen=True)
class Further:
    """What a further attack finds: the attacker with the smallest p value, or a tail where that alone leaks.

    Attributes:
        attacker: Its name.
        accuracy: Its accuracy.
        expected: The accuracy of predicting the speaker from the true emotion, and where sentences are known from the text.
        p_value: Permutation p value, corrected for the number of attackers.
        of: Of which utterances: all, those of the "speaker" or "model" that is recognised best, or the "surest".
    """

    attacker: str
    accuracy: float
    expected: float
    p_value: float
    of: Part = "all"

    @property
    def leaks(self) -> bool:
        """Whether it is significantly, and by more than the margin, above what is expected."""
        return self.p_value < TAIL_ALPHA and self.accuracy > self.expected + margin_of(self.expected)


@dataclass(frozen=True)
class FurtherAttacks:
    """The further attacks, by the reason that they give where they leak; None where one does not apply.

    Attributes:
        same_text: By attackers that know the sentences; None where folds do not keep texts apart.
        scored_alone: By attackers that learn from scored utterances alone; None where all are scored, too few are, or some are of
            recordings that attackers learn from.
    """

    same_text: Further | None = None
    scored_alone: Further | None = None


def attack_further(
    tables: Sequence[Embeddings], leakage: Leakage, progress: TaskProgress, folds: int, seed: int, permutations: int, jobs: int
) -> FurtherAttacks:
    """Attack embeddings as `leakage` does not.

    Args:
        tables: Embeddings of each encoder.
        leakage: Their leakage.
        progress: Called with the step's name, the units done and the total.
        folds: Number of folds; this and what follows is as in `measure_leakage`.
        seed: Seed of folds, attackers and permutations.
        permutations: Number of permutations; without any, nothing is attacked.
        jobs: Number of processes.
    """

    def attack(views: Sequence[Embeddings], step: str, expected: float = 0.0) -> Further | None:
        progress(step, 0, 1)
        found = measure_leakage(views, QUICK_ATTACKERS, folds, seed, permutations, jobs, repeats=1)
        progress(step, 1, 1)
        if found.near_copies > leakage.near_copies:  # a speaker has a single recording among the scored ones
            return None
        return most_conspicuous(found, max(expected, found.chance["given_emotion"]))

    same_text, scored_alone = None, None
    if leakage.grouped_by_text and permutations:
        known = [
            replace(table, text=np.full(len(table.id), ""), emotion=table.emotion_and_text, given=None, frames=None)
            for table in tables
        ]
        expected = max(leakage.chance["given_emotion"], accuracy_from_text(tables))
        same_text = attack(known, "attacking known sentences", expected)
    if permutations and not all(table.scored.all() for table in tables):
        try:
            alone = [replace(table.select(table.scored), frames=None) for table in tables]
            scored_alone = attack(alone, "attacking scored utterances alone")
        except AuditError:  # too few of them to learn from
            pass
    return FurtherAttacks(same_text, scored_alone)


def most_conspicuous(found: Leakage, expected: float) -> Further:
    """Return what an attack finds: the average of the attacker with the smallest p value, or a tail where that alone leaks."""
    scores = {name: score.over_texts for name, score in found.attackers.items()}
    name = min(scores, key=lambda attacker: (scores[attacker].p_value, -scores[attacker].accuracy))
    p_value = min(1.0, len(scores) * scores[name].p_value)
    average = Further(name, scores[name].accuracy, expected, p_value)
    tails: dict[Part, Tail | None] = {"speaker": found.tails.speaker, "surest": found.tails.surest, "model": found.tails.model}
    of_tails = [
        Further(tail.attacker, tail.accuracy, tail.expected, p_value_over_texts(tail), of) for of, tail in tails.items() if tail
    ]
    leaking = [further for further in of_tails if further.leaks and not average.leaks]
    return max(leaking, key=lambda further: further.accuracy - further.expected, default=average)


def reconsider(
    at_chance: AtChance,
    reason: str,
    further: FurtherAttacks,
    chance: float,
    shares: Mapping[str, float],
    quick: bool,
    starved: bool = False,
) -> tuple[AtChance, str]:
    """Return the conclusion and its reason, given what is known beside the scores of the attackers.

    Args:
        at_chance: What the scores conclude.
        reason: Why they do.
        further: What further attacks find.
        chance: Chance given the emotion.
        shares: Shares of utterances that were not attacked, by the reason that a claim is undecided above the margin.
        quick: Whether the closed-form attackers alone were run; a claim needs all.
        starved: Whether attackers may have had too few utterances to learn from.
    """
    attacks = {"same_text": further.same_text, "scored_alone": further.scored_alone}
    if found := [name for name, attack in attacks.items() if attack and attack.leaks and at_chance is not False]:
        return False, found[0]
    known = further.same_text  # as high as it is, but no higher than the sentence alone explains
    own_texts = known is not None and min(known.accuracy, known.expected) > chance + margin_of(chance)
    doubts = {
        **{name: share > MARGIN for name, share in shares.items()},
        "own_texts": own_texts,
        "quick": quick,
        "starved": starved,
    }
    doubt = next((name for name, applies in doubts.items() if applies), "")
    return ("undecided", doubt) if doubt and at_chance is True else (at_chance, reason)


def accuracy_from_text(tables: Sequence[Embeddings]) -> float:
    """Return the accuracy of predicting the speaker who says the text of a scored utterance most often in other utterances."""
    correct = []
    for table in tables:
        text, speaker = to_indices(table.text), to_indices(table.speaker)
        counts = np.zeros((text.max() + 1, speaker.max() + 1))
        np.add.at(counts, (text, speaker), 1)
        others = counts[text]
        others[np.arange(len(text)), speaker] -= 1
        correct.append((others.argmax(axis=1) == speaker)[table.scored])
    return float(np.concatenate(correct).mean())
