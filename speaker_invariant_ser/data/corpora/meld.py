"""MELD: utterances of the television series Friends, cut by its subtitles, with official train, dev and test lists; English.

The release consists of videos. Save their audio under the same names first, for instance with
`ffmpeg -i dia125_utt3.mp4 -ac 1 -ar 16000 dia125_utt3.wav`. The path `train_splits/dia125_utt3.wav` encodes

    train_splits    list: train_splits, dev_splits_complete, output_repeated_splits_test, or any folder whose name contains
                    train, dev or test. File names repeat across lists
    dia125          dialogue, counted separately in each list
    utt3            utterance of the dialogue

All labels are in train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv:

    Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime

Speakers are named as in the script. The name of a guest (Waiter, Woman) may stand for several persons, which does no harm to a
split by speaker; rows for several persons at once (All, Ross and Joey) are rejected. The test folder contains 132 files a second
time under names such as final_videos_testdia1_utt2; these are used only where the plain name is missing. Some files have no row.
Train dia125_utt3 cannot be decoded, dev dia110_utt7 is not in the release, and three files are cut wrongly and last minutes
(issue 20 of the corpus's repository); they are rejected. Many files contain laughter, music and other voices.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields
from speaker_invariant_ser.data.formats.files import find_audio
from speaker_invariant_ser.data.tables.columns import read_rows

EMOTIONS = {
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "joy": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprised",
}
FEMALE = frozenset({"Monica", "Phoebe", "Rachel"})
MALE = frozenset({"Chandler", "Joey", "Ross"})
SEVERAL = re.compile(
    r"[,&/]|\b(?:and|all|both|everybody|everyone|guys|gang|girls|boys|women|men|kids|students|crowd|others)\b", re.IGNORECASE
)
NAME = re.compile(r"(?:(?:train|dev|test)[-_])?(?P<copy>final_videos_test)?dia(?P<dialogue>\d+)_utt(?P<turn>\d+)", re.IGNORECASE)
PARTITION = re.compile("(?<![a-z])(?:train|dev|test)", re.IGNORECASE)
MISCUT = frozenset({("train", "309", "0"), ("test", "38", "4"), ("test", "220", "0")})
COLUMNS = ("Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")

Key = tuple[str, str, str]  # partition, dialogue, utterance


def find(folder: Path) -> Iterator[Fields]:
    """Yield every audio file whose name follows the code, with the labels of its row."""
    rows = read_tables(folder)
    used: set[Key] = set()
    for is_copy, path, key in sorted(files_of_corpus(folder)) if rows else ():
        session = f"{key[0]}_dia{key[1]}"
        labels = {"rejected": "a copy of the file with the plain name"} if is_copy and key in used else labels_of_row(key, rows)
        used.add(key)
        yield {"source": path, "id": f"{session}_utt{key[2]}", "session": session, "partition": key[0], **labels}


def files_of_corpus(folder: Path) -> Iterator[tuple[bool, str, Key]]:
    """Yield (whether it is named as a copy, relative path, key) of every file whose name and folder follow the code."""
    for path in find_audio(folder):
        relative = path.relative_to(folder)
        match, partition = NAME.fullmatch(path.stem), partition_of(relative)
        if match and partition:
            key = (partition, str(int(match["dialogue"])), str(int(match["turn"])))
            yield bool(match["copy"]), relative.as_posix(), key


def partition_of(path: Path) -> str:
    """Return the list that the nearest folder, or else the file name, contains in its name."""
    for part in (*reversed(path.parent.parts), path.stem):
        if match := PARTITION.search(part):
            return match[0].lower()
    return ""


def labels_of_row(key: Key, rows: dict[Key, dict[str, str]]) -> Fields:
    """Return the labels of a file's row, or the reason why the file cannot be used."""
    row = rows.get(key)
    if key in MISCUT or not row:
        return {"rejected": "cut wrongly, lasts minutes" if key in MISCUT else f"no row in {key[0]}_sent_emo.csv"}
    speaker = row["Speaker"]
    if not speaker or SEVERAL.search(speaker):
        return {"rejected": f"several speakers at once: {speaker}" if speaker else "unknown speaker"}
    if row["Emotion"].lower() not in EMOTIONS:
        return {"rejected": f"its label is not an emotion of the corpus: {row['Emotion']}"}
    sex = "female" if speaker in FEMALE else "male" if speaker in MALE else ""
    return {"speaker": speaker, "emotion": EMOTIONS[row["Emotion"].lower()], "sex": sex}


def read_tables(folder: Path) -> dict[Key, dict[str, str]]:
    """Return the rows of the three tables by partition, dialogue and utterance."""
    rows: dict[Key, dict[str, str]] = {}
    for partition in ("train", "dev", "test"):
        for table in sorted(folder.rglob(f"{partition}_sent_emo.csv")):
            rows |= {(partition, row["Dialogue_ID"], row["Utterance_ID"]): row for row in read_rows(table, COLUMNS)}
    return rows


CORPUS = Corpus(
    name="meld",
    title="MELD",
    licence="GPL 3.0 according to its authors, who do not own the rights in the series",
    citation=(
        "Poria, Hazarika, Majumder, Naik, Cambria, Mihalcea: MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in "
        "Conversations. ACL 2019"
    ),
    url="https://affective-meld.github.io",
    language="en",
    counts={
        # Includes rows for several speakers at once; how many is not documented.
        "complete": Counts(files=13_706, speakers=304),
    },
    layout=(
        "files named like train_splits/dia125_utt3.wav (list, dialogue, utterance; audio taken from the videos), "
        "with train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv"
    ),
    find=find,
    counts_rejected=True,
)
