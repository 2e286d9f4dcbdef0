"""Encoders by name, tables of their embeddings, and their comparison: planted emotion and speakers are found."""

import json
import os
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from helpers import fake_hub
from safetensors.torch import load_file, save_file

from speaker_invariant_ser.audit.inputs.read_embeddings import read_embeddings
from speaker_invariant_ser.audit.inputs.scaling import round_significant
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.errors import AuditError, RunError, StudyError
from speaker_invariant_ser.features.pretrained.backbone import Backbone
from speaker_invariant_ser.features.pretrained.checkpoint import open_checkpoint
from speaker_invariant_ser.files import held
from speaker_invariant_ser.indexing import one_hot
from speaker_invariant_ser.inference.exported import shipped_models
from speaker_invariant_ser.recipe_encoders import PretrainedSettings
from speaker_invariant_ser.report.export import export_run
from speaker_invariant_ser.studies.encoders import compare, embedding, sources
from speaker_invariant_ser.studies.encoders.compare import split_name
from speaker_invariant_ser.studies.encoders.measure import PROBES, attacked_tables, embed_all
from speaker_invariant_ser.studies.encoders.page import notes, write_page
from speaker_invariant_ser.studies.encoders.results import read_encoder_result, result_path, why_other
from speaker_invariant_ser.studies.encoders.sources import SOURCES, Encoder, Request, open_encoders, pool
from speaker_invariant_ser.studies.results import write_result


def planted(prepared, path, layers, **changes):
    """Write a table with these layers, each (weight of the emotion, weight of the speaker), in another order than the corpus."""
    utterances, rng = prepared.utterances[::-1], np.random.default_rng(0)
    speaker, emotion = (np.array([getattr(row, name) for row in utterances]) for name in ("speaker", "emotion"))

    def embeddings(of_emotion, of_speaker):
        noise = rng.standard_normal((len(utterances), 9))
        return np.hstack([of_emotion * one_hot(emotion), of_speaker * one_hot(speaker)]) + 0.3 * noise

    arrays = {f"layer_{name}": embeddings(*weights) for name, weights in layers.items()}
    labels = {"id": np.array([row.id for row in utterances]), "speaker": speaker, "emotion": emotion}
    np.savez(path, embedding=list(arrays.values())[-1], **(arrays if len(arrays) > 1 else {}), **{**labels, **changes})
    return path


@pytest.fixture(scope="module")
def tables(prepared, tmp_path_factory):
    """A table of the emotion alone, and one whose first layer is of the speaker and whose last is of the emotion."""
    folder = tmp_path_factory.mktemp("tables")
    planted(prepared, folder / "emotion.npz", {"only": (2, 0)})
    return [
        str(folder / "emotion.npz"),
        str(planted(prepared, folder / "deep.npz", {"low": (0, 2), "high": (2, 0.2)})),
    ]


def test_models_of_versions_that_bind_no_weights_are_different_encoders(trained, tmp_path):
    """Their model.json is the same for all folds; embeddings of one were taken for those of the others."""
    source, names = trained.model_specs[0].folder, []
    for fold in ("a", "b"):
        folder = shutil.copytree(source, tmp_path / fold)
        described = json.loads((folder / "model.json").read_text())
        del described["sha256"]
        (folder / "model.json").write_text(json.dumps(described))
        weights = load_file(folder / "model.safetensors")
        save_file(
            {name: value + (fold == "b") * 1e-3 * value.is_floating_point() for name, value in weights.items()},
            folder / "model.safetensors",
        )
        names.append(sources.identity_of(folder))
    assert names[0] != names[1] and sources.identity_of(source) not in names


NAMES = {"features": "log-mel", "untrained": "untrained", "hub": "hf:owner/wavlm@v1"}
LAST = {"table": "high", "pretrained": "2", "hub": "2"}  # layer; others have "embedding"


