"""eNTERFACE'05: 43 speakers of fourteen nations react to six stories with five scripted sentences each; English.

The release consists of videos. Save their audio under the same names first, for instance with
`ffmpeg -i s1_an_1.avi -ac 1 -ar 16000 s1_an_1.wav`. The path `subject 1/anger/sentence 1/s1_an_1.wav` encodes

    subject 1       speaker: 1 to 44
    anger           emotion: anger, disgust, fear, happiness, sadness, surprise; in the file name an, di, fe, ha, sa, su
    sentence 1      sentence of this emotion: 1 to 5; no sentence occurs in two emotions

Folders take precedence over file names, because file names contain errors: all of subject 11 is named s12, and 23 further names
are misspelt (s16_su_3avi.avi, s_3_ha_1.avi). Without folders, subject 11 cannot be distinguished from subject 12.

The paper counts 42 speakers, the release has 44. Subject 6 has one uncut recording per emotion, which is rejected, and subject 23
has only two sentences of happiness. Eight of the 42 are women; the release does not say which. The words alone give the emotion
away, so a model may recognise words instead of vocal expression.
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
UNCUT = 6  # the subject whose recordings are not cut into sentences
SUBJECT = re.compile(r"subject[ _-]?(\d{1,2})(?:_|$)")
SENTENCE = re.compile(r"sentence[ _-]?([1-5])")
NAME = re.compile(
    r"(?:subject\d{1,2}_)?s_?(?P<subject>\d{1,2})_(?P<emotion>an|di|fe|ha|sa|su)(?:_(?P<sentence>[1-5])(?:\.?avi)?)?"
)


def parse(path: Path) -> Fields | None:
    """Return the fields that folders and file name encode; the folders take precedence. None if subject or emotion is missing."""
    name = NAME.fullmatch(path.stem.lower())
    labels = (name.groupdict("") if name else {}) | folder_labels(path)
    subject, emotion, sentence = (labels.get(part, "") for part in ("subject", "emotion", "sentence"))
    if not subject or not emotion or int(subject) not in SUBJECTS:
        return None
    if int(subject) == UNCUT:
        return {"rejected": "one long recording, not cut into sentences"}
    if not sentence:
        return None
    code = f"{emotion}_{sentence}"
    return {"id": f"s{int(subject)}_{code}", "speaker": str(int(subject)), "emotion": EMOTIONS[emotion], "text": code}


def folder_labels(path: Path) -> dict[str, str]:
    """Return subject, emotion and sentence as the folders name them; a subject at the beginning of the file name counts, too."""
    labels = {}
    for part in map(str.lower, (path.stem, *path.parent.parts)):
        if match := SUBJECT.match(part):
            labels["subject"] = match[1]
        elif match := SENTENCE.fullmatch(part):
            labels["sentence"] = match[1]
        elif part in FOLDERS:
            labels["emotion"] = FOLDERS[part]
    return labels


CORPUS = Corpus(
    name="enterface",
    title="eNTERFACE'05",
    licence="MIT",
    citation="Martin, Kotsia, Macq, Pitas: The eNTERFACE'05 Audio-Visual Emotion Database. ICDE Workshops 2006",
    url="https://enterface.net/enterface05/emotion.html",
    language="en",
    counts={
        "complete": Counts(
            files=1287,
            speakers=43,
            emotions={"angry": 215, "disgusted": 215, "fearful": 215, "happy": 212, "sad": 215, "surprised": 215},
        )
    },
    layout="files named like subject 1/anger/sentence 1/s1_an_1.wav (speaker, emotion, sentence; audio taken from the videos)",
    find=by_file_name(parse),
)
