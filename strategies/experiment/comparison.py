"""Several strategies of NNI in one experiment, at equal compute: who gets the next free worker, and what is tested."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from search_space import LightNLSpace, load_skeleton, macs
from search_space.nni_nas import RegularizedEvolution, Strategy
from search_space.skeleton import candidates_of

from .arguments import argument_problems, restricted_skeleton
from .bounded_space import BudgetedSpace
from .contender import contender
from .engine import TrialEngine, TrialRequest
from .nni_manager import NniManager
from .own_strategy import UnusableStrategy, is_own, try_strategy
from .requests import key
from .seeds import derived_seed

__all__ = ['Comparison']

_logger = logging.getLogger(__name__)

GRACE_SECONDS = {True: 20.0, False: 5.0}
"""How long after a trial's end, successful or not, its result may still arrive: NNI handles the two in two threads."""

START_SECONDS = 60.0
"""How long the next trial waits at most for the one before it to have started."""


class Comparison:
    """The state of an experiment that compares strategies, behind :class:`strategies.tuner.StrategyTuner`.

    Each strategy runs in a thread of its own against a :class:`TrialEngine`. A free worker goes to the one that has
    spent the smallest part of its budget. A one-shot strategy is run in a trial
    (:class:`.one_shot_trial.OneShotTrial`). When all have spent their budget, the best network of each, by validation
    accuracy, is trained from scratch ``test_runs`` times from fresh seeds, and only there the test data is looked at.
    Then the experiment is DONE.

    Stages of a trial are ``search``, ``retrain`` and ``test``. A trial is a function of its parameters, so after
    ``nnictl resume`` a result that is already there answers the same request again, and so does that of a trial which
    ran then and which NNI itself has started again. A trial that was given up is tried
    once more: why it failed may be over by then.

    Args:
        skeleton: name or file of the space's skeleton.
        strategies: name to ``{class: import path, argument: value, ...}``.
        budget: what each strategy may spend, its search included, in ``budget_unit``.
        retrain: recipe of a retraining trial; its ``epochs`` are what one costs.
        search: recipe of a search trial; needed where there is a one-shot strategy.
        manager: makes what asks and tells NNI's manager.
        search_space: the experiment's, in NNI's format; a candidate that is not there is not tried. None is all.
        budget_unit: ``epochs`` (trained ones), ``seconds`` (of training) or ``trials``.
        max_macs: the most MACs that a network may have; None is no limit. A strategy with an argument ``target_macs``
            is told; to the others, a network over it is one whose training failed at once and cost nothing.
        test_runs: trainings of each strategy's pick for the test accuracy.
        seed: of the whole experiment.
        max_attempts: how often a trial that fails is started before it is given up.

    Raises:
        ValueError: an argument is not valid, or a strategy refuses its own.
    """

    def __init__(
        self,
        skeleton: str,
        strategies: dict[str, dict[str, Any]],
        budget: float,
        retrain: dict[str, Any],
        search: dict[str, Any] | None = None,
        *,
        manager: Callable[[], NniManager],
        search_space: dict[str, dict] | None = None,
        budget_unit: str = 'epochs',
        max_macs: float | None = None,
        test_runs: int = 1,
        seed: int = 0,
        max_attempts: int = 2,
    ):
        arguments = {'skeleton': skeleton, 'strategies': strategies, 'budget': budget, 'retrain': retrain}
        arguments |= {'budget_unit': budget_unit, 'test_runs': test_runs, 'seed': seed, 'max_attempts': max_attempts}
        arguments |= {} if search is None else {'search': search}
        arguments |= {} if max_macs is None else {'max_macs': max_macs}
        for problem in argument_problems(arguments):
            raise ValueError(problem)
        self.skeleton_name, self._whole_skeleton = skeleton, load_skeleton(skeleton)
        self.skeleton, self._left = self._whole_skeleton, {}
        if search_space is not None:
            self.skeleton = restricted_skeleton(skeleton, search_space, max_macs)
            choices, left = self._whole_skeleton.choices(), candidates_of(search_space)
            self._left = {label: left[label] for label in choices if len(left[label]) < len(choices[label])}
        first = {label: candidates[0] for label, candidates in self.skeleton.choices().items()}
        # It has what the search space leaves no choice of, too.
        self._some_network = self._whole_skeleton.sample_of(self.skeleton.fix(first))
        self.recipes = {'retrain': retrain, 'search': search or {}}
        self.test_runs, self.seed, self.max_attempts = test_runs, seed, max_attempts
        self._manager = manager
        self._lock = threading.RLock()
        self._workers: deque[int] = deque()  # parameter ids that NNI's manager is waiting for
        self._running: dict[int, TrialRequest] = {}
        self._tested: set[str] = set()  # tests that have a result
        self._failed: Counter[str] = Counter()  # trials of earlier runs
        self._resumed: dict[str, int] = {}  # parameter ids of trials that NNI has started again, until asked for
        self._last_earlier_id = -1
        self._send: Any = None
        self._threads: dict[str, threading.Thread] = {}
        self._tests: deque[TrialRequest] | None = None
        self._starting: int | None = None
        self._ended = False
        self.strategies: dict[str, Strategy] = {}
        self.engines: dict[str, TrialEngine] = {}
        self._spaces: dict[str, BudgetedSpace] = {}
        self._contenders = {}
        for name, own in strategies.items():
            try:
                if is_own(own['class']):
                    try_strategy(name, arguments)
                self._contenders[name] = contender(name, arguments)
            except UnusableStrategy as error:
                _logger.error('%s; the others go on', error)
        if not self._contenders:
            raise ValueError('no strategy is left to run')
        cost = macs(self.skeleton)
        for name, made in self._contenders.items():
            self.strategies[name] = made.strategy
            # Here and not in the strategy's thread: the scopes that make NNI's labels are shared by all threads.
            self._spaces[name] = BudgetedSpace.from_model(LightNLSpace(self.skeleton))
            self._spaces[name].cost, self._spaces[name].max_macs = cost, max_macs
            self.engines[name] = TrialEngine(
                name,
                budget,
                budget_unit,
                retrain['epochs'],
                retrain=lambda sample, index, name=name: self._request(
                    name, 'retrain', derived_seed(self.seed, 'retrain', index), sample
                ),
                search=lambda name=name: self._search_request(name),
                enqueued=self._dispatch,
                macs=cost,
                max_macs=max_macs,
            )

    def _request(self, strategy: str, stage: str, seed: int, sample: dict[str, Any]) -> TrialRequest:
        recipe = self.recipes['retrain']
        network = {**self._some_network, **self.skeleton.canonical(sample)}
        parameters = {'strategy': strategy, 'stage': stage, 'seed': seed, 'skeleton': self.skeleton_name}
        return TrialRequest(strategy, {**parameters, **recipe, **network}, recipe['epochs'])

    def _search_request(self, strategy: str) -> TrialRequest:
        made = self._contenders[strategy]
        seed = derived_seed(self.seed, 'search')
        parameters = {'strategy': strategy, 'stage': 'search', 'seed': seed, 'skeleton': self.skeleton_name}
        left = {f'candidates/{label}': candidates for label, candidates in self._left.items()}
        own = {f'class/{name}': value for name, value in made.arguments.items()}
        parameters = {**parameters, **self.recipes['search'], **left, 'class': made.path, **own}
        return TrialRequest(strategy, parameters, made.search_epochs)

    def add_workers(self, parameter_ids: list[int], send: Callable[[int, dict], None]) -> None:
        """Workers are free: each gets a trial through ``send``, as soon as a strategy has a request."""
        with self._lock:
            if self._send is None:
                self._ask_of_earlier_trials()
            self._send = send
            self._workers.extend(i for i in parameter_ids if i > self._last_earlier_id)
            for name, strategy in list(self.strategies.items()):
                if name not in self._threads:
                    if type(strategy)._run is RegularizedEvolution._run:
                        # It has no parent to choose until one of its population is through, and never waits for all.
                        self.engines[name].window = max(1, min(strategy.population_size - 1, len(parameter_ids) + 1))
                    thread = threading.Thread(target=self._run_strategy, args=(name,), name=name, daemon=True)
                    self._threads[name] = thread
                    thread.start()
        self._dispatch()

    def receive_result(self, parameter_id: int, result: dict) -> None:
        """A trial has reported its result; one that is not as it should be counts as none."""
        self._finish(parameter_id, result if _is_result(result) else None)

    def trial_ended(self, parameter_id: int, success: bool) -> None:
        """A trial's process has ended; if no result comes of it, it has failed."""
        with self._lock:
            if parameter_id not in self._running:
                return
        timer = threading.Timer(GRACE_SECONDS[success], self._finish, (parameter_id, None))
        timer.daemon = True
        timer.start()

    def import_data(self, data: list[dict]) -> None:
        """Remember the results of an earlier run of this experiment; those of another one are left alone.

        NNI tells so, too, of the result of a trial that it has started again.
        """
        own = 0
        for record in data:
            parameters, result = record['parameter'], record['value']
            parameters = json.loads(parameters) if isinstance(parameters, str) else parameters
            result = json.loads(result) if isinstance(result, str) else result
            if _is_result(result) and self._is_own(parameters):
                own += 1
                self._remember(parameters, result)
        _logger.info('%d of %d results of earlier trials are of this experiment', own, len(data))

    def _remember(self, parameters: dict[str, Any], result: dict[str, Any]) -> None:
        """A result has come that this tuner has sent nobody for; it answers the request that waits for it, if any."""
        engine, is_test = self.engines[parameters['strategy']], parameters['stage'] == 'test'
        with self._lock:
            if is_test:
                self._tested.add(key(parameters))
            self._resumed.pop(key(parameters), None)
            running = next((i for i, request in self._running.items() if request.parameters == parameters), None)
            waiting = engine.take(parameters) if running is None and not is_test else None
            if running is None and waiting is None and not is_test:
                engine.remember(TrialRequest(parameters['strategy'], parameters, result=result, ended=True))
        if running is not None:
            self._finish(running, result)
        elif waiting is not None:
            engine.finish(waiting, result)
        if self._send is not None:
            self._dispatch()

    def _is_own(self, parameters: dict[str, Any]) -> bool:
        """Is this what a strategy of this experiment may ask for?"""
        strategy, stage = parameters.get('strategy'), parameters.get('stage')
        if strategy not in self.engines or stage not in ('search', 'retrain', 'test'):
            return False
        if stage == 'search':
            return parameters == self._search_request(strategy).parameters
        try:
            sample = {label: parameters[label] for label in self.skeleton.choices()}
            return parameters == self._request(strategy, stage, parameters['seed'], sample).parameters
        except (KeyError, ValueError):
            return False

    def _run_strategy(self, name: str) -> None:
        engine = self.engines[name]
        try:
            self.strategies[name](self._spaces[name], engine)
        except BaseException:  # its sys.exit() would end this thread alone, and nobody would hear of it
            _logger.exception('strategy %s failed; the others go on', name)
            engine.drop_queue()
        engine.close()
        engine.wait_models()
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
            resumed = self._resumed.pop(key(request.parameters), None) if request is not None else None
            if request is not None:
                worker = self._workers.popleft()  # not needed where resumed: when that ends, NNI asks for another
                self._running[worker if resumed is None else resumed] = request
                failed = min(self._failed[key(request.parameters)], self.max_attempts - 1)
                request.attempts = max(request.attempts, failed) + 1
            if resumed is not None:
                threading.Thread(target=self._await_resumed, args=(resumed,), daemon=True).start()
            elif request is not None:
                self._starting = worker
                self._send(worker, request.parameters)
                threading.Thread(target=self._await_start, args=(worker,), daemon=True).start()
            if self._tests is not None and not self._tests and not self._running and not self._ended:
                self._ended = True
                threading.Thread(target=self._end, daemon=True).start()
        if resumed is not None:
            self._dispatch()

    def _ask_of_earlier_trials(self) -> None:
        try:
            self._resumed = {key(p): parameter_id for parameter_id, p in self._manager().unfinished().items()}
            self._failed = Counter(key(parameters) for parameters in self._manager().failed())
            self._last_earlier_id = self._manager().last_earlier_id()
        except Exception:
            _logger.exception('NNI could not be asked for the trials of earlier runs: what has no result is run anew')

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
        while self._tests:
            request = self._tests.popleft()
            if key(request.parameters) not in self._tested:
                return request
        by_spent = sorted(self.engines.values(), key=lambda engine: engine.spent(queued=False))
        return next((request for engine in by_spent if (request := engine.next_request())), None)

    def _queue_tests(self) -> None:
        self._tests = deque()
        for name, engine in self.engines.items():
            best = engine.best()
            if best is None:
                _logger.warning('strategy %s has no trained network, there is nothing to test', name)
                continue
            network = {label: best[label] for label in self.skeleton.choices()}
            for run in range(self.test_runs):
                request = self._request(name, 'test', derived_seed(self.seed, 'test', run), network)
                if key(request.parameters) not in self._tested:
                    self._tests.append(request)

    def _finish(self, parameter_id: int, result: dict | None) -> None:
        with self._lock:
            request = self._running.get(parameter_id)
        if request is None:
            return
        reason = self._why_failed(parameter_id) if result is None else ''
        with self._lock:
            if self._running.pop(parameter_id, None) is None:  # its result has come in the meantime
                return
            is_test, again = request.parameters['stage'] == 'test', False
            if result is None:
                again = request.attempts < self.max_attempts
                outcome = 'it is tried again' if again else 'it is given up'
                _logger.warning(
                    'a trial of %s failed (%s), %s: %s', request.strategy, reason, outcome, request.parameters
                )
            if again:
                self._tests.appendleft(request) if is_test else self.engines[request.strategy].put_back(request)
        if not again and not is_test:
            self.engines[request.strategy].finish(request, result)
        self._dispatch()

    def _why_failed(self, parameter_id: int) -> str:
        try:
            return self._manager().why_failed(parameter_id)
        except Exception as error:  # the training service may keep no log that NNI could give
            return f'its log could not be had: {error}'


def _is_result(value: Any) -> bool:
    """Is it what our trials report? After a loss that was no number, or from another trial command, it may not be."""
    return isinstance(value, dict) and all(
        isinstance(value.get(name), int | float) and math.isfinite(value[name])
        for name in ('default', 'macs', 'epochs', 'seconds')
    )
