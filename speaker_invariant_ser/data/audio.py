"""Any format libsndfile reads -> mono float32 at the target rate. No torch."""

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

SAMPLE_RATE = 16_000  # Hz, of everything after `prepare`
FULL_SCALE = 32768.0  # what int16 is divided by to lie in [-1, 1)
SHORTEST = 0.1  # seconds; below it there are too few frames to say anything
LOWEST_RATE = 1000  # Hz; below it there is no speech, and a false header would blow a small file up to gigabytes
BLOCK = 2**20  # frames worked on at once, which keeps memory flat
FORGIVEN = 0.01  # share of a file that its header may promise and not hold; some recorders count wrongly
CLIPPED = 10  # flat places in an utterance before it is called clipped; fewer are not heard
LOUDEST = 4.0  # lossy formats may pass full scale a little; far beyond it are other units
SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".opus", ".w64"}
    | {".rf64", ".sph", ".voc"}
)
# What libsndfile does not read
FOREIGN = frozenset({".m4a", ".aac", ".wma", ".amr", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".3gp", ".flv"})
GIT_LFS = b"version https://git-lfs"
CLAIM = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")  # in libsndfile's log
OPEN_END = re.compile(r"without an End-Of-Stream|lacks an end-of-stream")  # of an ogg file, in the log
UNKNOWN_FRAMES = 2**40  # of a FLAC that was streamed, libsndfile says something beyond this
UNKNOWN_LENGTH = 2**31 - 2**16  # about what programs write into a header when they stream


def probe(path: Path | str) -> tuple[int, int]:
    """(frames, sample rate in Hz) from the header alone. Raises AudioError."""
    require_file(path)
    try:
        info = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise AudioError(explain(path, error)) from None
    return info.frames, info.samplerate


