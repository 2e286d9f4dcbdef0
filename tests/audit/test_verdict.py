"""The verdict states numbers, chance levels and the conclusion in fixed sentences."""

from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest

from speaker_invariant_ser.audit.statistics import Reason
from speaker_invariant_ser.audit.words.conclusions import ANSWERS, CONCLUSIONS
from speaker_invariant_ser.audit.words.verdict import (
    emotion_answer,
    emotion_verdict,
    in_words,
    size_of_leak,
    speaker_answer,
    speaker_verdict,
    verdict,
)

UAR = {"value": 0.7, "low": 0.662, "high": 0.746}


def emotion(speakers: int = 4, **changes: Any) -> dict:
    """The keys of `emotion` in report.json that the verdict uses."""
    per_speaker = {f"s{number}": {} for number in range(speakers)}
    return {"uar": UAR, "chance": 0.2, "per_speaker": per_speaker, "domains": None, **changes}


def speaker(reason: str = "leak", **changes: Any) -> dict:
    """The keys of `speaker` in report.json that the verdict uses."""
    strongest = {"name": "svm", "chosen": {"svm": 1.0}, "accuracy": 0.708, "low": 0.66, "high": 0.75, "upper": 0.744}
    return {
        "strongest": strongest,
        "chance": {"given_emotion": 0.214},
        "speakers": 7,
        "emotions": 5,
        "utterances": 370,
        "decisions": 370,
        "clusters": 10,
        "grouped_by_text": True,
        "margin": 0.03,
        "reason": reason,
        "significant_bits": 11,
        "copies": 0.07,
        "left_out_share": 0.75,
        "encoders": 3,
        "best_recognised_speaker": {"accuracy": 0.9, "expected": 0.1, "utterances": 50.0},
        "best_recognised_model": {"accuracy": 0.41, "expected": 0.1, "utterances": 50.0, "model": "2"},
        "attackers": {"svm": {"reads": "embedding", "accuracy": 0.708, "p_value": 0.001}},
        **changes,
    }


def test_emotion():
    assert emotion_verdict(emotion()) == "Emotion UAR on 4 unseen speakers: 70.0 % (95 % CI 66.2 to 74.6, chance 20.0)."


def test_emotion_of_speakers_who_may_be_known_under_other_names():
    known = (
        "But 2 of them have copies of recordings of other speakers that were learned from, and may be known under these names."
    )
    assert emotion_verdict(emotion(known_by_copies=2)).endswith(f"chance 20.0). {known}")


def test_emotion_without_an_interval_on_one_speaker():
    text = emotion_verdict(emotion(1, uar={"value": 0.7, "low": None, "high": None}))
    assert text == "Emotion UAR on 1 unseen speaker: 70.0 % (no confidence interval over 1 speaker, chance 20.0)."
    of_two = emotion_verdict(emotion(2, uar={"value": 0.7, "low": None, "high": None}))
    assert of_two == "Emotion UAR on 2 unseen speakers: 70.0 % (no confidence interval over 2 speakers, chance 20.0)."


def test_emotion_of_a_transductive_run():
    assert emotion_verdict(emotion(), transductive=True) == (
        "Emotion UAR on 4 unseen speakers, normalised by the mean over all utterances of each test speaker (transductive): "
        "70.0 % (95 % CI 66.2 to 74.6, chance 20.0)."
    )


@pytest.mark.parametrize(
    "in_training, of_target", [(True, "unlabelled utterances of b"), (False, "no utterances of b")], ids=["adapted", "zero-shot"]
)
def test_emotion_on_a_target_domain(in_training, of_target):
    domains = {
        "headline": "target",
        "target_in_training": in_training,
        "source": {"values": ["a"], "tested": {"uar": {"value": 0.8, "low": None, "high": None}}},
        "target": {"values": ["b"]},
    }
    assert emotion_verdict(emotion(domains=domains)) == (
        "Emotion UAR on 4 unseen speakers of b: 70.0 % (95 % CI 66.2 to 74.6, chance 20.0). "
        f"Trained on labelled utterances of a (UAR on its unseen speakers: 80.0 %) and on {of_target}."
    )


