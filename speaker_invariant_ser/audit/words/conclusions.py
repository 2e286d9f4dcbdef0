"""The conclusion of an audit in words, by its reason: as the verdict states it, and as a short answer."""

from collections.abc import Mapping

CONCLUSIONS = {  # by the reason that `equivalence_test`, a quick audit or an evaluation gives
    "within": (
        "Attackers are at chance within the margin of {margin:.2g} points: the one-sided 95 % upper bound is {upper:.1f} %. This "
        "is an average over speakers and utterances{precision}; no speaker stands out, nor do the utterances that an attacker is "
        "surest about"
    ),
    "leak": "The embedding identifies speakers: attackers are significantly above chance{size}",
    "below": (
        "The embedding identifies speakers: an attacker is significantly below chance, so its errors reveal who the speaker is"
    ),
    "uneven": (
        "Undecided: an attacker is significantly below chance. Either its errors reveal the speaker, or all speakers have the "
        "same emotions or sentences equally often, and the embedding shows these; an audit that knows both, and keeps sentences "
        "apart, would tell"
    ),
    "few": (
        "Undecided: no attacker is significantly above chance, allowing for their number, but {sample} are too few to show that "
        "attackers are within {margin:.2g} points of chance"
    ),
    "quick": (
        "Undecided: the closed-form attackers are at chance within the margin of {margin:.2g} points, but the other attackers "
        "were not run (--quick)"
    ),
    "no_room": (
        "Undecided: the emotion alone names almost every speaker, so that chance plus the margin of {margin:.2g} points leaves "
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
    "balanced": (
        "The embedding identifies speakers: attackers are at chance on average over utterances, where frequent speakers are the "
        "best guess, but one that takes all speakers as equally frequent is right for {balanced:.1f} % on average over speakers "
        "(expected by chance {balanced_expected:.1f})"
    ),
    "model": (
        "The embedding of one model identifies speakers: attackers are at chance on average over {models} models, but one is "
        "right for {of_model:.1f} % of the utterances of model number {model} (expected by chance {of_model_expected:.1f})"
    ),
    "tail": (
        "Undecided: attackers are at chance on average, but one speaker is recognised in {recall:.1f} % of utterances (expected "
        "by chance {recall_expected:.1f}), and the surest utterances are named correctly in {sure:.1f} % "
        "({sure_expected:.1f}){best_model}, of which one may be more than luck"
    ),
    "text_leak": (
        "The embedding identifies speakers, or what they say: each text is said by one speaker only, so that recognising the "
        "text cannot be distinguished from recognising the voice"
    ),
    "text": (
        "Undecided: accuracies differ from chance, but no more than the texts may explain, which some speakers say and others do "
        "not, so that this may be the text and not the voice"
    ),
    "same_text": (
        "The embedding identifies speakers who say a known sentence again: across sentences no attacker is significantly above "
        "chance, but one that knows the sentences is right for {same:.1f} %{same_of} (from emotion and sentence alone "
        "{same_expected:.1f})"
    ),
    "own_texts": (
        "Undecided: across sentences attackers are at chance, but one that knows the sentences is right for {same:.1f} %; "
        "sentences alone name the speaker in {same_expected:.1f} %, so that this may be the text and not the voice"
    ),
    "scored_alone": (
        "The embedding identifies speakers: attackers that also learn from what the encoder was trained on do not show it, but "
        "one that learns from the scored utterances alone is right for {alone:.1f} %{alone_of} (expected by chance "
        "{alone_expected:.1f})"
    ),
    "copies": (
        "Undecided: attackers are at chance, but {copies:.1f} % of the rows are equal or nearly equal to another row of the same "
        "speaker and were left out; unless they are copies of a recording, they name the speaker"
    ),
    "left_out": (
        "Undecided: attackers are at chance, but {left_out:.1f} % of the utterances were not attacked, as they are of speakers "
        "with a single utterance or recording; whether the embedding identifies these is not known"
    ),
    "starved": (
        "Undecided: attackers are at chance, but with so few training utterances they do not identify speakers before the "
        "erasure either"
    ),
}


ANSWERS = {  # by the same reason
    "within": "From one utterance, no speaker is identified better than by chance.",
    "leak": "The embedding identifies speakers.",
    "below": "The embedding identifies speakers: an attacker is wrong more often than by chance, which reveals them as well.",
    "uneven": "It is undecided whether the embedding identifies speakers: an attacker is wrong too often, for an unknown reason.",
    "few": "It is undecided whether the embedding identifies speakers: there are too few utterances.",
    "quick": "It is undecided whether the embedding identifies speakers: only closed-form attackers were run.",
    "no_room": "It is undecided whether the embedding identifies speakers: the emotion alone names almost every one.",
    "speaker": "The embedding identifies one speaker, though not the others on average.",
    "surest": "The embedding identifies speakers in some utterances, though not on average.",
    "balanced": "The embedding identifies speakers who have fewer utterances than others.",
    "model": "The embedding of one model identifies speakers, though not those of the others on average.",
    "tail": "It is undecided whether the embedding identifies one speaker, or speakers in some utterances or of one model.",
    "text_leak": "The embedding identifies speakers, or what they say: no two speakers say the same text.",
    "text": "It is undecided whether the embedding identifies speakers or what they say: they do not say the same texts.",
    "same_text": "The embedding identifies speakers who say a known sentence again.",
    "own_texts": "It is undecided whether the embedding identifies speakers or what they say, in sentences of their own.",
    "scored_alone": "The embedding identifies speakers in utterances that the encoder was not trained on.",
    "copies": "It is undecided whether the embedding identifies speakers: rows that are alike were left out.",
    "left_out": "It is undecided whether the embedding identifies speakers: many have a single utterance or recording.",
    "starved": "It is undecided whether the embedding identifies speakers: attackers have too few utterances to learn from.",
}
OF = {
    "speaker": " of one speaker's utterances",
    "surest": " of the utterances that it is surest about",
    "model": " of the utterances of one model",
}


def tail_values(speaker: Mapping) -> dict[str, float | str]:
    """Return the values that conclusions state beside the accuracy, in percent; 0 where unknown."""
    unknown: dict = {"accuracy": 0.0, "expected": 0.0, "utterances": 0.0}
    best, surest, balanced = (speaker.get(key) or unknown for key in ("best_recognised_speaker", "surest_utterances", "balanced"))
    same, alone = (speaker.get(key) or unknown for key in ("same_text", "scored_alone"))
    bits, model = speaker.get("significant_bits"), speaker.get("best_recognised_model") or {**unknown, "model": ""}
    of_model, expected = 100 * model["accuracy"], 100 * model["expected"]
    return {
        "models": speaker.get("encoders", 1),
        "model": model["model"],
        "of_model": of_model,
        "of_model_expected": expected,
        "best_model": f", those of model number {model['model']} in {of_model:.1f} % ({expected:.1f})" if model["model"] else "",
        "precision": f", for embeddings rounded to {bits} significant bits" if bits else "",
        "recall": 100 * best["accuracy"],
        "recall_expected": 100 * best["expected"],
        "recalled": best["utterances"],
        "sure": 100 * surest["accuracy"],
        "sure_expected": 100 * surest["expected"],
        "same": 100 * same["accuracy"],
        "same_expected": 100 * same["expected"],
        "same_of": OF.get(str(same.get("of")), ""),
        "alone": 100 * alone["accuracy"],
        "alone_expected": 100 * alone["expected"],
        "alone_of": OF.get(str(alone.get("of")), ""),
        "balanced": 100 * balanced["accuracy"],
        "balanced_expected": 100 * balanced["expected"],
        "copies": 100 * (speaker.get("copies") or 0.0),
        "left_out": 100 * (speaker.get("left_out_share") or 0.0),
    }