def read(path: Path | str, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode a file to mono at `rate` Hz: float32 [S], in [-1, 1] (lossy formats may pass it slightly).

    Channels are averaged; resampling is soxr's high quality. Raises AudioError with the reason for a file that is
    missing, unreadable, truncated, empty, shorter than 0.1 s, silent throughout, or holds NaN or infinity.
    """
    return check(to_float32(resample(decode(path), rate)), rate, path)


@dataclass(frozen=True)
class Decoded:
    """Samples [S] as the file holds them, but mono, at `rate` Hz: int16 if the file is 16-bit and mono, otherwise float32.

    `notes` say what is odd and yet usable.
    """

    samples: np.ndarray
    rate: int
    notes: tuple[str, ...] = ()


def decode(path: Path | str, start: float = 0.0, end: float = 0.0, longest: float = math.inf) -> Decoded:
    """Decode a file, or the segment of it from `start` to `end` seconds (0: to its end), at most `longest` seconds.

    Raises AudioError.
    """
    require_file(path)
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            rate, mp3 = file.samplerate, file.format == "MP3"
            first, frames = locate(file, start, end, longest, path)
            log = file.extra_info
            missing = 0.0 if end else truncation(log)  # a segment that is there is whole
            notes = ["ends without its end-of-stream mark: perhaps cut short"] if OPEN_END.search(log) else []
            if first:
                file.seek(first)
            samples, clipped = read_mono(file, frames, path)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: the ending .raw, which has no header
        raise AudioError(explain(path, error)) from None
    except MemoryError:
        raise AudioError(f"{path}: claims more samples than memory can hold; its header is damaged") from None
    missing = max(missing, 1 - len(samples) / frames if frames else 0.0)
    if missing > FORGIVEN and not mp3:  # an MP3 header's length may be an estimate
        raise AudioError(f"{path}: is truncated, {missing:.0%} of the audio that its header speaks of is missing")
    notes += [f"{missing:.1%} of the audio that its header speaks of is missing"] if missing else []
    return Decoded(samples, rate, (*notes, *clipped))


def read_mono(file: soundfile.SoundFile, frames: int, path: Path | str) -> tuple[np.ndarray, list[str]]:
    """`frames` frames as [S], and what `clipping` says of the channels.

    int16 from 16-bit mono, otherwise float32; channels are averaged block by block to save memory.
    """
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    if file.channels == 1:
        samples = file.read(frames, dtype=dtype)
        samples = samples if dtype == "int16" else require_range(samples, path)
        return samples, clipping(samples)
    mixed, place, notes = np.empty(frames, np.float32), 0, []
    while place < frames and len(block := file.read(min(BLOCK, frames - place), dtype=dtype, always_2d=True)):
        block = require_range(to_float32(block), path)
        block.mean(axis=1, out=mixed[place : place + len(block)])
        notes = notes or next((told for channel in block.T if (told := clipping(channel))), [])
        place += len(block)
    return mixed[:place], notes


def locate(file: soundfile.SoundFile, start: float, end: float, longest: float, path: Path | str) -> tuple[int, int]:
    """(first frame, frames) of a segment in seconds. Raises AudioError if the rate or the segment makes no sense."""
    rate, frames = file.samplerate, file.frames
    if rate < LOWEST_RATE:
        raise AudioError(f"{path}: a sample rate of {rate} Hz, at least {LOWEST_RATE} Hz are needed")
    if frames > UNKNOWN_FRAMES:
        raise AudioError(f"{path}: its header tells no length, as of a stream; write it into a new file, with ffmpeg or flac")
    first, last = round(start * rate), round(end * rate) if end else frames
    if not 0 <= first <= last or last > frames + FORGIVEN * rate:
        raise AudioError(f"{path}: no segment from {start} to {end} s in {frames / rate:.3f} s of audio")
    if last - first > longest * rate:
        raise AudioError(
            f"{path}: {(last - first) / rate:.0f} s are too long for one utterance, at most {longest:g} s; "
            "cut it, or list its segments with the columns start and end"
        )
    return first, min(last, frames) - first


def resample(decoded: Decoded, rate: int) -> np.ndarray:
    """[S] at `rate` Hz: float32, or as it is where nothing is to be done."""
    samples = decoded.samples
    if not samples.size or decoded.rate == rate:
        return samples
    stream = resampler(decoded.rate, rate, get_ident())
    stream.clear()
    blocks = range(0, len(samples), BLOCK)  # soxr keeps a copy of what it is given
    parts = [stream.resample_chunk(to_float32(samples[at : at + BLOCK]), last=at == blocks[-1]) for at in blocks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)  # of float32: soxr dithers int16, and zeros become noise


@lru_cache(maxsize=32)
def resampler(source: int, target: int, thread: int) -> soxr.ResampleStream:
    """Soxr between two rates, kept for the next clip: the result is that of soxr.resample without setting it up each time."""
    return soxr.ResampleStream(source, target, 1, dtype="float32")


def truncation(log: str) -> float:
    """The share of the audio that is missing, by libsndfile's log of the header; headers of streams claim no length.

    >>> truncation("data : 1000 (should be 750)")
    0.25
    """
    for claimed, held in CLAIM.findall(log):
        if 0 < int(held) < int(claimed) < UNKNOWN_LENGTH:
            return 1 - int(held) / int(claimed)
    return 0.0


def clipping(samples: np.ndarray) -> list[str]:
    """A note if [S] runs along full scale: again and again three samples in a row at its very peak."""
    peak = peak_of(samples)
    beyond = np.count_nonzero(np.abs(samples) > 1) if peak > 1 and samples.dtype != np.int16 else 0
    if beyond >= CLIPPED:
        return [f"clipped: {beyond} samples beyond full scale, up to {peak:.2f}"]
    if peak < 0.95 * full_scale(samples):  # mu-law ends at 0.98
        return []
    flat = np.abs(samples.astype(np.float32)) >= 0.999 * peak
    runs = np.count_nonzero(flat[2:] & flat[1:-1] & flat[:-2])
    return [f"clipped: {runs} times three samples in a row at full scale"] if runs >= CLIPPED else []


def peak_of(samples: np.ndarray) -> float:
    """The largest absolute value; 0 of nothing, NaN if any is."""
    return max(float(samples.max()), -float(samples.min())) if samples.size else 0.0


def full_scale(samples: np.ndarray) -> float:
    return FULL_SCALE if samples.dtype == np.int16 else 1.0


def require_file(path: Path | str) -> None:
    """Raise AudioError unless `path` is a regular file: a folder cannot be read, and a pipe could wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        raise AudioError(f"{str(path)!a}: no path can be like this ({error})") from None
    except FileNotFoundError:
        reason = "is a link to nothing" if os.path.islink(path) else "no such file"
        raise AudioError(f"{path}: {reason}") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise AudioError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}, expected an audio file")


