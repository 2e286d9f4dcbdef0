"""MELD: utterances of the television series Friends, cut by its subtitles, in the official lists train, dev and test.

The release holds videos; their sound has to be saved as audio first, under the same names, for instance with
`ffmpeg -i dia125_utt3.mp4 -ac 1 -ar 16000 dia125_utt3.wav`. In the name

    train_splits/dia125_utt3.wav
    train_splits    the list: train_splits, dev_splits_complete, output_repeated_splits_test; any folder whose name has train,
                    dev or test in it does. Names repeat across lists
    dia125          dialogue, counted anew in each list
    utt3            utterance in it

Everything else stands in train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv:

    Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime

Speakers are named as in the script. A guest's name (Waiter, Woman) may stand for several persons, which harms no split by
speaker; rows for several persons at once (All, Ross and Joey) are left out. The folder of the test list holds 132 clips a second
time, as final_videos_testdia1_utt2: they are read only where the plain name is missing. Some more clips have no row. Train
dia125_utt3 cannot be decoded, dev dia110_utt7 was never there, and three clips last minutes (issue 20 of its repository), which
are left out. Laughter, music and other voices are in many clips.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.audio import find_audio
from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields
from speaker_invariant_ser.data.manifest import read_rows

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
NAME = re.compile(r"(?:(?:train|dev|test)[-_])?(?P<twin>final_videos_test)?dia(?P<dialogue>\d+)_utt(?P<turn>\d+)", re.IGNORECASE)
PARTITION = re.compile("(?<![a-z])(?:train|dev|test)", re.IGNORECASE)
MISCUT = frozenset({("train", "309", "0"), ("test", "38", "4"), ("test", "220", "0")})
COLUMNS = ("Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")

Key = tuple[str, str, str]  # partition, dialogue, utterance


def find(folder: Path) -> Iterator[Fields]:
    """Every clip on the disk, with what the tables tell of it."""
    rows = read_tables(folder)
    taken = set()
    for twin, path, key in sorted(clips(folder)) if rows else ():
        session = f"{key[0]}_dia{key[1]}"
        copied = {"rejected": "this clip is there under its plain name, too"} if twin and key in taken else None
        told = copied or read_row(key, rows.get(key))
        taken.add(key)
        yield {"source": path, "id": f"{session}_utt{key[2]}", "session": session, "partition": key[0], **told}


def clips(folder: Path) -> Iterator[tuple[bool, str, Key]]:
    """(whether it may be a copy, path, key) of every file whose name and folder follow the rule."""
    for path in find_audio(folder):
        relative = path.relative_to(folder)
        match, partition = NAME.fullmatch(path.stem), partition_of(relative)
        if match and partition:
            yield bool(match["twin"]), relative.as_posix(), (partition, str(int(match["dialogue"])), str(int(match["turn"])))


def partition_of(path: Path) -> str:
    """The list that the nearest folder, or else the file name, speaks of."""
    for part in (*reversed(path.parent.parts), path.stem):
        if found := PARTITION.search(part):
            return found[0].lower()
    return ""


def read_row(key: Key, row: dict[str, str] | None) -> Fields:
    """Fields of one row, or why the clip is of no use here."""
    if key in MISCUT or not row:
        return {"rejected": "cut wrongly, it lasts minutes" if key in MISCUT else f"no row for it in {key[0]}_sent_emo.csv"}
    speaker = row["Speaker"]
    if not speaker or SEVERAL.search(speaker):
        return {"rejected": f"several speakers at once: {speaker}" if speaker else "its speaker is unknown"}
    if row["Emotion"].lower() not in EMOTIONS:
        return {"rejected": f"its label is no emotion: {row['Emotion']}"}
    sex = "female" if speaker in FEMALE else "male" if speaker in MALE else ""
    return {"speaker": speaker, "emotion": EMOTIONS[row["Emotion"].lower()], "sex": sex}


def read_tables(folder: Path) -> dict[Key, dict[str, str]]:
    """The rows of the three tables."""
    rows = {}
    for partition in ("train", "dev", "test"):
        for table in sorted(folder.rglob(f"{partition}_sent_emo.csv")):
            rows |= {(partition, row["Dialogue_ID"], row["Utterance_ID"]): row for row in read_rows(table, COLUMNS)}
    return rows


CORPUS = Corpus(
    name="meld",
    title="MELD",
    licence="GPL 3.0, as its authors mark it; the rights in the series are not theirs",
    citation=(
        "Poria, Hazarika, Majumder, Naik, Cambria, Mihalcea: MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in "
        "Conversations. ACL 2019"
    ),
    url="https://affective-meld.github.io",
    language="en",
    counts={"complete": Counts(13_706, 304)},  # with the rows for several speakers, whose number is told nowhere
    layout=(
        "files named like train_splits/dia125_utt3.wav (list, dialogue, utterance; the sound of the videos, saved as audio), "
        "with train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv"
    ),
    find=find,
    counts_rejected=True,
)
