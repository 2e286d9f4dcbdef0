"""Maps of labels: what is merged and dropped is told, and one map serves all corpora."""

import pytest

from speaker_invariant_ser.config import make_recipe, read_recipe, write_toml
from speaker_invariant_ser.data.corpora.registry import known_corpora
from speaker_invariant_ser.data.labels import FIVE, MAPS, map_labels
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import RecipeError


def utterances(*labels, corpus="c"):
    return [Utterance(f"{corpus}{n}", corpus, f"s{n}", label) for n, label in enumerate(labels)]


def emotions(kept):
    return [one.emotion for one in kept]


def test_full_changes_nothing():
    some = utterances("happy", "Bored", "x")
    kept, mapped = map_labels("full", some)
    assert kept == some and mapped.words == ""


def test_five_drops_the_rest_and_reads_other_words():
    kept, mapped = map_labels("five", utterances("Joy", "bored", "sad", "calm", "fear", "bored"))
    assert emotions(kept) == ["happy", "sad", "fearful"]
    assert mapped.dropped == {"bored": 2, "calm": 1}
    assert mapped.words == "merged Joy -> happy (1), fear -> fearful (1); dropped bored (2), calm (1)"


def test_five_merged_keeps_neighbours():
    kept, mapped = map_labels("five-merged", utterances("excited", "calm", "happy"))
    assert emotions(kept) == ["happy", "neutral", "happy"] and mapped.merged == {"calm": ("neutral", 1), "excited": ("happy", 1)}


def test_a_map_of_ones_own():
    kept, mapped = map_labels({"happy": "up", "sad": "down", "angry": "down"}, utterances("happy", "sad", "angry", "bored"))
    assert emotions(kept) == ["up", "down", "down"] and mapped.name == "own" and mapped.dropped == {"bored": 1}


def test_auto_is_full_for_one_corpus_and_five_for_several():
    one = utterances("happy", "bored")
    assert map_labels("auto", one)[1].name == "full"
    kept, mapped = map_labels("auto", [*one, *utterances("sad", corpus="d")])
    assert mapped.name == "five" and emotions(kept) == ["happy", "sad"]


def test_a_map_acts_on_the_corpuss_own_labels_however_often(prepared):
    up = prepared.labelled({"rising": "up", "falling": "down"})
    assert up.labelled({"rising": "up", "falling": "down"}).utterances == up.utterances
    assert up.labelled("full").utterances == prepared.utterances


@pytest.mark.parametrize(
    "chosen, message",
    [
        ("fife", "unknown map 'fife', did you mean 'five'"),
        ({"hapy": "happy"}, "unknown emotion 'hapy', did you mean 'happy'"),
        ("five", "no utterance has any of its labels; found bored"),
    ],
)
def test_maps_that_cannot_be(chosen, message):
    some = utterances("bored") if chosen == "five" else utterances("happy", "bored")
    with pytest.raises(RecipeError, match=message):
        map_labels(chosen, some)


def test_a_map_survives_the_recipe(tmp_path):
    recipe = make_recipe({"labels": {"map": {"very happy": "up", 'sa"d': "down"}}})
    (tmp_path / "r.toml").write_text(write_toml(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "r.toml") == recipe
    assert read_recipe(tmp_path / "r.toml", ['labels.map={happy = "up"}']).labels.map == {"happy": "up"}


def test_every_corpus_with_categories_has_some_of_the_five():
    for corpus in known_corpora().values():
        labels = {label for counts in corpus.counts.values() for label in counts.emotions}
        if labels:
            assert len(labels & set(MAPS["five"])) >= 2, corpus.name
    assert set(FIVE) == set(MAPS["five"].values())
