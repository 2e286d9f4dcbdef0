"""Predictions, temperature scaling and emotion results, for invented predictions and those of a small run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import LABELS, SPEAKERS, synthetic_predictions
from sklearn.metrics import balanced_accuracy_score, log_loss

from speaker_invariant_ser import metrics
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation import evaluate as evaluation
from speaker_invariant_ser.evaluation import model_outputs
from speaker_invariant_ser.evaluation.emotion import by_group, emotion_results, group_columns
from speaker_invariant_ser.evaluation.predictions import (
    ARRAYS,
    Predictions,
    join,
    read_predictions,
    with_temperatures_of_other_folds,
    write_predictions,
)
from speaker_invariant_ser.models.calibration import apply_temperature, fit_temperature
from speaker_invariant_ser.models.model import load_model


def with_seeds(*seeds, clips=80) -> Predictions:
    """Different predictions of several seeds for the same utterances."""
    first = synthetic_predictions(clips=clips)
    probabilities = [synthetic_predictions(10 + seed, clips).probability for seed in seeds]
    return join([replace(first, seed=np.full(clips, s), probability=p) for s, p in zip(seeds, probabilities, strict=True)])


def test_predictions_are_read_back_as_they_were_written(tmp_path):
    """Speakers that look like numbers, missing values or two cells stay what they are; float32 comes back to the bit."""
    written = with_seeds(7, 8)
    write_predictions(tmp_path / "predictions.csv", written)
    assert (tmp_path / "predictions.csv").read_text(encoding="utf-8").startswith('"id","speaker","fold","seed","emotion",')
    read = read_predictions(tmp_path / "predictions.csv")
    assert read.labels == LABELS and set(read.speaker) == set(SPEAKERS)
    for name in ARRAYS:
        assert np.array_equal(getattr(read, name), getattr(written, name)), name
    assert emotion_results(read).uar == emotion_results(written).uar


def test_a_table_without_seeds_is_read_as_one_seed(tmp_path):
    path, written = tmp_path / "predictions.csv", synthetic_predictions(trained_from=5)
    write_predictions(path, written)
    path.write_text(path.read_text(encoding="utf-8").replace('"seed",', "").replace('"a",5,', '"a",'), encoding="utf-8")
    read = read_predictions(path)
    assert read.seeds == [0] and written.seeds == [5]
    results, expected = emotion_results(read), emotion_results(written)
    assert results.uar.seeds == {"0": expected.uar.value} and expected.uar.seeds == {"5": expected.uar.value}
    assert results.model_copy(update={"uar": None}) == expected.model_copy(update={"uar": None})


def test_a_missing_table_is_refused_with_the_command_that_writes_it(tmp_path):
    with pytest.raises(RunError, match=f"no predictions.csv in {tmp_path}; evaluate it first with `siser evaluate {tmp_path}`"):
        read_predictions(tmp_path / "predictions.csv")


DAMAGES = {
    "a column is gone": (lambda text: text.replace("speaker", "talker", 1), "no column speaker"),
    "no probabilities": (lambda text: text.replace("p_", "q_"), "no column of probabilities for emotion anger, joy, no, thanks"),
    "another emotion": (lambda text: text.replace('"anger","', '"rage","', 1), "no column of probabilities for emotion rage"),
    "no rows": (lambda text: text.splitlines()[0] + "\n", "no rows"),
    "empty": (lambda text: "", "is empty, expected a CSV table"),
    "cut short": (lambda text: text[: len(text) // 2].rpartition(",")[0], "cannot be read as a CSV table"),
    "no number": (lambda text: last_cell(text, "much"), "could not convert string to float: 'much'"),
    "not finite": (lambda text: last_cell(text, "nan"), "a probability that is not finite"),
    "a negative number": (lambda text: last_cell(text, "-5"), "the probabilities in row 80 are negative or do not add up to 1"),
    "no probability": (lambda text: last_cell(text, "7"), "the probabilities in row 80 are negative or do not add up to 1"),
    "too large a number": (lambda text: last_cell(text, "1e39"), "a probability that is not finite"),
    "a row twice": (lambda text: text + text.splitlines()[-1] + "\n", "id, fold and seed 'a00079', 'a', 0 have two rows"),
    "too large a seed": (lambda text: text.replace('"a",0,', f'"a",{10**20},', 1), "too large"),
    "an empty cell": (lambda text: last_cell(text, ""), "could not convert string to float: ''"),
    "no seed": (lambda text: text.replace('"a",0,', '"a",x,', 1), "invalid literal for int.*'x'"),
    "an utterance of a single seed": (
        lambda text: text.replace('"a",0,', '"a",1,', 1),
        "seed 1 has other utterances than seed 0",
    ),
}


def last_cell(text, cell):
    return f"{text.rstrip().rpartition(',')[0]},{cell}\n"


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_table_is_refused(damage, reason, tmp_path):
    path = tmp_path / "predictions.csv"
    write_predictions(path, synthetic_predictions())
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(RunError, match=f"{path} is damaged .*{reason}.*siser evaluate {tmp_path}`"):
        read_predictions(path)


def test_a_temperature_divides_the_logits():
    logits = torch.tensor(np.random.default_rng(0).normal(0, 3, (20, 4)))
    for temperature in (0.3, 1.0, 4.0):
        expected = (logits / temperature).softmax(dim=1).numpy()
        assert np.allclose(apply_temperature(logits.softmax(dim=1).numpy(), temperature), expected)


@pytest.mark.parametrize("applied", [0.25, 0.5, 1.0, 2.0])
def test_fitting_recovers_the_temperature_that_was_applied(applied):
    predictions = synthetic_predictions(clips=4000, temperature=applied)
    temperature = fit_temperature(predictions.truth, predictions.probability)
    assert temperature == pytest.approx(1 / applied, rel=0.1)
    scaled = [apply_temperature(predictions.probability, temperature * factor) for factor in (0.9, 1, 1.1)]
    losses = [log_loss(predictions.truth, probability, labels=range(3)) for probability in scaled]
    assert losses[1] < min(losses[0], losses[2])


def test_temperature_scaling_corrects_overconfidence():
    dev, test = synthetic_predictions(1, 2000, temperature=0.25), synthetic_predictions(2, 2000, temperature=0.25)
    tested = Predictions(**{**vars(test), "temperatures": {"a": fit_temperature(dev.truth, dev.probability)}})
    calibration = emotion_results(tested).calibration
    assert calibration.before.ece > 0.15 and calibration.after.ece < 0.04
    assert calibration.before.ece == emotion_results(tested).ece
    untouched = emotion_results(test).calibration
    assert untouched.after.ece == pytest.approx(untouched.before.ece) and untouched.temperatures == {}
    assert np.array_equal(tested.calibrated.argmax(axis=1), tested.predicted), "a temperature changes no decision"
    for side, probability in ((calibration.before, tested.probability), (calibration.after, tested.calibrated)):
        assert sum(part.clips for part in side.bins) == 2000 and min(part.clips for part in side.bins) > 0
        confidence = sum(part.confidence * part.clips for part in side.bins) / 2000
        assert confidence == pytest.approx(probability.max(axis=1).mean(), abs=1e-6)


def test_each_fold_has_its_own_temperature():
    parts = [
        Predictions(**{**vars(synthetic_predictions(fold=fold)), "temperatures": {fold: temperature}})
        for fold, temperature in (("a", 2.0), ("b", 0.5))
    ]
    both = join(parts)
    assert both.temperatures == {"a": 2.0, "b": 0.5} and len(both.id) == 160
    assert np.allclose(both.calibrated[:80], apply_temperature(parts[0].probability, 2.0))
    assert np.allclose(both.calibrated[80:], apply_temperature(parts[1].probability, 0.5))


def test_each_seed_of_a_fold_has_its_own_temperature():
    parts = [
        replace(synthetic_predictions(trained_from=seed), temperatures={f"a, seed {seed}": temperature})
        for seed, temperature in ((3, 2.0), (4, 0.5))
    ]
    both = join(parts)
    assert np.allclose(both.calibrated[:80], apply_temperature(parts[0].probability, 2.0))
    assert np.allclose(both.calibrated[80:], apply_temperature(parts[1].probability, 0.5))
    assert np.allclose(parts[1].calibrated, both.calibrated[80:]), "a part alone has the same temperature"


def test_other_folds_give_a_temperature_without_the_speakers_of_the_fold():
    parts = [
        replace(synthetic_predictions(seed=seed, clips=1500, fold=fold, temperature=0.3, trained_from=seed), speaker=speaker)
        for seed in (3, 4)
        for fold, speaker in (("a", np.full(1500, "x")), ("b", np.full(1500, "y")), ("c", np.full(1500, "x")))
    ]
    fitted = with_temperatures_of_other_folds(join(parts))
    assert set(fitted.temperatures) == {f"{fold}, seed {seed}" for fold in "abc" for seed in (3, 4)}
    for fold, others in (("a", parts[1:2]), ("b", [parts[0], parts[2]]), ("c", parts[1:2])):
        rows = join(others)
        assert fitted.temperatures[f"{fold}, seed 3"] == pytest.approx(fit_temperature(rows.truth, rows.probability))
    results = emotion_results(fitted)
    assert results.calibration.before.ece > 0.12 and results.calibration.after.ece < 0.04
    alone = with_temperatures_of_other_folds(join(parts[:1]))
    assert alone.temperatures == {} and set(with_temperatures_of_other_folds(join(parts[:2])).temperatures) == {"a", "b"}


def test_results_pooled_over_seeds_are_means_over_seeds():
    """All seeds are tested on the same utterances, so that nothing else has to handle seeds."""
    predictions = with_seeds(2, 0, 1)
    pooled, by_seed = (
        emotion_results(predictions),
        [emotion_results(predictions.rows(predictions.seed == seed)) for seed in range(3)],
    )
    uars = [results.uar.value for results in by_seed]
    assert len(set(uars)) == 3
    assert pooled.uar.value == pytest.approx(np.mean(uars))
    assert pooled.uar.seeds == dict(zip("012", uars, strict=True))
    assert pooled.uar.deviation == pytest.approx(np.std(uars, ddof=1))
    assert pooled.accuracy == pytest.approx(np.mean([results.accuracy for results in by_seed]))
    for speaker, result in pooled.per_speaker.items():
        assert result.uar == pytest.approx(np.mean([results.per_speaker[speaker].uar for results in by_seed]))
    assert by_seed[1].uar.seeds == {"1": uars[1]} and by_seed[1].uar.deviation is None


def test_utterances_count_once_whatever_the_number_of_seeds():
    predictions, of_one_seed = with_seeds(0, 1, 2), synthetic_predictions()
    results, expected = emotion_results(predictions), emotion_results(of_one_seed)
    assert len(predictions.id) == 240 and results.utterances == expected.utterances == 80
    for speaker, result in results.per_speaker.items():
        assert result.utterances == expected.per_speaker[speaker].utterances
    group = by_group(predictions, {"corpus": np.full(240, "made")})["corpus"]["made"]
    assert (group.utterances, group.speakers) == (80, 4) and np.sum(results.confusion.counts) == 240


def test_seeds_that_agree_make_the_interval_no_narrower():
    """Resampling speakers keeps identical rows together; resampling rows would take them as independent."""
    predictions = synthetic_predictions()
    copies = join([replace(predictions, seed=np.full(80, seed)) for seed in range(5)])
    pooled, of_one_seed = emotion_results(copies).uar, emotion_results(predictions).uar
    assert (pooled.value, pooled.low, pooled.high) == pytest.approx((of_one_seed.value, of_one_seed.low, of_one_seed.high))
    assert pooled.deviation == 0
    by_row = metrics.cluster_interval(copies.truth, copies.predicted, np.arange(400), 3)
    of_one_seed_by_row = metrics.cluster_interval(predictions.truth, predictions.predicted, np.arange(80), 3)
    assert by_row[1] - by_row[0] < 0.6 * (of_one_seed_by_row[1] - of_one_seed_by_row[0])


@pytest.mark.parametrize("correct", [True, False], ids=["all correct", "all incorrect"])
@pytest.mark.parametrize("confidence", [0.9, 1.0], ids=["confidence 0.9", "confidence 1"])
def test_a_temperature_stays_finite(correct, confidence):
    truth = np.arange(30) % 3
    predicted = truth if correct else (truth + 1) % 3
    probability = np.where(np.eye(3)[predicted] == 1, confidence, (1 - confidence) / 2).astype(np.float32)
    temperature = fit_temperature(truth, probability)
    assert 0.05 <= temperature <= 20 and (temperature < 1.1 if correct else temperature > 19)
    scaled = apply_temperature(probability, temperature)
    assert np.isfinite(scaled).all() and np.allclose(scaled.sum(axis=1), 1)


def test_the_results_are_json_and_give_the_spread_of_the_speakers():
    predictions = synthetic_predictions()
    results = emotion_results(predictions)
    assert json.loads(json.dumps(results.to_json(), allow_nan=False)) == results.to_json()
    uars = [
        balanced_accuracy_score(predictions.truth[rows], predictions.predicted[rows])
        for name in SPEAKERS
        if any(rows := predictions.speaker == name)
    ]
    assert results.spread == pytest.approx(np.std(uars, ddof=1))
    assert results.worst_speaker.uar == pytest.approx(min(uars))
    assert results.macro_f1 == metrics.macro_f1(predictions.truth, predictions.predicted, 3)


def test_pooled_uar_and_mean_over_speakers_differ_where_speakers_differ_in_their_utterances():
    """Speaker a: 8 utterances, all wrong but of one emotion; speaker b: 2, both correct.

    Pooled recalls are 1 of 5 and 5 of 5, UAR 0.6. UAR of a is (0 + 1) / 2 and of b (1 + 1) / 2, their mean 0.75.
    """
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1])
    predicted = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 1])
    speaker = np.array(["a"] * 8 + ["b"] * 2)
    results = emotion_results(
        Predictions(
            labels=("x", "y"),
            id=np.arange(10).astype(str),
            speaker=speaker,
            fold=speaker,
            seed=np.zeros(10, dtype=int),
            truth=truth,
            probability=np.eye(2, dtype=np.float32)[predicted],
        )
    )
    assert results.uar.value == pytest.approx(0.6)
    assert results.uar_mean_over_speakers.value == pytest.approx(0.75)


def test_three_speakers_are_the_fewest_with_an_interval():
    """The bootstrap of two has three different resamples, and its interval can lie outside of both speakers' results."""
    predictions = synthetic_predictions()
    for number in (2, 3):
        results = emotion_results(predictions.rows(np.isin(predictions.speaker, ["01", "1", "NA"][:number])))
        scores = (results.uar, results.uar_mean_over_speakers)
        assert all((score.low is None, score.high is None) == (number < 3,) * 2 for score in scores), number
        if number == 3:
            assert all(score.low <= score.value <= score.high for score in scores)


