"""What a file is by its first bytes, where a recording, a table or a list was expected, and what can be done about it."""

import codecs
import os
import re
from pathlib import Path
from typing import NamedTuple

from speaker_invariant_ser.errors import quoted

HEAD = 4096  # bytes that are looked at
SAVE = "save it in that form"
UNPACK = "unpack it"


class Kind(NamedTuple):
    """What a file is, and what can be done about it: "", `SAVE`, `UNPACK`, or a command that unpacks standard input."""

    name: str
    remedy: str = ""


KINDS = {
    rb"version https://git-lfs": Kind("a git-LFS pointer", "fetch the real file with `git lfs pull`"),
    rb"\x00\x05\x16[\x07\x00]": Kind("a Mac's notes on another file", "it can be deleted"),
    rb"\0+\Z": Kind("nothing but zeros", "its copy or download was perhaps not finished"),
    rb"PK\x03\x04.{26}(\[Content_Types\]|docProps/|_rels/|xl/|word/)": Kind("a document of Excel or Word", SAVE),
    rb"PK\x03\x04.{26}mimetype": Kind("a document of LibreOffice", SAVE),
    rb"PK\x03\x04.{26}[^/\0]{1,99}\.npy": Kind("an .npz file of arrays"),
    rb"PK\x03\x04": Kind("a ZIP archive", UNPACK),
    rb"\x1f\x8b": Kind("compressed (gzip)", "gunzip"),
    rb"BZh[1-9]1AY&SY": Kind("compressed (bzip2)", "bunzip2"),
    rb"\xfd7zXZ\0": Kind("compressed (xz)", "unxz"),
    rb"\x28\xb5\x2f\xfd": Kind("compressed (Zstandard)", "unzstd"),
    rb"7z\xbc\xaf|Rar!\x1a": Kind("a compressed archive", UNPACK),
    rb"\xd0\xcf\x11\xe0": Kind("a document of Excel or Word (before 2007)", SAVE),
    rb"\{\\rtf": Kind("rich text (RTF)", SAVE),
    rb"PAR1": Kind("a Parquet table", "it needs the ending .parquet"),
    rb"ARROW1|FEA1": Kind("an Arrow or Feather table", SAVE),
    rb"\x89HDF": Kind("an HDF5 file", SAVE),
    rb"SQLite format 3": Kind("an SQLite database", SAVE),
    rb"\x93NUMPY": Kind("an .npy array", SAVE),
    rb"\x80[\x02-\x05][\x80-\xff(}\]cKX]": Kind("a pickle of Python, which is never opened because it can run programs", SAVE),
    rb"%PDF-": Kind("a PDF document"),
    rb"\x89PNG|\xff\xd8\xff|GIF8[79]a": Kind("a picture"),
    rb"\xff\xfe\0\0|\0\0\xfe\xff": Kind("text in UTF-32", SAVE),
    rb"\xff\xfe|\xfe\xff|([\t\r\n -~]\0){4}|(\0[\t\r\n -~]){4}": Kind("text in UTF-16", SAVE),
    rb"\s*<(!doctype html|html|table|\?xml)": Kind("a page of the web or XML", "perhaps the answer to a download that failed"),
    rb"\s*(\{\s*\"|\[\s*[\"{])": Kind("text, perhaps JSON", SAVE),
}
PACKED = {".gz", ".bz2", ".xz", ".zst"}
RECORDING = rb"RIFF|RIFX|RF64|OggS|fLaC|ID3|FORM|caff|\xff[\xe0-\xff]|....ftyp|\x1aE\xdf\xa3"


def kind_of(head: bytes) -> Kind | None:
    r"""Return what a file with these first bytes is, None if it may be text or a recording.

    >>> kind_of(b"\x1f\x8b\x08")
    Kind(name='compressed (gzip)', remedy='gunzip')
    """
    return next((kind for pattern, kind in KINDS.items() if re.match(pattern, head, re.IGNORECASE | re.DOTALL)), None)


def mistaken_for_text(source: Path | str, head: bytes, expected: str) -> str:
    """Return why a file that begins so is not what was `expected`, and what to do; "" where the first bytes do not tell."""
    kind = kind_of(head)
    if kind and kind.name == expected:
        return ""
    if not kind and b"\0" in head.split(b"\n", 1)[0]:
        kind = Kind("a recording" if re.match(RECORDING, head, re.DOTALL) else "no text, but binary data")
    return f"{source} is {kind.name}, expected {expected}{advice(kind, source)}" if kind else ""


def mistaken(path: Path | str, expected: str, text: str = "") -> str:
    """Return what `mistaken_for_text` does for a file; of a file that is plain text, the answer `text`, if there is one."""
    head = first_bytes(path)
    plain = f"{path} is text, expected {expected}; {text}" if text and is_text(head) else ""
    return mistaken_for_text(path, head, expected) or plain


def is_text(head: bytes) -> bool:
    r"""Return whether the first bytes of a file are text in UTF-8 without control characters; the last character may be cut.

    >>> is_text("größe,".encode()), is_text(b"\xff\xfb\x90"), is_text(b"")
    (True, False, False)
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(head) and not re.search("[\0-\x08\x0e-\x1f]", text)


def first_bytes(path: Path | str) -> bytes:
    """Return the first bytes of a file, none where it is no file or cannot be read."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(HEAD)
    except (OSError, ValueError):
        return b""


def advice(kind: Kind, source: Path | str) -> str:
    """Return what can be done about a file, to be appended to what it is."""
    if not kind.remedy or " " in kind.remedy:
        return f"; {kind.remedy}" if kind.remedy else ""
    if not os.path.isfile(source):  # standard input
        return f"; {UNPACK}: {kind.remedy}"
    stem, ending = os.path.splitext(source)
    new = stem if ending.lower() in PACKED else f"{stem}-unpacked{ending}"
    return f"; {UNPACK}: {kind.remedy} < {quoted(source)} > {quoted(new)}"
