"""A one-shot strategy of NNI in an experiment of trials: its search is one trial, then its network is retrained."""

from __future__ import annotations

from search_space.nni_nas import Strategy

__all__ = ['OneShotTrial', 'search_passes']


def search_passes(strategy: Strategy, epochs: int) -> float:
    """Passes that a search of ``epochs`` makes over its part of the training data.

    An epoch of warm-up has no step on held-out data; in every other one such a step comes with each batch, or with
    every ``threshold_every``-th.
    """
    without = min(epochs, getattr(strategy, 'warmup_epochs', 0))
    return epochs + (epochs - without) / getattr(strategy, 'threshold_every', 1)


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
        if not self.engine.fits(sample):
            raise RuntimeError(f'the network that the search found has {search.result["macs"]} MACs, over max_macs')
        while self.wait_for_resource():
            self.engine.submit_models(self.model_space.freeze(sample))
        self.engine.wait_models()