@pytest.mark.parametrize("kind", SOURCES)
def test_an_encoder_of_every_kind_embeds_an_utterance_alone_as_among_others(
    kind, prepared, trained, tables, checkpoint, monkeypatch
):
    if kind in ("pretrained", "hub"):
        NAMES["pretrained"] = str(checkpoint("wavlm"))
        fake_hub(monkeypatch, lambda name, **options: str(checkpoint("wavlm")))
    name = {"table": tables[1], "models": str(trained.folder), **NAMES}[kind]
    (encoder,) = open_encoders(Request(name, prepared))
    together, alone = encoder.embed([5, 0, 11]), encoder.embed([0])
    for layer, values in together.items():
        assert values.dtype == np.float32 and values.shape == (3, alone[layer].shape[1]) and np.isfinite(values).all()
        assert np.allclose(values[1], alone[layer][0], atol=1e-4 * np.abs(values).max()), layer
        assert not np.allclose(values[0], values[1])
    assert encoder.about and encoder.identity and encoder.network == (kind not in ("features", "untrained"))
    assert list(together)[-1] == LAST.get(kind, "embedding")


def test_the_layers_of_a_checkpoint_are_those_of_its_network(prepared, checkpoint):
    """Pooled by mean and deviation; every frame of every layer is normalised, so that deviations over dimensions are 1."""
    (encoder,) = open_encoders(Request(str(checkpoint("wavlm")), prepared, deviation=True))
    layers = encoder.embed([0])
    read = open_checkpoint(PretrainedSettings(source=str(checkpoint("wavlm"))))
    with torch.inference_mode():
        (frames,) = Backbone(read)(torch.from_numpy(prepared.clip(0))[None], range(read.depth + 1))
    for layer, values in zip(layers.values(), frames, strict=True):
        assert np.allclose(layer[0], torch.cat([values.mean(0), values.std(0, correction=0)]), atol=2e-3)


def test_an_export_on_the_hub_is_a_model_of_this_package(prepared, monkeypatch):
    folder = str(shipped_models()["emodb-five"])
    fake_hub(monkeypatch, lambda name, **options: folder)
    (encoder,) = open_encoders(Request("hf:owner/emotion", prepared))
    assert "trained on emotions" in encoder.about and list(encoder.embed([0])) == ["frames", "embedding"]


def test_the_rows_of_a_table_are_found_by_id(prepared, tables):
    (encoder,) = open_encoders(Request(tables[0], prepared))
    file = np.load(tables[0])
    row = file["id"].tolist().index(prepared.utterances[3].id)
    assert np.allclose(encoder.embed([3])["embedding"][0], file["embedding"][row], rtol=1e-6)


def test_frames_are_pooled_by_mean_and_if_asked_by_deviation(prepared, trained):
    frames = [np.array([[1, 3], [2, 2]]), np.array([[5], [7]])]
    assert pool(frames, deviation=False).tolist() == [[2, 2], [5, 7]]
    assert pool(frames, deviation=True).tolist() == [[2, 2, 1, 0], [5, 7, 0, 0]]
    plain, wide = (open_encoders(Request(str(trained.folder), prepared, deviation=deviation))[0] for deviation in (False, True))
    assert 2 * plain.embed([0])["frames"].shape[1] == wide.embed([0])["frames"].shape[1] and plain.identity != wide.identity


def test_a_run_is_measured_on_its_own_fold_and_attacked_on_its_training_speakers(prepared, trained, tiny, tmp_path):
    encoders = open_encoders(Request(str(trained.folder), prepared))
    embedded = embed_all(encoders, prepared, tiny.split, tmp_path, lambda step, done, total: None)
    assert [(fold.test, model) for fold, model in embedded.folds] == [(("05", "06"), 0)]
    (table,), scored = attacked_tables(embedded, "embedding")
    (split,) = trained.splits
    assert set(table.speaker) == set(split.train) and scored == "held-out"
    assert set(table.id[table.scored]) == set(split.held_out) and len(split.held_out) > 0
    assert encoders[0].trained.isdisjoint(split.held_out)


def test_without_held_out_utterances_all_are_scored_and_the_result_says_so(prepared, trained, tiny, tmp_path):
    (encoder,) = open_encoders(Request(str(trained.folder), prepared))
    everything = frozenset(utterance.id for utterance in prepared.utterances)
    embedded = embed_all([replace(encoder, trained=everything)], prepared, tiny.split, tmp_path, lambda *step: None)
    (table,), scored = attacked_tables(embedded, "embedding")
    assert table.scored.all() and scored == "trained"


