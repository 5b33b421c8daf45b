"""The weight on the cost, given or learned."""

import pytest
import torch

from strategies.autonl.objective import CostObjective


def test_without_a_budget_the_weight_stays_as_given():
    objective = CostObjective(2.0)
    cost = torch.tensor(100.0, requires_grad=True)
    objective(cost).backward()
    assert cost.grad.item() == pytest.approx(2 / 100)
    objective.adapt(cost)
    assert objective.cost_weight.item() == 2


def test_under_a_budget_the_weight_climbs_above_it_and_falls_below_it():
    objective = CostObjective(0.0, budget=100.0)
    weights = []
    for cost in (200.0, 110.0, 97.5, 90.0, 10.0):
        before = objective.cost_weight.item()
        objective.adapt(torch.tensor(cost, dtype=torch.float64))
        weights.append(objective.cost_weight.item() - before)
    assert weights[0] == pytest.approx(weights[1])
    assert weights[1] > 0
    assert weights[2] == pytest.approx(0, abs=1e-6)
    assert weights[3] == pytest.approx(weights[4])
    assert weights[4] < 0
