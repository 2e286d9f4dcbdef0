"""What the attackers are given: the threat model in words, and other features of the same utterances, attacked for comparison.

Of the controls, the emotion posteriors are a floor, the log-mel statistics approximate a ceiling, and an untrained encoder shows
what training added or removed. To add one, write a function `(model, waveforms, speaker_means) -> [N, D']` and enter it in
`CONTROLS`.

Arguments of all controls:

- model: The trained model.
- waveforms: Waveform of each of the N utterances, float32 [S] at the model's sampling rate.
- speaker_means: For models with speaker normalisation, each utterance's speaker mean; None otherwise.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from speaker_invariant_ser.features.log_mel import FRONTS
from speaker_invariant_ser.features.log_mel_sources import clip_batches
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.models.release import RELEASES
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import NoBottleneck, NoErasure, NoRelease, ReleaseSection

MIN_PROBABILITY = 1e-6
BATCH_SIZE = 32


def describe_threat_model(recipe: Recipe) -> str:
    """Describe what an attacker of a model has: its outputs, repeated queries, training data, and attacks not covered.

    Args:
        recipe: The recipe by which the model was trained.

    Returns:
        A paragraph for the report.
    """
    noisy = recipe.bottleneck.name == "vib" or recipe.release.name == "noise"
    same_noise = ", because the noise is a function of the utterance's samples" if noisy else ""
    averaging = ", over which the noise can be averaged" if noisy else ""
    subtraction = ", from which anyone who has the model can compute the noise and subtract it" if noisy else ""
    text = (
        f"Threat model: the attacker has the embedding of one utterance as the model outputs it{output_changes(recipe)}, and "
        f"labelled embeddings of the same speakers to train on. Repeated queries return the same embedding{same_noise}. "
        f"Not covered: combining several utterances of a speaker{averaging}; access to the audio{subtraction}."
    )
    if posteriors_bypass_release(recipe.release):
        text += (
            " Emotion posteriors are computed from the embedding before its release; they are a second output, attacked apart."
        )
    return text


def output_changes(recipe: Recipe) -> str:
    """Describe how bottleneck and release change the embedding, as part of a sentence."""
    release, changes = recipe.release, []
    if recipe.bottleneck.name == "vib":
        changes.append("sampled from the distribution that the bottleneck gives")
    if recipe.bottleneck.name == "fsq":
        changes.append(f"each dimension quantised to {recipe.bottleneck.levels} levels")
    if release.name == "noise":
        changes.append(f"with Gaussian noise of {release.sigma:g} times each dimension's standard deviation")
    if release.name == "quantise":
        changes.append(f"each dimension rounded to steps of {release.step:g} times its standard deviation")
    if release.name == "codes":
        changes.append(f"replaced by the nearest of {release.cells} codes")
    if release.name == "decision":
        changes.append("replaced by the code of the predicted emotion")
    return "".join(f", {change}" for change in changes)


def posteriors_bypass_release(release: ReleaseSection) -> bool:
    """Whether emotion posteriors are computed before the embedding's release, and so contain more than what is released."""
    return release.name != "none" and release.classifies_before


def posteriors(model: SerModel, waveforms: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Return log posteriors of the emotions, and dimensions if any, [N, C + R]: the leakage of a system that outputs no more."""
    outputs = apply_to_clips(model, waveforms, speaker_means)
    log_posteriors = np.log(np.maximum(outputs.probability, MIN_PROBABILITY))
    return log_posteriors if outputs.dimensions is None else np.hstack((log_posteriors, outputs.dimensions))


def unreleased(model: SerModel, waveforms: Sequence[np.ndarray], speaker_means: np.ndarray | None = None) -> np.ndarray:
    """Return the embedding [N, D] before erasure and release."""
    plain, dim = copy.deepcopy(model), model.dim
    plain.eraser, plain.release = ERASERS["none"](dim, NoErasure()), RELEASES["none"](dim, NoRelease(), len(model.labels))
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
    front = FRONTS[model.settings.features.front](model.settings.features, model.settings.sample_rate).to(device)
    for rows, audio, samples in clip_batches(waveforms, BATCH_SIZE, device):
        mels, frames = front(audio, samples)
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
