"""``python -m analysis``: an experiment's table, its report, and its results to take along."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

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

SEVERAL = "NNI's id of it, its folder, the URL of its web UI while it runs, or a folder of exported results"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; how it is used, ``--help`` says."""

    def error(self, message: str):
        self.exit(2, f'{self.prog}: {message}\n')


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog='python -m analysis', description='Look at the results of experiments.')
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
    plot.add_argument('--out', required=True, type=Path, metavar='FILE', help='the picture, a .png, .svg or .pdf file')
    for command, what in ((report, 'the page and the data'), (export, 'the data')):
        command.add_argument('experiment', nargs='*', help=f'{SEVERAL}; the latest one by default')
        command.add_argument('--out', required=True, type=Path, metavar='DIR', help=f'where {what} go')
    return top


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except BrokenPipeError:  # whoever read the output has enough of it, as in | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f'python -m analysis: {error}', file=sys.stderr)
        return 2


def _report(args) -> int:
    from .report import write_report
    from .result_set import read

    page = write_report(read(*args.experiment), args.out)
    print(f'Report: {page.absolute()}')
    return 0


def _export(args) -> int:
    from .result_set import read

    files = read(*args.experiment).save(args.out)
    print(f'wrote {sum(file.stat().st_size for file in files):,} bytes to {args.out}')
    return 0


def _plot(args) -> int:
    from . import plots
    from .result_set import read

    results = read(*args.experiment)
    frame = results.trajectories if args.plot == 'gate-trajectories' else results.trials
    figure = getattr(plots, args.plot.replace('-', '_'))(frame).figure
    figure.savefig(args.out, bbox_inches='tight', dpi=150)
    return 0


def _table(args) -> int:
    from .experiment import find_experiment
    from .tables import comparison, frames, time_use

    experiment = find_experiment(args.experiment)
    experiment.tuner_arguments()
    status = _wait(experiment) if args.wait else experiment.status()
    read = frames(experiment)
    if read.trials.empty and not args.wait:
        raise ValueError(f'experiment {experiment.id} is empty: no trial was started in it yet')
    frame = comparison(read.trials).drop(columns=['experiment', 'experiment_seed']).set_index('strategy')
    if args.csv:
        print(frame.to_csv(), end='')
        return _exit_status(args, status)
    print(f'Experiment {experiment.id}: {status}')
    formatters = {column: _formatter(template) for column, template in FORMATS.items()}
    print(frame.to_string(formatters=formatters, na_rep='-'))
    seconds = _formatter('{:.1f}')
    for row in time_use(read, {experiment.id: experiment.profile()['params']['trialConcurrency']}).itertuples():
        print(
            f'{row.wall_clock / 60:.1f} minutes with {row.workers} workers, {row.not_training:.0%} of it not training: '
            f'{row.trial_overhead:.0%} in the start and end of trials (median {seconds(row.trial_start)} s and '
            f'{seconds(row.trial_end)} s), {row.idle:.0%} without a trial'
        )
    folder = getattr(experiment, 'folder', None)
    if folder is not None:
        print(f'Trials, their logs and networks: {folder}')
        if status == 'ERROR':
            print(f'NNI gave up; why is at the end of: {folder / "log" / "nnictl_stderr.log"}')
            print(f'To go on from where it was: nnictl stop {experiment.id} && nnictl resume {experiment.id}')
    return _exit_status(args, status)


def _exit_status(args, status: str) -> int:
    return 1 if args.wait and status != 'DONE' else 0


def _formatter(template: str):
    import pandas as pd

    return lambda value: '-' if pd.isna(value) else template.format(value)


def _wait(experiment, poll_seconds: float = 2.0) -> str:
    """Show what was spent, of all that the budgets allow for, until the experiment has ended; its status."""
    from tqdm import tqdm

    from .experiment import Experiment
    from .tables import trials

    arguments = experiment.tuner_arguments()
    unit, total = arguments.get('budget_unit', 'epochs'), total_budget(arguments)
    hosts = _HostWatch(experiment) if isinstance(experiment, Experiment) else None
    with tqdm(total=total, unit=unit, desc=f'Experiment {experiment.id}', bar_format=_BAR) as bar:
        while True:
            status = experiment.status()
            if hosts is not None:
                hosts.look(ended=status in ('STOPPED', 'ERROR'))
            frame = trials(experiment)
            bar.n = min(total, spent(frame, unit))
            running = [f'{row.strategy} {row.stage}' for row in frame[frame.status == 'RUNNING'].itertuples()]
            bar.set_postfix_str(f'{status}; running: {", ".join(running) or "-"}')
            if status not in ('INITIALIZED', 'RUNNING', 'NO_MORE_TRIAL', 'TUNER_NO_MORE_TRIAL'):
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
    """What all strategies may spend, in the unit of their budget, tests included where it is known what they cost."""
    tests = arguments.get('test_runs', 1)
    of_tests = {'epochs': tests * arguments['retrain']['epochs'], 'trials': tests, 'seconds': 0}
    return len(arguments['strategies']) * (arguments['budget'] + of_tests[arguments.get('budget_unit', 'epochs')])


def spent(trials, unit: str) -> float:
    """What ``trials`` have spent so far in this unit, as :func:`total_budget` counts it."""
    if unit == 'trials':
        return float((trials.status == 'SUCCEEDED').sum())
    if unit == 'seconds':
        return float(trials[trials.stage != 'test'].seconds.sum())
    return float(trials.epochs.fillna(trials.last_epoch.astype('Float64')).sum())


_BAR = '{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}, {postfix}]'


if __name__ == '__main__':
    sys.exit(main())
