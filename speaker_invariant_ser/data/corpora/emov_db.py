"""EmoV-DB, the Emotional Voices Database: four speakers read CMU Arctic sentences in five emotional styles; English.

The path `jenie/Amused/amused_57-84_0057.wav`, in other copies `jenie_Amused/amused_57-84_0057.wav`, encodes

    jenie       speaker: bea, jenie, josh or sam. Only the folder names the speaker; some copies repeat it at the beginning of
                the file name (jenie_amused_57-84_0057.wav)
    Amused      folder of the emotion: Amused, Angry, Disgusted, Neutral, Sleepy
    amused      emotion: amused, anger, disgust, neutral, sleepiness
    57-84       range of sentences in one annotation file; sometimes written 225_252
    0057        sentence: arctic_a0057 of CMU Arctic

Josh has neither anger nor disgust. Utterances contain laughter, yawns and other non-verbal sounds. Two copies are in use: the
sorted one, from which the authors removed recordings that do not match their sentence, and an unsorted one.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "amused": "amused",
    "anger": "angry",
    "angry": "angry",
    "disgust": "disgusted",
    "disgusted": "disgusted",
    "neutral": "neutral",
    "sleepiness": "sleepy",
    "sleepy": "sleepy",
}
SEXES = {"bea": "female", "jenie": "female", "josh": "male", "sam": "male"}
NAME = re.compile(r"(?:(?P<speaker>[a-z]+)_)?(?P<clip>(?P<emotion>[a-z]+)_\d+[-_]\d+_(?P<text>\d{4}))", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    """Return the fields that folders and file name encode, or None if they do not follow the code or disagree."""
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    words = [word for part in (*path.parts[:-1], match["speaker"] or "") for word in part.lower().split("_")]
    speaker = next((word for word in reversed(words) if word in SEXES), "")
    emotion = EMOTIONS.get(match["emotion"].lower())
    # The nearest folder that names an emotion must agree with the file name.
    folder = next((EMOTIONS[word] for word in reversed(words) if word in EMOTIONS), emotion)
    if not speaker or not emotion or folder != emotion:
        return None
    return {
        "id": f"{speaker}_{match['clip']}",
        "speaker": speaker,
        "emotion": emotion,
        "text": match["text"],
        "sex": SEXES[speaker],
    }


CORPUS = Corpus(
    name="emov_db",
    title="EmoV-DB",
    licence="non-commercial use only (LICENSE.md of the corpus); commercial use by agreement with its authors",
    citation=(
        "Adigwe, Tits, El Haddad, Ostadabbas, Dutoit: The Emotional Voices Database: Towards Controlling the Emotion Dimension "
        "in Voice Generation Systems. arXiv:1806.09514, 2018"
    ),
    url="https://openslr.org/115/",
    language="en",
    counts={
        "sorted": Counts(files=6887, speakers=4),  # as listed by EmoBox; the README counts all recordings
        "README": Counts(
            files=7000, speakers=4, emotions={"amused": 1330, "angry": 1308, "disgusted": 1033, "neutral": 1585, "sleepy": 1744}
        ),
    },
    layout="files named like jenie/Amused/amused_57-84_0057.wav or jenie_Amused/amused_57-84_0057.wav (emotion, range, sentence)",
    find=by_file_name(parse),
)
