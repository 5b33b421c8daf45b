"""The weight on the cost, given or learned."""

import pytest
import torch

from strategies.autonl.objective import CostObjective

STEPS = 1000


def change(objective: CostObjective, cost: float, steps: int = STEPS) -> float:
    before = objective.cost_weight.item()
    objective.adapt(torch.tensor(cost, dtype=torch.float64), steps)
    return objective.cost_weight.item() - before


def test_without_a_budget_the_weight_stays_as_given():
    objective = CostObjective(2.0)
    cost = torch.tensor(100.0, requires_grad=True)
    objective(cost).backward()
    assert cost.grad.item() == pytest.approx(2 / 100)
    assert change(objective, 100.0) == 0


def test_under_a_budget_the_weight_climbs_above_it_and_falls_below_it():
    objective = CostObjective(5.0, budget=100.0)
    changes = [change(objective, cost) for cost in (200.0, 110.0, 100.0, 90.0, 10.0)]
    assert changes[0] == pytest.approx(changes[1])
    assert changes[1] > 0
    assert changes[2] == pytest.approx(0, abs=1e-6)
    assert changes[3] == pytest.approx(changes[4]) == -changes[0]


@pytest.mark.parametrize('steps', [10, 1000])
def test_the_weight_goes_as_far_in_few_steps_as_in_many(steps):
    objective = CostObjective(0.0, budget=100.0)
    for _ in range(steps // 5):
        change(objective, 1000.0, steps)
    assert objective.cost_weight.item() == pytest.approx(5.0, rel=1e-4)


@pytest.mark.parametrize(('least_fill', 'smallest'), [(0.0, 0.0), (0.95, -10.0)])
def test_the_weight_has_bounds_and_rewards_cost_only_where_a_budget_is_to_be_filled(least_fill, smallest):
    objective = CostObjective(1.0, budget=100.0, least_fill=least_fill)
    for cost, bound in ((1e6, 10.0), (1.0, smallest)):
        for _ in range(STEPS):
            change(objective, cost)
        assert objective.cost_weight.item() == bound


def test_a_budget_that_is_to_be_filled_is_aimed_at_in_the_middle():
    objective = CostObjective(1.0, budget=100.0, least_fill=0.9)
    assert change(objective, 95.0) == pytest.approx(0, abs=1e-6)
