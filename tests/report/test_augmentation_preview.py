"""The plot of utterances and their augmented versions."""

import re

import numpy as np
import pytest
from conftest import EMOTIONS

from speaker_invariant_ser.errors import WriteError
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import AugmentSection
from speaker_invariant_ser.report.augmentation_preview import (
    Preview,
    frequency_ticks,
    plot_previews,
    preview_clips,
    write_preview,
)

FEATURES = FeaturesSection(hop_ms=20.0, mels=24)


def rows():
    rng = np.random.default_rng(0)
    clip = lambda frames: rng.standard_normal((24, frames))  # noqa: E731
    return [
        Preview("03, anger", clip(50), [clip(45), clip(55)], ["", "then 08, joy"]),
        Preview("_名_, $joy$", clip(30), [clip(60)], [""]),
    ]


def without_augmentation(tiny, **changes):
    """The recipe for the tones without augmentation but for `changes`."""
    off = dict.fromkeys(("tempo", "warp", "equaliser_db"), 0.0) | dict.fromkeys(("frequency_masks", "time_masks"), 0)
    return tiny.model_copy(update={"augment": AugmentSection(**off, **changes)})


def test_without_augmentation_the_versions_are_the_clips(tiny, prepared):
    """Six of the training speakers' utterances, two of each emotion and of each speaker."""
    previews = preview_clips(without_augmentation(tiny), prepared)
    speakers, emotions = zip(*(preview.title.split(", ") for preview in previews), strict=True)
    assert sorted(speakers) == sorted(2 * ["01", "02", "04"]) and sorted(emotions) == sorted(2 * [*EMOTIONS])
    for preview in previews:
        original, versions = preview.original, preview.augmented
        assert [version.shape for version in versions] == 3 * [original.shape] and preview.partners == ["", "", ""]
        assert all(np.allclose(version, original, atol=1e-5) for version in versions)
        assert np.allclose(original.mean(axis=1), 0, atol=1e-4), "normalised by utterance"
    augmented = preview_clips(tiny, prepared)
    assert not any(np.array_equal(version, preview.original) for preview in augmented for version in preview.augmented)
    pairs = zip(previews, augmented, strict=True)
    assert all(np.array_equal(first.original, second.original) for first, second in pairs)


def test_a_concatenated_clip_is_named_and_adds_its_length(tiny, prepared):
    lengths = {(utterance.speaker, utterance.emotion): [] for utterance in prepared.utterances}
    for utterance in prepared.utterances:
        lengths[utterance.speaker, utterance.emotion].append(1 + utterance.samples // 320)
    for preview in preview_clips(without_augmentation(tiny, concatenate=1.0), prepared):
        speaker, emotion = preview.title.split(", ")
        for version, partner in zip(preview.augmented, preview.partners, strict=True):
            other, same = partner.removeprefix("then ").split(", ")
            assert partner.startswith("then ") and other in {"01", "02", "04"} - {speaker} and same == emotion
            assert version.shape[1] - preview.original.shape[1] in lengths[other, emotion]


def test_a_mixed_clip_names_its_partner_and_share(tiny, prepared):
    previews = preview_clips(without_augmentation(tiny, mixup_any_emotion=1.0), prepared)
    partners = [partner for preview in previews for partner in preview.partners]
    matches = [re.fullmatch(r"with (\d+) % of (01|02|04), (rising|falling|level)", partner) for partner in partners]
    assert len(matches) == 18 and all(matches)
    shares = [int(match[1]) for match in matches]
    assert max(shares) <= 50 and len(set(shares)) > 3, "a mixed utterance keeps the larger share, which is drawn"


@pytest.mark.parametrize("name, begins", [("preview.png", b"\x89PNG"), ("preview.SVG", b"<?xml")])
def test_the_ending_says_what_is_written(name, begins, tmp_path):
    write_preview(tmp_path / "new" / name, rows(), FEATURES)
    assert (tmp_path / "new" / name).read_bytes().startswith(begins)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_another_ending_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*preview\.pdf: expected a name that ends in \.png or \.svg"):
        write_preview(tmp_path / "preview.pdf", rows(), FEATURES)
    assert not list(tmp_path.iterdir())


def test_each_clip_has_its_line_in_one_scale_of_colours_seconds_and_bands():
    panels = np.array(plot_previews(rows(), FEATURES).axes[:6], dtype=object).reshape(2, 3)
    images = {place: panels[place].images[0] for place in np.ndindex(2, 3) if panels[place].images}
    assert set(images) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)} and not panels[1, 2].axison
    assert len({image.get_clim() for image in images.values()}) == 1
    assert images[0, 0].get_extent() == [0, 1.0, -0.5, 23.5] and images[1, 1].get_extent()[1] == pytest.approx(1.2)
    assert all(panel.get_xlim() == pytest.approx((0, 1.2)) for panel in panels.flat)
    assert panels[0, 0].get_title("left") == "03, anger" and panels[0, 2].get_title("left") == "then 08, joy"


@pytest.mark.parametrize("features", [FeaturesSection(), FEATURES, FeaturesSection(f_min=300, f_max=3400)])
def test_ticks_are_round_frequencies_in_their_bands(features):
    places, names = frequency_ticks(features)
    assert len(places) >= 3 and max(places) <= features.mels and min(places) >= -0.5
    assert (np.diff(places) < -0.08 * features.mels).all()
    assert "1k" in names and set(names) <= {"125", "250", "500", "1k", "2k", "4k", "8k"}
    # 1000 Hz on the mel scale of HTK is 1000 mel
    scale = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    span = scale(features.f_max) - scale(features.f_min)
    expected = (1000 - scale(features.f_min)) / span * (features.mels + 1) - 1
    assert places[names.index("1k")] == pytest.approx(expected, abs=0.01)
