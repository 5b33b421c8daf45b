"""Which networks a supernet holds for given budgets, on losses that are known."""

import random

import pytest

from search_space import load_skeleton, macs
from strategies.autonl.selection import front, loss_changes


@pytest.fixture
def space():
    skeleton = load_skeleton('cued')
    return skeleton, macs(skeleton)


def additive_loss(skeleton, seed: int):
    draw = random.Random(seed)
    worth = {label: {c: draw.random() for c in candidates} for label, candidates in skeleton.choices().items()}
    return lambda sample: sum(worth[label][c] for label, c in skeleton.canonical(sample).items())


def test_a_change_is_measured_for_every_choice_that_shows(space):
    skeleton, cost = space
    sample = {label: candidates[0] for label, candidates in skeleton.choices().items()}
    asked = []

    def loss(sample):
        asked.append(dict(sample))
        return float(sample['row02/lightnl'] == 'present')

    changes = loss_changes(cost, sample, loss)
    assert changes['row02/lightnl'] == {'absent': 0.0, 'present': 1.0}
    assert changes['row02/lightnl_ratio'] == {0.125: 0.0, 0.25: 0.0}
    assert len(asked) == 1 + 5  # of a row without LightNL its ratio and stride do not show


@pytest.mark.parametrize('seed', range(3))
def test_a_front_has_a_network_within_each_budget_in_their_order(space, seed):
    skeleton, cost = space
    loss = additive_loss(skeleton, seed)
    budgets = [1.62e6, 1.75e6, 1.68e6]
    start = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    for budget, sample in zip(budgets, front(cost, budgets, start, loss), strict=True):
        assert 0.95 * budget <= cost(skeleton.check_sample(sample)) <= budget


def test_what_is_worth_most_is_kept_as_long_as_the_budget_allows(space):
    skeleton, cost = space
    start = {label: candidates[-1] for label, candidates in skeleton.choices().items()}

    def loss(sample):
        return 1.0 - (sample['row01/lightnl'] == 'present')

    samples = front(cost, [1.75e6, 1.7e6, 1.66e6, 1.6e6], start, loss)
    assert [sample['row01/lightnl'] for sample in samples] == ['present', 'present', 'present', 'absent']


def test_a_budget_above_the_largest_network_is_met_from_below(space):
    skeleton, cost = space
    start = {label: candidates[0] for label, candidates in skeleton.choices().items()}
    (sample,) = front(cost, [1e9], start, additive_loss(skeleton, 0))
    skeleton.check_sample(sample)
