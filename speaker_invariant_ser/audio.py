"""Any format libsndfile reads -> mono float32 at the target rate. No torch."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.errors import AudioError

SAMPLE_RATE = 16_000  # Hz, of everything after `prepare`
SHORTEST = 0.1  # seconds; below it there are too few frames to say anything
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf", ".opus", ".w64", ".rf64"})
GIT_LFS = b"version https://git-lfs"


def probe(path: Path | str) -> tuple[int, int]:
    """(frames, sample rate in Hz) from the header alone. Raises AudioError."""
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
    try:
        samples, source_rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(explain(path, error)) from None
    except MemoryError:
        raise AudioError(f"{path}: claims more samples than memory can hold; its header is damaged") from None
    return check(soxr.resample(samples.mean(axis=1), source_rate, rate) if samples.size else samples[:, 0], rate, path)


def check(samples: np.ndarray, rate: int, path: Path | str) -> np.ndarray:
    """`samples` [S] if they can be used; raises AudioError with the reason otherwise."""
    if samples.size == 0:
        raise AudioError(f"{path}: holds no samples")
    if samples.size < SHORTEST * rate:
        raise AudioError(f"{path}: {samples.size / rate:.3f} s is too short, at least {SHORTEST} s are needed")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds NaN or infinite samples")
    if not samples.any():
        raise AudioError(f"{path}: is silent throughout (all samples are zero)")
    return samples


def explain(path: Path, error: Exception) -> str:
    """Why a file could not be decoded, in words a user can act on."""
    if not path.exists():
        return f"{path}: no such file"
    if path.is_dir():
        return f"{path}: is a folder, expected an audio file"
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
    """Audio files anywhere below a folder, by ending, sorted; hidden ones (`._x.wav` from macOS) left out."""
    files = Path(folder).rglob("*")
    return sorted(f for f in files if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file())


def pad(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips of different lengths -> (float32 [B, S] padded with zeros, their samples int64 [B])."""
    samples = np.array([len(clip) for clip in clips])
    batch = np.zeros((len(clips), samples.max()), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch, samples
