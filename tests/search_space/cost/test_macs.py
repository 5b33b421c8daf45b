"""The cost model against what is executed, and as a differentiable function."""

import itertools
import random

import pytest
import torch
from executed_cost import executed_macs
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import Cost, build, load_network, load_skeleton, macs, params, shipped_skeletons
from search_space.skeleton import Row, Skeleton

ODD_SIZES = (1, 17, 33, 75, 225)  # pixels


def random_sample(skeleton, rng):
    return {label: rng.choice(candidates) for label, candidates in skeleton.choices().items()}


@pytest.mark.parametrize('name', shipped_skeletons())
@pytest.mark.slow
def test_costs_equal_what_is_executed(name):
    """A sample checks a variant of each of its rows, so that a few have every choice at every size."""
    skeleton, rng = load_skeleton(name), random.Random(name)
    parameters = params(skeleton)
    costs = {size: macs(skeleton, size) for size in (skeleton.input_size, *ODD_SIZES)}
    for size in 3 * [s for odd in ODD_SIZES for s in (skeleton.input_size, odd)]:
        sample = random_sample(skeleton, rng)
        with torch.device('meta'):
            network = build(skeleton, sample)
        assert costs[size](sample) == executed_macs(network, size), (size, sample)
        assert parameters(sample) == sum(p.numel() for p in network.parameters()), sample


@pytest.mark.parametrize(
    ('name', 'million_macs', 'million_params'),
    [('autonl-l', 352.83, 5.580), ('autonl-s', 266.88, 4.389)],
)
def test_published_networks_cost_what_the_paper_says(name, million_macs, million_params):
    skeleton, sample = load_network(name)
    assert skeleton.name == 'mobile'
    assert round(macs(skeleton)(sample) / 1e6, 2) == million_macs
    assert round(params(skeleton)(sample) / 1e6, 3) == million_params


def test_the_counter_counts_on_a_real_device_as_on_meta():
    skeleton = load_skeleton('cued')
    sample = random_sample(skeleton, random.Random(1))
    with torch.device('meta'):
        meta = build(skeleton, sample)
    assert executed_macs(build(skeleton, sample), 32) == executed_macs(meta, 32)


@pytest.mark.parametrize('name', shipped_skeletons())
def test_the_range_of_costs_is_reached_and_holds_every_sample(name):
    skeleton, rng = load_skeleton(name), random.Random(0)
    for cost in (macs(skeleton), params(skeleton)):
        low, high = cost.range()
        assert all(low <= cost(random_sample(skeleton, rng)) <= high for _ in range(50))
        assert cost(cost.largest()) == high
    low, high = macs(skeleton).range()
    smallest = {k: min(v) for k, v in skeleton.choices().items() if k.split('/')[1] in ('kernel', 'expansion', 'se')}
    absent = {label: 'absent' for label, v in skeleton.choices().items() if 'absent' in v}
    assert macs(skeleton)({**{k: v[0] for k, v in skeleton.choices().items()}, **smallest, **absent}) == low


def one_hot(skeleton, sample):
    return {
        label: torch.tensor([float(candidate == sample[label]) for candidate in candidates])
        for label, candidates in skeleton.choices().items()
    }


@pytest.mark.parametrize('name', shipped_skeletons())
def test_the_expected_cost_is_exact_where_each_choice_has_one_weight_of_one(name):
    skeleton, rng = load_skeleton(name), random.Random(0)
    for cost in (macs(skeleton), params(skeleton)):
        for _ in range(20):
            sample = random_sample(skeleton, rng)
            assert cost.expected(one_hot(skeleton, sample)).item() == cost(sample)


def tiny_skeletons():
    values = st.fixed_dictionaries(
        {
            'lightnl': st.sampled_from([('absent', 'present'), 'present']),
            'lightnl_ratio': st.sampled_from([(0.125, 0.25), 0.5]),
            'lightnl_stride': st.sampled_from([(2, 1), (3, 2, 1), 1]),
            'kernel': st.sampled_from([(3, 5), 3]),
            'expansion': st.sampled_from([(2, 4), 3]),
            'se': st.sampled_from([0, (0, 0.25)]),
        }
    )
    rows = st.lists(values, min_size=1, max_size=2)

    def skeleton(rows):
        return Skeleton(
            name='tiny',
            input_size=9,
            classes=3,
            stem_channels=8,
            stem_stride=1,
            head_channels=4,
            rows=tuple(Row(channels=8, presence=('absent', 'present'), **row) for row in rows),
        )

    return rows.map(skeleton)


@settings(max_examples=25, deadline=None)
@given(tiny_skeletons(), st.integers(0, 2**31))
def test_the_expected_cost_is_the_mean_over_samples_of_independent_choices(skeleton, seed):
    generator = torch.Generator().manual_seed(seed)
    choices = skeleton.choices()
    probabilities = {
        label: torch.randn(len(candidates), generator=generator, dtype=torch.float64).softmax(0)
        for label, candidates in choices.items()
    }
    cost = macs(skeleton)
    # The cost is a sum over rows, so that the mean over the product of all rows' choices is a sum of means over rows.
    base = {label: candidates[0] for label, candidates in choices.items()}
    mean = cost(base)
    for row in range(1, len(skeleton.rows) + 1):
        own = {label: c for label, c in choices.items() if label.startswith(f'row{row:02d}/')}
        for values in itertools.product(*own.values()):
            probability = 1.0
            for label, value in zip(own, values):
                probability *= probabilities[label][own[label].index(value)].item()
            mean += probability * (cost({**base, **dict(zip(own, values))}) - cost(base))
    assert cost.expected(probabilities).item() == pytest.approx(mean, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(tiny_skeletons(), st.integers(0, 2**31))
def test_the_expected_cost_has_the_gradient_of_finite_differences(skeleton, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = list(skeleton.choices())
    weights = [
        torch.rand(len(c), generator=generator, dtype=torch.float64).requires_grad_()
        for c in skeleton.choices().values()
    ]
    cost = macs(skeleton)
    assert torch.autograd.gradcheck(lambda *w: cost.expected(dict(zip(labels, w))) / cost.fixed, weights)


def test_a_cost_may_be_any_sum_over_rows():
    skeleton = load_skeleton('cued')
    seconds = Cost.of_rows(skeleton, lambda row, in_channels, size: 0.25 * row.channels, 0.5)
    sample = random_sample(skeleton, random.Random(0))
    assert seconds(sample) == 0.5 + 0.25 * sum(row.channels for row in skeleton.rows)
