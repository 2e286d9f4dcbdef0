"""Write predictions as a table (.csv, .jsonl or .parquet) and embeddings (.npz); what an interruption leaves is continued.

Rows are written as they are done, into a hidden folder beside the table:

rows.jsonl       complete rows
embeddings.f32   the embedding of each row, if wanted
journal          after each chunk a line: recordings, rows, failures and bytes so far
request          what the rows answer: other inputs, models or settings begin anew
finishing        the file of embeddings that is being written: it is there before the table, and then no file of others

When all are done, the table is made of them. What the last line of the journal does not count is dropped when work continues.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speaker_invariant_ser.errors import SerError, WriteError, first_line, unknown
from speaker_invariant_ser.files import held, is_own, keep_own, partial_of, private_folder, remove, write_errors, writing
from speaker_invariant_ser.inference.archives.formats import WRITERS, Write, is_table
from speaker_invariant_ser.inference.parts.pieces import FILE
from speaker_invariant_ser.inference.rows import CODE, TIMES, Result, Row
from speaker_invariant_ser.json_files import parse_json

SHOWN = 1_000  # lines of a summary that are kept
ROWS, EMBEDDINGS, JOURNAL, REQUEST, FINISHING = "rows.jsonl", "embeddings.f32", "journal", "request", "finishing"
NAMED = ("file", "channel", "level", "start", "end", "speaker", "emotion")  # what an embedding file says of each embedding


class Progress(NamedTuple):
    """How far a table is: recordings, rows, rows with an error, and bytes of rows.jsonl and embeddings.f32."""

    files: int = 0
    rows: int = 0
    failed: int = 0
    row_bytes: int = 0
    embedding_bytes: int = 0


@dataclass
class Summary:
    """What is said of a table at its end.

    Attributes:
        rows: Number of rows.
        failed: Number of rows with an error.
        failures: The first errors.
        noted: Number of recordings that are used although something is wrong with them.
        notes: What is wrong with the first of them.
    """

    rows: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    noted: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        if row["error"]:
            self.failed += 1
            self.failures += [str(row["error"])] * (len(self.failures) < SHOWN)
        elif row["warnings"] and row["level"] == FILE:
            self.noted += 1
            self.notes += [f"{row['file']}: {row['warnings']}"] * (len(self.notes) < SHOWN)


@dataclass
class Results:
    """An open table of predictions.

    Attributes:
        path: The table.
        columns: Its columns.
        work: Folder for what is not complete yet.
        embeddings: File for embeddings; None if they are not wanted.
        done: How far it is.
        continued: Recordings that an earlier call had done.
        summary: What is said of it at the end.
    """

    path: Path
    columns: list[str]
    work: Path
    embeddings: Path | None = None
    done: Progress = field(default_factory=Progress)
    continued: int = 0
    summary: Summary = field(default_factory=Summary)

    def begin(self, request: str) -> None:
        """Take over what an interrupted call with the same request left, or begin anew."""
        mark, *others = (own_file(self.work / name) for name in (REQUEST, ROWS, EMBEDDINGS, JOURNAL, FINISHING))
        if not (mark.exists() and mark.stat().st_size == len(request.encode()) and mark.read_bytes() == request.encode()):
            for path in (mark, *others):
                remove(path)
            mark.write_bytes(request.encode())
        self.done = last_line(self.work / JOURNAL, self.work)
        self.continued = self.done.files
        for name, size in ((ROWS, self.done.row_bytes), (EMBEDDINGS, self.done.embedding_bytes)):
            path = self.work / name
            path.touch()
            os.truncate(path, size)

    def add(self, files: int, results: Sequence[Result]) -> None:
        """Write the rows of the next `files` recordings."""
        with write_errors(self.path):
            lines = "".join(json.dumps(result.row, ensure_ascii=False) + "\n" for result in results).encode()
            append(self.work / ROWS, lines)
            vectors = b"".join(vector_of(result).tobytes() for result in results) if self.embeddings else b""
            append(self.work / EMBEDDINGS, vectors)
            self.done = Progress(
                self.done.files + files,
                self.done.rows + len(results),
                self.done.failed + sum(bool(result.row["error"]) for result in results),
                self.done.row_bytes + len(lines),
                self.done.embedding_bytes + len(vectors),
            )
            append(self.work / JOURNAL, (json.dumps(self.done) + "\n").encode())

    def rows(self) -> Iterator[Row]:
        """Yield the rows so far."""
        with open(self.work / ROWS, encoding="utf-8") as file:
            yield from map(parse_json, file)

    def finish(self) -> Summary:
        """Make the table, and the file of embeddings, of the rows; return a summary."""
        summary = Summary()
        ending = self.path.suffix.lower()
        try:
            if self.embeddings:
                with write_errors(self.path):
                    own_file(self.work / FINISHING).write_bytes(os.fsencode(os.path.abspath(self.embeddings)))
                write_embeddings(self.embeddings, self)
            with writing(self.path, mode_of(ending)) as file, WRITERS[ending](file, self.columns) as write:
                for row in self.rows():
                    write(row)
                    summary.add(row)
                if (summary.rows, summary.failed) != (self.done.rows, self.done.failed):
                    raise ValueError(f"{summary.rows} rows, expected {self.done.rows}")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # not as `add` writes them
            raise SerError(f"{self.work} is damaged ({first_line(error)}); remove it to begin anew") from None
        return summary


def last_line(journal: Path, work: Path) -> Progress:
    """Return what the last complete line of a journal counts, if the files have that many bytes."""
    done = Progress()
    try:
        sizes = [(work / name).stat().st_size if (work / name).exists() else 0 for name in (ROWS, EMBEDDINGS)]
        content = journal.read_bytes() if journal.exists() else b""
    except OSError:
        return done
    complete = 0
    for line in content.splitlines(keepends=True):
        try:
            counts = Progress(*map(int, parse_json(line)))
        except (ValueError, TypeError, OverflowError):
            break
        if not line.endswith(b"\n") or not (0 <= counts.row_bytes <= sizes[0] and 0 <= counts.embedding_bytes <= sizes[1]):
            break
        if not 0 <= counts.failed <= counts.rows or not 0 <= counts.files <= counts.rows:  # each recording has a row
            break
        done, complete = counts, complete + len(line)
    if journal.exists():
        os.truncate(journal, complete)
    return done


def own_file(path: Path) -> Path:
    """Return the path of a file for partial results; what is planted in its place, such as a link or a pipe, is removed."""
    if not keep_own(path).is_file():
        remove(path)
    return path


def append(path: Path, data: bytes) -> None:
    """Write bytes behind those of a file, all or an error."""
    with open(path, "ab") as file:
        file.write(data)


def vector_of(result: Result) -> np.ndarray:
    """Return the embedding of a row, empty without one."""
    return result.embedding if result.embedding is not None else np.zeros(0, np.float32)


@contextmanager
def open_results(
    path: Path | str,
    columns: Sequence[str],
    request: Mapping[str, Any],
    overwrite: bool = False,
    embeddings: Path | None = None,
) -> Iterator[Results]:
    """Open a table of predictions; it appears when all rows are there, and what is done before an interruption is kept.

    Args:
        path: The table; its ending (.csv, .jsonl, .parquet) is the format.
        columns: Its columns.
        request: What the rows answer; rows of an interrupted call with an equal request are kept.
        overwrite: As for `require_table`.
        embeddings: File for embeddings (.npz).

    Raises:
        SerError: Another ending.
        WriteError: The file may not be replaced, cannot be written, or another process is writing it.
    """
    path = Path(path)
    require_table(path, overwrite)
    with held(path), held(embeddings) if embeddings else nullcontext():
        if embeddings:
            require_embeddings(embeddings, overwrite, path)  # another process may have written it by now
        with write_errors(path):
            work = private_folder(work_folder(path))
            results = Results(path, list(columns), work, embeddings)
            results.begin(json.dumps(request, sort_keys=True))
        yield results
        results.summary = results.finish()
        for name in (JOURNAL, ROWS, EMBEDDINGS, REQUEST, FINISHING):
            remove(work / name)
        if not any(work.iterdir()):
            work.rmdir()


@contextmanager
def open_table(path: Path | str, names: Sequence[str], overwrite: bool = False) -> Iterator[Write]:
    """Open a table for rows that are known already.

    Args:
        path: The table.
        names: Its columns.
        overwrite: As for `require_table`.

    Yields:
        A function that writes one row.

    Raises:
        SerError: Another ending.
        WriteError: The file may not be replaced, cannot be written, or another process is writing it.
    """
    path = Path(path)
    ending = require_table(path, overwrite)
    with held(path), writing(path, mode_of(ending)) as file, WRITERS[ending](file, names) as write:
        yield write


def mode_of(ending: str) -> str:
    """Return how a table is opened for writing."""
    return "wb" if ending == ".parquet" else "w"


def work_folder(path: Path) -> Path:
    """Return the folder for what is not complete yet; it is hidden."""
    return partial_of(path).with_suffix(".unfinished")


def require_table(path: Path, overwrite: bool) -> str:
    """Return the ending of a table that may be written: of a new file, or of an earlier table of predictions.

    Args:
        path: The table.
        overwrite: Whether an earlier table may be replaced; any other file never is.

    Raises:
        SerError: Another ending.
        WriteError: The file may not be replaced.
    """
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise SerError(f"{path}: {unknown('ending', path.suffix, WRITERS)}")
    if path.is_dir():
        raise WriteError(f"cannot write {path}: a folder of that name exists")
    if path.exists():
        if not is_table(path, ending):
            raise WriteError(f"{path} exists already and is no table of predictions, so it is not replaced: choose another --out")
        if not overwrite:
            raise WriteError(f"{path} is a table of predictions already: replace it with --overwrite, or choose another --out")
    return ending


def require_embeddings(path: Path, overwrite: bool, table: Path) -> None:
    """Raise an error unless embeddings may be written to a path.

    Args:
        path: A new .npz, or one of ours.
        overwrite: Whether one of ours may be replaced; one that an interrupted call wrote just before its table always is.
        table: The table of the embeddings.

    Raises:
        SerError: Another ending.
        WriteError: The file may not be replaced, or its folder takes no files.
    """
    if path.suffix.lower() != ".npz":
        raise SerError(f"{path}: {unknown('ending', path.suffix, ['.npz'])}")
    if path.is_dir():
        raise WriteError(f"cannot write {path}: a folder of that name exists")
    if path.exists():
        if not is_embeddings(path):
            raise WriteError(f"{path} exists already and holds no embeddings of `siser infer`, so it is not replaced")
        if not overwrite and not is_finishing(table, path):
            raise WriteError(f"{path} holds embeddings already: replace it with --overwrite, or choose another --embeddings")
    require_writable(path)


def require_writable(path: Path) -> None:
    """Raise WriteError unless the folder of a path takes new files, or the first of its parents that exists does."""
    with write_errors(path):
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        with tempfile.TemporaryFile(dir=folder):
            pass


def is_finishing(table: Path, embeddings: Path) -> bool:
    """Return whether an interrupted call was writing these embeddings, and had not yet written their table."""
    mark = work_folder(table) / FINISHING
    return is_own(mark) and mark.is_file() and mark.read_bytes() == os.fsencode(os.path.abspath(embeddings))


def is_embeddings(path: Path) -> bool:
    """Return whether a file was written by `write_embeddings`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist()) - {f"{CODE}.npy"} == {f"{name}.npy" for name in ("embedding", *NAMED)}
    except (OSError, zipfile.BadZipFile):
        return False


def write_embeddings(path: Path, results: Results) -> None:
    """Write the embeddings of all rows that have one, and what each is of, as arrays of an .npz file.

    Embeddings of windows, segments and recordings stand side by side; `level` tells them apart.
    """
    names = [*NAMED, *([CODE] if CODE in results.columns else [])]
    rows = [[str(row[name]) if name not in TIMES else row[name] for name in names] for row in results.rows() if has_vector(row)]
    size = (results.work / EMBEDDINGS).stat().st_size // 4
    count = len(rows)
    shape = (count, size // count if count else 0)
    vectors = np.memmap(results.work / EMBEDDINGS, np.float32, "r", shape=shape) if size else np.zeros(shape, np.float32)
    with writing(path, "wb") as file:
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
        named = {name: np.array(values, float if name in TIMES else str) for name, values in zip(names, columns, strict=True)}
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for name, array in {"embedding": vectors, **named}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def has_vector(row: Row) -> bool:
    """Return whether a row has an embedding: every prediction has."""
    return row["confidence"] is not None
