"""The project's files agree on the version, and every requirement is pinned to a version that was tested."""

import re
import tomllib
from dataclasses import fields

import yaml
from documents import ROOT

from speaker_invariant_ser import __version__
from speaker_invariant_ser.audit.attackers import ATTACKERS, Attacker
from speaker_invariant_ser.data.corpora.registry import known_corpora

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    latest = re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == __version__ == latest[1]
    assert citation["license"] == PROJECT["license"]


def test_the_readme_states_the_number_of_corpora_and_attackers():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"[{len(known_corpora())} corpora](docs/corpora.md)" in readme
    number = {8: "eight", 9: "nine", 10: "ten"}.get(len(ATTACKERS), str(len(ATTACKERS)))
    assert f"fresh attackers:** {number} classifiers" in readme


def test_the_contributing_page_describes_every_field_of_an_attacker():
    page = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")
    table = page.split("## Add an attacker")[1].split("3. Add")[0]
    assert re.findall(r"^ *\| `(\w+)` \|", table, re.MULTILINE) == [
        field.name for field in fields(Attacker) if field.name not in {"make", "settings"}
    ]


def test_every_requirement_is_pinned():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    pinned = {name.lower().replace("_", "-") for name in pins}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    required = {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for group in groups for text in group}
    assert required - {PROJECT["name"]} <= pinned


def test_pre_commit_runs_what_make_lint_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = {hook["entry"].split()[0].removeprefix(".venv/bin/") for repo in config["repos"] for hook in repo["hooks"]}
    assert names == {"ruff", "codespell"}
    assert all(f"$(BIN)/{name}" in makefile for name in names)


def test_warnings_fail_the_documentation_build():
    """With --quiet, MkDocs does not count warnings, and --strict passes whatever is wrong."""
    (build,) = re.findall(r"mkdocs build.*", (ROOT / "Makefile").read_text(encoding="utf-8"))
    command = build.partition("#")[0]
    assert "--strict" in command and not {"--quiet", "-q"} & set(command.split())


def test_the_security_policy_says_which_downloads_have_which_checksum():
    (downloads,) = re.findall(
        r"^- \*\*Downloads.*?(?=^- )", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    sentences = " ".join(downloads.split()).split("before unpacking. ")[1].split(". ")
    kinds = {"sha256": sentences[0], "md5": sentences[1], "": sentences[2]}
    for corpus in known_corpora().values():
        for download in corpus.download:
            assert corpus.title in kinds[download.hash.partition(":")[0]], corpus.title
