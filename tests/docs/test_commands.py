"""Every `siser` command in the documents is accepted by the real options, and every recipe and key that it names exists."""

import re
from pathlib import Path

import pytest
import typer
from documents import MARKDOWN, RECIPES, ROOT, SCRIPTS, Command, commands, plain_text

from speaker_invariant_ser.cli.app import app
from speaker_invariant_ser.config import DEFAULT_RECIPE, read_recipe, shipped_recipes
from speaker_invariant_ser.errors import RecipeError
from speaker_invariant_ser.studies.sweep_space import read_sweep

GROUP = typer.main.get_command(app)
PAGES = [*MARKDOWN, *RECIPES, *SCRIPTS]
PLACEHOLDER = re.compile(r"NAME|^\[?RECIPE\]?$|/best\.toml$")  # the last is what `siser sweep` writes
GENERATED = ROOT / "docs" / "command-line.md"  # it has every verb anyway
CLUSTER_VARIABLES = {"$recipe": "recipes/emodb.toml"}  # of docs/slurm.sh


def check(command: Command) -> None:
    """Raise an error if `siser` would refuse the words of a command, before anything runs."""
    words = list(command.words)
    if not words or words[0].startswith("-"):
        options = {"--help"} | {name for part in GROUP.params for name in part.opts}
        assert set(words) <= options, f"siser has no {words}"
        return
    assert words[0] in GROUP.commands, f"siser has no verb {words[0]}"
    verb = GROUP.commands[words[0]]
    if not command.complete:
        options = {"--help"} | {name for part in verb.params for name in (*part.opts, *part.secondary_opts)}
        unknown = [word for word in words[1:] if word.startswith("--") and word not in options]
        assert not unknown, f"siser {words[0]} has no {unknown}"
        return
    with verb.make_context(words[0], words[1:]) as context:
        values = context.params
    if words[0] == "train" and not PLACEHOLDER.search(str(values["recipe"])):
        recipe = str(values["recipe"] or DEFAULT_RECIPE)
        recipe = CLUSTER_VARIABLES.get(recipe, recipe)
        overrides = [text for text in values["overrides"] or () if text != "..."]
        read_recipe(recipe if recipe in shipped_recipes() else ROOT / recipe, overrides)
    if words[0] == "sweep" and not PLACEHOLDER.search(str(values["recipe"])):
        recipe = str(values["recipe"])
        read_sweep(recipe if recipe in shipped_recipes() else ROOT / recipe, values["overrides"] or ())


def cases() -> list:
    """Return every command of every document, with a name that says where it is."""
    return [
        pytest.param(command, id=f"{page.relative_to(ROOT)}: siser {' '.join(command.words)}"[:110])
        for page in PAGES
        for command in commands(plain_text(page))
    ]


@pytest.mark.parametrize("command", cases())
def test_a_command_of_the_documents_is_accepted(command):
    check(command)


def test_every_verb_is_documented_and_every_kind_of_page_has_commands():
    commands_by_page = {page: list(commands(plain_text(page))) for page in PAGES}
    written = [
        command for page, of_page in commands_by_page.items() for command in of_page if page != GENERATED and command.words
    ]
    assert {command.words[0] for command in written} >= set(GROUP.commands)
    assert all(commands_by_page[page] for page in (ROOT / "README.md", ROOT / "docs" / "training.md", *SCRIPTS))
    assert any(commands_by_page[page] for page in RECIPES)


@pytest.mark.parametrize(
    "text",
    [
        "    siser evaluate runs/emodb --agianst runs/other",
        "    siser audti embeddings.npz",
        "    siser evaluate",
        "    siser train --data data/emodb --out runs/emodb --set train.epohcs=3",
        "    siser train methods/no-such --data data/emodb --out runs/emodb",
        "    siser compare runs/a \\\n        --no-such-option",
        "See `siser infer --fodl`.",
        "See `siser --verison`.",
        "```\nsiser evaluate\n```",
        "    siser audit e.npz --seed many",
        "    torchrun -m speaker_invariant_ser.cli train recipes/emodb.toml --otu runs/emodb",
        "    siser train recipes/no-such.toml --data data/emodb --out runs/emodb",
        "    siser train recipes/emodb.toml --data data/emodb --out runs/emodb --set train.epohcs=3",
        "    siser train recipes/emodb.toml --data data/emodb --out runs/emodb --set adversary.strength=1000",
    ],
)
def test_a_wrong_command_would_be_noticed(text):
    (command,) = commands(text)
    with pytest.raises((AssertionError, typer.TyperException, RecipeError)):
        check(command)


def test_a_command_in_the_comment_of_a_recipe_would_be_noticed(tmp_path: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "# Run it with\n#\n#     siser train recipes/emodb.toml \\\n#         --otu runs/emodb\n[train]\nepochs = 1\n"
    )
    (command,) = commands(plain_text(recipe))
    assert command.words == ("train", "recipes/emodb.toml", "--otu", "runs/emodb")
    with pytest.raises(typer.TyperException, match="--otu"):
        check(command)
