"""What AutoNL's search finds, seed by seed: ``python benchmarks/quality/search_seeds.py --seeds 10 --retrain``.

Each search is a trial of ``experiment.yaml``'s ``autonl``, with its ``max_macs``, run outside NNI. ``--retrain`` trains
what it found from scratch, and only then test data is looked at, and once more the largest network of the space, for
the time that takes.
``--vary`` repeats the seeds at several values of one setting:

    python benchmarks/quality/search_seeds.py --seeds 3 --vary cost_weight 0.1 1 10 100
    python benchmarks/quality/search_seeds.py --seeds 10 --vary target_macs 1.66e6 1.7e6
    python benchmarks/quality/search_seeds.py --seeds 10 --vary target_macs '[1.63e6, 1.66e6, 1.7e6]'  # a front
    python benchmarks/quality/search_seeds.py --seeds 10 --set dataset/canvases=600 epochs=8 warmup_epochs=3
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402
import yaml  # noqa: E402
from scipy.stats import binomtest  # noqa: E402

from benchmarks.kept_rows import digest, in_any_order, keep, keys, read_rows  # noqa: E402
from benchmarks.quiet import quiet  # noqa: E402
from benchmarks.whole_number import whole_number  # noqa: E402
from search_space.entry_point import Parser, path_argument, whole_argument  # noqa: E402
from search_space.entry_point import run as run_command  # noqa: E402
from search_space.read_file import parse_json, read_text  # noqa: E402
from search_space.rules import whole  # noqa: E402
from search_space.skeleton_file import load_skeleton  # noqa: E402
from search_space.whole_file import check_writable  # noqa: E402
from search_space.yaml_mapping import read_mapping  # noqa: E402
from trials.identity import skeleton_content  # noqa: E402

KEY = ['settings', 'seed']
FORMATS = {
    'macs': '{:,.0f}',
    'supernet_accuracy': '{:.2%}',
    'test_accuracy': '{:.2%}',
    'cpu_seconds': '{:.0f}',
    'largest_cpu_seconds': '{:.0f}',
}


def search(job: dict) -> list[dict]:
    """The rows of one search: one, or where it has several budgets one for each."""
    from search_space import macs
    from strategies.experiment.seeds import derived_seed
    from trials.parameters import TrialParameters
    from trials.run import run_trial

    quiet()

    def run(parameters: dict) -> dict:
        started = time.process_time()  # of this process: what else the machine does adds little to it
        result = run_trial(TrialParameters.from_flat(parameters), lambda metrics: None)[0]
        return result | {'cpu_seconds': time.process_time() - started}

    result = run(job['search'])
    skeleton = load_skeleton(job['search']['skeleton'])
    cost, rows = macs(skeleton), []
    found = {label: result[label] for label in skeleton.choices()}
    values = job['value'] if isinstance(job['value'], list) else [job['value']]
    for value, network in zip(values, result.get('front', [found]), strict=True):
        positions = skeleton.lightnl_positions(network)
        row = {
            **dict(zip(KEY, identity(job))),
            'value': value,
            'lightnl': ', '.join(f'{n}: {ratio:g}/{stride}' for n, (ratio, stride) in positions.items()) or 'none',
            'macs': cost(network),
            'supernet_accuracy': result['default'] if network == found else None,
            'cpu_seconds': result['cpu_seconds'],
        }
        if job['retrain']:
            largest = cost.largest()
            row['largest_cpu_seconds'] = run({**job['retrain'], 'stage': 'retrain', **largest})['cpu_seconds']
            tested = {**job['retrain'], 'stage': 'test', 'seed': derived_seed(row['seed'], 'test'), **network}
            row['test_accuracy'] = run(tested)['test_accuracy']
        rows.append(row)
    return rows


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=whole_number, default=10, metavar='N', help='number of them (default: 10)')
    parser.add_argument('--first-seed', type=whole_argument(whole(0, 2**63 - 1)), default=0, metavar='N')
    parser.add_argument('--processes', type=whole_number, default=os.cpu_count(), help='at once (default: one per CPU)')
    parser.add_argument(
        '--experiment', type=Path, default=ROOT / 'experiment.yaml', help='whose search (default: ours)'
    )
    parser.add_argument('--vary', nargs='+', metavar=('NAME', 'VALUE'), help='an argument of AutoNL or of the recipe')
    parser.add_argument(
        '--set',
        nargs='*',
        default=[],
        metavar='NAME=VALUE',
        help='arguments of AutoNL or of the search recipe to change',
    )
    parser.add_argument('--retrain', action='store_true', help='train what was found, and the largest network')
    parser.add_argument(
        '--csv',
        type=path_argument,
        metavar='FILE',
        help='keep each row there as soon as it is known; rows there are not redone',
    )
    parser.add_argument('--print', action='store_true', help='print what is in the CSV, and search nothing')
    args = parser.parse_args()
    name, *values = args.vary or ['']
    if args.print:
        if args.csv is None:
            parser.error('--print needs --csv, the file')
        report(read_rows(args.csv, [*KEY, 'value', 'lightnl', 'macs', 'cpu_seconds']), name)
        return
    if args.csv:
        check_writable(args.csv)  # before the first search
    values = [parse_json(value, '--vary') for value in values] or ['']
    experiment = read_mapping(read_text(args.experiment), str(args.experiment), 'an experiment is a mapping')
    try:
        arguments = experiment['tuner']['classArgs']
        strategy = dict(arguments['strategies']['autonl'])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{args.experiment}: it has no tuner.classArgs.strategies.autonl, a mapping') from None
    common = {'strategy': 'autonl', 'skeleton': arguments['skeleton']}
    searching = {**common, 'stage': 'search', **arguments['search'], 'class': strategy.pop('class')}
    searching.update({f'class/{key}': value for key, value in strategy.items()})
    if arguments.get('max_macs') is not None and 'latency' not in strategy:
        searching.setdefault('class/target_macs', arguments['max_macs'])  # as in the experiment
    for change in args.set:
        key, _, value = change.partition('=')
        searching[_place(key, searching)] = yaml.safe_load(value)
    jobs = []
    for value in values:
        changed = {_place(name, searching): value} if name else {}
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            retrain = {**common, **arguments['retrain'], 'seed': seed} if args.retrain else None
            jobs.append({'value': value, 'search': {**searching, **changed, 'seed': seed}, 'retrain': retrain})
    frame = read_rows(args.csv, KEY)
    wanted, done = {identity(job): job for job in jobs}, set(keys(frame, KEY))
    left = [job for key, job in wanted.items() if key not in done]
    frame = keep(frame, args.csv, in_any_order(search, left, args.processes), 'searches', len(left))
    report(frame[[key in wanted for key in keys(frame, KEY)]], name)


def _place(name: str, searching: dict) -> str:
    """The key of a trial's flat parameters that holds a setting."""
    from trials.parameters import RULES

    return name if name in searching or name in RULES or '/' in name else f'class/{name}'


