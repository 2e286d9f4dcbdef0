"""Your own data, without code: a table, a folder whose names follow a pattern, an audformat database, a Hugging Face dataset.

All become columns of text with the names of `Utterance`'s fields, and from there on they are alike.
"""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import compress
from pathlib import Path
from types import ModuleType

from speaker_invariant_ser.data.audio import UNSUPPORTED_SUFFIXES, list_audio
from speaker_invariant_ser.data.manifest import COLUMNS, Listing, Utterance, check, read_columns, settle, writable
from speaker_invariant_ser.errors import CorpusError, ManifestError, SetupError, shorten, unknown

Columns = dict[str, list[str]]

NEEDED = ("path", "speaker", "emotion")
OPTIONAL = ("id", "text", "sex", "language", "session", "style", "intensity", "repetition", "partition", "start", "end")
ALIASES = {  # what others call these columns; used where ours is absent
    "path": ("file", "filename", "audio"),
    "speaker": ("speaker_id", "spk", "actor"),
    "emotion": ("label",),
    "sex": ("gender",),
    "text": ("transcription", "transcript", "sentence"),
}
SEXES = {"f": "female", "w": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}
FOREVER = 1e9  # seconds; no recording is as long
PARTITIONS = {"training": "train", "validation": "dev", "development": "dev", "valid": "dev", "val": "dev", "testing": "test"}
SPLITS = {"train", "dev", "test", *PARTITIONS}


