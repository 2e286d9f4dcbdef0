"""The table [sweep] of a recipe: what it may say, and the error for everything else."""

import json

import pytest
from checkpoints import describe_checkpoint
from helpers import fake_hub
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from speaker_invariant_ser.config import make_recipe, read_recipe, write_toml
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.features.pretrained import checkpoint
from speaker_invariant_ser.studies.sweep_folds import with_same_checkpoint
from speaker_invariant_ser.studies.sweep_space import Choices, Range, SweepSettings, read_sweep


def sweep_of(tmp_path, text, head=""):
    path = tmp_path / "recipe.toml"
    path.write_text(f"{head}\n[sweep]\n{text}\n")
    return read_sweep(path)


def test_choices_ranges_and_settings_are_read(tmp_path):
    text = """
        trials = 7
        folds = ["03", "08"]
        leak_weight = 0
        seed = 4
        pruner = false
        "train.learning_rate" = {low = 5e-4, high = 5e-3, log = true}
        encoder.dropout = [0.1, 0.2]
        "emotion.dropout" = {low = 0, high = 0.5, step = 0.25}
        "encoder.channels" = [[8, 16], [32, 64]]
        [sweep.train]
        batch_size = {low = 8, high = 32, step = 8}
    """
    sweep = sweep_of(tmp_path, text)
    assert sweep.settings == SweepSettings(trials=7, folds=("03", "08"), leak_weight=0, seed=4, pruner=False)
    space = {key: values.distribution for key, values in sweep.space.items()}
    assert space == {
        "train.learning_rate": FloatDistribution(5e-4, 5e-3, log=True),
        "encoder.dropout": CategoricalDistribution(["0.1", "0.2"]),
        "emotion.dropout": FloatDistribution(0, 0.5, step=0.25),
        "encoder.channels": CategoricalDistribution(["[8, 16]", "[32, 64]"]),
        "train.batch_size": IntDistribution(8, 32, step=8),
    }
    sampled = {
        "train.learning_rate": 0.00123456,
        "encoder.dropout": "0.2",
        "emotion.dropout": 0.25,
        "encoder.channels": "[8, 16]",
        "train.batch_size": 16,
    }
    recipe = sweep.recipe_with(sweep.values(sampled))
    assert recipe.train.learning_rate == 0.001235 and recipe.train.batch_size == 16
    assert recipe.encoder.dropout == 0.2 and recipe.encoder.channels == (8, 16) and recipe.emotion.dropout == 0.25


def test_a_number_is_not_rounded_out_of_its_range():
    assert Range(1.00006, 2.00004, log=True).value(1.00006) == 1.00006
    assert Range(1.00006, 2.00004, log=True).value(2.00004) == 2.0
    assert Range(0.1, 0.7, step=0.1).value(0.1 + 0.2) == 0.3


def test_choices_tell_numbers_from_truth_values():
    choices = Choices((1, True, "1"))
    assert [choices.value(text) for text in ("1", "true", '"1"')] == [1, True, "1"]
    assert choices.value("true") is True


ERRORS = {
    "": "[sweep] searches nothing; expected recipe keys",
    "trials = 0\nencoder.dropout = [0.1]": "sweep.trials = 0: should be greater than or equal to 1",
    "folds_ = 1": "unknown setting in [sweep] 'folds_', did you mean 'folds'?",
    "folds = 0.5\nencoder.dropout = [0.1]": "sweep.folds = 0.5: expected a number of folds, or a list of their names",
    "leak_weight = -1\nencoder.dropout = [0.1]": "sweep.leak_weight = -1: should be greater than or equal to 0",
    "leak_weight = inf\nencoder.dropout = [0.1]": "sweep.leak_weight = inf: should be a finite number",
    "epochs = 3": "unknown setting in [sweep] 'epochs'. Expected one of: trials, folds",
    '"encodr.dropout" = [0.1]': "[sweep] unknown section 'encodr', did you mean 'encoder'?",
    '"train.lerning_rate" = [0.1]': "[sweep] unknown key in [train] 'lerning_rate', did you mean 'learning_rate'?",
    '"encoder.dropuot" = [0.1]': "[sweep] unknown key in [encoder] 'dropuot', did you mean 'dropout'?",
    '"encoder.dropout" = [0.1, 1.5]': "[sweep] encoder.dropout = 1.5: should be less than 1",
    '"train.learning_rate" = {low = 0.1, high = 11}': "train.learning_rate = 11: should be less than or equal to 10",
    '"train.schedule" = ["cosine", "cosin"]': "train.schedule = 'cosin': should be 'one-cycle', 'cosine' or 'constant'",
    '"encoder.channels" = [[8, -1]]': "encoder.channels.1 = -1",
    '"encoder.name" = ["cnn", "cn"]': "unknown encoder.name 'cn', did you mean 'cnn'?",
    '"adversary.kernel_widths" = [[1.0]]': 'does nothing with adversary.name = "grl", which is all that is tried',
    '"extra_adversaries.strength" = [1]': "cannot be searched: it is a list of tables",
    '"split.seed" = [1, 2]': "split.seed cannot be searched: trials on different speakers cannot be compared",
    '"labels.map" = ["five"]': "cannot be searched: trials with different classes",
    '"audit.folds" = [2]': "cannot be searched: trials that are audited differently",
    '"train.refit" = [true, false]': "train.refit cannot be searched: a sweep scores configurations on dev speakers",
    '"train.seed" = [1, 2]': "train.seed cannot be searched: the best of many seeds is luck",
    '"encoder.dropout" = 0.1': "encoder.dropout = 0.1: expected a list of values, or a table such as {low = 0.1, high = 0.5}",
    '"encoder.dropout" = []': "expected a list of different numbers",
    '"encoder.dropout" = [0.1, 0.1]': "expected a list of different numbers",
    '"encoder.dropout" = [1979-05-27]': "expected a list of different numbers",
    '"encoder.dropout" = {low = 0.1, hihg = 0.5}': "unknown key 'hihg', did you mean 'high'?",
    '"encoder.dropout" = {low = 0.1}': "expected numbers as low and high",
    '"encoder.dropout" = {low = 0.5, high = 0.1}': "expected low below high",
    '"encoder.dropout" = {low = 0, high = 0.5, log = true}': "if true, expected low above 0 and no step",
    '"encoder.dropout" = {low = 0.1, high = 0.5, log = 1.5}': "log should be true or false",
    '"encoder.dropout" = {low = 0.1, high = 0.5, step = 0.3}': "expected high to be low plus a whole number of steps",
    '"encoder.dropout" = {low = 0.1, high = 0.5, step = 0}': "expected high to be low plus a whole number of steps",
    '"train.batch_size" = {low = 8.5, high = 16}': "expected whole numbers as low and high",
}


