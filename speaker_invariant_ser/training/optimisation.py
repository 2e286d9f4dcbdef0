"""What updates the weights: optimizers, learning-rate schedules, the moving average, and the precision."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from speaker_invariant_ser.recipe import TrainSection

# From an optimizer, the peak learning rate and the number of steps of a training.
LEARNING_RATE_SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, float, int], lr_scheduler.LRScheduler]] = {
    "one-cycle": lambda optimizer, peak, steps: lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps),
    "cosine": lambda optimizer, peak, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "constant": lambda optimizer, peak, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0),
}


class Optimizers:
    """All optimizers of a training.

    Adversaries with a learning rate of their own share one Adam with beta1 = 0.5: a short memory of gradients, since their
    inputs change while they learn (Radford et al., ICLR 2016). Everything else is trained by one AdamW.

    Args:
        parameters: What AdamW trains.
        separate_groups: Parameter groups of Adam; none if no adversary has a learning rate of its own.
        settings: [train] of the recipe.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], separate_groups: list[dict], settings: TrainSection) -> None:
        self.model: torch.optim.Optimizer = torch.optim.AdamW(
            [*parameters], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.adversaries = torch.optim.Adam(separate_groups, betas=(0.5, 0.999)) if separate_groups else None

    def each(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers that there are."""
        return [self.model, *([self.adversaries] if self.adversaries else ())]

    def step(self) -> None:
        """Update all parameters from their gradients, and clear these."""
        for optimizer in self.each():
            optimizer.step()
            optimizer.zero_grad()

    def step_adversaries(self) -> None:
        """Update the adversaries with an optimizer of their own, and clear their gradients."""
        assert self.adversaries, "an adversary that takes steps of its own has a learning rate"
        self.adversaries.step()
        self.adversaries.zero_grad()

    def reset_state(self, parameters: Iterable[nn.Parameter]) -> None:
        """Forget the moments of parameters that were re-initialised."""
        for parameter in parameters:
            for optimizer in self.each():
                optimizer.state.pop(parameter, None)

    def state_dict(self) -> dict[str, dict]:
        """Return the state of every optimizer for a checkpoint."""
        return {str(index): optimizer.state_dict() for index, optimizer in enumerate(self.each())}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        """Continue from the state of a checkpoint."""
        for index, optimizer in enumerate(self.each()):
            optimizer.load_state_dict(state[str(index)])


def choose_precision(setting: str, device: str) -> str:
    """Return "float32" or "bfloat16".

    Args:
        setting: `train.precision`. "auto" is bfloat16 where the device multiplies bfloat16 matrices in hardware; elsewhere it
            is emulated and slower than float32.
        device: "cpu" or "cuda".
    """
    if setting != "auto":
        return setting
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # recent versions of torch have it
    return "bfloat16" if capabilities.get("amx_bf16") else "float32"


Weights = tuple[Tensor, ...] | list[Tensor]


def exponential_average(decay: float) -> Callable[[Weights, Weights, Tensor | int], None]:
    """Return the update of an exponential moving average of the weights, for torch's AveragedModel.

    Args:
        decay: Decay per step, 0 to below 1. Over the first steps it rises from 0.1: the first weights are not worth keeping.
    """

    def update(averaged: Weights, current: Weights, steps: Tensor | int) -> None:
        warmed_up = min(decay, (1 + int(steps)) / (10 + int(steps)))
        get_ema_multi_avg_fn(warmed_up)(averaged, current, steps)

    return update
