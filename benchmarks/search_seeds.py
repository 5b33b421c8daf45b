"""What AutoNL's search finds, seed by seed: ``python benchmarks/search_seeds.py --seeds 10``.

Each search is a trial of ``experiment.yaml``'s ``autonl``, run outside NNI. Test data is not looked at.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from pathlib import Path

import pandas as pd
import yaml
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def search(parameters: dict) -> dict:
    """One row of the table."""
    import logging

    from search_space import load_skeleton
    from trials.parameters import TrialParameters
    from trials.train import run_trial

    logging.getLogger('pytorch_lightning').setLevel(logging.ERROR)
    result, _ = run_trial(TrialParameters.from_flat(parameters), lambda metrics: None)
    skeleton = load_skeleton(parameters['skeleton'])
    positions = skeleton.lightnl_positions({label: result[label] for label in skeleton.choices()})
    return {
        'seed': parameters['seed'],
        'lightnl': ', '.join(f'{row}: {ratio:g}/{stride}' for row, (ratio, stride) in positions.items()) or 'none',
        'macs': result['macs'],
        'validation_accuracy': result['default'],
        'seconds': result['seconds'],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, default=10, metavar='N', help='seeds 0 to N - 1 (default: 10)')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='searches at once (default: one per CPU)')
    parser.add_argument(
        '--experiment', type=Path, default=ROOT / 'experiment.yaml', help='whose search (default: ours)'
    )
    parser.add_argument(
        '--set',
        nargs='*',
        default=[],
        metavar='NAME=VALUE',
        help='arguments of AutoNL, or of the search recipe, to change',
    )
    args = parser.parse_args()
    arguments = yaml.safe_load(args.experiment.read_text())['tuner']['classArgs']
    strategy = dict(arguments['strategies']['autonl'])
    parameters = {'strategy': 'autonl', 'stage': 'search', 'skeleton': arguments['skeleton'], **arguments['search']}
    parameters.update({'class': strategy.pop('class'), **{f'class/{key}': value for key, value in strategy.items()}})
    for change in args.set:
        name, _, value = change.partition('=')
        parameters[name if name in parameters else f'class/{name}'] = yaml.safe_load(value)
    jobs = [{**parameters, 'seed': seed} for seed in range(args.seeds)]
    with multiprocessing.get_context('spawn').Pool(args.processes) as pool:
        rows = list(tqdm(pool.imap_unordered(search, jobs), total=len(jobs), unit='search'))
    table = pd.DataFrame(rows).set_index('seed').sort_index()
    print(table.to_string(formatters={'macs': '{:,}'.format, 'validation_accuracy': '{:.2%}'.format}))
    alone = table.lightnl.str.startswith('1: ') & ~table.lightnl.str.contains(',')
    print(f'at row 1 and at no other: {alone.sum()} of {len(table)}')


if __name__ == '__main__':
    main()
