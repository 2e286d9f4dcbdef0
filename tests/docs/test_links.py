"""Relative links lead to files that exist, files named in the text are in the repository, and the README is short."""

import importlib.util
import re

import pytest
from documents import MARKDOWN, RECIPES, ROOT, files, find, links, plain_text

IDS = {"ids": lambda page: str(page.relative_to(ROOT))}
OUTPUTS = {
    "report.md",
    "recipe.toml",
    "best.toml",
    "trials.csv",
    "front.png",
    "sweeps/emodb/best.toml",
    "sweeps/tones/best.toml",
    "sweeps/tones/front.png",
    "sweeps/tones/trials.csv",
    "new.csv",
}  # what commands write
INCLUDED = {"changelog.md", "results.md"}  # pages that include another file, whose own links are checked there


@pytest.mark.parametrize("page", MARKDOWN, **IDS)
def test_relative_links_lead_to_files(page):
    missing = [target for target in links(plain_text(page)) if not (page.parent / target).exists()]
    assert not missing, f"{page.relative_to(ROOT)} links to {missing}"


@pytest.mark.parametrize("page", [*MARKDOWN, *RECIPES], **IDS)
def test_files_named_in_the_text_exist(page):
    missing = [name for name in files(plain_text(page)) if name not in OUTPUTS and not find(name)]
    assert not missing, f"{page.relative_to(ROOT)} mentions {missing}"


@pytest.mark.parametrize("name", ["CHANGELOG.md", "recipes/README.md"])
def test_pages_that_the_site_includes_have_no_relative_links(name):
    assert links((ROOT / name).read_text(encoding="utf-8")) == [], "the site shows this text in another folder"


def test_the_readme_is_a_first_screen():
    assert (ROOT / "README.md").stat().st_size <= 8192


def test_a_broken_link_and_a_missing_file_would_be_noticed():
    assert links("[a](docs/nothing.md#x), ![b](b.png), [c](https://example.org), [d](#here)") == ["docs/nothing.md", "b.png"]
    assert files("`recipes/nothing.toml`, `data/prepare.py`, `recipes/methods/NAME.toml`, `x.y`") == [
        "recipes/nothing.toml",
        "data/prepare.py",
    ]
    assert not find("recipes/nothing.toml") and not find("nothing.py")
    assert find("recipes/emodb.toml") and find("data/prepare.py") and find("recipe.py")


def test_modules_of_the_reference_exist():
    """As `make docs` would find, but without it."""
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "modules.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 20 and not [name for name in names if importlib.util.find_spec(name) is None]
