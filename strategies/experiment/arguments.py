"""The arguments of a comparison, ``classArgs`` in ``experiment.yaml``: what is wrong with them, before anything starts.

Nothing here imports torch or a strategy, so it takes no time; what the strategies' classes say to their own arguments,
:func:`strategies.experiment.comparison.contender` finds.
"""

from __future__ import annotations

import math
from typing import Any

from search_space.cost.macs import macs
from search_space.skeleton import Skeleton, candidates_of, closest, load_skeleton

__all__ = ['HELD_OUT', 'UNITS', 'argument_problems', 'restricted_skeleton', 'search_space_problems']

UNITS = ('epochs', 'seconds', 'trials')
"""What a budget may be counted in: trained epochs, seconds of training, trials."""

HELD_OUT = 0.2
"""Fraction of the training data that a search holds out for its thresholds, where its recipe says nothing."""


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


_RULES = {
    'skeleton': (lambda v: isinstance(v, str), 'the name of a skeleton, or the path of a YAML file like one'),
    'strategies': (lambda v: isinstance(v, dict) and v, 'a mapping of at least one name to the class of a strategy'),
    'budget': (_is_positive, 'a number above 0'),
    'budget_unit': (lambda v: v in UNITS, f'one of {", ".join(UNITS)}'),
    'retrain': (lambda v: isinstance(v, dict), 'a mapping, the recipe of a retraining'),
    'search': (lambda v: isinstance(v, dict), 'a mapping, the recipe of a search'),
    'max_macs': (_is_positive, 'a number of MACs above 0, such as 350_000_000 (350e6 is a word to YAML)'),
    'test_runs': (_is_count, 'a whole number of at least 1'),
    'seed': (lambda v: type(v) is int and v >= 0, 'a whole number of at least 0'),
    'max_attempts': (_is_count, 'a whole number of at least 1'),
}
_NEEDED = ('skeleton', 'strategies', 'budget', 'retrain')


def argument_problems(arguments: Any) -> list[str]:
    """What is wrong with the arguments, a line each that begins with the key; empty where nothing is."""
    if not isinstance(arguments, dict):
        return [f'must be a mapping with the keys {", ".join(_NEEDED)}, not {arguments!r}']
    problems = [f'unknown key {key!r}; {closest(key, _RULES)}' for key in arguments if key not in _RULES]
    problems += [f'{key} is missing; it takes {_RULES[key][1]}' for key in _NEEDED if key not in arguments]
    wrong = {key for key, (valid, _) in _RULES.items() if key in arguments and not valid(arguments[key])}
    problems += [f'{key} must be {_RULES[key][1]}, not {arguments[key]!r}' for key in _RULES if key in wrong]
    fine = {key: value for key, value in arguments.items() if key not in wrong}
    problems += [line for name, spec in fine.get('strategies', {}).items() for line in _strategy_problems(name, spec)]
    problems += [line for key in ('retrain', 'search') if key in fine for line in _recipe_problems(key, fine[key])]
    if 'skeleton' in fine:
        try:
            skeleton = load_skeleton(fine['skeleton'])
        except ValueError as error:
            problems.append(f'skeleton: {error}')
        else:
            problems += _macs_problems(skeleton, fine.get('max_macs'))
    return problems + _budget_problems(fine)


def _strategy_problems(name: Any, spec: Any) -> list[str]:
    if not isinstance(name, str):
        return [f'strategies: the name of a strategy must be a word, not {name!r}']
    if not isinstance(spec, dict):
        return [f'strategies.{name} must be a mapping with the key class, not {spec!r}']
    if 'class' not in spec:
        return [f'strategies.{name}: class, the import path of the strategy, is missing']
    if not isinstance(spec['class'], str) or '.' not in spec['class'].strip('.'):
        wanted = 'an import path such as nni.nas.strategy.Random'
        return [f'strategies.{name}.class must be {wanted}, not {spec["class"]!r}']
    return [f'strategies.{name}: the argument {key!r} must be a word' for key in spec if not isinstance(key, str)]


def _recipe_problems(stage: str, recipe: dict) -> list[str]:
    """What the comparison itself needs of a recipe; the rest of it is the trial's."""
    if 'epochs' not in recipe:
        return [f'{stage}.epochs is missing; it takes a whole number of at least 1']
    problems = []
    if not _is_count(recipe['epochs']):
        problems.append(f'{stage}.epochs must be a whole number of at least 1, not {recipe["epochs"]!r}')
    held_out = recipe.get('held_out', HELD_OUT)
    if stage == 'search' and not (_is_positive(held_out) and held_out < 1):
        problems.append(f'{stage}.held_out must be a number in (0, 1), not {held_out!r}')
    return problems


def _macs_problems(skeleton: Skeleton, max_macs: float | None) -> list[str]:
    low, high = macs(skeleton).range()
    if max_macs is None or max_macs >= low:
        return []
    return [
        f'max_macs: no network meets {max_macs:,.0f} MACs; those of skeleton {skeleton.name!r} have from {low:,} to '
        f'{high:,}'
    ]


def _budget_problems(fine: dict[str, Any]) -> list[str]:
    budget, unit, epochs = fine.get('budget'), fine.get('budget_unit', 'epochs'), fine.get('retrain', {}).get('epochs')
    if budget is None or not _is_count(epochs):
        return []
    if unit == 'epochs' and budget < epochs:
        return [f'budget: {budget} epochs are less than one retraining, {epochs} epochs (retrain.epochs)']
    if unit == 'trials' and budget < 1:
        return [f'budget: {budget} trials are less than one']
    return []


def restricted_skeleton(name: str, search_space: Any, max_macs: float | None = None) -> Skeleton:
    """The skeleton called ``name`` with the candidates only that the experiment's search space has left.

    Raises:
        ValueError: the search space is not in NNI's format, has what the skeleton has not, leaves nothing to choose or
            no network within ``max_macs``.
    """
    skeleton = load_skeleton(name)
    candidates = candidates_of(search_space)
    try:
        missing = [label for label in skeleton.choices() if label not in candidates]
        restricted = skeleton.restrict(candidates)
        if missing:
            raise ValueError(f'{missing[0]} is missing; to fix it, leave one of its candidates')
    except ValueError as error:
        raise ValueError(f'{error} (all of them: python -m search_space choices {name})') from None
    if not restricted.choices():
        raise ValueError('every label has one candidate: there is nothing to choose')
    for problem in _macs_problems(restricted, max_macs):
        raise ValueError(problem)
    return restricted


def search_space_problems(skeleton: str, search_space: Any, max_macs: float | None = None) -> list[str]:
    """What is wrong with the experiment's search space, a line each; the other arguments being valid."""
    try:
        restricted_skeleton(skeleton, search_space, max_macs)
    except ValueError as error:
        return [str(error)]
    return []
