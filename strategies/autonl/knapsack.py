"""The best network within a budget, where losses add up choice by choice and costs table by table: a knapsack."""

from __future__ import annotations

import math

import numpy as np

from search_space import Cost
from search_space.cost.macs import CostTable
from search_space.skeleton import Sample, visible

__all__ = ['best_within', 'check_budget']

UNITS = 20_000
"""Into how many units what a budget leaves is divided at most; costs are rounded up, so that none is exceeded."""


def check_budget(cost: Cost, budget: float, unit: str) -> None:
    """Refuse a budget that no network meets.

    Raises:
        ValueError: the budget is below the smallest cost; the message names the smallest and the largest.
    """
    low, high = cost.range()
    if not budget >= low:
        asked, smallest, largest = (f'{c:,.0f}' if c >= 1000 else f'{c:.4g}' for c in (budget, low, high))
        raise ValueError(
            f'no network of the space meets a budget of {asked} {unit}: '
            f'the smallest costs {smallest}, the largest {largest}'
        )


def best_within(cost: Cost, losses: dict[str, dict], budget: float, at_least: float) -> Sample | None:
    """The sample of the least summed loss whose cost is in ``[at_least, budget]``; None where there is none.

    ``argmin Σ_labels losses[label][candidate]`` under ``at_least ≤ fixed + Σ_tables cost ≤ budget``, by dynamic
    programming over the tables: exact for whole costs of up to :data:`UNITS` units of their greatest common divisor,
    and otherwise to ``tables / UNITS`` of what the budget leaves above the smallest cost, on the safe side.

    Args:
        cost: of the space's networks.
        losses: label to candidate to what choosing it adds to the loss.
        budget, at_least: in the cost's unit.
    """
    room = budget - cost.range()[0]
    if room < 0:
        return None
    options = [_options(table, losses) for table in cost.tables]
    unit = _unit([c for of_table in options for c, _, _ in of_table], room)
    width = int(room / unit + 1e-9) + 1
    least = np.full(width, np.inf)  # by units spent
    least[0] = 0.0
    taken = []
    for of_table in options:
        following, choice = np.full(width, np.inf), np.zeros(width, np.int32)
        for index, (option_cost, loss, _) in enumerate(of_table):
            units = math.ceil(option_cost / unit - 1e-9)
            if units >= width:
                continue
            with_it = least[: width - units] + loss
            better = with_it < following[units:]
            following[units:][better] = with_it[better]
            choice[units:][better] = index
        least = following
        taken.append(choice)
    for spent in np.argsort(least, kind='stable'):
        if least[spent] == np.inf:
            return None
        sample = _backtrack(options, taken, int(spent), unit)
        if at_least <= cost(sample) <= budget:
            return sample
    return None


def _options(table: CostTable, losses: dict[str, dict]) -> list[tuple[float, float, Sample]]:
    """Cost above the table's least, loss and candidates of each way to choose; of one cost, that of the least loss."""
    best: dict[float, tuple[float, float, Sample]] = {}
    least = min(table.costs.values())
    for values, table_cost in table.costs.items():
        option_cost = table_cost - least
        sample = dict(zip(table.choices, values, strict=True))
        loss = sum(losses[label][candidate] for label, candidate in visible(sample).items())
        if option_cost not in best or loss < best[option_cost][1]:
            best[option_cost] = option_cost, loss, sample
    return list(best.values())


def _unit(costs: list[float], room: float) -> float:
    """The greatest common divisor of whole costs, or a fraction of the room where that would make too many units."""
    divisor = math.gcd(*(int(c) for c in costs)) if all(float(c).is_integer() for c in costs) else 0
    coarse = max(room, 1e-9) / UNITS
    return divisor if divisor >= coarse else coarse


def _backtrack(options: list, taken: list[np.ndarray], spent: int, unit: float) -> Sample:
    sample: Sample = {}
    for of_table, choice in zip(reversed(options), reversed(taken), strict=True):
        option_cost, _, chosen = of_table[choice[spent]]
        sample.update(chosen)
        spent -= math.ceil(option_cost / unit - 1e-9)
    return sample
