"""A table of text, as the report pages and the console show it."""

from collections.abc import Sequence
from dataclasses import dataclass
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
