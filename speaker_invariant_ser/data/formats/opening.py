"""Open a recording for libsndfile as it is: with the length that it really has, and notes about what its header gets wrong."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedReader
from mmap import ACCESS_READ, mmap
from pathlib import Path

import soundfile

from speaker_invariant_ser.data.formats import chunks, flac, identify, mpeg, ogg
from speaker_invariant_ser.data.formats.flac import Mapped
from speaker_invariant_ser.data.formats.quiet import silenced
from speaker_invariant_ser.data.formats.splice import Spliced
from speaker_invariant_ser.errors import AudioError, quoted
from speaker_invariant_ser.processes import memory_errors, memory_limited

MAX_MISSING = 0.01  # share of the stated audio that may be missing: some recorders state slightly too much
MPEG = (b"ID3", b"\xff")  # how MPEG audio begins
MPEG_SUFFIXES = (".mp3", ".mp2", ".mpga")  # of which all is searched for a beginning: elsewhere libsndfile is asked
SEEKABLE = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # codecs in which every sample stands for itself


@dataclass
class Recording:
    """What libsndfile is to open, and what is known about it beforehand.

    Attributes:
        content: Path, or a corrected file.
        notes: What the header gets wrong.
        missing: Share of the stated audio that the file does not hold.
        unread: Bytes behind the audio that nothing reads, as a share of the audio's bytes.
    """

    content: bytes | Spliced
    notes: list[str] = field(default_factory=list)
    missing: float = 0.0
    unread: float = 0.0


class ForwardFile(soundfile.SoundFile):
    """A file that is read block by block; soundfile itself seeks after every block, which changes what follows in an MP3."""

    def seekable(self) -> bool:
        """Return False: soundfile shall not seek on its own."""
        return False


@dataclass
class Opened:
    """An open recording, to be closed by the caller.

    Attributes:
        file: The file as libsndfile sees it.
        notes: What its header gets wrong, as notes for the user.
        missing: Share of the audio stated by its header that the file does not hold.
    """

    file: soundfile.SoundFile
    notes: list[str]
    missing: float

    @property
    def seekable(self) -> bool:
        """Whether samples after seeking equal those of the whole file decoded."""
        return self.file.subtype.startswith(SEEKABLE) and self.file.format != "OGG"


def open_recording(path: Path | str) -> Opened:
    """Open an audio file of any format of libsndfile, with a corrected header where that is needed.

    Args:
        path: An existing regular file.

    Raises:
        AudioError: The file cannot be read; the reason says what it is, if its first bytes tell.
    """
    try:
        with open(path, "rb") as raw:
            recording = examine(raw, os.fsencode(path))
        if isinstance(recording.content, Spliced):
            recording.content.seek(0)
        with silenced():
            file = ForwardFile(recording.content)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: the suffix .raw, which has no header
        raise AudioError(identify.explain(path, error)) from None
    except (MemoryError, OverflowError):
        raise AudioError(f"{path}: does not fit into memory") from None
    return Opened(file, [*recording.notes, *unread_notes(recording, file, path)], recording.missing)


def examine(raw: chunks.Readable, content: bytes | Spliced) -> Recording:
    """Compare the header of an open file with what it holds; `content` is what libsndfile gets if there is nothing to correct."""
    raw.seek(0)
    head, size = raw.read(chunks.HEAD), raw.seek(0, os.SEEK_END)
    plain = Recording(content)
    layout = chunks.scan(raw, head, size)
    if layout:
        return examine_layout(layout, raw, plain)
    for magic, look in EXAMINED.items():
        if head.startswith(magic):
            return look(mapped(raw), plain)
    name = os.fsdecode(content) if isinstance(content, bytes) else ""
    if known := "" if head.startswith(MPEG) else identify.identify(name, head, layout):
        if not name:
            raise soundfile.SoundFileError(f"what follows its ID3 tag {known}")  # the caller names the file
        raise AudioError(f"{name}: {known}")
    if head.startswith(MPEG) or name.lower().endswith(MPEG_SUFFIXES):
        return examine_mpeg(mapped(raw), plain)
    return plain


def examine_layout(layout: chunks.Layout, raw: chunks.Readable, plain: Recording) -> Recording:
    """Correct the length of a container of chunks, and read a stream of MPEG inside it as such."""
    if layout.tag in chunks.MPEG_TAGS:
        raw.seek(layout.begin)
        with memory_limited():
            data = raw.read(layout.end - layout.begin)
        return examine_mpeg(data, Recording(Spliced([data])))
    if layout.fault:
        if isinstance(plain.content, Spliced):
            raise soundfile.SoundFileError(layout.fault)
        raise AudioError(f"{os.fsdecode(plain.content)}: {layout.fault}")
    held = layout.end - layout.begin
    plain.notes += [f"{layout.doubt}; its speed may be wrong"] if layout.doubt else []
    plain.missing, plain.unread = layout.missing, layout.unread / max(1, held)
    if plain.unread > MAX_MISSING or (held and held != layout.stated) or layout.parts or layout.plain_tag:
        plain.content = Spliced(layout.corrected(mapped(raw)))
    return plain


def mapped(raw: chunks.Readable) -> Mapped:
    """Return the file mapped into memory for as long as the result or a view of it exists; MemoryError where it is too large."""
    if not isinstance(raw, BufferedReader):
        return whole(raw)
    with memory_errors():
        return mmap(raw.fileno(), 0, access=ACCESS_READ)


def whole(raw: chunks.Readable) -> bytes:
    """Return the content of a file."""
    raw.seek(0)
    with memory_limited():
        return raw.read()


def examine_mpeg(data: Mapped, plain: Recording) -> Recording:
    """Count the frames of MPEG audio; layer 3 gets a header with their number unless it has a right one."""
    if len(data) > mpeg.MAX_BYTES:
        raise soundfile.SoundFileError(f"{len(data) / 1e9:.0f} GB of MPEG audio, expected at most {mpeg.MAX_BYTES / 1e9:.0f}")
    stream = mpeg.scan(data)
    if not stream or not stream.frames:
        if (end := mpeg.id3_end(data, 0)) and not mpeg.begins(data, (b"ID3",), end):  # a tag that is cut off has no end
            untagged = Spliced([memoryview(data)[end:]])
            return examine(untagged, untagged)
        raise soundfile.SoundFileError("no frames of MPEG audio in it")
    notes = []
    if stream.lost > MAX_MISSING * len(data):
        notes.append(f"{stream.lost / len(data):.0%} of its bytes are not MPEG audio of the same kind, and are left out")
    stated, missing = stream.declared, 0.0
    if stated and stated > stream.frames:
        missing = 1 - stream.frames / stated
    elif stated and stream.frames > (1 + MAX_MISSING) * stated + 1:
        notes.append(f"its header states {stated} frames, it holds {stream.frames}: all are read")
    exact = stated is not None and abs(stated - stream.frames) <= 1
    if mpeg.layer(stream.first) != 3:  # has no frame that states a length; its bit rate is constant
        frames = Spliced([memoryview(data)[begin:end] for begin, end in stream.ranges])
        return Recording(frames if stream.lost else plain.content, notes, missing)
    if exact and not stream.lost and isinstance(plain.content, bytes):
        return Recording(plain.content, notes, missing)
    return Recording(mpeg.with_length(data, stream), notes, missing)


def examine_flac(content: Mapped, plain: Recording) -> Recording:
    """Correct the number of samples in the header of a FLAC file."""
    stream = flac.scan(content)
    notes = appended(stream.end, len(content))
    if not stream.held or stream.held == stream.stated:
        return Recording(Spliced([memoryview(content)[: stream.end]]) if notes else plain.content, notes)
    if stream.stated > stream.held:
        return Recording(plain.content, notes, 1 - stream.held / stream.stated)
    if stream.stated:
        notes.append(f"its header states {stream.stated} samples, it holds {stream.held}: all are read")
    head = flac.with_count(content, stream.held)
    return Recording(Spliced([head, memoryview(content)[len(head) : stream.end]]), notes)


def examine_ogg(content: Mapped, plain: Recording) -> Recording:
    """Note recordings that are chained behind the first one, bytes that are no pages, and an end that is missing."""
    stream = ogg.scan(content)
    behind = (len(content) - stream.end) / len(content)
    notes = [] if stream.complete else ["ends without an end-of-stream mark: perhaps truncated"]
    if stream.chained:
        notes += appended(stream.end, len(content))
    elif behind > MAX_MISSING:
        notes.append(f"{behind:.0%} of its bytes, at the end, are no Ogg, and are left out")
    return Recording(Spliced([memoryview(content)[: stream.end]]) if behind > MAX_MISSING else plain.content, notes)


EXAMINED: dict[bytes, Callable[[Mapped, Recording], Recording]] = {b"fLaC": examine_flac, b"OggS": examine_ogg}


def appended(end: int, size: int) -> list[str]:
    """Return a note if another recording begins at `end`."""
    if size - end <= MAX_MISSING * size:
        return []
    return [f"another recording begins at byte {end}, and {(size - end) / size:.0%} of the file are not read; cut it there"]


def unread_notes(recording: Recording, file: soundfile.SoundFile, path: Path | str) -> list[str]:
    """Return a note about bytes behind the audio that its header states."""
    if recording.unread <= MAX_MISSING:
        return []
    stated = file.frames / max(1, file.samplerate)
    name = os.path.basename(path)
    remedy = f"; ffmpeg -ignore_length 1 -i {quoted(name)} new.wav writes a right header" if name.lower().endswith(".wav") else ""
    return [
        f"its header states {stated:.2f} s, and behind them lie bytes for {recording.unread * stated:.2f} s more "
        f"({recording.unread / (1 + recording.unread):.0%}), which are not read{remedy}"
    ]
