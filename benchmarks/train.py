"""How fast training is: beside a plain loop, from disk, and with many models on one GPU.

    python benchmarks/train.py EMODB [--data PREPARED] [--only speed stream gpu] [--folds 10] [--epochs 40] [--seeds 1]

speed    EMO-DB, leave one speaker out, recipes/emodb.toml, on the processor: `fitting.train` with two jobs, then the plain loop
         below, which has the same model, folds, batch size, epochs and choice of the epoch, and reads and changes clip by clip
stream   made-up speech of 300 hours that does not fit memory, one epoch of it, beside two hours that do
gpu      all folds x 5 seeds on one GPU, as many at once as there are cores, beside one after another

EMODB is the folder of the corpus as it comes; the package trains on what it prepares of it, or has prepared of it (PREPARED).
Times are of the wall, from the call to its return, opening the data included. The last line is JSON.
"""

import argparse
import copy
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from torchaudio.transforms import FrequencyMasking, TimeMasking

from speaker_invariant_ser import metrics
from speaker_invariant_ser.adversaries.base import AdversaryBatch
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.corpora.base import list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus
from speaker_invariant_ser.data.manifest import Utterance, write_manifest
from speaker_invariant_ser.data.prepare import prepare
from speaker_invariant_ser.data.prepared_corpus import AUDIO, FORMAT, MANIFEST, SETTINGS, PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits
from speaker_invariant_ser.features.log_mel import LogMel
from speaker_invariant_ser.files import sha256, write_json
from speaker_invariant_ser.models.apply import apply
from speaker_invariant_ser.models.model import SerModel, load_model
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.training import launcher
from speaker_invariant_ser.training.checks import target_values
from speaker_invariant_ser.training.objective import build_model, class_weights
from speaker_invariant_ser.training.optimisation import choose_precision, exponential_average

RECIPE = Path(__file__).parents[1] / "recipes" / "emodb.toml"
PARTS = ("speed", "stream", "gpu")
STEP = ("data", "features", "network", "adversary", "update")  # of a training step; seconds_... in metrics.csv
GPU_SEEDS = 5

# The made-up corpus. Every NOISY-th clip is noise; the others are a hole in the file. With a little noise in each, deleting the
# file took minutes: its blocks lay in as many places.
HOURS, SMALL_HOURS, SPEAKERS, TEXTS, EPOCH_CLIPS = 300, 2.5, 100, 20, 1600
CLIP, NOISY = 2**16, 32  # samples; one clip in so many
EMOTIONS = ("angry", "fearful", "happy", "neutral", "sad")


# The plain loop, as one writes it for a paper.


