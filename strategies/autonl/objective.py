"""What the thresholds are learned on, beside the loss: a weight on the logarithm of the cost, given or learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .knapsack import TOLERANCE

__all__ = ['CostObjective']

RATE = 0.05
"""How far λ moves at most in one step under a budget."""


class CostObjective(nn.Module):
    """``λ · log(cost)``: with λ as given, or under a budget with λ as the multiplier of ``log(cost) ≤ log(budget)``.

    Under a budget λ climbs while the cost is above the middle of what the budget tolerates and falls while it is below,
    by ``RATE · clip(log(cost / middle) / TOLERANCE, −1, 1)`` a step (dual ascent). It may become negative: then cost is
    sought, as a budget is to be filled.

    Source: the paper's section 3.2 has ``λ · log(MACs)``; the budget is ours.

    Args:
        cost_weight: λ, or under a budget its start.
        budget: in the cost's unit; None is none.
    """

    cost_weight: Tensor

    def __init__(self, cost_weight: float, budget: float | None = None):
        super().__init__()
        self.middle = None if budget is None else budget * (1 - TOLERANCE / 2)
        self.register_buffer('cost_weight', torch.tensor(float(cost_weight)))

    def forward(self, cost: Tensor) -> Tensor:
        return self.cost_weight * torch.log(cost)

    @torch.no_grad()
    def adapt(self, cost: Tensor) -> None:
        """One step of λ; nothing without a budget."""
        if self.middle is not None:
            self.cost_weight += RATE * (torch.log(cost / self.middle) / TOLERANCE).clamp(-1, 1)