NUMBERS = (
    "Speaker accuracy of the strongest fresh attacker (svm) on 370 utterances of 7 speakers: 70.8 % "
    "(95 % CI 66.0 to 75.0, chance given the emotion 21.4). "
)


@pytest.mark.parametrize(
    "reason, conclusion",
    [
        (
            "within",
            "Attackers are at chance within the margin of 3 points: the one-sided 95 % upper bound is 74.4 %. This is an ",
        ),
        (
            "no_room",
            "Undecided: the emotion alone names almost every speaker, so that chance plus the margin of 3 points leaves ",
        ),
        (
            "speaker",
            "The embedding identifies a speaker: attackers are at chance on average, but recognise one speaker in 90.0 %",
        ),
        ("surest", "The embedding identifies speakers in some utterances: attackers are at chance on average, but of the utter"),
        (
            "model",
            "The embedding of one model identifies speakers: attackers are at chance on average over 3 models, but one is "
            "right for 41.0 % of the utterances of model number 2 (expected by chance 10.0).",
        ),
        ("tail", "Undecided: attackers are at chance on average, but one speaker is recognised in 90.0 % of utterances (expect"),
        ("text_leak", "The embedding identifies speakers, or what they say: each text is said by one speaker only, so that "),
        (
            "text",
            "Undecided: accuracies differ from chance, but no more than the texts may explain, which some speakers say ",
        ),
        (
            "leak",
            "The embedding identifies speakers: attackers are significantly above chance, a large leak, 63 % of the way from "
            "chance to 100 %.",
        ),
        ("below", "The embedding identifies speakers: an attacker is significantly below chance, so its errors reveal who the "),
        (
            "uneven",
            "Undecided: an attacker is significantly below chance. Either its errors reveal the speaker, or all speakers have ",
        ),
        (
            "few",
            "Undecided: no attacker is significantly above chance, allowing for their number, but 370 utterances of ",
        ),
        ("quick", "Undecided: the closed-form attackers are at chance within the margin of 3 points, but the other attackers "),
        ("same_text", "The embedding identifies speakers who say a known sentence again: across sentences no attacker is signif"),
        (
            "scored_alone",
            "The embedding identifies speakers: attackers that also learn from what the encoder was trained on do n",
        ),
        (
            "balanced",
            "The embedding identifies speakers: attackers are at chance on average over utterances, where frequent spea",
        ),
        ("copies", "Undecided: attackers are at chance, but 7.0 % of the rows are equal or nearly equal to another row of the"),
        ("left_out", "Undecided: attackers are at chance, but 75.0 % of the utterances were not attacked, as they are of spe"),
        ("starved", "Undecided: attackers are at chance, but with so few training utterances they do not identify speakers "),
    ],
)
def test_speaker(reason, conclusion):
    text = speaker_verdict(speaker(reason))
    assert text.startswith(NUMBERS + conclusion) and text.endswith(".") and "{" not in text


@pytest.mark.parametrize("reason", ["same_text", "scored_alone"])
def test_a_leak_of_the_surest_utterances_is_said_to_be_one(reason):
    found = {"attacker": "knn", "accuracy": 0.9, "expected": 0.2, "p_value": 0.001, "of": "surest"}
    assert "is right for 90.0 % of the utterances that it is surest about (" in speaker_verdict(
        speaker(reason, **{reason: found})
    )


@pytest.mark.parametrize("accuracy, said", [(0.75, True), (0.7, False)])
def test_a_leak_that_is_larger_to_attackers_who_learn_from_scored_utterances_alone_is_stated(accuracy, said):
    alone = {"attacker": "lda", "accuracy": accuracy, "expected": 0.2, "p_value": 0.004, "of": "all"}
    text = speaker_verdict(speaker("leak", scored_alone=alone))
    assert ("from what the encoder was trained on, recognises 75.0 %." in text) == said


def test_two_texts_give_no_interval():
    strongest = {**speaker()["strongest"], "low": None, "high": None}
    assert "70.8 % (no confidence interval over 2 texts, chance" in speaker_verdict(speaker(strongest=strongest, clusters=2))


