"""What updates the weights: optimizers, learning-rate schedules, averages of the weights, and the precision."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.recipe import TrainSection
from speaker_invariant_ser.training.checkpoints import require_like

STATISTICS_BATCHES = 64  # that batch-norm statistics of averaged weights are estimated from; more would hardly change a mean

# From an optimizer, whose learning rates are the peaks, and the number of steps of a training.
LEARNING_RATE_SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, int], lr_scheduler.LRScheduler]] = {
    "one-cycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps
    ),
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0),
}


class Optimizers:
    """All optimizers of a training.

    Adversaries with a learning rate of their own share one Adam with beta1 = 0.5: a short memory of gradients, since their
    inputs change while they learn (Radford et al., ICLR 2016). Everything else is trained by one AdamW.

    Args:
        parameters: What AdamW trains.
        separate_groups: Parameter groups of Adam; none if no adversary has a learning rate of its own.
        settings: [train] of the recipe.
        fine_tuned: Parameter groups, with a learning rate, of those of `parameters` that a pre-trained encoder has.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        separate_groups: list[dict],
        settings: TrainSection,
        fine_tuned: Sequence[dict] = (),
    ) -> None:
        apart = {id(parameter) for group in fine_tuned for parameter in group["params"]}
        others = [parameter for parameter in parameters if id(parameter) not in apart]
        self.model: torch.optim.Optimizer = torch.optim.AdamW(
            [{"params": others}, *fine_tuned], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
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
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for number, moments in state[str(index)]["state"].items():
                example = {"step": torch.zeros(()), "exp_avg": parameters[number], "exp_avg_sq": parameters[number]}
                require_like(moments, {name: value.detach() for name, value in example.items()}, f"moments of weight {number}")
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


class WeightAverage(Protocol):
    """An average of the weights of a training: it is what is scored, selected and saved."""

    def after_step(self, model: SerModel) -> None:
        """Take note of the weights after an update."""
        ...

    def after_epoch(self, model: SerModel, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take note of the weights after an epoch; `batches` are its log-mels [B, M, T] and frames [B], read if needed."""
        ...

    @property
    def averaged(self) -> SerModel:
        """The model with the averaged weights."""
        ...

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        ...

    def load_state_dict(self, state: dict, /) -> object:
        """Continue from a state."""
        ...


class MovingAverage(AveragedModel):
    """Exponential moving average of weights and batch-norm statistics over the steps (Polyak and Juditsky 1992)."""

    def __init__(self, model: SerModel, decay: float) -> None:
        super().__init__(model, multi_avg_fn=exponential_average(decay), use_buffers=True)

    def after_step(self, model: SerModel) -> None:
        """Update the average."""
        self.update_parameters(model)

    def after_epoch(self, model: SerModel, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Do nothing: the average has the latest step already."""

    @property
    def averaged(self) -> SerModel:
        """The model with the averaged weights."""
        assert isinstance(self.module, SerModel)
        return self.module


class EpochEndAverage:
    """Equal mean of the weights at the ends of the last epochs: stochastic weight averaging (Izmailov et al., UAI 2018).

    Batch-norm statistics are not averaged: the mean of the variances under several weights is larger than the variance under
    their mean. They are estimated again on the training batches of the epoch, augmented and with dropout as in training.

    Args:
        model: The model in training.
        epochs: Number of epochs whose last weights are averaged; fewer while there are fewer.
    """

    def __init__(self, model: SerModel, epochs: int) -> None:
        self.model = copy.deepcopy(model)
        self.last: deque[dict[str, Tensor]] = deque(maxlen=epochs)

    def after_step(self, model: SerModel) -> None:
        """Do nothing: only the last weights of an epoch count."""

    def after_epoch(self, model: SerModel, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Add the weights to the average, and estimate its batch-norm statistics."""
        self.last.append({name: value.detach().clone() for name, value in model.state_dict().items()})
        latest = self.last[-1]
        self.model.load_state_dict(
            {
                name: torch.stack([weights[name] for weights in self.last]).mean(dim=0) if value.is_floating_point() else value
                for name, value in latest.items()
            }
        )
        estimate_batch_norm(self.model, batches)

    @property
    def averaged(self) -> SerModel:
        """The model with the averaged weights."""
        return self.model

    def state_dict(self) -> dict[str, list[dict[str, Tensor]]]:
        """Return the weights of the last epochs; the average follows from them at the end of the next epoch."""
        return {"last": list(self.last)}

    def load_state_dict(self, state: dict[str, list[dict[str, Tensor]]]) -> None:
        """Continue with the weights of the last epochs."""
        device = next(self.model.parameters()).device
        for weights in state["last"]:
            require_like(weights, self.model.state_dict(), "weights of an epoch")
        self.last.extend({name: value.to(device) for name, value in weights.items()} for weights in state["last"])


def estimate_batch_norm(model: SerModel, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Estimate all batch-norm statistics of a model on batches of log-mels [B, M, T] and frames [B], each with the same weight.

    The model is in evaluation mode afterwards.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.train()
    with torch.no_grad():
        for number, (mels, frames) in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number
            model.from_mels(mels, frames)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def weight_average(model: SerModel, settings: TrainSection) -> WeightAverage:
    """Return the average of the weights that [train] of the recipe asks for."""
    return EpochEndAverage(model, settings.swa_epochs) if settings.swa_epochs else MovingAverage(model, settings.ema)
