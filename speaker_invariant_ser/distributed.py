"""Collective operations of processes that share a batch, with gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Return whether several processes share each batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is summed too, as every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the sum over all processes."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum of the gradients of all processes."""
        return SumOverProcesses.forward(ctx, gradients[0].contiguous())


class GatherRows(torch.autograd.Function):
    """The rows of all processes in the order of the batch, for a loss that is the same in all processes.

    Each process gets the gradient of its own rows, times the number of processes, because Fabric averages over them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> Tensor:
        """Return all n rows of the batch."""
        ctx.world, ctx.rank, ctx.rows = dist.get_world_size(), dist.get_rank(), len(x)
        padded = torch.cat((x, x.new_zeros(-(-n // ctx.world) - len(x), *x.shape[1:]))).contiguous()
        parts = [torch.empty_like(padded) for _ in range(ctx.world)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:n]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of this process's rows."""
        return ctx.world * gradients[0][ctx.rank :: ctx.world][: ctx.rows], None


def gather_rows(x: Tensor, n: int) -> Tensor:
    """Return all rows of a batch that is divided between processes.

    Args:
        x: This process's rows, every `world size`-th of the batch.
        n: Number of rows of the whole batch.

    Returns:
        The n rows, in the order of the batch; x itself where there is one process.
    """
    return GatherRows.apply(x, n) if is_distributed() else x