def test_one_model_of_a_run_is_refused_on_the_corpus_it_was_trained_on(prepared, prepared_f0, trained):
    folder = str(trained.model_specs[0].folder)
    with pytest.raises(RunError, match=rf"{re.escape(folder)} was trained on speakers of .*: name its run"):
        open_encoders(Request(folder, prepared))
    (encoder,) = open_encoders(Request(folder, named(prepared, "another")))
    assert encoder.split is None and not encoder.trained


@pytest.mark.parametrize("forged", [["sha256"], {"run": {}}, {"files": {}, "model": {}, "run": []}, " " * 10**7])
def test_a_model_whose_hashes_are_forged_is_refused(forged, prepared, trained, tmp_path):
    folder = shutil.copytree(trained.model_specs[0].folder, tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, "sha256": forged}))
    with pytest.raises(RunError, match=r"model\.json is damaged: (sha256 = .*, expected hashes|10 MB, expected at most 10 MB)"):
        open_encoders(Request(str(folder), prepared))


def named(prepared, corpus):
    """The corpus under the name of another."""
    utterances = [replace(row, corpus=corpus) for row in prepared.utterances]
    return replace(prepared, utterances=utterances, settings={**prepared.settings, "corpora": [corpus], "sha256": {}})


def test_a_model_that_says_it_was_trained_on_recordings_of_the_corpus_is_contaminated(prepared, trained, tmp_path):
    """By the names of corpora, and of speakers where they are known: the hashes of another preparation differ."""
    (shipped,) = open_encoders(Request("emodb-five", named(prepared, "emodb")))
    assert shipped.contamination == ("was trained on recordings of emodb, which this corpus is of: it knows 6 of 6 speakers")
    assert len(shipped.trained) == 72 and shipped.split is None
    (clean,) = open_encoders(Request("emodb-five", named(prepared, "nemo")))
    assert (clean.contamination, clean.trained) == ("", frozenset())
    (corpus,), (split,) = prepared.settings["corpora"], trained.splits
    known = {*split.train, *split.dev}
    other = named(prepared, corpus)
    export_run(trained, tmp_path / "export", "mit")
    for source, speakers in (
        (trained.folder, known),
        (trained.model_specs[0].folder, known),
        (tmp_path / "export", {row.speaker for row in prepared.utterances}),
    ):
        (encoder,) = open_encoders(Request(str(source), other))
        assert encoder.contamination.endswith(f"it knows {len(speakers)} of 6 speakers"), source
        assert {row.speaker for row in prepared.utterances if row.id in encoder.trained} == speakers


def test_a_table_of_a_contaminated_model_has_nothing_to_score(prepared, tmp_path, monkeypatch, capsys):
    corpus = named(prepared, "emodb")
    corpus = replace(corpus, settings={**corpus.settings, "sha256": prepared.settings["sha256"]})
    monkeypatch.setattr(sources.PreparedCorpus, "open", lambda folder: corpus)
    out = tmp_path / "t.npz"
    monkeypatch.setattr(embedding, "embed_utterances", lambda encoder, corpus, rows, *rest: {"embedding": np.ones((72, 2))})
    assert siser(["embed", "emodb-five", str(prepared.folder), "--out", str(out)]) == 0
    assert "emodb-five was trained on recordings of emodb" in " ".join(capsys.readouterr().err.split())
    with np.load(out) as file:
        assert not file["scored"].any()


# ---- blocks


def counting(calls, stop=None):
    """Return an encoder that notes its calls, and is interrupted in one of them."""

    def embed(indices):
        calls.append(list(indices))
        if len(calls) == stop:
            raise KeyboardInterrupt
        return {"low": np.array(indices, np.float32)[:, None], "embedding": np.ones((len(indices), 2), np.float32)}

    return Encoder("counts", "counting", embed)


