"""EMOVO: six actors, 14 sentences, seven emotions; Italian.

The file name `f1/gio-f1-b2.wav` encodes

    gio     emotion: dis disgusto (disgust), gio gioia (joy), neu neutral, pau paura (fear), rab rabbia (anger), sor sorpresa
            (surprise), tri tristezza (sadness)
    f1      speaker: the women f1, f2, f3, the men m1, m2, m3
    b2      sentence: b1 to b3 short, l1 to l4 long, n1 to n5 nonsense, d1 and d2 questions

Every speaker says every sentence once in every emotion. One re-upload puts the folder into the name: EMOVO-f1-gio-f1-b2.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "dis": "disgusted",
    "gio": "happy",
    "neu": "neutral",
    "pau": "fearful",
    "rab": "angry",
    "sor": "surprised",
    "tri": "sad",
}
NAME = re.compile(
    rf"(?:EMOVO-[fm][1-3]-)?(?P<emotion>{'|'.join(EMOTIONS)})-(?P<speaker>[fm][1-3])-(?P<text>b[1-3]|d[12]|l[1-4]|n[1-5])",
    re.IGNORECASE,
)


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match:
        return None
    speaker = match["speaker"].lower()
    return {
        "speaker": speaker,
        "emotion": EMOTIONS[match["emotion"].lower()],
        "text": match["text"].lower(),
        "sex": "female" if speaker.startswith("f") else "male",
    }


CORPUS = Corpus(
    name="emovo",
    title="EMOVO",
    licence="not stated; free for research",
    citation="Costantini, Iaderola, Paoloni, Todisco: EMOVO Corpus: an Italian Emotional Speech Database. LREC 2014",
    url="http://voice.fub.it/activities/corpora/emovo/index.html",
    language="it",
    counts={"complete": Counts(files=588, speakers=6, emotions=dict.fromkeys(EMOTIONS.values(), 84))},
    layout="files named like f1/gio-f1-b2.wav (emotion, speaker, sentence)",
    find=by_file_name(parse),
)
