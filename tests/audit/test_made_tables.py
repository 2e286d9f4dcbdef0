"""Tables that are made to be called at chance although they name the speaker, and tables that leak nothing."""

from dataclasses import replace

import numpy as np
import pytest
from embedding_tables import linear_code, make_table, occasional_code, variance_code

from speaker_invariant_ser.audit.audit import Audit
from speaker_invariant_ser.audit.further import Further, FurtherAttacks, attack_further
from speaker_invariant_ser.audit.inputs.read_embeddings import embeddings_of
from speaker_invariant_ser.audit.leakage import Leakage, measure_leakage
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
    result = attack_further([table], leakage, lambda step, *rest: steps.append(step), 5, 0, 1000, 1).same_text
    assert result and result.leaks == leaks, result
    assert set(steps) == {"attacking known sentences"}


def test_what_ratings_and_texts_say_of_the_speaker_is_expected_of_known_sentences():
    """Chance is given the ratings where there are some; the text must not be forgotten then."""
    table = of_texts("text of one speaker")
    leakage = measure_leakage([table], ["lda"], permutations=0, repeats=1)
    rated = replace(table, given=np.char.mod("cell%d", np.arange(550) % 4))
    found = attack_further([rated], leakage, lambda *rest: None, 5, 0, 300, 1).same_text
    assert found and not found.leaks, found


def test_without_texts_there_are_no_known_sentences(at_chance):
    assert attack_further([make_table(44)], at_chance, lambda *rest: None, 5, 0, 1000, 1) == FurtherAttacks()


@pytest.mark.parametrize(
    "accuracy, p_value, conclusion",
    [(0.4, 0.004, (False, "same_text")), (0.4, 0.02, (True, "within")), (0.11, 0.004, (True, "within"))],
    ids=["leak", "not significant", "within the margin"],
)
def test_known_sentences_decide_where_all_else_is_at_chance(at_chance, accuracy, p_value, conclusion):
    assert conclude(at_chance, further=FurtherAttacks(Further("knn", accuracy, 0.1, p_value))) == conclusion


def test_a_code_in_one_known_sentence_of_many_is_found_by_the_surest_utterances():
    """Of 2.5 % of the utterances each is named; the average is within the margin of what emotion and text give."""
    table = make_table(1100, dims=24, texts=40)
    code = np.random.default_rng(1).permutation(11)[np.unique(table.speaker, return_inverse=True)[1]]
    marked = table.text == np.unique(table.text)[0]
    embedding = table.embedding + 8 * np.eye(24)[code] * marked[:, None]
    leakage = measure_leakage([table], ["lda"], permutations=0, repeats=1)
    found = attack_further([replace(table, embedding=embedding)], leakage, lambda *rest: None, 5, 0, 300, 1).same_text
    assert found and found.leaks and found.of == "surest" and found.accuracy > 0.9


# ---- speakers that training removed from what attackers also learn from


