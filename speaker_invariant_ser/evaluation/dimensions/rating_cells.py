"""What chance "given emotion" is conditioned on where a model predicts dimensions: emotion and bins of the ratings.

Speakers who differ in arousal could be distinguished by an embedding of nothing but emotion, which the category alone does
not account for. Of each dimension, the ratings of a fold's training utterances are divided into terciles. An utterance is in the
finest cell of emotion and terciles that is large enough: of all dimensions, else of all but the last, and so on; else in that of
its emotion alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.evaluation.dimensions.parts import GivenCells, GivenEmotion

BINS = 3
MIN_UTTERANCES, MIN_PER_SPEAKER = 20, 2  # of the training utterances of a cell: so many, and so many times the speakers


@dataclass(frozen=True)
class RatingCells:
    """Cells of emotion and binned ratings.

    Attributes:
        edges: Upper edges of the first two terciles, by dimension.
        minimum: Training utterances that a cell has at least.
        names: Names of the cells, apart from those of an emotion alone.
    """

    edges: Mapping[str, tuple[float, ...]]
    minimum: int
    names: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def fit(cls, dimensions: Sequence[str], utterances: Sequence[Utterance]) -> "RatingCells":
        """Divide the training utterances of a fold, by the dimensions that a model predicts, into cells."""
        speakers = len({utterance.speaker for utterance in utterances})
        cells = cls({name: terciles(name, utterances) for name in dimensions}, max(MIN_UTTERANCES, MIN_PER_SPEAKER * speakers))
        left, names = list(utterances), set[str]()
        for depth in range(len(dimensions), 0, -1):
            counts = Counter(cells.name_at(utterance, depth) for utterance in left)
            large = {name for name, count in counts.items() if name and count >= cells.minimum}
            left = [utterance for utterance in left if cells.name_at(utterance, depth) not in large]
            names |= large
        return replace(cells, names=frozenset(names))

    def name_at(self, utterance: Utterance, depth: int) -> str:
        """Return the cell of an utterance by emotion and the first dimensions, so many; empty where a rating is missing."""
        parts = [utterance.emotion]
        for name in list(self.edges)[:depth]:
            value = getattr(utterance, name)
            if value is None:
                return ""
            parts.append(f"{name} {1 + int(np.searchsorted(self.edges[name], value, side='left'))}/{BINS}")
        return ", ".join(parts)

    def of(self, utterance: Utterance) -> str:
        """Return the cell of an utterance."""
        finest = (self.name_at(utterance, depth) for depth in range(len(self.edges), 0, -1))
        return next((name for name in finest if name in self.names), utterance.emotion)

    def of_table(self, table: Embeddings, utterances: Mapping[str, Utterance]) -> Embeddings:
        """Return embeddings with the cell of each utterance as `given`; utterances are looked up by id."""
        return replace(table, given=np.array([self.of(utterances[str(name)]) for name in table.id]))


def terciles(name: str, utterances: Sequence[Utterance]) -> tuple[float, ...]:
    """Return the upper edges of the first two thirds of the ratings of a dimension."""
    rated = [value for utterance in utterances if (value := getattr(utterance, name)) is not None]
    return tuple(np.quantile(rated, [number / BINS for number in range(1, BINS)]).tolist())


def given_emotion(cells: Mapping[str, RatingCells], tables: Sequence[Embeddings]) -> GivenEmotion | None:
    """Describe the cells of all models, by the name of the model; None for models without dimensions."""
    if not cells:
        return None
    in_cells = [table.given[table.scored] != table.emotion[table.scored] for table in tables if table.given is not None]
    return GivenEmotion(
        dimensions=list(next(iter(cells.values())).edges),
        bins=BINS,
        share=float(np.mean(np.concatenate(in_cells))),
        cells={
            name: GivenCells(
                edges={key: list(edges) for key, edges in each.edges.items()}, minimum=each.minimum, cells=len(each.names)
            )
            for name, each in cells.items()
        },
    )
