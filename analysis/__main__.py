"""``python -m analysis``: an experiment's table, its report, and its results to take along."""

from __future__ import annotations

import functools
import io
import math
import sys
import time
from pathlib import Path

from search_space.entry_point import Parser, path_argument, print_error, run
from search_space.progress import LINE_SECONDS
from search_space.rules import one_line
from search_space.slow_imports import slow_imports
from search_space.whole_file import check_folder, check_writable, write_whole

FORMATS = {
    'macs': '{:,.0f}',
    'params': '{:,.0f}',
    'validation_accuracy': '{:.2%}',
    'test_accuracy': '{:.2%}',
    'test_spread': '{:.2%}',
    'epochs': '{:.1f}',
    'seconds': '{:.0f}',
}

PLOTS = (
    'accuracy-against-macs',
    'best-so-far',
    'found-networks',
    'gate-trajectories',
    'lightnl-positions',
    'timeline',
)
"""Functions of :mod:`.plots`, as the command calls them."""

PICTURES = ('png', 'svg', 'pdf')

SEVERAL = "NNI's id of it, its folder, the URL of its web UI while it runs, or a folder of exported results"


def parser() -> Parser:
    top = Parser(prog='python -m analysis', description='Look at the results of experiments.')
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
    table = commands.add_parser(
        'table',
        help='compare the strategies of an experiment',
        description='Print, per strategy, the network it found, its accuracy, and what that cost.',
    )
    table.set_defaults(run=_table)
    table.add_argument(
        'experiment',
        nargs='?',
        help="NNI's id of it, its folder, or the URL of its web UI while it runs; the latest one by default",
    )
    table.add_argument('--wait', action='store_true', help='show its progress until it is done, then print')
    table.add_argument('--csv', action='store_true', help='comma-separated values instead of aligned columns')
    report = commands.add_parser(
        'report',
        help='write a page with tables, plots, failures and configuration, and the data as CSV',
        description='Write report.html, one page that needs nothing else, and the data frames as CSV beside it.',
    )
    report.set_defaults(run=_report)
    export = commands.add_parser(
        'export',
        help='write what is known of experiments to a folder that analysis reads again, on any machine',
        description='Write the data frames of experiments as CSV and JSON; nothing in them says which machine it was.',
    )
    export.set_defaults(run=_export)
    plot = commands.add_parser(
        'plot',
        help='draw one of the plots of the report as a file',
        description='Draw one of the plots of the report as a file.',
    )
    plot.set_defaults(run=_plot)
    plot.add_argument('plot', choices=PLOTS, help='which')
    plot.add_argument('experiment', nargs='*', help=f'{SEVERAL}; the latest one by default')
    plot.add_argument(
        '--out', type=path_argument, required=True, metavar='FILE', help='the picture, a .png, .svg or .pdf file'
    )
    for command, what in ((report, 'the page and the data'), (export, 'the data')):
        command.add_argument('experiment', nargs='*', help=f'{SEVERAL}; the latest one by default')
        command.add_argument('--out', type=path_argument, required=True, metavar='DIR', help=f'where {what} go')
    return top


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    return run('python -m analysis', functools.partial(args.run, args))


def _report(args) -> int:
    check_folder(args.out)
    with slow_imports():
        from .report import write_report
        from .result_set import read

    page = write_report(read(*args.experiment), args.out)
    print(f'Report: {page.absolute()}')
    return 0


def _export(args) -> int:
    check_folder(args.out)
    with slow_imports():
        from .result_set import read

    files = read(*args.experiment).save(args.out)
    print(f'wrote {sum(file.stat().st_size for file in files):,} bytes to {args.out}')
    return 0


def _plot(args) -> int:
    check_writable(args.out)
    kind = Path(args.out).suffix.lower().removeprefix('.')
    if kind not in PICTURES:
        raise ValueError(f'{args.out}: a picture is a file whose name ends in {", ".join(f".{k}" for k in PICTURES)}')
    with slow_imports():
        from . import plots
        from .result_set import read

    results, content = read(*args.experiment), io.BytesIO()
    frame = results.trajectories if args.plot == 'gate-trajectories' else results.trials
    figure = getattr(plots, args.plot.replace('-', '_'))(frame).figure
    figure.savefig(content, format=kind, bbox_inches='tight', dpi=150)
    write_whole(args.out, content.getvalue())
    return 0


