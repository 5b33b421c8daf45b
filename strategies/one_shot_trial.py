"""A one-shot strategy of NNI in an experiment of trials: its search is one trial, then its network is retrained."""

from __future__ import annotations

from nni.nas.strategy.base import Strategy

__all__ = ['OneShotTrial']


class OneShotTrial(Strategy):
    """Asks for the search, waits for it, and spends what compute is left on retraining the network it found.

    The one-shot strategy itself runs in the trial, on whatever machine the training service gives it.
    """

    def _run(self) -> None:
        search = self.engine.submit_search()
        search.done.wait()
        if search.result is None:
            raise RuntimeError('the search failed; see the log of its trial')
        sample = {label: search.result[label] for label in self.model_space.simplify()}
        while self.wait_for_resource():
            self.engine.submit_models(self.model_space.freeze(sample))
        self.engine.wait_models()