def test_interrupted_blocks_are_continued_damaged_ones_computed_again_and_others_not_used(prepared, tmp_path):
    indices, calls = range(72), []
    with pytest.raises(KeyboardInterrupt):
        embedding.embed_utterances(counting(calls, stop=2), prepared, indices, tmp_path)
    layers = embedding.embed_utterances(counting(calls), prepared, indices, tmp_path)
    assert [len(call) for call in calls] == [32, 32, 32, 8] and layers["low"][:, 0].tolist() == list(indices)
    (second,) = tmp_path.rglob("00000032.npz")
    second.write_bytes(second.read_bytes()[:-40])
    assert np.array_equal(embedding.embed_utterances(counting(calls), prepared, indices, tmp_path)["low"], layers["low"])
    assert [len(call) for call in calls[4:]] == [32]
    other = replace(counting(calls), identity="another")
    embedding.embed_utterances(other, prepared, indices, tmp_path)
    assert len(calls) == 8


def test_an_embedding_that_is_not_finite_is_named(prepared, tmp_path):
    broken = Encoder("broken", "broken", lambda indices: {"embedding": np.array([[index, np.inf] for index in indices])})
    with pytest.raises(RunError, match=f"{re.escape(prepared.utterances[4].id)}: its embedding .* NaN or infinity"):
        embedding.embed_utterances(broken, prepared, [4], tmp_path)


# ---- siser embed


