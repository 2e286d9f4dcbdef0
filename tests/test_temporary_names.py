"""Temporary files and folders: planted links are not followed, left-overs are replaced, and results are renamed at once."""

import inspect
import os
import sys

import pytest

from speaker_invariant_ser import files
from speaker_invariant_ser.errors import WriteError
from speaker_invariant_ser.files import (
    locked,
    new_folder,
    partial_of,
    private_folder,
    replaced_files,
    resumable_folder,
    scratch_folder,
    unfinished_folder,
    writing,
)


def write_file(path):
    with writing(path) as file:
        file.write("new")


def write_bytes(path):
    with writing(path, "wb") as file:
        file.write(b"new")


def make(folder):
    """Return a function that makes a folder with one file by way of the context manager `folder`."""

    def write(path):
        with folder(path) as opened:
            (opened[-1] if isinstance(opened, tuple) else opened).joinpath("file").write_text("new")

    return write


WRITERS = {
    "file": write_file,
    "bytes": write_bytes,
    "new folder": make(new_folder),
    "files of a report": make(lambda path: replaced_files(path, ["file"])),
    "unfinished folder": make(lambda path: unfinished_folder(path, "request")),
    "resumable folder": make(resumable_folder),
}


@pytest.mark.parametrize("planted", ["link to a file", "link to a folder", "hard link", "loop", "left-over"])
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_planted_under_a_temporary_name_is_replaced(tmp_path, name, planted):
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    (victim / "file").write_text("old")
    partial = partial_of(out)
    match planted:
        case "link to a file":
            partial.symlink_to(victim / "file")
        case "link to a folder":
            partial.symlink_to(victim)
            (victim / "request").write_text("request")
        case "hard link":
            partial.hardlink_to(victim / "file")
        case "loop":
            partial.symlink_to(partial)
        case "left-over":
            partial.write_text("half")
    WRITERS[name](out)
    assert (victim / "file").read_text() == "old"
    assert (out / "file" if out.is_dir() else out).read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "victim"]


def test_partial_results_of_another_user_are_not_continued(tmp_path, monkeypatch):
    work = private_folder(tmp_path / "work")
    (work / "file").touch()
    assert list(private_folder(work).iterdir()) == [work / "file"]
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not list(private_folder(work).iterdir())


@pytest.mark.parametrize("name", ["unfinished folder", "resumable folder"])
def test_links_and_pipes_inside_a_planted_folder_are_removed(tmp_path, name):
    """An archive that is unpacked can bring them, and they belong to the user who unpacks it."""
    victim, partial = tmp_path / "victim", partial_of(tmp_path / "out")
    victim.mkdir()
    for folder in (partial, partial / "result", partial / "deep"):
        folder.mkdir()
        (folder / "file").symlink_to(victim / "file")
        (folder / "folder").symlink_to(victim)
        os.mkfifo(folder / "pipe")
    (victim / "file").write_text("old")
    (partial / "hard").hardlink_to(victim / "file")
    (partial / "request").write_text("request")
    WRITERS[name](tmp_path / "out")
    assert (victim / "file").read_text() == "old"
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_fifo() or path.name == "hard"]


def test_a_planted_folder_that_is_nested_deeply_is_an_error(tmp_path, monkeypatch):
    def too_deep(*_, **__):
        raise RecursionError

    partial_of(tmp_path / "out").mkdir()
    monkeypatch.setattr("shutil.rmtree", too_deep)
    with pytest.raises(WriteError, match="cannot remove .*partial, which is nested too deeply: remove it with rm -r"):
        WRITERS["unfinished folder"](tmp_path / "out")


def test_partial_results_that_are_nested_deeply_are_looked_through(tmp_path):
    work = private_folder(tmp_path / "work")
    innermost = work.joinpath(*["a"] * 200)
    innermost.mkdir(parents=True)
    (innermost / "link").symlink_to("x")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        private_folder(work)
    finally:
        sys.setrecursionlimit(limit)
    assert not (innermost / "link").is_symlink()


def test_scratch_of_a_killed_process_is_not_used_again(tmp_path):
    with scratch_folder(tmp_path / "out") as scratch:
        assert not scratch.exists()
    scratch.symlink_to(tmp_path)
    with scratch_folder(tmp_path / "out") as scratch:
        assert not scratch.is_symlink()


@pytest.mark.parametrize("name", [name for name in WRITERS if "f" in name and name != "file"])
def test_two_writers_of_one_folder_do_not_mix(tmp_path, name):
    with locked(tmp_path / "out", "lock"), pytest.raises(WriteError, match="out: another process is writing it"):
        WRITERS[name](tmp_path / "out")
    WRITERS[name](tmp_path / "out")


def test_two_writers_of_one_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(WriteError, match="cannot write .*table.csv: another process is writing it"), writing(path) as first:
        first.write("first" * 10_000)
        with writing(path) as second:
            second.write("second")
    assert path.read_text() == "second" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_as_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_link_is_removed_without_what_it_leads_to(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    files.remove(tmp_path / "link")
    assert (tmp_path / "folder" / "file").exists() and not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("kind", ["lock", "scratch-lock"])
def test_a_link_in_place_of_a_lock_is_removed(tmp_path, kind):
    victim, lock = tmp_path / "victim", partial_of(tmp_path / "out").with_suffix(f".{kind}")
    victim.write_text("old")
    lock.symlink_to(victim)
    with locked(tmp_path / "out", kind):
        assert not lock.is_symlink()
    assert victim.read_text() == "old" and not lock.exists()


def test_the_root_of_a_disk_is_not_written():
    for write in (files.new_folder, files.unfinished_folder, files.writing):
        with pytest.raises(WriteError, match="^cannot write /"), write("/", *["any"] * (write is files.unfinished_folder)):
            pass
