"""A strategy's class by its import path: how experiments and trials name it."""

from __future__ import annotations

import importlib

__all__ = ['strategy_class']


def strategy_class(path: str) -> type:
    """The class of an import path such as ``nni.nas.strategy.Random``.

    Raises:
        ValueError: there is no such module or class.
    """
    module, _, name = path.rpartition('.')
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f'no strategy class {path!r}: {error}') from None
