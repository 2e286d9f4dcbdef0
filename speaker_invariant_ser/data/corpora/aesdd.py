"""AESDD, the Acted Emotional Speech Dynamic Database: six actors, 19 scripted lines and one improvised, five emotions; Greek.

The file name `sadness/s01 (5)b.wav` encodes

    s       emotion: a anger, d disgust, f fear, h happiness, s sadness; the same as the folder
    01      line: 01 to 19 are scripted; 20 is improvised by each actor for each emotion
    (5)     speaker: 1 to 6, sometimes written (01)
    b       take, where a line has several

The README lists five actors, three women and two men, without saying which number is whose; the sixth was added later.
Sex is therefore unknown. Some combinations do not exist, and `s05 (3).wav` contains no audio in the official archive.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "a": "angry",
    "d": "disgusted",
    "f": "fearful",
    "h": "happy",
    "s": "sad",
}
IMPROVISED = "20"
DAMAGED = "s05 (3)"
NAME = re.compile(r"(?P<emotion>[adfhs])(?P<line>0[1-9]|1\d|20) ?\(0?(?P<speaker>[1-6])\)(?P<repetition>[ab]?)", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    if path.stem.lower() == DAMAGED:
        return {"rejected": "damaged in the official archive"}
    improvised = match["line"] == IMPROVISED
    return {
        "speaker": match["speaker"],
        "emotion": EMOTIONS[match["emotion"].lower()],
        "text": "" if improvised else match["line"],
        "style": "improvised" if improvised else "scripted",
        "repetition": match["repetition"].lower(),
    }


CORPUS = Corpus(
    name="aesdd",
    title="AESDD",
    licence="not stated; its authors call it public, re-uploads state different licences",
    citation=(
        "Vryzas, Kotsakis, Liatsou, Dimoulas, Kalliris: Speech Emotion Recognition for Performance Interaction. "
        "Journal of the Audio Engineering Society 66(6), 2018"
    ),
    url="http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/",
    language="el",
    # counted in the archive: the README says "around 500" for the first version and gives no other number
    counts={
        "complete": Counts(
            files=604, speakers=6, emotions={"angry": 121, "disgusted": 122, "fearful": 120, "happy": 119, "sad": 122}
        )
    },
    layout="files named like sadness/s01 (5)b.wav (emotion letter and line, speaker, take)",
    find=by_file_name(parse),
)
