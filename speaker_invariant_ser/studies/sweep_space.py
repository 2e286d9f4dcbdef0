"""The table [sweep] of a recipe: which keys are searched, over which values, and how.

    [sweep]
    trials = 30
    "adversary.strength" = [0, 0.1, 0.3]
    "train.learning_rate" = {low = 5e-4, high = 8e-3, log = true}

Keys with a dot are recipe keys, the others are settings of the sweep. Quotation marks may be left out, and `[sweep.train]` with
`learning_rate` is the same as `"train.learning_rate"`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from speaker_invariant_ser.config import (
    METHODS,
    SWEEP,
    explain,
    find_recipe,
    known_keys,
    located,
    make_recipe,
    read_recipe,
    read_tables,
    section_keys,
    toml_value,
)
from speaker_invariant_ser.errors import RecipeError, shown, unknown
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_methods import Section

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FIXED = {  # sections and keys that cannot be searched, and why
    "split": "trials on different speakers cannot be compared",
    "labels": "trials with different classes cannot be compared",
    "audit": "trials that are audited differently cannot be compared",
    "extra_adversaries": "it is a list of tables",
    "train.refit": "a sweep scores configurations on dev speakers, and a refit has none",
    "train.inner_folds": "a sweep scores configurations on dev speakers, and a refit has none",
    "train.seed": "the best of many seeds is luck",
    "train.seeds": "every trial is trained with one seed",
}
DIGITS, STEP_DIGITS = 4, 10  # significant digits of sampled numbers: of a range, and of one with a step


class SweepSettings(Section):
    """Search of hyperparameters with `siser sweep`; all other commands ignore this table."""

    trials: int = Field(30, ge=1, le=100_000, description="Number of configurations to try.")
    folds: int | tuple[str, ...] = Field(
        3, description="Folds that every configuration is trained on: a number, spread evenly over all folds, or their names."
    )
    leak_weight: float = Field(
        0.5,
        ge=0,
        le=1000,
        description=(
            "Weight of the speaker leak in the objective: dev UAR minus this weight times the excess over chance of the "
            "strongest closed-form attacker; 0: dev UAR alone."
        ),
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the choice of configurations.")
    pruner: bool = Field(
        True, description="Stop a configuration after a fold whose objective so far is below the median of the others."
    )


@dataclass(frozen=True)
class Choices:
    """A list of values to choose from."""

    values: tuple[Any, ...]

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values that must be allowed in the recipe."""
        return self.values

    @property
    def distribution(self) -> "BaseDistribution":
        """Return Optuna's distribution over the values as TOML, which tells 1 from true and may be a list."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([toml_value(value) for value in self.values])

    def value(self, sampled: Any) -> Any:
        """Return the recipe's value for what Optuna sampled."""
        return next(value for value in self.values if toml_value(value) == sampled)


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included, evenly or evenly on a logarithmic scale, or in steps from `low`."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values that must be allowed in the recipe; it then allows those between them."""
        return (self.low, self.high)

    @property
    def distribution(self) -> "BaseDistribution":
        """Return Optuna's distribution."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, sampled: Any) -> Any:
        """Return what Optuna sampled, rounded, so that recipes stay readable."""
        if self.whole:
            return int(sampled)
        rounded = float(f"{sampled:.{STEP_DIGITS if self.step else DIGITS}g}")
        return min(max(rounded, float(self.low)), float(self.high))


@dataclass(frozen=True)
class Sweep:
    """A recipe and its table [sweep].

    Attributes:
        name: Name of the recipe's file.
        recipe: The recipe without that table.
        settings: Settings of the sweep.
        space: Values to search, by recipe key such as `train.learning_rate`.
    """

    name: str
    recipe: Recipe
    settings: SweepSettings
    space: dict[str, Choices | Range]

    def values(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of each searched key for what Optuna sampled."""
        return {key: values.value(sampled[key]) for key, values in self.space.items()}

    def recipe_with(self, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe with values of some keys replaced.

        Raises:
            RecipeError: The recipe does not allow these values together.
        """
        overrides = [f"{key}={toml_value(value)}" for key, value in values.items()]
        return make_recipe(self.recipe.model_dump(exclude_unset=True), overrides, self.name)


def read_sweep(path: Path | str, overrides: Iterable[str] = ()) -> Sweep:
    """Read a recipe with a table [sweep], and check every value that a trial may get.

    Args:
        path: The recipe in TOML, or the name of a shipped one.
        overrides: Settings that replace those of the recipe, each `section.key=value`.

    Returns:
        The recipe, and what is searched.

    Raises:
        RecipeError: The recipe or its table [sweep] has an unknown key or a value out of range, or searches nothing.
    """
    recipe, path = read_recipe(path, overrides), find_recipe(path)
    table = read_tables(path).get(SWEEP)
    if not isinstance(table, Mapping):
        raise RecipeError(
            f'{path}: expected a table [sweep] with the keys to search, such as "train.learning_rate" = '
            "{low = 5e-4, high = 5e-3, log = true}"
        )
    settings, searched = divide(table, str(path))
    if not searched:
        raise RecipeError(f'{path}: [sweep] searches nothing; expected recipe keys, such as "adversary.strength" = [0, 0.1, 0.3]')
    for key in searched:
        require_searchable(key, f"{path}: [sweep]")
    space: dict[str, Choices | Range] = {}
    for key, content in sorted(searched.items(), key=lambda item: not item[0].endswith(".name")):  # methods before their keys
        where = f"{path}: [sweep] {key} = {shown(content)}"
        space[key] = parse_choices(content, where) if isinstance(content, list) else parse_range(key, content, where)
        check_values(key, space, recipe, f"{path}: [sweep]")
    return Sweep(Path(path).name, recipe, settings, {key: space[key] for key in searched})


def divide(table: Mapping[str, Any], source: str) -> tuple[SweepSettings, dict[str, Any]]:
    """Return the settings in a table [sweep], and its other entries by recipe key."""
    settings: dict[str, Any] = {}
    searched: dict[str, Any] = {}
    for name, content in table.items():
        if name in SweepSettings.model_fields:
            settings[name] = content
        elif "." in name:
            searched[name] = content
        elif isinstance(content, Mapping):
            searched |= {f"{name}.{key}": inner for key, inner in content.items()}
        else:
            hint = unknown("setting in [sweep]", name, SweepSettings.model_fields)
            raise RecipeError(f'{source}: {hint}; or a recipe key with a dot, such as "train.{name}"')
    try:
        return SweepSettings.model_validate(settings), searched
    except ValidationError as error:
        problems = {str(problem["loc"][0]): problem for problem in error.errors()}
        texts = [f"sweep.{name} = {shown(settings[name])}: {expected(name, problem)}" for name, problem in problems.items()]
        raise RecipeError(f"{source}: " + "; ".join(texts)) from None


def expected(name: str, problem: Mapping[str, Any]) -> str:
    """Return what a setting should be."""
    if name == "folds":
        return "expected a number of folds, or a list of their names"
    return str(problem["msg"]).removeprefix("Input ")


def require_searchable(key: str, source: str) -> None:
    """Raise RecipeError unless `key` is a key of a recipe that trials may differ in."""
    section, _, name = key.partition(".")
    if section not in Recipe.model_fields:
        raise RecipeError(f"{source} {unknown('section', section, Recipe.model_fields)}")
    if reason := FIXED.get(section) or FIXED.get(key):
        raise RecipeError(f"{source} {key} cannot be searched: {reason}")
    keys = known_keys(section) if section in METHODS else section_keys(section)
    if name not in keys:
        raise RecipeError(f"{source} {unknown(f'key in [{section}]', name, sorted(keys))}")


def parse_choices(content: Sequence[Any], where: str) -> Choices:
    """Return a list of values to choose from; raise RecipeError where it is empty or has a value twice."""
    if not content or not is_plain(content) or len(set(map(toml_value, content))) < len(content):
        raise RecipeError(f"{where}: expected a list of different numbers, words, true and false, or lists of these")
    return Choices(tuple(content))


def is_plain(value: object) -> bool:
    """Return whether a value of TOML can be a choice: no table, no date, no infinite number."""
    if isinstance(value, list):
        return all(map(is_plain, value))
    return isinstance(value, bool | str) or is_number(value, whole=False)


def parse_range(key: str, content: object, where: str) -> Range:
    """Return a range of numbers; raise RecipeError where it cannot be searched."""
    if not isinstance(content, dict):
        raise RecipeError(f"{where}: expected a list of values, or a table such as {{low = 0.1, high = 0.5}}")
    for name in content.keys() - {"low", "high", "log", "step"}:
        raise RecipeError(f"{where}: {unknown('key', name, ('low', 'high', 'log', 'step'))}")
    low, high, log, step = (content.get(name) for name in ("low", "high", "log", "step"))
    whole = takes_integers(key)
    numbers = [low, high] if step is None else [low, high, step]
    if not all(is_number(number, whole) for number in numbers):
        raise RecipeError(f"{where}: expected {'whole ' * whole}numbers as low and high, and as step if there is one")
    assert isinstance(low, int | float) and isinstance(high, int | float)
    if not low < high:
        raise RecipeError(f"{where}: expected low below high")
    if log not in (None, True, False) or (log and (low <= 0 or step is not None)):
        raise RecipeError(f"{where}: log should be true or false; if true, expected low above 0 and no step")
    if step is not None and not (step > 0 and math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-6)):
        raise RecipeError(f"{where}: expected high to be low plus a whole number of steps")
    return Range(low, high, bool(log), step, whole)


def is_number(value: object, whole: bool) -> bool:
    """Return whether a value of TOML is a finite number, a whole one if asked."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) if whole else math.isfinite(value)


def takes_integers(key: str) -> bool:
    """Return whether a recipe key is a whole number, with every method that has it."""
    section, _, name = key.partition(".")
    if section in METHODS:
        owners = [fields for method in METHODS[section].values() if name in (fields := method.model_fields)]
        return all(fields[name].annotation is int for fields in owners)
    fields = getattr(Recipe.model_fields[section].annotation, "model_fields", {})
    return fields[name].annotation is int


def check_values(key: str, space: Mapping[str, Choices | Range], recipe: Recipe, source: str) -> None:
    """Raise RecipeError where a key does nothing with any method that is tried, or a value is out of its range with all of them.

    Values that are allowed alone, but not together with others, make a trial fail; they are no error here.
    """
    section, _, name = key.partition(".")
    values = space[key].samples
    if section not in METHODS:
        tables: list[dict[str, Any]] = [{}]
    elif name == "name":
        for value in values:
            if value not in METHODS[section]:
                raise RecipeError(f"{source} {unknown(key, str(value), METHODS[section])}")
        return
    else:
        methods = tried_methods(section, space, recipe)
        tables = [{"name": method} for method in methods if name in METHODS[section][method].model_fields]
        if not tables:
            names = " or ".join(f'"{method}"' for method in methods)
            raise RecipeError(f"{source} {key}: does nothing with {section}.name = {names}, which is all that is tried")
    for value in values:
        problems = [problem_with(section, {**table, name: value}, name) for table in tables]
        if all(problems):
            raise RecipeError(f"{source} {problems[0]}")


def flattened(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a request by their keys, those of the recipe as section.key."""
    values: dict[str, Any] = {}
    for section, content in request["recipe"].items():
        keys = content.items() if isinstance(content, Mapping) else enumerate(content, start=1)
        values |= {f"{section}.{key}": value for key, value in keys}
    return values | {f"{part}.{key}": value for part in ("sweep", "corpus") for key, value in request[part].items()}


def tried_methods(section: str, space: Mapping[str, Choices | Range], recipe: Recipe) -> list[str]:
    """Return the methods of a section that trials may have."""
    searched = space.get(f"{section}.name")
    return [str(value) for value in searched.samples] if searched else [getattr(recipe, section).name]


def problem_with(section: str, table: Mapping[str, Any], name: str) -> str:
    """Return what is wrong with the value of one key, whatever the other keys are; empty if it is allowed."""
    try:
        Recipe.model_validate({section: table})
    except ValidationError as error:
        for problem in error.errors():
            if located(problem["loc"])[0][:2] == [section, name]:
                return explain(problem)
    return ""
