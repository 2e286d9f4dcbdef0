"""Read audio files of any format that libsndfile supports as mono samples, and list audio files. Needs no torch."""

import math
import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import get_ident

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.errors import AudioError

SAMPLE_RATE = 16_000  # Hz, of all prepared audio
FULL_SCALE = 32768.0  # int16 is divided by this to lie in [-1, 1)
MIN_SECONDS = 0.1  # shorter audio has too few frames for features
MIN_RATE = 1000  # Hz; a damaged header with a lower rate would make resampling produce gigabytes
BLOCK = 2**20  # frames processed at once, which bounds memory
MAX_MISSING = 0.01  # share of the declared audio that may be missing: some recorders declare slightly too much
MIN_CLIPPED = 10  # clipped places from which a note is written; fewer are not audible
MAX_PEAK = 4.0  # lossy formats exceed full scale slightly; a larger peak means another unit than [-1, 1]
SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".opus", ".w64"}
    | {".rf64", ".sph", ".voc"}
)
UNSUPPORTED_SUFFIXES = frozenset({".m4a", ".aac", ".wma", ".amr", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".3gp", ".flv"})
GIT_LFS = b"version https://git-lfs"
# Patterns in libsndfile's log of a header
DECLARED_SIZE = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
NO_END_OF_STREAM = re.compile(r"without an End-Of-Stream|lacks an end-of-stream")
UNKNOWN_FRAMES = 2**40  # libsndfile reports more than this for a FLAC stream of unknown length
UNKNOWN_LENGTH = 2**31 - 2**16  # programs that stream WAV declare about this many bytes


def probe(path: Path | str) -> tuple[int, int]:
    """Return (frames, sample rate in Hz) from the header of an audio file.

    Raises:
        AudioError: The file is missing or its header cannot be read.
    """
    require_file(path)
    try:
        info = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise AudioError(explain(path, error)) from None
    return info.frames, info.samplerate


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
    return check(to_float32(resample(decode(path), rate)), rate, path)


@dataclass(frozen=True)
class Decoded:
    """Mono samples [S] at the file's own rate in Hz, and notes about defects that leave the audio usable.

    The samples are int16 if the file is 16-bit and mono, otherwise float32.
    """

    samples: np.ndarray
    rate: int
    notes: tuple[str, ...] = ()


def decode(path: Path | str, start: float = 0.0, end: float = 0.0, max_seconds: float = math.inf) -> Decoded:
    """Decode an audio file, or one segment of it.

    Args:
        path: Any format of libsndfile; channels are averaged.
        start: Beginning of the segment in seconds.
        end: End of the segment in seconds; 0 stands for the end of the file.
        max_seconds: Longest segment that is accepted.

    Raises:
        AudioError: The file cannot be decoded, is truncated by more than 1 %, or does not contain the segment.
    """
    require_file(path)
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            rate, mp3 = file.samplerate, file.format == "MP3"
            first, frames = locate(file, start, end, max_seconds, path)
            log = file.extra_info
            missing = 0.0 if end else missing_share(log)  # an existing segment is complete even if the file is not
            notes = ["ends without an end-of-stream mark: perhaps truncated"] if NO_END_OF_STREAM.search(log) else []
            if first:
                file.seek(first)
            samples, clipping_notes = read_mono(file, frames, path)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: the suffix .raw, which has no header
        raise AudioError(explain(path, error)) from None
    except MemoryError:
        raise AudioError(f"{path}: declares more samples than memory can hold; its header is damaged") from None
    missing = max(missing, 1 - len(samples) / frames if frames else 0.0)
    if missing > MAX_MISSING and not mp3:  # the length in an MP3 header may be an estimate
        raise AudioError(f"{path}: is truncated, {missing:.0%} of the audio that its header declares is missing")
    notes += [f"{missing:.1%} of the audio that its header declares is missing"] if missing else []
    return Decoded(samples, rate, (*notes, *clipping_notes))