def interval(hits: int, tries: int) -> str:
    """The 95% interval of the rate, exact (Clopper and Pearson, 1934)."""
    low, high = binomtest(int(hits), tries).proportion_ci(method='exact')
    return f'{low:.0%} to {high:.0%}'


def identity(job: dict) -> tuple:
    """What tells a search's rows from those of others, in the order of :data:`KEY`."""
    recipes = [{**recipe, 'seed': 0} for recipe in (job['search'], job['retrain']) if recipe]
    skeleton = skeleton_content(load_skeleton(job['search']['skeleton']))
    return digest([*recipes, skeleton]), job['search']['seed']


def report(frame: pd.DataFrame, name: str) -> None:
    """Print the rows, and below them what the seeds of each value come to; of each value and settings, where the CSV
    has several settings of a value."""
    number = pd.to_numeric(frame.value, errors='coerce')
    text = frame.value.map(str).where(frame.value.notna(), '')
    frame = frame.assign(value=number if number.notna().all() else text, number=number)
    frame = frame.sort_values(['number', 'value', 'settings', 'seed']).drop(columns='number')
    several = {value: settings.nunique() > 1 for value, settings in frame.groupby('value').settings}
    table = frame.rename(columns={'value': name}) if name else frame.drop(columns='value')
    table = table if any(several.values()) else table.drop(columns='settings')
    print(table.to_string(index=False, na_rep='-', formatters={key: form.format for key, form in FORMATS.items()}))
    for (value, settings), of_value in frame.groupby(['value', 'settings'], sort=False):
        positions = of_value.lightnl.map(lambda text: [] if text == 'none' else text.split(', '))
        at_row_1 = positions.map(lambda found: any(position.startswith('1: ') for position in found))
        others = positions.map(len) - at_row_1
        print(
            f'{name} {value}: ' * bool(name)
            + f'settings {settings}: ' * several[value]
            + f'of {len(of_value)} at row 1: {at_row_1.sum()} '
            f'({interval(at_row_1.sum(), len(of_value))}), alone: {(at_row_1 & (others == 0)).sum()}; '
            f'at no more than one other row: {(others <= 1).sum()}; '
            f'without LightNL: {(positions.map(len) == 0).sum()}; '
            f'MACs: median {of_value.macs.median():,.0f}, {of_value.macs.min():,.0f} to {of_value.macs.max():,.0f}'
        )
        seconds = of_value.cpu_seconds
        print(f'  CPU seconds of a search: {seconds.min():.0f} to {seconds.max():.0f}')
        if name == 'target_macs' and value != '':
            print(f'  at or below the budget: {(of_value.macs <= float(value)).sum()} of {len(of_value)}')
        if 'test_accuracy' in of_value and of_value.test_accuracy.notna().any():
            ratio = of_value.cpu_seconds / of_value.largest_cpu_seconds
            print(
                f'  test accuracy: mean {of_value.test_accuracy.mean():.2%}, standard deviation '
                f'{of_value.test_accuracy.std():.2%}; search / training of the largest network: median '
                f'{ratio.median():.2f}, {ratio.min():.2f} to {ratio.max():.2f}'
            )


if __name__ == '__main__':
    sys.exit(run_command('search_seeds.py', main))
