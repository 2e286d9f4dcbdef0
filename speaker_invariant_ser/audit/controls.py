"""What a leak is compared with: floors that know only the emotion, an encoder that learned nothing, the spectrogram itself.

Each gives an array [N, D'] for clips (float32 [S] at the model's rate), to be attacked as the embedding is.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from speaker_invariant_ser.audit.verdict import two_outputs
from speaker_invariant_ser.features.log_mel_sources import clip_batches
from speaker_invariant_ser.models.apply import apply
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.models.release import RELEASES
from speaker_invariant_ser.recipe import BottleneckSection, EraseSection, ReleaseSection

SMALLEST = 1e-6  # probability


def posteriors(model: SerModel, clips: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Log-probabilities of the emotions [N, C]: who keeps the decision alone keeps this much."""
    return np.log(np.maximum(apply(model, clips, speaker_means)[1], SMALLEST))


def unreleased(model: SerModel, clips: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """The embedding [N, D] before anything is erased from it and before its release, for models that do either."""
    plain, dim = copy.deepcopy(model), model.dim
    plain.eraser, plain.release = ERASERS["none"](dim, EraseSection()), RELEASES["none"](dim, ReleaseSection())
    return apply(plain.eval(), clips, speaker_means)[0]


def random_encoder(model: SerModel, clips: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Embeddings [N, D] of the same encoder before any training, normalised as the trained one: what comes for free.

    Of the encoder alone, since what stands behind it would be noise upon noise before it is fitted.
    """
    plain = {"bottleneck": BottleneckSection(), "erase": EraseSection(), "release": ReleaseSection()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = SerModel(model.settings.model_copy(update=plain))
    untrained.normalise.load_state_dict(model.normalise.state_dict())
    return apply(untrained.to(next(model.parameters()).device).eval(), clips, speaker_means)[0]


@torch.inference_mode()
def logmel(model: SerModel, clips: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Mean and deviation over time of each mel band [N, 2 M]: what a voice is told by before anything is learned, the ceiling."""
    statistics = np.zeros((len(clips), 2 * model.settings.features.mels), dtype=np.float32)
    device = next(model.parameters()).device
    for rows, audio, samples in clip_batches(clips, 32, device):
        mels, frames = model.logmel(audio, samples)
        for row, clip, count in zip(rows, mels.cpu().numpy(), frames.tolist(), strict=True):
            statistics[row] = np.concatenate([clip[:, :count].mean(axis=1), clip[:, :count].std(axis=1)])
    return statistics


def controls_for(model: SerModel, quick: bool) -> list[str]:
    """Which controls a model is compared with; for the short battery, what leaves the model beside the embedding alone."""
    settings = model.settings
    changed = settings.erase.name != "none" or settings.release.name != "none"
    if quick:
        return ["posteriors"] if two_outputs(settings.release) else []
    return [name for name in CONTROLS if changed or name != "unreleased"]


CONTROLS: dict[str, Callable[[SerModel, Sequence[np.ndarray], np.ndarray | None], np.ndarray]] = {
    "posteriors": posteriors,
    "unreleased": unreleased,
    "random_encoder": random_encoder,
    "logmel": logmel,
}
