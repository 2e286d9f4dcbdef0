"""One contract for every corpus module: facts are there, names are read, a wrong folder is told what was looked for."""

from pathlib import Path

import pytest

from speaker_invariant_ser import corpora
from speaker_invariant_ser.corpora import builtin, emodb
from speaker_invariant_ser.errors import CorpusError

KNOWN = corpora.known()


@pytest.mark.parametrize("name", KNOWN)
def test_every_corpus_states_its_facts(name):
    corpus = KNOWN[name]
    assert corpus.name == name
    assert all((corpus.title, corpus.licence, corpus.citation, corpus.url, corpus.language, corpus.layout))
    assert sum(corpus.emotions.values()) == corpus.files and corpus.speakers > 1


@pytest.mark.parametrize("name", KNOWN)
def test_a_wrong_folder_is_told_what_was_looked_for(name, tmp_path):
    corpus = KNOWN[name]
    with pytest.raises(CorpusError, match="does not exist"):
        corpora.find(corpus, tmp_path / "nothing")
    with pytest.raises(CorpusError, match="is empty"):
        corpora.find(corpus, tmp_path)
    (tmp_path / "holiday.wav").touch()
    with pytest.raises(CorpusError, match="looked for files named like"):
        corpora.find(corpus, tmp_path)
    with pytest.raises(CorpusError, match="is a file, not a folder"):
        corpora.find(corpus, tmp_path / "holiday.wav")


def test_an_unknown_corpus_is_told_the_known_ones():
    with pytest.raises(CorpusError, match="unknown corpus 'emobd', did you mean 'emodb'.*builtin, emodb, csv"):
        corpora.get("emobd")


@pytest.mark.parametrize(
    "path, expected",
    [
        ("wav/03a01Fa.wav", ("03", "happy", "a01", "male")),
        ("EMO-DB/WAV/16b10Wb.WAV", ("16", "angry", "b10", "female")),
        ("08a07La.wav", ("08", "bored", "a07", "female")),
        ("15b03Ea.wav", ("15", "disgusted", "b03", "male")),
        ("14a05Aa.wav", ("14", "fearful", "a05", "female")),
        ("12b02Nb.wav", ("12", "neutral", "b02", "male")),
        ("11b09Td.wav", ("11", "sad", "b09", "male")),
    ],
)
def test_emodb_names(path, expected):
    utterance = emodb.parse(Path(path))
    assert (utterance.speaker, utterance.emotion, utterance.text, utterance.sex) == expected
    assert utterance.source == path and utterance.language == "de"


@pytest.mark.parametrize("name", ["04a01Fa.wav", "03c01Fa.wav", "03a01Xa.wav", "03a01F.wav", "s03_angry_t07.wav"])
def test_other_names_are_not_emodb(name):
    assert emodb.parse(Path(name)) is None


def test_builtin_names():
    utterance = builtin.parse(Path("s03_angry_t07.wav"))
    assert (utterance.speaker, utterance.emotion, utterance.text, utterance.sex) == ("s03", "angry", "t07", "female")


def test_missing_files_are_told():
    some = [emodb.parse(Path(f"03a01{letter}a.wav")) for letter in "WLEAFNT"]
    told = corpora.differences(KNOWN["emodb"], some)
    assert "files: 7 found, 535 expected" in told and "angry: 1 found, 127 expected" in told
