"""Real corpora, where they are available."""

import csv
import hashlib
import json
from collections import Counter

import pytest

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.data.corpora.base import count_differences
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import make_splits

pytestmark = pytest.mark.corpora


def prepare_real(name, corpora_folder, tmp_path_factory):
    if not (corpora_folder / name).is_dir():
        pytest.skip(f"no corpus at {corpora_folder / name}")
    out = tmp_path_factory.mktemp(name) / "data"
    assert siser(["prepare", name, str(corpora_folder / name), str(out), "--strict"]) == 0
    return PreparedCorpus.open(out)


@pytest.fixture(scope="module")
def emodb(corpora_folder, tmp_path_factory):
    return prepare_real("emodb", corpora_folder, tmp_path_factory)


def test_emodb_is_complete(emodb):
    counts = emodb.settings["counts"]
    assert (counts["utterances"], counts["speakers"], counts["emotions"], counts["texts"]) == (535, 10, 7, 10)
    assert count_differences(get_corpus("emodb"), emodb.utterances) == []
    assert Counter(u.sex for u in emodb.utterances) == {"female": 302, "male": 233}


def test_prepared_emodb_is_identical_to_that_of_version_0_1_0(emodb):
    """Audio and manifest, apart from the columns that came later."""
    rows = csv.reader((emodb.folder / "manifest.csv").read_text(encoding="utf-8").splitlines())
    header = next(rows)
    kept = [position for position, name in enumerate(header) if name not in ("recording", "copies")]
    former = [[row[position] for position in kept] for row in (header, *rows)]
    assert len(header) - len(kept) == 2 and emodb.settings["sha256"]["audio.i16"] == (
        "530e92682959a29cad60d44f5c99e2d529ea1a4246cd969b987f54942af4fc85"
    )
    assert (
        hashlib.sha256(json.dumps(former).encode()).hexdigest()
        == "98e752c3a38751b4e836695af85fd94f1605b120401b73232714523c382895d4"
    )


def test_leave_one_speaker_out_with_the_shipped_recipe(emodb, request):
    recipe = read_recipe(request.config.rootpath / "recipes" / "emodb.toml")
    splits = make_splits(recipe.split, emodb.utterances)
    assert sorted(split.test[0] for split in splits) == sorted({u.speaker for u in emodb.utterances})
    assert all(len(split.test) == 1 for split in splits) and len(splits) == 10


@pytest.fixture(scope="module")
def nemo(corpora_folder, tmp_path_factory):
    return prepare_real("nemo", corpora_folder, tmp_path_factory)


def test_a_fifth_of_nemo(nemo):
    """The available part has every fifth text."""
    counts = nemo.settings["counts"]
    assert (counts["utterances"], counts["speakers"], counts["emotions"], counts["texts"]) == (895, 9, 6, 18)
    assert counts["rejected"] == counts["warned"] == 0
    sexes = {utterance.speaker: utterance.sex for utterance in nemo.utterances}
    assert sorted(sexes) == ["EB0", "IC0", "KD0", "KS0", "MK0", "MP0", "SM0", "TP0", "WR0"]
    assert {speaker for speaker, sex in sexes.items() if sex == "male"} == {"KS0", "MP0", "SM0", "TP0", "WR0"}
    assert {utterance.text for utterance in nemo.utterances} == {str(text) for text in range(5, 95, 5)}
    assert not any(u.emotion == "surprised" for u in nemo.utterances if u.speaker == "MK0")
    assert Counter(utterance.emotion for utterance in nemo.utterances)["surprised"] == 132
    assert len(nemo.settings["differences"]) == 7 and "files: 895 found, 4481 expected" in nemo.settings["differences"][0]


def test_emodb_and_nemo_in_one_manifest(corpora_folder, emodb, nemo, tmp_path):
    """Speakers stay distinct, and the five emotions are those that both corpora have."""
    folders = [corpora_folder / name for name in ("emodb", "nemo")]
    assert siser(["prepare", "emodb", str(folders[0]), str(tmp_path / "both"), "--also", f"nemo={folders[1]}"]) == 0
    both = PreparedCorpus.open(tmp_path / "both").labelled("auto")
    assert {utterance.emotion for utterance in both.utterances} == {"neutral", "happy", "sad", "angry", "fearful"}
    assert both.mapped.dropped == {"bored": 81, "disgusted": 46, "surprised": 132}
    splits = make_splits(make_recipe({"split": {"scheme": "leave-one-corpus-out"}}).split, both.utterances)
    assert [split.name for split in splits] == ["emodb", "nemo"]
    assert all(speaker.startswith("nemo-") for speaker in splits[0].train + splits[0].dev)
