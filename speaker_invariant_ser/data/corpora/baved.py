"""BAVED, the Basic Arabic Vocal Emotions Dataset: 61 speakers, seven words, three levels of emotion; Arabic.

The labels are levels of emotional intensity, not emotions. The file name `4/12-f-19-4-2-1079.wav` encodes

    12      speaker: 0 to 56 and 100 to 103
    f       sex: f female (16 speakers), m male (45)
    19      age in years, 5 to 41
    4       word: 0 "I liked", 1 "I did not like", 2 "this", 3 "the film", 4 "wonderful", 5 "fair", 6 "bad"
    2       level: 0 low, as if tired or down; 1 as in everyday speech; 2 high, with any emotion
    1079    number of the recording; not unique

The folders 0/ to 6/ are the words, not the levels. `speakers_info.json` repeats age and sex. Speakers 100, 102 and 103 have the
sex and age of 39, 41 and 42; whether they are the same persons is not documented.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

SEXES = {"f": "female", "m": "male"}
SPEAKERS = frozenset(map(str, [*range(57), *range(100, 104)]))
NAME = re.compile(r"(?P<speaker>\d{1,3})-(?P<sex>[fm])-\d{1,2}-(?P<text>[0-6])-(?P<level>[0-2])-\d+", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or match["speaker"] not in SPEAKERS:
        return None
    return {
        "speaker": match["speaker"],
        "emotion": f"level-{match['level']}",
        "text": match["text"],
        "sex": SEXES[match["sex"].lower()],
    }


CORPUS = Corpus(
    name="baved",
    title="BAVED",
    licence="not stated",
    citation="Aouf: Basic Arabic Vocal Emotions Dataset (BAVED). GitHub 2020",
    url="https://github.com/40uf411/Basic-Arabic-Vocal-Emotions-Dataset",
    language="ar",
    counts={"complete": Counts(files=1935, speakers=61)},
    layout="files named like 4/12-f-19-4-2-1079.wav (speaker, sex, age, word, level, number of the recording)",
    find=by_file_name(parse),
    note=(
        "Labels are levels of emotional intensity, not emotions: level-0 low, level-1 as in everyday speech, level-2 high. "
        "Speakers 100, 102 and 103 may be the same persons as 39, 41 and 42."
    ),
)
