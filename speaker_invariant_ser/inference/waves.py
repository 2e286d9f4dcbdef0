"""Waveforms and files as a model gets them: one channel, 16 kHz, rounded to 16 bits, with notes about defects.

Shapes: S samples.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats.channels import MIX, Mixing, require_choice
from speaker_invariant_ser.errors import AudioError, SerError
from speaker_invariant_ser.inference.inputs import Input, decode
from speaker_invariant_ser.inference.timeline import checked, checked_rate


def clip_of_file(path: Path | str, channel: str = MIX) -> tuple[np.ndarray, Sequence[str]]:
    """Return a recording as float32 [S] at 16 kHz, and notes about defects that leave it usable."""
    decoded = decode(0, Input(Path(path)), require_choice(channel))
    if isinstance(decoded.clip, AudioError):
        raise decoded.clip
    return decoded.clip, decoded.notes


def clip_of(wave: object, rate: object, name: str = "the wave") -> tuple[np.ndarray, Sequence[str]]:
    """Return a waveform as float32 [S] at 16 kHz, and notes about defects that leave it usable.

    Args:
        wave: One channel [S], or several [channels, S].
        rate: Its sample rate in Hz.
        name: What error messages call it.

    Raises:
        SerError: It is no audio.
    """
    rate = checked_rate(rate)
    channels = channels_of(wave, name)
    notes = next((found for samples in channels if (found := audio.clipping(samples))), [])
    if len(channels) > 1:
        mixing = Mixing(len(channels))
        samples = mixing.add(np.stack(channels, axis=1))
        notes = [*notes, *audio.offset_notes(samples), *mixing.notes()]
    else:
        samples = channels[0]
        notes = [*notes, *audio.offset_notes(samples)]
    clip = audio.at_16_bits(audio.resample(audio.Decoded(samples, rate), audio.SAMPLE_RATE))
    clip = audio.check(clip, audio.SAMPLE_RATE, name, notes)
    return clip, [*notes, *audio.silence_notes(clip, audio.SAMPLE_RATE)]


def channels_of(wave: object, name: str) -> list[np.ndarray]:
    """Return the channels of a waveform, float32 [S] each."""
    try:
        samples = np.asarray(wave)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors that require a gradient or are on a GPU
        raise SerError(f"{name} is no array of samples: {error}") from None
    rows = samples[None] if samples.ndim == 1 else samples
    if rows.ndim != 2 or not 1 <= len(rows) <= max(1, rows.shape[1]):
        raise SerError(
            f"{name} has the shape {list(samples.shape)}: expected [S], or [channels, S], the transpose of what soundfile reads"
        )
    return [np.ascontiguousarray(checked(row, f"samples of {name}")) for row in rows]
