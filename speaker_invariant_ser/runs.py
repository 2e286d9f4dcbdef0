"""The run folder: recipe.toml, split.json and, for each fold and seed, the model and metrics.csv.

folds/FOLD/            with one seed
folds/FOLD/seed-S/     with several seeds

A model that was refit has beside them inner-metrics.csv, the epochs of its inner folds, and inner-predictions.csv, how these
predict the speakers that they were not trained on, after the selected epoch.
"""

import csv
import hashlib
import io
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from speaker_invariant_ser.config import read_saved_recipe, write_toml
from speaker_invariant_ser.data.f0.stored import F0
from speaker_invariant_ser.data.prepared_corpus import AUDIO, MANIFEST, PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.data.tables.names import file_key, find
from speaker_invariant_ser.errors import RecipeError, RunError, SplitError, changes, counted, shorten, unknown
from speaker_invariant_ser.features.pretrained.front import require_cache
from speaker_invariant_ser.files import new_folder, portable_path, read_bytes, refuse_existing, resolve_links, write_json
from speaker_invariant_ser.json_files import read_json
from speaker_invariant_ser.models.binding import HASHES, REMEDY, require_same_run, require_unchanged
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, read_description
from speaker_invariant_ser.recipe import Recipe

DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # no names of folders on Windows
MAX_METRICS = 100_000_000  # bytes of metrics.csv; an epoch takes less than 1 kB
MAX_NAME = 200  # characters of a folder; file systems allow 255 bytes, of which temporary names need some
RECIPE, SPLIT, FOLDS, METRICS = "recipe.toml", "split.json", "folds", "metrics.csv"
CORPORA = "corpora"  # key of split.json: their names
INNER_METRICS, INNER_PREDICTIONS = "inner-metrics.csv", "inner-predictions.csv"
INNER = "inner"  # folder of the inner folds in that of an unfinished model: inner/1, inner/2, ...


