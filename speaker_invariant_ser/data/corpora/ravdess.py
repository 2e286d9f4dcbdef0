"""RAVDESS: 24 Canadian actors, two sentences spoken and sung at two intensities, two takes, eight emotions; English.

The file name `03-01-06-02-02-01-12.wav` consists of seven numbers:

    03      modality: 03 audio only (01 audio and video, 02 video only)
    01      vocal channel: 01 speech, 02 song
    06      emotion: 01 neutral, 02 calm, 03 happy, 04 sad, 05 angry, 06 fearful, 07 disgusted, 08 surprised
    02      intensity: 01 normal, 02 strong (neutral has only normal)
    02      sentence: 01 "Kids are talking by the door", 02 "Dogs are sitting by the door"
    01      repetition: 01, 02
    12      actor: 01 to 24; odd numbers are men, even numbers women

Speech is in Actor_01/ to Actor_24/. Song has no disgust, no surprise and no actor 18. One common re-upload contains every file a
second time in audio_speech_actors_01-24/; copies are rejected as duplicates.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields, by_file_name

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
STYLES = {"01": "speech", "02": "song"}
INTENSITIES = {"01": "normal", "02": "strong"}
# Modality 02 has no sound. The field `style` of an utterance holds the vocal channel.
NAME = re.compile(
    r"0[13]-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<text>0[12])-(?P<repetition>0[12])-(?P<actor>\d\d)"
)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or not 1 <= int(match["actor"]) <= 24:
        return None
    return {
        "speaker": match["actor"],
        "emotion": EMOTIONS[match["emotion"]],
        "text": match["text"],
        "sex": "male" if int(match["actor"]) % 2 else "female",
        "style": STYLES[match["channel"]],
        "intensity": INTENSITIES[match["intensity"]],
        "repetition": match["repetition"].lstrip("0"),
    }


SPEECH = dict.fromkeys(EMOTIONS.values(), 192) | {"neutral": 96}
SONG = {"neutral": 92, "calm": 184, "happy": 184, "sad": 184, "angry": 184, "fearful": 184}
BOTH = {label: SPEECH[label] + SONG.get(label, 0) for label in SPEECH}

CORPUS = Corpus(
    name="ravdess",
    title="RAVDESS",
    licence="CC BY-NC-SA 4.0; commercial licences available from its authors",
    citation=(
        "Livingstone, Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
        "PLoS ONE 13(5), e0196391, 2018"
    ),
    url="https://zenodo.org/records/1188976",
    language="en",
    counts={
        "speech": Counts(files=1440, speakers=24, emotions=SPEECH),
        "song": Counts(files=1012, speakers=23, emotions=SONG),
        "speech and song": Counts(files=2452, speakers=24, emotions=BOTH),
    },
    layout="files named like Actor_12/03-01-06-02-02-01-12.wav (seven numbers, the last one the actor)",
    find=by_file_name(parse),
    download=(
        Download(
            url="https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip",
            hash="md5:bc696df654c87fed845eb13823edef8a",
            bytes=208_468_073,
        ),
    ),
)