def test_one_speaker_has_results_without_interval_and_spread():
    predictions = synthetic_predictions()
    of_speaker = predictions.rows(predictions.speaker == "NA")
    results = emotion_results(of_speaker)
    assert results.spread is None and results.uar.low is None and results.uar.high is None
    mean = results.uar_mean_over_speakers
    assert (mean.value, mean.low, mean.high) == (pytest.approx(results.uar.value), None, None)
    assert results.uar.value == pytest.approx(balanced_accuracy_score(of_speaker.truth, of_speaker.predicted))
    json.dumps(results.to_json(), allow_nan=False)


def test_a_class_that_never_occurs_has_no_recall_and_does_not_count():
    predictions = synthetic_predictions()
    results = emotion_results(predictions.rows(predictions.truth != 1))
    assert results.per_class["joy"] is None and results.chance == 0.5
    assert results.uar.value == pytest.approx((results.per_class["anger"] + results.per_class["no, thanks"]) / 2)


def make_utterances(count=24, **columns) -> list[Utterance]:
    """Return utterances whose further columns are given as functions of their position."""
    return [
        Utterance(f"c{n}", "made", f"s{n % 4}", "joy", **{name: value(n) for name, value in columns.items()})
        for n in range(count)
    ]


def test_groups_are_columns_of_2_to_20_values_and_those_asked_for():
    utterances = make_utterances(
        sex=lambda n: "male" if n % 2 else "female", session=str, style=lambda n: "speech", text=lambda n: f"t{n % 3}"
    )
    assert list(group_columns(utterances)) == ["sex"], "one corpus, one style, 24 sessions; no language, no intensity"
    assert list(group_columns(utterances[:20])) == ["sex", "session"]
    assert list(group_columns(utterances, ("text", "style", "sex"))) == ["sex", "text", "style"]
    assert "sex" not in group_columns(make_utterances(sex=lambda n: "male" if n % 2 else "")), "unknown is no value"


