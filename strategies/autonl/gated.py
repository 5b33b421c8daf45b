"""What the supernet modules of AutoNL have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from search_space.nni_nas import BaseSuperNetModule

from .gate import Threshold, nested_weights

__all__ = ['Gated']


class Gated(BaseSuperNetModule):
    """A supernet module whose choices are gates: it has thresholds, and the gates of its last forward pass."""

    gates: dict[str, Tensor]
    """Label to the gates, as the last forward pass used them."""

    def __getstate__(self):
        return {**self.__dict__, 'gates': {}}  # part of an autograd graph, which a copy has no share in

    def labelled_thresholds(self) -> dict[str, Threshold]:
        """Label to the thresholds of its gates."""
        raise NotImplementedError

    @property
    def weights(self) -> dict[str, Tensor]:
        """Label to the weights of its candidates, in the space's order, as the last forward pass used them."""
        spaces, thresholds, weights = self.simplify(), self.labelled_thresholds(), {}
        for label, gates in self.gates.items():
            by_candidate = dict(zip(thresholds[label].candidates, nested_weights(gates).unbind(), strict=True))
            weights[label] = torch.stack([by_candidate[candidate] for candidate in spaces[label].values])
        return weights

    def export(self, memo):
        """Label to the candidate that its gates choose now."""
        return {label: threshold.chosen() for label, threshold in self.labelled_thresholds().items()}

    def resample(self, memo):
        """Nothing: gates are not sampled."""
        return {}

    def export_probs(self, memo):
        """Label to candidate to 1 or 0: the gates are hard."""
        spaces, chosen = self.simplify(), self.export(memo)
        return {label: {c: float(c == chosen[label]) for c in spaces[label].values} for label in chosen}

    def arch_parameters(self):
        return [threshold.t for threshold in self.labelled_thresholds().values()]
