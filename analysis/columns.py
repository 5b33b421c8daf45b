"""The columns of the data frames: their names, types and meaning."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = [
    'COMPARISON',
    'EXPERIMENTS',
    'METRICS',
    'TIME_USE',
    'TRAJECTORIES',
    'TRIALS',
    'UNREADABLE',
    'label_type',
    'typed',
]

_TEXT, _WHOLE, _NUMBER, _TIME = 'string', 'Int64', 'Float64', 'datetime64[ms, UTC]'

Columns = dict[str, tuple[str, str]]

EXPERIMENTS: Columns = {
    'experiment': (_TEXT, "NNI's id of it"),
    'name': (_TEXT, 'experimentName'),
    'seed': (_WHOLE, 'of everything that is random in it'),
    'skeleton': (_TEXT, 'name of the space'),
    'status': (_TEXT, "NNI's: RUNNING, DONE, STOPPED before it was done, ERROR, ..."),
    'started': (_TIME, 'first start'),
    'ended': (_TIME, 'last end'),
    'seconds': (_NUMBER, 'that it ran, resumed runs together'),
    'configuration': ('object', 'of nnictl create, as a dict, without what says which machine it was'),
    'versions': ('object', 'of what it was read with: package to version'),
}

TRIALS: Columns = {
    'experiment': (_TEXT, "NNI's id of the experiment"),
    'experiment_seed': (_WHOLE, 'seed of the experiment'),
    'trial': (_TEXT, "NNI's id of the trial"),
    'strategy': (_TEXT, 'name of the strategy that asked for it'),
    'stage': (_TEXT, 'search, retrain or test'),
    'seed': (_WHOLE, 'of weights, batches and search'),
    'attempt': (_WHOLE, '1, or more where the same parameters were tried again'),
    'status': (_TEXT, "NNI's: WAITING, RUNNING, SUCCEEDED, FAILED, USER_CANCELED, SYS_CANCELED, EARLY_STOPPED"),
    'failure': (_TEXT, 'why it has no result, one line'),
    'started': (_TIME, 'when it was started'),
    'ended': (_TIME, 'when it ended'),
    'last_epoch': (_WHOLE, 'the last epoch that it reported'),
    'validation_accuracy': (_NUMBER, "fraction; of a search, its supernet's with the network that was found"),
    'test_accuracy': (_NUMBER, 'fraction; in the stage test alone'),
    'macs': (_WHOLE, 'multiply-accumulates of its network for one image'),
    'params': (_WHOLE, 'parameters of its network'),
    'epochs': (_NUMBER, 'of training: images that were trained on, over the size of the training part'),
    'seconds': (_NUMBER, 'of training'),
    'skipped_images': (_WHOLE, 'images of its data that could not be read'),
    'lightnl': (_TEXT, 'where its network has LightNL, as row: channel ratio/stride; none, if nowhere'),
}
"""After these comes a column for every label of the space, such as ``row01/lightnl``."""

METRICS: Columns = {
    'experiment': (_TEXT, "NNI's id of the experiment"),
    'trial': (_TEXT, "NNI's id of the trial"),
    'strategy': (_TEXT, 'name of the strategy'),
    'stage': (_TEXT, 'search, retrain or test'),
    'epoch': (_WHOLE, 'from 1'),
    'reported': (_TIME, 'when'),
    'seconds': (_NUMBER, 'of training so far'),
    'train_loss': (_NUMBER, 'cross-entropy'),
    'train_accuracy': (_NUMBER, 'fraction; of a search, of the part that weights are learned on'),
    'validation_loss': (_NUMBER, 'cross-entropy'),
    'validation_accuracy': (_NUMBER, 'fraction'),
    'macs': (_NUMBER, "of a search: its network's, mean over the epoch"),
    'weight_loss': (_NUMBER, 'of a search: cross-entropy on the part that weights are learned on'),
    'threshold_loss': (_NUMBER, 'of a search: cross-entropy on the part that thresholds are learned on'),
}
"""After these comes a column for every other number that trials reported."""

TRAJECTORIES: Columns = {
    'experiment': (_TEXT, "NNI's id of the experiment"),
    'trial': (_TEXT, "NNI's id of the search"),
    'strategy': (_TEXT, 'name of the strategy'),
    'epoch': (_WHOLE, 'from 1'),
    'label': (_TEXT, 'of the choice, such as row01/lightnl'),
    'index': (_WHOLE, 'which gate of the choice, from 1; a choice of three has two'),
    'norm': (_NUMBER, 'of what the gate lets in'),
    'threshold': (_NUMBER, 'that the norm has to be above'),
    'gate': (_WHOLE, '1 open, 0 closed'),
}

UNREADABLE: Columns = {
    'experiment': (_TEXT, "NNI's id of the experiment"),
    'what': (_TEXT, 'trial, report or file'),
    'reason': (_TEXT, 'why it could not be read'),
}

COMPARISON: Columns = {
    'experiment': (_TEXT, "NNI's id of the experiment"),
    'experiment_seed': (_WHOLE, 'seed of the experiment'),
    'strategy': (_TEXT, 'name of the strategy'),
    'lightnl': (_TEXT, 'where its network has LightNL, as row: channel ratio/stride'),
    'macs': (_NUMBER, 'multiply-accumulates of its network for one image'),
    'params': (_NUMBER, 'parameters of its network'),
    'validation_accuracy': (_NUMBER, 'fraction; of the training that it was chosen by'),
    'test_accuracy': (_NUMBER, 'fraction; mean over the test runs'),
    'test_spread': (_NUMBER, 'largest minus smallest of the test runs'),
    'test_runs': (_WHOLE, 'trainings for the test accuracy'),
    'epochs': (_NUMBER, 'of training, search and retrainings together, tests not'),
    'seconds': (_NUMBER, 'of training, likewise'),
    'trials': (_WHOLE, 'their number, tests included'),
    'failed': (_WHOLE, 'of them, FAILED'),
}

TIME_USE: Columns = {
    'experiment': (_TEXT, "NNI's id of the experiment"),
    'experiment_seed': (_WHOLE, 'seed of the experiment'),
    'workers': (_WHOLE, 'trialConcurrency: trials at once'),
    'wall_clock': (_NUMBER, "seconds from the first trial's start to the last one's end"),
    'training': (_NUMBER, "fraction of the workers' time in which a trial was training"),
    'not_training': (_NUMBER, 'the rest of it: trial_overhead and idle'),
    'trial_overhead': (_NUMBER, "fraction of the workers' time in which a trial started, ended, or failed"),
    'idle': (_NUMBER, "fraction of the workers' time in which no trial was there"),
    'trial_start': (_NUMBER, 'seconds from the start of a trial to its first training step, median'),
    'trial_end': (_NUMBER, 'seconds from the last training step of a trial to its end, median'),
}


def label_type(label: str) -> str:
    """The type of a label's column: ``row01/lightnl_ratio`` is a number, ``row01/lightnl`` text."""
    key = label.rpartition('/')[2]
    if key in ('lightnl_stride', 'kernel', 'expansion'):
        return _WHOLE
    return _NUMBER if key in ('lightnl_ratio', 'se') else _TEXT


