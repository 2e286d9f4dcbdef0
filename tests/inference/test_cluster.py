"""Predictions on a local Ray of two actors: the rows of a local call, although an actor is killed, and resumption."""

import json
import os
import signal
import sys
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.errors import SetupError, WriteError
from speaker_invariant_ser.inference import predict
from speaker_invariant_ser.inference.archives import cluster
from speaker_invariant_ser.inference.archives.archive import Archive
from speaker_invariant_ser.inference.archives.workers import Loading, predict_chunk
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore:.*Ray.*:FutureWarning")


def rows_in(out: Path) -> list[dict]:
    return [row for path in sorted(out.glob("part-*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]


@pytest.fixture
def archive(trained, folder, tmp_path, monkeypatch) -> Archive:
    """Recordings in chunks of six; one file is no recording, and one ends the process that predicts it."""
    monkeypatch.setattr(predict, "CHUNK_FILES", 6)
    place = tmp_path / "archive"
    place.mkdir()
    for number, path in enumerate(sorted(folder.glob("*.wav"))[:30]):
        os.symlink(path, place / f"{number:02}.wav")
    (place / "30.wav").write_text("no sound")
    models = load_models(trained, device="cpu")
    predictor = predict.Predictor.of(models, Settings(), "tones")
    return Archive(predictor, Loading(trained.folder, device="cpu"), find_inputs([place]), ["one"], jobs=2)


class Fragile(cluster.ChunkPredictor):
    """An actor that ends at the second chunk the first time, as on a machine that is taken away, and always at recording 20.

    Only chunks of several recordings are tried again, since each start of an actor takes seconds.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.retries = int(self.name == cluster.PART)

    def predict(self, chunk, path):
        mark = self.out.parent / "was-killed"
        if chunk.first == 6 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if any(item.path.name == "20.wav" for item in chunk.items):
            with open(self.out.parent / "began-20", "a") as file:
                file.write(".")
            os.kill(os.getpid(), signal.SIGKILL)
        super().predict(chunk, path)


def predict_here(monkeypatch, skips=lambda chunk, name: False):
    """Let chunks be predicted in this process and without Ray, except for some."""

    def mapped(ray, archive, chunks, out, progress, name=cluster.PART):
        actor = cluster.ChunkPredictor(archive.predictor, archive.loading, out, Path.cwd(), name)
        for chunk in chunks:
            if not skips(chunk, name):
                items = [(str(item.path), item.reason) for item in chunk.items]
                actor({"chunk": np.array([json.dumps([chunk.first, items])])})

    monkeypatch.setattr(cluster, "map_chunks", mapped)
    monkeypatch.setattr(cluster, "ray_cluster", lambda jobs: nullcontext())


def test_a_killed_actor_costs_nothing_and_a_second_start_resumes(archive, tmp_path, monkeypatch):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import tests
    out = tmp_path / "parts"
    monkeypatch.setattr(cluster, "ChunkPredictor", Fragile)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        summary = cluster.predict_on_ray(archive, out)
    assert not [str(warning.message) for warning in warned if "ray_remote_args" in str(warning.message)]
    assert (tmp_path / "was-killed").exists() and (summary.rows, summary.failed) == (31, 2)
    assert (tmp_path / "began-20").read_text() in ("...", "....")  # twice in its chunk; alone, in one pass or two
    expected = list(replace(archive, jobs=1).rows())
    for row, other in zip(rows_in(out), expected, strict=True):
        assert row["file"] == other["file"]
        if row["file"].endswith("20.wav"):
            assert "ended without a result" in row["error"]
        else:
            assert (row["emotion"], row["error"]) == (other["emotion"], other["error"])
            assert row["p_level"] == pytest.approx(other["p_level"], abs=1e-5) if row["emotion"] else row["p_level"] is None
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("part-")) == ["_request.json"]
    # A second start, here without Ray, predicts what is missing, and nothing else; recordings that were predicted alone do not
    # stand for a chunk.
    cluster.write_part(out / cluster.SINGLE.format(0), archive.predictor, expected[:1])
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    (out / "part-000000000.parquet").unlink()
    monkeypatch.setattr(cluster, "ChunkPredictor", Fragile.__base__)
    predict_here(monkeypatch)
    assert cluster.predict_on_ray(archive, out).rows == 31 and not list(out.glob(".*"))
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert [name for name in times if times[name] != kept.get(name)] == ["part-000000000.parquet"]
    # Another request is refused, and replaces the parts only when asked to.
    other = replace(archive, inputs=archive.inputs[:6])
    with pytest.raises(WriteError, match="holds predictions of other recordings, models or settings"):
        cluster.prepare_folder(out, other, overwrite=False)
    cluster.prepare_folder(out, other, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["_request.json"]


def test_a_call_that_ends_amid_the_recordings_of_a_failed_chunk_loses_and_doubles_nothing(archive, tmp_path, monkeypatch):
    """Without Ray, in this process: the chunk of recording 20 fails, then the call ends at this recording."""
    out, ended = tmp_path / "parts", []

    def fails(chunk, name):
        failing = any(item.path.name == "20.wav" for item in chunk.items)
        if failing and name == cluster.SINGLE and not ended:
            ended.append(chunk.first)
            raise KeyboardInterrupt
        return failing

    predict_here(monkeypatch, fails)
    with pytest.raises(KeyboardInterrupt):
        cluster.predict_on_ray(archive, out)
    assert ended == [20] and sorted(path.name for path in out.glob(".*")) == [
        cluster.SINGLE.format(18),
        cluster.SINGLE.format(19),
    ]
    summary = cluster.predict_on_ray(archive, out)
    assert (summary.rows, summary.failed) == (31, 2) and not list(out.glob(".*"))
    assert [row["file"] for row in rows_in(out)] == [str(item.path) for item in archive.inputs]
    assert pyarrow.parquet.read_table(out).num_rows == 31  # the folder is one table to readers of Parquet


def test_a_recording_that_waits_for_an_ended_actor_is_predicted_in_a_later_pass(archive, tmp_path, monkeypatch):
    """Without Ray: the chunk of recording 20 fails, and its neighbours lose their first pass to it."""
    out, tried = tmp_path / "parts", []

    def fails(chunk, name):
        tried.append((name, chunk.first))
        lost = {20} if name == cluster.PART or tried.count((name, chunk.first)) > 1 else {19, 20, 21}
        return bool(lost & set(range(chunk.first, chunk.first + len(chunk.items))))

    predict_here(monkeypatch, fails)
    summary = cluster.predict_on_ray(archive, out)
    assert (summary.rows, summary.failed) == (31, 2)
    assert [(first, tried.count((cluster.SINGLE, first))) for first in (18, 19, 20, 21)] == [(18, 1), (19, 2), (20, 3), (21, 2)]


def test_foreign_folders_are_refused(archive, trained, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    command = ["infer", str(trained.folder), str(tmp_path / "archive"), "--engine", "ray", "--out", str(out), "--overwrite"]
    assert siser(command) == 2 and "holds other files, such as notes.txt: choose a new folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_damaged_parts_are_predicted_again_and_foreign_ones_refused(archive, tmp_path):
    out, names = tmp_path / "parts", archive.predictor.schema.columns
    cluster.prepare_folder(out, archive, overwrite=False)
    chunks = list(predict.chunks_of(archive.inputs))
    results = [predict_chunk(archive.predictor, chunk) for chunk in chunks[:2]]
    for chunk, found in zip(chunks, results, strict=False):
        cluster.write_part(out / cluster.PART.format(chunk.first), archive.predictor, [result.row for result in found])
    good = out / cluster.PART.format(chunks[0].first)
    (out / cluster.PART.format(chunks[1].first)).write_bytes(b"PAR1 but no more")
    pyarrow.parquet.write_table(pyarrow.table({"other": [1]}), out / cluster.PART.format(chunks[2].first))
    cluster.remove_damaged(out, chunks, names)
    assert [path.name for path in out.glob("part-*")] == [good.name]
    (out / "part-000000001.parquet").touch()
    with pytest.raises(WriteError, match="holds part-000000001.parquet, which is no part of these recordings"):
        cluster.remove_damaged(out, chunks, names)
    (out / cluster.REQUEST).write_text("{")
    with pytest.raises(WriteError, match="holds predictions of other recordings, models or settings"):
        cluster.prepare_folder(out, archive, overwrite=False)


def test_actors_do_not_import_from_the_current_folder(tmp_path, monkeypatch):
    """Ray lets them import from the folder that it is started in."""
    started = []
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **_: started.append(Path.cwd()), shutdown=lambda: None)
    monkeypatch.setattr(cluster, "import_ray", lambda: ray)
    monkeypatch.chdir(tmp_path)
    with cluster.ray_cluster(1):
        assert Path.cwd() == tmp_path and started == [cluster.PACKAGES]


def test_ray_is_an_extra(archive, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SetupError, match=r"--engine ray needs Ray: pip install 'speaker-invariant-ser\[ray\]'"):
        cluster.predict_on_ray(archive, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
