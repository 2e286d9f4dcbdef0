"""The picture of what the network sees."""

import re

import numpy as np
import pytest
from conftest import EMOTIONS

from speaker_invariant_ser.errors import WriteError
from speaker_invariant_ser.recipe import AugmentSection, FeaturesSection
from speaker_invariant_ser.report.augmentation_preview import Preview, paint, sights, ticks, write_preview

FEATURES = FeaturesSection(hop_ms=20.0, mels=24)


def rows():
    rng = np.random.default_rng(0)
    clip = lambda frames: rng.standard_normal((24, frames))  # noqa: E731
    return [
        Preview("03, anger", clip(50), [clip(45), clip(55)], ["", "then 08, joy"]),
        Preview("_名_, $joy$", clip(30), [clip(60)], [""]),
    ]


def still(tiny, **changes):
    """The recipe for the tones without augmentation but for `changes`."""
    off = dict.fromkeys(("tempo", "warp", "equaliser_db"), 0.0) | dict.fromkeys(("frequency_masks", "time_masks"), 0)
    return tiny.model_copy(update={"augment": AugmentSection(**off, **changes)})


def test_without_augmentation_the_network_sees_the_clips_as_they_are(tiny, prepared):
    """Six of the training speakers' clips, two of each emotion and of each speaker."""
    seen = sights(still(tiny), prepared)
    speakers, emotions = zip(*(one.title.split(", ") for one in seen), strict=True)
    assert sorted(speakers) == sorted(2 * ["01", "02", "04"]) and sorted(emotions) == sorted(2 * [*EMOTIONS])
    for one in seen:
        assert [version.shape for version in one.seen] == 3 * [one.plain.shape] and one.partners == ["", "", ""]
        assert all(np.allclose(version, one.plain, atol=1e-5) for version in one.seen)
        assert np.allclose(one.plain.mean(axis=1), 0, atol=1e-4), "an utterance's own mean is taken away"
    changed = sights(tiny, prepared)
    assert not any(np.array_equal(version, one.plain) for one in changed for version in one.seen)
    assert all(np.array_equal(one.plain, other.plain) for one, other in zip(seen, changed, strict=True))


def test_a_clip_that_follows_is_named_and_is_there(tiny, prepared):
    lengths = {(one.speaker, one.emotion): [] for one in prepared.utterances}
    for one in prepared.utterances:
        lengths[one.speaker, one.emotion].append(1 + one.samples // 320)
    for one in sights(still(tiny, concatenate=1.0), prepared):
        speaker, emotion = one.title.split(", ")
        for version, words in zip(one.seen, one.partners, strict=True):
            other, same = words.removeprefix("then ").split(", ")
            assert words.startswith("then ") and other in {"01", "02", "04"} - {speaker} and same == emotion
            assert version.shape[1] - one.plain.shape[1] in lengths[other, emotion]


def test_a_mixed_clip_names_its_partner_and_share(tiny, prepared):
    words = [told for one in sights(still(tiny, mixup_any_emotion=1.0), prepared) for told in one.partners]
    found = [re.fullmatch(r"with (\d+) % of (01|02|04), (rising|falling|level)", told) for told in words]
    assert len(found) == 18 and all(found) and all(0 <= int(one[1]) <= 50 for one in found)


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
