"""What a report says: sentences, tables and pictures in their order, the same for the page and for Markdown.

Takes summaries as report.json holds them; probabilities and rates are 0..1 there, and None is what is not defined.

    blocks      text, table, pictures, chapter; how numbers are written
    emotion     emotion on unseen speakers, alone and beside another run
    speaker     attackers, controls, bits, people the encoder never met
    making      map, training, folds, settings
    front       the first screen; the comparison of runs
"""

from collections.abc import Mapping, Sequence

from speaker_invariant_ser.report.plots import Points
from speaker_invariant_ser.report.sections.blocks import Chapter
from speaker_invariant_ser.report.sections.emotion import against_chapter, emotion_chapters
from speaker_invariant_ser.report.sections.making import map_chapter, settings_chapters, training_chapter
from speaker_invariant_ser.report.sections.speaker import speaker_chapters


def chapters(summary: Mapping, curves: Mapping[str, Sequence[Mapping]], place: Points | None) -> list[Chapter]:
    """All chapters of one run's or one table's report, after the front."""
    emotion, speaker, settings = summary["emotion"], summary["speaker"], summary["settings"]
    found = [*emotion_chapters(emotion)] if emotion else []
    if summary.get("against"):
        found.append(against_chapter(summary))
    found += speaker_chapters(speaker, bool(emotion), settings.get("threat"))
    if place is not None:
        found.append(map_chapter(place))
    if curves or speaker.get("adversary_head"):
        found.append(training_chapter(curves, speaker.get("adversary_head")))
    return [*found, *settings_chapters(settings, emotion["folds"] if emotion else {})]
