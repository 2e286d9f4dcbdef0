"""Source and target domain: no target label reaches the model, and no test speaker is trained on."""

import csv
import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, prepare_table
from helpers import synthetic_predictions, unbalanced_dataset
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.data.labels import labels_of, map_labels
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.splits import Split, make_splits
from speaker_invariant_ser.data.tables.custom import Request
from speaker_invariant_ser.data.tables.custom_formats import CUSTOM_FORMATS
from speaker_invariant_ser.errors import ManifestError, RecipeError, RunError, SplitError
from speaker_invariant_ser.evaluation.claims.report import own_emotion, own_predictions
from speaker_invariant_ser.evaluation.domains import domain_results, domains_of, headline
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.evaluation.summary import RunReport
from speaker_invariant_ser.recipe import SplitSection, TrainSection
from speaker_invariant_ser.report.write import write_report
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training.batching import BatchLoader, epoch_batches
from speaker_invariant_ser.training.checks import target_values
from speaker_invariant_ser.training.launcher import train

DOMAINS = {"scheme": "domain", "source": ("a",), "unlabelled": ("b",)}
SETTINGS = SplitSection(**DOMAINS)


def make_utterances(source=6, target=5, other=0, emotions=("happy", "sad"), texts=2):
    """Return utterances of speakers a0, a1 ... of corpus a, b0 ... of b and c0 ... of c, women and men in turn."""
    return [
        Utterance(f"{c}{s}{e}{t}", c, f"{c}{s}", e, f"{c}t{t}", sex=("female", "male")[s % 2], source=f"{c}{s}{e}{t}.wav")
        for c, count in (("a", source), ("b", target), ("c", other))
        for s, e, t in itertools.product(range(count), emotions, range(texts))
    ]


def relabelled(utterances, chosen, label):
    return [replace(utterance, emotion=label) if chosen(utterance) else utterance for utterance in utterances]


def test_every_speaker_is_tested_once_and_trained_on_elsewhere_the_target_without_labels():
    data = make_utterances(other=3)
    splits = make_splits(SplitSection(**DOMAINS, folds=3, dev_speakers=1), data)
    tested = Counter(speaker for split in splits for speaker in split.test)
    assert set(tested) == {utterance.speaker for utterance in data if utterance.corpus != "c"} and set(tested.values()) == {1}
    for split in splits:
        corpora = {part: {name[0] for name in getattr(split, part)} for part in ("train", "dev", "test", "unlabelled")}
        assert corpora == {"train": {"a"}, "dev": {"a"}, "test": {"a", "b"}, "unlabelled": {"b"}}
        assert len({*split.train, *split.dev, *split.test, *split.unlabelled}) == 11, "all of both domains, each in one part"
        parts = [set(split.indices(part, data)) for part in ("train", "dev", "test", "unlabelled")]
        assert all(part.isdisjoint(other) for part, other in itertools.combinations(parts, 2)) and sum(map(len, parts)) == 44


def test_the_baseline_trains_on_the_source_alone_and_has_the_same_test_speakers():
    splits, baselines = (
        make_splits(SplitSection(**DOMAINS, folds=3, use_unlabelled=use), make_utterances()) for use in (True, False)
    )
    for split, baseline in zip(splits, baselines, strict=True):
        assert split.unlabelled and baseline == replace(split, unlabelled=())


def test_the_lists_of_a_recipe_make_one_fold():
    lists = {"test": ("a1", "b0", "b3"), "dev": ("a0", "a5")}
    (split,) = make_splits(SplitSection(**DOMAINS, **lists), make_utterances())
    assert (split.train, split.dev, split.unlabelled) == (("a2", "a3", "a4"), ("a0", "a5"), ("b1", "b2", "b4"))
    (split,) = make_splits(SplitSection(**DOMAINS, test=("b0",), dev_speakers=1), make_utterances())
    assert split.test == ("b0",) and len(split.train) == 5 and len(split.unlabelled) == 4


