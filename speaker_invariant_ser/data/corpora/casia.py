"""CASIA Chinese Emotional Corpus: four speakers, 300 common sentences and 100 emotion-specific ones, six emotions; Mandarin.

The paths `相同文本300/liuchanhg/angry/201.wav` and `不同文本100/Chang.Liu/normal/001.wav` encode

    相同文本300     "same texts": sentences read in all emotions, numbered from 201. A common re-upload of 1200 files has 201 to
                    250 only
    不同文本100     "different texts": sentences that differ by emotion, numbered from 001; their words give the emotion away
    liuchanhg       speaker: the women liuchanhg and zhaoquanyin, the men wangzhe and zhaozuoxiang; written Chang.Liu,
                    Quanyin.Zhao, Zhe.Wang, Zuoxiang.Zhao in the second folder
    angry           emotion: angry, fear, happy, neutral (normal in the second folder), sad, surprise
    201             sentence

Re-uploads in one folder name the files 201-neutral-ZhaoZuoxiang or 相同文本300_liuchanhg_happy_201.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name

EMOTIONS = {
    "angry": "angry",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "normal": "neutral",
    "sad": "sad",
    "surprise": "surprised",
}
SPEAKERS = {
    "liuchanhg": "liuchanhg",
    "chang.liu": "liuchanhg",
    "wangzhe": "wangzhe",
    "zhe.wang": "wangzhe",
    "zhaoquanyin": "zhaoquanyin",
    "quanyin.zhao": "zhaoquanyin",
    "zhaozuoxiang": "zhaozuoxiang",
    "zuoxiang.zhao": "zhaozuoxiang",
}
SEXES = {"liuchanhg": "female", "zhaoquanyin": "female", "wangzhe": "male", "zhaozuoxiang": "male"}
SET = re.compile(r"[相不]同文本\d*")  # "same texts" or "different texts"
TEXT = re.compile(r"\d{3}")


def parse(path: Path) -> Fields | None:
    """Return the fields that a path encodes, or None if speaker, emotion or sentence is missing or another word is present."""
    name = re.split("[-_]", path.stem.lower())
    words = [*map(str.lower, path.parent.parts), *name]
    speaker, emotion = lookup(words, SPEAKERS), lookup(words, EMOTIONS)
    texts = [word for word in name if TEXT.fullmatch(word)]
    unknown = [word for word in name if not (word in texts or word in SPEAKERS or word in EMOTIONS or SET.fullmatch(word))]
    if not speaker or not emotion or len(texts) != 1 or unknown:
        return None
    number = texts[0]
    emotion_specific = any("不同文本" in word or ("." in word and word in SPEAKERS) for word in words)
    return {
        "id": f"{speaker}-{emotion}-{number}",
        "speaker": speaker,
        "emotion": emotion,
        "text": f"{emotion}-{number}" if emotion_specific else number,
        "sex": SEXES[speaker],
    }


def lookup(words: list[str], table: dict[str, str]) -> str:
    """Return the entry for the last word that the table contains, or an empty string."""
    return next((table[word] for word in reversed(words) if word in table), "")


CORPUS = Corpus(
    name="casia",
    title="CASIA Chinese Emotional Corpus",
    licence="licence agreement with the Chinese Linguistic Data Consortium (ChineseLDC)",
    citation="Tao, Liu, Zhang, Jia: Design of Speech Corpus for Mandarin Text to Speech. Blizzard Challenge 2008",
    url="http://www.chineseldc.org/resource_info.php?rid=76",
    language="zh",
    counts={
        "same texts, first fifty": Counts(files=1200, speakers=4, emotions=dict.fromkeys(sorted(set(EMOTIONS.values())), 200)),
        "same texts": Counts(files=7200, speakers=4, emotions=dict.fromkeys(sorted(set(EMOTIONS.values())), 1200)),
        "complete": Counts(files=9600, speakers=4, emotions=dict.fromkeys(sorted(set(EMOTIONS.values())), 1600)),
    },
    layout="files named like 相同文本300/liuchanhg/angry/201.wav (speaker, emotion, text)",
    find=by_file_name(parse),
)
