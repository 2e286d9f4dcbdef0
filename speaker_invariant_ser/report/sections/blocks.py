"""The parts of a report: text, table, plots, section; the same for the page and for Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.evaluation.summary import Against, AnyRunReport
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.tables import mark_transductive

ABOUT_TRANSDUCTIVE = (
    "Transductive: features were normalised with the mean log-mel over all utterances of the speaker, test speakers included. "
    "This needs unlabelled audio of the speakers whose emotion is recognised, so these numbers are not comparable with those of "
    "a model that needs no audio of the speaker beforehand."
)


@dataclass(frozen=True)
class Text:
    """A paragraph; `role` is "verdict", "note", "warning" or nothing."""

    kind: ClassVar[str] = "text"
    text: str
    role: str = ""


@dataclass(frozen=True)
class Plots:
    """Plots side by side where there is room, and a small table next to the last."""

    kind: ClassVar[str] = "plots"
    plots: Sequence[Plot]
    table: Table | None = None


@dataclass(frozen=True)
class Answer:
    """The conclusion as a badge, and the answer in words beside it."""

    kind: ClassVar[str] = "answer"
    badge: str
    text: str


Block = Text | Table | Plots | Answer


@dataclass(frozen=True)
class Section:
    """A heading of level 1 to 3, and the blocks below it."""

    title: str
    blocks: Sequence[Block]
    level: int = 2

    @property
    def anchor(self) -> str:
        """The heading's id on the page."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def mark_section(section: Section) -> Section:
    """Return the section of a transductive run, which every table says in its header."""
    return replace(section, blocks=[mark_block(block) for block in section.blocks])


def mark_block(block: Block) -> Block:
    """Return the block with its table marked."""
    if isinstance(block, Plots):
        return replace(block, table=block.table and mark_transductive(block.table))
    return mark_transductive(block) if isinstance(block, Table) else block


def about_learned(runs: Sequence[AnyRunReport | Against]) -> str:
    """Return a warning where the attackers of some runs had fewer utterances to learn from; "" where all had alike."""
    audited = {run.run: run.speaker for run in runs if run.speaker}
    fewer = [name for name, speaker in audited.items() if speaker.learned == "held-out"]
    if len(fewer) in (0, len(audited)):
        return ""
    return (
        f"The attackers of {shorten(fewer)} learned from held-out utterances alone, since an eraser was fitted on the others. "
        "Attackers with fewer utterances to learn from are less accurate for that reason too: judge an erasure by the run's own "
        "control before erasure, not by another run."
    )
