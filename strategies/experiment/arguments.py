"""The arguments of a comparison, ``classArgs`` in ``experiment.yaml``: what is wrong with them, before anything starts.

Nothing here imports torch or a strategy, so it takes no time; what the strategies' classes say to their own arguments,
:func:`strategies.experiment.contender.contender` finds.
"""

from __future__ import annotations

import re
from typing import Any

from search_space.cost.macs import macs
from search_space.rules import NAME, TEXT, Rule, number, one_line, one_of, shown, whole
from search_space.skeleton import Skeleton, candidates_of, closest
from search_space.skeleton_file import load_skeleton

from .seeds import SEED

__all__ = [
    'BUDGET_UNITS',
    'CLASS_RULE',
    'EPOCHS',
    'HELD_OUT',
    'HELD_OUT_RULE',
    'RULES',
    'argument_problems',
    'restricted_skeleton',
    'search_space_problems',
]

BUDGET_UNITS = ('epochs', 'seconds', 'trials')
"""What a budget may be counted in: trained epochs, seconds of training, trials."""

HELD_OUT = 0.2
"""Fraction of the training data that a search holds out for its thresholds, where its recipe says nothing."""


EPOCHS = whole(1, 100_000)
"""Of a training: 300 times the paper's."""

HELD_OUT_RULE = number(above=0, below=1)

CLASS_RULE = Rule(
    lambda value: isinstance(value, str) and bool(re.fullmatch(r'\w+(\.\w+)+', value)),
    'an import path such as nni.nas.strategy.Random',
)

RULES = {
    'skeleton': Rule(TEXT.valid, 'the name of a skeleton, or the path of a YAML file like one'),
    'strategies': Rule(
        lambda v: isinstance(v, dict) and 1 <= len(v) <= 100,
        'a mapping of at least one name, and at most 100, to the class of a strategy',
    ),
    'budget': number(above=0),
    'budget_unit': one_of(*BUDGET_UNITS),
    'retrain': Rule(lambda v: isinstance(v, dict), 'a mapping, the recipe of a retraining'),
    'search': Rule(lambda v: isinstance(v, dict), 'a mapping, the recipe of a search'),
    'max_macs': Rule(number(above=0).valid, 'a number of MACs above 0, such as 350_000_000 (350e6 is a word to YAML)'),
    'test_runs': whole(1, 1000),
    'seed': SEED,
    'max_attempts': whole(1, 100),
}
"""What the arguments of a comparison may be, each by itself."""

_NEEDED = ('skeleton', 'strategies', 'budget', 'retrain')

_OWN_KEYS = ('strategy', 'stage', 'seed', 'skeleton', 'class')
_OWN_PREFIXES = ('class/', 'candidates/')
"""Of a trial's parameters, those that the comparison sets, besides the labels of a network's choices."""


def argument_problems(arguments: Any) -> list[str]:
    """What is wrong with the arguments, a line each that begins with the key; empty where nothing is."""
    if not isinstance(arguments, dict):
        return [f'must be a mapping with the keys {", ".join(_NEEDED)}, not {shown(arguments)}']
    problems = [f'unknown key {shown(key)}; {closest(key, RULES)}' for key in arguments if key not in RULES]
    problems += [f'{key} is missing; it takes {RULES[key].what}' for key in _NEEDED if key not in arguments]
    wrong = {key: rule.problem(key, arguments[key]) for key, rule in RULES.items() if key in arguments}
    wrong = {key: problem for key, problem in wrong.items() if problem}
    problems += wrong.values()
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
    if not NAME.valid(name):
        return [NAME.problem('strategies: the name of a strategy', name)]
    if not isinstance(spec, dict):
        return [f'strategies.{name} must be a mapping with the key class, not {shown(spec)}']
    if 'class' not in spec:
        return [f'strategies.{name}: class, the import path of the strategy, is missing']
    if problem := CLASS_RULE.problem(f'strategies.{name}.class', spec['class']):
        return [problem]
    wrong = [key for key in spec if not isinstance(key, str) or not key.isidentifier()]
    return [f'strategies.{name}: the argument {shown(key)} must be a word' for key in wrong]


def _recipe_problems(stage: str, recipe: dict) -> list[str]:
    """What the comparison itself needs of a recipe; the rest of it is the trial's."""
    problems = [f'{stage}: the key {shown(key)} must be a word' for key in recipe if not isinstance(key, str)]
    problems += [
        f"{stage}.{one_line(key, 100)} is no key of a recipe: it is the comparison's own, and set for each trial"
        for key in recipe
        if isinstance(key, str)
        and (key in _OWN_KEYS or key.startswith(_OWN_PREFIXES) or re.fullmatch(r'row\d+/\w+', key))
    ]
    if 'epochs' not in recipe:
        return [*problems, f'{stage}.epochs is missing; it takes {EPOCHS.what}']
    problems.append(EPOCHS.problem(f'{stage}.epochs', recipe['epochs']))
    if stage == 'search':
        problems.append(HELD_OUT_RULE.problem(f'{stage}.held_out', recipe.get('held_out', HELD_OUT)))
    return [problem for problem in problems if problem]


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
    if budget is None or not EPOCHS.valid(epochs):
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
