"""Decode a recording block by block, so that its length does not matter."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats.channels import MIX
from speaker_invariant_ser.data.formats.identify import explain
from speaker_invariant_ser.data.formats.opening import MAX_MISSING
from speaker_invariant_ser.data.formats.reading import reader_of
from speaker_invariant_ser.errors import AudioError


@dataclass
class Recording:
    """A recording that is decoded block by block, so that its length does not matter; iterate once over its blocks.

    Attributes:
        path: The file.
        channel: As in `audio.decode`.
        notes: Defects that leave it usable, complete after the last block.
        samples: Samples at 16 kHz so far.
        extremes: Smallest and largest sample so far.
    """

    path: Path
    channel: str = MIX
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    extremes: tuple[float, float] = (np.inf, -np.inf)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield blocks of float32 samples [S] at 16 kHz.

        Raises:
            AudioError: The file cannot be decoded or is truncated; after the last block also if it is silent, constant or short.
        """
        silence = audio.LongestSilence()
        try:
            for block in self.decoded():
                silence.add(block)
                self.samples += len(block)
                low, high = self.extremes
                self.extremes = min(low, float(block.min(initial=low))), max(high, float(block.max(initial=high)))
                yield block
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioError(explain(self.path, error)) from None
        if 0 < self.samples < audio.MIN_SECONDS * audio.SAMPLE_RATE:
            seconds = self.samples / audio.SAMPLE_RATE
            raise AudioError(f"{self.path}: {seconds:.4f} s is too short, expected at least {audio.MIN_SECONDS} s")
        audio.check(np.array(self.extremes if self.samples else (), np.float32), 1, self.path, self.notes)
        self.notes += silence.notes(audio.SAMPLE_RATE)

    def decoded(self) -> Iterator[np.ndarray]:
        """Yield the blocks, resampled."""
        with reader_of(self.path) as reader:
            file = reader.opened.file
            _, frames = audio.locate(file, 0, 0, np.inf, self.path)
            self.notes += reader.opened.notes
            stream = soxr.ResampleStream(file.samplerate, audio.SAMPLE_RATE, 1, dtype="float32")
            for block in audio.mono_blocks(reader, frames, self.path, self.channel, self.notes):
                yield self.resampled(stream, file.samplerate, block, reader.position >= frames)
            missing = max(reader.opened.missing, 1 - reader.position / frames if frames and not audio.is_estimate(file) else 0)
            if missing > MAX_MISSING:
                raise AudioError(f"{self.path}: is truncated, {missing:.0%} of the audio that its header declares is missing")

    @staticmethod
    def resampled(stream: soxr.ResampleStream, rate: int, samples: np.ndarray, last: bool) -> np.ndarray:
        """Return a block at 16 kHz, rounded to 16 bits as a prepared corpus is."""
        return audio.at_16_bits(samples if rate == audio.SAMPLE_RATE else stream.resample_chunk(samples, last=last))
