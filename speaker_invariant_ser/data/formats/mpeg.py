"""MPEG audio (MP3): count its frames, because headers state a wrong length or none, and give libsndfile a right one."""

import struct
from functools import lru_cache
from typing import NamedTuple

from speaker_invariant_ser.data.formats.flac import Mapped
from speaker_invariant_ser.data.formats.splice import Spliced

BITRATES = {  # kbit/s by (MPEG-1, layer); index 0 is a free format, whose frames have no stated size
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG-1; halved by MPEG-2, quartered by MPEG-2.5
SAME_STREAM = 0xFFFE0C00  # bits of a header that all frames of a stream share: version, layer and sample rate
MAX_JUNK = 2**16  # bytes in which the first frame is searched for
MAX_PADDING = 2**16  # zeros that may stand between tags and the first frame
TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")
MAX_TAG = max(map(len, TAGS))
MAX_BYTES = 2**32  # of a file, three days at 128 kbit/s: its frames are counted one by one


class Header(NamedTuple):
    """The header of a frame: size in bytes, samples per channel, sample rate in Hz, and the bytes before its data."""

    size: int
    samples: int
    rate: int
    side: int


class MpegStream(NamedTuple):
    """The frames of a file.

    Attributes:
        first: Header of the first frame, as a number.
        frames: Frames of audio; those that only hold a length are not counted.
        declared: Number of frames that the file states; None if it states none.
        ranges: First and last byte (exclusive) of every run of frames of audio.
        lost: Bytes between and behind the frames that are neither audio nor tags.
        encoder: What the encoder states of the silence that it added, as bytes; empty if it states nothing.
    """

    first: int
    frames: int
    declared: int | None
    ranges: list[tuple[int, int]]
    lost: int
    encoder: bytes = b""

    @property
    def samples(self) -> int:
        """Number of samples per channel, encoder delay included."""
        header = header_of(self.first)
        return self.frames * header.samples if header else 0


@lru_cache(maxsize=4096)
def header_of(bits: int) -> Header | None:
    """Return the meaning of the four bytes of a frame header, None if they are none."""
    version, layer_number = bits >> 19 & 3, layer(bits)
    bitrate, rate = bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or version == 1 or layer_number == 4 or bitrate in (0, 15) or rate == 3 or bits & 3 == 2:
        return None
    first, mono, padding = version == 3, bits >> 6 & 3 == 3, bits >> 9 & 1
    hertz = RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    kbits = BITRATES[first, layer_number][bitrate]
    if layer_number == 1:
        size, samples = (12_000 * kbits // hertz + padding) * 4, 384
    else:
        samples = 1152 if first or layer_number == 2 else 576
        size = samples // 8 * 1000 * kbits // hertz + padding
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return Header(size, samples, hertz, 4 + side)


def layer(bits: int) -> int:
    """Return the layer, 1 to 3, of a frame with this header."""
    return 4 - (bits >> 17 & 3)


def scan(data: Mapped) -> MpegStream | None:
    """List the frames of MPEG audio; None if the data does not begin with such frames, tags apart.

    Args:
        data: The whole file, for which an `mmap` serves, or the part of another container that holds the stream.
    """
    position = first_frame(data)
    if position is None:
        return None
    first, declared, encoder = word(data, position), declared_frames(data, position), encoder_tag(data, position)
    ranges: list[tuple[int, int]] = []
    frames, lost, begin = 0, 0, position
    while position < len(data):
        header = frame_at(data, position, first)
        if header and declared_frames(data, position) is None:
            position, frames = position + header.size, frames + 1
            continue
        ranges.append((begin, position))
        if header:  # states the length of the stream, or of one that was appended
            position += header.size
        else:
            following = resynchronise(data, position, first)
            lost += max(0, following - position - tag_bytes(data, position))
            position = following
        begin = position
    ranges.append((begin, position))
    return MpegStream(first, frames, declared, [(start, end) for start, end in ranges if end > start], lost, encoder)


def begins(data: Mapped, prefixes: tuple[bytes, ...], position: int) -> bool:
    """Return whether one of `prefixes` is at `position`."""
    return data[position : position + MAX_TAG].startswith(prefixes)


def word(data: Mapped, position: int) -> int:
    """Return four bytes as a number, fewer at the end of the data, which are too small to be a header."""
    return int.from_bytes(data[position : position + 4], "big")


def frame_at(data: Mapped, position: int, first: int) -> Header | None:
    """Return the header of a whole frame of the same stream as `first`, None if there is none at `position`."""
    bits = word(data, position)
    header = header_of(bits) if (bits ^ first) & SAME_STREAM == 0 else None
    return header if header and position + header.size <= len(data) else None


def first_frame(data: Mapped) -> int | None:
    """Return the position of the first frame behind the tags of a file; None if another kind of data is there."""
    position = id3_end(data, 0)
    if data[position : position + 1] == b"\0":  # padding
        position += len(data[position : position + MAX_PADDING]) - len(data[position : position + MAX_PADDING].lstrip(b"\0"))
    if is_start(data, position):
        return position
    position -= 1  # recordings of broadcasts begin anywhere
    while (position := data.find(b"\xff", position + 1, MAX_JUNK)) >= 0:
        header = header_of(word(data, position))
        if header and is_start(data, position) and is_start(data, position + header.size):
            return position
    return None


def is_start(data: Mapped, position: int) -> bool:
    """Return whether a frame is at `position`, and behind it another one of the same stream, a tag or the end."""
    header = header_of(word(data, position))
    return header is not None and continues(data, position + header.size, word(data, position))


def continues(data: Mapped, position: int, first: int) -> bool:
    """Return whether a frame of the same stream, a tag or the end of the data is at `position`."""
    return position >= len(data) or bool(frame_at(data, position, first)) or begins(data, TAGS, position)


def id3_end(data: Mapped, position: int) -> int:
    """Return the end of the ID3v2 tags at `position`, which is `position` if there are none."""
    while begins(data, TAGS[-1:], position) and position + 10 <= len(data):
        size = 0
        for byte in data[position + 6 : position + 10]:
            size = size << 7 | byte & 127
        position += 10 + size + 10 * bool(data[position + 5] & 16)
    return position


def tag_bytes(data: Mapped, position: int) -> int:
    """Return the number of bytes of the tags at `position`; a tag without a size at its head is taken to reach the end."""
    end = id3_end(data, position)
    return (len(data) if begins(data, TAGS, end) else min(end, len(data))) - position


def resynchronise(data: Mapped, position: int, first: int) -> int:
    """Return the position of the next two consecutive frames of the stream behind `position`, the end if there are none."""
    position = max(position + 1, id3_end(data, position)) - 1
    while (position := data.find(b"\xff", position + 1)) >= 0:
        header = frame_at(data, position, first)
        if header and continues(data, position + header.size, first):
            return position
    return len(data)


def declared_frames(data: Mapped, position: int) -> int | None:
    """Return the number of frames that the frame at `position` states (as Xing, Info or VBRI), None for a frame of audio."""
    for name, offset in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
        tag = data.find(name, position + 13, position + 42)
        if tag >= 0:
            stated = name == b"VBRI" or word(data, tag + 4) & 1
            return word(data, tag + offset) if stated else 0
    return None


def encoder_tag(data: Mapped, position: int) -> bytes:
    """Return LAME's extension of a frame that states a length, which says how much silence the encoder added."""
    tag = max(data.find(name, position + 13, position + 42) for name in (b"Xing", b"Info"))
    flags = word(data, tag + 4) if tag >= 0 else 0
    fields = 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    extension = data[tag + fields : tag + fields + 36] if tag >= 0 else b""
    return extension if extension[:4] in (b"LAME", b"Lavf", b"Lavc", b"GOGO") else b""


def with_length(data: Mapped, stream: MpegStream) -> Spliced:
    """Return the frames of a stream behind a frame that states their number, from which libsndfile takes the length."""
    view = memoryview(data)
    return Spliced([length_frame(stream), *(view[begin:end] for begin, end in stream.ranges)])


def length_frame(stream: MpegStream) -> bytes:
    """Return a frame that states the number of frames; it has no checksum, and a bit rate that leaves enough room."""
    bits = (stream.first | 1 << 16) & ~(0xF << 12)
    headers = ((value, header_of(value)) for value in (bits | index << 12 for index in range(1, 15)))
    value, header = next((value, header) for value, header in headers if header and header.size >= header.side + 120)
    frame = bytearray(header.size)
    frame[:4] = value.to_bytes(4, "big")
    tag = struct.pack(">4sII", b"Xing", 1, stream.frames) + stream.encoder
    frame[header.side : header.side + len(tag)] = tag
    return bytes(frame)
