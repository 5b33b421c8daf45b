"""Several strategies of NNI in one experiment, at equal compute: who gets the next free worker, and what is tested."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from search_space import LightNLSpace, load_skeleton, macs
from search_space.nni_nas import RegularizedEvolution, Strategy
from search_space.skeleton import candidates_of

from .arguments import argument_problems, restricted_skeleton
from .bounded_space import BoundedSpace
from .contender import contender
from .engine import TrialEngine
from .nni_manager import NniManager
from .own_strategy import UnusableStrategy, is_own, try_strategy
from .requests import TrialRequest, key
from .seeds import derived_seed
from .workers import Workers

__all__ = ['Comparison']

_logger = logging.getLogger(__name__)

RESULT = ('default', 'macs', 'epochs', 'seconds')
"""Numbers that every trial reports."""


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
        self.test_runs, self.seed = test_runs, seed
        self._workers = Workers(self, manager, RESULT, max_attempts)
        self._lock = self._workers.lock
        self._tested: set[str] = set()  # tests that have a result
        self._threads: dict[str, threading.Thread] = {}
        self._tests: deque[TrialRequest] | None = None
        self.strategies: dict[str, Strategy] = {}
        self.engines: dict[str, TrialEngine] = {}
        self._spaces: dict[str, BoundedSpace] = {}
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
            self._spaces[name] = BoundedSpace.from_model(LightNLSpace(self.skeleton))
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
                enqueued=self._workers.dispatch,
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
            for name, strategy in list(self.strategies.items()):
                if name not in self._threads:
                    if type(strategy)._run is RegularizedEvolution._run:
                        # It has no parent to choose until one of its population is through, and never waits for all.
                        self.engines[name].window = max(1, min(strategy.population_size - 1, len(parameter_ids) + 1))
                    thread = threading.Thread(target=self._run_strategy, args=(name,), name=name, daemon=True)
                    self._threads[name] = thread
                    thread.start()
        self._workers.add(parameter_ids, send)

    def receive_result(self, parameter_id: int, result: Any) -> None:
        """A trial has reported its result; one that is not as it should be counts as none."""
        self._workers.receive_result(parameter_id, result)

    def trial_ended(self, parameter_id: int, success: bool) -> None:
        """A trial's process has ended; if no result comes of it, it has failed."""
        self._workers.trial_ended(parameter_id, success)

    def import_data(self, data: list[dict]) -> None:
        """Remember the results of an earlier run of this experiment; those of another one are left alone.

        NNI tells so, too, of the result of a trial that it has started again.
        """
        own = 0
        for parameters, result in self._workers.earlier_results(data):
            if self._is_own(parameters):
                own += 1
                self._remember(parameters, result)
        _logger.info('%d of %d results of earlier trials are of this experiment', own, len(data))

    def _remember(self, parameters: dict[str, Any], result: dict[str, Any]) -> None:
        """A result has come that this tuner has sent nobody for; it answers the request that waits for it, if any."""
        engine, is_test = self.engines[parameters['strategy']], parameters['stage'] == 'test'
        with self._lock:
            if is_test:
                self._tested.add(key(parameters))
            running = self._workers.running(parameters)
            waiting = engine.take(parameters) if running is None and not is_test else None
            if running is None and waiting is None and not is_test:
                engine.remember(TrialRequest(parameters['strategy'], parameters, result=result, ended=True))
        if running is not None:
            self._workers.receive_result(running, result)
        elif waiting is not None:
            engine.finish(waiting, result)
        self._workers.dispatch()

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
            if not self.strategies:
                self._queue_tests()
        self._workers.dispatch()

    def next_request(self) -> TrialRequest | None:
        """For a free worker: what the strategy wants that has spent least, and at last the tests."""
        while self._tests:
            request = self._tests.popleft()
            if key(request.parameters) not in self._tested:
                return request
        by_spent = sorted(self.engines.values(), key=lambda engine: engine.spent(queued=False))
        return next((request for engine in by_spent if (request := engine.next_request())), None)

    def put_back(self, request: TrialRequest) -> None:
        """A trial has failed: it is the next to be run."""
        if request.parameters['stage'] == 'test':
            self._tests.appendleft(request)
        else:
            self.engines[request.strategy].put_back(request)

    def finish(self, request: TrialRequest, result: dict[str, Any] | None) -> None:
        """A trial has a result, or was given up: its strategy is told, but of tests."""
        if request.parameters['stage'] != 'test':
            self.engines[request.strategy].finish(request, result)

    def is_done(self) -> bool:
        """Have all strategies ended, and their tests?"""
        return self._tests is not None and not self._tests

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
