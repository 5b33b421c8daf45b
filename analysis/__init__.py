"""Analysis of experiments: from NNI's records to data frames, statistics, plots and a report."""

from __future__ import annotations

import importlib

_HOMES = {
    'columns': (),
    'experiment': ('Experiment', 'RunningExperiment', 'find_experiment'),
    'plots': (),
    'result_set': ('ResultSet', 'read', 'read_trajectories', 'shipped'),
    'report': ('write_report',),
    'statistics': ('mean_interval', 'paired_differences', 'rank_correlation', 'strategy_means'),
    'tables': (
        'best_so_far',
        'comparison',
        'frames',
        'lightnl_positions',
        'pareto_front',
        'supernet_accuracy',
        'time_use',
        'trials',
    ),
}
"""Module to what of it is public here. Imported when asked for: ``python -m analysis --help`` needs no torch."""

EARLIER = {'read_course': 'read_trajectories'}
"""Names of 0.1, and what they are called now."""

__all__ = sorted({name for names in _HOMES.values() for name in names} | {'columns', 'plots'})


def __getattr__(name: str):
    name = EARLIER.get(name, name)
    for module, names in _HOMES.items():
        if name == module:
            return importlib.import_module(f'.{module}', __name__)
        if name in names:
            return getattr(importlib.import_module(f'.{module}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
