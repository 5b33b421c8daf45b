"""What worker processes log, handled by the process that they work for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from logging.handlers import QueueHandler
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue

__all__ = ['worker_log']


@contextmanager
def worker_log(context: BaseContext) -> Iterator[Callable[[int], None]]:
    """Handle here what workers log, until the end of the context. It gives a function that each worker calls first.

    Processes have the loggers' levels and handlers of the one that starts them only where they are forked from it.

    Args:
        context: what starts the workers.
    """
    records = context.SimpleQueue()
    handling = threading.Thread(target=_handle, args=(records,), daemon=True)
    handling.start()
    try:
        yield partial(_send, records, {name: logger.level for name, logger in _loggers().items() if logger.level})
    finally:
        records.put(None)
        handling.join()
        records.close()


def _handle(records: SimpleQueue) -> None:
    for record in iter(records.get, None):
        logging.getLogger(record.name).handle(record)


def _send(records: SimpleQueue, levels: dict[str, int], worker: int) -> None:
    """In a worker: send ``records`` all that is logged at ``levels``."""
    for logger in _loggers().values():
        logger.handlers.clear()
        logger.propagate = True
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger().addHandler(_Sender(records))


def _loggers() -> dict[str, logging.Logger]:
    root = logging.getLogger()
    named = {name: logger for name, logger in root.manager.loggerDict.items() if isinstance(logger, logging.Logger)}
    return {'': root, **named}


class _Sender(QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.put(record)  # at once, and not by a thread that the worker's end may cut off
