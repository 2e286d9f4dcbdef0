"""CREMA-D: 91 American actors, twelve sentences, six emotions; English.

The file name `1001_IEO_ANG_HI.wav` encodes

    1001    speaker: 1001 to 1091, 48 men and 43 women, ages 20 to 74
    IEO     sentence, the first letters of its words: DFA, IEO, IOM, ITH, ITS, IWL, IWW, MTI, TAI, TIE, TSI, WSI
    ANG     emotion: ANG anger, DIS disgust, FEA fear, HAP happiness, NEU neutral, SAD sadness
    HI      intensity: LO low, MD medium, HI high for IEO ("It's eleven o'clock"); XX unspecified for all other sentences

The label is the emotion that the actor was asked to portray; listeners who only hear the audio recognise it in about two of five
cases. Their answers are the votes, where the folder holds the release's `finishedResponses.csv`: `localid` is the listener,
`queryType` 1 an answer to the audio alone, `respEmo` the first letter of the emotion.

The release contains every utterance twice: AudioWAV/, used here, and AudioMP3/, where some files are empty. Copies older than
October 2022 contain 1040_ITH_SAD_X instead of 1040_ITH_SAD_XX. 1076_MTI_SAD_XX contains no speech. A clone made without git-lfs
contains short text files instead of audio.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Download, Fields, by_file_name
from speaker_invariant_ser.data.tables.columns import read_rows
from speaker_invariant_ser.data.tables.votes import as_text

EMOTIONS = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": "", "X": ""}
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
SPEAKERS = range(1001, 1092)
# From the release's VideoDemographics.csv, which most copies of the audio do not include.
# fmt: off
FEMALE = frozenset({
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025,
    1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060,
    1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
})
# fmt: on
WITHOUT_SPEECH = "1076_MTI_SAD_XX"
NAME = re.compile(
    rf"(?P<speaker>\d{{4}})_(?P<text>{'|'.join(SENTENCES)})_(?P<emotion>{'|'.join(EMOTIONS)})_(?P<intensity>LO|MD|HI|XX?)",
    re.IGNORECASE,
)
RESPONSES, AUDIO_ONLY = "finishedResponses.csv", "1"
LETTERS = {code[0]: emotion for code, emotion in EMOTIONS.items()}


def find(folder: Path) -> Iterator[Fields]:
    """Yield every utterance, with the votes of listeners to the audio where the folder holds them."""
    votes = read_votes(folder)
    for fields in by_file_name(parse)(folder):
        text = votes.get(Path(fields["source"]).stem.upper(), "")
        yield {**fields, "votes": text} if text and "rejected" not in fields else fields


def read_votes(folder: Path) -> dict[str, str]:
    """Return the votes about each utterance by its upper-case name, as the text of a manifest."""
    votes: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for table in sorted(folder.rglob(RESPONSES)):
        for row in read_rows(table, ("localid", "queryType", "clipName", "respEmo")):
            emotion = LETTERS.get(row["respEmo"][:1].upper())
            if emotion and row["queryType"] == AUDIO_ONLY:
                votes[Path(row["clipName"]).stem.upper()][row["localid"]] = emotion
    return {name: as_text(labels) for name, labels in votes.items()}


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, or None if the file name does not follow the corpus's naming scheme."""
    match = NAME.fullmatch(path.stem)
    if not match or int(match["speaker"]) not in SPEAKERS or path.suffix.lower() == ".mp3":
        return None
    if path.stem.upper() == WITHOUT_SPEECH:
        return {"rejected": "contains no speech, a known defect of the release"}
    return {
        "speaker": match["speaker"],
        "emotion": EMOTIONS[match["emotion"].upper()],
        "text": match["text"].upper(),
        "sex": "female" if int(match["speaker"]) in FEMALE else "male",
        "intensity": INTENSITIES[match["intensity"].upper()],
    }


CORPUS = Corpus(
    name="crema_d",
    title="CREMA-D",
    licence="ODbL 1.0, its contents DbCL 1.0",
    citation=(
        "Cao, Cooper, Keutmann, Gur, Nenkova, Verma: CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset. "
        "IEEE Transactions on Affective Computing 5(4), 2014"
    ),
    url="https://github.com/CheyneyComputerScience/CREMA-D (with git-lfs)",
    language="en",
    counts={
        "complete": Counts(
            files=7441,  # without the file that contains no speech
            speakers=91,
            emotions={"angry": 1271, "disgusted": 1271, "fearful": 1271, "happy": 1271, "neutral": 1087, "sad": 1270},
        )
    },
    layout="files named like AudioWAV/1001_IEO_ANG_HI.wav (speaker, sentence, emotion, intensity), but not AudioMP3/",
    find=find,
    other_files=("*.mp3",),
    # The official repository needs git-lfs; this is a re-upload of its AudioWAV folder.
    download=(
        Download(
            url="https://huggingface.co/datasets/ameerazam08/CREMA_DATA/resolve/"
            "5e4d641d64211847f256c0e9dca0dd211808198f/crema_audio.zip",
            hash="sha256:7c6e33a23adb43eca71868a9652d72799395a156776098c19574d5762348b9de",
            bytes=477_014_535,
        ),
    ),
)
