"""The typed content of report.json, without torch.

Keys are stable: they are added to, never renamed or dropped. Fields stand in the order in which they are written; a key that
an older version did not write is optional here, stays absent when the report is written again, and a key of a newer version is
kept. Rates are shares from 0 to 1; None (null) is a value that is not defined, such as an interval over a single speaker.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, JsonValue, ValidationError

from speaker_invariant_ser.errors import RunError, WriteError, quoted
from speaker_invariant_ser.evaluation.part import Count, Part, Share, Signed, Size
from speaker_invariant_ser.evaluation.summary_parts import (
    AtChance,
    Baseline,
    ChanceLevels,
    Control,
    Emotion,
    Speaker,
    StrongestAttacker,
    Uar,
)
from speaker_invariant_ser.json_files import read_json, read_typed, why_invalid

REPORT, JSON = "report", "report.json"  # folder and file in a run folder
QUICK_REPORT = "report-quick"  # folder of a report of closed-form attackers beside a full one
MARKDOWN, PAGE = "report.md", "report.html"
PLOTS = (
    "accuracies",
    "adversary-losses",
    "attackers",
    "calibration",
    "certificate-given",
    "certificate-held-out",
    "certificate-unseen",
    "confusion",
    "controls",
    "differences",
    "gradients",
    "layers",
    "losses",
    "map-emotion",
    "map-speaker",
    "speakers",
    "tradeoff",
    "verdict",
)
MAX_CORPORA = 99  # of a comparison, which has plots of each of them
CORPUS_PLOTS = tuple(f"{name}-{n}" for name in ("tradeoff", "adversary-losses") for n in range(1, MAX_CORPORA + 1))
REPORT_FILES = (JSON, MARKDOWN, PAGE, *(f"{name}.png" for name in (*PLOTS, *CORPUS_PLOTS)))  # a new report replaces these alone

# ---- the comparison with another run


class Difference(Part):
    """Mean difference of the speakers' UARs, with its 95 % bootstrap interval over speakers."""

    centre = "value"
    value: Signed
    low: Signed | None
    high: Signed | None


class SpeakerDifference(Part):
    """UAR of one speaker under both runs."""

    this: Share
    other: Share
    difference: Signed


class DomainDifference(Part):
    """Two runs compared on one domain."""

    this: Uar
    other: Uar
    speakers: Count
    difference: Difference
    p_value: Share | None


class OtherEmotion(Part):
    """Emotion UAR of the other run on the same utterances."""

    uar: Uar


class OtherSpeaker(Part):
    """Speaker results of the other run, from its own report."""

    strongest: StrongestAttacker
    chance: ChanceLevels
    controls: dict[str, Control] | None = None
    learned: Literal["all", "held-out"] | None = None


class Against(Part):
    """Another run, evaluated on the same utterances and compared speaker by speaker; `unaudited` is why it has no audit."""

    run: str
    strength: Size = 0.0
    transductive: bool = False
    speakers: Count
    difference: Difference
    per_speaker: dict[str, SpeakerDifference]
    p_value: Share | None
    effect_size: float | None
    margin: Share
    non_inferior: bool | Literal["undecided"]
    lower_bound: float | None
    domains: dict[str, DomainDifference] | None = None
    emotion: OtherEmotion
    speaker: OtherSpeaker | None
    unaudited: str = ""


# ---- settings


class Fold(Part):
    """Speakers of each part of a fold, the number of held-out utterances, and the hash of all parts."""

    name: str
    train: list[str]
    dev: list[str]
    test: list[str]
    texts: list[str] = Field(default_factory=list)
    held_out: Count = 0
    unlabelled: list[str] = Field(default_factory=list)
    sha256: str = "-"


class AuditRecord(Part):
    """The settings that decide the numbers of an audit."""

    folds: Count
    seed: int
    permutations: Count
    quick: bool
    significant_bits: Count | None = None


class RunSettings(Part):
    """All that is needed to repeat an evaluation."""

    threat: str = ""
    recipe: dict[str, JsonValue]
    transductive: bool = False
    corpora: list[str]
    labels: dict[str, JsonValue]
    seeds: list[int] = Field(default_factory=list)
    trained: dict[str, JsonValue] = Field(default_factory=dict)
    data_sha256: dict[str, str]
    folds: list[Fold]
    versions: dict[str, str]
    audit: AuditRecord
    date: str = ""  # of the evaluation, UTC
    judge: dict[str, JsonValue] | None = None


class TableSettings(Part):
    """All that is needed to repeat the audit of a table of embeddings."""

    table: dict[str, JsonValue]
    audit: AuditRecord
    versions: dict[str, str]
    date: str = ""  # of the audit, UTC
    judge: dict[str, JsonValue] | None = None


