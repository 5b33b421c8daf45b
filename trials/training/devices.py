"""A trial's part on each of several devices: Lightning's arguments, and what depends on the batch of all of them.

Lightning's DDP averages the gradients. What else depends on the whole batch is averaged here (batch normalization) and
in :mod:`strategies.autonl.gated_lightnl` (the norms of a search), so that the result is that of one process up to
numerical noise. That holds where nothing is drawn at random within a step: dropout draws other numbers in each process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.layer_sync import LayerSync
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from strategies.autonl.processes import mean_over_processes, process_count

__all__ = ['SyncedBatchNorm', 'devices_of_trainer', 'synced_batch_norm']


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the batch of all processes, which must have parts of one size.

    With weight, bias and running statistics. What :class:`torch.nn.SyncBatchNorm` does on GPUs; it has no kernel for
    CPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or process_count() == 1:
            return super().forward(x)
        precise = x.to(self.running_mean.dtype)  # in mixed precision it comes in the lower one
        mean = mean_over_processes(precise.mean((0, 2, 3)))
        centred = precise - mean[:, None, None]
        variance = mean_over_processes(centred.square().mean((0, 2, 3)))
        with torch.no_grad():
            count = process_count() * x.numel() / x.shape[1]
            self.num_batches_tracked += 1
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _SyncBatchNormOnCpu(LayerSync):
    """Batch normalizations stay the modules that they are, with another forward pass."""

    def apply(self, model):
        return self._as(model, nn.BatchNorm2d, SyncedBatchNorm)

    def revert(self, model):
        return self._as(model, SyncedBatchNorm, nn.BatchNorm2d)

    def _as(self, model, old, new):
        for module in model.modules():
            if type(module) is old:
                module.__class__ = new
        return model


@contextmanager
def synced_batch_norm(network: nn.Module) -> Iterator[None]:
    """Within, the batch normalizations of ``network`` are over the batch of all processes that train together."""
    layers = _SyncBatchNormOnCpu()
    layers.apply(network)
    try:
        yield
    finally:
        layers.revert(network)


def devices_of_trainer(devices: int, all_weights_in_every_step: bool) -> dict[str, Any]:
    """Arguments of Lightning's ``Trainer``: GPUs where there are, otherwise processes.

    Args:
        devices: how many.
        all_weights_in_every_step: has every backward pass a gradient for every weight? In a search it has not.

    Raises:
        ValueError: there are GPUs, but not as many.
    """
    if devices == 1:
        return {'accelerator': 'auto', 'devices': 1}
    on_gpu = torch.cuda.is_available()
    if on_gpu and torch.cuda.device_count() < devices:
        raise ValueError(f'trial parameter devices is {devices}, but the GPUs here are {torch.cuda.device_count()}')
    return {
        'accelerator': 'gpu' if on_gpu else 'cpu',
        'devices': devices,
        # Buffers are the same in all processes: what they are made of is averaged.
        'strategy': DDPStrategy(find_unused_parameters=not all_weights_in_every_step, broadcast_buffers=False),
        'use_distributed_sampler': False,
        'sync_batchnorm': on_gpu,
        'plugins': [LightningEnvironment(), *([] if on_gpu else [_SyncBatchNormOnCpu()])],
    }
