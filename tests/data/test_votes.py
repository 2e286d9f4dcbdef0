"""Votes of annotators: read from a table, kept in the manifest, mapped with the labels, and turned into shares."""

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.corpora.base import list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.labels import map_labels
from speaker_invariant_ser.data.manifest import COLUMNS, Listing, Utterance, combine, read_manifest, write_manifest
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.custom import Request, read_table
from speaker_invariant_ser.data.tables.votes import counts_of, label_shares
from speaker_invariant_ser.errors import ManifestError

ANNOTATED = "path,speaker,r1,r2,r3\na.wav,1,angry,angry,sad\nb.wav,1,sad,,Sad\nc.wav,2,sad,angry,n/a\nd.wav,2,angry,sad,happy\n"


def listed(folder, text, **options):
    (folder / "t.csv").write_text(text)
    return read_table(Request(folder / "t.csv", **options))


@pytest.mark.parametrize(
    "rows, emotions, votes",
    [
        ("a.wav,1,3,1\nb.wav,2,,2\n", ["angry", "sad"], ['{"angry": 3, "sad": 1}', '{"sad": 2}']),
        ("a.wav,1,.75,0.25\nb.wav,2,0,1\n", ["angry", "sad"], ['{"angry": 0.75, "sad": 0.25}', '{"sad": 1}']),
        ("a.wav,1,75,25\nb.wav,2,0,100\n", ["angry", "sad"], ['{"angry": 0.75, "sad": 0.25}', '{"sad": 1}']),
    ],
    ids=["counts", "shares", "percentages"],
)
def test_a_column_of_votes_for_each_emotion_gives_the_label_and_the_votes(tmp_path, rows, emotions, votes):
    for prefix, options in (("votes_", {}), ("n ", {"votes": "n "})):
        listing = listed(tmp_path, f"path,speaker,{prefix}angry,{prefix}sad\n" + rows, **options)
        assert [u.emotion for u in listing.utterances] == emotions
        assert [u.votes for u in listing.utterances] == votes
        assert "emotion is the majority of the votes" in listing.notes
        assert ("percentages" in " ".join(listing.notes)) == ("75,25" in rows)


def test_a_column_for_each_annotator_gives_the_majority_and_rejects_ties(tmp_path):
    listing = listed(tmp_path, ANNOTATED, annotators=["r*"])
    assert [(u.emotion, u.votes) for u in listing.utterances] == [
        ("angry", '{"r1": "angry", "r2": "angry", "r3": "sad"}'),
        ("sad", '{"r1": "sad", "r3": "sad"}'),
    ]
    assert listing.rejected == [
        ("c.wav", "no majority: angry and sad are tied"),
        ("d.wav", "no majority: angry and happy and sad are tied"),
    ]
    assert "votes for 'Sad' and 'sad' are votes for one emotion" in listing.notes
    kept = listed(tmp_path, ANNOTATED, annotators=["r1", "r2", "r3"], unlabelled=True)
    assert [u.emotion for u in kept.utterances] == ["angry", "sad", "", ""] and not kept.rejected


def test_a_given_label_stays_whatever_the_votes(tmp_path):
    listing = listed(
        tmp_path, "path,speaker,label,votes_ANGRY,votes_bored\na.wav,1,sad,2,1\nb.wav,2,angry,,\nc.wav,2,angry,1,1\n"
    )
    assert [(u.emotion, u.votes) for u in listing.utterances] == [
        ("sad", '{"angry": 2, "bored": 1}'),
        ("angry", ""),
        ("angry", '{"angry": 1, "bored": 1}'),
    ]
    assert listing.notes == [
        "votes are taken from votes_ANGRY, votes_bored",
        "votes for 'ANGRY' and 'angry' are votes for one emotion",
        "1 utterance has no votes: the label counts as the only one",
        "votes for 'bored' (of 2 utterances) do not count, because no utterance has this label; labels.map can merge it with one",
    ]


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("votes_angry,votes_sad\na,1,-1,2", {}, "votes_angry in row 1 is '-1': expected votes or a share"),
        ("votes_angry,votes_sad\na,1,two,2", {}, "votes_angry in row 1 is 'two': expected votes"),
        ("votes_angry,votes_sad\na,1,1,inf", {}, "votes_sad in row 1 is 'inf': expected votes"),
        ("votes_angry,votes_sad\na,1,1,2\nb,1,0,0", {}, r"the votes in row 2 add up to 0 \(votes_angry, votes_sad\)"),
        ("votes_angry,votes_sad\na,1,1,2\nb,1,,", {}, "no votes in row 2, and no column emotion; .* --unlabelled"),
        ("r1,r2\na,1,sad,sad\nb,1,,nan", {"annotators": ["r1", "r2"]}, "no votes in row 2"),
        (
            "votes_angry,votes_sad\na,1,1,2",
            {"votes": "v_"},
            "--votes v_: no column begins with v_ .* such as v_angry; found votes_angry",
        ),
        ("r1,r2\na,1,sad,sad", {"annotators": ["r1", "s*"]}, r"--annotators s\*: unknown column"),
        ("emotion\na,1,sad", {"annotators": ["s*"]}, r"unknown column 's\*'. Expected one of: none, there is no other"),
        ("votes_a,r1\na,1,1,sad", {"votes": "votes_", "annotators": ["r1"]}, "--votes votes_ and --annotators r1"),
    ],
)
def test_columns_that_hold_no_votes_are_named(tmp_path, text, options, message):
    with pytest.raises(ManifestError, match=message):
        listed(tmp_path, "path,speaker," + text + "\n", **options)


