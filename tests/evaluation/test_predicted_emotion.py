"""Attacks on the predicted emotions of test speakers, for invented predictions."""

import numpy as np
import pytest

from speaker_invariant_ser.audit.audit import AuditSettings
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.evaluation.predicted_emotion import attack_predictions
from speaker_invariant_ser.evaluation.predictions import Predictions

LABELS = ("angry", "happy", "sad")


def attacked(wrong, speakers=4, clips=90, seeds=(0,)):
    """Attack predictions that are right but for `wrong`: speaker -> the emotion that is always predicted."""
    number, per_seed = speakers * clips, np.arange(speakers * clips)
    names, truth = np.array([f"s{index % speakers}" for index in per_seed]), per_seed // speakers % 3
    predicted = np.array([wrong.get(name, emotion) for name, emotion in zip(names, truth, strict=True)])
    ids = [f"u{index}" for index in per_seed]
    utterances = [
        Utterance(id=name, corpus="c", speaker=speaker, emotion=LABELS[emotion], text=f"t{index // 12 % 10}")
        for index, (name, speaker, emotion) in enumerate(zip(ids, names, truth, strict=True))
    ]
    predictions = Predictions(
        LABELS,
        id=np.array(ids * len(seeds)),
        speaker=np.tile(names, len(seeds)),
        fold=np.tile(names, len(seeds)),
        seed=np.repeat(seeds, number),
        truth=np.tile(truth, len(seeds)),
        probability=np.tile(0.1 + 0.7 * np.eye(3)[predicted], (len(seeds), 1)),
    )
    return attack_predictions(predictions, utterances, AuditSettings())


def test_predictions_that_are_right_say_nothing_about_the_speaker():
    result = attacked({}, seeds=(0, 1))
    assert result.accuracy <= result.chance + 0.03 and result.chance == pytest.approx(0.25, abs=0.03)
    assert (result.speakers, result.utterances, result.decisions, result.attacker) == (4, 360, 720, "logistic")


@pytest.mark.parametrize(
    "wrong, speakers, expected",
    [({"s0": 0, "s1": 2}, 2, 1.0), ({"s0": 0}, 2, 5 / 6), ({"s0": 0}, 4, None)],
    ids=["an emotion of their own", "one of two", "one of four"],
)
def test_speakers_whose_emotions_are_not_recognised_are_named(wrong, speakers, expected):
    """With one of two speakers always predicted as angry, the other one is named by two emotions of three, and by a third of
    the predictions of angry: the attacker is right for the first one and two thirds of the other one."""
    result = attacked(wrong, speakers)
    assert result.low > result.chance
    assert expected is None or result.accuracy == pytest.approx(expected, abs=0.02)


def test_one_test_speaker_is_not_attacked():
    assert attacked({}, speakers=1) is None
