"""The report of experiments: one HTML page that needs nothing else, and the data frames beside it.

What the page says is in ``report.html.jinja``, how it looks in ``report.css``; here is what they are filled with.
"""

from __future__ import annotations

import base64
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from search_space.whole_file import check_folder, write_whole

from . import columns, plots
from .result_set import ResultSet, csv_of, versions
from .statistics import paired_differences, rank_correlation, strategy_means
from .tables import comparison, supernet_accuracy, time_use

__all__ = ['write_report']

PAGE = 'report.html'

FILES = ('trials.csv', 'metrics.csv', 'trajectories.csv', 'comparison.csv', 'unreadable.csv', 'experiments.json')
"""What is beside the page."""

MOST_ROWS = 200
"""Of a table in the page; all are in the CSV files."""

MOST_SEARCHES = 6
"""Whose trajectories are drawn."""

GATE_KEYS = ('lightnl', 'lightnl_ratio', 'lightnl_stride', 'presence', 'kernel', 'expansion', 'se')


def write_report(results: ResultSet, out: str | Path) -> Path:
    """Write ``report.html`` and the data to ``out``; the path of the page.

    The page holds tables, plots, failures, configurations and versions, and loads nothing. Beside it are the frames as
    CSV, ``comparison.csv``, ``experiments.json`` (so ``out`` is a result set, see :func:`analysis.read`) and a
    ``configuration-ID.yaml`` for each experiment.

    Raises:
        OSError: ``out`` cannot be written to.
    """
    out = check_folder(out)
    results.save(out)
    write_whole(out / 'comparison.csv', csv_of(comparison(results.trials)).encode())
    for row in results.experiments.itertuples():
        write_whole(out / _configuration_file(row.experiment), _yaml(row.configuration).encode())
    write_whole(out / PAGE, _page(results).encode())
    return out / PAGE


def _configuration_file(experiment: str) -> str:
    return f'configuration-{"".join(c for c in experiment if c.isalnum())}.yaml'


def _yaml(configuration: Any) -> str:
    return yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True)


def _page(results: ResultSet) -> str:
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {'count': _count, 'interval': _interval, 'kinds': _kinds, 'millions': _millions, 'text': _text}
    pages.filters |= formats | {'yaml': _yaml}
    return pages.get_template('report.html.jinja').render(_contents(results))


def _contents(results: ResultSet) -> dict[str, Any]:
    """Name in the template to what stands there."""
    trials, experiments = results.trials, results.experiments
    compared = comparison(trials).sort_values('experiment_seed', kind='stable')
    tested = compared.test_accuracy.notna().any()
    accuracy = 'test_accuracy' if tested else 'validation_accuracy'
    means = strategy_means(compared, accuracy).sort_values('estimate', ascending=False)
    means[['low', 'high']] = means[['low', 'high']].clip(0, 1)  # no accuracy is beyond
    means['macs'] = [compared[compared.strategy == name].macs.mean() for name in means.strategy]
    ranked = [*means[means.estimate.notna()].itertuples(), None, None]
    pairs, searched = supernet_accuracy(trials), results.trajectories.trial.nunique()
    workers = {row.experiment: row.configuration.get('trialConcurrency') for row in experiments.itertuples()}
    failed = trials[trials.failure.notna()]
    return {
        'title': ', '.join(dict.fromkeys(map(str, experiments.name))),
        'experiments': experiments,
        'trials': trials,
        'states': ', '.join(f'{n} {status}' for status, n in experiments.status.value_counts().items()),
        'seeds': ', '.join(map(str, sorted(experiments.seed.dropna().unique()))),
        'started': f'{experiments.started.min():%d %B %Y}' if experiments.started.notna().any() else '',
        'differing': _differing(experiments),
        'accuracy_name': accuracy.replace('_', ' '),
        'best': ranked[0],
        'second': ranked[1],
        'means': _means(means, compared, accuracy.replace('_', ' ')),
        'differences': _differences(compared, accuracy) if len(experiments) > 1 else (),
        'each': _each(compared),
        'ends': '; '.join(
            f'{row.strategy} {_percent(row.estimate)}'
            for row in strategy_means(compared, 'validation_accuracy').itertuples()
        ),
        'best_so_far': {
            unit: _picture(lambda ax, unit=unit: plots.best_so_far(trials, unit, ax)) for unit in ('epochs', 'seconds')
        },
        'accuracy_against_macs': _picture(lambda ax: plots.accuracy_against_macs(trials, ax)),
        'found': '; '.join(
            f'{row.strategy} seed {row.experiment_seed}: {row.lightnl}'
            for row in compared.dropna(subset='lightnl').head(12).itertuples()
        ),
        'found_networks': _picture(
            lambda ax: plots.found_networks(trials, ax),
            width=5.4 if len(compared) <= 9 else min(16.0, 0.7 * len(compared)),
        ),
        'lightnl_positions': _picture(
            lambda ax: plots.lightnl_positions(trials, ax), height=max(3.6, 1.2 + 0.9 * len(means))
        ),
        'searches': [*_searches(results)],
        'more_searches': searched - MOST_SEARCHES,
        'tau': rank_correlation(pairs.supernet_accuracy, pairs.retrained_accuracy) if len(pairs) else None,
        'supernet_accuracy': _picture(lambda ax: plots.supernet_accuracy(pairs, ax)) if len(pairs) else None,
        'timeline': _picture(
            lambda ax: plots.timeline(trials, ax), width=9.0, height=min(12.0, 2.2 + 0.8 * len(experiments))
        ),
        'time_use': _time_use(time_use(results, workers)),
        'most_rows': MOST_ROWS,
        'shown_trials': _trials(trials.head(MOST_ROWS)),
        'failed': failed[['trial', 'experiment', 'strategy', 'stage', 'attempt', 'status', 'failure']],
        'unreadable': results.unreadable,
        'commands': _commands(experiments),
        'versions': _versions(experiments),
        'files': FILES,
        'columns': {
            name: pd.DataFrame(
                [(column, kind, meaning) for column, (kind, meaning) in getattr(columns, name.upper()).items()],
                columns=['column', 'type', 'meaning'],
            )
            for name in ('trials', 'metrics', 'trajectories', 'comparison')
        },
    }


