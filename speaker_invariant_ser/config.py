"""Find, read, override, explain and write recipes: TOML in, `section.key=value` overrides on top, TOML out.

Keys that version 0.1.0 named otherwise are still read, with one warning. A run folder of 0.1.0 holds every key of every section,
also those that its methods do not use; reading it renames the former and drops the latter without a warning.
"""

import difflib
import json
import re
import tomllib
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from speaker_invariant_ser.errors import MAX_PROBLEMS, RecipeError, shown, unknown
from speaker_invariant_ser.files import read_bytes
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.recipe_encoders import EncoderSection
from speaker_invariant_ser.recipe_methods import (
    AdversarySection,
    BottleneckSection,
    EraseSection,
    MethodSection,
    PerturbSection,
    ReleaseSection,
)


def methods(section: Any) -> dict[str, type[MethodSection]]:
    """Return the settings class of each method of a section, by name.

    >>> list(methods(BottleneckSection))
    ['none', 'vib', 'fsq']
    """
    return {settings.model_fields["name"].default: settings for settings in get_args(get_args(section)[0])}


METHODS: dict[str, dict[str, type[MethodSection]]] = {
    "encoder": methods(EncoderSection),
    "bottleneck": methods(BottleneckSection),
    "adversary": methods(AdversarySection),
    "extra_adversaries": methods(AdversarySection),
    "perturb": methods(PerturbSection),
    "erase": methods(EraseSection),
    "release": methods(ReleaseSection),
}
DEFAULT_METHODS = {**dict.fromkeys(METHODS, "none"), "encoder": "cnn", "adversary": "grl", "extra_adversaries": "grl"}
SINCE_0_1_0 = ("bottleneck", "adversary", "perturb", "erase", "release")  # sections whose methods 0.1.0 had, in one table each
NEW_KEYS = {"cells", "embedding_weight"}  # of later methods

TOO_LONG = re.compile(r"""(?<![\w"'-])(?P<key>([\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){20}|(?<!\w)0[xob]\w{1000}""")
SWEEP = "sweep"  # a table of recipes for `siser sweep` alone, which everything else ignores
DEFAULT_RECIPE = "default"  # what is trained where no recipe is named

OLD_SECTIONS = {"further": "extra_adversaries"}
OLD_ADVERSARY_KEYS = {
    "reads": "input",
    "renew": "reset_every",
    "balance": "balance_gradients",
    "widths": "kernel_widths",
    "ramp": "steepness",
}
OLD_KEYS = {
    "adversary": OLD_ADVERSARY_KEYS,
    "extra_adversaries": OLD_ADVERSARY_KEYS,
    "augment": {"virtual": "virtual_speakers", "mixup_within": "mixup_same_emotion", "mixup_across": "mixup_any_emotion"},
    "release": {"trained": "in_training", "decision": "classify"},
    "train": {"resident_gb": "cache_gb"},
}


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name: inside it in a wheel, beside it in a checkout."""
    inside = Path(__file__).parent / "recipes"
    folder = inside if inside.is_dir() else inside.parents[1] / "recipes"
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.toml")}
    return {name: names[name] for name in sorted(names) if not name.startswith("study-")}


def find_recipe(recipe: Path | str) -> Path:
    """Return the file of a recipe: a path, or the name of a shipped recipe where no file has that path."""
    path = Path(recipe)
    shipped = shipped_recipes().get(path.as_posix())
    return path if shipped is None or path.is_file() else shipped


def nearest_recipes(recipe: Path | str) -> str:
    """Return the names of the shipped recipes that are most like an unknown one, or the default."""
    names = {Path(name).name: name for name in shipped_recipes()}
    return ", ".join(names[match] for match in difflib.get_close_matches(Path(recipe).stem, names)) or DEFAULT_RECIPE


def read_recipe(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe from a TOML file.

    Args:
        path: The TOML file, or the name of a shipped recipe, such as `methods/hsic`; an existing file takes precedence.
        overrides: Settings that replace those of the file, each `section.key=value`.

    Returns:
        The checked recipe.

    Raises:
        RecipeError: The file is missing, is not TOML, or has an unknown key or a value out of range.

    Warns:
        FutureWarning: The file or an override uses keys of version 0.1.0 that have been renamed.
    """
    file = find_recipe(path)
    example = f"recipes/emodb.toml, or a name that `siser recipes` lists, such as {nearest_recipes(path)}"
    return make_recipe(read_tables(file, example=example), overrides, source=str(file))


