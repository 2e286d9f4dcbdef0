"""Shortcuts to the emotion are detected where they exist, and not where they do not."""

import re

import numpy as np
import pytest
import soundfile
from sklearn.neighbors import KNeighborsClassifier

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.shortcuts import (
    ADVICE,
    MAX_UTTERANCES,
    NEIGHBOURS,
    PROPERTIES,
    examine,
    file_kind,
    nearest_neighbours,
    score_number,
)

EMOTIONS = ("angry", "happy", "sad")


def corpus(count=600, speakers=12, text=lambda n: f"t{n % 7}", emotion=lambda n: EMOTIONS[n // 12 % 3]):
    return [Utterance(str(n), "c", f"s{n % speakers}", emotion(n), text(n), source=f"{n}.wav") for n in range(count)]


def examine_with(utterances, rng, **numbers):
    random_numbers = {name: rng.normal(size=len(utterances)) for name in ("seconds", "zeros", "levels")}
    return examine(utterances, **{**random_numbers, **numbers})


@pytest.mark.parametrize("seed", range(5))
def test_random_properties_give_no_warning(seed):
    rng = np.random.default_rng(seed)
    utterances = corpus(emotion=lambda n: EMOTIONS[rng.integers(3)], text=lambda n: f"only-{n}")
    checks = examine_with(utterances, rng)
    assert checks["warnings"] == []
    for name in ("length", "padding", "level"):
        assert checks[name]["chance"] == pytest.approx(1 / 3) and abs(checks[name]["uar"] - 1 / 3) < 0.08


@pytest.mark.parametrize(
    "number, name, words",
    [
        ("seconds", "length", "the duration of an utterance alone predicts the emotion of unseen speakers"),
        ("zeros", "padding", "digital silence .* --trim-db"),
        ("levels", "level", "the level of an utterance .* --loudness"),
    ],
)
def test_a_number_that_predicts_the_emotion_is_named(number, name, words):
    rng = np.random.default_rng(0)
    utterances = corpus(text=lambda n: "")
    values = np.array([EMOTIONS.index(u.emotion) for u in utterances]) + 0.4 * rng.normal(size=len(utterances))
    checks = examine_with(utterances, rng, **{number: values})
    assert checks[name]["uar"] > 0.75 and checks[name]["low"] > 0.6
    (warning,) = checks["warnings"]
    assert re.search(words, warning)


def test_speakers_and_texts_of_one_emotion_are_named():
    rng = np.random.default_rng(0)
    warnings = examine_with(corpus(emotion=lambda n: EMOTIONS[n % 12 % 3], text=lambda n: f"t{n % 12}"), rng)["warnings"]
    assert "100% of the speakers have nearly all their utterances in one emotion: the speaker predicts the emotion" in warnings
    assert any(line.startswith("100% of the texts") for line in warnings)


@pytest.mark.parametrize("clips, warned", [(4, True), (2, True), (1, False)])
def test_few_clips_of_each_speaker_are_enough_where_all_are_of_one_emotion(clips, warned):
    utterances = corpus(6 * clips, speakers=6, text=lambda n: "", emotion=lambda n: EMOTIONS[n % 6 % 3])
    warnings = examine_with(utterances, np.random.default_rng(0))["warnings"]
    assert [line.partition(" have nearly")[0] for line in warnings] == ["100% of the speakers"] * warned


def test_shared_texts_are_warned_of_with_advice():
    checks = examine_with(corpus(), np.random.default_rng(0))
    assert checks["shared_texts"] == {"share": 1.0} and any("split.text_folds" in line for line in checks["warnings"])
    assert examine_with(corpus(text=lambda n: ""), np.random.default_rng(0))["shared_texts"] is None


@pytest.mark.parametrize("seed", range(5))
def test_nearest_neighbours_agree_with_scikit_learn(seed):
    """With balanced classes the weights change nothing, so that both agree except for ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(3), 100))
    values, queries = rng.normal(labels, 1.0), rng.normal(size=200)
    reference = KNeighborsClassifier(NEIGHBOURS).fit(values[:, None], labels)
    votes = np.sort(reference.predict_proba(queries[:, None]), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    ours = nearest_neighbours(values, labels, queries, 3)
    assert np.array_equal(ours[clear], reference.predict(queries[:, None])[clear]) and clear.sum() > 100


@pytest.mark.parametrize("order", [lambda u: u.emotion, lambda u: u.id, lambda u: u.speaker])
def test_the_order_of_the_manifest_does_not_change_the_score(order):
    """With only two values, as padding often has, all neighbours are ties."""
    rng = np.random.default_rng(0)
    utterances = sorted(corpus(emotion=lambda n: EMOTIONS[n // 12 % 2]), key=order)
    share = {"angry": 0.8, "happy": 0.2}
    values = np.array([float(rng.random() < share[u.emotion]) for u in utterances])
    assert score_number(values, utterances)["uar"] == pytest.approx(0.8, abs=0.06)


def test_a_speaker_is_never_among_its_own_neighbours():
    """Every speaker has its own durations per emotion, which predict its own emotions only."""
    rng = np.random.default_rng(0)
    utterances = corpus(emotion=lambda n: EMOTIONS[n // 12 % 3])
    speakers = np.array([int(u.speaker[1:]) for u in utterances])
    order = np.array([rng.permutation(3) for _ in range(12)])
    values = 10.0 * speakers + order[speakers, [EMOTIONS.index(u.emotion) for u in utterances]]
    assert score_number(values, utterances)["uar"] < 0.6


def test_unbalanced_classes_are_scored_fairly():
    rng = np.random.default_rng(0)
    utterances = corpus(1200, emotion=lambda n: EMOTIONS[0 if n % 10 else 1 + n // 10 % 2])
    score = score_number(rng.normal(size=1200), utterances)
    assert abs(score["uar"] - 1 / 3) < 0.12, "class imbalance alone is no shortcut"
    clear = np.array([EMOTIONS.index(u.emotion) for u in utterances]) + rng.normal(size=1200)
    assert score_number(clear, utterances)["uar"] > 0.5, (
        "rare classes are predicted although nine in ten neighbours are of another class"
    )


def test_similar_labels_and_emotions_missing_in_a_corpus_are_warned_of():
    rng = np.random.default_rng(0)
    warnings = examine_with(corpus(emotion=lambda n: ("Angry", "angry", "sad")[n // 12 % 3], text=lambda n: ""), rng)["warnings"]
    assert warnings == ["Angry and angry count as different emotions; labels.map in the recipe can merge them"]
    two = [*corpus(24, text=lambda n: ""), Utterance("x", "d", "z", "bored", source="x")]
    warnings = examine_with(two, rng)["warnings"]
    assert any(line.startswith("not every corpus has angry (c), bored (d), happy (c)") for line in warnings)


def test_no_advice_is_given_for_what_was_removed():
    rng = np.random.default_rng(0)
    utterances = corpus(text=lambda n: "")
    levels = np.array([EMOTIONS.index(u.emotion) for u in utterances]) + 0.4 * rng.normal(size=600)
    (warning,) = examine_with(utterances, rng, levels=levels, removed=["level"])["warnings"]
    assert "the level of an utterance" in warning and "--loudness" not in warning


def test_one_speaker_has_no_score_and_large_corpora_are_sampled():
    rng = np.random.default_rng(0)
    assert examine_with(corpus(30, speakers=1), rng)["length"] is None
    many = corpus(MAX_UTTERANCES + 5000)
    assert examine_with(many, rng)["length"]["chance"] == pytest.approx(1 / 3)


NUMBERS = ("length", "padding", "level", "bandwidth", "offset", "file_kind")


def random_world(seed: int):
    """Return utterances with random emotions, of which one has 20 to 95 %, and random numbers, some of them of the speaker."""
    rng = np.random.default_rng(seed)
    speakers, count = rng.choice([2, 3, 5, 10, 30]), int(rng.integers(40, 240))
    classes, majority = int(rng.integers(2, 7)), rng.choice([0.2, 0.5, 0.8, 0.95])
    shares = np.full(classes, (1 - max(majority, 1 / classes)) / (classes - 1))
    shares[0] = max(majority, 1 / classes)
    speaker, emotion, text = rng.integers(speakers, size=count), rng.choice(classes, count, p=shares), rng.integers(8, size=count)
    utterances = [Utterance(f"{n}", "c", f"s{speaker[n]}", f"e{emotion[n]}", f"t{text[n]}", source=f"{n}") for n in range(count)]
    of_speaker = rng.normal(size=(3, speakers))[:, speaker]
    return utterances, {
        "seconds": rng.gamma(3, size=count),
        "zeros": rng.integers(0, 2, count) * rng.random(count),
        "levels": of_speaker[0] + 0.1 * rng.normal(size=count),
        "further": {"bandwidth": np.round(of_speaker[1]), "offset": of_speaker[2], "file_kind": rng.integers(0, 3, count) * 1.0},
    }


def test_no_warning_is_frequent_where_emotions_are_random():
    fired = dict.fromkeys((*NUMBERS, "speaker", "text"), 0)
    worlds = 60
    for seed in range(worlds):
        utterances, numbers = random_world(seed)
        checks = examine(utterances, **numbers)
        lines = [line for line in checks["warnings"] if "say as well" not in line]  # of texts, not of emotions
        for name, words in {**PROPERTIES, "speaker": "of the speakers have", "text": "of the texts have"}.items():
            fired[name] += any(words in line for line in lines)
    assert max(fired.values()) <= 0.05 * worlds, fired


@pytest.mark.parametrize("name", ["bandwidth", "offset", "file_kind"])
def test_a_channel_that_predicts_the_emotion_is_named(name):
    rng = np.random.default_rng(1)
    utterances = corpus(120, speakers=5, text=lambda n: "")
    values = np.array([EMOTIONS.index(utterance.emotion) for utterance in utterances], dtype=float)
    (warning,) = examine_with(utterances, rng, further={name: values})["warnings"]
    assert warning.startswith(f"{PROPERTIES[name]} alone predicts the emotion of unseen speakers with 100% UAR")
    assert warning.endswith(ADVICE[name])


def test_recordings_of_two_channels_are_warned_of(tmp_path, capsys):
    """All sad utterances are of the telephone, and have a constant offset."""
    rows = ["path,speaker,emotion"]
    for number in range(40):
        rng, sad = np.random.default_rng(number), number % 2
        sound = 0.1 * rng.standard_normal(8000)
        rate, subtype = (8000, "ULAW") if sad else (16_000, "PCM_16")
        soundfile.write(tmp_path / f"{number}.wav", sound[: rate // 2] + 0.02 * sad, rate, subtype=subtype)
        rows.append(f"{number}.wav,s{number // 8},{('happy', 'sad')[sad]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert siser(["prepare", "csv", str(tmp_path / "t.csv"), str(tmp_path / "data"), "--jobs", "1"]) == 0
    error = capsys.readouterr().err
    for name in ("bandwidth", "offset", "file_kind"):
        assert f"warning: {PROPERTIES[name]} alone predicts the emotion of unseen speakers with 100% UAR" in error


def test_the_kind_of_a_file_is_found_as_decoding_finds_it(tmp_path, capfd):
    """Under the name that a table gives it, without messages of the decoder about a header that is wrong."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(48_000)
    (tmp_path / "J\u00f6rg").mkdir()
    soundfile.write(tmp_path / "J\u00f6rg" / "a.wav", sound, 16_000, subtype="ULAW")
    soundfile.write(tmp_path / "b.mp3", sound, 16_000)
    (tmp_path / "c.mp3").write_bytes(2 * (tmp_path / "b.mp3").read_bytes())
    assert file_kind(tmp_path / "Jo\u0308rg\\a.wav") == "WAV ULAW 16000 1"
    assert file_kind(tmp_path / "b.mp3") == file_kind(tmp_path / "c.mp3") == "MP3 MPEG_LAYER_III 16000 1"
    assert file_kind(tmp_path / "gone.wav") == "" and capfd.readouterr().err == ""
