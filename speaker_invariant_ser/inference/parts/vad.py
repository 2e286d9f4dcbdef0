"""Find speech in a recording, with silero-vad (extra `vad`), whose weights are part of its package."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import SetupError

FRAME = 512  # samples, the length that the model needs at 16 kHz
PAUSE = 0.5  # seconds; a shorter silence does not end a stretch of speech
MIN_SPEECH = 0.25  # seconds; shorter stretches are clicks and breaths


@lru_cache(maxsize=1)
def model() -> Any:
    """Load the model.

    Raises:
        SetupError: silero-vad is not installed.
    """
    try:
        from silero_vad import load_silero_vad
    except ImportError:
        raise SetupError(
            "finding speech needs silero-vad: pip install 'speaker-invariant-ser[vad]', or give segments by --segments"
        ) from None
    return load_silero_vad(onnx=True)


def speech(blocks: Iterable[np.ndarray]) -> Iterator[tuple[float, float]]:
    """Yield (start, end) of each stretch of speech, seconds; memory does not grow with the length.

    Args:
        blocks: The recording in blocks, float32 [S] at 16 kHz.

    Raises:
        SetupError: silero-vad is not installed.
    """
    loaded = model()
    from silero_vad import VADIterator

    detector = VADIterator(loaded, sampling_rate=SAMPLE_RATE, min_silence_duration_ms=round(1000 * PAUSE))
    start, total = None, 0
    for frame in frames(blocks):
        total += len(frame)
        event = detector(torch.from_numpy(np.pad(frame, (0, FRAME - len(frame))))) or {}
        start = event.get("start", start)
        if start is not None and "end" in event:
            yield from stretch(start, min(event["end"], total))
            start = None
    if start is not None:
        yield from stretch(start, total)


def stretch(start: int, end: int) -> Iterator[tuple[float, float]]:
    """Yield a stretch of speech in seconds, unless it is too short."""
    if end - start >= MIN_SPEECH * SAMPLE_RATE:
        yield start / SAMPLE_RATE, end / SAMPLE_RATE


def frames(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the samples of blocks in frames of `FRAME` samples, the last one shorter."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        joined = np.concatenate([rest, block])
        whole = len(joined) // FRAME * FRAME
        yield from joined[:whole].reshape(-1, FRAME)
        rest = joined[whole:]
    if rest.size:
        yield rest
