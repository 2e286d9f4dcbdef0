"""From what a user names (files, folders, globs, lists) to audio files, and from those to decoded clips."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats.files import SUFFIXES, find_audio, require_file
from speaker_invariant_ser.errors import AudioError, SerError

WINDOW = 30 * audio.SAMPLE_RATE  # samples; longer recordings are cut into windows of at most this length
BLOCK = 64  # files, or windows of samples, decoded before the models run: bounds memory

Decoded = tuple[Path, np.ndarray | AudioError]  # file, and its clip [S] or why it has none


def find_inputs(inputs: Sequence[str | Path]) -> list[Path]:
    """List audio files, in the order given and without repetitions.

    Args:
        inputs: Files, folders, globs, or .txt lists with one path a line. Files that do not exist stay in the list, so that
            prediction can report them.

    Returns:
        The files.

    Raises:
        SerError: An empty text, a folder without audio, a list that cannot be read, or a glob that matches no file.
    """
    files: list[Path] = []
    for item in map(str, inputs):
        if not item:
            raise SerError("an empty input: expected a file, folder, glob or .txt list (is a variable unset?)")
        if Path(item).is_dir():
            files += files_in_folder(item)
        elif item.lower().endswith(".txt"):
            files += files_in_list(item)
        elif glob.has_magic(item) and not Path(item).exists():
            files += files_matching(item)
        else:
            files.append(Path(item))
    return list(dict.fromkeys(files))


def files_in_folder(folder: str) -> list[Path]:
    """Return all audio files in a folder and below it."""
    files = find_audio(folder)
    if not files:
        endings = ", ".join(sorted(SUFFIXES))
        raise SerError(f"{folder}: no audio file in this folder or below it (looked for {endings})")
    return files


def files_in_list(path: str) -> list[Path]:
    """Return the paths in a text file, one a line; relative ones are relative to the list's folder."""
    try:
        require_file(Path(path))
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (AudioError, OSError, UnicodeDecodeError) as error:
        raise SerError(f"{path}: cannot be read as a list of paths, expected UTF-8 text with one path a line ({error})") from None
    paths = [Path(path).parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise SerError(f"{path}: an empty list, expected one path a line")
    return paths


def files_matching(pattern: str) -> list[Path]:
    """Return the files that a glob matches; brackets alone may also be part of the name of a missing file."""
    files = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    if not files and not any(sign in pattern for sign in "*?"):
        return [Path(pattern)]
    if not files:
        raise SerError(f"{pattern}: no file matches this pattern")
    return files


def decode_blocks(paths: Sequence[Path]) -> Iterator[list[Decoded]]:
    """Decode files in order, in blocks that bound memory whatever the number and length of the files.

    Args:
        paths: Audio files.

    Yields:
        Blocks of files, each file with its clip, float32 [S] at 16 kHz, or the error that explains why it could not be decoded.
    """
    block: list[Decoded] = []
    samples = 0
    for path in paths:
        clip = decode(path)
        block.append((path, clip))
        samples += clip.size if isinstance(clip, np.ndarray) else 0
        if len(block) == BLOCK or samples > BLOCK * WINDOW:
            yield block
            block, samples = [], 0
    if block:
        yield block


def decode(path: Path) -> np.ndarray | AudioError:
    """Return a file's clip, float32 [S] at 16 kHz, or the error that explains why it could not be decoded."""
    try:
        return audio.read(path)
    except AudioError as error:
        return error


def clips_of(block: Sequence[Decoded]) -> list[np.ndarray]:
    """Return the clips of the files that could be decoded."""
    return [clip for _, clip in block if isinstance(clip, np.ndarray)]


def cut_windows(clip: np.ndarray) -> list[np.ndarray]:
    """Cut a clip [S] into equal windows of at most 30 s, so that none is a short remainder."""
    return np.array_split(clip, max(1, -(-len(clip) // WINDOW)))
