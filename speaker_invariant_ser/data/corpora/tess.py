"""TESS, the Toronto Emotional Speech Set: two actresses aged 26 and 64, 200 words, seven emotions; Canadian English.

The file name `OAF_back_ps.wav` encodes

    OAF     speaker: OAF the older, YAF the younger actress
    back    word, spoken in "Say the word back"
    ps      emotion: angry, disgust, fear, happy, neutral, ps pleasant surprise, sad

One file is misnamed OA_bite_neutral and belongs to OAF. The release has no folders. Common re-uploads have one folder per speaker
and emotion with varying capitalisation (OAF_Fear, YAF_pleasant_surprised), and contain every file twice, in a subfolder with the
name of the folder; copies are rejected as duplicates.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields, by_file_name

EMOTIONS = {
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",
    "sad": "sad",
}
SPEAKERS = {"OAF": "OAF", "YAF": "YAF", "OA": "OAF"}
NAME = re.compile(rf"(?P<speaker>OAF?|YAF)_(?P<text>[a-z]+)_(?P<emotion>{'|'.join(EMOTIONS)})", re.IGNORECASE)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    return {
        "speaker": SPEAKERS[match["speaker"].upper()],
        "emotion": EMOTIONS[match["emotion"].lower()],
        "text": match["text"].lower(),
        "sex": "female",
    }


CORPUS = Corpus(
    name="tess",
    title="TESS",
    licence="CC BY-NC-ND 4.0",
    citation="Pichora-Fuller, Dupuis: Toronto Emotional Speech Set (TESS). Borealis, doi:10.5683/SP2/E8H2MF, 2020",
    url="https://doi.org/10.5683/SP2/E8H2MF",
    language="en",
    counts={"complete": Counts(files=2800, speakers=2, emotions=dict.fromkeys(EMOTIONS.values(), 400))},
    layout="files named like OAF_back_angry.wav (speaker OAF or YAF, word, emotion)",
    find=by_file_name(parse),
    note=(
        "TESS has two speakers, both women: with one held out, a model is trained on a single speaker, and results on unseen "
        "speakers describe these two only."
    ),
    download=(
        Download(
            url="https://huggingface.co/datasets/myleslinder/tess/resolve/4301d8d3902361afbb720ef076a0e4b1145bbb86/data/tess.zip",
            hash="sha256:752556de8c109b1d27d163e2a00b0ec8b8186600fd233ab8bd369d003d3cb218",
            bytes=224_036_453,
        ),
    ),
)
