"""Label maps record what they merge and drop, and the built-in maps suit every corpus."""

import pytest

from speaker_invariant_ser.config import make_recipe, read_recipe, write_toml
from speaker_invariant_ser.data.corpora.registry import known_corpora
from speaker_invariant_ser.data.labels import FIVE, MAPS, map_labels
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import RecipeError


def utterances(*labels, corpus="c"):
    return [Utterance(f"{corpus}{n}", corpus, f"s{n}", label) for n, label in enumerate(labels)]


def emotions(kept):
    return [utterance.emotion for utterance in kept]


def test_full_changes_nothing():
    original = utterances("happy", "Bored", "x")
    kept, mapped = map_labels("full", original)
    assert kept == original and mapped.summary == ""


def test_five_drops_other_labels_and_knows_synonyms():
    kept, mapped = map_labels("five", utterances("Joy", "bored", "sad", "calm", "fear", "bored"))
    assert emotions(kept) == ["happy", "sad", "fearful"]
    assert mapped.dropped == {"bored": 2, "calm": 1}
    assert mapped.summary == "merged Joy -> happy (1), fear -> fearful (1); dropped bored (2), calm (1)"


def test_five_merged_merges_excited_and_calm():
    kept, mapped = map_labels("five-merged", utterances("excited", "calm", "happy"))
    assert emotions(kept) == ["happy", "neutral", "happy"] and mapped.merged == {"calm": ("neutral", 1), "excited": ("happy", 1)}


def test_a_custom_map_merges_and_drops():
    kept, mapped = map_labels({"happy": "up", "sad": "down", "angry": "down"}, utterances("happy", "sad", "angry", "bored"))
    assert emotions(kept) == ["up", "down", "down"] and mapped.name == "own" and mapped.dropped == {"bored": 1}


def test_auto_is_full_for_one_corpus_and_five_for_several():
    single = utterances("happy", "bored")
    assert map_labels("auto", single)[1].name == "full"
    kept, mapped = map_labels("auto", [*single, *utterances("sad", corpus="d")])
    assert mapped.name == "five" and emotions(kept) == ["happy", "sad"]


def test_a_map_applies_to_the_original_labels_even_when_applied_twice(prepared):
    up = prepared.labelled({"rising": "up", "falling": "down"})
    assert up.labelled({"rising": "up", "falling": "down"}).utterances == up.utterances
    assert up.labelled("full").utterances == prepared.utterances


@pytest.mark.parametrize(
    "chosen, message",
    [
        ("fife", "unknown map 'fife', did you mean 'five'"),
        ({"hapy": "happy"}, "unknown emotion 'hapy', did you mean 'happy'"),
        ("five", "no utterance has any of its labels; found bored. --set labels.map=full takes them"),
    ],
)
def test_impossible_maps_raise_an_error(chosen, message):
    data = utterances("bored") if chosen == "five" else utterances("happy", "bored")
    with pytest.raises(RecipeError, match=message):
        map_labels(chosen, data)


def test_labels_of_which_a_map_knows_one_raise_an_error():
    """In German, English and many other languages "neutral" is the same word."""
    with pytest.raises(RecipeError, match="five: only neutral is left; found freude, neutral, wut. --set labels.map=full"):
        map_labels("five", utterances("freude", "wut", "neutral"))


def test_a_map_is_unchanged_after_writing_and_reading_the_recipe(tmp_path):
    recipe = make_recipe({"labels": {"map": {"very happy": "up", 'sa"d': "down"}}})
    (tmp_path / "r.toml").write_text(write_toml(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "r.toml") == recipe
    assert read_recipe(tmp_path / "r.toml", ['labels.map={happy = "up"}']).labels.map == {"happy": "up"}


def test_every_corpus_with_categories_has_at_least_two_of_the_five():
    for corpus in known_corpora().values():
        labels = {label for counts in corpus.counts.values() for label in counts.emotions}
        if labels:
            assert len(labels & set(MAPS["five"])) >= 2, corpus.name
    assert set(FIVE) == set(MAPS["five"].values())


def test_new_labels_that_look_the_same_are_one():
    kept, mapped = map_labels(
        {"a": "mu\u0308de", "b": " m\u00fcde\u200b", "m\u00fcde": "mu\u0308de"}, utterances("a", "b", "m\u00fcde")
    )
    assert set(emotions(kept)) == {"m\u00fcde"} and mapped.table()["merged"] == {"a": ["m\u00fcde", 1], "b": ["m\u00fcde", 1]}
