"""ONNX files: what they compute is what the model computes, and predicting with them imports no torch."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import EMOTIONS, RATE, tone
from helpers import model_of, section

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.errors import RunError, SetupError
from speaker_invariant_ser.inference import exported
from speaker_invariant_ser.inference.exported import write_index
from speaker_invariant_ser.inference.onnx import export as onnx_export
from speaker_invariant_ser.inference.onnx.export import export_onnx, one_model
from speaker_invariant_ser.inference.onnx.model import OnnxModel
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, load_model, save_model
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.recipe_encoders import EmotionSection, FusionSettings, ProsodySettings
from speaker_invariant_ser.runs import METRICS

onnx = pytest.importorskip("onnx", reason='ONNX export needs the extra: pip install "speaker-invariant-ser[onnx]"')

DEFAULT = {
    "features": FeaturesSection(streams=("log-mel", "prosody"), hop_ms=16.0, mels=24, deltas=1),
    "encoder": FusionSettings(dim=8),
    "emotion": EmotionSection(hidden=0),
    "temperature": 1.5,
}  # as in the default recipe


def saved(folder: Path, clips=(), **sections) -> Path:
    """Save an untrained model whose batch norms have the statistics of recordings, so that these differ; return its folder."""
    model = model_of(**sections)
    if len(clips):
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
        with torch.no_grad():
            audio = torch.from_numpy(np.stack(clips)), torch.full((len(clips),), len(clips[0]))
            output = model.train()(*audio)
            if isinstance(model.head, torch.nn.Sequential):
                model.head[-1].bias -= model.eval()(*audio).logits.mean(dim=0)  # so that predicted emotions differ, too
        model.release.after_step(output.bottleneck, 0.0)
    with torch.no_grad():
        model.eraser.fit(torch.randn(64, model.dim), np.arange(64) % 4, np.arange(64) % 3, seed=0)
        model.release.fit(torch.randn(64, model.dim), model.head)
    folder.mkdir()
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def fusion(tmp_path_factory) -> Path:
    """Folder with a model as in the default recipe, and its ONNX file model.onnx."""
    folder = saved(tmp_path_factory.mktemp("onnx") / "fusion", [speechlike(1, seed) for seed in range(8)], **DEFAULT)
    export_onnx(folder, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def cnn(trained, tmp_path_factory) -> Path:
    """ONNX file of the one model of the trained run."""
    path = tmp_path_factory.mktemp("onnx") / "cnn.onnx"
    assert siser(["export", str(trained.folder), "--onnx", str(path)]) == 0
    return path


def speechlike(seconds: float, seed: int = 0) -> np.ndarray:
    """Voiced stretches between pauses, as long as wanted."""
    rng, samples = np.random.default_rng(seed), round(seconds * RATE)
    parts = [np.zeros(0)]
    while sum(map(len, parts)) < samples:
        parts += [tone(f"0{rng.integers(1, 7)}", str(rng.choice(sorted(EMOTIONS))), "a"), 1e-3 * rng.standard_normal(3000)]
    return np.concatenate(parts)[:samples].astype(np.float32)


def assert_same(folder: Path, path: Path, clips: list[np.ndarray]) -> None:
    """Assert that both models agree on each recording, and that the recordings differ for both."""
    actual, expected = OnnxModel(path).apply(clips), apply_to_clips(load_model(folder), clips, batch_size=1)
    assert np.abs(actual.probability - apply_temperature(expected.probability, 1.5)).max() < 1e-4
    assert np.abs(actual.embedding - expected.embedding).max() < 1e-4
    assert np.ptp(expected.embedding, axis=0).max() > 0.1


def test_the_file_computes_what_the_model_computes(fusion):
    silent, noise = np.zeros(RATE, np.float32), np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    lengths = (0.1, 0.1001, 0.5, 1.0, 31.0)
    assert_same(
        fusion, fusion / "model.onnx", [silent, noise, *(speechlike(seconds, seed) for seed, seconds in enumerate(lengths))]
    )


@pytest.mark.corpora
def test_the_file_computes_what_the_model_computes_on_real_clips(fusion, corpora_folder):
    files = sorted((corpora_folder / "emodb" / "wav").glob("*.wav"))
    clips = [soundfile.read(path, dtype="float32")[0] for path in files[::150]]
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in files[:40]])
    assert_same(fusion, fusion / "model.onnx", [*clips, *(speech[20_000:][: round(s * RATE)] for s in (0.1, 0.3, 10, 60))])


def test_functionals_and_a_release_that_rounds_are_computed_too(tmp_path):
    features = FeaturesSection(streams=("prosody",), hop_ms=16.0, mels=24, functionals=True, absolute_f0=True)
    clips, release = [speechlike(1, seed) for seed in range(8)], section("release", name="quantise", step=0.5)
    folder = saved(tmp_path / "model", clips, features=features, encoder=ProsodySettings(dim=8), release=release)
    assert export_onnx(folder, tmp_path / "model.onnx") < 1e-4
    file = OnnxModel(tmp_path / "model.onnx")
    embedding = file.apply(clips[:3]).embedding
    assert (embedding % 0.5 == 0).all() and len({*map(bytes, embedding)}) == 3
    outputs = [file.session.run(None, {"waveform": clip}) for clip in clips]
    probability, raw = (np.array(values) for values in zip(*outputs, strict=True))
    assert (raw == 0).any() and not np.signbit(raw[raw == 0]).any(), "the sign of a zero is that of what was rounded"
    file.session = SimpleNamespace(run=lambda *_: [probability[0], -np.abs(0 * raw[0])])  # as files of version 0.8.0
    assert not np.signbit(file.apply(clips[:1]).embedding).any()


def test_obliviator_is_computed_too(tmp_path):
    clips = [speechlike(1, seed) for seed in range(8)]
    folder = saved(tmp_path / "model", clips, erase=section("erase", name="obliviator", rounds=2))
    assert export_onnx(folder, tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize("release", [{"name": "codes", "cells": 8}, {"name": "decision"}], ids=["codes", "decision"])
def test_codes_and_dimensions_are_those_of_the_model_and_named_in_the_table(release, tmp_path, monkeypatch):
    clips = [speechlike(1, seed) for seed in range(8)]
    emotion, release = EmotionSection(hidden=16, targets=("arousal", "dominance")), section("release", **release)
    folder = saved(tmp_path / "model", clips, emotion=emotion, release=release)
    assert export_onnx(folder, tmp_path / "model.onnx") < 1e-4
    model, file = load_model(folder), OnnxModel(tmp_path / "model.onnx")
    outputs, expected = file.apply(clips), apply_to_clips(model, clips, batch_size=1)
    assert np.array_equal(outputs.code, expected.code) and len({*outputs.code}) > 1
    assert outputs.dimensions == pytest.approx(expected.dimensions, abs=1e-4) and file.targets == ("arousal", "dominance")
    assert np.array_equal(outputs.embedding, model.release.codes.detach().numpy()[outputs.code]), "to the last bit"
    for number, clip in enumerate([clips[0], np.concatenate([clips[0], clips[1]])]):
        soundfile.write(tmp_path / f"{number}.wav", clip, RATE, subtype="FLOAT")
    files = [str(tmp_path / f"{number}.wav") for number in range(2)]
    for source in (folder, tmp_path / "model.onnx"):
        table, embeddings = tmp_path / f"{source.name}.csv", tmp_path / f"{source.name}.npz"
        options = ["--window", "1", "--hop", "1", "--out", str(table), "--embeddings", str(embeddings)]
        assert siser(["infer", str(source), *files, *options]) == 0
        codes = [str(code) for code in outputs.code[:2]]
        assert [row["code"] for row in rows_of(table)] == [codes[0], codes[0], *codes, " ".join(codes)], "of each window"
        with np.load(embeddings) as arrays:
            assert arrays["code"].tolist() == [row["code"] for row in rows_of(table)]
        dimensions = [[float(row[name]) for name in ("arousal", "dominance")] for row in rows_of(table)]
        expected = [*outputs.dimensions[[0, 0, 0, 1]], outputs.dimensions[:2].mean(axis=0)]
        assert dimensions == pytest.approx(np.array(expected), abs=1e-4)
        assert siser(["infer", str(source), *files, *options, "--overwrite"]) == 0, "known as embeddings of `siser infer`"
    computed = [np.array([1, 0, 0.0]), np.zeros(12), np.array(3), np.array([0.5, 1.5])]
    monkeypatch.setattr(file, "session", SimpleNamespace(run=lambda names, inputs: computed))
    with pytest.raises(RunError, match="model.onnx is damaged: its dimensions are not from 0 to 1"):
        file.apply(clips)


def test_the_metadata_says_what_a_user_needs_and_nothing_of_this_machine(fusion):
    model = OnnxModel(fusion / "model.onnx")
    assert model.labels == tuple(json.loads(model.metadata["labels"])) == load_model(fusion).labels
    assert (model.metadata["sample_rate"], model.dim) == ("16000", 16)
    assert json.loads(model.metadata["features"])["mels"] == 24
    assert "speaker-invariant-ser" in json.loads(model.metadata["versions"])
    assert "Permission is hereby granted" in model.metadata["f0"], "the tracker's licence goes with its weights"
    (waveform,), outputs = model.session.get_inputs(), model.session.get_outputs()
    assert (waveform.name, waveform.type, waveform.shape) == ("waveform", "tensor(float)", ["samples"])
    assert [(output.name, output.shape) for output in outputs] == [("probabilities", [3]), ("embedding", [16])]
    content = (fusion / "model.onnx").read_bytes()
    assert not [text for text in (str(fusion.parent), sys.prefix, "site-packages", ".py") if text.encode() in content]


WITHOUT_TORCH = """
import json, sys, time
from speaker_invariant_ser.cli.app import run
code = run(sys.argv[1:])
print(json.dumps([code, time.process_time(), sorted({"torch", "sklearn", "pandas", "matplotlib"} & {*sys.modules})]))
"""


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def is_number(column: str) -> bool:
    return column == "confidence" or column.startswith("p_")


def test_infer_with_a_file_gives_the_rows_of_the_run_without_torch(trained, cnn, folder, tmp_path):
    long = tmp_path / "long.wav"
    soundfile.write(long, speechlike(40), RATE)
    inputs = [str(folder / "05_level_a.wav"), str(long), str(tmp_path / "missing.wav")]
    assert siser(["infer", str(trained.folder), *inputs, "--out", str(tmp_path / "run.csv"), "--device", "cpu"]) == 1
    arguments = ["infer", str(cnn), *inputs, "--out", str(tmp_path / "onnx.csv")]
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=True)
    code, seconds, imported = json.loads(ended.stdout.splitlines()[-1])
    assert (code, imported) == (1, []) and seconds < 1, ended.stdout
    rows, expected = rows_of(tmp_path / "onnx.csv"), rows_of(tmp_path / "run.csv")
    assert len(rows) == len(expected) == 3 and rows[0].keys() == expected[0].keys() and rows[2]["error"]
    for row, other in zip(rows, expected, strict=True):
        assert {row.pop("model"), other.pop("model")} == {str(cnn), str(trained.folder)}
        assert {name: cell for name, cell in row.items() if not is_number(name)} == {
            name: cell for name, cell in other.items() if not is_number(name)
        }
        numbers = [(float(cell or -1), float(other[name] or -1)) for name, cell in row.items() if is_number(name)]
        assert np.ptp(numbers, axis=1).max() < 1e-4


def test_python_predicts_with_a_file_too(trained, cnn, folder):
    import speaker_invariant_ser

    path = folder / "05_level_a.wav"
    (row,) = speaker_invariant_ser.predict(cnn, path)
    classifier, run = (speaker_invariant_ser.load_model(source) for source in (cnn, trained))
    prediction = classifier.predict_file(path)
    assert row["error"] == "" and prediction.probabilities == {label: row[f"p_{label}"] for label in classifier.labels}
    assert prediction.probabilities == pytest.approx(run.predict_file(path).probabilities, abs=1e-4)
    np.testing.assert_allclose(classifier.embed(path), run.embed(path), atol=1e-4)
    (window,) = classifier.timeline(path)
    samples = soundfile.read(path, dtype="int16")[0]
    stream = classifier.stream()
    assert [*stream.push(samples, RATE), *stream.finish()] == [window] and window.emotion == prediction.emotion
    with pytest.raises(RunError, match="is an ONNX file, which has no PyTorch module"):
        classifier.module  # noqa: B018


def test_python_predicts_with_a_file_without_torch(cnn, folder):
    code = f"""import sys, speaker_invariant_ser as siser
