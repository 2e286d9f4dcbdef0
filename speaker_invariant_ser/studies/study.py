"""A study: arms x corpora x seeds, described by one TOML file."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from speaker_invariant_ser.config import make_recipe, read_recipe, read_tables, shipped_recipes, toml_value
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.names import file_key
from speaker_invariant_ser.errors import MAX_PROBLEMS, RecipeError, StudyError, shown, unknown
from speaker_invariant_ser.evaluation.baseline import default_split
from speaker_invariant_ser.features.functionals import FEATURE_SETS
from speaker_invariant_ser.files import resolve_links
from speaker_invariant_ser.recipe import Recipe

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=60)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # strict: true is no seed
SEED_KEYS = ("train.seed", "train.seeds")  # the study's own


class Table(BaseModel):
    """A table of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusTable(Table):
    """One of [corpora]: the folder alone, or a table."""

    folder: str
    split: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def folder_alone(cls, value: object) -> object:
        """Turn a folder into a table."""
        return {"folder": value} if isinstance(value, str) else value


class ArmTable(Table):
    """One of [[arms]]."""

    name: Name
    title: str = ""
    recipe: str = ""
    baseline: str = ""
    set: dict[str, Any] = Field(default_factory=dict)
    corpora: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = ()


class StudyTable(Table):
    """The whole file."""

    corpora: dict[Name, CorpusTable] = Field(default_factory=dict)
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1)
    page: str = ""
    telephone: bool = False
    arms: tuple[ArmTable, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Arm:
    """What is measured, on every corpus and with every seed.

    Args:
        name: Short name, part of the names of its result files.
        title: What it is, for the table.
        recipe: The recipe of a network; None for a baseline.
        baseline: Features of a baseline, as `siser baseline --features`; empty for a network.
        overrides: `section.key=value` settings that replace those of the recipe.
        corpora: The corpora it is limited to; empty for all.
        seeds: The seeds of the trainings; None alone for a baseline, which has none.
    """

    name: str
    title: str
    recipe: Path | None
    baseline: str
    overrides: tuple[str, ...]
    corpora: tuple[str, ...]
    seeds: tuple[int | None, ...]

    def resolved(self, seed: int | None, prepared: PreparedCorpus | None = None) -> Recipe | None:
        """Return the complete recipe of one measurement.

        Args:
            seed: The seed of the training; None for a baseline.
            prepared: The corpus, which decides the split of a baseline.

        Returns:
            The recipe; None for a baseline on a corpus that is not given.

        Raises:
            RecipeError: The recipe is missing, or it or an override is wrong.
        """
        if self.recipe:
            return read_recipe(self.recipe, [*self.overrides, f"train.seed={seed}", "train.seeds=1"])
        if prepared is None:
            return None
        split = default_split(prepared.utterances).model_dump(exclude_unset=True)
        return make_recipe({"split": split}, self.overrides, source="the default split")


@dataclass(frozen=True)
class Cell:
    """One measurement: an arm on a corpus, with a seed unless it is a baseline."""

    arm: Arm
    corpus: str
    seed: int | None

    @property
    def name(self) -> str:
        """Name of its result file and of its run folder."""
        return f"{self.corpus}-{self.arm.name}{'' if self.seed is None else f'-s{self.seed}'}"


@dataclass(frozen=True)
class Study:
    """A study.

    Args:
        path: The TOML file.
        corpora: Folders of the prepared corpora, by name.
        arms: The arms; the others are compared with the first one.
        page: Markdown file of the tables; None without one.
        telephone: Whether networks are also scored on test utterances as a telephone transmits them.
        splits: `split.key=value` settings of a corpus, which replace those of every arm.
    """

    path: Path
    corpora: Mapping[str, Path]
    arms: tuple[Arm, ...]
    page: Path | None
    telephone: bool = False
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def cells(self, arms: Collection[str] = (), corpora: Collection[str] = (), seeds: int | None = None) -> list[Cell]:
        """Return the measurements of the study, the first seed of every arm and corpus before the second of any.

        Args:
            arms: Names of the arms wanted; empty for all.
            corpora: Names of the corpora wanted; empty for all.
            seeds: Number of seeds of each arm, its first ones; None for all.

        Raises:
            StudyError: An arm or a corpus is unknown.
        """
        for kind, names, known in (("arm", arms, [arm.name for arm in self.arms]), ("corpus", corpora, self.corpora)):
            for name in names:
                if name not in known:
                    raise StudyError(f"{self.path}: {unknown(kind, name, known)}")
        chosen = [arm for arm in self.arms if not arms or arm.name in arms]
        ranked = [
            (position, Cell(replace(arm, overrides=(*arm.overrides, *self.splits.get(corpus, ()))), corpus, seed))
            for corpus in self.corpora
            for arm in chosen
            for position, seed in enumerate(arm.seeds[:seeds])
            if (not corpora or corpus in corpora) and (not arm.corpora or corpus in arm.corpora)
        ]
        return [cell for _, cell in sorted(ranked, key=lambda pair: pair[0])]


def read_study(path: Path, corpora: Mapping[str, Path] | None = None) -> Study:
    """Read a study and check all that can be checked without the corpora.

    Args:
        path: The TOML file.
        corpora: Folders of prepared corpora, by name; they replace those of the file or are added to them.

    Returns:
        The study; its paths are relative to the file's folder where the file gives relative ones.

    Raises:
        StudyError: The file or one of its arms is wrong; the message names file, arm, key and what is allowed.
        RecipeError: The file cannot be read.
    """
    try:
        table = StudyTable.model_validate(read_tables(path, "study", "recipes/study-arms.toml"))
    except ValidationError as error:
        raise StudyError(f"{path}: " + "; ".join(map(explain, error.errors()[:MAX_PROBLEMS]))) from None
    folders = {name: path.parent / corpus.folder for name, corpus in table.corpora.items()} | dict(corpora or {})
    arms = tuple(read_arm(path, arm, table.seeds, folders) for arm in table.arms)
    page = page_file(path, table.page) if table.page else None
    splits = {name: settings_of({"split": corpus.split}) for name, corpus in table.corpora.items()}
    study = Study(path, folders, arms, page, table.telephone, splits)
    require_different(path, "arm", [arm.name for arm in arms])
    require_different(path, "result file", [cell.name for cell in study.cells()])
    for cell in study.cells(seeds=1) if any(splits.values()) else ():
        check(f"{path}: arm {cell.arm.name} on {cell.corpus}", cell.arm)
    return study


def read_arm(path: Path, table: ArmTable, seeds: Sequence[int], corpora: Collection[str]) -> Arm:
    """Check one arm and its recipe."""
    where = f"{path}: arm {table.name}"
    if bool(table.recipe) == bool(table.baseline):
        raise StudyError(f"{where}: expected either recipe or baseline")
    if table.baseline and table.baseline not in FEATURE_SETS:
        raise StudyError(f"{where}: {unknown('baseline', table.baseline, FEATURE_SETS)}")
    if table.baseline and table.seeds:
        raise StudyError(f"{where}: seeds = {list(table.seeds)}: a baseline has no seed")
    for corpus in table.corpora:
        if corpus not in corpora:
            raise StudyError(f"{where}: {unknown('corpus', corpus, corpora)}")
    overrides = flattened(table.set)
    for key in SEED_KEYS:
        if key in overrides:
            raise StudyError(f"{where}: set.{key}: the seeds of the study are used; expected seeds = [0, 1, 2] or the like")
    require_different(where, "seed", table.seeds or seeds)
    arm = Arm(
        name=table.name,
        title=table.title or table.name,
        recipe=recipe_file(path.parent, table.recipe) if table.recipe else None,
        baseline=table.baseline,
        overrides=settings_of(table.set),
        corpora=table.corpora,
        seeds=(None,) if table.baseline else table.seeds or tuple(seeds),
    )
    check(where, arm)
    return arm


def check(where: str, arm: Arm) -> None:
    """Raise StudyError if an arm has no valid recipe."""
    try:
        arm.resolved(0) if arm.recipe else make_recipe({}, arm.overrides, source="the default split")
    except RecipeError as error:
        raise StudyError(f"{where}: {error}") from None


def settings_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return settings as `section.key=value`."""
    return tuple(f"{key}={toml_value(value)}" for key, value in flattened(table).items())


def page_file(path: Path, page: str) -> Path:
    """Return the page of a study: Markdown in its folder or below, or elsewhere one that exists, whose marks it then needs.

    Otherwise a study of somebody else could make files anywhere.
    """
    file = path.parent / page
    if file.suffix.lower() != ".md":
        raise StudyError(f"{path}: page = {shown(page)}: expected the ending .md")
    if not file.exists() and not resolve_links(file.parent).is_relative_to(resolve_links(path.parent)):
        raise StudyError(
            f"{path}: page = {shown(page)}: no such file; a new page is made in the folder of the study or below it, and one "
            "elsewhere must exist, with the two lines between which the tables belong"
        )
    return file


def recipe_file(folder: Path, recipe: str) -> Path:
    """Return the file of an arm's recipe: one beside the study, otherwise the shipped recipe of that name."""
    beside, shipped = folder / recipe, shipped_recipes().get(Path(recipe).as_posix())
    return beside if shipped is None or beside.is_file() else shipped


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by `section.key`, whether they are written so or as tables in tables.

    >>> flattened({"train.refit": True, "labels": {"map": "full"}})
    {'train.refit': True, 'labels.map': 'full'}
    """
    settings: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        settings |= flattened(value, f"{key}.") if isinstance(value, dict) and "." not in key else {key: value}
    return settings


def require_different(where: Path | str, kind: str, names: Sequence[object]) -> None:
    """Raise StudyError if a name occurs twice, also in other case: some file systems take such names as one."""
    counts = Counter(file_key(str(name)) for name in names)
    twice = [name for name in names if counts[file_key(str(name))] > 1]
    if twice:
        raise StudyError(f"{where}: {kind} {twice[0]} occurs more than once; expected different ones")


def explain(problem: Mapping[str, Any]) -> str:
    """Return one line about a problem that pydantic found in the file."""
    *tables, key = (str(part) for part in problem["loc"])
    location = ".".join([*tables, key])
    if problem["type"] == "extra_forbidden":
        kind: type[Table]
        kind, place = StudyTable, "the study"
        if tables:
            kind, place = (ArmTable, "[[arms]]") if tables[0] == "arms" else (CorpusTable, f"[{'.'.join(tables)}]")
        return unknown(f"key in {place}", key, kind.model_fields)
    if problem["type"] == "missing":
        return f"{location} is missing"
    if problem["type"] == "model_type" and tables == ["corpora"]:
        return f"{location} = {shown(problem['input'])}: expected a folder, or a table with the keys folder and split"
    if problem["type"] == "string_pattern_mismatch":
        return f"{location} = {shown(problem['input'])}: expected letters, digits and _ . + -, beginning with a letter or digit"
    wrong = problem["msg"].removeprefix("Input ").replace("Tuple", "the list")
    return f"{location} = {shown(problem['input'])}: {wrong}"
