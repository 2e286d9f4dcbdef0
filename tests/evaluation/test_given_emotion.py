"""Chance given emotion, of a model that predicts dimensions: the emotion in cells of binned ratings that are large enough."""

import numpy as np
import pytest

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.information import speaker_bits_given_emotion
from speaker_invariant_ser.audit.leakage import measure_leakage
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.evaluation.dimensions.rating_cells import RatingCells, given_emotion


def utterances(count=240, seed=0):
    """Two speakers of the same emotions, the first calm and the second excited; every tenth utterance is not rated."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        speaker, emotion = str(number % 2), "sad" if number // 2 % 4 else "angry"
        arousal = float(rng.uniform(0, 0.6) + 0.4 * (speaker == "1"))
        rated = {"arousal": arousal, "valence": float(rng.uniform())} if number % 10 else {}
        rows.append(Utterance(str(number), "c", speaker, emotion, source=f"{number}.wav", **rated))
    return rows


def table_of(rows):
    """Embeddings that hold arousal, some noise, and nothing else."""
    noise = np.random.default_rng(1).standard_normal((len(rows), 3))
    embedding = np.column_stack(([0.5 if row.arousal is None else row.arousal for row in rows], noise))
    columns = [np.array([getattr(row, name) for row in rows]) for name in ("id", "speaker", "emotion", "text")]
    return Embeddings(embedding, *columns, np.ones(len(rows), bool))


def test_cells_are_terciles_of_training_utterances_and_joined_where_they_are_small():
    rows = utterances()
    cells = RatingCells.fit(("arousal", "valence"), rows)
    assert cells.edges["arousal"] == pytest.approx(
        np.quantile([u.arousal for u in rows if u.arousal is not None], [1 / 3, 2 / 3])
    )
    assert cells.minimum == 20 and {name.count(",") for name in cells.names} == {1, 2}, "of one and of two dimensions"
    low, middle, high = (Utterance("x", "c", "9", "sad", arousal=a, valence=0.9) for a in (0.0, cells.edges["arousal"][0], 1.0))
    names = [cells.of(utterance) for utterance in (low, middle, high)]
    assert [name.split(", ")[1] for name in names] == ["arousal 1/3", "arousal 1/3", "arousal 3/3"]
    assert cells.of(Utterance("x", "c", "9", "sad", valence=0.9)) == "sad"  # not rated
    assert cells.of(Utterance("x", "c", "9", "bored", arousal=0.1, valence=0.9)) == "bored"
    counts = {name: sum(cells.of(row) == name for row in rows) for name in cells.names}
    assert min(counts.values()) >= 20
    many = [Utterance(str(n), "c", str(n), "sad", arousal=n / 60) for n in range(60)]
    assert RatingCells.fit(("arousal",), many).minimum == 120 and not RatingCells.fit(("arousal",), many).names


def test_what_the_ratings_say_of_the_speaker_is_no_leak_given_them():
    rows = utterances()
    table, cells = table_of(rows), RatingCells.fit(("arousal",), rows)
    given = cells.of_table(table, {row.id: row for row in rows})
    before, after = (measure_leakage([each], ("lda",), folds=2, permutations=50, repeats=1) for each in (table, given))
    assert before.strongest.score.accuracy == after.strongest.score.accuracy, "the attackers are the same"
    assert before.chance["given_emotion"] == 0.5 < after.chance["given_emotion"] - 0.1
    assert before.strongest.score.p_value < 0.05
    assert speaker_bits_given_emotion(given) < speaker_bits_given_emotion(table) - 0.2
    assert given.select(given.scored).given.tolist() == given.given.tolist()
    part = given_emotion({"1": cells}, [given]).to_json()
    assert part["dimensions"] == ["arousal"] and part["bins"] == 3 and part["cells"]["1"]["cells"] == len(cells.names)
    assert part["share"] == np.mean([cells.of(row) != row.emotion for row in rows])
    assert given_emotion({}, [table]) is None
