"""One trial, from its parameters to its result: a search, or a network trained from scratch."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.execution.event import TrainingEndEvent
from nni.nas.space import ModelStatus, RawFormatModelSpace

from search_space import LightNLSpace, build, macs, params
from search_space.whole_file import write_whole
from strategies.one_shot_trial import search_passes
from strategies.strategy_class import strategy_class

from . import datasets
from .evaluator import evaluator, loader
from .parameters import TrialParameters

__all__ = ['run_trial', 'save_trial']

Report = Callable[[dict[str, Any]], None]


class _ReportEpochs(pl.Callback):
    """Reports Lightning's metrics of every epoch."""

    def __init__(self, report: Report, default: str):
        self.report, self.default = report, default

    def on_train_epoch_end(self, trainer, module):
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.report({'default': metrics.get(self.default, 0.0), 'epoch': trainer.current_epoch + 1, **metrics})


class _ThisTrial(SequentialExecutionEngine):
    """Runs a one-shot strategy's supernet in this trial, as part of it.

    NNI's own engine runs it as a trial within the trial: what it reports would stay there, and after it NNI takes what
    this trial reports for that of parameters 0.
    """

    def submit_models(self, *models):
        for model in models:
            model.execute()
            self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))


def run_trial(trial: TrialParameters, report: Report) -> tuple[dict[str, Any], torch.nn.Module]:
    """Run a trial to its result and its network.

    The result holds ``default`` (validation accuracy), ``macs``, ``params``, ``epochs`` (compute: images that were
    trained on, over the size of the training part) and ``seconds`` of training; of a search the labels of the network
    it found, of a test ``test_accuracy``.

    Args:
        trial: the parameters.
        report: called with the metrics of every epoch.
    """
    torch.set_num_threads(trial.threads)
    pl.seed_everything(trial.seed, verbose=False)
    parts = datasets.load(trial.dataset)
    with warnings.catch_warnings():
        # Lightning recommends worker processes and a logger; the data is in memory, and NNI logs.
        warnings.filterwarnings('ignore', module='pytorch_lightning')
        return (_search if trial.stage == 'search' else _train)(trial, parts, report)


def _recipe(trial: TrialParameters) -> dict[str, Any]:
    names = ('epochs', 'batch_size', 'learning_rate', 'weight_decay', 'label_smoothing', 'seed')
    return {name: getattr(trial, name) for name in names}


def _train(trial, parts, report):
    skeleton = trial.space()
    network = build(skeleton, trial.network).to(memory_format=torch.channels_last)
    training = evaluator(
        parts.train,
        parts.validation,
        **_recipe(trial),
        callbacks=[_ReportEpochs(report, 'validation_accuracy')],
    )
    started = time.perf_counter()
    training.evaluate(network)
    result = {
        'default': float(training.trainer.callback_metrics['validation_accuracy']),
        'macs': macs(skeleton)(skeleton.check_sample(trial.network)),
        'params': params(skeleton)(skeleton.check_sample(trial.network)),
        'epochs': trial.epochs,
        'seconds': time.perf_counter() - started,
    }
    if trial.stage == 'test':
        measured = training.trainer.test(training.module, loader(parts.test, trial.batch_size), verbose=False)
        result['test_accuracy'] = measured[0]['test_accuracy']
    return result, network


def _search(trial, parts, report):
    skeleton = trial.space()
    weights_part, held_out = datasets.hold_out(parts.train, trial.held_out)
    space = LightNLSpace(skeleton).to(memory_format=torch.channels_last)
    searching = evaluator(
        weights_part,
        held_out,
        **_recipe(trial),
        shuffle_validation=True,
        callbacks=[_ReportEpochs(report, 'train_accuracy')],
    )
    strategy = strategy_class(trial.search_class)(**trial.search_arguments)
    started = time.perf_counter()
    strategy(RawFormatModelSpace(space, searching), _ThisTrial())
    seconds = time.perf_counter() - started
    sample = skeleton.canonical(strategy.oneshot_module.export())
    network = strategy.supernet.freeze(sample)
    checking = evaluator(weights_part, held_out, **_recipe(trial))
    checking.module.set_model(network)
    measured = checking.trainer.validate(checking.module, loader(parts.validation, trial.batch_size), verbose=False)
    result = {
        'default': measured[0]['validation_accuracy'],
        'macs': macs(skeleton)(sample),
        'params': params(skeleton)(sample),
        'epochs': search_passes(strategy, trial.epochs) * len(weights_part) / len(parts.train),
        'seconds': seconds,
        **trial.whole_sample(sample),
    }
    return result, network


def save_trial(folder: Path, parameters: dict[str, Any], result: dict[str, Any], network: torch.nn.Module) -> None:
    """Leave ``network.pt`` (weights) and ``trial.json`` in ``folder``, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    write_whole(folder / 'network.pt', weights.getvalue())
    write_whole(folder / 'trial.json', json.dumps({'parameters': parameters, 'result': result}, indent=2).encode())
