"""SAVEE: four male speakers of the University of Surrey, TIMIT sentences, seven emotions; British English.

The path `AudioData/DC/sa07.wav`, in some copies `DC_sa07.wav`, encodes

    DC      speaker: DC, JE, JK, KL, all men; the folder or the beginning of the name
    sa      emotion: a anger, d disgust, f fear, h happiness, n neutral, sa sadness, su surprise
    07      sentence of this emotion: 01 to 15, for neutral 01 to 30

All speakers read the same sentences. Of the fifteen sentences of an emotion, three are common to all emotions, two are specific
to the emotion and ten are generic and differ per emotion. Neutral repeats the three common and the twelve specific sentences. No
document says which numbers these are. Durations indicate that 01 to 03 are the common ones, repeated as n16 to n18; these share
their text code here. The order of n19 to n30 is unknown, so they have separate codes although their words occur elsewhere.
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
COMMON_REPEATED = {number + 15: text for number, text in COMMON.items()}  # in neutral only
NAME = re.compile(r"(?:(?P<speaker>DC|JE|JK|KL)_?)?(?P<emotion>sa|su|[adfhn])(?P<number>\d\d)", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    """Return the fields that folder and file name encode.

    Returns None if the path has no speaker or the file name does not follow the corpus's naming scheme.
    """
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
    """Return the speaker after whom the nearest folder is named, or an empty string."""
    return next((name for name in reversed(path.parts[:-1]) if name.upper() in SPEAKERS), "")


def sentence(code: str, number: int) -> str:
    """Return the text code of a sentence: the number alone where the sentence is common to all emotions."""
    repeated = COMMON_REPEATED if code == "n" else {}
    return (COMMON | repeated).get(number, f"{code}{number:02}")


CORPUS = Corpus(
    name="savee",
    title="SAVEE",
    licence="free for research, after registration",
    citation="Haq, Jackson: Multimodal Emotion Recognition. In: Wang (ed.), Machine Audition. IGI Global 2010",
    url="http://kahlan.eps.surrey.ac.uk/savee/Download.html (after registration)",
    language="en",
    counts={"complete": Counts(files=480, speakers=4, emotions=dict.fromkeys(EMOTIONS.values(), 60) | {"neutral": 120})},
    layout="files named like DC/sa07.wav or DC_sa07.wav (speaker DC, JE, JK or KL, then emotion letters and number)",
    find=by_file_name(parse),
    note="SAVEE has four speakers, all men: results may not apply to women.",
)
