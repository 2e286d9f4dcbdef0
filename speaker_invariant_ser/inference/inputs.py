"""From what a user names (files, folders, globs, lists) to audio files, and from those to decoded recordings."""

import glob
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats.channels import EACH, MIX, MONO
from speaker_invariant_ser.data.formats.content import HEAD, mistaken_for_text
from speaker_invariant_ser.data.formats.files import (
    SUFFIXES,
    find_audio,
    folders_below,
    is_only_here,
    lines_in,
    list_unusable,
    require_file,
)
from speaker_invariant_ser.errors import AudioError, SerError, counted
from speaker_invariant_ser.files import MAX_TEXT, read_bytes
from speaker_invariant_ser.processes import memory_errors

WINDOW = 30 * audio.SAMPLE_RATE  # samples; longer recordings are cut into windows of at most this length
RECURSIVE = "**"  # of a glob: any number of folders
MAX_LISTED = 10_000_000  # lines of a list of paths, which take some hundred bytes of memory each
STDIN = "-"  # a list of paths on standard input
LIST = "text in UTF-8 with one path a line"
UTF_32 = b"\xff\xfe\0\0"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how "Unicode text" of Windows begins
BLOCK = 64  # files, or windows of samples, decoded before the models run: bounds memory


class Input(NamedTuple):
    """A recording to predict, or one that cannot be used for a known `reason`."""

    path: Path
    reason: str = ""


class Decoded(NamedTuple):
    """One channel of a recording, or the mean of all.

    Attributes:
        number: Position of the recording in the list of inputs.
        path: The recording.
        channel: Name of the channel.
        clip: Float32 [S] at 16 kHz, or why there is none.
        notes: Defects that leave the recording usable.
    """

    number: int
    path: Path
    channel: str
    clip: np.ndarray | AudioError
    notes: tuple[str, ...] = ()


def find_inputs(inputs: Sequence[str | Path], notify: Callable[[str], object] | None = None) -> list[Input]:
    """List recordings, in the order given and without repetitions.

    Args:
        inputs: Files, folders, globs, .txt lists with one path a line, or - for such a list on standard input. Files that do not
            exist stay in the list, so that prediction can report them, and so do recordings below a folder that cannot be used.
        notify: Called with a sentence about a list whose paths are relative to the current folder.

    Returns:
        The recordings.

    Raises:
        SerError: An empty text, a folder without audio, a list that cannot be read, or a glob that matches no file.
    """
    found: list[Input] = []
    for item in map(str, inputs):
        if not item:
            raise SerError("an empty input: expected a file, folder, glob or .txt list (is a variable unset?)")
        if item == STDIN:
            found += [Input(Path(name)) for name in names_in(read_stdin(), "standard input")]
            continue
        if Path(item).is_dir():
            found += files_in_folder(item)
        elif item.lower().endswith(".txt"):
            found += files_in_list(item, notify)
        elif glob.has_magic(item) and not Path(item).exists():
            found += files_matching(item)
        else:
            found.append(Input(Path(item)))
    return list(dict.fromkeys(found))


def files_in_folder(folder: str) -> list[Input]:
    """Return all recordings in a folder and below it, also those that cannot be used."""
    unusable = {Path(folder, name): reason for name, reason in list_unusable(folder)}
    inputs = [Input(path, unusable.get(path, "")) for path in sorted({*find_audio(folder, {}), *unusable}, key=str)]
    if not inputs:
        endings = ", ".join(sorted(SUFFIXES))
        raise SerError(f"{folder}: no audio file in this folder or below it (looked for {endings})")
    return inputs


def files_in_list(path: str, notify: Callable[[str], object] | None = None) -> list[Input]:
    """Return the paths in a text file, one a line: beside the list, or in the current folder where the file is only there."""
    try:
        require_file(Path(path))
        content = read_bytes(Path(path))
    except (AudioError, OSError, ValueError) as error:
        raise SerError(f"{path}: cannot be read as a list of paths, expected {LIST} ({error})") from None
    names, folder = names_in(content, path), Path(path).parent
    here = {name for name in names if is_only_here(name, folder)}
    if here and notify:
        of_all = f"{len(here):,} of {counted(len(set(names)), 'file')}"
        notify(f"{path}: {of_all} taken from the current folder, since not beside the list")
    return [Input(Path(name) if name in here else folder / name) for name in names]


def read_stdin() -> bytes:
    """Return what standard input holds; raise SerError for more than a list of paths can have."""
    content = sys.stdin.buffer.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise SerError(f"standard input: more than {MAX_TEXT / 1e6:.0f} MB, expected a list with one path a line")
    return content


