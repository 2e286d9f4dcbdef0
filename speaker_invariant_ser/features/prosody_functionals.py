"""22 numbers that describe how an utterance is said, relative to the utterance itself: the input of the prosody baseline.

F0 comes from `data.f0`, everything else from a log-mel spectrogram of 40 bands every 16 ms. Every number is relative to
the utterance's own median, mean or level, or is a rate or a share. The levels of F0 and of the recording are left out: they
identify the speaker. The utterance is scaled to a peak of 0.5 first, so that the floor of the log-mel lies equally far below the
peak of every utterance.

Tolerances: a change of level by 10 dB without clipping or rounding changes every number by less than 1e-4. A shift of pitch by 3
semitones under the same spectral envelope changes F0 numbers by less than 0.2 semitones, voicing and durations by less than 0.05,
and level and tilt by less than 0.5 nepers, since the harmonics move between the bands.
"""

import numpy as np
import torch

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.f0.frames import HOP
from speaker_invariant_ser.data.f0.tracker import PEAK
from speaker_invariant_ser.features.log_mel import LogMel
from speaker_invariant_ser.features.prosody import VOICED
from speaker_invariant_ser.recipe import FeaturesSection

BANDS, LOW_BANDS = 40, 14  # mel bands, and how many of them lie below 1 kHz: their power ratio is the spectral tilt
MIN_VOICED = 6  # frames, below which F0 has no statistics
REFERENCE_HZ = 100.0  # of semitones; cancels in every number
FRAME_SECONDS = HOP / SAMPLE_RATE

PROSODY = {  # name -> meaning and unit
    "f0_deviation": "standard deviation of F0, semitones",
    "f0_range": "5th to 95th percentile of F0, semitones",
    "f0_change": "mean absolute change of F0 between successive voiced frames, semitones",
    "f0_change_deviation": "standard deviation of the change of F0 between successive voiced frames, semitones",
    "f0_skewness": "skewness of F0",
    "f0_above_median": "90th percentile minus median of F0, semitones",
    "f0_below_median": "median minus 10th percentile of F0, semitones",
    "f0_trend": "slope of a line through F0 over the voiced frames, semitones from first to last",
    "level_deviation": "standard deviation of the level, nepers of power (the mean log-mel over bands)",
    "level_range": "5th to 95th percentile of the level, nepers",
    "level_change": "mean absolute change of the level between frames, nepers",
    "level_change_deviation": "standard deviation of the change of the level between frames, nepers",
    "level_skewness": "skewness of the level",
    "level_trend": "slope of a line through the level, nepers from first to last frame",
    "tilt_deviation": "standard deviation of the spectral tilt, the log power ratio of the bands below and above 1 kHz, nepers",
    "tilt_change": "mean absolute change of the spectral tilt between frames, nepers",
    "confidence_deviation": "standard deviation of the tracker's confidence that a frame is voiced",
    "voiced_share": "share of voiced frames",
    "voiced_duration": "mean duration of voiced stretches, seconds",
    "voiced_duration_deviation": "standard deviation of the durations of voiced stretches, seconds",
    "pause_duration": "mean duration of the unvoiced stretches between voiced ones, seconds",
    "voiced_rate": "voiced stretches per second",
}


def log_mel(clip: np.ndarray) -> np.ndarray:
    """Compute the log-mel spectrogram of an utterance scaled to a peak of 0.5.

    Args:
        clip: Float32 [S] in [-1, 1] at 16 kHz, S at least 1.

    Returns:
        Natural logarithm of mel power, float64 [40, T], every 16 ms, T = 1 + S // 256.
    """
    peak = np.abs(clip).max()
    scaled = clip.astype(np.float32) * np.float32(PEAK / peak) if peak > 0 else clip.astype(np.float32)
    front_end = LogMel(FeaturesSection(mels=BANDS, hop_ms=1000 * FRAME_SECONDS), SAMPLE_RATE)
    with torch.inference_mode():
        mels, _ = front_end(torch.from_numpy(scaled)[None], torch.tensor([len(scaled)]))
    return mels[0].numpy().astype(np.float64)


def prosody_functionals(clip: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """Compute the 22 numbers of an utterance.

    With fewer than six voiced frames all F0 numbers are 0; digital silence gives 0 throughout. Changes of F0 are taken between
    voiced frames that follow each other, across pauses too.

    Args:
        clip: Float32 [S] in [-1, 1] at 16 kHz, S at least 1.
        f0: F0 in Hz and confidence, [2, T], as `data.f0.tracker.compute_f0` returns them.

    Returns:
        The numbers in the order of PROSODY, float64 [22], finite for any utterance.
    """
    frequency, confidence = f0[0].astype(np.float64), f0[1].astype(np.float64)
    voiced = (confidence >= VOICED) & (frequency > 0)
    semitones = 12 * np.log2(frequency[voiced] / REFERENCE_HZ) if voiced.sum() >= MIN_VOICED else np.zeros(MIN_VOICED)
    mels = log_mel(clip)
    tilt = np.logaddexp.reduce(mels[:LOW_BANDS], axis=0) - np.logaddexp.reduce(mels[LOW_BANDS:], axis=0)
    return np.array(
        [
            *f0_numbers(semitones),
            *level_numbers(mels.mean(axis=0)),
            tilt.std(),
            mean_change(tilt),
            confidence.std(),
            *rhythm_numbers(voiced, len(clip) / SAMPLE_RATE),
        ]
    )


def f0_numbers(semitones: np.ndarray) -> list[float]:
    """Return the eight F0 numbers from the voiced frames [V]."""
    p5, p10, median, p90, p95 = np.percentile(semitones, [5, 10, 50, 90, 95])
    change = np.diff(semitones)
    return [
        semitones.std(),
        p95 - p5,
        mean_change(semitones),
        change.std(),
        skewness(semitones),
        p90 - median,
        median - p10,
        trend(semitones),
    ]


def level_numbers(level: np.ndarray) -> list[float]:
    """Return the six level numbers from the level of each frame [T]."""
    low, high = np.percentile(level, [5, 95])
    change = np.diff(level)
    deviation = float(change.std()) if len(change) else 0.0
    return [level.std(), high - low, mean_change(level), deviation, skewness(level), trend(level)]


def rhythm_numbers(voiced: np.ndarray, seconds: float) -> list[float]:
    """Return share, durations and rate of voiced stretches from a mask of voiced frames [T] and the utterance's duration."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], voiced.astype(int), [0]))))
    lengths = np.diff(edges) * FRAME_SECONDS  # voiced and unvoiced stretches in turn, the first and the last voiced
    stretches, pauses = lengths[::2], lengths[1::2]
    return [
        float(voiced.mean()),
        float(stretches.mean()) if len(stretches) else 0.0,
        float(stretches.std()) if len(stretches) else 0.0,
        float(pauses.mean()) if len(pauses) else 0.0,
        len(stretches) / seconds,
    ]


def mean_change(values: np.ndarray) -> float:
    """Return the mean absolute change from value to value; 0 for a single value."""
    return float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0


def skewness(values: np.ndarray) -> float:
    """Return the skewness; 0 where the values do not differ."""
    deviation = values.std()
    return float((((values - values.mean()) / deviation) ** 3).mean()) if deviation > 1e-9 else 0.0


def trend(values: np.ndarray) -> float:
    """Return the slope of a line through values from 0 to 1; 0 for a single value.

    >>> round(trend(np.array([1.0, 2.0, 3.0])), 6)
    2.0
    """
    position = np.linspace(-0.5, 0.5, len(values)) if len(values) > 1 else np.zeros(1)
    return float(position @ values / max(position @ position, 1e-12))
