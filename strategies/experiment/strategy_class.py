"""A strategy's class by its import path, and with its arguments: how experiments and trials name it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, get_type_hints

import typeguard

from search_space.nni_nas import Strategy
from search_space.rules import GRADIENT_NORM, LEARNING_RATE, Rule, number, one_line, shown, whole
from search_space.skeleton import closest

__all__ = ['make_strategy', 'strategy_class']

_TEMPERATURE = number(0.01, 1000)


def _is_temperature(value: Any) -> bool:
    """Of Gumbel-softmax, fixed or from the first to the last epoch; NNI takes no whole number for one."""
    values = [value.get('init'), value.get('min')] if isinstance(value, dict) else [value, value]
    return all(isinstance(v, float) and _TEMPERATURE.valid(v) for v in values) and values[0] >= values[1]


NNI_RULES = {
    'arc_learning_rate': LEARNING_RATE,
    'batches_per_update': whole(1, 1_000_000),
    'gradient_clip_val': GRADIENT_NORM,
    'log_prob_every_n_step': whole(1, 1_000_000),
    'max_collect': whole(1, 1_000_000),
    'mutation_prob': number(0.001, 1),  # at 0 no network is ever a new one
    'population_size': whole(1, 1_000_000),
    'replay_buffer_size': whole(1, 1_000_000),
    'reward_for_invalid': number(-1e6, 1e6),
    'sample_size': whole(1, 1_000_000),
    'samples_per_update': whole(1, 1_000_000),
    'seed': whole(0, 2**32 - 1),  # NumPy's
    'temperature': Rule(_is_temperature, 'a number such as 1.0, with its point, or a mapping {init: 1.0, min: 0.33}'),
    'trial_per_collect': whole(1, 1_000_000),
    'warmup_epochs': whole(0, 100_000),
}
"""What arguments of NNI's strategies may be: it checks few of them itself."""


def strategy_class(path: str) -> type:
    """The class of an import path such as ``nni.nas.strategy.Random``.

    Raises:
        ValueError: there is no such module or class, or it is not a strategy of NNI, or one that searches nothing.
    """
    module, _, name = path.rpartition('.')
    try:
        imported = importlib.import_module(module)
        cls = getattr(imported, name, None)
    except Exception as error:  # the module may be the user's own, and anything may be wrong with it
        raise ValueError(f'no strategy class {path!r}: {_one_line(error)}') from None
    if cls is None:
        hint = closest(name, [n for n in dir(imported) if n[:1].isupper()])
        raise ValueError(f'no strategy class {path!r}: {module} has no {name!r}; {hint}')
    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        raise ValueError(f'{path} is not a strategy: a subclass of nni.nas.strategy.base.Strategy is wanted')
    if cls._run is Strategy._run:
        raise ValueError(f'{path} is not a strategy, but a base of some: it has no _run, which searches')
    return cls


def make_strategy(path: str, arguments: dict[str, Any]):
    """A strategy of the class at ``path``.

    Raises:
        ValueError: as :func:`strategy_class`; or an argument is unknown, or its value is not valid.
    """
    cls = strategy_class(path)
    known = _argument_names(cls)
    for name in arguments:
        if known is not None and name not in known:
            raise ValueError(f'{path} has no argument {name!r}; {closest(name, known) if known else "it has none"}')
    for name, hint in _type_hints(cls).items():
        if name in arguments:
            try:
                typeguard.check_type(arguments[name], hint)
            except typeguard.TypeCheckError:
                wanted = getattr(hint, '__name__', str(hint))
                raise ValueError(f'{path}: {name} must be {wanted}, not {shown(arguments[name])}') from None
            except Exception:  # a hint that cannot be checked here
                continue
    if cls.__module__.startswith('nni.'):
        for name, rule in NNI_RULES.items():
            if arguments.get(name) is not None:
                rule.check(f'{path}: {name}', arguments[name])
    try:
        return cls(**arguments)
    except Exception as error:  # whatever the class raises, it is what is wrong with its arguments
        raise ValueError(f'{path} does not take these arguments: {_one_line(error)}') from None


def _argument_names(cls: type) -> list[str] | None:
    """Names of the arguments of ``cls`` and, where it passes others on, of its bases; None where they are not known."""
    names = []
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        kinds = {p.kind for p in parameters}
        if inspect.Parameter.VAR_POSITIONAL in kinds and base is not object:
            return None
        names += [p.name for p in list(parameters)[1:] if p.kind is not inspect.Parameter.VAR_KEYWORD]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
        if not base.__module__.startswith(('nni.', 'strategies.')):
            return None  # a class of the user's may do with the others what it likes
    return [name for name in names if name not in ('model_space', 'engine')]


def _type_hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__)
    except Exception:  # annotations need not be importable
        return {}


def _one_line(error: Exception) -> str:
    text = one_line(error)
    return text if isinstance(error, ValueError) and text else f'{type(error).__name__}: {text}'
