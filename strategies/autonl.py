"""AutoNL: where LightNL belongs and how compact it may be, as a one-shot strategy of NNI."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from nni.nas.nn.pytorch import MutableModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, is_supernet, no_default_hook
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import Tensor, nn

from search_space import Cost
from search_space.latency import LatencyTable
from search_space.skeleton import Sample

from .budget import check_budget
from .finite_loss import FiniteLoss
from .gate import Threshold
from .gated import Gated
from .gated_lightnl import GatedInsertion, GatedLightNL
from .gated_row import GatedRow
from .objective import CostObjective
from .selection import front, measuring

__all__ = ['AutoNL', 'AutoNLModule']


SELECTION_BATCHES = 20
"""Held-out batches that a network is measured on when a budget is met."""


class AutoNLModule(DartsLightningModule):
    """Alternates weight steps and threshold steps, first order, as DARTS does.

    In an epoch of warm-up every gate is open and only weights are trained. After it, each batch is

    - a threshold step, on held-out data: ``cross-entropy + λ · log(cost)``, weights kept;
    - a weight step, on training data: the evaluator's own loss, thresholds kept.

    Under budgets the last epoch ends with a selection, :func:`.selection.front`, and the gates are set to its network.

    Logged per epoch, beside what the evaluator logs: ``macs`` (the mean over the epoch's threshold steps), ``ms`` where
    latency is the cost, ``cost_weight`` (λ), ``threshold_loss`` (without the cost), and of every gate ``norm/LABEL``,
    ``threshold/LABEL`` and ``gate/LABEL``; ``LABEL#2`` is the second gate of a choice.

    Source: the paper's section 3.2; Liu et al., "DARTS" (ICLR 2019), first order.

    Args:
        training_module: the evaluator's.
        costs: what is logged: name to cost; the last one is the objective's.
        objective: of the cost.
        budgets: that networks are selected for, in the objective's unit; none are none.
        margin: see :class:`AutoNL`.
    """

    def __init__(
        self,
        training_module,
        costs: dict[str, Cost],
        objective: CostObjective,
        budgets: Sequence[float],
        margin: float,
        warmup_epochs: int,
        **kwargs,
    ):
        super().__init__(training_module, warmup_epochs=warmup_epochs, **kwargs)
        self.costs, self.objective, self.budgets, self.margin = costs, objective, tuple(budgets), margin
        self.selected: list[Sample] = []
        self.loss_name = 'weight loss'  # of the step at hand

    @property
    def cost(self) -> Cost:
        """The objective's cost."""
        return list(self.costs.values())[-1]

    def training_step(self, batch, batch_idx):
        if self.trainer.current_epoch >= self.warmup_epochs:
            self._threshold_step(batch['val'], batch_idx)
        loss_and_metrics = self.training_module.training_step(batch['train'], 2 * batch_idx + 1)
        loss = loss_and_metrics['loss'] if isinstance(loss_and_metrics, dict) else loss_and_metrics
        self.log('weight_loss', loss.detach(), on_step=False, on_epoch=True, prog_bar=True)
        self.loss_name = 'weight loss'
        self.advance_optimization(loss, batch_idx, self.gradient_clip_val)
        self.advance_lr_schedulers(batch_idx)
        return loss_and_metrics

    def _threshold_step(self, batch, batch_idx: int) -> None:
        optimizer = self.architecture_optimizers()
        weights = [p for p in self.training_module.parameters() if p.requires_grad]
        thresholds = {id(t) for t in self.arch_parameters()}
        weights = [p for p in weights if id(p) not in thresholds]
        optimizer.zero_grad()
        for weight in weights:  # their gradients are not wanted here, and are a third of a backward pass
            weight.requires_grad_(False)
        try:
            loss = self.training_module.training_step(batch, 2 * batch_idx)
            loss = loss['loss'] if isinstance(loss, dict) else loss
            weights_of = self.choice_weights()
            for name, cost_of in self.costs.items():
                cost = cost_of.expected(weights_of)
                self.log(name, cost.detach(), on_step=False, on_epoch=True)
            self.log('threshold_loss', loss.detach(), on_step=False, on_epoch=True)
            self.loss_name = 'threshold loss'
            self.manual_backward(loss + self.objective(cost))
            self.objective.adapt(cost.detach())
        finally:
            for weight in weights:
                weight.requires_grad_(True)
        optimizer.step()

    def choice_weights(self) -> dict[str, Tensor]:
        """Label to the weights of its candidates, as the last forward pass used them."""
        result = {}
        for module in self.supernet_modules():
            result.update(module.weights)
        return result

    def thresholds(self) -> dict[str, Threshold]:
        """Label to its thresholds."""
        result = {}
        for module in self.supernet_modules():
            result.update(module.labelled_thresholds())
        return result

    def arch_parameters(self):
        return [t for module in self.supernet_modules() for t in module.arch_parameters()]

    def configure_architecture_optimizers(self):
        return torch.optim.Adam(self.arch_parameters(), self.arc_learning_rate)

    def on_train_epoch_start(self):
        if self.trainer.current_epoch == self.warmup_epochs:
            for threshold in self.thresholds().values():
                threshold.activate(self.margin)
        self.architecture_optimizers().param_groups[0]['lr'] = self._threshold_learning_rate()
        return super().on_train_epoch_start()

    def _threshold_learning_rate(self) -> float:
        """Falls linearly over the epochs after warm-up, so that what is decided can settle."""
        first, last = self.warmup_epochs, self.trainer.max_epochs
        return self.arc_learning_rate * min(1.0, (last - self.trainer.current_epoch) / max(1, last - first))

    def configure_callbacks(self):
        return [FiniteLoss()]

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.is_last_batch:  # and not when the epoch has ended, which callbacks are told of first
            if self.trainer.current_epoch + 1 == self.trainer.max_epochs:
                self._select()
            self._log_gates()
        return super().on_train_batch_end(outputs, batch, batch_idx)

    def _log_gates(self) -> None:
        values = {'cost_weight': self.objective.cost_weight}
        if self.trainer.current_epoch < self.warmup_epochs:
            choice_weights = self.choice_weights()
            values.update({name: cost.expected(choice_weights).detach() for name, cost in self.costs.items()})
        for label, threshold in self.thresholds().items():
            for gate, (norm, t, is_open) in enumerate(
                zip(threshold.norm, threshold.t.detach(), threshold.is_open(), strict=True), start=1
            ):
                name = label if len(threshold.t) == 1 else f'{label}#{gate}'
                values.update({f'norm/{name}': norm, f'threshold/{name}': t, f'gate/{name}': is_open.float()})
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self):
        self._select()  # where training was ended before its last epoch
        return super().on_train_end()

    def _select(self) -> None:
        """Find the networks of the budgets, and set the gates to the one of the largest."""
        if not self.budgets or self.selected:
            return
        thresholds = self.thresholds()
        for threshold in thresholds.values():
            if not threshold.active:
                threshold.activate(self.margin)
        learned = {label: threshold.t.detach().clone() for label, threshold in thresholds.items()}
        batches = list(itertools.islice(self.trainer.train_dataloader['val'], SELECTION_BATCHES))
        known: dict[tuple, float] = {}

        def set_gates(sample: Sample) -> None:
            for label, threshold in thresholds.items():
                threshold.t.data.copy_(learned[label])
                threshold.choose(sample[label], self.margin)

        def loss(sample: Sample) -> float:
            key = tuple(sample.values())
            if key not in known:
                set_gates(sample)
                known[key] = self._held_out_loss(batches)
            return known[key]

        with measuring(self.training_module):
            self.selected = front(self.cost, self.budgets, self.export(), loss)
        set_gates(self.selected[self.budgets.index(max(self.budgets))])

    @torch.no_grad()
    def _held_out_loss(self, batches: list) -> float:
        """The evaluator's training loss of the present gates, the mean over batches (and processes)."""
        total = 0.0
        for index, batch in enumerate(batches):
            batch = self.trainer.strategy.batch_to_device(batch)
            with self.trainer.precision_plugin.forward_context():
                loss = self.training_module.training_step(batch, index)
            total = total + (loss['loss'] if isinstance(loss, dict) else loss)
        return float(self.trainer.strategy.reduce(total / len(batches), reduce_op='mean'))


