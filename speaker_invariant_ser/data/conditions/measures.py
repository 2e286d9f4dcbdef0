"""Numbers that describe the recording conditions of an utterance: duration, level, bandwidth, clipping and noise."""

import numpy as np

from speaker_invariant_ser.data.audio import FULL_SCALE, SAMPLE_RATE, to_int16

FFT, WINDOWS, BANDS = 512, 16, 32  # samples of a spectrum, spectra of an utterance, and bands of 250 Hz
HANNING = np.hanning(FFT)
BAND_FLOOR = 1e-6  # -60 dB
NEAR_PEAK = 0.98  # of the largest sample: what counts as clipped; resampling moves clipped samples by as much
MIN_POWER = 1e-10  # of a quiet part of a long utterance
FRAME = 256  # samples whose power is compared: 16 ms
EXCERPT = 30 * SAMPLE_RATE  # samples; of a longer utterance, MAX_EXCERPTS such parts are measured
MAX_EXCERPTS = 10
QUIET, LOUD = 10, 95  # percentiles of the frames' levels whose difference is the dynamic range


def measure(clip: np.ndarray) -> dict[str, float]:
    """Measure the recording conditions of an utterance.

    Args:
        clip: Samples at 16 kHz, int16 or float32 in [-1, 1], [S], not all zero. Of a long utterance, parts are measured.

    Returns:
        `seconds`; `level`, RMS in dB of full scale; `bandwidth` in Hz; `clipped`, the share of samples near the peak; `range`,
        how far the quiet frames are below the loud ones in dB, which noise reduces (NaN for an utterance without two frames).
    """
    excerpt = to_int16(excerpt_of(clip))
    samples = excerpt.astype(np.float32) / np.float32(FULL_SCALE)
    magnitude = np.abs(samples)
    return {
        "seconds": len(clip) / SAMPLE_RATE,
        "level": 10 * float(np.log10(max(np.mean(samples**2), MIN_POWER))),
        "bandwidth": bandwidth(excerpt),
        "clipped": float(np.mean(magnitude >= NEAR_PEAK * magnitude.max())),
        "range": dynamic_range(samples),
    }


def excerpt_of(clip: np.ndarray) -> np.ndarray:
    """Return an utterance, or parts of a long one that are evenly spaced, so that measuring takes little memory."""
    if len(clip) <= EXCERPT * MAX_EXCERPTS:
        return clip
    starts = np.linspace(0, len(clip) - EXCERPT, MAX_EXCERPTS).astype(int)
    return np.concatenate([clip[start : start + EXCERPT] for start in starts])


def bandwidth(clip: np.ndarray) -> float:
    """Return the frequency in Hz above which an utterance, int16 [S], has no more than BAND_FLOOR of its strongest band's energy.

    Windows with samples at full scale are left out, unless all have some: resampling a loud utterance of a lower rate overshoots,
    and what is cut off there sounds up to half the sample rate.
    """
    padded = clip if len(clip) >= FFT else np.pad(clip, (0, FFT - len(clip)))
    starts = np.linspace(0, len(padded) - FFT, WINDOWS).astype(int)
    windows = padded[starts[:, None] + np.arange(FFT)]
    below_full_scale = (windows.max(axis=1) < FULL_SCALE - 1) & (windows.min(axis=1) > -FULL_SCALE)
    if below_full_scale.any():
        windows = windows[below_full_scale]
    power = (np.abs(np.fft.rfft((windows * HANNING).astype(np.float32), axis=1)) ** 2).mean(axis=0)[1:]
    bands = power.reshape(BANDS, -1).mean(axis=1)
    present = np.flatnonzero(bands > BAND_FLOOR * bands.max())
    return (present[-1] + 1) * SAMPLE_RATE / 2 / BANDS if len(present) else 0.0


def dynamic_range(samples: np.ndarray) -> float:
    """Return the level of the loud frames minus that of the quiet ones, dB, without frames of digital silence."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(frames).mean(axis=1)
    power = power[power > 0]
    if len(power) < 2:
        return float("nan")
    quiet, loud = np.percentile(10 * np.log10(power), (QUIET, LOUD))
    return float(loud - quiet)
