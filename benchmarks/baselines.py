"""Measure the baselines without a network, and keep each result as a small JSON file.

    python benchmarks/baselines.py measure DATA --features prosody functionals --machine "2 cores of ..."
    python benchmarks/baselines.py table

`measure` runs `siser baseline DATA --features NAME --json` and writes recipes/results/CORPUS-NAME.json: the
command, date, machine, versions, hashes of the recipe and of the data, and the numbers. `table` prints the Markdown table of
docs/results.md from all these files.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "recipes" / "results"
HEAD = (
    "| corpus | features (number) | classifier | UAR, pooled (95 % CI) | UAR, mean over speakers (95 % CI) "
    "| worst speaker | strongest attacker: speaker accuracy (95 % CI; chance) |"
)


def main() -> None:
    """Measure, or print the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    measure = actions.add_parser("measure", help="measure and write JSON files")
    measure.add_argument("data", type=Path, help="prepared corpus")
    measure.add_argument("--features", nargs="+", default=["prosody", "functionals"])
    measure.add_argument("--machine", required=True, help="processor and number of cores, for the record")
    measure.add_argument("--jobs", default="1")
    measure.add_argument("--quick", action="store_true", help="closed-form attackers only")
    actions.add_parser("table", help="print the Markdown table")
    arguments = parser.parse_args()
    if arguments.action == "table":
        print(table())
        return
    for features in arguments.features:
        options = ["--features", features, *(["--quick"] if arguments.quick else [])]
        print(measured(arguments.data, options, arguments.machine, arguments.jobs))


def measured(data: Path, options: list[str], machine: str, jobs: str) -> Path:
    """Run `siser baseline` on one set of features and return the path of its JSON file."""
    siser = [sys.executable, "-m", "speaker_invariant_ser.cli"]
    command = [*siser, "baseline", str(data), *options, "--json", "--quiet", "--jobs", jobs]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    features = report["baseline"]["features"]
    corpus = report["run"].removesuffix(f"-{features}")
    settings = report["settings"]
    recipe = {"split": settings["table"]["split"], "labels": settings["table"]["labels"], "audit": settings["audit"]}
    result = {
        "command": f"siser baseline data/{corpus} {' '.join(options)}",
        "corpus": corpus,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine,
        "versions": settings["versions"],
        "recipe_sha256": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
        "data_sha256": settings["table"]["data_sha256"],
        "numbers": numbers(report),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{corpus}-{features}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def numbers(report: dict) -> dict:
    """Return the numbers that are kept of a report."""
    baseline, strongest = report["baseline"], report["speaker"]["strongest"]
    kept = ("settings", "uar", "uar_mean_over_speakers", "accuracy", "worst_speaker")
    return {
        "features": baseline["features"],
        "dimensions": baseline["dimensions"],
        "utterances": baseline["utterances"],
        "chance": baseline["chance"],
        "headline": baseline["headline"],
        "classifiers": {kind: {name: one[name] for name in kept} for kind, one in baseline["classifiers"].items()},
        "speaker": {
            "speakers": report["speaker"]["speakers"],
            "quick": report["settings"]["audit"]["quick"],
            "chance": report["speaker"]["chance"]["given_emotion"],
            **{name: strongest[name] for name in ("name", "accuracy", "low", "high", "balanced_accuracy")},
        },
    }


def table() -> str:
    """Return the Markdown table of all results, a row for each classifier."""
    lines = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "classifiers" in result["numbers"]:  # other files here are of other measurements
            lines += rows(result)
    return "\n".join(lines)


def rows(result: dict) -> list[str]:
    """Return the rows of one file."""
    kept, lines = result["numbers"], []
    speaker = kept["speaker"]
    leak = (
        f"{share(speaker['accuracy'])} {speaker['name']} ({bounds(speaker)}; {share(speaker['chance'])} of {speaker['speakers']})"
    )
    leak += " of the closed-form attackers" if speaker.get("quick") else ""
    for kind, one in kept["classifiers"].items():
        uar, mean, worst = one["uar"], one["uar_mean_over_speakers"], one["worst_speaker"]
        cells = [
            result["corpus"],
            f"{kept['features']} ({kept['dimensions']})",
            {"linear": "linear SVM", "rbf": "RBF SVM"}[kind],
            f"{share(uar['value'])} ({bounds(uar)})",
            f"{share(mean['value'])} ({bounds(mean)})",
            f"{share(worst['uar'])} ({worst['speaker']})",
            leak,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def share(value: float) -> str:
    """Return a share as a percentage without its sign."""
    return f"{100 * value:.1f}"


def bounds(score: dict) -> str:
    """Return a 95 % CI."""
    return f"{share(score['low'])} to {share(score['high'])}"


if __name__ == "__main__":
    main()
