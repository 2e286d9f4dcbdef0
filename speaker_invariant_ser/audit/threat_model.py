"""The threat model in words: what the attackers of an evaluated model are given, and which attacks are not covered."""

from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import ReleaseSection


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
    return "".join(f", {change}" for change in changes)


def posteriors_bypass_release(release: ReleaseSection) -> bool:
    """Whether emotion posteriors are computed before the embedding's release, and so contain more than what is released."""
    return release.name != "none" and release.classifies_before
