"""AutoNL: where LightNL belongs and how compact it may be, as a one-shot strategy of NNI."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from search_space import Cost
from search_space.cost.latency import LatencyTable
from search_space.nni_nas import (
    BaseSuperNetModule,
    ModelStatus,
    MutableModule,
    OneShotStrategy,
    RawFormatModelSpace,
    is_supernet,
    no_default_hook,
)
from search_space.rules import GRADIENT_NORM, number, shown, whole
from search_space.skeleton import Skeleton

from .batch_statistics import statistics_of
from .gated import Gated
from .gated_lightnl import GatedInsertion, GatedLightNL
from .gated_row import GatedRow
from .knapsack import check_budget
from .module import AutoNLModule
from .objective import CostObjective

__all__ = ['AutoNL']


_BUDGET = number(above=0)

RULES = {
    'cost_weight': number(0, 1e6),  # beside a loss of some units: more leaves the loss no say in single precision
    'least_fill': number(0, 1),
    'warmup_epochs': whole(0, 100_000),
    'threshold_every': whole(1, 100_000),
    'threshold_travel': number(0, 1000),  # norms are some units
    'margin': number(0, 1000),
    'drawn_share': number(0, 1),
    'gradient_clip_val': GRADIENT_NORM,
}
"""What AutoNL's arguments may be, each by itself."""


class AutoNL(OneShotStrategy):
    """AutoNL's differentiable search, for a :class:`search_space.LightNLSpace` or :class:`search_space.BackboneSpace`.

    Any model space will do whose choices are LightNL's and whose ``cost()`` gives a :class:`search_space.Cost`.

    A choice is a hard gate with a soft gradient on a norm; the supernet is one network at any moment, and the one that
    is returned gives the supernet's own logits. The evaluator's training loader trains the weights, its validation
    loader the thresholds (NNI's convention for DARTS).

    >>> experiment = NasExperiment(LightNLSpace(load_skeleton('cued')), evaluator, AutoNL())

    With a budget, ``AutoNL(target_macs=350e6)``, λ is learned, and the network returned costs at most the budget: it is
    the cheapest of those whose held-out loss is not told apart from the best one's. Several budgets give a front from
    one supernet: a network for each, the largest first, as :meth:`list_models` (and NNI's ``export_top_models``)
    returns them. Each has BN's statistics of its own, estimated on training data.

    Source: Li et al., "Neural Architecture Search for Lightweight Non-Local Networks" (CVPR 2020), section 3.2; the
    budget is ours.

    Args:
        cost_weight: λ of ``cross-entropy + λ · log(cost)``; with a budget, where λ starts.
        target_macs: a budget in MACs, or several.
        target_ms: a budget in milliseconds of ``latency``, or several.
        latency: the cost is this table's latency and not MACs; a :class:`search_space.cost.latency.LatencyTable` or the
            file of one (``python -m search_space latency SKELETON --out FILE``).
        least_fill: the smallest part of its budget that a network may cost, such as 0.95, where the space holds one.
        warmup_epochs: epochs of the weights alone, before thresholds and cost come in.
        threshold_every: after warm-up a threshold step comes with every weight step, with every second one, and so on.
        threshold_travel: about how far a threshold moves at most over the whole search, in the unit of its norm,
            whatever its number of steps.
        margin: when warm-up ends every threshold starts this far below its norm.
        drawn_share: with a budget, the probability with which a choice takes a candidate that is drawn, all as likely,
            in four weight steps of five: insertion of LightNL from the middle of warm-up on, a row's presence never.
            Smaller candidates are then trained before the selection measures them. The paper draws nothing; Guo et al.,
            "Single Path One-Shot" (ECCV 2020), draw every choice at every step.
        gradient_clip_val: largest norm of the weights' gradient; None is no clipping.

    Raises:
        ValueError: an argument is out of range; the space has no LightNL positions, no cost, a choice that AutoNL has
            no gate for or two of one label, or is a supernet already; no network of the space meets a budget.
    """

    def __init__(
        self,
        *,
        cost_weight: float = 1.0,
        target_macs: float | Sequence[float] | None = None,
        target_ms: float | Sequence[float] | None = None,
        latency: LatencyTable | str | Path | None = None,
        least_fill: float = 0.0,
        warmup_epochs: int = 6,
        threshold_every: int = 1,
        threshold_travel: float = 6.0,
        margin: float = 0.1,
        drawn_share: float = 1.0,
        gradient_clip_val: float | None = None,
        **kwargs,
    ):
        super().__init__([GatedRow.mutate, GatedInsertion.mutate, GatedLightNL.mutate, _refuse_other_choices], **kwargs)
        for name, value in (
            ('cost_weight', cost_weight),
            ('least_fill', least_fill),
            ('warmup_epochs', warmup_epochs),
            ('threshold_every', threshold_every),
            ('threshold_travel', threshold_travel),
            ('margin', margin),
            ('drawn_share', drawn_share),
        ):
            RULES[name].check(f'AutoNL: {name}', value)
        if gradient_clip_val is not None:
            RULES['gradient_clip_val'].check('AutoNL: gradient_clip_val', gradient_clip_val)
        if target_ms is not None and latency is None:
            raise ValueError('AutoNL: target_ms needs latency, a table of measured latencies')
        if target_macs is not None and latency is not None:
            raise ValueError('AutoNL: latency goes with target_ms, not with target_macs: one of the two is the cost')
        self.latency = LatencyTable.load(latency) if isinstance(latency, str | Path) else latency
        name, target = ('target_macs', target_macs) if latency is None else ('target_ms', target_ms)
        self.budgets = _budgets(name, target)
        if not self.budgets and threshold_travel == 0:  # under a budget the selection alone may decide
            raise ValueError(
                f'AutoNL: threshold_travel must be a number above 0 without a budget, not {threshold_travel}'
            )
        self.cost_weight = cost_weight
        self.least_fill = least_fill
        self.warmup_epochs = warmup_epochs
        self.threshold_every = threshold_every
        self.threshold_travel = threshold_travel
        self.margin = margin
        self.drawn_share = drawn_share
        self.gradient_clip_val = gradient_clip_val
        self._costs: dict[str, Cost] = {}

    def mutate_model(self, model):
        if is_supernet(model):
            raise ValueError('AutoNL: the space is a supernet already; make a new one for every search')
        if not hasattr(model, 'cost'):
            raise ValueError(f'AutoNL: {type(model).__name__} has no cost(), which the search keeps low')
        if self.latency is not None and not hasattr(model, 'skeleton'):
            raise ValueError(f'AutoNL: latency is that of a skeleton, which {type(model).__name__} has not')
        self._costs = self.costs(model.cost(), getattr(model, 'skeleton', None))
        supernet = super().mutate_model(model)
        _check_choices(supernet)
        return supernet

    def costs(self, macs: Cost, skeleton: Skeleton | None) -> dict[str, Cost]:
        """What networks of a space cost, by its unit; the last is what the search keeps low.

        Raises:
            ValueError: the latency table is of another skeleton, or no network meets a budget.
        """
        costs = {'macs': macs}
        if self.latency is not None:
            costs['ms'] = self.latency.cost(skeleton)
        unit, cost = list(costs.items())[-1]
        for budget in self.budgets:
            check_budget(cost, budget, {'macs': 'MACs'}.get(unit, unit))
        return costs

    def default_mutation_hooks(self):
        return [no_default_hook]

    def configure_oneshot_module(self, training_module):
        return AutoNLModule(
            training_module,
            costs=self._costs,
            objective=CostObjective(self.cost_weight, max(self.budgets, default=None), self.least_fill),
            budgets=self.budgets,
            least_fill=self.least_fill,
            threshold_every=self.threshold_every,
            threshold_travel=self.threshold_travel,
            margin=self.margin,
            drawn_share=self.drawn_share if self.budgets else 0.0,
            warmup_epochs=self.warmup_epochs,
            gradient_clip_val=self.gradient_clip_val,
        )

    def train_dataloader(self, train_dataloader_fn, val_dataloader_fn):
        return {'train': train_dataloader_fn(), 'val': val_dataloader_fn()}

    def val_dataloader(self, train_dataloader_fn, val_dataloader_fn):
        return None

    def list_models(self, sort: bool = True, limit: int | None = 1):
        """The network found, with the supernet's weights and BN's statistics of its own; of several budgets one each,
        the largest budget first.

        Before a search has ended it is the network of the gates, with the supernet's statistics.
        """
        module, supernet = self.oneshot_module, self.supernet
        module.set_model(supernet)
        found = module.found or [(module.export(), {})]
        order = sorted(range(len(found)), key=lambda index: self.budgets[index] if self.budgets else 0, reverse=True)
        for sample, statistics in [found[index] for index in order[:limit]]:
            own = statistics_of(supernet)
            supernet.load_state_dict(statistics, strict=False)
            network = copy.deepcopy(supernet.freeze(sample))  # NNI's shares what has no choice with the supernet
            supernet.load_state_dict(own, strict=False)
            model = RawFormatModelSpace(network, self.model_space.evaluator)
            model.sample, model.status = sample, ModelStatus.Frozen
            yield model


