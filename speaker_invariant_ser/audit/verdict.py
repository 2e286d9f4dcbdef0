"""The verdict of a report in words: emotion recognition on unseen speakers, and what the attackers conclude about the speaker."""

from collections.abc import Mapping

CONCLUSIONS = {  # by the reason that `equivalence_test`, a quick audit or an evaluation gives
    "within": (
        "Attackers are at chance within the margin of {margin:.0f} points: the one-sided 95 % upper bound is {upper:.1f} %. This "
        "is an average over speakers and utterances{precision}; no speaker stands out, nor do the utterances that an attacker is "
        "surest about"
    ),
    "leak": "The embedding identifies speakers: attackers are significantly above chance",
    "below": (
        "The embedding identifies speakers: an attacker is significantly below chance, so its errors reveal who the speaker is"
    ),
    "few": (
        "Undecided: no attacker is significantly above chance, but {sample} are too few to show that attackers are within "
        "{margin:.0f} points of chance"
    ),
    "quick": (
        "Undecided: the closed-form attackers are at chance within the margin of {margin:.0f} points, but the other attackers "
        "were not run (--quick)"
    ),
    "no_room": (
        "Undecided: the emotion alone names almost every speaker, so that chance plus the margin of {margin:.0f} points leaves "
        "no room for a leak, however well an attacker recognises the voice"
    ),
    "speaker": (
        "The embedding identifies a speaker: attackers are at chance on average, but recognise one speaker in {recall:.1f} % of "
        "{recalled:.0f} utterances (expected by chance {recall_expected:.1f})"
    ),
    "surest": (
        "The embedding identifies speakers in some utterances: attackers are at chance on average, but of the utterances that "
        "one is surest about, {sure:.1f} % are named correctly (expected by chance {sure_expected:.1f})"
    ),
    "tail": (
        "Undecided: attackers are at chance on average, but one speaker is recognised in {recall:.1f} % of utterances (expected "
        "by chance {recall_expected:.1f}), and the surest utterances are named correctly in {sure:.1f} % ({sure_expected:.1f}), "
        "of which one may be more than luck"
    ),
    "text_leak": (
        "The embedding identifies speakers, or what they say: each text is said by one speaker only, so that recognising the "
        "text cannot be told apart from recognising the voice"
    ),
    "text": (
        "Undecided: accuracies differ from chance, but each text is said by one speaker only, so that this may be the text and "
        "not the voice"
    ),
    "starved": (
        "Undecided: attackers are at chance, but with so few training utterances they do not identify speakers before the "
        "erasure either"
    ),
}


def verdict(summary: Mapping) -> list[str]:
    """Describe the results of a report.

    Args:
        summary: Content of report.json; `emotion` may be None, `settings` may be missing.

    Returns:
        A text about emotion, if there are results on emotion, and a text about the speaker.
    """
    transductive = summary.get("settings", {}).get("transductive", False)
    texts = [emotion_verdict(summary["emotion"], transductive)] if summary["emotion"] else []
    return [*texts, speaker_verdict(summary["speaker"])]


def emotion_verdict(emotion: Mapping, transductive: bool = False) -> str:
    """State the emotion UAR on unseen speakers with its interval and chance.

    Args:
        emotion: Part `emotion` of report.json.
        transductive: Whether features are normalised by the mean over all utterances of each test speaker.

    Returns:
        One or two sentences.
    """
    uar, domains = emotion["uar"], emotion.get("domains")
    count = len(emotion["per_speaker"])
    speakers = f"{count} unseen {'speaker' if count == 1 else 'speakers'}"
    if domains:
        speakers += f" of {', '.join(domains[domains['headline']]['values'])}"
    if transductive:
        speakers += ", normalised by the mean over all utterances of each test speaker (transductive)"
    return f"Emotion UAR on {speakers}: {with_bounds(uar, 'chance', emotion['chance'])}.{source_verdict(domains)}"


