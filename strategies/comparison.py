"""Several strategies of NNI in one experiment, at equal compute: who gets the next free worker, and what is tested."""

from __future__ import annotations

import inspect
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy.base import Strategy

from search_space import LightNLSpace, load_skeleton

from .engine import TrialEngine, TrialRequest
from .nni_manager import NniManager
from .one_shot_trial import OneShotTrial
from .strategy_class import strategy_class

__all__ = ['Comparison']

_logger = logging.getLogger(__name__)

TEST_SEED_OFFSET = 1000
"""Test runs are trained from other seeds than the runs that the pick was chosen by."""

GRACE_SECONDS = {True: 20.0, False: 5.0}
"""How long after a trial's end, successful or not, its result may still arrive: NNI handles the two in two threads."""

START_SECONDS = 60.0
"""How long the next trial waits at most for the one before it to have started."""


class Comparison:
    """The state of an experiment that compares strategies, behind :class:`strategies.tuner.StrategyTuner`.

    Each strategy runs in a thread of its own against a :class:`TrialEngine`. A free worker goes to the one that has
    spent least. A one-shot strategy is run in a trial (:class:`OneShotTrial`). When all have spent their budget, the
    best network of each, by validation accuracy, is trained from scratch ``test_runs`` times from fresh seeds, and only
    there the test data is looked at. Then the experiment is DONE.

    Stages of a trial are ``search``, ``retrain`` and ``test``. A trial is a function of its parameters, so after
    ``nnictl resume`` a result that is already there answers the same request again.

    Args:
        skeleton: name or file of the space's skeleton.
        strategies: name to ``{class: import path, argument: value, ...}``.
        budget: epochs that each strategy may spend, its search included.
        retrain: recipe of a retraining trial; its ``epochs`` are what one costs.
        search: recipe of a search trial.
        manager: makes what asks and tells NNI's manager.
        test_runs: trainings of each strategy's pick for the test accuracy.
        seed: of the whole experiment.
        max_attempts: how often a trial that fails is started before it is given up.

    Raises:
        ValueError: there is no such skeleton or strategy class, or a strategy refuses its arguments.
    """

    def __init__(
        self,
        skeleton: str,
        strategies: dict[str, dict[str, Any]],
        budget: float,
        retrain: dict[str, Any],
        search: dict[str, Any],
        manager: Callable[[], NniManager],
        test_runs: int = 1,
        seed: int = 0,
        max_attempts: int = 2,
    ):
        self.skeleton_name, self.skeleton = skeleton, load_skeleton(skeleton)
        self.recipes = {'retrain': retrain, 'search': search}
        self.test_runs, self.seed, self.max_attempts = test_runs, seed, max_attempts
        self._manager = manager
        self._lock = threading.RLock()
        self._workers: deque[int] = deque()  # parameter ids that NNI's manager is waiting for
        self._running: dict[int, TrialRequest] = {}
        self._known: dict[str, dict] = {}
        self._send: Any = None
        self._threads: dict[str, threading.Thread] = {}
        self._tests: deque[TrialRequest] | None = None
        self._starting: int | None = None
        self._ended = False
        self.strategies: dict[str, Strategy] = {}
        self.engines: dict[str, TrialEngine] = {}
        self._spaces: dict[str, SimplifiedModelSpace] = {}
        for name, arguments in strategies.items():
            self._add_strategy(name, dict(arguments), budget)

    def _add_strategy(self, name: str, arguments: dict[str, Any], budget: float) -> None:
        path = arguments.pop('class')
        cls = strategy_class(path)
        if 'seed' in inspect.signature(cls).parameters:
            # Not the same for all, or random search and evolution would start with the same networks.
            arguments.setdefault('seed', 1000 * self.seed + len(self.strategies))
        strategy = cls(**arguments)  # a one-shot strategy's arguments are checked here too, before anything is started
        if isinstance(strategy, OneShotStrategy):
            strategy = OneShotTrial()
        self.strategies[name] = strategy
        # Here and not in the strategy's thread: the scopes that make NNI's labels are shared by all threads.
        self._spaces[name] = SimplifiedModelSpace.from_model(LightNLSpace(self.skeleton))
        # Regularized evolution has no parent to choose until one of its population is through.
        population = getattr(strategy, 'population_size', None)
        self.engines[name] = TrialEngine(
            name,
            budget,
            retrain=lambda sample, index: self._parameters(name, 'retrain', self.seed + index, sample),
            search=lambda: {
                **self._parameters(name, 'search', self.seed),
                'class': path,
                **{f'class/{key}': value for key, value in arguments.items()},
            },
            known=lambda parameters: self._known.get(_key(parameters)),
            enqueued=self._dispatch,
            max_running=None if population is None else max(1, population - 1),
        )

    def _parameters(self, strategy: str, stage: str, seed: int, sample: dict | None = None) -> dict[str, Any]:
        recipe = self.recipes['search' if stage == 'search' else 'retrain']
        network = self.skeleton.canonical(sample) if sample else {}
        return {
            'strategy': strategy,
            'stage': stage,
            'seed': seed,
            'skeleton': self.skeleton_name,
            **recipe,
            **network,
        }

    def add_workers(self, parameter_ids: list[int], send: Callable[[int, dict], None]) -> None:
        """Workers are free: each gets a trial through ``send``, as soon as a strategy has a request."""
        with self._lock:
            self._send = send
            self._workers.extend(parameter_ids)
            for name in self.strategies:
                if name not in self._threads:
                    thread = threading.Thread(target=self._run_strategy, args=(name,), name=name, daemon=True)
                    self._threads[name] = thread
                    thread.start()
        self._dispatch()

    def receive_result(self, parameter_id: int, result: dict) -> None:
        """A trial has reported its result."""
        self._finish(parameter_id, result)

    def trial_ended(self, parameter_id: int, success: bool) -> None:
        """A trial's process has ended; if no result comes of it, it has failed."""
        with self._lock:
            if parameter_id not in self._running:
                return
        timer = threading.Timer(GRACE_SECONDS[success], self._finish, (parameter_id, None))
        timer.daemon = True
        timer.start()

    def import_data(self, data: list[dict]) -> None:
        """Remember the results of an earlier run of this experiment, or of one like it."""
        for record in data:
            parameters, value = record['parameter'], record['value']
            parameters = json.loads(parameters) if isinstance(parameters, str) else parameters
            self._known[_key(parameters)] = json.loads(value) if isinstance(value, str) else value
        _logger.info('%d results of earlier trials are there', len(self._known))

    def _run_strategy(self, name: str) -> None:
        try:
            self.strategies[name](self._spaces[name], self.engines[name])
            self.engines[name].wait_models()
        except Exception:
            _logger.exception('strategy %s failed; the others go on', name)
        _logger.info('strategy %s has ended', name)
        with self._lock:
            del self.strategies[name]
        self._dispatch()

    def _dispatch(self) -> None:
        """Give waiting workers what is queued."""
        with self._lock:
            if not self.strategies and self._tests is None:
                self._queue_tests()
            request = self._next_request() if self._workers and self._starting is None else None
            if request is not None:
                worker = self._workers.popleft()
                self._running[worker] = request
                request.attempts += 1
                self._starting = worker
                self._send(worker, request.parameters)
                threading.Thread(target=self._await_start, args=(worker,), daemon=True).start()
            if self._tests is not None and not self._tests and not self._running and not self._ended:
                self._ended = True
                threading.Thread(target=self._end, daemon=True).start()

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
        with self._lock:
            self._starting = None
        self._dispatch()

    def _end(self) -> None:
        try:
            self._manager().end_experiment()
            _logger.info('all strategies have ended, the experiment is done')
        except Exception:
            _logger.exception('all strategies have ended, but NNI could not be told: stop it with nnictl stop')

    def _next_request(self) -> TrialRequest | None:
        if self._tests:
            return self._tests.popleft()
        waiting = [engine for engine in self.engines.values() if engine.queue]
        return min(waiting, key=lambda engine: engine.spent(queued=False)).queue.popleft() if waiting else None

    def _queue_tests(self) -> None:
        self._tests = deque()
        for name, engine in self.engines.items():
            best = engine.best()
            if best is None:
                _logger.warning('strategy %s has no trained network, there is nothing to test', name)
                continue
            for run in range(self.test_runs):
                parameters = self._parameters(name, 'test', self.seed + TEST_SEED_OFFSET + run, best.model.sample)
                if _key(parameters) not in self._known:
                    self._tests.append(TrialRequest(name, parameters))

    def _finish(self, parameter_id: int, result: dict | None) -> None:
        with self._lock:
            request = self._running.pop(parameter_id, None)
            if request is None:
                return
            if result is None and request.attempts < self.max_attempts:
                _logger.warning('a trial of %s failed, it is tried again: %s', request.strategy, request.parameters)
                retries = self._tests if request.parameters['stage'] == 'test' else self.engines[request.strategy].queue
                retries.appendleft(request)
                request = None
            elif result is None:
                _logger.error('a trial of %s failed for good: %s', request.strategy, request.parameters)
        if request is not None:
            self.engines[request.strategy].finish(request, result)
        self._dispatch()


def _key(parameters: dict) -> str:
    return json.dumps(parameters, sort_keys=True)
