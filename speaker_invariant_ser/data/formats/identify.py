"""Why a file cannot be read, in the words of a user: what its first bytes are, or why its path leads nowhere."""

import os
import re
import unicodedata
from pathlib import Path

from speaker_invariant_ser.data.formats import chunks, ogg
from speaker_invariant_ser.data.formats.content import SAVE, advice, is_text, kind_of
from speaker_invariant_ser.errors import explain_addresses, quoted

FORMAT_TAGS = {  # codecs in WAV that libsndfile does not read, by format tag
    0x14: "G.723 ADPCM",
    0x20: "Yamaha ADPCM",
    0x22: "TrueSpeech",
    0x40: "G.721 ADPCM",
    0x42: "G.723.1",
    0x45: "G.726 ADPCM",
    0x64: "G.726 ADPCM",
    0x83: "G.729",
    0xFF: "AAC",
    0x160: "Windows Media Audio",
    0x161: "Windows Media Audio",
    0x162: "Windows Media Audio",
    0x163: "Windows Media Audio",
    0x270: "ATRAC3",
    0x28F: "G.722 ADPCM",
    0x1600: "AAC",
    0x1602: "AAC",
    0x2000: "AC-3",
    0x2001: "DTS",
    0x566F: "Vorbis",
    0x704F: "Opus",
    0xA109: "Speex",
    0xF1AC: "FLAC",
}
SOUND = {  # what the first bytes say of recordings that ffmpeg reads and libsndfile does not
    rb"....ftyp(3gp|3g2)": "3GP, as of a mobile phone",
    rb"....ftypqt": "a QuickTime film",
    rb"....ftyp": "MP4 (as .m4a or .mp4)",
    rb"....(moov|mdat|wide|free)": "a QuickTime film",
    rb"\x1aE\xdf\xa3": "Matroska or WebM",
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "Windows Media (as .wma)",
    rb"#!AMR": "AMR, as of a mobile phone",
    rb"\xff[\xf0\xf1\xf8\xf9][\x40-\x70]": "AAC",
    rb"ADIF": "AAC",
    rb"\x0b\x77": "AC-3",
    rb"RIFF....AVI ": "an AVI film",
    rb"FLV\x01": "a Flash film",
    rb"wvpk": "WavPack",
    rb"MAC ": "Monkey's Audio",
    rb"TTA[12]": "True Audio",
    rb"MP\+|MPCK": "Musepack",
    rb"\.RMF|\.ra\xfd": "RealAudio",
    rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80": "DTS",
    rb"[\x02\x03]ds[s2]": "a dictation (DSS)",
    rb"ajkg": "Shorten",
    rb"\x00\x00\x01[\xba\xb3]": "an MPEG film",
    rb"G@.{186}G": "an MPEG transport stream",
}
MIDI = rb"MThd"
TEXT = "is text, not audio; a list of recordings for `siser infer` has the ending .txt"
WINDOWS_PATH = re.compile(r"(^|/)([A-Za-z]:[\\/]|\\\\)")
QUOTES = tuple("\"'`“”‘’„«»")


