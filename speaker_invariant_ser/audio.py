"""Any format libsndfile reads -> mono float32 at the target rate. No torch."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.errors import AudioError

SAMPLE_RATE = 16_000  # Hz, of everything after `prepare`
SHORTEST = 0.1  # seconds; below it there are too few frames to say anything
LOWEST_RATE = 1000  # Hz; below it there is no speech, and a false header would blow a small file up to gigabytes
LOUDEST = 4.0  # lossy formats may pass full scale a little; far beyond it are other units
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf", ".opus", ".w64", ".rf64"})
GIT_LFS = b"version https://git-lfs"


def probe(path: Path | str) -> tuple[int, int]:
    """(frames, sample rate in Hz) from the header alone. Raises AudioError."""
    require_file(Path(path))
    try:
        info = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(explain(Path(path), error)) from None
    return info.frames, info.samplerate


def read(path: Path | str, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode a file to mono at `rate` Hz: float32 [S], in [-1, 1] (lossy formats may pass it slightly).

    Channels are averaged; resampling is soxr's high quality. Raises AudioError with the reason for a file that is
    missing, unreadable, empty, shorter than 0.1 s, silent throughout, or holds NaN or infinity.
    """
    path = Path(path)
    require_file(path)
    try:
        samples, source_rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(explain(path, error)) from None
    except MemoryError:
        raise AudioError(f"{path}: claims more samples than memory can hold; its header is damaged") from None
    if source_rate < LOWEST_RATE:
        raise AudioError(f"{path}: a sample rate of {source_rate} Hz, at least {LOWEST_RATE} Hz are needed")
    if samples.size:
        require_range(samples, path)
        samples = soxr.resample(samples.mean(axis=1), source_rate, rate)
    return check(samples.ravel(), rate, path)


def require_file(path: Path) -> None:
    """Raise AudioError unless `path` is a regular file: a folder cannot be read, and a pipe could wait for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        reason = "is a link to nothing" if path.is_symlink() else "no such file"
        raise AudioError(f"{path}: {reason}") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise AudioError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}, expected an audio file")


def require_range(samples: np.ndarray, path: Path) -> None:
    """Raise AudioError for NaN, infinity, or a peak that no audio in [-1, 1] has."""
    peak = float(np.abs(samples).max())  # NaN if any sample is
    if not np.isfinite(peak):
        raise AudioError(f"{path}: holds NaN or infinite samples")
    if peak > LOUDEST:
        raise AudioError(f"{path}: samples up to {peak:.3g}; floating-point audio is expected within -1 and 1")


def check(samples: np.ndarray, rate: int, path: Path | str) -> np.ndarray:
    """`samples` [S] if they can be used; raises AudioError with the reason otherwise."""
    if samples.size == 0:
        raise AudioError(f"{path}: holds no samples")
    if samples.size < SHORTEST * rate:
        raise AudioError(f"{path}: {samples.size / rate:.3f} s is too short, at least {SHORTEST} s are needed")
    if not to_int16(samples).any():
        raise AudioError(f"{path}: is silent throughout (all samples are zero at 16 bits)")
    return samples


def explain(path: Path, error: Exception) -> str:
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
    """float [-1, 1] -> int16, rounded, limited at full scale."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def to_float32(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1); the inverse of `to_int16` on every int16 value."""
    return samples.astype(np.float32) / 32768.0


def find_audio(folder: Path | str) -> list[Path]:
    """Audio files anywhere below a folder, by ending, sorted; hidden ones (`._x.wav` from macOS) left out.

    Links are followed; one that leads nowhere is listed, so that reading it tells. Raises AudioError for a closed folder.
    """
    found, visited = [], set()
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(place)) in visited:  # a link in a circle
            folders.clear()
            continue
        visited.add(real)
        paths = (Path(place, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())]
    return sorted(found)


def fail(error: OSError) -> None:
    raise AudioError(f"{error.filename}: cannot be opened ({error.strerror})")


def pad(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips of different lengths -> (float32 [B, S] padded with zeros, their samples int64 [B])."""
    samples = np.array([len(clip) for clip in clips])
    batch = np.zeros((len(clips), samples.max()), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch, samples
