"""What gives emotion away without listening is found where it is, and not where it is not."""

import re

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.shortcuts import MOST, NEIGHBOURS, examine, guess_from, neighbours

EMOTIONS = ("angry", "happy", "sad")


def corpus(count=600, speakers=12, text=lambda n: f"t{n % 7}", emotion=lambda n: EMOTIONS[n // 12 % 3]):
    return [Utterance(str(n), "c", f"s{n % speakers}", emotion(n), text(n), source=f"{n}.wav") for n in range(count)]


def examined(utterances, rng, **numbers):
    plain = {name: rng.normal(size=len(utterances)) for name in ("seconds", "zeros", "levels")}
    return examine(utterances, **{**plain, **numbers})


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_gives_it_away_nothing_is_said(seed):
    rng = np.random.default_rng(seed)
    utterances = corpus(emotion=lambda n: EMOTIONS[rng.integers(3)], text=lambda n: f"only-{n}")
    found = examined(utterances, rng)
    assert found["warnings"] == []
    for name in ("length", "padding", "level"):
        assert found[name]["chance"] == pytest.approx(1 / 3) and abs(found[name]["uar"] - 1 / 3) < 0.08


@pytest.mark.parametrize(
    "number, name, words",
    [
        ("seconds", "length", "the length of a clip alone tells the emotion of unseen speakers"),
        ("zeros", "padding", "digital silence .* --trim-db"),
        ("levels", "level", "the level of a clip .* --loudness"),
    ],
)
def test_a_number_that_gives_it_away_is_named(number, name, words):
    rng = np.random.default_rng(0)
    utterances = corpus(text=lambda n: "")
    values = np.array([EMOTIONS.index(one.emotion) for one in utterances]) + 0.4 * rng.normal(size=len(utterances))
    found = examined(utterances, rng, **{number: values})
    assert found[name]["uar"] > 0.75 and found[name]["low"] > 0.6
    (told,) = found["warnings"]
    assert re.search(words, told)


def test_speakers_and_texts_of_one_emotion_are_named():
    rng = np.random.default_rng(0)
    told = examined(corpus(emotion=lambda n: EMOTIONS[n % 12 % 3], text=lambda n: f"t{n % 12}"), rng)["warnings"]
    assert "100% of the speakers have nearly all their clips in one emotion: who tells the speaker tells the emotion" in told
    assert any(line.startswith("100% of the texts") for line in told)


def test_texts_that_others_say_too_are_told_with_what_helps():
    found = examined(corpus(), np.random.default_rng(0))
    assert found["shared_texts"] == {"share": 1.0} and any("split.text_folds" in line for line in found["warnings"])
    assert examined(corpus(text=lambda n: ""), np.random.default_rng(0))["shared_texts"] is None


@pytest.mark.parametrize("seed", range(5))
def test_the_neighbours_are_scikit_learns(seed):
    """With as many of each class, weighing by class changes nothing and both must vote alike, ties apart."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(3), 100))
    values, asked = rng.normal(labels, 1.0), rng.normal(size=200)
    reference = KNeighborsClassifier(NEIGHBOURS).fit(values[:, None], labels)
    votes = np.sort(reference.predict_proba(asked[:, None]), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    ours = neighbours(values, labels, asked, 3)
    assert np.array_equal(ours[clear], reference.predict(asked[:, None])[clear]) and clear.sum() > 100


@pytest.mark.parametrize("order", [lambda one: one.emotion, lambda one: one.id, lambda one: one.speaker])
def test_the_order_of_the_manifest_makes_no_difference(order):
    """Two values only, as padding has them: every neighbour is a tie."""
    rng = np.random.default_rng(0)
    utterances = sorted(corpus(emotion=lambda n: EMOTIONS[n // 12 % 2]), key=order)
    share = {"angry": 0.8, "happy": 0.2}
    values = np.array([float(rng.random() < share[one.emotion]) for one in utterances])
    assert guess_from(values, utterances)["uar"] == pytest.approx(0.8, abs=0.06)


def test_a_speaker_never_votes_for_itself():
    """Every speaker has a length of its own for each emotion: useless for others, perfect for itself."""
    rng = np.random.default_rng(0)
    utterances = corpus(emotion=lambda n: EMOTIONS[n // 12 % 3])
    speakers = np.array([int(one.speaker[1:]) for one in utterances])
    order = np.array([rng.permutation(3) for _ in range(12)])
    values = 10.0 * speakers + order[speakers, [EMOTIONS.index(one.emotion) for one in utterances]]
    assert guess_from(values, utterances)["uar"] < 0.6


def test_classes_may_be_unbalanced():
    rng = np.random.default_rng(0)
    utterances = corpus(1200, emotion=lambda n: EMOTIONS[0 if n % 10 else 1 + n // 10 % 2])
    guess = guess_from(rng.normal(size=1200), utterances)
    assert abs(guess["uar"] - 1 / 3) < 0.12, "an unbalanced corpus must not look as if it told something"
    clear = np.array([EMOTIONS.index(one.emotion) for one in utterances]) + rng.normal(size=1200)
    assert guess_from(clear, utterances)["uar"] > 0.5, "rare classes are found although nine in ten neighbours are of another"


def test_spellings_and_corpora_that_tell_the_emotion_are_named():
    rng = np.random.default_rng(0)
    told = examined(corpus(emotion=lambda n: ("Angry", "angry", "sad")[n // 12 % 3], text=lambda n: ""), rng)["warnings"]
    assert told == ["Angry and angry count as different emotions; labels.map in the recipe can make them one"]
    two = [*corpus(24, text=lambda n: ""), Utterance("x", "d", "z", "bored", source="x")]
    told = examined(two, rng)["warnings"]
    assert any(line.startswith("not every corpus has angry (c), bored (d), happy (c)") for line in told)


def test_nobody_is_told_to_do_what_was_done():
    rng = np.random.default_rng(0)
    utterances = corpus(text=lambda n: "")
    levels = np.array([EMOTIONS.index(one.emotion) for one in utterances]) + 0.4 * rng.normal(size=600)
    (told,) = examined(utterances, rng, levels=levels, done=["level"])["warnings"]
    assert "the level of a clip" in told and "--loudness" not in told


def test_few_speakers_and_many_utterances():
    rng = np.random.default_rng(0)
    assert examined(corpus(30, speakers=1), rng)["length"] is None
    many = corpus(MOST + 5000)
    assert examined(many, rng)["length"]["chance"] == pytest.approx(1 / 3)
