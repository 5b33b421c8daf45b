"""The training recipe, as an NNI evaluator: how a supernet is searched and how a found network is retrained."""

from __future__ import annotations

import torch
from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset

from .loader import Loader, loader

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
        self._measure(batch, 'validation')

    def test_step(self, batch, batch_idx):
        self._measure(batch, 'test')

    def _measure(self, batch, part: str) -> None:
        if len(batch[1]):  # of a last batch of one image, none is left when that cannot be read
            self._step(batch, part)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}


class _LoaderStates(Callback):
    """The loaders' states in Lightning's checkpoints: by itself it restores them in the middle of an epoch only."""

    def __init__(self, *loaders: Loader):
        self.loaders = loaders

    def state_dict(self) -> dict[str, list]:
        return {'loaders': [batches.state_dict() for batches in self.loaders]}

    def load_state_dict(self, state: dict[str, list]) -> None:
        for batches, own in zip(self.loaders, state['loaders'], strict=True):
            batches.load_state_dict(own)


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
    workers: int = 0,
    shuffle_validation: bool = False,
    callbacks=(),
) -> Lightning:
    """NNI's Lightning evaluator of the recipe.

    Lightning's checkpoints of its trainer carry where its loaders are.

    Args:
        train, validation: the parts.
        epochs, batch_size, learning_rate, weight_decay, label_smoothing: the recipe.
        seed: of the order of the batches, and of random augmentation.
        workers: processes that read images, for each loader.
        shuffle_validation: draw the validation part in a random order too, as a search does that learns from it.
        callbacks: Lightning's.
    """
    batches = loader(train, batch_size, seed, workers)
    checked = loader(validation, batch_size, seed + 1 if shuffle_validation else None, workers)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator='auto',
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, _LoaderStates(batches, checked)],
    )
    return Lightning(
        Classifier(learning_rate, weight_decay, label_smoothing),
        trainer,
        train_dataloaders=batches,
        val_dataloaders=checked,
    )
