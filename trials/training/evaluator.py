"""The training recipe, as an NNI evaluator: how a supernet is searched and how a found network is retrained."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, EMAWeightAveraging
from pytorch_lightning.loops.loop import _Loop
from pytorch_lightning.loops.progress import _BaseProgress
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import Dataset
from torchvision.transforms.v2 import MixUp

from search_space.nni_nas import Lightning, LightningModule, Trainer
from strategies.experiment.seeds import derived_seed

from .devices import devices_of_trainer
from .loader import Loader, loader
from .rmsprop import TensorFlowRMSprop
from .running_statistics import UnbiasedStatistics
from .teacher import Teacher

__all__ = ['OPTIMIZERS', 'PRECISIONS', 'SCHEDULES', 'Classifier', 'evaluator', 'lightning_precision', 'loader']

OPTIMIZERS = ('adamw', 'rmsprop', 'rmsprop-tf', 'sgd')
SCHEDULES = ('one-cycle', 'cosine', 'staircase')
PRECISIONS = ('auto', '32', 'bf16-mixed', '16-mixed')


class Classifier(LightningModule):
    """Cross-entropy with label smoothing, an optimizer, and a schedule of its learning rate.

    Logs ``train_loss`` and ``train_accuracy``, and the same of ``validation`` and ``test``; of a training that has a
    teacher ``teacher_loss`` too, the divergence from it, which is part of ``train_loss``.

    Args:
        learning_rate: the peak of the schedule.
        weight_decay: the optimizer's; AdamW's is decoupled, the others' is L2.
        label_smoothing: of the loss, in [0, 1).
        optimizer: ``adamw``; ``sgd``, with Nesterov's momentum 0.9; ``rmsprop``, with decay and momentum 0.9 as Tan et
            al., "MnasNet" (CVPR 2019) have it; ``rmsprop-tf``, the same as TensorFlow computes it
            (:class:`.rmsprop.TensorFlowRMSprop`).
        schedule: ``one-cycle`` (Smith and Topin, 2017), a cosine up over the first 30% of the steps and down over the
            others; ``cosine``, a line up and a cosine down to 0 (Goyal et al., 2017; Loshchilov and Hutter, 2017);
            ``staircase``, a line up and then ``staircase_factor`` to the power of the whole ``staircase_epochs`` since
            the first step, those of the line included, as MnasNet's code has it.
        learning_rate_warmup: epochs of the line up of ``cosine`` and ``staircase``.
        staircase_factor, staircase_epochs: of the schedule ``staircase``.
        mixup: mixes every training image and its label with another one's (Zhang et al., "mixup", ICLR 2018);
            ``train_accuracy`` is of the label with the larger share.
        teacher: what the network learns from beside the labels.
        decay_norm_and_bias: whether weight decay is for all parameters, or for those of convolutions and linear layers
            alone, without their biases.
    """

    def __init__(
        self,
        learning_rate: float,
        weight_decay: float,
        label_smoothing: float,
        optimizer: str = 'adamw',
        schedule: str = 'one-cycle',
        learning_rate_warmup: float = 0,
        decay_norm_and_bias: bool = True,
        staircase_factor: float = 0.97,
        staircase_epochs: float = 2.4,
        mixup: MixUp | None = None,
        teacher: Teacher | None = None,
    ):
        super().__init__()
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.optimizer_name, self.schedule, self.learning_rate_warmup = optimizer, schedule, learning_rate_warmup
        self.decay_norm_and_bias = decay_norm_and_bias
        self.staircase_factor, self.staircase_epochs = staircase_factor, staircase_epochs
        self.mixup, self.teacher = mixup, teacher
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.contiguous(memory_format=torch.channels_last))

    def _step(self, batch, part: str) -> Tensor:
        images, labels = batch
        targets = labels
        if self.mixup is not None and part == 'train':
            images, targets = self.mixup(images, labels)
            labels = targets.argmax(1)
        logits = self(images)
        loss = self.criterion(logits, targets)
        metrics = {}
        if self.teacher is not None and part == 'train':
            divergence = self.teacher.divergence(images, logits)
            loss = self.teacher.loss(loss, divergence)
            metrics['teacher_loss'] = divergence.detach()
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        self.log_dict(
            {f'{part}_loss': loss.detach(), f'{part}_accuracy': accuracy, **metrics},
            on_step=False,
            on_epoch=True,
            batch_size=float(len(labels)),  # not int, whose mean over processes Lightning would round
            sync_dist=True,
        )
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, 'train')

    def validation_step(self, batch, batch_idx):
        self._measure(batch, 'validation')

    def test_step(self, batch, batch_idx):
        self._measure(batch, 'test')

    def _measure(self, batch, part: str) -> None:
        if len(batch[1]):  # of a last batch of one image, none is left when that cannot be read
            self._step(batch, part)

    def configure_optimizers(self):
        optimizer = self._optimizer()
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': self._scheduler(optimizer), 'interval': 'step'},
        }

    def _optimizer(self) -> Optimizer:
        parameters = self._parameter_groups()
        common = {'lr': self.learning_rate, 'weight_decay': self.weight_decay}
        if self.optimizer_name == 'sgd':
            return torch.optim.SGD(parameters, momentum=0.9, nesterov=True, **common)
        if self.optimizer_name == 'rmsprop':
            return torch.optim.RMSprop(parameters, alpha=0.9, momentum=0.9, eps=1e-3, **common)
        if self.optimizer_name == 'rmsprop-tf':
            return TensorFlowRMSprop(parameters, alpha=0.9, momentum=0.9, eps=1e-3, **common)
        # In mixed precision a fused optimizer scales gradients back by itself, too late for them to be clipped.
        return torch.optim.AdamW(parameters, fused=self.trainer.precision == '32-true', **common)

    def _parameter_groups(self) -> list:
        parameters = list(self.parameters())
        if self.decay_norm_and_bias:
            return parameters
        decayed = [p for p in parameters if p.ndim > 1]
        return [{'params': decayed}, {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0}]

    def _scheduler(self, optimizer: Optimizer) -> LRScheduler:
        steps = int(self.trainer.estimated_stepping_batches)
        if self.schedule == 'one-cycle':
            return OneCycleLR(optimizer, max_lr=self.learning_rate, total_steps=steps)
        steps_per_epoch = steps / self.trainer.max_epochs
        warmup = steps * self.learning_rate_warmup / self.trainer.max_epochs

        def share_of_peak(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if self.schedule == 'staircase':
                return self.staircase_factor ** (step // (self.staircase_epochs * steps_per_epoch))
            return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

        return LambdaLR(optimizer, share_of_peak)


class _EachTrainingAnew(Callback):
    """Every training of a trainer is a whole one, from the loaders' first permutations on.

    By itself Lightning takes the next one for a training that has had its epochs, and trains nothing. The loaders'
    states are in its checkpoints too, which it restores by itself in the middle of an epoch only.
    """

    def __init__(self, loaders: tuple[Loader, ...], averages: list[EMAWeightAveraging]):
        self.loaders, self.averages = loaders, averages

    def setup(self, trainer, pl_module, stage):
        vars(pl_module).pop('log', None)  # a search of NNI's has put its supernet's there
        if stage != 'fit':
            return
        _reset_progress(trainer.fit_loop)
        trainer.fit_loop.epoch_loop.on_load_checkpoint({'_batches_that_stepped': 0})
        for batches in self.loaders:
            batches.load_state_dict({'drawn': 0})
        for average in self.averages:
            average.load_state_dict({'latest_update_step': 0})

    def state_dict(self) -> dict[str, list]:
        return {'loaders': [batches.state_dict() for batches in self.loaders]}

    def load_state_dict(self, state: dict[str, list]) -> None:
        for batches, own in zip(self.loaders, state['loaders'], strict=True):
            batches.load_state_dict(own)


def _reset_progress(loop: Any) -> None:
    """Sets Lightning's counts in a loop, and in those within it, to what they start from."""
    for value in vars(loop).values():
        if isinstance(value, _Loop):
            _reset_progress(value)
        elif isinstance(value, _BaseProgress):
            value.load_state_dict(type(value)().state_dict())


