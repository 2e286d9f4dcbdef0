"""Erasers: what they remove, what they keep, and what they do not claim."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from concept_erasure import LeaceFitter
from embedding_tables import linear_code, make_table, xor_code
from helpers import section
from reports import control, run_report
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.evaluation.claims.conclusion import concluded
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.models import erasure
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.training.checks import check_erase
from speaker_invariant_ser.training.post_training import refit_head


def eraser(name, dim, **settings):
    return ERASERS[name](dim, section("erase", name=name, **settings)).eval()


def erased(name, table, *others, **settings):
    """Return tables with erased embeddings, by an eraser fitted on the first one."""
    fitted = eraser(name, table.embedding.shape[1], **settings)
    fitted.fit(as_tensor(table), table.speaker, to_indices(table.emotion), seed=0)
    return [replace(other, embedding=fitted(as_tensor(other)).numpy()) for other in (table, *others)]


def as_tensor(table):
    return torch.from_numpy(table.embedding).float()


def accuracy(attacker, train, test, column="speaker"):
    """Return the accuracy of an attacker, fitted on one table, at the speakers (or emotions) of another."""
    fitted = make_pipeline(StandardScaler(), attacker).fit(train.embedding, getattr(train, column))
    return fitted.score(test.embedding, getattr(test, column))


def coded(embedding, speaker, rng):
    """Return embeddings like those of an encoder: a mean for each speaker, correlated dimensions of different scale."""
    mixing = np.random.default_rng(3).standard_normal((embedding.shape[1],) * 2) * np.geomspace(1, 0.01, embedding.shape[1])
    return linear_code(embedding, speaker, rng, 0.7) @ mixing


def emotional(table):
    """Return the table with a mean for each emotion added, in dimensions without the speaker code."""
    emotion = to_indices(table.emotion)
    means = 2 * np.random.default_rng(2).standard_normal((emotion.max() + 1, table.embedding.shape[1]))
    means[:, :4] = 0
    return replace(table, embedding=table.embedding + means[emotion])


@pytest.mark.parametrize("speakers", [2, 8, 60])
def test_leace_leaves_linear_classifiers_at_chance_on_the_utterances_it_was_fitted_on(speakers):
    """370 utterances, as in a fold of EMO-DB; also with so many speakers that each correlates little with the embedding."""
    table = make_table(370, dims=128, speakers=speakers, code=coded)
    (after,) = erased("leace", table)
    attacker = LogisticRegression(max_iter=1000)
    majority = np.bincount(to_indices(table.speaker)).max() / 370
    assert accuracy(attacker, table, table) > 0.95
    assert accuracy(attacker, after, after) <= majority + 0.03
    means = [after.embedding[after.speaker == name].mean(axis=0) for name in np.unique(after.speaker)]
    assert np.ptp(means, axis=0).max() < 1e-4 < 0.1 < np.ptp(table.embedding, axis=0).min()


def test_leace_erases_speakers_from_new_utterances_too_and_keeps_the_emotion():
    table, new = (emotional(make_table(2000, dims=16, speakers=4, seed=seed, code=linear_code)) for seed in (0, 1))
    after, new_after = erased("leace", table, new)
    attacker = LogisticRegression(max_iter=1000)
    assert accuracy(attacker, table, new) > 0.95 and accuracy(attacker, after, new_after) < 0.25 + 0.05
    assert accuracy(attacker, after, new_after, "emotion") > 0.9


def test_leace_erases_every_direction_of_many_speakers():
    """Each of 100 speakers correlates little with the embedding, less than the default limit of concept-erasure."""
    weak = lambda embedding, speaker, rng: linear_code(embedding, speaker, rng, 0.1)  # noqa: E731
    table = make_table(3000, dims=128, speakers=100, code=weak)

    def distance_of_means(embedding):
        return np.ptp([embedding[table.speaker == name].mean(axis=0) for name in np.unique(table.speaker)], axis=0).max()

    x, speakers = as_tensor(table).double(), erasure.one_hot(table.speaker)
    (after,) = erased("leace", table)
    by_default = LeaceFitter.fit(x, speakers).eraser(x).numpy()
    assert (
        distance_of_means(table.embedding) > 0.5
        and distance_of_means(by_default) > 0.1
        and distance_of_means(after.embedding) < 1e-4
    )


def test_obliviator_removes_nonlinear_speaker_information_and_keeps_the_emotion():
    """Attackers are trained on utterances that the eraser was not fitted on, because it erases more from its own."""
    table, new, more = (emotional(make_table(800, dims=16, speakers=4, seed=seed, code=xor_code)) for seed in range(3))
    _, *linear = erased("leace", table, new, more)
    _, *obliviator = erased("obliviator", table, new, more)
    svm, linear_classifier = SVC(C=3.0), LogisticRegression(max_iter=1000)
    assert accuracy(svm, new, more) > 0.85 and accuracy(svm, *linear) > 0.65, "LEACE leaves most of it"
    assert accuracy(svm, *obliviator) < 0.4 and accuracy(linear_classifier, *obliviator) < 0.35
    assert accuracy(linear_classifier, *obliviator, "emotion") > 0.9


def test_obliviator_keeps_nothing_of_unknown_emotions_and_more_with_a_larger_weight():
    """What is kept beside the emotion: as many functions of the embedding as have any weight."""
    table = emotional(make_table(400, dims=16, speakers=4, code=linear_code))
    x, emotion = as_tensor(table), to_indices(table.emotion)
    none, some = (eraser("obliviator", 16, embedding_weight=weight) for weight in (0.0, 1.0))
    for fitted in (none, some):
        fitted.fit(x, table.speaker, emotion, seed=0)
    spread = [int((fitted.after_rounds(x).std(dim=0) > 1e-3).sum()) for fitted in (none, some)]
    assert spread[0] < emotion.max() + 1 < spread[1]
    none.fit(x, table.speaker, np.full_like(emotion, -1), seed=0)
    assert none(x).std(dim=0).max() < 1e-4


def test_obliviator_is_fitted_on_a_sample_of_many_utterances(monkeypatch):
    table = make_table(300, dims=8, speakers=3, code=linear_code)
    monkeypatch.setattr(erasure, "SAMPLE", 100)
    fitted, sampled = eraser("obliviator", 8), []
    monkeypatch.setattr(fitted, "train_network", lambda number, z, *_: sampled.append(len(z)))
    fitted.fit(as_tensor(table), table.speaker, to_indices(table.emotion), seed=0)
    assert sampled == [100] and fitted(as_tensor(table)).isfinite().all()


def test_an_attacker_trained_on_the_fitted_utterances_is_at_chance_whatever_is_left():
    """The reason why attackers of an erased embedding are trained on held-out utterances only."""
    table, new, more = (make_table(400, dims=128, speakers=8, seed=seed, code=linear_code) for seed in range(3))
    after, new, more = erased("leace", table, new, more)
    linear_classifier = LogisticRegression(max_iter=1000)
    assert accuracy(linear_classifier, after, more) < 0.16 and accuracy(linear_classifier, new, more) > 0.28, "chance is 0.125"


@pytest.mark.parametrize("name", ["leace", "obliviator"])
def test_an_eraser_is_deterministic_given_the_seed_and_saved_whole(name):
    table = make_table(200, dims=12, speakers=4, code=xor_code)
    first, again, other = (eraser(name, 12, **({"rounds": 2} if name == "obliviator" else {})) for _ in range(3))
    x = as_tensor(table)
    for fitted, seed in ((first, 0), (again, 0)):
        fitted.fit(x, table.speaker, to_indices(table.emotion), seed)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(x), again(x)) and torch.equal(first(x), other(x))
    assert torch.allclose(first(x[:1])[0], first(x)[0], atol=1e-4) and torch.isfinite(first(1e4 * x)).all()
    assert not torch.allclose(first(x), x, atol=1e-2) and first.train()(x) is x


@pytest.mark.parametrize("name", ["leace", "obliviator"])
def test_an_eraser_that_is_not_fitted_is_the_identity(name):
    x = torch.randn(5, 12)
    assert torch.allclose(eraser(name, 12)(x), x, atol=1e-6)


@pytest.mark.parametrize("name", ["leace", "obliviator"])
def test_erasers_accept_one_speaker_and_few_utterances(name):
    x = torch.randn(6, 12)
    for speaker in (["a"] * 6, ["a", "b", "c", "d", "e", "f"], ["a", "a", "a", "a", "a", "b"]):
        fitted = eraser(name, 12)
        fitted.fit(x, np.array(speaker), np.array([0, 0, 1, 1, -1, 2]), seed=0)
        assert torch.isfinite(fitted(x)).all()


def test_erasing_more_speakers_than_dimensions_is_refused():
    leace = make_recipe({"erase": {"name": "leace"}})
    check_erase(leace, 12, 12)
    check_erase(Recipe(), 12, 500)
    with pytest.raises(RecipeError, match=r"13 training speakers take 12 dimensions.* expected encoder.dim above 12"):
        check_erase(leace, 12, 13)
    with pytest.raises(RecipeError, match="unknown erase.name 'lace', did you mean 'leace'"):
        check_erase(make_recipe({"erase": {"name": "lace"}}), 12, 3)
    obliviator = make_recipe({"erase": {"name": "obliviator"}})
    check_erase(obliviator, 12, 256)
    with pytest.raises(RecipeError, match="erase.name = obliviator: 257 training speakers; expected at most 256"):
        check_erase(obliviator, 12, 257)
    check_erase(make_recipe({"audit": {"holdout": 0}}), 12, 3)
    with pytest.raises(RecipeError, match="erase.name = leace with audit.holdout = 0: .* expected audit.holdout above 0"):
        check_erase(make_recipe({"erase": {"name": "leace"}, "audit": {"holdout": 0}}), 12, 3)


@pytest.mark.parametrize(
    ("before", "claim"), [(0.5, (True, "within")), (0.3, ("undecided", "starved")), (None, ("undecided", "starved"))]
)
def test_attackers_at_chance_before_the_erasure_are_no_evidence_after_it(before, claim):
    measured = run_report(strongest=0.2).speaker
    chance = measured.chance.model_copy(update={"given_emotion": 0.3, "given_emotion_balanced": 0.3})
    unreleased = control(0.55).model_copy(update={"low": before})
    erased = {"learned": "held-out", "chance": chance, "controls": {"unreleased": unreleased}}
    tails = {"best_recognised_speaker": None, "surest_utterances": None, "balanced": None, "best_recognised_model": None}
    speaker = measured.model_copy(update=erased | tails)
    assert concluded(speaker, quick=False) == claim
    assert concluded(speaker.model_copy(update={"controls": {}}), quick=False) == ("undecided", "starved")
    assert concluded(speaker.model_copy(update={"controls": {}, "learned": "all"}), quick=False) == (True, "within")
    leak = run_report().speaker.model_copy(update={"learned": "held-out", "controls": {}})
    assert concluded(leak, quick=False) == (False, "leak")


def test_refitting_the_head_recovers_the_emotion_after_erasure():
    table = emotional(make_table(600, dims=16, speakers=4, code=linear_code))
    (after,) = erased("leace", table)
    emotion = torch.from_numpy(to_indices(table.emotion))
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(32, 5)).eval()
    x = as_tensor(after)
    before = (head(x).argmax(dim=1) == emotion).float().mean().item()
    refit_head(head, x, emotion, lambda x: x, Recipe())
    assert (head(x).argmax(dim=1) == emotion).float().mean() > 0.9 > 0.5 > before and not head.training
