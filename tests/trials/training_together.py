"""A retraining and a search of a few steps, in double precision, by one process or several."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

import search_space
from strategies import AutoNL
from trials.evaluator import evaluator
from trials.train import _ThisTrial

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
def retrain(devices: int) -> dict:
    """Its weights and its last metrics; the validation part does not divide into batches nor among processes."""
    pl.seed_everything(0, verbose=False)
    skeleton = search_space.load_skeleton('cued')
    sample = {label: candidates[-1] for label, candidates in skeleton.choices().items()}
    sample.update({label: 'present' for label in sample if label.endswith('/lightnl')})
    network = search_space.build(skeleton, sample)
    training = evaluator(data(3 * BATCH, 1), data(BATCH + 1, 2), **RECIPE, seed=0, devices=devices)
    training.evaluate(network)
    metrics = {name: float(value) for name, value in training.trainer.callback_metrics.items()}
    return {'weights': network.state_dict(), 'metrics': metrics}


@double_precision()
def search(devices: int) -> dict:
    """Its supernet's weights, thresholds and norms, and what it found, its labels plain strings."""
    pl.seed_everything(0, verbose=False)
    space = search_space.LightNLSpace(search_space.load_skeleton('cued'))
    searching = evaluator(
        data(3 * BATCH, 1), data(3 * BATCH, 2), **RECIPE, seed=0, shuffle_validation=True, devices=devices
    )
    strategy = AutoNL(warmup_epochs=1, threshold_learning_rate=0.05)
    strategy(RawFormatModelSpace(space, searching), _ThisTrial())
    return {
        'weights': strategy.supernet.state_dict(),
        'sample': json.loads(json.dumps(strategy.oneshot_module.export())),
    }


def main() -> None:
    """What process LOCAL_RANK of two finds is left in a folder."""
    torch.set_num_threads(1)
    torch.save({'retrain': retrain(2), 'search': search(2)}, Path(sys.argv[1]) / f'{os.environ["LOCAL_RANK"]}.pt')


if __name__ == '__main__':
    main()