class Wavs(Dataset):
    """Wav files; each is read, turned into a log-mel and masked when it is asked for. Items: ([T, M], emotion, speaker)."""

    def __init__(self, paths: Sequence[Path], emotions: Sequence[int], speakers: Sequence[int], recipe: Recipe, masked: bool):
        self.paths, self.emotions, self.speakers = paths, emotions, speakers
        self.logmel = LogMel(recipe.features, SAMPLE_RATE)
        s, widest = recipe.augment, round(recipe.augment.time_mask_ms / recipe.features.hop_ms)
        bands = [FrequencyMasking(s.frequency_mask_bands) for _ in range(s.frequency_masks)]
        times = [TimeMasking(widest, p=0.2) for _ in range(s.time_masks)]
        self.masks = bands + times if masked else []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[Tensor, int, int]:
        audio, _ = soundfile.read(self.paths[place], dtype="float32")
        mels, _ = self.logmel(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
        mean = float(mels.mean())
        for mask in self.masks:
            mels = mask(mels, mean)
        return mels[0].T, self.emotions[place], self.speakers[place]


def collate(items: list[tuple[Tensor, int, int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Zero-padded log-mels [B, M, T], frames, emotions and speakers [B]."""
    mels, emotion, speaker = zip(*items, strict=True)
    frames = torch.tensor([len(one) for one in mels])
    return pad_sequence(mels, batch_first=True).transpose(1, 2), frames, torch.tensor(emotion), torch.tensor(speaker)


def plain_fold(
    folder: Path, prepared: PreparedCorpus, split: Split, recipe: Recipe, workers: int, advance: Callable[[], None]
) -> SerModel:
    """One fold, trained; the weights are the moving average of the epoch that was best on the dev speakers."""
    torch.manual_seed(recipe.train.seed)
    labels, people = sorted({one.emotion for one in prepared.utterances}), target_values(prepared, split, "speaker")

    def wavs(part: str, masked: bool = False) -> Wavs:
        clips = [prepared.utterances[index] for index in split.indices(part, prepared.utterances)]
        speakers = [people.index(one.speaker) if part == "train" else 0 for one in clips]
        emotions = [labels.index(one.emotion) for one in clips]
        return Wavs([folder / one.source for one in clips], emotions, speakers, recipe, masked)

    options = {"collate_fn": collate, "num_workers": workers, "persistent_workers": workers > 0}
    train = DataLoader(wavs("train", masked=True), recipe.train.batch_size, shuffle=True, drop_last=True, **options)
    dev = DataLoader(wavs("dev"), recipe.train.batch_size, **options)
    model = build_model(recipe, labels)
    model.normalise.fit(mels.T for mels, _, _ in wavs("train"))
    adversary = ADVERSARIES[recipe.adversary.name](recipe.encoder.dim, len(people), recipe.adversary, len(labels))
    counts = torch.tensor(train.dataset.emotions).bincount(minlength=len(labels))
    weight, smoothing = class_weights(counts / counts.sum()), recipe.emotion.label_smoothing
    parameters = [*model.parameters(), *adversary.parameters()]
    optimizer = torch.optim.AdamW(parameters, recipe.train.learning_rate, weight_decay=recipe.train.weight_decay)
    steps, step = recipe.train.epochs * len(train), 0
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.train.learning_rate, total_steps=steps)
    averaged = AveragedModel(model, multi_avg_fn=exponential_average(recipe.train.ema), use_buffers=True)
    best = (-1.0, 0.0)
    for _ in range(recipe.train.epochs):
        model.train()
        for mels, frames, emotion, speaker in train:
            output = model.from_mels(mels, frames)
            emotion_loss = F.cross_entropy(output.logits, emotion, weight, label_smoothing=smoothing)
            batch = AdversaryBatch(frames, F.one_hot(emotion, len(labels)).float(), F.one_hot(speaker, len(people)).float())
            optimizer.zero_grad()
            (emotion_loss + adversary(output.embedding, batch, step / max(1, steps - 1))).backward()
            for part in (model, adversary):
                nn.utils.clip_grad_norm_(part.parameters(), recipe.train.gradient_clip)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(model)
            step += 1
        scores = plain_score(averaged.module, dev)
        if scores > best:
            best, kept = scores, copy.deepcopy(averaged.module.state_dict())
        advance()
    model.load_state_dict(kept)
    return model.eval()


@torch.inference_mode()
def plain_score(model: SerModel, loader: DataLoader) -> tuple[float, float]:
    """(UAR, minus the mean cross-entropy): the greater the better."""
    model.eval()
    parts = [(model.from_mels(mels, frames).logits, emotion) for mels, frames, emotion, _ in loader]
    logits, truth = (torch.cat(part) for part in zip(*parts, strict=True))
    return metrics.uar(truth.numpy(), logits.argmax(1).numpy(), len(model.labels)), -F.cross_entropy(logits, truth).item()


# What is measured.


@dataclass(frozen=True)
class Work:
    """EMO-DB as it comes and as prepared, what is trained on it, and a folder for runs."""

    folder: Path
    data: Path
    recipe: Recipe
    folds: int
    place: Path

    @property
    def prepared(self) -> PreparedCorpus:
        return PreparedCorpus.open(self.data).labelled(self.recipe.labels.map)

    def with_train(self, **changes: int) -> "Work":
        return replace(self, recipe=with_train(self.recipe, **changes))

    def train(self, device: str, jobs: int, what: str, look: Callable[[], object] = lambda: None) -> tuple[Run, float]:
        """A run of the first folds, and the seconds that it took; `look` is called after each epoch."""
        out, models = Path(tempfile.mkdtemp(dir=self.place)) / "run", self.folds * self.recipe.train.seeds
        first = patch.object(launcher, "make_splits", lambda *arguments: make_splits(*arguments)[: self.folds])
        with first, bar(what, models * self.recipe.train.epochs) as advance:
            started = time.perf_counter()
            prepared = PreparedCorpus.open(self.data)
            run = launcher.train(self.recipe, prepared, out, device=device, jobs=jobs, progress=lambda *_: (advance(), look()))
            return run, time.perf_counter() - started


def speed(work: Work, seeds: int, jobs: int) -> dict:
    """Ours and the plain loop on EMO-DB; more seeds of ours than one are trained afterwards, for their spread."""
    recipe, prepared = work.recipe, work.prepared
    run, ours_s = work.train("cpu", jobs, "ours")
    uars, share = [test_uar(prepared, loaded(run))], network_share(run)
    print(f"ours: {ours_s:.1f} s, test UAR {uars[0]:.3f}; in the network {show(share)} of a step")
    workers = faster_workers(work, run.splits[0])
    with bar("plain loop", len(run.splits) * recipe.train.epochs) as advance:
        started = time.perf_counter()
        models = [plain_fold(work.folder, prepared, split, recipe, workers, advance) for split in run.splits]
        plain_s = time.perf_counter() - started
    plain_uar = test_uar(prepared, zip(run.splits, models, strict=True))
    print(f"plain loop: {plain_s:.1f} s, test UAR {plain_uar:.3f}, DataLoader with {workers} workers")
    for seed in range(recipe.train.seed + 1, recipe.train.seed + seeds):
        other, _ = work.with_train(seed=seed).train("cpu", jobs, f"ours, seed {seed}")
        uars.append(test_uar(prepared, loaded(other)))
    spread = statistics.stdev(uars) if seeds > 1 else None
    if seeds > 1:
        print(f"ours over {seeds} seeds: test UAR {statistics.mean(uars):.3f}, deviation {spread:.3f}")
    return {
        "folds": len(run.splits),
        "epochs": recipe.train.epochs,
        "jobs": jobs,
        "bfloat16": choose_precision(recipe.train.precision, "cpu") == "bfloat16",
        "ours_s": round(ours_s, 1),
        "plain_s": round(plain_s, 1),
        "plain_workers": workers,
        "vs_plain_loop": round(plain_s / ours_s, 2),
        "uar": rounded(statistics.mean(uars)),
        "uar_deviation": rounded(spread),
        "plain_uar": rounded(plain_uar),
        "network_share": rounded(share),
    }


def loaded(run: Run) -> Iterator[tuple[Split, SerModel]]:
    return ((fit.split, load_model(fit.folder)) for fit in run.fits)


def faster_workers(work: Work, split: Split) -> int:
    """0 or 2 workers of the DataLoader, whichever takes less time for an epoch, the second; this is not counted."""
    took, recipe = {}, with_train(work.recipe, epochs=2)
    for workers in (0, 2):
        ends: list[float] = []
        plain_fold(work.folder, work.prepared, split, recipe, workers, lambda: ends.append(time.perf_counter()))  # noqa: B023
        took[workers] = ends[1] - ends[0]
    print("plain loop, one epoch: " + ", ".join(f"{workers} workers {took[workers]:.1f} s" for workers in took))
    return min(took, key=took.get)


def test_uar(prepared: PreparedCorpus, models: Iterable[tuple[Split, SerModel]]) -> float:
    """UAR over the test clips of all folds together."""
    truth, guessed = [], []
    for split, model in models:
        chosen = split.indices("test", prepared.utterances)
        probability = apply(model, [prepared.clip(index) for index in chosen])[1]
        guessed += probability.argmax(axis=1).tolist()
        truth += [model.labels.index(prepared.utterances[index].emotion) for index in chosen]
    return metrics.uar(np.array(truth), np.array(guessed), len(model.labels))


def network_share(run: Run) -> float | None:
    """Forward and backward in all of a training step, by time, without first epochs; None if there are no others."""
    rows = [row for fit in run.fits for row in fit.metrics()[1:]]
    total = sum(step_seconds(row) for row in rows)
    return sum(row["seconds_network"] + row["seconds_adversary"] for row in rows) / total if rows else None


def step_seconds(row: dict[str, float]) -> float:
    return sum(row[f"seconds_{part}"] for part in STEP)


def stream(scratch: Path | None) -> dict:
    """300 hours from disk and 2.5 hours in memory, the same network and as many clips; each in a process of its own."""
    found = {}
    for name, hours in (("streamed", HOURS), ("resident", SMALL_HOURS)):
        with tempfile.TemporaryDirectory(dir=scratch) as place:
            clips = write_hours(Path(place) / "data", hours)
            done = subprocess.run([sys.executable, __file__, "--child", place], stdout=subprocess.PIPE, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
        one = found[name]
        print(f"{name}, {hours} hours, {clips} clips: {one['clips_per_s']:.0f} clips/s, at most {one['peak_mb']:.0f} MB")
        print(f"    {one['imported_mb']:.0f} MB after the imports, {one['opened_mb']:.0f} MB once the corpus is open")
    return {
        **{f"streamed_{name}": round(value) for name, value in found["streamed"].items()},
        "resident_clips_per_s": round(found["resident"]["clips_per_s"]),
        "streamed_vs_resident": round(found["streamed"]["clips_per_s"] / found["resident"]["clips_per_s"], 2),
    }


def write_hours(folder: Path, hours: float) -> int:
    """A prepared corpus of so many hours, 4.1 s a clip, that takes a thirtieth of its size on disk; returns the clips."""
    folder.mkdir()
    clips = int(hours * 3600 * SAMPLE_RATE / CLIP)
    noise = np.random.default_rng(0).integers(-3000, 3000, CLIP, dtype="<i2").tobytes()
    utterances = [
        Utterance(
            id=f"{number:06}",
            corpus="made-up",
            speaker=f"{number % SPEAKERS:03}",
            emotion=EMOTIONS[number // SPEAKERS % len(EMOTIONS)],
            text=f"{number // SPEAKERS // len(EMOTIONS) % TEXTS:02}",
            source="none.wav",
            offset=number * CLIP,
            samples=CLIP,
        )
        for number in range(clips)
    ]
    write_manifest(folder / MANIFEST, utterances)
    with open(folder / AUDIO, "wb") as file:
        file.truncate(2 * clips * CLIP)
        for number in range(0, clips, NOISY):
            file.seek(2 * number * CLIP)
            file.write(noise)
    # The audio's hash is looked at when a run is evaluated; training only notes it.
    write_json(
        folder / SETTINGS,
        {"format": FORMAT, "corpora": ["made-up"], "sha256": {MANIFEST: sha256(folder / MANIFEST), AUDIO: "not taken"}},
    )
    return clips


def train_hours(place: Path) -> dict[str, float]:
    """One epoch of the default network on a made-up corpus, in this process alone."""
    imported = memory_mb("VmHWM")
    prepared, people = PreparedCorpus.open(place / "data"), [f"{number:03}" for number in range(4)]
    opened = memory_mb("VmHWM")
    recipe = make_recipe(
        {
            "split": {"scheme": "fixed", "dev": people[:2], "test": people[2:]},
            "train": {"epochs": 1, "epoch_clips": EPOCH_CLIPS},
        }
    )
    run = launcher.train(recipe, prepared, place / "run", device="cpu")
    (row,) = run.fits[0].metrics()
    return {
        "clips_per_s": EPOCH_CLIPS / step_seconds(row),
        "imported_mb": imported,
        "opened_mb": opened,
        "peak_mb": memory_mb("VmHWM"),
    }


def memory_mb(name: str) -> float:
    """VmHWM: the most that was resident at any time. `getrusage` counts what the parent held when it started this process."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024 / 1e6


def gpu(work: Work) -> dict | None:
    """All folds and seeds on one GPU, as many workers as cores against one; the memory of a model is the most that each took."""
    if not torch.cuda.is_available():
        print("GPU: none here, this part is skipped")
        return None
    work, jobs, free = work.with_train(seeds=GPU_SEEDS), os.cpu_count() or 1, [torch.cuda.mem_get_info()[0]]
    run, together_s = work.train("cuda", jobs, "together", look=lambda: free.append(torch.cuda.mem_get_info()[0]))
    _, alone_s = work.train("cuda", 1, "in turn")
    utterances = work.prepared.utterances
    clips = work.recipe.train.epochs * sum(len(fit.split.indices("train", utterances)) for fit in run.fits)
    each = (free[0] - min(free)) / min(jobs, len(run.fits))
    found = {
        "device": torch.cuda.get_device_name(),
        "models": len(run.fits),
        "jobs": jobs,
        "together_s": round(together_s, 1),
        "in_turn_s": round(alone_s, 1),
        "vs_gpu_sequential": round(alone_s / together_s, 2),
        "clips_per_s": round(clips / together_s),
        "model_mb": round(each / 1e6),
        "models_fit": int(torch.cuda.mem_get_info()[1] / each),
    }
    print(f"GPU: {found}")
    return found


# Small things.


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error if that is a terminal; what it gives is called once for each epoch."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task(what, total=total)
        yield lambda: shown.advance(task)


def with_train(recipe: Recipe, **changes: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def rounded(value: float | None) -> float | None:
    return value if value is None else round(value, 3)


def show(share: float | None) -> str:
    return "(unknown from first epochs)" if share is None else f"{share:.1%}"


def whole_number(text: str) -> int:
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where EMO-DB is, with its folder wav")
    parser.add_argument("--data", type=Path, help="what `siser prepare emodb` made of it; prepared anew if not given")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folds", type=whole_number, default=10, help="the first so many; all ten are the measure")
    parser.add_argument("--epochs", type=whole_number, help="the recipe's are the measure")
    parser.add_argument("--seeds", type=whole_number, default=1, help="of ours, for the spread of its UAR")
    parser.add_argument("--jobs", type=whole_number, default=2, help="models that ours trains at once on the processor")
    parser.add_argument("--scratch", type=Path, help="folder for the 300 hours: 1.1 GB in a sparse file of 35 GB")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train_hours(options.child)))
        return
    if {"speed", "gpu"} & set(options.only) and not (options.folder and (options.folder / "wav").is_dir()):
        parser.error(f"{options.folder} is not EMO-DB: expected a folder with a folder wav in it")
    recipe = read_recipe(RECIPE)
    epochs = options.epochs or recipe.train.epochs
    result = {"full": (options.folds, epochs) == (10, recipe.train.epochs)}
    if not result["full"]:
        print(f"a short look, not the measure: {options.folds} folds, {epochs} epochs")
    with tempfile.TemporaryDirectory() as place:
        data = options.data or Path(place) / "data"
        work = Work(options.folder, data, with_train(recipe, epochs=epochs), options.folds, Path(place))
        if {"speed", "gpu"} & set(options.only) and not options.data:
            prepare([list_corpus(get_corpus("emodb"), options.folder)], data)
        if "speed" in options.only:
            result |= speed(work, options.seeds, options.jobs)
        if "stream" in options.only:
            result |= stream(options.scratch)
        if "gpu" in options.only:
            result["gpu"] = gpu(work)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
