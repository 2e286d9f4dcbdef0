"""Read audio files of any format that libsndfile supports as mono samples. Needs no torch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import get_ident

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.data.formats.channels import MIX, Mixing, index_of, names_of
from speaker_invariant_ser.data.formats.identify import explain
from speaker_invariant_ser.data.formats.opening import MAX_MISSING
from speaker_invariant_ser.data.formats.reading import BLOCK, Reader, reader_of
from speaker_invariant_ser.errors import AudioError, counted

SAMPLE_RATE = 16_000  # Hz, of all prepared audio
FULL_SCALE = 32768.0  # int16 is divided by this to lie in [-1, 1)
MIN_SECONDS = 0.1  # shorter audio has too few frames for features
MIN_RATE = 1000  # Hz; a damaged header with a lower rate would make resampling produce gigabytes
MIN_CLIPPED = 10  # clipped places from which a note is written; fewer are not audible
MIN_OFFSET = 0.01  # of full scale: a smaller constant offset is not noted, however quiet the sound
LONG_SILENCE = 1 / 3  # share of a recording from which a stretch of digital silence is a note
MAX_PEAK = 4.0  # lossy formats exceed full scale slightly; a larger peak means another unit than [-1, 1]
MAX_SAMPLES = 2**26  # decoded at once, at the file's rate or at 16 kHz: 70 min at 16 kHz, 25 min at 44.1 kHz, 400 MB in memory
UNKNOWN_FRAMES = 2**40  # libsndfile reports more than this for a stream of unknown length


def probe(path: Path | str) -> tuple[int, int]:
    """Return (frames, sample rate in Hz) of an audio file, from its header where that is right.

    Raises:
        AudioError: The file is missing or its header cannot be read.
    """
    with reader_of(path) as reader:
        return reader.opened.file.frames, reader.opened.file.samplerate


def channels_of(path: Path | str) -> list[str]:
    """Return the names of a file's channels, which `decode` accepts: left and right, mono, or 1, 2, 3 ...

    Raises:
        AudioError: The file is missing or its header cannot be read.
    """
    with reader_of(path) as reader:
        return names_of(reader.opened.file.channels)


def read(path: Path | str, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode an audio file to mono float32 samples.

    Args:
        path: Any format of libsndfile; channels are averaged.
        rate: Sample rate of the result in Hz; resampling uses soxr's high quality.

    Returns:
        Samples [S] in [-1, 1]; lossy formats may exceed it slightly.

    Raises:
        AudioError: The file is missing, unreadable, truncated, empty, shorter than 0.1 s, silent, or contains NaN or infinity.
    """
    decoded = decode(path)
    return check(to_float32(resample(decoded, rate)), rate, path, decoded.notes)


@dataclass(frozen=True)
class Decoded:
    """Mono samples [S] at the file's own rate in Hz, and notes about defects that leave the audio usable.

    The samples are int16 if the file is 16-bit and mono, otherwise float32.
    """

    samples: np.ndarray
    rate: int
    notes: tuple[str, ...] = ()


def decode(path: Path | str, start: float = 0.0, end: float = 0.0, max_seconds: float = math.inf, channel: str = MIX) -> Decoded:
    """Decode an audio file, or one segment of it.

    A segment has the samples that the same stretch of the whole file has.

    Args:
        path: Any format of libsndfile.
        start: Beginning of the segment in seconds.
        end: End of the segment in seconds; 0 stands for the end of the file.
        max_seconds: Longest segment that is accepted.
        channel: `mix` for the mean of all channels, or a name of `channels_of`; a file with one channel has only that.

    Raises:
        AudioError: The file cannot be decoded, is truncated by more than 1 %, does not contain the segment, or is longer than
            MAX_SAMPLES.
    """
    try:
        with reader_of(path, keep=bool(start or end)) as reader:
            file, notes = reader.opened.file, list(reader.opened.notes)
            first, frames = locate(file, start, end, max_seconds, path)
            require_size(file.samplerate, frames, path)
            reader.move_to(first)
            missing = 0.0 if end else reader.opened.missing  # an existing segment is complete even if the file is not
            if missing <= MAX_MISSING:
                samples, channel_notes = read_mono(reader, frames, path, channel)
                missing = max(missing, 1 - len(samples) / frames if frames and not is_estimate(file) else 0.0)
            rate = file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(explain(path, error)) from None
    except MemoryError:
        raise AudioError(f"{path}: {frames / file.samplerate:.0f} s do not fit into memory") from None
    if missing == 1:
        raise AudioError(f"{path}: contains no samples: it ends with its header")
    if missing > MAX_MISSING:
        raise AudioError(f"{path}: is truncated, {missing:.0%} of the audio that its header declares is missing")
    notes += [f"{missing:.1%} of the audio that its header declares is missing"] if missing else []
    return Decoded(samples, rate, (*notes, *channel_notes))


