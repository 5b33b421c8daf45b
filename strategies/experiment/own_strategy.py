"""A strategy of the user's own is tried in a process of its own first, where whatever it does ends within a time limit.

Importing and making it may hang, end the process, or write without end: in the tuner that would end all strategies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from search_space.rules import one_line
from search_space.slow_imports import slow_imports

__all__ = ['LIMIT_SECONDS', 'UnusableStrategy', 'is_own', 'try_strategy']

LIMIT_SECONDS = 30.0
"""For importing and making a strategy, once PyTorch and NNI are imported."""

START_SECONDS = 300.0
"""For importing PyTorch and NNI, on however busy a machine."""

MOST_BYTES = 10_000
"""Of what the process says."""


class UnusableStrategy(ValueError):
    """A strategy that hangs, or ends its process, when it is imported or made."""


def is_own(path: str) -> bool:
    """Is the class at the import path ``path`` neither NNI's nor this project's?"""
    return path.partition('.')[0] not in ('nni', 'strategies')


def try_strategy(name: str, arguments: dict[str, Any]) -> None:
    """Import and make the strategy called ``name`` in the ``arguments`` of a comparison, in a process of its own.

    Raises:
        UnusableStrategy: it hangs, or ends the process.
        ValueError: what :func:`.contender.contender` says of it.
    """
    process = subprocess.Popen(
        [sys.executable, '-m', 'strategies.experiment.own_strategy'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(path or os.getcwd() for path in sys.path)},
    )
    try:
        task = json.dumps({'name': name, 'arguments': arguments}).encode()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(task)
            process.stdin.close()
        said = _read(process, START_SECONDS, until=b'\n')
        if said == b'ready\n':
            said = _read(process, LIMIT_SECONDS, until=b'\n')  # and not its end: a process that it left may live on
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what the strategy has started
        status = process.wait()
        process.stdout.close()
    if said is None:
        raise UnusableStrategy(f'strategies.{name}: it was not imported and made within {LIMIT_SECONDS:g} seconds')
    try:
        problem = json.loads(said)
    except ValueError:
        raise UnusableStrategy(
            f'strategies.{name}: it ended the process that imported and made it (status {status})'
        ) from None
    if problem:
        raise ValueError(one_line(problem))


def _read(process: subprocess.Popen, seconds: float, until: bytes) -> bytes | None:
    """What the process says up to ``until``, a byte, or to its end; None where that is over the time or the size."""
    said, ends = b'', time.monotonic() + seconds
    os.set_blocking(process.stdout.fileno(), False)
    while len(said) < MOST_BYTES and time.monotonic() < ends:
        part = process.stdout.read(1)
        if part in (b'', until):
            return said + part
        said += part or b''
        if part is None:
            time.sleep(0.02)
    return None


def _main() -> None:
    task = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), 'w')
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    with slow_imports():
        from strategies.experiment.contender import contender

    print('ready', file=answers, flush=True)
    problem = ''
    try:
        contender(task['name'], task['arguments'])
    except ValueError as error:
        problem = one_line(error)
    print(json.dumps(problem), file=answers, flush=True)
    os._exit(0)  # whatever the strategy has left running


if __name__ == '__main__':
    _main()
