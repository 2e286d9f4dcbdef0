"""AESDD, the Acted Emotional Speech Dynamic Database: six actors say nineteen given lines and one of their own, in Greek.

The file name `sadness/s01 (5)b.wav` is

    s       emotion: a anger, d disgust, f fear, h happiness, s sadness, as its folder says
    01      line: 01 to 19, and 20, which every actor made up anew for each emotion
    (5)     speaker: 1 to 6, at times written (01)
    b       another take, where several were good

Its README knows five actors, three women and two men, without saying which number is whose; the sixth came later, so the
sexes are unknown here. Some clips were never there; `s05 (3).wav` is there, but holds no sound.
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
NAME = re.compile(r"(?P<emotion>[adfhs])(?P<line>0[1-9]|1\d|20) ?\(0?(?P<speaker>[1-6])\)(?P<take>[ab]?)", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    if path.stem.lower() == DAMAGED:
        return {"rejected": "damaged in the corpus's own archive"}
    improvised = match["line"] == IMPROVISED
    return {
        "speaker": match["speaker"],
        "emotion": EMOTIONS[match["emotion"].lower()],
        "text": "" if improvised else match["line"],
        "style": "improvised" if improvised else "scripted",
        "repetition": match["take"].lower(),
    }


CORPUS = Corpus(
    name="aesdd",
    title="AESDD",
    licence="not stated; its authors call it public, re-uploads name licences of their own",
    citation=(
        "Vryzas, Kotsakis, Liatsou, Dimoulas, Kalliris: Speech Emotion Recognition for Performance Interaction. "
        "Journal of the Audio Engineering Society 66(6), 2018"
    ),
    url="http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/",
    language="el",
    # as the archive holds them: the README says only "around 500" of its first version
    counts={"complete": Counts(604, 6, {"angry": 121, "disgusted": 122, "fearful": 120, "happy": 119, "sad": 122})},
    layout="files named like sadness/s01 (5)b.wav (emotion letter with line, speaker, take)",
    find=by_file_name(parse),
)