classifier = siser.load_model({str(cnn)!r})
classifier.timeline({str(folder / "05_level_a.wav")!r})
print("torch" in sys.modules, classifier.predict_file({str(folder / "05_level_a.wav")!r}).emotion)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


@pytest.mark.parametrize(
    "sections, reason",
    [
        ({"features": FeaturesSection(front="pixels", mels=24)}, "it was trained on images"),
        ({"features": FeaturesSection(normalise="speaker", mels=24)}, "it subtracts the mean over all recordings of a speaker"),
        ({"release": section("release", name="noise", sigma=1.0)}, r"its noise \(bottleneck none, release noise\)"),
        ({"bottleneck": section("bottleneck", name="vib", weight=0.1)}, r"its noise \(bottleneck vib, release none\)"),
    ],
    ids=["images", "speaker", "noise", "vib"],
)
def test_what_no_file_can_compute_is_refused_with_the_reason(sections, reason, tmp_path):
    folder = saved(tmp_path / "model", **sections)
    with pytest.raises(RunError, match=f"cannot be exported to ONNX: {reason}"):
        export_onnx(folder, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_graph_that_computes_something_else_is_not_written(fusion, monkeypatch, tmp_path):
    model, other = load_model(fusion), tmp_path / "other"
    other.mkdir()
    with torch.no_grad():
        model.head.classifiers[0][-1].bias[0] += 0.1
    save_model(model, other)
    monkeypatch.setattr(onnx_export, "build", lambda model: onnx.load(fusion / "model.onnx"))
    with pytest.raises(RunError, match=r"the ONNX graph differs from the model by 0\.\d+, more than 0\.0001"):
        export_onnx(other, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_without_the_extra_the_error_says_how_to_install_it(fusion, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SetupError, match=r'pip install "speaker-invariant-ser\[onnx\]"'):
        export_onnx(fusion, tmp_path / "model.onnx")


def test_one_model_is_chosen_of_several(trained, tmp_path):
    (split,), train = trained.splits, trained.recipe.train
    recipe = trained.recipe.model_copy(update={"train": train.model_copy(update={"seeds": 2})})
    run = replace(trained, folder=tmp_path, recipe=recipe, splits=[split, replace(split, name="other")])
    for spec in run.model_specs:
        spec.folder.mkdir(parents=True)
        for name in (WEIGHTS, DESCRIPTION, METRICS):
            (spec.folder / name).touch()
    chosen = one_model(run, "other", train.seed + 1)
    assert (chosen.split.name, chosen.seed) == ("other", train.seed + 1)
    for options, message in (
        ((), "has 4 models .*, and an ONNX file holds one: choose with --fold and --seed, or train one on all speakers"),
        (("other",), "has 2 models .*, and an ONNX file holds one: choose with --seed, "),
        ((None, train.seed), "has 2 models .*, and an ONNX file holds one: choose with --fold, "),
        (("another",), "unknown trained fold 'another'"),
        (("other", 99), "unknown seed '99'"),
    ):
        with pytest.raises(RunError, match=message):
            one_model(run, *options)


def test_the_one_model_of_an_export_is_written(fusion, tmp_path, monkeypatch, capsys):
    """An export, a model of the package by its name, or the folder of one model stands for a run."""
    for name in ("alone", "several"):
        for number in range(1 + (name == "several")):
            shutil.copytree(fusion, tmp_path / name / "models" / str(number), ignore=shutil.ignore_patterns("*.onnx"))
        write_index(tmp_path / name)
    monkeypatch.setattr(exported, "SHIPPED", tmp_path)
    monkeypatch.setattr(onnx_export, "export_onnx", lambda folder, path: path.write_text(str(folder)) and 1e-6)
    for source in ("alone", str(tmp_path / "alone"), str(fusion)):
        file = tmp_path / f"{len(source)}.onnx"
        assert siser(["export", source, "--onnx", str(file)]) == 0
        assert load_model(Path(file.read_text())).labels == load_model(fusion).labels
    capsys.readouterr()
    for options, message in (
        (["several"], f"has 2 models, and an ONNX file holds one: expected the folder of one of them, such as {tmp_path}"),
        (["alone", "--fold", "1"], "do not say of which fold and seed they are; leave it out"),
        (["alone", "--seed", "1"], "do not say of which fold and seed they are; leave it out"),
    ):
        assert siser(["export", *options, "--onnx", str(tmp_path / "new.onnx")]) == 2
        assert message in capsys.readouterr().err


def test_export_says_what_it_expects(trained, cnn, tmp_path, capsys):
    file = str(tmp_path / "model.onnx")
    for options, message in (
        ([], "expected one of --out FOLDER, --onnx FILE and --transformers FOLDER"),
        (["--onnx", file, "--out", str(tmp_path / "out")], "expected one of --out FOLDER, --onnx FILE and --transformers FOLDER"),
        (["--out", str(tmp_path / "out"), "--fold", "1"], "expected one of these beside them"),
        (["--onnx", str(tmp_path / "model.onx")], "model.onx: expected the ending .onnx"),
        (["--onnx", str(cnn)], f"{cnn} exists already: choose another --onnx"),
    ):
        assert siser(["export", str(trained.folder), *options]) == 2
        assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_files_that_are_no_models_are_refused(cnn, folder, tmp_path, capsys):
    foreign, later = onnx.load(cnn), onnx.load(cnn)
    foreign.ClearField("metadata_props")
    (prop,) = [prop for prop in later.metadata_props if prop.key == "format"]
    prop.value = "2"
    onnx.save(foreign, tmp_path / "foreign.onnx")
    onnx.save(later, tmp_path / "later.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"no model")
    (tmp_path / "cut.onnx").write_bytes(cnn.read_bytes()[:5000])
    expected = {
        "missing.onnx": "does not exist; make it with `siser export RUN --onnx",
        "garbage.onnx": "cannot be read as an ONNX model: it is damaged",
        "cut.onnx": "cannot be read as an ONNX model: it is damaged",
        "foreign.onnx": "was not written by `siser export`",
        "later.onnx": "written in format 2, this version reads format 1",
    }
    wav = str(folder / "05_level_a.wav")
    for name, message in expected.items():
        assert siser(["infer", str(tmp_path / name), wav, "--out", str(tmp_path / "out.csv")]) == 2
        assert f"error: {tmp_path / name}" in (said := capsys.readouterr().err) and message in said
    for option in (["--fold", "1"], ["--one-speaker"], ["--device", "cuda"]):
        assert siser(["infer", str(cnn), wav, "--out", str(tmp_path / "out.csv"), *option]) == 2
        assert f"error: {' '.join(option[:1])}" in (said := capsys.readouterr().err) and "leave it out" in said
    assert not (tmp_path / "out.csv").exists()


def constant(name: str, values):
    return onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.array(values)))


def forged(nodes=(), **metadata) -> bytes:
    """Return an ONNX file that computes two constants and says that it was exported."""
    made = {node.output[0]: node for node in nodes}
    values = {"probabilities": [0.25, 0.75], "embedding": [1, 2, 3]}
    nodes = [made.get(name, constant(name, np.float32(value))) for name, value in values.items()]
    waveform = onnx.helper.make_tensor_value_info("waveform", onnx.TensorProto.FLOAT, ["S"])
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in values]
    graph = onnx.helper.make_graph(nodes, "graph", [waveform], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    said = {"format": "1", "labels": '["anger", "joy"]', "embedding_size": "3", "settings": "{}", **metadata}
    onnx.helper.set_model_props(model, said)
    return model.SerializeToString()


FORGED = {
    "no labels": ({"labels": "[]"}, "its metadata has no valid labels"),
    "labels that are numbers": ({"labels": "[1, 2]"}, "its metadata has no valid labels"),
    "a text as labels": ({"labels": '"ab"'}, "its metadata has no valid labels"),
    "deep": ({"labels": "[" * 100_000}, "its metadata has no valid labels"),
    "a label less": ({"labels": '["a", "b", "c"]'}, r"shape \(2,\) and \(3,\), expected 3 probabilities and 3 dimensions"),
    "negative size": ({"embedding_size": "-1"}, "its metadata has no valid embedding_size"),
    "huge size": ({"embedding_size": "1" + 12 * "0"}, "its metadata has no valid embedding_size"),
    "temperature twice": ({"settings": '{"temperature": 1, "temperature": 2}'}, "its metadata has no valid settings"),
    "temperature": ({"settings": '{"temperature": NaN}'}, "its metadata has no valid settings"),
    "no probabilities": ({"nodes": [constant("probabilities", np.float32([-5, 6]))]}, "its probabilities do not add up to 1"),
    "not a number": ({"nodes": [constant("probabilities", np.float32([np.nan, 1]))]}, "its probabilities do not add up to 1"),
    "infinite": ({"nodes": [constant("embedding", np.float32([1, np.inf, 3]))]}, "its embedding is not finite"),
    "a matrix": ({"nodes": [constant("embedding", np.ones((3, 3), np.float32))]}, r"\(3, 3\), expected 2 prob"),
    "cannot run": (
        {"nodes": [onnx.helper.make_node("Concat", ["waveform", "waveform"], ["embedding"], axis=5)]},
        "cannot be read as an ONNX model",
    ),
}


def endless() -> "onnx.NodeProto":
    """Return an operator that never ends: its condition stays true, and nothing counts its rounds."""
    value = onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, [])
    rounds = onnx.helper.make_tensor_value_info("round", onnx.TensorProto.INT64, [])
    state = onnx.helper.make_tensor_value_info("state", onnx.TensorProto.FLOAT, ["S"])
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}-out"]) for name in ("go", "state")]
    outputs = [onnx.helper.make_tensor_value_info(f"{v.name}-out", v.type.tensor_type.elem_type, None) for v in (value, state)]
    body = onnx.helper.make_graph(nodes, "body", [rounds, value, state], outputs)
    return onnx.helper.make_node("Loop", ["", "", "waveform"], ["embedding"], body=body)


