"""BN's running statistics: of which network they are, and how they are estimated for another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ['batches_own_statistics', 'estimated_statistics', 'norms', 'statistics_of']


def norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch normalizations of a network that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def statistics_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the running statistics of a network, by name: what :meth:`~torch.nn.Module.load_state_dict` takes."""
    of_norms = {id(buffer) for norm in norms(network) for buffer in norm.buffers()}
    return {name: buffer.clone() for name, buffer in network.named_buffers() if id(buffer) in of_norms}


@contextmanager
def batches_own_statistics(network: nn.Module) -> Iterator[None]:
    """Within, forward passes are of evaluation but normalize by each batch's own statistics; those kept stay."""
    with _evaluation_but_norms(network, momentum=0.0):
        yield


@contextmanager
def estimated_statistics(network: nn.Module) -> Iterator[None]:
    """Within, forward passes make the running statistics anew: the mean over the batches, each as much as any other.

    A supernet's statistics are a mixture of the networks that it was; after this they are of the network that it is.
    Everything but the batch normalizations is as in evaluation.

    >>> with torch.no_grad(), estimated_statistics(network):
    ...     for images, _ in batches:
    ...         network(images)
    """
    for norm in norms(network):
        norm.reset_running_stats()
    with _evaluation_but_norms(network, momentum=None):
        yield


@contextmanager
def _evaluation_but_norms(network: nn.Module, momentum: float | None) -> Iterator[None]:
    modes = {m: m.training for m in network.modules()}
    momenta = {norm: norm.momentum for norm in norms(network)}
    network.eval()
    try:
        for norm in momenta:
            norm.train()
            norm.momentum = momentum
        yield
    finally:
        for norm, own in momenta.items():
            norm.momentum = own
        for module, mode in modes.items():
            module.training = mode
