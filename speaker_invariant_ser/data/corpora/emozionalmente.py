"""Emozionalmente: 431 people at home say eighteen sentences in seven emotions, in Italian.

A file name such as `audio/1613655062436.wav` is the time of the recording in milliseconds and tells nothing else; tables do:

    metadata/samples.csv        file_name, actor, sentence, emotion_expressed (the emotion that was asked for): anger,
                                disgust, fear, joy, neutrality, sadness, surprise
    metadata/users.csv          username (the actor), gender, age, mother_tongue
    metadata/split/train.csv    file_name and more, as dev.csv and test.csv; no actor is in two of them (since version 1.1)

`text` is the sentence itself. Microphones are the actors' own, so that an unseen speaker is an unseen microphone as well. What
listeners heard (metadata/evaluations.csv) is not read: they found the emotion asked for in two thirds of their answers.
"""

from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.audio import find_audio
from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields
from speaker_invariant_ser.data.manifest import read_rows

EMOTIONS = {
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "joy": "happy",
    "neutrality": "neutral",
    "sadness": "sad",
    "surprise": "surprised",
}
SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}  # others stay unknown
PARTITIONS = ("train", "dev", "test")


def find(folder: Path) -> Iterator[Fields]:
    """Every audio file that a samples.csv names, wherever in the folder it is."""
    samples = {}
    for table in sorted(folder.rglob("samples.csv")):
        samples |= read_samples(table)
    for path in find_audio(folder):
        if path.name.lower() in samples:
            yield {"source": path.relative_to(folder).as_posix(), **samples[path.name.lower()]}


def read_samples(table: Path) -> dict[str, Fields]:
    """File name in lower case -> fields, with what the tables beside `table` add."""
    sexes, partitions = read_sexes(table.with_name("users.csv")), read_partitions(table.parent / "split")
    samples = {}
    for row in read_rows(table, ("file_name", "actor", "sentence", "emotion_expressed")):
        name, emotion = row["file_name"].lower(), EMOTIONS.get(row["emotion_expressed"].lower())
        if not emotion:
            samples[name] = {"rejected": f"emotion {row['emotion_expressed']!r} is none of the corpus"}
            continue
        samples[name] = {"speaker": row["actor"], "emotion": emotion, "text": row["sentence"]}
        samples[name] |= {"sex": sexes.get(row["actor"], ""), "partition": partitions.get(name, "")}
    return samples


def read_sexes(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    return {row["username"]: SEXES.get(row["gender"].lower(), "") for row in read_rows(table, ("username", "gender"))}


def read_partitions(folder: Path) -> dict[str, str]:
    """File name in lower case -> partition, by the official lists; empty where there are none."""
    tables = {name: folder / f"{name}.csv" for name in PARTITIONS}
    rows = ((name, row) for name, table in tables.items() if table.is_file() for row in read_rows(table, ("file_name",)))
    return {row["file_name"].lower(): name for name, row in rows}


CORPUS = Corpus(
    name="emozionalmente",
    title="Emozionalmente",
    licence="CC BY 4.0",
    citation=(
        "Catania, Wilke, Garzotto: Emozionalmente: A Crowdsourced Corpus of Simulated Emotional Speech in Italian. "
        "IEEE TASLP 33, 1142-1155, 2025"
    ),
    url="https://zenodo.org/records/12616095",
    language="it",
    counts={"complete": Counts(6902, 431, dict.fromkeys(EMOTIONS.values(), 986))},
    layout="tables metadata/samples.csv and metadata/users.csv, which tell of files named like audio/1613655062436.wav",
    find=find,
    download=(Download("https://zenodo.org/records/12616095/files/emozionalmente.zip", "md5:398c6502dd2b0e1e810f927c12897547"),),
)
