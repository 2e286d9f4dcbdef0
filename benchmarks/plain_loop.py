"""The training loop of the speed benchmark's reference, as one writes it for a paper.

Model, adversary, losses, optimizer, schedule and epoch selection are those of the package; every utterance is read, transformed
and augmented individually in every epoch.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from torchaudio.transforms import FrequencyMasking, TimeMasking

from speaker_invariant_ser import metrics
from speaker_invariant_ser.adversaries.base import AdversaryBatch
from speaker_invariant_ser.adversaries.registry import ADVERSARIES
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.features.log_mel import LogMel
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.training.checks import target_values
from speaker_invariant_ser.training.objective import build_model, class_weights
from speaker_invariant_ser.training.optimisation import exponential_average

Item = tuple[Tensor, int, int]  # log-mel [T, M], emotion, speaker


class WavDataset(Dataset):
    """Wav files; each is read, transformed to a log-mel and masked when it is asked for."""

    def __init__(self, paths: Sequence[Path], emotions: Sequence[int], speakers: Sequence[int], recipe: Recipe, masked: bool):
        self.paths, self.emotions, self.speakers = paths, emotions, speakers
        self.logmel = LogMel(recipe.features, SAMPLE_RATE)
        settings, longest = recipe.augment, round(recipe.augment.time_mask_ms / recipe.features.hop_ms)
        bands = [FrequencyMasking(settings.frequency_mask_bands) for _ in range(settings.frequency_masks)]
        times = [TimeMasking(longest, p=0.2) for _ in range(settings.time_masks)]
        self.masks = bands + times if masked else []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        audio, _ = soundfile.read(self.paths[index], dtype="float32")
        mels, _ = self.logmel(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
        mean = float(mels.mean())
        for mask in self.masks:
            mels = mask(mels, mean)
        return mels[0].T, self.emotions[index], self.speakers[index]


def collate(items: list[Item]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return zero-padded log-mels [B, M, T], and frames, emotions and speakers [B]."""
    mels, emotion, speaker = zip(*items, strict=True)
    frames = torch.tensor([len(mel) for mel in mels])
    return pad_sequence(mels, batch_first=True).transpose(1, 2), frames, torch.tensor(emotion), torch.tensor(speaker)


def train_fold(
    folder: Path, prepared: PreparedCorpus, split: Split, recipe: Recipe, workers: int, advance: Callable[[], object]
) -> SerModel:
    """Train one fold.

    Args:
        folder: Folder of the corpus with its wav files.
        prepared: The same corpus, prepared: only its manifest is used.
        split: The fold.
        recipe: The recipe.
        workers: Worker processes of the DataLoader.
        advance: Called after each epoch.

    Returns:
        The model with the moving average of the weights, of the epoch that was best on the dev speakers.
    """
    torch.manual_seed(recipe.train.seed)
    labels = sorted({utterance.emotion for utterance in prepared.utterances})
    speakers = target_values(prepared, split, "speaker")

    def dataset(part: str, masked: bool = False) -> WavDataset:
        utterances = [prepared.utterances[index] for index in split.indices(part, prepared.utterances)]
        speaker = [speakers.index(utterance.speaker) if part == "train" else 0 for utterance in utterances]
        emotion = [labels.index(utterance.emotion) for utterance in utterances]
        return WavDataset([folder / utterance.source for utterance in utterances], emotion, speaker, recipe, masked)

    options = {"collate_fn": collate, "num_workers": workers, "persistent_workers": workers > 0}
    train = DataLoader(dataset("train", masked=True), recipe.train.batch_size, shuffle=True, drop_last=True, **options)
    dev = DataLoader(dataset("dev"), recipe.train.batch_size, **options)
    model = build_model(recipe, labels)
    model.normalise.fit(mels.T for mels, _, _ in dataset("train"))
    adversary = ADVERSARIES[recipe.adversary.name](recipe.encoder.dim, len(speakers), recipe.adversary, len(labels))
    counts = torch.tensor(train.dataset.emotions).bincount(minlength=len(labels))
    weight, smoothing = class_weights(counts / counts.sum()), recipe.emotion.label_smoothing
    parameters = [*model.parameters(), *adversary.parameters()]
    optimizer = torch.optim.AdamW(parameters, recipe.train.learning_rate, weight_decay=recipe.train.weight_decay)
    total_steps, step = recipe.train.epochs * len(train), 0
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.train.learning_rate, total_steps=total_steps)
    averaged = AveragedModel(model, multi_avg_fn=exponential_average(recipe.train.ema), use_buffers=True)
    best = (-1.0, 0.0)
    for _ in range(recipe.train.epochs):
        model.train()
        for mels, frames, emotion, speaker in train:
            output = model.from_mels(mels, frames)
            emotion_loss = F.cross_entropy(output.logits, emotion, weight, label_smoothing=smoothing)
            one_hot = F.one_hot(emotion, len(labels)).float(), F.one_hot(speaker, len(speakers)).float()
            adversarial_loss = adversary(output.embedding, AdversaryBatch(frames, *one_hot), step / max(1, total_steps - 1))
            optimizer.zero_grad()
            (emotion_loss + adversarial_loss).backward()
            for part in (model, adversary):
                nn.utils.clip_grad_norm_(part.parameters(), recipe.train.gradient_clip)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(model)
            step += 1
        scores = score(averaged.module, dev)
        if scores > best:
            best, best_weights = scores, copy.deepcopy(averaged.module.state_dict())
        advance()
    model.load_state_dict(best_weights)
    return model.eval()


@torch.inference_mode()
def score(model: SerModel, loader: DataLoader) -> tuple[float, float]:
    """Return (UAR, minus the mean cross-entropy): the greater the better."""
    model.eval()
    batches = [(model.from_mels(mels, frames).logits, emotion) for mels, frames, emotion, _ in loader]
    logits, truth = (torch.cat(part) for part in zip(*batches, strict=True))
    return metrics.uar(truth.numpy(), logits.argmax(1).numpy(), len(model.labels)), -F.cross_entropy(logits, truth).item()
