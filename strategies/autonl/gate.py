"""The one primitive of AutoNL's relaxation: a hard gate with a soft gradient, and the thresholds that it learns."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ['Threshold', 'behind_gates', 'gate', 'nested_mask', 'nested_weights']


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(at)
        return (at > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        soft = torch.sigmoid(ctx.saved_tensors[0])
        return torch.ops.aten.sigmoid_backward(grad, soft), None


def gate(u: Tensor, at: Tensor | None = None) -> Tensor:
    """``1(u > 0)`` forward, the gradient of ``sigmoid(u)`` backward; any shape, elementwise.

    Source: the paper's section 3.2, after Single-Path NAS (arXiv:1904.02877), equation 3.

    Args:
        u: where the gradient goes.
        at: the value that ``u`` is taken to have; its own by default.
    """
    return _Gate.apply(u, (u if at is None else at).detach())


def nested_weights(gates: Tensor) -> Tensor:
    """The weight of each of ``n + 1`` nested candidates under ``n`` gates; `(n,)` to `(n + 1,)`.

    ``w_j = c_j − c_{j+1}`` with ``c_j = g_1 · … · g_j``, ``c_0 = 1`` and ``c_{n+1} = 0``. Hard gates give one weight of
    1, and the weights always sum to 1.
    """
    c = gates.cumprod(0) if len(gates) > 1 else gates
    return torch.cat([1 - c[:1], c[:-1] - c[1:], c[-1:]])


def nested_mask(gates: Tensor, behind: Tensor) -> Tensor:
    """The product of the gates that each element is behind; `(n,)` and, of bool, `(n, ...)` to `(...)`.

    An element that candidate j adds to the one before it is behind the gates 1 to j: it is multiplied by ``c_j``.
    """
    masks = [torch.where(elements, g, 1.0) for elements, g in zip(behind.unbind(), gates.unbind(), strict=True)]
    return functools.reduce(torch.mul, masks)


def behind_gates(sizes: list[int]) -> Tensor:
    """Which of the largest of nested prefixes are behind which gate; `(len(sizes) - 1, max size)` of bool."""
    return torch.arange(sizes[-1]) >= torch.tensor(sizes[:-1])[:, None]


class Threshold(nn.Module):
    """Learned thresholds of one choice among nested candidates: gate j is open when ``norm_j > t_j``.

    Until :meth:`activate` every gate is open, and ``t`` takes no part. Training keeps the norm, as a running mean where
    it depends on the batch: what is kept decides the gate, in training as in evaluation, and the gate's gradient goes
    to the norm at hand and to ``t``. So at any moment the supernet is one network, the one that :meth:`is_open` names.

    Args:
        candidates: each containing the one before it; gate j is what candidate j adds to candidate j - 1.
        momentum: of the running mean.
    """

    t: Tensor
    norm: Tensor

    def __init__(self, candidates: Sequence, momentum: float = 0.1):
        super().__init__()
        self.candidates, self.momentum = tuple(candidates), momentum
        gates = len(self.candidates) - 1
        self.t = nn.Parameter(torch.zeros(gates))
        self.register_buffer('norm', torch.zeros(gates))
        # Not buffers: to branch on a tensor is to wait for the GPU, and a step has a hundred thresholds.
        self.observed = self.active = False
        self.draws = False  # is the network one that is drawn, and not the gates'?
        self.drawn: Tensor | None = None  # gates in place of its own

    def get_extra_state(self) -> dict[str, bool]:
        return {'observed': self.observed, 'active': self.active}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        self.observed, self.active = state['observed'], state['active']

    def forward(self, norm: Tensor, running_mean: bool) -> Tensor:
        """The gates `(n,)` of the norms `(n,)`.

        Args:
            norm: of what each gate lets through.
            running_mean: is ``norm`` one batch's, to be averaged over batches? If not it stands for itself.
        """
        norm = norm.to(self.norm.dtype)  # in mixed precision it comes in the lower one
        if self.training and not (running_mean and self.draws):
            self.norm.lerp_(norm.detach(), self.momentum if running_mean and self.observed else 1.0)
            self.observed = True
        if self.drawn is not None:
            return self.drawn
        if not self.active:
            return torch.ones_like(self.t)
        return gate(norm - self.t, at=self.norm - self.t.detach())

    @contextmanager
    def drawing(self, candidate: int | None) -> Iterator[None]:
        """Within, the network is a drawn one, not the gates': a running mean, which decides for them, is left as it is.

        Args:
            candidate: index of the one to take, by gates `(n,)` without a gradient; None leaves the gates their own.
        """
        self.draws = True
        if candidate is not None:
            self.drawn = (torch.arange(len(self.t), device=self.t.device) < candidate).to(self.t.dtype)
        try:
            yield
        finally:
            self.draws, self.drawn = False, None

    @torch.no_grad()
    def activate(self, margin: float) -> None:
        """Let the gates act from here on, starting at ``t = norm − margin``: all of them open, by that much."""
        self.t.copy_(self.norm - margin)
        self.active = True

    def is_open(self) -> Tensor:
        """Which gates are open now, `(n,)` of bool."""
        return self.norm > self.t if self.active else torch.ones_like(self.t, dtype=torch.bool)

    def chosen(self):
        """The candidate that the gates choose now: the last that is reached."""
        return self.candidates[int(self.is_open().int().cumprod(0).sum())]

    @torch.no_grad()
    def choose(self, candidate, margin: float) -> None:
        """Make the gates choose ``candidate``: a threshold that says otherwise moves to ``margin`` from its norm."""
        index = self.candidates.index(candidate)
        is_open = self.is_open()
        self.t[:index] = torch.where(is_open[:index], self.t[:index], self.norm[:index] - margin)
        if index < len(is_open) and is_open[index]:
            self.t[index] = self.norm[index] + margin
