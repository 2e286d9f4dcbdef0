"""The parts of report.json about dimensions, typed."""

from pydantic import Field

from speaker_invariant_ser.evaluation.part import Count, Part, Share, Signed, Size


class Ccc(Part):
    """Concordance correlation coefficient over utterances, its 95 % interval over speakers, and the values of the seeds.

    `value` is None where all ratings are equal.
    """

    value: Signed | None
    low: Signed | None
    high: Signed | None
    seeds: dict[str, Signed] = Field(default_factory=dict)
    deviation: Size | None = None


class MeanCcc(Part):
    """Mean of the CCCs of the speakers with different ratings, each with the same weight, and its 95 % interval over speakers."""

    centre = "value"
    value: Signed | None
    low: Signed | None
    high: Signed | None


class DimensionResult(Part):
    """Results on arousal, valence or dominance, on the utterances with a rating; the CCC of a constant prediction is 0."""

    ccc: Ccc
    ccc_mean_over_speakers: MeanCcc
    pearson: Signed | None
    rmse: Size | None
    utterances: Count
    per_speaker: dict[str, Signed | None]


class GivenCells(Part):
    """Cells of emotion and binned ratings of a model: edges of the bins, training utterances of the smallest cell, and cells."""

    edges: dict[str, list[Share]]
    minimum: Count
    cells: Count


class GivenEmotion(Part):
    """What "given emotion" is conditioned on beside the emotion: bins of the ratings, fitted on training utterances.

    `share` is that of the scored utterances that are in such a cell; of the others the emotion alone is given.
    """

    dimensions: list[str]
    bins: Count
    share: Share
    cells: dict[str, GivenCells]  # by the name of the model
