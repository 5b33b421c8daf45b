"""The CSV of a benchmark: a row is there as soon as it is known, and what is there is not computed again."""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from search_space.progress import progress
from search_space.whole_file import write_whole

__all__ = ['digest', 'in_any_order', 'keep', 'keys', 'read_rows']


def digest(settings: Any) -> str:
    """What tells rows of these settings, of JSON's types, from those of others: 12 characters."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def read_rows(file: Path | None, columns: list[str]) -> pd.DataFrame:
    """The rows of ``file``; none where there is no file yet.

    Raises:
        ValueError: it is not a CSV with these columns.
    """
    if file is None or not file.exists():
        return pd.DataFrame(columns=columns)
    try:
        frame = pd.read_csv(file, dtype={'settings': str})  # a digest may look like a number
    except ValueError as error:
        raise ValueError(f'{file} is not a table of this benchmark: {error}') from None
    if missing := [column for column in columns if column not in frame]:
        raise ValueError(f'{file} is not a table of this benchmark: it has no column {missing[0]}')
    return frame


def keys(frame: pd.DataFrame, columns: list[str]) -> list[tuple]:
    """What is in these columns, a row each."""
    return list(frame[columns].itertuples(index=False, name=None))


def in_any_order(function: Callable, jobs: list, processes: int) -> Iterator:
    """What comes of each job, as soon as it is known; in this process, where one is enough.

    Raises:
        ChildProcessError: a worker was killed.
    """
    alone = partial(_leaving_nothing, function)
    if processes == 1 or not jobs:
        yield from map(alone, jobs)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context('spawn'), _end_with_parent)
    try:
        for done in as_completed([pool.submit(alone, job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool:
        raise ChildProcessError('a worker was killed, for want of memory perhaps; start again to go on') from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, killed for example, in the middle of a job; not by Ctrl-C itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process().sentinel

    def watch() -> None:
        wait([parent])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _leaving_nothing(function: Callable, job: Any) -> Any:
    """What comes of a job; a trainer and its images refer to each other, and would stay for the next hundred jobs."""
    try:
        return function(job)
    finally:
        gc.collect()


def keep(frame: pd.DataFrame, file: Path | None, found: Iterable, what: str, total: int) -> pd.DataFrame:
    """``frame`` and the rows that are found, which are in ``file`` as soon as they are known.

    Args:
        frame: the rows so far.
        file: None keeps them nowhere.
        found: the rows that come of a job, for each job.
        what, total: of the jobs, see :func:`.progress.progress`.

    Raises:
        ValueError: another run adds rows to ``file``, or has done so since ``frame`` was read: rows would be lost.
    """
    if not total:
        return frame
    with _alone(file):
        if file is not None and len(read_rows(file, [])) != len(frame):
            raise ValueError(f'{file}: another run has added rows to it in the meantime; start again')
        for rows in progress(found, what, total):
            frame = pd.concat([frame, pd.DataFrame(rows)]) if len(frame) else pd.DataFrame(rows)
            if file is not None:
                write_whole(file, frame.to_csv(index=False).encode())
    return frame


@contextmanager
def _alone(file: Path | None) -> Iterator[None]:
    """No other process is in here with the same ``file``; a hidden one beside it, which stays, says so."""
    if file is None:
        yield
        return
    target = file.resolve()  # where a link leads, rows are written
    lock = FileLock(target.with_name(f'.{target.name}.lock'), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f'{file}: another run adds rows to it; wait for its end, or name another file') from None
    try:
        yield
    finally:
        lock.release()