def names_in(content: bytes, source: str) -> list[str]:
    """Return the lines of a list of paths that are not blank; text of Windows in UTF-16 is read, too."""
    if content.count(b"\n") > MAX_LISTED:
        raise SerError(f"{source}: more than {MAX_LISTED / 1e6:.0f} million lines; cut it into several lists")
    unicode = content.startswith(UTF_16) and not content.startswith(UTF_32)
    if wrong := "" if unicode else mistaken_for_text(source, content[:HEAD], LIST):
        raise SerError(wrong)
    try:
        lines = lines_in(content.decode("utf-16" if unicode else "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SerError(f"{source}: cannot be read as a list of paths, expected {LIST} ({error})") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise SerError(f"{source}: an empty list, expected one path a line")
    return names


def shard_of(inputs: Sequence[Input], shard: str) -> list[Input]:
    """Return every N-th recording, from number K on, for a shard K/N.

    >>> [str(item.path) for item in shard_of([Input(Path(name)) for name in "abcde"], "2/3")]
    ['b', 'e']

    Raises:
        SerError: It is no shard.
    """
    number, _, total = shard.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise SerError(f"--shard {shard}: expected K/N with 1 <= K <= N, such as 3/16 for the third of sixteen jobs")
    return list(inputs[int(number) - 1 :: int(total)])


def digest_of(inputs: Sequence[Input]) -> str:
    """Return a hash of the names, sizes and times of recordings: it changes when one of them is replaced."""
    digest = hashlib.sha256()
    for item in inputs:
        try:
            status = item.path.stat()
            about = f"{status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):
            about = "missing"
        digest.update(os.fsencode(f"{item.path}\0{about}\0{item.reason}\0"))
    return digest.hexdigest()


def files_matching(pattern: str) -> list[Input]:
    """Return the files that a glob matches, and the folders for ** that cannot be opened, which prediction reports.

    Brackets alone may also be part of the name of a missing file.
    """
    unopened: dict[str, str] = {}
    files = {Path(name) for name in expand(pattern, unopened) if Path(name).is_file()}
    if not files and not any(sign in pattern for sign in "*?"):
        return [Input(Path(pattern))]
    if not files:
        more = "".join(f"; {folder}: {reason}" for folder, reason in list(unopened.items())[:1])
        raise SerError(f"{pattern}: no file matches this pattern{more}")
    return sorted([*map(Input, files), *(Input(Path(folder), reason) for folder, reason in unopened.items())])


def expand(pattern: str, unopened: dict[str, str]) -> Iterator[str]:
    """Yield the paths that a glob matches; ** stands for every folder once, because links may form any number of loops.

    Folders that cannot be opened are put into `unopened`, with the reason.
    """
    parts = pattern.replace(os.sep, "/").split("/")
    if RECURSIVE not in parts:
        yield from glob.glob(pattern)
        return
    at = parts.index(RECURSIVE)
    further = list(dropwhile(RECURSIVE.__eq__, parts[at:])) or ["*"]
    for base in glob.glob("/".join(parts[:at]) or "/") if at else [""]:
        for folder in folders_below(base, unopened):
            yield from expand(os.path.join(glob.escape(folder), *further), unopened)


def decode_blocks(inputs: Sequence[Input], channel: str = MIX) -> Iterator[list[Decoded]]:
    """Decode recordings in order, in blocks that bound memory whatever their number and length.

    Args:
        inputs: Recordings.
        channel: `mix`, `left`, `right`, or `each` for every channel on its own.

    Yields:
        Blocks of channels, each with its recording, or the error that explains why it could not be decoded.
    """
    block: list[Decoded] = []
    samples = 0
    for number, item in enumerate(inputs):
        for name in channels_of(item, channel):
            block.append(decode(number, item, name))
            samples += len(clip) if isinstance(clip := block[-1].clip, np.ndarray) else 0
            if len(block) == BLOCK or samples > BLOCK * WINDOW:
                yield block
                block, samples = [], 0
    if block:
        yield block


def channels_of(item: Input, channel: str) -> list[str]:
    """Return the names of the channels to decode; that of the mean for a recording whose channels cannot be listed."""
    if channel != EACH:
        return [channel]
    try:
        return [MIX] if item.reason else audio.channels_of(item.path)
    except AudioError:
        return [MIX]


def decode(number: int, item: Input, channel: str) -> Decoded:
    """Decode one channel of a recording."""
    try:
        if item.reason:
            raise AudioError(f"{item.path}: {item.reason}")
        decoded = audio.decode(item.path, channel=MIX if channel == MONO else channel)
        with memory_errors():
            clip = audio.at_16_bits(audio.resample(decoded, audio.SAMPLE_RATE))
        clip = audio.check(clip, audio.SAMPLE_RATE, item.path, decoded.notes)
    except AudioError as error:
        return Decoded(number, item.path, channel, error)
    except MemoryError:
        return Decoded(number, item.path, channel, AudioError(f"{item.path}: does not fit into memory; cut it into parts"))
    return Decoded(number, item.path, channel, clip, (*decoded.notes, *audio.silence_notes(clip, audio.SAMPLE_RATE)))


def clips_of(block: Sequence[Decoded]) -> list[np.ndarray]:
    """Return the recordings that could be decoded."""
    return [part.clip for part in block if isinstance(part.clip, np.ndarray)]


def cut_windows(clip: np.ndarray) -> list[np.ndarray]:
    """Cut a recording [S] into equal windows of at most 30 s, so that none is a short remainder."""
    return np.array_split(clip, max(1, -(-len(clip) // WINDOW)))
