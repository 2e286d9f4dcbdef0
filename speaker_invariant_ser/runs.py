"""The run folder: what was asked (recipe.toml, split.json) and, per fold and seed, what came out (model, metrics.csv).

folds/FOLD/            with one seed
folds/FOLD/seed-S/     with several
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from speaker_invariant_ser.config import read_saved_recipe, write_toml
from speaker_invariant_ser.data.prepared_corpus import AUDIO, MANIFEST, PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.errors import PreparedCorpusError, RecipeError, RunError, SplitError, shorten, unknown
from speaker_invariant_ser.files import new_folder, refuse_existing, sha256, write_json
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS
from speaker_invariant_ser.recipe import Recipe

RECIPE, SPLIT, FOLDS, METRICS = "recipe.toml", "split.json", "folds", "metrics.csv"


@dataclass(frozen=True)
class Fit:
    """One model of a run: a fold and a seed. `name` is the fold's, with the seed where there are several."""

    split: Split
    seed: int
    name: str
    folder: Path

    @property
    def done(self) -> bool:
        """Whether it is trained; its folder gets its name only when everything in it is written."""
        return all((self.folder / name).is_file() for name in (WEIGHTS, DESCRIPTION, METRICS))

    @property
    def trained(self) -> dict[str, str | int]:
        """On what it was trained: device, precision, processes; empty for a model of an earlier version."""
        return json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8")).get("trained", {})

    def metrics(self) -> list[dict[str, float]]:
        """metrics.csv, one dict per epoch. Raises RunError if it is damaged or missing."""
        path = self.folder / METRICS
        try:
            with open(path, encoding="utf-8", newline="") as file:
                rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
            kept(rows)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise RunError(f"{path} is damaged or missing: {error}") from None
        return rows


