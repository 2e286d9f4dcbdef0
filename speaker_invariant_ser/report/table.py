"""A table of text, as the report pages and the console show it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import ClassVar


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        head: Column headers.
        rows: Cells, row by row.
        folded: Summary line of the fold that hides the table on the page; "" shows it at once.
        strong: Positions of the rows to emphasise.
        numbers: All columns but the first hold numbers.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""
    strong: Sequence[int] = ()
    numbers: bool = True


def cell(text: object) -> str:
    r"""Escape text for Markdown, in tables too, so that nothing in it is markup.

    >>> print(cell("<b> a|b *c* d_e"))
    &lt;b&gt; a\|b \*c\* d_e
    """
    plain = escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"[\\`*|$\[\]~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain)
