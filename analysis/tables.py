"""Data frames of an experiment: its trials, what they reported, what its searches did, and who found what."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pandas as pd

from search_space import PRESENT, Skeleton, load_skeleton
from search_space.read_file import parse_json
from search_space.rules import one_line
from search_space.skeleton import label

from .columns import COMPARISON, METRICS, TIME_USE, TRAJECTORIES, TRIALS, UNREADABLE, label_type, typed
from .experiment import ENDED, GOING_ON, Experiment, RunningExperiment

__all__ = [
    'Frames',
    'best_so_far',
    'comparison',
    'frames',
    'lightnl_positions',
    'pareto_front',
    'row_count',
    'supernet_accuracy',
    'time_use',
    'trials',
]

NO_LIGHTNL = 'none'

_RESULTS = {'default': 'validation_accuracy'} | {
    name: name for name in ('test_accuracy', 'macs', 'params', 'epochs', 'seconds', 'skipped_images')
}
"""What a trial reports at its end, to the column it becomes."""

_LONGEST_REASON = 500


@dataclass(frozen=True)
class Frames:
    """What one experiment, or several, hold.

    Attributes:
        trials: a row each, in the order in which they were started; columns are ``analysis.columns.TRIALS``, then one
            for every label of the space.
        metrics: a row per trial and epoch; ``METRICS``. The report before the first epoch, with which a trial says that
            it has started, is none.
        trajectories: a row per search, epoch and gate; ``TRAJECTORIES``.
        unreadable: what of it could not be read, and why; ``UNREADABLE``.
    """

    trials: pd.DataFrame
    metrics: pd.DataFrame
    trajectories: pd.DataFrame
    unreadable: pd.DataFrame


def frames(experiment: Experiment | RunningExperiment) -> Frames:
    """The frames of an experiment, which may be unfinished, resumed, or hold failed trials.

    Raises:
        ValueError: it is another tuner's, or its database cannot be read.
    """
    return _Reader(experiment).read()


def trials(experiment: Experiment | RunningExperiment) -> pd.DataFrame:
    """The trials of an experiment alone: :attr:`Frames.trials`."""
    return frames(experiment).trials


class _Reader:
    """Reads one experiment; what it cannot read, it notes."""

    def __init__(self, experiment):
        self.experiment, self.id = experiment, experiment.id
        self.arguments = experiment.tuner_arguments()
        self.unreadable: list[dict] = []
        self.trials: dict[str, dict[str, Any]] = {}
        self.metrics: list[dict] = []
        self.trajectories: list[dict] = []

    def read(self) -> Frames:
        for event in self.experiment.trial_events():
            self._event(event)
        self._count_attempts()
        for metric in self.experiment.metrics():
            self._metric(metric)
        self._explain_failures()
        trials = typed(pd.DataFrame(self.trials.values()), TRIALS, other=label_type)
        trials['lightnl'] = self._lightnl(trials)
        return Frames(
            trials,
            typed(pd.DataFrame(self.metrics), METRICS, other=lambda name: 'Float64'),
            typed(pd.DataFrame(self.trajectories), TRAJECTORIES),
            typed(pd.DataFrame(self.unreadable), UNREADABLE),
        )

    def _note(self, what: str, reason: str) -> None:
        self.unreadable.append({'experiment': self.id, 'what': what, 'reason': reason})

    def _event(self, event: dict) -> None:
        trial, status, started = event.get('trialJobId'), event.get('event'), _time(event.get('timestamp'))
        if not (isinstance(trial, str) and trial and isinstance(status, str)):
            self._note('an event of a trial', 'it does not say of which trial, or which status it has then')
            return
        row = self.trials.setdefault(
            trial,
            {
                'experiment': self.id,
                'experiment_seed': self.arguments.get('seed', 0),
                'trial': one_line(trial, 100),
                'started': started,
            },
        )
        row['status'] = one_line(status, 50)
        if status in ENDED:
            row['ended'] = started
        if event.get('data'):
            row['_parameters'] = None
            try:
                parameters = parse_json(event['data'], '')['parameters']
                row.update({key: _plain(parameters[key]) for key in ('strategy', 'stage', 'seed')})
            except (ValueError, KeyError, TypeError):
                self._note(f'trial {trial}', 'its parameters are not those of a trial of this package')
                return
            row.update(_labels(parameters))
            row['_parameters'] = json.dumps(parameters, sort_keys=True)

    def _count_attempts(self) -> None:
        attempts: dict[str, int] = defaultdict(int)
        for trial, row in self.trials.items():
            if '_parameters' not in row:
                self._note(f'trial {trial}', 'NNI has no parameters for it')
            elif (parameters := row.pop('_parameters')) is not None:
                attempts[parameters] += 1
                row['attempt'] = attempts[parameters]

    def _metric(self, metric: dict) -> None:
        trial, data = metric.get('trialJobId'), metric['data']
        row = self.trials.get(trial) if isinstance(trial, str) else None
        trial = one_line(trial, 100)
        if row is None:
            self._note(f'a report of trial {trial}', 'NNI has no record of this trial')
        elif data is None:
            self._note(f'a report of trial {trial}', 'it is not a JSON object')
        elif metric.get('type') == 'FINAL':
            row.update({column: data[key] for key, column in _RESULTS.items() if key in data})
            row.update(_labels(data))
        elif isinstance(data.get('epoch'), int) and data['epoch'] < 2**53:
            row['last_epoch'] = data['epoch']
            if data['epoch'] > 0:
                self._epoch(row, data, _time(metric.get('timestamp')))
        else:
            self._note(f'a report of trial {trial}', 'it does not say of which epoch it is')

    def _epoch(self, row: dict, data: dict, reported) -> None:
        which = {key: row.get(key) for key in ('experiment', 'trial', 'strategy')} | {'epoch': data['epoch']}
        numbers = {key: value for key, value in data.items() if _METRIC.fullmatch(key) and key not in which}
        numbers.pop('default', None)
        self.metrics.append({**numbers, **which, 'stage': row.get('stage'), 'reported': reported})
        for key, norm in data.items():
            if key.startswith('norm/') and _LABEL.fullmatch(name := key.removeprefix('norm/')):
                choice, _, index = name.partition('#')
                self.trajectories.append(
                    {
                        **which,
                        'label': choice,
                        'index': index or 1,
                        'norm': norm,
                        'threshold': data.get(f'threshold/{name}'),
                        'gate': data.get(f'gate/{name}'),
                    }
                )

    def _explain_failures(self) -> None:
        going_on = self.experiment.status() in GOING_ON
        for trial, row in self.trials.items():
            if row['status'] == 'SUCCEEDED':
                if 'validation_accuracy' not in row and not going_on:
                    row['failure'] = 'it ended without a result'
            elif row['status'] in ENDED:
                row['failure'] = self._reason(trial, row['status'])
            elif not going_on:
                row['failure'] = 'NNI recorded no end of it: the experiment stopped while it ran'

    def _reason(self, trial: str, status: str) -> str:
        left = self.experiment.trial_file(trial, 'failure.json')
        if left is not None:
            try:
                return one_line(parse_json(left, '')['error'], _LONGEST_REASON)
            except (ValueError, KeyError, TypeError):
                self._note(f'failure.json of trial {trial}', 'it is not a JSON object with the key error')
        stderr = (self.experiment.trial_file(trial, 'trial.stderr') or '').strip()
        return one_line(f'{status}; the last it said: {stderr.splitlines()[-1]}' if stderr else status, _LONGEST_REASON)

    def _lightnl(self, trials: pd.DataFrame) -> pd.Series:
        try:
            skeleton = load_skeleton(self.arguments['skeleton'])
        except (ValueError, KeyError, TypeError, OSError) as error:
            self._note('the column lightnl', one_line(error, _LONGEST_REASON))
            return trials['lightnl']
        return _lightnl_text(trials, skeleton)


_LABEL = re.compile(r'[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+(#\d+)?')
_METRIC = re.compile(r'[A-Za-z0-9_.-]{1,100}')


def _labels(values: dict) -> dict:
    """What is said of labels; ``class/`` are the arguments of a search, ``dataset/`` those of the data set."""
    return {
        key: _plain(value)
        for key, value in values.items()
        if _LABEL.fullmatch(key) and not key.startswith(('class/', 'dataset/', 'candidates/'))
    }


def _plain(value: Any) -> Any:
    """A number as it is; a text, and whatever else was written into a database, in one line."""
    return value if isinstance(value, int | float) else one_line(value, 200)


def _time(timestamp: Any) -> float | None:
    """Milliseconds since 1970, of a time that there is a date for; None where it is none."""
    return timestamp if isinstance(timestamp, int | float) and 0 <= timestamp < 2**42 else None


def _lightnl_text(trials: pd.DataFrame, skeleton: Skeleton) -> pd.Series:
    """The column ``lightnl``: a column at a time, for a hundred thousand trials as for ten."""
    texts = pd.Series('', index=trials.index, dtype=object)
    for index, row in enumerate(skeleton.rows):

        def chosen(key, index=index, row=row):
            if label(index, key) in trials:
                return trials[label(index, key)].astype(object)
            return pd.Series(row.candidates(key)[0], index=trials.index, dtype=object)

        inserted = chosen('lightnl').eq(PRESENT) & chosen('presence').eq(PRESENT)
        ratio = chosen('lightnl_ratio').map('{:g}'.format, na_action='ignore').astype(str)
        block = f', {index + 1}: ' + ratio + '/' + chosen('lightnl_stride').astype(str)
        texts = texts.where(~inserted, texts + block)
    texts = texts.str.removeprefix(', ').replace('', NO_LIGHTNL)
    labels = [name for name in skeleton.choices() if name in trials]
    known = trials[labels].notna().all(axis=1) & (len(labels) == len(skeleton.choices()))
    return texts.where(known, None).astype('string')


def lightnl_positions(trials: pd.DataFrame) -> pd.DataFrame:
    """Where networks insert LightNL: a row per trial and block, with row (from 1), ratio and stride.

    Args:
        trials: some of them, of one experiment or several; the columns experiment, trial, strategy, stage are kept.
    """
    networks = trials[['experiment', 'trial', 'strategy', 'stage', 'lightnl']].dropna(subset='lightnl')
    texts = networks.lightnl.drop_duplicates()  # few: a list for each of many trials would keep Python's collector busy
    blocks = texts.str.split(', ').explode().astype('string')
    found = blocks.str.extract(r'^(?P<row>\d+): (?P<ratio>[\d.]+)/(?P<stride>\d+)$')
    found = pd.DataFrame({column: pd.to_numeric(values) for column, values in found.items()})
    found = found.assign(lightnl=texts[found.index]).dropna(subset='row')
    return networks.merge(found, on='lightnl').drop(columns='lightnl')


def comparison(trials: pd.DataFrame) -> pd.DataFrame:
    """A row per experiment and strategy: the network it ends with, and what finding it cost.

    The network is the retrained one of the highest validation accuracy (of several, of the fewest MACs). Columns are
    ``analysis.columns.COMPARISON``.
    """
    rows = []
    for (experiment, strategy), own in trials.groupby(['experiment', 'strategy'], sort=False):
        retrained = own[(own.stage == 'retrain') & own.validation_accuracy.notna()]
        tests = own[own.stage == 'test'].test_accuracy.dropna()
        spent = own[own.stage != 'test']
        row = {'experiment': experiment, 'experiment_seed': own.experiment_seed.iloc[0], 'strategy': strategy}
        if len(retrained):
            best = retrained.sort_values(['validation_accuracy', 'macs'], ascending=[False, True], kind='stable').iloc[
                0
            ]
            row.update(best[['lightnl', 'macs', 'params', 'validation_accuracy']])
        row.update(
            test_accuracy=tests.mean() if len(tests) else None,
            test_spread=tests.max() - tests.min() if len(tests) else None,
            test_runs=len(tests),
            epochs=spent.epochs.sum(),
            seconds=spent.seconds.sum(),
            trials=len(own),
            failed=(own.ended.notna() & (own.status != 'SUCCEEDED')).sum(),
        )
        rows.append(row)
    return typed(pd.DataFrame(rows), COMPARISON)


def time_use(read: Frames, workers: dict[str, int]) -> pd.DataFrame:
    """How much of an experiment's wall-clock is training: a row per experiment that has trials which have ended.

    ``training = sum(seconds of trials) / (workers * wall_clock)``. A trial that has no result counts up to the last
    epoch that it reported. Columns are ``analysis.columns.TIME_USE``.

    Args:
        read: of an experiment, or several.
        workers: experiment to its trialConcurrency; one of which it is not known is left out.
    """
    epochs = read.metrics.sort_values(['trial', 'epoch'], kind='stable').groupby('trial')
    first, last = epochs.first(), epochs.last()
    rows = []
    for experiment, own in read.trials[read.trials.ended.notna()].groupby('experiment', sort=False):
        own = own.set_index('trial')
        wall_clock = _seconds(own.ended.max() - own.started.min())
        if not (isinstance(workers[experiment], int) and 0 < workers[experiment] < 1e6 and wall_clock > 0):
            continue
        available = workers[experiment] * wall_clock
        trained = own.seconds.fillna(last.seconds.reindex(own.index)).fillna(0).astype(float)
        present = (own.ended - own.started).map(_seconds).astype(float)
        started = first.reported.reindex(own.index) - pd.to_timedelta(first.seconds.reindex(own.index), unit='s')
        rows.append(
            {
                'experiment': experiment,
                'experiment_seed': own.experiment_seed.iloc[0],
                'workers': workers[experiment],
                'wall_clock': wall_clock,
                'training': trained.sum() / available,
                'not_training': 1 - trained.sum() / available,
                'trial_overhead': (present - trained).sum() / available,
                'idle': 1 - present.sum() / available,
                'trial_start': (started - own.started).map(_seconds).median(),
                'trial_end': (own.ended - last.reported.reindex(own.index)).map(_seconds).median(),
            }
        )
    return typed(pd.DataFrame(rows), TIME_USE)


def _seconds(duration) -> float:
    return duration / pd.Timedelta(seconds=1)


def best_so_far(trials: pd.DataFrame) -> pd.DataFrame:
    """The best validation accuracy that a strategy had, and what it had spent by then: a row per retrained network.

    Columns: experiment, strategy, trial, epochs and seconds (of training, those of all of its searches and retrainings
    that had ended), validation_accuracy (of this network), best_accuracy (of all until then).
    """
    spent = trials[trials.stage.isin(['search', 'retrain']) & trials.epochs.notna() & trials.ended.notna()]
    spent = spent.sort_values(['experiment', 'ended'], kind='stable')
    each = spent.groupby(['experiment', 'strategy'], sort=False)
    spent = spent.assign(epochs=each.epochs.cumsum(), seconds=each.seconds.cumsum())
    done = spent[(spent.stage == 'retrain') & spent.validation_accuracy.notna()]
    best = done.groupby(['experiment', 'strategy'], sort=False).validation_accuracy.cummax()
    columns = ['experiment', 'strategy', 'trial', 'epochs', 'seconds', 'validation_accuracy']
    return done[columns].assign(best_accuracy=best).reset_index(drop=True)


def pareto_front(frame: pd.DataFrame, cost: str = 'macs', accuracy: str = 'validation_accuracy') -> pd.DataFrame:
    """The rows of ``frame`` that no other is better than: none is as accurate at less cost. From the cheapest on."""
    ordered = frame.dropna(subset=[cost, accuracy]).sort_values([cost, accuracy], ascending=[True, False])
    best_before = ordered[accuracy].cummax().shift()
    return ordered[best_before.isna() | (ordered[accuracy] > best_before)]


def supernet_accuracy(trials: pd.DataFrame) -> pd.DataFrame:
    """What the supernet said of a network and what training it from scratch said: a row per search that has both.

    Columns: experiment, strategy, supernet_accuracy, retrained_accuracy (validation; mean over its retrainings in this
    experiment), retrainings.
    """
    labels = [column for column in trials.columns if '/' in column]
    keys = ['experiment', *labels]
    measured = trials[trials.validation_accuracy.notna()]
    found = measured[measured.stage == 'search']
    retrained = measured[measured.stage == 'retrain'].groupby(keys, dropna=False).validation_accuracy
    retrained = retrained.agg(retrained_accuracy='mean', retrainings='size').reset_index()
    pairs = found.merge(retrained, on=keys).rename(columns={'validation_accuracy': 'supernet_accuracy'})
    return pairs[['experiment', 'strategy', 'supernet_accuracy', 'retrained_accuracy', 'retrainings']]


def row_count(trials: pd.DataFrame) -> int:
    """How many rows the searched part of the skeleton has, as far as labels say."""
    numbered = [column for column in trials.columns if column.startswith('row') and '/' in column]
    return max((int(name[3:].split('/')[0]) for name in numbered), default=0)