def _differing(experiments: pd.DataFrame) -> list[str]:
    """In what, besides their seed, experiments differ: intervals over such mean nothing."""
    flat = [dict(_flat(row.configuration)) for row in experiments.itertuples()]
    keys = dict.fromkeys(key for one in flat for key in one if key != 'tuner.classArgs.seed')
    return [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]


def _flat(value: Any, prefix: str = ''):
    """``a.b.c`` and value of everything in nested dicts."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f'{prefix}.{key}' if prefix else str(key))
    else:
        yield prefix, value


def _means(means: pd.DataFrame, compared: pd.DataFrame, accuracy_name: str) -> pd.DataFrame:
    own = [compared[compared.strategy == name] for name in means.strategy]
    return pd.DataFrame(
        {
            'strategy': means.strategy.to_numpy(),
            accuracy_name: [_percent(value) for value in means.estimate],
            '95% interval': [_bounds(low, high, _percent, '–') for low, high in zip(means.low, means.high)],
            'n': means.n.to_numpy(),
            'MACs': [_thousands(one.macs.mean()) for one in own],
            'parameters': [_thousands(one.params.mean()) for one in own],
            'epochs': [_decimal(one.epochs.mean()) for one in own],
            'seconds': [_thousands(one.seconds.mean()) for one in own],
            'failed': [int(one.failed.sum()) for one in own],
        }
    )


def _differences(compared: pd.DataFrame, accuracy: str) -> pd.DataFrame:
    found = paired_differences(compared, accuracy)
    found = found[found.n > 0]
    return pd.DataFrame(
        {
            'strategy': found.strategy,
            'minus': found.than,
            'difference': found.estimate.map(_points),
            '95% interval': [_bounds(low, high, _points, 'to') for low, high in zip(found.low, found.high)],
            'n': found.n,
        }
    )


def _each(compared: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            'seed': compared.experiment_seed,
            'strategy': compared.strategy,
            'test': compared.test_accuracy.map(_percent),
            'spread': compared.test_spread.where(compared.test_runs > 1).map(_percent),
            'test runs': compared.test_runs,
            'validation': compared.validation_accuracy.map(_percent),
            'LightNL': compared.lightnl,
            'MACs': compared.macs.map(_thousands),
            'parameters': compared.params.map(_thousands),
            'epochs': compared.epochs.map(_decimal),
            'seconds': compared.seconds.map(_thousands),
        }
    )


def _trials(trials: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            'trial': trials.trial,
            'seed': trials.experiment_seed,
            'strategy': trials.strategy,
            'stage': trials.stage,
            'status': trials.status,
            'LightNL': trials.lightnl,
            'MACs': trials.macs.map(_thousands),
            'parameters': trials.params.map(_thousands),
            'validation': trials.validation_accuracy.map(_percent),
            'test': trials.test_accuracy.map(_percent),
            'epochs': trials.epochs.map(_decimal),
            'seconds': trials.seconds.map(_thousands),
        }
    )


class _Search(NamedTuple):
    """What one search did to one key of the rows."""

    name: str
    key: str
    opened: str
    picture: _Picture


def _searches(results: ResultSet) -> Iterator[_Search]:
    trajectories, seeds = results.trajectories, results.experiments.set_index('experiment').seed
    for search in trajectories.drop_duplicates('trial').head(MOST_SEARCHES).itertuples():
        own = trajectories[trajectories.trial == search.trial]
        keys = set(own.label.str.replace(r'^.*/', '', regex=True))
        for key in [key for key in GATE_KEYS if key in keys]:
            last = own[(own.epoch == own.epoch.max()) & own.label.str.endswith(f'/{key}')]
            yield _Search(
                f'{search.strategy}, seed {seeds.get(search.experiment)}: {key}',
                key,
                ', '.join(last[last.gate == 1].label) or 'none',
                _picture(lambda ax, own=own, key=key: plots.gate_trajectories(own, key, ax)),
            )


def _time_use(used: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            'seed': used.experiment_seed,
            'workers': used.workers,
            'minutes': (used.wall_clock / 60).map(_decimal),
            'training': used.training.map(_percent),
            'start and end of trials': used.trial_overhead.map(_percent),
            'no trial': used.idle.map(_percent),
            "a trial's start, s": used.trial_start.map(_decimal),
            "a trial's end, s": used.trial_end.map(_decimal),
        }
    )


def _commands(experiments: pd.DataFrame) -> str:
    return (
        '# in the folder of the code, with this file in it:\n'
        f'bash run.sh {_configuration_file(experiments.experiment.iloc[0])}\n'
        f'# this page, with the id that run.sh says; here: {" ".join(experiments.experiment)}\n'
        'python -m analysis report ID --out report\n'
        '# one trial, from the file that it left in its folder:\n'
        'python -m trials run --parameters trial.json --out again'
    )


def _versions(experiments: pd.DataFrame) -> list[pd.DataFrame]:
    read_with = sorted({json.dumps(one) for one in experiments.versions})
    return [
        pd.DataFrame(sorted(one.items()), columns=['package', 'version'])
        for one in [json.loads(one) for one in read_with] or [versions()]
    ]


class _Picture(NamedTuple):
    """An image in the page itself, with its size in inches."""

    address: str
    width: float
    height: float


def _picture(draw: Callable, width: float = 5.4, height: float = 3.6) -> _Picture:
    """``draw`` takes the axes."""
    file = io.BytesIO()
    with rc_context({'svg.hashsalt': 'autonl', 'font.family': 'DejaVu Sans'}), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph .* missing from font')  # in names that people gave
        figure = Figure(figsize=(width, height), layout='constrained')
        draw(figure.add_subplot())
        figure.savefig(file, format='svg', dpi=150, metadata={'Date': None})
    return _Picture(f'data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}', width, height)


_NUMBER = re.compile(r'[+−-]?[\d,]+(\.\d+)?%?')


def _kinds(table: pd.DataFrame, wrap: tuple[str, ...]) -> list[str]:
    """The style of each column: ``number``, or ``wrap`` where its name is among those, or none."""
    return ['number' if _looks_numeric(table[name]) else 'wrap' if name in wrap else '' for name in table]


def _looks_numeric(values: pd.Series) -> bool:
    texts = [text for text in map(_text, values) if text != '–']
    return bool(texts) and all(_NUMBER.fullmatch(part) for text in texts for part in re.split(' – | to ', text))


def _text(value: Any) -> str:
    return '–' if value is None or value is pd.NA or value != value or value == '' else str(value)


def _count(n: int, one: str, many: str | None = None) -> str:
    return f'{n:,} {one if n == 1 else many or one + "s"}'


def _percent(value) -> str:
    return '–' if pd.isna(value) else f'{value:.2%}'


def _points(value) -> str:
    return '–' if pd.isna(value) else f'{100 * value:+.2f}'.replace('-', '−')


def _thousands(value) -> str:
    return '–' if pd.isna(value) else f'{value:,.0f}'


def _decimal(value) -> str:
    return '–' if pd.isna(value) else f'{value:.1f}'


def _millions(value) -> str:
    return '–' if pd.isna(value) else f'{value / 1e6:.4g}M'


def _bounds(low, high, form: Callable[[Any], str], between: str) -> str:
    return f'{form(low)} {between} {form(high)}' if pd.notna(low) else '–'


def _interval(mean) -> str:
    bounds = f' [{_bounds(mean.low, mean.high, _percent, ",")}]'.replace(' ,', ',') if pd.notna(mean.low) else ''
    return f'{_percent(mean.estimate)}{bounds} (n = {mean.n})'
