"""Tables that are made to be called at chance although they name the speaker, and tables that leak nothing."""

from dataclasses import replace

import numpy as np
import pytest
from embedding_tables import linear_code, make_table, occasional_code

from speaker_invariant_ser.audit.audit import Audit
from speaker_invariant_ser.audit.leakage import Leakage, measure_leakage
from speaker_invariant_ser.audit.read_embeddings import embeddings_of
from speaker_invariant_ser.audit.same_text import SameText, attack_same_text
from speaker_invariant_ser.audit.statistics import AtChance, Reason


@pytest.fixture(scope="module")
def at_chance() -> Leakage:
    """An audit of noise by an attacker that is at chance."""
    return measure_leakage([make_table(2200, dims=3)], ["lda"], permutations=300, repeats=1)


def conclude(leakage: Leakage, **changes) -> tuple[AtChance, Reason]:
    """Return what an audit concludes from a leakage and other results."""
    controls = {"embedding": leakage, "shuffled": leakage}
    summary = Audit(leakage, False, "given", controls, {}, None, None, **changes).summary
    return summary["at_chance"], summary["reason"]


# ---- emotions that are of one utterance each


def test_emotions_of_one_utterance_each_do_not_excuse_a_leak():
    """Permuted within each, speakers are the true ones: the leak of 90 % was undecided, for too few utterances."""
    table = make_table(440, dims=8, code=linear_code)
    leakage = measure_leakage([replace(table, emotion=table.id)], ["lda"], permutations=300, repeats=1)
    assert leakage.attackers["lda"].accuracy > 0.8
    assert (leakage.at_chance, leakage.conclusion.reason) == (False, "leak")


def test_emotions_in_one_recording_each_do_not_excuse_a_leak():
    table = make_table(440, dims=8, code=linear_code)
    recording = np.char.mod("r%d", np.arange(440) % 11 + 11 * (np.arange(440) // 44))
    leakage = measure_leakage([replace(table, emotion=recording, group=recording)], ["lda"], permutations=300, repeats=1)
    assert leakage.conclusion.reason == "leak"


# ---- a code for every speaker and text


def of_texts(name: str):
    """Return a table with 10 texts whose embedding holds speaker and text, the text alone, or noise."""
    table = make_table(550, dims=6, texts=10)
    text, speaker = np.unique(table.text, return_inverse=True)[1], np.arange(550) % 11
    code = 2 * np.random.default_rng(1).standard_normal((10, 11, 6))
    added = {"speaker and text": code[text, speaker], "text": code[text, 0], "noise": 0 * code[text, 0]}
    if name == "text of one speaker":
        nested = np.char.add(table.speaker, np.char.mod("%d", np.arange(550) // 11 % 4))
        code = 3 * np.random.default_rng(1).standard_normal((44, 6))
        return replace(table, text=nested, embedding=table.embedding + code[np.unique(nested, return_inverse=True)[1]])
    return replace(table, embedding=table.embedding + added[name])


@pytest.mark.parametrize(
    "name, leaks", [("speaker and text", True), ("text", False), ("noise", False), ("text of one speaker", False)]
)
def test_a_code_for_every_speaker_and_text_is_found_in_known_sentences(name, leaks):
    table = of_texts(name)
    leakage = measure_leakage([table], ["lda"], permutations=0, repeats=1)
    assert leakage.grouped_by_text and leakage.attackers["lda"].accuracy < 0.15
    steps: list[str] = []
    result = attack_same_text([table], leakage, lambda step, *rest: steps.append(step), 5, 0, 1000, 1)
    assert result and result.leaks == leaks, result
    assert set(steps) == {"attacking known sentences"}


def test_without_texts_there_are_no_known_sentences(at_chance):
    assert attack_same_text([make_table(44)], at_chance, lambda *rest: None, 5, 0, 1000, 1) is None


@pytest.mark.parametrize(
    "accuracy, p_value, conclusion",
    [(0.4, 0.004, (False, "same_text")), (0.4, 0.02, (True, "within")), (0.11, 0.004, (True, "within"))],
    ids=["leak", "not significant", "within the margin"],
)
def test_known_sentences_decide_where_all_else_is_at_chance(at_chance, accuracy, p_value, conclusion):
    assert conclude(at_chance, same_text=SameText("knn", accuracy, 0.1, p_value)) == conclusion


# ---- rows that are left out as copies


def test_rows_that_are_left_out_as_copies_are_counted(at_chance):
    """One row of each speaker, repeated: copies of a recording, or a name."""
    table = make_table(440, dims=8)
    embedding = table.embedding.copy()
    for speaker in range(11):
        embedding[speaker : 8 * 11 : 11] = embedding[speaker]
    labels = {"speaker": table.speaker, "emotion": table.emotion}
    audited, notes = embeddings_of(embedding, labels)
    assert audited.copies == 77 and len(audited.id) == 440 - 77 and "taken once" in notes[0]
    assert conclude(at_chance, copies=77 / 440) == ("undecided", "copies")
    assert conclude(at_chance, copies=0.02) == (True, "within")
    leak = measure_leakage([make_table(440, code=occasional_code(0.5))], ["lda"], permutations=300, repeats=1)
    assert conclude(leak, copies=0.5) == (False, "leak")


@pytest.mark.parametrize("name", ["id", "group"])
def test_nothing_is_claimed_of_speakers_that_cannot_be_attacked(name, at_chance):
    """The speakers that leak have one utterance or one recording each: at chance was said of those that do not."""
    table = make_table(440, dims=8)
    single = np.char.mod("one of a kind %d", np.arange(22)) if name == "id" else np.where(np.arange(440) % 11 < 2, "a", "b")
    speaker = np.concatenate([single, table.speaker[22:]]) if name == "id" else table.speaker
    group = None if name == "id" else np.where(single == "a", speaker, table.id)
    leakage = measure_leakage([replace(table, speaker=speaker, group=group)], ["knn"], permutations=0, repeats=1)
    assert leakage.left_out_share == pytest.approx(22 / 440 if name == "id" else 80 / 440)
    assert conclude(replace(at_chance, left_out_share=leakage.left_out_share)) == ("undecided", "left_out")
    assert conclude(replace(at_chance, left_out_share=0.02)) == (True, "within")
