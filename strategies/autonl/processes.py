"""The processes that train one network together: how many, which one this is, and means over all of them."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

__all__ = ['in_any_process', 'mean_over_processes', 'process_count', 'process_rank']


def process_count() -> int:
    """How many processes train together; 1 where this one is alone."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_rank() -> int:
    """Which of them this process is, from 0."""
    return distributed.get_rank() if process_count() > 1 else 0


def in_any_process(x: Tensor) -> Tensor:
    """Where ``x``, any shape of bool, is true in any of the processes; the same in all of them."""
    if process_count() == 1:
        return x
    found = [x] * process_count()
    distributed.all_gather_object(found, x)  # whatever device x is on
    return torch.stack(found).any(0)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        mean = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(mean)
        return mean / process_count()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Mean.apply(grad)


def mean_over_processes(x: Tensor) -> Tensor:
    """``Σ_r x_r / R`` over the R processes, any shape, the same in all of them; ``x`` itself in a process alone.

    Its gradient is the mean of the processes' gradients. With ``L = Σ_r L_r / R`` for the loss, and the gradients of
    weights averaged over the processes, as :class:`torch.nn.parallel.DistributedDataParallel` does, these are those of
    L in one process.
    """
    return x if process_count() == 1 else _Mean.apply(x)
