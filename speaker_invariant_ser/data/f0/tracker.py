"""Tracking of F0: what is stored with a corpus, and what inference computes, is what `compute_f0` returns."""

import hashlib
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speaker_invariant_ser.data.f0.frames import HOP, frames_of

if TYPE_CHECKING:
    from speaker_invariant_ser.data.f0.network import SwiftF0

TRACKER_VERSION = "swift-f0 0.3.0"  # where the weights are from; F0 depends on it
TRACKER_LICENCE = Path(__file__).with_name("LICENSE-swift-f0")  # MIT, of the weights
F0_RANGE = 60.0, 600.0  # Hz, of human speech; anything else counts as unvoiced
PEAK = 0.5  # peak amplitude that an utterance is scaled to before tracking, because the silence threshold is absolute
SILENCE = 1e-3  # peak amplitude of a frame, below which it is unvoiced: the network has seen no silence
BLOCK = 512  # frames that are tracked at once
BEFORE, AFTER = 11, 10  # frames around a block that its results depend on
REMEMBERED = 8192  # utterances whose F0 a process keeps: each fold and each control of an evaluation asks for the same ones


@cache
def network() -> "SwiftF0":
    """Return the network of this process."""
    from speaker_invariant_ser.data.f0.network import SwiftF0  # imports torch, which few commands need

    return SwiftF0()


def compute_f0(clip: np.ndarray) -> np.ndarray:
    """Track the fundamental frequency of an utterance.

    Args:
        clip: Float32 [S] in [-1, 1] at 16 kHz, S at least 1.

    Returns:
        Float32 [2, 1 + S // 256]: F0 in Hz, and the confidence that the frame is voiced, 0 to 1. Frame t is centred on sample
        256 t, as log-mel frames with a hop of 16 ms are. F0 is 0 where none between 60 and 600 Hz was found. Digital silence
        is unvoiced.
    """
    frames = frames_of(len(clip))
    peak = np.abs(clip).max()
    if peak == 0:
        return np.zeros((2, frames), dtype=np.float32)
    scaled = np.pad(clip.astype(np.float32) * np.float32(PEAK / peak), (0, HOP))  # for a last frame, as log-mels have it
    pitch, confidence = track(scaled)
    silent = np.abs(scaled[: frames * HOP]).reshape(frames, HOP).max(axis=1) < SILENCE
    low, high = F0_RANGE
    f0 = np.where((pitch > low) & (pitch < high), pitch, 0)
    return np.stack((f0, np.where(silent, 0, confidence))).astype(np.float32)


def track(samples: np.ndarray) -> np.ndarray:
    """Return pitch in Hz and confidence [2, S // 256] of samples [S], block by block: memory does not depend on their number."""
    import torch

    frames, blocks = len(samples) // HOP, []
    for start in range(0, frames, BLOCK):
        end, first = min(start + BLOCK, frames), max(0, start - BEFORE)
        block = samples[first * HOP : (end + AFTER) * HOP if end < frames else None]
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            blocks.append(torch.stack(network()(torch.from_numpy(block)))[:, start - first : end - first])
    return torch.cat(blocks, dim=1).numpy()


@cache
def remembered() -> OrderedDict[bytes, np.ndarray]:
    """Return the results that this process keeps, by the hash of the samples, the latest last."""
    return OrderedDict()


def track_f0(clip: np.ndarray) -> np.ndarray:
    """Return what `compute_f0` returns for an utterance; the results for the latest utterances are kept."""
    results, key = remembered(), hashlib.blake2b(np.ascontiguousarray(clip).data, digest_size=16).digest()
    if key not in results:
        results[key] = compute_f0(clip)
    results.move_to_end(key)
    if len(results) > REMEMBERED:
        results.popitem(last=False)
    return results[key].copy()
