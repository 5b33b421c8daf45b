"""Which networks a trained supernet holds for given budgets, by what each choice is measured to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from search_space import Cost
from search_space.skeleton import Sample

from .knapsack import TOLERANCE, best_within, effective

__all__ = ['front', 'loss_changes', 'measuring']

ROUNDS = 2
"""How often choices are measured for one budget: around where the search ended, then around what was found."""


def loss_changes(cost: Cost, sample: Sample, loss: Callable[[Sample], float]) -> dict[str, dict]:
    """Label to candidate to the change of the loss where that one choice of ``sample`` is made otherwise.

    Args:
        cost: of the space; its shares hold the choices.
        sample: around which.
        loss: of the supernet under the gates of a sample.
    """
    changes: dict[str, dict] = {}
    here = loss(sample)
    for share in cost.shares:
        shows = effective({label: sample[label] for label in share.choices})
        for label, candidates in share.choices.items():
            changes[label] = {
                c: loss({**sample, label: c}) - here if label in shows and c != sample[label] else 0.0
                for c in candidates
            }
    return changes


def front(cost: Cost, budgets: Sequence[float], sample: Sample, loss: Callable[[Sample], float]) -> list[Sample]:
    """For each budget the best network that fills it to within the tolerance, measured on the supernet.

    From the largest budget to the smallest, each from where the one before ended: the changes of the loss are measured,
    the knapsack :func:`best_within` makes a network of them, and that network's own loss decides between the rounds.
    Where the space holds no network within the tolerance, it is the best one at most at the budget.

    Args:
        cost: of the space's networks.
        budgets: in its unit, each at least the smallest cost.
        sample: where to begin.
        loss: of the supernet under the gates of a sample.

    Returns:
        The samples, in the order of ``budgets``.
    """
    found: dict[float, Sample] = {}
    for budget in sorted(budgets, reverse=True):
        tried: list[tuple[float, Sample]] = []
        for _ in range(ROUNDS):
            changes = loss_changes(cost, sample, loss)
            at_least = (1 - TOLERANCE) * budget
            best = best_within(cost, changes, budget, at_least) or best_within(cost, changes, budget, 0.0)
            tried.append((loss(best), best))
            if best == sample:
                break
            sample = best
        sample = found[budget] = min(tried, key=lambda pair: pair[0])[1]
    return [found[budget] for budget in budgets]


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, with the batches' own statistics in BN (those kept are of other gates), and nothing logged.

    Args:
        module: a Lightning module; afterwards it is as it was.
    """
    training = {m: m.training for m in module.modules()}
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    log = module.log
    try:
        module.eval()
        module.log = lambda *args, **kwargs: None
        for m in norms:
            m.train()
            m.momentum = 0.0
        yield
    finally:
        module.log = log
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for m, was_training in training.items():
            m.training = was_training
