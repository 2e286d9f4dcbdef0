"""Your own data as an audformat database or a Hugging Face dataset, and the list of all formats of your own data."""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import compress
from pathlib import Path
from types import ModuleType
from typing import Any

from speaker_invariant_ser.data.manifest import Listing
from speaker_invariant_ser.data.tables.cells import Columns
from speaker_invariant_ser.data.tables.custom import (
    ALIASES,
    FIELDS,
    PARTITIONS,
    Request,
    listing_of,
    read_pattern,
    read_table,
    require_folder,
)
from speaker_invariant_ser.errors import CorpusError, SetupError, shorten, shown
from speaker_invariant_ser.files import read_bytes, require_regular
from speaker_invariant_ser.json_files import read_json

Series = Any  # pandas and datasets are optional, so their types cannot be imported here
Index = Any
Database = Any
Dataset = Any

SPLIT_NAMES = set(PARTITIONS)
ENDING = re.compile(r"\.\w{1,7}", re.ASCII)  # of a name in a dataset, which may have any characters
MAX_YAML = 10**7  # bytes of db.yaml, which are read in half a minute
DAMAGED = (  # what libraries raise for damaged files
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
)
MAX_VALUES = 5 * 10**6  # in them, with aliases written out; without aliases they can hold half as many


def read_audformat(request: Request) -> Listing:
    """List the utterances of an audformat database: the schemes emotion and speaker, and others in FIELDS where present.

    Emotion may be in a table of segments and speaker in a table of files. `request.columns` may name a scheme, a field of a
    scheme's labels (such as a speaker's gender), or TABLE.COLUMN where several tables have a scheme.

    Raises:
        CorpusError: The folder holds no such database, the database is damaged, or a scheme is missing or ambiguous.
        SetupError: audformat is not installed.
    """
    folder = require_folder(request.source)
    if not (folder / "db.yaml").is_file():
        raise CorpusError(f"{folder} holds no audformat database: expected db.yaml and the tables it names in this folder")
    audformat = import_optional("audformat", "audformat")
    header = read_header(folder / "db.yaml")
    try:
        database = audformat.Database.load_header_from_yaml(header)
        load_tables(database, folder)
    except DAMAGED as error:
        reason = str(error) or "db.yaml has a value of another type than audformat writes"  # of an assertion nothing is known
        raise CorpusError(f"{folder}: this audformat database is damaged: {reason}") from None
    series = {name: values for name in FIELDS[1:] if (values := series_of(name, database, request)) is not None}
    needed = request.needed[1:]
    if missing := [name for name in needed if name not in series]:
        raise CorpusError(
            f"{folder}: this database has no scheme named {shorten(missing)}; name it with --column {missing[0]}=SCHEME or "
            "=TABLE.COLUMN"
        )
    finest = next((series[name] for name in needed if series[name].index.nlevels > 1), series[needed[-1]])
    segments = audformat.utils.to_segmented_index(finest).index
    frame = segments.to_frame(index=False)
    columns = {name: as_text(at_segments(segments, values)) for name, values in series.items()}
    columns["path"] = [os.path.relpath(file, folder) if os.path.isabs(file) else file for file in frame["file"]]
    for name in ("start", "end"):
        # NaT, which differs from itself, stands for the end of the file
        columns[name] = ["" if time != time else f"{time.total_seconds():.9g}" for time in frame[name]]
    plain = replace(request, name=request.corpus, pattern="", columns={}, votes="", annotators=())
    return listing_of(columns, plain, folder)


