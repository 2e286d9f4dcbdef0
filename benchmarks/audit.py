"""Measure the time of an audit: with all attackers, with the closed-form ones, and of a large table.

    python benchmarks/audit.py [--jobs 2] [--only full quick large wide]

full     500 embeddings of 128 dimensions, 10 speakers, 5 emotions, 10 texts: all attackers of embeddings, 1,000 permutations
         for each (predictions are kept and labels permuted, so that none needs training), controls, bits, verification
quick    the same with the closed-form attackers (--quick)
large    20,000 x 128, 100 speakers, all attackers
wide     5,000 x 768, 90 speakers, the closed-form attackers, which use a sample: at most a minute, whatever the size

Synthetic embeddings with a weak speaker code. Each part runs `siser audit` as a process, whose start counts. The reference is one
logistic regression of scikit-learn, cross-validated over the same number of folds in the same run; ratios to it can be compared
between machines. The last line of the output is JSON.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

SIZES = {  # utterances, dimensions, speakers
    "full": (500, 128, 10),
    "quick": (500, 128, 10),
    "large": (20_000, 128, 100),
    "wide": (5_000, 768, 90),
}
QUICK, ONCE = ("quick", "wide"), ("large", "wide")  # parts with --quick; parts that are measured a single time
EMOTIONS, TEXTS = 5, 10


def write_table(path: Path, utterances: int, dimensions: int, speakers: int) -> tuple[np.ndarray, np.ndarray]:
    """Write embeddings with a weak speaker code to an .npz file; return embeddings and speakers."""
    rng, number = np.random.default_rng(0), np.arange(utterances)
    speaker = number % speakers
    embedding = rng.standard_normal((utterances, dimensions)) + 0.25 * rng.standard_normal((speakers, dimensions))[speaker]
    emotion, text = number // speakers % EMOTIONS, number // speakers // EMOTIONS % TEXTS
    np.savez(path, embedding=embedding.astype(np.float32), speaker=speaker, emotion=emotion, text=text)
    return embedding, speaker


def reference(embedding: np.ndarray, speaker: np.ndarray) -> float:
    """Return the seconds of a cross-validated logistic regression in one thread."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        cross_val_score(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), embedding, speaker, cv=5)
        return time.perf_counter() - started


def audit(table: Path, jobs: int, quick: bool) -> float:
    """Return the seconds of `siser audit` from start to end."""
    command = [sys.executable, "-m", "speaker_invariant_ser.cli", "audit", str(table), "--json", "--jobs", str(jobs)]
    started = time.perf_counter()
    completed = subprocess.run([*command, *(["--quick"] if quick else [])], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    report = json.loads(completed.stdout)
    accuracies = ", ".join(f"{name} {attacker['accuracy']:.2f}" for name, attacker in report["attackers"].items())
    print(f"    {report['decisions']} utterances, {report['permutations']} permutations; {accuracies}")
    return seconds


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of the smaller parts")
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    result = {"jobs": options.jobs}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            table = Path(folder) / f"{name}.npz"
            data = write_table(table, *SIZES[name])
            times, plain = [], []
            for _ in range(1 if name in ONCE else options.rounds):
                plain.append(reference(*data))
                times.append(audit(table, options.jobs, name in QUICK))
                print(f"{name}: {times[-1]:.1f} s; one logistic regression {plain[-1]:.2f} s")
            result[f"{name}_s"] = round(statistics.median(times), 1)
            result[f"{name}_vs_logistic"] = round(statistics.median(times) / statistics.median(plain), 1)
    # Of the largest process: with two jobs, up to three of them hold memory at once.
    result["largest_process_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
