"""A retraining and a search of a few steps, in double precision, by one process or several."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

import search_space
from strategies import AutoNL
from trials.run import _ThisTrial
from trials.training.checkpoint import EpochCheckpoint
from trials.training.evaluator import evaluator

BATCH = 8
RECIPE = {'epochs': 3, 'batch_size': BATCH, 'learning_rate': 0.01, 'weight_decay': 0.01, 'label_smoothing': 0.1}


@contextmanager
def double_precision() -> Iterator[None]:
    """So that numerical noise is far below what a wrong mean would change."""
    torch.set_default_dtype(torch.double)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float)


def data(images: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (images,), generator=generator)
    return TensorDataset(torch.randn(images, 3, 16, 16, generator=generator), labels)


@double_precision()
def retrain(devices: int, checkpoint: Path | None = None) -> dict:
    """Its weights, last metrics and how many epochs it had to train.

    The validation part does not divide into batches nor among processes.
    """
    pl.seed_everything(0, verbose=False)
    skeleton = search_space.load_skeleton('cued')
    sample = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    sample.update({label: 'present' for label in sample if label.endswith('/lightnl')})
    network = search_space.build(skeleton, sample)
    callbacks, epochs = [EpochCheckpoint(checkpoint)] if checkpoint else [], []
    callbacks.append(pl.callbacks.LambdaCallback(on_train_epoch_start=lambda *_: epochs.append(1)))
    training = evaluator(data(3 * BATCH, 1), data(BATCH + 1, 2), **RECIPE, seed=0, devices=devices, callbacks=callbacks)
    training.fit_kwargs = callbacks[0].fit_arguments() if checkpoint else {}
    training.evaluate(network)
    return {'weights': network.state_dict(), 'metrics': metrics(training), 'epochs': len(epochs)}


def metrics(training) -> dict[str, float]:
    """The last ones of an evaluator."""
    return {name: float(value) for name, value in training.trainer.callback_metrics.items()}


@double_precision()
def search(devices: int, **arguments: Any) -> dict:
    """Its supernet's weights, thresholds and norms, last metrics, and what it found, its labels plain strings."""
    pl.seed_everything(0, verbose=False)
    space = search_space.LightNLSpace(search_space.load_skeleton('cued'))
    searching = evaluator(
        data(3 * BATCH, 1), data(3 * BATCH, 2), **RECIPE, seed=0, shuffle_validation=True, devices=devices
    )
    strategy = AutoNL(warmup_epochs=1, threshold_travel=0.2, drawn_share=0.5, **arguments)
    strategy(RawFormatModelSpace(space, searching), _ThisTrial())
    return {
        'weights': strategy.supernet.state_dict(),
        'metrics': metrics(searching),
        'sample': json.loads(json.dumps(strategy.oneshot_module.export())),
    }


def everything(devices: int) -> dict[str, dict]:
    """By stage."""
    cost = search_space.macs(search_space.load_skeleton('cued'))
    budget = sum(cost.range()) / 2
    return {
        'retrain': retrain(devices),
        'search': search(devices),
        'search under a budget': search(devices, target_macs=budget),
    }


def main() -> None:
    """What process LOCAL_RANK of two finds is left in a folder."""
    torch.set_num_threads(1)
    folder, rank = Path(sys.argv[1]), os.environ['LOCAL_RANK']
    left = everything(2)
    left['ended'], left['resumed'] = (retrain(2, folder / 'trial.ckpt') for _ in range(2))
    torch.save(left, folder / f'{rank}.pt')


if __name__ == '__main__':
    main()
