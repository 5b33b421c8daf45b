"""What a strategy of NNI sees of the experiment: an execution engine whose models are trained as trials."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
from nni.nas.space import ExecutableModelSpace, ModelStatus

__all__ = ['TrialEngine', 'TrialRequest']


@dataclass(eq=False)
class TrialRequest:
    """A trial that a strategy wants run.

    Attributes:
        strategy: name of the strategy that asked for it.
        parameters: what the trial is a pure function of.
        model: NNI's model that is trained by it; None for a search and for a test.
        attempts: how often it was started.
        result: what it reported; None until then.
        done: set when there is a result, or when it was given up.
    """

    strategy: str
    parameters: dict[str, Any]
    model: ExecutableModelSpace | None = None
    attempts: int = 0
    result: dict[str, Any] | None = None
    done: threading.Event = field(default_factory=threading.Event)


class TrialEngine(ExecutionEngine):
    """The experiment, to one strategy: models are queued, trained as trials, and their results dispatched as events.

    The budget is compute, in trained epochs: what finished trials say they spent, and what waiting and running ones
    will. One model is queued ahead of the next free worker, so that asking and answering never leave a worker idle.

    Args:
        strategy: its name.
        budget: epochs that it may spend.
        retrain: parameters of the trial that trains a given ``(sample, index)``.
        search: parameters of the trial that runs a one-shot search.
        known: result of a trial of these parameters, where it is there already.
        enqueued: called after a request was queued.
        max_running: models that may run at once; None is no limit.
    """

    def __init__(
        self,
        strategy: str,
        budget: float,
        retrain: Callable[[dict, int], dict],
        search: Callable[[], dict],
        known: Callable[[dict], dict | None],
        enqueued: Callable[[], None],
        max_running: int | None = None,
    ):
        super().__init__()
        self.strategy, self.budget, self.max_running = strategy, budget, max_running
        self._retrain, self._search, self._known, self._enqueued = retrain, search, known, enqueued
        self._lock = threading.RLock()
        self._models: list[ExecutableModelSpace] = []
        self.queue: deque[TrialRequest] = deque()
        self.requests: list[TrialRequest] = []

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Queue models for training, whether or not a worker is free."""
        for model in models:
            with self._lock:
                model.status = ModelStatus.Training
                parameters = self._retrain(model.sample, len(self._models))
                self._models.append(model)
            self._enqueue(TrialRequest(self.strategy, parameters, model))

    def submit_search(self) -> TrialRequest:
        """Queue the one-shot search."""
        request = TrialRequest(self.strategy, self._search())
        self._enqueue(request)
        return request

    def _enqueue(self, request: TrialRequest) -> None:
        result = self._known(request.parameters)
        with self._lock:
            self.requests.append(request)
            if result is None:
                self.queue.append(request)
        if result is None:
            self._enqueued()
        else:
            self.finish(request, result)

    def finish(self, request: TrialRequest, result: dict[str, Any] | None) -> None:
        """Tell the strategy how a request ended; ``result`` is None where it was given up."""
        request.result = result
        if request.model is not None:
            if result is not None:
                self.dispatch_model_event(FinalMetricEvent(request.model, result['default']))
            status = ModelStatus.Failed if result is None else ModelStatus.Trained
            self.dispatch_model_event(TrainingEndEvent(request.model, status))
        request.done.set()

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        with self._lock:
            return [model for model in self._models if status is None or model.status == status]

    def idle_worker_available(self) -> bool:
        with self._lock:
            running = sum(not request.done.is_set() for request in self.requests)
            return not self.queue and (self.max_running is None or running < self.max_running)

    def spent(self, queued: bool = True) -> float:
        """Epochs of finished requests, as reported, of running (and ``queued``) ones, as planned."""
        with self._lock:
            return sum(
                request.result['epochs'] if request.result else request.parameters['epochs']
                for request in self.requests
                if request.result or (not request.done.is_set() and (queued or request not in self.queue))
            )

    def budget_available(self) -> bool:
        """Is there compute left for one more model to be trained?"""
        epochs = self._retrain({}, 0)['epochs']
        return self.spent() + epochs <= self.budget + 1e-6

    def best(self) -> TrialRequest | None:
        """The trained model of the highest validation accuracy; of several, the one of the fewest MACs."""
        with self._lock:
            trained = [r for r in self.requests if r.model is not None and r.result is not None]
        return max(trained, key=lambda r: (r.result['default'], -r.result['macs']), default=None)
