"""MSP-IMPROV: twelve American actors in six sessions of one woman and one man, acted, read and natural speech; English.

The path `session1/S01A/T/MSP-IMPROV-S01A-F01-T-FM03.wav` encodes

    S01A    scene: the sentence it leads to (01 to 20) and the emotion it is meant to elicit: A angry, H happy, N neutral, S sad
    F01     actor who has that sentence in this scene: sex and session (01 to 06)
    T       type: T target, the sentence itself, improvised; S other turns of the scene; R the sentence read; P natural
            conversation between recordings
    FM03    sex of speaker and of listener, and number of the turn. The speaker is first letter and session: F01 here. Read
            sentences have no listener: FF01, MM01

The label is the emotion that listeners perceived, not the intended one. `Evalution.txt` (this spelling; also Evaluation.txt) has
one line per turn:

    UTD-IMPROV-S01A-F01-T-FM03.avi; A; A:2.200000; V:1.800000; D:3.400000 ; N:3.800000;

A angry, H happy, N neutral, S sad, O other, X no agreement (555 of 8438 turns, which are rejected). The numbers are the mean
ratings of activation (arousal here), valence, dominance and naturalness, from 1 to 5. Only target and read turns of a scene have
the same words.

Many loaders use the target actor as the speaker, which is wrong for half of the other turns; some use the second letter of FM.
That the first letter is the speaker is our inference from turns with published transcripts: the target actor asks for the cue and
tries the sentence, the other actor asks and comforts. A split by session is valid in either case.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, read_text
from speaker_invariant_ser.data.formats.files import find_audio
from speaker_invariant_ser.data.manifest import DIMENSIONS

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad", "O": "other"}
STYLES = {"T": "improvised", "S": "improvised", "R": "read", "P": "natural"}
SEXES = {"F": "female", "M": "male"}
SAME_WORDS = ("T", "R")
NAME = re.compile(
    r"(?:MSP|UTD)-IMPROV-(?P<turn>S(?P<text>[01]\d|20)[AHNS]-[FM]0(?P<session>[1-6])-(?P<style>[TSRP])-(?P<sex>[FM])[FM]\d\d)"
)
LABEL = re.compile(
    rf"^{NAME.pattern}\.(?:avi|wav);[ \t]*(?P<label>[A-Z]);"
    r"(?:[ \t]*A:(?P<arousal>[\w.-]+)[ \t]*;[ \t]*V:(?P<valence>[\w.-]+)[ \t]*;[ \t]*D:(?P<dominance>[\w.-]+))?",
    re.MULTILINE,
)
TABLES = ("evalution.txt", "evaluation.txt")


def find(folder: Path) -> Iterator[Fields]:
    """Yield every turn whose name follows the code, with the label that the listeners agreed on."""
    labels = read_labels(folder)
    for path in find_audio(folder) if labels else ():
        match = NAME.fullmatch(path.stem.upper())
        if match:
            yield {"source": path.relative_to(folder).as_posix(), **parse(match), **read_label(labels.get(match["turn"], {}))}


def parse(match: re.Match[str]) -> Fields:
    """Return the fields that a file name encodes, without the emotion."""
    return {
        "speaker": f"{match['sex']}0{match['session']}",
        "sex": SEXES[match["sex"]],
        "session": match["session"],
        "style": STYLES[match["style"]],
        "text": match["text"] if match["style"] in SAME_WORDS else "",
    }


def read_label(labels: Fields) -> Fields:
    """Return emotion and ratings, or the reason why the turn has no emotion."""
    label = labels.get("label", "")
    if label in EMOTIONS:
        return {"emotion": EMOTIONS[label], **{name: labels[name] for name in DIMENSIONS}}
    return {"rejected": "no majority label" if label == "X" else "no label in Evalution.txt"}


def read_labels(folder: Path) -> dict[str, Fields]:
    """Return one-letter label and ratings by turn, without the prefix: it differs between label file and audio."""
    labels: dict[str, Fields] = {}
    for text in sorted(folder.rglob("*.txt")):
        if text.name.lower() in TABLES:
            matches = LABEL.finditer(read_text(text))
            labels |= {match["turn"]: match.groupdict("") for match in matches}
    return labels


CORPUS = Corpus(
    name="msp_improv",
    title="MSP-IMPROV",
    licence="research only, after signing the academic licence of The University of Texas at Dallas",
    citation=(
        "Busso, Parthasarathy, Burmania, AbdelWahab, Sadoughi, Mower Provost: MSP-IMPROV: An Acted Corpus of Dyadic Interactions "
        "to Study Emotion Perception. IEEE Transactions on Affective Computing 8(1), 2017"
    ),
    url="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html (after signing a form)",
    language="en",
    counts={
        "complete": Counts(
            files=7883, speakers=12, emotions={"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885, "other": 85}
        )
    },
    layout=(
        "files named like session1/S01A/T/MSP-IMPROV-S01A-F01-T-FM03.wav (scene, target actor, type, speaker and listener, "
        "turn), with labels in Evalution.txt"
    ),
    find=find,
    scale=(1, 5),
    note="The speaker of a turn is inferred from its file name; the session, which both actors share, is documented.",
)
