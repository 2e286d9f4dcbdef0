"""ESD, the Emotional Speech Dataset: ten Mandarin and ten English speakers, 350 sentences each, five emotions.

The file name `0011/Angry/0011_000351.wav` encodes

    0011        speaker: 0001 to 0010 speak Mandarin, 0011 to 0020 English
    000351      number, 350 per emotion: 1-350 neutral, 351-700 angry, 701-1050 happy, 1051-1400 sad, 1401-1750 surprised

Within an emotion the number counts the sentences: 1, 351, 701, 1051 and 1401 are the same sentence. The two languages have
different sentences. Older copies divide each emotion into train/, evaluation/ and test/; this division is by sentence, every
speaker is in all three. The transcripts (0011/0011.txt) have several encodings and are not used. A file in the folder of another
emotion than its number stands for is rejected.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

SENTENCES = 350
EMOTIONS = ("neutral", "angry", "happy", "sad", "surprised")  # in the order of the numbers
FOLDERS = {"neutral": "neutral", "angry": "angry", "happy": "happy", "sad": "sad", "surprise": "surprised"}
PARTITIONS = {"train": "train", "evaluation": "dev", "test": "test"}
MALE = frozenset({"0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020"})
NAME = re.compile(r"(?P<speaker>00(?:0[1-9]|1\d|20))_(?P<number>\d{6})")


def parse(path: Path) -> Fields | None:
    """Return the fields that folders and file name encode, or None if they do not follow the code or disagree."""
    match = NAME.fullmatch(path.stem)
    if not match or not 1 <= int(match["number"]) <= len(EMOTIONS) * SENTENCES:
        return None
    block, sentence = divmod(int(match["number"]) - 1, SENTENCES)
    folders = [folder.lower() for folder in path.parts[:-1]]
    if any(FOLDERS[folder] != EMOTIONS[block] for folder in folders if folder in FOLDERS):
        return None
    speaker, language = match["speaker"], "zh" if match["speaker"] <= "0010" else "en"
    return {
        "speaker": speaker,
        "emotion": EMOTIONS[block],
        "text": f"{language}{sentence + 1:03d}",
        "sex": "male" if speaker in MALE else "female",
        "language": language,
        # Only folders inside an emotion's folder: the whole corpus may be stored in a folder named test.
        "partition": PARTITIONS.get(folders[-1], "") if folders[-2:-1] and folders[-2] in FOLDERS else "",
    }


def counts(speakers: int) -> Counts:
    """Return the counts for a number of speakers who each say every sentence in every emotion."""
    per_emotion = speakers * SENTENCES
    return Counts(files=len(EMOTIONS) * per_emotion, speakers=speakers, emotions=dict.fromkeys(EMOTIONS, per_emotion))


CORPUS = Corpus(
    name="esd",
    title="ESD",
    licence="research only, after signing a form; no redistribution",
    citation="Zhou, Sisman, Liu, Li: Emotional Voice Conversion: Theory, Databases and ESD. Speech Communication 137, 2022",
    url="https://github.com/HLTSingapore/Emotional-Speech-Data (after signing a form)",
    language="zh,en",
    counts={"complete": counts(20), "one language": counts(10)},
    layout="files named like 0011/Angry/0011_000351.wav (speaker, number from 1 to 1750), also in train/, evaluation/ and test/",
    find=by_file_name(parse),
)