def read_saved_recipe(path: Path | str) -> Recipe:
    """Read the recipe of a run folder, which an earlier version may have written.

    Renamed keys are translated and keys that the chosen methods do not use are dropped, both without a warning.

    Args:
        path: The `recipe.toml` of the run.

    Returns:
        The checked recipe.

    Raises:
        RecipeError: The file is missing, is not TOML, or has an unknown key or a value out of range.
    """
    return saved_recipe(read_tables(path), str(path))


def saved_recipe(tables: Mapping[str, Any], source: str) -> Recipe:
    """Make a recipe from tables that an earlier version may have written, as `read_saved_recipe` does.

    Args:
        tables: Keys and values by section.
        source: What error messages call the origin of the tables.

    Raises:
        RecipeError: An unknown key or a value out of range.
    """
    today, _ = renamed(tables, source)
    return validated({section: saved(section, table) for section, table in today.items()}, source)


def read_tables(path: Path | str, kind: str = "recipe", example: str = "recipes/emodb.toml") -> dict[str, Any]:
    """Return the tables of a TOML file; `kind` and `example` are what error messages call it and give as an example."""
    try:
        if (path := Path(path)).is_dir():
            raise RecipeError(f"{path} is a folder: expected a TOML file such as {example}")
        if long := TOO_LONG.search(text := read_bytes(path, 10**6).decode("utf-8-sig")):  # would take minutes, or be no number
            raise ValueError("a key of more than 20 parts" if long["key"] else "a number of 1000 digits or more")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"no {kind} at {path}: expected a TOML file such as {example}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as a {kind} ({error}): expected a TOML text file") from None
    except (ValueError, RecursionError) as error:  # in addition to TOML's own errors: numbers and nesting beyond Python's limits
        raise RecipeError(f"{path} is not valid TOML: {error}") from None


def make_recipe(tables: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "recipe") -> Recipe:
    """Make a checked recipe from nested tables.

    Args:
        tables: Keys and values by section, as TOML has them; a table [sweep] is left out.
        overrides: Settings that replace those in `tables`, each `section.key=value`.
        source: What error messages call the origin of the tables, such as the file's path.

    Returns:
        The checked recipe.

    Raises:
        RecipeError: An unknown key or a value out of range; the message names source, key, value and what is allowed.

    Warns:
        FutureWarning: Keys of version 0.1.0 that have been renamed.
    """
    merged, old = renamed({section: table for section, table in tables.items() if section != SWEEP}, source)
    from_0_1_0, overrides = dumped_by_0_1_0(merged), [*overrides]
    changes, old_overrides = renamed(override_tables(overrides), "--set")
    for section, keys in changes.items():
        table = merged.setdefault(section, {})
        if isinstance(table, list | tuple):
            raise RecipeError(f"--set {section}.{next(iter(keys))}: [[{section}]] is a list of tables; change it in {source}")
        if isinstance(table, dict):
            table.update(keys)
    if from_0_1_0:  # a user may train with the recipe of an old run
        merged = {section: saved(section, table, changes.get(section, ())) for section, table in merged.items()}
    if names := old | old_overrides:
        renames = ", ".join(f"{before} is now {after}" for before, after in names.items())
        origin = f"{source} with {', '.join(overrides)}" if old_overrides else source
        warnings.warn(f"{origin}: old recipe keys, which the next version will not read: {renames}", FutureWarning, stacklevel=2)
    try:
        return validated(merged, source)
    except RecipeError as error:
        if not overrides:
            raise
        make_recipe(tables, source=source)  # raises an error about `source` alone if it is wrong without overrides
        wrong = [text for text in overrides if text.partition("=")[0].strip() in str(error)]
        return validated(merged, f"{source} with {', '.join(wrong or overrides)}")