def is_estimate(file: soundfile.SoundFile) -> bool:
    """Return whether the length of a file is only an estimate, as in MPEG audio without frames that state it."""
    return file.subtype in ("MPEG_LAYER_I", "MPEG_LAYER_II")


def read_mono(reader: Reader, frames: int, path: Path | str, channel: str) -> tuple[np.ndarray, list[str]]:
    """Return the next `frames` frames as mono samples [S], and notes about clipping, a constant offset and the channels."""
    file = reader.opened.file
    notes: list[str] = []
    if file.channels == 1:
        samples = reader.read(frames, sample_type(file))[:, 0]
        samples = samples if samples.dtype == np.int16 else require_range(samples, path)
        return samples, [*clipping(samples), *offset_notes(samples)]
    mono, position = np.empty(frames, np.float32), 0
    for block in mono_blocks(reader, frames, path, channel, notes):
        mono[position : position + len(block)] = block
        position += len(block)
    return mono[:position], notes


def mono_blocks(reader: Reader, frames: int, path: Path | str, channel: str, notes: list[str]) -> Iterator[np.ndarray]:
    """Yield the next `frames` frames as blocks of float32 samples [S]; after the last, add the notes of `read_mono`.

    Raises:
        AudioError: There is no such channel, or samples are NaN, infinite or far outside [-1, 1].
    """
    file = reader.opened.file
    clipped: list[str] = []
    chosen = 0 if file.channels == 1 else index_of(channel, file.channels)
    if chosen is not None and chosen >= file.channels:
        raise AudioError(f"{path}: has {counted(file.channels, 'channel')}, none of the name {channel}")
    mixing, offset, end = Mixing(file.channels), ConstantOffset(), reader.position + frames
    while reader.position < end and len(block := reader.read(min(BLOCK, end - reader.position), sample_type(file))):
        block = require_range(to_float32(block if chosen is None else block[:, [chosen]]), path)
        clipped = clipped or next((note for column in block.T if (note := clipping(column))), [])
        mono = mixing.add(block) if chosen is None else block[:, 0]
        offset.add(mono)
        yield mono
    notes += [*clipped, *offset.notes(), *mixing.notes()]


def sample_type(file: soundfile.SoundFile) -> str:
    """Return the type that samples are decoded to."""
    return "int16" if file.subtype == "PCM_16" else "float32"


def locate(file: soundfile.SoundFile, start: float, end: float, max_seconds: float, path: Path | str) -> tuple[int, int]:
    """Return (first frame, number of frames) of a segment; raise AudioError for an impossible sample rate or segment."""
    rate, frames = file.samplerate, file.frames
    if rate < MIN_RATE:
        raise AudioError(f"{path}: a sample rate of {rate} Hz, expected at least {MIN_RATE} Hz")
    if frames > UNKNOWN_FRAMES:
        raise AudioError(f"{path}: its header declares no length, as in a stream; convert it to a new file with ffmpeg or flac")
    first, last = round(start * rate), round(end * rate) if end else frames
    if not 0 <= first <= last or last > frames + MAX_MISSING * rate:
        hint = "; start and end are in seconds, not in milliseconds or samples" if first > frames else ""
        raise AudioError(f"{path}: no segment from {start} to {end} s in {frames / rate:.3f} s of audio{hint}")
    if last - first > max_seconds * rate:
        raise AudioError(
            f"{path}: {(last - first) / rate:.0f} s are too long for one utterance, expected at most {max_seconds:g} s; "
            "cut it, or list its segments with the columns start and end"
        )
    return first, min(last, frames) - first


