"""The part `speaker.certificate` of report.json, typed; `audit.certificates` says what the numbers are."""

from typing import Literal

from pydantic import Field

from speaker_invariant_ser.evaluation.part import Part


class SeveralClips(Part):
    """Balanced accuracy with several clips of one person: no attacker exceeds `bound`; `estimate` is one attacker's."""

    clips: int
    bound: float
    estimate: float | None


class CertifiedModel(Part):
    """The certificate of one model's codes; `name` is "" for a table.

    `limits` are bounds by several inequalities, of which `limit` names the smallest, which is `bound`. Reports of version 0.6
    have neither: their bounds are McDiarmid's.
    """

    name: str
    speakers: int
    utterances: int
    clips_per_speaker: dict[str, int]
    cells_used: int
    perplexity: float
    plug_in: float
    bound: float
    smallest: float
    curve: list[SeveralClips]
    limit: str = "mcdiarmid"
    limits: dict[str, float | None] = Field(default_factory=dict)


class CertifiedPopulation(Part):
    """Certificates on one kind of clips, with the highest and the mean bound; null and empty where `unavailable` says why."""

    clips: Literal["held-out", "unseen", "given"]
    worst: float | None
    mean: float | None
    models: list[CertifiedModel]
    unavailable: str


class CertificatePart(Part):
    """Certificates of what one of `cells` codes reveals; all bounds of a population hold with probability 1 - `delta`."""

    column: str
    cells: int
    delta: float
    populations: list[CertifiedPopulation]