def typed(frame: pd.DataFrame, columns: Columns, other=None) -> pd.DataFrame:
    """``frame`` with exactly ``columns`` in their order and types, what it lacks missing.

    Args:
        other: the type of a further column by its name; without it there are none. They come last, sorted.
    """
    further = sorted(set(frame.columns) - set(columns)) if other else []
    frame = frame.reindex(columns=[*columns, *further])
    types = {name: kind for name, (kind, _) in columns.items()} | {name: other(name) for name in further}
    for name, kind in types.items():
        if kind == _TIME:
            numeric = pd.api.types.is_numeric_dtype(frame[name])
            unit = 'ms' if numeric else None
            frame[name] = pd.to_datetime(frame[name], unit=unit, utc=True, errors='coerce').astype(_TIME)
        elif kind == _TEXT:
            frame[name] = frame[name].astype(object).map(str, na_action='ignore').astype(_TEXT)
        elif kind in (_WHOLE, _NUMBER):
            numbers = _numbers(frame[name])
            finite = numbers.where(numbers.abs() < 2**63)
            frame[name] = numbers.astype(_NUMBER) if kind == _NUMBER else finite.round().astype(_WHOLE)
    return frame


def _numbers(values: pd.Series) -> pd.Series:
    """As float64; what is no number is NaN."""
    try:
        return pd.to_numeric(values, errors='coerce').astype('float64')
    except (TypeError, ValueError, OverflowError):  # a list among them, or a whole number of 400 digits
        return values.map(_number).astype('float64')


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan
