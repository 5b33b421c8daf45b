"""How far a command is that takes long: a bar on a terminal; in a file or a pipe a line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ['LINE_SECONDS', 'progress']

LINE_SECONDS = 60.0
"""Between two lines where there is no terminal: what is written over is for one."""

Thing = TypeVar('Thing')


def progress(things: Iterable[Thing], what: str, total: int | None = None) -> Iterator[Thing]:
    """Gives ``things`` on, and says on standard error how many of them were.

    Args:
        things: as they come.
        what: they are called, in the plural.
        total: how many will come; by default ``len(things)`` where they have one.
    """
    if total is None and hasattr(things, '__len__'):
        total = len(things)
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(things, desc=what, total=total, leave=False)
        return
    said = time.monotonic()
    for done, thing in enumerate(things):
        if time.monotonic() - said >= LINE_SECONDS:
            of = '' if total is None else f' of {total:,}'
            print(f'{what}: {done:,}{of}', file=sys.stderr, flush=True)
            said = time.monotonic()
        yield thing
