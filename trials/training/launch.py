"""The other processes of a trial on several devices, the first of which is the trial's own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_space.slow_imports import slow_imports

from .checkpoint import EpochCheckpoint

__all__ = ['other_processes']


@contextlib.contextmanager
def other_processes(
    parameters: dict[str, Any], devices: int, checkpoint: EpochCheckpoint | None = None
) -> Iterator[None]:
    """While this process runs the trial of ``parameters``, the others run it too, and report and write nothing.

    They are started here and not by Lightning, which would repeat the command of the trial: NNI would be asked again
    for parameters. Where one of them fails, this process ends as well, with status 1; where this one ends, they do.

    Args:
        parameters: of the trial.
        devices: how many processes there are, with this one.
        checkpoint: of the trial; they go on from it too.
    """
    if devices == 1:
        yield
        return
    own = {key: value for key, value in os.environ.items() if not key.startswith('NNI_')}
    together = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(_free_port()), 'WORLD_SIZE': str(devices)}
    processes = []
    before = dict(os.environ)
    try:
        for rank in range(1, devices):
            process = subprocess.Popen(
                [sys.executable, '-m', 'trials.training.launch'],
                env={**own, **together, 'LOCAL_RANK': str(rank)},
                stdin=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            threading.Thread(target=_end_with, args=(process, rank), daemon=True).start()
            path = str(checkpoint.path) if checkpoint else None
            print(json.dumps({'parameters': parameters, 'checkpoint': path}), file=process.stdin, flush=True)
        os.environ.update(together, LOCAL_RANK='0')
        yield
        for process in processes:
            process.wait()
    finally:
        os.environ.clear()
        os.environ.update(before)
        for process in processes:
            process.kill()
            process.stdin.close()


def _end_with(process: subprocess.Popen, rank: int) -> None:
    status = process.wait()
    if status > 0:  # and not killed, as this process does with those that it does not need any more
        print(f'python -m trials: process {rank} of the trial ended with status {status}', file=sys.stderr, flush=True)
        os._exit(1)  # the main thread may be waiting for that process, where no exception reaches it


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def _main() -> None:
    """One of the other processes: what to run comes over standard input, which is open while the first one lives."""
    with slow_imports():
        from trials.parameters import TrialParameters
        from trials.run import run_trial

    for name in ('pytorch_lightning', 'lightning_fabric', 'nni.nas.evaluator'):
        logging.getLogger(name).setLevel(logging.ERROR)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    checkpoint = EpochCheckpoint(Path(task['checkpoint'])) if task['checkpoint'] else None
    with contextlib.suppress(FloatingPointError):  # all processes see it, and the first one says so
        run_trial(TrialParameters.from_flat(task['parameters']), lambda metrics: None, checkpoint=checkpoint)


def _end_with_the_first() -> None:
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read, which would hold a lock that the interpreter wants at its end
    os._exit(1)


if __name__ == '__main__':
    _main()