def test_speakers_without_labels_are_trained_on_in_every_fold_and_change_no_fold():
    """A fold is the same whether the target speakers it trains on have labels or not."""
    data, settings = make_utterances(), SplitSection(**DOMAINS, folds=3, dev_speakers=1)
    for index, before in enumerate(make_splits(settings, data)):
        bare = relabelled(data, lambda utterance, names=before.unlabelled: utterance.speaker in names, "")
        after = make_splits(settings, bare)
        assert after[index] == before
        assert all(set(before.unlabelled) <= set(split.unlabelled) for split in after)
    none = relabelled(data, lambda utterance: utterance.corpus == "b", "")
    assert all({name[0] for name in split.test} == {"a"} for split in make_splits(settings, none))


def test_an_utterance_without_a_label_is_not_tested():
    data = relabelled(make_utterances(), lambda utterance: utterance.id == "b0sad1", "")
    (split,) = make_splits(SplitSection(**DOMAINS, test=("a0", "b0")), data)
    assert [data[index].id for index in split.indices("test", data) if data[index].corpus == "b"] == [
        "b0happy0",
        "b0happy1",
        "b0sad0",
    ]


def test_texts_are_kept_apart_in_both_domains():
    data = [replace(utterance, text=utterance.text[1:]) for utterance in make_utterances(texts=4)]
    for split in make_splits(SplitSection(**DOMAINS, folds=2, dev_speakers=1, text_folds=2), data):
        texts = {part: {data[i].text for i in split.indices(part, data)} for part in ("train", "test", "unlabelled")}
        assert texts["test"].isdisjoint(texts["train"] | texts["unlabelled"]) and len(texts["unlabelled"]) == 2


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"scheme": "domain"}, "needs split.source and split.unlabelled, lists of values of corpus: a, b"),
        ({**DOMAINS, "unlabelled": ()}, "needs split.source and split.unlabelled"),
        ({**DOMAINS, "source": ("aa",)}, "split.source: unknown corpus 'aa', did you mean 'a'"),
        ({**DOMAINS, "unlabelled": ("a", "b")}, "both contain a; a domain either has labels or has none"),
        ({**DOMAINS, "column": "session"}, "has no session in the manifest"),
        ({**DOMAINS, "column": "text", "source": ("at0",), "unlabelled": ("bt0",)}, "is in more than one text"),
        ({**DOMAINS, "folds": 6}, r"split.folds = 6: more folds than speakers \(5\)"),
        ({**DOMAINS, "folds": 2, "dev_speakers": 3}, "cannot give 3 to test, 3 to dev"),
        ({**DOMAINS, "test": ("a0", "x")}, "split.test: unknown speaker 'x'"),
        ({**DOMAINS, "test": ("a0", "b4")}, "split.test: speaker b4 has no utterance with an emotion"),
        ({**DOMAINS, "test": ("a0",), "dev": ("b1",)}, "split.dev: unknown speaker 'b1'.* dev speakers must be of split.source"),
        ({**DOMAINS, "test": ("a0",), "dev": ("a0",)}, "speaker a0 is on both sides of the split"),
        ({**DOMAINS, "test": ("a0", "b0", "b1", "b2", "b3"), "column": "language"}, "no speaker of split.unlabelled is left"),
    ],
)
def test_invalid_domain_settings_are_refused(settings, message):
    data = relabelled(make_utterances(), lambda utterance: utterance.speaker == "b4", "")
    if settings.get("column") == "language":  # without the speaker that has no labels
        data = [replace(utterance, language=utterance.corpus) for utterance in make_utterances() if utterance.speaker != "b4"]
    with pytest.raises(SplitError, match=message):
        make_splits(SplitSection(**settings), data)


def test_an_unknown_domain_column_is_refused():
    with pytest.raises(RecipeError, match="split.column: unknown column 'corpsu', did you mean 'corpus'"):
        make_splits(SplitSection(**{**DOMAINS, "column": "corpsu"}), make_utterances())