@dataclass(frozen=True)
class Request:
    """Where the data is and how to read it."""

    source: Path
    name: str = ""  # of the corpus; by default that of the file or folder
    pattern: str = ""  # of the paths in a folder
    columns: Mapping[str, str] = field(default_factory=dict)  # our name -> the column's name in the table
    scratch: Path = Path()  # a folder for audio that lies inside tables
    unlabelled: bool = False  # whether a clip may have no emotion, and the data no such column

    def __post_init__(self) -> None:
        """Raises ManifestError for a column of ours that there is not, and a name that cannot be written."""
        if not writable(self.corpus):
            raise ManifestError(f"--name {self.corpus!a}: not UTF-8, choose a name that can be written in a table")
        for name in self.columns:
            if name not in (*NEEDED, *OPTIONAL):
                raise ManifestError(f"--column {name}={self.columns[name]}: {unknown('column', name, (*NEEDED, *OPTIONAL))}")

    @property
    def corpus(self) -> str:
        return self.name or Path(os.path.realpath(self.source)).stem

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that have to be there."""
        return tuple(name for name in NEEDED if name != "emotion" or not self.unlabelled)


def read_table(request: Request) -> Listing:
    """A CSV, TSV or Parquet table with the columns path, speaker and emotion, and any of OPTIONAL; others are left alone.

    Everything is read as text, so speaker `03` stays `03`. `path` is relative to the table's folder or absolute;
    `start` and `end` are seconds into the file. Raises ManifestError with every problem found.
    """
    return listing_of(read_columns(request.source, {}), request, request.source.parent)


def read_pattern(request: Request) -> Listing:
    """A folder whose paths tell the fields, such as "{speaker}/{emotion}/*_{text}.wav".

    {field} and * stop at a slash, ** does not. Audio that does not match is rejected.
    Raises CorpusError for a pattern without speaker and emotion, or one that nothing matches.
    """
    folder, rule = require_folder(request.source), compile_pattern(request.pattern, request.needed[1:])
    columns, rejected = {name: [] for name in ("path", *rule.groupindex)}, []
    for relative in list_audio(folder):
        if match := rule.fullmatch(relative):
            for name, value in {"path": relative, **match.groupdict()}.items():
                columns[name].append(value)
        else:
            rejected.append((relative, f"its name does not match the pattern {request.pattern}"))
    foreign = [
        (name, f"{Path(name).suffix} is not read here; save it as wav or flac")
        for name in list_audio(folder, UNSUPPORTED_SUFFIXES)
    ]
    rejected += foreign
    if not columns["path"]:
        example = f", such as {rejected[0][0]}" if rejected else ""
        raise CorpusError(f"{folder}: none of {len(rejected)} audio files{example}, matches the pattern {request.pattern}")
    listing = listing_of(columns, request, folder)
    return replace(listing, rejected=[*rejected, *listing.rejected])


def compile_pattern(pattern: str, needed: Sequence[str] = NEEDED[1:]) -> re.Pattern:
    """The pattern as a regular expression; a field that stands there twice must hold the same both times."""
    if not pattern:
        raise CorpusError('a folder needs --pattern, such as --pattern "{speaker}/{emotion}/*_{text}.wav"')
    rule = ""
    if beside := re.search(r"\}[{*]|\*\{", pattern):
        raise CorpusError(f"--pattern {pattern}: something has to stand between the two at {beside[0]}, to tell them apart")
    for part in re.split(r"(\{[^{}]*\}|\*\*/?|\*)", pattern):
        name = part[1:-1]
        if not part.startswith("{"):
            rule += {"*": "[^/]*", "**": ".*", "**/": "(?:.*/)?"}.get(part) or re.escape(part)
        elif name not in COLUMNS or name in ("id", "source", "corpus", "start", "end", "offset", "samples"):
            raise CorpusError(f"--pattern {pattern}: {unknown('field', name, ('speaker', 'emotion', *OPTIONAL[1:-2]))}")
        else:
            rule += f"(?P={name})" if f"(?P<{name}>" in rule else f"(?P<{name}>[^/]+?)"
    missing = [name for name in needed if f"(?P<{name}>" not in rule]
    if missing:
        raise CorpusError(f"--pattern {pattern}: needs {' and '.join('{' + name + '}' for name in missing)}")
    return re.compile(rule, re.IGNORECASE)


def read_audformat(request: Request) -> Listing:
    """An audformat database's folder: the schemes emotion and speaker, and of OPTIONAL what there is.

    Emotion may stand in a table of segments and speaker in one of files. `request.columns` may name a scheme, a field that comes
    with a scheme's labels (such as a speaker's gender), or TABLE.COLUMN where several tables have a scheme.
    Raises CorpusError if the folder holds no such database, SetupError without audformat.
    """
    folder = require_folder(request.source)
    if not (folder / "db.yaml").is_file():
        raise CorpusError(f"{folder} holds no audformat database: expected db.yaml and the tables it names in this folder")
    audformat, yaml = require("audformat", "audformat"), require("yaml", "audformat")
    try:
        database = audformat.Database.load(str(folder), load_data=True, verbose=False)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CorpusError(f"{folder}: this audformat database is damaged: {error}") from None
    found = {name: column for name in (*NEEDED[1:], *OPTIONAL) if (column := column_of(name, database, request)) is not None}
    needed = request.needed[1:]
    if missing := [name for name in needed if name not in found]:
        raise CorpusError(
            f"{folder}: no scheme {shorten(missing)} in this database; name it with --column {missing[0]}=SCHEME or =TABLE.COLUMN"
        )
    finest = next((found[name] for name in needed if found[name].index.nlevels > 1), found[needed[-1]])
    segments = audformat.utils.to_segmented_index(finest).index
    frame = segments.to_frame(index=False)
    columns = {name: cells(along(segments, column)) for name, column in found.items()}
    columns["path"] = [os.path.relpath(file, folder) if os.path.isabs(file) else file for file in frame["file"]]
    for name in ("start", "end"):
        columns[name] = ["" if time != time else f"{time.total_seconds():.9g}" for time in frame[name]]  # NaT: to the end
    return listing_of(columns, Request(request.source, request.corpus, unlabelled=request.unlabelled), folder, sparse=True)


def column_of(name: str, database, request: Request):
    """A pandas series of one of our fields over files or segments, None if the database has none. Raises CorpusError."""
    asked = request.columns.get(name)
    for table in database.tables:
        for column in database[table].columns:
            if asked == f"{table}.{column}":
                return database[table][column].get()
    for scheme in (asked,) if asked else (name, *ALIASES.get(name, ())):
        try:
            frame = database.get(scheme)
        except ValueError as error:  # several tables say different things of one clip
            raise CorpusError(
                f"{request.source}: several tables have the scheme {scheme}; choose one with --column {name}=TABLE.COLUMN "
                f"({str(error).splitlines()[0]})"
            ) from None
        if scheme in frame and len(frame):
            return frame[scheme]
    if asked:
        raise CorpusError(f"{request.source}: --column {name}={asked}: no scheme or TABLE.COLUMN of that name in this database")
    return None


def along(segments, column):
    """The values of a column at these segments; a value that a whole file has goes for every segment of it."""
    if column.index.nlevels > 1:
        return column.reindex(segments)
    return column[~column.index.duplicated()].reindex(segments.get_level_values("file"))


def cells(column) -> list[str]:
    """A pandas column as text, empty where nothing is known."""
    return ["" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]


def read_datasets(request: Request) -> Listing:
    """A folder that Hugging Face `datasets` wrote with save_to_disk: columns of audio, speaker, emotion, and any of OPTIONAL.

    Audio inside the tables is written to `request.scratch` first. Names of splits become `partition`.
    Raises CorpusError if the folder holds no dataset, SetupError without datasets.
    """
    folder, datasets = require_folder(request.source), require("datasets", "datasets")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CorpusError(f"{folder} holds no dataset written by save_to_disk, or a damaged one: {error}") from None
    parts = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    together: Columns = {}
    request.scratch.mkdir(parents=True, exist_ok=True)
    rejected = []
    for split, part in parts.items():
        asked = request.columns.get("path")
        audio = [name for name, feature in part.features.items() if isinstance(feature, datasets.Audio) and asked in (None, name)]
        if not audio:
            raise CorpusError(
                f"{folder}: no column of the type Audio; found {shorten(part.column_names, 10)} "
                "(in Python, dataset.cast_column(NAME, datasets.Audio()) makes one)"
            )
        part = part.cast_column(audio[0], datasets.Audio(decode=False))
        names = [f"{split or 'row'}-{at:07}" for at in range(len(part))]
        paths = [unpack(row[audio[0]], request.scratch, name) for row, name in zip(part, names, strict=True)]
        rejected += [(name, "has no audio") for name, path in zip(names, paths, strict=True) if not path]
        columns = {name: texts_of(part, name) for name in part.column_names if name != audio[0]}
        columns["path"] = paths
        columns.setdefault("partition", [split.lower() if split.lower() in SPLITS else ""] * len(part))
        rows = len(together.get("path", ()))
        for name in {*columns, *together}:
            together.setdefault(name, [""] * rows).extend(columns.get(name, [""] * len(part)))
    there = [bool(path) for path in together["path"]]
    together = {name: list(compress(values, there)) for name, values in together.items()}
    others = {name: column for name, column in request.columns.items() if name != "path"}
    plain = Request(request.source, request.corpus, columns=others, unlabelled=request.unlabelled)
    listing = listing_of(together, plain, request.scratch, sparse=True)
    return replace(listing, rejected=[*rejected, *listing.rejected])


def texts_of(part, name: str) -> list[str]:
    """A column as text; the numbers of a ClassLabel become its names."""
    feature = part.features[name]
    values = part[name]
    if hasattr(feature, "int2str"):
        return ["" if value is None or value < 0 else feature.int2str(value) for value in values]
    return ["" if value is None else str(value) for value in values]


def unpack(row: Mapping | None, scratch: Path, name: str) -> str:
    """The path of one audio cell, "" if it is empty; written out if its bytes lie in the table, always with one date."""
    if row is None or not (row["bytes"] or row["path"]):
        return ""
    if row["bytes"] is None:
        return os.path.abspath(row["path"])
    path = scratch / (name + (Path(row["path"] or "").suffix[:8] or ".wav"))
    path.write_bytes(row["bytes"])
    os.utime(path, (0, 0))
    return path.name


def listing_of(columns: Columns, request: Request, folder: Path, sparse: bool = False) -> Listing:
    """Columns of text -> utterances, every clip once. Raises ManifestError with every problem found.

    With `sparse`, rows without speaker or emotion are rejected one by one: databases hold rows that nobody labelled.
    In a table that somebody made for this, an empty label is a mistake, and told as one. Where `request.unlabelled` says so,
    no emotion is needed at all.
    """
    columns = {name: [cell.strip() for cell in cells] for name, cells in renamed(columns, request).items()}
    columns.setdefault("emotion", [""] * len(columns["path"]))
    require_seconds(columns, request.source)
    require_lines(columns, request.source)
    rejected = []
    if sparse:
        labels = [columns[name] for name in request.needed[1:]]
        labelled = [all(row) for row in zip(*labels, strict=True)]
        rejected = [
            (path, f"has no label for {' or '.join(request.needed[1:])}")
            for path, kept in zip(columns["path"], labelled, strict=True)
            if not kept
        ]
        columns = {name: list(compress(cells, labelled)) for name, cells in columns.items()}
    listing = settle(Listing(utterances_of(columns, request.corpus), rejected, folder, unlabelled=request.unlabelled))
    check(listing.utterances, request.source, listing.rejected, listing.unlabelled)
    return listing


def renamed(columns: Columns, request: Request) -> Columns:
    """The columns that are ours, under our names. Raises ManifestError for missing ones."""
    chosen = {}
    for name in (*NEEDED, *OPTIONAL):
        called = request.columns.get(name)
        if called and called not in columns:
            raise ManifestError(f"{request.source}: --column {name}={called}: {unknown('column', called, columns)}")
        found = [one for one in (called, name, *ALIASES.get(name, ())) if one in columns]
        if found:
            chosen[name] = columns[found[0]]
    if missing := [name for name in request.needed if name not in chosen]:
        odd = any(sign in name for name in columns for sign in ";\t")
        hint = " (separated by semicolons or tabs? Commas are expected, tabs in a .tsv)" if odd else ""
        raise ManifestError(
            f"{request.source}: no column {', '.join(missing)}; found {shorten(columns, 10)}{hint}, "
            f"needed {', '.join(request.needed)}; a column of another name is told by --column {missing[0]}=NAME"
        )
    return chosen


def utterances_of(columns: Columns, corpus: str) -> list[Utterance]:
    """Columns of stripped cells -> utterances."""
    rows = len(columns["path"])
    texts = {name: columns.get(name, [""] * rows) for name in OPTIONAL}
    start, end = ([number(cell) for cell in texts.pop(name)] for name in ("start", "end"))
    texts["sex"] = [SEXES.get(sex.lower(), sex) for sex in texts["sex"]]
    texts["partition"] = [PARTITIONS.get(part.lower(), part.lower()) for part in texts["partition"]]
    texts["id"] = [
        name or (f"{path}@{first:.12g}-{last:.12g}" if first or last else path)
        for name, path, first, last in zip(texts["id"], columns["path"], start, end, strict=True)
    ]
    texts |= {"corpus": [corpus] * rows, "speaker": columns["speaker"], "emotion": columns["emotion"], "source": columns["path"]}
    names = [name for name in COLUMNS if name in texts or name in ("start", "end")]
    cells = [{**texts, "start": start, "end": end}[name] for name in names]
    return [Utterance(*row) for row in zip(*cells, strict=True)]


def number(text: str) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return math.nan


def require_lines(columns: Columns, source: Path) -> None:
    """Raise ManifestError for a line break within a cell: most likely a quote that was not closed, and rows that it swallowed."""
    for name, values in columns.items():
        row = next((row for row, cell in enumerate(values, start=1) if "\n" in cell or "\r" in cell), 0)
        if row:
            raise ManifestError(f"{source}: {name} in row {row} goes over several lines; is a quotation mark not closed there?")


def require_seconds(columns: Columns, source: Path) -> None:
    """Raise ManifestError for start or end that is no number."""
    for name in ("start", "end"):
        odd = [(row, cell) for row, cell in enumerate(columns.get(name, ()), start=1) if not abs(number(cell)) < FOREVER]
        if odd:
            row, cell = odd[0]
            more = f" and in {len(odd) - 1} more rows" if len(odd) > 1 else ""
            raise ManifestError(f"{source}: {name} in row {row} is '{cell}'{more}: expected seconds, such as 12.5")


def require_folder(path: Path) -> Path:
    if not path.is_dir():
        raise CorpusError(f"{path} {'is a file, not a folder' if path.exists() else 'does not exist'}")
    return path


def require(module: str, extra: str) -> ModuleType:
    """An optional library. Raises SetupError that says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise SetupError(f'{module} is not installed: pip install "speaker-invariant-ser[{extra}]"') from None


OWN: dict[str, Callable[[Request], Listing]] = {
    "csv": read_table,
    "tsv": read_table,
    "parquet": read_table,
    "folder": read_pattern,
    "audformat": read_audformat,
    "datasets": read_datasets,
}
