"""The cost model for NNI's profiler, filter and penalty interfaces."""

from __future__ import annotations

from torch import Tensor, nn

from ..backbones import BackboneSpace
from ..network import LightNLSpace
from ..nni_nas import ExpectationProfilerPenalty, Profiler
from ..skeleton import Sample
from .macs import Cost

__all__ = ['CostPenalty', 'CostProfiler']


class CostProfiler(Profiler):
    """The cost of a sample, as NNI's strategies ask for it.

    >>> strategy = RandomOneShot(filter={'profiler': CostProfiler(space), 'max': 350e6})

    It is no ``ExpressionProfiler``: NNI takes the mean of an expression by going through each row's combinations of
    candidates in Python. :class:`CostPenalty` has that mean from :meth:`Cost.expected`, in a few tensor products.

    Args:
        space: the model space, before or after a one-shot strategy made it a supernet.
        cost: of its samples; MACs by default.
    """

    def __init__(self, space: LightNLSpace | BackboneSpace, cost: Cost | None = None):
        super().__init__(space)
        self.space, self.cost = space, space.cost() if cost is None else cost

    def profile(self, sample: Sample) -> float:
        """The cost of ``sample``; labels that are not the skeleton's say nothing."""
        return float(self.cost(sample))


class CostPenalty(ExpectationProfilerPenalty):
    """NNI's penalty on the expected cost, for DARTS and GumbelDARTS, with a gradient.

    >>> strategy = DARTS(penalty=CostPenalty(CostProfiler(space), baseline=350e6, scale=0.1))

    NNI 3.0 hands a penalty probabilities that are plain numbers, so that its own changes the loss and no architecture
    parameter. This one takes the probabilities, ``softmax(α)``, from the supernet itself.

    Args:
        profiler: whose space the strategy is run on.
        baseline, scale, nonlinear, aggregate: as in NNI's :class:`ProfilerPenalty`.
    """

    def profile(self, sample: Sample) -> Tensor:
        """The expected cost under the supernet's probabilities, a scalar; ``sample`` are the same ones, as numbers."""
        return self.profiler.cost.expected(
            {label: alpha.softmax(-1) for label, alpha in _architecture_parameters(self.profiler.space).items()}
        )


def _architecture_parameters(supernet: nn.Module) -> dict[str, Tensor]:
    """Label to the parameters α that NNI's differentiable strategies learn for it, `(candidates,)`."""
    found = {}
    for module in supernet.modules():
        alpha = getattr(module, '_arch_alpha', None)
        if isinstance(alpha, nn.ParameterDict):
            found.update(alpha.items())
        elif alpha is not None:
            found[module.label] = alpha
    return found