def require_size(rate: int, frames: int, path: Path | str) -> None:
    """Raise AudioError if so many frames are too many for memory; a small compressed file can hold days of silence."""
    allowed = MAX_SAMPLES / max(rate, SAMPLE_RATE)
    if frames > allowed * rate:
        raise AudioError(
            f"{path}: {frames / rate:.0f} s at {rate} Hz are too long to be decoded at once, expected at most {allowed:.0f} s; "
            "cut it into parts, or predict its windows with --window or --vad"
        )


def resample(decoded: Decoded, rate: int) -> np.ndarray:
    """Return samples [S] at `rate` Hz: float32, or unchanged where the rate is right already."""
    samples = decoded.samples
    if not samples.size or decoded.rate == rate:
        return samples
    stream = resampler(decoded.rate, rate, get_ident())
    stream.clear()
    blocks = range(0, len(samples), BLOCK)  # soxr copies its input
    # Floats, because soxr dithers int16 and digital zeros would become noise.
    parts = [stream.resample_chunk(to_float32(samples[at : at + BLOCK]), last=at == blocks[-1]) for at in blocks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@lru_cache(maxsize=32)
def resampler(source: int, target: int, thread: int) -> soxr.ResampleStream:
    """Return a cached soxr stream between two rates; results equal those of soxr.resample without its set-up time."""
    return soxr.ResampleStream(source, target, 1, dtype="float32")


def clipping(samples: np.ndarray) -> list[str]:
    """Return a note if samples [S] are clipped: beyond full scale, or often three in a row at their peak."""
    peak = peak_of(samples)
    beyond = np.count_nonzero(np.abs(samples) > 1) if peak > 1 and samples.dtype != np.int16 else 0
    if beyond >= MIN_CLIPPED:
        return [f"clipped: {counted(int(beyond), 'sample')} beyond full scale, up to {peak:.2f}"]
    if peak < 0.95 * full_scale(samples):  # mu-law ends at 0.98
        return []
    at_peak = np.abs(samples.astype(np.float32)) >= 0.999 * peak
    runs = np.count_nonzero(at_peak[2:] & at_peak[1:-1] & at_peak[:-2])
    return [f"clipped: {runs} times three samples in a row at full scale"] if runs >= MIN_CLIPPED else []


@dataclass
class ConstantOffset:
    """The constant offset of a recording that comes block by block, beside the power of its sound."""

    samples: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, block: np.ndarray) -> None:
        """Take the next samples [S], int16 or float32."""
        block = to_float32(block)
        self.samples += len(block)
        self.total += float(block.sum(dtype=np.float64))
        self.squares += float(np.dot(block, block))

    def notes(self) -> list[str]:
        """Return a note if the offset is larger than the sound."""
        offset = self.total / max(self.samples, 1)
        if abs(offset) < MIN_OFFSET or self.squares > 2 * self.samples * offset**2:
            return []
        return [f"a constant offset of {offset:.2g} of full scale, larger than the sound: remove it"]


def offset_notes(samples: np.ndarray) -> list[str]:
    """Return a note if samples [S], int16 or float32, have a constant offset that is larger than their sound."""
    offset = ConstantOffset()
    offset.add(samples)
    return offset.notes()


def peak_of(samples: np.ndarray) -> float:
    """Return the largest absolute value; 0 for an empty array, NaN if any sample is NaN."""
    return max(float(samples.max()), -float(samples.min())) if samples.size else 0.0


def full_scale(samples: np.ndarray) -> float:
    """Return the value that stands for full scale in this sample type."""
    return FULL_SCALE if samples.dtype == np.int16 else 1.0


def require_range(samples: np.ndarray, path: Path | str) -> np.ndarray:
    """Return `samples`; raise AudioError for NaN, infinity, or a peak far outside [-1, 1]."""
    peak = peak_of(samples)
    if not np.isfinite(peak):
        raise AudioError(f"{path}: contains NaN or infinite samples")
    if peak > MAX_PEAK:
        raise AudioError(f"{path}: samples up to {peak:.3g}; floating-point audio is expected within -1 and 1")
    return samples