def with_function(content: bytes) -> bytes:
    """Return a model that defines a function."""
    model = onnx.load_from_string(content)
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(onnx.helper.make_function("own", "F", ["x"], ["y"], [node], model.opset_import))
    return model.SerializeToString()


def test_a_file_that_may_run_for_ever_is_refused_before_onnxruntime_reads_it(tmp_path, monkeypatch, capsys):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("onnxruntime must not see it"))
    own = onnx.helper.make_node("Identity", ["waveform"], ["embedding"], domain="com.microsoft")
    files = {
        "loop": (forged([endless()]), "'Loop' contains a graph, which may run for ever"),
        "own": (forged([own]), "'Identity' is no standard operator of ONNX"),
        "function": (with_function(forged()), "it defines functions"),
        "damaged": (forged()[:-1], "it is damaged"),
    }
    for name, (content, message) in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(RunError, match=f"{name}.onnx .*{message}"):
            OnnxModel(tmp_path / f"{name}.onnx")
    assert siser(["infer", str(tmp_path / "loop.onnx"), "x.wav"]) == 2
    assert "error: " in (said := capsys.readouterr().err) and "may run for ever" in said


@pytest.mark.parametrize("change, message", FORGED.values(), ids=FORGED)
def test_a_forged_file_is_refused(change, message, tmp_path):
    (tmp_path / "forged.onnx").write_bytes(forged(**change))
    with pytest.raises(RunError, match=f"forged.onnx .*{message}"):
        OnnxModel(tmp_path / "forged.onnx").apply([np.zeros(1600, np.float32)])


