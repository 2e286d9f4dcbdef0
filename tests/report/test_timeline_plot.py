"""The timeline of a recording: peaks, stretches that do not overlap, and a picture of them."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from speaker_invariant_ser.inference.timeline import WindowPrediction
from speaker_invariant_ser.report.palette import GREY
from speaker_invariant_ser.report.timeline import (
    Envelope,
    clock,
    draw_emotions,
    draw_probabilities,
    draw_timeline,
    runs,
    stretches,
    tick_step,
)


def window(start, end, label):
    probabilities = {name: 0.7 if name == label else 0.15 for name in ("angry", "happy", "sad")}
    return WindowPrediction(start, end, label, 0.7, probabilities)


OVERLAPPING = [window(0, 4, "angry"), window(2, 6, "angry"), window(4, 8, "sad"), window(5, 9, "happy")]
APART = [window(0, 1, "angry"), window(1, 2, "angry"), window(5, 7, "angry")]


@pytest.mark.parametrize("block", [7, 320, 5_000])
def test_an_envelope_is_the_peak_of_every_20_ms_whatever_the_blocks(block):
    samples = np.random.default_rng(0).uniform(-1, 1, 3_333).astype(np.float32)
    envelope = Envelope()
    passed = list(envelope.watch(samples[at : at + block] for at in range(0, len(samples), block)))
    times, peaks = envelope.drawn()
    assert np.array_equal(np.concatenate(passed), samples)
    assert peaks == pytest.approx([np.abs(samples[at : at + 320]).max() for at in range(0, 3_333, 320)])
    assert times[:2] == pytest.approx([0.01, 0.03])


def test_a_long_envelope_keeps_its_peaks():
    envelope = Envelope()
    samples = np.zeros(320 * 5_000, np.float32)
    samples[777_777] = -0.9
    list(envelope.watch([samples]))
    times, peaks = envelope.drawn()
    assert len(peaks) <= 2_000 and peaks.max() == np.float32(0.9)
    assert times[peaks.argmax()] == pytest.approx(777_777 / 16_000, abs=0.05)


def test_windows_that_overlap_meet_in_the_middle_and_neighbours_that_agree_are_joined():
    assert [(start, end) for start, end, _ in stretches(OVERLAPPING)] == [(0, 3), (3, 5), (5, 6.5), (6.5, 9)]
    assert runs(OVERLAPPING) == [(0, 5, "angry"), (5, 6.5, "sad"), (6.5, 9, "happy")]
    assert runs(APART) == [(0, 2, "angry"), (5, 7, "angry")]


def test_probabilities_fill_the_axis_but_for_gaps():
    axes = Figure().subplots()
    draw_probabilities(axes, APART, ["red", "green", "blue"])
    top = axes.collections[-1].get_paths()[0].vertices
    assert top[:, 1].max() == pytest.approx(1) and len(axes.collections) == 3
    assert not any(2 < time < 5 and height > 0 for time, height in top)


def test_an_emotion_has_its_own_colour_and_what_has_none_is_grey():
    axes = Figure().subplots()
    draw_emotions(axes, [window(0, 4, "sad"), replace(window(4, 8, "sad"), emotion="uncertain")], {"sad": "#ff0000"}, 8)
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == ["#ff0000", GREY]


@pytest.mark.parametrize("end", [0.3, 7, 18.2, 75, 3_599, 36_000, 1e6])
def test_ticks_are_where_their_clock_says(end):
    step = tick_step(end)
    labels = [clock(second, end) for second in np.arange(0, end, step)]
    assert step == int(step) and 1 <= len(labels) <= 11 and len(set(labels)) == len(labels)


@pytest.mark.parametrize("windows", [OVERLAPPING, []])
def test_a_picture_is_written(windows, tmp_path):
    envelope = Envelope()
    list(envelope.watch([np.ones(16_000, np.float32)]))
    draw_timeline(tmp_path / "call.png", "call.wav $x$", envelope, windows)
    assert (tmp_path / "call.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_do_not_follow_a_matplotlibrc(tmp_path):
    """Matplotlib reads one in the current folder, which may be a corpus from anybody."""
    envelope = Envelope()
    list(envelope.watch([np.ones(320, np.float32)]))
    draw_timeline(tmp_path / "plain.png", "call", envelope, APART)
    with matplotlib.rc_context({"text.usetex": True, "savefig.dpi": 1, "lines.linewidth": 9}):
        draw_timeline(tmp_path / "other.png", "call", envelope, APART)
    assert (tmp_path / "other.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