def override_tables(overrides: Iterable[str]) -> dict[str, dict[str, object]]:
    """Return overrides as tables; of the same key the last value counts."""
    tables: dict[str, dict[str, object]] = {}
    for override in overrides:
        section, key, value = parse_override(override)
        tables.setdefault(section, {})[key] = value
    return tables


def validated(tables: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe that tables describe, or raise RecipeError with one line for all problems."""
    try:
        return Recipe.model_validate(tables)
    except ValidationError as error:
        raise RecipeError(f"{source}: " + "; ".join(map(explain, error.errors()[:MAX_PROBLEMS]))) from None


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


def renamed(tables: Mapping[str, Any], source: str = "recipe") -> tuple[dict[str, Any], dict[str, str]]:
    """Return a copy of the tables with today's names, and the old names in use with the new one of each.

    >>> renamed({"adversary": {"reads": "frames"}})
    ({'adversary': {'input': 'frames'}}, {'adversary.reads': 'adversary.input'})
    """
    result: dict[str, Any] = {}
    old: dict[str, str] = {}
    for name, content in tables.items():
        section = OLD_SECTIONS.get(name, name)
        if section != name:
            old[f"[[{name}]]"] = f"[[{section}]]"
            require_single(f"[[{name}]]", f"[[{section}]]", section in tables, source)
        if isinstance(content, list):
            result[section] = [renamed_keys(section, table, old, source) for table in content]
        else:
            result[section] = renamed_keys(section, content, old, source)
    return result, old


def renamed_keys(section: str, table: object, old: dict[str, str], source: str = "recipe") -> object:
    """Return a copy of a section's table with today's keys, and add the old ones in use to `old`."""
    if not isinstance(table, Mapping):
        return table
    new_names = OLD_KEYS.get(section, {})
    for before in new_names.keys() & table.keys():
        after = new_names[before]
        require_single(f"{section}.{before}", f"{section}.{after}", after in table, source)
    old |= {f"{section}.{before}": f"{section}.{after}" for before, after in new_names.items() if before in table}
    return {new_names.get(key, key): value for key, value in table.items()}


def require_single(before: str, after: str, both: bool, source: str) -> None:
    """Raise RecipeError where `source` gives a setting under its old and its new name."""
    if both:
        raise RecipeError(f"{source}: {before} and {after} are the same setting; expected {after} alone")


def saved(section: str, content: object, kept: Container[str] = ()) -> object:
    """Return a section of a run or model of an earlier version, with today's keys and without those that do nothing.

    Args:
        section: Name of the section, such as "release".
        content: Its table, or a list of tables.
        kept: Keys that are kept even if they do nothing.
    """
    if isinstance(content, list):
        return [saved(section, table) for table in content]
    table = renamed_keys(section, content, {})
    if section not in METHODS or not isinstance(table, dict):
        return table
    unused = unused_keys(section, table)
    return {key: value for key, value in table.items() if key not in unused or key in kept}


def unused_keys(section: str, table: Mapping[str, object]) -> set[str]:
    """Return the keys of a table that other methods of the section use, but not the one that it names."""
    chosen = METHODS[section].get(str(table.get("name", DEFAULT_METHODS[section])))
    if not chosen:
        return set()
    return (table.keys() & known_keys(section)) - chosen.model_fields.keys()


def known_keys(section: str) -> set[str]:
    """Return the keys that any method of a section uses."""
    return {key for settings in METHODS[section].values() for key in settings.model_fields}


def dumped_by_0_1_0(tables: Mapping[str, Any]) -> bool:
    """Return whether tables, with today's keys, are the whole recipe that 0.1.0 wrote into a run: every key of every method."""
    return all(known_keys(section) - NEW_KEYS <= set(tables.get(section, ())) for section in SINCE_0_1_0)


EXAMPLES = dict.fromkeys(("test", "dev"), '["03", "08"]') | dict.fromkeys(("source", "unlabelled"), '["emodb"]')  # lists of text


def explain(problem: Mapping[str, Any]) -> str:
    """Return one line about one problem that pydantic found."""
    location, method = located(problem["loc"])
    key, kind = ".".join(location), problem["type"]
    if kind == "extra_forbidden":
        return unknown_key(location, method, problem["input"])
    if kind == "missing" and method:
        return f'{key} is missing: {table_of(location)}.name = "{method}" needs it, such as 0.001'
    if kind == "union_tag_invalid":
        return unknown(f"{key}.name", problem["ctx"]["tag"], METHODS[location[0]])
    if kind == "value_error":  # of several keys together, which its text names
        text = str(problem["ctx"]["error"])
        return text.replace("adversary.", f"{table_of(location)}.") if location[:1] == ["extra_adversaries"] else text
    if kind in ("model_type", "model_attributes_type"):
        return f"{key} = {shown(problem['input'])}: should be a table of keys, and one alone"
    if kind == "tuple_type":
        example = (
            " of tables, [[extra_adversaries]]" if len(location) == 1 else f", such as {EXAMPLES.get(location[-1], '[1, 2]')}"
        )
        return f"{key} = {shown(problem['input'])}: should be a list{example}"
    wrong = problem["msg"].removeprefix("Input ").replace("Tuple", "the list").replace(" after validation", "")
    return f"{key} = {shown(problem['input'])}: {wrong}"


def located(loc: Sequence[str | int]) -> tuple[list[str], str | None]:
    """Return the keys that lead to a problem, and the method of its section if it has one.

    >>> located(("extra_adversaries", 1, "hsic", "hidden"))
    (['extra_adversaries', '1', 'hidden'], 'hsic')
    """
    parts = [str(part) for part in loc]
    depth = 2 if parts[:1] == ["extra_adversaries"] else 1
    if parts and parts[0] in METHODS and len(parts) > depth:
        return parts[:depth] + parts[depth + 1 :], parts[depth]
    return parts, None


def table_of(location: Sequence[str]) -> str:
    """Return the name of the table that a key is in, such as `extra_adversaries.1`."""
    return ".".join(location[:2]) if location[0] == "extra_adversaries" else location[0]


def unknown_key(location: Sequence[str], method: str | None, value: object) -> str:
    """Return the text about a key that its section does not have, or that its method does not use."""
    if len(location) == 1:
        return unknown("section", location[0], Recipe.model_fields)
    section, key = location[0], location[-1]
    if method is None:
        return unknown(f"key in [{section}]", key, section_keys(section))
    used = METHODS[section][method].model_fields
    if key not in known_keys(section):
        return unknown(f"key in [{section}]", key, used)
    name = f'{table_of(location)}.name = "{method}"'
    return f"{'.'.join(location)} = {toml_value(value)}: does nothing with {name}, which takes: {', '.join(used)}"


def section_keys(section: str) -> Iterable[str]:
    """Return the keys of a section without methods."""
    settings = Recipe.model_fields[section].annotation
    return getattr(settings, "model_fields", ())


def write_toml(recipe: Recipe, only_set: bool = False) -> str:
    """Return the recipe as TOML; its text, numbers, booleans and lists are written as in JSON.

    Args:
        recipe: The recipe.
        only_set: Leave out keys that the recipe was not given, whose values are defaults.
    """
    lines = []
    for section, content in recipe.model_dump(exclude_unset=only_set).items():
        tables = [(f"[{section}]", content)] if isinstance(content, dict) else [(f"[[{section}]]", table) for table in content]
        for title, table in tables:
            lines += [title, *(f"{key} = {toml_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def toml_value(value: object) -> str:
    """Return a value as TOML.

    >>> toml_value({"bored": "calm"})
    '{"bored" = "calm"}'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {toml_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
