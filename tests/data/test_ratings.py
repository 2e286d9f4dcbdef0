"""Ratings of arousal, valence and dominance: from 0 to 1 in the manifest, whatever the scale of the corpus is."""

import shutil
from pathlib import Path
from typing import get_args

import pyarrow
import pyarrow.parquet
import pytest

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.corpora.base import Corpus, Counts, list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.manifest import DIMENSIONS, Utterance, read_manifest, select, write_manifest
from speaker_invariant_ser.data.tables.custom import Request, read_table
from speaker_invariant_ser.errors import ManifestError
from speaker_invariant_ser.recipe_encoders import Dimension

TABLES = Path(__file__).resolve().parent / "corpora"
FACTS = {"name": "c", "title": "C", "licence": "x", "citation": "x", "url": "x", "language": "de", "layout": "x"}


def ratings_of(utterance):
    return tuple(getattr(utterance, name) for name in DIMENSIONS)


def test_recipes_and_manifests_name_the_same_dimensions():
    assert get_args(Dimension) == DIMENSIONS


def test_a_manifest_keeps_ratings_and_has_their_columns_only_where_there_are_any(tmp_path):
    plain = [Utterance("a", "c", "1", "sad", source="a.wav"), Utterance("b", "c", "2", "sad", source="b.wav")]
    rated = [Utterance("a", "c", "1", "sad", source="a.wav", arousal=1 / 3, valence=None), plain[1]]
    for name, utterances in (("plain", plain), ("rated", rated)):
        write_manifest(tmp_path / name, utterances)
        assert read_manifest(tmp_path / name) == utterances
    head = (tmp_path / "plain").read_text().splitlines()[0]
    assert (tmp_path / "rated").read_text().splitlines()[0] == f'{head},"arousal"'


def test_a_manifest_with_an_impossible_rating_is_refused(tmp_path):
    write_manifest(tmp_path / "m.csv", [Utterance("a", "c", "1", "sad", source="a.wav", valence=0.5)])
    text = (tmp_path / "m.csv").read_text()
    for value in ("1.5", "inf", "-0.1"):
        (tmp_path / "m.csv").write_text(text.replace("0.5", value))
        with pytest.raises(ManifestError, match=rf"m.csv: valence in row 1 is {value}; expected 0 to 1, or an empty cell"):
            read_manifest(tmp_path / "m.csv")


def test_ratings_of_a_table_are_mapped_from_their_scale_and_may_be_missing(tmp_path):
    rows = "path,speaker,emotion,act,valence\na.wav,1,sad,1,7\nb.wav,1,sad,,nan\nc.wav,2,sad,4,2.5\n"
    (tmp_path / "t.csv").write_text(rows)
    listing = read_table(Request(tmp_path / "t.csv", columns={"arousal": "act"}, scale=(1, 7)))
    assert [ratings_of(utterance) for utterance in listing.utterances] == [(0, 1, None), (None,) * 3, (0.5, 0.25, None)]
    columns = {"path": ["a.wav", "b.wav"], "speaker": ["1", "2"], "emotion": ["sad", "sad"], "dominance": [0.25, None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    listing = read_table(Request(tmp_path / "t.parquet"))
    assert [ratings_of(utterance) for utterance in listing.utterances] == [(None, None, 0.25), (None,) * 3]
    with pytest.raises(ManifestError, match="--only dominance=0.25: unknown column 'dominance'"):
        select([listing], [("dominance", "0.25")])


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (
            ("0.2", "1.5"),
            ("--column", "arousal=arousal"),
            "t.csv: arousal in row 2 is '1.5': expected a number from 0 to 1, or an empty cell; --scale LOWEST",
        ),
        (("inf", "high"), ("--scale", "0", "9"), "arousal in row 1 is 'inf' (and 1 more row): expected"),
        (("1", "5.1"), ("--scale", "1", "5"), "arousal in row 2 is '5.1': expected a number from 1 to 5"),
        (("1", "5"), ("--scale", "5", "1"), "--scale 5 1: expected the lowest and the highest value of a rating, such as 1 5"),
    ],
)
def test_a_rating_outside_the_scale_is_one_clear_error(cells, options, message, tmp_path, capsys):
    rows = "".join(f"{name}.wav,{name},sad,{cell}\n" for name, cell in zip("ab", cells, strict=True))
    (tmp_path / "t.csv").write_text(f"path,speaker,emotion,arousal\n{rows}")
    assert siser(["prepare", "csv", str(tmp_path / "t.csv"), str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("error:") == 1 and message in " ".join(error.split())


def test_ratings_and_votes_that_nobody_asked_for_do_not_reject_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("path,speaker,emotion,arousal,valence,votes_sad\na.wav,1,sad,2,0.5,x\nb.wav,2,sad,1,1,1\n")
    listing = read_table(Request(tmp_path / "t.csv"))
    assert [ratings_of(utterance) for utterance in listing.utterances] == [(None, 0.5, None), (None, 1, None)]
    assert [note.split(":")[0] for note in listing.notes] == [
        "arousal in row 1 is '2' and not a number from 0 to 1",
        "no votes are taken",
    ]
    assert "votes_sad in row 1 is 'x'" in listing.notes[1] and not any(utterance.votes for utterance in listing.utterances)


def test_a_scale_is_for_own_data_only(tmp_path, capsys):
    assert siser(["prepare", "emodb", str(tmp_path), str(tmp_path / "out"), "--scale", "1", "5"]) == 2
    assert "--scale: for your own data only, emodb is a known corpus" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("name", "layout", "file", "expected"),
    [
        ("iemocap", "original", "Session1/sentences/wav/Ses01F_impro04/Ses01F_impro04_F028.wav", (0.375, 0.375, 0.5)),
        ("iemocap", "kaggle", "Session1/sentences/wav/Ses01F_script02_1/Ses01F_script02_1_F000.wav", (None,) * 3),
        ("msp_improv", "original", "session1/S01A/T/MSP-IMPROV-S01A-F01-T-FM05.wav", (0.4, 0.5, None)),
        ("msp_podcast", "original", "Audios/MSP-PODCAST_0001_0008.wav", (0.2, 0.5, 1.6 / 6)),
    ],
)
def test_ratings_of_known_corpora_are_read(name, layout, file, expected, tmp_path):
    shutil.copytree(TABLES / name / layout, tmp_path / "corpus")
    (tmp_path / "corpus" / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "corpus" / file).touch()
    (utterance,) = list_corpus(get_corpus(name), tmp_path / "corpus").utterances
    assert ratings_of(utterance) == pytest.approx(expected)


def test_iemocap_has_valence_first(tmp_path):
    labels = tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro04.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("[6.2901 - 8.2357]\tSes01F_impro04_F000\tang\t[1.0000, 4.0000, 5.5000]\n")
    (tmp_path / "Ses01F_impro04_F000.wav").touch()
    listing = list_corpus(get_corpus("iemocap"), tmp_path)
    assert ratings_of(listing.utterances[0]) == (0.75, 0, None)
    assert listing.notes == [
        "1 rating outside the scale of 1 to 5 taken as missing, the first: dominance '5.5000' of Ses01F_impro04_F000.wav"
    ]


def test_a_corpus_without_a_scale_has_no_ratings(tmp_path):
    (tmp_path / "0.wav").touch()
    files = [{"source": "0.wav", "speaker": "a", "emotion": "sad"}]
    listing = list_corpus(Corpus(**FACTS, counts={"complete": Counts(1, 1)}, find=lambda folder: files), tmp_path)
    assert ratings_of(listing.utterances[0]) == (None,) * 3 and not listing.notes
