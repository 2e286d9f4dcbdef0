"""Processes that share a batch: what one of them needs of the others, with the gradients that belong to it."""

import torch
import torch.distributed as dist
from torch import Tensor


def together() -> bool:
    """Whether several processes share each batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Summed(torch.autograd.Function):
    """The sum of a tensor over all processes; backward that of its gradients, since every process's loss depends on it."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return Summed.forward(ctx, gradient.contiguous())


class Gathered(torch.autograd.Function):
    """The rows of all processes, in the order of the batch; backward for a loss that is the same in all processes.

    Fabric averages the processes' gradients of the model, of which each has those of its own rows: hence times their number.
    """

    @staticmethod
    def forward(ctx, x: Tensor, n: int) -> Tensor:
        ctx.world, ctx.rank, ctx.rows = dist.get_world_size(), dist.get_rank(), len(x)
        padded = torch.cat((x, x.new_zeros(-(-n // ctx.world) - len(x), *x.shape[1:]))).contiguous()
        parts = [torch.empty_like(padded) for _ in range(ctx.world)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:n]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.world * gradient[ctx.rank :: ctx.world][: ctx.rows], None


def gathered(x: Tensor, n: int) -> Tensor:
    """The batch's n rows, of which each process has its own ones."""
    return Gathered.apply(x, n) if together() else x
