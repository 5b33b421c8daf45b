"""Comparison with uncertainty: intervals over seeds, paired where runs are paired, rank correlation."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ['Interval', 'mean_interval', 'paired_differences', 'rank_correlation', 'strategy_means']


class Interval(NamedTuple):
    """An estimate from ``n`` values, and the interval around it; missing (NaN) where n is too small."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f'{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}], n = {self.n}'


def mean_interval(values, level: float = 0.95) -> Interval:
    """The mean `m` of ``values``, and Student's interval of it: `m ± t(n - 1) · s / √n`, `s` their standard deviation.

    Of three seeds it is five times as wide as `s`: the percentile bootstrap, at most as wide as their range, would find
    differences that are none.

    Source: Student, "The Probable Error of a Mean" (1908).

    Args:
        values: one per independent run, such as the test accuracy of each seed; missing ones are left out.
        level: of the interval.
    """
    values = pd.Series(list(values)).astype('Float64').dropna().to_numpy(dtype=float)
    if len(values) < 2:
        return Interval(float(values.mean()) if len(values) else float('nan'), float('nan'), float('nan'), len(values))
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half, len(values))


def strategy_means(comparison: pd.DataFrame, column: str = 'test_accuracy', level: float = 0.95) -> pd.DataFrame:
    """A row per strategy: the mean of ``column`` over experiments, low and high of its interval, and their number n.

    Args:
        comparison: of :func:`analysis.comparison`, of experiments that differ in their seed alone.
        column: one of its numbers.
        level: of the intervals.
    """
    rows = [
        {'strategy': strategy, **mean_interval(own[column], level)._asdict()}
        for strategy, own in comparison.groupby('strategy', sort=False)
    ]
    return pd.DataFrame(rows, columns=['strategy', *Interval._fields])


def paired_differences(comparison: pd.DataFrame, column: str = 'test_accuracy', level: float = 0.95) -> pd.DataFrame:
    """A row per pair of strategies: the mean difference of ``column`` within experiments, and its interval.

    What the strategies of an experiment share (seed, data, recipe, machine) leaves the difference so. Columns:
    strategy, than (the other), estimate (strategy minus the other), low, high, n (experiments that have both).

    Args:
        comparison, column, level: as :func:`strategy_means`.
    """
    wide = comparison.pivot(index='experiment', columns='strategy', values=column).astype('float64')
    rows = []
    for strategy, other in itertools.combinations(comparison.strategy.unique(), 2):
        rows.append(
            {
                'strategy': strategy,
                'than': other,
                **mean_interval(wide[strategy] - wide[other], level)._asdict(),
            }
        )
    return pd.DataFrame(rows, columns=['strategy', 'than', *Interval._fields])


def rank_correlation(x, y, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Kendall's τ-b of pairs, and its percentile bootstrap interval over pairs.

    Missing (NaN) with fewer than two pairs, or where all of one are equal; the interval with fewer than four.
    Resamples in which all of one are equal have no τ and are left out of it.

    Args:
        x, y: of equal length, in pairs; pairs that lack one are left out.
        level: of the interval.
        resamples: with replacement, each of as many pairs.
        seed: of the resampling.
    """
    pairs = pd.DataFrame({'x': pd.Series(list(x)), 'y': pd.Series(list(y))}).astype('Float64').dropna()
    pairs = pairs.to_numpy(dtype=float)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)
        tau = stats.kendalltau(*pairs.T).statistic if len(pairs) > 1 else float('nan')
    if len(pairs) < 4 or np.isnan(tau):
        return Interval(float(tau), float('nan'), float('nan'), len(pairs))
    drawn = np.random.default_rng(seed).integers(len(pairs), size=(resamples, len(pairs)))
    taus = [stats.kendalltau(*pairs[rows].T).statistic for rows in drawn]
    low, high = np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(tau), float(low), float(high), len(pairs))
