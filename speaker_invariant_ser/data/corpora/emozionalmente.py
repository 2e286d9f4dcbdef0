"""Emozionalmente: 431 speakers recorded at home, 18 sentences, seven emotions; Italian.

A file name such as `audio/1613655062436.wav` is the recording time in milliseconds. All labels are in tables:

    metadata/samples.csv        file_name, actor, sentence, emotion_expressed (the emotion the speaker was asked for): anger,
                                disgust, fear, joy, neutrality, sadness, surprise
    metadata/users.csv          username (the actor), gender, age, mother_tongue
    metadata/split/train.csv    file_name and others, like dev.csv and test.csv; since version 1.1 no speaker is in two of them

`text` is the sentence itself. Speakers used their own microphones, so an unseen speaker is an unseen microphone as well. The
listeners' answers (metadata/evaluations.csv) are not used; two thirds of them agree with the intended emotion.
"""

from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields
from speaker_invariant_ser.data.formats.files import find_audio
from speaker_invariant_ser.data.tables.columns import read_rows
from speaker_invariant_ser.errors import shown

EMOTIONS = {
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "joy": "happy",
    "neutrality": "neutral",
    "sadness": "sad",
    "surprise": "surprised",
}
SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}  # other entries become unknown
PARTITIONS = ("train", "dev", "test")


def find(folder: Path) -> Iterator[Fields]:
    """Yield every audio file below the folder that a samples.csv lists."""
    samples: dict[str, Fields] = {}
    for table in sorted(folder.rglob("samples.csv")):
        samples |= read_samples(table)
    for path in find_audio(folder):
        if path.name.lower() in samples:
            yield {"source": path.relative_to(folder).as_posix(), **samples[path.name.lower()]}


def read_samples(table: Path) -> dict[str, Fields]:
    """Return the fields by lower-case file name, from samples.csv and the tables next to it."""
    sexes, partitions = read_sexes(table.with_name("users.csv")), read_partitions(table.parent / "split")
    samples: dict[str, Fields] = {}
    for row in read_rows(table, ("file_name", "actor", "sentence", "emotion_expressed")):
        name, emotion = row["file_name"].lower(), EMOTIONS.get(row["emotion_expressed"].lower())
        if not emotion:
            samples[name] = {"rejected": f"emotion {shown(row['emotion_expressed'])} is not one of the corpus"}
            continue
        samples[name] = {"speaker": row["actor"], "emotion": emotion, "text": row["sentence"]}
        samples[name] |= {"sex": sexes.get(row["actor"], ""), "partition": partitions.get(name, "")}
    return samples


def read_sexes(table: Path) -> dict[str, str]:
    """Return the sex by speaker from users.csv; empty if the table is missing."""
    if not table.is_file():
        return {}
    return {row["username"]: SEXES.get(row["gender"].lower(), "") for row in read_rows(table, ("username", "gender"))}


def read_partitions(folder: Path) -> dict[str, str]:
    """Return the partition by lower-case file name from the official lists; empty if they are missing."""
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
    counts={"complete": Counts(files=6902, speakers=431, emotions=dict.fromkeys(EMOTIONS.values(), 986))},
    layout="tables metadata/samples.csv and metadata/users.csv, and the files they list, such as audio/1613655062436.wav",
    find=find,
    download=(
        Download(
            url="https://zenodo.org/records/12616095/files/emozionalmente.zip",
            hash="md5:398c6502dd2b0e1e810f927c12897547",
            bytes=560_000_000,
            exact=False,
        ),
    ),
)
