"""A fresh attacker during training: how well the speaker can be predicted from the current embeddings.

For curves only: it selects nothing, and the audit of the finished model does not use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.features.dataset import LogMelDataset, open_dataset
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.model import SerModel

BATCH_SIZE = 32  # utterances embedded together


@dataclass(frozen=True)
class OnlineProbe:
    """Linear discriminant analysis, fitted on training utterances and scored on held-out ones of the same speakers."""

    train: LogMelDataset
    train_speakers: Sequence[str]
    held_out: LogMelDataset
    held_out_speakers: Sequence[str]

    @classmethod
    def open(cls, prepared: PreparedCorpus, split: Split, model: SerModel, train: LogMelDataset) -> "OnlineProbe":
        """Open the held-out utterances of a fold, to be scored beside its training utterances."""
        fitted, unlabelled, scored = (split.indices(part, prepared.utterances) for part in ("train", "unlabelled", "held_out"))
        speakers = [utterance.speaker for utterance in prepared.utterances]
        transductive = model.settings.features.transductive
        held_out = open_dataset(
            prepared, scored, model.labels, (), model.logmel, cache_gb=0.0, subtract_speaker_means=transductive
        )
        return cls(train, [speakers[index] for index in (*fitted, *unlabelled)], held_out, [speakers[index] for index in scored])

    def accuracy(self, model: SerModel) -> float:
        """Return the attacker's accuracy on the held-out utterances, 0 to 1; the model is left in evaluation mode."""
        from speaker_invariant_ser.audit.attackers import standardised_lda  # scikit-learn: 120 MB, needed by a probe alone

        attacker = standardised_lda()
        attacker.fit(apply_to_dataset(model, self.train, BATCH_SIZE).embedding, self.train_speakers)
        return float(attacker.score(apply_to_dataset(model, self.held_out, BATCH_SIZE).embedding, self.held_out_speakers))
