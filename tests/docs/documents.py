"""What the documents of the repository contain: commands, Python code, links and names of files."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "speaker_invariant_ser"
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").rglob("*.md")])
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
FOLDERS = (PACKAGE, *(ROOT / name for name in ("tests", "docs", "tools", "recipes")))
SCRIPTS = [ROOT / "docs" / "slurm.sh"]

FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!`)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PROGRAM = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?siser(?= |$)|^.*-m speaker_invariant_ser\.cli(?= |$)")
FILE = re.compile(r"[\w./-]+\.(?:py|toml|md|sh|svg|png|tsv|cff|yml|txt)")


class Command(NamedTuple):
    """The words after `siser`; a complete command can be run as it is, an inline mention may lack arguments."""

    words: tuple[str, ...]
    complete: bool


def plain_text(path: Path) -> str:
    """Return a document's text; of recipes and scripts, comments lose their mark."""
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".md" else re.sub(r"^# ?", "", text, flags=re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [match["code"] for match in FENCE.finditer(text) if match["language"] == language]


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of a text: lines that begin with `siser`, joined over backslashes, and inline mentions."""
    for line in text.replace("\\\n", " ").splitlines():
        if match := PROGRAM.match(line.strip()):
            yield Command(tuple(shlex.split(line.strip()[match.end() :], comments=True)), complete=True)
    for span in INLINE.findall(FENCE.sub("", text)):
        if match := PROGRAM.match(span):
            yield Command(tuple(shlex.split(span[match.end() :])), complete=False)


def links(text: str) -> list[str]:
    """Return the relative targets of links and images, without anchors."""
    targets = [match["target"].partition("#")[0] for match in LINK.finditer(FENCE.sub("", text))]
    return [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]


def files(text: str) -> list[str]:
    """Return the names of files of the repository that a text mentions in backquotes."""
    return [span for span in INLINE.findall(text) if FILE.fullmatch(span) and "NAME" not in span]


def find(name: str) -> bool:
    """Whether a file of that name is in the repository: a path from its root or from the package, or a bare name anywhere."""
    if (ROOT / name).exists() or (PACKAGE / name).exists():
        return True
    return "/" not in name and any(any(folder.rglob(name)) for folder in FOLDERS)
