"""A one-shot search whose supernet is kept, to be asked what it makes of each network."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks.quiet import quiet
from search_space import LightNLSpace
from search_space.nni_nas import OneShotStrategy, RandomOneShot
from search_space.skeleton import Sample
from strategies.autonl.batch_statistics import batches_own_statistics
from strategies.experiment.one_shot_trial import search_passes
from strategies.experiment.seeds import derived_seed
from strategies.experiment.strategy_class import strategy_class
from trials import datasets
from trials.parameters import TrialParameters
from trials.run import recipe_of, run_search
from trials.training.evaluator import evaluator, loader

__all__ = ['FinishedSearch', 'passes', 'search', 'trial_and_clip']

BATCHES = 20
"""Held-out batches that a network is measured on in the supernet."""


@dataclass
class FinishedSearch:
    """What a search leaves.

    Attributes:
        strategy, module: NNI's strategy, and its Lightning module (``export``, ``export_probs``).
        supernet: trained.
        epochs: compute: images that were trained on, over the size of the training part.
        cpu_seconds: of this process, for the search.
        held_out: batches of the part that the architecture was learned on.
    """

    strategy: OneShotStrategy
    module: pl.LightningModule
    supernet: LightNLSpace
    epochs: float
    cpu_seconds: float
    held_out: list

    def accuracy(self, sample: Sample) -> float:
        """Of a network with the supernet's weights, on held-out data with the batches' own BN statistics."""
        classifier = self.module.training_module
        classifier.set_model(self.supernet.freeze(sample))
        try:
            with batches_own_statistics(classifier):
                return accuracy(classifier, self.held_out)
        finally:
            classifier.set_model(self.supernet)


def passes(strategy: OneShotStrategy, epochs: int) -> int:
    """Passes that a search of ``epochs`` makes over its training data; random sampling has no second step."""
    return epochs if type(strategy) is RandomOneShot else search_passes(strategy, epochs)


def trial_and_clip(parameters: dict[str, Any]) -> tuple[TrialParameters, float]:
    """A search trial, and the largest norm of the weights' gradient, which such a trial leaves to its strategy.

    Args:
        parameters: a search trial's, flat (:meth:`TrialParameters.from_flat`), and ``gradient_clip``.

    Raises:
        ValueError: the parameters are not valid.
    """
    searching = {**parameters, 'strategy': 'benchmark', 'stage': 'search'}
    clip = searching.pop('gradient_clip', 0)
    if not isinstance(clip, int | float) or not clip >= 0:
        raise ValueError(f'gradient_clip must be a number of at least 0, not {clip!r}')
    return TrialParameters.from_flat(searching), clip


def search(parameters: dict[str, Any]) -> FinishedSearch:
    """Search, as a trial of these parameters would.

    Args:
        parameters: as of :func:`trial_and_clip`.

    Raises:
        ValueError: the parameters are not valid.
    """
    quiet()
    trial, clip = trial_and_clip(parameters)
    torch.set_num_threads(trial.threads)
    pl.seed_everything(derived_seed(trial.seed, 'trial'), verbose=False)
    skeleton = trial.space()
    parts = datasets.load(trial.dataset, skeleton.input_size, **trial.dataset_arguments)
    weights_part, held_out = datasets.hold_out(parts.train, trial.held_out)
    made, recipe = strategy_class(trial.search_class), recipe_of(trial)
    if made is RandomOneShot:  # Lightning steps, and clips
        strategy, recipe['gradient_clip'] = made(**trial.search_arguments), clip
    else:
        strategy = made(**{'gradient_clip_val': clip or None, **trial.search_arguments})
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore')  # Lightning recommends worker processes and a logger, NNI what it deprecates
        run_search(strategy, trial, evaluator(weights_part, held_out, **recipe, shuffle_validation=True))
    cpu_seconds = time.process_time() - started
    return FinishedSearch(
        strategy,
        strategy.oneshot_module,
        strategy.supernet,
        passes(strategy, trial.epochs) * len(weights_part) / len(parts.train),
        cpu_seconds,
        list(loader(held_out, trial.batch_size))[:BATCHES],
    )


@torch.no_grad()
def accuracy(network: nn.Module, batches: list) -> float:
    """The fraction of images that are classified rightly, in the mode that the network is in."""
    right = [(network(images).argmax(1) == labels).float() for images, labels in batches]
    return float(torch.cat(right).mean())