def test_a_table_of_a_feature_set_is_audited_as_it_is(prepared, tmp_path, capsys):
    out = tmp_path / "a table.npz"
    assert siser(["embed", "log-mel", str(prepared.folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed == f"log-mel: 72 utterances, 80 dimensions -> {out}   next: siser audit '{out}'\n"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    table, _, notes = read_embeddings(out)
    assert table.embedding.shape == (72, 80) and not notes
    assert table.id.tolist() == [utterance.id for utterance in prepared.utterances]
    assert {name: len(set(getattr(table, name))) for name in ("speaker", "emotion", "text")} == {
        "speaker": 6,
        "emotion": 3,
        "text": 4,
    }
    embedding.blocks_folder(out)  # as a kill at the last moment leaves it
    assert siser(["embed", "log-mel", str(prepared.folder), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out} exists already: remove it, or choose another --out\n"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    rounded = tmp_path / "rounded.npz"
    assert siser(["embed", "log-mel", str(prepared.folder), "--out", str(rounded), "--significant-bits", "11"]) == 0
    assert np.array_equal(np.load(rounded)["embedding"], round_significant(table.embedding, 11)), "as it is audited"


def test_a_second_process_with_the_same_table_or_result_says_so(prepared, tmp_path, capsys):
    out, results = tmp_path / "t.npz", tmp_path / "results"
    with held(out), held(result_path(results, "log-mel")):
        assert siser(["embed", "log-mel", str(prepared.folder), "--out", str(out)]) == 2
        assert "t.npz: another process is writing it" in capsys.readouterr().err
        assert siser(["audit-encoders", str(prepared.folder), "log-mel", "--out", str(results)]) == 2
        assert "another process is writing it" in capsys.readouterr().err
    assert list(results.iterdir()) == [] and not out.exists()


def test_the_layers_of_a_run_are_arrays_that_can_be_audited_and_compared(prepared, trained, tmp_path, capsys):
    out, (split,) = tmp_path / "t.npz", trained.splits
    command = ["embed", str(trained.folder), str(prepared.folder), "--layer", "all", "--fold", split.name, "--json"]
    assert siser([*command, "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["utterances"] == 72 and list(printed["layers"]) == ["frames", "embedding"] and printed["dimensions"] == 12
    table, _, _ = read_embeddings(out)
    frames, _, _ = read_embeddings(out, {"embedding": "layer_frames"})
    assert frames.embedding.shape == (72, printed["layers"]["frames"]) and table.embedding.shape == (72, 12)
    new = {row.id for row in prepared.utterances if row.speaker not in split.train or row.id in split.held_out}
    assert set(table.id[table.scored]) == new and len(new) < 72
    (again,) = open_encoders(Request(str(out), prepared))
    assert list(again.embed([0])) == ["frames", "embedding"] and len(again.trained) == 72 - len(new)
    with np.load(out) as file:
        assert len(file["predicted"]) == 72 and set(file["predicted"]) <= {row.emotion for row in prepared.utterances}


def test_decisions_of_a_model_are_columns_beside_what_they_can_be_certified_on(prepared):
    rows, rank = list(range(72)), np.arange(72)[:, None]
    encoder = Encoder("a model", "a", lambda indices: {}, labels=("angry", "sad"))
    layers, decisions = embedding.split_decisions(encoder, {"embedding": rank / 72, "code": rank % 3, "predicted": rank % 2})
    assert list(layers) == ["embedding"]
    table = embedding.table_of_layers(encoder, prepared, rows, layers, None, decisions)
    assert table["code"][:4].tolist() == [0, 1, 2, 0] and table["predicted"][:3].tolist() == ["angry", "sad", "angry"]
    assert table["scored"].all(), "it was trained on none of them"
    assert "scored" not in embedding.table_of_layers(encoder, prepared, rows, layers, None, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["egemasp"], "error: unknown encoder 'egemasp', did you mean 'egemaps'? Expected one of: log-mel, prosody, "),
        (["no.npz"], "error: no such file: no.npz"),
        (["log-mel", "--out", "t.csv"], "error: Invalid value: --out t.csv: expected a name that ends with .npz."),
        (["log-mel", "--fold", "01"], "error: --fold 01: log-mel is not a run; leave it out"),
        (["log-mel", "--layer", "3"], "error: --layer: unknown layer '3'. Expected one of: embedding, all"),
    ],
)
def test_what_cannot_be_embedded_is_one_line(words, message, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["embed", words[0], str(prepared.folder), "--out", "t.npz", *words[1:]]
    assert siser(command) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_run_of_several_models_needs_a_fold(prepared, trained):
    (encoder,) = open_encoders(Request(str(trained.folder), prepared))
    with pytest.raises(RunError, match=r"runs/a has several models, .*: choose one with --fold \(fixed, fixed\)"):
        embedding.require_one([encoder, encoder], "runs/a")
    with pytest.raises(RunError, match=r"runs/a has several models, .* name one of them, such as a/1"):
        sources.require_single("runs/a", ["a/1", "a/2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: {"id": np.arange(len(rows))},
            r"has no row for 72 of 72 utterances of .*expected the ids of its manifest.csv",
        ),
        (lambda rows: {"speaker": np.roll([row.speaker for row in rows], 1)}, "its speakers are not those of the same ids"),
        (lambda rows: {"embedding": np.full((len(rows), 2), np.nan)}, "NaN, infinity"),
    ],
)
def test_a_table_that_does_not_fit_the_corpus_is_refused(change, message, prepared, tmp_path):
    path = planted(prepared, tmp_path / "t.npz", {"only": (1, 1)})
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, **change(prepared.utterances[::-1])})
    with pytest.raises(AuditError, match=message):
        open_encoders(Request(str(path), prepared))


def test_a_table_of_an_encoder_that_was_trained_on_tested_speakers_is_not_compared(prepared, tmp_path, capsys):
    trained = prepared.utterances[0].speaker
    scored = np.array([row.speaker != trained for row in prepared.utterances[::-1]])
    path = planted(prepared, tmp_path / "t.npz", {"only": (1, 1)}, scored=scored)
    assert siser(["audit-encoders", str(prepared.folder), str(path), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 2
    assert f"was trained on speakers who are tested (scored = 0: {trained})" in capsys.readouterr().err


# ---- siser audit-encoders


@pytest.fixture(scope="module")
def compared(prepared, tables, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    assert siser(["audit-encoders", str(prepared.folder), *tables, "--out", str(out), "--jobs", "1"]) == 0
    return out


def test_planted_emotion_and_speakers_are_found_in_their_layers(compared):
    emotion, deep = (json.loads((compared / f"{name}.json").read_text()) for name in ("emotion", "deep"))
    low, high = deep["layers"]
    assert [low["layer"], high["layer"]] == ["low", "high"] and len(emotion["layers"]) == 1
    for kind in PROBES:
        assert low["emotion"][kind]["uar"]["value"] < 0.6 < 0.9 < high["emotion"][kind]["uar"]["value"]
    assert low["speaker"]["strongest"]["accuracy"] > 0.9 > 0.6 > high["speaker"]["strongest"]["accuracy"]
    only = emotion["layers"][0]["speaker"]
    assert only["strongest"]["accuracy"] < 0.4 and set(only["attackers"]) == {"logistic", "lda", "qda", "knn"}
    assert only["speakers"] == 6 and only["utterances"] == 72 and only["scored"] == "given"
    assert deep["chance"] == pytest.approx(1 / 3) and deep["utterances"] == 72
    assert low["emotion"]["linear"]["uar"]["low"] <= low["emotion"]["linear"]["uar"]["value"]


def test_contamination_is_named_by_table_page_json_and_picture(compared, prepared, tiny, tmp_path):
    comparison = compare.Comparison(prepared, tiny, tmp_path, "siser audit-encoders data {}")
    encoder = Encoder("a model", "model", lambda indices: {}, contamination="was trained on it")
    described = compare.describe(comparison, "known", "known", [encoder])
    clean, known = (read_encoder_result(compared / f"{name}.json") for name in ("emotion", "deep"))
    assert described.contamination == "was trained on it" and "other training data" in why_other(clean, described)
    known = known.model_copy(update={"encoder": "known", "contamination": described.contamination})
    for result in (clean, known):
        write_result(tmp_path / f"{result.encoder}.json", result)
    results = write_page(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    note = "§ known was trained on it. This is no result on unseen speakers."
    assert note in page and note in notes(results)
    marked = {
        line.split()[1].rstrip(",:"): line.count("§") for line in page.splitlines() if line.startswith(("| known", "| emotion"))
    }
    assert marked == {"known": 2, "emotion": 0}
    assert "known §" in next(tmp_path.glob("*.svg")).read_text(encoding="utf-8")


def test_the_page_has_a_row_for_each_layer_and_the_picture_a_point_for_each_encoder(compared):
    page = (compared / "encoders.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0].lstrip("| ") for row in rows if "emotion" not in row] == [
        "deep, low: a table of embeddings",
        "deep, high",
    ]
    assert len(rows) == 3 and "72 utterances of 6 speakers; UAR by chance: 33.3." in page
    (name,) = re.findall(r"!\[.*\]\((.*)\)", page)
    texts = [node.text for node in ElementTree.parse(compared / name).iter() if node.tag.endswith("text")]
    assert {"emotion", "deep", "low", "chance 33.3"} <= set(texts)


def test_the_name_of_a_corpus_is_no_path_and_no_markup(compared, tmp_path):
    result = read_encoder_result(compared / "emotion.json")
    write_result(tmp_path / "emotion.json", result.model_copy(update={"corpus": "../x --><script>\n[y](z)"}))
    for _ in range(2):  # the second page is put between the marks of the first one
        write_page(tmp_path, tmp_path / "page.md")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["emotion.json", "page-x----script-y-z~063c6c75.svg", "page.md"]
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "<script" not in text and text.count(": begin -->") == len(re.findall(r"(?<!\\)\]\(", text)) == 1
    (tmp_path / "emotion.json").write_text("{" * 10**6)
    with pytest.raises(StudyError, match="is not a result of `siser audit-encoders`"):
        write_page(tmp_path, tmp_path / "page.md")


def test_what_is_there_is_not_measured_again_unless_it_is_of_something_else(compared, prepared, tables, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "emotion.json").write_bytes((compared / "emotion.json").read_bytes())
    before = (out / "emotion.json").read_text()
    left = embedding.blocks_folder(out / "emotion.json")  # as a kill at the last moment leaves it
    command = ["audit-encoders", str(prepared.folder), "--out", str(out), "--jobs", "1"]
    assert siser([*command, tables[0]]) == 0 and not left.exists()
    printed = capsys.readouterr().out
    assert "measured before: emotion" in printed and "page:" in printed and (out / "emotion.json").read_text() == before
    assert siser([*command, f"emotion={tables[1]}"]) == 2
    expected = f"error: {out / 'emotion.json'} is of another encoder; --refresh measures it again, or choose another --out\n"
    assert capsys.readouterr().err == expected
    assert siser([*command, "--set", "audit.seed=1", "--json"]) == 0
    assert [result["encoder"] for result in json.loads(capsys.readouterr().out)] == ["emotion"]
    assert siser([*command, "--set", "labels.map={rising='a', falling='b'}", "--refresh", tables[0]]) == 0
    result = json.loads((out / "emotion.json").read_text())
    assert result["utterances"] == 48 and "--set" in result["command"] and result["command"].startswith("siser audit-encoders ")
    assert str(tmp_path) not in result["command"] and str(prepared.folder.parent) not in result["command"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "has no results of `siser audit-encoders`; name encoders to measure"),
        (["log-mel", "nothing"], "unknown encoder 'nothing'"),
        (["log-mel", "log-mel"], "two encoders are named log-mel, and have one file of results: give one another name"),
        (["a-b=log-mel", "A-B=egemaps"], "two encoders are named a-b and A-B, and have one file of results"),
        (["log-mel", "--set", "split.scheme=all"], 'split.scheme = "all" trains on all speakers and tests none'),
    ],
)
def test_what_cannot_be_compared_is_one_line(words, message, prepared, tmp_path, capsys):
    assert siser(["audit-encoders", str(prepared.folder), *words, "--out", str(tmp_path / "out"), "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_a_folder_of_other_json_is_refused_before_anything_is_measured(prepared, tmp_path, capsys):
    (tmp_path / "prepare.json").write_text("{}")
    assert siser(["audit-encoders", str(prepared.folder), "log-mel", "--out", str(tmp_path), "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert "prepare.json is not a result of `siser audit-encoders`" in error and "remove" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["prepare.json"]


def test_results_of_two_recipes_are_not_put_into_one_table(compared, tmp_path):
    from speaker_invariant_ser.studies.encoders.page import read_results

    for path in compared.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert len(read_results(tmp_path)) == 2
    other = json.loads((tmp_path / "deep.json").read_text())
    other["recipe"]["audit"]["folds"] = 9
    (tmp_path / "deep.json").write_text(json.dumps(other))
    with pytest.raises(StudyError, match="differ in recipe"):
        read_results(tmp_path)
    (tmp_path / "deep.json").write_text("{}")
    with pytest.raises(StudyError, match=r"deep.json is not a result of `siser audit-encoders` \(.*\); choose another folder"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda result: result.update(encoder="other"), "is of the encoder 'other', whose file is other.json"),
        (lambda result: result.update(layers=[]), "has no layers"),
        (lambda result: result.update(speakers=1), "speakers were attacked, and there are 1"),
        (lambda result: result.update(utterances=9), "differ in utterances"),
        (
            lambda result: result["layers"][0].update(unaudited="too few"),
            "numbers of attackers or a reason why",
        ),
        (lambda result: result["layers"][0].update(emotion={}), "expected linear and mlp"),
        (lambda result: result["layers"][0]["emotion"]["mlp"]["worst_speaker"].update(uar=1), "the worst speaker is above the m"),
        (lambda result: result["layers"][0]["speaker"]["strongest"].update(name="oracle"), "has no results of 'oracle'"),
    ],
)
def test_a_result_that_contradicts_itself_or_another_is_refused(change, message, compared, tmp_path, prepared, capsys):
    out = shutil.copytree(compared, tmp_path / "out")
    result = json.loads((out / "deep.json").read_text())
    result["layers"][0]["emotion"]["mlp"]["uar_mean_over_speakers"].update(value=0.5, low=None)
    change(result)
    (out / "deep.json").write_text(json.dumps(result))
    assert siser(["audit-encoders", str(prepared.folder), "--out", str(out)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_path_that_contains_an_equals_sign_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert split_name("a=b") == ("a=b", "a=b") and split_name("x=a=b") == ("x", "a=b")
    assert split_name("./a=b/") == ("a=b", "./a=b/")


def test_encoders_have_files_of_their_own_in_any_script(tmp_path):
    names = ["ল", "ন", "ন" * 100, "ন" * 99 + "ল", "a b", "a-b", "a  b", "x" * 300, "x" * 301, "hf:o/n"]
    paths = {result_path(tmp_path, name) for name in names}
    assert len(paths) == len(names) and all(len(os.fsencode(path.name)) < 255 for path in paths)
