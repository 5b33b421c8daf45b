"""The ratio of two things that were measured in the same rounds."""

from __future__ import annotations

import math
import statistics

from scipy.stats import binom

__all__ = ['paired']


def paired(over: list[float], under: list[float]) -> tuple[float, float, float]:
    """The median ratio of the rounds that both were measured in, and its 95% interval.

    The interval is from the ratios' order, and exact: below the median are as many as heads in tosses of a coin. Of
    fewer than six rounds there is none, and its ends are NaN.
    """
    ratios = sorted(a / b for a, b in zip(over, under, strict=False))
    left_out = int(binom.ppf(0.025, len(ratios), 0.5)) - 1  # at each end: the most whose probability is within 2.5%
    low, high = (ratios[left_out], ratios[-1 - left_out]) if left_out >= 0 else (math.nan, math.nan)
    return statistics.median(ratios), low, high
