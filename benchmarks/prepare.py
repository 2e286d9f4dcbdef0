"""How fast `siser prepare` is, beside two references in the same run, on a folder of wav files (nEMO's, 24 -> 16 kHz).

    python benchmarks/prepare.py CORPUS FOLDER [--jobs 2] [--rounds 5]

a. `librosa`: one process that calls librosa.load(path, sr=16000) on every file, one after another.
b. `limit`: as many processes as jobs that only call soundfile.read and soxr.resample and throw the result away. What decodes and
   resamples with these two libraries cannot be faster; prepare also checks, measures, hashes and writes.

Each is timed as a whole in a fresh process, start included, rounds interleaved; the ratios are of the medians. Also printed: the most
memory that prepare and its workers held, and what one million utterances cost. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

REPEATS = 4  # times the files are listed for one measurement, so that starting does not decide


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.wav"))


def librosa_loop(folder: Path) -> None:
    import librosa

    for _ in range(REPEATS):
        for path in files_below(folder):
            librosa.load(path, sr=16000)


def read_and_resample(paths: list[Path]) -> None:
    import soundfile
    import soxr

    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        soxr.resample(samples, rate, 16000)


def limit(folder: Path, jobs: int) -> None:
    paths = files_below(folder) * REPEATS
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(read_and_resample, [paths[start : start + 16] for start in range(0, len(paths), 16)]))


def prepare(corpus: str, folder: Path, jobs: int, out: Path) -> None:
    """REPEATS times the corpus, as so many corpora of one manifest; every clip is a copy of another, which is found out too."""
    from speaker_invariant_ser import corpora, preparation

    listing = corpora.find(corpora.get(corpus), folder)
    preparation.prepare(repeated(listing), out, jobs=jobs)
