"""The verdict in words: how well emotion is read from unseen speakers, and whether the speaker is still in the embedding."""

from collections.abc import Mapping

REASONS = {
    "within": "at chance, even the upper 95 % bound is within {margin:.0f} points of it",
    "quick": "the quick attackers are at chance, the others have not been tried",
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
    trained = "without any label" if domains["target_in_training"] else "not at all"
    return f". It was trained on {trained}, and on {values} with labels, where UAR is {100 * uar['value']:.1f} %{within(uar)}"


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
