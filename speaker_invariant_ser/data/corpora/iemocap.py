"""IEMOCAP: ten American actors in five sessions of one woman and one man, scripted and improvised dialogues; English.

The path `Session1/sentences/wav/Ses01F_impro04/Ses01F_impro04_F028.wav` encodes

    Ses01       session: 01 to 05, each with a different woman and a different man
    F           actor who wears the motion-capture markers: F the woman, M the man; this is not the speaker
    impro04     dialogue: impro01 to impro08 improvised, script01_1 to script03_2 scripted; a letter may follow (impro05a)
    F028        speaker of this turn (F or M) and number of the turn; the speaker is session and letter: Ses01F

Labels are in `Session1/dialog/EmoEvaluation/Ses01F_impro04.txt`, one line per turn, followed by the votes of the annotators:

    [140.2250 - 145.6000]   Ses01F_impro05_F019   ang   [1.5000, 4.0000, 4.5000]

    C-E2:   Neutral; Anger; ()
    C-F1:   Anger;  ()

The numbers are valence, activation (arousal here) and dominance, the mean of the annotators' ratings from 1 to 5. Every emotion
that an evaluator (C-E) names is a vote; what the actors said of themselves (C-F, C-M) is none.

One re-upload has all labels in `iemocap_full_dataset.csv`. Turns without a majority label are marked xxx (2507 of 10039) and are
rejected. All other labels keep their own names; merging (happy and excited in the usual four classes) and dropping is done by
`labels.map` in the recipe. The files in `dialog/wav/` are whole dialogues, not utterances.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, read_text
from speaker_invariant_ser.data.formats.files import find_audio
from speaker_invariant_ser.data.manifest import DIMENSIONS
from speaker_invariant_ser.data.tables.columns import read_rows
from speaker_invariant_ser.data.tables.votes import as_text

EMOTIONS = {
    "neu": "neutral",
    "hap": "happy",
    "sad": "sad",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgusted",
    "oth": "other",
}
STYLES = {"impro": "improvised", "script": "scripted"}
SEXES = {"F": "female", "M": "male"}
NAME = re.compile(r"SES0(?P<session>[1-5])[FM]_(?P<style>IMPRO|SCRIPT)\d\d(?:_\d)?[A-Z]?_(?P<sex>[FM])\d{3}")
LABEL = re.compile(
    r"\[[\d.]+ - [\d.]+\]\s+(?P<turn>Ses\w+)\s+(?P<label>[a-z]{3})\s"
    r"(?:[ \t]*\[(?P<valence>[\w.-]+),[ \t]*(?P<arousal>[\w.-]+),[ \t]*(?P<dominance>[\w.-]+)\])?"
)
VOTES = re.compile(r"^C-E\d+:[ \t]*([^(\n]*)", re.MULTILINE)


def find(folder: Path) -> Iterator[Fields]:
    """Yield every turn with its label from the EmoEvaluation files or from the re-upload's table."""
    labels = read_labels(folder)
    for path in find_audio(folder) if labels else ():
        relative = path.relative_to(folder)
        if fields := parse(relative):
            yield {"source": relative.as_posix(), **fields, **read_label(labels.get(path.stem.upper(), {}))}


def parse(path: Path) -> Fields | None:
    """Return the fields that a file name encodes, except the emotion.

    Returns None if the file name does not follow the corpus's naming scheme.
    """
    match = NAME.fullmatch(path.stem.upper())
    if not match:
        return None
    return {
        "speaker": f"Ses0{match['session']}{match['sex']}",
        "sex": SEXES[match["sex"]],
        "session": match["session"],
        "style": STYLES[match["style"].lower()],
    }


def read_label(labels: Fields) -> Fields:
    """Return emotion, ratings and votes, or the reason why the turn has no emotion."""
    label = labels.get("label", "")
    if label in EMOTIONS:
        return {"emotion": EMOTIONS[label], **{name: labels[name] for name in (*DIMENSIONS, "votes") if name in labels}}
    return {"rejected": "no majority label" if label == "xxx" else "no label in dialog/EmoEvaluation"}


def read_labels(folder: Path) -> dict[str, Fields]:
    """Return the three-letter label and, where there are any, ratings and votes by upper-case name of the turn."""
    labels: dict[str, Fields] = {}
    for table in sorted(folder.rglob("iemocap_full_dataset.csv")):
        labels |= {Path(row["path"]).stem.upper(): {"label": row["emotion"]} for row in read_rows(table, ("path", "emotion"))}
    for text in sorted(folder.rglob("*.txt")):
        if text.parent.name.lower() == "emoevaluation" and not text.name.startswith("."):  # subfolders hold single annotators
            labels |= read_turns(read_text(text))
    return labels


def read_turns(text: str) -> dict[str, Fields]:
    """Return label, ratings and votes of each turn in a file of EmoEvaluation; the votes follow the line of the label."""
    matches = list(LABEL.finditer(text))
    ends = [*(match.start() for match in matches[1:]), len(text)]
    return {
        match["turn"].upper(): {**match.groupdict(""), "votes": votes_of(text[match.end() : end])}
        for match, end in zip(matches, ends, strict=True)
    }


def votes_of(lines: str) -> str:
    r"""Return the evaluators' votes for a turn as the text of a manifest; words that name no emotion are none.

    >>> votes_of("C-E2:\tNeutral;\t()\nC-E3:\tNeutral; Anger;\t(curious)\nC-F1:\tSadness;\t()")
    '{"neutral": 2, "angry": 1}'
    """
    words = (word.strip().lower()[:3] for names in VOTES.findall(lines) for word in names.split(";"))
    return as_text(Counter(EMOTIONS[word] for word in words if word in EMOTIONS))


CORPUS = Corpus(
    name="iemocap",
    title="IEMOCAP",
    licence="research only, after signing a release form; no redistribution",
    citation=(
        "Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan: IEMOCAP: interactive emotional dyadic motion capture "
        "database. Language Resources and Evaluation 42(4), 2008"
    ),
    url="https://sail.usc.edu/iemocap/iemocap_release.htm (after signing a form)",
    language="en",
    counts={
        "complete": Counts(
            files=7532,
            speakers=10,
            emotions={
                "neutral": 1708,
                "happy": 595,
                "sad": 1084,
                "angry": 1103,
                "excited": 1041,
                "frustrated": 1849,
                "surprised": 107,
                "fearful": 40,
                "disgusted": 2,
                "other": 3,
            },
        )
    },
    layout=(
        "files named like Session1/sentences/wav/Ses01F_impro04/Ses01F_impro04_F028.wav (session, dialogue, speaker, turn), with "
        "labels in Session1/dialog/EmoEvaluation/Ses01F_impro04.txt"
    ),
    find=find,
    other_files=("*dialog/wav/*",),
    scale=(1, 5),
)