def require_range(samples: np.ndarray, path: Path | str) -> np.ndarray:
    """`samples`. Raises AudioError for NaN, infinity, or a peak that no audio in [-1, 1] has."""
    peak = peak_of(samples)
    if not np.isfinite(peak):
        raise AudioError(f"{path}: holds NaN or infinite samples")
    if peak > LOUDEST:
        raise AudioError(f"{path}: samples up to {peak:.3g}; floating-point audio is expected within -1 and 1")
    return samples


def check(samples: np.ndarray, rate: int, path: Path | str) -> np.ndarray:
    """`samples` [S] if they can be used; raises AudioError with the reason otherwise."""
    if samples.size == 0:
        raise AudioError(f"{path}: holds no samples")
    if samples.size < SHORTEST * rate:
        raise AudioError(f"{path}: {samples.size / rate:.4f} s is too short, at least {SHORTEST} s are needed")
    if peak_of(samples) / full_scale(samples) * FULL_SCALE <= 0.5:
        raise AudioError(f"{path}: is silent throughout (all samples are zero at 16 bits)")
    return samples


def explain(path: Path | str, error: Exception) -> str:
    """Why a file could not be decoded, in words a user can act on."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as reason:
        return f"{path}: cannot be opened ({reason.strerror})"
    if not head:
        return f"{path}: is empty (0 bytes)"
    if head.startswith(GIT_LFS):
        return f"{path}: is a git-LFS pointer, not audio; fetch the real file with `git lfs pull`"
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    return f"{path}: not readable as audio ({reason})"


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float [-1, 1] -> int16, rounded, limited at full scale; int16 as it is."""
    if samples.dtype == np.int16:
        return samples
    scaled = samples * np.float32(FULL_SCALE)
    return np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled).astype(np.int16)


def to_float32(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1), the inverse of `to_int16` on every int16 value; float32 as it is."""
    return samples if samples.dtype == np.float32 else samples * np.float32(1 / FULL_SCALE)


def find_audio(folder: Path | str) -> list[Path]:
    """Audio files anywhere below a folder, by ending, sorted; hidden ones (`._x.wav` from macOS) left out.

    Links are followed; one that leads nowhere is listed, so that reading it tells. Raises AudioError for a closed folder.
    """
    return [Path(folder, name) for name in list_audio(folder)]


def list_audio(folder: Path | str, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """The paths of `find_audio` relative to the folder, with slashes; or those of files with other endings."""
    found, visited, waiting = [], set(), [""]
    while waiting:
        place = waiting.pop()
        here = os.path.join(folder, place)
        if (real := os.path.realpath(here)) in visited:  # a link in a circle
            continue
        visited.add(real)
        for entry in entries(here):
            name = f"{place}/{entry.name}" if place else entry.name
            if holds(os.DirEntry.is_dir, entry):
                waiting.append(name)
            elif os.path.splitext(entry.name)[1].lower() in suffixes and not entry.name.startswith("."):
                found += [name] if holds(os.DirEntry.is_file, entry) or entry.is_symlink() else []
    return sorted(found)


def holds(question: Callable[[os.DirEntry], bool], entry: os.DirEntry) -> bool:
    """The answer of the system; no, where a link leads in a circle or through a file."""
    try:
        return question(entry)
    except OSError:
        return False


def entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise AudioError(f"{error.filename}: cannot be opened ({error.strerror})") from None


def pad(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips of different lengths -> (float32 [B, S] padded with zeros, their samples int64 [B])."""
    samples = np.array([len(clip) for clip in clips])
    batch = np.zeros((len(clips), samples.max()), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch, samples
