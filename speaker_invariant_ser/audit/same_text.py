"""Whether speakers are recognised by a sentence that the attacker knows from them.

Folds are grouped by text, so that no attacker recognises a sentence instead of a voice. An embedding with a code of its own for
every speaker and sentence is at chance then, although it names everybody who says a known sentence again. So closed-form
attackers are fitted in folds that do not keep texts apart as well, and compared with speakers that are permuted within emotion
and text: what the text alone says about the speaker is no leak.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from speaker_invariant_ser.audit.attackers import QUICK_ATTACKERS
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.leakage import Leakage, measure_leakage
from speaker_invariant_ser.audit.statistics import MARGIN, TAIL_ALPHA, AtChance
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.processes import TaskProgress


@dataclass(frozen=True)
class SameText:
    """The attacker with the smallest p value, in folds that do not keep texts apart.

    Attributes:
        attacker: Its name.
        accuracy: Its accuracy.
        expected: The accuracy of predicting the speaker from the true emotion, the true text, or both.
        p_value: Permutation p value, corrected for the number of attackers.
    """

    attacker: str
    accuracy: float
    expected: float
    p_value: float

    @property
    def leaks(self) -> bool:
        """Whether it is significantly, and by more than the margin, above what emotion and text alone give."""
        return self.p_value < TAIL_ALPHA and self.accuracy > self.expected + MARGIN


def attack_same_text(
    tables: Sequence[Embeddings], leakage: Leakage, progress: TaskProgress, folds: int, seed: int, permutations: int, jobs: int
) -> SameText | None:
    """Attack embeddings in folds that do not keep texts apart, if those of the leakage do; None otherwise.

    Args:
        tables: Embeddings of each encoder.
        leakage: Their leakage.
        progress: Called with the step's name, the units done and the total.
        folds: Number of folds; this and what follows is as in `measure_leakage`.
        seed: Seed of folds, attackers and permutations.
        permutations: Number of permutations; without any, nothing is attacked.
        jobs: Number of processes.
    """
    if not (leakage.grouped_by_text and permutations):
        return None
    progress("attacking known sentences", 0, 1)
    without = [replace(table, text=np.full(len(table.id), ""), emotion=emotion_and_text(table), frames=None) for table in tables]
    known = measure_leakage(without, QUICK_ATTACKERS, folds, seed, permutations, jobs, repeats=1)
    progress("attacking known sentences", 1, 1)
    scores = known.attackers
    name = min(scores, key=lambda attacker: (scores[attacker].p_value, -scores[attacker].accuracy))
    p_value = min(1.0, len(scores) * scores[name].p_value)
    expected = max(known.chance["given_emotion"], leakage.chance["given_emotion"], accuracy_from_text(tables))
    return SameText(name, scores[name].accuracy, expected, p_value)


def reconsider(
    at_chance: AtChance, reason: str, same_text: SameText | None, shares: Mapping[str, float], quick: bool, starved: bool = False
) -> tuple[AtChance, str]:
    """Return the conclusion and its reason, given what is known beside the scores of the attackers.

    Args:
        at_chance: What the scores conclude.
        reason: Why they do.
        same_text: Whether speakers are recognised by a known sentence; None where folds do not keep texts apart.
        shares: Shares of utterances that were not attacked, by the reason that a claim is undecided above the margin.
        quick: Whether the closed-form attackers alone were run; a claim needs all.
        starved: Whether attackers may have had too few utterances to learn from.
    """
    if same_text and same_text.leaks and at_chance is not False:
        return False, "same_text"
    doubts = {**{name: share > MARGIN for name, share in shares.items()}, "quick": quick, "starved": starved}
    doubt = next((name for name, applies in doubts.items() if applies), "")
    return ("undecided", doubt) if doubt and at_chance is True else (at_chance, reason)


def emotion_and_text(table: Embeddings) -> np.ndarray:
    """Return the combination of emotion and text of each utterance [N]; the text alone where it is in no other unit.

    No attacker knows a combination that it is not fitted on, but may know the text.
    """
    both = np.char.add(np.char.add(table.emotion.astype(str), "\n"), table.text.astype(str))
    units = Counter(combination for combination, _ in set(zip(both.tolist(), table.unit.tolist(), strict=True)))
    several = np.array([units[combination] > 1 for combination in both.tolist()])
    return np.where(several, both, table.text)


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
