"""A process that NNI's manager has started, tuner or trial, ends when the manager does, however that ends."""

from __future__ import annotations

import os
import threading

import psutil

__all__ = ['end_with_manager']


def end_with_manager() -> None:
    """End this process at once when NNI's manager, among those that it descends from, is gone.

    A manager that is killed leaves its tuner and its trials behind. Nobody hears them, and ``nnictl resume`` starts
    others: two trials would train the same network, and two tuners take turns at the new manager's only connection.
    Under a training service whose trials do not descend from NNI's ``node`` nothing is done.
    """
    manager = next((process for process in psutil.Process().parents() if process.name() == 'node'), None)
    if manager is not None:
        threading.Thread(target=_end_with, args=(manager,), daemon=True, name='end with manager').start()


def _end_with(process: psutil.Process) -> None:
    process.wait()
    os._exit(1)  # as if it were killed: what a trial writes is whole or not there
