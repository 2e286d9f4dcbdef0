"""eNTERFACE'05: people of fourteen nations react to six short stories with five given sentences for each, in English.

The release holds videos; their sound has to be saved as audio first, under the same names, for instance with
`ffmpeg -i s1_an_1.avi -ac 1 -ar 16000 s1_an_1.wav`. In the path

    subject 1/anger/sentence 1/s1_an_1.wav
    subject 1       speaker (1 to 44)
    anger           emotion: anger, disgust, fear, happiness, sadness, surprise; in the file name an, di, fe, ha, sa, su
    sentence 1      sentence (1 to 5) of that emotion: none is said in two

the folders are right where the file name is not: all of subject 11 is named s12, twenty-three names have slips (s16_su_3avi.avi,
s_3_ha_1.avi). So the folders are read, and the name only without them; then subject 11 cannot be told from subject 12.

Its authors count 42 people. Forty-four are there: subject 6 is one long recording for each emotion, which is left out, and
subject 23 has but two sentences of happiness. Eight of the 42 are women; which ones, nothing tells. The words alone give the
emotion away: what is learned here need not be in the voice.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "an": "angry",
    "di": "disgusted",
    "fe": "fearful",
    "ha": "happy",
    "sa": "sad",
    "su": "surprised",
}
FOLDERS = {"anger": "an", "disgust": "di", "fear": "fe", "happiness": "ha", "sadness": "sa", "surprise": "su"}
SUBJECTS = range(1, 45)
UNCUT = 6  # the subject whose recordings were never cut into sentences
SUBJECT = re.compile(r"subject[ _-]?(\d{1,2})(?:_|$)")
SENTENCE = re.compile(r"sentence[ _-]?([1-5])")
NAME = re.compile(
    r"(?:subject\d{1,2}_)?s_?(?P<subject>\d{1,2})_(?P<emotion>an|di|fe|ha|sa|su)(?:_(?P<sentence>[1-5])(?:\.?avi)?)?"
)


def parse(path: Path) -> Fields | None:
    name = NAME.fullmatch(path.stem.lower())
    told = (name.groupdict("") if name else {}) | folders(path)
    subject, emotion, sentence = (told.get(part, "") for part in ("subject", "emotion", "sentence"))
    if not subject or not emotion or int(subject) not in SUBJECTS:
        return None
    if int(subject) == UNCUT:
        return {"rejected": "one long recording, not cut into sentences"}
    if not sentence:
        return None
    code = f"{emotion}_{sentence}"
    return {"id": f"s{int(subject)}_{code}", "speaker": str(int(subject)), "emotion": EMOTIONS[emotion], "text": code}


def folders(path: Path) -> dict[str, str]:
    """What the folders say of subject, emotion and sentence; a subject put before the file name counts, too."""
    told = {}
    for part in map(str.lower, (path.stem, *path.parent.parts)):
        if match := SUBJECT.match(part):
            told["subject"] = match[1]
        elif match := SENTENCE.fullmatch(part):
            told["sentence"] = match[1]
        elif part in FOLDERS:
            told["emotion"] = FOLDERS[part]
    return told


CORPUS = Corpus(
    name="enterface",
    title="eNTERFACE'05",
    licence="MIT",
    citation="Martin, Kotsia, Macq, Pitas: The eNTERFACE'05 Audio-Visual Emotion Database. ICDE Workshops 2006",
    url="https://enterface.net/enterface05/emotion.html",
    language="en",
    counts={
        "complete": Counts(1287, 43, {"angry": 215, "disgusted": 215, "fearful": 215, "happy": 212, "sad": 215, "surprised": 215})
    },
    layout="files named like subject 1/anger/sentence 1/s1_an_1.wav (speaker, emotion, sentence; the videos' sound as audio)",
    find=by_file_name(parse),
)
