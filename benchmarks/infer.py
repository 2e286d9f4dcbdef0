"""Measure the speed of inference: against the loop that a user would write, and against the limit of its own stages.

    python benchmarks/infer.py [FOLDER ...] [--only loop limit start flat ray] [--jobs 2] [--files 100000]

loop    all wav files of the folders with the model of the package: `siser infer`'s table in `jobs` processes, against loops
        over single recordings of librosa.load, F0, log-mel and the model: `plain`, F0 by the package swift-f0, all libraries with
        their default settings; `tuned`, swift-f0 with one thread, which does not wait busily beside those of torch; `own`, F0 by
        this package
limit   the same table, against its stages timed alone on one core (decoding, resampling, features, encoder, each in batches),
        added and divided by the number of cores
start   `siser infer one.wav` against `python -c "import torch, torchaudio"`, the whole processes
flat    memory, descriptors and processes while many short synthetic recordings are predicted, early and late
ray     the table by one and by two actors of a local Ray

Both sides of a ratio are measured alternately in this process, `rounds` times, and the medians are compared. Times are of the
wall clock; what is imported and loaded before is not counted but in `start`. The last line of the output is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from swift_f0 import SwiftF0

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.f0.frames import HOP
from speaker_invariant_ser.data.f0.tracker import PEAK, remembered
from speaker_invariant_ser.features.log_mel_sources import clip_batches
from speaker_invariant_ser.features.prosody import prosody_rows
from speaker_invariant_ser.inference.archives.archive import Archive
from speaker_invariant_ser.inference.archives.workers import Loading
from speaker_invariant_ser.inference.defaults import DEFAULT_MODEL
from speaker_invariant_ser.inference.exported import open_models
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.predict import Predictor
from speaker_invariant_ser.inference.settings import Settings
from speaker_invariant_ser.models.apply import BATCH_SIZE, apply_to_clips
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.training.objective import build_model

PARTS = ("loop", "limit", "start", "flat", "ray")
CORPORA = [Path(__file__).parents[2] / "shared" / "corpora" / name for name in ("emodb", "nemo")]
SPARSE = 4  # the plain loop predicts every fourth recording: its threads wait for each other
SHORT = 0.3  # seconds of a recording of `flat`


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=CORPORA)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=100_000, help="recordings of `flat`")
    parser.add_argument("--watch", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        watch(arguments.watch)
    paths = sorted(path for folder in arguments.folders for path in folder.rglob("*.wav"))
    results: dict[str, object] = {"files": len(paths), "jobs": arguments.jobs, "processor": processor()}
    if not paths and {"loop", "limit", "start", "ray"} & set(arguments.only):
        parser.error(f"no wav file in {', '.join(map(str, arguments.folders))}")
    models = load_models(open_models(DEFAULT_MODEL), device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if {"loop", "limit"} & set(arguments.only):
            results |= measure_throughput(models, paths, folder, arguments)
        if "start" in arguments.only:
            results |= measure_start(paths[0], arguments.rounds)
        if "flat" in arguments.only:
            results |= measure_flatness(folder, arguments.files, arguments.jobs)
        if "ray" in arguments.only:
            results |= measure_ray(models, paths, folder)
    print(json.dumps(results))


def measure_throughput(
    models: Sequence[SerModel], paths: Sequence[Path], folder: Path, arguments: argparse.Namespace
) -> dict[str, object]:
    """Time the table, the plain loop and the stages alternately."""
    sides: dict[str, Callable[[], object]] = {"table": lambda: write_table(models, paths, folder, arguments.jobs)}
    if "loop" in arguments.only:
        sides |= {
            "plain loop": lambda: plain_loop(models[0], paths[::SPARSE], SwiftF0()),
            "tuned loop": lambda: plain_loop(models[0], paths, SwiftF0(threads=1)),
            "own loop": lambda: own_loop(models[0], paths),
        }
    times: dict[str, list[float]] = {name: [] for name in (*sides, "limit")}
    stages: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            times[name].append(timed(side))
        if "limit" in arguments.only:
            stages = time_stages(models[0], paths)
            times["limit"].append(sum(stages.values()) / arguments.jobs)
    medians = {name: statistics.median(found) for name, found in times.items() if found}
    if "plain loop" in medians:
        medians["plain loop"] *= len(paths) / len(paths[::SPARSE])
    hours = sum(soundfile.info(path).duration for path in paths) / 3600
    print(f"{len(paths)} recordings, {hours:.2f} hours; seconds: { {name: round(value, 2) for name, value in medians.items()} }")
    results: dict[str, object] = {"hours_per_minute": round(60 * hours / medians["table"], 1), "seconds": rounded(medians)}
    results |= {f"vs_{name.replace(' ', '_')}": round(medians[name] / medians["table"], 2) for name in sides if name != "table"}
    if "limit" in medians:
        results |= {"vs_limit": round(medians["limit"] / medians["table"], 2), "stages": rounded(stages)}
    return results


def write_table(models: Sequence[SerModel], paths: Sequence[Path], folder: Path, jobs: int) -> None:
    """Write the table of `siser infer`."""
    predictor = Predictor.of(models, Settings(), DEFAULT_MODEL)
    archive = Archive(predictor, Loading(open_models(DEFAULT_MODEL).folder), find_inputs(paths), [], jobs)
    archive.write(folder / "table.csv", overwrite=True)


@torch.inference_mode()
def plain_loop(model: SerModel, paths: Sequence[Path], tracker: SwiftF0) -> list[str]:
    """Predict recordings one by one, as a user's script does, from libraries and the model alone."""
    labels = []
    for path in paths:
        wave, rate = librosa.load(path, sr=audio.SAMPLE_RATE)
        tracked = tracker.detect(np.pad(wave * (PEAK / np.abs(wave).max()), (0, HOP)), rate)
        f0 = torch.tensor(np.stack((tracked.pitch_hz, tracked.confidence))[None], dtype=torch.float32)
        mels, frames = model.logmel(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
        rows = torch.cat((mels, prosody_rows(mels, f0, model.logmel.low_bands)), dim=1)
        labels.append(model.labels[int(model.from_mels(rows, frames).logits[0].argmax())])
    return labels


def own_loop(model: SerModel, paths: Sequence[Path]) -> list[str]:
    """Predict recordings one by one with the functions of the package."""
    labels = []
    for path in paths:
        wave, _ = librosa.load(path, sr=audio.SAMPLE_RATE)
        labels.append(model.labels[int(apply_to_clips(model, [wave]).probability[0].argmax())])
    return labels


def time_stages(model: SerModel, paths: Sequence[Path]) -> dict[str, float]:
    """Time each stage alone, on one thread."""
    remembered().clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        begin = time.perf_counter()
        decoded = [soundfile.read(path, dtype="int16") for path in paths]
        times = {"decode": time.perf_counter() - begin}
        begin = time.perf_counter()
        clips = [audio.to_float32(audio.resample(audio.Decoded(samples, rate), audio.SAMPLE_RATE)) for samples, rate in decoded]
        times["resample"] = time.perf_counter() - begin
        begin = time.perf_counter()
        with torch.inference_mode():
            batches = [
                model.mels(waves, samples, None) for _, waves, samples in clip_batches(clips, BATCH_SIZE, torch.device("cpu"))
            ]
        times["features"] = time.perf_counter() - begin
        begin = time.perf_counter()
        with torch.inference_mode():
            for mels, frames in batches:
                model.from_mels(mels, frames, None)
        times["encoder"] = time.perf_counter() - begin
    finally:
        torch.set_num_threads(threads)
    return times


def measure_start(path: Path, rounds: int) -> dict[str, object]:
    """Time a process that predicts one recording, and one that imports torch and torchaudio."""
    commands = {
        "infer": [sys.executable, "-m", "speaker_invariant_ser", "infer", str(path), "--quiet"],
        "import": [sys.executable, "-c", "import torch, torchaudio"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(2 * rounds + 1):
        for name, command in commands.items():
            times[name].append(timed(lambda command=command: subprocess.run(command, check=True, capture_output=True)))
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}  # the first reads from disk
    print(f"seconds of a process: {rounded(medians)}")
    return {"start": round(medians["infer"] / medians["import"], 2), "start_seconds": rounded(medians)}


def measure_flatness(folder: Path, files: int, jobs: int) -> dict[str, object]:
    """Watch memory, descriptors and processes while many short recordings are predicted by a small untrained network."""
    place = folder / "short"
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(100):
        soundfile.write(place / f"{number}.wav", 0.1 * rng.standard_normal(int(SHORT * audio.SAMPLE_RATE)), audio.SAMPLE_RATE)
    listed = [place / f"{number % 100}.wav" for number in range(100)]
    for number in range(100, files):
        os.link(listed[number % 100], place / f"{number}.wav")
    recipe = make_recipe({"encoder": {"channels": [4, 8], "dim": 12}})
    model = build_model(recipe, ["angry", "happy", "neutral"]).eval()
    archive = Archive(Predictor.of([model], Settings(), "small"), Loading(folder), find_inputs([place]), [], jobs)
    watch = Watcher()
    begin = time.perf_counter()
    with watch:
        results = archive.write(folder / "flat.csv")
    seconds = time.perf_counter() - begin
    early, late = watch.early_and_late()
    print(f"{results.summary.rows} rows in {seconds:.0f} s; after a tenth: {early}; at the end: {late}")
    course = [round(sample["mb"]) for sample in deciles(watch.samples)]
    print(f"MB in the course of it: {course}")
    return {"flat_files": files, "flat_seconds": round(seconds), "flat_early": early, "flat_late": late, "flat_mb": course}


def deciles(samples: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return ten samples, evenly spaced."""
    return [samples[index] for index in np.linspace(0, len(samples) - 1, 10).astype(int)]


class Watcher:
    """Samples memory, descriptors and number of this process and its children twice a second, from a process of its own.

    A thread would not do: worker processes are forked only where there is no second one.
    """

    def __init__(self) -> None:
        """Begin without samples."""
        self.samples: list[dict[str, float]] = []

    def __enter__(self) -> "Watcher":
        """Begin to watch."""
        command = [sys.executable, __file__, "--watch", str(os.getpid())]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and take the samples."""
        self.process.terminate()
        output, _ = self.process.communicate()
        self.samples = [json.loads(line) for line in output.splitlines() if line.endswith("}")]

    def early_and_late(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the sample after a tenth of the time, and the largest values of the last tenth."""
        tenth = max(1, len(self.samples) // 10)
        last = self.samples[-tenth:]
        return self.samples[tenth], {name: max(sample[name] for sample in last) for name in last[0]}


def watch(pid: int) -> None:
    """Print a sample of a process and its children twice a second."""
    while True:
        print(json.dumps(usage(pid)), flush=True)
        time.sleep(0.5)


def usage(parent: int) -> dict[str, float]:
    """Return memory (MB of all processes, shared pages divided among them), descriptors and number of processes."""
    found = {"mb": 0.0, "descriptors": 0.0, "processes": 0.0}
    for pid in {parent, *children_of(parent)} - {os.getpid()}:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found["mb"] += int(rollup.partition("Pss:")[2].split()[0]) // 1024
            found["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
            found["processes"] += 1
        except OSError:  # it has just ended
            continue
    return found


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def measure_ray(models: Sequence[SerModel], paths: Sequence[Path], folder: Path) -> dict[str, object]:
    """Time one and two actors; their start is part of it."""
    from speaker_invariant_ser.inference.archives.cluster import predict_on_ray

    seconds = {}
    for actors in (1, 2):
        predictor = Predictor.of(models, Settings(), DEFAULT_MODEL)
        archive = Archive(predictor, Loading(open_models(DEFAULT_MODEL).folder), find_inputs(paths), [], actors)
        seconds[str(actors)] = timed(lambda archive=archive, actors=actors: predict_on_ray(archive, folder / f"ray-{actors}"))
    print(f"seconds by number of Ray actors, their start included: {rounded(seconds)}")
    return {"ray_scaling": round(seconds["1"] / seconds["2"], 2), "ray_seconds": rounded(seconds)}


def timed(side: Callable[[], object]) -> float:
    """Return the seconds that a call takes; F0 of an earlier one is forgotten."""
    remembered().clear()
    begin = time.perf_counter()
    side()
    return time.perf_counter() - begin


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Round to hundredths."""
    return {name: round(value, 2) for name, value in values.items()}


def processor() -> str:
    """Return what the processor is called, and whether it has AMX."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.partition(":")[2].strip() for line in about.splitlines() if line.startswith("model name")), "unknown")
    return f"{name}{', AMX' if 'amx_tile' in about else ''}"


if __name__ == "__main__":
    main()