@dataclass(frozen=True)
class ModelSpec:
    """One model of a run.

    Args:
        split: Its fold.
        seed: Its seed.
        name: The fold's name, with the seed where there are several.
        folder: Where the model is, once it is trained.
    """

    split: Split
    seed: int
    name: str
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the model is trained; its folder gets its name only when everything in it is written."""
        return all((self.folder / name).is_file() for name in (WEIGHTS, DESCRIPTION, METRICS))

    @property
    def trained(self) -> dict[str, str | int]:
        """Device, precision and number of processes of the training; empty for a model of an early version."""
        return read_description(self.folder / DESCRIPTION).get("trained", {})

    def metrics(self) -> list[dict[str, float]]:
        """Read metrics.csv.

        Returns:
            One dict of numbers per epoch.

        Raises:
            RunError: The file is damaged or missing.
        """
        path = self.folder / METRICS
        try:
            rows = read_rows(path)
            best_epoch(rows)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise RunError(f"{path} is damaged or missing: {error}") from None
        return rows


@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        folder: The folder.
        recipe: The recipe it was trained with.
        splits: Its folds.
        data: The prepared corpus it was trained on; None where the run does not say where that is.
        hashes: SHA-256 of that corpus's files, by name.
        record: Contents of split.json.
        table: Contents of recipe.toml.
        unbound: Names of the trained models without hashes of what they were trained with: those before version 0.4.0.
    """

    folder: Path
    recipe: Recipe
    splits: list[Split]
    data: Path | None
    hashes: dict[str, str]
    record: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    table: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    unbound: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def create(cls, folder: Path | str, recipe: Recipe, splits: Sequence[Split], prepared: PreparedCorpus) -> "Run":
        """Start a run in a new or empty folder.

        Args:
            folder: The folder.
            recipe: The recipe.
            splits: The folds.
            prepared: The prepared corpus.

        Raises:
            WriteError: The folder is not empty or cannot be written.
        """
        folder = refuse_existing(folder, "resume it with --resume, or choose another --out")
        hashes = {name: prepared.settings["sha256"][name] for name in (AUDIO, MANIFEST)}  # F0 may be added later
        text, data = write_toml(recipe), portable_path(prepared.folder, folder)
        folds = [{**asdict(split), "sha256": split_hash(split, prepared)} for split in splits]
        record = {"data": data, "sha256": hashes, "labels": prepared.mapped.table(), "folds": folds, "bound": True}
        record[CORPORA] = prepared.settings.get(CORPORA, [])
        f0 = prepared.settings["sha256"].get(F0) if recipe.features.needs_f0 else None
        record |= {F0: f0} if f0 else {}
        record = json.loads(json.dumps(record))  # as it will be read
        with new_folder(folder) as partial:
            (partial / RECIPE).write_text(text, encoding="utf-8")
            write_json(partial / SPLIT, record)
        return cls(folder, recipe, list(splits), prepared.folder.absolute(), hashes, record, tomllib.loads(text))

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Open an existing run, also one that version 0.1.0 wrote.

        Raises:
            RunError: The folder is not a run, is damaged, or was changed since its models were trained.
        """
        folder = Path(folder)
        missing = [name for name in (RECIPE, SPLIT) if not (folder / name).is_file()]
        if missing:
            reason = f"has no {shorten(missing)}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
            raise RunError(f"{folder} is not a run folder ({reason}); make one with `siser train`")
        try:
            record = read_json(folder / SPLIT)
            parts = ("train", "dev", "test")
            optional = ("texts", "held_out", "unlabelled")  # missing in runs of early versions
            splits = [
                Split(fold["name"], *(tuple(fold[part]) for part in parts), *(tuple(fold.get(part, ())) for part in optional))
                for fold in record["folds"]
            ]
            texts = [text for s in splits for text in (s.name, *s.train, *s.dev, *s.test, *s.texts, *s.held_out)]
            if not all(isinstance(text, str) for text in texts) or len({split.name for split in splits}) < len(splits):
                raise ValueError("expected names as texts, and every fold once")
            recipe, table = read_saved_recipe(folder / RECIPE), tomllib.loads((folder / RECIPE).read_text(encoding="utf-8"))
            data = resolve_links(folder / os.path.expanduser(record["data"])) if record["data"] else None
            run = cls(folder, recipe, splits, data, dict(record["sha256"]), record, table)
        except (ValueError, KeyError, TypeError, SplitError, RecipeError) as error:
            raise RunError(f"{folder} is damaged: {SPLIT} or {RECIPE} cannot be used ({error})") from None
        return replace(run, unbound=tuple(spec.name for spec in run.model_specs if spec.done and not run.check_model(spec)))

    def check_model(self, spec: ModelSpec) -> bool:
        """Check a trained model, and the fold and recipe that it was trained with, against the hashes in its model.json.

        Returns:
            Whether it has hashes.

        Raises:
            RunError: Something was changed since training.
        """
        described = read_description(spec.folder / DESCRIPTION)
        if not require_unchanged(spec.folder, described):
            if self.record.get("bound"):
                raise RunError(
                    f"{spec.folder / DESCRIPTION} has no {HASHES}, which every model of this run was written with; {REMEDY}"
                )
            return False
        facts = self.facts(spec)
        origin = {name: self.folder / (RECIPE if name.startswith(f"{RECIPE}: ") else SPLIT) for name in facts}
        require_same_run(spec.folder, described, facts, origin)
        return True

    def facts(self, spec: ModelSpec) -> dict[str, Any]:
        """Return everything that a model is trained with, as the files of the run have it, by name."""
        (fold,) = [fold for fold in self.record["folds"] if fold["name"] == spec.split.name]
        facts = {f"{spec.split.name}: {key}": value for key, value in fold.items()}
        facts |= {"names of the folds": [fold["name"] for fold in self.record["folds"]], "seed": spec.seed}
        facts |= {key: self.record.get(key) for key in ("labels", "sha256")}
        facts |= {F0: self.record[F0]} if F0 in self.record else {}
        return facts | {f"{RECIPE}: {section}": values for section, values in self.table.items()}

    def require_there(self) -> None:
        """Raise RunError where the folder was moved or removed during training, which would go on in a folder without recipe."""
        if not (self.folder / SPLIT).is_file():
            raise RunError(f"{self.folder} was moved or removed while it was trained; continue where it is now, with --resume")

    def require_same(self, recipe: Recipe, splits: Sequence[Split], prepared: PreparedCorpus) -> None:
        """Raise RunError unless this run was started with the same recipe, folds and data, so that it can be resumed."""
        if changed := changes(flattened(self.recipe), flattened(recipe)):
            raise RunError(f"{self.folder} was started with another recipe: {shorten(changed)}. Use the same, or another --out")
        self.require_data(prepared)
        if self.splits != list(splits):
            raise RunError(f"{self.folder} was started with other folds; choose another --out")

    def require_data(self, prepared: PreparedCorpus) -> None:
        """Raise RunError unless `prepared` is the corpus that this run was trained on, with the same F0 if it needs any."""
        if {name: prepared.settings["sha256"].get(name) for name in (AUDIO, MANIFEST)} != self.hashes:
            raise RunError(f"{self.folder} was trained on other data than {prepared.folder} holds (the hashes differ)")
        then, now = self.record.get(F0), prepared.settings["sha256"].get(F0)
        if then and now and then != now:
            raise RunError(
                f"{self.folder} was trained with other F0 than {prepared.folder / F0} holds (SHA-256 {now[:12]}..., then "
                f"{str(then)[:12]}...); {REMEDY}"
            )

    def open_data(self, data: Path | str | None = None) -> PreparedCorpus:
        """Open the prepared corpus of the run.

        Args:
            data: Its folder, if it has moved.

        Raises:
            PreparedCorpusError: The folder is not a prepared corpus, or is damaged.
            RunError: The run was trained on another corpus.
        """
        folder = data or self.data
        if not folder:
            raise RunError(f"{self.folder} does not say where its prepared corpus is: name it with --data FOLDER")
        prepared = PreparedCorpus.open(folder).labelled(self.recipe.labels.map, self.recipe.split)
        self.require_data(prepared)
        prepared.require_audio()
        if self.recipe.features.needs_f0:
            prepared.require_f0()
        require_cache(self.recipe.encoder, prepared)
        for split, fold in zip(self.splits, self.record["folds"], strict=True):
            if fold.get("sha256", now := split_hash(split, prepared)) != now:
                raise RunError(
                    f"{self.folder / SPLIT}: the speakers of fold {split.name} have other utterances than it was trained with "
                    f"(SHA-256 {now[:12]}..., then {fold['sha256'][:12]}...); {REMEDY}"
                )
        return prepared

    @property
    def about_unbound(self) -> str:
        """A note about trained models without hashes; empty if all have some."""
        if not self.unbound:
            return ""
        return (
            f"{self.folder}: {len(self.unbound)} of {counted(len(self.model_specs), 'model')} without hashes, as before version "
            "0.4.0: a split, labels or weights that were changed since training would not be noticed"
        )

    @property
    def seeds(self) -> range:
        """The seeds of the models of each fold."""
        return range(self.recipe.train.seed, self.recipe.train.seed + self.recipe.train.seeds)

    @property
    def model_specs(self) -> list[ModelSpec]:
        """All models, seed by seed."""
        several, model_specs = len(self.seeds) > 1, []
        folders = folder_names([split.name for split in self.splits])
        for seed in self.seeds:
            for split in self.splits:
                folder = self.folder / FOLDS / folders[split.name]
                name = with_seed(split.name, seed) if several else split.name
                model_specs.append(ModelSpec(split, seed, name, folder / f"seed-{seed}" if several else folder))
        return model_specs

    @property
    def number(self) -> int:
        """Number of models, trained or not."""
        return len(self.model_specs)

    def trained_models(self) -> list[ModelSpec]:
        """Return the trained models; raise RunError if there are none."""
        if trained := [spec for spec in self.model_specs if spec.done]:
            return trained
        raise RunError(f"{self.folder} has no trained fold yet; resume it with `siser train ... --resume`")

    def all_models(self) -> list[ModelSpec]:
        """Return all models; raise RunError that names those that are not trained, as some folds are not a result."""
        missing = [spec.name for spec in self.model_specs if not spec.done]
        if missing:
            raise RunError(
                f"{self.folder}: {len(missing)} of {counted(len(self.model_specs), 'fold')} not trained ({shorten(missing)}); "
                "resume with `siser train ... --resume`"
            )
        return self.model_specs

    def models_of_fold(self, name: str) -> list[ModelSpec]:
        """Return the trained models of a fold; raise RunError with the trained folds if there are none."""
        done = self.trained_models()
        name = find(name, dict.fromkeys(spec.split.name for spec in done))
        if name not in (names := [spec.split.name for spec in done]):
            raise RunError(f"{self.folder}: {unknown('trained fold', name, dict.fromkeys(names))}")
        return [spec for spec in done if spec.split.name == name]


def folder_name(fold: str) -> str:
    """Return the name of a fold's folder: the fold's name, which may be a speaker's, quoted to be a valid file name.

    A name that would be too long for file systems is cut, and a hash of it is added.

    >>> folder_name("a/b"), folder_name("con"), len(folder_name("\N{BENGALI LETTER KA}" * 100))
    ('a%2Fb', '%63on', 197)
    """
    quoted = quote(fold, safe=" ").replace(".", "%2E")
    if DEVICES.fullmatch(quoted):
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    return quoted if len(quoted) <= MAX_NAME else with_hash(quoted, fold)


def with_hash(quoted: str, fold: str) -> str:
    """Return the name of a folder, cut if it is long, with a hash of the fold's name."""
    return f"{quoted[: MAX_NAME - 20].rstrip('%')}~{hashlib.sha256(fold.encode()).hexdigest()[:16]}"