def test_a_split_cannot_test_a_speaker_it_trains_on_without_labels():
    with pytest.raises(SplitError, match="speaker b0 is on both sides .* one of train, dev and test and unlabelled"):
        Split("x", ("a0", "a1"), ("a2",), ("a3", "b0"), unlabelled=("b0", "b1"))


def test_a_label_map_drops_no_utterance_of_the_unlabelled_domain():
    data = make_utterances(emotions=("happy", "sad", "bored"))
    kept, mapped = map_labels("five", data, SETTINGS)
    emotions = {corpus: Counter(utterance.emotion for utterance in kept if utterance.corpus == corpus) for corpus in "ab"}
    assert emotions == {"a": {"happy": 12, "sad": 12}, "b": {"happy": 10, "sad": 10, "": 10}}
    assert (
        mapped.dropped == {"bored": 22} and mapped.unlabelled == 30 and "30 utterances of the unlabelled domain" in mapped.summary
    )
    assert not any(utterance.emotion == "" for utterance in map_labels("five", data)[0]), "without such a split they are dropped"
    assert map_labels("full", data, SETTINGS)[0] == data


@pytest.mark.parametrize("chosen", ["full", "five", "auto", {"happy": "up", "sad": "down"}])
def test_a_missing_label_is_an_error_anywhere_else(chosen):
    of_baseline = relabelled(make_utterances(), lambda utterance: utterance.speaker == "b0", "")
    assert len(map_labels(chosen, of_baseline, SETTINGS)[0]) == len(of_baseline)
    for data, split in (
        (of_baseline, None),
        (relabelled(make_utterances(), lambda utterance: utterance.id == "a0sad0", ""), SETTINGS),
    ):
        with pytest.raises(
            RecipeError, match=r"utterances? (have|has) no emotion \([ab]0.*: only utterances of a domain in split.unlabelled"
        ):
            map_labels(chosen, data, split)


def test_the_emotions_of_a_model_are_those_of_the_source():
    data = relabelled(make_utterances(other=2), lambda utterance: utterance.speaker in ("b0", "c0"), "angry")
    assert labels_of(data, SETTINGS) == ["happy", "sad"] and labels_of(data, SplitSection()) == ["angry", "happy", "sad"]


def half_labelled(number=300):
    """Return a dataset in which the last two speakers, a tenth of the utterances, have no emotion."""
    dataset = unbalanced_dataset(number)
    return replace(dataset, emotion=np.where(dataset.speaker > 2, -1, dataset.emotion))


@pytest.mark.parametrize("kind", ["shuffled", "balanced"])
def test_half_of_every_batch_is_unlabelled_and_every_utterance_is_used(kind):
    dataset, settings = half_labelled(), TrainSection(batch_size=10, batches=kind)
    epochs = [epoch_batches(dataset, settings, 0, number) for number in (1, 2)]
    for batches in epochs:
        assert all(abs((dataset.emotion[batch] < 0).mean() - 0.5) < 0.06 and len(batch) >= 10 for batch in batches)
        drawn = Counter(np.concatenate(batches).tolist())
        unlabelled = [drawn[index] for index in np.flatnonzero(dataset.emotion < 0)]
        assert min(unlabelled) > 0 and sum(unlabelled) == sum(drawn.values()) / 2
        assert kind == "balanced" or max(unlabelled) - min(unlabelled) <= 1
        assert kind == "balanced" or {drawn[index] for index in np.flatnonzero(dataset.emotion >= 0)} == {1}
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))


@pytest.mark.parametrize("kind", ["shuffled", "balanced"])
def test_class_shares_are_computed_on_labelled_utterances(kind):
    dataset = half_labelled()
    labelled = replace(dataset, emotion=dataset.emotion[dataset.emotion >= 0], speaker=dataset.speaker[dataset.emotion >= 0])
    recipe = make_recipe({"train": {"batches": kind}})
    shares, expected = (BatchLoader(part, recipe, 4, (5,), 0, torch.device("cpu")).class_shares() for part in (dataset, labelled))
    assert torch.equal(shares, expected) and shares.sum().item() == pytest.approx(1)


