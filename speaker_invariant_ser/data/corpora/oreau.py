"""Oréau: thirty-two people who are no actors say seventy-nine sentences of the classroom in seven emotions, in French.

The file `OréauFR_02/f/sessj/11a03Ja.wav` is

    f       sex of the speaker: f, m; sessj is the folder of joy
    11      speaker, two digits
    a03     sentence of that emotion, 01 to at most 13
    J       emotion: C colère anger, D dégoût disgust, J joie joy, N neutral, P peur fear, S surprise, T tristesse sadness
    a       always a

Every emotion has sentences of its own, so the text code is the letter with the number: Ja03 and Ca03 are other words.
Sentences a20 (speaker 16) and z03, z04 (speaker 07) are outside the numbering. The archive holds two versions: OréauFR_01
with 502 clips, and OréauFR_02 with the 434 that listeners recognised. Where both are given, the first is rejected.
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
# By the folders f and m of the second version, which has all thirty-two speakers; copies may lack the folders.
FEMALE = frozenset({"10", "11", "13", "21", "24", "37", "42"})
MALE = frozenset(f"{n:02}" for n in (7, 8, 9, 12, 14, 16, 18, 19, 20, 22, 23, *range(25, 34), 36, 38, 39, 40, 41))
NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[az]\d\d)(?P<emotion>[CDJNPST])a", re.IGNORECASE)
VERSION = re.compile(r"(?:^|/)or[^/]*au[^/]*0([12])/", re.IGNORECASE)  # the accent is one sign or two, or lost


def find(folder: Path) -> Iterator[Fields]:
    """Every file whose name follows the rule, of one version."""
    found = list(by_file_name(parse)(folder))
    both = {version(fields["source"]) for fields in found} >= {"1", "2"}
    for fields in found:
        old = both and version(fields["source"]) == "1"
        yield {"source": fields["source"], "rejected": "of the first version; the second one is here too"} if old else fields


def version(source: str) -> str:
    match = VERSION.search(source)
    return match[1] if match else ""


def parse(path: Path) -> Fields | None:
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
            434,
            32,
            {"angry": 67, "disgusted": 67, "fearful": 51, "happy": 62, "neutral": 70, "sad": 55, "surprised": 62},
        ),
        "first version": Counts(502, 32),
    },
    layout="files named like OréauFR_02/f/sessj/11a03Ja.wav (speaker, sentence, emotion letter)",
    find=find,
    note="In Oréau every emotion has sentences of its own: the words alone tell the emotion.",
)
