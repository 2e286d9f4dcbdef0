"""SAVEE: four men of the University of Surrey say TIMIT sentences in seven emotions, in British English.

The file `AudioData/DC/sa07.wav`, in some copies `DC_sa07.wav`, is

    DC      speaker: DC, JE, JK, KL, all men; the folder or the beginning of the name
    sa      emotion: a anger, d disgust, f fear, h happiness, n neutral, sa sadness, su surprise
    07      sentence of that emotion: 01 to 15, and to 30 for neutral

Sentences are the same for all speakers. Three are common to all emotions, two belong to one emotion's meaning and ten are
others of its own; neutral adds those three and the twelve with a meaning. Which numbers these are is in no document
found; by the lengths of the clips the common ones are 01 to 03, and once more n16 to n18, so these share their text
code here. The order of the twelve in n19 to n30 stays unclear: their codes are their own, though the words are not.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "a": "angry",
    "d": "disgusted",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}
SPEAKERS = ("DC", "JE", "JK", "KL")
COMMON = {number: f"{number:02}" for number in (1, 2, 3)}
COMMON_AGAIN = {number + 15: text for number, text in COMMON.items()}  # in neutral alone
NAME = re.compile(r"(?:(?P<speaker>DC|JE|JK|KL)_?)?(?P<emotion>sa|su|[adfhn])(?P<number>\d\d)", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    speaker = (match["speaker"] or folder_speaker(path)).upper()
    code, number = match["emotion"].lower(), int(match["number"])
    if not speaker or not 1 <= number <= (30 if code == "n" else 15):
        return None
    return {
        "id": f"{speaker}_{code}{number:02}",
        "speaker": speaker,
        "emotion": EMOTIONS[code],
        "text": sentence(code, number),
        "sex": "male",
    }


def folder_speaker(path: Path) -> str:
    """The speaker after whom the nearest folder is named, or ""."""
    return next((name for name in reversed(path.parts[:-1]) if name.upper() in SPEAKERS), "")


def sentence(code: str, number: int) -> str:
    again = COMMON_AGAIN if code == "n" else {}
    return (COMMON | again).get(number, f"{code}{number:02}")


CORPUS = Corpus(
    name="savee",
    title="SAVEE",
    licence="free of charge for research, after registration",
    citation="Haq, Jackson: Multimodal Emotion Recognition. In: Wang (ed.), Machine Audition. IGI Global 2010",
    url="by registration: http://kahlan.eps.surrey.ac.uk/savee/Download.html",
    language="en",
    counts={"complete": Counts(480, 4, dict.fromkeys(EMOTIONS.values(), 60) | {"neutral": 120})},
    layout="files named like DC/sa07.wav or DC_sa07.wav (speaker DC, JE, JK or KL, then emotion letters and number)",
    find=by_file_name(parse),
    note="SAVEE has four speakers, all men: what holds for them need not hold for women.",
)
