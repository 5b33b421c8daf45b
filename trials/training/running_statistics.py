"""BN's running statistics in a training and after a search: of the network at hand, however few the steps were."""

from __future__ import annotations

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from strategies.autonl.batch_statistics import estimated_statistics, norms

from .devices import synced_batch_norm

__all__ = ['STATISTICS_BATCHES', 'UnbiasedStatistics', 'estimate_statistics']

STATISTICS_BATCHES = 20
"""Training batches that the statistics of a network out of a search are estimated on."""


class UnbiasedStatistics(pl.Callback):
    """Running statistics that hold nothing of what they started from, from a training's first step on.

    With BN's momentum ``m``, step ``t`` (from 1) has the momentum ``m / (1 − (1 − m)ᵗ)``: the running mean of ``t``
    batches is then ``Σ_i (1 − m)^(t−i) x_i / Σ_i (1 − m)^(t−i)``. It falls from 1 to ``m``, as in Adam's bias
    correction. By itself a running mean holds ``(1 − m)ᵗ`` of its start: 55% after 60 steps at ``m = 0.01``.

    So it is too where the network came with statistics, as one that a recipe names as ``initial``: they are of other
    images, and evaluation would mix them with those of the training.

    Source: Kingma and Ba, "Adam" (ICLR 2015), section 3.
    """

    def on_fit_start(self, trainer, pl_module):
        self._momenta = {norm: norm.momentum for norm in norms(pl_module) if norm.momentum}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        step = trainer.fit_loop.total_batch_idx + 1
        for norm, momentum in self._momenta.items():
            norm.momentum = momentum / (1 - (1 - momentum) ** step)

    def on_fit_end(self, trainer, pl_module):
        for norm, momentum in self._momenta.items():
            norm.momentum = momentum


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> None:
    """Estimate BN's statistics of ``network`` anew, as the mean over ``batches`` of images and labels.

    Where several processes train together each gives its part of every batch, and the statistics are those of all.

    Args:
        network: on the CPU, where it is left.
        batches: of training data.
        device: to compute on.
    """
    network.to(device)
    with synced_batch_norm(network), estimated_statistics(network):
        for images, _ in batches:
            network(images.to(device, memory_format=torch.channels_last))
    network.cpu()
