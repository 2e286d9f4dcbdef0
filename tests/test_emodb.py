"""EMO-DB itself, where it is at hand."""

from collections import Counter

import pytest

from speaker_invariant_ser import cli, corpora
from speaker_invariant_ser.config import read_recipe
from speaker_invariant_ser.splits import make_splits
from speaker_invariant_ser.store import Store

pytestmark = pytest.mark.corpora


@pytest.fixture(scope="module")
def emodb(corpora_folder, tmp_path_factory):
    if not (corpora_folder / "emodb").is_dir():
        pytest.skip(f"no EMO-DB at {corpora_folder / 'emodb'}")
    out = tmp_path_factory.mktemp("emodb") / "data"
    assert cli.run(["prepare", "emodb", str(corpora_folder / "emodb"), str(out), "--strict"]) == 0
    return Store.open(out)


def test_all_of_it_is_there(emodb):
    counts = emodb.settings["counts"]
    assert (counts["utterances"], counts["speakers"], counts["emotions"], counts["texts"]) == (535, 10, 7, 10)
    assert corpora.differences(corpora.get("emodb"), emodb.utterances) == []
    assert Counter(u.sex for u in emodb.utterances) == {"female": 302, "male": 233}


def test_leave_one_speaker_out_with_the_shipped_recipe(emodb, request):
    recipe = read_recipe(request.config.rootpath / "recipes" / "emodb.toml")
    splits = make_splits(recipe.split, emodb.utterances)
    assert sorted(split.test[0] for split in splits) == sorted({u.speaker for u in emodb.utterances})
    assert all(len(split.test) == 1 for split in splits) and len(splits) == 10