def read_mono(file: soundfile.SoundFile, frames: int, path: Path | str) -> tuple[np.ndarray, list[str]]:
    """Return `frames` frames as mono samples [S], and notes about clipping; average channels block by block to save memory."""
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    if file.channels == 1:
        samples = file.read(frames, dtype=dtype)
        samples = samples if dtype == "int16" else require_range(samples, path)
        return samples, clipping(samples)
    mono, position = np.empty(frames, np.float32), 0
    notes: list[str] = []
    while position < frames and len(block := file.read(min(BLOCK, frames - position), dtype=dtype, always_2d=True)):
        block = require_range(to_float32(block), path)
        block.mean(axis=1, out=mono[position : position + len(block)])
        notes = notes or next((note for channel in block.T if (note := clipping(channel))), [])
        position += len(block)
    return mono[:position], notes


def locate(file: soundfile.SoundFile, start: float, end: float, max_seconds: float, path: Path | str) -> tuple[int, int]:
    """Return (first frame, number of frames) of a segment; raise AudioError for an impossible sample rate or segment."""
    rate, frames = file.samplerate, file.frames
    if rate < MIN_RATE:
        raise AudioError(f"{path}: a sample rate of {rate} Hz, expected at least {MIN_RATE} Hz")
    if frames > UNKNOWN_FRAMES:
        raise AudioError(f"{path}: its header declares no length, as in a stream; convert it to a new file with ffmpeg or flac")
    first, last = round(start * rate), round(end * rate) if end else frames
    if not 0 <= first <= last or last > frames + MAX_MISSING * rate:
        raise AudioError(f"{path}: no segment from {start} to {end} s in {frames / rate:.3f} s of audio")
    if last - first > max_seconds * rate:
        raise AudioError(
            f"{path}: {(last - first) / rate:.0f} s are too long for one utterance, expected at most {max_seconds:g} s; "
            "cut it, or list its segments with the columns start and end"
        )
    return first, min(last, frames) - first


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


def missing_share(log: str) -> float:
    """Return the share of the declared audio that is missing, from libsndfile's log; 0 for streams, which declare no length.

    >>> missing_share("data : 1000 (should be 750)")
    0.25
    """
    for declared, present in DECLARED_SIZE.findall(log):
        if 0 < int(present) < int(declared) < UNKNOWN_LENGTH:
            return 1 - int(present) / int(declared)
    return 0.0


def clipping(samples: np.ndarray) -> list[str]:
    """Return a note if samples [S] are clipped: beyond full scale, or often three in a row at their peak."""
    peak = peak_of(samples)
    beyond = np.count_nonzero(np.abs(samples) > 1) if peak > 1 and samples.dtype != np.int16 else 0
    if beyond >= MIN_CLIPPED:
        return [f"clipped: {beyond} samples beyond full scale, up to {peak:.2f}"]
    if peak < 0.95 * full_scale(samples):  # mu-law ends at 0.98
        return []
    at_peak = np.abs(samples.astype(np.float32)) >= 0.999 * peak
    runs = np.count_nonzero(at_peak[2:] & at_peak[1:-1] & at_peak[:-2])
    return [f"clipped: {runs} times three samples in a row at full scale"] if runs >= MIN_CLIPPED else []


def peak_of(samples: np.ndarray) -> float:
    """Return the largest absolute value; 0 for an empty array, NaN if any sample is NaN."""
    return max(float(samples.max()), -float(samples.min())) if samples.size else 0.0


def full_scale(samples: np.ndarray) -> float:
    """Return the value that stands for full scale in this sample type."""
    return FULL_SCALE if samples.dtype == np.int16 else 1.0


def require_file(path: Path | str) -> None:
    """Raise AudioError unless `path` is a regular file: a folder cannot be read, and a pipe could block for ever."""
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        raise AudioError(f"{str(path)!a}: not a valid path ({error})") from None
    except FileNotFoundError:
        reason = "is a link to a missing file" if os.path.islink(path) else "no such file"
        raise AudioError(f"{path}: {reason}") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise AudioError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}, expected an audio file")


