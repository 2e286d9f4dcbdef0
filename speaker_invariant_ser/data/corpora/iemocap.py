"""IEMOCAP: ten American actors in five mixed pairs play scripted and improvised scenes; listeners label every turn.

The file name `Session1/sentences/wav/Ses01F_impro04/Ses01F_impro04_F028.wav` is

    Ses01       session (01 to 05), one woman and one man each; nobody is in two of them
    F           who wears the motion capture markers: F the woman, M the man (not who speaks)
    impro04     scene: impro01 to impro08 are improvised, script01_1 to script03_2 scripted; a letter may follow
                (impro05a, script01_1b)
    F028        who speaks, F or M, and the turn: the speaker is the session with this letter, Ses01F here

Labels stand in `Session1/dialog/EmoEvaluation/Ses01F_impro04.txt`, a line for each turn such as

    [140.2250 - 145.6000]   Ses01F_impro05_F019   ang   [1.5000, 4.0000, 4.5000]

followed by the listeners' own votes. A re-upload has them in one `iemocap_full_dataset.csv`. Turns on which no majority
agreed are marked xxx, 2507 of 10039, and are left out. All other labels keep their own name: which of them to merge, as the
usual four classes do with happy and excited, or to drop is the recipe's to say. `dialog/wav/` holds whole scenes, no utterances.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.audio import find_audio
from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields
from speaker_invariant_ser.data.manifest import read_rows

EMOTIONS = {
    "neu": "neutral",
    "hap": "happy",
    "sad": "sad",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgusted",
    "oth": "other",
}
STYLES = {"impro": "improvised", "script": "scripted"}
SEXES = {"F": "female", "M": "male"}
NAME = re.compile(r"SES0(?P<session>[1-5])[FM]_(?P<style>IMPRO|SCRIPT)\d\d(?:_\d)?[A-Z]?_(?P<sex>[FM])\d{3}")
LABEL = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(?P<turn>Ses\w+)\s+(?P<label>[a-z]{3})\s")


def find(folder: Path) -> Iterator[Fields]:
    """Every turn in a file of its own, with its label from the texts of EmoEvaluation or from the re-upload's table."""
    labels = read_labels(folder)
    for path in find_audio(folder) if labels else ():
        relative = path.relative_to(folder)
        if fields := parse(relative):
            yield {"source": relative.as_posix(), **fields, **read_label(labels.get(path.stem.upper(), ""))}


def parse(path: Path) -> Fields | None:
    match = NAME.fullmatch(path.stem.upper())
    if not match:
        return None
    return {
        "speaker": f"Ses0{match['session']}{match['sex']}",
        "sex": SEXES[match["sex"]],
        "session": match["session"],
        "style": STYLES[match["style"].lower()],
    }


def read_label(label: str) -> Fields:
    """The emotion, or why there is none."""
    if label in EMOTIONS:
        return {"emotion": EMOTIONS[label]}
    return {"rejected": "the listeners agreed on no label" if label == "xxx" else "no label for it in dialog/EmoEvaluation"}


def read_labels(folder: Path) -> dict[str, str]:
    """Three-letter labels by turn in upper case."""
    labels = {}
    for table in sorted(folder.rglob("iemocap_full_dataset.csv")):
        labels |= {Path(row["path"]).stem.upper(): row["emotion"] for row in read_rows(table, ("path", "emotion"))}
    for text in sorted(folder.rglob("*.txt")):
        if text.parent.name.lower() == "emoevaluation" and not text.name.startswith("."):  # below it lie each listener's votes
            found = LABEL.finditer(text.read_text(encoding="utf-8", errors="replace"))
            labels |= {match["turn"].upper(): match["label"] for match in found}
    return labels


CORPUS = Corpus(
    name="iemocap",
    title="IEMOCAP",
    licence="for research, by a signed release form; not to be passed on",
    citation=(
        "Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan: IEMOCAP: interactive emotional dyadic motion capture "
        "database. Language Resources and Evaluation 42(4), 2008"
    ),
    url="by a signed form: https://sail.usc.edu/iemocap/iemocap_release.htm",
    language="en",
    counts={
        "complete": Counts(
            7532,
            10,
            {
                "neutral": 1708,
                "happy": 595,
                "sad": 1084,
                "angry": 1103,
                "excited": 1041,
                "frustrated": 1849,
                "surprised": 107,
                "fearful": 40,
                "disgusted": 2,
                "other": 3,
            },
        )
    },
    layout=(
        "files named like Session1/sentences/wav/Ses01F_impro04/Ses01F_impro04_F028.wav (session, scene, speaker, turn), with "
        "their labels in Session1/dialog/EmoEvaluation/Ses01F_impro04.txt"
    ),
    find=find,
    other_files=("*dialog/wav/*",),
)
