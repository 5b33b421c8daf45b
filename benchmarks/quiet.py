"""Without what libraries say while a benchmark trains: its own lines are what is read."""

from __future__ import annotations

import logging

__all__ = ['quiet']


def quiet(*more: str, level: int = logging.ERROR) -> None:
    """From now on Lightning, NNI and the loggers named ``more`` say what is of ``level`` or above it."""
    for name in ('pytorch_lightning', 'nni', *more):
        logging.getLogger(name).setLevel(level)
