"""An execution engine of NNI that trains nothing: models are answered from a table, or by a supernet, at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search_space.nni_nas import ExecutableModelSpace, ExecutionEngine, FinalMetricEvent, ModelStatus, TrainingEndEvent

__all__ = ['Answer', 'TableEngine']

IDLE = 500
"""Models, one after the other, that nothing was spent on, after which a strategy gets no more: it has run dry."""


@dataclass
class Answer:
    """A network that a strategy has paid for: its place in the table, its accuracy as told, and what was spent then."""

    network: int
    accuracy: float
    spent: float


class TableEngine(ExecutionEngine):
    """Answers the models of a strategy, in its own thread and at once, and counts what their trainings would cost.

    A network over ``max_macs`` fails and costs nothing, as under :class:`strategies.experiment.engine.TrialEngine`. One
    that was asked for before is told again and costs nothing: whoever trains networks keeps what came of them.

    Args:
        network: a model's sample to the network that it is, a number.
        accuracy: what a network's training comes to; the strategy is to make it large.
        macs: of a network.
        cost: of a training, in the unit of ``budget``.
        budget: what may be spent.
        max_macs: the most MACs that a network may have; None is no limit.

    Attributes:
        answers: the networks that were paid for, in order.
    """

    def __init__(
        self,
        network: Callable[[dict], int],
        accuracy: Callable[[int], float],
        macs: Callable[[int], float],
        cost: float,
        budget: float,
        max_macs: float | None = None,
    ):
        super().__init__()
        self._network, self._accuracy, self._macs = network, accuracy, macs
        self.cost, self.budget, self.max_macs = cost, budget, max_macs
        self.answers: list[Answer] = []
        self._known: dict[int, Answer] = {}
        self._models: list[ExecutableModelSpace] = []
        self._idle = 0

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        for model in models:
            self._models.append(model)
            model.status = ModelStatus.Training
            answer = self._answer(self._network(model.sample))
            if answer is not None:
                self.dispatch_model_event(FinalMetricEvent(model, answer.accuracy))
            status = ModelStatus.Failed if answer is None else ModelStatus.Trained
            self.dispatch_model_event(TrainingEndEvent(model, status))

    def _answer(self, network: int) -> Answer | None:
        self._idle += 1
        if self.max_macs is not None and self._macs(network) > self.max_macs:
            return None
        if network not in self._known and self._affordable():
            self._idle = 0
            self._known[network] = Answer(network, self._accuracy(network), self.spent() + self.cost)
            self.answers.append(self._known[network])
        return self._known.get(network)

    def spent(self) -> float:
        return len(self.answers) * self.cost

    def _affordable(self) -> bool:
        return self.spent() + self.cost <= self.budget + 1e-9

    def budget_available(self) -> bool:
        return self._idle < IDLE and self._affordable()

    def idle_worker_available(self) -> bool:
        return True

    def list_models(self, status: ModelStatus | None = None):
        return [model for model in self._models if status is None or model.status == status]

    def picks(self) -> list[Answer]:
        """The best network so far, each time that it is another: by accuracy as told, of equal ones of fewer MACs."""
        picks: list[Answer] = []
        for answer in self.answers:
            if not picks or self._rank(answer) > self._rank(picks[-1]):
                picks.append(answer)
        return picks

    def _rank(self, answer: Answer) -> tuple[float, float]:
        return answer.accuracy, -self._macs(answer.network)
