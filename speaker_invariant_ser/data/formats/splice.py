"""A read-only file made of pieces of other files, so that libsndfile can be given a corrected header or a part of a file."""

import io
import os
from bisect import bisect_right
from itertools import accumulate
from mmap import mmap

Buffer = bytes | memoryview | mmap


class Spliced(io.RawIOBase):
    """Pieces of bytes, joined in order without a copy.

    >>> Spliced([b"RI", b"FF", b"data"]).read(5)
    b'RIFFd'
    """

    def __init__(self, pieces: list[Buffer]) -> None:
        """Join `pieces`, which must not change as long as the file is used."""
        super().__init__()
        self.pieces = [memoryview(piece) for piece in pieces if len(piece)]
        self.ends = list(accumulate(len(piece) for piece in self.pieces))
        self.position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, which is limited to those inside the file, and return it."""
        end = self.ends[-1] if self.ends else 0
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: end}[whence]
        self.position = min(max(start + offset, 0), end)
        return self.position

    def readinto(self, buffer: Buffer) -> int:  # type: ignore[override]  # typeshed's Buffer is no type at run time
        """Fill `buffer` as far as the file reaches and return the number of bytes."""
        target, filled = memoryview(buffer).cast("B"), 0
        index = bisect_right(self.ends, self.position)
        while filled < len(target) and index < len(self.pieces):
            piece = self.pieces[index]
            begin = self.position - (self.ends[index] - len(piece))
            part = piece[begin : begin + len(target) - filled]
            target[filled : filled + len(part)] = part
            filled, self.position, index = filled + len(part), self.position + len(part), index + 1
        return filled
