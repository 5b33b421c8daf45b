"""Data frames of an experiment: one row a trial, and the comparison of its strategies."""

from __future__ import annotations

import json

import pandas as pd

from search_space import load_skeleton

from .experiment import Experiment

__all__ = ['comparison', 'trials']

RESULT_COLUMNS = {
    'default': 'validation_accuracy',
    'test_accuracy': 'test_accuracy',
    'macs': 'macs',
    'params': 'params',
    'epochs': 'epochs',
    'seconds': 'seconds',
}
"""What a trial reports, to the column it becomes."""

COMPARISON_COLUMNS = [
    'strategy',
    'lightnl',
    'macs',
    'params',
    'validation_accuracy',
    'test_accuracy',
    'test_spread',
    'test_runs',
    'epochs',
    'seconds',
    'trials',
    'failed',
]


def trials(experiment: Experiment) -> pd.DataFrame:
    """One row a trial, in the order in which they were started.

    Columns: trial (NNI's id), strategy, stage (search, retrain, test), seed, status (NNI's: SUCCEEDED, FAILED, RUNNING,
    ...), started and ended (UTC), validation_accuracy, test_accuracy, macs, params, epochs and seconds (of training),
    and a column for every label of the space. What a trial did not report is missing.
    """
    rows: dict[str, dict] = {}
    for event in experiment.trial_events():
        row = rows.setdefault(event['trialJobId'], {'trial': event['trialJobId'], 'started': event['timestamp']})
        if event['data']:
            parameters = json.loads(event['data'])['parameters']
            row.update(
                {
                    key: value
                    for key, value in parameters.items()
                    if '/' in key and not key.startswith(('class/', 'dataset/'))
                }
            )
            row.update({key: parameters[key] for key in ('strategy', 'stage', 'seed')})
        row['status'] = event['event']
        if event['event'] not in ('WAITING', 'RUNNING'):
            row['ended'] = event['timestamp']
    for metric in experiment.metrics():
        if metric['type'] == 'FINAL' and metric['trialJobId'] in rows:
            result = metric['data']
            row = rows[metric['trialJobId']]
            row.update({column: result[key] for key, column in RESULT_COLUMNS.items() if key in result})
            row.update({key: value for key, value in result.items() if '/' in key})
    fixed = ['trial', 'strategy', 'stage', 'seed', 'status', 'started', 'ended', *RESULT_COLUMNS.values()]
    frame = pd.DataFrame(rows.values())
    frame = frame.reindex(columns=fixed + sorted(set(frame.columns) - set(fixed)))
    for column in ('started', 'ended'):
        frame[column] = pd.to_datetime(frame[column], unit='ms', utc=True)
    return frame


def comparison(experiment: Experiment) -> pd.DataFrame:
    """One row a strategy: the network it ends with, and what finding it cost.

    The network is the retrained one of the highest validation accuracy (of several, of the fewest MACs). Columns:
    lightnl (row: channel ratio/stride), macs, params, validation_accuracy (of that training), test_accuracy (mean over
    the test runs), test_spread (largest minus smallest), test_runs, epochs and seconds (of training, of search and
    retrainings together), trials and failed (their numbers, tests included).
    """
    skeleton = load_skeleton(experiment.tuner_arguments()['skeleton'])
    frame = trials(experiment)
    rows = []
    for strategy, own in frame.groupby('strategy', sort=False):
        retrained = own[(own.stage == 'retrain') & own.validation_accuracy.notna()]
        tests = own[own.stage == 'test'].test_accuracy.dropna()
        spent = own[own.stage != 'test']
        row = {'strategy': strategy}
        if len(retrained):
            best = retrained.sort_values(['validation_accuracy', 'macs'], ascending=[False, True]).iloc[0]
            positions = skeleton.lightnl_positions({label: best[label] for label in skeleton.choices()})
            row['lightnl'] = ', '.join(f'{n}: {ratio:g}/{stride}' for n, (ratio, stride) in positions.items()) or 'none'
            row.update(best[['macs', 'params', 'validation_accuracy']])
        row.update(
            test_accuracy=tests.mean(),
            test_spread=tests.max() - tests.min(),
            test_runs=len(tests),
            epochs=spent.epochs.sum(),
            seconds=spent.seconds.sum(),
            trials=len(own),
            failed=(own.status == 'FAILED').sum(),
        )
        rows.append(row)
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS).set_index('strategy')
