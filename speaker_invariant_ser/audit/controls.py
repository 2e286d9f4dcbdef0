"""Controls: other features of the same utterances, attacked for comparison with the embedding.

The emotion posteriors are a floor, the log-mel statistics approximate a ceiling, and an untrained encoder shows what training
added or removed. To add a control, write a function `(model, waveforms, speaker_means) -> [N, D']` and enter it in `CONTROLS`.

Arguments of all controls:

- model: The trained model.
- waveforms: Waveform of each of the N utterances, float32 [S] at the model's sampling rate.
- speaker_means: For models with speaker normalisation, each utterance's speaker mean; None otherwise.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from speaker_invariant_ser.audit.threat_model import posteriors_bypass_release
from speaker_invariant_ser.features.log_mel_sources import clip_batches
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.models.release import RELEASES
from speaker_invariant_ser.recipe_methods import NoBottleneck, NoErasure, NoRelease

MIN_PROBABILITY = 1e-6
BATCH_SIZE = 32


def posteriors(model: SerModel, waveforms: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Return log posteriors of the emotions [N, C]: the leakage of a system that outputs its decision only."""
    return np.log(np.maximum(apply_to_clips(model, waveforms, speaker_means).probability, MIN_PROBABILITY))


def unreleased(model: SerModel, waveforms: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Return the embedding [N, D] before erasure and release."""
    plain, dim = copy.deepcopy(model), model.dim
    plain.eraser, plain.release = ERASERS["none"](dim, NoErasure()), RELEASES["none"](dim, NoRelease())
    return apply_to_clips(plain.eval(), waveforms, speaker_means).embedding


def random_encoder(model: SerModel, waveforms: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Return embeddings [N, D] of the same encoder with initial weights but the trained model's input normalisation.

    Without bottleneck, erasure and release, which would add noise to noise where they are not fitted.
    """
    plain = {"bottleneck": NoBottleneck(), "erase": NoErasure(), "release": NoRelease()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = SerModel(model.settings.model_copy(update=plain))
    untrained.normalise.load_state_dict(model.normalise.state_dict())
    untrained = untrained.to(next(model.parameters()).device).eval()
    return apply_to_clips(untrained, waveforms, speaker_means).embedding


@torch.inference_mode()
def logmel(model: SerModel, waveforms: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Return mean and standard deviation over time of each mel band [N, 2 M]."""
    statistics = np.zeros((len(waveforms), 2 * model.settings.features.mels), dtype=np.float32)
    device = next(model.parameters()).device
    for rows, audio, samples in clip_batches(waveforms, BATCH_SIZE, device):
        mels, frames = model.logmel(audio, samples)
        for row, mel, count in zip(rows, mels.cpu().numpy(), frames.tolist(), strict=True):
            statistics[row] = np.concatenate([mel[:, :count].mean(axis=1), mel[:, :count].std(axis=1)])
    return statistics


def controls_for(model: SerModel, quick: bool) -> list[str]:
    """List the controls that a model is compared with.

    Args:
        model: The trained model.
        quick: Only the other outputs of the model.

    Returns:
        Keys of `CONTROLS`.
    """
    settings = model.settings
    if quick:
        return ["posteriors"] if posteriors_bypass_release(settings.release) else []
    changed = settings.erase.name != "none" or settings.release.name != "none"
    return [name for name in CONTROLS if changed or name != "unreleased"]


CONTROLS: dict[str, Callable[[SerModel, Sequence[np.ndarray], np.ndarray | None], np.ndarray]] = {
    "posteriors": posteriors,
    "unreleased": unreleased,
    "random_encoder": random_encoder,
    "logmel": logmel,
}
