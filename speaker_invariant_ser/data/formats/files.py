"""Find recordings in folders: those that can be read, and those that cannot, each with the reason."""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from heapq import heappop, heappush
from pathlib import Path

from speaker_invariant_ser.data.formats.content import first_bytes
from speaker_invariant_ser.data.formats.identify import convert, explain_missing, identify
from speaker_invariant_ser.errors import NOT_REGULAR, AudioError, quoted

SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".mp3", ".mp2", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".opus", ".w64"}
    | {".rf64", ".sph", ".voc", ".mpga"}
)
UNSUPPORTED_SUFFIXES = frozenset(
    {".m4a", ".m4b", ".m4v", ".aac", ".mp4", ".3gp", ".3g2", ".mov", ".qt", ".webm", ".mkv", ".mka", ".wma", ".wmv", ".asf"}
    | {".avi", ".flv", ".f4v", ".mpg", ".mpeg", ".ts", ".ogv", ".amr", ".awb", ".gsm", ".spx", ".ac3", ".eac3", ".dts", ".ape"}
    | {".wv", ".tta", ".mpc", ".ra", ".rm", ".dss", ".ds2", ".qcp", ".shn", ".weba", ".adts", ".m4r", ".mts", ".m2ts", ".vob"}
    | {".g722", ".g729", ".silk"}
)
HEADERLESS = {  # the command that reads them, with the usual rate
    **dict.fromkeys((".raw", ".pcm", ".sln"), "ffmpeg -f s16le -ar 8000 -ac 1 -i IN OUT.wav"),
    ".sln16": "ffmpeg -f s16le -ar 16000 -ac 1 -i IN OUT.wav",
    **dict.fromkeys((".ul", ".ulaw", ".mulaw", ".pcmu"), "ffmpeg -f mulaw -ar 8000 -ac 1 -i IN OUT.wav"),
    **dict.fromkeys((".al", ".alaw", ".pcma"), "ffmpeg -f alaw -ar 8000 -ac 1 -i IN OUT.wav"),
    ".g726": "ffmpeg -f g726le -code_size 4 -ar 8000 -i IN OUT.wav",
    ".vox": "sox -t vox -r 8000 IN OUT.wav",
}
TEXT_SUFFIXES = frozenset(  # files that stand beside recordings in great number, and are not opened to see whether they are some
    {".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".md", ".lab", ".textgrid", ".trn", ".wrd", ".phn", ".srt"}
    | {".eaf", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".parquet", ".npy", ".npz", ".png", ".jpg", ".zip", ".gz", ".py"}
    | {".toml", ".yaml", ".yml", ".log", ".ini", ".html", ".i16", ".f32", ".safetensors", ".pt", ".lock", ".partial"}
)
ENDINGS = {  # how recordings begin that can be read, by which those with another ending are recognised, and their ending
    rb"RIFF....WAVE|RF64....WAVE": ".wav",
    rb"fLaC": ".flac",
    rb"FORM....AIF": ".aiff",
    rb"caff": ".caf",
    rb"NIST_1A": ".sph",
    rb"Creative Voice File": ".voc",
    rb"riff\x2e\x91\xcf\x11": ".w64",
}
RECORDING = re.compile(  # how other recordings begin, of which some can be read; MP4 may hold pictures
    rb"OggS|ID3[\x02-\x04]|....ftyp(?!hei|hev|mif1|msf1|avi[fs])|\x1aE\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11|#!AMR|wvpk",
    re.DOTALL,
)
NOTES_OF_A_MAC = b"\x00\x05\x16"  # how files begin that a Mac puts beside others on foreign disks, under names with ._ in front


def find_audio(folder: Path | str, unopened: dict[str, str] | None = None) -> list[Path]:
    """Return the audio files anywhere below a folder, by suffix and sorted, without those of `list_unusable`.

    Links are followed; a broken link is listed, so that reading it reports the problem.

    Args:
        folder: The folder.
        unopened: Gets the folders below it that cannot be opened, with the reason; without, there must be none.

    Raises:
        AudioError: The folder, or one below it, cannot be opened.
    """
    return [Path(folder, name) for name in list_audio(folder, unopened=unopened)]


def list_audio(folder: Path | str, suffixes: Collection[str] = SUFFIXES, unopened: dict[str, str] | None = None) -> list[str]:
    """Return the files of `find_audio`, or files with other suffixes, as paths relative to the folder, with slashes."""
    return sorted(name for name in walk(folder, unopened) if suffix_of(name) in suffixes and not is_hidden(name))


def list_unusable(folder: Path | str) -> list[tuple[str, str]]:
    """Return the recordings below a folder that `find_audio` leaves out, each with the reason, sorted.

    These are recordings of other formats, hidden ones, and those with an ending that is not one of audio; and folders that cannot
    be opened.

    Raises:
        AudioError: The folder itself cannot be opened.
    """
    unopened: dict[str, str] = {}
    reasons = {name: reason_against(folder, name) for name in walk(folder, unopened)} | unopened
    return sorted((name, reason) for name, reason in reasons.items() if reason)


def reason_against(folder: Path | str, name: str) -> str:
    """Return why a file below a folder is a recording that cannot be used; empty if it can be, or is no recording."""
    suffix, note = suffix_of(name), os.path.basename(name).startswith("._")
    shown_suffix = quoted(suffix) if suffix else "(none)"
    unopened = suffix in TEXT_SUFFIXES or (suffix in SUFFIXES and not note)
    head = b"" if unopened else first_bytes(os.path.join(folder, name))
    if note and head.startswith(NOTES_OF_A_MAC):
        return ""
    ending = next((ending for pattern, ending in ENDINGS.items() if re.match(pattern, head, re.DOTALL)), "")
    if ending and not is_hidden(name):
        return f"holds a recording, but its ending {shown_suffix} is none of its kind; rename it to end with {ending}"
    if suffix in HEADERLESS:
        return f"{suffix} has no header; convert it with its own rate and format, such as {HEADERLESS[suffix]}"
    if suffix in UNSUPPORTED_SUFFIXES:
        return (identify(name, head, None) if head else "") or f"{suffix} is not supported; {convert(name)}"
    if suffix in TEXT_SUFFIXES or not (suffix in SUFFIXES or ending or RECORDING.match(head)):
        return ""
    if is_hidden(name):
        return "is hidden: its name, or that of a folder, begins with a dot; rename it if it is to be used"
    if suffix in SUFFIXES:
        return ""
    return identify(name, head, None) or f"holds a recording, but its ending {shown_suffix} is none of audio; rename it"


def walk(folder: Path | str, unopened: dict[str, str] | None = None) -> Iterator[str]:
    """Yield all files below a folder, relative to it and with slashes; `unopened` is that of `find_audio`.

    A folder to which several paths lead is listed once, under its own name if that is not hidden.
    """
    visited, pending = set(), [(False, False, "")]  # what is hidden comes last, and links after what they may lead to
    while pending:
        _, linked, subfolder = heappop(pending)
        path = os.path.join(folder, subfolder)
        if (real := os.path.realpath(path)) in visited:  # a circular link
            continue
        visited.add(real)
        for entry in entries(path, subfolder, unopened if subfolder else None):
            name = f"{subfolder}/{entry.name}" if subfolder else entry.name
            if holds(os.DirEntry.is_dir, entry):
                heappush(pending, (is_hidden(name), linked or entry.is_symlink(), name))
            else:  # also a pipe or a device, which `require_file` refuses
                yield name


def folders_below(folder: str, unopened: dict[str, str]) -> Iterator[str]:
    """Yield a folder, and those below it that are not hidden, each once whatever links lead to it; links come last.

    Those that cannot be opened are put into `unopened`, with the reason.
    """
    visited, pending = set(), [folder]
    while pending:
        path = pending.pop()
        if (real := os.path.realpath(path)) in visited or not os.path.isdir(real):
            continue
        visited.add(real)
        yield path
        content = entries(path or ".", path or ".", unopened)
        below = [entry for entry in content if holds(os.DirEntry.is_dir, entry) and not is_hidden(entry.name)]
        below.sort(key=lambda entry: entry.name, reverse=True)
        links, folders = ([os.path.join(path, e.name) for e in below if e.is_symlink() == link] for link in (True, False))
        pending = [*links, *pending, *folders]


def suffix_of(name: str) -> str:
    """Return the ending of a file in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def is_hidden(name: str) -> bool:
    """Return whether a part of a relative path begins with a dot."""
    return name.startswith(".") or "/." in name


def holds(test: Callable[[os.DirEntry], bool], entry: os.DirEntry) -> bool:
    """Return the result of a file-system test; False for circular links."""
    try:
        return test(entry)
    except OSError:
        return False


def entries(folder: str, name: str, unopened: dict[str, str] | None) -> list[os.DirEntry]:
    """Return the entries of a folder; if it cannot be opened, put its name into `unopened`, or raise AudioError without that."""
    try:
        with os.scandir(folder) as iterator:
            return list(iterator)
    except OSError as error:
        reason = f"cannot be opened ({error.strerror})"
        if unopened is None:
            raise AudioError(f"{error.filename}: {reason}") from None
        unopened[name] = reason
        return []


def require_file(path: Path | str) -> None:
    """Raise AudioError unless `path` is a regular file: a folder cannot be read, and a pipe could block for ever."""
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        raise AudioError(f"{str(path)!a}: not a valid path ({error})") from None
    except FileNotFoundError:
        raise AudioError(explain_missing(path)) from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise AudioError(f"{path}: {'is a folder, expected an audio file' if stat.S_ISDIR(mode) else NOT_REGULAR}")


def lines_in(text: str) -> list[str]:
    """Return the lines of a text; `str.splitlines` would also cut names at characters that end no line in a file."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def is_only_here(name: str, folder: Path | str) -> bool:
    """Return whether a listed path exists in the current folder, but not in that of its list."""
    return not os.path.exists(os.path.join(folder, name)) and os.path.exists(name)
