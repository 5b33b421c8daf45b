"""Which networks a trained supernet holds for given budgets, by what each choice is measured to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from search_space import Cost
from search_space.skeleton import Sample, canonical_sample, visible

from .knapsack import best_within

__all__ = ['Measured', 'front', 'is_told_apart', 'loss_changes']

ROUNDS = 2
"""How often choices are measured for one budget: around where the search ended, then around what was found."""

CHEAPER = (0.0, 0.25, 0.5, 0.75)
"""Where between the smallest cost and that of the best network cheaper ones are looked for by the knapsack."""


class Measured:
    """Losses of networks, each measured once: two samples of one network are one.

    Args:
        cost: of the space's networks.
        losses: of the supernet under the gates of a sample, a batch of held-out data each, `(batches,)`.
    """

    def __init__(self, cost: Cost, losses: Callable[[Sample], np.ndarray]):
        self.cost, self._losses, self._choices = cost, losses, cost.choices()
        self._known: dict[tuple, tuple[Sample, np.ndarray]] = {}

    def __call__(self, sample: Sample) -> np.ndarray:
        """The losses of a network, `(batches,)`."""
        network = canonical_sample(self._choices, sample)
        identity = tuple(network.items())
        if identity not in self._known:
            self._known[identity] = network, np.asarray(self._losses(network), dtype=float)
        return self._known[identity][1]

    def __len__(self) -> int:
        """How many networks have been measured."""
        return len(self._known)

    def within(self, at_least: float, budget: float) -> list[Sample]:
        """The networks measured so far whose cost is in ``[at_least, budget]``, the cheapest first."""
        found = [network for network, _ in self._known.values() if at_least <= self.cost(network) <= budget]
        return sorted(found, key=self.cost)


def is_told_apart(losses: np.ndarray, best: np.ndarray) -> bool:
    """Is a network worse than the best one by more than the measurement's noise?

    ``mean(d) > 2 · std(d) / √n`` of the differences ``d`` batch by batch: two standard errors of a paired comparison.

    Args:
        losses, best: of the same batches, `(n,)`.
    """
    d = losses - best
    error = d.std(ddof=1) / math.sqrt(len(d)) if len(d) > 1 else 0.0
    return bool(d.mean() > 2 * error)


def loss_changes(measured: Measured, sample: Sample) -> dict[str, dict]:
    """Label to candidate to the change of the mean loss where that one choice of ``sample`` is made otherwise."""
    here, shows = measured(sample).mean(), visible(sample)
    return {
        label: {
            c: measured({**sample, label: c}).mean() - here if label in shows and c != sample[label] else 0.0
            for c in candidates
        }
        for label, candidates in measured.cost.choices().items()
    }


def front(measured: Measured, budgets: Sequence[float], sample: Sample, least_fill: float = 0.0) -> list[Sample]:
    """For each budget the cheapest network within it that is not told apart from the best one within it.

    First, from the largest budget to the smallest and each from where the one before ended, the changes of the loss are
    measured, and the knapsack :func:`best_within` makes networks of them, of about the budget's cost and below. The
    best one has the least mean loss of all that were measured within the budget. From the cheapest of those that are
    not told apart from it, each choice is at last made cheaper where that can be, until that measures no other network.

    Args:
        measured: the supernet's losses.
        budgets: in the cost's unit, each at least the smallest cost.
        sample: where to begin.
        least_fill: the smallest part of its budget that a network may cost, where the space holds one that fits.

    Returns:
        The samples, in the order of ``budgets``.
    """
    for budget in sorted(budgets, reverse=True):
        sample = _measure_below(measured, budget, sample, least_fill * budget)
    return [_cheapest_of_the_best(measured, budget, least_fill * budget) for budget in budgets]


def _measure_below(measured: Measured, budget: float, sample: Sample, at_least: float) -> Sample:
    """Measure around ``sample``, and what the knapsack makes of that; returns the last one that fills the budget."""
    cost = measured.cost
    for _ in range(ROUNDS):
        changes = loss_changes(measured, sample)
        # The space may hold no network that fills the budget so far.
        sample = best_within(cost, changes, budget, at_least) or best_within(cost, changes, budget, 0.0)
        measured(sample)
    low = cost.range()[0]
    for part in CHEAPER:
        cheaper = best_within(cost, changes, low + part * (cost(sample) - low), at_least)
        if cheaper is not None:
            measured(cheaper)
    return sample


def _cheapest_of_the_best(measured: Measured, budget: float, at_least: float) -> Sample:
    cost = measured.cost
    if not measured.within(at_least, budget):
        at_least = 0.0
    known = 0
    while known < len(measured):  # what was made cheaper may turn out to be the best
        known = len(measured)
        within = measured.within(at_least, budget)
        best = min(map(measured, within), key=np.mean)
        network = next(network for network in within if not is_told_apart(measured(network), best))
        for cheaper in _made_cheaper(cost, network):
            made = network | cheaper
            if at_least <= cost(made) < cost(network) and not is_told_apart(measured(made), best):
                network = made
    return canonical_sample(cost.choices(), network)


def _made_cheaper(cost: Cost, sample: Sample) -> Iterator[Sample]:
    """Every single choice of ``sample`` made otherwise at a lower cost, the largest saving first."""
    here = cost(sample)
    others = [{label: c} for label in visible(sample) for c in cost.choices()[label] if c != sample[label]]
    saving = [(here - cost(sample | other), other) for other in others]
    yield from (other for saved, other in sorted(saving, key=lambda pair: -pair[0]) if saved > 0)