def _table(args) -> int:
    with slow_imports():
        from .changed_file import changed_file
        from .completeness import completeness, first_reason, status_of, tuner_log
        from .experiment import GOING_ON, Experiment, find_experiment
        from .result_set import csv_of
        from .tables import comparison, frames, time_use

    experiment = find_experiment(args.experiment)
    arguments = experiment.tuner_arguments()
    if isinstance(experiment, Experiment) and experiment.status() in GOING_ON and (changed := changed_file(experiment)):
        print_error(f'python -m analysis: {changed}')
    nni = _wait(experiment) if args.wait else experiment.status()
    read = frames(experiment)
    planned = completeness(arguments, read.trials, tuner_log(experiment))
    status = status_of(nni, planned)
    if read.trials.empty:
        reason, log = first_reason(experiment, read.trials)
        why = ' yet' if nni in GOING_ON else f'; the first reason: {reason}{f"; see {log}" if log else ""}'
        raise ValueError(f'experiment {experiment.id} is empty: no trial was started in it{why}')
    frame = comparison(read.trials).drop(columns=['experiment', 'experiment_seed'])
    if args.csv:
        print(csv_of(frame), end='')
    else:
        print(f'Experiment {experiment.id}: {status}')
        formatters = {column: _formatter(template) for column, template in FORMATS.items()}
        print(frame.set_index('strategy').to_string(formatters=formatters, na_rep='-'))
        for one in planned:
            print(f'{one.strategy}: {one.text()}')
        workers = experiment.profile()['params'].get('trialConcurrency')
        seconds = _formatter('{:.1f}')
        for row in time_use(read, {experiment.id: workers}).itertuples():
            print(
                f'{row.wall_clock / 60:.1f} minutes with {row.workers} workers, {row.not_training:.0%} of it not '
                f'training: {row.trial_overhead:.0%} in the start and end of trials (median '
                f'{seconds(row.trial_start)} s and {seconds(row.trial_end)} s), {row.idle:.0%} without a trial'
            )
        if isinstance(experiment, Experiment):
            print(f'Trials, their logs and networks: {one_line(experiment.folder)}')
    if status in (*GOING_ON, 'DONE'):
        return int(args.wait and status != 'DONE')
    lacking = '; '.join(f'{one.strategy}: {one.missing}' for one in planned if one.missing)
    reason, log = first_reason(experiment, read.trials)
    lacking = f'missing: {lacking}; ' if lacking else ''
    why = f'{lacking}the first reason: {reason}{f"; see {log}" if log else ""}'
    print_error(f'python -m analysis: experiment {experiment.id} is {status}; {why}')
    if status in ('ERROR', 'STOPPED'):
        again = f'bash run.sh resume {experiment.id}, or nnictl stop {experiment.id} && nnictl resume {experiment.id}'
        print_error(f'To go on from where it was, as it was configured then: {again}')
    return 1


def _formatter(template: str):
    import pandas as pd

    return lambda value: '-' if pd.isna(value) else template.format(value)


def _wait(experiment, poll_seconds: float = 2.0) -> str:
    """Show what was spent, of all that the budgets allow for, until the experiment has ended; its status."""
    from tqdm import tqdm

    from .experiment import GOING_ON, Experiment
    from .tables import trials

    arguments = experiment.tuner_arguments()
    unit, total = arguments.get('budget_unit', 'epochs'), total_budget(arguments)
    hosts = _HostWatch(experiment) if isinstance(experiment, Experiment) else None
    said = -math.inf
    lines = not sys.stderr.isatty()  # what is written over is for a terminal
    shape = {'bar_format': _BAR if math.isfinite(total) else _COUNT, 'unit': f' {unit}', 'disable': lines}
    with tqdm(total=total, desc=f'Experiment {experiment.id}', **shape) as bar:
        while True:
            status = experiment.status()
            if hosts is not None:
                hosts.look(ended=status in ('STOPPED', 'ERROR'))
            frame = trials(experiment)
            so_far = min(total, spent(frame, unit))
            running = [f'{row.strategy} {row.stage}' for row in frame[frame.status == 'RUNNING'].itertuples()]
            # NNI has a status of its own for a worker that waits for a trial, though others run.
            state = f'{"RUNNING" if running else status}; running: {", ".join(running) or "-"}'
            if lines and time.monotonic() - said >= LINE_SECONDS:
                print(f'{so_far:.0f} of {total:.0f} {unit}; {state}', file=sys.stderr, flush=True)
                said = time.monotonic()
            bar.n, bar.postfix = so_far, state
            bar.refresh()
            if status not in GOING_ON:
                return status
            time.sleep(poll_seconds)


class _HostWatch:
    """Says once of each host that does not answer what can be done; NNI 3.0 itself does not notice.

    Of an experiment of this machine: from another one its hosts need not be within reach.
    """

    def __init__(self, experiment, seconds: float = 30.0):
        self.experiment, self.seconds = experiment, seconds
        self.next, self.silent, self.told = 0.0, set(), set()

    def look(self, ended: bool) -> None:
        """Look at all hosts, now and then; ``ended`` says that NNI's manager is gone."""
        from tqdm import tqdm

        if time.monotonic() < self.next and not ended:
            return
        silent = set(self.experiment.silent_hosts())
        for host in sorted(silent & (silent if ended else self.silent) - self.told):
            tqdm.write(
                f'Host {host} does not answer, and NNI waits for its trials. If it does not come back:\n'
                f'  python -m trials drop-host {self.experiment.id} {host}',
                file=sys.stderr,
            )
            self.told.add(host)
        self.silent, self.next = silent, time.monotonic() + self.seconds


def total_budget(arguments: dict) -> float:
    """What all strategies may spend, in the unit of their budget, tests included where it is known what they cost.

    Infinite where the arguments do not say it, as those of another version may.
    """
    try:
        tests = arguments.get('test_runs', 1)
        of_tests = {'epochs': tests * arguments['retrain']['epochs'], 'trials': tests, 'seconds': 0}
        return len(arguments['strategies']) * (arguments['budget'] + of_tests[arguments.get('budget_unit', 'epochs')])
    except (KeyError, TypeError):
        return math.inf


def spent(trials, unit: str) -> float:
    """What ``trials`` have spent so far in this unit, as :func:`total_budget` counts it."""
    if unit == 'trials':
        return float((trials.status == 'SUCCEEDED').sum())
    if unit == 'seconds':
        return float(trials[trials.stage != 'test'].seconds.sum())
    return float(trials.epochs.fillna(trials.last_epoch.astype('Float64')).sum())


_BAR = '{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f}{unit} [{elapsed}] {postfix}'

_COUNT = '{desc}: {n:.0f}{unit} [{elapsed}] {postfix}'

if __name__ == '__main__':
    sys.exit(main())