def _budgets(name: str, value: float | Sequence[float] | None) -> tuple[float, ...]:
    if value is None:
        return ()
    budgets = tuple(value) if isinstance(value, Sequence) else (value,)
    if not budgets or not all(_BUDGET.valid(budget) for budget in budgets):
        raise ValueError(f'AutoNL: {name} must be a number above 0, or several, not {shown(value)}')
    return budgets


def _check_choices(supernet: nn.Module) -> None:
    """Refuse a space without LightNL positions, and labels that two choices share: their gates would disagree."""
    gated = [module for module in supernet.modules() if isinstance(module, Gated)]
    if not any(isinstance(module, GatedInsertion | GatedLightNL) for module in gated):
        raise ValueError('AutoNL: the space has no LightNL positions to search')
    labels = [label for module in gated for label in module.labelled_thresholds()]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f'AutoNL: the label {label!r} is on {labels.count(label)} choices; it must be on one')


def _refuse_other_choices(module, name, memo, mutate_kwargs):
    """NNI's mutation hook, after AutoNL's own: a choice that is left would otherwise be searched by nobody."""
    if isinstance(module, MutableModule) and module.mutables and not isinstance(module, BaseSuperNetModule):
        labels = ', '.join(label for mutable in module.mutables for label in mutable.simplify())
        raise ValueError(f'AutoNL: there is no gate for the choice {labels}')
    return False
