"""The interval of a ratio that is taken from the order of its rounds."""

import math

import pytest
from scipy.stats import binom

from benchmarks.speed.paired import paired


@pytest.mark.parametrize('rounds', [6, 7, 8, 11, 16, 21, 30, 60])
def test_it_holds_the_median_at_95_percent_and_a_narrower_one_would_not(rounds):
    ratio, low, high = paired(list(range(1, rounds + 1)), [1.0] * rounds)
    left_out = int(low) - 1
    assert (ratio, high) == ((rounds + 1) / 2, rounds - left_out)

    def coverage(left_out):
        return 1 - 2 * binom.cdf(left_out, rounds, 0.5)

    assert coverage(left_out) >= 0.95 > coverage(left_out + 1)


def test_of_fewer_than_six_rounds_there_is_none():
    ratio, low, high = paired([2.0] * 5, [1.0] * 5)
    assert ratio == 2
    assert math.isnan(low)
    assert math.isnan(high)
