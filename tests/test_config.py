"""Recipes: errors name file, key, value and what is allowed; written recipes are read back; recipes of 0.1.0 are still read."""

import re
import shutil
import tomllib
import warnings
from pathlib import Path
from typing import get_origin

import pytest

from speaker_invariant_ser import config
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.config import (
    METHODS,
    OLD_KEYS,
    find_recipe,
    make_recipe,
    read_recipe,
    read_saved_recipe,
    saved,
    shipped_recipes,
    write_toml,
)
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.models.bottlenecks import BOTTLENECKS
from speaker_invariant_ser.models.encoder_registry import ENCODERS
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.release import RELEASES
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import is_numeric
from speaker_invariant_ser.training.adversarial_examples import PERTURBATIONS

RECIPES = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted(path for path in RECIPES.rglob("*.toml") if not path.name.startswith("study-"))  # those list recipes
REGISTRIES = {
    "encoder": ENCODERS,
    "bottleneck": BOTTLENECKS,
    "adversary": ADVERSARIES,
    "extra_adversaries": ADVERSARIES,
    "perturb": {"none": None, **PERTURBATIONS},
    "erase": ERASERS,
    "release": RELEASES,
}


def write(folder, text):
    """A recipe file of the given text."""
    path = folder / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = make_recipe(
        {
            "split": {"scheme": "fixed", "test": ['s"1', "ü\\2"]},
            "train": {"learning_rate": 1e-4},
            "adversary": {"name": "hsic", "kernel_widths": [0.5]},
            "extra_adversaries": [{"target": "sex", "input": "frames"}],
            "release": {"name": "quantise"},
        }
    )
    assert read_recipe(write(tmp_path, write_toml(recipe))) == recipe != Recipe()


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
        ("[audit]\nfolds = 99999999999999999999", "audit.folds = 99999999999999999999: should be less than or equal to 100"),
        ("[features]\nhop_ms = true", "features.hop_ms = 'true': should be a valid number"),
        ("[split]\nscheme = 'random'", "split.scheme = 'random'.*'loso', 'group-kfold', .* or 'all'"),
        ("[split]\ntest = '[03]'", r'split.test = .*should be a list, such as \["03", "08"\]'),
        ("[split]\ntest = [3]", "split.test.0 = 3"),
        (
            "[adversary]\nbalance_gradients = true\ninput = 'frames'",
            'balance_gradients = true with adversary.input = "frames": .* or adversary.input = "embedding"',
        ),
        ("train = 3", "train = 3: should be a table"),
        ("adversary = 3", "adversary = 3: should be a table"),
        ("[[train]]\nepochs = 3", r"train = .*: should be a table of keys, and one alone"),
        ("[[adversary]]\nname = 'grl'", r"adversary = .*: should be a table of keys, and one alone"),
        (
            "[adversary]\nname = 'hsic'\nkernel_widths = []",
            r"adversary.kernel_widths = \[\]: the list should have at least 1 item",
        ),
        ("[adversary]\nname = 'mmd'\nkernel_widths = [1e-30]", r"adversary.kernel_widths.0 = 1e-30: .*or equal to 0.01"),
        ("[adversary]\nname = 'contrastive'\ntemperature = 1e-30", "adversary.temperature = 1e-30: .*or equal to 0.01"),
        ("[extra_adversaries]\nname = 'grl'", r"extra_adversaries = .*: should be a list of tables, \[\[extra_adversaries\]\]"),
        ("[[extra_adversaries]]\n[[extra_adversaries]]\nstrength = -1", "extra_adversaries.1.strength = -1"),
        (
            "[[extra_adversaries]]\n[[extra_adversaries]]\ninner_steps = 3",
            "extra_adversaries.1.inner_steps = 3: .* expected extra_adversaries.1.learning_rate above 0",
        ),
        ("[train", "not valid TOML"),
        ("a" + ".'a'.a" * 50_000 + " = 1", "not valid TOML: a key of more than 20 parts"),
        ("[train]\nepochs = 0x" + "f" * 1000, "not valid TOML: a number of 1000 digits or more"),
        ("[train]\nepochs = 0x" + "f" * 999, r"train.epochs = \d{200}\.\.\.: "),
        ("[train]\nepochs = " + "9" * 4000, r"train.epochs = 9{200}\.\.\.: "),
        ("[train]\n" + "\n".join(f"k{number} = 1" for number in range(2000)), r"unknown key in \[train\] 'k19'[^k]*\Z"),
    ],
)
def test_errors_name_file_key_value_and_what_is_allowed(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message) as error:
        read_recipe(write(tmp_path, text))
    assert "r.toml" in str(error.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(path):
    assert f'scheme = "{read_recipe(path).split.scheme}"' in path.read_text()


def test_a_shipped_recipe_has_a_name_and_a_file_that_exists_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_recipe("methods/hsic") == read_recipe(RECIPES / "methods" / "hsic.toml")
    (tmp_path / "emodb").mkdir()  # a corpus, say: a folder is no recipe
    assert find_recipe("emodb") == RECIPES / "emodb.toml"
    (tmp_path / "default").write_text("[train]\nepochs = 3\n")
    assert read_recipe("default").train.epochs == 3 != read_recipe(RECIPES / "default.toml").train.epochs


def test_every_shipped_recipe_is_found_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch):
    names = set(shipped_recipes())
    assert names == {path.relative_to(RECIPES).with_suffix("").as_posix() for path in SHIPPED} and "default" in names
    wheel = tomllib.loads((RECIPES.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["force-include"].items():
        copy = shutil.copytree if (RECIPES.parent / source).is_dir() else shutil.copyfile
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        copy(RECIPES.parent / source, tmp_path / target)
    monkeypatch.setattr(config, "__file__", str(tmp_path / "speaker_invariant_ser" / "config.py"))
    assert set(shipped_recipes()) == names, "[tool.hatch.build.targets.wheel.force-include] in pyproject.toml lacks a recipe"
    assert find_recipe("default") == tmp_path / "speaker_invariant_ser" / "recipes" / "default.toml"
    assert read_recipe("methods/hsic").adversary.name == "hsic"


@pytest.mark.parametrize(("name", "nearest"), [("defualt", "default"), ("recipes/hsic.toml", "methods/hsic"), ("qqq", "default")])
def test_an_unknown_recipe_is_an_error_with_the_nearest_names(name, nearest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=f"no recipe at {name}: .* that `siser recipes` lists, such as {nearest}$"):
        read_recipe(name)


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


def test_a_wrong_override_is_named_and_not_taken_for_a_fault_of_the_file(tmp_path):
    path = write(tmp_path, "[train]\nepochs = 3\n")
    for text in ("train.epochs=-3", "trian.epochs=3", "train.epoch=3", "split.scheme=losso"):
        with pytest.raises(RecipeError, match=re.escape(f"{path} with {text}: ")):
            read_recipe(path, [text])
    with pytest.raises(RecipeError, match=re.escape(f"{path} with train.epochs=0: train.epochs = 0: ")):
        read_recipe(path, ["train.seed=1", "train.epochs=0"])
    path.write_text("[train]\nepochs = 0\n")
    with pytest.raises(RecipeError, match=re.escape(f"{path}: train.epochs = 0: ")):
        read_recipe(path, ["train.seed=-1"])
    assert read_recipe(path, ["train.epochs=2"]).train.epochs == 2
    with pytest.warns(FutureWarning, match=re.escape(f"{path} with train.epochs=1, train.resident_gb=1: old recipe keys")):
        read_recipe(path, ["train.epochs=1", "train.resident_gb=1"])


def test_an_override_cannot_change_a_list_of_tables():
    with pytest.raises(RecipeError, match=r"extra_adversaries.strength: \[\[extra_adversaries\]\] is a list of tables"):
        make_recipe({"extra_adversaries": [{}]}, ["extra_adversaries.strength=1"])


def test_recipes_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.epochs = 3


# methods


@pytest.mark.parametrize("section", METHODS)
def test_each_method_has_settings_and_an_implementation(section):
    assert list(METHODS[section]) == list(REGISTRIES[section])


@pytest.mark.parametrize("section", METHODS)
def test_every_key_has_a_description_and_every_method_a_docstring(section):
    for settings in METHODS[section].values():
        assert settings.__doc__
        assert all(field.description for name, field in settings.model_fields.items() if name != "name"), settings


def numeric_keys():
    """Every key of every method whose value is a number or a list of numbers: section, method, key, and whether it is a list."""
    for section, annotation in {name: field.annotation for name, field in Recipe.model_fields.items()}.items():
        methods = METHODS[section].values() if section in METHODS else [annotation]
        for settings in methods:
            for key, field in settings.model_fields.items():
                if is_numeric(field.annotation):
                    yield section, settings, key, get_origin(field.annotation) is tuple


@pytest.mark.parametrize("value", [10**20, -(10**20), True])
def test_every_number_has_a_range_and_is_no_boolean(value):
    keys = list(numeric_keys())
    assert len(keys) > 90
    for section, settings, key, is_list in keys:
        table = {"name": settings.model_fields["name"].default} if section in METHODS else {}
        table[key] = [value, value] if is_list else value
        with pytest.raises(RecipeError, match=rf"{section}[.0]*\.{key}.* = "):
            make_recipe({section: [table] if section == "extra_adversaries" else table})


@pytest.mark.parametrize(
    "section, table",
    [
        ("adversary", {"name": "hsic", "hidden": 16}),
        ("adversary", {"name": "signed", "reset_every": 10}),
        ("adversary", {"temperature": 0.1}),
        ("bottleneck", {"weight": 0.1}),
        ("bottleneck", {"name": "fsq", "weight": 0.1}),
        ("erase", {"name": "leace", "rounds": 3}),
        ("release", {"in_training": True}),
        ("release", {"name": "noise", "step": 2.0}),
        ("perturb", {"epsilon": 1.0}),
        ("encoder", {"cells": 8}),
        ("encoder", {"name": "prosody", "channels": [8]}),
    ],
)
def test_a_key_that_does_nothing_is_refused_with_the_keys_that_do_something(section, table):
    name = table.get("name", {"adversary": "grl", "encoder": "cnn"}.get(section, "none"))
    key = next(reversed(table))
    keys = ", ".join(METHODS[section][name].model_fields)
    with pytest.raises(
        RecipeError, match=rf'{section}.{key} = .*: does nothing with {section}.name = "{name}", which takes: {keys}$'
    ):
        make_recipe({section: table})


def test_a_key_that_no_method_has_is_unknown():
    with pytest.raises(RecipeError, match=r"unknown key in \[adversary\] 'strenght', did you mean 'strength'"):
        make_recipe({"adversary": {"name": "hsic", "strenght": 1.0}})


@pytest.mark.parametrize("name", ["minmax", "vclub"])
def test_a_method_with_separate_steps_needs_a_learning_rate(name):
    with pytest.raises(RecipeError, match=f'adversary.learning_rate is missing: adversary.name = "{name}" needs it'):
        make_recipe({"adversary": {"name": name}})


def test_codes_are_chosen_by_the_embedding_before_erasure():
    for name in ("codes", "decision"):
        with pytest.raises(RecipeError, match=rf"erase.name = leace with release.name = {name}: expected erase.name = none$"):
            make_recipe({"release": {"name": name}, "erase": {"name": "leace"}})


def test_a_section_without_a_name_has_the_default_method():
    recipe = make_recipe({"adversary": {"heads": 2}, "extra_adversaries": [{"target": "sex"}], "bottleneck": {}})
    assert [settings.name for settings in recipe.adversaries] == ["grl", "grl"] and recipe.bottleneck.name == "none"


# keys of version 0.1.0

OLD = {
    "augment": {"virtual": 2, "mixup_within": 0.1, "mixup_across": 0.2},
    "adversary": {"reads": "frames", "renew": 5, "ramp": 4.0},
    "further": [{"name": "hsic", "widths": [1.0], "balance": True}],
    "release": {"name": "noise", "trained": True, "decision": "after"},
    "train": {"resident_gb": 1.5},
}
NEW = {
    "augment": {"virtual_speakers": 2, "mixup_same_emotion": 0.1, "mixup_any_emotion": 0.2},
    "adversary": {"input": "frames", "reset_every": 5, "steepness": 4.0},
    "extra_adversaries": [{"name": "hsic", "kernel_widths": [1.0], "balance_gradients": True}],
    "release": {"name": "noise", "in_training": True, "classify": "after"},
    "train": {"cache_gb": 1.5},
}


def test_old_keys_mean_what_they_meant_with_one_warning_that_names_the_new_ones():
    with pytest.warns(FutureWarning) as caught:
        recipe = make_recipe(OLD, source="old.toml")
    assert recipe == make_recipe(NEW)
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith("old.toml: ") and "\n" not in text
    for old, new in [
        ("augment.virtual", "augment.virtual_speakers"),
        ("augment.mixup_within", "augment.mixup_same_emotion"),
        ("augment.mixup_across", "augment.mixup_any_emotion"),
        ("adversary.reads", "adversary.input"),
        ("adversary.renew", "adversary.reset_every"),
        ("adversary.ramp", "adversary.steepness"),
        ("[[further]]", "[[extra_adversaries]]"),
        ("extra_adversaries.widths", "extra_adversaries.kernel_widths"),
        ("extra_adversaries.balance", "extra_adversaries.balance_gradients"),
        ("release.trained", "release.in_training"),
        ("release.decision", "release.classify"),
        ("train.resident_gb", "train.cache_gb"),
    ]:
        assert f"{old} is now {new}" in text


def test_an_override_may_use_an_old_key_and_replaces_the_new_one():
    with pytest.warns(FutureWarning, match="adversary.renew is now adversary.reset_every"):
        recipe = make_recipe({"adversary": {"reset_every": 7}}, ["adversary.renew=3"])
    assert recipe.adversary.reset_every == 3


@pytest.mark.parametrize(
    "tables, overrides, message",
    [
        ({"adversary": {"reads": "frames", "input": "frames"}}, [], "adversary.reads and adversary.input are the same setting"),
        ({"further": [], "extra_adversaries": []}, [], r"\[\[further\]\] and \[\[extra_adversaries\]\] are the same setting"),
        ({}, ["release.trained=true", "release.in_training=true"], "release.trained and release.in_training are the same"),
    ],
)
def test_an_old_and_a_new_key_at_once_are_refused(tables, overrides, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(tables, overrides)


def test_the_error_about_an_old_and_a_new_key_names_the_file():
    for tables in ({"augment": {"virtual": 1, "virtual_speakers": 1}}, {"further": [], "extra_adversaries": []}):
        with pytest.raises(RecipeError, match=r"^mine\.toml: "):
            make_recipe(tables, source="mine.toml")


def test_new_recipes_are_read_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_recipe(NEW).release.name == "noise"


# Method sections as 0.1.0 wrote them into every run: all keys of all methods, under the old names.
ADVERSARY_0_1_0 = """
name = "grl"
target = "speaker"
strength = 1.0
balance = false
schedule = "ganin"
ramp = 10.0
warm_up = 0.2
reads = "embedding"
conditional = false
hidden = 64
heads = 1
learning_rate = 0.0
inner_steps = 1
gradient_penalty = 0.0
renew = 0
widths = [0.5, 1.0, 2.0]
temperature = 0.2
"""
RUN_0_1_0 = f"""
[augment]
virtual = 2
concatenate = 0.0
mixup_within = 0.0
mixup_across = 0.3
mixup_alpha = 0.4

[bottleneck]
name = "fsq"
weight = 0.001
levels = 7

[adversary]{ADVERSARY_0_1_0}
[[further]]{ADVERSARY_0_1_0.replace('"grl"', '"contrastive"').replace("temperature = 0.2", "temperature = 0.3")}
[[further]]{ADVERSARY_0_1_0.replace('"grl"', '"minmax"').replace("learning_rate = 0.0", "learning_rate = 0.01")}
[perturb]
name = "none"
epsilon = 5.0
weight = 0.5

[erase]
name = "leace"
rounds = 8

[release]
name = "noise"
sigma = 0.5
step = 1.0
trained = true
decision = "after"
"""
EXPECTED = {
    "augment": {"virtual_speakers": 2, "mixup_any_emotion": 0.3},
    "bottleneck": {"name": "fsq", "levels": 7},
    "adversary": {"strength": 1.0},
    "extra_adversaries": [
        {"name": "contrastive", "strength": 1.0, "temperature": 0.3},
        {"name": "minmax", "strength": 1.0, "learning_rate": 0.01},
    ],
    "erase": {"name": "leace"},
    "release": {"name": "noise", "sigma": 0.5, "in_training": True, "classify": "after"},
}


def test_the_recipe_of_an_0_1_0_run_is_read_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = read_saved_recipe(write(tmp_path, RUN_0_1_0))
    assert recipe == make_recipe(EXPECTED)


def test_a_new_run_may_be_trained_with_the_recipe_of_an_0_1_0_run(tmp_path):
    with pytest.warns(FutureWarning, match="r.toml: old recipe keys"):
        assert read_recipe(write(tmp_path, RUN_0_1_0)) == make_recipe(EXPECTED)


def test_the_recipe_of_an_0_1_0_run_may_be_given_another_method(tmp_path):
    path = write(tmp_path, RUN_0_1_0)
    with pytest.warns(FutureWarning):
        recipe = read_recipe(path, ["adversary.name=hsic", "adversary.widths=[1.0]"])
    assert (recipe.adversary.name, recipe.adversary.kernel_widths, recipe.erase.name) == ("hsic", (1.0,), "leace")
    with pytest.warns(FutureWarning), pytest.raises(RecipeError, match="release.step = 2: does nothing"):
        read_recipe(path, ["release.step=2"])


def test_a_run_with_a_key_that_no_version_had_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"unknown key in \[erase\] 'round'\. Expected one of: name"):
        read_saved_recipe(write(tmp_path, RUN_0_1_0.replace("rounds = 8", "round = 8")))


def test_sections_of_an_0_1_0_model_lose_the_keys_that_do_nothing():
    assert saved("release", {"name": "none", "sigma": 1.0, "step": 1.0, "trained": False, "decision": "before"}) == {
        "name": "none"
    }
    assert saved("release", {"name": "quantise", "sigma": 1.0, "step": 2.0, "trained": True, "decision": "after"}) == {
        "name": "quantise",
        "step": 2.0,
        "in_training": True,
        "classify": "after",
    }
    assert saved("features", {"mels": 64}) == {"mels": 64} and saved("format", 1) == 1


def test_every_renamed_key_exists_in_a_written_recipe():
    text = write_toml(make_recipe(NEW))
    names = (name for section in ("adversary", "augment", "release", "train") for name in OLD_KEYS[section])
    for old in names:
        assert not re.search(rf"^{old} = ", text, flags=re.MULTILINE)
