"""Training on a frozen pre-trained encoder: with cached layers, and by a plain loop that runs the encoder in every epoch.

Weights are random, because speed does not depend on them. The corpus is noise.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
import transformers
from transformers.utils import logging

from speaker_invariant_ser.config import make_recipe, read_recipe
from speaker_invariant_ser.data.prepare import prepare
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.data.tables.custom import Request, read_table
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.features.pretrained.backbone import Backbone
from speaker_invariant_ser.features.pretrained.checkpoint import open_checkpoint
from speaker_invariant_ser.features.pretrained.layer_cache import FOLDER as CACHES
from speaker_invariant_ser.models.encoders import AttentivePooling
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.training import launcher

RECIPE = Path(__file__).parents[1] / "recipes" / "pretrained.toml"
RATE, CLIPS, SPEAKERS, EMOTIONS = 16_000, 72, 6, ("angry", "neutral", "sad")
FOLDS, EPOCHS, BATCH, ROUNDS = 3, 40, 16, 3
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (64,) * 7}
BASE_SECONDS = 30.0  # of audio that the base-sized encoder is measured on in a round, in utterances of 3 s


def measure_pretrained(epochs: int | None = None, rounds: int | None = None) -> dict:
    """Compare cached layers with a loop that computes them in every epoch, and measure a base-sized encoder.

    Each round trains both, from nothing: the first has no cache. Processor seconds are those of all threads, and depend less on
    other work of the machine.
    """
    epochs, rounds = epochs or EPOCHS, rounds or ROUNDS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepared = noise_corpus(folder)
        recipe = recipe_of(save(TINY, folder / "tiny"), epochs)
        print(f"{CLIPS} utterances, {FOLDS} folds, {epochs} epochs, batches of {BATCH}, {torch.get_num_threads()} threads")
        ratios, processor_ratios, ours = [], [], []
        for number in range(rounds):
            shutil.rmtree(prepared.folder / CACHES, ignore_errors=True)
            run = folder / f"run-{number}"
            ours_s, ours_processor_s = seconds_of(lambda run=run: launcher.train(recipe, prepared, run, device="cpu"))
            plain_s, plain_processor_s = seconds_of(lambda: plain_loop(recipe, prepared))
            ratios.append(plain_s / ours_s)
            processor_ratios.append(plain_processor_s / ours_processor_s)
            ours.append(ours_s)
            print(
                f"cached layers: {ours_s:.1f} s, the cache included; plain loop: {plain_s:.1f} s, {ratios[-1]:.1f} times as long"
            )
        per_hour = base_seconds_per_hour(folder, rounds)
    print(f"a base-sized encoder: {per_hour / 60:.1f} minutes for an hour of audio, once")
    return {
        "ours_s": round(statistics.median(ours), 1),
        "times_as_fast": round(statistics.median(ratios), 1),
        "times_as_fast_range": [round(min(ratios), 1), round(max(ratios), 1)],
        "processor_times": round(statistics.median(processor_ratios), 1),
        "base_s_per_hour": round(per_hour),
    }


def seconds_of(train: Callable[[], object]) -> tuple[float, float]:
    """Return seconds of a call, and the processor's."""
    started, processor_started = time.perf_counter(), time.process_time()
    train()
    return time.perf_counter() - started, time.process_time() - processor_started


def save(sizes: dict, folder: Path) -> Path:
    """Save a WavLM checkpoint with random weights."""
    logging.disable_progress_bar()
    transformers.WavLMModel(transformers.WavLMConfig(**sizes)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def noise_corpus(folder: Path) -> PreparedCorpus:
    """Prepare utterances of 2 to 4 s."""
    rng, rows = np.random.default_rng(0), ["path,speaker,emotion"]
    for number in range(CLIPS):
        clip = 0.1 * rng.standard_normal(rng.integers(2 * RATE, 4 * RATE))
        soundfile.write(folder / f"{number}.wav", clip, RATE, subtype="PCM_16")
        rows.append(f"{number}.wav,{number % SPEAKERS},{EMOTIONS[number // SPEAKERS % len(EMOTIONS)]}")
    (folder / "corpus.csv").write_text("\n".join(rows))
    return prepare([read_table(Request(folder / "corpus.csv"))], folder / "data")


def recipe_of(source: Path, epochs: int) -> Recipe:
    """Return the shipped recipe for this checkpoint."""
    tables = read_recipe(RECIPE).model_dump(exclude_unset=True)
    tables["encoder"]["source"] = str(source)
    tables["split"] = {"scheme": "group-kfold", "folds": FOLDS, "dev_speakers": 1}
    return make_recipe({**tables, "train": {"epochs": epochs, "batch_size": BATCH}})


class Head(torch.nn.Module):
    """Weighted sum of layers, pooling and a linear classifier."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.weights, self.pool = torch.nn.Parameter(torch.zeros(layers)), AttentivePooling(width)
        self.classify = torch.nn.Sequential(torch.nn.Linear(2 * width, 128), torch.nn.ReLU(), torch.nn.Linear(128, len(EMOTIONS)))

    def forward(self, hidden: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return logits for layers [B, L, T, H] with frames [B]."""
        x = torch.einsum("l,blth->bht", self.weights.softmax(dim=0), F.layer_norm(hidden, hidden.shape[-1:]))
        return self.classify(self.pool(x * mask_of(frames, x.shape[2])[:, None], frames))


def plain_loop(recipe: Recipe, prepared: PreparedCorpus) -> None:
    """Train a head for every fold; the frozen encoder runs on padded batches in every epoch, as tutorials have it."""
    checkpoint = open_checkpoint(recipe.encoder)
    network, extractor = (backbone := Backbone(checkpoint)).network, backbone.extractor
    index = {emotion: number for number, emotion in enumerate(EMOTIONS)}
    for split in make_splits(recipe.split, prepared.utterances):
        head = Head(checkpoint.depth + 1, checkpoint.width)
        optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
        parts = {part: np.array(split.indices(part, prepared.utterances)) for part in ("train", "dev")}
        for epoch in range(recipe.train.epochs):
            for part, chosen in parts.items():
                order = np.random.default_rng(epoch).permutation(chosen)
                for batch in np.array_split(order, max(1, len(order) // BATCH)):
                    clips = [prepared.clip(number) for number in batch]
                    inputs = extractor(clips, sampling_rate=RATE, padding=True, return_attention_mask=True, return_tensors="pt")
                    with torch.no_grad():
                        hidden = torch.stack(network(**inputs, output_hidden_states=True).hidden_states, dim=1)
                    frames = torch.tensor([checkpoint.frames_of(len(clip)) for clip in clips])
                    with torch.set_grad_enabled(part == "train"):
                        emotion = torch.tensor([index[prepared.utterances[number].emotion] for number in batch])
                        loss = F.cross_entropy(head(hidden, frames), emotion)
                    if part == "train":
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()


def base_seconds_per_hour(folder: Path, rounds: int) -> float:
    """Measure an encoder of the size of WavLM Base on utterances of 3 s; return seconds per hour of audio, median of rounds."""
    backbone = Backbone(open_checkpoint(recipe_of(save({}, folder / "base"), 1).encoder))
    clip, seconds = 0.1 * torch.randn(1, 3 * RATE), []
    with torch.no_grad():
        backbone(clip, range(13))
        for _ in range(rounds):
            started = time.perf_counter()
            for _ in range(int(BASE_SECONDS / 3)):
                backbone(clip, range(13))
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) / BASE_SECONDS * 3600
