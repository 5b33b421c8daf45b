"""AutoNL's search as Lightning runs it: weight steps, threshold steps, and the selection at the end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from search_space import Cost
from search_space.nni_nas import DartsLightningModule
from search_space.skeleton import Sample, canonical_sample

from .batch_statistics import batches_own_statistics, estimated_statistics, statistics_of
from .finite_loss import FiniteLoss
from .gate import Threshold
from .objective import CostObjective
from .selection import Measured, front

__all__ = ['AutoNLModule']

BATCHES = 20
"""Held-out batches that a network is measured on under a budget, and training batches that BN's statistics of a network
found are estimated on."""

UNDRAWN_EVERY = 5
"""Of the weight steps one in this many draws no candidates: it shows the norms of the gates' own network."""


def threshold_optimizer(thresholds: list[Tensor]) -> torch.optim.Adam:
    """Adam, whose rate is set for each epoch. On a GPU one launch moves all ``thresholds``."""
    return torch.optim.Adam(thresholds, fused=all(t.is_cuda for t in thresholds))


class AutoNLModule(DartsLightningModule):
    """Alternates weight steps and threshold steps, first order, as DARTS does.

    In warm-up the gates' own network is the largest, and only weights are trained. After it, each batch is

    - a threshold step, on held-out data: ``cross-entropy + λ · log(cost)``, weights kept; in every
      ``threshold_every``-th batch of an epoch, from the first on;
    - a weight step, on training data: the evaluator's own loss, thresholds kept.

    What moves thresholds and λ is said for the search as a whole: of its T threshold steps each moves a threshold by
    about ``threshold_travel / T``, more in the first epoch after warm-up than in the last, so that what is decided can
    settle. So a setting means the same for a data set of any size, and for batches of any size.

    In four weight steps of five each choice takes, with the probability ``drawn_share``, a candidate that is drawn
    instead of the gates' own; insertion of LightNL only from the middle of warm-up on, a row's presence never.

    After the last step come, under budgets, a selection, :func:`.selection.front`, to whose network of the largest
    budget the gates are set; and for every network found BN's statistics, estimated on training data.

    Logged per epoch, beside what the evaluator logs: ``macs`` (the mean over the epoch's threshold steps), ``ms`` where
    latency is the cost, ``cost_weight`` (λ), ``threshold_loss`` (without the cost), and of every gate ``norm/LABEL``,
    ``threshold/LABEL`` and ``gate/LABEL``; ``LABEL#2`` is the second gate of a choice.

    Source: the paper's section 3.2; Liu et al., "DARTS" (ICLR 2019), first order.

    Attributes:
        found: the networks found and BN's statistics of each, of several budgets in their order; empty until the end.

    Args:
        training_module: the evaluator's.
        costs: what is logged: name to cost; the last one is the objective's.
        objective: of the cost.
        budgets: that networks are selected for, in the objective's unit; none are none.
        least_fill, threshold_every, threshold_travel, margin, drawn_share: see :class:`AutoNL`.

    Raises:
        ValueError: when training starts, the training loader has no length, or the evaluator several optimizers.
    """

    def __init__(
        self,
        training_module,
        costs: dict[str, Cost],
        objective: CostObjective,
        budgets: Sequence[float],
        least_fill: float,
        threshold_every: int,
        threshold_travel: float,
        margin: float,
        drawn_share: float,
        warmup_epochs: int,
        gradient_clip_val: float | None,
    ):
        super().__init__(training_module, warmup_epochs=warmup_epochs, gradient_clip_val=gradient_clip_val)
        self.costs, self.objective, self.budgets, self.least_fill = costs, objective, tuple(budgets), least_fill
        self.threshold_every, self.threshold_travel = threshold_every, threshold_travel
        self.margin, self.drawn_share = margin, drawn_share
        self.found: list[tuple[Sample, dict[str, Tensor]]] = []
        self.loss_name = 'weight loss'  # of the step at hand

    @property
    def cost(self) -> Cost:
        """The objective's cost."""
        return list(self.costs.values())[-1]

    @property
    def selected(self) -> list[Sample]:
        """The networks found, of several budgets in their order; empty until the end."""
        return [sample for sample, _ in self.found]

    def training_step(self, batch, batch_idx):
        weights, thresholds = self._optimizers()
        if self.trainer.current_epoch >= self.warmup_epochs and batch_idx % self.threshold_every == 0:
            with thresholds.toggle_model():  # the weights' gradients are a third of a backward pass
                self._threshold_step(thresholds, batch['val'], batch_idx)
        with weights.toggle_model(), self._drawn_candidates(batch_idx):
            return self._weight_step(weights, batch['train'], batch_idx)

    def _optimizers(self):
        """Lightning's optimizers of the weights and of the thresholds."""
        *weights, thresholds = sorted(self.optimizers(), key=lambda opt: getattr(opt, 'is_arch_optimizer', False))
        if len(weights) != 1:
            raise ValueError(f'AutoNL: the evaluator must have one optimizer, not {len(weights)}')
        return weights[0], thresholds

    def _weight_step(self, optimizer, batch, batch_idx: int):
        loss_and_metrics = self.training_module.training_step(batch, 2 * batch_idx + 1)
        loss = _loss_of(loss_and_metrics)
        self.log('weight_loss', loss.detach(), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        self.loss_name = 'weight loss'
        self.training_module.optimizer_zero_grad(self.trainer.current_epoch, batch_idx, optimizer)
        self.manual_backward(loss)
        self.training_module.optimizer_step(self.trainer.current_epoch, batch_idx, optimizer)
        self.advance_lr_schedulers(batch_idx)
        return loss_and_metrics

    def _threshold_step(self, optimizer, batch, batch_idx: int) -> None:
        loss = _loss_of(self.training_module.training_step(batch, 2 * batch_idx))
        weights_of = self.choice_weights()
        for name, cost_of in self.costs.items():
            cost = cost_of.expected(weights_of)
            self.log(name, cost.detach(), on_step=False, on_epoch=True)
        self.log('threshold_loss', loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
        self.loss_name = 'threshold loss'
        optimizer.zero_grad()
        self.manual_backward(loss + self.objective(cost))
        self.objective.adapt(cost.detach(), self._threshold_steps())
        optimizer.step()

    def on_before_optimizer_step(self, optimizer):
        # Here, and not after the backward pass: in half precision gradients are those of a scaled loss until now.
        if not getattr(optimizer, 'is_arch_optimizer', False):
            self.training_module.configure_gradient_clipping(optimizer, self.gradient_clip_val, None)
        return super().on_before_optimizer_step(optimizer)

    def draws(self, batch_idx: int) -> bool:
        """Does the weight step of this batch draw candidates?"""
        return self.drawn_share > 0 and batch_idx % UNDRAWN_EVERY > 0

    def may_be_drawn(self, label: str) -> bool:
        """Is the choice of this label one that a weight step may draw a candidate for, now?"""
        if label.endswith('/lightnl'):  # not before the other layers have learnt to use it
            return 2 * self.trainer.current_epoch >= self.warmup_epochs
        return not label.endswith('/presence')

    @contextmanager
    def _drawn_candidates(self, batch_idx: int) -> Iterator[None]:
        """What is drawn for a weight step, the same in all processes and after a resume."""
        with ExitStack() as stack:
            if self.draws(batch_idx):
                rng = np.random.default_rng((torch.initial_seed(), self.trainer.current_epoch, batch_idx))
                for label, threshold in self.thresholds().items():
                    draws = self.may_be_drawn(label) and rng.random() < self.drawn_share
                    drawn = rng.integers(len(threshold.candidates)) if draws else None
                    stack.enter_context(threshold.drawing(drawn))
            yield

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
        return threshold_optimizer(self.arch_parameters())

    def on_train_start(self):
        epochs = self.trainer.max_epochs
        if not self.budgets and self.warmup_epochs >= epochs:
            raise ValueError(
                f'AutoNL: warmup_epochs, {self.warmup_epochs}, must be less than the {epochs} epochs of a search '
                'without a budget: nothing would be searched'
            )
        if not np.isfinite(self.trainer.num_training_batches):
            raise ValueError('AutoNL: the training loader has no length, by which a search is divided into its steps')
        return super().on_train_start()

    def on_train_epoch_start(self):
        if self.trainer.current_epoch == self.warmup_epochs:
            for threshold in self.thresholds().values():
                threshold.activate(self.margin)
        self.architecture_optimizers().param_groups[0]['lr'] = self._threshold_learning_rate()
        return super().on_train_epoch_start()

    def _threshold_steps(self) -> int:
        """How many there are in the whole search, at least 1."""
        of_an_epoch = math.ceil(self.trainer.num_training_batches / self.threshold_every)
        return max(1, (self.trainer.max_epochs - self.warmup_epochs) * of_an_epoch)

    def _threshold_learning_rate(self) -> float:
        """Of a step: its mean over the search is ``threshold_travel / T``, and it falls linearly, epoch by epoch."""
        epochs = max(1, self.trainer.max_epochs - self.warmup_epochs)
        left = min(epochs, self.trainer.max_epochs - self.trainer.current_epoch)
        return self.threshold_travel / self._threshold_steps() * left / ((epochs + 1) / 2)

    def configure_callbacks(self):
        return [FiniteLoss()]

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.is_last_batch:  # and not when the epoch has ended, which callbacks are told of first
            if self.trainer.current_epoch + 1 == self.trainer.max_epochs:
                self._find()
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
        self._find()  # where training was ended before its last epoch
        return super().on_train_end()

    def _find(self) -> None:
        """Find the networks, and BN's statistics of each; the supernet is left as the one of the largest budget."""
        if self.found:
            return
        found = {}
        with self._nothing_logged():
            for index, set_gates in self._select() if self.budgets else [(0, lambda: None)]:
                set_gates()
                with estimated_statistics(self.training_module):
                    self._losses(self._batches('train'))
                found[index] = canonical_sample(self.cost.choices(), self.export()), statistics_of(self.model)
        self.found = [found[index] for index in sorted(found)]

    def _select(self) -> list[tuple[int, Callable[[], None]]]:
        """For each budget, the smallest first: its place in the budgets, and what sets the gates to its network."""
        thresholds = self.thresholds()
        for threshold in thresholds.values():
            if not threshold.active:
                threshold.activate(self.margin)
        learned = {label: threshold.t.detach().clone() for label, threshold in thresholds.items()}
        batches = self._batches('val')

        def set_gates(sample: Sample) -> None:
            for label, threshold in thresholds.items():
                threshold.t.data.copy_(learned[label])
                threshold.choose(sample[label], self.margin)

        def losses(sample: Sample) -> np.ndarray:
            set_gates(sample)
            return self._losses(batches)

        with batches_own_statistics(self.training_module):
            samples = front(Measured(self.cost, losses), self.budgets, self.export(), self.least_fill)
        order = sorted(range(len(samples)), key=lambda index: self.budgets[index])
        return [(index, partial(set_gates, samples[index])) for index in order]

    def _batches(self, part: str) -> list:
        return list(itertools.islice(self.trainer.train_dataloader[part], BATCHES))

    @contextmanager
    def _nothing_logged(self) -> Iterator[None]:
        log = self.training_module.log
        self.training_module.log = lambda *args, **kwargs: None
        try:
            yield
        finally:
            self.training_module.log = log

    @torch.no_grad()
    def _losses(self, batches: list) -> np.ndarray:
        """The evaluator's training loss of the present gates, a batch (of all processes) each, `(batches,)`."""
        losses = []
        for index, batch in enumerate(batches):
            batch = self.trainer.strategy.batch_to_device(batch)
            with self.trainer.precision_plugin.forward_context():
                losses.append(_loss_of(self.training_module.training_step(batch, index)))
        return self.trainer.strategy.reduce(torch.stack(losses), reduce_op='mean').double().cpu().numpy()


def _loss_of(loss_and_metrics) -> Tensor:
    return loss_and_metrics['loss'] if isinstance(loss_and_metrics, dict) else loss_and_metrics
