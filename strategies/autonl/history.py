"""The history of a search or a training, epoch by epoch: reported, and written to CSV and to TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl

from search_space.slow_imports import slow_imports
from search_space.whole_file import write_whole

__all__ = ['GATE_COLUMNS', 'History']

_logger = logging.getLogger(__name__)

GATE_COLUMNS = ('norm', 'threshold', 'gate')
"""What :class:`strategies.AutoNL` logs of a gate: ``norm/LABEL``, or ``norm/LABEL#j`` of the label's j-th."""


class History(pl.Callback):
    """Keeps what was logged in every epoch, with ``epoch`` (from 1) and ``seconds`` of training so far.

    After each epoch it is reported, and where there is a folder written to

    - ``metrics.csv``: a row per epoch, a column per metric but those of gates; of AutoNL ``weight_loss``,
      ``threshold_loss`` and ``macs`` (expected MACs; all after warm-up means over the epoch's steps);
    - ``trajectories.csv``: a row per epoch and gate, with columns epoch, label, index (j of the label's gates, from 1),
      norm, threshold and gate (1 is open, 0 closed); only of AutoNL;
    - ``tensorboard/``: all of it, over epochs.

    A CSV is there whole or not at all. A folder that cannot be written to is said once and ends nothing. A training
    that is resumed from a checkpoint of Lightning's has its earlier epochs here again, and reports them first.

    >>> history = History(lambda metrics: nni.report_intermediate_result({'default': metrics['macs'], **metrics}))
    >>> trainer = Trainer(callbacks=[history])  # nni.nas.evaluator.pytorch's

    Args:
        report: called with the metrics of every epoch.
        folder: where to write; None is nowhere.
    """

    def __init__(self, report: Callable[[dict[str, float]], None] | None = None, folder: Path | None = None):
        self.report, self.folder = report, folder
        self.epochs: list[dict[str, float]] = []
        self._tensorboard = None
        self._said = False

    @property
    def seconds(self) -> float:
        """Of training, up to the last epoch that ended."""
        return self.epochs[-1]['seconds'] if self.epochs else 0.0

    def state_dict(self):
        return {'epochs': self.epochs}

    def load_state_dict(self, state_dict):
        self.epochs = list(state_dict['epochs'])

    def on_fit_start(self, trainer, pl_module):
        self._started = time.perf_counter() - self.seconds
        for metrics in self.epochs:
            self._tell(metrics)
        if self.epochs:
            self._write()

    def on_train_epoch_end(self, trainer, pl_module):
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.perf_counter() - self._started
        self.epochs.append({'epoch': trainer.current_epoch + 1, 'seconds': seconds, **logged})
        self._tell(self.epochs[-1])
        self._write()

    def on_fit_end(self, trainer, pl_module):
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def _tell(self, metrics: dict[str, float]) -> None:
        if self.report is not None:
            self.report(metrics)

    def _write(self) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / 'metrics.csv', _table(_metric_rows(self.epochs)))
            gates = _gate_rows(self.epochs)
            if gates:
                write_whole(self.folder / 'trajectories.csv', _table(gates))
            self._write_events()
        except OSError as error:
            self._tensorboard = None
            if not self._said:
                _logger.warning('the history of epoch %d is not written: %s', len(self.epochs), error)
            self._said = True

    def _write_events(self) -> None:
        new = self.epochs[-1:]
        if self._tensorboard is None:
            new = self.epochs
            with slow_imports():  # there is no hurry after an epoch
                from torch.utils.tensorboard import SummaryWriter

            folder = self.folder / 'tensorboard'
            for earlier in folder.glob('events.out.tfevents.*'):
                earlier.unlink(missing_ok=True)
            self._tensorboard = SummaryWriter(str(folder))
        for metrics in new:
            for name, value in metrics.items():
                if name != 'epoch':
                    self._tensorboard.add_scalar(name, value, int(metrics['epoch']))
        self._tensorboard.flush()


def _is_of_a_gate(name: str) -> bool:
    return name.partition('/')[0] in GATE_COLUMNS and '/' in name


def _metric_rows(epochs: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in metrics.items() if not _is_of_a_gate(name)} for metrics in epochs]


def _gate_rows(epochs: list[dict[str, float]]) -> list[dict[str, float | str]]:
    rows = []
    for metrics in epochs:
        for name in (name for name in metrics if name.startswith('norm/')):
            gate = name.removeprefix('norm/')
            label, _, index = gate.partition('#')
            row = {'epoch': metrics['epoch'], 'label': label, 'index': int(index or 1)}
            rows.append(row | {column: metrics[f'{column}/{gate}'] for column in GATE_COLUMNS})
            rows[-1]['gate'] = int(rows[-1]['gate'])
    return rows


def _table(rows: list[dict]) -> bytes:
    """CSV of ``rows``; a column that a row lacks is left empty there."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()
