"""EMO-DB, the Berlin Database of Emotional Speech: ten actors, ten sentences, seven emotions; German.

The file name `03a01Fa.wav` encodes

    03      speaker: 03, 08, 09, 10, 11, 12, 13, 14, 15, 16
    a01     sentence: a01, a02, a04, a05, a07 (one clause) and b01, b02, b03, b09, b10 (two clauses)
    F       emotion, the first letter of its German name: Wut (anger), Langeweile (boredom), Ekel (disgust), Angst (fear),
            Freude (happiness), Neutral, Trauer (sadness)
    a       version, where a speaker said the sentence more than once: the field `repetition` of an utterance
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields, by_file_name

EMOTIONS = {
    "W": "angry",
    "L": "bored",
    "E": "disgusted",
    "A": "fearful",
    "F": "happy",
    "N": "neutral",
    "T": "sad",
}
MALE = frozenset({"03", "10", "11", "12", "15"})
FEMALE = frozenset({"08", "09", "13", "14", "16"})
NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WLEAFNT])(?P<repetition>[a-z])", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or match["speaker"] not in MALE | FEMALE:
        return None
    return {
        "speaker": match["speaker"],
        "emotion": EMOTIONS[match["emotion"].upper()],
        "text": match["text"].lower(),
        "sex": "male" if match["speaker"] in MALE else "female",
        "repetition": match["repetition"].lower(),
    }


CORPUS = Corpus(
    name="emodb",
    title="EMO-DB",
    licence="free to use; re-released by its owners as CC0",
    citation="Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss: A Database of German Emotional Speech. Interspeech 2005",
    url="http://emodb.bilderbar.info/download/",
    language="de",
    counts={
        "complete": Counts(
            files=535,
            speakers=10,
            emotions={"angry": 127, "bored": 81, "disgusted": 46, "fearful": 69, "happy": 71, "neutral": 79, "sad": 62},
        )
    },
    layout="files named like 03a01Fa.wav (speaker, sentence, emotion letter, version) in any subfolder, usually wav/",
    find=by_file_name(parse),
    download=(
        Download(
            url="https://zenodo.org/records/7447302/files/emodb.zip",
            hash="md5:9d21362dbc5676ef3ab4745d83ced0db",
            bytes=39_981_818,
        ),
    ),
)