def test_unknown_and_empty_columns_are_refused():
    utterances = make_utterances(text=lambda n: "t")
    with pytest.raises(RunError, match="unknown column 'txt', did you mean 'text'. Expected one of: corpus, text, sex, language"):
        group_columns(utterances, ("txt",))
    for name in ("emotion", "speaker", "id", "samples"):
        with pytest.raises(RunError, match=f"unknown column '{name}'"):
            group_columns(utterances, (name,))
    with pytest.raises(RunError, match="column 'sex' is empty for every test utterance; filled are corpus, text"):
        group_columns(utterances, ("sex",))


def test_groups_are_scored_like_the_whole_test_set():
    predictions = synthetic_predictions()
    sex = np.where(np.isin(predictions.speaker, ["01", "1"]), "female", np.where(predictions.speaker == "NA", "male", ""))
    groups = by_group(predictions, {"sex": sex, "corpus": np.full(80, "made")})
    assert list(groups["sex"]) == ["female", "male"]
    female, male, corpus = groups["sex"]["female"], groups["sex"]["male"], groups["corpus"]["made"]
    assert (female.speakers, female.utterances, male.speakers, male.utterances) == (2, 40, 1, 20)
    is_female = sex == "female"
    assert female.uar.value == pytest.approx(
        balanced_accuracy_score(predictions.truth[is_female], predictions.predicted[is_female])
    )
    assert female.uar.low is male.uar.low is None, "fewer than three speakers"
    whole = emotion_results(predictions)
    assert (corpus.uar.value, corpus.uar.low, corpus.uar.high) == (whole.uar.value, whole.uar.low, whole.uar.high)
    assert corpus.accuracy == whole.accuracy and corpus.chance == whole.chance == pytest.approx(1 / 3)
    of_two = by_group(predictions, {"style": np.where(predictions.truth < 2, "read", "")})["style"]["read"]
    assert of_two.chance == 0.5, "two of the three emotions occur in the group"


