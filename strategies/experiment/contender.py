"""A strategy that takes part in a comparison: made with its arguments, and those that the comparison gives it."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

from search_space.cost.macs import macs
from search_space.nni_nas import OneShotStrategy, Strategy
from search_space.skeleton_file import load_skeleton

from .arguments import HELD_OUT
from .one_shot_trial import OneShotTrial, search_passes
from .seeds import derived_seed
from .strategy_class import make_strategy, strategy_class

__all__ = ['Contender', 'contender']


@dataclass
class Contender:
    """A strategy of the comparison.

    Attributes:
        strategy: what is run here: the strategy, or what stands for a one-shot one (:class:`OneShotTrial`).
        path: import path of its class.
        arguments: that it was made with.
        search_epochs: epochs that its one-shot search trains; 0 where it has none.
    """

    strategy: Strategy
    path: str
    arguments: dict[str, Any]
    search_epochs: float = 0.0


def contender(name: str, arguments: dict[str, Any]) -> Contender:
    """The strategy called ``name`` in the ``arguments`` of a comparison.

    Raises:
        ValueError: there is no such class, it refuses its arguments, or the budget is less than it costs at least.
    """
    own = dict(arguments['strategies'][name])
    path = own.pop('class')
    try:
        accepted = inspect.signature(strategy_class(path)).parameters
        if 'seed' in accepted:
            # Not the same for all, or random search and evolution would start with the same networks.
            index = list(arguments['strategies']).index(name)
            own.setdefault('seed', derived_seed(arguments.get('seed', 0), 'strategy', index))
        if 'target_macs' in accepted and arguments.get('max_macs') is not None and 'latency' not in own:
            own.setdefault('target_macs', arguments['max_macs'])
        strategy = make_strategy(path, own)  # a one-shot strategy too, though it is a trial that will run it
    except ValueError as error:
        raise ValueError(f'strategies.{name}: {error}') from None
    if not isinstance(strategy, OneShotStrategy):
        return Contender(strategy, path, own)
    recipe = arguments.get('search')
    if recipe is None:
        raise ValueError(f'strategies.{name}: {path} is a one-shot strategy, but search, its recipe, is missing')
    warmup = getattr(strategy, 'warmup_epochs', 0)
    if warmup >= recipe['epochs'] and not getattr(strategy, 'budgets', ()):
        raise ValueError(
            f'strategies.{name}: warmup_epochs, {warmup}, must be less than search.epochs, {recipe["epochs"]}, where '
            'there is no budget of its network: nothing would be searched'
        )
    margin, travel = getattr(strategy, 'margin', 0), getattr(strategy, 'threshold_travel', math.inf)
    if margin >= travel and not getattr(strategy, 'budgets', ()):
        raise ValueError(
            f'strategies.{name}: margin, {margin}, must be less than threshold_travel, {travel}, where there is no '
            'budget of its network: no threshold would come to its norm, and nothing would be searched'
        )
    if hasattr(strategy, 'costs'):  # that no network of the space meets a budget is known before its trial
        skeleton = load_skeleton(arguments['skeleton'])
        try:
            strategy.costs(macs(skeleton), skeleton)
        except ValueError as error:
            raise ValueError(f'strategies.{name}: {error}') from None
    epochs = search_passes(strategy, recipe['epochs']) * (1 - recipe.get('held_out', HELD_OUT))
    retrain, unit = arguments['retrain']['epochs'], arguments.get('budget_unit', 'epochs')
    least = {'epochs': epochs + retrain, 'trials': 2, 'seconds': 0}[unit]
    if least > arguments['budget'] + 1e-6:
        costs = f'its search costs {epochs:g} epochs and a retraining {retrain}, together {least:g}'
        costs = costs if unit == 'epochs' else 'its search and a retraining are 2 trials'
        raise ValueError(f'strategies.{name}: {costs}: more than the budget of {arguments["budget"]} {unit}')
    return Contender(OneShotTrial(), path, own, epochs)
