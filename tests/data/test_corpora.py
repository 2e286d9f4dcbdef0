"""The contract of every corpus module: it states its facts, parses the documented names, and explains what a folder lacks.

`tests/data/corpora/NAME.tsv` lists real paths with the fields they stand for, by layout. Each layout is written as a folder of
tiny files and prepared through the command line. Additional files of a layout are in `tests/data/corpora/NAME/LAYOUT/`.
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.corpora.base import Corpus, Counts, count_differences, list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus, known_corpora
from speaker_invariant_ser.data.manifest import COLUMNS, Utterance, read_manifest
from speaker_invariant_ser.data.tables.columns import read_rows
from speaker_invariant_ser.data.tables.names import groups
from speaker_invariant_ser.errors import CorpusError

CORPORA = known_corpora()
ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "tests" / "data" / "corpora"
FACTS = {"name": "c", "title": "C", "licence": "x", "citation": "x", "url": "x", "language": "de", "layout": "x"}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_states_its_facts(name):
    corpus = CORPORA[name]
    assert corpus.name == name
    assert all((corpus.title, corpus.licence, corpus.citation, corpus.url, corpus.language, corpus.layout, corpus.counts))
    for counts in corpus.counts.values():
        assert counts.files > 0 and counts.speakers > 0
        assert not counts.emotions or sum(counts.emotions.values()) == counts.files


def test_every_module_of_the_folder_is_a_known_corpus():
    folder = ROOT / "speaker_invariant_ser" / "data" / "corpora"
    assert set(CORPORA) == {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "download", "registry", "synthesis"}


@pytest.mark.parametrize("name", CORPORA)
def test_the_error_for_a_wrong_folder_names_the_expected_layout(name, tmp_path):
    corpus = CORPORA[name]
    with pytest.raises(CorpusError, match="does not exist"):
        list_corpus(corpus, tmp_path / "nothing")
    with pytest.raises(CorpusError, match="is empty"):
        list_corpus(corpus, tmp_path)
    (tmp_path / "holiday.wav").touch()
    with pytest.raises(CorpusError, match="looked for ") as error:
        list_corpus(corpus, tmp_path)
    assert corpus.layout in str(error.value) and corpus.url in str(error.value)
    with pytest.raises(CorpusError, match="is a file, not a folder"):
        list_corpus(corpus, tmp_path / "holiday.wav")


def contract_rows(name: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows of a corpus's contract table by layout; none where the table is missing, which a test reports."""
    layouts = {}
    if not (TABLES / f"{name}.tsv").exists():
        return layouts
    for row in read_rows(TABLES / f"{name}.tsv", ("layout", "path")):
        layouts.setdefault(row.pop("layout"), []).append(row)
    return layouts


@pytest.mark.parametrize("name", CORPORA)
def test_the_contract_table_covers_every_emotion_and_several_speakers(name):
    table = TABLES / f"{name}.tsv"
    assert table.exists(), f"write {table}: real paths of the corpus with the fields they stand for, see docs/contributing.md"
    layouts, corpus = contract_rows(name), CORPORA[name]
    assert next(iter(layouts), None) == "original", f"{table}: the first layout must be called original"
    kept = [row for row in layouts["original"] if not row.get("rejected")]
    number = len({row["path"] for row in kept})
    assert number >= 30, f"{table}: {number} distinct paths of layout original are kept, at least 30 are needed"
    documented = {label for counts in corpus.counts.values() for label in counts.emotions}
    covered = {row["emotion"] for rows in layouts.values() for row in rows if not row.get("rejected")}
    assert not documented or covered == documented, f"{table}: the emotions are not those of `counts` in the corpus module"
    speakers, needed = {row["speaker"] for row in kept}, min(4, next(iter(corpus.counts.values())).speakers)
    assert len(speakers) >= needed, f"{table}: {len(speakers)} speakers in layout original, at least {needed} are needed"


@pytest.mark.parametrize("name, layout", [(name, layout) for name in CORPORA for layout in contract_rows(name)])
def test_file_names_are_parsed_as_documented(name, layout, tmp_path):
    rows, folder = contract_rows(name)[layout], tmp_path / "corpus"
    if (TABLES / name / layout).is_dir():
        shutil.copytree(TABLES / name / layout, folder)
    for path in dict.fromkeys(row["path"] for row in rows):
        write_audio(folder / path, seconds=3 if "end" in rows[0] else 0.15)
    assert siser(["prepare", name, str(folder), str(tmp_path / "data"), "--no-f0"]) == 0
    kept = {(utterance.source, utterance.start): utterance for utterance in read_manifest(tmp_path / "data" / "manifest.csv")}
    rejected = (tmp_path / "data" / "rejected.csv").read_text(encoding="utf-8").splitlines()
    reasons = {row["file"]: row["reason"] for row in csv.DictReader(rejected)}
    expected_number = sum(not row.get("rejected") for row in rows)
    assert len(kept) == expected_number, f"{len(kept)} utterances are kept, {expected_number} rows are not rejected: {reasons}"
    assert not groups({utterance.speaker for utterance in kept.values()}), "different speakers have names that are alike"
    for row in rows:
        if row.get("rejected"):
            assert row["path"] in reasons, f"{row['path']} is kept, but the table says: rejected"
            assert row["rejected"] in reasons[row["path"]]
        else:
            key = row["path"], float(row.get("start") or 0)
            assert key in kept, f"{key} is not kept: {reasons.get(row['path'], 'no utterance with this path and start')}"
            utterance = kept[key]
            assert utterance.corpus == name and utterance.language
            expected = {key: row[key] for key in COLUMNS if key in row}
            assert {key: str(getattr(utterance, key)) for key in expected} == expected, row["path"]


