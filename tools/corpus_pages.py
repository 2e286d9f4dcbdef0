"""Write what the corpus modules state into docs/corpora.md (a table) and data/README.md (every corpus in detail).

Run it after changing a corpus module. A test compares both pages with what this program writes.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import Corpus, corpus_facts
from speaker_invariant_ser.data.corpora.registry import known_corpora

ROOT = Path(__file__).resolve().parent.parent
TABLE_PAGE, DETAILS_PAGE = ROOT / "docs" / "corpora.md", ROOT / "data" / "README.md"
BEGIN, END = "<!-- begin of generated table: tools/corpus_pages.py -->\n", "<!-- end of generated table -->\n"

DETAILS_HEAD = """# Prepared corpora

`siser prepare CORPUS SOURCE data/NAME` writes prepared corpora to this folder by convention. Git ignores everything here except
this page: audio does not belong in the repository. `tools/corpus_pages.py` generates this page from the corpus modules;
`siser corpora` prints the same facts.

    siser prepare emodb ~/emodb data/emodb                    # a corpus as you unpacked it
    siser prepare emodb ~/emodb data/emodb --download         # download it first, where this page offers it
    siser prepare ravdess ~/ravdess data/ravdess --only style=speech
    siser prepare emodb ~/emodb data/both --also nemo=~/nemo  # several corpora in one; speakers stay distinct
    siser prepare csv mine.csv data/mine                      # your own table: path, speaker, emotion, ...
    siser prepare folder ~/mine data/mine --pattern "{speaker}/{emotion}/*_{text}.wav"

The docstring of each module in `speaker_invariant_ser/data/corpora/` explains the corpus's naming scheme. Counts are those of
the corpus's own documentation. Where your copy differs, `siser prepare` prints the difference and stores it in `prepare.json`.
"""


def table(corpora: dict[str, Corpus]) -> str:
    """Return a Markdown table with one row per corpus."""
    lines = ["| name | corpus | language | files | speakers | emotions | licence |", "|---|---|---|---|---|---|---|"]
    for name, corpus in corpora.items():
        counts = next(iter(corpus.counts.values()))
        mark = " \\*" if corpus.download else ""
        cells = (f"`{name}`{mark}", corpus.title, corpus.language, counts.files, counts.speakers, labels(corpus), corpus.licence)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def labels(corpus: Corpus) -> str:
    """Return the emotions of all releases, joined by commas."""
    emotions = dict.fromkeys(label for counts in corpus.counts.values() for label in counts.emotions)
    return ", ".join(emotions) or "counts not documented, see the module"


def details_page(corpora: dict[str, Corpus]) -> str:
    """Return the text of data/README.md."""
    parts = [DETAILS_HEAD]
    for name, corpus in corpora.items():
        lines = [f"## {name}: {corpus.title}", ""]
        for key, value in corpus_facts(corpus).items():
            if key != "title":
                lines += [f"- {key}: {line}" for line in (value if isinstance(value, list) else [value])]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def with_table(text: str, corpora: dict[str, Corpus]) -> str:
    """Return the text of docs/corpora.md with its generated table replaced by the current one."""
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: f"{BEGIN}\n{table(corpora)}\n{END}", text, flags=re.DOTALL)


def main() -> None:
    """Write both pages."""
    corpora = known_corpora()
    TABLE_PAGE.write_text(with_table(TABLE_PAGE.read_text(encoding="utf-8"), corpora), encoding="utf-8")
    DETAILS_PAGE.write_text(details_page(corpora), encoding="utf-8")


if __name__ == "__main__":
    main()
