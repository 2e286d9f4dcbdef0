"""FLAC: the number of samples from the last frame, because the header may state none, too few or too many."""

from functools import lru_cache
from mmap import mmap
from typing import NamedTuple

Mapped = bytes | mmap

STREAMINFO = 8  # position of the block with the sample rate and the number of samples
COUNT_BITS = 36
MAX_SEARCHED = 2**28  # bytes in which another file is searched for
BLOCK = 2**20  # of these at once
MAX_TAIL = 2**25  # bytes, at the end, in which the last frame is searched for; it has 2**24 at most, and tags may follow
MAX_CANDIDATES = 100_000  # places there that may be a frame; by chance there are a thousand
APPENDED = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")  # how another file of this kind begins
RATE_CODES = {
    88_200: 1,
    176_400: 2,
    192_000: 3,
    8000: 4,
    16_000: 5,
    22_050: 6,
    24_000: 7,
    32_000: 8,
    44_100: 9,
    48_000: 10,
    96_000: 11,
}
DEPTH_CODES = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6, 32: 7}


class FlacStream(NamedTuple):
    """What a file states and holds, in samples per channel; `held` is 0 where no frame was found."""

    stated: int
    held: int
    end: int  # position of another file behind this one, otherwise of the end


def scan(data: Mapped) -> FlacStream:
    """Compare the number of samples in the header of a FLAC file with that of its last frame.

    Args:
        data: The file, which begins with `fLaC`; an `mmap` serves.
    """
    end = next_file(data)
    info = bytes(data[STREAMINFO : STREAMINFO + 34])
    stated = int.from_bytes(info[10:18], "big") & (1 << COUNT_BITS) - 1
    for sync in (b"\xff\xf8", b"\xff\xf9"):  # frames of equal length, or of different lengths
        at = end
        for _ in range(MAX_CANDIDATES):
            if (at := data.rfind(sync, max(STREAMINFO + 34, end - MAX_TAIL), at)) < 0:
                break
            if held := end_of_frame(bytes(data[at : at + 16]).ljust(16, b"\0"), info):
                return FlacStream(stated, held, end)
            at += 1
    return FlacStream(stated, 0, end)


def next_file(data: Mapped) -> int:
    """Return where another file of this kind begins behind the first one; the end if there is none."""
    for begin in range(STREAMINFO, min(len(data), MAX_SEARCHED), BLOCK):
        block, at = data[begin : begin + BLOCK + len(APPENDED[0])], -1  # bytes are searched quickly, a mapped file is not
        while (at := block.find(APPENDED[0][:4], at + 1)) >= 0:  # without its zeros, which would make the search slow
            if block.startswith(APPENDED, at):
                return begin + at
    return len(data)


def end_of_frame(head: bytes, info: bytes) -> int:
    """Return the number of samples up to the end of the frame that begins with `head`; 0 if no frame begins there."""
    if head[2] < 16 or head[3] & 1 or not fits(head, info):
        return 0
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # leading ones: bytes of the number if it has several, as in UTF-8
    number = head[4] & 0x7F >> ones
    size_code, position = head[2] >> 4, 4 + max(1, ones)
    for byte in head[5:position]:
        number = number << 6 | byte & 0x3F
    if size_code == 1:
        samples = 192
    elif size_code in (6, 7):
        width = size_code - 5
        samples = int.from_bytes(head[position : position + width], "big") + 1
        position += width
    else:
        samples = 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    position += (0, 1, 2, 2)[max(0, (head[2] & 15) - 11)] if head[2] & 15 > 11 else 0
    if position >= len(head) or crc8(head[:position]) != head[position]:
        return 0
    return (number if head[1] & 1 else number * int.from_bytes(info[:2], "big")) + samples


def fits(head: bytes, info: bytes) -> bool:
    """Return whether a frame has the sample rate, the channels and the bits per sample of the file."""
    rate, channels = int.from_bytes(info[10:13], "big") >> 4, (info[12] >> 1 & 7) + 1
    bits, assignment = (info[12] << 4 & 16 | info[13] >> 4) + 1, head[3] >> 4
    return (
        head[2] & 15 in (0, RATE_CODES.get(rate), *((12, 13, 14) if rate not in RATE_CODES else ()))
        and (assignment == channels - 1 or (channels == 2 and assignment in (8, 9, 10)))
        and head[3] >> 1 & 7 in (0, DEPTH_CODES.get(bits, 0))
    )


def crc8(data: bytes) -> int:
    """Return the checksum of a frame header (polynomial x^8 + x^2 + x + 1)."""
    value = 0
    for byte in data:
        value = crc_table()[value ^ byte]
    return value


@lru_cache(maxsize=1)
def crc_table() -> list[int]:
    """Return the checksum of every byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ (7 if value & 128 else 0)) & 255
        table.append(value)
    return table


def with_count(data: Mapped, samples: int) -> bytes:
    """Return the beginning of a FLAC file up to the end of its first block, with another number of samples."""
    head = bytearray(data[: STREAMINFO + 34])
    field = int.from_bytes(head[18:26], "big") >> COUNT_BITS << COUNT_BITS | samples
    head[18:26] = field.to_bytes(8, "big")
    return bytes(head)
