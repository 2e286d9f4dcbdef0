"""The built-in corpus: eSpeak NG voices with emotions simulated as prosody. `siser demo` makes it.

The file name `s03_angry_t07.wav` is speaker, emotion, sentence.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, Counts, Fields, by_file_name
from speaker_invariant_ser.data.synthesis import EMOTIONS, SENTENCES, SPEAKERS

NAME = re.compile(r"(?P<speaker>s\d\d)_(?P<emotion>[a-z]+)_(?P<text>t\d\d)")


def parse(path: Path) -> Fields | None:
    match = NAME.fullmatch(path.stem)
    if not match or match["speaker"] not in SPEAKERS or match["emotion"] not in EMOTIONS:
        return None
    return {**match.groupdict(), "sex": SPEAKERS[match["speaker"]].sex}


CORPUS = Corpus(
    name="builtin",
    title="the built-in corpus",
    licence="made on your machine by eSpeak NG (GPL 3), sentences by this project (MIT)",
    citation="eSpeak NG, https://github.com/espeak-ng/espeak-ng",
    url="`siser demo`, which generates it",
    language="en",
    counts={
        "complete": Counts(
            len(SPEAKERS) * len(EMOTIONS) * len(SENTENCES),
            len(SPEAKERS),
            {emotion: len(SPEAKERS) * len(SENTENCES) for emotion in EMOTIONS},
        )
    },
    layout="files named like s03_angry_t07.wav (speaker, emotion, sentence)",
    find=by_file_name(parse),
    note=(
        "The speech is synthesised and its emotions are simulated as prosody: these numbers show that the software works "
        "and claim nothing about human speech."
    ),
)