def test_the_temperature_of_a_fold_is_that_of_its_dev_speakers(trained, prepared, monkeypatch):
    """The small model is too poor for two temperatures to differ, so the probabilities are synthetic; the speakers are real."""
    spec = trained.model_specs[0]
    model, split = load_model(spec.folder), spec.split
    stored = model_outputs.predict_test_speakers(model, prepared, spec, None, trained.recipe).temperatures
    assert stored == {spec.name: model.settings.temperature}
    model.settings = model.settings.model_copy(update={"temperature": None})  # as in version 0.2.0
    by_part = {}

    def classify(model, prepared, split, part, means):
        utterances, outputs = original_classify(model, prepared, split, part, means)
        probability = synthetic_predictions(clips=len(utterances), temperature={"dev": 0.3, "test": 2.0}[part]).probability
        assert outputs.probability.shape == probability.shape
        by_part[part] = (utterances, probability)
        return utterances, replace(outputs, probability=probability)

    original_classify = model_outputs.classify
    monkeypatch.setattr(model_outputs, "classify", classify)
    tested = model_outputs.predict_test_speakers(model, prepared, spec, None, trained.recipe)
    assert {part: {utterance.speaker for utterance in by_part[part][0]} for part in by_part} == {
        "dev": set(split.dev),
        "test": set(split.test),
    }
    truth = {
        part: np.array([model.labels.index(utterance.emotion) for utterance in utterances])
        for part, (utterances, _) in by_part.items()
    }
    assert set(tested.seed) == {spec.seed} and set(tested.fold) == {split.name}
    assert tested.temperatures == {spec.name: fit_temperature(truth["dev"], by_part["dev"][1])}
    assert np.array_equal(tested.probability, by_part["test"][1]) and np.array_equal(tested.truth, truth["test"])


def test_an_unknown_column_is_refused_before_any_work(trained, prepared):
    def fail(*step):
        raise AssertionError(f"work was done first: {step}")

    with pytest.raises(RunError, match="unknown column 'gender'"):
        evaluation.evaluate(trained, prepared, "cpu", fail, by=("gender",))
