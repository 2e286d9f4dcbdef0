"""Read, override, explain and write recipes: TOML in, `section.key=value` overrides on top, TOML out."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from speaker_invariant_ser.errors import RecipeError, unknown
from speaker_invariant_ser.recipe import AdversarySection, Recipe


def read_recipe(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a TOML file, with `section.key=value` overrides. Raises RecipeError."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise RecipeError(f"{path} is not a regular file: expected a TOML file such as recipes/emodb.toml")
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}: expected a TOML file such as recipes/emodb.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe ({error}): expected a TOML text file") from None
    except (ValueError, RecursionError) as error:  # beside TOML's own errors: numbers and nesting beyond Python's limits
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    return make_recipe(tables, overrides, source=str(path))


def make_recipe(tables: dict, overrides: Iterable[str] = (), source: str = "recipe") -> Recipe:
    """A checked recipe from nested tables and overrides. Raises RecipeError: `source`, key, value and the nearest right key."""
    merged = {name: dict(table) if isinstance(table, dict) else table for name, table in tables.items()}
    for override in overrides:
        section, key, value = parse_override(override)
        table = merged.setdefault(section, {})
        if isinstance(table, list):
            raise RecipeError(f"--set {override}: [[{section}]] is a list of tables, to be changed in {source} itself")
        if isinstance(table, dict):
            table[key] = value
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError(f"{source}: " + "; ".join(map(explain, error.errors()))) from None


def parse_override(text: str) -> tuple[str, str, object]:
    """Split `section.key=value`; the value is TOML, or a plain string where it is not.

    >>> parse_override("train.epochs=3")
    ('train', 'epochs', 3)
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise RecipeError(f"--set {text}: expected section.key=value, such as train.epochs=20")
    try:
        return section, key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return section, key, value.strip()


EXAMPLES = dict.fromkeys(("test", "dev"), '["03", "08"]') | dict.fromkeys(("source", "unlabelled"), '["emodb"]')  # lists of text


def explain(problem: dict) -> str:
    """One line for one problem that pydantic found."""
    where = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return unknown_key(where)
    if problem["type"] == "value_error":  # of several keys together, which its text names
        return in_table(str(problem["ctx"]["error"]), int(where[1]) if where[:1] == ["further"] else None)
    if problem["type"] == "model_type":
        return f"{'.'.join(where)} = {problem['input']!r}: should be a table of keys, and one alone"
    if problem["type"] == "tuple_type":
        such = " of tables, [[further]]" if where == ["further"] else f", such as {EXAMPLES.get(where[-1], '[1, 2]')}"
        return f"{'.'.join(where)} = {problem['input']!r}: should be a list{such}"
    wrong = problem["msg"].removeprefix("Input ").replace("Tuple", "the list").replace(" after validation", "")
    return f"{'.'.join(where)} = {problem['input']!r}: {wrong}"


def in_table(text: str, further: int | None) -> str:
    """What is said of `adversary.key`, said of `further.N.key` where it stands in the N-th [[further]] table, counted from 0."""
    return text if further is None else text.replace("adversary.", f"further.{further}.")


def unknown_key(where: list[str]) -> str:
    if len(where) == 1:
        return unknown("section", where[0], Recipe.model_fields)
    section = AdversarySection if where[0] == "further" else Recipe.model_fields[where[0]].annotation
    return unknown(f"key in [{where[0]}]", where[-1], section.model_fields)


def write_toml(recipe: Recipe) -> str:
    """The recipe as TOML. Its values are text, numbers, booleans and lists, which TOML writes as JSON does."""
    lines = []
    for section, found in recipe.model_dump().items():
        tables = [(f"[{section}]", found)] if isinstance(found, dict) else [(f"[[{section}]]", table) for table in found]
        for title, table in tables:
            lines += [title, *(f"{key} = {toml_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {toml_value(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
