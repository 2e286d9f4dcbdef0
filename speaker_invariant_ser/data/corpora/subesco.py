"""SUBESCO, the SUST Bangla Emotional Speech Corpus: 20 actors, ten sentences, seven emotions, five takes; Bangla.

The file name `F_02_MONIKA_S_1_NEUTRAL_5.wav` encodes

    F_02        speaker: F_01 to F_10 women, M_01 to M_10 men; the number without the letter is ambiguous
    MONIKA      name of the speaker
    S_1         sentence: 1 to 10
    NEUTRAL     emotion: ANGRY, DISGUST, FEAR, HAPPY, NEUTRAL, SAD, SURPRISE
    5           take: 1 to 5

All files are in one folder and none is missing. One name has a typing error: `F_02_MONIKA_S_2_SURPRISE_3].wav`.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields, by_file_name

EMOTIONS = {
    "ANGRY": "angry",
    "DISGUST": "disgusted",
    "FEAR": "fearful",
    "HAPPY": "happy",
    "NEUTRAL": "neutral",
    "SAD": "sad",
    "SURPRISE": "surprised",
}
SEXES = {"F": "female", "M": "male"}
NAME = re.compile(
    r"(?P<speaker>[FM]_(?:0[1-9]|10))_[A-Z]+_S_(?P<text>[1-9]|10)_(?P<emotion>[A-Z]+)_(?P<repetition>[1-5])]?",
    re.IGNORECASE,
)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or match["emotion"].upper() not in EMOTIONS:
        return None
    speaker = match["speaker"].upper()
    return {
        "id": path.stem.removesuffix("]"),
        "speaker": speaker,
        "emotion": EMOTIONS[match["emotion"].upper()],
        "text": match["text"],
        "sex": SEXES[speaker[0]],
        "repetition": match["repetition"],
    }


CORPUS = Corpus(
    name="subesco",
    title="SUBESCO",
    licence="CC BY 4.0",
    citation=(
        "Sultana, Rahman, Selim, Iqbal: SUST Bangla Emotional Speech Corpus (SUBESCO): An Audio-Only Emotional Speech Corpus "
        "for Bangla. PLoS ONE 16(4), e0250173, 2021"
    ),
    url="https://zenodo.org/records/4526477",
    language="bn",
    counts={"complete": Counts(files=7000, speakers=20, emotions=dict.fromkeys(EMOTIONS.values(), 1000))},
    layout="files named like F_02_MONIKA_S_1_NEUTRAL_5.wav (speaker, name, sentence, emotion, take)",
    find=by_file_name(parse),
    download=(
        Download(
            url="https://zenodo.org/records/4526477/files/SUBESCO.zip",
            hash="md5:13d702cf944bf54d70d66bffc036ed7a",
            bytes=1_664_512_929,
        ),
    ),
)