def read_header(path: Path) -> dict[str, Any]:
    """Return the content of db.yaml, read as plain values.

    `audformat.Database.load` is not used: it reads YAML that may name Python functions to be called, and pickles. Merge keys
    (`<<`), which audformat does not write, are refused: a few lines of them take for ever. So do a few aliases of aliases.

    Raises:
        CorpusError: The file is damaged, or has a tag other than those of plain values.
        SetupError: PyYAML, which audformat needs, is not installed.
    """
    yaml = import_optional("yaml", "audformat")

    class PlainLoader(yaml.SafeLoader):  # type: ignore[name-defined]  # optional, so it cannot be imported for types
        def flatten_mapping(self, node: object) -> None:
            """Merge nothing, so that a merge key is met as a tag that is not one of plain values."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            """Return a mapping; raise ValueError for one with a key twice, of which YAML would take the last."""
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            if len(mapping) < len(node.value):
                repeated, _ = Counter(str(key.value) for key, _ in node.value).most_common(1)[0]
                raise ValueError(f"line {node.start_mark.line + 1}: the key {shown(repeated)} occurs twice")
            return mapping

    try:
        header = PlainLoader(read_bytes(path, MAX_YAML)).get_single_data()
        require_few_values(header)
    except yaml.constructor.ConstructorError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CorpusError(
            f"{path}{line}: {error.problem}; only plain values are read, because such a tag can run a program: remove it"
        ) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CorpusError(f"{path.parent}: this audformat database is damaged: db.yaml: {error}") from None
    if not isinstance(header, dict):
        raise CorpusError(f"{path.parent}: this audformat database is damaged: db.yaml has no keys such as tables and schemes")
    return header


def require_few_values(header: object) -> None:
    """Raise ValueError where aliases, written out, make more values than a file can hold: whatever reads them all never ends."""
    pending, count = [header], 0
    while pending:
        value = pending.pop()
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        count += 1 + len(parts)
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values, by aliases (&name, *name) of aliases")
        pending += parts


def load_tables(database: Database, folder: Path) -> None:
    """Read the tables of a database from CSV or Parquet files, never from pickles.

    audformat prefers a pickle beside such a file, so it is given a folder with links to the CSV and Parquet files alone.

    Raises:
        CorpusError: A table exists only as a pickle, or its name contains a slash.
    """
    with tempfile.TemporaryDirectory() as links:
        for table in (*database.misc_tables, *database.tables):
            name = f"db.{table}"
            if Path(name).name != name:
                raise CorpusError(
                    f"{folder / 'db.yaml'}: the table {shown(table)} has a slash in its name; rename it and its files"
                )
            for kind in ("csv", "parquet"):
                file = folder / f"{name}.{kind}"
                if file.is_file():
                    os.symlink(file.resolve(), Path(links, file.name))
            if not os.listdir(links) and (folder / f"{name}.pkl").exists():
                raise CorpusError(
                    f"{folder / name}.pkl: a pickle can run a program and is not read; save the table as CSV or Parquet: "
                    'database.save(folder, storage_format="csv")'
                )
            database[table].load(str(Path(links, name)))
            for file in Path(links).iterdir():
                file.unlink()


def series_of(name: str, database: Database, request: Request) -> Series | None:
    """Return one field over files or segments, None if the database does not have it; raise CorpusError if it is ambiguous."""
    given = request.columns.get(name)
    for table in database.tables:
        for column in database[table].columns:
            if given == f"{table}.{column}":
                return database[table][column].get()
    for scheme in (given,) if given else (name, *ALIASES.get(name, ())):
        try:
            frame = database.get(scheme)
        except ValueError as error:  # several tables contradict each other
            raise CorpusError(
                f"{request.source}: several tables have the scheme {scheme}; choose one with --column {name}=TABLE.COLUMN "
                f"({str(error).splitlines()[0]})"
            ) from None
        if scheme in frame and len(frame):
            return frame[scheme]
    if given:
        raise CorpusError(f"{request.source}: --column {name}={given}: this database has no scheme or TABLE.COLUMN named {given}")
    return None


def at_segments(segments: Index, series: Series) -> Series:
    """Return the values at these segments; the value of a whole file applies to each of its segments."""
    if series.index.nlevels > 1:
        return series.reindex(segments)
    return series[~series.index.duplicated()].reindex(segments.get_level_values("file"))


def as_text(series: Series) -> list[str]:
    """Return a pandas series as text, with empty strings for missing values."""
    return ["" if missing else str(value) for value, missing in zip(series, series.isna(), strict=True)]


def read_datasets(request: Request) -> Listing:
    """List the utterances of a Hugging Face dataset that was written with `save_to_disk`.

    A column of type Audio, speaker and emotion are needed; others in FIELDS are used where present. Audio inside the tables is
    written to `request.scratch` first. The names of the dataset's splits become `partition`.

    Raises:
        CorpusError: The folder holds no dataset, the dataset is damaged, or it has no column of type Audio.
        SerError: The folder holds a pipe or a device.
        SetupError: datasets is not installed.
    """
    folder, datasets = require_folder(request.source), import_optional("datasets", "datasets")
    for path in folder.rglob("*"):
        require_regular(path)
    with damaged_dataset(folder):
        require_own_files(folder)
        loaded = datasets.load_from_disk(str(folder))
    request.scratch.mkdir(parents=True, exist_ok=True)
    columns: Columns = {"path": []}
    rejected: list[tuple[str, str]] = []
    for split, part in (loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}).items():
        part_columns, without_audio = columns_of_split(split, part, datasets, request)
        rejected += [(name, "has no audio") for name in without_audio]
        rows = len(columns["path"])
        for name in {*part_columns, *columns}:
            columns.setdefault(name, [""] * rows).extend(part_columns.get(name, [""] * len(part)))
    has_audio = [bool(path) for path in columns["path"]]
    columns = {name: list(compress(values, has_audio)) for name, values in columns.items()}
    others = {name: column for name, column in request.columns.items() if name != "path"}
    plain = replace(request, name=request.corpus, pattern="", columns=others)
    listing = listing_of(columns, plain, request.scratch)
    return replace(listing, rejected=[*rejected, *listing.rejected])


@contextmanager
def damaged_dataset(folder: Path) -> Iterator[None]:
    """Raise CorpusError for what datasets raises about a folder that holds no dataset, or a damaged one."""
    try:
        yield
    except DAMAGED as error:
        raise CorpusError(f"{folder} holds no dataset written by save_to_disk, or a damaged one: {error}") from None


def require_own_files(folder: Path) -> None:
    """Raise CorpusError where a dataset names splits or tables that are not in its folder, or a table twice.

    datasets opens whatever its JSON files name: a pipe, or one table a million times.
    """
    single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    for split in ["."] if single else read_json(folder / "dataset_dict.json")["splits"]:
        if not single and not is_name(split):
            raise CorpusError(f"{folder}: the split {shown(split)} is no folder in it by its name; rename it")
        state = folder / split / "state.json"
        tables = [file["filename"] for file in read_json(state)["_data_files"]]
        for table, number in Counter(tables).items():
            if not is_name(table) or number > 1:
                raise CorpusError(f"{state}: {shown(table)} is no file beside it, or named twice; write the dataset again")


def is_name(text: str) -> bool:
    """Return whether this is the name of a file or folder alone, without the folders that lead to it."""
    return Path(text).name == text != ".."


def columns_of_split(split: str, part: Dataset, datasets: ModuleType, request: Request) -> tuple[Columns, list[str]]:
    """Return the columns of one split of a dataset as text, with the paths of its audio, and the names of rows without audio."""
    given = request.columns.get("path")
    audio = [name for name, feature in part.features.items() if isinstance(feature, datasets.Audio) and given in (None, name)]
    if not audio:
        raise CorpusError(
            f"{request.source}: no column of the type Audio; found {shorten(part.column_names, 10)} "
            "(in Python, dataset.cast_column(NAME, datasets.Audio()) makes one)"
        )
    names = [f"{split or 'row'}-{row:07}" for row in range(len(part))]
    cells = cells_of(part, audio[0], request.source, rows=1)
    paths = [write_audio(cell, request.scratch, name) for cell, name in zip(cells, names, strict=True)]
    columns = {
        name: texts_of(part, name, request.source)
        for name, feature in part.features.items()
        if not hasattr(feature, "decode_example")  # other audio, images, videos
    }
    columns["path"] = paths
    columns.setdefault("partition", [split.lower() if split.lower() in SPLIT_NAMES else ""] * len(part))
    return columns, [name for name, path in zip(names, paths, strict=True) if not path]


def cells_of(part: Dataset, name: str, folder: Path, rows: int = 1000) -> Iterator[Any]:
    """Yield the cells of a column as they are stored: audio is not decoded, and a number is no tensor (`set_format`).

    Args:
        part: The dataset, or a split of it.
        name: The column.
        folder: Where it lies, for error messages.
        rows: How many are in memory at a time.
    """
    with damaged_dataset(folder):
        for table in part.select_columns(name).with_format("arrow").iter(rows):
            yield from table[name].to_pylist()


def texts_of(part: Dataset, name: str, folder: Path) -> list[str]:
    """Return a column of a dataset as text; the numbers of a ClassLabel become its names."""
    feature, values = part.features[name], cells_of(part, name, folder)
    with damaged_dataset(folder):
        if hasattr(feature, "int2str"):
            return ["" if value is None or value < 0 else feature.int2str(value) for value in values]
        return ["" if value is None else str(value) for value in values]


def write_audio(cell: Mapping[str, Any] | None, scratch: Path, name: str) -> str:
    """Return the path of an audio cell, empty if it has no audio; write the audio to `scratch` if it is inside the table.

    Written files have a constant modification time, so that a resumed preparation recognises them.
    """
    if cell is None or not (cell["bytes"] or cell["path"]):
        return ""
    if cell["bytes"] is None:
        return os.path.abspath(cell["path"])
    ending = Path(cell["path"] or "").suffix
    path = scratch / (name + (ending if ENDING.fullmatch(ending) else ".wav"))
    path.write_bytes(cell["bytes"])
    os.utime(path, (0, 0))
    return path.name


def import_optional(module: str, extra: str) -> ModuleType:
    """Import an optional library; raise SetupError that says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise SetupError(f'{module} is not installed: pip install "speaker-invariant-ser[{extra}]"') from None


CUSTOM_FORMATS: dict[str, Callable[[Request], Listing]] = {
    "csv": read_table,
    "tsv": read_table,
    "parquet": read_table,
    "folder": read_pattern,
    "audformat": read_audformat,
    "datasets": read_datasets,
}
WITH_VOTES = ("csv", "tsv", "parquet", "datasets")  # whose columns may hold the votes of annotators
