"""The part `speaker.certificate` of report.json, typed; `audit.certificates` says what the numbers are."""

from typing import Literal

from pydantic import Field

from speaker_invariant_ser.evaluation.part import Count, Part, Share, Size


class SeveralClips(Part):
    """Balanced accuracy with several utterances of one person: no attacker exceeds `bound`; `estimate` is one attacker's."""

    clips: Count
    bound: Share
    estimate: Share | None


class CertifiedModel(Part):
    """The certificate of one model's codes; `name` is "" for a table.

    `limits` are bounds by several inequalities, of which `limit` names the smallest, which is `bound`. Reports of version 0.6
    have neither: their bounds are McDiarmid's.
    """

    name: str
    speakers: Count
    utterances: Count
    clips_per_speaker: dict[str, Count]
    cells_used: Count
    perplexity: Size
    plug_in: Share
    bound: Share
    smallest: Share
    curve: list[SeveralClips]
    limit: str = "mcdiarmid"
    limits: dict[str, Share | None] = Field(default_factory=dict)


class CertifiedPopulation(Part):
    """Certificates on one kind of utterances, with the highest and mean bound; null and empty where `unavailable` says why."""

    clips: Literal["held-out", "unseen", "given"]
    worst: Share | None
    mean: Share | None
    models: list[CertifiedModel]
    unavailable: str


class CertificatePart(Part):
    """Certificates of what one of `cells` codes reveals; all bounds of a population hold with probability 1 - `delta`."""

    column: str
    cells: Count
    delta: Share
    populations: list[CertifiedPopulation]