def test_unlabelled_utterances_are_paired_with_each_other_and_add_no_emotion():
    dataset = half_labelled()
    augment = {"concatenate": 0.3, "mixup_same_emotion": 0.3, "mixup_any_emotion": 0.4}
    loader = BatchLoader(dataset, make_recipe({"augment": augment}), 4, (5,), 0, torch.device("cpu"))
    steps = loader.plan_epoch(1)
    for step in steps:
        unlabelled = dataset.emotion[step.chosen] < 0
        assert np.array_equal(dataset.emotion[step.pairs.partner] < 0, unlabelled)
        labels = loader.labels_of(step)
        assert (labels.emotion[torch.from_numpy(unlabelled)] == 0).all()
        assert torch.allclose(labels.emotion[torch.from_numpy(~unlabelled)].sum(dim=1), torch.ones(int((~unlabelled).sum())))
        assert torch.allclose(labels.targets[0].sum(dim=1), torch.ones(len(unlabelled))), "the adversary's target is known of all"
    assert any((step.pairs.partner != step.chosen)[dataset.emotion[step.chosen] < 0].any() for step in steps), (
        "and they are mixed"
    )


# ---- trained on tones: 01 to 04 are corpus a, 05 and 06 corpus b; 05 is trained on without labels

TONES = {
    **TINY,
    "split": {**DOMAINS, "dev": ["03"], "test": ["04", "06"]},
    "labels": {"map": "full"},
    "augment": {**TINY["augment"], "mixup_any_emotion": 0.3, "mixup_same_emotion": 0.2, "concatenate": 0.2},
    "adversary": {"hidden": 8, "target": "corpus", "strength": 1.0},
    "train": {"epochs": 2, "batch_size": 8, "batches": "balanced", "precision": "float32"},
}


def in_two(utterances):
    return [replace(utterance, corpus="b" if utterance.speaker in ("05", "06") else "a") for utterance in utterances]


@pytest.fixture(scope="module")
def both(folder, tmp_path_factory):
    """Prepare the corpus of tones as two corpora."""
    return prepare_table(folder / "corpus.csv", tmp_path_factory.mktemp("both") / "data", in_two)


def changed(folder, out, change):
    """Prepare the same with other labels, which may be empty."""
    listing = CUSTOM_FORMATS["csv"](Request(folder / "corpus.csv"))
    from speaker_invariant_ser.data.prepare import prepare

    return prepare([replace(listing, utterances=change(in_two(listing.utterances)), unlabelled=True)], out)


def weights(run):
    return load_file(run.model_specs[0].folder / "model.safetensors")


@pytest.fixture(scope="module")
def adapted(both, tmp_path_factory):
    return train(make_recipe(TONES), both, tmp_path_factory.mktemp("adapted") / "run", device="cpu")


def same_weights(run, other):
    first, second = weights(run), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("label", ["", "bored", "rising"])
def test_no_label_of_the_target_reaches_the_model(both, adapted, folder, tmp_path, label):
    """With every label of the target's training speakers removed, unknown or wrong, the model is the same to the bit."""
    data = changed(
        folder, tmp_path / "data", lambda utterances: relabelled(utterances, lambda utterance: utterance.speaker == "05", label)
    )
    assert {utterance.emotion for utterance in data.utterances if utterance.speaker == "05"} == {label}
    assert same_weights(adapted, train(make_recipe(TONES), data, tmp_path / "run", device="cpu"))


def test_labels_of_test_speakers_do_not_reach_the_model_and_those_of_the_source_do(adapted, folder, tmp_path):
    def shuffled(speakers):
        next_label = {"rising": "falling", "falling": "level", "level": "rising"}
        return lambda utterances: [
            replace(utterance, emotion=next_label[utterance.emotion]) if utterance.speaker in speakers else utterance
            for utterance in utterances
        ]

    for name, speakers, alike in (("test", ("04", "06"), True), ("source", ("01",), False)):
        data = changed(folder, tmp_path / f"{name}-data", shuffled(speakers))
        assert same_weights(adapted, train(make_recipe(TONES), data, tmp_path / name, device="cpu")) is alike


