"""Classes of a plot stay apart for people with any kind of dichromacy, simulated as by Machado, Oliveira and Fernandes (2009)."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from speaker_invariant_ser.report.figure import Plot, save
from speaker_invariant_ser.report.palette import COLOURS, MAX_CLASSES, class_style
from speaker_invariant_ser.report.plots import plot_adversary_losses, plot_map

VISION = {  # of linear RGB, at severity 1
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ),
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
SAME_MARKER, LINES = 35, 24  # smallest distances in CIELAB; 2.3 is just noticeable
FORMER = ("#3f80a8", "#c25b3f", "#64913f", "#8f6fb0", "#a9822b", "#2f9488", "#b9608a", "#7c8791")


def seen(colour: str, vision: str) -> np.ndarray:
    """CIELAB of a colour as it looks with this vision, on a display with the white point D65."""
    part = np.array(to_rgb(colour))
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(VISION[vision] @ linear, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def closest(styles: list[tuple[str, str]], vision: str) -> float:
    """Smallest distance of the colours of two different styles with the same marker."""
    pairs = [(a, b) for (a, marker), (b, other) in combinations(styles, 2) if marker == other]
    return min(float(np.linalg.norm(seen(a, vision) - seen(b, vision))) for a, b in pairs)


def test_the_simulation_is_right_at_known_colours():
    assert seen("#ffffff", "normal") == pytest.approx([100, 0, 0], abs=0.02)
    assert seen("#ff0000", "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert closest([("#ff0000", "o"), ("#00ff00", "o")], "normal") == pytest.approx(170.6, abs=0.1)
    for vision in VISION:
        assert seen("#808080", vision)[1:] == pytest.approx([0, 0], abs=0.1), "a dichromat's grey is grey"


@pytest.mark.parametrize("vision", VISION)
def test_eight_emotions_with_the_same_marker_stay_apart(vision):
    styles = [class_style(index) for index in range(8)]
    assert closest(styles, vision) > SAME_MARKER
    assert closest([(colour, "o") for colour, _ in styles[:4]], vision) > LINES, "lines have no markers"


def test_the_former_palette_would_not_have_passed():
    assert closest([(colour, "o") for colour in FORMER], "deuteranopia") < 5


def test_every_class_has_a_style_of_its_own():
    assert len({class_style(index) for index in range(MAX_CLASSES)}) == MAX_CLASSES == 32
    assert class_style(MAX_CLASSES) == class_style(0)


def test_the_embedding_map_draws_each_emotion_in_its_style(tmp_path):
    emotions = np.array(["angry", "bored", "fear", "happy", "neutral", "sad", "surprise", "calm"])
    axes = Figure().subplots()
    plot_map(axes, np.arange(16.0).reshape(8, 2), emotions)
    drawn = [(line.get_color(), line.get_marker()) for line in axes.lines]
    assert drawn == [class_style(index) for index in range(8)]
    texts = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert texts == sorted(emotions)
    assert "angry" in save(Plot("map", "a map", lambda axes: plot_map(axes, np.zeros((8, 2)), emotions)), tmp_path)


def test_curves_of_several_runs_differ_in_marker_as_well():
    axes = Figure().subplots()
    plot_adversary_losses(axes, {f"run{number}": [1.0, 2.0, 1.5] for number in range(len(COLOURS))}, [1.9])
    drawn = [(line.get_color(), line.get_marker()) for line in axes.lines[: len(COLOURS)]]
    assert drawn == [class_style(index) for index in range(len(COLOURS))]
