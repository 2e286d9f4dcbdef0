"""Atomic writing: files and folders are written under a temporary name and renamed when complete.

A temporary name is predictable, so that the next call finds what a killed process left. Others may guess it as well: a file or
folder of that name is made new, exclusively, and partial results are continued only if they are this user's own and no links.

Operating-system errors become WriteError here and nowhere else, with the path and a remedy.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from speaker_invariant_ser.errors import NOT_REGULAR, SerError, WriteError, shorten

REASONS = {
    errno.EACCES: "no permission to write here; choose another folder or change its permissions",
    errno.EPERM: "no permission to write here; choose another folder or change its permissions",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "no space left on the disk; free some or choose another disk",
    errno.EDQUOT: "the disk quota is exceeded; free some space or choose another disk",
    errno.EFBIG: "the file would be larger than the file system or a limit (ulimit -f) allows; raise it or choose another disk",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "a folder of that name exists",
    errno.ENOTEMPTY: "the folder exists and is not empty",
    errno.EBUSY: "the folder is in use, possibly as a mount point; choose a new one",
    errno.EEXIST: "a file of that name exists",
    errno.ELOOP: "its symbolic links form a loop",
    errno.ENAMETOOLONG: "the name is too long for the file system",
}
MAX_TEXT, MAX_SETTINGS = 200_000_000, 10_000_000  # bytes of a text, and of one of a few settings, such as model.json


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about writing `path` into a WriteError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS:
            raise
        raise WriteError(f"cannot write {path}: {REASONS[error.errno]}") from error


def resolve_links(path: Path | str) -> Path:
    """Return the absolute path without symbolic links; a loop of links stays for the system to refuse."""
    return Path(os.path.realpath(path))


def portable_path(data: Path, run: Path) -> str:
    """Return the path of a prepared corpus as a run stores it: without the names of the machine's outer folders and its user.

    It is relative to the run where a folder below the user's home, or one outside of it, holds both; otherwise relative to the
    home, as `~/...`; otherwise empty, and the user names the corpus with `--data`.
    """
    data, run, home = resolve_links(data), resolve_links(run), resolve_links(os.path.expanduser("~"))
    common = Path(os.path.commonpath([data, run])) if data.anchor == run.anchor else Path(data.anchor)
    if common == home or not home.is_relative_to(common):
        return Path(os.path.relpath(data, run)).as_posix()
    return f"~/{data.relative_to(home).as_posix()}" if data.is_relative_to(home) else ""


def partial_of(path: Path) -> Path:
    """Return the temporary name of `path` while it is being written; it is hidden. Raise WriteError for the root of a disk."""
    if not path.name:
        raise WriteError(f"cannot write {path}: it is the root of a disk; name a folder in it")
    return path.with_name(f".{path.name}.partial")


def is_own(path: Path) -> bool:
    """Return whether something exists, is no link, has no second name, and belongs to this user."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    regular = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
    return regular and (not hasattr(os, "geteuid") or status.st_uid == os.geteuid())


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder with all it contains, if it exists and can be removed."""
    if path.is_dir() and not path.is_symlink():
        try:
            shutil.rmtree(path, ignore_errors=True)
        except RecursionError:
            raise WriteError(f"cannot remove {path}, which is nested too deeply: remove it with rm -r, or the like") from None
    else:
        path.unlink(missing_ok=True)


def keep_own(path: Path) -> Path:
    """Return the path of partial results, without what is not this user's own in them: others could have planted it."""
    pending = [path]
    while pending:
        content = pending.pop()
        if not is_own(content):
            remove(content)
        elif content.is_dir():
            pending += content.iterdir()
    return path


def private_folder(path: Path) -> Path:
    """Return a folder for partial results, with what an earlier call of this user left there."""
    if not keep_own(path).is_dir():
        remove(path)
        path.mkdir(parents=True)
    return path