def test_unlabelled_utterances_are_trained_on_and_the_baseline_has_none(both, adapted, tmp_path):
    recipe = make_recipe(TONES, ["split.use_unlabelled=false", "adversary.target=speaker", "adversary.strength=0"])
    baseline = train(recipe, both, tmp_path / "baseline", device="cpu")
    assert not same_weights(adapted, baseline) and baseline.splits[0].unlabelled == () and adapted.splits[0].unlabelled == ("05",)
    rows, baselines = adapted.model_specs[0].metrics(), baseline.model_specs[0].metrics()
    utterances = len(baseline.splits[0].indices("train", both.utterances))
    assert (rows[0]["step"], baselines[0]["step"]) == (2 * utterances // 8, utterances // 8), (
        "each batch holds as many unlabelled utterances as labelled ones"
    )
    assert rows[0]["adversary_loss_uninformed"] == pytest.approx(np.log(2), rel=1e-4)
    assert Run.open(adapted.folder).splits == adapted.splits


def test_an_adversary_classifies_any_column_that_training_utterances_have(both):
    split = Split("x", ("01", "02"), ("03",), ("04",), unlabelled=("05",))
    assert target_values(both, split, "corpus") == ["a", "b"] and target_values(both, split, "text") == list("abcd")
    assert target_values(both, split, "speaker") == ["01", "02", "05"]
    for column in ("emotion", "samples", "corpsu"):
        with pytest.raises(RecipeError, match=f"unknown column '{column}'.*Expected one of: speaker, corpus, text, sex$"):
            target_values(both, split, column)
    with pytest.raises(RecipeError, match="36 training utterances of fold x have no session"):
        target_values(both, split, "session")


@pytest.fixture(scope="module")
def reports(both, adapted, tmp_path_factory):
    """Reports of the run, compared with its baseline, and of the baseline; and the folder of the first."""
    path = tmp_path_factory.mktemp("domains")
    settings = ["split.use_unlabelled=false", "adversary.target=speaker", "adversary.strength=0", "train.epochs=1"]
    baseline = train(make_recipe(TONES, settings), both, path / "baseline", device="cpu")
    of_baseline = evaluate(baseline, both, "cpu", quick=True).report
    write_report(of_baseline, baseline.folder / "report")
    of_run = evaluate(adapted, both, "cpu", quick=True, against=baseline).report
    return of_run, of_baseline, write_report(of_run, path / "report").parent


def test_each_domain_has_its_own_numbers_and_the_headline_mixes_neither(reports, adapted):
    report, rows = reports[0], list(csv.DictReader((adapted.folder / "predictions.csv").read_text().splitlines()))
    emotion, domains = report.emotion, report.emotion.domains
    for name, speaker in (("source", "04"), ("target", "06")):
        of_speaker = [row for row in rows if row["speaker"] == speaker]
        uar = balanced_accuracy_score([row["emotion"] for row in of_speaker], [row["predicted"] for row in of_speaker])
        tested = getattr(domains, name).tested
        assert tested.uar.value == pytest.approx(uar) and (tested.utterances, tested.speakers) == (12, 1)
    assert len(rows) == 24 and domains.headline == "target" and domains.target_in_training
    assert emotion.uar.value == domains.target.tested.uar.value
    assert set(emotion.per_speaker) == {"06"} and emotion.utterances == 12 and np.sum(emotion.confusion.counts) == 12
    assert "corpus" not in emotion.groups and report.settings.folds[0].unlabelled == ["05"]


@pytest.mark.parametrize("domain", ["source", "target"])
def test_results_on_either_domain_must_follow_from_the_predictions(domain, reports, adapted):
    content = reports[0].to_json()
    assert own_emotion(adapted, reports[0], own_predictions(adapted)).to_json() == content["emotion"]
    content["emotion"]["domains"][domain]["tested"]["accuracy"] = 0.99
    with pytest.raises(RunError, match=f"emotion.domains.{domain}.tested.accuracy is 0.99, expected"):
        own_emotion(adapted, RunReport.model_validate(content), own_predictions(adapted))


