"""CASIA: four Chinese speakers say three hundred sentences in each of six emotions, and a hundred made for each of them.

The paths `相同文本300/liuchanhg/angry/201.wav` and `不同文本100/Chang.Liu/normal/001.wav` are

    相同文本300     the same texts in all emotions, numbered from 201; a widespread re-upload of 1200 files has 201 to 250 alone
    不同文本100     texts that differ by emotion and fit it, numbered from 001: their words tell the emotion
    liuchanhg       speaker: liuchanhg and zhaoquanyin, women, wangzhe and zhaozuoxiang, men; in the second folder Chang.Liu,
                    Quanyin.Zhao, Zhe.Wang, Zuoxiang.Zhao
    angry           emotion: angry, fear, happy, neutral (normal in the second folder), sad, surprise
    201             text

Re-uploads that put all files into one folder name them 201-neutral-ZhaoZuoxiang or 相同文本300_liuchanhg_happy_201.
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
SET = re.compile(r"[相不]同文本\d*")
TEXT = re.compile(r"\d{3}")


def parse(path: Path) -> Fields | None:
    name = re.split("[-_]", path.stem.lower())
    words = [*map(str.lower, path.parent.parts), *name]
    speaker, emotion = last(words, SPEAKERS), last(words, EMOTIONS)
    texts = [word for word in name if TEXT.fullmatch(word)]
    odd = [word for word in name if not (word in texts or word in SPEAKERS or word in EMOTIONS or SET.fullmatch(word))]
    if not speaker or not emotion or len(texts) != 1 or odd:
        return None
    number, own = texts[0], any("不同文本" in word or ("." in word and word in SPEAKERS) for word in words)
    text = f"{emotion}-{number}" if own else number
    return {"id": f"{speaker}-{emotion}-{number}", "speaker": speaker, "emotion": emotion, "text": text, "sex": SEXES[speaker]}


def last(words: list[str], known: dict[str, str]) -> str:
    """What the last of the words that is known stands for."""
    return next((known[word] for word in reversed(words) if word in known), "")


CORPUS = Corpus(
    name="casia",
    title="CASIA Chinese Emotional Corpus",
    licence="by a licence agreement with the Chinese Linguistic Data Consortium (ChineseLDC)",
    citation="Tao, Liu, Zhang, Jia: Design of Speech Corpus for Mandarin Text to Speech. Blizzard Challenge 2008",
    url="http://www.chineseldc.org/resource_info.php?rid=76",
    language="zh",
    counts={
        "same texts, the first fifty": Counts(1200, 4, dict.fromkeys(sorted(set(EMOTIONS.values())), 200)),
        "same texts": Counts(7200, 4, dict.fromkeys(sorted(set(EMOTIONS.values())), 1200)),
        "complete": Counts(9600, 4, dict.fromkeys(sorted(set(EMOTIONS.values())), 1600)),
    },
    layout="files named like 相同文本300/liuchanhg/angry/201.wav (speaker, emotion, text)",
    find=by_file_name(parse),
)
