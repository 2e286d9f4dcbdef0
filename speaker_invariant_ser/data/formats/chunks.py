"""Containers of chunks (WAV, RF64, W64, AIFF, CAF) and plain headers (AU, SPHERE, VOC): where their audio begins and ends."""

import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from speaker_invariant_ser.data.formats.splice import Buffer, Spliced

Readable = BinaryIO | Spliced

MPEG_TAGS = (0x50, 0x55)
EXTENSIBLE = 0xFFFE
LINEAR = {1: "PCM", 3: "floating-point", 6: "A-law", 7: "mu-law"}  # format tags whose frames have a fixed size
UNKNOWN_LENGTH = 2**31 - 2**16  # programs that stream audio state about this many bytes, or more
# Names that no further chunk has: behind them another recording begins
CONTAINED_ONCE = (b"data", b"SSND", b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff")
HEAD = 64  # bytes from which a container is recognised
MAX_CHUNKS = 10_000  # of a damaged file there could be millions
VOC_SOUND, VOC_NEW, VOC_CONTINUED, VOC_NOTES = (1, 9), 9, 2, (4, 5)  # types of blocks: samples, more of them, markers and text
VOC_END = b"\0"
MAX_BLOCKS = 200_000  # of VOC, which ffmpeg cuts into blocks of 2 KB
TRAILERS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # tags that programs append to any file


class Layout(NamedTuple):
    """Where the audio of a container is.

    Attributes:
        begin: Position of the audio in bytes.
        end: End of the audio as the header states it, at most that of the file; that of the file if no length is stated.
        stated: Bytes of audio that the header states; None if it states none, as in a stream.
        unread: Bytes behind the audio that are neither chunks of the container nor tags; nothing reads them.
        tag: Format tag of a WAV; 0 for other containers.
        field: Position of the length in the header, its format, and what the number holds besides the bytes of audio.
        doubt: What contradicts itself in the header, though the audio may be right.
        fault: What contradicts itself in the header so that the audio cannot be right.
        parts: Of a VOC in several blocks, beginning and end of the audio of each, that of the first with all that is before it.
        plain_tag: Of a W64 with an extensible header, position and bytes of the format tag of a plain one.
    """

    begin: int
    end: int
    stated: int | None
    unread: int
    tag: int = 0
    field: tuple[int, str, int] | None = None
    doubt: str = ""
    fault: str = ""
    parts: tuple[tuple[int, int], ...] = ()
    plain_tag: tuple[int, bytes] | None = None

    @property
    def missing(self) -> float:
        """Share of the stated audio that the file does not hold."""
        return max(0.0, 1 - (self.end - self.begin) / self.stated) if self.stated else 0.0

    def corrected(self, data: Buffer) -> list[Buffer]:
        """Return the pieces of the file up to the end of the audio, with the length that it has."""
        view = memoryview(data)
        if self.parts:
            return [*(view[begin:end] for begin, end in self.parts), VOC_END]
        changes = [self.plain_tag] if self.plain_tag else []
        if self.field:
            position, form, besides = self.field
            changes.append((position, struct.pack(form, self.end - self.begin + besides)))
        pieces: list[Buffer] = []
        begin = 0
        for position, new in changes:
            pieces += [view[begin:position], new]
            begin = position + len(new)
        return [*pieces, view[begin : self.end]]


def scan(file: Readable, head: bytes, size: int) -> Layout | None:
    """Find the audio in a container of chunks, or behind a plain header; None for other files, or if there is no audio in it.

    Args:
        file: The file, open for reading.
        head: Its first 64 bytes, fewer if it has no more.
        size: Its size in bytes.
    """
    for magic, read in CONTAINERS.items():
        if head.startswith(magic):
            return read(file, head.ljust(HEAD, b"\0"), size)
    return None


def read_riff(file: Readable, head: bytes, size: int) -> Layout | None:
    """Read WAV, RIFX and RF64."""
    if head[8:12] != b"WAVE":
        return None
    order = ">" if head.startswith(b"RIFX") else "<"
    form, tag, long, doubt, fault = f"{order}4sI", 0, None, "", ""
    for name, at, length in chunks(file, 12, size, form):
        content = peek(file, at, 40) if name in (b"ds64", b"fmt ") else b""
        if name == b"ds64" and len(content) >= 16:
            long = struct.unpack_from(f"{order}Q", content, 8)[0], (at + 8, f"{order}Q", 0)
        if name == b"fmt " and len(content) >= 16:
            tag = format_tag(content, order)
            doubt, fault = contradictions(tag, *struct.unpack_from(f"{order}HIIHH", content, 2))
        if name == b"data":
            field = (at - 4, f"{order}I", 0)
            length, field = long if long and length == 2**32 - 1 else (length, field)
            return layout(file, at, length, size, field, form, tag=tag)._replace(doubt=doubt, fault=fault)
    return None


def read_w64(file: Readable, head: bytes, size: int) -> Layout | None:
    """Read Sony Wave64, whose chunks have names of 16 bytes and sizes that include their header.

    libsndfile takes every extensible header for one of whole numbers, so that floating-point samples become noise.
    """
    position, tag, doubt, fault, plain = 40, 0, "", "", None
    for _ in range(MAX_CHUNKS):
        content = peek(file, position, 24)
        if len(content) < 24:
            return None
        name, length = struct.unpack("<16sQ", content)
        if name.startswith(b"fmt ") and len(described := peek(file, position + 24, 40)) >= 16:
            tag = format_tag(described, "<")
            doubt, fault = contradictions(tag, *struct.unpack_from("<HIIHH", described, 2))
            plain = (position + 24, struct.pack("<H", tag)) if described.startswith(b"\xfe\xff") else None
        if name.startswith(b"data"):
            found = layout(file, position + 24, max(0, length - 24), size, (position + 16, "<Q", 24), pad=7, tag=tag)
            return found._replace(doubt=doubt, fault=fault, plain_tag=plain)
        position += max(24, length + -length % 8)
    return None


def format_tag(content: bytes, order: str) -> int:
    """Return the format tag of a chunk `fmt `, that of the samples where its header is extensible."""
    (tag,) = struct.unpack_from(f"{order}H", content)
    return struct.unpack_from(f"{order}H", content, 24)[0] if tag == EXTENSIBLE and len(content) >= 26 else tag


def contradictions(tag: int, channels: int, rate: int, bytes_a_second: int, frame: int, bits: int) -> tuple[str, str]:
    """Return what makes the description of a WAV's audio doubtful, and what makes it wrong; both are empty if it is consistent.

    Args:
        tag: Format tag.
        channels: Number of channels.
        rate: Sample rate in Hz.
        bytes_a_second: Stated bytes of audio in a second.
        frame: Stated bytes of a sample of all channels.
        bits: Bits of a sample of one channel.
    """
    width = 1 if tag in (6, 7) else -(-bits // 8)
    if tag not in LINEAR:
        return "", ""
    if frame != channels * width and bytes_a_second != rate * channels * width:
        described = f"{channels} {'channel' if channels == 1 else 'channels'} of {LINEAR[tag]} with {bits} bits"
        return "", f"its header contradicts itself: {described} take {channels * width} bytes, it states {frame}; export it again"
    if bytes_a_second != rate * channels * width:
        return f"its header contradicts itself: {rate} Hz take {rate * frame} bytes a second, it states {bytes_a_second}", ""
    return "", ""


def read_aiff(file: Readable, head: bytes, size: int) -> Layout | None:
    """Read AIFF and AIFF-C, whose audio follows eight bytes of its chunk."""
    for name, at, length in chunks(file, 12, size, ">4sI"):
        if name == b"SSND":
            return layout(file, at + 8, max(0, length - 8), size, (at - 4, ">I", 8), ">4sI")
    return None


def read_caf(file: Readable, head: bytes, size: int) -> Layout | None:
    """Read Apple's Core Audio Format, whose audio follows four bytes of its chunk."""
    for name, at, length in chunks(file, 8, size, ">4sq", pad=0):
        if name == b"data":
            return layout(file, at + 4, max(0, length - 4), size, (at - 8, ">q", 4), ">4sq", pad=0)
    return None


def read_au(file: Readable, head: bytes, size: int) -> Layout | None:
    """Read Sun's and NeXT's format."""
    order = ">" if head.startswith(b".snd") else "<"
    begin, length = struct.unpack_from(f"{order}II", head, 4)
    return layout(file, begin, length, size, (8, f"{order}I", 0), pad=0)


def read_sphere(file: Readable, head: bytes, size: int) -> Layout | None:
    """Read NIST SPHERE, whose header is text; one with compressed audio has a length of its own."""
    begin = int(head[8:16]) if head[8:16].strip().isdigit() else 1024
    text = peek(file, 0, begin)
    numbers = rb"(sample_count|channel_count|sample_n_bytes) -(?:i|s\d+) (\d{1,18})\b"  # libsndfile writes 1 byte as text
    fields = dict(re.findall(numbers, text))
    if b"sample_count" not in fields or re.search(rb"sample_coding -s\d+ \S*,", text):
        return None
    length = int(fields[b"sample_count"]) * int(fields.get(b"channel_count", 1)) * int(fields.get(b"sample_n_bytes", 2))
    return layout(file, begin, length, size, None, pad=0)


def read_voc(file: Readable, head: bytes, size: int) -> Layout | None:
    """Read Creative Voice, whose blocks end with an empty one; blocks of more than 16 MB state their length modulo 2**24.

    libsndfile takes all that follows the header of a new sound block for samples, also the headers of further blocks.
    """
    begin = position = struct.unpack_from("<H", head, 20)[0]
    kinds: list[int] = []  # of the blocks from the first sound on
    parts: list[tuple[int, int]] = []
    for _ in range(MAX_BLOCKS):
        block = peek(file, position, 4)
        if len(block) < 4 or block[0] == 0:
            break
        start, kind = position + 4, block[0]
        position = start + int.from_bytes(block[1:], "little")
        multiples, rest = divmod(size - position, 2**24)
        position += multiples * 2**24 if kind in VOC_SOUND and multiples > 0 and rest <= 1 else 0  # 1: the empty block
        kinds += [kind] if kinds or kind in VOC_SOUND else []
        if kinds and kind in (*VOC_SOUND, VOC_CONTINUED):
            parts.append((start if parts else 0, min(position, size)))
    found = Layout(begin, min(position, size), position - begin, behind(file, position + 1, size))
    if len(kinds) < 2 or kinds[0] != VOC_NEW:
        return found
    if not {VOC_CONTINUED, *VOC_NOTES}.issuperset(kinds[1:]):
        return found._replace(fault="holds several sounds, or pauses, in blocks of their own; convert it to WAV with ffmpeg")
    return found._replace(parts=tuple(parts))


CONTAINERS: dict[bytes, Callable[[Readable, bytes, int], Layout | None]] = {
    b"riff\x2e\x91\xcf\x11": read_w64,
    b"RIFF": read_riff,
    b"RIFX": read_riff,
    b"RF64": read_riff,
    b"BW64": read_riff,
    b"FORM": read_aiff,
    b"caff": read_caf,
    b".snd": read_au,
    b"dns.": read_au,
    b"NIST_1A\n": read_sphere,
    b"Creative Voice File\x1a": read_voc,
}


def layout(
    file: Readable,
    begin: int,
    length: int,
    size: int,
    field: tuple[int, str, int] | None,
    form: str = "",
    pad: int = 1,
    tag: int = 0,
) -> Layout:
    """Return the layout of audio of a stated length, and look at what follows it.

    Args:
        file: The file.
        begin: Position of the audio.
        length: Number of bytes of audio that the header states; 0, or more than `UNKNOWN_LENGTH` and than there are, for unknown.
        size: Size of the file.
        field: Position and format of the length.
        form: Format of the header of the chunks that may follow; empty if none may.
        pad: Mask of the multiple that a chunk's length is padded to.
        tag: Format tag of a WAV.
    """
    begin = min(begin, size)
    following = begin + length + (-length & pad)
    if length == 0 and form and not unread_from(file, following, size, form, pad):
        return Layout(begin, begin, 0, 0, tag, field)  # really empty, if only chunks follow
    if length == 0 or (begin + length > size and length >= UNKNOWN_LENGTH):
        return Layout(begin, max(begin, size), None, 0, tag, field)
    return Layout(begin, min(begin + length, size), length, unread_from(file, following, size, form, pad), tag, field)


def unread_from(file: Readable, position: int, size: int, form: str, pad: int) -> int:
    """Return the number of bytes from the first one on that belongs neither to a chunk nor to a tag; 0 if all do."""
    width = struct.calcsize(form)
    for name, at, length in chunks(file, position, size, form, pad) if form else ():
        if not re.fullmatch(rb"[ -~]{4}", name) or name in CONTAINED_ONCE or not 0 <= length <= size - at:
            return behind(file, at - width, size)
        position = at + length + (-length & pad)
    return 0 if form else behind(file, position, size)


def chunks(file: Readable, position: int, size: int, form: str, pad: int = 1) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of every chunk.

    Args:
        file: The file.
        position: Where the first chunk begins.
        size: Size of the file.
        form: Format of a chunk's header, its name and length.
        pad: Mask of the multiple that a chunk's length is padded to: 1 if a byte of padding follows odd lengths.
    """
    width = struct.calcsize(form)
    for _ in range(MAX_CHUNKS):
        content = peek(file, position, width)
        if len(content) < width:
            return
        name, length = struct.unpack(form, content)
        yield name, position + width, length
        position += width + max(0, length) + (-length & pad)


def behind(file: Readable, position: int, size: int) -> int:
    """Return the number of bytes from `position` to the end of the file; 0 if these are tags."""
    return 0 if peek(file, position, 11).startswith(TRAILERS) else max(0, size - position)


def peek(file: Readable, position: int, count: int) -> bytes:
    """Return `count` bytes at a position, fewer at the end of the file, none where the system has no such position."""
    if position >= 2**63:
        return b""
    file.seek(position)
    return file.read(count)
