"""Archives of recordings: one schema, timelines and segments, nothing lost by interruptions, whatever the jobs."""

import csv
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from conftest import EMOTIONS, RATE, SPEAKERS, TEXTS, tone

import speaker_invariant_ser as siser_api
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.cli.infer import model_and_inputs
from speaker_invariant_ser.data.formats.files import list_unusable
from speaker_invariant_ser.errors import SerError
from speaker_invariant_ser.inference import inputs, predict
from speaker_invariant_ser.inference.archives import tables, workers
from speaker_invariant_ser.inference.archives.archive import Archive
from speaker_invariant_ser.inference.inputs import Input, find_inputs, shard_of
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.parts.pieces import Source
from speaker_invariant_ser.inference.parts.segments import Segment
from speaker_invariant_ser.inference.rows import columns
from speaker_invariant_ser.inference.settings import Settings
from speaker_invariant_ser.report import timeline as timeline_plots
from speaker_invariant_ser.report.timeline import picture_names

LABELS = ("falling", "level", "rising")
P = [f"p_{label}" for label in LABELS]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def call(tmp_path_factory) -> Path:
    """Write a call of 12 utterances with pauses, and a table of its segments; two speakers take turns."""
    folder = tmp_path_factory.mktemp("call")
    parts, lines, at = [], ["file,start,end,speaker"], 0
    for number in range(12):
        clip = tone(f"0{number % 2 + 1}", list(EMOTIONS)[number % 3], TEXTS[number % 4])
        lines.append(f"call,{at / RATE:.4f},{(at + len(clip)) / RATE:.4f},{'ann' if number % 2 else 'bob'}")
        parts += [clip, np.zeros(RATE // 2)]
        at += len(parts[-2]) + RATE // 2
    soundfile.write(folder / "call.wav", np.concatenate(parts), RATE, subtype="PCM_16")
    (folder / "segments.csv").write_text("\n".join(lines) + "\n")
    return folder


def infer(run, out: Path, *words: str, code: int = 0) -> list[dict[str, str]]:
    command = ["infer", str(run.folder), *words, "--out", str(out), "--device", "cpu", "--overwrite"]
    assert siser(command) == code
    return rows_of(out)


def test_all_tables_have_the_documented_columns(trained, folder, tmp_path):
    """Every ending and every level of rows has the same columns, and the API the same keys."""
    names = columns(LABELS)
    before, after = ["file", "channel", "level", "start", "end", "speaker", "emotion", "confidence"], ["duration", "warnings"]
    assert names == [*before, *P, *after, "error", "model", "calibrated"]
    files = [str(folder / "05_level_a.wav"), str(tmp_path / "missing.wav")]
    (api_row, _) = siser_api.predict(trained, files, device="cpu")
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"p.{ending}"
        assert siser(["infer", str(trained.folder), *files, "--out", str(out), "--device", "cpu"]) == 1
        if ending == "parquet":
            first, second = pyarrow.parquet.read_table(out).to_pylist()
        elif ending == "jsonl":
            first, second = map(json.loads, out.read_text().splitlines())
        else:
            first, second = rows_of(out)
            assert (first["start"], first["end"], second["end"], second["confidence"]) == ("0.000", first["duration"], "", "")
        assert list(first) == list(second) == names == list(api_row)
        assert second["emotion"] == "" and "missing.wav" in second["error"] and first["model"] == str(trained.folder)
    assert siser_api.predict(trained, files, device="cpu")[0] == api_row


def test_windows_have_the_numbers_of_their_clips_and_the_recording_their_mean(trained, call, tmp_path):
    *windows, whole = infer(trained, tmp_path / "p.csv", str(call / "call.wav"), "--window", "2", "--hop", "1")
    samples, _ = soundfile.read(call / "call.wav", dtype="int16")
    seconds = len(samples) / RATE
    assert [row["level"] for row in windows] == ["window"] * (int(seconds - 2) + 2) and whole["level"] == "file"
    starts = [float(row["start"]) for row in windows]
    assert starts[:-1] == [float(second) for second in range(len(windows) - 1)] and float(windows[-1]["end"]) == round(seconds, 3)
    for row in (windows[0], windows[3], windows[-1]):
        begin = min(round(float(row["start"]) * RATE), len(samples) - 2 * RATE)  # the table has milliseconds
        soundfile.write(tmp_path / "clip.wav", samples[begin : begin + 2 * RATE], RATE, subtype="PCM_16")
        (alone,) = siser_api.predict(trained, tmp_path / "clip.wav", device="cpu")
        assert [float(row[name]) for name in P] == pytest.approx([alone[name] for name in P], abs=2e-6)
    means = np.mean([[float(row[name]) for name in P] for row in windows], axis=0)
    assert [float(whole[name]) for name in P] == pytest.approx(means, abs=2e-6)
    assert whole["emotion"] == LABELS[int(np.argmax(means))] and float(whole["duration"]) == round(seconds, 3)


def test_segments_and_speakers_have_rows(trained, call, tmp_path, capsys):
    rows = infer(trained, tmp_path / "p.csv", str(call / "call.wav"), "--segments", str(call / "segments.csv"))
    assert [row["level"] for row in rows] == ["segment"] * 12 + ["speaker"] * 2 + ["file"]
    assert [row["speaker"] for row in rows] == ["bob", "ann"] * 6 + ["bob", "ann", ""]
    for number in (0, 5, 11):  # a segment has the numbers of its recording
        clip = tone(f"0{number % 2 + 1}", list(EMOTIONS)[number % 3], TEXTS[number % 4])
        soundfile.write(tmp_path / "clip.wav", clip, RATE, subtype="PCM_16")
        (alone,) = siser_api.predict(trained, tmp_path / "clip.wav", device="cpu")
        assert [float(rows[number][name]) for name in P] == pytest.approx([alone[name] for name in P], abs=0.02)
        assert rows[number]["emotion"] == alone["emotion"]
    for speaker, row in zip(("bob", "ann"), rows[12:14], strict=True):
        own = [each for each in rows[:12] if each["speaker"] == speaker]
        lengths = [float(each["end"]) - float(each["start"]) for each in own]
        means = np.average([[float(each[name]) for name in P] for each in own], axis=0, weights=lengths)
        assert [float(row[name]) for name in P] == pytest.approx(means, abs=1e-4)
        assert (row["start"], row["end"]) == (own[0]["start"], own[-1]["end"])
    # A recording that the diariser does not list has no speech; another one in its table is warned of.
    shutil.copy(call / "call.wav", tmp_path / "other.wav")
    (tmp_path / "s.csv").write_text((call / "segments.csv").read_text() + "gone,0,1,ann\n")
    words = [str(call / "call.wav"), str(tmp_path / "other.wav"), "--segments", str(tmp_path / "s.csv")]
    *_, last = infer(trained, tmp_path / "p.csv", *words)
    assert (last["emotion"], last["confidence"], last["warnings"]) == ("no speech", "", "no segment is listed for it")
    assert "s.csv: 1 recording not among the inputs, such as gone" in capsys.readouterr().err
    (tmp_path / "s.csv").write_text("file,start,end\ngone,0,1\n")
    assert siser(["infer", str(trained.folder), *words, "--out", str(tmp_path / "q.csv")]) == 2
    assert "none of its 1 recording is among the inputs" in capsys.readouterr().err


def test_segments_outside_the_recording_and_too_short_ones_are_errors_of_their_own(trained, call, tmp_path):
    lines = ["call,0,1,a", "call,2,2.05,a", "call,11,400,b", "call,500,501,b", "call,0.2,9.7,c"]
    (tmp_path / "s.csv").write_text("file,start,end,speaker\n" + "\n".join(lines))
    words = [str(call / "call.wav"), "--segments", str(tmp_path / "s.csv")]
    first, overlapping, short, long, outside, *rest = infer(trained, tmp_path / "p.csv", *words, code=1)
    assert first["emotion"] and overlapping["emotion"] and overlapping["speaker"] == "c"
    assert "too short, expected at least 0.1 s" in short["error"] and "begins at 500.000 s, after the end" in outside["error"]
    assert "ends after the recording" in long["warnings"] and long["end"] == long["duration"] and long["emotion"]
    assert [row["speaker"] for row in rest] == ["a", "c", "b", ""] and not any(row["error"] for row in rest)


def test_long_segments_are_cut_into_equal_pieces_and_windows_on_request(call):
    samples, _ = soundfile.read(call / "call.wav", dtype="float32")
    long = Path(call / "long.wav")
    soundfile.write(long, np.tile(samples, 5), RATE, subtype="PCM_16")
    segments = {long: [Segment(1.0, 2.0), Segment(1.5, 61.5)]}
    pieces = list(Source(Input(long), "mix", Settings(segments=segments)))
    assert [(piece.region, len(piece.clip) / RATE) for piece in pieces] == [(0, 1.0)] + [(1, 30.0)] * 2
    whole, _ = soundfile.read(long, dtype="float32")
    for piece in pieces:
        assert np.array_equal(piece.clip, whole[piece.start : piece.start + len(piece.clip)])
    cut = list(Source(Input(long), "mix", Settings(segments=segments, window=4, hop=2)))
    assert [piece.start / RATE for piece in cut if piece.region == 1][:3] == [1.5, 3.5, 5.5]
    assert cut[-1].start + len(cut[-1].clip) == 61.5 * RATE


def test_speech_is_found_and_its_absence_is_said(trained, call, tmp_path, monkeypatch):
    """With a detector that finds what is loud, in place of silero-vad's network, which tones would not please."""
    from speaker_invariant_ser.inference.parts import vad

    def loud(blocks):
        samples = np.concatenate(list(blocks))
        frames = np.abs(samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)).max(axis=1) > 0.02
        edges = np.flatnonzero(np.diff(np.concatenate([[0], frames.astype(int), [0]])))
        yield from ((start / 10, end / 10) for start, end in edges.reshape(-1, 2))

    monkeypatch.setattr(vad, "speech", loud)
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(tmp_path / "hiss.wav", hiss, RATE)
    rows = infer(trained, tmp_path / "p.csv", str(call / "call.wav"), str(tmp_path / "hiss.wav"), "--vad", "--jobs", "1")
    assert [row["level"] for row in rows] == ["segment"] * 12 + ["file", "file"] and all(row["emotion"] for row in rows)
    assert (rows[-1]["emotion"], rows[-1]["p_level"], rows[-1]["warnings"]) == ("no speech", "", "no speech was found")
    with pytest.raises(SerError, match="leave out --vad or --segments"):
        Settings(vad=True, segments={})


def test_emotions_can_be_restricted_and_doubted(trained, call, tmp_path, capsys):
    words = [str(call / "call.wav"), "--window", "2"]
    all_rows = infer(trained, tmp_path / "p.csv", *words)
    rows = infer(trained, tmp_path / "p.csv", *words, "--labels", "rising, level", "--min-confidence", "0.8")
    assert "p_falling" not in rows[0] and {row["emotion"] for row in rows} <= {"rising", "level", "uncertain"}
    for row, other in list(zip(rows, all_rows, strict=True))[:-1]:
        rest = float(other["p_level"]) + float(other["p_rising"])
        assert float(row["p_level"]) == pytest.approx(float(other["p_level"]) / rest, abs=1e-4)
        assert (row["emotion"] == "uncertain") == (float(row["confidence"]) < 0.8)
    for options, message in [
        (["--labels", "rising,anger"], "labels: unknown emotion 'anger'"),
        (["--labels", "rising"], "labels: rising leaves nothing to choose from"),
        (["--labels", ""], "labels: an empty list leaves nothing to choose from"),
        (["--labels", "rising,rising"], "names an emotion twice"),
        (["--min-confidence", "80"], "min_confidence = 80: expected 0 to 1"),
        (["--window", "0.1"], "window of 0.1 s: expected 0.5 to 30 s"),
        (["--window", "0"], "window of 0 s: expected 0.5 to 30 s"),
        (["--window", "4", "--hop", "5"], "hop of 5 s"),
        (["--hop", "0"], "hop of 0 s: expected more than 0"),
        (["--vad", "--segments", str(call / "segments.csv")], "leave out --vad or --segments"),
        (["--embeddings", str(tmp_path / "e.npz")], "--embeddings needs --out"),
        (["--plot", str(call / "segments.csv")], "segments.csv: a file of that name exists, expected a folder"),
        (["--shard", "0/3"], "--shard 0/3: expected K/N"),
        (["--engine", "ray"], "expected --out FOLDER"),
    ]:
        assert siser(["infer", str(trained.folder), str(call / "call.wav"), "--device", "cpu", *options]) == 2, options
        assert message in capsys.readouterr().err


def test_silent_windows_are_not_given_an_emotion(trained, tmp_path):
    clip = np.concatenate([tone("01", "level", "a")[: RATE // 2], np.zeros(4 * RATE), tone("02", "rising", "b")[: RATE // 2]])
    soundfile.write(tmp_path / "pause.wav", clip, RATE, subtype="PCM_16")
    *windows, whole = infer(trained, tmp_path / "p.csv", str(tmp_path / "pause.wav"), "--window", "1", "--hop", "1")
    assert [row["emotion"] == "no speech" for row in windows] == [False, True, True, True, False]
    assert windows[2]["warnings"] == "digital silence" and windows[2]["p_level"] == ""
    expected = np.mean([float(row["p_level"]) for row in (windows[0], windows[4])])
    assert float(whole["p_level"]) == pytest.approx(expected, abs=2e-6)
    assert "3 windows of 5 of digital silence" in whole["warnings"]


def test_a_recording_that_ends_too_early_keeps_its_windows(trained, call, tmp_path):
    content = (call / "call.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[: len(content) // 2])
    *windows, whole = infer(trained, tmp_path / "p.csv", str(tmp_path / "cut.wav"), "--window", "2", code=1)
    assert len(windows) >= 2 and all(row["emotion"] for row in windows)
    assert whole["level"] == "file" and "is truncated" in whole["error"] and not whole["emotion"]


@pytest.fixture
def archive(folder, tmp_path) -> Path:
    """Link 40 recordings, some of which cannot be used."""
    place = tmp_path / "archive"
    place.mkdir()
    names = [f"{speaker}_{emotion}_{text}.wav" for speaker in SPEAKERS for emotion in EMOTIONS for text in TEXTS]
    for number in range(40):
        os.symlink(folder / names[(7 * number) % len(names)], place / f"{number:03}.wav")
    (place / "005.wav").unlink()
    (place / "005.wav").write_text("no sound")
    (place / "x.m4a").write_bytes(bytes(100))
    return place


class KilledError(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_twenty_kills_lose_and_repeat_nothing(trained, archive, ending, tmp_path, monkeypatch):
    """Whatever byte of a file a call ends at, the next one continues, and the result is that of an uninterrupted call."""
    monkeypatch.setattr(predict, "CHUNK_FILES", 3)
    models = ["--embeddings", str(tmp_path / "e.npz"), "--fold", "fixed", "--jobs", "1", "--window", "0.5"]
    command = ["infer", str(trained.folder), str(archive), "--out", str(tmp_path / f"p.{ending}"), "--device", "cpu", *models]
    assert siser(command) == 1
    expected = [(tmp_path / name).read_bytes() for name in (f"p.{ending}", "e.npz")]
    chance, kills = random.Random(ending), 0
    append = tables.append

    def killed(path, data):
        if chance.random() < 0.12:
            append(path, data[: chance.randrange(len(data) + 1)])
            raise KilledError
        append(path, data)

    done = []
    while kills < 20:
        for name in (f"p.{ending}", "e.npz"):
            (tmp_path / name).unlink(missing_ok=True)
        monkeypatch.setattr(tables, "append", killed)
        try:
            siser(command)
        except KilledError:
            kills += 1
            continue
        done.append([(tmp_path / name).read_bytes() for name in (f"p.{ending}", "e.npz")])
    monkeypatch.setattr(tables, "append", append)
    for name in (f"p.{ending}", "e.npz"):
        (tmp_path / name).unlink(missing_ok=True)
    assert siser(command) == 1
    done.append([(tmp_path / name).read_bytes() for name in (f"p.{ending}", "e.npz")])
    assert all(found[0] == expected[0] for found in done)
    with np.load(tmp_path / "e.npz") as found, np.load(io.BytesIO(expected[1])) as before:
        assert all(np.array_equal(found[name], before[name]) for name in before.files if name not in ("start", "end"))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_call_that_ends_between_embeddings_and_table_is_continued(trained, folder, tmp_path, monkeypatch, capsys):
    out, embeddings = tmp_path / "p.csv", tmp_path / os.fsdecode(b"e\xe9.npz")
    options = ["--fold", "fixed", "--device", "cpu", "--embeddings", str(embeddings)]
    command = ["infer", str(trained.folder), str(folder / "05_level_a.wav"), *options]
    write = tables.write_embeddings

    def killed(path, results):
        write(path, results)
        raise KilledError

    monkeypatch.setattr(tables, "write_embeddings", killed)
    with pytest.raises(KilledError):
        siser([*command, "--out", str(out)])
    monkeypatch.undo()
    assert embeddings.exists() and not out.exists()
    assert siser([*command, "--out", str(tmp_path / "q.csv")]) == 2  # of another table they are not replaced
    assert "holds embeddings already" in capsys.readouterr().err
    assert siser([*command, "--out", str(out)]) == 0 and "continued after 1 recording" in capsys.readouterr().out
    assert len(rows_of(out)) == 1 and sorted(path.name for path in tmp_path.iterdir()) == sorted([embeddings.name, "p.csv"])


def test_a_killed_process_is_continued_and_another_request_begins_anew(trained, archive, tmp_path, capsys):
    """kill -9 in the middle of an archive of 200 recordings."""
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(str(path) for path in sorted(archive.glob("*.wav")) * 1) + "\n")
    out, work = tmp_path / "p.csv", tmp_path / ".p.csv.unfinished"
    script = (
        "from speaker_invariant_ser.inference import predict; predict.CHUNK_FILES = 1\n"
        "from speaker_invariant_ser.cli.app import run; import sys; sys.exit(run(sys.argv[1:]))"
    )
    command = ["infer", str(trained.folder), str(listed), "--out", str(out), "--device", "cpu", "--jobs", "1"]
    process = subprocess.Popen([sys.executable, "-c", script, *command], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if (work / "journal").exists() and (work / "journal").read_bytes().count(b"\n") > 5:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists() and (work / "journal").exists()
    kept = shutil.copytree(work, tmp_path / "kept")
    assert siser(command) == 1
    assert "continued after" in capsys.readouterr().out and not work.exists()
    continued = out.read_bytes()
    assert siser([*command, "--overwrite"]) == 1 and out.read_bytes() == continued
    shutil.copytree(kept, work)
    assert siser([*command, "--overwrite", "--min-confidence", "0.5"]) == 1
    assert "continued" not in capsys.readouterr().out and len(rows_of(out)) == 40


def test_jobs_batches_and_shards_change_nothing(trained, archive, tmp_path, monkeypatch):
    expected = infer(trained, tmp_path / "p.csv", str(archive), "--jobs", "1", code=1)
    monkeypatch.setattr(predict, "CHUNK_FILES", 7)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    parallel = infer(trained, tmp_path / "p.csv", str(archive), "--jobs", "2", code=1)
    one_by_one = [row for path in sorted(archive.iterdir()) for row in siser_api.predict(trained, path, device="cpu")]
    for row, other, alone in zip(expected, parallel, one_by_one, strict=True):
        assert row["file"] == other["file"] == alone["file"] and row["error"] == other["error"]
        assert bool(row["error"]) == bool(alone["error"])
        for name in P if row["emotion"] else ():
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5) == pytest.approx(alone[name], abs=1e-5)
    shards = [infer(trained, tmp_path / f"{k}.csv", str(archive), "--shard", f"{k}/3", code=int(k != 1)) for k in (1, 2, 3)]
    files, names = [[row["file"] for row in shard] for shard in shards], [row["file"] for row in expected]
    assert sorted(name for shard in files for name in shard) == names and files[0] == names[::3]
    with pytest.raises(SerError, match="expected K/N"):
        shard_of([], "4/3")


def test_a_recording_that_ends_its_process_costs_its_row(trained, archive, tmp_path, monkeypatch):
    """As a decoder that crashes does: the others are predicted, and the row says so."""
    monkeypatch.setattr(predict, "CHUNK_FILES", 8)
    expected = {row["file"]: row for row in infer(trained, tmp_path / "p.csv", str(archive), code=1)}
    (archive / "012.wav").unlink()
    (archive / "012.wav").write_text("crash")
    monkeypatch.setattr(workers.Workers, "start", start_crashing)
    rows = infer(trained, tmp_path / "p.csv", str(archive), "--jobs", "2", code=1)
    assert len(rows) == 41
    for row in rows:
        if row["file"].endswith("012.wav"):
            assert "the process that predicted it ended without a result" in row["error"]
        else:
            assert row["emotion"] == expected[row["file"]]["emotion"] and row["error"] == expected[row["file"]]["error"]


def start_crashing(self):
    """Start processes that end at a recording whose content is `crash`; forked, so that they know of it."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return ProcessPoolExecutor(self.jobs, get_context("fork"), initializer=set_up_crashing, initargs=(self.predictor,))


def set_up_crashing(predictor):
    workers.set_up_forked(predictor)
    compute = workers.predict_chunk

    def crash(predictor, chunk):
        if any(item.path.is_file() and item.path.read_bytes() == b"crash" for item in chunk.items):
            os._exit(1)
        return compute(predictor, chunk)

    workers.predict_chunk = crash


def test_paths_come_from_standard_input(trained, folder, tmp_path, monkeypatch, capsys):
    names = [str(folder / "05_level_a.wav"), str(folder / "06_level_a.wav")]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\n".join(names).encode())))
    assert [row["file"] for row in infer(trained, tmp_path / "p.csv", "-")] == names
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    assert siser(["infer", str(trained.folder), "-", "--out", str(tmp_path / "q.csv")]) == 2
    assert "standard input: an empty list, expected one path a line" in capsys.readouterr().err
    monkeypatch.setattr(inputs, "MAX_TEXT", 10)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes(11))))
    with pytest.raises(SerError, match="standard input: more than 0 MB"):
        find_inputs(["-"])


def test_a_list_of_too_many_lines_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a\n" * 10_000_001)
    with pytest.raises(SerError, match="list.txt: more than 10 million lines; cut it into several lists"):
        find_inputs([tmp_path / "list.txt"])


def test_names_in_a_list_are_cut_at_line_breaks_alone(tmp_path):
    names = ["a\x85b.wav", "a\x1cb.wav", "a\u2028b.wav", "b.wav", "c.wav"]
    (tmp_path / "list.txt").write_bytes("\n".join(names[:3]).encode() + b"\r\n" + "\r".join(names[3:]).encode())
    assert [item.path.name for item in find_inputs([tmp_path / "list.txt"])] == names


def test_a_glob_lists_every_recording_once_whatever_links_there_are(tmp_path, monkeypatch):
    """Links to the folder itself: glob would follow each of them forty times, in every order."""
    monkeypatch.chdir(tmp_path)
    files = [Path("a.wav"), Path("p/b.wav"), Path("p/q/[c].wav")]
    for path in (*files, Path(".hidden/d.wav")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("loop").symlink_to(".")
    Path("p/up").symlink_to("..")
    Path("p/again").symlink_to("q")
    for pattern in ("**/*.wav", "**", "./**/**/*.wav", f"{tmp_path}/**/*.wav"):
        found = [os.path.relpath(item.path.resolve(), tmp_path.resolve()) for item in find_inputs([pattern])]
        assert sorted(found) == [*map(str, files)], pattern
    assert [item.path for item in find_inputs(["**/*.wav"])] == files
    assert [str(item.path) for item in find_inputs(["**/q/**/*.wav"])] == ["p/q/[c].wav"]
    assert [str(item.path) for item in find_inputs(["p**/*.wav"])] == ["p/b.wav"]


def test_a_folder_that_cannot_be_opened_is_named_and_skipped(trained, folder, tmp_path, monkeypatch, capsys):
    for name in ("a", "closed", "z"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "05_level_a.wav", tmp_path / name / "x.wav")
    scandir = os.scandir

    def closed(path="."):
        if os.fspath(path).rstrip("/").endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    reason = "cannot be opened (Permission denied)"
    expected = [Input(tmp_path / "a" / "x.wav"), Input(tmp_path / "closed", reason), Input(tmp_path / "z" / "x.wav")]
    for words in (f"{tmp_path}/**/*.wav", f"{tmp_path}/**", str(tmp_path)):
        assert find_inputs([words]) == expected, words
    assert list_unusable(tmp_path) == [("closed", reason)]  # which `siser prepare --pattern` rejects
    with pytest.raises(SerError, match=r"closed/\*\*/\*.wav: no file matches this pattern; .*closed: cannot be opened"):
        find_inputs([f"{tmp_path}/closed/**/*.wav"])
    rows = infer(trained, tmp_path / "p.csv", f"{tmp_path}/**/*.wav", code=1)
    assert [bool(row["error"]) for row in rows] == [False, True, False] and reason in rows[1]["error"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("-", False),
        ("missing", True),
        ("runs/emo-1.0", True),
        ("missing.wav", False),
        ("missing.m4a", False),
        ("missing[1]", False),
        ("missing.onnx", True),
        ("hf:owner/emo-v1.wav", True),
        ("emodb-five", True),
        (".", False),
    ],
)
def test_the_first_word_is_the_model_or_a_recording(word, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_and_inputs(None, [word, "a.wav"]) == (
        (Path(word), ["a.wav"]) if expected else (Path("emodb-five"), [word, "a.wav"])
    )
    assert model_and_inputs("m", [word]) == (Path("m"), [word])


def test_the_folder_of_one_model_is_a_model(trained, folder, tmp_path, capsys):
    (spec,) = trained.trained_models()
    name = str(folder / "05_level_a.wav")
    (row,) = infer(SimpleNamespace(folder=spec.folder), tmp_path / "p.csv", name)
    assert (row["file"], row["model"]) == (name, str(spec.folder))
    assert siser(["infer", str(spec.folder), name, "--fold", "fixed"]) == 2
    assert f"--fold fixed: {spec.folder} is a single model; leave it out" in capsys.readouterr().err


def test_embeddings_are_those_of_the_model_and_can_be_audited(trained, archive, folder, tmp_path, capsys):
    out, embeddings = tmp_path / "p.csv", tmp_path / "e.npz"
    infer(trained, out, str(archive), "--embeddings", str(embeddings), code=1)
    with np.load(embeddings) as found:
        assert found["embedding"].shape == (39, 12) and found["embedding"].dtype == np.float32
        assert list(found["file"][:2]) == [str(archive / "000.wav"), str(archive / "001.wav")] and set(found["level"]) == {"file"}
        first = found["embedding"][0]
    (model,) = load_models(trained, device="cpu")
    clip, _ = soundfile.read(archive / "000.wav", dtype="float32")
    assert predict.outputs([model], [clip])[1][0] == pytest.approx(first, abs=1e-5)
    content = embeddings.read_bytes()
    command = ["infer", str(trained.folder), str(archive), "--out", str(tmp_path / "q.csv"), "--embeddings", str(embeddings)]
    assert siser(command) == 2 and "holds embeddings already: replace it with --overwrite" in capsys.readouterr().err
    np.savez(embeddings, mine=1)
    assert siser([*command, "--overwrite"]) == 2 and "holds no embeddings of `siser infer`" in capsys.readouterr().err
    assert embeddings.read_bytes() != content
    assert siser([*command[:-1], str(tmp_path / "e.csv")]) == 2 and "unknown ending '.csv'" in capsys.readouterr().err


def test_embeddings_of_several_models_are_refused(trained, archive):
    (model,) = load_models(trained, device="cpu")
    with pytest.raises(SerError, match="embeddings of several models"):
        predict.Predictor.of([model, model], Settings(embeddings=True))


def test_timelines_are_drawn_under_names_of_their_own(trained, call, tmp_path):
    shutil.copy(call / "call.wav", tmp_path / "call.wav")
    words = [str(call / "call.wav"), str(tmp_path / "call.wav"), str(tmp_path / "missing.wav"), "--plot", str(tmp_path / "plots")]
    rows = infer(trained, tmp_path / "p.csv", *words, code=1)
    assert {row["level"] for row in rows} == {"window", "file"}  # --plot alone takes windows of 4 s
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["call-1.timeline.png", "call-2.timeline.png"]
    names = picture_names([Path(name) for name in ("a/x.wav", "b/x.wav", "x-1.wav", "y.flac", "y.wav")])
    assert len(set(names.values())) == 5 and names[Path("x-1.wav")] == "x-1"
    case = picture_names([Path(name) for name in ("a/X.wav", "b/x.wav", "X-2.wav", "y.wav")])  # one name where case is ignored
    assert [*case.values()] == ["X-1", "x-3", "X-2", "y"]
    long = [Path("ä" * 125 + f"{number}.wav") for number in range(2)]  # the picture's name, and its temporary one, fit 255 bytes
    assert list(picture_names(long).values()) == ["ä" * 100 + "-1", "ä" * 100 + "-2"]


def test_timelines_show_what_is_uncertain_in_the_colours_that_the_models_have(trained, call, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(timeline_plots, "draw_timeline", lambda *arguments: drawn.append(arguments[3:]))
    words = [str(call / "call.wav"), "--plot", str(tmp_path), "--labels", "rising,level", "--min-confidence"]
    for confidence in ("1", "0.4"):
        infer(trained, tmp_path / "p.csv", *words, confidence)
    (uncertain, emotions), (certain, _) = drawn
    assert {window.emotion for window in uncertain} == {"uncertain"} and {*certain[0].probabilities} == {"rising", "level"}
    assert {window.emotion for window in certain} <= {"rising", "level"} and emotions == LABELS


@pytest.mark.parametrize("option", [["--plot", "plots"], ["--embeddings", "e.npz"]])
def test_a_folder_that_takes_no_files_is_found_before_anything_is_predicted(option, trained, call, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    command = ["infer", str(trained.folder), str(call / "call.wav"), "--out", str(tmp_path / "p.csv"), option[0]]
    assert siser([*command, str(tmp_path / "file" / option[1])]) == 2
    assert f"cannot write {tmp_path}/file/{option[1]}" in (error := capsys.readouterr().err)
    assert "a part of the path is a file, not a folder" in error
    monkeypatch.setattr(tables.tempfile, "TemporaryFile", refuse)
    assert siser([*command, str(tmp_path / "new" / option[1])]) == 2
    assert "no permission to write here; choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "permission denied")


def test_rows_with_another_mean_of_the_speaker_are_not_continued(trained, tmp_path):
    """The mean is that of all shards: it can change although the recordings of this one do not."""
    models = load_models(trained, device="cpu")
    requests = [
        Archive(predict.Predictor.of(models, Settings(), mean=mean), workers.Loading(tmp_path), [], []).request
        for mean in (None, np.zeros(4), np.ones(4), np.ones(4))
    ]
    assert requests[2] == requests[3] and requests[0] != requests[1] != requests[2]


def test_a_shard_has_segments_and_picture_names_of_all_inputs(trained, call, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(call / "call.wav", tmp_path / name)
    (tmp_path / "s.csv").write_text(f"file,start,end\n{tmp_path}/a/call.wav,0,1\n")
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--segments", str(tmp_path / "s.csv"), "--plot", str(tmp_path / "plots")]
    (row,) = infer(trained, tmp_path / "p.csv", *words, "--shard", "2/2")
    assert row["file"] == str(tmp_path / "b" / "call.wav") and row["warnings"] == "no segment is listed for it"
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["call-2.timeline.png"]


def test_rows_are_printed_without_a_table(trained, call, capsys):
    command = ["infer", str(trained.folder), str(call / "call.wav"), "--segments", str(call / "segments.csv"), "--device", "cpu"]
    assert siser(command) == 0
    printed = capsys.readouterr().out
    assert "speaker" in printed and "ann" in printed and "15 of 15 rows" in printed


def test_inputs_that_are_listed_twice_are_one_row(folder):
    assert len(find_inputs([folder / "05_level_a.wav", folder / "05_level_a.wav", folder])) == 72


REQUEST = {"a": 1}
GOOD = {"file": "a.wav", "level": "file", "confidence": 0.5, "error": "", "warnings": ""}


@pytest.mark.parametrize("planted", ["link", "pipe", "folder", "binary"])
def test_what_is_planted_for_partial_results_is_not_followed(tmp_path, planted):
    """Neither is a file that a link leads to changed, nor does a pipe stop the call."""
    work, victim = tables.work_folder(tmp_path / "t.jsonl"), tmp_path / "victim"
    work.mkdir()
    victim.write_text("mine")
    (work / "notes").write_text("foreign")
    for name in (tables.REQUEST, tables.ROWS, tables.EMBEDDINGS, tables.JOURNAL):
        path = work / name
        {"link": lambda at: at.symlink_to(victim), "pipe": os.mkfifo, "folder": Path.mkdir}.get(
            planted, lambda at: at.write_bytes(b"\xff\xfe")
        )(path)
    with tables.open_results(tmp_path / "t.jsonl", list(GOOD), REQUEST) as results:
        assert not results.continued
        results.add(1, [SimpleNamespace(row=GOOD, embedding=None)])
    assert json.loads((tmp_path / "t.jsonl").read_text()) == GOOD
    assert victim.read_text() == "mine" and [path.name for path in work.iterdir()] == ["notes"]


@pytest.mark.parametrize(
    "journal",
    ["[-1, 1, 0, 0, 0]", "[1, 1, 0, -5, 0]", "[9, 1, 0, 3, 0]", "[1, 1, 2, 3, 0]", "[1e999, 1, 0, 3, 0]", "{}", "[" * 9_999],
)
def test_a_forged_journal_begins_anew(tmp_path, journal):
    work = tables.work_folder(tmp_path / "t.jsonl")
    work.mkdir()
    (work / tables.REQUEST).write_text(json.dumps(REQUEST))
    (work / tables.JOURNAL).write_text(journal + "\n")
    (work / tables.ROWS).write_text("{}\n")
    with tables.open_results(tmp_path / "t.jsonl", list(GOOD), REQUEST) as results:
        assert results.done == tables.Progress()


@pytest.mark.parametrize(
    "row", ["{}", "[]", "3", "[" * 9_999, json.dumps({**GOOD, "confidence": {}}), "\n".join([json.dumps(GOOD)] * 2)]
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_forged_rows_are_one_line(tmp_path, row, ending):
    out = tmp_path / f"t.{ending}"
    work = tables.work_folder(out)
    work.mkdir()
    (work / tables.REQUEST).write_text(json.dumps(REQUEST))
    (work / tables.ROWS).write_text(row + "\n")
    (work / tables.JOURNAL).write_text(json.dumps([1, 1, 0, len(row) + 1, 0]) + "\n")
    with (
        pytest.raises(SerError, match=f"{work} is damaged .*; remove it to begin anew"),
        tables.open_results(out, list(GOOD), REQUEST),
    ):
        pass
    assert not out.exists()


def test_many_recordings_of_one_name_and_long_names_have_pictures():
    names = picture_names([Path(f"{number}/a.wav") for number in range(20_000)] + [Path("ä" * 120 + ".wav")])
    assert len(set(names.values())) == 20_001
    assert max(len(f".{name}-right.timeline.png.partial".encode(errors="surrogateescape")) for name in names.values()) <= 255