def evaluator(
    train: Dataset,
    validation: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    label_smoothing: float,
    seed: int,
    optimizer: str = 'adamw',
    schedule: str = 'one-cycle',
    learning_rate_warmup: float = 0,
    decay_norm_and_bias: bool = True,
    learning_rate_per: int = 0,
    staircase_factor: float = 0.97,
    staircase_epochs: float = 2.4,
    mixup: float = 0,
    classes: int = 0,
    teacher: Teacher | None = None,
    ema_decay: float = 0,
    ema_decay_per: int = 0,
    gradient_clip: float = 0,
    precision: str | int = 'auto',
    workers: int = 0,
    shuffle_validation: bool = False,
    callbacks=(),
    devices: int = 1,
    progress_bar: bool = False,
) -> Lightning:
    """NNI's Lightning evaluator of the recipe. It may be used again: every training is a whole one, from the seed.

    Lightning's checkpoints of its trainer carry where its loaders are.

    Args:
        train, validation: the parts.
        epochs, batch_size: the recipe.
        learning_rate, weight_decay, label_smoothing, optimizer, schedule, learning_rate_warmup, decay_norm_and_bias,
            staircase_factor, staircase_epochs: as of :class:`Classifier`.
        learning_rate_per: images of a step that ``learning_rate`` is for; at another batch size it is in proportion
            (Goyal et al., 2017). 0 is any.
        seed: of the order of the batches, and of random augmentation.
        mixup: α of the Beta(α, α) that the shares of :class:`Classifier`'s are drawn from; 0 is none.
        classes: of the data, which mixup has to know.
        teacher: as of :class:`Classifier`.
        ema_decay: of the exponential moving average of weights and BN's statistics, per step. It is the average that is
            validated and left in the network. 0 is none; not for a one-shot search, whose supernet is what it searches.
        ema_decay_per: images of a step that ``ema_decay`` is for; at another batch size it is
            ``ema_decay ** (batch_size / ema_decay_per)``, the same per image. 0 is any.
        gradient_clip: largest norm of the gradient; 0 is none. Not for a one-shot search, which has its strategy's own.
        precision: Lightning's. ``auto`` is ``bf16-mixed`` on a GPU that has it and 32 bits elsewhere, and never
            ``16-mixed``: LightNL sums over all positions of an image, and half precision ends at 65,504.
        workers: processes that read images, for each loader.
        shuffle_validation: draw the validation part in a random order too, as a search does that learns from it.
        callbacks: Lightning's.
        devices: that train together; see :func:`trials.training.devices.other_processes`.
        progress_bar: show Lightning's.
    """
    if learning_rate_per:
        learning_rate = learning_rate * batch_size / learning_rate_per
    if ema_decay_per:
        ema_decay = ema_decay ** (batch_size / ema_decay_per)
    batches = loader(train, batch_size, derived_seed(seed, 'training'), workers)
    order_seed = derived_seed(seed, 'validation') if shuffle_validation else None
    checked = loader(validation, batch_size, order_seed, workers)
    average = [EMAWeightAveraging(decay=ema_decay)] if ema_decay else []
    trainer = Trainer(
        max_epochs=epochs,
        **devices_of_trainer(devices, all_weights_in_every_step=not shuffle_validation),
        precision=lightning_precision(precision),
        gradient_clip_val=gradient_clip or None,
        logger=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, *average, UnbiasedStatistics(), _EachTrainingAnew((batches, checked), average)],
    )
    return Lightning(
        Classifier(
            learning_rate,
            weight_decay,
            label_smoothing,
            optimizer,
            schedule,
            learning_rate_warmup,
            decay_norm_and_bias,
            staircase_factor,
            staircase_epochs,
            MixUp(alpha=mixup, num_classes=classes) if mixup else None,
            teacher,
        ),
        trainer,
        train_dataloaders=batches,
        val_dataloaders=checked,
    )


def lightning_precision(precision: str | int) -> str:
    """What Lightning calls a recipe's ``precision``, see :func:`evaluator`."""
    if precision != 'auto':
        return str(precision)
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return 'bf16-mixed' if has_bf16 else '32'