def test_every_reason_has_a_conclusion():
    assert set(CONCLUSIONS) == set(ANSWERS) == {*get_args(Reason), "quick", "starved"}


@pytest.mark.parametrize(
    "accuracy, chance, size",
    [(0.196, 0.15, "a small leak, 5 %"), (0.4, 0.15, "a moderate leak, 29 %"), (0.98, 0.1, "a large leak, 98 %")],
)
def test_the_size_of_a_leak_is_said_in_words(accuracy, chance, size):
    assert size_of_leak(accuracy, chance) == f"{size} of the way from chance to 100 %"
    assert size_of_leak(chance, accuracy) == size_of_leak(chance, chance) == ""


def test_shares_in_words_differ_where_the_shares_do():
    for accuracy in np.linspace(0, 1, 41):
        for chance in (0.05, 0.1, 0.214, 1 / 3, 0.5):
            words = in_words(accuracy, chance)
            right, by_chance = (Fraction(int(text.split(" of ")[0]), int(text.split(" of ")[1])) for text in words)
            assert abs(right - accuracy) <= 0.06 and abs(by_chance - chance) <= 0.06
            assert (right > by_chance) == (accuracy > chance) or abs(accuracy - chance) < 0.006, words


@pytest.mark.parametrize("reason", ANSWERS)
def test_the_answer_comes_in_words_without_decimals(reason):
    text = speaker_answer(speaker(reason))
    assert text.startswith(ANSWERS[reason])
    assert "right one of 7 speakers for about 7 of 10 utterances, where chance is 1 of 5" in text and ".8" not in text
    assert ("a large leak" in text) == (reason == "leak")


def test_the_answer_on_emotion_explains_uar():
    text = emotion_answer(0.735, 1 / 7, 10)
    assert text == (
        "The emotion of 10 unseen speakers is recognised for about 7 of 10 utterances of each emotion, on average over the 7 "
        "emotions (UAR, unweighted average recall), where chance is 1 of 7."
    )
    assert "not recognised better than by chance" in emotion_answer(0.14, 1 / 7, 1) and "1 unseen speaker is" in emotion_answer(
        0.14, 1 / 7, 1
    )
    unsure = emotion_answer(0.228, 0.2, 12, low=0.195)
    assert "about 1 of 4 utterances" in unsure and unsure.endswith("; these speakers do not show a difference from chance.")
    assert "difference" not in emotion_answer(0.228, 0.2, 12, low=0.21) + emotion_answer(0.19, 0.2, 12, low=0.17)


def test_speaker_with_several_encoders_attackers_and_one_emotion():
    strongest = {**speaker()["strongest"], "chosen": {"svm": 0.7, "mlp": 0.3}, "low": None, "high": None}
    assert speaker_verdict(speaker(strongest=strongest, decisions=1110, emotions=1)).startswith(
        "Speaker accuracy of the strongest fresh attacker (mostly svm) on 370 utterances (1110 decisions) of 7 speakers: 70.8 % "
        "(chance 21.4). "
    )


@pytest.mark.parametrize("reason, p_value, mentioned", [("few", 0.01, True), ("few", 0.2, False), ("leak", 0.01, False)])
def test_a_leak_of_frame_level_features_is_mentioned_where_the_embedding_has_none(reason, p_value, mentioned):
    attackers = {"frames": {"reads": "frames", "accuracy": 0.45, "p_value": p_value}}
    text = speaker_verdict(speaker(reason, attackers=attackers))
    assert ("; but an attacker on the encoder's frame-level features reaches 45.0 %." in text) is mentioned


def test_a_table_without_emotion_has_a_verdict_on_the_speaker_only():
    assert verdict({"emotion": None, "speaker": speaker()}) == [speaker_verdict(speaker())]
    assert verdict({"emotion": emotion(), "speaker": speaker()}) == [emotion_verdict(emotion()), speaker_verdict(speaker())]


CLIPS = {"accuracy": 0.31, "low": 0.25, "high": 0.37, "chance": 0.2, "groups": 40, "speakers": 7}


