"""Import PyTorch, Lightning and NNI without looking for garbage meanwhile."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

__all__ = ['slow_imports']


@contextlib.contextmanager
def slow_imports() -> Iterator[None]:
    """Within, Python collects no garbage: what is imported is none, and to look for it takes a quarter of the time.

    What is there at its end is never looked through again, unless nothing was imported. Measured by
    ``benchmarks/speed/trial_start.py``.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:  # else what is there now may be garbage
            gc.freeze()
        gc.enable()
