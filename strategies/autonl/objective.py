"""What the thresholds are learned on, beside the loss: a weight on the logarithm of the cost, given or learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ['CostObjective']

TRAVEL = 25.0
"""How far λ moves at most over a whole search under a budget."""

LARGEST = 10.0
"""λ's bound under a budget. A search whose cost stays above it for long would otherwise wind λ up, and then close far
more gates than the budget asks for."""

SLACK = 0.05
"""λ moves at its full rate where the cost is off the budget by this fraction or more."""


class CostObjective(nn.Module):
    """``λ · log(cost)``: with λ as given, or under a budget with λ as the multiplier of ``log(cost) ≤ log(budget)``.

    Under a budget λ climbs while the cost is above it and falls while it is below, in each of the T threshold steps of
    a search by ``TRAVEL / T · clip(log(cost / budget) / SLACK, −1, 1)`` (dual ascent), and stays in ``[0, LARGEST]``.
    So it goes as far in a search of few steps as in one of many. Where a budget is to be filled to a part of it, the
    middle between that part and all of it stands in the budget's place, and λ may be negative, down to ``−LARGEST``:
    then cost is sought.

    Source: the paper's section 3.2 has ``λ · log(MACs)``; the budget is ours.

    Args:
        cost_weight: λ, or under a budget its start.
        budget: in the cost's unit; None is none.
        least_fill: the part of the budget that is to be filled; 0 is none, and makes the budget an upper bound alone.
    """

    cost_weight: Tensor

    def __init__(self, cost_weight: float, budget: float | None = None, least_fill: float = 0.0):
        super().__init__()
        self.target = None if budget is None else budget * (1 + least_fill) / 2 if least_fill else budget
        self.smallest = -LARGEST if least_fill else 0.0
        self.register_buffer('cost_weight', torch.tensor(float(cost_weight)))

    def forward(self, cost: Tensor) -> Tensor:
        return self.cost_weight * torch.log(cost)

    @torch.no_grad()
    def adapt(self, cost: Tensor, steps: int) -> None:
        """One step of λ, of the ``steps`` of the search; nothing without a budget."""
        if self.target is not None:
            off = (torch.log(cost / self.target) / SLACK).clamp(-1, 1)
            self.cost_weight.add_(TRAVEL / steps * off).clamp_(self.smallest, LARGEST)
