"""The run folder: what was asked (recipe.toml, split.json) and, per fold, what came out (model, metrics.csv)."""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from speaker_invariant_ser.config import Recipe, read_recipe, write_toml
from speaker_invariant_ser.errors import RecipeError, RunError, SplitError, StoreError, shorten, unknown
from speaker_invariant_ser.files import new_folder, refuse_existing, sha256, write_json
from speaker_invariant_ser.model import DESCRIPTION, WEIGHTS
from speaker_invariant_ser.splits import Split
from speaker_invariant_ser.store import AUDIO, MANIFEST, Store

RECIPE, SPLIT, FOLDS, METRICS = "recipe.toml", "split.json", "folds", "metrics.csv"


@dataclass(frozen=True)
class Run:
    """A run folder. `data` is the prepared corpus it was trained on, `hashes` that corpus's SHA-256 by file."""

    folder: Path
    recipe: Recipe
    splits: list[Split]
    data: Path
    hashes: dict[str, str]

    @classmethod
    def create(cls, folder: Path | str, recipe: Recipe, splits: Sequence[Split], store: Store) -> "Run":
        """Start a run in a new or empty folder. Raises WriteError if it holds anything."""
        folder = refuse_existing(folder, "continue it with --resume, or choose another --out")
        run = cls(folder, recipe, list(splits), store.folder.absolute(), dict(store.settings["sha256"]))
        folds = [{**asdict(split), "sha256": split_hash(split, store)} for split in splits]
        with new_folder(folder) as partial:
            (partial / RECIPE).write_text(write_toml(recipe), encoding="utf-8")
            record = {"data": str(run.data), "sha256": run.hashes, "labels": store.mapped.table(), "folds": folds}
            write_json(partial / SPLIT, record)
        return run

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Open an existing run. Raises RunError if the folder is not one, or is damaged."""
        folder = Path(folder)
        missing = [name for name in (RECIPE, SPLIT) if not (folder / name).is_file()]
        if missing:
            reason = f"has no {shorten(missing)}" if folder.is_dir() else "does not exist"
            raise RunError(f"{folder} is not a run folder ({reason}); make one with `siser train`")
        try:
            record = json.loads((folder / SPLIT).read_text(encoding="utf-8"))
            parts = ("train", "dev", "test")
            more = ("texts", "held_out")  # which runs of earlier versions lack
            splits = [
                Split(f["name"], *(tuple(f[part]) for part in parts), *(tuple(f.get(part, ())) for part in more))
                for f in record["folds"]
            ]
            return cls(folder, read_recipe(folder / RECIPE), splits, Path(record["data"]), dict(record["sha256"]))
        except (ValueError, KeyError, TypeError, SplitError, RecipeError) as error:
            raise RunError(f"{folder} is damaged: {SPLIT} or {RECIPE} cannot be used ({error})") from None

    def require_same(self, recipe: Recipe, splits: Sequence[Split], store: Store) -> None:
        """Raise RunError unless this run was started with the same recipe, folds and data, so that resuming is the same run."""
        old, new = self.recipe.model_dump(), recipe.model_dump()
        changed = [f"{s}.{k} was {old[s][k]!r}, now {new[s][k]!r}" for s in new for k in new[s] if old[s][k] != new[s][k]]
        if changed:
            raise RunError(f"{self.folder} was started with another recipe: {shorten(changed)}. Use the same, or another --out")
        self.require_data(store)
        if self.splits != list(splits):
            raise RunError(f"{self.folder} was started with other folds; choose another --out")

    def require_data(self, store: Store) -> None:
        """Raise RunError unless `store` is the corpus this run was trained on."""
        if {name: store.settings["sha256"].get(name) for name in (AUDIO, MANIFEST)} != self.hashes:
            raise RunError(f"{self.folder} was trained on other data than {store.folder} holds (the hashes differ)")

    def open_data(self, data: Path | str | None = None) -> Store:
        """The prepared corpus, at `data` if it has moved. Raises StoreError or RunError."""
        store = Store.open(data or self.data).labelled(self.recipe.labels.map)
        self.require_data(store)
        if sha256(store.folder / AUDIO) != self.hashes[AUDIO]:
            raise StoreError(
                f"{store.folder / AUDIO} was changed since it was prepared (its hash differs); prepare the corpus again"
            )
        return store

    def fold_folder(self, split: Split) -> Path:
        """Where a fold's files are. Its name may be a speaker's, which may hold anything: it is quoted to be one plain name."""
        return self.folder / FOLDS / quote(split.name, safe=" ").replace(".", "%2E")

    def is_done(self, split: Split) -> bool:
        """Whether the fold is trained; a fold's folder gets its name only when everything in it is written."""
        return all((self.fold_folder(split) / name).is_file() for name in (WEIGHTS, DESCRIPTION, METRICS))

    def done(self) -> list[Split]:
        """The trained folds. Raises RunError if there is none."""
        splits = [split for split in self.splits if self.is_done(split)]
        if not splits:
            raise RunError(f"{self.folder} has no trained fold yet; continue it with `siser train ... --resume`")
        return splits

    def all_done(self) -> list[Split]:
        """Every fold. Raises RunError naming those that are not trained: a part of the folds is not the result."""
        missing = [split.name for split in self.splits if not self.is_done(split)]
        if missing:
            raise RunError(
                f"{self.folder}: {len(missing)} of {len(self.splits)} folds not trained ({shorten(missing)}); "
                "continue with `siser train ... --resume`"
            )
        return self.splits

    def one(self, name: str) -> Split:
        """The trained fold of that name. Raises RunError with the trained ones."""
        found = {split.name: split for split in self.done()}
        if name not in found:
            raise RunError(f"{self.folder}: {unknown('trained fold', name, found)}")
        return found[name]

    def metrics(self, split: Split) -> list[dict[str, float]]:
        """metrics.csv of a fold, one dict per epoch."""
        path = self.fold_folder(split) / METRICS
        try:
            with open(path, encoding="utf-8", newline="") as file:
                rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
            kept(rows)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise RunError(f"{path} is damaged or missing: {error}") from None
        return rows


def kept(rows: list[dict[str, float]]) -> dict[str, float]:
    """The epoch whose weights were saved: the last that was better than all before it on the dev speakers."""
    return [row for row in rows if row["best"]][-1]


def split_hash(split: Split, store: Store) -> str:
    """SHA-256 over the utterance ids of each part, in order: two runs with one hash were tested on the same clips."""
    parts = {
        part: sorted(store.utterances[i].id for i in split.indices(part, store.utterances))
        for part in ("train", "held_out", "dev", "test")
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
