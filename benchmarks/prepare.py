"""Measure the speed of `siser prepare` against two references in the same run, on wav files (of nEMO, 24 -> 16 kHz).

    python benchmarks/prepare.py FOLDER [--corpus nemo] [--jobs 2] [--rounds 7]

librosa  one process that calls librosa.load(path, sr=16000) on every file, one after another
limit    as many processes as jobs that only call soundfile.read and soxr.resample and discard the result: nothing that decodes
         and resamples with these libraries can be faster, and prepare also checks, measures, hashes and writes

All three are timed in this process after a warm-up, in turn in every round; starting worker processes counts. Ratios are those of
the medians. It also measures the time and the memory of checking, opening and splitting a manifest of a million utterances. The
last line of the output is JSON.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

UTTERANCES = 1_000_000
CHUNK = 16


def librosa_loop(paths: list[Path]) -> None:
    """Load every file with librosa."""
    import librosa

    for path in paths:
        librosa.load(path, sr=16000)


def limit(paths: list[Path], jobs: int) -> None:
    """Decode and resample every file in worker processes, and nothing else."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        list(pool.map(read_and_resample, chunks))


def read_and_resample(paths: list[Path]) -> None:
    """Decode and resample some files."""
    import soundfile
    import soxr

    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        soxr.resample(samples, rate, 16000)


def prepare(corpus: str, folder: Path, jobs: int, out: Path) -> None:
    """Prepare the corpus with the package."""
    from speaker_invariant_ser.data import decoding
    from speaker_invariant_ser.data import prepare as preparation
    from speaker_invariant_ser.data.corpora.base import list_corpus
    from speaker_invariant_ser.data.corpora.registry import get_corpus

    with decoding.workers(jobs) as pool:
        preparation.prepare([list_corpus(get_corpus(corpus), folder)], out, pool=pool)


def seconds(work: Callable, *arguments: object) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def million() -> dict[str, float]:
    """Run `check_split_open` in its own process, so that the memory is its own."""
    completed = subprocess.run([sys.executable, __file__, "--million"], capture_output=True, text=True, check=True)
    return json.loads(completed.stdout.splitlines()[-1])


def check_split_open() -> dict[str, float]:
    """Read, check, write, open and split a table of 0.2 s segments in 100 recordings by 1000 speakers."""
    import numpy as np
    import pyarrow
    import pyarrow.csv

    from speaker_invariant_ser.data.manifest import write_manifest
    from speaker_invariant_ser.data.prepared_corpus import AUDIO, FORMAT, MANIFEST, SETTINGS, PreparedCorpus
    from speaker_invariant_ser.data.splits import make_splits
    from speaker_invariant_ser.data.tables.custom import Request, read_table
    from speaker_invariant_ser.files import sha256, write_json
    from speaker_invariant_ser.recipe import SplitSection

    with tempfile.TemporaryDirectory() as temporary:
        folder, rows = Path(temporary), np.arange(UTTERANCES)
        table = pyarrow.table(
            {
                "path": pyarrow.array([f"recording{row // 10_000:03}.wav" for row in rows]),
                "start": rows % 10_000 * 0.2,
                "end": (rows % 10_000 + 1) * 0.2,
                "speaker": pyarrow.array([f"{row % 1000:04}" for row in rows]),
                "emotion": pyarrow.array([("happy", "sad", "angry", "neutral", "fearful")[row // 7 % 5] for row in rows]),
            }
        )
        pyarrow.csv.write_csv(table, folder / "table.csv")
        del table
        started = time.perf_counter()
        utterances = read_table(Request(folder / "table.csv")).utterances
        seconds_by_step = {"check_s": time.perf_counter() - started}
        write_manifest(
            folder / MANIFEST, [replace(utterance, offset=3200 * row, samples=3200) for row, utterance in enumerate(utterances)]
        )
        del utterances
        with open(folder / AUDIO, "wb") as file:
            file.truncate(UTTERANCES * 6400)  # sparse: the disk holds nothing of it
        settings = {"format": FORMAT, "corpora": ["table"], "sha256": {MANIFEST: sha256(folder / MANIFEST)}}
        write_json(folder / SETTINGS, settings)
        started = time.perf_counter()
        prepared = PreparedCorpus.open(folder)
        seconds_by_step["open_s"] = time.perf_counter() - started
        started = time.perf_counter()
        make_splits(SplitSection(scheme="group-kfold", folds=5), prepared.utterances)
        seconds_by_step["split_s"] = time.perf_counter() - started
    return {**seconds_by_step, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Run all rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where the corpus is")
    parser.add_argument("--corpus", default="nemo")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--million", action="store_true", help="only the manifest of a million utterances")
    options = parser.parse_args()
    if options.million:
        print(json.dumps(check_split_open()))
        return
    if not options.folder or not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder: expected that of {options.corpus}")
    paths = sorted(options.folder.rglob("*.wav"))
    rounds = {
        "librosa": lambda out: librosa_loop(paths),
        "limit": lambda out: limit(paths, options.jobs),
        "prepare": lambda out: prepare(options.corpus, options.folder, options.jobs, out / "data"),
    }
    times = {name: [] for name in rounds}
    processor = {name: [] for name in rounds}
    for number in range(options.rounds + 1):
        for name, work in rounds.items():
            with tempfile.TemporaryDirectory() as out:
                before = os.times()
                times[name].append(seconds(work, Path(out)))
                processor[name].append(sum(os.times()[:4]) - sum(before[:4]))
        print(
            f"round {number or '(warm-up)'}: " + ", ".join(f"{name} {durations[-1]:.2f} s" for name, durations in times.items())
        )
    median = {name: statistics.median(durations[1:]) for name, durations in times.items()}
    result = {
        "files": len(paths),
        "jobs": options.jobs,
        **{f"{name}_s": round(duration, 3) for name, duration in median.items()},
        **{f"{name}_processor_s": round(statistics.median(durations[1:]), 2) for name, durations in processor.items()},
        "vs_librosa": round(median["librosa"] / median["prepare"], 2),
        "vs_limit": round(median["limit"] / median["prepare"], 2),
        "million": {name: round(value, 1) for name, value in million().items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
