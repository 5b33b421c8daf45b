"""The training recipe, as an NNI evaluator: how a supernet is searched and how a found network is retrained."""

from __future__ import annotations

import nni
import torch
from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

__all__ = ['Classifier', 'evaluator', 'loader']


class Classifier(LightningModule):
    """Cross-entropy with label smoothing, AdamW, one cycle of the learning rate.

    Logs ``train_loss`` and ``train_accuracy``, and the same of ``validation`` and ``test``.

    Args:
        learning_rate: the peak of the cycle.
        weight_decay: AdamW's.
        label_smoothing: of the training loss, in [0, 1).
    """

    def __init__(self, learning_rate: float, weight_decay: float, label_smoothing: float):
        super().__init__()
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.contiguous(memory_format=torch.channels_last))

    def _step(self, batch, part: str) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = self.criterion(logits, labels)
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        self.log_dict(
            {f'{part}_loss': loss.detach(), f'{part}_accuracy': accuracy},
            on_step=False,
            on_epoch=True,
            batch_size=len(labels),
        )
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, 'train')

    def validation_step(self, batch, batch_idx):
        self._step(batch, 'validation')

    def test_step(self, batch, batch_idx):
        self._step(batch, 'test')

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}


@nni.trace
class _Loader(DataLoader):
    """PyTorch's loader, with the state of the generator that draws its order."""

    def __iter__(self):
        yield from super().__iter__()  # which draws: not before the first batch, when states are restored

    def state_dict(self) -> dict[str, Tensor]:
        return {'order': self.sampler.sampler.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.sampler.sampler.generator.set_state(state['order'])


def loader(data: Dataset, batch_size: int, seed: int | None = None) -> DataLoader:
    """Batches of ``data``: in a random order drawn from ``seed`` and without the last partial one, or in order."""
    if seed is None:
        sampler = BatchSampler(SequentialSampler(data), batch_size, drop_last=False)
    else:
        order = RandomSampler(data, generator=torch.Generator().manual_seed(seed))
        sampler = BatchSampler(order, batch_size, drop_last=True)
    return _Loader(data, sampler=sampler, batch_size=None)


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
    shuffle_validation: bool = False,
    callbacks=(),
    progress_bar: bool = False,
) -> Lightning:
    """NNI's Lightning evaluator of the recipe.

    Args:
        train, validation: the parts.
        epochs, batch_size, learning_rate, weight_decay, label_smoothing: the recipe.
        seed: of the order of the batches.
        shuffle_validation: draw the validation part in a random order too, as a search does that learns from it.
        callbacks: Lightning's.
        progress_bar: show Lightning's.
    """
    trainer = Trainer(
        max_epochs=epochs,
        accelerator='auto',
        devices=1,
        logger=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )
    return Lightning(
        Classifier(learning_rate, weight_decay, label_smoothing),
        trainer,
        train_dataloaders=loader(train, batch_size, seed),
        val_dataloaders=loader(validation, batch_size, seed + 1 if shuffle_validation else None),
    )