@pytest.mark.parametrize(
    "reason, changes, sentence",
    [
        ("within", {"clips": [{"clips": 10, "identification": CLIPS}]}, "in 31.0 % (95 % CI 25.0 to 37.0, chance 20.0)."),
        ("within", {"clips": [{"clips": 10, "identification": {**CLIPS, "low": 0.19}}]}, None),
        (
            "few",
            {"clips": [{"clips": 5, "identification": CLIPS}, {"clips": 10, "identification": {**CLIPS, "low": None}}]},
            " But from 5 utterances of one person, an attacker names the speaker in 31.0 % (95 % CI 25.0 to 37.0, chance 20.0).",
        ),
        ("leak", {"clips": [{"clips": 10, "identification": CLIPS}]}, None),
        (
            "within",
            {"clips": [{"clips": 5, "verification": {"eer": 0.31, "low": 0.24, "high": 0.38}}]},
            " But from 5 utterances, speakers are verified with an equal error rate of 31.0 % "
            "(95 % CI 24.0 to 38.0, chance 50.0).",
        ),
        ("within", {"clips": [{"clips": 5, "verification": {"eer": 0.46, "low": 0.4, "high": 0.51}}]}, None),
        (
            "within",
            {
                "clips": [{"clips": 5, "verification": {"eer": 0.31, "low": 0.24, "high": 0.38}}],
                "unseen": {"verification": {"per_speaker": {"speakers": 4}}},
            },
            None,
        ),
        (
            "leak",
            {"controls": {"judge": {"accuracy": 0.3, "low": 0.2, "high": 0.4}}},
            " The judge does not identify these speakers, so that it is no ceiling, and linkage to it shows nothing.",
        ),
        ("leak", {"controls": {"judge": {"accuracy": 0.9, "low": 0.8, "high": 0.95}}}, None),
        (
            "within",
            {"chance": {"given_emotion": 0.9, "uniform": 0.1, "majority": 0.2}},
            " The emotions alone name the speaker of 90.0 % of the utterances, where chance is 20.0 % otherwise.",
        ),
        ("within", {"chance": {"given_emotion": 0.2, "uniform": 0.1, "majority": 0.15}}, None),
        (
            "within",
            {"chance": {"given_emotion": 0.96, "uniform": 0.5, "majority": 0.5}},
            " The emotions alone name the speaker of 96.0 % of the utterances, where chance is 50.0 % otherwise.",
        ),
        (
            "within",
            {"predicted_emotion": {"accuracy": 0.3, "low": 0.27, "high": 0.32, "chance": 0.12, "speakers": 9}},
            " But the predicted emotion alone names the right one of 9 test speakers in 30.0 % (95 % CI 27.0 to 32.0, chance "
            "12.0): emotions of some are recognised worse than those of others.",
        ),
        (
            "tail",
            {"predicted_emotion": {"accuracy": 0.3, "low": 0.27, "high": 0.32, "chance": 0.12, "speakers": 9}},
            " But the predicted emotion alone names the right one of 9 test speakers in 30.0 % (95 % CI 27.0 to 32.0, chance "
            "12.0): emotions of some are recognised worse than those of others.",
        ),
        ("within", {"predicted_emotion": {"accuracy": 0.13, "low": 0.11, "high": 0.15, "chance": 0.12, "speakers": 9}}, None),
    ],
    ids=[
        "several utterances",
        "luck",
        "few of ten utterances",
        "a leak",
        "verified",
        "not verified",
        "verified, four speakers",
        "useless judge",
        "judge",
        "emotions of speakers",
        "ordinary emotions",
        "emotions of two speakers",
        "predictions",
        "predictions, undecided",
        "predictions that do not",
    ],
)
def test_what_an_embedding_at_chance_reveals_otherwise_is_stated(reason, changes, sentence):
    text = speaker_verdict(speaker(reason, **changes))
    others = ("The emotions alone", " utterances of one person", "equal error rate", "The judge", "predicted emotion")
    assert text.endswith(sentence) if sentence else not any(part in text for part in others)
    assert ("But speakers are revealed by" in speaker_answer(speaker(reason, **changes))) == bool(sentence and reason != "leak")
