"""Infer says of recordings what prepare says: the same are listed, rejected and noted; channels are distinguished."""

import csv
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import RATE, tone
from helpers import without_hashes

import speaker_invariant_ser
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data import decoding
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.model_outputs import dev_temperature
from speaker_invariant_ser.inference import inputs, loading, predict, timeline, waves
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.parts.recording import Recording
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.models.model import load_model


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def voice(number: int) -> np.ndarray:
    return tone(f"0{number % 6 + 1}", ("rising", "falling", "level")[number % 3], "abcd"[number % 4])


def write_everything(folder: Path) -> None:
    """Write recordings of every kind that a folder may hold: usable, noted, unusable, hidden, of other formats and endings."""
    (folder / "sub" / ".cache").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for number, name in enumerate(
        ("s1_x.wav", "s2_x.WAV", "s3_x.flac", "sub/s1_y.wav", ".hidden/s1_z.wav", "sub/.cache/s2_z.wav")
    ):
        soundfile.write(folder / name, voice(number), RATE)
    clip = voice(7)
    soundfile.write(folder / "s1_stereo.wav", np.stack([clip, clip[::-1]], 1), RATE)
    soundfile.write(folder / "s2_cancel.wav", np.stack([clip, -0.9 * clip], 1), RATE)
    soundfile.write(folder / "s2_dead.wav", np.stack([0 * voice(11), voice(11)], 1), RATE)
    soundfile.write(folder / "s3_offset.wav", voice(8) + 0.5, RATE)
    soundfile.write(folder / "s2_nothing.wav", np.stack([clip, -clip], 1), RATE, subtype="FLOAT")
    soundfile.write(folder / "s3_clipped.wav", np.clip(30 * voice(9), -1, 1).repeat(3), RATE)
    data = (folder / "s1_x.wav").read_bytes()
    soundfile.write(folder / "s1_behind.wav", voice(10), RATE)
    (folder / "s1_behind.wav").write_bytes((folder / "s1_behind.wav").read_bytes() + data)
    (folder / "s1_cut.wav").write_bytes(data[: len(data) // 2])
    (folder / "s1_empty.wav").touch()
    (folder / "s1_text.mp3").write_text("no sound")
    (folder / "s1_link.wav").symlink_to("nowhere")
    (folder / ".s1_dot.wav").write_bytes(data)
    (folder / "._s1_x.wav").write_bytes(b"\0\5\x16\7" + bytes(100))
    for name in ("s1_a.m4a", "s1_b.aac", "s1_c.wma", "s1_d.webm", "s1_e.mp4", "s1_f.gsm", "s1_g.amr", "s1_h.raw", "sub/s1_i.M4A"):
        (folder / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(50))
    (folder / "s1_noending").write_bytes(data)
    (folder / "s1_backup.wav.old").write_bytes(data)
    for name in ("notes.txt", "labels.csv", "picture.png", "script", "archive.bin"):
        (folder / name).write_bytes(b"not a recording at all, but it is long enough")


def test_every_recording_is_a_row_or_rejected_and_noted_by_both_verbs(trained, tmp_path):
    """The oracle: prepare and infer on one folder give the same names, reasons and notes."""
    folder = tmp_path / "in"
    write_everything(folder)
    assert (
        siser(["prepare", "folder", str(folder), str(tmp_path / "data"), "--pattern", "**/{speaker}_{emotion}.*", "--jobs", "1"])
        == 0
    )
    assert siser(["infer", str(trained.folder), str(folder), "--out", str(tmp_path / "p.csv"), "--device", "cpu"]) == 1
    rows = {os.path.relpath(row["file"], folder): row for row in rows_of(tmp_path / "p.csv")}
    kept = {utterance.source for utterance in PreparedCorpus.open(tmp_path / "data").utterances}
    rejected = {row["file"]: row["reason"] for row in rows_of(tmp_path / "data" / "rejected.csv")}
    warned = {row["file"]: row["reason"] for row in rows_of(tmp_path / "data" / "warned.csv")}
    predicted = {name for name, row in rows.items() if row["emotion"]}
    assert kept == predicted and set(rejected) == set(rows) - predicted
    for name, reason in rejected.items():
        assert rows[name]["error"].endswith(reason), name
    for name in kept:  # what a model was not trained on, prepare cannot know
        notes = [note for note in rows[name]["warnings"].split("; ") if "(the model was trained on " not in note]
        assert "; ".join(notes) == warned.get(name, ""), name
    on_disk = {os.path.relpath(path, folder) for path in folder.rglob("*") if not path.is_dir()}
    assert on_disk - set(rows) == {"notes.txt", "labels.csv", "picture.png", "script", "archive.bin", "._s1_x.wav"}
    assert set(warned) == {*("s1_stereo.wav", "s2_cancel.wav", "s3_clipped.wav", "s1_behind.wav", "s2_dead.wav", "s3_offset.wav")}
    assert "ffmpeg -i s1_a.m4a s1_a.wav" in rejected["s1_a.m4a"] and "begins with a dot" in rejected[".hidden/s1_z.wav"]
    assert "its ending .old is none of its kind" in rejected["s1_backup.wav.old"] and "(none)" in rejected["s1_noending"]


@pytest.fixture
def calls(tmp_path) -> Path:
    """Write a call of two speakers, one on each channel, and a mono recording."""
    left, right = voice(0), voice(4)
    samples = min(len(left), len(right))
    soundfile.write(tmp_path / "call.wav", np.stack([left[:samples], right[:samples]], 1), RATE)
    soundfile.write(tmp_path / "mono.wav", left[:samples], RATE)
    soundfile.write(tmp_path / "three.wav", np.stack([left[:samples]] * 3, 1), RATE)
    (tmp_path / "bad.wav").write_text("no sound")
    return tmp_path


def infer(run, folder: Path, *options: str) -> list[dict[str, str]]:
    names = [str(folder / name) for name in ("call.wav", "mono.wav", "three.wav", "bad.wav")]
    assert (
        siser(["infer", str(run.folder), *names, "--out", str(folder / "p.csv"), "--overwrite", "--device", "cpu", *options]) == 1
    )
    return rows_of(folder / "p.csv")


def test_channels_that_differ_are_told_and_can_be_predicted_one_by_one(trained, calls, capsys):
    mixed = infer(trained, calls)
    assert "hold different sounds" in mixed[0]["warnings"] and not mixed[1]["warnings"] and mixed[0]["channel"] == "mix"
    assert "call.wav: its channels hold different sounds" in capsys.readouterr().err
    each = infer(trained, calls, "--channel", "each")
    assert [row["channel"] for row in each] == ["left", "right", "mono", "1", "2", "3", "mix"]
    assert not any(row["warnings"] for row in each) and each[-1]["error"]
    left, right = infer(trained, calls, "--channel", "left"), infer(trained, calls, "--channel", "right")
    numbers = ("emotion", "confidence", "p_rising", "p_falling", "p_level")
    for name in numbers:
        assert each[0][name] == left[0][name] == each[2][name] and each[1][name] == right[0][name]
    assert left[0]["p_rising"] != right[0]["p_rising"] and left[0]["p_rising"] != mixed[0]["p_rising"]
    assert "6 of 7 rows" in capsys.readouterr().out


def test_what_the_models_were_not_trained_on_is_noted_unless_they_do_not_know(trained, tmp_path, capsys):
    """A telephone copy of a training recording is warned of; a run of an earlier version has no range, and no such notes."""
    spectrum = np.fft.rfft(voice(0))
    spectrum[int(3400 / RATE * len(voice(0))) :] = 0
    soundfile.write(tmp_path / "telephone.wav", np.fft.irfft(spectrum), RATE)
    soundfile.write(tmp_path / "same.wav", voice(0), RATE)
    old = shutil.copytree(trained.folder, tmp_path / "old")
    without_hashes(old)
    for path in old.rglob("model.json"):
        described = json.loads(path.read_text())
        assert described.pop("trained_range")["bandwidth"] == [8000, 8000]
        path.write_text(json.dumps(described))
    for run, note in ((trained.folder, "band limited to 3.5 kHz (the model was trained on 8.0 kHz)"), (old, "")):
        command = ["infer", str(run), str(tmp_path / "telephone.wav"), str(tmp_path / "same.wav"), "--device", "cpu"]
        assert siser([*command, "--out", str(tmp_path / "p.csv"), "--overwrite"]) == 0
        assert [row["warnings"] for row in rows_of(tmp_path / "p.csv")] == [note, ""]
        assert (f"telephone.wav: {note}" in capsys.readouterr().err) is bool(note)


def test_an_unknown_channel_is_refused(trained, calls, capsys):
    command = ["infer", str(trained.folder), str(calls / "call.wav"), "--out", str(calls / "p.csv")]
    assert siser([*command, "--channel", "middle"]) == 2
    assert "'middle' is not one of 'mix', 'left', 'right', 'each'" in capsys.readouterr().err
    with pytest.raises(speaker_invariant_ser.errors.SerError, match="unknown channel 'middle'"):
        speaker_invariant_ser.predict(trained, [calls / "call.wav"], channel="middle")


def test_the_api_predicts_channels(trained, calls):
    rows = speaker_invariant_ser.predict(trained, [calls / "call.wav"], channel="each", device="cpu")
    assert [row["channel"] for row in rows] == ["left", "right"]


def test_what_does_not_fit_into_memory_is_one_row(trained, calls, monkeypatch):
    """Memory that runs out while a file is decoded, or while the models run, costs the row of that file only."""
    models = loading.load_models(trained, device="cpu")
    shutil.copy(calls / "mono.wav", calls / "long.wav")
    found = find_inputs([calls / "mono.wav", calls / "long.wav", calls / "call.wav"])
    expected = list(predict.predict(models, found))
    compute, resample = predict.outputs, inputs.audio.resample

    def small_memory(models, clips, mean=None):
        if len(clips) > 1 or any(np.array_equal(other, clip) for other in clips):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return compute(models, clips, mean)

    clip = inputs.decode(0, found[2], "mix").clip
    monkeypatch.setattr(predict, "outputs", small_memory)
    rows = list(predict.predict(models, found))
    for row, other in zip(rows[:2], expected[:2], strict=True):
        assert row["emotion"] == other["emotion"] and row["confidence"] == pytest.approx(other["confidence"], abs=1e-5)
    assert "does not fit into memory beside the models" in rows[2]["error"]

    def no_memory(decoded, rate):
        raise MemoryError if len(decoded.samples) == len(clip) else AssertionError

    monkeypatch.setattr(inputs.audio, "resample", no_memory)
    assert all("does not fit into memory; cut it" in row["error"] for row in predict.predict(models, found))
    monkeypatch.setattr(inputs.audio, "resample", resample)


def with_temperature(run, folder: Path, temperature: float | str | None) -> Path:
    """Copy a run and write another temperature into its model."""
    copy = Path(shutil.copytree(run.folder, folder))
    without_hashes(copy)
    path = copy / "folds" / "fixed" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": temperature}))
    return copy


def test_confidences_are_corrected_by_the_temperature_of_the_dev_speakers(trained, prepared, calls, tmp_path, capsys):
    model = load_model(trained.folder / "folds" / "fixed")
    spec, numbers = trained.model_specs[0], ("p_rising", "p_falling", "p_level")
    assert model.settings.temperature == pytest.approx(dev_temperature(model, prepared, spec, None), rel=1e-3)
    assert {row["calibrated"] for row in infer(trained, calls)} == {"true"}
    assert "confidence: calibrated, by temperatures fitted on speakers" in capsys.readouterr().out
    run, files = with_temperature(trained, tmp_path / "none", None), [calls / "call.wav", calls / "mono.wav"]
    rows = speaker_invariant_ser.predict(run, files, device="cpu")
    assert not any(row["calibrated"] for row in rows)
    command = ["infer", str(run), str(files[0]), "--out", str(tmp_path / "p.jsonl"), "--device", "cpu"]
    assert siser(command) == 0 and json.loads((tmp_path / "p.jsonl").read_text())["calibrated"] is False
    assert "confidence: not calibrated" in capsys.readouterr().out
    scaled = speaker_invariant_ser.predict(with_temperature(trained, tmp_path / "five", 5.0), files, device="cpu")
    for row, other in zip(rows, scaled, strict=True):
        expected = apply_temperature(np.array([[row[f"p_{label}"] for label in model.labels]]), 5.0)[0]
        assert [other[f"p_{label}"] for label in model.labels] == pytest.approx(expected, abs=1e-6)
        assert other["emotion"] == row["emotion"] and other["confidence"] == pytest.approx(expected.max(), abs=1e-6)
    assert max(row["confidence"] - other["confidence"] for row, other in zip(rows, scaled, strict=True)) > 0.01
    assert set(numbers) == {f"p_{label}" for label in model.labels}


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), 1e9, "hot"])
def test_a_damaged_temperature_is_refused(trained, tmp_path, temperature):
    run = with_temperature(trained, tmp_path / "run", temperature)
    with pytest.raises(RunError, match=r"model.json is damaged: temperature"):
        load_model(run / "folds" / "fixed")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_only_an_earlier_table_is_replaced_and_only_on_request(trained, calls, ending, capsys):
    out = calls / f"p{ending}"
    command = ["infer", str(trained.folder), str(calls / "mono.wav"), "--out", str(out), "--device", "cpu"]
    assert siser(command) == 0
    content, _ = out.read_bytes(), capsys.readouterr()
    assert siser(command) == 2
    assert "is a table of predictions already: replace it with --overwrite, or choose another --out" in capsys.readouterr().err
    assert out.read_bytes() == content
    assert siser([*command, "--overwrite", "--min-confidence", "1"]) == 0 and out.read_bytes() != content
    assert siser([*command, "--overwrite"]) == 0 and out.read_bytes() == content
    for foreign in (b"path,speaker,emotion\na.wav,1,sad\n", b"", b"PAR1", b'{"path": 3}', b"[" * 99_999, b"[1]", b"\xff\n", b'"'):
        out.write_bytes(foreign)
        for options in ([], ["--overwrite"]):
            assert siser([*command, *options]) == 2
            assert "exists already and is no table of predictions, so it is not replaced" in capsys.readouterr().err
        assert out.read_bytes() == foreign
    assert sorted(path.name for path in calls.iterdir() if path.name.startswith((".", "p"))) == [f"p{ending}"]


@pytest.mark.parametrize("rate, subtype", [(24_000, "PCM_16"), (RATE, "PCM_24"), (44_100, "FLOAT")])
def test_models_see_the_samples_that_prepare_would_store(rate, subtype, tmp_path):
    path = tmp_path / "quiet.wav"
    soundfile.write(path, 0.01 * np.random.default_rng(0).standard_normal(rate), rate, subtype)
    ((stored, _),) = decoding.decode_all([(str(path), 0.0, 0.0)], decoding.Treatment())
    expected = stored / np.float32(2**15)
    wave, _ = soundfile.read(path, dtype="float32")
    stream = timeline.StreamingClassifier(
        [SimpleNamespace(settings=SimpleNamespace(features=SimpleNamespace(transductive=False)))]
    )
    stream.set_rate(rate)
    for clip in (
        inputs.decode(0, inputs.Input(path), "mix").clip,
        np.concatenate(list(Recording(path))),
        waves.clip_of_file(path)[0],
        waves.clip_of(wave, rate)[0],
        np.concatenate([stream.resampled(wave, last=False), stream.resampled(wave[:0], last=True)]),
    ):
        assert clip.dtype == np.float32 and np.array_equal(clip, expected)
