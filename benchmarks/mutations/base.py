"""What a damaged input is, and the intact material that it is made from."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SPEAKERS, EMOTIONS, TEXTS = ("ada", "ben", "cy", "dot", "flo"), ("calm", "glad", "sad"), ("one", "two")
RECIPE = """
[split]
scheme = "fixed"
test = ["cy", "dot"]
dev = ["ben"]
[features]
mels = 24
hop_ms = 20.0
window_ms = 40.0
streams = ["log-mel"]
[encoder]
channels = [4, 8]
dim = 12
[emotion]
hidden = 8
[adversary]
hidden = 8
[augment]
time_mask_ms = 50.0
frequency_mask_bands = 3
[train]
epochs = 2
batch_size = 8
[audit]
folds = 2
"""


@dataclass(frozen=True)
class Fault:
    """A damaged input.

    Attributes:
        kind: What was done to it.
        arguments: Words after `siser` that read it; `["segments", FILE]` reads segments through Python.
        detectable: True if it contradicts itself or its hashes, so that it must be rejected or warned of; False if it is as good
            as the intact one, so that the answer must be the same; None if nobody can know from the input.
        path: The recording, where many are read by one command.
    """

    kind: str
    arguments: tuple[str, ...] = ()
    detectable: bool | None = True
    path: str | bytes = ""


Mutation = tuple[str, bool | None, Callable]  # kind, detectable, what does it


def tone(number: int, seconds: float = 0.8) -> np.ndarray:
    """Return a harmonic tone with some noise, different for every number: float64 [S]."""
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * RATE)) / RATE
    glide = (number % 3 - 1) * 60 * (time - seconds / 2)
    phase = 2 * np.pi * np.cumsum(120 + 20 * (number % 7) + glide) / RATE
    voice = sum(weight * np.sin(order * phase) for order, weight in enumerate(rng.uniform(0.1, 1, 6), start=1))
    return 0.1 * voice / np.abs(voice).max() + 0.002 * rng.standard_normal(len(time))


def write_corpus(table: Path) -> None:
    """Write the recordings of an intact corpus into a new folder, and their table."""
    folder = table.parent
    folder.mkdir()
    with open(table, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "speaker", "emotion", "text"])
        for who, speaker in enumerate(SPEAKERS):
            for what, emotion in enumerate(EMOTIONS):
                for which, text in enumerate(TEXTS):
                    name = f"{speaker}_{emotion}_{text}.wav"
                    soundfile.write(folder / name, tone(1 + 100 * who + 10 * what + which), RATE, subtype="PCM_16")
                    rows.writerow([name, speaker, emotion, text])


def drawn(kinds: list, number: int | None) -> list:
    """Return `number` kinds of damage: all in turn, or, if there are more, an even choice; None for each of them once."""
    count = len(kinds)
    if number is None or number >= count:
        return [kinds[index % count] for index in range(number or count)]
    return [kinds[round(index * (count - 1) / max(1, number - 1))] for index in range(number)]
