"""What a report says first, on the page and on the console: the conclusion, the answers in words, and what was measured when."""

from collections.abc import Iterator

from speaker_invariant_ser.audit.words.verdict import emotion_answer, speaker_answer
from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary import Report, RunReport, RunSettings

PACKAGE = "speaker-invariant-ser"


def badge(report: Report) -> str:
    """Return the conclusion on the speaker in one or two words."""
    return "undecided" if report.at_chance == "undecided" else "at chance" if report.at_chance else "leaks"


def answers(report: Report) -> list[str]:
    """Answer in words whether speakers are identified, and, of a run or a baseline, how well emotion is recognised."""
    texts = [speaker_answer(report.speaker.to_json())]
    if isinstance(report, RunReport):
        emotion = report.emotion
        texts.append(emotion_answer(emotion.uar.value, emotion.chance, len(emotion.per_speaker), emotion.uar.low))
    elif report.baseline and report.baseline.first and report.baseline.chance:
        first = report.baseline.first
        texts.append(emotion_answer(first.uar.value, report.baseline.chance, len(first.per_speaker), first.uar.low))
    return texts


def provenance(report: Report) -> str:
    """Say what was measured, when, and by which version; reports of older versions do not have the date."""
    return f"{'; '.join(provenance_parts(report))}."


def provenance_parts(report: Report) -> Iterator[str]:
    """Yield what was measured, the date with the version, that the audit was quick, and of what sample."""
    settings = report.settings
    if isinstance(settings, RunSettings):
        corpora, emotion = settings.corpora, report.emotion
        assert emotion
        speakers = counted(len(emotion.per_speaker), "speaker")
        word = "Corpus" if len(corpora) == 1 else "Corpora"
        yield f"{word} {', '.join(corpora)}, {counted(emotion.utterances, 'test utterance')} of {speakers}"
    else:
        sizes = {"clips": "utterance", "dimensions": "dimension"}
        known = [counted(number, noun) for key, noun in sizes.items() if isinstance(number := settings.table.get(key), int)]
        yield f"{'Baseline' if report.baseline else 'Table'} {report.run}: {', '.join(known)}"
    version = settings.versions.get(PACKAGE)
    when = f"evaluated on {settings.date}" if settings.date else ""
    if made := " with ".join(filter(None, (when, version and f"{PACKAGE} {version}"))):
        yield made
    if settings.audit.quick:
        yield "closed-form attackers only (--quick)"
    if sample := report.speaker.sample:
        parts = (("utterances", ""), ("speakers", ""), ("dimensions", " principal components"))
        smaller = ((key, noun, sample[key], sample[f"of_{key}"]) for key, noun in parts if sample[key] < sample[f"of_{key}"])
        yield f"a sample: {', '.join(f'{used:,.0f}{noun} of {whole:,.0f} {key}' for key, noun, used, whole in smaller)}"
