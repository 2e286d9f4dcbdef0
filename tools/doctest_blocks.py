"""Extension of the API reference: show doctests in docstrings as code, wherever in the docstring they are."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"(?:^(?P<indent> *)>>> .*\n?)(?:^ *\S.*\n?)*", re.MULTILINE)


def fence(text: str) -> str:
    """Return a docstring whose doctests, each with its output up to the next empty line, are fenced code."""
    return DOCTEST.sub(lambda found: f"{found['indent']}```pycon\n{found[0].rstrip()}\n{found['indent']}```\n", text).rstrip()


class DoctestBlocks(griffe.Extension):
    """Rewrite every docstring with a doctest before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the doctests of one module, class or function."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = fence(obj.docstring.value)
