"""Section on folds, hashes, versions and every other setting."""

from collections.abc import Iterator, Mapping, Sequence

from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.evaluation.summary import Fold, RunSettings, TableSettings
from speaker_invariant_ser.evaluation.summary_parts import SelectedEpoch
from speaker_invariant_ser.report.formatting import percent
from speaker_invariant_ser.report.sections.blocks import Block, Section, Text
from speaker_invariant_ser.report.table import Table

SETTINGS = "Settings"
LISTED_ELSEWHERE = ("folds", "versions", "threat")
FOLD_PARTS = {
    "train": "training speakers",
    "unlabelled": "training speakers without labels",
    "dev": "dev speakers",
    "test": "test speakers",
}


def settings_section(settings: RunSettings | TableSettings, epochs: Mapping[str, SelectedEpoch]) -> Section:
    """Return all that is needed to repeat the run; `epochs` holds the selected epoch of each model."""
    other = {key: value for key, value in settings.to_json().items() if key not in LISTED_ELSEWHERE}
    blocks: list[Block] = [Text("Everything that is needed to repeat this; report.json has it in full.")]
    if isinstance(settings, RunSettings) and settings.folds:
        blocks += [folds_table(settings.folds, epochs), hashes_table(settings.folds)]
    blocks.append(Table(["setting", "value"], list(flatten(other)), "All settings", numbers=False))
    if settings.versions:
        versions = [[name, version] for name, version in settings.versions.items()]
        blocks.append(Table(["library", "version"], versions, "Versions", numbers=False))
    return Section(SETTINGS, blocks)


def folds_table(folds: Sequence[Fold], epochs: Mapping[str, SelectedEpoch]) -> Table:
    """Return a row for each fold, with the selected epochs and dev UARs of its models, seed by seed."""
    parts = [part for part in FOLD_PARTS if any(getattr(fold, part) for fold in folds)]
    rows = []
    for fold in folds:
        models = [epoch for epoch in epochs.values() if epoch.fold == fold.name]
        if models:
            speakers = [shorten(getattr(fold, part), 12) for part in parts]
            selected = shorten((str(model.epoch) for model in models), 12)
            dev_uar = shorten((percent(model.dev_uar) for model in models), 12)
            rows.append([fold.name, *speakers, f"{fold.held_out:,}", selected, dev_uar])
    uar, title = ("dev UAR", "training, dev and test") if "dev" in parts else ("UAR of inner folds", "training and test")
    head = ["fold", *(FOLD_PARTS[part] for part in parts), "utterances held out", "selected epoch", uar]
    return Table(head, rows, f"Folds: {title} speakers", numbers=False)


def hashes_table(folds: Sequence[Fold]) -> Table:
    """Return the hash of each fold."""
    rows = [[fold.name, fold.sha256] for fold in folds]
    return Table(["fold", "SHA-256 of its utterance ids, part by part"], rows, "Hashes of the folds", numbers=False)


def flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[list[str]]:
    """Yield nested settings as rows [dotted key, value]."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield [f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