# ---- the whole


class Report(Part):
    """The content of report.json: of a run (RunReport) or of a table of embeddings (TableReport)."""

    run: str
    note: str
    at_chance: AtChance
    verdict: list[str]
    emotion: Emotion | None
    speaker: Speaker
    against: Against | None
    settings: RunSettings | TableSettings
    baseline: Baseline | None = None

    @property
    def transductive(self) -> bool:
        """Whether features of test speakers were normalised with the mean of all their utterances."""
        return isinstance(self.settings, RunSettings) and self.settings.transductive


class RunReport(Report):
    """The report of a run.

    >>> "emotion" in RunReport.model_fields and RunReport.model_fields["against"].is_required()
    True
    """

    emotion: Emotion
    settings: RunSettings


class UnauditedReport(Part):
    """The report of a run that cannot be audited: emotion results, and the reason why there is nothing on the speaker."""

    run: str
    note: str
    verdict: list[str]
    unaudited: str
    emotion: Emotion
    speaker: None
    against: Against | None = None
    settings: RunSettings
    baseline: Baseline | None

    @property
    def transductive(self) -> bool:
        """As in `Report`."""
        return self.settings.transductive


AnyRunReport = RunReport | UnauditedReport


class TableReport(Report):
    """The report of a table of embeddings, which has no emotion results."""

    emotion: None
    settings: TableSettings


class UnauditedTableReport(Part):
    """The report of a baseline whose features cannot be audited: its emotion results are in the part `baseline`."""

    run: str
    note: str
    verdict: list[str]
    unaudited: str
    emotion: None
    speaker: None
    against: None
    settings: TableSettings
    baseline: Baseline


class FrontMark(Part):
    """Whether a run is on the Pareto front of a comparison; None for one without an audit, whose leakage is not known."""

    pareto: bool | None


class ComparedRun(RunReport, FrontMark):
    """A run's report in a comparison; `pareto` is the first key."""


class UnauditedComparedRun(UnauditedReport, FrontMark):
    """The report of a run without an audit in a comparison."""


class ComparisonReport(Part):
    """The content of a comparison's report.json."""

    runs: list[ComparedRun | UnauditedComparedRun]

    @classmethod
    def of(cls, reports: Sequence[AnyRunReport], front: Sequence[int]) -> Self:
        """Mark the reports whose positions are in `front`."""
        runs = [
            {"pareto": position in front if report.speaker else None, **report.to_json()}
            for position, report in enumerate(reports)
        ]
        return cls.model_validate({"runs": runs})


def is_report(path: Path) -> bool:
    """Return whether a file is the JSON of a report or of a comparison, of any version."""
    if not path.is_file():
        return False
    try:
        content = read_json(path)
        first = content["runs"][0] if "runs" in content else content
        return {"verdict", "speaker"} <= set(first)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def holds_full_report(folder: Path) -> bool:
    """Return whether a folder holds the report of an audit by all attackers, which one with --quick must not replace."""
    if not (folder / JSON).is_file():
        return False
    try:
        content = read_json(folder / JSON)
        return content["settings"]["audit"]["quick"] is False and content["speaker"] is not None
    except (OSError, ValueError, LookupError, TypeError):
        return False  # none, a comparison, or damaged


def require_report_folder(folder: Path) -> None:
    """Raise WriteError where a file is in place of the folder of a report, or a folder in place of one of its files."""
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"cannot write {folder}: a file of that name exists")
    for path in (folder / name for name in REPORT_FILES):
        if path.is_dir():
            raise WriteError(f"cannot write {path}: a folder of that name exists")


def read_report(folder: Path) -> AnyRunReport:
    """Read the report of an evaluated run, also one without an audit, or written by an older version.

    Args:
        folder: The run folder.

    Raises:
        RunError: report.json is missing, damaged, or lacks a key; the message names the key and how to evaluate again.
    """
    path = folder / REPORT / JSON
    again = f"evaluate it again with `siser evaluate {quoted(folder)}`"
    try:
        content = read_json(path)
        unaudited = isinstance(content, dict) and "unaudited" in content
        return read_typed(UnauditedReport, path) if unaudited else read_typed(RunReport, path)
    except FileNotFoundError:
        raise RunError(f"{folder} has no {REPORT}/{JSON}: evaluate it first with `siser evaluate {quoted(folder)}`") from None
    except ValidationError as error:
        if (first := error.errors()[0])["type"] == "missing":
            key = ".".join(map(str, first["loc"]))
            raise RunError(f"{path} is damaged or of another version, it has no {key}: {again}") from None
        raise RunError(f"{path} is damaged ({why_invalid(error)}): {again}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): {again}") from None
