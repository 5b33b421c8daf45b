"""One trial, from its parameters to its result: a search, or a network trained from scratch."""

from __future__ import annotations

import dataclasses
import inspect
import io
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from nni.mutable import mutable

from search_space import LightNLSpace, build, macs, params
from search_space.nni_nas import (
    Lightning,
    ModelStatus,
    OneShotStrategy,
    RawFormatModelSpace,
    SequentialExecutionEngine,
    TrainingEndEvent,
)
from search_space.skeleton import Sample
from search_space.whole_file import write_whole
from strategies import History
from strategies.autonl.finite_loss import FiniteLoss
from strategies.experiment.one_shot_trial import search_passes
from strategies.experiment.seeds import derived_seed
from strategies.experiment.strategy_class import strategy_class

from . import datasets
from .given_networks import inherit, load_teacher
from .parameters import IMPORT, TrialParameters
from .training.checkpoint import EpochCheckpoint, OtherNetwork
from .training.evaluation import measure
from .training.evaluator import evaluator, loader
from .training.running_statistics import STATISTICS_BATCHES, estimate_statistics
from .trial_folder import RECORD, WEIGHTS, Record

__all__ = ['recipe_of', 'run_search', 'run_trial', 'save_trial']

Report = Callable[[dict[str, Any]], None]


class _ThisTrial(SequentialExecutionEngine):
    """Runs a one-shot strategy's supernet in this trial, as part of it.

    Args:
        prepare: is given the supernet before it is trained.

    NNI's own engine runs it as a trial within the trial: what it reports would stay there, and after it NNI takes what
    this trial reports for that of parameters 0.
    """

    def __init__(self, prepare: Callable[[torch.nn.Module], None] = lambda supernet: None):
        super().__init__()
        self.prepare = prepare

    def submit_models(self, *models):
        for model in models:
            self.prepare(model.model_space)
            model.execute()
            self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))


def run_trial(
    trial: TrialParameters,
    report: Report,
    folder: Path | None = None,
    checkpoint: EpochCheckpoint | None = None,
    progress_bar: bool = False,
) -> tuple[dict[str, Any], torch.nn.Module]:
    """Run a trial to its result and its network.

    The result holds ``default`` (validation accuracy), ``macs``, ``params``, ``epochs`` (compute: images that were
    trained on, over the size of the training part), ``seconds`` of training and ``skipped_images`` (those that could
    not be read); of a search the labels of the network it found (and where it had several budgets, in ``front``, those
    of each), of a test ``test_accuracy``.

    Args:
        trial: the parameters.
        report: called with the metrics of every epoch, ``default`` among them: validation accuracy, of a search that of
            its training.
        folder: where to leave the history, see :class:`strategies.History`; None is nowhere.
        checkpoint: written after every epoch, and gone on from where it is there.
        progress_bar: show one on standard output.

    Raises:
        FloatingPointError: a loss is NaN or infinite.
        ValueError: the data or a network that the trial is given is not there or does not fit.
    """
    if trial.stage == IMPORT:
        raise ValueError('these are imported weights, which no training gives; import them again from their file')
    try:
        return _run(trial, report, folder, checkpoint, progress_bar)
    except OtherNetwork as error:
        checkpoint.set_aside(str(error))
        return _run(trial, report, folder, checkpoint, progress_bar)


def _run(trial, report, folder, checkpoint, progress_bar):
    torch.set_num_threads(trial.threads)
    pl.seed_everything(derived_seed(trial.seed, 'trial'), verbose=False)
    skeleton = trial.space()
    parts = datasets.load(trial.dataset, skeleton.input_size, **trial.dataset_arguments)
    datasets.check_fit(parts, skeleton, trial.dataset)
    default = 'train_accuracy' if trial.stage == 'search' else 'validation_accuracy'
    history = History(lambda metrics: report({'default': metrics.get(default, 0.0), **metrics}), folder)

    def make_evaluator(train, validation, **arguments):
        made = evaluator(
            train,
            validation,
            **recipe_of(trial),
            classes=parts.classes,
            teacher=load_teacher(trial),
            callbacks=[history, FiniteLoss(), *([checkpoint] if checkpoint else [])],
            progress_bar=progress_bar,
            **arguments,
        )
        made.fit_kwargs = checkpoint.fit_arguments() if checkpoint else {}
        return made

    with warnings.catch_warnings():
        # Lightning recommends worker processes and a logger; the data is in memory, and NNI logs.
        warnings.filterwarnings('ignore', module='pytorch_lightning')
        result, network = (_search if trial.stage == 'search' else _train)(trial, parts, history, make_evaluator)
    return result | {'skipped_images': parts.skipped_images()}, network


