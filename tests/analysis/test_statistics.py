"""Intervals and correlations: what must hold of them."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis import mean_interval, paired_differences, rank_correlation, strategy_means

ACCURACIES = st.lists(st.integers(0, 50_000).map(lambda right: right / 50_000), min_size=2, max_size=8)
"""Of as many images as ImageNet has: squares of their differences do not underflow."""


@settings(max_examples=25, deadline=None)
@given(ACCURACIES, st.floats(0.5, 0.99))
def test_an_interval_is_students_around_the_mean(values, level):
    interval = mean_interval(values, level)
    assert interval.n == len(values)
    assert interval.estimate == pytest.approx(sum(values) / len(values))
    assert interval.low <= interval.estimate <= interval.high
    if min(values) < max(values):
        on_its_edge = stats.ttest_1samp(values, interval.high).pvalue
        assert on_its_edge == pytest.approx(1 - level, abs=1e-6)


def test_an_interval_of_three_seeds_holds_the_mean_that_they_are_of_as_often_as_it_says():
    seeds = stats.norm(0.9, 0.02).rvs((2000, 3), random_state=0)
    intervals = [mean_interval(values) for values in seeds]
    held = sum(interval.low <= 0.9 <= interval.high for interval in intervals)
    assert stats.binomtest(held, len(intervals), 0.95).pvalue > 1e-3


@pytest.mark.parametrize(('values', 'n'), [([], 0), ([0.5], 1), ([0.5, None, float('nan'), pd.NA], 1)])
def test_there_is_no_interval_of_fewer_than_two_values(values, n):
    interval = mean_interval(values)
    assert interval.n == n
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def comparison(**accuracies):
    return pd.DataFrame(
        [
            {'experiment': f'e{seed}', 'strategy': strategy, 'test_accuracy': value}
            for strategy, values in accuracies.items()
            for seed, value in enumerate(values)
        ]
    )


def test_means_are_per_strategy_with_their_number():
    means = strategy_means(comparison(autonl=[0.9, 0.8, 0.7], random=[0.5, None, 0.7])).set_index('strategy')
    assert means.estimate.to_dict() == pytest.approx({'autonl': 0.8, 'random': 0.6})
    assert means.n.to_dict() == {'autonl': 3, 'random': 2}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_what_the_strategies_of_an_experiment_share_leaves_their_difference(runs):
    autonl, random, shared = zip(*runs)
    plain = paired_differences(comparison(autonl=autonl, random=random)).iloc[0]
    moved = paired_differences(
        comparison(autonl=[a + s for a, s in zip(autonl, shared)], random=[r + s for r, s in zip(random, shared)])
    ).iloc[0]
    assert (plain.strategy, plain.than, plain.n) == ('autonl', 'random', len(runs))
    assert moved[['estimate', 'low', 'high']].tolist() == pytest.approx(
        plain[['estimate', 'low', 'high']].tolist(), abs=1e-9
    )


def test_only_pairs_count_in_a_paired_difference():
    differences = paired_differences(comparison(autonl=[0.9, 0.8, None], random=[0.5, None, 0.1]))
    assert differences[['estimate', 'n']].to_numpy().tolist() == [[pytest.approx(0.4), 1]]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=10))
def test_rank_correlation_is_kendalls_with_an_interval_within_its_range(pairs):
    x, y = zip(*pairs)
    tau = rank_correlation(x, y, resamples=100)
    assert tau.n == len(pairs)
    if math.isnan(tau.estimate):
        assert len(set(x)) == 1 or len(set(y)) == 1
    else:
        assert tau.estimate == pytest.approx(stats.kendalltau(x, y).statistic)
        assert -1 <= tau.low <= tau.high <= 1


@pytest.mark.slow
def test_rank_correlation_sees_order_alone():
    x = [0.1, 0.4, 0.5, 0.9, 0.95]
    assert rank_correlation(x, [value**3 for value in x])[:3] == pytest.approx((1, 1, 1))
    assert rank_correlation(x, [-value for value in x]).estimate == pytest.approx(-1)


@pytest.mark.parametrize(('x', 'n'), [([], 0), ([0.5], 1), ([0.5, None], 1)])
def test_there_is_no_rank_correlation_of_fewer_than_two_pairs(x, n):
    tau = rank_correlation(x, x)
    assert math.isnan(tau.estimate)
    assert tau.n == n
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3]).low)  # and of three no interval
