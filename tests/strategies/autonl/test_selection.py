"""Which networks a supernet holds for given budgets, on losses that are known."""

import itertools
import random
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search_space import ABSENT, PRESENT, Cost, load_skeleton, macs
from search_space.cost.macs import CostTable
from strategies.autonl.selection import Measured, front, is_told_apart, loss_changes


@pytest.fixture
def space():
    skeleton = load_skeleton('cued')
    return skeleton, macs(skeleton)


def constant(loss) -> callable:
    """Losses that every batch has alike."""
    return lambda sample: np.full(5, loss(sample))


def additive_loss(skeleton, seed: int):
    draw = random.Random(seed)
    worth = {label: {c: draw.random() for c in candidates} for label, candidates in skeleton.choices().items()}
    return constant(lambda sample: sum(worth[label][c] for label, c in skeleton.canonical(sample).items()))


def sample_of(skeleton, candidate: int) -> dict:
    return {label: candidates[candidate] for label, candidates in skeleton.choices().items()}


def test_a_network_is_measured_once_whatever_the_order_of_its_labels_and_what_does_not_show(space):
    skeleton, cost = space
    asked = []
    measured = Measured(cost, lambda sample: asked.append(sample) or np.zeros(2))
    sample = sample_of(skeleton, 0) | {'row01/lightnl': ABSENT, 'row05/lightnl': PRESENT}
    mirrored = {label: sample[label] for label in reversed(sample)}
    for other in (sample, mirrored, sample | {'row01/lightnl_ratio': 0.25}):
        measured(other)
    assert len(asked) == 1
    measured(sample | {'row05/lightnl_ratio': 0.25})
    assert len(asked) == 2


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False))
def test_every_network_gets_its_own_losses_in_a_space_of_insertions_alone(draw):
    """As of a torchvision network at one ratio and stride: whatever the selection asks for, in whatever order."""
    prices = {f'point{i}/lightnl': {ABSENT: 0, PRESENT: 5 + i} for i in range(4)}
    cost = Cost([CostTable.of({label: tuple(price)}, price.get) for label, price in prices.items()], 100.0)
    worth = {values: draw.random() for values in itertools.product((ABSENT, PRESENT), repeat=4)}
    measured = Measured(cost, constant(lambda sample: worth[tuple(sample[f'point{i}/lightnl'] for i in range(4))]))
    (found,) = front(measured, [draw.uniform(100, 130)], dict(zip(cost.choices(), draw.choice(list(worth)))))
    for network in measured.within(0, 1e9):
        assert measured(network)[0] == worth[tuple(network[f'point{i}/lightnl'] for i in range(4))]
    assert list(found) == list(cost.choices())


def test_a_change_is_measured_for_every_choice_that_shows(space):
    skeleton, cost = space
    asked = []

    def losses(sample):
        asked.append(sample)
        return np.full(3, float(sample['row02/lightnl'] == 'present'))

    changes = loss_changes(Measured(cost, losses), sample_of(skeleton, 0))
    assert changes['row02/lightnl'] == {'absent': 0.0, 'present': 1.0}
    assert changes['row02/lightnl_ratio'] == {0.125: 0.0, 0.25: 0.0}
    assert len(asked) == 1 + 5  # of a row without LightNL its ratio and stride do not show


@pytest.mark.parametrize('least_fill', [0.0, 0.95])
@pytest.mark.parametrize('seed', range(3))
def test_a_front_has_a_network_within_each_budget_in_their_order(space, seed, least_fill):
    skeleton, cost = space
    measured = Measured(cost, additive_loss(skeleton, seed))
    budgets = [1.62e6, 1.75e6, 1.68e6]
    for budget, sample in zip(budgets, front(measured, budgets, sample_of(skeleton, -1), least_fill), strict=True):
        assert least_fill * budget <= cost(skeleton.check_sample(sample)) <= budget


def test_of_a_larger_budget_no_network_is_worse(space):
    skeleton, cost = space
    budgets = sorted(np.linspace(*cost.range(), 7), reverse=True)
    for seed in range(5):
        measured = Measured(cost, additive_loss(skeleton, seed))
        losses = [measured(sample).mean() for sample in front(measured, budgets, sample_of(skeleton, -1))]
        assert losses == sorted(losses)


def test_what_is_worth_most_is_kept_as_long_as_the_budget_allows(space):
    skeleton, cost = space
    measured = Measured(cost, constant(lambda sample: 1.0 - (sample['row01/lightnl'] == 'present')))
    samples = front(measured, [1.75e6, 1.7e6, 1.66e6, 1.6e6], sample_of(skeleton, -1))
    assert [sample['row01/lightnl'] for sample in samples] == ['present', 'present', 'present', 'absent']


@pytest.mark.slow
def test_what_the_loss_does_not_tell_apart_is_not_paid_for(space):
    skeleton, cost = space
    measured = Measured(cost, constant(lambda sample: 1.0 - (sample['row01/lightnl'] == 'present')))
    (sample,) = front(measured, [cost.range()[1]], sample_of(skeleton, -1))
    cheapest = min((s for s in skeleton.networks() if s['row01/lightnl'] == 'present'), key=cost)
    assert cost(sample) == cost(cheapest)
    assert skeleton.lightnl_positions(sample).keys() == {1}


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 1))
@example(seed=85, share=1.0)  # a network that is made cheaper is the best
def test_of_the_networks_not_told_apart_from_the_best_the_cheapest_is_found(seed, share):
    skeleton = load_skeleton('cued')
    cost, rng = macs(skeleton), np.random.default_rng(seed)
    worth = {label: {c: rng.normal(0, 0.02) for c in candidates} for label, candidates in skeleton.choices().items()}

    def losses(sample):
        batches = np.random.default_rng(zlib.crc32(repr(sample).encode())).normal(0, 0.02, 20)
        return sum(worth[label][c] for label, c in sample.items()) + batches

    measured = Measured(cost, losses)
    low, high = cost.range()
    budget = low + share * (high - low)
    (found,) = front(measured, [budget], sample_of(skeleton, -1))
    within = measured.within(0, budget)
    best = min(map(measured, within), key=np.mean)
    alike = [network for network in within if not is_told_apart(measured(network), best)]
    assert cost(found) == min(map(cost, alike))


def test_networks_are_told_apart_batch_by_batch():
    rng = np.random.default_rng(0)
    of_batches = rng.normal(1, 0.5, 20)  # some batches are harder, for every network alike
    noise = rng.normal(0, 0.01, 20)
    assert is_told_apart(of_batches + 0.02 + noise, of_batches)
    assert not is_told_apart(of_batches - 0.02 + noise, of_batches)
    assert not is_told_apart(of_batches + noise - noise.mean(), of_batches)
    assert is_told_apart(np.array([1.1]), np.array([1.0]))


def test_a_budget_above_the_largest_network_is_met_from_below(space):
    skeleton, cost = space
    (sample,) = front(Measured(cost, additive_loss(skeleton, 0)), [1e9], sample_of(skeleton, 0), 0.95)
    skeleton.check_sample(sample)
