"""AutoNL's search as Lightning runs it: weight steps, threshold steps, and the selection at the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from torch import Tensor

from search_space import ABSENT, Cost
from search_space.skeleton import Sample

from .finite_loss import FiniteLoss
from .gate import Threshold
from .objective import CostObjective
from .selection import front, measuring

__all__ = ['AutoNLModule']

SELECTION_BATCHES = 20
"""Held-out batches that a network is measured on when a budget is met."""


class AutoNLModule(DartsLightningModule):
    """Alternates weight steps and threshold steps, first order, as DARTS does.

    In warm-up every gate is open and only weights are trained. After it, each batch is

    - a threshold step, on held-out data: ``cross-entropy + λ · log(cost)``, weights kept;
    - a weight step, on training data: the evaluator's own loss, thresholds kept.

    In weight steps from the middle of warm-up on, each choice but those of presence takes, with the probability
    ``drawn_share``, a candidate that is drawn instead of the gates' own.

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
        margin, drawn_share: see :class:`AutoNL`.
    """

    def __init__(
        self,
        training_module,
        costs: dict[str, Cost],
        objective: CostObjective,
        budgets: Sequence[float],
        margin: float,
        drawn_share: float,
        warmup_epochs: int,
        **kwargs,
    ):
        super().__init__(training_module, warmup_epochs=warmup_epochs, **kwargs)
        self.costs, self.objective, self.budgets, self.margin = costs, objective, tuple(budgets), margin
        self.drawn_share = drawn_share
        self.selected: list[Sample] = []
        self.loss_name = 'weight loss'  # of the step at hand

    @property
    def cost(self) -> Cost:
        """The objective's cost."""
        return list(self.costs.values())[-1]

    def training_step(self, batch, batch_idx):
        if self.trainer.current_epoch >= self.warmup_epochs:
            self._threshold_step(batch['val'], batch_idx)
        with self._drawn_candidates(batch_idx):
            loss_and_metrics = self.training_module.training_step(batch['train'], 2 * batch_idx + 1)
        loss = loss_and_metrics['loss'] if isinstance(loss_and_metrics, dict) else loss_and_metrics
        self.log('weight_loss', loss.detach(), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        self.loss_name = 'weight loss'
        self.advance_optimization(loss, batch_idx, self.gradient_clip_val)
        self.advance_lr_schedulers(batch_idx)
        return loss_and_metrics

    @contextmanager
    def _drawn_candidates(self, batch_idx: int) -> Iterator[None]:
        """What is drawn for a weight step, the same in all processes and after a resume."""
        with ExitStack() as stack:
            if self.drawn_share and 2 * self.trainer.current_epoch >= self.warmup_epochs:
                rng = np.random.default_rng((torch.initial_seed(), self.trainer.current_epoch, batch_idx))
                for threshold in self.thresholds().values():
                    if ABSENT not in threshold.candidates and rng.random() < self.drawn_share:
                        stack.enter_context(threshold.taking(rng.integers(len(threshold.candidates))))
            yield

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
            self.log('threshold_loss', loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
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
            values.update({name: float(cost(self.export())) for name, cost in self.costs.items()})
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
