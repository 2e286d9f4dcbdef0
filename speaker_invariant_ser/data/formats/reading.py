"""Read mono samples from any position of a recording: the same samples as from the whole file decoded."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data.formats.files import require_file
from speaker_invariant_ser.data.formats.identify import existing
from speaker_invariant_ser.data.formats.opening import Opened, open_recording
from speaker_invariant_ser.data.formats.quiet import silenced

BLOCK = 2**20  # frames processed at once, which bounds memory

_kept = threading.local()  # the recording that segments were last read from, by thread


class Reader:
    """An open recording that is read forwards.

    Attributes:
        opened: The open recording.
        position: The frame that is read next.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a file; raise AudioError if that is impossible."""
        require_file(path)
        self.path, self.key = path, key_of(path)
        self.opened: Opened = open_recording(path)
        self.position = 0

    def read(self, frames: int, dtype: str) -> np.ndarray:
        """Return up to `frames` frames [S, channels], fewer at the end of the file."""
        with silenced() if self.opened.file.format == "MP3" else nullcontext():
            block = self.opened.file.read(frames, dtype=dtype, always_2d=True) if frames else np.zeros((0, 1), dtype)
        self.position += len(block)
        return block

    def move_to(self, first: int) -> None:
        """Make frame `first` the next one to be read.

        Decoders of MP3, Vorbis, Opus or ADPCM give other samples after seeking than without, because what they decode depends on
        what came before. There, all frames up to `first` are decoded.
        """
        if self.opened.seekable and first != self.position:
            self.position = self.opened.file.seek(first)
        if first < self.position:
            self.close()
            self.opened, self.position = open_recording(self.path), 0
        while self.position < first and len(self.read(min(BLOCK, first - self.position), "float32")):
            pass

    def close(self) -> None:
        """Close the file."""
        self.opened.file.close()


def key_of(path: Path | str) -> tuple[str, int, int]:
    """Return path, size and time of modification, which differ once a file is replaced."""
    status = os.stat(path)
    return os.fspath(path), status.st_size, status.st_mtime_ns


@contextmanager
def reader_of(path: Path | str, keep: bool = False) -> Iterator[Reader]:
    """Open a recording.

    Args:
        path: The file; also found where its name is in another normal form of Unicode, or has backslashes.
        keep: Whether further segments of it will probably be read: it stays open until another file is kept, or until an error.

    Raises:
        AudioError: There is no such file, or it cannot be read.
    """
    path = existing(path)
    if not keep:
        with closing(Reader(path)) as reader:
            yield reader
        return
    require_file(path)
    kept: Reader | None = _kept.__dict__.pop("reader", None)
    if kept and kept.key != key_of(path):
        kept.close()
        kept = None
    with ExitStack() as stack:
        reader = kept or Reader(path)
        stack.callback(reader.close)
        yield reader
        stack.pop_all()
        _kept.reader = reader