class AutoNL(OneShotStrategy):
    """AutoNL's differentiable search, for a :class:`search_space.LightNLSpace` or :class:`search_space.BackboneSpace`.

    Any model space will do whose choices are LightNL's and whose ``cost()`` gives a :class:`search_space.Cost`.

    A choice is a hard gate with a soft gradient on a norm; the supernet is one network at any moment, and the one that
    is returned gives the supernet's own logits. The evaluator's training loader trains the weights, its validation
    loader the thresholds (NNI's convention for DARTS).

    >>> experiment = NasExperiment(LightNLSpace(load_skeleton('cued')), evaluator, AutoNL())

    With a budget, ``AutoNL(target_macs=350e6)``, λ is learned, and the network returned costs at most the budget and at
    least 95% of it where the space holds such a network. Several budgets give a front from one supernet: a network for
    each, the largest first, as :meth:`list_models` (and NNI's ``export_top_models``) returns them.

    Source: Li et al., "Neural Architecture Search for Lightweight Non-Local Networks" (CVPR 2020), section 3.2; the
    budget is ours.

    Args:
        cost_weight: λ of ``cross-entropy + λ · log(cost)``; with a budget, where λ starts.
        target_macs: a budget in MACs, or several.
        target_ms: a budget in milliseconds of ``latency``, or several.
        latency: the cost is this table's latency and not MACs; a :class:`search_space.latency.LatencyTable` or the file
            of one (``python -m search_space latency SKELETON --out FILE``).
        warmup_epochs: epochs of the weights alone, all gates open, before thresholds and cost come in.
        threshold_learning_rate: of the thresholds' Adam.
        margin: when warm-up ends every threshold starts this far below its norm.
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
        warmup_epochs: int = 6,
        threshold_learning_rate: float = 0.02,
        margin: float = 0.1,
        gradient_clip_val: float | None = None,
        **kwargs,
    ):
        super().__init__([GatedRow.mutate, GatedInsertion.mutate, GatedLightNL.mutate, _refuse_other_choices], **kwargs)
        for name, value in (
            ('cost_weight', cost_weight),
            ('warmup_epochs', warmup_epochs),
            ('threshold_learning_rate', threshold_learning_rate),
            ('margin', margin),
        ):
            if value < 0:
                raise ValueError(f'AutoNL: {name} must not be negative, but is {value!r}')
        if target_ms is not None and latency is None:
            raise ValueError('AutoNL: target_ms needs latency, a table of measured latencies')
        if target_macs is not None and latency is not None:
            raise ValueError('AutoNL: latency goes with target_ms, not with target_macs: one of the two is the cost')
        self.latency = LatencyTable.load(latency) if isinstance(latency, str | Path) else latency
        name, target = ('target_macs', target_macs) if latency is None else ('target_ms', target_ms)
        self.budgets = _budgets(name, target)
        self.cost_weight = cost_weight
        self.warmup_epochs = warmup_epochs
        self.threshold_learning_rate = threshold_learning_rate
        self.margin = margin
        self.gradient_clip_val = gradient_clip_val
        self._costs: dict[str, Cost] = {}

    def mutate_model(self, model):
        if is_supernet(model):
            raise ValueError('AutoNL: the space is a supernet already; make a new one for every search')
        if not hasattr(model, 'cost'):
            raise ValueError(f'AutoNL: {type(model).__name__} has no cost(), which the search keeps low')
        self._costs = {'macs': model.cost()}
        if self.latency is not None:
            if not hasattr(model, 'skeleton'):
                raise ValueError(f'AutoNL: latency is that of a skeleton, which {type(model).__name__} has not')
            self._costs['ms'] = self.latency.cost(model.skeleton)
        unit, cost = list(self._costs.items())[-1]
        for budget in self.budgets:
            check_budget(cost, budget, {'macs': 'MACs'}.get(unit, unit))
        supernet = super().mutate_model(model)
        _check_choices(supernet)
        return supernet

    def default_mutation_hooks(self):
        return [no_default_hook]

    def configure_oneshot_module(self, training_module):
        return AutoNLModule(
            training_module,
            costs=self._costs,
            objective=CostObjective(self.cost_weight, max(self.budgets, default=None)),
            budgets=self.budgets,
            margin=self.margin,
            warmup_epochs=self.warmup_epochs,
            arc_learning_rate=self.threshold_learning_rate,
            gradient_clip_val=self.gradient_clip_val,
        )

    def train_dataloader(self, train_dataloader_fn, val_dataloader_fn):
        return {'train': train_dataloader_fn(), 'val': val_dataloader_fn()}

    def val_dataloader(self, train_dataloader_fn, val_dataloader_fn):
        return None

    def list_models(self, sort: bool = True, limit: int | None = 1):
        """The network found, with the supernet's weights; of several budgets one each, the largest budget first."""
        module = self.oneshot_module
        module.set_model(self.supernet)
        by_budget = sorted(zip(self.budgets, module.selected), key=lambda pair: -pair[0])
        samples = [sample for _, sample in by_budget] or [module.export()]
        for sample in samples[:limit]:
            yield self.model_space.freeze(sample)


def _budgets(name: str, value: float | Sequence[float] | None) -> tuple[float, ...]:
    if value is None:
        return ()
    budgets = tuple(value) if isinstance(value, Sequence) else (value,)
    if not budgets or not all(isinstance(b, int | float) and 0 < b < float('inf') for b in budgets):
        raise ValueError(f'AutoNL: {name} must be a number above 0, or several, but is {value!r}')
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
