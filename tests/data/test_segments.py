"""A segment has the samples of the same stretch of the whole file, in every format, whatever was read before."""

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.formats import reading

RATE, SECONDS, SEGMENTS = 16_000, 6.0, 20
FORMATS = {
    "a.wav": {"subtype": "PCM_16"},
    "b.wav": {"subtype": "PCM_24"},
    "c.wav": {"subtype": "FLOAT"},
    "d.wav": {"subtype": "ULAW"},
    "e.wav": {"subtype": "IMA_ADPCM"},
    "f.wav": {"subtype": "MS_ADPCM"},
    "g.wav": {"subtype": "GSM610", "mono": True},
    "h.wav": {"subtype": "NMS_ADPCM_32", "mono": True},
    "a.au": {"subtype": "G721_32", "mono": True},
    "a.flac": {},
    "a.aiff": {"subtype": "ALAW"},
    "a.caf": {"subtype": "ALAC_16"},
    "a.ogg": {"subtype": "VORBIS"},
    "b.ogg": {"subtype": "OPUS"},
    "constant.mp3": {"bitrate_mode": "CONSTANT"},
    "average.mp3": {"bitrate_mode": "AVERAGE"},
    "variable.mp3": {"bitrate_mode": "VARIABLE"},
}


def bursts(channels: int) -> np.ndarray:
    """Return tones with bursts of noise, between which MP3 changes the length of its blocks."""
    rng, times = np.random.default_rng(0), np.arange(int(SECONDS * RATE)) / RATE
    tones = [
        0.2 * np.sin(2 * np.pi * np.cumsum(200 + 90 * np.sin(2 * np.pi * (0.37 + n) * times)) / RATE) for n in range(channels)
    ]
    noise = 0.05 * rng.standard_normal(len(times)) * (np.sin(2 * np.pi * 2.1 * times) > 0)
    return np.stack(tones, axis=1) + noise[:, None]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", FORMATS)
def test_a_segment_equals_the_same_stretch_of_the_whole(tmp_path, monkeypatch, name, channels):
    options = dict(FORMATS[name])
    if options.pop("mono", False) and channels > 1:
        return
    soundfile.write(tmp_path / name, bursts(channels), RATE, **options)
    monkeypatch.setattr(reading, "BLOCK", 5000)  # the whole is one block, or several: both are the same
    whole = audio.decode(tmp_path / name).samples
    monkeypatch.setattr(audio, "BLOCK", 7000)
    assert np.array_equal(audio.decode(tmp_path / name).samples, whole)
    rng = np.random.default_rng(len(name))
    for start, seconds in zip(rng.uniform(0, SECONDS - 1, SEGMENTS), rng.uniform(0.05, 1, SEGMENTS), strict=True):
        first, last = round(start * RATE), round((start + seconds) * RATE)
        assert np.array_equal(audio.decode(tmp_path / name, start, start + seconds).samples, whole[first:last]), (start, seconds)


@pytest.mark.parametrize("name", ["constant.mp3", "variable.mp3", "a.ogg", "b.ogg"])
def test_what_is_decoded_is_the_sound_that_was_written(tmp_path, name):
    rate = 48_000 if name == "b.ogg" else 44_100
    source = np.repeat(bursts(1)[:, 0], 3)[: int(SECONDS * rate)] * np.hanning(int(SECONDS * rate))
    soundfile.write(tmp_path / name, source, rate, **FORMATS[name])
    for start in (0.0, 2.0, 4.5):
        first, last = round(start * rate), round((start + 1) * rate)
        segment = audio.decode(tmp_path / name, start, start + 1).samples
        assert np.corrcoef(segment, source[first:last])[0, 1] > 0.9, start
        assert segment[: rate // 50].any(), "a segment that begins with zeros was not decoded from the beginning"


def test_a_file_that_changes_is_read_anew(tmp_path):
    for level in (0.5, 0.25):
        soundfile.write(tmp_path / "a.wav", np.full(RATE * (2 if level == 0.5 else 3), level), RATE, subtype="FLOAT")
        assert np.all(audio.decode(tmp_path / "a.wav", 0.5, 1.0).samples == level)
    with pytest.raises(audio.AudioError, match="no segment from 5 to 6 s.*; start and end are in seconds"):
        audio.decode(tmp_path / "a.wav", 5, 6)
    assert np.all(audio.decode(tmp_path / "a.wav", 0.5, 1.0).samples == 0.25)
