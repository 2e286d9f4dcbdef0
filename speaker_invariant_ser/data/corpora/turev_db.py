"""TurEV-DB, the Turkish Emotion-Voice Database: six speakers, 82 words, four emotions; Turkish.

The file name `Sound Source/Happy/1234_mt_cay.wav` encodes

    1234        speaker: 1157, 1234, 1358, 1984, 6783, 7895; sex is not documented
    mt          emotion: hl sad, kz angry, mt happy, sk calm
    cay         word, written without Turkish diacritics

There is one folder per emotion, named in English. Speaker 1157 has only angry and sad. The repository also contains low-pass and
high-pass filtered copies of the test files, under the same names, in `Model Output for Test Data/testEmotions.../`; these are
skipped.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {"hl": "sad", "kz": "angry", "mt": "happy", "sk": "calm"}
NAME = re.compile(r"(?P<speaker>\d{4})_(?P<emotion>hl|kz|mt|sk)_(?P<text>[a-z]+)")


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem.lower())
    if not match or "/testemotions" in f"/{path.as_posix().lower()}":
        return None
    return {"speaker": match["speaker"], "emotion": EMOTIONS[match["emotion"]], "text": match["text"]}


CORPUS = Corpus(
    name="turev_db",
    title="TurEV-DB",
    licence="CC BY-NC-ND 4.0",
    citation="Canpolat, Ormanoğlu, Zeyrek: Turkish Emotion Voice Database (TurEV-DB). SLTU-CCURL 2020",
    url="https://github.com/Xeonen/TurEV-DB",
    language="tr",
    counts={"complete": Counts(files=1735, speakers=6, emotions={"angry": 487, "calm": 408, "happy": 357, "sad": 483})},
    layout="files named like Sound Source/Happy/1234_mt_cay.wav (speaker, emotion in two letters, word)",
    find=by_file_name(parse),
    other_files=("testemotions*", "*/testemotions*"),
)
