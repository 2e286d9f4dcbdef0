"""Writes what the corpus modules know into README.md (a table) and data/README.md (a page). Run it after changing a corpus.

A test compares both with what this makes, so they cannot say anything else than the modules.
"""

import re
from pathlib import Path

from speaker_invariant_ser.data.corpora import Corpus, describe, known

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- made by tools/corpus_pages.py from the corpus modules -->\n", "<!-- end of what is made -->\n"

HEAD = """# Prepared corpora

`siser prepare CORPUS SOURCE data/NAME` writes here by convention; everything but this page is ignored by git. Audio never
belongs in the repository. This page is made from the corpus modules by `tools/corpus_pages.py`; `siser corpora` prints the same.

    siser prepare emodb ~/emodb data/emodb                    # the corpus as you unpacked it
    siser prepare emodb ~/emodb data/emodb --download         # or fetched first, where this page says so
    siser prepare ravdess ~/ravdess data/ravdess --only style=speech
    siser prepare emodb ~/emodb data/both --also nemo=~/nemo  # several in one, speakers kept apart
    siser prepare csv mine.csv data/mine                      # your own table: path, speaker, emotion, ...
    siser prepare folder ~/mine data/mine --pattern "{speaker}/{emotion}/*_{text}.wav"

The file-name code of each corpus is taught by its module's docstring in `speaker_invariant_ser/data/corpora/`. Counts are the
corpus's own: where yours differ, `prepare` says so and `prepare.json` keeps it.
"""


def table(corpora: dict[str, Corpus]) -> str:
    """The README's table: a line for each corpus."""
    lines = ["| name | corpus | language | files | speakers | emotions | licence |", "|---|---|---|---|---|---|---|"]
    for name, corpus in corpora.items():
        counts = next(iter(corpus.counts.values()))
        fetched = " \\*" if corpus.download else ""
        cells = (
            f"`{name}`{fetched}",
            corpus.title,
            corpus.language,
            counts.files,
            counts.speakers,
            labels(corpus),
            corpus.licence,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def labels(corpus: Corpus) -> str:
    """The emotions of all releases; a corpus that counts them nowhere still names them in its module."""
    return ", ".join(dict.fromkeys(label for counts in corpus.counts.values() for label in counts.emotions)) or "see its module"


def page(corpora: dict[str, Corpus]) -> str:
    """data/README.md."""
    parts = [HEAD]
    for name, corpus in corpora.items():
        lines = [f"## {name}: {corpus.title}", ""]
        for key, value in describe(corpus).items():
            if key != "title":
                lines += [f"- {key}: {line}" for line in (value if isinstance(value, list) else [value])]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def readme(text: str, corpora: dict[str, Corpus]) -> str:
    """README.md with its table made anew."""
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: f"{BEGIN}\n{table(corpora)}\n{END}", text, flags=re.DOTALL)


def main() -> None:
    corpora = known()
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8"), corpora), encoding="utf-8")
    (ROOT / "data" / "README.md").write_text(page(corpora), encoding="utf-8")


if __name__ == "__main__":
    main()