def check(samples: np.ndarray, rate: int, path: Path | str, notes: Sequence[str] = ()) -> np.ndarray:
    """Return samples [S] if they are usable; raise AudioError, with the notes, for what `reason_against` says."""
    if reason := reason_against(samples, rate):
        raise AudioError("; ".join([f"{path}: {reason}", *notes]))
    return samples


def reason_against(samples: np.ndarray, rate: int) -> str:
    """Return why samples [S] cannot be used: they are none, shorter than 0.1 s, silent or constant; empty if they can."""
    if samples.size == 0:
        return "contains no samples"
    if samples.size < MIN_SECONDS * rate:
        return f"{samples.size / rate:.4f} s is too short, expected at least {MIN_SECONDS} s"
    if peak_of(samples) / full_scale(samples) * FULL_SCALE <= 0.5:
        return "is silent (all samples are zero at 16 bits)"
    if (float(samples.max()) - float(samples.min())) / full_scale(samples) * FULL_SCALE <= 0.5:
        return "is constant (all samples are equal at 16 bits), which is no sound"
    return ""


@dataclass
class LongestSilence:
    """The longest stretch of digital silence, zeros at 16 bits, of a recording that comes block by block."""

    samples: int = 0
    sound: int = -1  # the last sample that is not zero
    start: int = 0
    end: int = 0

    def add(self, block: np.ndarray) -> None:
        """Take the next samples [S], int16 or float32 with the values of 16 bits."""
        sounds = np.concatenate([[self.sound], self.samples + np.flatnonzero(block), [self.samples + len(block)]])
        self.samples += len(block)
        longest = int(np.argmax(np.diff(sounds)))
        start, end = int(sounds[longest]) + 1, int(sounds[longest + 1])
        if end - start > self.end - self.start:
            self.start, self.end = start, end
        self.sound = int(sounds[-2])

    def notes(self, rate: int) -> list[str]:
        """Return a note if a third of the recording, or more, is one such stretch."""
        if self.end - self.start < self.samples * LONG_SILENCE:
            return []
        start, end, length = (position / rate for position in (self.start, self.end, self.samples))
        return [f"digital silence from {start:.1f} to {end:.1f} s of {length:.1f} s"]


def silence_notes(samples: np.ndarray, rate: int) -> list[str]:
    """Return a note if a third of a recording, samples [S] at 16 bits, or more, is one stretch of digital silence."""
    if len(samples) - np.count_nonzero(samples) < LONG_SILENCE * len(samples):  # as nearly all: it saves the search
        return []
    silence = LongestSilence()
    silence.add(samples)
    return silence.notes(rate)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Convert floats in [-1, 1] to int16, rounded and limited to full scale; return int16 unchanged."""
    if samples.dtype == np.int16:
        return samples
    return rounded(samples).astype(np.int16)


def at_16_bits(samples: np.ndarray) -> np.ndarray:
    """Return samples [S] as float32 with the values that a prepared corpus holds: rounded to 16 bits, limited to full scale."""
    if samples.dtype == np.int16:
        return to_float32(samples)
    scaled = rounded(samples)
    scaled *= np.float32(1 / FULL_SCALE)
    return scaled


def rounded(samples: np.ndarray) -> np.ndarray:
    """Return floats in [-1, 1] as whole numbers of 16 bits, still float32."""
    scaled = samples * np.float32(FULL_SCALE)
    return np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled)


def to_float32(samples: np.ndarray) -> np.ndarray:
    """Convert int16 to float32 in [-1, 1), the exact inverse of `to_int16`; return float32 unchanged."""
    return samples if samples.dtype == np.float32 else samples * np.float32(1 / FULL_SCALE)


def pad(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return utterances of different lengths as one batch: float32 [B, S] padded with zeros, and their lengths in samples [B].

    >>> pad([np.ones(2, np.float32), np.ones(3, np.float32)])[1].tolist()
    [2, 3]
    """
    samples = np.array([len(clip) for clip in clips])
    batch = np.zeros((len(clips), samples.max()), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch, samples
