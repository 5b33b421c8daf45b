"""Budgets: the knapsack over a space's cost, against every network of small spaces."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import Cost, load_skeleton, macs
from search_space.cost.macs import CostTable
from strategies.autonl.knapsack import best_within, check_budget


@st.composite
def small_costs(draw):
    """A cost of up to four tables, whole or not, and losses of its candidates."""
    number = st.one_of(st.integers(0, 60), st.floats(0, 60)) if draw(st.booleans()) else st.integers(0, 60)
    tables, losses = [], {}
    for index in range(draw(st.integers(1, 4))):
        choices = {f'row{index}/{key}': tuple(range(draw(st.integers(1, 3)))) for key in ('kernel', 'expansion')}
        costs = {values: draw(number) for values in itertools.product(*choices.values())}
        tables.append(CostTable(choices, costs))
        for label, candidates in choices.items():
            losses[label] = {candidate: draw(st.floats(-3, 3)) for candidate in candidates}
    return Cost(tables, draw(number)), losses


def every_sample(cost):
    choices = {label: values for table in cost.tables for label, values in table.choices.items()}
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


@settings(deadline=None, max_examples=60)
@given(small_costs(), st.floats(0, 1), st.floats(0, 1))
def test_the_sample_found_is_the_best_of_all_within_the_budget(space, share_of_range, share_of_budget):
    cost, losses = space
    low, high = cost.range()
    budget = low + share_of_range * (high - low)
    at_least = share_of_budget * budget

    def loss(sample):
        return sum(losses[label][candidate] for label, candidate in sample.items())

    found = best_within(cost, losses, budget, at_least)
    rounding = 1e-4 * (1 + budget)  # costs are rounded up
    surely = [s for s in every_sample(cost) if at_least <= cost(s) <= budget - rounding]
    if found is None:
        assert not surely or min(cost(s) for s in surely) < at_least + rounding
        return
    assert at_least <= cost(found) <= budget
    whole = all(float(c).is_integer() for table in cost.tables for c in table.costs.values())
    if whole and at_least <= low:
        within = [s for s in every_sample(cost) if at_least <= cost(s) <= budget]
        assert loss(found) == pytest.approx(min(map(loss, within)))


@pytest.mark.parametrize('name', ['cued', 'cifar', 'mobile', 'mobilenet-v2'])
@pytest.mark.slow
def test_budgets_across_a_space_are_met_within_the_tolerance(name):
    skeleton, draw = load_skeleton(name), random.Random(0)
    cost = macs(skeleton)
    losses = {label: {c: draw.random() for c in candidates} for label, candidates in skeleton.choices().items()}
    low, high = cost.range()
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        budget = low + share * (high - low)
        sample = skeleton.check_sample(best_within(cost, losses, budget, max(0.95 * budget, low)))
        assert 0.95 * budget <= cost(sample) <= budget


def test_a_budget_that_no_network_meets_is_refused_with_the_range_of_the_space():
    cost = macs(load_skeleton('cued'))
    low, high = cost.range()
    check_budget(cost, low, 'MACs')
    with pytest.raises(ValueError, match=f'budget of 1,000,000 MACs: the smallest costs {low:,}, the largest {high:,}'):
        check_budget(cost, 1e6, 'MACs')
