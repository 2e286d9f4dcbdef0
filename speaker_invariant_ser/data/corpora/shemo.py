"""ShEMO, the Sharif Emotional Speech Database: 87 speakers cut from radio plays, five emotions and neutral, in Persian.

The file name `female/F03S02.wav` is

    F03     speaker: F for women (31 of them), M for men (56), each counted from 01
    S       emotion: A anger, F fear, H happiness, N neutral, S sadness, W surprise
    02      which utterance of that speaker in that emotion; plays have no sentences in common

Emotions are a majority of twelve listeners. Fear is rare. The names of the transcripts (.ort) are not all those of the
sound files; where the two differ in emotion, a later study (Yazdani, Shekofteh 2022) found the transcript's name to be right.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "A": "angry",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "W": "surprised",
}
SEXES = {"F": "female", "M": "male"}
NAME = re.compile(r"(?P<speaker>[FM]\d\d)(?P<emotion>[AFHNSW])\d\d", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    speaker = match["speaker"].upper()
    return {"speaker": speaker, "emotion": EMOTIONS[match["emotion"].upper()], "sex": SEXES[speaker[0]]}


CORPUS = Corpus(
    name="shemo",
    title="ShEMO",
    licence="free of charge for academic purposes; Apache 2.0 on its authors' Hugging Face page",
    citation=(
        "Mohamad Nezami, Jamshid Lou, Karami: ShEMO: A Large-Scale Validated Database for Persian Speech Emotion Detection. "
        "Language Resources and Evaluation 53(1), 2019"
    ),
    url="https://github.com/pariajm/sharif-emotional-speech-dataset",
    language="fa",
    counts={
        "complete": Counts(
            3000,
            87,
            {"angry": 1059, "fearful": 38, "happy": 201, "neutral": 1028, "sad": 449, "surprised": 225},
        )
    },
    layout="files named like female/F03S02.wav (sex and speaker, emotion letter, count)",
    find=by_file_name(parse),
    note="163 of its 3000 files carry another emotion in their name than in their transcript's (Yazdani, Shekofteh 2022).",
)