def test_text_that_is_not_utf8_is_refused():
    """onnxruntime hands it on as it is, in names, in metadata and in its errors."""
    node, word = onnx.helper.make_node, "NOTUTF8"
    named = onnx.load_from_string(forged())
    named.graph.input[0].type.tensor_type.shape.dim[0].dim_param = word
    files = {
        "metadata": forged(licence=word),
        "input": named.SerializeToString(),
        "operator": forged([node(word, ["waveform"], ["embedding"])]),
        "run": forged([node("Add", ["waveform", "probabilities"], ["embedding"], name=word)]),  # of different lengths
    }
    for name, content in files.items():
        with pytest.raises(RunError, match=f"{name} .*it contains text that is not UTF-8"):
            OnnxModel(content.replace(word.encode(), b"\xff" + word[1:].encode()), name).apply([np.zeros(1600, np.float32)])


def test_a_file_of_another_interface_is_refused(tmp_path):
    model = onnx.load_from_string(forged())
    model.graph.input[0].name = "sound"
    with pytest.raises(RunError, match="x was not written by .*: it does not compute probabilities and embedding of a waveform"):
        OnnxModel(model.SerializeToString(), "x")


@pytest.mark.parametrize("where", ["/etc/passwd", "../x.bin", "x.bin", "*/_ORT_MEM_ADDR_/*"])
def test_weights_outside_the_file_are_refused_before_onnxruntime_reads_it(where, monkeypatch):
    """Older versions, such as 1.19, follow `..` and links, and read any address of the memory."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("onnxruntime must not see it"))
    weights = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": where, "offset": "0", "length": "8"}.items():
        weights.external_data.add(key=key, value=value)
    shared = onnx.load_from_string(forged())
    shared.graph.initializer.append(weights)
    of_operator = forged([onnx.helper.make_node("Constant", [], ["embedding"], value=weights)])
    for content in (shared.SerializeToString(), of_operator):
        with pytest.raises(RunError, match=r"x was not written by .*: it has weights that are outside the file"):
            OnnxModel(content, "x")


def test_sparse_weights_are_refused():
    values, places = (onnx.numpy_helper.from_array(np.zeros(1, kind), "w") for kind in (np.float32, np.int64))
    sparse = onnx.helper.make_sparse_tensor(values, places, [10**12])
    shared = onnx.load_from_string(forged())
    shared.graph.sparse_initializer.append(sparse)
    of_operator = forged([onnx.helper.make_node("Constant", [], ["embedding"], sparse_value=sparse)])
    for content in (shared.SerializeToString(), of_operator):
        with pytest.raises(RunError, match=r"x was not written by .*: it has weights that are sparse"):
            OnnxModel(content, "x")
