"""MSP-IMPROV: twelve American actors in six mixed pairs improvise scenes around given sentences, read them, and chat.

The file name `session1/S01A/T/MSP-IMPROV-S01A-F01-T-FM03.wav` is

    S01A    sentence the scene leads to (01 to 20) and the emotion it is meant to bring out: A angry, H happy, N neutral, S sad
    F01     the actor who has that sentence in this scene, F or M, and the session (01 to 06)
    T       T target: the sentence itself, improvised; S: the other turns of the scene; R: the sentence read; P: natural talk
            between the recordings
    FM03    who speaks to whom, F or M, and the turn: the speaker is the first letter with the session, F01 here.
            What is read is spoken to nobody: FF01, MM01

What counts is how listeners heard a turn, not what was meant. `Evalution.txt` (spelt so; also Evaluation.txt) tells it:

    UTD-IMPROV-S01A-F01-T-FM03.avi; A; A:2.200000; V:1.800000; D:3.400000 ; N:3.800000;

A angry, H happy, N neutral, S sad, O other, X no agreement (555 of 8438 turns, which are left out). The words are the same
only within the target and read turns of one sentence.

Most loaders take the target actor for the speaker, and so give half of the other turns to the wrong one of the pair; some take
the second letter. That the first one speaks we concluded from turns whose words are public: the target actor asks for the cue
before a take and tries the sentence, the other one asks and comforts. A split by session is right in any case.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.audio import find_audio
from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad", "O": "other"}
STYLES = {"T": "improvised", "S": "improvised", "R": "read", "P": "natural"}
SEXES = {"F": "female", "M": "male"}
SAME_WORDS = ("T", "R")
NAME = re.compile(
    r"(?:MSP|UTD)-IMPROV-(?P<turn>S(?P<text>[01]\d|20)[AHNS]-[FM]0(?P<session>[1-6])-(?P<style>[TSRP])-(?P<sex>[FM])[FM]\d\d)"
)
LABEL = re.compile(rf"^{NAME.pattern}\.(?:avi|wav);\s*(?P<label>[A-Z]);", re.MULTILINE)
TABLES = ("evalution.txt", "evaluation.txt")


def find(folder: Path) -> Iterator[Fields]:
    """Every turn whose name follows the rule, with the label its listeners agreed on."""
    labels = read_labels(folder)
    for path in find_audio(folder) if labels else ():
        match = NAME.fullmatch(path.stem.upper())
        if match:
            yield {"source": path.relative_to(folder).as_posix(), **parse(match), **read_label(labels.get(match["turn"], ""))}


def parse(match: re.Match) -> Fields:
    return {
        "speaker": f"{match['sex']}0{match['session']}",
        "sex": SEXES[match["sex"]],
        "session": match["session"],
        "style": STYLES[match["style"]],
        "text": match["text"] if match["style"] in SAME_WORDS else "",
    }


def read_label(label: str) -> Fields:
    """The emotion, or why there is none."""
    if label in EMOTIONS:
        return {"emotion": EMOTIONS[label]}
    return {"rejected": "the listeners agreed on no label" if label == "X" else "no label for it in Evalution.txt"}


def read_labels(folder: Path) -> dict[str, str]:
    """One-letter labels by turn; the prefix differs between labels and sound."""
    labels = {}
    for text in sorted(folder.rglob("*.txt")):
        if text.name.lower() in TABLES:
            found = LABEL.finditer(text.read_text(encoding="utf-8", errors="replace"))
            labels |= {match["turn"]: match["label"] for match in found}
    return labels


CORPUS = Corpus(
    name="msp_improv",
    title="MSP-IMPROV",
    licence="for research, by a signed academic licence of The University of Texas at Dallas",
    citation=(
        "Busso, Parthasarathy, Burmania, AbdelWahab, Sadoughi, Mower Provost: MSP-IMPROV: An Acted Corpus of Dyadic Interactions "
        "to Study Emotion Perception. IEEE Transactions on Affective Computing 8(1), 2017"
    ),
    url="by a signed form: https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html",
    language="en",
    counts={"complete": Counts(7883, 12, {"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885, "other": 85})},
    layout=(
        "files named like session1/S01A/T/MSP-IMPROV-S01A-F01-T-FM03.wav (scene, its target actor, kind, speaker and listener, "
        "turn), with their labels in Evalution.txt"
    ),
    find=find,
    note="Who speaks a turn is read off its file name as we understand it; its session, which both actors share, is certain.",
)
