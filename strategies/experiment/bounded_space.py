"""A model space of which random networks are drawn within a MACs budget."""

from __future__ import annotations

import sys

from numpy.random import RandomState

from search_space import Cost
from search_space.nni_nas import SimplifiedModelSpace
from search_space.skeleton import Sample

__all__ = ['BoundedSpace']

DRAWS = 100
"""Samples that are drawn before one is made to fit; of those that fit by themselves, all are equally likely."""


class BoundedSpace(SimplifiedModelSpace):
    """A space whose :meth:`random`, with which NNI's strategies begin, only gives networks of at most ``max_macs``.

    NNI 3.0's strategies have no model filter any more. What a strategy makes by itself, such as a mutation, is judged
    by the engine (:meth:`strategies.experiment.engine.TrialEngine.submit_models`).

    Attributes:
        cost: MACs of a sample.
        max_macs: the budget; None is no limit.
    """

    cost: Cost
    max_macs: float | None = None

    def freeze(self, sample: Sample) -> SimplifiedModelSpace:
        # NNI copies a sample with its labels, which hold their parts: most of the memory of a tuner with many trials.
        return super().freeze({sys.intern(str(label)): value for label, value in sample.items()})

    def random(self, memo: Sample | None = None, random_state: RandomState | None = None) -> SimplifiedModelSpace:
        memo, random_state = {} if memo is None else memo, random_state or RandomState()
        given = dict(memo)
        for _ in range(DRAWS):
            memo.clear()
            memo.update(given)
            model = super().random(memo, random_state)
            if self.max_macs is None or self.cost(memo) <= self.max_macs:
                return model
        memo.update(self._made_to_fit(memo, [label for label in memo if label not in given], random_state))
        return self.freeze(memo)

    def _made_to_fit(self, sample: Sample, labels: list[str], random_state: RandomState) -> Sample:
        """``sample`` with its labels, in a random order, set to their cheapest candidate until it fits."""
        choices = self.simplify()
        for label in random_state.permutation(labels):
            if self.cost(sample) <= self.max_macs:
                break
            sample = min(({**sample, label: value} for value in choices[label].values), key=self.cost)
        return sample
