"""Recipes: what is wrong is named with its nearest right key; what is written is read back."""

from pathlib import Path

import pytest

from speaker_invariant_ser.config import make_recipe, read_recipe, write_toml
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.recipe import Recipe

RECIPES = Path(__file__).parents[1] / "recipes"


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = make_recipe({"split": {"scheme": "fixed", "test": ['s"1', "ü\\2"]}, "train": {"learning_rate": 1e-4}})
    (tmp_path / "r.toml").write_text(write_toml(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "r.toml") == recipe != Recipe()


@pytest.mark.parametrize(
    "text, message",
    [
        ("[trian]\nepochs = 3", "unknown section 'trian', did you mean 'train'"),
        ("[train]\nepoch = 3", r"unknown key in \[train\] 'epoch', did you mean 'epochs'"),
        ("[train]\nepochs = 0", "train.epochs = 0: .*greater than or equal to 1"),
        ("[train]\nepochs = 'many'", "train.epochs = 'many'"),
        ("[train]\nlearning_rate = nan", "train.learning_rate"),
        ("[encoder]\nchannels = [8, 0]", "encoder.channels.1 = 0"),
        ("[features]\nhop_ms = 0.01", "features.hop_ms = 0.01"),
        ("[train]\nseed = 5000000000", "train.seed = 5000000000"),
        ("[split]\nscheme = 'random'", "split.scheme = 'random'.*'loso', 'group-kfold', .* or 'domain'"),
        ("[split]\ntest = '[03]'", r'split.test = .*should be a list, such as \["03", "08"\]'),
        ("[split]\ntest = [3]", "split.test.0 = 3"),
        (
            "[adversary]\nbalance = true\nreads = 'frames'",
            'balance = true with adversary.reads = "frames": .* or reads = "embedding"',
        ),
        ("train = 3", "train = 3"),
        ("[[train]]\nepochs = 3", r"train = .*: should be a table of keys, and one alone"),
        ("[adversary]\nwidths = []", r"adversary.widths = \[\]: the list should have at least 1 item, not 0"),
        ("[adversary]\nwidths = [1e-30]", r"adversary.widths.0 = 1e-30: .*greater than or equal to 0.01"),
        ("[adversary]\ntemperature = 1e-30", "adversary.temperature = 1e-30: .*greater than or equal to 0.01"),
        ("[further]\nname = 'grl'", r"further = .*: should be a list of tables, \[\[further\]\]"),
        ("[[further]]\n[[further]]\nstrength = -1", "further.1.strength = -1"),
        ("[[further]]\n[[further]]\ninner_steps = 3", "further.1.inner_steps = 3: .* set further.1.learning_rate above 0"),
        ("[train", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        read_recipe(tmp_path / "r.toml")
    assert "r.toml" in str(error.value)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_one(path):
    assert read_recipe(path).split.scheme in path.read_text()


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe at .*nothing\.toml"):
        read_recipe(tmp_path / "nothing.toml")


def test_overrides_win_and_keep_their_type():
    recipe = make_recipe({"train": {"epochs": 9}}, ["train.epochs=3", "split.test=['03', '08']", "encoder.name=cnn"])
    assert (recipe.train.epochs, recipe.split.test, recipe.encoder.name) == (3, ("03", "08"), "cnn")


@pytest.mark.parametrize("text", ["epochs=3", "train.epochs", "=3", ".epochs=3"])
def test_a_malformed_override_is_refused(text):
    with pytest.raises(RecipeError, match=r"expected section\.key=value"):
        make_recipe({}, [text])


def test_recipes_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.epochs = 3