@pytest.mark.parametrize("text", ERRORS)
def test_a_mistake_in_the_table_is_named(text, tmp_path):
    with pytest.raises(RecipeError) as error:
        sweep_of(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'recipe.toml'}: ") and ERRORS[text] in str(error.value)


def test_a_recipe_without_the_table_is_told_what_to_write(tmp_path):
    (tmp_path / "recipe.toml").write_text("[train]\nepochs = 3\n")
    with pytest.raises(RecipeError, match=r"expected a table \[sweep\] with the keys to search"):
        read_sweep(tmp_path / "recipe.toml")


def test_a_key_is_checked_with_every_method_that_is_tried(tmp_path):
    sweep = sweep_of(tmp_path, '"adversary.kernel_widths" = [[1.0], [2.0]]\n"adversary.name" = ["grl", "hsic"]')
    assert list(sweep.space) == ["adversary.kernel_widths", "adversary.name"]
    with pytest.raises(RecipeError, match=r"adversary.kernel_widths.0 = 0.0: should be greater than or equal to 0.01"):
        sweep_of(tmp_path, '"adversary.kernel_widths" = [[0.0]]\n"adversary.name" = ["grl", "hsic"]')


def test_values_that_only_go_together_are_no_mistake(tmp_path):
    sweep = sweep_of(tmp_path, '"features.streams" = [["log-mel"], ["prosody"]]\n"encoder.name" = ["cnn", "prosody"]')
    assert sweep.recipe_with({"features.streams": ["log-mel"], "encoder.name": "cnn"}).encoder.name == "cnn"
    with pytest.raises(RecipeError, match=r"encoder.name = prosody with features.streams"):
        sweep.recipe_with({"features.streams": ["log-mel"], "encoder.name": "prosody"})


def test_everything_else_ignores_the_table(tmp_path):
    sweep = sweep_of(tmp_path, '"encoder.dropout" = [0.1]', head="[train]\nepochs = 3")
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe == sweep.recipe == make_recipe({"train": {"epochs": 3}})
    assert "sweep" not in write_toml(recipe)
    with pytest.raises(RecipeError, match="unknown section 'sweep'"):
        read_recipe(tmp_path / "recipe.toml", ["sweep.trials=3"])


def test_a_continued_search_has_the_checkpoint_that_it_was_started_with(tmp_path, monkeypatch):
    folders = {name: describe_checkpoint(tmp_path / name) for name in ("a" * 40, "b" * 40)}
    fake_hub(monkeypatch, lambda _, revision, **__: str(folders[revision or "b" * 40]))
    checkpoint.downloaded.cache_clear()
    head = '[encoder]\nname = "pretrained"\nsource = "owner/name"\n[features]\nstreams = ["waveform"]\n[augment]\n'
    head += "tempo = 0.0\nwarp = 0.0\nequaliser_db = 0.0\nfrequency_masks = 0\ntime_masks = 0\n"
    sweep, journal = sweep_of(tmp_path, '"encoder.dropout" = [0.1, 0.2]', head), tmp_path / "journal.jsonl"
    started = sweep.recipe.model_copy(update={"encoder": sweep.recipe.encoder.model_copy(update={"revision": "a" * 40})})
    journal.write_text("[]\n{\n" + json.dumps({"user_attr": {"request": {"recipe": started.model_dump(mode="json")}}}) + "\n")
    for resume, expected in ((True, "a" * 40), (False, "b" * 40)):
        assert with_same_checkpoint(sweep, journal, resume).recipe.encoder.revision == expected
    searched = sweep_of(tmp_path, 'encoder.source = ["owner/name", "owner/other"]', head)
    assert with_same_checkpoint(searched, journal, True) is searched
