"""``python -m analysis table``: the comparison of an experiment's strategies, now or once it is done."""

from __future__ import annotations

import argparse
import sys
import time

from tqdm import tqdm

from .experiment import Experiment, find_experiment
from .tables import comparison, trials

FORMATS = {
    'macs': '{:,.0f}',
    'params': '{:,.0f}',
    'validation_accuracy': '{:.2%}',
    'test_accuracy': '{:.2%}',
    'test_spread': '{:.2%}',
    'epochs': '{:.1f}',
    'seconds': '{:.0f}',
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m analysis', description='Look at the results of an experiment.')
    commands = parser.add_subparsers(dest='command', required=True)
    table = commands.add_parser(
        'table',
        help='compare the strategies of an experiment',
        description='Print, per strategy, the network it found, its accuracy, and what that cost.',
    )
    table.add_argument('experiment', nargs='?', help="NNI's id of it, or its folder; the latest one by default")
    table.add_argument('--wait', action='store_true', help='show its progress until it is done, then print')
    table.add_argument('--csv', action='store_true', help='comma-separated values instead of aligned columns')
    args = parser.parse_args(arguments)
    try:
        experiment = find_experiment(args.experiment)
        experiment.tuner_arguments()
        status = _wait(experiment) if args.wait else experiment.status()
        frame = comparison(experiment)
    except ValueError as error:
        print(f'python -m analysis: {error}', file=sys.stderr)
        return 2
    if args.csv:
        print(frame.to_csv(), end='')
    else:
        print(f'Experiment {experiment.id}: {status}')
        print(frame.to_string(formatters={k: f.format for k, f in FORMATS.items()}, na_rep='-'))
        print(f'Trials, their logs and networks: {experiment.folder}')
        if status == 'ERROR':
            print(f'NNI gave up; why is at the end of: {experiment.folder / "log" / "nnictl_stderr.log"}')
    return 1 if args.wait and status != 'DONE' else 0


def _wait(experiment: Experiment, poll_seconds: float = 2.0) -> str:
    """Show trained epochs, of all that the budgets allow for, until the experiment has ended; its status."""
    arguments = experiment.tuner_arguments()
    strategies, tests = len(arguments['strategies']), arguments.get('test_runs', 1)
    total = strategies * (arguments['budget'] + tests * arguments['retrain']['epochs'])
    hosts = _HostWatch(experiment)
    with tqdm(total=total, unit='epoch', desc=f'Experiment {experiment.id}', bar_format=_BAR) as bar:
        while True:
            status = experiment.status()
            hosts.look(ended=status in ('STOPPED', 'ERROR'))
            bar.n = min(total, _epochs_so_far(experiment))
            running = _running(experiment)
            bar.set_postfix_str(f'{status}; running: {running or "-"}')
            if status not in ('INITIALIZED', 'RUNNING', 'NO_MORE_TRIAL', 'TUNER_NO_MORE_TRIAL'):
                return status
            time.sleep(poll_seconds)


class _HostWatch:
    """Says once of each host that does not answer what can be done; NNI 3.0 itself does not notice."""

    def __init__(self, experiment: Experiment, seconds: float = 30.0):
        self.experiment, self.seconds = experiment, seconds
        self.next, self.silent, self.told = 0.0, set(), set()

    def look(self, ended: bool) -> None:
        """Look at all hosts, now and then; ``ended`` says that NNI's manager is gone."""
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


_BAR = '{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} epochs [{elapsed}<{remaining}, {postfix}]'


def _epochs_so_far(experiment: Experiment) -> float:
    final, periodical = {}, {}
    for metric in experiment.metrics():
        data = metric['data']
        if metric['type'] == 'FINAL':
            final[metric['trialJobId']] = data.get('epochs', 0)
        else:
            periodical[metric['trialJobId']] = data.get('epoch', 0)
    return sum({**periodical, **final}.values())


def _running(experiment: Experiment) -> str:
    frame = trials(experiment)
    running = frame[frame.status == 'RUNNING']
    return ', '.join(f'{row.strategy} {row.stage}' for row in running.itertuples())


if __name__ == '__main__':
    sys.exit(main())
