"""MSP-Podcast: turns cut from thousands of podcast recordings in English, each labelled by five listeners or more.

The file name `Audios/MSP-PODCAST_4552_0512_0000.wav` is the recording (4552), the segment of it (0512), and the part of a segment
that was cut once more (0000, mostly absent). All else stands in `Labels/labels_consensus.csv`, which older releases spell
labels_concensus.csv:

    FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
    MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1

    EmoClass    A angry, C contempt, D disgust, F fear, H happy, N neutral, S sad, U surprise, O other, X no agreement
    SpkrID      a number, or Unknown
    Split_Set   Train, Development (once Validation), Test1, Test2; Test3 is audio alone, its labels are kept back

Turns without an agreed label or a known speaker are left out. The lists are made to share no speaker between train, dev and
test; Test1 and Test2, both "test" here, do share some.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.audio import find_audio
from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields
from speaker_invariant_ser.data.manifest import read_rows

EMOTIONS = {
    "A": "angry",
    "C": "contemptuous",
    "D": "disgusted",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "U": "surprised",
    "O": "other",
}
PARTITIONS = {"train": "train", "development": "dev", "validation": "dev", "test1": "test", "test2": "test"}
SEXES = {"female": "female", "male": "male"}
TABLES = ("labels_consensus.csv", "labels_concensus.csv")
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
NAME = re.compile(r"MSP-PODCAST_(?P<session>\d+|test3)(?:_\d+)+", re.IGNORECASE)


def find(folder: Path) -> Iterator[Fields]:
    """Every turn on the disk, with what the table of labels tells of it."""
    rows = read_labels(folder)
    for path in find_audio(folder) if rows else ():
        match = NAME.fullmatch(path.stem)
        if match:
            row = rows.get(path.stem.lower())
            told = read_row(row) if row else {"rejected": "no label for it in the table (those of Test3 are kept back)"}
            yield {"source": path.relative_to(folder).as_posix(), "session": match["session"], **told}


def read_row(row: dict[str, str]) -> Fields:
    """Fields of one row, or why it is of no use here."""
    if row["EmoClass"] not in EMOTIONS:
        return {"rejected": "the listeners agreed on no label"}
    if row["SpkrID"].lower() in ("", "unknown"):
        return {"rejected": "its speaker is unknown"}
    return {
        "speaker": row["SpkrID"],
        "emotion": EMOTIONS[row["EmoClass"]],
        "sex": SEXES.get(row["Gender"].lower(), ""),
        "partition": PARTITIONS.get(row["Split_Set"].lower(), ""),
    }


def read_labels(folder: Path) -> dict[str, dict[str, str]]:
    """The table's rows by file name without ending, in lower case."""
    tables = [path for path in sorted(folder.rglob("*.csv")) if path.name.lower() in TABLES]
    return {Path(row["FileName"]).stem.lower(): row for table in tables for row in read_rows(table, COLUMNS)}


CORPUS = Corpus(
    name="msp_podcast",
    title="MSP-Podcast",
    licence="for research, by a signed academic licence of the MSP laboratory; the recordings have Creative Commons licences",
    citation=(
        "Lotfian, Busso: Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving Emotional Speech From Existing "
        "Podcast Recordings. IEEE Transactions on Affective Computing 10(4), 2019"
    ),
    url="by a signed form: https://lab-msp.com/MSP/MSP-Podcast.html",
    language="en",
    # Of all turns in the four lists. How many of them have no agreed label or no known speaker is not told, nor how many
    # speakers Test1 and Test2 share.
    counts={"1.11": Counts(149_307, 2_217)},
    layout="files named like Audios/MSP-PODCAST_0001_0008.wav (recording, segment), with Labels/labels_consensus.csv",
    find=find,
    counts_rejected=True,
)
