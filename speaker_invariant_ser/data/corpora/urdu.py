"""URDU: unscripted speech from television talk shows, four emotions; Urdu.

The file name `Sad/SM25_F29_S079.wav` encodes

    SM25        speaker: SM1 to SM27 are men, SF1 to SF11 women; the number is the same in all folders
    F29         number of the file of this speaker and emotion
    S           emotion: A angry, H happy, N neutral, S sad
    079         number of the file of this emotion: 01 to 0100, always with a leading zero

There is one folder per emotion. The corpus states 38 speakers, and the highest numbers are SM27 and SF11, but no file belongs to
SM8 to SM16, so 29 speakers remain. Only SM3, SM5 and SM6 have more than one emotion; all angry speakers are men.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
SEXES = {"M": "male", "F": "female"}
SPEAKERS = {"M": 27, "F": 11}  # the highest number of each sex
NAME = re.compile(r"S(?P<sex>[MF])(?P<number>[1-9]\d?)_F[1-9]\d{0,2}_(?P<emotion>[AHNS])0\d{1,3}", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or int(match["number"]) > SPEAKERS[match["sex"].upper()]:
        return None
    sex = match["sex"].upper()
    return {"speaker": f"S{sex}{match['number']}", "emotion": EMOTIONS[match["emotion"].upper()], "sex": SEXES[sex]}


CORPUS = Corpus(
    name="urdu",
    title="URDU",
    licence="not stated; research only",
    citation="Latif, Qayyum, Usman, Qadir: Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages. FIT 2018",
    url="https://github.com/siddiquelatif/URDU-Dataset",
    language="ur",
    counts={"complete": Counts(files=400, speakers=29, emotions=dict.fromkeys(EMOTIONS.values(), 100))},
    layout="files named like Sad/SM25_F29_S079.wav (speaker, number within speaker, emotion letter and number within emotion)",
    find=by_file_name(parse),
    note=(
        "26 of the 29 speakers have only one emotion, and all angry utterances are from four men: the speaker nearly determines "
        "the emotion, so a model can recognise speakers instead of emotions."
    ),
)
