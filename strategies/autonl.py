"""AutoNL: where LightNL belongs and how compact it may be, as a one-shot strategy of NNI."""

from __future__ import annotations

import torch
from nni.nas.nn.pytorch import MutableModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, no_default_hook
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import Tensor

from search_space import Cost

from .finite_loss import FiniteLoss
from .gate import Threshold
from .gated_lightnl import GatedInsertion, GatedLightNL
from .gated_row import GatedRow

__all__ = ['AutoNL', 'AutoNLModule']


class AutoNLModule(DartsLightningModule):
    """Alternates weight steps and threshold steps, first order, as DARTS does.

    In an epoch of warm-up every gate is open and only weights are trained. After it, each batch is

    - a threshold step, on held-out data: ``cross-entropy + λ · log(MACs)``, weights kept;
    - a weight step, on training data: the evaluator's own loss, thresholds kept.

    Source: the paper's section 3.2; Liu et al., "DARTS" (ICLR 2019), first order.
    """

    def __init__(self, training_module, cost: Cost, cost_weight: float, margin: float, warmup_epochs: int, **kwargs):
        super().__init__(training_module, warmup_epochs=warmup_epochs, **kwargs)
        self.cost, self.cost_weight, self.margin = cost, cost_weight, margin
        self.loss_name = 'weight loss'  # of the step at hand

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
            cost = self.cost.expected(self.choice_weights())
            self.log('macs', cost.detach(), on_step=False, on_epoch=True)
            self.log('threshold_loss', loss.detach(), on_step=False, on_epoch=True)
            self.loss_name = 'threshold loss'
            self.manual_backward(loss + self.cost_weight * torch.log(cost))
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
            self._log_gates()
        return super().on_train_batch_end(outputs, batch, batch_idx)

    def _log_gates(self) -> None:
        values = {}
        if self.trainer.current_epoch < self.warmup_epochs:
            values['macs'] = self.cost.expected(self.choice_weights()).detach()
        for label, threshold in self.thresholds().items():
            for gate, (norm, t, is_open) in enumerate(
                zip(threshold.norm, threshold.t.detach(), threshold.is_open(), strict=True), start=1
            ):
                name = label if len(threshold.t) == 1 else f'{label}#{gate}'
                values.update({f'norm/{name}': norm, f'threshold/{name}': t, f'gate/{name}': is_open.float()})
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)


class AutoNL(OneShotStrategy):
    """AutoNL's differentiable search, for a :class:`search_space.LightNLSpace` or :class:`search_space.BackboneSpace`.

    Any model space will do whose choices are LightNL's and whose ``cost()`` gives a :class:`search_space.Cost`.

    A choice is a hard gate with a soft gradient on a norm; the supernet is one network at any moment, and the one that
    is returned gives the supernet's own logits. The evaluator's training loader trains the weights, its validation
    loader the thresholds (NNI's convention for DARTS).

    >>> experiment = NasExperiment(LightNLSpace(load_skeleton('cued')), evaluator, AutoNL())

    Source: Li et al., "Neural Architecture Search for Lightweight Non-Local Networks" (CVPR 2020), section 3.2.

    Args:
        cost_weight: λ of ``cross-entropy + λ · log(MACs)``.
        warmup_epochs: epochs of the weights alone, all gates open, before thresholds and cost come in.
        threshold_learning_rate: of the thresholds' Adam.
        margin: when warm-up ends every threshold starts this far below its norm.
        gradient_clip_val: largest norm of the weights' gradient; None is no clipping.

    Raises:
        ValueError: an argument out of range, or a space without a choice that AutoNL relaxes.
    """

    def __init__(
        self,
        *,
        cost_weight: float = 1.0,
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
        self.cost_weight = cost_weight
        self.warmup_epochs = warmup_epochs
        self.threshold_learning_rate = threshold_learning_rate
        self.margin = margin
        self.gradient_clip_val = gradient_clip_val
        self._cost: Cost | None = None

    def mutate_model(self, model):
        if not model.simplify():
            raise ValueError('AutoNL: the space has no choices, there is nothing to search')
        self._cost = model.cost()
        return super().mutate_model(model)

    def default_mutation_hooks(self):
        return [no_default_hook]

    def configure_oneshot_module(self, training_module):
        return AutoNLModule(
            training_module,
            cost=self._cost,
            cost_weight=self.cost_weight,
            margin=self.margin,
            warmup_epochs=self.warmup_epochs,
            arc_learning_rate=self.threshold_learning_rate,
            gradient_clip_val=self.gradient_clip_val,
        )

    def train_dataloader(self, train_dataloader_fn, val_dataloader_fn):
        return {'train': train_dataloader_fn(), 'val': val_dataloader_fn()}

    def val_dataloader(self, train_dataloader_fn, val_dataloader_fn):
        return None


def _refuse_other_choices(module, name, memo, mutate_kwargs):
    """NNI's mutation hook, after AutoNL's own: a choice that is left would otherwise be searched by nobody."""
    if isinstance(module, MutableModule) and module.mutables and not isinstance(module, BaseSuperNetModule):
        labels = ', '.join(label for mutable in module.mutables for label in mutable.simplify())
        raise ValueError(f'AutoNL: there is no gate for the choice {labels}')
    return False
