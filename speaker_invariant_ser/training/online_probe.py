"""A fresh attacker while training goes on: how well the speaker is read from the embedding as it is now.

For curves only. It selects nothing, and the audit of the finished model does not know of it.
"""

from collections.abc import Sequence

from speaker_invariant_ser.audit.attackers import standardised_lda
from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.models.apply import apply_to_dataset
from speaker_invariant_ser.models.model import SerModel

BATCH_SIZE = 32  # utterances embedded together


def fresh_accuracy(
    model: SerModel,
    train: LogMelDataset,
    speakers: Sequence[str],
    test: LogMelDataset,
    test_speakers: Sequence[str],
) -> float:
    """Return the accuracy of linear discriminant analysis at identifying the speakers of `test`, fitted on `train`."""
    attacker = standardised_lda()
    attacker.fit(apply_to_dataset(model, train, BATCH_SIZE).embedding, speakers)
    return float(attacker.score(apply_to_dataset(model, test, BATCH_SIZE).embedding, test_speakers))
