"""Rewrite docs/encoders.md and its pictures from the results in recipes/results/encoders/, a folder for each corpus."""

from pathlib import Path

from speaker_invariant_ser.studies.encoders.page import write_page

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "encoders.md", ROOT / "recipes" / "results" / "encoders"

if __name__ == "__main__":
    for folder in sorted(RESULTS.iterdir()):
        write_page(folder, PAGE)
