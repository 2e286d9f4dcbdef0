"""ESD, the Emotional Speech Dataset: ten Mandarin and ten English speakers say 350 sentences each in five emotions.

The file name `0011/Angry/0011_000351.wav` is

    0011        speaker: 0001 to 0010 speak Mandarin, 0011 to 0020 English
    000351      number, 350 to an emotion: 1-350 neutral, 351-700 angry, 701-1050 happy, 1051-1400 sad, 1401-1750 surprised

Within an emotion the number counts the sentences, so 1, 351, 701, 1051 and 1401 are the same words; the two languages have
lists of their own. Older copies of the release keep the files in train/, evaluation/ and test/ below each emotion: a
division by sentence, in which every speaker is in all three parts. The transcripts (0011/0011.txt) come in several
encodings and are not read. A file in a folder of another emotion than its number tells is not taken.
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
        # only inside an emotion's folder: a whole copy may well lie in a folder called test
        "partition": PARTITIONS.get(folders[-1], "") if folders[-2:-1] and folders[-2] in FOLDERS else "",
    }


def counts(speakers: int) -> Counts:
    each = speakers * SENTENCES
    return Counts(len(EMOTIONS) * each, speakers, dict.fromkeys(EMOTIONS, each))


CORPUS = Corpus(
    name="esd",
    title="ESD",
    licence="for research only, by a signed form; no redistribution",
    citation="Zhou, Sisman, Liu, Li: Emotional Voice Conversion: Theory, Databases and ESD. Speech Communication 137, 2022",
    url="by a signed form: https://github.com/HLTSingapore/Emotional-Speech-Data",
    language="zh,en",
    counts={"complete": counts(20), "one language": counts(10)},
    layout="files named like 0011/Angry/0011_000351.wav (speaker, number from 1 to 1750), also in train/, evaluation/ and test/",
    find=by_file_name(parse),
)
