"""Tables of utterances are typed, never inferred, and errors list all problems at once."""

import pytest

from speaker_invariant_ser.data.manifest import (
    Listing,
    Utterance,
    combine,
    read_manifest,
    remove_duplicates,
    select,
    write_manifest,
)
from speaker_invariant_ser.data.tables.custom import Request, read_table
from speaker_invariant_ser.data.tables.names import is_utf8
from speaker_invariant_ser.errors import ManifestError


def test_a_manifest_is_unchanged_after_writing_and_reading(tmp_path):
    utterances = [
        Utterance("007", "c", "03", "happy", 'a "quoted", text\nof two lines', "female", "de", source="wav/ü.wav", samples=9),
        Utterance("1e3", "c", "NA", "null", source="x.wav", start=0.1, end=1 / 3, offset=9, samples=2**40),
    ]
    write_manifest(tmp_path / "m.csv", utterances)
    assert read_manifest(tmp_path / "m.csv") == utterances


def test_a_table_needs_three_columns_and_keeps_text_as_text(tmp_path):
    (tmp_path / "t.csv").write_text(
        "\ufeffspeaker,note,path,emotion\n03,x,a.wav, happy \n08,y,/abs/b.wav,sad\n", encoding="utf-8"
    )
    first, second = read_table(Request(tmp_path / "t.csv")).utterances
    assert (first.speaker, first.emotion, first.source, first.id) == ("03", "happy", "a.wav", "a.wav")
    assert second.source == "/abs/b.wav" and first.text == first.sex == ""


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,speaker\na.wav,1\n", "no column emotion; found path, speaker"),
        ("path;speaker;emotion\na.wav;1\n", "cannot be read as a CSV"),
        ("path,speaker,emotion\n", "contains no utterances"),
        ("path,speaker,emotion\na.wav,,sad\nb.wav,1,\n", "empty speaker in row 1; empty emotion in row 2"),
        ("path,speaker,emotion,start,end\na.wav,1,sad,2,1\n", r"impossible start and end: a.wav \(2 to 1 s\)"),
        ("path,speaker,emotion,start,end\na.wav,1,sad,0:01,1\n", "start in row 1 is '0:01': expected seconds"),
        ("path,speaker,emotion,start,end\na.wav,1,sad,1_0,11\n", "start in row 1 is '1_0': expected seconds"),
        ("path,speaker,emotion\na.wav,1,sad\na.wav,1,glad\n", r"none of 2 rows .* conflicting emotions \(glad, sad\)"),
        ("path,speaker,emotion\na.wav,1\n", "cannot be read as a CSV"),
        (
            'path,speaker,emotion\na.wav,1,"sad\nb.wav,1,sad\nc.wav,2,"sad\n',
            "line 2: a quotation mark that begins a cell is not closed",
        ),
        ("path,speaker,emotion,end\na.wav,1,sad,inf\n", "end in row 1 is 'inf': expected seconds"),
        ("path,speaker,emotion,end\na.wav,1,sad,1e308\nb.wav,1,sad,x\n", "end in row 1 is '1e308' and in 1 more row"),
        ("path,speaker,emotion," + "x" * 200_000 + "\na.wav,1,sad,\n", "cannot be read as a CSV"),
        ("path,path,speaker,emotion\na,a,1,sad\n", "column path occurs more than once"),
        ("", "t.csv is empty, expected a CSV table in UTF-8"),
    ],
)
def test_invalid_tables_raise_an_error_that_names_the_problem(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ManifestError, match=message) as error:
        read_table(Request(tmp_path / "t.csv"))
    assert "t.csv" in str(error.value)


def listing(corpus, speakers, style=""):
    utterances = [
        Utterance(f"{corpus}{n}", corpus, speaker, "sad", style=style, source=f"{n}") for n, speaker in enumerate(speakers)
    ]
    return Listing(utterances)


def test_only_does_not_apply_to_a_corpus_without_the_column():
    both = [listing("a", "12", "speech"), listing("b", "34")]
    assert [len(selected.utterances) for selected in select(both, [("style", "speech")])] == [2, 2]
    assert [len(selected.utterances) for selected in select(both, [("corpus", "b")])] == [0, 2]
    with pytest.raises(ManifestError, match="--only style=speach: no utterance has it, style is one of '' .empty., speech"):
        select(both, [("style", "speach")])


def test_corpus_names_that_would_merge_two_speakers_raise_an_error():
    with pytest.raises(ManifestError, match="speaker name a-b-1 is ambiguous: it is in two corpora"):
        combine([listing("a", ["b-1"]), listing("a-b", ["1"])])


@pytest.mark.parametrize("name, valid", [("a", True), ("ü😀", True), ("a\udcff", False), ("\udcff😀", False)])
def test_file_names_that_are_not_utf8_are_rejected(name, valid):
    assert is_utf8(name) == valid
    kept = remove_duplicates(Listing([Utterance("x", "c", "1", "sad", source=name)]))
    assert len(kept.utterances) == valid and len(kept.rejected) == (not valid)


def test_quotation_marks_in_a_tsv_are_ordinary_characters(tmp_path):
    rows = ["path\tspeaker\temotion\ttext", 'a.wav\t1\tsad\t"Hello he said', 'b.wav\t1\tsad\t"Really?" she said']
    (tmp_path / "t.tsv").write_text("\n".join(rows))
    first, second = read_table(Request(tmp_path / "t.tsv")).utterances
    assert (first.text, second.text) == ('"Hello he said', '"Really?" she said')


def test_empty_lines_and_blanks_around_the_header_are_ignored(tmp_path):
    (tmp_path / "t.csv").write_text('\n\n"path" , speaker,emotion\n01.wav,007,1e3\n')
    (only,) = read_table(Request(tmp_path / "t.csv")).utterances
    assert (only.source, only.speaker, only.emotion) == ("01.wav", "007", "1e3")


def test_a_table_in_another_encoding_raises_an_error(tmp_path):
    (tmp_path / "t.csv").write_bytes("path,speaker,emotion\nü.wav,1,sad\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="UTF-8"):
        read_table(Request(tmp_path / "t.csv"))
