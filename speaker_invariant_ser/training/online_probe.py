"""A fresh attacker while training goes on: how well the speaker is read from the embedding as it is now.

For curves only. It selects nothing, and the audit of the finished model does not know of it.
"""

from collections.abc import Sequence

import numpy as np
import torch

from speaker_invariant_ser.audit.attackers import standardised_lda
from speaker_invariant_ser.features.dataset import Clips
from speaker_invariant_ser.models.model import SerModel

AT_ONCE = 32  # clips


@torch.inference_mode()
def embeddings_of(model: SerModel, clips: Clips) -> np.ndarray:
    """What leaves the model for these clips, [N, D]; the model is left in evaluation mode."""
    model.eval()
    batches, found = clips.in_order_of_length(AT_ONCE), np.zeros((len(clips), model.dim), dtype=np.float32)
    for rows, (mels, frames) in zip(batches, clips.read(batches), strict=True):
        found[rows] = model.from_mels(mels, frames).embedding.cpu().numpy()
    return found


def fresh_accuracy(
    model: SerModel, learned: Clips, speakers: Sequence[str], scored: Clips, scored_speakers: Sequence[str]
) -> float:
    """Share of the `scored` clips whose speaker linear discriminant analysis names rightly, after learning from the others."""
    attacker = standardised_lda()
    attacker.fit(embeddings_of(model, learned), speakers)
    return float(attacker.score(embeddings_of(model, scored), scored_speakers))