def test_the_baseline_is_compared_domain_by_domain(reports):
    of_run, of_baseline, _ = reports
    against = of_run.against
    assert set(against.per_speaker) == {"06"} and not of_baseline.emotion.domains.target_in_training
    for name, result in against.domains.items():
        values = [getattr(report.emotion.domains, name).tested.uar.value for report in (of_run, of_baseline)]
        assert [result.this.value, result.other.value] == pytest.approx(values)
        assert result.difference.value == pytest.approx(values[0] - values[1])
    assert set(against.domains) == {"source", "target"}
    assert against.emotion.uar.value == pytest.approx(of_baseline.emotion.uar.value)


def test_the_report_says_which_domain_is_which(reports):
    of_run, _, folder = reports
    source, target = of_run.emotion.domains.source.tested.uar.value, of_run.emotion.domains.target.tested.uar.value
    assert "unseen speaker of b: " in of_run.verdict[0]
    assert "and on unlabelled utterances of b." in of_run.verdict[0]
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "Source and target domain" in text and "source: a" in text.replace("\u00a0", " ") and "target: b" in text
        assert f"{100 * source:.1f}" in text and f"{100 * target:.1f}" in text and "training speakers without labels" in text
        assert "emotion UAR, unseen speakers of b" in text and "emotion UAR, unseen speakers of a" in text
    assert json.loads((folder / "report.json").read_text())["emotion"]["domains"] == of_run.emotion.domains.to_json()


def test_without_labels_in_the_target_the_headline_is_the_source():
    data = relabelled(make_utterances(), lambda utterance: utterance.corpus == "b", "")
    (split,) = make_splits(SplitSection(**DOMAINS, test=("a0", "a1")), data)
    domains = domains_of(SETTINGS, [data[index] for index in split.indices("test", data)])
    assert headline(domains).all() and set(domains) == {"source"}
    results = domain_results(SETTINGS, synthetic_predictions(clips=8), domains)
    assert results.headline == "source" and results.target.to_json() == {"values": ["b"], "tested": None}
    assert domain_results(SplitSection(), synthetic_predictions(clips=8), domains_of(SplitSection(), data)[:8]) is None
    assert headline(domains_of(SplitSection(), data)).all(), "in other runs the headline is on all utterances"


def test_uar_is_over_the_emotions_that_a_domain_has():
    predictions = synthetic_predictions(clips=80)
    domains = np.where(predictions.truth == 2, "source", "target")
    results = domain_results(SETTINGS, predictions, domains)
    of_target = predictions.rows(domains == "target")
    assert results.target.tested.uar.value == pytest.approx(
        np.mean([(of_target.predicted == of_target.truth)[of_target.truth == label].mean() for label in (0, 1)])
    )
    assert results.target.tested.chance == 0.5 and results.source.tested.chance == 1.0


# ---- data without labels


def test_audio_without_labels_is_prepared_only_with_the_option(folder, tmp_path, capsys):
    rows = list(csv.DictReader((folder / "corpus.csv").read_text().splitlines()))
    bare = tmp_path / "bare.csv"
    bare.write_text("path,speaker\n" + "".join(f"{folder}/{row['path']},{row['speaker']}\n" for row in rows[:12]))
    with pytest.raises(ManifestError, match="no column emotion; found path, speaker"):
        CUSTOM_FORMATS["csv"](Request(bare))
    listing = CUSTOM_FORMATS["csv"](Request(bare, unlabelled=True))
    assert {utterance.emotion for utterance in listing.utterances} == {""} and listing.unlabelled
    out = tmp_path / "data"
    arguments = ["prepare", "csv", str(folder / "corpus.csv"), str(out), "--also", f"csv={bare}", "--jobs", "1"]
    assert siser(arguments) == 2 and "no column emotion" in capsys.readouterr().err
    bare.write_text("path,speaker,emotion\n" + "".join(f"{folder}/{row['path']},x{row['speaker']},\n" for row in rows[60:]))
    assert siser(arguments) == 2 and "empty emotion in row 1" in capsys.readouterr().err
    assert siser(["prepare", "emodb", str(folder), str(out), "--unlabelled"]) == 2
    assert "--unlabelled: for your own data only" in capsys.readouterr().err


