"""What a strategy of NNI sees of the experiment: an execution engine whose models are trained as trials."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from search_space.nni_nas import (
    ExecutableModelSpace,
    ExecutionEngine,
    FinalMetricEvent,
    ModelEvent,
    ModelStatus,
    TrainingEndEvent,
)

from .arguments import BUDGET_UNITS
from .requests import TrialRequest, key

__all__ = ['TrialEngine']

_logger = logging.getLogger(__name__)

REFUSALS = 500
"""Networks that are refused, one after the other, after which a strategy gets no more: NNI's strategies retry as often.
It ends then, as at the end of its budget."""

BUDGET_TOLERANCE = 0.01
"""A search's held-out part is whole images: what it spends may be off by less than a hundredth of an epoch."""


class TrialEngine(ExecutionEngine):
    """The experiment, to one strategy: models are queued, trained as trials, and their results dispatched as events.

    The budget is compute: what finished trials say they spent, and what waiting and running ones will. In seconds the
    latter is an estimate, by the slowest epoch so far; the first trial runs alone, to have one. One model is queued
    ahead of the next free worker, so that asking and answering never leave a worker idle.

    With a ``window``, the strategy is told of results in the order of its requests, and of the one ``window`` requests
    back just before it may make the next. So what it asks for depends on its seed and the results, never on which trial
    was faster, and after ``nnictl resume`` it asks for the same trials again and has all that it had learned.

    Sums are kept as trials come and go: to ask and to answer takes as long with a hundred thousand trials as with ten.

    Args:
        strategy: its name.
        budget: how much it may spend.
        unit: of the budget, one of :data:`strategies.experiment.arguments.BUDGET_UNITS`.
        retrain_epochs: epochs that a retraining trains.
        retrain: request of the trial that trains a given ``(sample, index)``.
        search: request of the trial that runs a one-shot search.
        enqueued: called after a request was queued.
        macs: MACs of a sample.
        max_macs: a network over it is not trained; to its strategy it is one that failed. None is no limit.
        window: see above; None tells of each result at once, and lets any number of models run.
    """

    def __init__(
        self,
        strategy: str,
        budget: float,
        unit: str,
        retrain_epochs: float,
        retrain: Callable[[dict, int], TrialRequest],
        search: Callable[[], TrialRequest],
        enqueued: Callable[[], None],
        macs: Callable[[dict], float],
        max_macs: float | None = None,
        window: int | None = None,
    ):
        super().__init__()
        self.strategy, self.budget, self.unit, self.max_macs, self.window = strategy, budget, unit, max_macs, window
        self._retrain_epochs, self._retrain, self._search = retrain_epochs, retrain, search
        self._enqueued, self._macs = enqueued, macs
        self._lock, self._telling = threading.RLock(), threading.RLock()
        self._models: list[ExecutableModelSpace] = []
        self._refused = self._retrainings = 0
        self._said_over = self._closed = False
        self.queue: deque[TrialRequest] = deque()
        self.requests: list[TrialRequest] = []
        self._untold: dict[TrialRequest, None] = {}  # in the order of the requests
        self._earlier: dict[str, TrialRequest] = {}
        self._spent: dict[str, float] = dict.fromkeys(BUDGET_UNITS, 0)  # by all that has a result
        self._planned: Counter[float] = Counter()  # epochs of a trial without a result, to how many such trials
        self._seconds_per_epoch: float | None = None  # the slowest so far

    def take(self, parameters: dict[str, Any]) -> TrialRequest | None:
        """Take the request of these parameters from the queue; None where it is not there."""
        with self._lock:
            request = next((request for request in self.queue if request.parameters == parameters), None)
            if request is not None:
                self.queue.remove(request)
            return request

    def put_back(self, request: TrialRequest) -> None:
        """A request that a worker had failed: it is the next to be taken."""
        with self._lock:
            self.queue.appendleft(request)

    def remember(self, request: TrialRequest) -> None:
        """A result of an earlier run of the experiment. It counts, whether or not the strategy asks for it again."""
        with self._lock:
            told_before = self._earlier.get(key(request.parameters))
            if told_before is not None:
                self._count(told_before.result, -1)
            self._earlier[key(request.parameters)] = request
            self._count(request.result)

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Queue models for training, whether or not a worker is free; what the budgets do not allow fails at once."""
        for model in models:
            with self._lock:
                request = self._allowed(model)
                model.status = ModelStatus.Training
                self._models.append(model)
                self._refused = 0 if request else self._refused + 1
                if request:
                    self._retrainings += 1
                    answered = self._enqueue(request)
            if request:
                self._go_on(request, answered)
            else:
                self._tell(TrainingEndEvent(model, ModelStatus.Failed))
            if self._refused == REFUSALS:
                _logger.warning('strategy %s: %d networks in a row were refused, it ends', self.strategy, REFUSALS)

    def _allowed(self, model: ExecutableModelSpace) -> TrialRequest | None:
        """The request that trains ``model``; None where it is over ``max_macs``, or its training over the budget."""
        if not self.fits(model.sample):
            return None
        request = self._retrain(model.sample, self._retrainings)
        request.model = model
        return request if key(request.parameters) in self._earlier or self._affordable() else None

    def submit_search(self) -> TrialRequest:
        """Queue the one-shot search."""
        request = self._search()
        with self._lock:
            answered = self._enqueue(request)
        self._go_on(request, answered)
        return request

    def fits(self, sample: dict[str, Any]) -> bool:
        """Is the network of ``sample`` within ``max_macs``?"""
        return self.max_macs is None or self._macs(sample) <= self.max_macs

    def _enqueue(self, request: TrialRequest) -> bool:
        """Queue a request, or answer it with the result of an earlier run; was it answered?"""
        self.requests.append(request)
        self._untold[request] = None
        earlier = self._earlier.pop(key(request.parameters), None)
        if earlier is None:
            self.queue.append(request)
            self._planned[request.epochs] += 1
        else:
            request.result, request.ended = earlier.result, True  # what it spent is counted already
        return earlier is not None

    def _go_on(self, request: TrialRequest, answered: bool) -> None:
        if answered:
            self._has_ended(request)
        else:
            self._enqueued()
            self._tell_what_is_due()

    def finish(self, request: TrialRequest, result: dict[str, Any] | None) -> None:
        """A request has ended; ``result`` is None where it was given up."""
        with self._lock:
            request.result, request.ended = result, True
            if result is not None or not request.attempts:
                self._planned[request.epochs] -= 1
            if result is not None:
                self._count(result)
        self._has_ended(request)

    def _count(self, result: dict[str, Any], times: int = 1) -> None:
        """Count what a trial spent; -1 times where it turns out to be counted otherwise."""
        for unit in BUDGET_UNITS:
            self._spent[unit] += times * (1 if unit == 'trials' else result[unit])
        if result['epochs']:
            self._seconds_per_epoch = max(self._seconds_per_epoch or 0.0, result['seconds'] / result['epochs'])

    def _has_ended(self, request: TrialRequest) -> None:
        if self.window is None:
            self._tell_of(request)
        else:
            self._tell_what_is_due()

    def close(self) -> None:
        """The strategy makes no more requests, so it is told of every result as it comes."""
        with self._lock:
            self._closed = True
        self._tell_what_is_due()

    def next_request(self) -> TrialRequest | None:
        """Take the next request from the queue, for a worker; None where no one has asked for anything."""
        with self._lock:
            return self.queue.popleft() if self.queue else None

    def drop_queue(self) -> None:
        """Give up what waits for a worker."""
        with self._lock:
            dropped = list(self.queue)
            self.queue.clear()
        for request in dropped:
            self.finish(request, None)

    def _tell_what_is_due(self) -> None:
        if self.window is None:
            return
        with self._telling:  # one thread after the other, or the order would be lost
            while (request := self._due()) is not None:
                self._tell_of(request)

    def _due(self) -> TrialRequest | None:
        with self._lock:
            request = next(iter(self._untold), None)
            if request is None or not request.ended:
                return None
            return request if self._closed or self._said_over or len(self._untold) >= self.window else None

    def _tell_of(self, request: TrialRequest) -> None:
        result = request.result
        if request.model is not None:
            if result is not None:
                self._tell(FinalMetricEvent(request.model, result['default']))
            self._tell(TrainingEndEvent(request.model, ModelStatus.Failed if result is None else ModelStatus.Trained))
        with self._lock:
            self._untold.pop(request, None)
        request.done.set()

    def _tell(self, event: ModelEvent) -> None:
        try:
            self.dispatch_model_event(event)
        except Exception:  # of the strategy's; it must not end the tuner, to which all strategies belong
            _logger.exception('strategy %s failed at the result of a trial', self.strategy)
            self.default_callback(event)

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        with self._lock:
            return [model for model in self._models if status is None or model.status == status]

    def idle_worker_available(self) -> bool:
        with self._lock:
            pending = len(self._untold)
            if self.unit == 'seconds' and pending and self._seconds_per_epoch is None:
                return False
            return not self.queue and (self.window is None or pending < self.window)

    def spent(self, unit: str | None = None, queued: bool = True) -> float:
        """What finished trials spent, as reported, and running (and ``queued``) ones will, as planned.

        What was started and given up counts as planned too, or a strategy of which every trial fails would never end.
        Results that are there already count whether or not the strategy has asked for them again.
        """
        unit = unit or self.unit
        with self._lock:
            planned = self._planned if queued else self._planned - Counter(r.epochs for r in self.queue)
            return self._spent[unit] + sum(n * self._cost(epochs, unit) for epochs, n in planned.items())

    def _cost(self, epochs: float, unit: str) -> float:
        """What a trial of ``epochs`` will cost."""
        if unit == 'seconds':
            return epochs * (self._seconds_per_epoch or 0.0)
        return 1 if unit == 'trials' else epochs

    def budget_available(self) -> bool:
        """Is there compute left for one more model to be trained?

        After a strategy was told that there is none it may wait for all that it asked for, so results are told at once.
        """
        available = self._affordable()
        if not available and not self._said_over:
            self._said_over = True
            self._tell_what_is_due()
        return available

    def _affordable(self) -> bool:
        with self._lock:
            if self._closed or self._refused >= REFUSALS:
                return False
            return self.spent() + self._cost(self._retrain_epochs, self.unit) <= self.budget + BUDGET_TOLERANCE

    def best(self) -> dict[str, Any] | None:
        """Parameters of the trained network of the highest validation accuracy; of several, the one of fewest MACs."""
        with self._lock:
            known = [r for r in (*self.requests, *self._earlier.values()) if r.result is not None]
            trained = [r for r in known if r.parameters['stage'] == 'retrain']
        best = max(trained, key=lambda r: (r.result['default'], -r.result['macs']), default=None)
        return best and best.parameters