def write_audio(path: Path, seconds: float) -> None:
    """Write noise that differs from path to path, in the format that the file's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.as_posix().encode())).uniform(-0.1, 0.1, int(16000 * seconds))
    soundfile.write(path, noise, 16000)


def test_the_error_for_an_unknown_corpus_lists_the_known_ones():
    with pytest.raises(CorpusError, match="unknown corpus 'emobd', did you mean 'emodb'.*builtin, .*nemo"):
        get_corpus("emobd")


def test_a_speaker_with_contradicting_sexes_has_none(tmp_path):
    rows = [("a", "female"), ("a", ""), ("b", "female"), ("b", "male"), ("c", "")]
    files = [{"source": f"{n}.wav", "speaker": speaker, "emotion": "sad", "sex": sex} for n, (speaker, sex) in enumerate(rows)]
    (tmp_path / "0.wav").touch()
    listing = list_corpus(Corpus(**FACTS, counts={"complete": Counts(5, 3)}, find=lambda folder: files), tmp_path)
    assert [utterance.sex for utterance in listing.utterances] == ["female", "female", "", "", ""]


def test_a_file_name_that_occurs_twice_makes_the_path_the_id(tmp_path):
    files = [{"source": f"{folder}/x.wav", "speaker": folder, "emotion": "sad"} for folder in "ab"]
    (tmp_path / "x.wav").touch()
    listing = list_corpus(Corpus(**FACTS, counts={"complete": Counts(2, 2)}, find=lambda folder: files), tmp_path)
    assert [utterance.id for utterance in listing.utterances] == ["x", "b/x.wav"]


def test_audio_that_the_corpus_does_not_describe_is_rejected_unless_it_is_an_other_file(tmp_path):
    for name in ("x.wav", "holiday.wav", "Raw/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = [{"source": "x.wav", "speaker": "a", "emotion": "sad"}]
    corpus = Corpus(**FACTS, counts={"complete": Counts(1, 1)}, find=lambda folder: files, other_files=("raw/*",))
    assert list_corpus(corpus, tmp_path).rejected == [("holiday.wav", "not a file of C by its name: expected x")]


def test_the_words_of_an_utterance_may_be_in_another_encoding_than_utf8(tmp_path):
    (tmp_path / "train_splits").mkdir()
    (tmp_path / "train_splits" / "dia0_utt1.wav").touch()
    table = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\nIt\u2019s fine\u2026,Monica,joy,0,1\n"
    (tmp_path / "train_sent_emo.csv").write_text(table, encoding="cp1252")  # as a spreadsheet saves it
    (utterance,) = list_corpus(get_corpus("meld"), tmp_path).utterances
    assert (utterance.speaker, utterance.emotion, utterance.sex) == ("Monica", "happy", "female")


def test_counts_are_compared_with_the_release_of_nearest_size():
    small, large = Counts(6, 3, {"happy": 6}), Counts(60, 3, {"happy": 30, "sad": 30})
    corpus = Corpus(**FACTS, counts={"small": small, "large": large}, find=lambda folder: [])

    def happy(count):
        return [Utterance(str(n), "c", f"s{n % 3}", "happy") for n in range(count)]

    assert count_differences(corpus, happy(6)) == []
    assert count_differences(corpus, happy(5)) == [
        "files: 5 found, 6 expected (small)",
        "happy: 5 found, 6 expected (small)",
    ]
    assert "sad: 0 found, 30 expected (large)" in count_differences(corpus, happy(50))


def test_the_generated_pages_are_current():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import corpus_pages
    finally:
        sys.path.pop(0)
    written = corpus_pages.TABLE_PAGE.read_text(encoding="utf-8")
    assert written == corpus_pages.with_table(written, CORPORA), "run tools/corpus_pages.py"
    assert corpus_pages.DETAILS_PAGE.read_text(encoding="utf-8") == corpus_pages.details_page(CORPORA), (
        "run tools/corpus_pages.py"
    )
    assert all(f"| `{name}`" in written for name in CORPORA)
