"""``python -m trials run`` in a process of its own, on a small part of the data."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import sys
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path

import warm_process
from torch.utils.data import TensorDataset

from search_space import load_skeleton
from trials import datasets
from trials.__main__ import main
from trials.training.checkpoint import EpochCheckpoint

SEARCH = {
    'strategy': 'autonl',
    'stage': 'search',
    'seed': 0,
    'skeleton': 'cued',
    'dataset': 'cued-digits',
    'epochs': 4,
    'batch_size': 16,
    'learning_rate': 0.005,
    'held_out': 0.25,
    'class': 'strategies.AutoNL',
    'class/warmup_epochs': 1,
    'class/drawn_share': 0.5,
}

RETRAIN = {name: value for name, value in SEARCH.items() if not name.startswith('class')} | {
    'strategy': 'random',
    'stage': 'retrain',
    **{label: candidates[-1] for label, candidates in load_skeleton('cued').choices().items()},
}


def start(folder: Path, *arguments: str, limit: int | None = None) -> BaseProcess:
    """Start ``python -m trials run ARGUMENTS``; what it says goes to ``out.txt`` and ``err.txt`` in ``folder``."""
    process = warm_process.processes.Process(target=_run, args=(folder, ['run', *arguments], limit))
    process.start()
    return process


def run(folder: Path, *arguments: str, limit: int | None = None) -> int:
    """As :func:`start`, to its end; the exit status."""
    process = start(folder, *arguments, limit=limit)
    process.join()
    return process.exitcode


def write_parameters(file: Path, parameters: dict = SEARCH, **changes) -> Path:
    """A file of these parameters, with changes."""
    file.write_text(json.dumps(parameters | changes))
    return file


@cache
def _small(name: str, input_size: int) -> datasets.DataParts:
    whole = datasets.DATASETS[name].load()
    parts = {part: getattr(whole, part) for part in ('train', 'validation', 'test')}
    return dataclasses.replace(whole, **{part: TensorDataset(*data[:128]) for part, data in parts.items()})


@contextmanager
def small_data():
    """While this is open, a data set is its first 128 images of each part."""
    load, datasets.load = datasets.load, _small
    try:
        yield
    finally:
        datasets.load = load


def _run(folder: Path, arguments: list[str], limit: int | None = None, last_epoch: int | None = None) -> None:
    for descriptor, name in ((1, 'out.txt'), (2, 'err.txt')):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if last_epoch:
        be_killed_after(last_epoch)
    with small_data():
        sys.exit(main(arguments))


def be_killed_after(epoch: int) -> None:
    """A moment that no other process could hit as well: when the checkpoint of this epoch is there."""
    save = EpochCheckpoint.on_train_epoch_end

    def save_and_be_killed(self, trainer, pl_module):
        save(self, trainer, pl_module)
        if trainer.current_epoch + 1 == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    EpochCheckpoint.on_train_epoch_end = save_and_be_killed


if __name__ == '__main__':
    folder, limit, last_epoch, *arguments = sys.argv[1:]
    _run(Path(folder), arguments, int(limit), int(last_epoch))