@dataclass(frozen=True)
class Run:
    """A run folder. `data` is the prepared corpus it was trained on, `hashes` that corpus's SHA-256 by file."""

    folder: Path
    recipe: Recipe
    splits: list[Split]
    data: Path
    hashes: dict[str, str]

    @classmethod
    def create(cls, folder: Path | str, recipe: Recipe, splits: Sequence[Split], prepared: PreparedCorpus) -> "Run":
        """Start a run in a new or empty folder. Raises WriteError if it holds anything."""
        folder = refuse_existing(folder, "continue it with --resume, or choose another --out")
        run = cls(folder, recipe, list(splits), prepared.folder.absolute(), dict(prepared.settings["sha256"]))
        folds = [{**asdict(split), "sha256": split_hash(split, prepared)} for split in splits]
        with new_folder(folder) as partial:
            (partial / RECIPE).write_text(write_toml(recipe), encoding="utf-8")
            record = {"data": str(run.data), "sha256": run.hashes, "labels": prepared.mapped.table(), "folds": folds}
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
            more = ("texts", "held_out", "unlabelled")  # which runs of earlier versions lack
            splits = [
                Split(f["name"], *(tuple(f[part]) for part in parts), *(tuple(f.get(part, ())) for part in more))
                for f in record["folds"]
            ]
            return cls(folder, read_saved_recipe(folder / RECIPE), splits, Path(record["data"]), dict(record["sha256"]))
        except (ValueError, KeyError, TypeError, SplitError, RecipeError) as error:
            raise RunError(f"{folder} is damaged: {SPLIT} or {RECIPE} cannot be used ({error})") from None

    def require_same(self, recipe: Recipe, splits: Sequence[Split], prepared: PreparedCorpus) -> None:
        """Raise RunError unless this run was started with the same recipe, folds and data, so that resuming is the same run."""
        old, new = self.recipe.model_dump(), recipe.model_dump()
        old, new = ({f"{s}.{k}": value for s in recipe for k, value in entries(recipe[s])} for recipe in (old, new))
        changed = [f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in {**old, **new} if old.get(key) != new.get(key)]
        if changed:
            raise RunError(f"{self.folder} was started with another recipe: {shorten(changed)}. Use the same, or another --out")
        self.require_data(prepared)
        if self.splits != list(splits):
            raise RunError(f"{self.folder} was started with other folds; choose another --out")

    def require_data(self, prepared: PreparedCorpus) -> None:
        """Raise RunError unless `store` is the corpus this run was trained on."""
        if {name: prepared.settings["sha256"].get(name) for name in (AUDIO, MANIFEST)} != self.hashes:
            raise RunError(f"{self.folder} was trained on other data than {prepared.folder} holds (the hashes differ)")

    def open_data(self, data: Path | str | None = None) -> PreparedCorpus:
        """The prepared corpus, at `data` if it has moved. Raises PreparedCorpusError or RunError."""
        prepared = PreparedCorpus.open(data or self.data).labelled(self.recipe.labels.map, self.recipe.split)
        self.require_data(prepared)
        if sha256(prepared.folder / AUDIO) != self.hashes[AUDIO]:
            raise PreparedCorpusError(
                f"{prepared.folder / AUDIO} was changed since it was prepared (its hash differs); prepare the corpus again"
            )
        return prepared

    @property
    def seeds(self) -> range:
        return range(self.recipe.train.seed, self.recipe.train.seed + self.recipe.train.seeds)

    @property
    def fits(self) -> list[Fit]:
        """All models, seed by seed. A fold's name may be a speaker's, which may hold anything: quoted, it is one plain name."""
        several, fits = len(self.seeds) > 1, []
        for seed in self.seeds:
            for split in self.splits:
                folder = self.folder / FOLDS / quote(split.name, safe=" ").replace(".", "%2E")
                name = with_seed(split.name, seed) if several else split.name
                fits.append(Fit(split, seed, name, folder / f"seed-{seed}" if several else folder))
        return fits

    def done(self) -> list[Fit]:
        """The trained models. Raises RunError if there is none."""
        fits = [fit for fit in self.fits if fit.done]
        if not fits:
            raise RunError(f"{self.folder} has no trained fold yet; continue it with `siser train ... --resume`")
        return fits

    def all_done(self) -> list[Fit]:
        """Every model. Raises RunError naming those that are not trained: a part of the folds is not the result."""
        missing = [fit.name for fit in self.fits if not fit.done]
        if missing:
            raise RunError(
                f"{self.folder}: {len(missing)} of {len(self.fits)} folds not trained ({shorten(missing)}); "
                "continue with `siser train ... --resume`"
            )
        return self.fits

    def one(self, name: str) -> list[Fit]:
        """The trained models of the fold of that name. Raises RunError with the trained ones."""
        done = self.done()
        if name not in (names := [fit.split.name for fit in done]):
            raise RunError(f"{self.folder}: {unknown('trained fold', name, dict.fromkeys(names))}")
        return [fit for fit in done if fit.split.name == name]


def entries(section: dict | Sequence[dict]) -> Iterable[tuple[str, object]]:
    """Keys and values of a section of a recipe; of a list of tables, the tables by their number."""
    return section.items() if isinstance(section, dict) else ((str(number), table) for number, table in enumerate(section, 1))


def with_seed(fold: str, seed: int) -> str:
    """What a model is called in a run of several seeds."""
    return f"{fold}, seed {seed}"


def kept(rows: list[dict[str, float]]) -> dict[str, float]:
    """The epoch whose weights were saved: the last that was better than all before it on the dev speakers."""
    return [row for row in rows if row["best"]][-1]


def split_hash(split: Split, prepared: PreparedCorpus) -> str:
    """SHA-256 over the utterance ids of each part, in order: two runs with one hash were tested on the same clips."""
    parts = {
        part: sorted(prepared.utterances[i].id for i in split.indices(part, prepared.utterances))
        for part in ("train", "held_out", "dev", "test", *(("unlabelled",) if split.unlabelled else ()))
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
