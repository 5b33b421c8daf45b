"""The workers of NNI's manager: which are free, what runs on them, and what becomes of it.

Imports nothing slow: a tuner has one before it is connected (:mod:`strategies.tuner`).
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .nni_manager import NniManager
from .requests import TrialRequest, key

__all__ = ['Work', 'Workers']

_logger = logging.getLogger(__name__)

GRACE_SECONDS = {True: 20.0, False: 5.0}
"""How long after a trial's end, successful or not, its result may still arrive: NNI handles the two in two threads."""

START_SECONDS = 60.0
"""How long the next trial waits at most for the one before it to have started."""


class Work(Protocol):
    """What there is to run. All but :meth:`finish` are called with the workers' lock held."""

    def next_request(self) -> TrialRequest | None:
        """Take the next trial to be run; None where there is none now."""

    def put_back(self, request: TrialRequest) -> None:
        """A trial has failed, and is to be tried again."""

    def finish(self, request: TrialRequest, result: dict[str, Any] | None) -> None:
        """A trial has ended, with its result, or was given up."""

    def is_done(self) -> bool:
        """Is nothing left to be run? Asked when nothing runs: then the experiment is DONE."""


class Workers:
    """Runs the trials of some :class:`Work` on NNI's workers, each until it has a result or is given up.

    A result that was there before ``nnictl resume`` comes through :meth:`earlier_results`. What ran then NNI starts
    again itself: the work's request for it waits for that trial, and no other is sent. A trial that was given up before
    is tried once more: why it failed may be over by then.

    Args:
        work: see there.
        manager: makes what asks and tells NNI's manager.
        numbers: names of what a trial's result holds, each a finite number.
        max_attempts: how often a trial that fails is started before it is given up.

    Attributes:
        lock: whoever changes what the work would answer holds it.
    """

    def __init__(
        self, work: Work, manager: Callable[[], NniManager], numbers: tuple[str, ...], max_attempts: int
    ) -> None:
        self._work, self._manager, self._numbers, self._max_attempts = work, manager, numbers, max_attempts
        self.lock = threading.RLock()
        self._free: deque[int] = deque()  # parameter ids that NNI's manager is waiting for
        self._running: dict[int, TrialRequest] = {}
        self._failed: Counter[str] = Counter()  # trials of earlier runs
        self._resumed: dict[str, int] = {}  # parameter ids of trials that NNI has started again, until asked for
        self._last_earlier_id = -1
        self._send: Callable[[int, dict], None] | None = None
        self._starting = self._ended = False

    def add(self, parameter_ids: list[int], send: Callable[[int, dict], None]) -> None:
        """Workers are free: each gets a trial through ``send``, as soon as there is one."""
        with self.lock:
            if self._send is None:
                self._ask_of_earlier_trials()
            self._send = send
            self._free.extend(i for i in parameter_ids if i > self._last_earlier_id)
        self.dispatch()

    def _ask_of_earlier_trials(self) -> None:
        try:
            self._resumed = {key(p): parameter_id for parameter_id, p in self._manager().unfinished().items()}
            self._failed = Counter(key(parameters) for parameters in self._manager().failed())
            self._last_earlier_id = self._manager().last_earlier_id()
        except Exception:
            _logger.exception('NNI could not be asked for the trials of earlier runs: what has no result is run anew')

    def earlier_results(self, data: list[dict]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Parameters and results of what NNI has of an earlier run (a tuner's ``import_data``); it tells so, too, of
        the result of a trial that it has started again."""
        for record in data:
            parameters, result = (
                json.loads(value) if isinstance(value, str) else value
                for value in (record['parameter'], record['value'])
            )
            if self._is_result(result):
                yield parameters, result

    def running(self, parameters: dict[str, Any]) -> int | None:
        """The id of the running trial of these parameters; None where there is none. A result of it has come, so a
        trial that NNI has started again and that nobody has asked for yet is waited for no more."""
        with self.lock:
            self._resumed.pop(key(parameters), None)
            return next((i for i, request in self._running.items() if request.parameters == parameters), None)

    def receive_result(self, parameter_id: int, result: Any) -> None:
        """A trial has reported its result; one that is not as it should be counts as none."""
        self._finish(parameter_id, result if self._is_result(result) else None)

    def trial_ended(self, parameter_id: int, success: bool) -> None:
        """A trial's process has ended; if no result comes of it, it has failed."""
        with self.lock:
            if parameter_id not in self._running:
                return
        timer = threading.Timer(GRACE_SECONDS[success], self._finish, (parameter_id, None))
        timer.daemon = True
        timer.start()

    def dispatch(self) -> None:
        """Give free workers what there is to run; end the experiment where nothing is left."""
        with self.lock:
            if self._send is None:
                return
            request = self._work.next_request() if self._free and not self._starting else None
            resumed = self._resumed.pop(key(request.parameters), None) if request is not None else None
            if request is not None:
                worker = self._free.popleft()  # not needed where resumed: when that ends, NNI asks for another
                self._running[worker if resumed is None else resumed] = request
                failed = min(self._failed[key(request.parameters)], self._max_attempts - 1)
                request.attempts = max(request.attempts, failed) + 1
            if resumed is not None:
                threading.Thread(target=self._await_resumed, args=(resumed,), daemon=True).start()
            elif request is not None:
                self._starting = True
                self._send(worker, request.parameters)
                threading.Thread(target=self._await_start, args=(worker,), daemon=True).start()
            if not self._running and not self._ended and self._work.is_done():
                self._ended = True
                threading.Thread(target=self._end, daemon=True).start()
        if resumed is not None:
            self.dispatch()

    def _await_resumed(self, parameter_id: int) -> None:
        """NNI 3.0 tells a tuner of the results of trials that it has started again, but not of their ends."""
        waited_until = time.monotonic() + START_SECONDS  # NNI, killed twice, forgets what it had not started yet
        status = 'RUNNING'
        while status in ('WAITING', 'RUNNING') or (status == 'ADD_RESUMED' and time.monotonic() < waited_until):
            time.sleep(1)
            try:
                status = self._manager().status(parameter_id)
            except Exception:
                _logger.exception('NNI could not be asked whether a trial has ended')
                status = None
        self.trial_ended(parameter_id, status == 'SUCCEEDED')

    def _await_start(self, worker: int) -> None:
        """Let the next trial be sent once this one has its parameters.

        NNI 3.0 hands parameters to trials in the order in which the trials ask. Of two trials started at once either
        may get the other's, and then the manager's records, and what it says when a trial ends, are of the wrong one.
        """
        waited_until = time.monotonic() + START_SECONDS
        while time.monotonic() < waited_until:
            try:
                if self._manager().has_started(worker):
                    break
            except Exception:
                _logger.exception('NNI could not be asked whether a trial has started')
                break
            time.sleep(0.5)
        with self.lock:
            self._starting = False
        self.dispatch()

    def _finish(self, parameter_id: int, result: dict | None) -> None:
        with self.lock:
            request = self._running.get(parameter_id)
        if request is None:
            return
        reason = self._why_failed(parameter_id) if result is None else ''
        with self.lock:
            if self._running.pop(parameter_id, None) is None:  # its result has come in the meantime
                return
            again = result is None and request.attempts < self._max_attempts
            if result is None:
                outcome = 'it is tried again' if again else 'it is given up'
                _logger.warning(
                    'a trial of %s failed (%s), %s: %s', request.strategy, reason, outcome, request.parameters
                )
            if again:
                self._work.put_back(request)
        if not again:
            self._work.finish(request, result)
        self.dispatch()

    def _why_failed(self, parameter_id: int) -> str:
        try:
            return self._manager().why_failed(parameter_id)
        except Exception as error:  # the training service may keep no log that NNI could give
            return f'its log could not be had: {error}'

    def _end(self) -> None:
        try:
            self._manager().end_experiment()
            _logger.info('nothing is left to run, the experiment is done')
        except Exception:
            _logger.exception('nothing is left to run, but NNI could not be told: stop it with nnictl stop')

    def _is_result(self, value: Any) -> bool:
        """Is it what our trials report? After a loss that was no number, or from another trial command, it may not."""
        return isinstance(value, dict) and all(
            isinstance(value.get(name), int | float) and math.isfinite(value[name]) for name in self._numbers
        )
