"""MESD, the Mexican Emotional Speech Database: women, men and children say single words in six emotions; Mexican Spanish.

The file name `Sadness_M_B_abandono.wav` encodes

    Sadness     emotion: Anger, Disgust, Fear, Happiness, Neutral, Sadness
    M           group of speakers: F women (3 persons), M men (2), C children (6)
    B           word list: A is the same in all emotions, B has words that go with the emotion
    abandono    word or words, such as basta_ya, without accents

The names do not distinguish the persons of a group, so `speaker` is the group: F, M or C. No person is in two groups. The papers
describe 864 files; the download has 862, with one angry and one neutral file fewer.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
}
SEXES = {"f": "female", "m": "male", "c": ""}
NAME = re.compile(r"(?P<emotion>[a-z]+)_(?P<group>[fmc])_(?P<list>[ab])_(?P<text>\w+)")


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem.lower())
    if not match or match["emotion"] not in EMOTIONS:
        return None
    return {
        "speaker": match["group"].upper(),
        "emotion": EMOTIONS[match["emotion"]],
        "text": match["text"],
        "sex": SEXES[match["group"]],
    }


CORPUS = Corpus(
    name="mesd",
    title="MESD",
    licence="CC BY 4.0",
    citation=(
        "Duville, Alonso-Valerdi, Ibarra-Zarate: Mexican Emotional Speech Database Based on Semantic, Frequency, Familiarity, "
        "Concreteness, and Cultural Shaping of Affective Prosody. Data 6(12), 130, 2021"
    ),
    url="https://data.mendeley.com/datasets/cy34mh68j9",
    language="es",
    counts={
        "as downloaded": Counts(
            files=862, speakers=3, emotions=dict.fromkeys(EMOTIONS.values(), 144) | {"angry": 143, "neutral": 143}
        ),
        "as described": Counts(files=864, speakers=3, emotions=dict.fromkeys(EMOTIONS.values(), 144)),
    },
    layout="files named like Sadness_M_B_abandono.wav (emotion; F, M or C for women, men or children; word list; word)",
    find=by_file_name(parse),
    note=(
        "Speakers are groups, not persons: F is three women, M two men and C six children, whom the file names do not "
        "distinguish. Results per speaker measure how well women, men and children are distinguished."
    ),
)
