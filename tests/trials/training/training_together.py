"""A retraining and searches of a few steps, in double precision, by one process or several."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import TensorDataset

import search_space
from strategies import AutoNL
from strategies.autonl.batch_statistics import statistics_of
from trials.parameters import TrialParameters
from trials.run import run_search, save_trial
from trials.training.checkpoint import EpochCheckpoint
from trials.training.evaluator import evaluator, loader
from trials.training.running_statistics import estimate_statistics

BATCH = 8
TRIAL = {
    'strategy': 'random',
    'stage': 'retrain',
    'seed': 0,
    'skeleton': 'cued',
    'dataset': 'cued-digits',
    'epochs': 1,
    'batch_size': 64,
    'learning_rate': 0.005,
}
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
    """Its weights, last metrics, how many epochs it had to train, and BN's statistics estimated anew on two batches.

    The validation part does not divide into batches nor among processes.
    """
    pl.seed_everything(0, verbose=False)
    network = search_space.build(search_space.load_skeleton('cued'), some_network())
    callbacks, epochs = [EpochCheckpoint(checkpoint)] if checkpoint else [], []
    callbacks.append(pl.callbacks.LambdaCallback(on_train_epoch_start=lambda *_: epochs.append(1)))
    training = evaluator(data(3 * BATCH, 1), data(BATCH + 1, 2), **RECIPE, seed=0, devices=devices, callbacks=callbacks)
    training.fit_kwargs = callbacks[0].fit_arguments() if checkpoint else {}
    training.evaluate(network)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    batches = itertools.islice(loader(data(3 * BATCH, 1), BATCH, seed=5), 2)
    estimate_statistics(network, batches, training.trainer.strategy.root_device)
    return {
        'weights': weights,
        'metrics': metrics(training),
        'epochs': len(epochs),
        'recalibrated': statistics_of(network),
    }


def some_network() -> dict:
    """The sample of a network with LightNL on every row."""
    sample = {label: candidates[-1] for label, candidates in search_space.load_skeleton('cued').choices().items()}
    return {label: 'present' if label.endswith('/lightnl') else value for label, value in sample.items()}


def metrics(training) -> dict[str, float]:
    """The last ones of an evaluator."""
    return {name: float(value) for name, value in training.trainer.callback_metrics.items()}


@double_precision()
def search(devices: int, initial: str = '', **arguments: Any) -> dict:
    """Its supernet's weights, thresholds and norms, last metrics, and what it found, its labels plain strings."""
    pl.seed_everything(0, verbose=False)
    searching = evaluator(
        data(3 * BATCH, 1), data(3 * BATCH, 2), **RECIPE, seed=0, shuffle_validation=True, devices=devices
    )
    strategy = AutoNL(warmup_epochs=1, threshold_travel=0.2, drawn_share=0.5, **arguments)
    trial = TrialParameters.from_flat(
        {**TRIAL, 'stage': 'search', 'class': 'strategies.AutoNL', **({'initial': initial} if initial else {})}
    )
    sample = run_search(strategy, trial, searching)
    return {
        'weights': strategy.supernet.state_dict(),
        'metrics': metrics(searching),
        'sample': json.loads(json.dumps(sample)),
    }


@double_precision()
def search_from_weights(devices: int) -> dict:
    """As :func:`search`, of a supernet that starts from the same network in every process."""
    pl.seed_everything(1, verbose=False)
    network = search_space.build(search_space.load_skeleton('cued'), some_network())
    with tempfile.TemporaryDirectory() as folder:
        save_trial(Path(folder), TRIAL | some_network(), {}, network)
        return search(devices, initial=folder)


def everything(devices: int) -> dict[str, dict]:
    """By stage."""
    cost = search_space.macs(search_space.load_skeleton('cued'))
    budget = sum(cost.range()) / 2
    return {
        'retrain': retrain(devices),
        'search': search(devices),
        'search under a budget': search(devices, target_macs=budget),
        'search from weights': search_from_weights(devices),
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
