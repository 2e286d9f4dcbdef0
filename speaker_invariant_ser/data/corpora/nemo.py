"""nEMO: nine actors, 90 sentences, six emotions, each speaker recorded at home with a different device; Polish.

The file name `samples/SM0_happiness_10.wav` encodes

    SM0         speaker: EB0, IC0, KD0, KS0, MK0, MP0, SM0, TP0, WR0
    happiness   emotion: anger, fear, happiness, neutral, sadness, surprised
    10          sentence: 1 to 90, with the same words for all speakers apart from grammatical gender

The table `data.tsv` next to the folder gives the speaker's sex; its cells may begin with blanks. Speaker MK0 has no surprised
utterances and MP0 is incomplete. An unseen speaker is also an unseen microphone.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields, by_file_name
from speaker_invariant_ser.data.tables.columns import read_rows

EMOTIONS = {
    "anger": "angry",
    "fear": "fearful",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprised": "surprised",
}
NAME = re.compile(r"(?P<speaker>[A-Z]{2}\d)_(?P<emotion>[a-z]+)_(?P<text>\d{1,2})")


def find(folder: Path) -> Iterator[Fields]:
    """Yield every file whose name follows the code, with the sex that data.tsv gives its speaker."""
    sexes: dict[str, str] = {}
    for table in sorted(folder.rglob("data.tsv")):
        sexes |= {row["speaker_id"]: row["gender"] for row in read_rows(table, ("speaker_id", "gender"))}
    for fields in by_file_name(parse)(folder):
        yield {**fields, "sex": sexes.get(fields["speaker"], "")}


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, except the sex.

    Returns None if the file name does not follow the corpus's naming scheme.
    """
    match = NAME.fullmatch(path.stem)
    if not match or match["emotion"] not in EMOTIONS:
        return None
    return {"speaker": match["speaker"], "emotion": EMOTIONS[match["emotion"]], "text": match["text"]}


CORPUS = Corpus(
    name="nemo",
    title="nEMO",
    licence="CC BY-NC-SA 4.0",
    citation="Christop: nEMO: Dataset of Emotional Speech in Polish. LREC-COLING 2024",
    url="https://github.com/amu-cai/nEMO",
    language="pl",
    counts={
        "complete": Counts(
            files=4481,
            speakers=9,
            emotions={"angry": 749, "fearful": 736, "happy": 749, "neutral": 809, "sad": 769, "surprised": 669},
        )
    },
    layout="files named like samples/SM0_happiness_10.wav (speaker, emotion, sentence), with data.tsv beside samples/",
    find=find,
    # GitHub builds this archive on request, so its checksum is not stable and none is published.
    download=(
        Download(
            url="https://github.com/amu-cai/nEMO/archive/06f1f83dde8f1a780443a57d53b2af3971af34ab.zip",
            hash="",
            bytes=531_000_000,
            exact=False,
        ),
    ),
)