def require_range(samples: np.ndarray, path: Path | str) -> np.ndarray:
    """Return `samples`; raise AudioError for NaN, infinity, or a peak far outside [-1, 1]."""
    peak = peak_of(samples)
    if not np.isfinite(peak):
        raise AudioError(f"{path}: contains NaN or infinite samples")
    if peak > MAX_PEAK:
        raise AudioError(f"{path}: samples up to {peak:.3g}; floating-point audio is expected within -1 and 1")
    return samples


def check(samples: np.ndarray, rate: int, path: Path | str) -> np.ndarray:
    """Return samples [S] if they are usable; raise AudioError if they are empty, shorter than 0.1 s or silent."""
    if samples.size == 0:
        raise AudioError(f"{path}: contains no samples")
    if samples.size < MIN_SECONDS * rate:
        raise AudioError(f"{path}: {samples.size / rate:.4f} s is too short, expected at least {MIN_SECONDS} s")
    if peak_of(samples) / full_scale(samples) * FULL_SCALE <= 0.5:
        raise AudioError(f"{path}: is silent (all samples are zero at 16 bits)")
    return samples


def explain(path: Path | str, error: Exception) -> str:
    """Return why a file could not be decoded, in words that help the user."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as reading_error:
        return f"{path}: cannot be opened ({reading_error.strerror})"
    if not head:
        return f"{path}: is empty (0 bytes)"
    if head.startswith(GIT_LFS):
        return f"{path}: is a git-LFS pointer, not audio; fetch the real file with `git lfs pull`"
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    return f"{path}: not readable as audio ({reason})"


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Convert floats in [-1, 1] to int16, rounded and limited to full scale; return int16 unchanged."""
    if samples.dtype == np.int16:
        return samples
    scaled = samples * np.float32(FULL_SCALE)
    return np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled).astype(np.int16)


def to_float32(samples: np.ndarray) -> np.ndarray:
    """Convert int16 to float32 in [-1, 1), the exact inverse of `to_int16`; return float32 unchanged."""
    return samples if samples.dtype == np.float32 else samples * np.float32(1 / FULL_SCALE)


def find_audio(folder: Path | str) -> list[Path]:
    """Return the audio files anywhere below a folder, by suffix and sorted, without hidden ones such as macOS's `._x.wav`.

    Links are followed; a broken link is listed, so that reading it reports the problem.

    Raises:
        AudioError: A folder cannot be opened.
    """
    return [Path(folder, name) for name in list_audio(folder)]


def list_audio(folder: Path | str, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Return the files of `find_audio`, or files with other suffixes, as paths relative to the folder, with slashes."""
    names: list[str] = []
    visited, pending = set(), [""]
    while pending:
        subfolder = pending.pop()
        path = os.path.join(folder, subfolder)
        if (real := os.path.realpath(path)) in visited:  # a circular link
            continue
        visited.add(real)
        for entry in entries(path):
            name = f"{subfolder}/{entry.name}" if subfolder else entry.name
            if holds(os.DirEntry.is_dir, entry):
                pending.append(name)
            elif os.path.splitext(entry.name)[1].lower() in suffixes and not entry.name.startswith("."):
                names += [name] if holds(os.DirEntry.is_file, entry) or entry.is_symlink() else []
    return sorted(names)


def holds(test: Callable[[os.DirEntry], bool], entry: os.DirEntry) -> bool:
    """Return the result of a file-system test; False for circular links."""
    try:
        return test(entry)
    except OSError:
        return False


def entries(folder: str) -> list[os.DirEntry]:
    """Return the entries of a folder; raise AudioError if it cannot be opened."""
    try:
        with os.scandir(folder) as iterator:
            return list(iterator)
    except OSError as error:
        raise AudioError(f"{error.filename}: cannot be opened ({error.strerror})") from None


def pad(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return clips of different lengths as one batch: float32 [B, S] padded with zeros, and their lengths in samples [B].

    >>> pad([np.ones(2, np.float32), np.ones(3, np.float32)])[1].tolist()
    [2, 3]
    """
    samples = np.array([len(clip) for clip in clips])
    batch = np.zeros((len(clips), samples.max()), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch, samples
