"""JL-Corpus: two women and two men, 15 sentences, five primary and five secondary emotions; New Zealand English.

The file name `female1_angry_10a_1.wav` encodes

    female1     speaker: female1, female2, male1, male2
    angry       emotion: primary angry, excited, happy, neutral, sad; secondary anxious, apologetic, assertive, concerned,
                encouraging
    10          sentence: 1 to 15
    a           recording session: a, b
    1           repetition within the session: 1, 2

Durations suggest that sentences 14 and 15 have other words in the secondary emotions than in the primary ones. They share a text
code here, so that the same words never count as two texts. The words are in a .txt file next to each audio file. The archive
contains every file twice, in folders that differ in capitalisation only; copies are rejected as duplicates.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

PRIMARY = ("angry", "excited", "happy", "neutral", "sad")
SECONDARY = ("anxious", "apologetic", "assertive", "concerned", "encouraging")
EMOTIONS = PRIMARY + SECONDARY
NAME = re.compile(
    r"(?P<speaker>(?P<sex>female|male)[12])_(?P<emotion>[a-z]+)_(?P<text>[1-9]|1[0-5])(?P<session>[ab])_(?P<take>[12])",
    re.IGNORECASE,
)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or match["emotion"].lower() not in EMOTIONS:
        return None
    return {
        "speaker": match["speaker"].lower(),
        "emotion": match["emotion"].lower(),
        "text": match["text"],
        "sex": match["sex"].lower(),
        "repetition": match["session"].lower() + match["take"],
    }


CORPUS = Corpus(
    name="jl_corpus",
    title="JL-Corpus",
    licence="CC0 1.0",
    citation=(
        "James, Tian, Watson: An Open Source Emotional Speech Corpus for Human Robot Interaction Applications. Interspeech 2018"
    ),
    url="https://www.kaggle.com/datasets/tli725/jl-corpus",
    language="en",
    counts={
        "complete": Counts(files=2400, speakers=4, emotions=dict.fromkeys(EMOTIONS, 240)),
        "primary emotions": Counts(files=1200, speakers=4, emotions=dict.fromkeys(PRIMARY, 240)),
    },
    layout="files named like JL(wav+txt)/female1_angry_10a_1.wav (speaker, emotion, sentence with session, repetition)",
    find=by_file_name(parse),
)
