"""The verdict of a report in words: emotion recognition on unseen speakers, and what the attackers conclude about the speaker."""

from collections.abc import Mapping

from speaker_invariant_ser.audit.certificates.words import certificate_verdict
from speaker_invariant_ser.audit.words.conclusions import ANSWERS, CONCLUSIONS, tail_values
from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.metrics import MIN_CLUSTERS

ALPHA = 0.05
CHANCE_EER = 0.5  # equal error rate of a verification that knows nothing
FAR_ABOVE = 2.0  # times chance, from which emotions that name the speaker are stated, or from what is no small leak
MIN_VERIFIED = 8  # speakers, below which the interval of an equal error rate is too narrow to state that it is below chance
SIZES = ((0.15, "small"), (0.4, "moderate"), (1.0, "large"))  # share of the way from chance to 100 %, at most


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
    value = with_bounds(uar, "chance", emotion["chance"], too_few(count, "speaker"))
    return f"Emotion UAR on {speakers}: {value}.{known_verdict(emotion)}{source_verdict(domains)}"


def known_verdict(emotion: Mapping) -> str:
    """Say that test speakers may be people whom the model learned from under other names; nothing where no copies say so."""
    if not (known := emotion.get("known_by_copies")):
        return ""
    return (
        f" But {counted(known, 'of them has a copy', 'of them have copies')} of recordings of other speakers that were learned "
        "from, and may be known under these names."
    )


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
        Two sentences, and one on the certificate where there is one.
    """
    strongest, margin = speaker["strongest"], 100 * speaker["margin"]
    name = strongest["name"] if len(strongest["chosen"]) == 1 else f"mostly {strongest['name']}"
    decisions = "" if speaker["utterances"] == speaker["decisions"] else f" ({speaker['decisions']} decisions)"
    chance = "chance given the emotion" if speaker["emotions"] > 1 else "chance"
    texts = too_few(speaker["clusters"], "text" if speaker["grouped_by_text"] else "utterance")
    accuracy = with_bounds({**strongest, "value": strongest["accuracy"]}, chance, speaker["chance"]["given_emotion"], texts)
    upper = 100 * (strongest["upper"] or 0.0)
    sample = f"{speaker['utterances']} utterances" + (f" of {speaker['clusters']} texts" if speaker["grouped_by_text"] else "")
    size = size_of_leak(strongest["accuracy"], speaker["chance"]["given_emotion"])
    values = {"size": size and f", {size}", **tail_values(speaker)}
    conclusion = CONCLUSIONS[speaker["reason"]].format(margin=margin, upper=upper, sample=sample, **values)
    conclusion += frame_level_leak(speaker) + "." + stronger_alone(speaker)
    conclusion += "".join(limits_of_chance(speaker).values()) + useless_judge(speaker)
    certificate = certificate_verdict(speaker.get("certificate"))
    return (
        f"Speaker accuracy of the strongest fresh attacker ({name}) on {speaker['utterances']} utterances{decisions} of "
        f"{speaker['speakers']} speakers: {accuracy}. {conclusion}{certificate}"
    )


def stronger_alone(speaker: Mapping) -> str:
    """Say that attackers who learn from scored utterances alone recognise more than the strongest one, if they do."""
    alone = speaker.get("scored_alone")
    if not alone or speaker["reason"] != "leak" or alone.get("of", "all") != "all" or not alone["p_value"] < ALPHA:
        return ""
    if alone["accuracy"] <= speaker["strongest"]["accuracy"]:
        return ""
    return (
        f" An attacker that learns from the scored utterances alone, and not from what the encoder was trained on, recognises "
        f"{100 * alone['accuracy']:.1f} %."
    )


def limits_of_chance(speaker: Mapping) -> dict[str, str]:
    """Return what else is known of an embedding that is at chance, as a sentence, by what reveals the speaker."""
    if speaker["reason"] not in ("within", "quick", "tail", "few"):
        return {}
    texts, chance = {}, speaker["chance"]
    given, otherwise = chance["given_emotion"], max(chance.get("uniform", 1.0), chance.get("majority", 1.0))
    if given > min(FAR_ABOVE * otherwise, otherwise + SIZES[0][0] * (1 - otherwise)):
        texts["the emotion"] = (
            f" The emotions alone name the speaker of {100 * given:.1f} % of the utterances, where chance is "
            f"{100 * otherwise:.1f} % otherwise."
        )
    predicted = speaker.get("predicted_emotion")
    if predicted and (predicted["low"] or 0.0) > predicted["chance"]:
        accuracy = with_bounds({**predicted, "value": predicted["accuracy"]}, "chance", predicted["chance"])
        texts["the predicted emotion"] = (
            f" But the predicted emotion alone names the right one of {counted(predicted['speakers'], 'test speaker')} in "
            f"{accuracy}: emotions of some are recognised worse than those of others."
        )
    for clips in reversed(speaker.get("clips") or ()):
        identified = clips.get("identification")
        if clips["clips"] > 1 and identified and (identified["low"] or 0.0) > identified["chance"]:
            accuracy = with_bounds({**identified, "value": identified["accuracy"]}, "chance", identified["chance"])
            names = f" But from {clips['clips']} utterances of one person, an attacker names the speaker in {accuracy}."
            texts.setdefault("several utterances of one person", names)
    of_speakers = ((speaker.get("unseen") or {}).get("verification") or {}).get("per_speaker") or {}
    enough = of_speakers.get("speakers", MIN_VERIFIED) >= MIN_VERIFIED
    for clips in reversed(speaker.get("clips") or ()):
        rate = clips.get("verification")
        if enough and rate and (rate["high"] or 1.0) < CHANCE_EER:
            error = with_bounds({**rate, "value": rate["eer"]}, "chance", CHANCE_EER)
            given = counted(clips["clips"], "utterance")
            texts.setdefault("verification", f" But from {given}, speakers are verified with an equal error rate of {error}.")
    return texts


def revealed_otherwise(speaker: Mapping) -> str:
    """Say in few words by what speakers are revealed though the embedding of one utterance is at chance; "" if by nothing."""
    limits = limits_of_chance(speaker)
    return f"speakers are revealed by {' and '.join(limits)}" if limits else ""


def useless_judge(speaker: Mapping) -> str:
    """Say that a judge does not identify speakers either; "" of one that does, and without one."""
    judge = (speaker.get("controls") or {}).get("judge")
    if not judge or (judge["low"] or 0.0) > speaker["chance"]["given_emotion"]:
        return ""
    return " The judge does not identify these speakers, so that it is no ceiling, and linkage to it shows nothing."


def size_of_leak(accuracy: float, chance: float) -> str:
    """Say in words how large a leak is; "" for an accuracy that is not above chance.

    >>> size_of_leak(0.196, 0.15)
    'a small leak, 5 % of the way from chance to 100 %'
    >>> size_of_leak(1.000001, 0.5), size_of_leak(1.000001, 1.0)
    ('a large leak, 100 % of the way from chance to 100 %', '')
    """
    if not chance < min(accuracy, 1.0):
        return ""
    share = (min(accuracy, 1.0) - chance) / (1 - chance)  # a mean of shares may exceed 1 by rounding
    size = next(word for limit, word in SIZES if share <= limit)
    return f"a {size} leak, {100 * share:.0f} % of the way from chance to 100 %"


def in_words(accuracy: float, chance: float) -> tuple[str, str]:
    """Return two shares as counts of few utterances that differ where the shares do.

    >>> in_words(0.196, 0.15), in_words(0.708, 0.214), in_words(0.32, 0.3)
    (('1 of 5', '1 of 7'), ('7 of 10', '1 of 5'), ('32 of 100', '30 of 100'))
    >>> in_words(0.5, 0.5)
    ('5 of 10', '5 of 10')
    """
    rounded = few(accuracy), few(chance)
    for texts in (rounded, (of(accuracy, 100), of(chance, 100)), (of(accuracy, 1000), of(chance, 1000))):
        if texts[0] != texts[1]:
            return texts
    return rounded


def few(share: float) -> str:
    """Return a share as 1 of N where it is low, and as a count of 10, or of 100 near 1, otherwise."""
    if not share or share >= 0.95:
        return of(share, 100)
    return f"1 of {1 / share:.0f}" if share < 0.28 else of(share, 10)


def of(share: float, number: int) -> str:
    """Return a share as a count of a round number."""
    return f"{share * number:.0f} of {number}"


def speaker_answer(speaker: Mapping) -> str:
    """Answer in words whether the embedding identifies speakers, and how well.

    Args:
        speaker: Part `speaker` of report.json.

    Returns:
        One or two sentences without decimals.
    """
    accuracy, chance = speaker["strongest"]["accuracy"], speaker["chance"]["given_emotion"]
    right, by_chance = in_words(accuracy, chance)
    size = size_of_leak(accuracy, chance)
    numbers = (
        f"The strongest attacker gives the right one of {speaker['speakers']} speakers for about {right} utterances, where "
        f"chance is {by_chance}"
    )
    if speaker["reason"] == "leak" and size:
        numbers += f": {size}"
    others = revealed_otherwise(speaker)
    answer = ANSWERS.get(speaker["reason"], "") + (f" But {others}." if others else "")  # a later version may have another reason
    return f"{answer} {numbers}.".lstrip()


def emotion_answer(uar: float, chance: float, speakers: int, low: float | None = None) -> str:
    """Say in words how well the emotion of unseen speakers is recognised, and what UAR means.

    Args:
        uar: Unweighted average recall, 0 to 1.
        chance: Chance level, one by the number of emotions.
        speakers: Number of test speakers.
        low: Lower end of the confidence interval of `uar`, where there is one.

    Returns:
        One sentence.
    """
    right, by_chance = in_words(uar, chance)
    level = "" if uar > chance else ", so that it is not recognised better than by chance"
    if low is not None and low <= chance < uar:
        level = "; these speakers do not show a difference from chance"
    return (
        f"The emotion of {counted(speakers, 'unseen speaker')} is recognised for about {right} utterances of "
        f"each emotion, on average over the {1 / chance:.0f} emotions (UAR, unweighted average recall), where chance is "
        f"{by_chance}{level}."
    )


def unaudited_verdict(reason: object) -> str:
    """State that there is no audit, and why."""
    return f"Speaker information was not measured: {reason}."


def frame_level_leak(speaker: Mapping) -> str:
    """Add a significant attacker on frame-level features, unless the embedding itself is known to identify speakers."""
    scores = [score for score in speaker["attackers"].values() if score["reads"] == "frames"]
    if not scores or speaker["reason"] == "leak" or (scores[0]["p_value"] or 1) >= 0.05:
        return ""
    return f"; but an attacker on the encoder's frame-level features reaches {100 * scores[0]['accuracy']:.1f} %"


def too_few(number: int, noun: str) -> str:
    """Return a number of speakers or texts in words if it is too low for a confidence interval over them, otherwise ""."""
    return counted(number, noun) if number < MIN_CLUSTERS else ""


def with_bounds(value: Mapping, chance_name: str = "", chance: float | None = None, few: str = "") -> str:
    """Format a share with its 95 % confidence interval, or what it has too few of, and chance level, where known.

    >>> with_bounds({"value": 0.7, "low": 0.662, "high": 0.746}, "chance", 0.2)
    '70.0 % (95 % CI 66.2 to 74.6, chance 20.0)'
    >>> with_bounds({"value": 0.7, "low": None, "high": None}, few="2 texts")
    '70.0 % (no confidence interval over 2 texts)'
    """
    none = [f"no confidence interval over {few}"] if few else []
    details = none if value["low"] is None else [f"95 % CI {100 * value['low']:.1f} to {100 * value['high']:.1f}"]
    if chance is not None:
        details.append(f"{chance_name} {100 * chance:.1f}")
    return f"{100 * value['value']:.1f} %" + (f" ({', '.join(details)})" if details else "")