def source_verdict(domains: Mapping | None) -> str:
    """State the UAR on the source domain and what was trained on, if the headline is the target domain's; else nothing."""
    if not domains or domains["headline"] == "source" or not domains["source"]["tested"]:
        return ""
    source = ", ".join(domains["source"]["values"])
    target = ", ".join(domains[domains["headline"]]["values"])
    of_target = f"unlabelled utterances of {target}" if domains["target_in_training"] else f"no utterances of {target}"
    uar = with_bounds(domains["source"]["tested"]["uar"])
    return f" Trained on labelled utterances of {source} (UAR on its unseen speakers: {uar}) and on {of_target}."


def speaker_verdict(speaker: Mapping) -> str:
    """State the strongest attacker's accuracy with its interval and chance, and the conclusion.

    Args:
        speaker: Part `speaker` of report.json.

    Returns:
        Two sentences.
    """
    strongest, margin = speaker["strongest"], 100 * speaker["margin"]
    name = strongest["name"] if len(strongest["chosen"]) == 1 else f"mostly {strongest['name']}"
    decisions = "" if speaker["utterances"] == speaker["decisions"] else f" ({speaker['decisions']} decisions)"
    chance = "chance given the emotion" if speaker["emotions"] > 1 else "chance"
    accuracy = with_bounds({**strongest, "value": strongest["accuracy"]}, chance, speaker["chance"]["given_emotion"])
    upper = 100 * (strongest["upper"] or 0.0)
    sample = f"{speaker['utterances']} utterances" + (f" of {speaker['clusters']} texts" if speaker["grouped_by_text"] else "")
    conclusion = CONCLUSIONS[speaker["reason"]].format(margin=margin, upper=upper, sample=sample, **tail_values(speaker))
    return (
        f"Speaker accuracy of the strongest fresh attacker ({name}) on {speaker['utterances']} utterances{decisions} of "
        f"{speaker['speakers']} speakers: {accuracy}. {conclusion}{frame_level_leak(speaker)}."
    )


def tail_values(speaker: Mapping) -> dict[str, float | str]:
    """Return what conclusions say of the precision, of one speaker and of the surest utterances, percent; 0 where unknown."""
    unknown = {"accuracy": 0.0, "expected": 0.0, "utterances": 0.0}
    best, surest = (speaker.get(key) or unknown for key in ("best_recognised_speaker", "surest_utterances"))
    bits = speaker.get("significant_bits")
    return {
        "precision": f", for embeddings rounded to {bits} significant bits" if bits else "",
        "recall": 100 * best["accuracy"],
        "recall_expected": 100 * best["expected"],
        "recalled": best["utterances"],
        "sure": 100 * surest["accuracy"],
        "sure_expected": 100 * surest["expected"],
    }


def frame_level_leak(speaker: Mapping) -> str:
    """Add a significant attacker on frame-level features, unless the embedding itself is known to identify speakers."""
    scores = [score for score in speaker["attackers"].values() if score["reads"] == "frames"]
    if not scores or speaker["reason"] == "leak" or (scores[0]["p_value"] or 1) >= 0.05:
        return ""
    return f"; but an attacker on the encoder's frame-level features reaches {100 * scores[0]['accuracy']:.1f} %"


def with_bounds(value: Mapping, chance_name: str = "", chance: float | None = None) -> str:
    """Format a share with its 95 % confidence interval and chance level, where known.

    >>> with_bounds({"value": 0.7, "low": 0.662, "high": 0.746}, "chance", 0.2)
    '70.0 % (95 % CI 66.2 to 74.6, chance 20.0)'
    >>> with_bounds({"value": 0.7, "low": None, "high": None})
    '70.0 %'
    """
    details = [] if value["low"] is None else [f"95 % CI {100 * value['low']:.1f} to {100 * value['high']:.1f}"]
    if chance is not None:
        details.append(f"{chance_name} {100 * chance:.1f}")
    return f"{100 * value['value']:.1f} %" + (f" ({', '.join(details)})" if details else "")