def recipe_of(trial: TrialParameters) -> dict[str, Any]:
    """The trial's parameters that are arguments of :func:`.training.evaluator.evaluator`."""
    names = inspect.signature(evaluator).parameters.keys() - {'teacher'}  # a network there, its file here
    return {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial) if field.name in names}


def _train(trial, parts, history, make_evaluator):
    skeleton = trial.space()
    sample = skeleton.check_sample(trial.network)
    network = build(skeleton, sample).to(memory_format=torch.channels_last)
    inherit(network, trial)
    training = make_evaluator(parts.train, parts.validation)
    training.evaluate(network)
    if trial.recalibrate:
        _recalibrate(network, parts.train, trial.recalibrate, trial, training)
    result = {
        'default': _measure(network, parts.validation, trial, training).top1,
        'macs': macs(skeleton)(sample),
        'params': params(skeleton)(sample),
        'epochs': trial.epochs,
        'seconds': history.seconds,
    }
    if trial.stage == 'test':
        result['test_accuracy'] = _measure(network, parts.test, trial, training).top1
    return result, network


def _recalibrate(network, train, batches: int, trial, recipe) -> None:
    """Estimates BN's statistics anew on batches of ``train``."""
    learnt = loader(train, trial.batch_size, derived_seed(trial.seed, 'statistics'), trial.workers)
    estimate_statistics(network, itertools.islice(learnt, batches), recipe.trainer.strategy.root_device)


def _measure(network, part, trial, recipe):
    """What ``python -m trials evaluate`` will say of the network."""
    trainer = recipe.trainer
    images = loader(part, trial.batch_size, workers=trial.workers)
    classes = network.classifier.out_features
    return measure(network, images, classes, device=trainer.strategy.root_device, precision=trainer.precision)


def run_search(strategy: OneShotStrategy, trial: TrialParameters, training: Lightning) -> Sample:
    """Run a one-shot strategy on the trial's space: it has then its supernet and its Lightning module.

    Args:
        strategy: made, and not run yet.
        trial: a search trial.
        training: evaluator of its recipe; the training part trains the weights, the validation part what is searched.

    Returns:
        The canonical sample of the network found.
    """
    skeleton = trial.space()
    space = LightNLSpace(skeleton).to(memory_format=torch.channels_last)
    with _draws_of_the_seed():
        strategy(RawFormatModelSpace(space, training), _ThisTrial(partial(inherit, trial=trial)))
        return skeleton.canonical(strategy.oneshot_module.export())


@contextmanager
def _draws_of_the_seed() -> Iterator[None]:
    """Within, the paths that NNI draws follow from PyTorch's seed.

    NNI 3.0 makes a generator for each draw of a path, without a seed: what ``RandomOneShot`` found was never the same.
    """
    by_chance = mutable.RandomState
    mutable.RandomState = lambda: by_chance(int(torch.randint(2**32, ())))
    try:
        yield
    finally:
        mutable.RandomState = by_chance


def _search(trial, parts, history, make_evaluator):
    skeleton = trial.space()
    weights_part, held_out = datasets.hold_out(parts.train, trial.held_out)
    strategy = strategy_class(trial.search_class)(**trial.search_arguments)
    sample = run_search(strategy, trial, make_evaluator(weights_part, held_out, shuffle_validation=True))
    network = strategy.supernet.freeze(sample)
    checking = evaluator(weights_part, held_out, **recipe_of(trial))
    _recalibrate(network, weights_part, STATISTICS_BATCHES, trial, checking)
    result = {
        'default': _measure(network, parts.validation, trial, checking).top1,
        'macs': macs(skeleton)(sample),
        'params': params(skeleton)(sample),
        'epochs': search_passes(strategy, trial.epochs) * len(weights_part) / len(parts.train),
        'seconds': history.seconds,
        **trial.whole_sample(sample),
    }
    selected = getattr(strategy.oneshot_module, 'selected', [])
    if len(selected) > 1:
        result['front'] = [trial.whole_sample(skeleton.canonical(other)) for other in selected]
    return result, network


def save_trial(
    folder: Path,
    parameters: dict[str, Any],
    result: dict[str, Any],
    network: torch.nn.Module,
    files: dict[str, str] | None = None,
) -> None:
    """Leave ``network.pt`` (weights) and ``trial.json`` in ``folder``, each whole or not at all.

    Args:
        folder: which is made where there is none.
        parameters, result, files: the trial's :class:`.trial_folder.Record`.
        network: that it trained or found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    write_whole(folder / WEIGHTS, weights.getvalue())
    record = Record(parameters, result, files or {})
    write_whole(folder / RECORD, json.dumps(record._asdict(), indent=2).encode())
