"""Make the model that comes with the package: train on all of EMO-DB, measure the same recipe with speakers left out, export.

    python tools/make_pretrained.py corpora/emodb

Takes some 25 minutes of one core. On one machine and with the same packages, the weights have the same bits each time.
"""

import argparse
import shutil
from pathlib import Path

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.inference.defaults import DEFAULT_MODEL
from speaker_invariant_ser.inference.exported import SHIPPED

FIVE = ("--set", "labels.map=five")
INNER = ("--set", "train.inner_folds=5")


def main() -> None:
    """Prepare, train, evaluate and export, with everything but the export in a folder of work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="folder of EMO-DB")
    parser.add_argument("--work", type=Path, default=Path("runs/pretrained"), help="folder of data and runs, continued if there")
    arguments = parser.parse_args()
    data, final, tested = (str(arguments.work / name) for name in ("data", "final", "tested"))
    if not Path(data).is_dir():
        step("prepare", "emodb", str(arguments.corpus), data)
    step("train", "no-adversary", "--final", "--data", data, "--out", final, *FIVE, *INNER, "--jobs", "1", "--resume")
    step("train", "no-adversary", "--data", data, "--out", tested, *FIVE, "--jobs", "1", "--resume")
    step("evaluate", tested, "--data", data)
    target = SHIPPED / DEFAULT_MODEL
    shutil.rmtree(target, ignore_errors=True)
    step("export", final, "--out", str(target), "--evaluated", tested, "--licence", "cc0-1.0")


def step(*words: str) -> None:
    """Run a verb of siser."""
    if siser([*words]) != 0:
        raise SystemExit(f"siser {words[0]} failed")


if __name__ == "__main__":
    main()
