"""The picture of what the network sees."""

import numpy as np
import pytest

from speaker_invariant_ser.config import FeaturesSection
from speaker_invariant_ser.errors import WriteError
from speaker_invariant_ser.preview import Preview, paint, ticks, write_preview

FEATURES = FeaturesSection(hop_ms=20.0, mels=24)


def rows():
    rng = np.random.default_rng(0)
    clip = lambda frames: rng.standard_normal((24, frames))  # noqa: E731
    return [
        Preview("03, anger", clip(50), [clip(45), clip(55)], ["", "then 08, joy"]),
        Preview("_名_, $joy$", clip(30), [clip(60)], [""]),
    ]


@pytest.mark.parametrize("name, begins", [("seen.png", b"\x89PNG"), ("seen.SVG", b"<?xml")])
def test_the_ending_says_what_is_written(name, begins, tmp_path):
    write_preview(tmp_path / "new" / name, rows(), FEATURES)
    assert (tmp_path / "new" / name).read_bytes().startswith(begins)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_another_ending_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*seen\.pdf: expected a name that ends in \.png or \.svg"):
        write_preview(tmp_path / "seen.pdf", rows(), FEATURES)
    assert not list(tmp_path.iterdir())


def test_each_clip_has_its_line_in_one_scale_of_colours_seconds_and_bands():
    panels = np.array(paint(rows(), FEATURES).axes[:6], dtype=object).reshape(2, 3)
    images = {place: panels[place].images[0] for place in np.ndindex(2, 3) if panels[place].images}
    assert set(images) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)} and not panels[1, 2].axison
    assert len({image.get_clim() for image in images.values()}) == 1
    assert images[0, 0].get_extent() == [0, 1.0, -0.5, 23.5] and images[1, 1].get_extent()[1] == pytest.approx(1.2)
    assert all(panel.get_xlim() == pytest.approx((0, 1.2)) for panel in panels.flat)
    assert panels[0, 0].get_title("left") == "03, anger" and panels[0, 2].get_title("left") == "then 08, joy"


@pytest.mark.parametrize("features", [FeaturesSection(), FEATURES, FeaturesSection(f_min=300, f_max=3400)])
def test_ticks_are_round_frequencies_in_their_bands(features):
    places, names = ticks(features)
    assert len(places) >= 3 and max(places) <= features.mels and min(places) >= -0.5
    assert (np.diff(places) < -0.08 * features.mels).all()
    assert "1k" in names and set(names) <= {"125", "250", "500", "1k", "2k", "4k", "8k"}
    # 1000 Hz on the mel scale of HTK is 1000 mel
    scale = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    span = scale(features.f_max) - scale(features.f_min)
    expected = (1000 - scale(features.f_min)) / span * (features.mels + 1) - 1
    assert places[names.index("1k")] == pytest.approx(expected, abs=0.01)
