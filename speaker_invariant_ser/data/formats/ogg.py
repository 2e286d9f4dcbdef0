"""Ogg: which codec a file holds, and recordings that are chained behind the first one, which libsndfile does not read."""

from mmap import mmap
from typing import NamedTuple

CODECS = {
    b"\x01vorbis": "Vorbis",
    b"OpusHead": "Opus",
    b"Speex   ": "Speex",
    b"\x7fFLAC": "FLAC",
    b"\x80theora": "Theora video",
    b"fishead\0": "a skeleton, as of video",
}
READABLE = ("Vorbis", "Opus")
FIRST_PAGE, LAST_PAGE = 2, 4  # flags of a page


class OggStream(NamedTuple):
    """The first recording in a file.

    Attributes:
        end: Position behind its last whole page.
        complete: Whether its last page is marked as the end.
        chained: Whether another recording begins at `end`.
    """

    end: int
    complete: bool
    chained: bool


def scan(data: bytes | mmap) -> OggStream:
    """Find the end of the first recording.

    Args:
        data: The file, which begins with `OggS`; an `mmap` serves.
    """
    position, flags, in_head = 0, 0, True
    while data[position : position + 4] == b"OggS" and position + 27 <= len(data):
        segments = data[position + 26]
        following = position + 27 + segments + sum(data[position + 27 : position + 27 + segments])
        first = bool(data[position + 5] & FIRST_PAGE)
        if (first and not in_head) or following > len(data):
            return OggStream(position, bool(flags & LAST_PAGE), first and not in_head)
        in_head, flags, position = first, data[position + 5], following  # streams that are multiplexed all begin at the head
    return OggStream(position, bool(flags & LAST_PAGE), False)


def codec_of(data: bytes | mmap) -> str:
    """Return the name of the codec of the first page, empty if it is unknown."""
    content = bytes(data[28 : 28 + 8])  # behind a header with one segment, as first pages have
    return next((name for magic, name in CODECS.items() if content.startswith(magic)), "")
