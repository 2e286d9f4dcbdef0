"""The verdict in words: how well emotion is read from unseen speakers, and whether the speaker is still in the embedding.

And the threat model: what the attackers are given whose scores these are.
"""

from collections.abc import Mapping

from speaker_invariant_ser.recipe import Recipe, ReleaseSection

REASONS = {
    "within": "at chance, even the upper 95 % bound is within {margin:.0f} points of it",
    "quick": "the quick attackers are at chance, the others have not been tried",
    "starved": "at chance, but so few clips to learn from were not enough before the erasure either",
    "leak": "the embedding identifies people",
    "below": "an attacker is reliably worse than chance, and whoever knows whom it is not is identified as well",
    "few": "whether it identifies people is undecided, with too few utterances",
}


def verdict(summary: Mapping) -> list[str]:
    """One sentence about emotion, where a summary (the content of report.json) has that, and one about the speaker."""
    transductive = summary.get("settings", {}).get("transductive", False)
    sentences = [emotion_sentence(summary["emotion"], transductive)] if summary["emotion"] else []
    return [*sentences, speaker_sentence(summary["speaker"])]


def emotion_sentence(emotion: Mapping, transductive: bool = False) -> str:
    uar, domains = emotion["uar"], emotion.get("domains")
    speakers = len(emotion["per_speaker"])
    who = "a speaker" if speakers == 1 else f"{speakers} speakers"
    who += f" of {', '.join(domains[domains['headline']]['values'])}" if domains else ""
    means = ", told by the mean of all their clips (transductive)," if transductive else ""
    return (
        f"Emotion is read from {who} the model has never {'trained on' if means else 'heard'}{means} with "
        f"{100 * uar['value']:.1f} % UAR{within(uar)}; chance is {100 * emotion['chance']:.1f} %{beside(domains)}."
    )


def within(uar: Mapping) -> str:
    return "" if uar["low"] is None else f" (95 % interval {100 * uar['low']:.1f} to {100 * uar['high']:.1f} %)"


def beside(domains: Mapping | None) -> str:
    """How the source is read, where the headline is the target's."""
    if not domains or domains["headline"] == "source" or not domains["source"]["tested"]:
        return ""
    uar, values = domains["source"]["tested"]["uar"], ", ".join(domains["source"]["values"])
    other = "clips without any label" if domains["target_in_training"] else "nothing"
    read = f"where UAR is {100 * uar['value']:.1f} %{within(uar)}"
    return f". Training had {values} with labels, {read}, and of this domain {other}"


def speaker_sentence(speaker: Mapping) -> str:
    strongest, chance = speaker["strongest"], speaker["chance"]["given_emotion"]
    says = REASONS[speaker["reason"]].format(margin=100 * speaker["margin"])
    mapped = [one for one in speaker["attackers"].values() if one["reads"] == "frames"]
    if mapped and speaker["reason"] != "leak" and (mapped[0]["p_value"] or 1) < 0.05:
        says += f"; but the encoder's map before pooling gives away {100 * mapped[0]['accuracy']:.1f} %"
    times = "" if speaker["utterances"] == speaker["decisions"] else f", {speaker['decisions']} decisions"
    allows = f"the emotion alone allows {100 * chance:.1f} %" if speaker["emotions"] > 1 else f"chance is {100 * chance:.1f} %"
    mostly = "" if len(strongest["chosen"]) == 1 else "mostly "
    return (
        f"The strongest fresh attacker ({mostly}{strongest['name']}) names the right one of {speaker['speakers']} speakers for "
        f"{100 * strongest['accuracy']:.1f} % of {speaker['utterances']} utterances{times}, where {allows}: {says}."
    )


def threat(recipe: Recipe) -> str:
    """What an attacker of a model of this recipe sees, how often, what else they have, and what is not covered."""
    noisy = recipe.bottleneck.name == "vib" or recipe.release.name == "noise"
    again = ", since its noise is a function of the utterance's own samples" if noisy else ""
    several = ", over which noise averages out" if noisy else ""
    audio = ", from which whoever has the model computes the noise and takes it off" if noisy else ""
    told = (
        f"The attacker sees the embedding of one utterance as it leaves the model{as_released(recipe)}. Asking again, as often "
        f"as they like, gives the same{again}. They have labelled embeddings of the same speakers to learn from. Not covered: "
        f"several utterances of one person put together{several}; the audio itself at hand{audio}."
    )
    if two_outputs(recipe.release):
        told += " The emotion is told from the embedding before its release: its posteriors are a second output, attacked apart."
    return told


def as_released(recipe: Recipe) -> str:
    """What was done to the embedding, as a part of a sentence."""
    release, done = recipe.release, []
    if recipe.bottleneck.name == "vib":
        done.append("a sample of what its bottleneck lets through")
    if recipe.bottleneck.name == "fsq":
        done.append(f"each dimension one of {recipe.bottleneck.levels} values")
    if release.name == "noise":
        done.append(f"with noise {release.sigma:g} times as large as each dimension's deviation")
    if release.name == "quantise":
        done.append(f"each dimension rounded to steps of {release.step:g} of its deviation")
    return "".join(f", {one}" for one in done)


def two_outputs(release: ReleaseSection) -> bool:
    """Whether the emotion posteriors know more than the embedding that is released: they are told before it is changed."""
    return release.name != "none" and release.decision == "before"
