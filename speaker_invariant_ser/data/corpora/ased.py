"""ASED, the Amharic Speech Emotion Dataset: 65 speakers, seven sentences per emotion, five emotions, two takes; Amharic.

The file name `05Angry/a5-03-01-02-50.wav` encodes

    a5      emotion, as letter and folder number: n1 neutral, f2 fearful, h3 happy, s4 sad, a5 angry
    03      sentence of this emotion: 01 to 07
    01      repetition: 01, 02
    02      sex: 01 female (25 speakers), 02 male (40)
    50      speaker: 01 to 65

Five of the seven sentences exist in one emotion only and two are common to all emotions. The names do not say which two, so
`text` is the emotion letter and the sentence number. Of 4550 recordings the corpus contains those whose intended emotion at
least five of eight judges recognised. One name begins with a capital letter (S4-04-02-01-29). Speakers come from four dialect
regions; the dialect of a speaker is not documented.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {"n1": "neutral", "f2": "fearful", "h3": "happy", "s4": "sad", "a5": "angry"}
SEXES = {"01": "female", "02": "male"}
NAME = re.compile(r"(?P<emotion>n1|f2|h3|s4|a5)-(?P<text>0[1-7])-(?P<repetition>0[12])-(?P<sex>0[12])-(?P<speaker>\d\d)")


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem.lower())
    if not match or not 1 <= int(match["speaker"]) <= 65:
        return None
    return {
        "speaker": match["speaker"],
        "emotion": EMOTIONS[match["emotion"]],
        "text": match["emotion"][0] + match["text"],
        "sex": SEXES[match["sex"]],
        "repetition": match["repetition"].lstrip("0"),
    }


CORPUS = Corpus(
    name="ased",
    title="ASED",
    licence="not stated; free to download, its authors ask for a citation of the paper",
    citation=(
        "Retta, Almekhlafi, Sutcliffe, Mhamed, Ali, Feng: A New Amharic Speech Emotion Dataset and Classification Benchmark. "
        "ACM TALLIP 2023"
    ),
    url="https://github.com/wgwangang/ASED_V1",
    language="am",
    counts={
        "complete": Counts(
            files=2474, speakers=65, emotions={"neutral": 522, "fearful": 510, "happy": 486, "sad": 470, "angry": 486}
        )
    },
    layout="files named like 05Angry/a5-03-01-02-50.wav (emotion, sentence, repetition, sex, speaker)",
    find=by_file_name(parse),
    note=(
        "The duration of most utterances depends on emotion and sex (angry men 2.4 s, fearful men 3.9 s, sad women 3.5 s): "
        "duration alone predicts much of the emotion."
    ),
)
