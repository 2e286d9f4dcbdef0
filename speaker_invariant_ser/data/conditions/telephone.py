"""Recordings as a telephone transmits them: 300 to 3400 Hz, 8 kHz, mu-law."""

import io
from functools import cache

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.data.audio import SAMPLE_RATE

TELEPHONE_RATE = 8000  # Hz
BAND = 300.0, 3400.0  # Hz, at which the power is halved
ORDER = 4  # of the Butterworth filter at either end: 24 dB per octave


@cache
def band_filter() -> np.ndarray:
    """Return the band-pass filter as second-order sections."""
    from scipy.signal import butter  # here, because its import takes longer than predicting a recording

    return butter(ORDER, BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")


def telephone(clip: np.ndarray) -> np.ndarray:
    """Return an utterance as it arrives over a telephone line.

    The level stays, apart from the power outside the band; louder than full scale is clipped, as by any mu-law encoder.

    Args:
        clip: Float32 [S] in [-1, 1] at 16 kHz.

    Returns:
        Float32 [S] in [-1, 1] at 16 kHz.
    """
    from scipy.signal import sosfilt

    narrow = sosfilt(band_filter(), soxr.resample(clip, SAMPLE_RATE, TELEPHONE_RATE))
    coded = io.BytesIO()
    kind = {"samplerate": TELEPHONE_RATE, "format": "RAW", "subtype": "ULAW"}
    soundfile.write(coded, narrow, **kind)
    coded.seek(0)
    received, _ = soundfile.read(coded, dtype="float32", channels=1, **kind)
    wide = soxr.resample(received, TELEPHONE_RATE, SAMPLE_RATE)[: len(clip)]
    return np.clip(np.pad(wide, (0, len(clip) - len(wide))), -1, 1)