def explain(path: Path | str, error: Exception) -> str:
    """Return why a file could not be decoded and, where it can be converted, what to type."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            size = os.fstat(file.fileno()).st_size
            layout = chunks.scan(file, head, size)
            known = identify(path, head, layout)
    except OSError as reading_error:
        return f"{path}: cannot be opened ({reading_error.strerror})"
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    damaged = "is damaged or truncated" if "lost sync" in reason else "not readable as audio"
    advice = f"; {convert(path)}" if layout else ""
    known = known or ("" if layout or not is_text(head) else TEXT)
    return f"{path}: {known or f'{damaged} ({reason}){advice}'}"


def identify(path: Path | str, head: bytes, layout: chunks.Layout | None) -> str:
    """Return what a file is by its first bytes, and what can be done about it; empty if they do not tell."""
    if not head:
        return "is empty (0 bytes)"
    if layout and layout.tag in FORMAT_TAGS:
        return f"is WAV with {FORMAT_TAGS[layout.tag]} (format tag 0x{layout.tag:x}), which is not supported; {convert(path)}"
    if head.startswith(b"OggS") and (codec := ogg.codec_of(head)) not in ogg.READABLE:
        return f"is Ogg with {codec or 'an unknown codec'}, which is not supported; {convert(path)}"
    if b"shorten" in head[:1024] and head.startswith(b"NIST_1A"):
        return f"is SPHERE compressed with Shorten, which is not supported; {convert(path)}"
    for pattern, name in SOUND.items():
        if re.match(pattern, head, re.DOTALL):
            return f"is {name}, which is not supported; {convert(path)}"
    if kind := kind_of(head):
        return f"is {kind.name}, not audio{'' if kind.remedy == SAVE else advice(kind, path)}"
    return "is MIDI, which holds notes and no sound" if head.startswith(MIDI) else ""


def convert(path: Path | str) -> str:
    """Return the command that converts a file, with a new name."""
    name = os.path.basename(path)
    stem, ending = os.path.splitext(name)
    new = f"{stem}.wav" if ending.lower() != ".wav" else f"{stem}-pcm.wav"
    return f"convert it: ffmpeg -i {quoted(name)} {quoted(new)}"


def explain_missing(path: Path | str) -> str:
    """Return why there is no file at `path`, with what is wrong in the path where that can be seen."""
    text = str(path)
    name, missing = text.rpartition("/")[2], first_missing(text)
    if os.path.islink(path):
        return f"{path}: is a link to a missing file"
    shown, hint = explain_addresses(re.sub("(?<=:)//+", "/", text))
    if hint:
        return f"{shown}: no such file; {hint}"
    if WINDOWS_PATH.search(text):
        hint = "a path of Windows with a drive leads nowhere on this machine: write it relative to the table's folder"
    elif "\\" in text:
        hint = "\\ is no slash here: write / between folders"
    elif name[:1] in QUOTES or name[-1:] in QUOTES:
        hint = "the quotation marks are taken as part of its name: leave them out"
    elif "/~" in text or text.startswith("~"):
        hint = "~ is not replaced by your home folder here: write it in full"
    elif similar := [other for other in siblings(missing) if alike(other, os.path.basename(missing))]:
        hint = f"there is {similar[0]}: upper and lower case, blanks and endings count"
    elif missing != text:
        hint = f"there is no folder {missing}"
    else:
        return f"{path}: no such file"
    return f"{path}: no such file; {hint}"


def first_missing(path: str) -> str:
    """Return the shortest beginning of a path that does not exist: the path, or a folder on the way to it."""
    while (folder := os.path.dirname(path)) and not os.path.isdir(folder):
        path = folder
    return path


def siblings(path: Path | str) -> list[str]:
    """Return the names in the folder of a path, none if it cannot be listed."""
    try:
        return sorted(os.listdir(os.path.dirname(path) or "."))
    except (OSError, ValueError):
        return []


def alike(name: str, other: str) -> bool:
    """Return whether two file names differ only in case, outer or double blanks, or the ending."""
    first, second = (" ".join(unicodedata.normalize("NFC", text).casefold().split()) for text in (name, other))
    return first == second or os.path.splitext(first)[0] == os.path.splitext(second)[0]


def existing(path: Path | str) -> Path | str:
    """Return the path under which a file exists: as it is, with slashes for backslashes, or in the other Unicode normal form.

    Names from a Mac are often decomposed (ö is o and two dots), those in a table composed; tables from Windows have backslashes.
    A path that exists in no such form is returned unchanged.
    """
    text = os.fspath(path)
    if os.path.lexists(text):
        return path
    slashed = text.replace("\\", "/")
    for candidate in (slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))):
        if candidate != text and os.path.lexists(candidate):
            return candidate
    return found_below(slashed) or path


def found_below(path: str) -> str:
    """Return the path whose every part is spelled as on the disk, in whatever normal form; empty if there is none.

    A folder may be there in two forms, as after copies from a Mac and from Windows: the file is looked for in both.
    """
    if path.isascii():
        return ""
    places = ["/" if path.startswith("/") else ""]
    for part in (part for part in path.split("/") if part):
        places = [os.path.join(place, name) for place in places for name in spellings(place, part)]
    return next(filter(os.path.lexists, places), "")


def spellings(folder: str, name: str) -> list[str]:
    """Return the names in a folder that are `name` in whatever normal form; one of ASCII has no other."""
    if name.isascii():
        return [name]
    wanted = unicodedata.normalize("NFC", name)
    return [other for other in siblings(os.path.join(folder, "x")) if unicodedata.normalize("NFC", other) == wanted]
