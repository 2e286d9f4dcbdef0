"""What `siser infer` was asked for: which parts of recordings get rows, and which emotions they can have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_invariant_ser.data.formats.channels import CHOICES, EACH, MIX, require_choice
from speaker_invariant_ser.errors import SerError, unknown
from speaker_invariant_ser.inference.parts.windows import to_samples

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.parts.segments import Segment


@dataclass(frozen=True)
class Settings:
    """Settings of inference; by default each recording gets one row.

    Attributes:
        channel: Of files with several channels: `mix` for their mean, `left`, `right`, or `each` for rows for each channel.
        window: Length of windows in seconds, 0.5 to 30, each of which gets a row; 0 for none.
        hop: Seconds from the beginning of a window to that of the next, at most `window`.
        vad: Find speech, and predict its stretches alone.
        segments: Segments of recordings, from a diariser; None to take recordings as a whole.
        labels: Emotions to choose from, whose probabilities then sum to 1; all of the model if empty.
        min_confidence: Predictions below this confidence are "uncertain".
        embeddings: Whether embeddings are wanted, too.

    Raises:
        SerError: A value is out of range, or two exclude each other.
    """

    channel: str = MIX
    window: float = 0.0
    hop: float = 0.0
    vad: bool = False
    segments: "Mapping[Path, Sequence[Segment]] | None" = field(default=None, repr=False)
    labels: tuple[str, ...] = ()
    min_confidence: float = 0.0
    embeddings: bool = False

    def __post_init__(self) -> None:
        """Check values."""
        require_choice(self.channel, (*CHOICES, EACH))
        if self.window or self.hop:
            to_samples(self.window, self.hop)
        if self.vad and self.segments is not None:
            raise SerError("--vad finds segments of speech itself: leave out --vad or --segments")
        if not 0 <= self.min_confidence <= 1:
            raise SerError(f"min_confidence = {self.min_confidence:g}: expected 0 to 1")
        if len(set(self.labels)) < len(self.labels):
            raise SerError(f"labels: {', '.join(self.labels)} names an emotion twice")
        if len(self.labels) == 1:
            named = self.labels[0] or "an empty list"
            raise SerError(f"labels: {named} leaves nothing to choose from, expected at least two emotions")

    @property
    def in_parts(self) -> bool:
        """Whether recordings are decoded block by block, for windows or segments."""
        return bool(self.window or self.vad or self.segments is not None)


def chosen_columns(labels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the positions of the wanted emotions among those of a model, in the model's order; all if none is named.

    Raises:
        SerError: The model has no such emotion.
    """
    for label in wanted:
        if label not in labels:
            raise SerError(f"labels: {unknown('emotion', label, labels)}")
    return [index for index, label in enumerate(labels) if not wanted or label in wanted]
