"""Write docs/recipe-reference.md from the recipe's pydantic models. Run it with `make reference` after changing a key.

The page is built from the JSON schema of `Recipe`, so that types, defaults and ranges are those that are enforced. A test
fails when the page is out of date.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.studies.sweep_space import SweepSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipe-reference.md"
HEAD = """# Recipe reference

Every key that a recipe may have. This page is generated from the models in `speaker_invariant_ser/recipe.py`,
`speaker_invariant_ser/recipe_methods.py` and `speaker_invariant_ser/recipe_encoders.py`; a key that is not listed is refused,
with the nearest key that exists. A recipe names only the keys that differ from their defaults, and `--set section.key=value`
overrides one key on the command line:

    siser train recipes/emodb.toml --data data/emodb --out runs/short \\
        --set train.epochs=20 --set features.deltas=2

Brackets in the column *range* give the limits: a square bracket includes the limit, a round one excludes it.
"""
SWEEP = """Any other key of `[sweep]` is a key of the recipe, such as `"train.learning_rate"`, with what is searched:
[searching hyperparameters](sweep.md) describes it.
"""
MINIMUM, MAXIMUM = ("minimum", "exclusiveMinimum", "minItems"), ("maximum", "exclusiveMaximum", "maxItems")

Schema = Mapping[str, object]


def resolve(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Follow the references of a schema to the definition."""
    while "$ref" in schema:
        schema = definitions[str(schema["$ref"]).rpartition("/")[2]]
    return schema


def variants(schema: Schema, definitions: Mapping[str, Schema]) -> list[Schema]:
    """Return the tables that a section may be: one, or one for each `name` of a discriminated union."""
    schema = resolve(schema, definitions)
    schema = resolve(schema.get("items", schema), definitions) if schema.get("type") == "array" else schema
    return [resolve(option, definitions) for option in schema.get("oneOf", [schema])]


def type_of(schema: Schema) -> str:
    """Describe the values that a key takes."""
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(type_of, schema["anyOf"]))
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])} {type_of(schema['prefixItems'][0])}s"
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}s"
    names = {"string": "string", "integer": "integer", "number": "number", "boolean": "true or false", "object": "table"}
    return names.get(str(schema.get("type")), str(schema.get("type")))


def bounds(schema: Schema) -> str:
    """Return the range of a number, such as [0, 1), or an empty string."""
    low = next((key for key in MINIMUM[:2] if key in schema), None)
    high = next((key for key in MAXIMUM[:2] if key in schema), None)
    if not (low or high):
        return ""
    left = ("[" if low == "minimum" else "(") + f"{schema[low]:.10g}" if low else "(-inf"
    right = f"{schema[high]:.10g}" + ("]" if high == "maximum" else ")") if high else "inf)"
    return f"{left},&nbsp;{right}"  # not broken inside a cell


def range_of(schema: Schema) -> str:
    """Return the range of a key: of the number, of each element, and how many elements a list has."""
    parts = [bounds(schema)]
    if schema.get("type") == "array" and "items" in schema:
        element = bounds(schema["items"])
        parts.append(f"each {element}" if element else "")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        parts.append(f"{least} to {most} values" if most else f"at least {least}" if least else "")
    return "; ".join(filter(None, parts))


def row(key: str, schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return a key's line of the table."""
    resolved = {**resolve(schema, definitions), **schema}
    default = f"`{json.dumps(resolved['default'], ensure_ascii=False)}`" if "default" in resolved else "required"
    cells = (f"`{key}`", type_of(resolved), default, range_of(resolved), str(resolved.get("description", "")))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(properties: Mapping[str, Schema], definitions: Mapping[str, Schema]) -> str:
    """Return the table of the given keys."""
    head = "| key | type | default | range | meaning |\n|---|---|---|---|---|\n"
    return head + "\n".join(row(key, schema, definitions) for key, schema in properties.items()) + "\n"


def table_of_union(options: Sequence[Schema], definitions: Mapping[str, Schema]) -> str:
    """Return the table of the keys of all variants; the second column says which variants have the key."""
    users: dict[str, list[str]] = {}
    for option in options:
        for key, schema in option["properties"].items():
            if key != "name":
                users.setdefault(row(key, schema, definitions), []).append(name_of(option))
    lines = ["| key | methods | type | default | range | meaning |", "|---|---|---|---|---|---|"]
    for line, names in users.items():
        key, rest = line.removeprefix("| ").split(" | ", 1)
        methods = "all" if len(names) == len(options) else ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {key} | {methods} | {rest}")
    return "\n".join(lines) + "\n"


def summary(schema: Schema) -> str:
    """Return the first paragraph of a model's docstring."""
    return " ".join(str(schema.get("description", "")).partition("\n\n")[0].split())


def name_of(schema: Schema) -> str:
    """Return the value of `name` that selects this variant."""
    name = schema["properties"]["name"]
    return json.dumps(name.get("const", name.get("default", name.get("enum"))))


def section(title: str, schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return a section of the page: its keys or, where `name` selects a method, the methods and the keys of each."""
    options = variants(schema, definitions)
    if len(options) == 1:
        parts = [f"## {title}\n", summary(options[0]) + "\n", table(options[0].get("properties", {}), definitions)]
        return "\n".join(filter(str.strip, parts))
    default = schema.get("default", {}).get("name", "")
    methods = [f"| `{name_of(option)}` | {summary(option)} |" for option in options]
    parts = [
        f"## {title}\n",
        f"`name` selects the method; the default is `{json.dumps(default)}`. A key that the method does not have is refused.\n",
        "\n".join(["| name | method |", "|---|---|", *methods]) + "\n",
        table_of_union(options, definitions),
    ]
    return "\n".join(parts)


def page() -> str:
    """Return the whole page as Markdown."""
    schema = Recipe.model_json_schema()
    definitions, parts = schema.get("$defs", {}), [HEAD]
    for name, value in schema["properties"].items():
        if value.get("type") == "array":
            parts.append(f"## [[{name}]]\n\n{value.get('description', '')}\n")
        else:
            parts.append(section(f"[{name}]", value, definitions))
    parts += [section("[sweep]", SweepSettings.model_json_schema(), {}), SWEEP]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
