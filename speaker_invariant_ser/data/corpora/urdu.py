"""URDU: unscripted talk in four emotions, cut from talk shows, in Urdu.

The file name `Sad/SM25_F29_S079.wav` is

    SM25        speaker: SM and 1 to 27 are men, SF and 1 to 11 are women, the same number in all folders
    F29         which clip of this speaker in this emotion
    S           emotion: A angry, H happy, N neutral, S sad
    079         which clip of this emotion, 01 to 0100, always with a zero before it

One folder for each emotion. The corpus says that it has 38 speakers, and the highest numbers are SM27 and SF11; but no file
is named after SM8 to SM16, so that 29 are there. Only SM3, SM5 and SM6 have more than one emotion; all who are angry are men.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
SEXES = {"M": "male", "F": "female"}
SPEAKERS = {"M": 27, "F": 11}  # the highest number of each sex
NAME = re.compile(r"S(?P<sex>[MF])(?P<number>[1-9]\d?)_F[1-9]\d{0,2}_(?P<emotion>[AHNS])0\d{1,3}", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    match = NAME.fullmatch(path.stem)
    if not match or int(match["number"]) > SPEAKERS[match["sex"].upper()]:
        return None
    sex = match["sex"].upper()
    return {"speaker": f"S{sex}{match['number']}", "emotion": EMOTIONS[match["emotion"].upper()], "sex": SEXES[sex]}


CORPUS = Corpus(
    name="urdu",
    title="URDU",
    licence="no named licence; for research purposes only",
    citation="Latif, Qayyum, Usman, Qadir: Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages. FIT 2018",
    url="https://github.com/siddiquelatif/URDU-Dataset",
    language="ur",
    counts={"complete": Counts(400, 29, dict.fromkeys(EMOTIONS.values(), 100))},
    layout="files named like Sad/SM25_F29_S079.wav (speaker, clip of the speaker, emotion letter and clip of the emotion)",
    find=by_file_name(parse),
    note=(
        "26 of the 29 speakers have one emotion only, and four men have all that is angry: "
        "who speaks tells nearly which emotion it is, so that the two cannot be told apart well"
    ),
)
