"""Oréau: 32 non-professional speakers, 79 sentences from the classroom, seven emotions; French.

The path `OréauFR_02/f/sessj/11a03Ja.wav` encodes

    f       sex of the speaker: f, m; sessj is the folder of joy
    11      speaker: two digits
    a03     sentence of this emotion: 01 to 13 at most
    J       emotion: C colère (anger), D dégoût (disgust), J joie (joy), N neutral, P peur (fear), S surprise, T tristesse
            (sadness)
    a       always a

Every emotion has its own sentences, so `text` is letter and number: Ja03 and Ca03 have different words. Sentences a20 (speaker
16) and z03, z04 (speaker 07) are outside the numbering. The archive has two versions: OréauFR_01 with 502 files, and OréauFR_02
with the 434 files whose emotion listeners recognised. Where both are present, the first is rejected.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "C": "angry",
    "D": "disgusted",
    "J": "happy",
    "N": "neutral",
    "P": "fearful",
    "S": "surprised",
    "T": "sad",
}
# From the folders f and m of the second version, which has all 32 speakers; some copies do not have these folders.
FEMALE = frozenset({"10", "11", "13", "21", "24", "37", "42"})
MALE = frozenset(f"{n:02}" for n in (7, 8, 9, 12, 14, 16, 18, 19, 20, 22, 23, *range(25, 34), 36, 38, 39, 40, 41))
NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[az]\d\d)(?P<emotion>[CDJNPST])a", re.IGNORECASE)
VERSION = re.compile(
    r"(?:^|/)or[^/]*au[^/]*0([12])/", re.IGNORECASE
)  # the accented letter is encoded as one character, as two, or is lost


def find(folder: Path) -> Iterator[Fields]:
    """Yield every file whose name follows the code; where both versions are present, reject the first."""
    files = list(by_file_name(parse)(folder))
    both = {version(fields["source"]) for fields in files} >= {"1", "2"}
    for fields in files:
        superseded = both and version(fields["source"]) == "1"
        reason = "of the first version; the second version is present, too"
        yield {"source": fields["source"], "rejected": reason} if superseded else fields


def version(source: str) -> str:
    """Return the version whose folder a file is in: "1", "2" or an empty string."""
    match = VERSION.search(source)
    return match[1] if match else ""


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or match["speaker"] not in FEMALE | MALE:
        return None
    letter = match["emotion"].upper()
    return {
        "speaker": match["speaker"],
        "emotion": EMOTIONS[letter],
        "text": letter + match["text"].lower(),
        "sex": "female" if match["speaker"] in FEMALE else "male",
    }


CORPUS = Corpus(
    name="oreau",
    title="Oréau",
    licence="CC BY 4.0",
    citation="Kerkeni, Cléder, Serrestou, Raoof: French Emotional Speech Database - Oréau. Zenodo 2020",
    url="https://zenodo.org/records/4405783",
    language="fr",
    counts={
        "second version": Counts(
            files=434,
            speakers=32,
            emotions={"angry": 67, "disgusted": 67, "fearful": 51, "happy": 62, "neutral": 70, "sad": 55, "surprised": 62},
        ),
        "first version": Counts(files=502, speakers=32),
    },
    layout="files named like OréauFR_02/f/sessj/11a03Ja.wav (speaker, sentence, emotion letter)",
    find=find,
    note="Every emotion has its own sentences in Oréau: the words alone predict the emotion.",
)
