"""Windows of long recordings: nothing is lost at the end, and blocks, batches and resampling do not change the numbers."""

import numpy as np
import pytest
import soundfile
import soxr
from conftest import RATE, tone

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.errors import AudioError, SerError
from speaker_invariant_ser.inference.parts.recording import Recording
from speaker_invariant_ser.inference.parts.windows import Cutter, cut, to_samples
from speaker_invariant_ser.inference.predict import mean_outputs
from speaker_invariant_ser.inference.timeline import StreamingClassifier, timeline
from speaker_invariant_ser.models.model import load_model


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained.trained_models()[0].folder)


@pytest.fixture(scope="module")
def long_clip():
    """About 11 s."""
    parts = [tone(f"0{number % 6 + 1}", ("rising", "falling", "level")[number % 3], "abcd"[number % 4]) for number in range(24)]
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 13, 14, 20, 23, 24, 100])
@pytest.mark.parametrize("window, hop", [(10, 4), (10, 10), (10, 1), (7, 3)])
@pytest.mark.parametrize("block", [1, 3, 50])
def test_windows_begin_at_multiples_of_the_hop_and_the_last_ends_with_the_audio(total, window, hop, block):
    samples = np.arange(total, dtype=np.float32)
    cuts = list(cut((samples[at : at + block] for at in range(0, total, block)), window, hop))
    starts = [*range(0, total - window + 1, hop)] if total >= window else [0] * (total > 0)
    if total > window and starts[-1] + window < total:
        starts.append(total - window)
    assert [each.start for each in cuts] == starts
    assert all(np.array_equal(each.clip, samples[each.start : each.start + window]) for each in cuts)


def test_no_more_is_kept_than_a_window_a_hop_and_a_block():
    cutter, kept = Cutter(1000, 400), []
    for _ in range(300):
        cutter.push(np.zeros(70, np.float32))
        kept.append(sum(map(len, cutter.blocks)))
    assert max(kept) <= 1000 + 400 + 70


@pytest.mark.parametrize(
    "window, hop, message",
    [(0.2, 0.1, "window of 0.2 s: expected 0.5 to 30 s"), (31, 1, "window of 31 s"), (4, 0, "hop of 0 s"), (4, 5, "hop of 5 s")],
)
def test_windows_out_of_range_are_refused(window, hop, message):
    with pytest.raises(SerError, match=message):
        to_samples(window, hop)


def test_a_timeline_has_the_probabilities_of_its_windows_alone(model, long_clip):
    windows = list(timeline([model], [long_clip], window=1.5, hop=0.5))
    assert windows[-1].end == len(long_clip) / RATE and windows[-1].end - windows[-1].start == 1.5
    for window in windows[:: max(1, len(windows) // 4)]:
        clip = long_clip[round(window.start * RATE) : round(window.end * RATE)]
        alone = mean_outputs([model], [clip])[0][0]
        np.testing.assert_allclose(list(window.probabilities.values()), alone, atol=1e-5)
        assert window.emotion == model.labels[int(alone.argmax())] and window.confidence == max(window.probabilities.values())


@pytest.mark.parametrize("block", [1, 640, 50_000])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_stream_has_the_windows_of_the_file(model, long_clip, tmp_path, block, rate):
    clip = long_clip[: 16_000 * (2 if block == 1 else 8)]
    soundfile.write(tmp_path / "long.wav", soxr.resample(clip, RATE, rate), rate, subtype="PCM_16")
    samples = soundfile.read(tmp_path / "long.wav", dtype="int16")[0]
    classifier, streamed = StreamingClassifier(model, window=1.5, hop=0.7), []
    for at in range(0, len(samples), block):
        streamed += classifier.push(samples[at : at + block], rate)
    streamed += classifier.finish()
    recording = Recording(tmp_path / "long.wav")
    offline = list(timeline([model], recording, window=1.5, hop=0.7))
    assert [(window.start, window.end, window.emotion) for window in streamed] == [
        (window.start, window.end, window.emotion) for window in offline
    ]
    assert recording.samples == len(soxr.resample(samples.astype(np.float32), rate, RATE))
    for one, other in zip(streamed, offline, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_window_is_predicted_as_soon_as_its_last_sample_is_there(model, long_clip):
    classifier = StreamingClassifier(model, window=1.0, hop=0.5)
    assert classifier.push(long_clip[:15_999], RATE) == []
    (first,) = classifier.push(long_clip[15_999:16_000], RATE)
    assert (first.start, first.end) == (0.0, 1.0)


@pytest.mark.parametrize(
    "samples, message",
    [
        (np.zeros((10, 2), np.float32), r"shape \(10, 2\): expected one channel"),
        (np.zeros(10, np.int32), "type int32: expected int16"),
        (np.full(10, np.nan), "samples up to nan"),
        (np.full(10, 20_000.0), r"samples up to 2e\+04"),
    ],
)
def test_a_stream_refuses_what_is_no_audio(model, samples, message):
    with pytest.raises(SerError, match=message):
        StreamingClassifier(model).push(samples, RATE)


def test_a_stream_refuses_another_sample_rate(model):
    classifier = StreamingClassifier(model)
    assert classifier.finish() == []
    classifier.push(np.zeros(100, np.float32), 8000)
    with pytest.raises(SerError, match="16000 Hz after 8000 Hz"):
        classifier.push(np.zeros(100, np.float32), 16_000)


@pytest.mark.parametrize("channel", ["mix", "left"])
def test_blocks_of_a_recording_are_its_decoded_samples(long_clip, tmp_path, monkeypatch, channel):
    """Of several blocks, at another rate and with two channels; a defect is noted once."""
    monkeypatch.setattr("speaker_invariant_ser.data.audio.BLOCK", 5_000)
    loud = np.clip(30 * soxr.resample(long_clip, RATE, 22_050), -1, 1)
    soundfile.write(tmp_path / "x.flac", np.stack([loud, loud[::-1]], 1), 22_050)
    decoded = audio.decode(tmp_path / "x.flac", channel=channel)
    recording = Recording(tmp_path / "x.flac", channel)
    expected = audio.at_16_bits(audio.resample(decoded, RATE))  # a value between two of 16 bits may become either
    np.testing.assert_allclose(np.concatenate(list(recording)), expected, atol=1.01 / 2**15)
    assert [note.split(":")[0] for note in recording.notes][:1] == ["clipped"] and len(recording.notes) <= 2
    assert recording.notes == list(audio.decode(tmp_path / "x.flac", channel=channel).notes)


@pytest.mark.parametrize(
    "samples, message",
    [(np.zeros(RATE), "is silent"), (np.full(160, 0.5), "0.0100 s is too short"), (np.zeros(0), "contains no samples")],
)
def test_a_recording_that_cannot_be_used_is_an_error(samples, message, tmp_path):
    soundfile.write(tmp_path / "x.wav", samples, RATE)
    with pytest.raises(AudioError, match=message):
        list(Recording(tmp_path / "x.wav"))


def test_a_truncated_recording_is_an_error(long_clip, tmp_path):
    soundfile.write(tmp_path / "x.wav", long_clip, RATE)
    data = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="is truncated, 50%"):
        list(Recording(tmp_path / "x.wav"))
