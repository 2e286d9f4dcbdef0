"""MESD: women, men and children say single words in six emotions, in Mexican Spanish. Who of them speaks is not told.

The file name `Sadness_M_B_abandono.wav` is

    Sadness     emotion: Anger, Disgust, Fear, Happiness, Neutral, Sadness
    M           kind of voice: F women (3 people), M men (2), C children (6)
    B           list of words: A the same in every emotion, B chosen to go with the emotion
    abandono    word or words, such as basta_ya, without the Spanish signs on their letters

`speaker` is the kind of voice, F, M or C, as nothing tells the people apart: each is several, and no person is in two of
them. The papers speak of 864 clips; lists of the files hold 862, with one angry and one neutral clip fewer.
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
NAME = re.compile(r"(?P<emotion>[a-z]+)_(?P<voice>[fmc])_(?P<list>[ab])_(?P<text>\w+)")


def parse(path: Path) -> Fields | None:
    match = NAME.fullmatch(path.stem.lower())
    if not match or match["emotion"] not in EMOTIONS:
        return None
    return {
        "speaker": match["voice"].upper(),
        "emotion": EMOTIONS[match["emotion"]],
        "text": match["text"],
        "sex": SEXES[match["voice"]],
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
        "as downloaded": Counts(862, 3, dict.fromkeys(EMOTIONS.values(), 144) | {"angry": 143, "neutral": 143}),
        "as described": Counts(864, 3, dict.fromkeys(EMOTIONS.values(), 144)),
    },
    layout="files named like Sadness_M_B_abandono.wav (emotion; F, M or C for the kind of voice; list of words; word)",
    find=by_file_name(parse),
    note=(
        "speakers are kinds of voice, not people: F is three women, M two men and C six children, whom nothing tells apart; "
        "figures about speakers say how well women, men and children are told apart"
    ),
)
