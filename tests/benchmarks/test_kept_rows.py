"""What the jobs of a benchmark leave in their process."""

import gc
import weakref

import pytest

from benchmarks.kept_rows import in_any_order


class Network:
    """One that refers to itself, as a trainer and what it trains do."""

    def __init__(self):
        self.trainer = self


@pytest.mark.parametrize('fails', [False, True])
def test_a_job_leaves_nothing_that_refers_to_itself(fails):
    left = []

    def train(job):
        left.append(weakref.ref(Network()))
        if fails:
            raise RuntimeError(job)

    gc.disable()  # or Python might do it by chance
    try:
        if fails:
            with pytest.raises(RuntimeError):
                list(in_any_order(train, [1], processes=1))
        else:
            list(in_any_order(train, [1, 2], processes=1))
        assert [network() for network in left] == [None] * len(left)
    finally:
        gc.enable()
