"""The one primitive of AutoNL's relaxation: a hard gate with a soft gradient, and the thresholds that it learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ['Threshold', 'gate', 'nested_weights', 'reached']


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        soft = torch.sigmoid(u)
        return grad * soft * (1 - soft)


def gate(u: Tensor) -> Tensor:
    """``1(u > 0)`` forward, the gradient of ``sigmoid(u)`` backward; any shape, elementwise.

    Source: the paper's section 3.2, after Single-Path NAS (arXiv:1904.02877), equation 3.
    """
    return _Gate.apply(u)


def reached(gates: Tensor) -> Tensor:
    """``c_j = g_1 · … · g_j`` and ``c_0 = 1``: is candidate j, each containing the one before it, within the choice?

    `(n,)` to `(n + 1,)`. What candidate j adds to the one before it is multiplied by ``c_j``.
    """
    return torch.cat([gates.new_ones(1), gates.cumprod(0)])


def nested_weights(gates: Tensor) -> Tensor:
    """The weight of each of ``n + 1`` nested candidates under ``n`` gates; `(n,)` to `(n + 1,)`.

    ``w_j = c_j − c_{j+1}`` with ``c`` of :func:`reached` and ``c_{n+1} = 0``. Hard gates give one weight of 1, and the
    weights always sum to 1.
    """
    c = reached(gates)
    return c - torch.cat([c[1:], c.new_zeros(1)])


class Threshold(nn.Module):
    """Learned thresholds of one choice: gate j is open when ``norm_j > t_j``.

    Until :meth:`activate` every gate is open, and ``t`` takes no part. Training keeps the norm, as a running mean where
    it depends on the batch: what is kept decides the gate, in training as in evaluation, and the gate's gradient goes
    to the norm at hand and to ``t``. So at any moment the supernet is one network, the one that :meth:`is_open` names.

    Args:
        gates: how many; one less than there are candidates.
        momentum: of the running mean.
    """

    t: Tensor
    norm: Tensor
    active: Tensor

    def __init__(self, gates: int = 1, momentum: float = 0.1):
        super().__init__()
        self.momentum = momentum
        self.t = nn.Parameter(torch.zeros(gates))
        self.register_buffer('norm', torch.zeros(gates))
        self.register_buffer('observed', torch.tensor(False))
        self.register_buffer('active', torch.tensor(False))

    def forward(self, norm: Tensor, running_mean: bool) -> Tensor:
        """The gates `(n,)` of the norms `(n,)`.

        Args:
            norm: of what each gate lets through.
            running_mean: is ``norm`` one batch's, to be averaged over batches? If not it stands for itself.
        """
        norm = norm.to(self.norm.dtype)  # in mixed precision it comes in the lower one
        if self.training:
            with torch.no_grad():
                mean = torch.lerp(self.norm, norm.detach(), self.momentum if running_mean else 1.0)
                self.norm.copy_(torch.where(self.observed, mean, norm.detach()))
                self.observed.fill_(True)
        if not self.active:
            return torch.ones_like(self.t)
        return gate(self.norm - self.t + (norm - norm.detach()))

    @torch.no_grad()
    def activate(self, margin: float) -> None:
        """Let the gates act from here on, starting at ``t = norm − margin``: all of them open, by that much."""
        self.t.copy_(self.norm - margin)
        self.active.fill_(True)

    def is_open(self) -> Tensor:
        """Which gates are open now, `(n,)` of bool."""
        return (self.norm > self.t) | ~self.active
