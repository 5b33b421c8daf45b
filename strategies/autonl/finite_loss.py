"""A loss that is NaN or infinite ends a training before it reaches the weights."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from .processes import mean_over_processes

__all__ = ['FiniteLoss', 'check_finite']


def check_finite(trainer: pl.Trainer, name: str, value: Tensor) -> None:
    """Stops the training at a ``value``, called ``name``, that is not finite everywhere.

    Raises:
        FloatingPointError: says at which step and learning rates, and where the last checkpoint is.
    """
    if torch.isfinite(value.detach()).all():
        return
    step, batch = trainer.fit_loop.total_batch_idx + 1, trainer.fit_loop.batch_idx + 1
    rates = ', '.join(f'{group["lr"]:.3g}' for optimizer in trainer.optimizers for group in optimizer.param_groups)
    saved = [path for c in trainer.checkpoint_callbacks if (path := getattr(c, 'last_model_path', ''))]
    raise FloatingPointError(
        f'the {name} is {"NaN" if value.isnan().any() else "infinite"} at step {step} '
        f'(epoch {trainer.current_epoch + 1}, batch {batch} of {trainer.num_training_batches}); '
        f'learning rates: {rates}; last checkpoint: {saved[0] if saved else "none"}'
    )


class FiniteLoss(pl.Callback):
    """Stops a training at the first loss that is NaN or infinite, and at weights that are so after an epoch.

    A loss is looked at before its backward pass, the weights before a checkpoint of the epoch is written: neither the
    weights nor the last checkpoint have it in them. Processes that train together all stop.

    >>> trainer = Trainer(callbacks=[FiniteLoss()])

    Raises:
        FloatingPointError: of :func:`check_finite`.
    """

    def on_before_backward(self, trainer, pl_module, loss):
        check_finite(trainer, getattr(pl_module, 'loss_name', 'loss'), mean_over_processes(loss.detach()))

    def on_train_epoch_end(self, trainer, pl_module):
        for name, value in pl_module.state_dict().items():
            if isinstance(value, Tensor) and value.is_floating_point():
                check_finite(trainer, f'state {name}', value)