def folder_names(folds: Iterable[str]) -> dict[str, str]:
    """Return the name of each fold's folder; those that differ in case alone get a hash, as many file systems take them as one.

    >>> folder_names(["a", "b"]), len(folder_names(["Anna", "anna"])["anna"])
    ({'a': 'a', 'b': 'b'}, 21)
    """
    names = {fold: folder_name(fold) for fold in folds}
    counts = Counter(map(file_key, names.values()))
    return {fold: name if counts[file_key(name)] == 1 else with_hash(name, fold) for fold, name in names.items()}


def flattened(recipe: Recipe) -> dict[str, object]:
    """Return the values of a recipe by `section.key`; of a list of tables, the tables by their number."""
    values: dict[str, object] = {}
    for section, content in recipe.model_dump().items():
        keys = content.items() if isinstance(content, dict) else enumerate(content, start=1)
        values |= {f"{section}.{key}": value for key, value in keys}
    return values


def with_seed(fold: str, seed: int) -> str:
    """Return the name of a model in a run of several seeds."""
    return f"{fold}, seed {seed}"


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read a table of numbers, such as metrics.csv.

    Raises:
        OSError: The file cannot be read.
        ValueError: A cell is not a number, or the file is too large.
        TypeError: A row has too few cells.
    """
    text = read_bytes(path, MAX_METRICS).decode()
    return [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text, newline=""))]


def rows_so_far(folder: Path) -> list[dict[str, float]]:
    """Read the rows of all epochs of a model in training, those of its inner folds, with their number as `inner_fold`, first.

    Args:
        folder: The model's folder, finished or not.

    Raises:
        OSError: The folder was renamed meanwhile.
    """
    written = folder / INNER_METRICS
    inner = read_rows(written) if written.is_file() else [*inner_rows(folder)]
    return inner + (read_rows(folder / METRICS) if (folder / METRICS).is_file() else [])


def inner_rows(folder: Path) -> Iterator[dict[str, float]]:
    """Yield the rows of the inner folds of an unfinished model, fold by fold."""
    for number in count(1):
        path = folder / INNER / str(number) / METRICS
        if not path.is_file():
            return
        yield from ({"inner_fold": number, **row} for row in read_rows(path))


def best_epoch(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the row of metrics.csv whose weights were saved: the last one that was the best so far on the dev speakers."""
    return [row for row in rows if row["best"]][-1]


def split_hash(split: Split, prepared: PreparedCorpus) -> str:
    """Return the SHA-256 of the utterance ids of each part, in order: runs with the same hash have the same test utterances."""
    parts = {
        part: sorted(prepared.utterances[i].id for i in split.indices(part, prepared.utterances))
        for part in ("train", "held_out", "dev", "test", *(("unlabelled",) if split.unlabelled else ()))
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