@contextmanager
def writing(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing under a temporary name; it gets its name if the block ends without an error.

    Args:
        path: The file; its folder is made if it does not exist.
        mode: "w" for UTF-8 text without newline translation, "wb" for bytes.

    Raises:
        WriteError: The file cannot be written.
    """
    partial = partial_of(path := Path(path))
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():
            raise WriteError(f"cannot write {path}: it is a pipe or a device, which a file would replace; choose another name")
        remove(partial)
        try:
            with open(partial, mode.replace("w", "x"), encoding=encoding, newline=newline) as file:  # x: new, and no link
                yield file
                written = os.fstat(file.fileno())
            if not (partial.exists() and os.path.samestat(written, os.lstat(partial))):
                raise WriteError(f"cannot write {path}: another process is writing it; wait for it or choose another name")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Make a temporary folder, next to `path`, that becomes `path` if the block ends without an error.

    Args:
        path: The folder; an empty one may exist.

    Raises:
        WriteError: `path` cannot be written; or, before the block begins, another process is writing it or it is not empty.
    """
    path = resolve_links(path)
    partial = partial_of(path)
    with write_errors(path), locked(path, "lock"):
        if path.exists():
            path.rmdir()
        remove(partial)
        partial.mkdir()
        try:
            yield partial
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replaced_files(folder: Path | str, names: Sequence[str]) -> Iterator[Path]:
    """Make a temporary folder whose files replace those of a former result if the block ends without an error.

    Args:
        folder: Folder of the result, which may hold a former one and the user's own files.
        names: Names that files of such a result can have, first the one that a former result is known by. Those that the block
            does not write are removed; whatever has another name stays.

    Yields:
        The temporary folder, next to `folder`.

    Raises:
        WriteError: `folder` cannot be written, or another process is writing it.
    """
    folder = resolve_links(folder)
    partial = partial_of(folder)
    with write_errors(folder), locked(folder, "lock"):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        remove(partial)
        partial.mkdir()
        try:
            yield partial
            written = {path.name for path in partial.iterdir()}
            assert written <= set(names), f"{written - set(names)}: files that the next result would not replace"
            folder.mkdir(exist_ok=True)
            for name in sorted(set(names) - written):
                (folder / name).unlink(missing_ok=True)
            for name in filter(written.__contains__, names):
                os.replace(partial / name, folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_known(folder: Path | str, names: Collection[str]) -> None:
    """Remove files and folders of these names from a folder, and the folder itself where nothing else is in it."""
    with write_errors(folder := Path(folder)):
        for name in names:
            remove(folder / name)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def unfinished_folder(
    path: Path | str, request: str, keep: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
) -> Iterator[tuple[Path, Path]]:
    """Make a folder for long work, whose partial results survive an interruption.

    What a killed process or one of the exceptions in `keep` leaves in the work folder is reused by the next call with the same
    `request`; the block must be able to continue from whatever it finds there. Any other exception removes it.

    Args:
        path: The folder that the result becomes if the block ends without an error.
        request: Text that identifies the work; partial results of another request are removed.
        keep: Exceptions after which partial results are kept.

    Yields:
        The work folder, and a new folder in it that becomes `path`.

    Raises:
        WriteError: `path` cannot be written, or another process is writing it.
    """
    path = resolve_links(path)
    work = partial_of(path)
    result, mark = work / "result", work / "request"
    with write_errors(path), locked(path, "lock"), ExitStack() as discard:
        if path.exists():
            path.rmdir()
        discard.callback(remove, work)
        if is_own(work) and work.is_dir():
            remove(result)  # whose files may be further names of those beside it
        if not keep_own(work).is_dir() or not mark.is_file() or mark.read_bytes() != request.encode():
            remove(work)
            work.mkdir()
            mark.write_bytes(request.encode())
        result.mkdir()
        try:
            yield work, result
        except keep:
            discard.pop_all()
            raise
        os.replace(result, path)


@contextmanager
def resumable_folder(path: Path | str) -> Iterator[Path]:
    """Make a folder that becomes `path` if the block ends without an error, and otherwise stays for the next call.

    Args:
        path: The folder; an empty one may exist.

    Yields:
        The temporary folder, with what an earlier call left there.

    Raises:
        WriteError: `path` cannot be written, or another process is writing it.
    """
    path = resolve_links(path)
    work = partial_of(path)
    with write_errors(path), locked(path, "lock"):
        if path.exists():
            path.rmdir()
        yield private_folder(work)
        os.replace(work, path)


def remove_leftovers(path: Path | str) -> None:
    """Remove what a killed process left beside a complete file or folder; raise WriteError while one is in use."""
    path = resolve_links(path)
    leftovers = [partial_of(path).with_suffix(suffix) for suffix in (".partial", ".scratch", ".blocks")]
    complete = any(path.iterdir()) if path.is_dir() else path.is_file()
    if complete and any(leftover.exists() for leftover in leftovers):
        with write_errors(path), locked(path, "lock"), locked(path, "scratch-lock"):
            for leftover in leftovers:
                remove(leftover)


@contextmanager
def scratch_folder(path: Path | str) -> Iterator[Path]:
    """Make a folder, of the same name in every call for `path`, for files that are needed only while `path` is made.

    Raises:
        WriteError: Another process is using it.
    """
    path = resolve_links(path)
    scratch = partial_of(path).with_suffix(".scratch")
    with ExitStack() as held:
        with write_errors(path):
            held.enter_context(locked(path, "scratch-lock"))
        remove(scratch)
        held.callback(shutil.rmtree, scratch, ignore_errors=True)
        yield scratch


@contextmanager
def held(path: Path | str) -> Iterator[None]:
    """Hold the lock of a path, or raise WriteError if another process has it; errors of the block pass as they are."""
    path = resolve_links(path)
    with ExitStack() as lock:
        with write_errors(path):
            lock.enter_context(locked(path, "lock"))
        yield


@contextmanager
def locked(path: Path, kind: str) -> Iterator[None]:
    """Lock `path` for this process, or raise WriteError; the lock of a killed process does not count."""
    lock = partial_of(path).with_suffix(f".{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as undo:
        if lock.is_symlink() or (lock.is_file() and lock.stat().st_nlink > 1):  # planted: opening it would empty another file
            lock.unlink()
        try:
            undo.enter_context(FileLock(lock, timeout=0))
        except Timeout:
            raise WriteError(
                f"cannot write {path}: another process is writing it; wait for it or choose another folder"
            ) from None
        undo.callback(lock.unlink, missing_ok=True)
        yield


def refuse_existing(path: Path | str, advice: str) -> Path:
    """Return a path that does not exist or is an empty folder; raise WriteError, which ends with `advice`, for any other."""
    path = Path(path)
    if (path.exists() and not path.is_dir()) or (path.is_dir() and any(path.iterdir())):
        raise WriteError(f"{path} exists already: {advice}")
    return path


def require_only(folder: Path | str, names: Collection[str], advice: str) -> None:
    """Raise WriteError, which ends with `advice`, unless a path does not exist or is a folder of nothing but these names."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"{folder} is a file: {advice}")
    with write_errors(folder):
        if others := sorted(path.name for path in folder.iterdir() if path.name not in names) if folder.exists() else []:
            raise WriteError(f"{folder} holds {shorten(others)}: {advice}")


def require_no_links(paths: Iterable[Path]) -> None:
    """Raise WriteError for a link in place of a folder that is written to: in what somebody else made, it may lead anywhere."""
    for path in paths:
        if path.is_symlink() and not path.is_file():
            raise WriteError(f"{path} is a link, to which this command would write: replace it by the folder itself")


def require_space(path: Path | str, needed: int) -> None:
    """Raise WriteError unless the disk of `path` has `needed` bytes free."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WriteError(
            f"cannot write {path}: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free; free some space or choose another disk"
        )


def write_json(path: Path | str, value: object) -> None:
    """Write a value as indented JSON, atomically; raise WriteError where that fails."""
    with writing(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def require_regular(path: Path | str) -> Path:
    """Return the path; raise SerError for a pipe, from which reading could block for ever, and a device, which need not end."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SerError(f"{path} {NOT_REGULAR}")
    return path


def read_bytes(path: Path, maximum: int = MAX_TEXT) -> bytes:
    """Return the content of a text; raise SerError for a pipe or a device, ValueError if it is too large, or OSError."""
    if require_regular(path).exists() and (size := path.stat().st_size) > maximum:
        raise ValueError(f"{size / 1e6:.0f} MB, expected at most {maximum / 1e6:.0f} MB")
    return path.read_bytes()


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, hexadecimal; raise SerError for a pipe or a device."""
    with open(require_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
