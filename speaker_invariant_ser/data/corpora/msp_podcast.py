"""MSP-Podcast: speaking turns cut from podcasts, each labelled by at least five listeners; English.

The file name `Audios/MSP-PODCAST_4552_0512_0000.wav` encodes recording (4552), segment (0512) and, rarely, part of a segment that
was cut again (0000). All labels are in `Labels/labels_consensus.csv`, in older releases labels_concensus.csv:

    FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
    MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1

    EmoClass    A angry, C contempt, D disgust, F fear, H happy, N neutral, S sad, U surprise, O other, X no agreement
    EmoAct      mean rating of activation (arousal here), from 1 to 7; EmoVal of valence, EmoDom of dominance
    SpkrID      a number, or Unknown
    Split_Set   Train, Development (formerly Validation), Test1, Test2; the labels of Test3 are not published

Turns without an agreed label or a known speaker are rejected. Train, development and test share no speaker by design; Test1 and
Test2 (both "test" here) do share some.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields
from speaker_invariant_ser.data.formats.files import find_audio
from speaker_invariant_ser.data.tables.columns import read_rows

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
RATINGS = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}
NAME = re.compile(r"MSP-PODCAST_(?P<session>\d+|test3)(?:_\d+)+", re.IGNORECASE)


def find(folder: Path) -> Iterator[Fields]:
    """Yield every turn whose name follows the code, with the labels of its row."""
    rows = read_labels(folder)
    for path in find_audio(folder) if rows else ():
        match = NAME.fullmatch(path.stem)
        if match:
            row = rows.get(path.stem.lower())
            labels = read_row(row) if row else {"rejected": "no label in the table (the labels of Test3 are not published)"}
            yield {"source": path.relative_to(folder).as_posix(), "session": match["session"], **labels}


def read_row(row: dict[str, str]) -> Fields:
    """Return the labels of a row, or the reason why the turn cannot be used."""
    if row["EmoClass"] not in EMOTIONS:
        return {"rejected": "no majority label"}
    if row["SpkrID"].lower() in ("", "unknown"):
        return {"rejected": "unknown speaker"}
    return {
        "speaker": row["SpkrID"],
        "emotion": EMOTIONS[row["EmoClass"]],
        "sex": SEXES.get(row["Gender"].lower(), ""),
        "partition": PARTITIONS.get(row["Split_Set"].lower(), ""),
        **{name: row[column] for name, column in RATINGS.items() if column in row},
    }


def read_labels(folder: Path) -> dict[str, dict[str, str]]:
    """Return the table's rows by lower-case file name without its ending."""
    tables = [path for path in sorted(folder.rglob("*.csv")) if path.name.lower() in TABLES]
    return {Path(row["FileName"]).stem.lower(): row for table in tables for row in read_rows(table, COLUMNS)}


CORPUS = Corpus(
    name="msp_podcast",
    title="MSP-Podcast",
    licence="research only, after signing the licence of the MSP laboratory; the podcasts have Creative Commons licences",
    citation=(
        "Lotfian, Busso: Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving Emotional Speech From Existing "
        "Podcast Recordings. IEEE Transactions on Affective Computing 10(4), 2019"
    ),
    url="https://lab-msp.com/MSP/MSP-Podcast.html (after signing a form)",
    language="en",
    # All turns of the four lists. The documentation does not give the number of turns without an agreed label or a known
    # speaker, nor the number of speakers that Test1 and Test2 share.
    counts={"1.11": Counts(files=149_307, speakers=2_217)},
    layout="files named like Audios/MSP-PODCAST_0001_0008.wav (recording, segment), with Labels/labels_consensus.csv",
    find=find,
    counts_rejected=True,
    scale=(1, 7),
)
