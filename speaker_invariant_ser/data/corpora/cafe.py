"""CaFE, the Canadian French Emotional speech dataset: twelve actors, six sentences, seven emotions; Canadian French.

The file name `Joie/Fort/02-J-2-5.wav` encodes

    02      speaker: 01 to 12; odd numbers are men, even numbers women; ages 15 to 64
    J       emotion: C colère (anger), D dégoût (disgust), J joie (joy), N neutral, P peur (fear), S surprise, T tristesse
            (sadness)
    2       intensity: 1 faible (mild), 2 fort (strong); neutral has only 1, which does not mean mild there
    5       sentence: 1 "Un cheval fou dans mon jardin" to 6 "Six ours aimants domestiqués"

The release has CaFE_48k.zip (WAV) and two archives at 192 kHz (AIFF) with the same recordings: use one of them. Some programs
unpack the accents in folder names wrongly (ColŠre, D‚go–t), so only file names are parsed. One re-upload writes 02_J_2_5.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "C": "angry",
    "D": "disgusted",
    "J": "happy",
    "N": "neutral",
    "P": "fearful",
    "S": "surprised",
    "T": "sad",
}
INTENSITIES = {"1": "faible", "2": "fort"}
NAME = re.compile(
    r"(?P<speaker>0[1-9]|1[0-2])(?P<sign>[-_])(?P<emotion>[CDJNPST])(?P=sign)(?P<intensity>[12])(?P=sign)(?P<text>[1-6])",
    re.IGNORECASE,
)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    emotion = EMOTIONS[match["emotion"].upper()]
    if emotion == "neutral" and match["intensity"] != "1":
        return None
    return {
        "speaker": match["speaker"],
        "emotion": emotion,
        "text": match["text"],
        "sex": "male" if int(match["speaker"]) % 2 else "female",
        "intensity": "" if emotion == "neutral" else INTENSITIES[match["intensity"]],
    }


CORPUS = Corpus(
    name="cafe",
    title="CaFE",
    licence="CC BY-NC-SA 4.0",
    citation="Gournay, Lahaie, Lefebvre: A Canadian French Emotional Speech Dataset. ACM Multimedia Systems 2018",
    url="https://zenodo.org/records/1478765",
    language="fr",
    counts={"complete": Counts(files=936, speakers=12, emotions=dict.fromkeys(EMOTIONS.values(), 144) | {"neutral": 72})},
    layout="files named like Joie/Fort/02-J-2-5.wav (speaker, emotion letter, intensity, sentence)",
    find=by_file_name(parse),
)
