"""Writing that is whole or not there: everything gets a temporary name first and is renamed when complete.

Operating-system errors become WriteError here and nowhere else, with the path and what would help.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from speaker_invariant_ser.errors import WriteError

REASONS = {
    errno.EACCES: "no permission to write here; choose another folder or change its permissions",
    errno.EPERM: "no permission to write here; choose another folder or change its permissions",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "no space left on the disk; free some or choose another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another disk",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "a folder of that name is in the way",
    errno.ENOTEMPTY: "the folder is there and holds something",
    errno.EBUSY: "the folder is in use, a mount point perhaps; choose a new one",
    errno.EEXIST: "something of that name is in the way",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long for the file system",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Inside, an OSError about writing `path` becomes a WriteError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS:
            raise
        raise WriteError(f"cannot write {path}: {REASONS[error.errno]}") from error


def real(path: Path | str) -> Path:
    """Where a path leads: a link is followed, "." has a name, and a circle of links is left for the system to refuse."""
    return Path(os.path.realpath(path))


def partial_of(path: Path) -> Path:
    """The temporary name of `path` while it is being written: hidden, so that it is nobody's own file."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def writing(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing under a temporary name; it takes its own name only if the block ends well."""
    path = Path(path)
    partial = partial_of(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        try:
            with open(partial, mode, **text) as file:
                yield file
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path | str, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` if the block ends well.

    An empty folder may be there; one that holds anything is replaced only if `replace`, otherwise a WriteError is raised
    before the block begins.
    """
    path = real(path)
    partial = partial_of(path)
    with translated(path):
        if path.exists() and not replace:
            path.rmdir()
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def unfinished_folder(
    path: Path | str, request: str, keep: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
) -> Iterator[tuple[Path, Path]]:
    """For long work: (a folder to work in, a new folder in it that becomes `path` if the block ends well).

    What a kill or one of the exceptions in `keep` leaves in the first is taken up by the next call with the same `request`; the
    block must be able to go on from whatever it finds there. Any other exception removes it.
    Raises WriteError, also while another process is at it.
    """
    path = real(path)
    work = partial_of(path)
    result, mark = work / "result", work / "request"
    with translated(path), locked(path, "lock"), ExitStack() as discard:
        if path.exists():
            path.rmdir()
        discard.callback(shutil.rmtree, work, ignore_errors=True)
        if not mark.is_file() or mark.read_text(encoding="utf-8") != request:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            mark.write_text(request, encoding="utf-8")
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        try:
            yield work, result
        except keep:
            discard.pop_all()
            raise
        os.replace(result, path)


@contextmanager
def resumable_folder(path: Path | str) -> Iterator[Path]:
    """A folder to work in that becomes `path` if the block ends well, and otherwise stays for the next to go on in.

    Raises WriteError, also while another process is at it.
    """
    path = real(path)
    work = partial_of(path)
    with translated(path), locked(path, "lock"):
        if path.exists():
            path.rmdir()
        work.mkdir(exist_ok=True)
        yield work
        os.replace(work, path)


def sweep(path: Path | str) -> None:
    """Remove what a kill in the very last moment left beside a folder that is done. Raises WriteError while another is at it."""
    path = real(path)
    left = [partial_of(path), partial_of(path).with_suffix(".scratch")]
    if path.is_dir() and any(path.iterdir()) and any(one.is_dir() for one in left):
        with translated(path), locked(path, "lock"), locked(path, "scratch-lock"):
            for one in left:
                shutil.rmtree(one, ignore_errors=True)


@contextmanager
def scratch_folder(path: Path | str) -> Iterator[Path]:
    """Where files that are needed only while `path` is made may be put: gone at the end, the same place next time.

    Raises WriteError while another process has it.
    """
    path = real(path)
    scratch = partial_of(path).with_suffix(".scratch")
    with ExitStack() as held:
        with translated(path):
            held.enter_context(locked(path, "scratch-lock"))
        held.callback(shutil.rmtree, scratch, ignore_errors=True)
        yield scratch


@contextmanager
def locked(path: Path, kind: str) -> Iterator[None]:
    """Inside, this process alone is at `path`; a lock that a killed process left behind is no hindrance. Raises WriteError."""
    lock = partial_of(path).with_suffix(f".{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as undo:
        try:
            undo.enter_context(FileLock(lock, timeout=0))
        except Timeout:
            raise WriteError(
                f"cannot write {path}: another process is writing it; wait for it or choose another folder"
            ) from None
        undo.callback(lock.unlink, missing_ok=True)
        yield


def refuse_existing(path: Path | str, advice: str) -> Path:
    """`path`, if nothing is there yet or it is an empty folder. Raises WriteError with `advice` otherwise."""
    path = Path(path)
    if (path.exists() and not path.is_dir()) or (path.is_dir() and any(path.iterdir())):
        raise WriteError(f"{path} exists already: {advice}")
    return path


def require_space(path: Path | str, needed: int) -> None:
    """Raise WriteError unless the disk of `path` has `needed` bytes free."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WriteError(
            f"cannot write {path}: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free; "
            "free some space or choose another disk"
        )


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with writing(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
