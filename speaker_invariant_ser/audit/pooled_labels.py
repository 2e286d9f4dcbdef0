"""The labels of the scored utterances of all encoders, and what can be reached from them without embeddings.

Shapes: n scored utterances of all encoders, or of one; K speakers; P permutations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from speaker_invariant_ser.audit import statistics
from speaker_invariant_ser.audit.cross_validation import count_votes
from speaker_invariant_ser.audit.embeddings import Embeddings, to_common_indices
from speaker_invariant_ser.audit.folds import FoldPlan
from speaker_invariant_ser.audit.permutations import IntegerLabels, design_effect, spread_by, text_effect
from speaker_invariant_ser.audit.statistics import Score
from speaker_invariant_ser.indexing import to_indices


@dataclass(frozen=True)
class PooledLabels:
    """The true labels of the scored utterances of all encoders, pooled in the encoders' order [n].

    Attributes:
        labels: Labels of each encoder, including utterances that are not scored.
        speaker: True speaker of each scored utterance [n].
        cluster: Its text where all folds are grouped by text, otherwise its group or id [n].
        grouped_by_text: Whether all folds are grouped by text.
        utterances: Number of different utterances.
        within_texts: The labels with combinations of emotion and text as emotions, where texts are known but not kept apart by
            folds, so that attackers may know them; otherwise none.
    """

    labels: list[IntegerLabels]
    speaker: np.ndarray
    cluster: np.ndarray
    grouped_by_text: bool
    utterances: int
    within_texts: list[IntegerLabels]

    @classmethod
    def of(cls, tables: Sequence[Embeddings], plans: Sequence[FoldPlan]) -> "PooledLabels":
        """Pool the labels of each encoder's table."""
        grouped_by_text = all(plan.grouped_by_text for plan in plans)
        units = to_common_indices([table.unit for table in tables])
        texts = to_common_indices([table.text for table in tables])
        labels = [
            IntegerLabels(
                units[encoder],
                to_indices(table.speaker),
                plan.known_emotions(to_indices(table.given_emotion)),
                table.scored,
                texts[encoder] if grouped_by_text else None,
            )
            for encoder, (table, plan) in enumerate(zip(tables, plans, strict=True))
        ]
        known = not grouped_by_text and any(table.text.astype(bool).any() for table in tables)
        within_texts = [
            replace(encoder_labels, emotion=plan.known_emotions(to_indices(table.emotion_and_text)))
            for encoder_labels, table, plan in zip(labels, tables, plans, strict=True)
        ]
        return cls(
            labels,
            speaker=np.concatenate([table.speaker[table.scored] for table in tables]),
            cluster=np.concatenate([(table.text if grouped_by_text else table.unit)[table.scored] for table in tables]),
            grouped_by_text=grouped_by_text,
            utterances=len(set(np.concatenate([table.id[table.scored] for table in tables]))),
            within_texts=within_texts if known else [],
        )

    def spread_over_texts(
        self, votes: Mapping[str, Sequence[np.ndarray]], permuted: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return accuracies under permuted speakers as they vary if utterances of one text stand or fall together.

        Args:
            votes: For each attacker and encoder, the share of repeats that predict each speaker [n, K].
            permuted: Accuracies of each attacker under permuted speakers [P].

        Returns:
            Accuracies [P] of each attacker; none where folds do not keep texts apart.
        """
        if not self.grouped_by_text:
            return {}
        more = {name: text_effect(votes[name], self.labels) / design_effect(votes[name], self.labels) for name in votes}
        return {name: spread_by(np.sqrt(max(1.0, more[name])), permuted[name]) for name in votes}

    def score(self, votes: Sequence[np.ndarray], permuted: np.ndarray, permuted_texts: np.ndarray | None) -> Score:
        """Score an attacker.

        Args:
            votes: For each encoder, the share of repeats that predict each speaker [n, K].
            permuted: Accuracies under permuted speakers [P].
            permuted_texts: The same where the text may explain accuracies; None where texts are unknown.
        """
        correct = np.concatenate(self.correct_by_encoder(votes))
        return statistics.compute_score(correct, self.speaker, self.cluster, self.utterances, permuted, permuted_texts)

    def correct_by_encoder(self, votes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return for each encoder the share of repeats in which each utterance's true speaker was predicted."""
        return [
            encoder_votes[np.arange(len(encoder_votes)), labels.speaker[labels.scored]]
            for encoder_votes, labels in zip(votes, self.labels, strict=True)
        ]

    def chance_levels(self, plans: Sequence[FoldPlan]) -> dict[str, float]:
        """Compute what can be reached without embeddings.

        Args:
            plans: Folds of each encoder; predictions from the emotion are made in the attackers' folds.

        Returns:
            uniform: 1 / K.
            majority: Accuracy of always predicting the most frequent speaker.
            given_emotion: Accuracy of predicting the speaker from the true emotion; 1 / K if that is higher.
            given_emotion_balanced: The same for balanced accuracy.
        """
        scored = [labels.scored.sum() for labels in self.labels]
        uniform = float(np.average([statistics.uniform_chance(labels) for labels in self.labels], weights=scored))
        majority = float(np.average([statistics.majority_chance(labels) for labels in self.labels], weights=scored))
        correct = self.correct_from_emotion(plans, balanced=False)
        _, recall = statistics.recall_by_speaker(self.correct_from_emotion(plans, balanced=True), self.speaker)
        return {
            "uniform": uniform,
            "majority": majority,
            "given_emotion": max(uniform, float(correct.mean())),
            "given_emotion_balanced": max(uniform, float(recall.mean())),
        }

    def correct_from_emotion(self, plans: Sequence[FoldPlan], balanced: bool) -> np.ndarray:
        """Return the share of repeats [n] in which the true emotion alone predicts the true speaker."""
        votes = []
        for labels, plan in zip(self.labels, plans, strict=True):
            predicted = [statistics.predict_from_emotion(labels, fold.train, fold.test, balanced) for fold in plan.folds]
            votes.append(count_votes(plan, np.flatnonzero(labels.scored), labels.speaker.max() + 1, predicted))
        return np.concatenate(self.correct_by_encoder(votes))
