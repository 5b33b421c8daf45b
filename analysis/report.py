"""The report of experiments: one HTML page that needs nothing else, and the data frames beside it."""

from __future__ import annotations

import base64
import io
import json
import re
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure

from search_space.whole_file import check_folder, write_whole

from . import columns, plots
from .result_set import ResultSet, csv_of, versions
from .statistics import paired_differences, rank_correlation, strategy_means
from .tables import comparison, supernet_accuracy, time_use

__all__ = ['write_report']

PAGE = 'report.html'

MOST_ROWS = 200
"""Of a table in the page; all are in the CSV files."""

MOST_SEARCHES = 6
"""Whose trajectories are drawn."""

GATE_KEYS = ('lightnl', 'lightnl_ratio', 'lightnl_stride', 'presence', 'kernel', 'expansion', 'se')

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --pale: #595959; --paper: #ffffff; --line: #d5d5d5; --soft: #f4f4f2;
  --link: #005a9c; --bad: #a8330a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --pale: #b0b0ac; --paper: #161617; --line: #3a3a3c;
  --soft: #222224; --link: #7cc0f5; --bad: #ff9a70; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .8rem 0 0; list-style: none; }
nav a { display: inline-block; padding: .25rem 0; }
.lead { font-size: 1.08rem; }
.note, figcaption, footer { color: var(--pale); font-size: .9rem; }
.bad { color: var(--bad); }
.scroll { overflow-x: auto; margin: .6rem 0 .3rem; border: 1px solid var(--line); border-radius: .4rem; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { background: var(--soft); }
td.wrap { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 0 1.2rem; }
.wide { grid-column: 1 / -1; }
figure { margin: .6rem 0; }
figure img { display: block; width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: .4rem; }
figcaption { margin-top: .3rem; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem; overflow-x: auto;
  font-size: .85rem; line-height: 1.4; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em; overflow-wrap: anywhere; }
pre code { overflow-wrap: normal; }
summary { cursor: pointer; padding: .35rem 0; font-weight: 600; }
footer { padding-bottom: 3rem; margin-top: 2rem; }
"""

# Nothing may be loaded from anywhere and no script may run, whatever a trial's parameters or an error's text say.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    write_whole(out / PAGE, _Page(results).html().encode())
    return out / PAGE


def _configuration_file(experiment: str) -> str:
    return f'configuration-{"".join(c for c in experiment if c.isalnum())}.yaml'


def _yaml(configuration: Any) -> str:
    return yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True)


class _Page:
    """The page of one result set; each section is a method that gives its HTML, empty where there is nothing to say."""

    def __init__(self, results: ResultSet):
        self.results, self.trials = results, results.trials
        self.comparison = comparison(results.trials).sort_values('experiment_seed', kind='stable')
        tested = self.comparison.test_accuracy.notna().any()
        self.accuracy, self.accuracy_name = (
            ('test_accuracy', 'test accuracy') if tested else ('validation_accuracy', 'validation accuracy')
        )
        self.means = strategy_means(self.comparison, self.accuracy).sort_values('estimate', ascending=False)
        self.several = len(results.experiments) > 1

    def html(self) -> str:
        sections = [
            ('strategies', 'Who won, and at what cost', self._strategies()),
            ('accuracy', 'Accuracy and what it cost', self._accuracy()),
            ('networks', 'The networks', self._networks()),
            ('search', 'The search', self._search()),
            ('trials', 'Trials', self._trials()),
            ('failures', 'Failures', self._failures()),
            ('again', 'To do it again', self._again()),
            ('data', 'Data', self._data()),
        ]
        sections = [section for section in sections if section[2]]
        links = ''.join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in sections)
        body = '\n'.join(
            f'<section id="{key}"><h2>{escape(title)}</h2>\n{html}</section>' for key, title, html in sections
        )
        title = ', '.join(dict.fromkeys(str(name) for name in self.results.experiments.name))
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{self._lead()}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
<footer><p>Written by <code>python -m analysis report</code>.</p></footer>
</body>
</html>
"""

    def _lead(self) -> str:
        experiments = self.results.experiments
        failed = int(self.trials.failure.notna().sum())
        states = ', '.join(f'{n} {status}' for status, n in experiments.status.value_counts().items())
        seeds = ', '.join(str(seed) for seed in sorted(experiments.seed.dropna().unique()))
        facts = [
            f'{_count(len(experiments), "experiment")} ({states}), seed{"s" * self.several} {seeds}',
            _count(len(self.trials), 'trial'),
            f'{failed} without a result' if failed else 'none of them failed',
            f'{experiments.started.min():%d %B %Y}' if experiments.started.notna().any() else '',
        ]
        lead = f'<p class="lead">{escape(self._verdict())}</p>' if self._verdict() else ''
        note = f'<p class="note">{escape("; ".join(filter(None, facts)))}.</p>'
        return lead + note + self._mixture()

    def _verdict(self) -> str:
        if not self.means.estimate.notna().any():
            return 'No network was trained to its end yet.'
        best = self.means.iloc[0]
        macs = self.comparison[self.comparison.strategy == best.strategy].macs.mean()
        text = f'{best.strategy} has the highest mean {self.accuracy_name}, {_interval(best)}, at {_short(macs)} MACs.'
        if len(self.means) > 1 and pd.notna(self.means.iloc[1].estimate):
            second = self.means.iloc[1]
            text += f' Next is {second.strategy}, {_interval(second)}.'
        return text

    def _mixture(self) -> str:
        """Intervals over experiments mean something only where these differ in their seed alone."""
        flat = [dict(_flat(row.configuration)) for row in self.results.experiments.itertuples()]
        keys = dict.fromkeys(key for one in flat for key in one)
        differing = [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]
        differing = [key for key in differing if key != 'tuner.classArgs.seed']
        if not differing:
            return ''
        return (
            f'<p class="bad">These experiments differ in more than their seed ({escape(", ".join(differing[:8]))}): '
            'means and intervals over them mix what is not alike.</p>'
        )

    def _strategies(self) -> str:
        rows = []
        for mean in self.means.itertuples():
            own = self.comparison[self.comparison.strategy == mean.strategy]
            rows.append(
                {
                    'strategy': mean.strategy,
                    self.accuracy_name: _percent(mean.estimate),
                    '95% interval': f'{_percent(mean.low)} – {_percent(mean.high)}' if pd.notna(mean.low) else '–',
                    'n': mean.n,
                    'MACs': _thousands(own.macs.mean()),
                    'parameters': _thousands(own.params.mean()),
                    'epochs': _decimal(own.epochs.mean()),
                    'seconds': _thousands(own.seconds.mean()),
                    'failed': int(own.failed.sum()),
                }
            )
        means = _table(
            pd.DataFrame(rows),
            'Means over experiments. The interval is the percentile bootstrap of the mean over n experiments (seeds); '
            'with fewer than two there is none, and with a handful it says little. Epochs and seconds are of training, '
            'search included, tests not.',
        )
        single = pd.DataFrame(
            {
                'seed': self.comparison.experiment_seed,
                'strategy': self.comparison.strategy,
                'test': self.comparison.test_accuracy.map(_percent),
                'spread': self.comparison.test_spread.where(self.comparison.test_runs > 1).map(_percent),
                'test runs': self.comparison.test_runs,
                'validation': self.comparison.validation_accuracy.map(_percent),
                'LightNL': self.comparison.lightnl,
                'MACs': self.comparison.macs.map(_thousands),
                'parameters': self.comparison.params.map(_thousands),
                'epochs': self.comparison.epochs.map(_decimal),
                'seconds': self.comparison.seconds.map(_thousands),
            }
        )
        each = _table(
            single,
            'Each experiment: the retrained network of the highest validation accuracy. LightNL is row: channel '
            'ratio/stride; test is the mean of the test runs, spread their largest minus their smallest.',
        )
        return means + self._differences() + '<h3>Seed by seed</h3>' + each

    def _differences(self) -> str:
        if not self.several:
            return ''
        found = paired_differences(self.comparison, self.accuracy)
        found = found[found.n > 0]
        if found.empty:
            return ''
        frame = pd.DataFrame(
            {
                'strategy': found.strategy,
                'minus': found.than,
                'difference': found.estimate.map(_points),
                '95% interval': [
                    f'{_points(low)} to {_points(high)}' if pd.notna(low) else '–'
                    for low, high in zip(found.low, found.high)
                ],
                'n': found.n,
            }
        )
        return '<h3>Differences within a seed</h3>' + _table(
            frame,
            f'Means of the {self.accuracy_name} of the one minus that of the other in the same experiment, in '
            'percentage points; n is the number of such pairs.',
        )

    def _accuracy(self) -> str:
        ends = '; '.join(f'{row.strategy} {_percent(row.estimate)}' for row in self._final_best().itertuples())
        each = 'Mean over experiments from where each has a network; bands are bootstrap intervals of it (95%).'
        return _figures(
            _figure(
                lambda ax: plots.best_so_far(self.trials, 'epochs', ax),
                f'Best validation accuracy so far against epochs of training, by strategy. At the end: {ends}.',
                f'Best validation accuracy so far, against epochs. {each}',
            ),
            _figure(
                lambda ax: plots.best_so_far(self.trials, 'seconds', ax),
                f'Best validation accuracy so far against seconds of training, by strategy. At the end: {ends}.',
                f'The same against seconds. {each}',
            ),
            _figure(
                lambda ax: plots.accuracy_against_macs(self.trials, ax),
                'Validation accuracy of every retrained network against its MACs, and the Pareto front.',
                'Every retrained network: validation accuracy against MACs. No network is above and left of the front.',
            ),
        )

    def _final_best(self) -> pd.DataFrame:
        return strategy_means(self.comparison, 'validation_accuracy')

    def _networks(self) -> str:
        found = '; '.join(
            f'{row.strategy} seed {row.experiment_seed}: {row.lightnl}'
            for row in self.comparison.dropna(subset='lightnl').head(12).itertuples()
        )
        width = 5.4 if len(self.comparison) <= 9 else min(16.0, 0.7 * len(self.comparison))
        return _figures(
            _figure(
                lambda ax: plots.found_networks(self.trials, ax),
                f'The network that each strategy ends with, LightNL by row. {found}.',
                'The network that each strategy ends with. A disc is LightNL, large for a large channel ratio, a ring '
                'at a stride above 1.',
                width=width,
            ),
            _figure(
                lambda ax: plots.lightnl_positions(self.trials, ax),
                'Share of the networks of each strategy that have LightNL in a row, by channel ratio and stride.',
                'Where each strategy inserts LightNL: the share of its different retrained networks with this block.',
                height=max(3.6, 1.2 + 0.9 * len(self.means)),
            ),
        )

    def _search(self) -> str:
        trajectories, figures = self.results.trajectories, []
        searches = trajectories.drop_duplicates('trial').head(MOST_SEARCHES)
        seeds = self.results.experiments.set_index('experiment').seed
        for search in searches.itertuples():
            own = trajectories[trajectories.trial == search.trial]
            keys = set(own.label.str.replace(r'^.*/', '', regex=True))
            for key in [key for key in GATE_KEYS if key in keys]:
                last = own[(own.epoch == own.epoch.max()) & own.label.str.endswith(f'/{key}')]
                opened = ', '.join(last[last.gate == 1].label) or 'none'
                name = f'{search.strategy}, seed {seeds.get(search.experiment)}: {key}'
                figures.append(
                    _figure(
                        lambda ax, own=own, key=key: plots.gate_trajectories(own, key, ax),
                        f'Norm minus threshold of the gates of {key} by epoch, {name}. Open at the end: {opened}.',
                        f'{name}. A gate is open (full marks) while its norm is above its threshold.',
                    )
                )
        pairs = supernet_accuracy(self.trials)
        html = _figures(*figures) if figures else ''
        left_out = trajectories.trial.nunique() - len(searches)
        if left_out > 0:
            html += f'<p class="note">{_count(left_out, "further search", "further searches")}: trajectories.csv.</p>'
        if len(pairs):
            tau = rank_correlation(pairs.supernet_accuracy, pairs.retrained_accuracy)
            html += _figures(
                _figure(
                    lambda ax: plots.supernet_accuracy(pairs, ax),
                    f"Retrained against supernet accuracy of found networks. Kendall's tau {tau}.",
                    'What the supernet said of the networks that were found, and what training from scratch said, with '
                    "Kendall's τ, its bootstrap interval (95%) over networks, and their number n.",
                )
            )
        return html

    def _trials(self) -> str:
        figure = _figures(
            _figure(
                lambda ax: plots.timeline(self.trials, ax),
                f'Time line of {_count(len(self.trials), "trial")} by strategy and stage.',
                'When each trial ran, experiment by experiment; each line is a worker.',
                width=9.0,
                height=min(12.0, 2.2 + 0.8 * len(self.results.experiments)),
            )
        )
        shown = self.trials.head(MOST_ROWS)
        frame = pd.DataFrame(
            {
                'trial': shown.trial,
                'seed': shown.experiment_seed,
                'strategy': shown.strategy,
                'stage': shown.stage,
                'status': shown.status,
                'LightNL': shown.lightnl,
                'MACs': shown.macs.map(_thousands),
                'parameters': shown.params.map(_thousands),
                'validation': shown.validation_accuracy.map(_percent),
                'test': shown.test_accuracy.map(_percent),
                'epochs': shown.epochs.map(_decimal),
                'seconds': shown.seconds.map(_thousands),
            }
        )
        which = 'All' if len(shown) == len(self.trials) else f'The first {len(shown)} of {len(self.trials)}'
        table = _table(frame, f'{which} trials, in the order in which they were started; all columns: trials.csv.')
        return f'{figure}{self._time_use()}<details><summary>{which} trials</summary>{table}</details>'

    def _time_use(self) -> str:
        experiments = self.results.experiments
        workers = {row.experiment: row.configuration.get('trialConcurrency') for row in experiments.itertuples()}
        used = time_use(self.results, workers)
        if used.empty:
            return ''
        frame = pd.DataFrame(
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
        return _table(frame, "What the workers' time went into; a trial's start and end: medians.")

    def _failures(self) -> str:
        failed = self.trials[self.trials.failure.notna()]
        html = ''
        if len(failed):
            shown = failed.head(MOST_ROWS)
            frame = shown[['trial', 'experiment', 'strategy', 'stage', 'attempt', 'status', 'failure']]
            caption = f'{_count(len(failed), "trial")} without a result'
            caption += f'; the first {len(shown)} of them.' if len(shown) < len(failed) else '.'
            html += _table(frame, caption, wrap=('failure',))
        else:
            html += '<p>No trial failed.</p>'
        unreadable = self.results.unreadable
        if len(unreadable):
            html += '<h3>What could not be read</h3>' + _table(
                unreadable.head(MOST_ROWS), f'{_count(len(unreadable), "thing")}: unreadable.csv.', wrap=('reason',)
            )
        return html

    def _again(self) -> str:
        ids = ' '.join(self.results.experiments.experiment)
        configurations = ''.join(
            f'<details{" open" if number == 0 else ""}><summary>Configuration of {escape(row.experiment)}, '
            f'seed {row.seed}</summary>{_code(_yaml(row.configuration))}</details>'
            for number, row in enumerate(self.results.experiments.head(20).itertuples())
        )
        first = _configuration_file(self.results.experiments.experiment.iloc[0])
        commands = (
            f'# in the folder of the code, with this file in it:\nbash run.sh {first}\n'
            f'# this page, with the id that run.sh says; here: {ids}\npython -m analysis report ID --out report\n'
            '# one trial, from the file that it left in its folder:\n'
            'python -m trials run --parameters trial.json --out again'
        )
        read_with = {json.dumps(v) for v in self.results.experiments.versions}
        here = [json.loads(v) for v in sorted(read_with)] or [versions()]
        table = ''.join(
            _table(pd.DataFrame(sorted(one.items()), columns=['package', 'version']), 'Where the records were read.')
            for one in here
        )
        return (
            f'{_code(commands)}'
            '<p>A trial is a function of its parameters: on the same machine with the same versions it gives the same '
            'weights. Machines and seconds differ.</p>'
            f'{configurations}<h3>Versions</h3>{table}'
        )

    def _data(self) -> str:
        files = [
            'trials.csv',
            'metrics.csv',
            'trajectories.csv',
            'comparison.csv',
            'unreadable.csv',
            'experiments.json',
        ]
        links = ''.join(f'<li><a href="{name}">{name}</a></li>' for name in files)
        tables = ''
        for name in ('TRIALS', 'METRICS', 'TRAJECTORIES', 'COMPARISON'):
            meanings = getattr(columns, name)
            frame = pd.DataFrame(
                [(column, kind, meaning) for column, (kind, meaning) in meanings.items()],
                columns=['column', 'type', 'meaning'],
            )
            table = _table(
                frame, 'A further column for every label of the space.' if name == 'TRIALS' else '', ('meaning',)
            )
            tables += f'<details><summary>Columns of {name.lower()}.csv</summary>{table}</details>'
        return (
            f'<p>Beside this page, and read again with <code>analysis.read(FOLDER)</code>:</p><ul>{links}</ul>{tables}'
        )


def _table(frame: pd.DataFrame, caption: str, wrap: tuple[str, ...] = ()) -> str:
    """A table that scrolls sideways by itself where the screen is narrow; every cell escaped."""
    numeric = [column for column in frame if _looks_numeric(frame[column])]

    def classes(column):
        kind = 'number' if column in numeric else 'wrap' if column in wrap else ''
        return f' class="{kind}"' if kind else ''

    head = ''.join(f'<th scope="col"{classes(column)}>{escape(str(column))}</th>' for column in frame)
    rows = []
    for values in frame.itertuples(index=False, name=None):
        cells = zip(frame.columns, values)
        rows.append('<tr>' + ''.join(f'<td{classes(c)}>{escape(_text(v))}</td>' for c, v in cells) + '</tr>')
    note = f'<p class="note">{escape(caption)}</p>' if caption else ''
    name = escape(caption.partition('.')[0] or 'Table')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>'
        f'<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{note}\n'
    )


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


_NUMBER = re.compile(r'[+−-]?[\d,]+(\.\d+)?%?')


def _looks_numeric(values: pd.Series) -> bool:
    texts = [text for text in map(_text, values) if text != '–']
    return bool(texts) and all(_NUMBER.fullmatch(part) for text in texts for part in re.split(' – | to ', text))


def _text(value: Any) -> str:
    return '–' if value is None or value is pd.NA or value != value or value == '' else str(value)


def _figures(*figures: str) -> str:
    return f'<div class="figures">{"".join(figures)}</div>\n'


def _figure(draw: Callable, alternative: str, caption: str, width: float = 5.4, height: float = 3.6) -> str:
    """An image in the page itself; ``draw`` takes the axes."""
    file = io.BytesIO()
    with rc_context({'svg.hashsalt': 'autonl', 'font.family': 'DejaVu Sans'}), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph .* missing from font')  # in names that people gave
        figure = Figure(figsize=(width, height), layout='constrained')
        draw(figure.add_subplot())
        figure.savefig(file, format='svg', dpi=150, metadata={'Date': None})
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure{" class=wide" if width > 6 else ""}>'
        f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(alternative)}" '
        f'width="{width * 100:.0f}" height="{height * 100:.0f}">'
        f'<figcaption>{escape(caption)}</figcaption></figure>'
    )


def _flat(value: Any, prefix: str = ''):
    """``a.b.c`` and value of everything in nested dicts."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f'{prefix}.{key}' if prefix else str(key))
    else:
        yield prefix, value


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


def _short(value) -> str:
    return '–' if pd.isna(value) else f'{value / 1e6:.4g}M'


def _interval(mean) -> str:
    if pd.isna(mean.estimate):
        return 'unknown'
    bounds = f' [{_percent(mean.low)}, {_percent(mean.high)}]' if pd.notna(mean.low) else ''
    return f'{_percent(mean.estimate)}{bounds} (n = {mean.n})'
