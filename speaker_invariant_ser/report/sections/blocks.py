"""What chapters are made of, and how numbers are written: None, for what is not defined, as a dash."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.report.plots import Picture

LONG = 15  # a table of more rows is folded
TRANSDUCTIVE = "transductive"
ABOUT_TRANSDUCTIVE = (
    "Transductive: from every clip the mean log-mel of all clips of its speaker was taken, of test speakers too. That needs "
    "unlabelled audio of the very people whose emotion is read, so these numbers are no match for those of a model that "
    "meets a speaker for the first time."
)


@dataclass(frozen=True)
class Text:
    """A paragraph; `role` is "verdict", "note", "warning" or nothing."""

    kind: ClassVar[str] = "text"
    words: str
    role: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text. `folded` is the line behind which it is folded away, `strong` the rows to be seen first."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""
    strong: Sequence[int] = ()
    numbers: bool = True  # all columns but the first are numbers


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side where there is room, and a small table beside the last."""

    kind: ClassVar[str] = "pictures"
    drawn: Sequence[Picture]
    beside: Table | None = None


@dataclass(frozen=True)
class Chapter:
    """A heading, of level 2 or 3, and what stands under it."""

    title: str
    blocks: Sequence[Text | Table | Pictures]
    level: int = 2

    @property
    def key(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def marked(chapter: Chapter) -> Chapter:
    """The chapter of a transductive run, which is said in the head of each of its tables."""
    return replace(chapter, blocks=[marked_block(block) for block in chapter.blocks])


def marked_block(block: Text | Table | Pictures) -> Text | Table | Pictures:
    if isinstance(block, Pictures):
        return replace(block, beside=block.beside and marked_block(block.beside))
    if isinstance(block, Text):
        return block
    first, *others = block.head
    return replace(block, head=[f"{first} ({TRANSDUCTIVE})" if first else TRANSDUCTIVE, *others])


def run_name(summary: Mapping) -> str:
    """What a run is called beside others."""
    return summary["run"] + (f" ({TRANSDUCTIVE})" if is_transductive(summary) else "")


def is_transductive(summary: Mapping) -> bool:
    """Of a report.json, or of what one says of the other run; those of earlier versions do not say."""
    return summary.get("settings", summary).get("transductive", False)


def about_learned(summaries: Sequence[Mapping]) -> str:
    """A warning where attackers of some runs had fewer clips to learn from than those of others; empty where all had alike."""
    fewer = [one["run"] for one in summaries if one["speaker"].get("learned") == "held-out"]  # earlier versions do not say
    if len(fewer) in (0, len(summaries)):
        return ""
    return (
        f"The attackers of {shorten(fewer)} learned from held-out clips alone, since an eraser was fitted on the others. Who has "
        "fewer clips to learn from reads less for that reason too: what the eraser took is said by the run's own control before "
        "erasure, not by another run."
    )


def percent(value: float | None) -> str:
    """0.1234 -> "12.3 %"; None, for what is undefined, -> "-"."""
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(score: Mapping) -> str:
    """The 95 % interval of a score with `low` and `high`, in words where there is none."""
    if score["low"] is None:
        return "no interval: it needs at least two clusters"
    return f"{100 * score['low']:.1f} to {100 * score['high']:.1f} %"


def deviation(score: Mapping) -> str:
    """What follows an interval where a score is a mean over several seeds; nothing for one, and for reports without seeds."""
    if score.get("deviation") is None:
        return ""
    return f", deviation over {len(score['seeds'])} seeds {100 * score['deviation']:.1f}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points."""
    return "-" if value is None else f"{100 * value:+.1f} points"


def decimal(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else decimal(value, 3)


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def score(result: Mapping) -> dict:
    """An attacker's or control's accuracy as pictures take it."""
    return {"value": result["accuracy"], "low": result["low"], "high": result["high"]}


def folded(rows: Sequence, what: str) -> str:
    """The line behind which a long table is folded away; nothing for a short one."""
    return f"All {len(rows)} {what}" if len(rows) > LONG else ""