def test_windows_of_a_scored_recording_do_not_teach_attackers_about_the_others():
    """Each speaker has one scored recording, which the embedding shows; attackers who learn from some of its windows know it."""
    recording = np.repeat(np.arange(16), 18)  # four of each speaker, the last of which is scored
    code = 3 * np.random.default_rng(1).standard_normal((16, 6))
    table = replace(
        make_table(288, dims=6),
        speaker=np.char.mod("s%d", recording // 4),
        scored=recording % 4 == 3,
        group=np.char.mod("r%d", recording),
    )
    table = replace(table, embedding=table.embedding + code[recording])
    leakage = measure_leakage([table], ["lda"], permutations=0, repeats=1)
    assert leakage.near_copies == 0
    assert attack_further([table], leakage, lambda *rest: None, 5, 0, 200, 1).scored_alone is None


@pytest.mark.parametrize("size, leaks", [(0.12, True), (0.0, False)])
def test_utterances_without_a_leak_teach_attackers_nothing_about_those_that_leak(size, leaks):
    table = make_table(3300, dims=16, seed=1)
    scored = np.arange(3300) >= 2750
    centres = 3 * size * np.random.default_rng(1).standard_normal((11, 16))
    leak = centres[np.unique(table.speaker, return_inverse=True)[1]] * scored[:, None]
    table = replace(table, embedding=table.embedding + leak, scored=scored)
    leakage = measure_leakage([table], ["lda"], permutations=0, repeats=1)
    alone = attack_further([table], leakage, lambda *rest: None, 5, 0, 300, 1).scored_alone
    assert alone and alone.leaks == leaks
    assert not leaks or alone.accuracy > leakage.attackers["lda"].accuracy + 0.05


def test_what_scored_utterances_alone_show_decides(at_chance):
    further = FurtherAttacks(scored_alone=Further("lda", 0.14, 0.09, 0.004))
    assert conclude(at_chance, further=further) == (False, "scored_alone")


def test_too_few_scored_utterances_are_not_attacked_alone():
    table = make_table(440, dims=4)
    table = replace(table, scored=np.arange(440) < 11)
    leakage = measure_leakage([table], ["lda"], permutations=0, repeats=1)
    assert attack_further([table], leakage, lambda *rest: None, 5, 0, 300, 1) == FurtherAttacks()


# ---- one speaker who has most utterances


@pytest.mark.parametrize("size, reason", [(0.4, "balanced"), (0.0, "within")])
def test_a_frequent_speaker_hides_no_leak_of_the_others(size, reason):
    """An attacker is right most often who always names the speaker with 80 % of the utterances."""
    table = make_table(2200, dims=8, seed=2)
    number = np.unique(table.speaker, return_inverse=True)[1]
    number = np.where(np.random.default_rng(0).random(2200) < 0.8, 0, number)
    centres = size * np.random.default_rng(1).standard_normal((11, 8)) * (np.arange(11) > 0)[:, None]
    table = replace(table, speaker=np.char.mod("s%02d", number), embedding=table.embedding + centres[number])
    leakage = measure_leakage([table], ["logistic", "lda"], permutations=300, repeats=1)
    assert leakage.strongest.score.balanced_accuracy < 0.12
    assert leakage.conclusion.reason == reason, (leakage.tails, leakage.conclusion)


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


# ---- directions of almost no variance


@pytest.mark.parametrize("of", ["means", "variances"])
def test_a_leak_in_directions_of_almost_no_variance_is_found(of):
    """Of 16 dimensions, 10 directions vary 100 times as much as the 6 that leak, so that shrinkage hid these."""
    table, rng = make_table(1100, dims=16), np.random.default_rng(1)
    speaker = np.unique(table.speaker, return_inverse=True)[1]
    directions = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    weak = table.embedding[:, 10:]
    weak = weak + rng.standard_normal((11, 6))[speaker] if of == "means" else weak * np.exp(rng.choice([-1, 1], (11, 6)))[speaker]
    embedding = np.concatenate([table.embedding[:, :10], 0.01 * weak], axis=1) @ directions
    name = "lda" if of == "means" else "qda"
    leakage = measure_leakage([replace(table, embedding=embedding)], [name], permutations=300, repeats=1)
    assert leakage.attackers[name].accuracy > 0.3 and leakage.conclusion.reason == "leak"


# ---- many speakers, and speakers with few utterances


def test_several_times_chance_is_a_leak_where_speakers_are_many():
    """1.5 % of utterances are named, where chance is 0.25 %: less than 3 points above chance."""
    table = make_table(2400, dims=8, speakers=400)
    centres = 0.45 * np.random.default_rng(1).standard_normal((400, 8))
    embedding = table.embedding + centres[np.unique(table.speaker, return_inverse=True)[1]]
    leakage = measure_leakage([replace(table, embedding=embedding)], ["lda"], permutations=300, repeats=1)
    assert leakage.chance["given_emotion"] + 0.003 < leakage.strongest.score.upper < 0.03
    assert leakage.conclusion.reason == "leak" and leakage.summary["margin"] == pytest.approx(1 / 400, abs=1e-3)


def test_a_speaker_with_two_utterances_takes_no_attacker_away():
    """One such speaker took LDA and QDA out of all audits; who leaks to them alone was at chance."""
    table = make_table(440, dims=6, speakers=4, code=variance_code)
    speaker = np.where(np.arange(440) < 2, "rare", table.speaker)
    leakage = measure_leakage([replace(table, speaker=speaker)], ["lda", "qda"], permutations=300, repeats=1)
    assert leakage.not_tried == {} and leakage.attackers["qda"].accuracy > 0.5 and leakage.at_chance is False


def test_what_sentences_of_ones_own_explain_is_no_proof_of_chance(at_chance):
    """Whoever calls the clusters that leak texts has attackers at chance across texts, and right in known ones."""
    known = Further("knn", 0.9, 0.9, 0.5)
    assert conclude(at_chance, further=FurtherAttacks(same_text=known)) == ("undecided", "own_texts")
    assert conclude(at_chance, further=FurtherAttacks(same_text=replace(known, accuracy=0.1))) == (True, "within")
    assert conclude(at_chance, further=FurtherAttacks(same_text=replace(known, expected=0.1))) == (True, "within")