def test_a_corpus_without_labels_is_prepared_trained_on_and_evaluated(folder, tmp_path, capsys):
    """Twelve utterances of another speaker are in a table without emotions."""
    rows = list(csv.DictReader((folder / "corpus.csv").read_text().splitlines()))
    table = tmp_path / "corpus.csv"
    lines = [f"{folder}/{row['path']},{row['speaker']},{row['emotion']},{row['text']},{row['sex']}\n" for row in rows[:60]]
    table.write_text("path,speaker,emotion,text,sex\n" + "".join(lines))
    (tmp_path / "bare.csv").write_text("path,speaker\n" + "".join(f"{folder}/{row['path']},x\n" for row in rows[60:]))
    data, out = tmp_path / "data", tmp_path / "run"
    also = ["--also", f"csv={tmp_path}/bare.csv", "--unlabelled", "--jobs", "1"]
    assert siser(["prepare", "csv", str(table), str(data), *also]) == 0
    assert "12 utterances have no emotion" in capsys.readouterr().out
    settings = json.loads((data / "prepare.json").read_text())
    assert settings["unlabelled"] == 12 and "" not in settings["emotions"] and settings["counts"]["emotions"] == 3
    recipe = tmp_path / "recipe.toml"
    from speaker_invariant_ser.config import write_toml

    own = {**TONES, "split": {"scheme": "domain", "source": ["corpus"], "unlabelled": ["bare"], "test": ["corpus-05"]}}
    recipe.write_text(write_toml(make_recipe({**own, "train": {"epochs": 1, "batch_size": 8}})))
    command = ["train", str(recipe), "--data", str(data), "--device", "cpu", "--out"]
    assert siser([*command, str(tmp_path / "no"), "--set", "split.scheme=loso"]) == 2
    assert "12 utterances have no emotion" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert siser([*command, str(out)]) == 0
    assert "12 utterances of the unlabelled domain" in capsys.readouterr().out
    assert siser(["evaluate", str(out), "--device", "cpu", "--quick"]) == 0
    domains = json.loads((out / "report" / "report.json").read_text())["emotion"]["domains"]
    assert domains["headline"] == "source" and domains["target"] == {"values": ["bare"], "tested": None}
    assert "No utterance of the target domain has a label" in (out / "report" / "report.md").read_text()


# ---- the recipes


@pytest.mark.parametrize("source, target", [("emodb", "nemo"), ("nemo", "emodb")])
def test_the_recipes_take_one_corpus_with_labels_and_the_other_without(source, target):
    """On as many speakers as the two corpora have; the baseline of the comments has the same test speakers."""
    path = Path(__file__).resolve().parents[2] / "recipes" / f"domain-{source}-{target}.toml"
    names = {"a": source, "b": target}
    counts = {"emodb": 10, "nemo": 9}
    data = make_utterances(counts[source], counts[target], emotions=("happy", "sad", "bored"))
    data = [replace(utterance, corpus=names[utterance.corpus]) for utterance in data]
    changes = re.findall(r"--set (\S+)", path.read_text())
    assert len(changes) == 3
    recipe, baseline = read_recipe(path), read_recipe(path, changes)
    kept = map_labels(recipe.labels.map, data, recipe.split)[0]
    assert labels_of(kept, recipe.split) == ["happy", "sad"]
    folds, baselines = (make_splits(settings.split, kept) for settings in (recipe, baseline))
    assert [replace(split, unlabelled=()) for split in folds] == baselines and len(folds) == 5
    assert all({name[0] for name in split.unlabelled} == {"b"} and len(split.unlabelled) >= 7 for split in folds)
    assert sum(len(split.test) for split in folds) == 19 and all(len(split.train) >= 5 for split in folds)
    assert recipe.adversary.target == "corpus" and baseline.adversary.strength == 0
