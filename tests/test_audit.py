"""What was planted is found, what is not there is not found, and the folds keep texts apart."""

import numpy as np
import pytest
from scipy.stats import binom

from speaker_invariant_ser.attackers import ATTACKERS
from speaker_invariant_ser.audit import Embeddings, attack, leakage, make_folds
from speaker_invariant_ser.errors import AuditError

SPEAKERS, EMOTIONS, TEXTS = 5, 3, 8


def table(code=0.0, seed=0, texts=True, kind="linear", count=TEXTS):
    """Noise [N, 16] with a speaker code of this size; "xor" hides a binary speaker in the product of two signs."""
    rng = np.random.default_rng(seed)
    speaker, emotion, text = (part.ravel() for part in np.meshgrid(range(SPEAKERS), range(EMOTIONS), range(count), indexing="ij"))
    embedding = rng.standard_normal((len(speaker), 16))
    if kind == "linear":
        embedding += code * rng.standard_normal((SPEAKERS, 16))[speaker]
    else:
        speaker = speaker % 2
        signs = rng.choice([-1, 1], len(speaker))
        embedding[:, 0], embedding[:, 1] = code * signs, code * signs * np.where(speaker == 1, 1, -1)
        embedding[:, :2] += 0.3 * rng.standard_normal((len(speaker), 2))
    names = [np.char.mod(f"{letter}%d", values) for letter, values in zip("set", (speaker, emotion, text), strict=True)]
    ids = np.array([f"clip{row}" for row in range(len(speaker))])
    return Embeddings(embedding, ids, names[0], names[1], names[2] if texts else np.full(len(speaker), ""))


@pytest.mark.parametrize("name", ATTACKERS)
@pytest.mark.parametrize("texts", [True, False])
def test_a_planted_code_is_found(name, texts):
    result = leakage([table(code=2.0, texts=texts)])
    assert result.attackers[name].accuracy > 0.9
    assert result.attackers[name].low > result.chance["majority"]


@pytest.mark.parametrize("name", ATTACKERS)
def test_noise_stays_inside_the_binomial_band(name):
    """99.9 % band over 120 clips each: a probe scored on what it was fitted on would read nearly all of them."""
    for seed in range(5):
        noise = table(seed=seed)
        hits = (attack(name, noise, make_folds(noise, 5, 0), 0) == noise.speaker).sum()
        assert binom.ppf(0.0005, 120, 0.2) <= hits <= binom.ppf(0.9995, 120, 0.2)


def test_a_code_that_no_line_shows_is_found_by_the_mlp_alone():
    result = leakage([table(code=1.5, kind="xor", count=40)])
    assert result.attackers["mlp"].accuracy > 0.85 > 0.65 > result.attackers["logistic"].accuracy
    assert result.strongest == "mlp"


def test_folds_keep_texts_apart_and_score_every_clip_once():
    data = table()
    folds = make_folds(data, 4, 0).parts
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(120))
    for train, test in folds:
        assert not set(data.text[train]) & set(data.text[test])
        assert set(data.speaker[test]) == set(data.speaker[train]) == set(data.speaker)


def test_without_texts_folds_are_stratified_by_speaker_and_emotion():
    data = table(texts=False)
    cells = np.char.add(data.speaker, data.emotion)
    for _, test in make_folds(data, 4, 0).parts:
        assert set(np.unique(cells[test], return_counts=True)[1]) == {2}
    assert not leakage([data]).grouped_by_text


def test_chances():
    """Speaker s0 says e0 only: 24 + 8 * 2 clips; naming s0 for every e0 is right in 24 of 24 + 2 * 8 cases."""
    emotion = np.array(["e0"] * 24 + ["e0"] * 8 + ["e1"] * 8)
    speaker = np.array(["s0"] * 24 + ["s1"] * 16)
    data = Embeddings(np.random.default_rng(0).standard_normal((40, 4)), emotion, speaker, emotion, np.full(40, ""))
    chance = leakage([data]).chance
    assert chance == {"uniform": 0.5, "majority": 0.6, "given_emotion": (24 + 8) / 40}


def test_decisions_of_several_encoders_are_pooled():
    result = leakage([table(code=2.0), table(seed=1)])
    assert result.decisions == 240 and result.speakers == SPEAKERS
    assert 0.45 < result.attackers["logistic"].accuracy < 0.75


def test_a_speaker_with_a_single_clip_is_left_out_and_named():
    data = table(code=2.0)
    data.speaker[0] = "s9"
    result = leakage([data])
    assert result.left_out == ("s9",) and result.decisions == 119 and result.speakers == SPEAKERS


def test_small_cells_and_few_texts_do_not_stop_the_audit():
    """Every speaker says each text in one emotion, once: cells smaller than the number of folds."""
    rng = np.random.default_rng(0)
    for trial in range(30):
        speaker, text = (part.ravel() for part in np.meshgrid(range(4), range(rng.integers(1, 7)), indexing="ij"))
        speaker = np.concatenate([speaker, [0, 1, 2, 3]])
        text = np.concatenate([text, rng.integers(0, text.max() + 1, 4)])
        numbers = (speaker, rng.integers(0, 3, len(speaker)), text)
        names = [np.char.mod(f"{letter}%d", values) for letter, values in zip("set", numbers, strict=True)]
        data = Embeddings(rng.standard_normal((len(speaker), 5)), np.arange(len(speaker)).astype(str), *names)
        plan = make_folds(data, 5, trial)
        assert sorted(np.concatenate([test for _, test in plan.parts])) == list(range(len(speaker)))
        assert all(set(data.speaker[train]) == set(data.speaker) for train, _ in plan.parts)
        assert 0 <= leakage([data]).attackers["logistic"].accuracy <= 1


def broken():
    data = table()
    data.embedding[3, 2] = np.nan
    return data


def one_speaker():
    data = table()
    data.speaker[:] = "s0"
    return data


@pytest.mark.parametrize(
    "make, message",
    [(broken, "clip3 holds NaN"), (one_speaker, r"1 speakers with two clips or more \(s0\).*at least 2")],
)
def test_what_cannot_be_audited_is_told(make, message):
    with pytest.raises(AuditError, match=message):
        leakage([make()])
