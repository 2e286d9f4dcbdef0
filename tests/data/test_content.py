"""What is named like a table, a list or segments and is something else is called what it is, with what to do."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.formats.content import is_text, mistaken

TABLE = "path,speaker,emotion,d_0,d_1\na.wav,1,sad,1,2\n"


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TABLE)
    return file.getvalue()


def written(write):
    file = io.BytesIO()
    write(pyarrow.table({"path": ["a.wav"]}), file)
    return file.getvalue()


CONTENTS = {
    "is compressed (gzip)": (gzip.compress(TABLE.encode()), "unpack it: gunzip < "),
    "is compressed (bzip2)": (bz2.compress(TABLE.encode()), "unpack it: bunzip2 < "),
    "is compressed (xz)": (lzma.compress(TABLE.encode()), "unpack it: unxz < "),
    "is a ZIP archive": (zipped("table.csv"), "; unpack it"),
    "is a document of Excel or Word": (zipped("[Content_Types].xml", "xl/workbook.xml"), "; save it in that form"),
    "is a document of LibreOffice": (zipped("mimetype", "content.xml"), "; save it in that form"),
    "is a document of Excel or Word (before 2007)": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "; save it in that form"),
    "is a Parquet table": (written(pyarrow.parquet.write_table), "it needs the ending .parquet"),
    "is an Arrow or Feather table": (written(pyarrow.feather.write_feather), "; save it in that form"),
    "is a pickle of Python, which is never opened": (pickle.dumps({"path": ["a.wav"]}), "; save it in that form"),
    "is text in UTF-16": (TABLE.encode("utf-16-le"), "; save it in that form"),
    "is text in UTF-32": (TABLE.encode("utf-32"), "; save it in that form"),
    "is text, perhaps JSON": (b'[{"path": "a.wav"}]', "; save it in that form"),
    "is a page of the web": (b"<!DOCTYPE html><title>404</title>", "perhaps the answer to a download that failed"),
    "is a git-LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
    "is a recording": (b"RIFF\x24\0\0\0WAVEfmt ", ""),
    "is nothing but zeros": (bytes(500), "download was perhaps not finished"),
    "is no text, but binary data": (b"\x05\0\x07\n" + TABLE.encode(), ""),
}
COMMANDS = {  # the ending, what it is given to, and what is expected there
    "csv": ("prepare csv {file} {out}", "a CSV table in UTF-8"),
    "tsv": ("audit {file} --out {out}", "a CSV table in UTF-8"),
    "parquet": ("prepare parquet {file} {out}", "a Parquet table"),
    "npz": ("audit {file} --out {out}", "an .npz file of arrays"),
    "txt": ("infer {file} --out {out}", "text in UTF-8 with one path a line"),
    "rttm": ("infer gone.wav --segments {file} --out {out}", "RTTM in UTF-8"),
}


@pytest.mark.parametrize("ending", COMMANDS)
def test_first_bytes_tell_what_a_file_is_and_what_to_do(tmp_path, capsys, ending):
    command, expected = COMMANDS[ending]
    file, out = tmp_path / f"my_calls.{ending}", tmp_path / "out.csv"
    for name in CONTENTS if ending == "csv" else list(CONTENTS)[::4]:
        content, advice = CONTENTS[name]
        file.write_bytes(content)
        assert siser([word.format(file=file, out=out) for word in command.split()]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: {file} {name}") and f", expected {expected}" in error and advice in error
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_text_is_named(tmp_path, capsys, ending):
    command, expected = COMMANDS[ending]
    file = tmp_path / f"t.{ending}"
    file.write_text(TABLE)
    assert siser([word.format(file=file, out=tmp_path / "out") for word in command.split()]) == 2
    assert f"{file} is text, expected {expected}; a CSV table needs the ending .csv" in capsys.readouterr().err


def test_what_is_unpacked_gets_a_name_of_its_own(tmp_path):
    for name, new in {"a b.csv": "a b-unpacked.csv", "t.csv.gz": "t.csv"}.items():
        (tmp_path / name).write_bytes(gzip.compress(b"x"))
        assert mistaken(tmp_path / name, "a table").endswith(f"{new}'" if " " in new else f" > {tmp_path / new}")


def test_texts_arrays_and_other_files_are_not_mistaken(tmp_path):
    np.savez(tmp_path / "a.npz", embedding=np.zeros(3))
    (tmp_path / "b.csv").write_text("größe,PK,[x]\n")
    assert not mistaken(tmp_path / "a.npz", "an .npz file of arrays")
    assert not mistaken(tmp_path / "b.csv", "a table") and not mistaken(tmp_path / "gone.csv", "a table")
    assert is_text("größ".encode()[:-1]) and not is_text(b"\xff\xfb\x90\x00")


def test_a_table_that_is_predicted_is_called_text(tmp_path, capsys):
    (tmp_path / "calls.csv").write_text("path\na.wav\n")
    assert siser(["infer", str(tmp_path / "calls.csv"), "--out", str(tmp_path / "p.csv")]) == 1
    assert "is text, not audio; a list of recordings for `siser infer` has the ending .txt" in capsys.readouterr().err
