"""ShEMO, the Sharif Emotional Speech Database: 87 speakers from radio plays, five emotions and neutral; Persian.

The file name `female/F03S02.wav` encodes

    F03     speaker: F women (31), M men (56), each numbered from 01
    S       emotion: A anger, F fear, H happiness, N neutral, S sadness, W surprise
    02      number of the utterance of this speaker and emotion; utterances have no sentences in common

The label is the majority of twelve listeners. Fear is rare. The names of the transcripts (.ort) differ from those of the audio
files in places; where they differ in emotion, Yazdani and Shekofteh (2022) consider the transcript's name correct.
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
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    speaker = match["speaker"].upper()
    return {"speaker": speaker, "emotion": EMOTIONS[match["emotion"].upper()], "sex": SEXES[speaker[0]]}


CORPUS = Corpus(
    name="shemo",
    title="ShEMO",
    licence="free for academic use; Apache 2.0 on its authors' Hugging Face page",
    citation=(
        "Mohamad Nezami, Jamshid Lou, Karami: ShEMO: A Large-Scale Validated Database for Persian Speech Emotion Detection. "
        "Language Resources and Evaluation 53(1), 2019"
    ),
    url="https://github.com/pariajm/sharif-emotional-speech-dataset",
    language="fa",
    counts={
        "complete": Counts(
            files=3000,
            speakers=87,
            emotions={"angry": 1059, "fearful": 38, "happy": 201, "neutral": 1028, "sad": 449, "surprised": 225},
        )
    },
    layout="files named like female/F03S02.wav (speaker, emotion letter, number)",
    find=by_file_name(parse),
    note="The names of 163 of 3000 files state another emotion than those of their transcripts (Yazdani, Shekofteh 2022).",
)
