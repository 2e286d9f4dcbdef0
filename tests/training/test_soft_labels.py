"""emotion.labels = "soft": the annotators' votes are learned, through augmentation, adversaries, erasure and resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from helpers import assert_same_bits, section, unbalanced_dataset

from speaker_invariant_ser.adversaries.base import AdversaryBatch
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.tables.votes import as_text
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.training import trainer
from speaker_invariant_ser.training.batching import BatchLoader, BatchPlan
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.post_training import refit_head

SPLIT = {"scheme": "fixed", "test": ["05", "06"], "dev": ["04"]}
SHORT = {**TINY, "split": SPLIT, "train": {"epochs": 1, "batch_size": 8}}


def with_votes(prepared, votes):
    """Return a prepared corpus with the votes that a function gives each utterance."""
    return replace(prepared, utterances=[replace(u, votes=as_text(votes(u))) for u in prepared.utterances])


def divided(utterance):
    """Three votes for the label and one for another emotion."""
    return {utterance.emotion: 3, "level" if utterance.emotion == "rising" else "rising": 1}


def soft_run(prepared, out, votes=divided, **changes):
    recipe = make_recipe({**SHORT, **changes, "emotion": {"hidden": 8, "labels": "soft"}})
    return train(recipe, with_votes(prepared, votes), out, device="cpu")


def shares_dataset():
    """Return a dataset of 4 emotions in which every utterance has 3/4 of the votes for its emotion, and 1/4 for the first."""
    dataset = unbalanced_dataset()
    shares = 0.75 * np.eye(4, dtype=np.float32)[dataset.emotion]
    shares[:, 0] += 0.25
    return replace(dataset, shares=shares)


def loader(dataset, **tables):
    return BatchLoader(dataset, make_recipe(tables), 4, [5], 0, torch.device("cpu"))


def test_votes_are_the_labels_of_a_batch_and_are_mixed_as_labels_are():
    dataset = shares_dataset()
    for tables in ({}, {"augment": {"mixup_any_emotion": 0.7, "concatenate": 0.3}}):
        batches = loader(dataset, **tables)
        plan = batches.plan_epoch(1)[0]
        soft, hard = batches.labels_of(plan), loader(replace(dataset, shares=None), **tables).labels_of(plan)
        assert torch.equal(soft.targets[0], hard.targets[0])
        first = torch.tensor([0.25, 0, 0, 0])
        torch.testing.assert_close(soft.emotion, 0.75 * hard.emotion + first)
    assert isinstance(plan, BatchPlan) and plan.pairs is not None and (hard.emotion.max(dim=1).values < 1).any()


@pytest.mark.parametrize("batches", ["shuffled", "balanced"])
def test_class_shares_are_those_of_the_votes(batches):
    dataset = shares_dataset()
    soft = loader(dataset, train={"batches": batches}).class_shares()
    hard = loader(replace(dataset, shares=None), train={"batches": batches}).class_shares()
    torch.testing.assert_close(soft, 0.75 * hard + torch.tensor([0.25, 0, 0, 0]))
    single = replace(dataset, shares=np.eye(4, dtype=np.float32)[dataset.emotion])
    assert torch.equal(loader(single).class_shares(), loader(replace(dataset, shares=None)).class_shares())


@pytest.mark.parametrize("name", sorted(ADVERSARIES))
def test_every_adversary_takes_shares_of_votes(name):
    torch.manual_seed(0)
    settings = section("adversary", name=name, **({"learning_rate": 0.001} if name in ("minmax", "vclub") else {}))
    adversary = ADVERSARIES[name](6, 2, settings, 3)
    shape = (8, 6, 5) if settings.on_frames else (8, 6)
    x, shares = torch.randn(shape, requires_grad=True), torch.rand(8, 3).softmax(dim=1)
    batch = AdversaryBatch(torch.full((8,), 5), shares, torch.eye(2)[torch.arange(8) % 2])
    adversary(x, batch, 1.0).backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_unanimous_votes_train_the_same_bits_as_labels_and_divided_ones_do_not(prepared, tmp_path):
    soft = soft_run(prepared, tmp_path / "soft", lambda utterance: {utterance.emotion: 3})
    hard = train(make_recipe(SHORT), with_votes(prepared, divided), tmp_path / "hard", device="cpu")
    assert_same_bits(soft, hard)
    (divided_row,) = soft_run(prepared, tmp_path / "divided").model_specs[0].metrics()
    (row,) = hard.model_specs[0].metrics()
    assert divided_row["emotion_loss"] != row["emotion_loss"]


def test_a_training_on_votes_resumes_to_the_same_bits(prepared, tmp_path, monkeypatch):
    augment = {**TINY["augment"], "mixup_any_emotion": 0.5}
    changes = {"augment": augment, "erase": {"name": "leace"}, "audit": {"folds": 2, "holdout": 0.3}}
    whole = soft_run(prepared, tmp_path / "whole", **changes)
    steps, training_step = [], trainer.Trainer.training_step

    def stopping(self, *batch):
        if len(steps) == 1:
            raise KeyboardInterrupt
        steps.append(training_step(self, *batch))

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "training_step", stopping)
        soft_run(prepared, tmp_path / "run", **changes)
    recipe = make_recipe({**SHORT, **changes, "emotion": {"hidden": 8, "labels": "soft"}})
    resumed = train(recipe, with_votes(prepared, divided), tmp_path / "run", resume=True, device="cpu")
    assert_same_bits(whole, resumed)


def test_a_head_that_is_refitted_after_erasure_predicts_the_votes():
    torch.manual_seed(0)
    recipe = make_recipe({"emotion": {"label_smoothing": 0.0, "class_weights": False}})
    head, x, emotion = torch.nn.Linear(3, 3), 20 * torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20)
    torch.nn.init.zeros_(head.weight)
    votes = 0.7 * torch.eye(3)[emotion] + 0.1
    refit_head(head, x, emotion, lambda x: x, recipe, votes)
    assert (head(x).softmax(dim=1) - votes).abs().max() < 0.05


def test_a_corpus_without_votes_is_refused_before_anything_is_written(prepared, tmp_path):
    with pytest.raises(RecipeError, match="emotion.labels = soft: no utterance of .* has votes .* --votes or --annotators"):
        soft_run(prepared, tmp_path / "run", lambda utterance: {})
    assert not (tmp_path / "run").exists()
