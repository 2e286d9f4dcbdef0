"""A small synthetic corpus: tones whose glide is the emotion and whose overtones are the speaker."""

import csv
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from checkpoints import save_checkpoint
from matplotlib.figure import Figure
from matplotlib.image import imsave

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data.prepare import prepare
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.custom import Request, read_table
from speaker_invariant_ser.training.launcher import train

torch.set_num_threads(1)  # for models this small more threads are slower

RATE = 16_000
SPEAKERS = {"01": "female", "02": "male", "03": "female", "04": "male", "05": "female", "06": "male"}
EMOTIONS = {"rising": 1.0, "falling": -1.0, "level": 0.0}  # octaves per second
TEXTS = ("a", "b", "c", "d")

TINY = {
    "split": {"scheme": "fixed", "test": ["05", "06"], "dev": ["03"]},
    "features": {"mels": 24, "hop_ms": 20.0, "window_ms": 40.0},
    "encoder": {"channels": [4, 8], "dim": 12},
    "emotion": {"hidden": 8},
    "adversary": {"hidden": 8},
    "augment": {"time_mask_ms": 50.0, "frequency_mask_bands": 3},
    "train": {"epochs": 3, "batch_size": 8},
    "audit": {"folds": 2},
}


def tone(speaker: str, emotion: str, text: str) -> np.ndarray:
    """Return the audio of one utterance."""
    rng = np.random.default_rng([int(speaker), sorted(EMOTIONS).index(emotion), TEXTS.index(text)])
    time = np.arange(int(rng.uniform(0.4, 0.8) * RATE)) / RATE
    octaves = EMOTIONS[emotion] * (time - time.mean())
    phase = 2 * np.pi * np.cumsum(200 * (1 + 0.1 * int(speaker)) * 2**octaves) / RATE
    phase += np.random.default_rng(len(time)).normal(0, 0.03, len(time)).cumsum()  # otherwise tones would be near copies
    overtones = np.random.default_rng(int(speaker)).uniform(0.1, 1, 6)
    voice = sum(a * np.sin(n * phase) for n, a in enumerate(overtones, start=1))
    return 0.1 * voice / np.abs(voice).max() + 0.001 * rng.standard_normal(len(time))


@pytest.fixture(scope="module", autouse=True)
def rendered_pictures(request):
    """Whether pictures are rendered: only in tests/report and where a module sets RENDER_PICTURES, since it takes long.

    Elsewhere they are drawn, and then an empty picture is written.
    """
    rendered = request.path.parent.name == "report" or getattr(request.module, "RENDER_PICTURES", False)
    with pytest.MonkeyPatch.context() as patch:
        if not rendered:
            patch.setattr(Figure, "savefig", save_empty_picture)
        yield rendered


def save_empty_picture(figure, file, format="png", **options) -> None:
    """Write an empty picture in place of a figure."""
    if format == "svg":
        file.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')
    else:
        imsave(file, np.zeros((1, 1, 3)))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A folder of wav files with a table, corpus.csv."""
    folder = tmp_path_factory.mktemp("tones")
    with open(folder / "corpus.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "speaker", "emotion", "text", "sex"])
        for speaker, sex in SPEAKERS.items():
            for emotion in EMOTIONS:
                for text in TEXTS:
                    name = f"{speaker}_{emotion}_{text}.wav"
                    soundfile.write(folder / name, tone(speaker, emotion, text), RATE, subtype="PCM_16")
                    table.writerow([name, speaker, emotion, text, sex])
    return folder


@pytest.fixture(scope="session")
def prepared(folder, tmp_path_factory):
    return prepare_table(folder / "corpus.csv", tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture(scope="session")
def prepared_f0(folder, tmp_path_factory):
    """The same corpus with F0."""
    return prepare_table(folder / "corpus.csv", tmp_path_factory.mktemp("prepared") / "f0", f0=True)


def prepare_table(table: Path, out: Path, change=lambda utterances: utterances, **options) -> PreparedCorpus:
    """Prepare a table of audio files, after `change` was applied to its utterances."""
    listing = read_table(Request(table))
    return prepare([replace(listing, utterances=change(listing.utterances))], out, **options)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Return the folder of a small pre-trained checkpoint of an architecture, see `checkpoints.ARCHITECTURES`."""
    return cache(lambda name: save_checkpoint(name, tmp_path_factory.mktemp("checkpoints") / name))


@pytest.fixture(scope="session")
def tiny():
    """A recipe that trains on the tones in about a second."""
    return make_recipe(TINY)


@pytest.fixture(scope="session")
def trained(prepared, tiny, tmp_path_factory):
    """A finished run on the tones, not to be changed by tests."""
    return train(tiny, prepared, tmp_path_factory.mktemp("runs") / "tones", device="cpu")


@pytest.fixture(scope="session")
def corpora_folder() -> Path:
    shared = Path(__file__).resolve().parents[2] / "shared" / "corpora"
    folder = Path(os.environ.get("SISER_CORPORA", shared))
    if not folder.is_dir():
        pytest.skip(f"no real corpora at {folder}; set SISER_CORPORA to a folder that holds emodb/")
    return folder
