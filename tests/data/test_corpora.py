"""One contract for every corpus module: facts are there, names are read as documented, a wrong folder is told what it lacks.

`tests/corpora/NAME.tsv` lists real-form paths with the fields they stand for, by layout; each layout is written as a folder of
tiny files and prepared through the command line. Side files of a layout lie in `tests/corpora/NAME/LAYOUT/`.
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser import cli
from speaker_invariant_ser.data import corpora
from speaker_invariant_ser.data.corpora import Corpus, Counts
from speaker_invariant_ser.data.manifest import COLUMNS, Utterance, read_manifest, read_rows
from speaker_invariant_ser.errors import CorpusError

KNOWN = corpora.known()
ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "tests" / "data" / "corpora"


@pytest.mark.parametrize("name", KNOWN)
def test_every_corpus_states_its_facts(name):
    corpus = KNOWN[name]
    assert corpus.name == name
    assert all((corpus.title, corpus.licence, corpus.citation, corpus.url, corpus.language, corpus.layout, corpus.counts))
    for counts in corpus.counts.values():
        assert counts.files > 0 and counts.speakers > 0
        assert not counts.emotions or sum(counts.emotions.values()) == counts.files


@pytest.mark.parametrize("name", KNOWN)
def test_a_wrong_folder_is_told_what_was_looked_for(name, tmp_path):
    corpus = KNOWN[name]
    with pytest.raises(CorpusError, match="does not exist"):
        corpora.find(corpus, tmp_path / "nothing")
    with pytest.raises(CorpusError, match="is empty"):
        corpora.find(corpus, tmp_path)
    (tmp_path / "holiday.wav").touch()
    with pytest.raises(CorpusError, match="looked for ") as error:
        corpora.find(corpus, tmp_path)
    assert corpus.layout in str(error.value) and corpus.url in str(error.value)
    with pytest.raises(CorpusError, match="is a file, not a folder"):
        corpora.find(corpus, tmp_path / "holiday.wav")


def rows_of(name: str) -> dict[str, list[dict[str, str]]]:
    """The contract table's rows by layout."""
    layouts = {}
    for row in read_rows(TABLES / f"{name}.tsv", ("layout", "path")):
        layouts.setdefault(row.pop("layout"), []).append(row)
    return layouts


@pytest.mark.parametrize("name", KNOWN)
def test_the_contract_covers_the_corpus(name):
    layouts, corpus = rows_of(name), KNOWN[name]
    assert next(iter(layouts)) == "original"
    kept = [row for row in layouts["original"] if not row.get("rejected")]
    assert len({row["path"] for row in kept}) >= 30
    labels = {label for counts in corpus.counts.values() for label in counts.emotions}
    told = {row["emotion"] for rows in layouts.values() for row in rows if not row.get("rejected")}
    assert not labels or told == labels
    assert len({row["speaker"] for row in kept}) >= min(4, next(iter(corpus.counts.values())).speakers)


@pytest.mark.parametrize("name, layout", [(name, layout) for name in KNOWN for layout in rows_of(name)])
def test_names_are_read_as_documented(name, layout, tmp_path):
    rows, folder = rows_of(name)[layout], tmp_path / "corpus"
    if (TABLES / name / layout).is_dir():
        shutil.copytree(TABLES / name / layout, folder)
    for path in dict.fromkeys(row["path"] for row in rows):
        write_clip(folder / path, seconds=3 if "end" in rows[0] else 0.15)
    assert cli.run(["prepare", name, str(folder), str(tmp_path / "data")]) == 0
    kept = {(one.source, one.start): one for one in read_manifest(tmp_path / "data" / "manifest.csv")}
    reasons = {row["file"]: row["reason"] for row in csv.DictReader(open_text(tmp_path / "data" / "rejected.csv"))}
    assert len(kept) == sum(not row.get("rejected") for row in rows)
    for row in rows:
        if row.get("rejected"):
            assert row["rejected"] in reasons[row["path"]]
        else:
            one = kept[row["path"], float(row.get("start") or 0)]
            assert one.corpus == name and one.language
            expected = {key: row[key] for key in COLUMNS if key in row}
            assert {key: str(getattr(one, key)) for key in expected} == expected, row["path"]


def write_clip(path: Path, seconds: float) -> None:
    """A little noise that no other path has, in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.as_posix().encode())).uniform(-0.1, 0.1, int(16000 * seconds))
    soundfile.write(path, noise, 16000)


def open_text(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_an_unknown_corpus_is_told_the_known_ones():
    with pytest.raises(CorpusError, match="unknown corpus 'emobd', did you mean 'emodb'.*builtin, .*nemo"):
        corpora.get("emobd")


def utterances(count: int, emotion: str = "happy") -> list[Utterance]:
    return [Utterance(str(n), "c", f"s{n % 3}", emotion) for n in range(count)]


def test_a_speaker_has_one_sex_or_none(tmp_path):
    made = {"name": "c", "title": "C", "licence": "x", "citation": "x", "url": "x", "language": "de", "layout": "x"}
    rows = [("a", "female"), ("a", ""), ("b", "female"), ("b", "male"), ("c", "")]
    found = [{"source": f"{n}.wav", "speaker": who, "emotion": "sad", "sex": sex} for n, (who, sex) in enumerate(rows)]
    (tmp_path / "0.wav").touch()
    listing = corpora.find(Corpus(**made, counts={"complete": Counts(5, 3)}, find=lambda folder: found), tmp_path)
    assert [one.sex for one in listing.utterances] == ["female", "female", "", "", ""]


def test_missing_files_are_told_beside_the_nearest_release():
    made = {"name": "c", "title": "C", "licence": "x", "citation": "x", "url": "x", "language": "de", "layout": "x"}
    small, large = Counts(6, 3, {"happy": 6}), Counts(60, 3, {"happy": 30, "sad": 30})
    corpus = Corpus(**made, counts={"small": small, "large": large}, find=lambda folder: [])
    assert corpora.differences(corpus, utterances(6)) == []
    assert corpora.differences(corpus, utterances(5)) == [
        "files: 5 found, 6 expected (small)",
        "happy: 5 found, 6 expected (small)",
    ]
    assert "sad: 0 found, 30 expected (large)" in corpora.differences(corpus, utterances(50))


def test_the_pages_about_corpora_are_what_the_modules_say():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from corpus_pages import page, readme
    finally:
        sys.path.pop(0)
    written = (ROOT / "README.md").read_text(encoding="utf-8")
    assert written == readme(written, KNOWN), "run tools/corpus_pages.py"
    assert (ROOT / "data" / "README.md").read_text(encoding="utf-8") == page(KNOWN), "run tools/corpus_pages.py"
    assert all(f"| `{name}`" in written for name in KNOWN) and f"knows {len(KNOWN)} corpora" in written