def test_prepare_keeps_votes_and_a_corpus_without_votes_has_no_such_column(tmp_path, capsys):
    for seed, name in enumerate("abcd"):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(seed).uniform(-0.3, 0.3, 4000), 16_000)
    (tmp_path / "t.csv").write_text(ANNOTATED)
    command = ["prepare", "csv", str(tmp_path / "t.csv"), str(tmp_path / "data"), "--no-f0", "--jobs", "1"]
    assert siser([*command, "--annotators", "r?"]) == 0
    prepared = PreparedCorpus.open(tmp_path / "data")
    assert [u.votes for u in prepared.utterances] == ['{"r1": "angry", "r2": "angry", "r3": "sad"}', '{"r1": "sad", "r3": "sad"}']
    assert "emotion is the majority of the votes" in prepared.settings["notes"]
    assert "no majority" in (tmp_path / "data" / "rejected.csv").read_text()
    assert siser(["prepare", "emodb", str(tmp_path), str(tmp_path / "other"), "--annotators", "r1"]) == 2
    assert "error: --annotators: for csv, tsv, parquet, datasets, and not for emodb" in capsys.readouterr().err
    write_manifest(tmp_path / "m.csv", [Utterance("1", "c", "s", "sad", source="x.wav")])
    assert "votes" not in (tmp_path / "m.csv").read_text() and "votes" in COLUMNS
    (only,) = read_manifest(tmp_path / "m.csv")
    assert only.votes == ""


@pytest.mark.parametrize("votes", ["{", "[1]", "{}", '{"sad": -1}', '{"sad": true}', '{"sad": 1, "r1": "sad"}', '{"r1": ""}'])
def test_damaged_votes_of_a_manifest_are_named(tmp_path, votes):
    write_manifest(tmp_path / "m.csv", [Utterance("1", "c", "s", "sad", source="x.wav", votes=votes)])
    with pytest.raises(ManifestError, match=r"m\.csv: votes in row 1 cannot be read"):
        read_manifest(tmp_path / "m.csv")


def test_a_label_map_merges_and_drops_votes_with_the_labels():
    utterances = [
        Utterance("1", "c", "s", "angry", votes='{"angry": 2, "cross": 1, "bored": 3}'),
        Utterance("2", "c", "s", "sad", votes='{"r1": "sad", "r2": "bored"}'),
        Utterance("3", "c", "s", "sad"),
    ]
    mapped, record = map_labels({"angry": "anger", "cross": "anger", "sad": "sad"}, utterances)
    assert [u.votes for u in mapped] == ['{"anger": 3}', '{"r1": "sad"}', ""]
    assert record.votes == {"bored": 2} and "dropped votes for bored (of 2 utterances)" in record.summary
    _, plain = map_labels({"sad": "sad"}, utterances[2:])
    assert "votes" not in plain.table()


def test_annotators_of_two_corpora_stay_apart():
    listings = [
        Listing([Utterance("1", corpus, "s", "sad", votes=votes)])
        for corpus, votes in (("a", '{"r1": "sad"}'), ("b", '{"sad": 2}'))
    ]
    combined, _ = combine(listings)
    assert [u.votes for u in combined.utterances] == ['{"a-r1": "sad"}', '{"sad": 2}']


def test_shares_are_those_of_the_votes_for_known_emotions_or_the_label():
    texts = ['{"angry": 3, "sad": 1, "bored": 4}', '{"r1": "sad"}', "", '{"bored": 2}', '{"sad": 1}']
    shares = label_shares(texts, np.array([0, 0, 1, 1, -1]), ["angry", "sad"])
    assert shares.tolist() == [[0.75, 0.25], [0, 1], [0, 1], [0, 1], [0, 0]]
    assert counts_of('{"r1": "sad", "r2": "sad"}') == {"sad": 2}


def test_votes_of_crema_d_are_of_listeners_to_the_audio_alone(tmp_path):
    (tmp_path / "AudioWAV").mkdir()
    for name in ("1001_DFA_ANG_XX", "1001_DFA_SAD_XX", "1076_MTI_SAD_XX"):
        (tmp_path / "AudioWAV" / f"{name}.wav").touch()
    rows = [
        "7,1,1001_DFA_ANG_XX,A",
        "8,1,1001_DFA_ANG_XX,N",
        "7,2,1001_DFA_ANG_XX,H",
        "9,1,1001_DFA_ANG_XX,?",
        "7,1,1076_MTI_SAD_XX,S",
    ]
    (tmp_path / "finishedResponses.csv").write_text("\n".join(["localid,queryType,clipName,respEmo", *rows]))
    listing = list_corpus(get_corpus("crema_d"), tmp_path)
    assert {u.id: u.votes for u in listing.utterances} == {
        "1001_DFA_ANG_XX": '{"7": "angry", "8": "neutral"}',
        "1001_DFA_SAD_XX": "",
    }


def test_votes_of_iemocap_are_those_of_the_evaluators(tmp_path):
    labels = tmp_path / "dialog" / "EmoEvaluation" / "Ses01F_impro05.txt"
    labels.parent.mkdir(parents=True)
    turns = []
    for turn, votes in (("F019", "C-E1:\tAnger;\t()\nC-E2:\tAnger; Frustration;\t()"), ("F020", "C-E1:\tHappiness;\t()")):
        (tmp_path / f"Ses01F_impro05_{turn}.wav").touch()
        turns.append(
            f"[6.2 - 8.2]\tSes01F_impro05_{turn}\tang\t[2.5, 2.5, 3.0]\n{votes}\nC-F1:\tNeutral;\t()\nA-E1:\tval 3;\t()\n"
        )
    labels.write_text("\n".join(turns))
    listing = list_corpus(get_corpus("iemocap"), tmp_path)
    assert [u.votes for u in listing.utterances] == ['{"angry": 2, "frustrated": 1}', '{"happy": 1}']
    assert listing.utterances[0].arousal == 0.375
