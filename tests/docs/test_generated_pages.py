"""Pages and pictures that are generated from the code are up to date."""

import sys

import pytest
from documents import ROOT, find
from pydantic import Field

from speaker_invariant_ser.recipe import Recipe

sys.path.insert(0, str(ROOT / "tools"))
try:
    import command_reference
    import doctest_blocks
    import draw_architecture
    import recipe_reference
finally:
    sys.path.pop(0)

GENERATED = {
    "docs/recipe-reference.md": recipe_reference.page,
    "docs/command-line.md": command_reference.page,
    **{f"docs/{name}": lambda boxes=boxes: draw_architecture.draw(boxes) for name, boxes in draw_architecture.PICTURES.items()},
}


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_up_to_date(name):
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name](), f"{name} is out of date: run `make reference`"


def test_the_recipe_reference_shows_type_default_range_and_meaning_of_every_key():
    page = recipe_reference.page()
    for section in Recipe.model_fields:
        assert f"[{section}]" in page
    assert "| `epochs` | integer | `40` | [1,&nbsp;100000] |" in page
    assert "| `dropout` | number | `0.3` | [0,&nbsp;1) |" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    undescribed = [line for line in rows if not line.removesuffix(" |").rpartition(" | ")[2].strip()]
    assert len(rows) > 60 and not undescribed


def test_the_recipe_reference_says_which_methods_have_a_key():
    page = recipe_reference.page()
    assert '| `"contrastive"` | Supervised contrastive loss' in page
    assert '| `temperature` | `"contrastive"` | number | `0.2` |' in page
    assert "| `strength` | all | number | `0.1` |" in page
    assert '| `learning_rate` | `"minmax"`, `"vclub"` | number | required |' in page


def test_a_new_key_changes_the_recipe_reference(monkeypatch):
    class Longer(Recipe):
        patience: int = Field(3, ge=1, description="Invented for this test.")

    before = recipe_reference.page()
    monkeypatch.setattr(recipe_reference, "Recipe", Longer)
    assert recipe_reference.page() != before


def test_the_command_reference_shows_every_option():
    page = command_reference.page()
    for verb, command in command_reference.root().commands.items():
        text = page.split(f"## siser {verb}\n")[1].split("\n## ")[0]
        for option in command_reference.options_of(command):
            assert f"`{option.opts[0]}`" in text and option.help, (verb, option.opts)
        assert all(f"`{argument.name.upper()}`" in text for argument in command_reference.arguments_of(command))


def test_a_new_option_changes_the_command_reference(monkeypatch):
    before, group = command_reference.page(), command_reference.root()
    group.commands["audit"].params.append(group.commands["train"].params[-1])
    monkeypatch.setattr(command_reference, "root", lambda: group)
    assert command_reference.page() != before


@pytest.mark.parametrize("name", draw_architecture.PICTURES)
def test_the_pictures_name_modules_that_exist(name):
    missing = [box.module for box in draw_architecture.PICTURES[name] if not find(box.module)]
    assert not missing, f"{name} names {missing}"


def test_doctests_become_code_blocks_of_the_api_reference():
    docstring = "Add.\n\n>>> 1 + 1\n2\n\nExample:\n    As in:\n\n    >>> [1][0]\n    1\n"
    fenced = "Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nExample:\n    As in:\n\n    ```pycon\n    >>> [1][0]\n    1\n    ```"
    assert doctest_blocks.fence(docstring) == fenced
    assert doctest_blocks.fence("No doctest.") == "No doctest."
