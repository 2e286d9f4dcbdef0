"""What a training is made of, from a recipe: the model, the schedule, what adversaries tell apart, the precision."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import lr_scheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.manifest import GROUPABLE
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.errors import RecipeError, shorten, unknown
from speaker_invariant_ser.models.model import ModelSettings, SerModel
from speaker_invariant_ser.recipe import Recipe

TARGETS = ("speaker", *GROUPABLE)  # columns that an adversary may read; the emotion is no such, and unlabelled clips have none

SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, float, int], lr_scheduler.LRScheduler]] = {
    "one-cycle": lambda optimizer, peak, steps: lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps),
    "cosine": lambda optimizer, peak, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "constant": lambda optimizer, peak, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0),
}


def build_model(recipe: Recipe, labels: Sequence[str]) -> SerModel:
    """An untrained model. Raises RecipeError for an unknown encoder or impossible band limits."""
    names = ("features", "encoder", "emotion", "bottleneck", "erase", "release")
    sections = {name: getattr(recipe, name) for name in names}
    return SerModel(ModelSettings(labels=labels, sample_rate=SAMPLE_RATE, **sections))


def targets_of(prepared: PreparedCorpus, split: Split, column: str, virtual: int = 0) -> list[str]:
    """What the adversary tells apart: the values of a column among the fold's training clips, with labels or without, sorted; of
    speakers then their further voices, one voice of each after another. Raises RecipeError.
    """
    trained = [prepared.utterances[at] for part in ("train", "unlabelled") for at in split.indices(part, prepared.utterances)]
    if column not in TARGETS:
        full = [name for name in TARGETS if all(getattr(one, name) for one in trained)]
        raise RecipeError(f"adversary.target: {unknown('column', column, full)}")
    values = Counter(getattr(one, column) for one in trained)
    if values[""]:
        raise RecipeError(f"adversary.target = {column}: {values['']} training clips of fold {split.name} have no {column}")
    if len(values) < 2:
        raise RecipeError(f"adversary.target = {column}: fold {split.name} trains on one {column} only ({shorten(values)})")
    voices = range(1, virtual + 1) if column == "speaker" else ()
    return [*sorted(values), *(f"{one}, voice {voice}" for voice in voices for one in sorted(values))]


def precision_of(chosen: str, device: str) -> str:
    """float32 or bfloat16. "auto" is bfloat16 where the device has units that multiply matrices of it; elsewhere it is emulated,
    and slower than float32.
    """
    if chosen != "auto":
        return chosen
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # which torch has not always had
    return "bfloat16" if capabilities.get("amx_bf16") else "float32"


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """How the moving average takes a step: by `decay`, less in the first steps, whose weights are not worth keeping."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor) -> None:
        now = min(decay, (1 + int(number)) / (10 + int(number)))
        get_ema_multi_avg_fn(now)(averaged, current, number)

    return update
